//! Clocks, sleeping, timers.

use std::sync::atomic::Ordering::SeqCst;

use crate::sys;
use crate::sys::{Do, LAST, came, clock, ms, on, pid};
use crate::{cases, check, refused, same};

const MS: i64 = 1_000_000;

fn nanosleep(id: i32, flags: i32, time: &libc::timespec, left: Option<&mut libc::timespec>) -> Result<(), i64> {
    let left = left.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    // The call's result is an error number, not −1 and errno, only in the library; here it is as always.
    match sys!(SYS_clock_nanosleep, id, flags, std::ptr::from_ref(time), left) {
        Ok(_) => Ok(()),
        Err(errno) => Err(errno.number().into()),
    }
}

/// `setitimer` in milliseconds: value and interval.
fn itimer(which: i32, value: i64, interval: i64) -> sys::Sys<[i64; 4]> {
    let time = |ms: i64| [ms / 1000, ms % 1000 * 1000];
    let new = [time(interval), time(value)];
    let mut old = [0i64; 4];
    sys!(SYS_setitimer, which, new.as_ptr(), old.as_mut_ptr())?;
    Ok(old)
}

cases! {
    fn clocks_go_forward [clock_gettime] {
        for id in [libc::CLOCK_MONOTONIC, libc::CLOCK_BOOTTIME, libc::CLOCK_MONOTONIC_RAW] {
            let mut last = clock(id)?;
            for _ in 0..1000 {
                let now = clock(id)?;
                check!(now >= last, "clock {id} went back by {}", last - now);
                last = now;
            }
        }
        Ok(())
    }

    fn clocks_agree_with_the_vdso [clock_gettime] {
        for id in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME] {
            for _ in 0..100 {
                let before = clock(id)?;
                let mut time = ms(0);
                // SAFETY: the time is on the stack. Through the library, so by the vDSO where there is one.
                sys::result(unsafe { libc::clock_gettime(id, &mut time) }.into())?;
                let between = time.tv_sec * 1_000_000_000 + time.tv_nsec;
                let after = clock(id)?;
                check!(before <= between && between <= after, "{before} {between} {after}");
            }
        }
        Ok(())
    }

    fn clocks_across_threads [clock_gettime] {
        // What one thread saw before it told another is not later than what the other sees.
        let (tx, rx) = std::sync::mpsc::channel::<i64>();
        let sender = std::thread::spawn(move || (0..2000).all(|_| clock(libc::CLOCK_MONOTONIC).is_ok_and(|now| tx.send(now).is_ok())));
        for then in rx {
            check!(clock(libc::CLOCK_MONOTONIC)? >= then);
        }
        check!(sender.join().unwrap_or(false));
        Ok(())
    }

    fn clock_checks [clock_gettime, clock_getres] {
        refused!(clock(99), EINVAL);
        refused!(sys!(SYS_clock_gettime, libc::CLOCK_MONOTONIC, 8usize), EFAULT);
        let mut resolution = ms(5000);
        sys!(SYS_clock_getres, libc::CLOCK_MONOTONIC, &raw mut resolution)?;
        check!(resolution.tv_sec == 0 && resolution.tv_nsec <= 10 * MS);
        Ok(())
    }

    fn realtime_is_now [clock_gettime, gettimeofday] {
        let now = clock(libc::CLOCK_REALTIME)? / 1_000_000_000;
        check!(now > 1_600_000_000, "{now} s since 1970");
        let mut time = [0i64; 2];
        sys!(SYS_gettimeofday, time.as_mut_ptr(), 0usize)?;
        check!((time[0] - now).abs() <= 1);
        Ok(())
    }

    fn cpu_clocks_count_work [clock_gettime] {
        let (process, thread) = (clock(libc::CLOCK_PROCESS_CPUTIME_ID)?, clock(libc::CLOCK_THREAD_CPUTIME_ID)?);
        let slept = clock(libc::CLOCK_MONOTONIC)?;
        check!(nanosleep(libc::CLOCK_MONOTONIC, 0, &ms(50), None).is_ok());
        check!(clock(libc::CLOCK_MONOTONIC)? - slept >= 50 * MS);
        let idle = clock(libc::CLOCK_PROCESS_CPUTIME_ID)? - process;
        check!(idle < 40 * MS, "{idle} ns of CPU while asleep");
        while clock(libc::CLOCK_THREAD_CPUTIME_ID)? - thread < 20 * MS {}
        check!(clock(libc::CLOCK_PROCESS_CPUTIME_ID)? - process >= 20 * MS);
        Ok(())
    }

    fn sleep_is_never_short [clock_nanosleep, nanosleep] {
        for time in [0, 1, 7, 20] {
            let start = clock(libc::CLOCK_MONOTONIC)?;
            let span = ms(time);
            sys!(SYS_nanosleep, &raw const span, 0usize)?;
            check!(clock(libc::CLOCK_MONOTONIC)? - start >= time * MS);
        }
        let at = clock(libc::CLOCK_MONOTONIC)? + 20 * MS;
        let time = libc::timespec { tv_sec: at / 1_000_000_000, tv_nsec: at % 1_000_000_000 };
        check!(nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &time, None).is_ok());
        check!(clock(libc::CLOCK_MONOTONIC)? >= at);
        Ok(())
    }

    fn sleep_interrupted_tells_the_rest [clock_nanosleep] {
        on(libc::SIGALRM, Do::Count, libc::SA_RESTART)?;
        itimer(libc::ITIMER_REAL, 20, 20)?;
        let mut left = ms(0);
        same!(nanosleep(libc::CLOCK_MONOTONIC, 0, &ms(100_000), Some(&mut left)), Err(libc::EINTR.into()));
        check!((90..100).contains(&left.tv_sec));
        Ok(())
    }

    fn sleep_checks [clock_nanosleep, nanosleep] {
        let bad = libc::timespec { tv_sec: 0, tv_nsec: -1 };
        refused!(sys!(SYS_nanosleep, &raw const bad, 0usize), EINVAL);
        let bad = libc::timespec { tv_sec: -1, tv_nsec: 0 };
        refused!(sys!(SYS_nanosleep, &raw const bad, 0usize), EINVAL);
        same!(nanosleep(99, 0, &ms(1), None), Err(libc::EINVAL.into()));
        Ok(())
    }

    fn itimer_real [setitimer, getitimer] {
        on(libc::SIGALRM, Do::Count, 0)?;
        let start = clock(libc::CLOCK_MONOTONIC)?;
        itimer(libc::ITIMER_REAL, 10, 5)?;
        sys::until(|| came(libc::SIGALRM) >= 4);
        check!(clock(libc::CLOCK_MONOTONIC)? - start >= 24 * MS);
        let old = itimer(libc::ITIMER_REAL, 0, 0)?;
        same!((old[0], old[1]), (0, 5000));
        itimer(libc::ITIMER_REAL, 100_000, 0)?;
        let mut now = [0i64; 4];
        sys!(SYS_getitimer, libc::ITIMER_REAL, now.as_mut_ptr())?;
        check!((90..=100).contains(&now[2]));
        Ok(())
    }

    fn itimer_is_not_inherited_but_kept_over_exec [setitimer, clone] {
        itimer(libc::ITIMER_REAL, 100_000, 0)?;
        sys::good(sys::child(|| {
            let mut now = [1i64; 4];
            sys!(SYS_getitimer, libc::ITIMER_REAL, now.as_mut_ptr())?;
            same!(now, [0; 4]);
            Ok(())
        })?)
    }

    fn itimer_virtual_counts_cpu [setitimer] {
        on(libc::SIGVTALRM, Do::Count, 0)?;
        itimer(libc::ITIMER_VIRTUAL, 20, 0)?;
        let start = clock(libc::CLOCK_PROCESS_CPUTIME_ID)?;
        let mut n = 0u64;
        while came(libc::SIGVTALRM) == 0 {
            n = std::hint::black_box(n + 1);
        }
        check!(clock(libc::CLOCK_PROCESS_CPUTIME_ID)? - start >= 10 * MS);
        Ok(())
    }

    fn posix_timer_signals [timer_create, timer_settime, timer_gettime, timer_delete] {
        on(libc::SIGUSR1, Do::Count, 0)?;
        // SAFETY: all zeroes is a valid struct of numbers.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGUSR1;
        event.sigev_value.sival_ptr = 0x77 as *mut _;
        let mut id = -1i32;
        sys!(SYS_timer_create, libc::CLOCK_MONOTONIC, &raw mut event, &raw mut id)?;
        let time = libc::itimerspec { it_interval: ms(3), it_value: ms(3) };
        sys!(SYS_timer_settime, id, 0, &raw const time, 0usize)?;
        sys::until(|| came(libc::SIGUSR1) >= 3);
        same!((LAST[0].load(SeqCst) as i32, LAST[2].load(SeqCst)), (libc::SI_TIMER, 0x77));
        let mut left = libc::itimerspec { it_interval: ms(0), it_value: ms(0) };
        sys!(SYS_timer_gettime, id, &raw mut left)?;
        same!(left.it_interval.tv_nsec, 3 * MS);
        sys!(SYS_timer_delete, id)?;
        refused!(sys!(SYS_timer_gettime, id, &raw mut left), EINVAL);
        Ok(())
    }

    fn posix_timer_overrun [timer_getoverrun] {
        on(libc::SIGUSR1, Do::Count, 0)?;
        sys::mask(libc::SIG_BLOCK, &[libc::SIGUSR1])?;
        // SAFETY: all zeroes is a valid struct of numbers.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_signo = libc::SIGUSR1;
        let mut id = -1i32;
        sys!(SYS_timer_create, libc::CLOCK_MONOTONIC, &raw mut event, &raw mut id)?;
        let time = libc::itimerspec { it_interval: ms(1), it_value: ms(1) };
        sys!(SYS_timer_settime, id, 0, &raw const time, 0usize)?;
        check!(nanosleep(libc::CLOCK_MONOTONIC, 0, &ms(30), None).is_ok());
        // Taken while it stays blocked: one delivered later would stand for less.
        let wanted = 1u64 << (libc::SIGUSR1 - 1);
        same!(sys!(SYS_rt_sigtimedwait, &raw const wanted, 0usize, 0usize, 8usize)?, i64::from(libc::SIGUSR1));
        check!(sys!(SYS_timer_getoverrun, id)? >= 20);
        Ok(())
    }

    fn cpu_limit_signals [prlimit64] {
        let limited = sys::child(|| {
            let limit = [1u64, 2];
            sys!(SYS_prlimit64, 0, libc::RLIMIT_CPU, limit.as_ptr(), 0usize)?;
            on(libc::SIGXCPU, Do::Count, 0)?;
            while came(libc::SIGXCPU) == 0 {
                std::hint::black_box(pid());
            }
            // Linux counts this limit in whole ticks of whoever runs when one comes, which on a busy machine are more than were used.
            check!(clock(libc::CLOCK_PROCESS_CPUTIME_ID)? >= 300 * MS);
            Ok(())
        })?;
        sys::good(limited)
    }

    fn times_counts_children [times, wait4] {
        sys::good(sys::child(|| {
            let start = clock(libc::CLOCK_PROCESS_CPUTIME_ID)?;
            while clock(libc::CLOCK_PROCESS_CPUTIME_ID)? - start < 60 * MS {}
            Ok(())
        })?)?;
        let mut ticks = [0i64; 4];
        sys!(SYS_times, ticks.as_mut_ptr())?;
        check!(ticks[2] + ticks[3] >= 2, "{ticks:?}");
        Ok(())
    }
}
