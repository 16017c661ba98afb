//! Signals to processes and threads.

use std::sync::atomic::Ordering::SeqCst;

use crate::sys;
use crate::sys::{
    CAME, Do, LAST, ORDER, ORDERED, SPARE, Status, came, child, good, kill, mask, on, on_masked, pending, pid, pipe,
    wait,
};
use crate::{cases, check, refused, same};

/// `rt_sigqueueinfo` to ourselves with a value.
fn queue(signal: i32, value: u64) -> sys::Sys {
    queue_to(pid(), signal, value)
}

fn queue_to(to: i32, signal: i32, value: u64) -> sys::Sys {
    let mut info = [0u64; 16];
    info[0] = signal as u64;
    info[1] = libc::SI_QUEUE as u32 as u64;
    info[2] = pid() as u64;
    info[3] = value;
    sys!(SYS_rt_sigqueueinfo, to, signal, info.as_ptr())
}

/// The recorded signals in order, as (signal, value).
fn order() -> Vec<(i32, u32)> {
    ORDER.iter().take(ORDERED.load(SeqCst)).map(|e| ((e.load(SeqCst) >> 32) as i32, e.load(SeqCst) as u32)).collect()
}

cases! {
    fn signal_runs_the_handler [rt_sigaction, kill, rt_sigreturn] {
        on(libc::SIGUSR1, Do::Count, 0)?;
        for n in 1..=100 {
            kill(pid(), libc::SIGUSR1)?;
            same!(came(libc::SIGUSR1), n);
        }
        same!(LAST[0].load(SeqCst) as i32, libc::SI_USER);
        same!(LAST[1].load(SeqCst) as i32, pid());
        Ok(())
    }

    fn signal_defaults [kill, rt_sigaction] {
        let fatal = [
            libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT, libc::SIGBUS,
            libc::SIGFPE, libc::SIGUSR1, libc::SIGSEGV, libc::SIGUSR2, libc::SIGPIPE, libc::SIGALRM, libc::SIGTERM,
            libc::SIGSTKFLT, libc::SIGXCPU, libc::SIGXFSZ, libc::SIGVTALRM, libc::SIGPROF, libc::SIGIO, libc::SIGPWR,
            libc::SIGSYS, 32, 64,
        ];
        for signal in fatal {
            let pid = child(|| {
                // The kernel's number: the C library keeps some real-time signals for itself.
                let default = [0u64; 4];
                sys!(SYS_rt_sigaction, signal, default.as_ptr(), 0usize, 8usize)?;
                kill(pid(), signal)?;
                Ok(())
            })?;
            same!((signal, wait(pid, 0)?), (signal, Status::Killed(signal)));
        }
        for signal in [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGCONT] {
            kill(pid(), signal)?;
        }
        Ok(())
    }

    fn signal_core_bit [wait4] {
        let pid = child(|| {
            // No core file wanted, whatever the system's pattern says.
            let limit = [0u64, 0];
            sys!(SYS_prlimit64, 0, libc::RLIMIT_CORE, limit.as_ptr(), 0usize)?;
            kill(pid(), libc::SIGQUIT)?;
            Ok(())
        })?;
        same!(wait(pid, 0)?, Status::Killed(libc::SIGQUIT));
        Ok(())
    }

    fn signal_ignored [rt_sigaction] {
        on(libc::SIGTERM, Do::Ignore, 0)?;
        kill(pid(), libc::SIGTERM)?;
        mask(libc::SIG_BLOCK, &[libc::SIGTERM])?;
        kill(pid(), libc::SIGTERM)?;
        on(libc::SIGTERM, Do::Count, 0)?;
        mask(libc::SIG_UNBLOCK, &[libc::SIGTERM])?;
        // Linux keeps a signal that is both blocked and ignored: the handler that came later sees it.
        same!(came(libc::SIGTERM), 1);
        Ok(())
    }

    fn signal_kill_and_stop_are_not_caught [rt_sigaction, rt_sigprocmask] {
        for signal in [libc::SIGKILL, libc::SIGSTOP] {
            refused!(on(signal, Do::Ignore, 0), EINVAL);
        }
        refused!(on(0, Do::Ignore, 0), EINVAL);
        refused!(on(65, Do::Ignore, 0), EINVAL);
        mask(libc::SIG_SETMASK, &[libc::SIGKILL, libc::SIGSTOP, libc::SIGUSR1])?;
        same!(mask(libc::SIG_BLOCK, &[])?, sys::bits(&[libc::SIGUSR1]));
        Ok(())
    }

    fn sigaction_gives_the_old_one [rt_sigaction] {
        let first = on_masked(libc::SIGUSR1, Do::Count, libc::SA_RESTART, &[libc::SIGUSR2])?;
        same!(first.sa_sigaction, libc::SIG_DFL);
        let second = on(libc::SIGUSR1, Do::Ignore, 0)?;
        same!(second.sa_sigaction, sys::count as extern "C" fn(_, _, _) as usize);
        check!(second.sa_flags & libc::SA_RESTART != 0);
        // SAFETY: the set was filled by the call.
        check!(unsafe { libc::sigismember(&second.sa_mask, libc::SIGUSR2) } == 1);
        Ok(())
    }

    fn sigaction_bad_size_and_address [rt_sigaction, rt_sigprocmask] {
        refused!(sys!(SYS_rt_sigaction, libc::SIGUSR1, 0usize, 0usize, 16usize), EINVAL);
        refused!(sys!(SYS_rt_sigaction, libc::SIGUSR1, 8usize, 0usize, 8usize), EFAULT);
        refused!(sys!(SYS_rt_sigprocmask, libc::SIG_BLOCK, 8usize, 0usize, 8usize), EFAULT);
        let none = 0u64;
        refused!(sys!(SYS_rt_sigprocmask, 99, &raw const none, 0usize, 8usize), EINVAL);
        Ok(())
    }

    fn blocked_signal_waits [rt_sigprocmask, rt_sigpending] {
        on(libc::SIGUSR1, Do::Count, 0)?;
        mask(libc::SIG_BLOCK, &[libc::SIGUSR1])?;
        for _ in 0..3 {
            kill(pid(), libc::SIGUSR1)?;
        }
        same!((came(libc::SIGUSR1), pending()?), (0, sys::bits(&[libc::SIGUSR1])));
        mask(libc::SIG_UNBLOCK, &[libc::SIGUSR1])?;
        same!((came(libc::SIGUSR1), pending()?), (1, 0));
        Ok(())
    }

    fn mask_operations [rt_sigprocmask] {
        let (a, b) = (libc::SIGUSR1, libc::SIGUSR2);
        mask(libc::SIG_SETMASK, &[a])?;
        same!(mask(libc::SIG_BLOCK, &[b])?, sys::bits(&[a]));
        same!(mask(libc::SIG_UNBLOCK, &[a])?, sys::bits(&[a, b]));
        same!(mask(libc::SIG_SETMASK, &[])?, sys::bits(&[b]));
        Ok(())
    }

    fn handler_blocks_its_own_signal [rt_sigaction] {
        extern "C" fn again(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
            let depth = CAME[signal as usize].load(SeqCst);
            sys::count(signal, info, context);
            if depth == 0 {
                let _ = kill(pid(), signal);
                // Blocked here, so only the first has come.
                SPARE[0].store(CAME[signal as usize].load(SeqCst), SeqCst);
            }
        }
        on(libc::SIGUSR1, Do::Call(again), 0)?;
        kill(pid(), libc::SIGUSR1)?;
        same!((SPARE[0].load(SeqCst), came(libc::SIGUSR1)), (1, 2));
        on(libc::SIGUSR2, Do::Call(again), libc::SA_NODEFER)?;
        kill(pid(), libc::SIGUSR2)?;
        same!((SPARE[0].load(SeqCst), came(libc::SIGUSR2)), (2, 2));
        Ok(())
    }

    fn handler_mask_holds_others_back [rt_sigaction, rt_sigreturn] {
        extern "C" fn other(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
            let _ = kill(pid(), libc::SIGUSR2);
            SPARE[0].store(came(libc::SIGUSR2), SeqCst);
            sys::count(signal, info, context);
        }
        on(libc::SIGUSR2, Do::Count, 0)?;
        on_masked(libc::SIGUSR1, Do::Call(other), 0, &[libc::SIGUSR2])?;
        kill(pid(), libc::SIGUSR1)?;
        same!((SPARE[0].load(SeqCst), came(libc::SIGUSR2)), (0, 1));
        same!(mask(libc::SIG_BLOCK, &[])?, 0);
        Ok(())
    }

    fn reset_hand_is_once [rt_sigaction] {
        on(libc::SIGUSR1, Do::Count, libc::SA_RESETHAND)?;
        kill(pid(), libc::SIGUSR1)?;
        same!(on(libc::SIGUSR1, Do::Default, 0)?.sa_sigaction, libc::SIG_DFL);
        Ok(())
    }

    fn realtime_signals_queue_in_order [rt_sigqueueinfo] {
        let signals = [40, 41, 42];
        for signal in signals {
            on_masked(signal, Do::Count, 0, &signals)?;
        }
        mask(libc::SIG_BLOCK, &signals)?;
        for value in 1..=5 {
            for signal in [42, 40, 41] {
                queue(signal, value)?;
            }
        }
        mask(libc::SIG_UNBLOCK, &signals)?;
        let want: Vec<(i32, u32)> = signals.iter().flat_map(|signal| (1..=5).map(move |value| (*signal, value))).collect();
        same!(order(), want);
        same!(LAST[0].load(SeqCst) as i32, libc::SI_QUEUE);
        Ok(())
    }

    fn standard_signals_come_first [rt_sigprocmask] {
        let signals = [libc::SIGUSR2, 40, libc::SIGHUP];
        for signal in signals {
            on_masked(signal, Do::Count, 0, &signals)?;
        }
        mask(libc::SIG_BLOCK, &signals)?;
        for signal in signals {
            kill(pid(), signal)?;
        }
        mask(libc::SIG_UNBLOCK, &signals)?;
        same!(order().iter().map(|(signal, _)| *signal).collect::<Vec<_>>(), [libc::SIGHUP, libc::SIGUSR2, 40]);
        Ok(())
    }

    fn queue_to_a_child [rt_sigqueueinfo] {
        let (ready, tell) = pipe()?;
        let to = child(|| {
            on(45, Do::Count, 0)?;
            sys::write(tell, b"x")?;
            sys::until(|| came(45) == 1);
            same!(LAST[2].load(SeqCst), 0x1234_5678_9abc);
            Ok(())
        })?;
        sys::get(ready, 1)?;
        queue_to(to, 45, 0x1234_5678_9abc)?;
        good(to)?;
        // A code that pretends to come from the kernel is refused.
        let mut info = [0u64; 16];
        info[1] = libc::SI_USER as u64;
        let other = child(|| {
            sys::wait_with(-1, 0).ok();
            sys!(SYS_ppoll, 0usize, 0u64, 0usize, 0usize, 8usize)?;
            Ok(())
        })?;
        refused!(sys!(SYS_rt_sigqueueinfo, other, 45, info.as_ptr()), EPERM);
        kill(other, libc::SIGKILL)?;
        wait(other, 0)?;
        Ok(())
    }

    fn sigqueue_limit [rt_sigqueueinfo, prlimit64] {
        mask(libc::SIG_BLOCK, &[40])?;
        let limit = [10u64, 10];
        sys!(SYS_prlimit64, 0, libc::RLIMIT_SIGPENDING, limit.as_ptr(), 0usize)?;
        // The limit counts for the user, so how many go through depends on others; but not for ever.
        let sent = (0..2000).take_while(|_| queue(40, 1).is_ok()).count();
        check!(sent <= 10, "{sent}");
        refused!(queue(40, 1), EAGAIN);
        Ok(())
    }

    fn sigsuspend_waits_with_another_mask [rt_sigsuspend] {
        on(libc::SIGUSR1, Do::Count, 0)?;
        mask(libc::SIG_BLOCK, &[libc::SIGUSR1])?;
        let parent = pid();
        let sender = child(|| {
            kill(parent, libc::SIGUSR1)?;
            Ok(())
        })?;
        let none = 0u64;
        refused!(sys!(SYS_rt_sigsuspend, &raw const none, 8usize), EINTR);
        same!(came(libc::SIGUSR1), 1);
        same!(mask(libc::SIG_BLOCK, &[])? & sys::bits(&[libc::SIGUSR1]), sys::bits(&[libc::SIGUSR1]));
        good(sender)
    }

    fn sigtimedwait_takes_without_a_handler [rt_sigtimedwait] {
        mask(libc::SIG_BLOCK, &[libc::SIGUSR1, 41])?;
        let wanted = sys::bits(&[libc::SIGUSR1, 41]);
        let mut info = [0i32; 32];
        let wait_for = |info: &mut [i32; 32], timeout: i64| {
            let time = sys::ms(timeout);
            sys!(SYS_rt_sigtimedwait, &raw const wanted, info.as_mut_ptr(), &raw const time, 8usize)
        };
        refused!(wait_for(&mut info, 0), EAGAIN);
        refused!(wait_for(&mut info, 10), EAGAIN);
        queue(41, 77)?;
        kill(pid(), libc::SIGUSR1)?;
        same!(wait_for(&mut info, 1000)?, libc::SIGUSR1.into());
        same!(wait_for(&mut info, 1000)?, 41);
        same!((info[0], info[2], info[4], info[6]), (41, libc::SI_QUEUE, pid(), 77));
        same!(pending()?, 0);
        Ok(())
    }

    fn sigtimedwait_is_interrupted [rt_sigtimedwait] {
        on(libc::SIGALRM, Do::Count, libc::SA_RESTART)?;
        mask(libc::SIG_BLOCK, &[libc::SIGUSR1])?;
        sys::pester(5)?;
        let wanted = sys::bits(&[libc::SIGUSR1]);
        refused!(sys!(SYS_rt_sigtimedwait, &raw const wanted, 0usize, 0usize, 8usize), EINTR);
        Ok(())
    }

    fn sigchld_tells_about_the_child [rt_sigaction, wait4] {
        on(libc::SIGCHLD, Do::Count, 0)?;
        let pid = child(|| sys::exit(5))?;
        sys::until(|| came(libc::SIGCHLD) == 1);
        same!((LAST[0].load(SeqCst) as i32, LAST[1].load(SeqCst) as i32), (libc::CLD_EXITED, pid));
        same!(wait(pid, 0)?, Status::Exited(5));
        Ok(())
    }

    fn sigchld_for_stops [rt_sigaction] {
        on(libc::SIGCHLD, Do::Count, 0)?;
        let stopped = child(|| {
            kill(pid(), libc::SIGSTOP)?;
            Ok(())
        })?;
        sys::until(|| came(libc::SIGCHLD) == 1);
        same!(LAST[0].load(SeqCst) as i32, libc::CLD_STOPPED);
        on(libc::SIGCHLD, Do::Count, libc::SA_NOCLDSTOP)?;
        kill(stopped, libc::SIGCONT)?;
        same!(wait(stopped, 0)?, Status::Exited(0));
        sys::until(|| came(libc::SIGCHLD) == 2);
        same!(LAST[0].load(SeqCst) as i32, libc::CLD_EXITED);
        Ok(())
    }

    fn sigaltstack_is_used [sigaltstack, rt_sigaction] {
        extern "C" fn where_am_i(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
            let here = 0u8;
            LAST[2].store(&raw const here as u64, SeqCst);
            let address = LAST[2].load(SeqCst);
            sys::count(signal, info, context);
            LAST[1].store(address, SeqCst);
        }
        let size = 64 * 1024usize;
        let base = sys::anon(size)?;
        // SAFETY: all zeroes is a valid struct of numbers.
        let (mut new, mut old): (libc::stack_t, libc::stack_t) = unsafe { std::mem::zeroed() };
        new.ss_sp = base as *mut libc::c_void;
        new.ss_size = size;
        sys!(SYS_sigaltstack, &raw const new, &raw mut old)?;
        on(libc::SIGUSR1, Do::Call(where_am_i), libc::SA_ONSTACK)?;
        kill(pid(), libc::SIGUSR1)?;
        let at = LAST[1].load(SeqCst) as usize;
        check!((base..base + size).contains(&at), "{at:#x} is not on the other stack");
        on(libc::SIGUSR1, Do::Call(where_am_i), 0)?;
        kill(pid(), libc::SIGUSR1)?;
        check!(!(base..base + size).contains(&(LAST[1].load(SeqCst) as usize)));
        sys!(SYS_sigaltstack, 0usize, &raw mut old)?;
        same!((old.ss_sp as usize, old.ss_size, old.ss_flags), (base, size, 0));
        new.ss_size = 100;
        refused!(sys!(SYS_sigaltstack, &raw const new, 0usize), ENOMEM);
        new.ss_flags = 99;
        refused!(sys!(SYS_sigaltstack, &raw const new, 0usize), EINVAL);
        Ok(())
    }

    fn stack_overflow_on_the_alternate_stack [sigaltstack, rt_sigaction] {
        extern "C" fn overflown(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
            sys::exit(23)
        }
        #[inline(never)]
        fn deeper(n: u64) -> u64 {
            let room = std::hint::black_box([n; 512]);
            if n == u64::MAX { 0 } else { deeper(n + 1) + room[(n % 512) as usize] }
        }
        let pid = child(|| {
            // SAFETY: all zeroes is a valid struct of numbers.
            let mut stack: libc::stack_t = unsafe { std::mem::zeroed() };
            stack.ss_sp = sys::anon(65536)? as *mut libc::c_void;
            stack.ss_size = 65536;
            sys!(SYS_sigaltstack, &raw const stack, 0usize)?;
            on(libc::SIGSEGV, Do::Call(overflown), libc::SA_ONSTACK)?;
            check!(deeper(0) == 0);
            Ok(())
        })?;
        same!(wait(pid, 0)?, Status::Exited(23));
        Ok(())
    }

    fn tgkill_reaches_one_thread [tgkill, gettid] {
        on(libc::SIGUSR1, Do::Count, 0)?;
        let (tx, rx) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || -> Option<bool> {
            mask(libc::SIG_BLOCK, &[libc::SIGUSR1]).ok()?;
            tx.send(sys!(SYS_gettid).ok()?).ok()?;
            sys::until(|| pending().unwrap_or(0) != 0);
            Some(came(libc::SIGUSR1) == 0)
        });
        let tid = rx.recv().map_err(|_| crate::case::wrong("no thread"))?;
        sys!(SYS_tgkill, pid(), tid, libc::SIGUSR1)?;
        same!(thread.join().ok().flatten(), Some(true));
        same!(pending()?, 0);
        refused!(sys!(SYS_tgkill, pid(), tid + 100_000, 0), ESRCH);
        refused!(sys!(SYS_tgkill, 0, tid, 0), EINVAL);
        Ok(())
    }

    fn process_signal_goes_to_a_thread_that_wants_it [kill] {
        on(libc::SIGUSR1, Do::Count, 0)?;
        mask(libc::SIG_BLOCK, &[libc::SIGUSR1])?;
        let (tx, rx) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let unblocked = mask(libc::SIG_UNBLOCK, &[libc::SIGUSR1]).is_ok();
            let told = tx.send(()).is_ok();
            sys::until(|| came(libc::SIGUSR1) == 1);
            unblocked && told
        });
        rx.recv().map_err(|_| crate::case::wrong("no thread"))?;
        kill(pid(), libc::SIGUSR1)?;
        same!(thread.join().unwrap_or(false), true);
        Ok(())
    }

    fn kill_a_group [kill, setpgid] {
        let (ready, tell) = pipe()?;
        let leader = child(|| {
            sys!(SYS_setpgid, 0, 0)?;
            let member = child(|| loop {
                sys!(SYS_ppoll, 0usize, 0u64, 0usize, 0usize, 8usize)?;
            })?;
            sys::write(tell, b"x")?;
            on(libc::SIGTERM, Do::Ignore, 0)?;
            sys::write(tell, b"y")?;
            same!(wait(member, 0)?, Status::Killed(libc::SIGTERM));
            Ok(())
        })?;
        same!(sys::get_all(ready, 2)?, b"xy");
        kill(-leader, libc::SIGTERM)?;
        good(leader)?;
        refused!(kill(-leader, 0), ESRCH);
        Ok(())
    }

    fn kill_checks [kill] {
        kill(pid(), 0)?;
        refused!(kill(pid(), 65), EINVAL);
        refused!(kill(pid(), -1), EINVAL);
        refused!(kill(i32::MAX, 0), ESRCH);
        Ok(())
    }

    fn kill_needs_permission [kill, setresuid] {
        if sys!(SYS_geteuid)? != 0 {
            return Err(crate::case::Fail::Skip("not root".into()));
        }
        let parent = pid();
        good(child(|| {
            sys!(SYS_setresuid, 1000, 1000, 1000)?;
            refused!(kill(parent, libc::SIGTERM), EPERM);
            refused!(kill(parent, 0), EPERM);
            Ok(())
        })?)
    }

    fn continue_discards_stops_and_back [kill, rt_sigprocmask] {
        let (ready, tell) = pipe()?;
        let pid = child(|| {
            mask(libc::SIG_BLOCK, &[libc::SIGTSTP, libc::SIGCONT])?;
            kill(pid(), libc::SIGTSTP)?;
            same!(pending()?, sys::bits(&[libc::SIGTSTP]));
            kill(pid(), libc::SIGCONT)?;
            same!(pending()?, sys::bits(&[libc::SIGCONT]));
            kill(pid(), libc::SIGTSTP)?;
            same!(pending()?, sys::bits(&[libc::SIGTSTP]));
            sys::write(tell, b"x")?;
            Ok(())
        })?;
        same!(sys::get(ready, 1)?, b"x");
        good(pid)
    }

    fn fault_in_blocked_state_kills [rt_sigprocmask] {
        let pid = child(|| {
            on(libc::SIGSEGV, Do::Count, 0)?;
            mask(libc::SIG_BLOCK, &[libc::SIGSEGV])?;
            sys::poke(8, 1);
            Ok(())
        })?;
        same!(wait(pid, 0)?, Status::Killed(libc::SIGSEGV));
        Ok(())
    }

    fn pending_is_not_inherited [clone, rt_sigpending] {
        mask(libc::SIG_BLOCK, &[libc::SIGUSR1])?;
        kill(pid(), libc::SIGUSR1)?;
        good(child(|| {
            same!(pending()?, 0);
            same!(mask(libc::SIG_BLOCK, &[])? & sys::bits(&[libc::SIGUSR1]), sys::bits(&[libc::SIGUSR1]));
            Ok(())
        })?)?;
        same!(pending()?, sys::bits(&[libc::SIGUSR1]));
        Ok(())
    }

    fn pause_ends_with_a_signal [ppoll] {
        on(libc::SIGALRM, Do::Count, libc::SA_RESTART)?;
        sys::pester(5)?;
        refused!(sys!(SYS_ppoll, 0usize, 0u64, 0usize, 0usize, 8usize), EINTR);
        Ok(())
    }

    fn signal_storm_between_processes [kill, rt_sigaction] {
        on(libc::SIGUSR1, Do::Count, libc::SA_RESTART)?;
        let parent = pid();
        let senders = (0..4)
            .map(|_| {
                child(|| {
                    for _ in 0..200 {
                        kill(parent, libc::SIGUSR1)?;
                    }
                    Ok(())
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        for sender in senders {
            good(sender)?;
        }
        check!((1..=800).contains(&came(libc::SIGUSR1)));
        Ok(())
    }
}
