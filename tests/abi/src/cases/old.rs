//! Calls that newer ISAs do without: each does what its successor does.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use crate::case::Fail;
use crate::sys;
use crate::sys::{Do, Status, c, child, good, wait};
use crate::{cases, check, old, refused, same};

/// `struct stat` as the kernel has it on x86-64; large enough for others.
type RawStat = [u64; 32];

const CWD: i32 = libc::AT_FDCWD;

fn mode_of(path: &str) -> Result<u32, Fail> {
    Ok(std::fs::symlink_metadata(path)?.mode() & 0o7777)
}

cases! {
    fn old_open_and_creat [open, creat] {
        let fd = old!(Creat, c("f").as_ptr(), 0o640)? as i32;
        same!(sys::write(fd, b"made")?, 4);
        refused!(sys::get(fd, 4), EBADF);
        let fd = old!(Open, c("f").as_ptr(), libc::O_RDONLY, 0)? as i32;
        same!(sys::get(fd, 10)?, b"made");
        refused!(old!(Open, c("none").as_ptr(), libc::O_RDONLY, 0), ENOENT);
        refused!(old!(Open, c("f").as_ptr(), libc::O_CREAT | libc::O_EXCL, 0), EEXIST);
        Ok(())
    }

    fn old_stat_and_lstat [stat, lstat] {
        sys::file("f", b"12345")?;
        std::os::unix::fs::symlink("f", "l")?;
        let (mut a, mut b): (RawStat, RawStat) = ([0; 32], [0; 32]);
        old!(Stat, c("l").as_ptr(), a.as_mut_ptr())?;
        old!(Lstat, c("l").as_ptr(), b.as_mut_ptr())?;
        // The inode is the second word.
        same!((a[1], b[1]), (std::fs::metadata("f")?.ino(), std::fs::symlink_metadata("l")?.ino()));
        refused!(old!(Stat, c("none").as_ptr(), a.as_mut_ptr()), ENOENT);
        refused!(old!(Lstat, c("f/x").as_ptr(), a.as_mut_ptr()), ENOTDIR);
        Ok(())
    }

    fn old_access [access] {
        sys::file("f", b"")?;
        same!(old!(Access, c("f").as_ptr(), libc::R_OK | libc::W_OK)?, 0);
        refused!(old!(Access, c("f").as_ptr(), libc::X_OK), EACCES);
        refused!(old!(Access, c("f").as_ptr(), 8), EINVAL);
        Ok(())
    }

    fn old_pipe [pipe] {
        let mut ends = [0i32; 2];
        old!(Pipe, ends.as_mut_ptr())?;
        sys::write(ends[1], b"x")?;
        same!(sys::get(ends[0], 5)?, b"x");
        refused!(old!(Pipe, 8usize), EFAULT);
        Ok(())
    }

    fn old_dup2 [dup2] {
        let fd = sys::file("f", b"abc")?;
        same!(old!(Dup2, fd, 77)?, 77);
        same!(sys::get(77, 5)?, b"abc");
        same!(old!(Dup2, 77, 77)?, 77);
        refused!(old!(Dup2, 99, 99), EBADF);
        Ok(())
    }

    fn old_poll_and_select [poll, select] {
        let (reader, writer) = sys::pipe()?;
        let mut fds = [libc::pollfd { fd: reader, events: libc::POLLIN, revents: 0 }];
        same!(old!(Poll, fds.as_mut_ptr(), 1u64, 0)?, 0);
        sys::write(writer, b"x")?;
        same!(old!(Poll, fds.as_mut_ptr(), 1u64, -1)?, 1);
        same!(fds[0].revents, libc::POLLIN);
        let mut set = [0u64; 16];
        set[reader as usize / 64] |= 1 << (reader % 64);
        let time = [5i64, 0];
        same!(old!(Select, reader + 1, set.as_mut_ptr(), 0usize, 0usize, time.as_ptr())?, 1);
        check!(set[reader as usize / 64] & 1 << (reader % 64) != 0);
        sys::get(reader, 1)?;
        let time = [0i64, 0];
        same!(old!(Select, reader + 1, set.as_mut_ptr(), 0usize, 0usize, time.as_ptr())?, 0);
        same!(set[reader as usize / 64], 0);
        Ok(())
    }

    fn old_pause_and_alarm [pause, alarm] {
        sys::on(libc::SIGALRM, Do::Count, 0)?;
        same!(old!(Alarm, 100)?, 0);
        check!((99..=100).contains(&old!(Alarm, 0)?));
        let pid = child(|| {
            sys::on(libc::SIGALRM, Do::Count, 0)?;
            sys::pester(5)?;
            refused!(sys::named(linux_abi::Call::Pause, &[]).unwrap_or(Err(linux_abi::Errno::EINTR)), EINTR);
            check!(sys::came(libc::SIGALRM) > 0);
            Ok(())
        })?;
        good(pid)
    }

    fn old_fork [fork, getpgrp] {
        let pid = old!(Fork)? as i32;
        if pid == 0 {
            sys::exit(6);
        }
        same!(wait(pid, 0)?, Status::Exited(6));
        same!(old!(Getpgrp)? as i32, sys!(SYS_getpgid, 0)? as i32);
        Ok(())
    }

    #[allow(deprecated)]
    fn old_vfork [vfork] {
        // SAFETY: the child does nothing but end.
        let pid = unsafe { libc::vfork() };
        if pid == 0 {
            sys::exit(7);
        }
        same!(wait(pid, 0)?, Status::Exited(7));
        Ok(())
    }

    fn old_names [rename, mkdir, rmdir, link, unlink, symlink, readlink] {
        old!(Mkdir, c("d").as_ptr(), 0o750)?;
        same!(mode_of("d")?, 0o750);
        refused!(old!(Mkdir, c("d").as_ptr(), 0o750), EEXIST);
        sys::file("d/a", b"1")?;
        old!(Link, c("d/a").as_ptr(), c("d/b").as_ptr())?;
        same!(std::fs::metadata("d/a")?.nlink(), 2);
        old!(Rename, c("d/b").as_ptr(), c("d/c").as_ptr())?;
        old!(Symlink, c("a").as_ptr(), c("d/s").as_ptr())?;
        let mut text = [0u8; 8];
        same!(old!(Readlink, c("d/s").as_ptr(), text.as_mut_ptr(), 8usize)?, 1);
        same!(text[0], b'a');
        refused!(old!(Rmdir, c("d").as_ptr()), ENOTEMPTY);
        for name in ["d/a", "d/c", "d/s"] {
            old!(Unlink, c(name).as_ptr())?;
        }
        refused!(old!(Unlink, c("d").as_ptr()), EISDIR);
        old!(Rmdir, c("d").as_ptr())?;
        refused!(old!(Rmdir, c("d").as_ptr()), ENOENT);
        Ok(())
    }

    fn old_renameat [renameat] {
        sys::file("a", b"")?;
        std::fs::create_dir("d")?;
        let dir = sys::open("d", libc::O_RDONLY, 0)?;
        old!(Renameat, CWD, c("a").as_ptr(), dir, c("b").as_ptr())?;
        check!(std::fs::metadata("d/b").is_ok());
        Ok(())
    }

    fn old_modes_and_owners [chmod, fchmod, chown, lchown] {
        let fd = sys::file("f", b"")?;
        old!(Chmod, c("f").as_ptr(), 0o604)?;
        same!(mode_of("f")?, 0o604);
        sys!(SYS_fchmod, fd, 0o440)?;
        same!(mode_of("f")?, 0o440);
        std::os::unix::fs::symlink("none", "l")?;
        refused!(old!(Chown, c("l").as_ptr(), -1, -1), ENOENT);
        old!(Lchown, c("l").as_ptr(), -1, -1)?;
        if sys!(SYS_geteuid)? == 0 {
            old!(Chown, c("f").as_ptr(), 3, 4)?;
            let meta = std::fs::metadata("f")?;
            same!((meta.uid(), meta.gid()), (3, 4));
        }
        Ok(())
    }

    fn old_times [utime, utimes, futimesat, time] {
        sys::file("f", b"")?;
        let times = || -> Result<(i64, i64), Fail> {
            let meta = std::fs::metadata("f")?;
            Ok((meta.atime(), meta.mtime()))
        };
        old!(Utime, c("f").as_ptr(), [11i64, 22].as_ptr())?;
        same!(times()?, (11, 22));
        old!(Utimes, c("f").as_ptr(), [33i64, 0, 44, 999_999].as_ptr())?;
        same!(times()?, (33, 44));
        refused!(old!(Utimes, c("f").as_ptr(), [33i64, 1_000_000, 44, 0].as_ptr()), EINVAL);
        old!(Futimesat, CWD, c("f").as_ptr(), [55i64, 0, 66, 0].as_ptr())?;
        same!(times()?, (55, 66));
        let (mut stored, before) = (0i64, sys::clock(libc::CLOCK_REALTIME)? / 1_000_000_000);
        let now = old!(Time, &raw mut stored)?;
        check!(now == stored && (0..=2).contains(&(now - before + 1)));
        Ok(())
    }

    fn old_mknod [mknod] {
        old!(Mknod, c("fifo").as_ptr(), libc::S_IFIFO | 0o600, 0)?;
        check!(std::fs::metadata("fifo")?.file_type().is_fifo());
        refused!(old!(Mknod, c("d").as_ptr(), libc::S_IFDIR | 0o600, 0), EPERM);
        Ok(())
    }

    fn old_epoll [epoll_create, epoll_wait] {
        refused!(old!(EpollCreate, 0), EINVAL);
        let ep = old!(EpollCreate, 1)? as i32;
        let (reader, writer) = sys::pipe()?;
        let event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 5 };
        sys!(SYS_epoll_ctl, ep, libc::EPOLL_CTL_ADD, reader, &raw const event)?;
        let mut got = [libc::epoll_event { events: 0, u64: 0 }; 2];
        same!(old!(EpollWait, ep, got.as_mut_ptr(), 2, 0)?, 0);
        sys::write(writer, b"x")?;
        same!(old!(EpollWait, ep, got.as_mut_ptr(), 2, -1)?, 1);
        same!({ got[0].u64 }, 5);
        Ok(())
    }

    fn old_eventfd_and_signalfd [eventfd, signalfd] {
        let fd = old!(Eventfd, 3)? as i32;
        same!(sys::get(fd, 8)?, 3u64.to_le_bytes());
        sys::mask(libc::SIG_BLOCK, &[libc::SIGUSR1])?;
        let set = sys::bits(&[libc::SIGUSR1]);
        let fd = old!(Signalfd, -1, &raw const set, 8usize)? as i32;
        sys::kill(sys::pid(), libc::SIGUSR1)?;
        same!(sys::get(fd, 200)?.len(), 128);
        refused!(old!(Signalfd, -1, &raw const set, 4usize), EINVAL);
        Ok(())
    }

    fn old_limits [getrlimit, setrlimit] {
        let mut now = [0u64; 2];
        old!(Getrlimit, libc::RLIMIT_NOFILE as i32, now.as_mut_ptr())?;
        let lower = [now[0].min(50), now[1]];
        old!(Setrlimit, libc::RLIMIT_NOFILE as i32, lower.as_ptr())?;
        old!(Getrlimit, libc::RLIMIT_NOFILE as i32, now.as_mut_ptr())?;
        same!(now, lower);
        refused!(old!(Setrlimit, libc::RLIMIT_NOFILE as i32, [5u64, 4].as_ptr()), EINVAL);
        refused!(old!(Getrlimit, 99, now.as_mut_ptr()), EINVAL);
        Ok(())
    }
}
