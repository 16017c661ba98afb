//! fork, exit, wait, ids.

use crate::sys;
use crate::sys::{Do, Status, child, good, kill, on, pid, pipe, wait, wait_with};
use crate::{cases, check, refused, same};

/// `waitid` into bytes: signo, code, pid, uid, status.
fn waitid(kind: u32, id: i32, options: i32) -> sys::Sys<[i32; 5]> {
    let mut info = [0i32; 32];
    sys!(SYS_waitid, kind, id, info.as_mut_ptr(), options, 0usize)?;
    Ok([info[0], info[2], info[4], info[5], info[6]])
}

cases! {
    fn fork_copies_memory [clone, wait4] {
        let mut value = 1;
        let pid = child(|| {
            value = 2;
            check!(value == 2);
            Ok(())
        })?;
        good(pid)?;
        same!(value, 1);
        Ok(())
    }

    fn fork_gives_new_pid_and_parent [clone, getpid, getppid] {
        let me = pid();
        let child = child(|| {
            check!(sys!(SYS_getpid)? as i32 != me);
            same!(sys!(SYS_getppid)? as i32, me);
            Ok(())
        })?;
        good(child)
    }

    fn fork_shares_file_offset [clone, read, lseek] {
        let fd = sys::file("f", b"abcdef")?;
        good(child(|| {
            same!(sys::get(fd, 2)?, b"ab");
            Ok(())
        })?)?;
        same!(sys::get(fd, 2)?, b"cd");
        Ok(())
    }

    fn fork_many_children [clone, wait4] {
        let pids = (0..50).map(|n| child(|| sys::exit(n))).collect::<Result<Vec<_>, _>>()?;
        for (n, pid) in pids.iter().enumerate() {
            same!(wait(*pid, 0)?, Status::Exited(n as i32));
        }
        Ok(())
    }

    fn fork_nested [clone, wait4] {
        fn down(levels: u32) -> crate::case::Outcome {
            if levels == 0 { Ok(()) } else { good(child(|| down(levels - 1))?) }
        }
        down(12)
    }

    fn exit_status_is_eight_bits [exit_group, wait4] {
        for (code, want) in [(0, 0), (255, 255), (256, 0), (-1, 255), (0x1234, 0x34)] {
            same!(wait(child(|| sys::exit(code))?, 0)?, Status::Exited(want));
        }
        Ok(())
    }

    fn wait_reports_the_signal [wait4, kill] {
        for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGUSR1, libc::SIGALRM, 40] {
            let pid = child(|| loop {
                sys!(SYS_ppoll, 0usize, 0u64, 0usize, 0usize, 8usize)?;
            })?;
            kill(pid, signal)?;
            same!(wait(pid, 0)?, Status::Killed(signal));
        }
        Ok(())
    }

    fn wait_nohang [wait4] {
        let (reader, writer) = pipe()?;
        let pid = child(|| {
            sys::close(writer)?;
            sys::get(reader, 1)?;
            Ok(())
        })?;
        same!(wait_with(pid, libc::WNOHANG)?, None);
        same!(wait_with(-1, libc::WNOHANG)?, None);
        sys::close(writer)?;
        good(pid)
    }

    fn wait_without_children [wait4] {
        refused!(wait_with(-1, 0), ECHILD);
        refused!(wait_with(pid(), 0), ECHILD);
        let pid = child(|| Ok(()))?;
        good(pid)?;
        refused!(wait_with(pid, 0), ECHILD);
        Ok(())
    }

    fn wait_bad_options [wait4, waitid] {
        refused!(sys!(SYS_wait4, -1, 0usize, 0x100, 0usize), EINVAL);
        refused!(sys!(SYS_waitid, libc::P_ALL, 0, 0usize, 0, 0usize), EINVAL);
        refused!(sys!(SYS_waitid, 77, 0, 0usize, libc::WEXITED, 0usize), EINVAL);
        Ok(())
    }

    fn wait_for_any_takes_each_once [wait4] {
        let mut pids = (0..10).map(|_| child(|| Ok(()))).collect::<Result<Vec<_>, _>>()?;
        for _ in 0..10 {
            let (pid, status) = wait_with(-1, 0)?.ok_or_else(|| crate::case::wrong("no child"))?;
            same!(status, Status::Exited(0));
            let at = pids.iter().position(|p| *p == pid);
            check!(at.is_some());
            pids.swap_remove(at.unwrap_or(0));
        }
        refused!(wait_with(-1, 0), ECHILD);
        Ok(())
    }

    fn wait_for_a_group [wait4, setpgid] {
        let first = child(|| {
            sys!(SYS_setpgid, 0, 0)?;
            sys::exit(4)
        })?;
        let second = child(|| Ok(()))?;
        let _ = sys!(SYS_setpgid, first, first);
        same!(wait_with(-first, 0)?, Some((first, Status::Exited(4))));
        refused!(wait_with(-first, 0), ECHILD);
        same!(wait_with(0, 0)?, Some((second, Status::Exited(0))));
        Ok(())
    }

    fn wait_stopped_and_continued [wait4, kill] {
        let (reader, writer) = pipe()?;
        let pid = child(|| {
            sys::close(writer)?;
            sys::get(reader, 1)?;
            Ok(())
        })?;
        kill(pid, libc::SIGSTOP)?;
        same!(wait(pid, libc::WUNTRACED)?, Status::Stopped(libc::SIGSTOP));
        same!(wait_with(pid, libc::WUNTRACED | libc::WNOHANG)?, None);
        kill(pid, libc::SIGCONT)?;
        same!(wait(pid, libc::WCONTINUED)?, Status::Continued);
        sys::close(writer)?;
        good(pid)
    }

    fn wait_takes_stopped_child_killed [wait4, kill] {
        let pid = child(|| {
            kill(pid(), libc::SIGSTOP)?;
            Ok(())
        })?;
        same!(wait(pid, libc::WUNTRACED)?, Status::Stopped(libc::SIGSTOP));
        kill(pid, libc::SIGKILL)?;
        same!(wait(pid, 0)?, Status::Killed(libc::SIGKILL));
        Ok(())
    }

    fn waitid_tells_who_and_how [waitid] {
        let pid = child(|| sys::exit(9))?;
        same!(waitid(libc::P_PID, pid, libc::WEXITED)?, [libc::SIGCHLD, libc::CLD_EXITED, pid, 0, 9]);
        let pid = child(|| {
            kill(sys::pid(), libc::SIGTERM)?;
            Ok(())
        })?;
        same!(waitid(libc::P_ALL, 0, libc::WEXITED)?, [libc::SIGCHLD, libc::CLD_KILLED, pid, 0, libc::SIGTERM]);
        Ok(())
    }

    fn waitid_can_leave_the_child [waitid] {
        let pid = child(|| sys::exit(3))?;
        let seen = waitid(libc::P_PID, pid, libc::WEXITED | libc::WNOWAIT)?;
        same!(waitid(libc::P_PID, pid, libc::WEXITED | libc::WNOWAIT)?, seen);
        same!(wait(pid, 0)?, Status::Exited(3));
        Ok(())
    }

    fn waitid_nothing_yet [waitid] {
        let (reader, writer) = pipe()?;
        let pid = child(|| {
            sys::close(writer)?;
            sys::get(reader, 1)?;
            Ok(())
        })?;
        same!(waitid(libc::P_PID, pid, libc::WEXITED | libc::WNOHANG)?, [0; 5]);
        sys::close(writer)?;
        good(pid)
    }

    fn wait4_gives_rusage [wait4, getrusage] {
        let pid = child(|| {
            let mut sum = 0u64;
            let start = sys::clock(libc::CLOCK_PROCESS_CPUTIME_ID)?;
            while sys::clock(libc::CLOCK_PROCESS_CPUTIME_ID)? - start < 50_000_000 {
                sum = sum.wrapping_mul(31).wrapping_add(1);
            }
            check!(sum != 1);
            Ok(())
        })?;
        // SAFETY: all zeroes is a valid struct of numbers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        same!(sys!(SYS_wait4, pid, 0usize, 0, &raw mut usage)? as i32, pid);
        let cpu = (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1_000_000 + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
        check!((20_000..20_000_000).contains(&cpu), "{cpu} µs");
        Ok(())
    }

    fn orphans_get_a_new_parent [getppid, wait4] {
        let (reader, writer) = pipe()?;
        let (go, start) = pipe()?;
        let middle = child(|| {
            let middle = pid();
            child(|| {
                sys::close(start)?;
                sys::get(go, 1)?;
                sys::until(|| sys!(SYS_getppid) != Ok(middle.into()));
                sys::write(writer, b"adopted")?;
                Ok(())
            })?;
            Ok(())
        })?;
        good(middle)?;
        sys::close(start)?;
        sys::close(writer)?;
        same!(sys::get(reader, 16)?, b"adopted");
        Ok(())
    }

    fn subreaper_adopts [prctl, wait4] {
        sys!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1usize, 0usize, 0usize, 0usize)?;
        let (reader, writer) = pipe()?;
        let middle = child(|| {
            let grandchild = child(|| sys::exit(77))?;
            sys::write(writer, &grandchild.to_le_bytes())?;
            Ok(())
        })?;
        good(middle)?;
        let bytes = sys::get(reader, 4)?;
        let grandchild = i32::from_le_bytes(bytes.try_into().unwrap_or_default());
        same!(wait(grandchild, 0)?, Status::Exited(77));
        Ok(())
    }

    fn ignored_sigchld_reaps [wait4, rt_sigaction] {
        on(libc::SIGCHLD, Do::Ignore, 0)?;
        let pids = [child(|| Ok(()))?, child(|| sys::exit(1))?];
        // Waits until all are gone, then says that there was nothing.
        refused!(wait_with(-1, 0), ECHILD);
        for pid in pids {
            refused!(kill(pid, 0), ESRCH);
        }
        Ok(())
    }

    fn no_child_wait_flag [wait4, rt_sigaction] {
        on(libc::SIGCHLD, Do::Count, libc::SA_NOCLDWAIT)?;
        child(|| Ok(()))?;
        refused!(wait(-1, 0), ECHILD);
        sys::until(|| sys::came(libc::SIGCHLD) == 1);
        Ok(())
    }

    fn zombie_can_be_signalled_until_waited [kill, waitid, wait4] {
        let pid = child(|| Ok(()))?;
        waitid(libc::P_PID, pid, libc::WEXITED | libc::WNOWAIT)?;
        kill(pid, 0)?;
        kill(pid, libc::SIGTERM)?;
        good(pid)?;
        refused!(kill(pid, 0), ESRCH);
        Ok(())
    }

    fn parent_death_signal [prctl] {
        let (reader, writer) = pipe()?;
        let middle = child(|| {
            let (ready, tell) = pipe()?;
            child(|| {
                sys!(SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGUSR1, 0usize, 0usize, 0usize)?;
                on(libc::SIGUSR1, Do::Count, 0)?;
                sys::write(tell, b"x")?;
                sys::until(|| sys::came(libc::SIGUSR1) == 1);
                sys::write(writer, b"told")?;
                Ok(())
            })?;
            sys::get(ready, 1)?;
            Ok(())
        })?;
        good(middle)?;
        same!(sys::get(reader, 8)?, b"told");
        Ok(())
    }

    fn umask_is_inherited [umask, clone] {
        sys!(SYS_umask, 0o027)?;
        good(child(|| {
            same!(sys!(SYS_umask, 0)?, 0o027);
            Ok(())
        })?)?;
        same!(sys!(SYS_umask, 0)?, 0o027);
        Ok(())
    }
}
