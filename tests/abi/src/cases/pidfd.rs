//! Descriptors of processes.

use std::sync::atomic::Ordering::SeqCst;

use crate::sys;
use crate::sys::{Status, child, elsewhere, good, ready, wait};
use crate::{cases, check, refused, same};

fn pidfd(pid: i32, flags: i32) -> sys::Sys<i32> {
    Ok(sys!(SYS_pidfd_open, pid, flags)? as i32)
}

fn send(fd: i32, signal: i32) -> sys::Sys {
    sys!(SYS_pidfd_send_signal, fd, signal, 0usize, 0)
}

/// A child that waits for signals until one ends it.
fn sleeper() -> sys::Sys<i32> {
    child(|| {
        loop {
            let _ = sys!(SYS_ppoll, 0usize, 0u64, 0usize, 0usize, 8usize);
        }
    })
}

cases! {
    fn pidfd_is_ready_when_the_process_ends [pidfd_open, ppoll] {
        let (reader, writer) = sys::pipe()?;
        let pid = child(|| {
            sys::close(writer)?;
            same!(sys::get(reader, 1)?, b"");
            Ok(())
        })?;
        let fd = pidfd(pid, 0)?;
        same!(ready(fd, libc::POLLIN, 0)?, 0);
        sys::close(writer)?;
        same!(ready(fd, libc::POLLIN, -1)?, libc::POLLIN);
        refused!(sys::get(fd, 8), EINVAL);
        check!(sys::fcntl(fd, libc::F_GETFD, 0)? == libc::FD_CLOEXEC.into());
        good(pid)
    }

    fn pidfd_wakes_epoll [pidfd_open, epoll_pwait] {
        let pid = sleeper()?;
        let fd = pidfd(pid, 0)?;
        let ep = sys!(SYS_epoll_create1, 0)? as i32;
        let event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 3 };
        sys!(SYS_epoll_ctl, ep, libc::EPOLL_CTL_ADD, fd, &raw const event)?;
        let mut got = [libc::epoll_event { events: 0, u64: 0 }];
        same!(sys!(SYS_epoll_pwait, ep, got.as_mut_ptr(), 1, 0, 0usize, 8usize)?, 0);
        send(fd, libc::SIGTERM)?;
        same!(sys!(SYS_epoll_pwait, ep, got.as_mut_ptr(), 1, -1, 0usize, 8usize)?, 1);
        same!(wait(pid, 0)?, Status::Killed(libc::SIGTERM));
        Ok(())
    }

    fn pidfd_that_does_not_wait [pidfd_open, waitid] {
        let pid = sleeper()?;
        let fd = pidfd(pid, libc::O_NONBLOCK)?;
        let mut info = [0i32; 32];
        refused!(sys!(SYS_waitid, libc::P_PIDFD, fd, info.as_mut_ptr(), libc::WEXITED, 0usize), EAGAIN);
        send(fd, libc::SIGKILL)?;
        same!(ready(fd, libc::POLLIN, -1)?, libc::POLLIN);
        sys!(SYS_waitid, libc::P_PIDFD, fd, info.as_mut_ptr(), libc::WEXITED, 0usize)?;
        same!((info[4], info[6]), (pid, libc::SIGKILL));
        refused!(sys!(SYS_waitid, libc::P_PIDFD, fd, info.as_mut_ptr(), libc::WEXITED, 0usize), ECHILD);
        Ok(())
    }

    fn pidfd_checks [pidfd_open, pidfd_send_signal, pidfd_getfd] {
        refused!(pidfd(-1, 0), EINVAL);
        refused!(pidfd(sys::pid(), 1), EINVAL);
        refused!(pidfd(0x3f_ffff, 0), ESRCH);
        let me = pidfd(sys::pid(), 0)?;
        let file = sys::file("f", b"")?;
        refused!(send(file, 0), EBADF);
        refused!(send(me, 65), EINVAL);
        refused!(sys!(SYS_pidfd_send_signal, me, 0, 0usize, 99), EINVAL);
        same!(send(me, 0)?, 0);
        refused!(sys!(SYS_pidfd_getfd, me, 999, 0), EBADF);
        refused!(sys!(SYS_pidfd_getfd, me, file, 1), EINVAL);
        refused!(sys!(SYS_waitid, libc::P_PIDFD, file, 0usize, libc::WEXITED, 0usize), EBADF);
        Ok(())
    }

    fn pidfd_gets_a_descriptor [pidfd_getfd] {
        let map = sys::shared(4096)?;
        let (reader, writer) = sys::pipe()?;
        let pid = child(|| {
            let fd = sys::file("theirs", b"of the child")?;
            sys::word(map).store(fd as u32, SeqCst);
            sys::close(writer)?;
            same!(sys::get(reader, 1)?, b"");
            Ok(())
        })?;
        sys::until(|| sys::word(map).load(SeqCst) != 0);
        let fd = pidfd(pid, 0)?;
        let got = match sys!(SYS_pidfd_getfd, fd, sys::word(map).load(SeqCst), 0) {
            Err(linux_abi::Errno::EPERM) => return Err(crate::case::Fail::Skip("may not trace".into())),
            got => got? as i32,
        };
        same!(sys::get(got, 20)?, b"of the child");
        sys::close(writer)?;
        good(pid)
    }

    fn pidfd_follows_a_program_elsewhere [pidfd_open, pidfd_send_signal] {
        // Where there is another kernel the child goes on there: its descriptor, opened before, tells its end all the same.
        let (reader, writer) = sys::pipe()?;
        let pid = child(|| {
            elsewhere();
            sys::close(reader)?;
            sys!(SYS_dup3, writer, 1, 0)?;
            sys::exec_me(&["sleep"])?;
            Ok(())
        })?;
        let before = pidfd(pid, 0)?;
        sys::close(writer)?;
        same!(sys::get_all(reader, 6)?, b"ready\n");
        let after = pidfd(pid, 0)?;
        same!((ready(before, libc::POLLIN, 0)?, ready(after, libc::POLLIN, 0)?), (0, 0));
        same!(send(after, 0)?, 0);
        send(before, libc::SIGTERM)?;
        same!(ready(before, libc::POLLIN, -1)?, libc::POLLIN);
        same!(ready(after, libc::POLLIN, -1)?, libc::POLLIN);
        same!(wait(pid, 0)?, Status::Killed(libc::SIGTERM));
        refused!(send(before, 0), ESRCH);
        refused!(send(after, 0), ESRCH);
        Ok(())
    }
}
