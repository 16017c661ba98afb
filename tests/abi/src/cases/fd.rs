//! Descriptors: dup, fcntl, limits.

use linux_abi::Errno;

use crate::sys;
use crate::sys::{child, close, fcntl, file, get, good, pipe, write};
use crate::{cases, check, refused, same};

cases! {
    fn dup_shares_offset_and_flags [dup, lseek, fcntl] {
        let fd = file("f", b"abcdef")?;
        let other = sys!(SYS_dup, fd)? as i32;
        same!(get(fd, 3)?, b"abc");
        same!(get(other, 3)?, b"def");
        fcntl(fd, libc::F_SETFL, libc::O_APPEND.into())?;
        check!(fcntl(other, libc::F_GETFL, 0)? & i64::from(libc::O_APPEND) != 0);
        Ok(())
    }

    fn dup_takes_the_lowest [dup, close, fcntl] {
        let fd = file("f", b"")?;
        let next = sys!(SYS_dup, fd)? as i32;
        close(fd)?;
        same!(sys!(SYS_dup, next)? as i32, fd);
        same!(fcntl(next, libc::F_DUPFD, 100)?, 100);
        same!(fcntl(next, libc::F_DUPFD_CLOEXEC, 100)?, 101);
        same!(fcntl(100, libc::F_GETFD, 0)?, 0);
        same!(fcntl(101, libc::F_GETFD, 0)?, i64::from(libc::FD_CLOEXEC));
        Ok(())
    }

    fn dup3_replaces [dup3] {
        let (a, b) = (file("a", b"a")?, file("b", b"b")?);
        same!(sys!(SYS_dup3, a, b, libc::O_CLOEXEC)? as i32, b);
        same!(get(b, 5)?, b"a");
        same!(fcntl(b, libc::F_GETFD, 0)?, i64::from(libc::FD_CLOEXEC));
        refused!(sys!(SYS_dup3, a, a, 0), EINVAL);
        refused!(sys!(SYS_dup3, a, b, 1), EINVAL);
        refused!(sys!(SYS_dup3, 999, b, 0), EBADF);
        refused!(sys!(SYS_dup3, a, -1, 0), EBADF);
        Ok(())
    }

    fn bad_descriptors [read, write, close, fcntl, dup] {
        refused!(get(999, 1), EBADF);
        refused!(write(-1, b"x"), EBADF);
        refused!(close(999), EBADF);
        refused!(sys!(SYS_dup, 999), EBADF);
        refused!(fcntl(999, libc::F_GETFD, 0), EBADF);
        let fd = file("f", b"")?;
        refused!(fcntl(fd, 9999, 0), EINVAL);
        close(fd)?;
        refused!(close(fd), EBADF);
        Ok(())
    }

    fn access_modes_are_kept [openat, read, write] {
        file("f", b"data")?;
        let (ro, wo) = (sys::open("f", libc::O_RDONLY, 0)?, sys::open("f", libc::O_WRONLY, 0)?);
        refused!(write(ro, b"x"), EBADF);
        refused!(get(wo, 1), EBADF);
        same!(fcntl(wo, libc::F_GETFL, 0)? & 3, i64::from(libc::O_WRONLY));
        Ok(())
    }

    fn status_flags_change [fcntl] {
        let (reader, _writer) = pipe()?;
        let before = fcntl(reader, libc::F_GETFL, 0)?;
        fcntl(reader, libc::F_SETFL, before | i64::from(libc::O_NONBLOCK))?;
        refused!(get(reader, 1), EAGAIN);
        // The access mode and creation flags cannot change.
        fcntl(reader, libc::F_SETFL, (libc::O_WRONLY | libc::O_CREAT).into())?;
        same!(fcntl(reader, libc::F_GETFL, 0)? & 0o103, 0);
        Ok(())
    }

    fn descriptor_limit [prlimit64, openat, dup] {
        let limit = [64u64, 4096];
        sys!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, limit.as_ptr(), 0usize)?;
        let fd = file("f", b"")?;
        let mut last = fd;
        loop {
            match sys!(SYS_dup, fd) {
                Ok(new) => last = new as i32,
                Err(linux_abi::Errno::EMFILE) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        same!(last, 63);
        refused!(sys!(SYS_dup3, fd, 64, 0), EBADF);
        refused!(fcntl(fd, libc::F_DUPFD, 64), EINVAL);
        Ok(())
    }

    fn close_range_closes [close_range] {
        let fd = file("f", b"")?;
        for to in [20, 21, 22, 30] {
            sys!(SYS_dup3, fd, to, 0)?;
        }
        sys!(SYS_close_range, 20u32, 22u32, 0)?;
        refused!(fcntl(21, libc::F_GETFD, 0), EBADF);
        same!(fcntl(30, libc::F_GETFD, 0)?, 0);
        sys!(SYS_close_range, 25u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)?;
        same!(fcntl(30, libc::F_GETFD, 0)?, 1);
        refused!(sys!(SYS_close_range, 5u32, 4u32, 0), EINVAL);
        Ok(())
    }

    fn close_frees_the_pipe_only_at_last [close, dup] {
        let (reader, writer) = pipe()?;
        let second = sys!(SYS_dup, writer)? as i32;
        close(writer)?;
        same!(sys::ready(reader, libc::POLLIN, 0)?, 0);
        close(second)?;
        same!(sys::ready(reader, libc::POLLIN, 0)?, libc::POLLHUP);
        Ok(())
    }

    fn record_locks_between_processes [fcntl] {
        let fd = file("f", b"0123456789")?;
        // SAFETY: all zeroes is a valid struct of numbers.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as i16;
        lock.l_start = 2;
        lock.l_len = 3;
        sys!(SYS_fcntl, fd, libc::F_SETLK, &raw const lock)?;
        let parent = sys::pid();
        good(child(|| {
            let mut mine = lock;
            refused!(sys!(SYS_fcntl, fd, libc::F_SETLK, &raw const mine), EAGAIN);
            mine.l_start = 0;
            mine.l_len = 0;
            sys!(SYS_fcntl, fd, libc::F_GETLK, &raw mut mine)?;
            same!((mine.l_start, mine.l_len, mine.l_pid), (2, 3, parent));
            mine.l_type = libc::F_RDLCK as i16;
            mine.l_start = 5;
            mine.l_len = 1;
            sys!(SYS_fcntl, fd, libc::F_SETLK, &raw const mine)?;
            Ok(())
        })?)?;
        lock.l_start = 0;
        lock.l_len = 0;
        sys!(SYS_fcntl, fd, libc::F_SETLK, &raw const lock)?;
        Ok(())
    }

    fn record_locks_end_with_any_descriptor_of_the_file [fcntl, close] {
        let (fd, other) = (file("f", b"0123456789")?, sys::open("f", libc::O_RDWR, 0)?);
        // SAFETY: all zeroes is a valid struct of numbers.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as i16;
        sys!(SYS_fcntl, fd, libc::F_SETLK, &raw const lock)?;
        good(child(|| {
            refused!(sys!(SYS_fcntl, fd, libc::F_SETLK, &raw const lock), EAGAIN);
            Ok(())
        })?)?;
        close(other)?;
        good(child(|| {
            sys!(SYS_fcntl, fd, libc::F_SETLK, &raw const lock)?;
            Ok(())
        })?)
    }

    fn record_locks_of_who_waits_in_a_circle [fcntl] {
        let fd = file("f", b"0123456789")?;
        let lock = |start: i64, command: i32| {
            // SAFETY: all zeroes is a valid struct of numbers.
            let mut lock: libc::flock = unsafe { std::mem::zeroed() };
            lock.l_type = libc::F_WRLCK as i16;
            (lock.l_start, lock.l_len) = (start, 1);
            sys!(SYS_fcntl, fd, command, &raw const lock)
        };
        let ((reader, writer), (back, answer)) = (pipe()?, pipe()?);
        lock(0, libc::F_SETLK)?;
        let kid = child(|| {
            lock(1, libc::F_SETLK)?;
            write(writer, b"x")?;
            get(back, 1)?;
            // Both wait for each other: who comes last is told, the other gets it when that one ends.
            match lock(0, libc::F_SETLKW) {
                Ok(_) | Err(Errno::EDEADLK) => Ok(()),
                Err(e) => Err(e.into()),
            }
        })?;
        get(reader, 1)?;
        write(answer, b"x")?;
        match lock(1, libc::F_SETLKW) {
            Ok(_) => {}
            Err(Errno::EDEADLK) => drop(close(fd)?),
            Err(e) => return Err(e.into()),
        }
        close(fd).ok();
        good(kid)
    }

    fn record_locks_of_open_files [fcntl] {
        let (fd, other) = (file("f", b"0123456789")?, sys::open("f", libc::O_RDWR, 0)?);
        // SAFETY: all zeroes is a valid struct of numbers.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as i16;
        sys!(SYS_fcntl, fd, libc::F_OFD_SETLK, &raw const lock)?;
        let mut found = lock;
        refused!(sys!(SYS_fcntl, other, libc::F_OFD_SETLK, &raw const lock), EAGAIN);
        sys!(SYS_fcntl, other, libc::F_OFD_GETLK, &raw mut found)?;
        same!((i32::from(found.l_type), found.l_pid), (libc::F_WRLCK, -1));
        // They belong to the open file, which a child has too, and end with its last descriptor.
        let twin = sys!(SYS_dup, fd)? as i32;
        close(fd)?;
        refused!(sys!(SYS_fcntl, other, libc::F_OFD_SETLK, &raw const lock), EAGAIN);
        close(twin)?;
        sys!(SYS_fcntl, other, libc::F_OFD_SETLK, &raw const lock)?;
        Ok(())
    }

    fn flock_belongs_to_the_open_file [flock] {
        let (fd, other) = (file("f", b"")?, sys::open("f", libc::O_RDONLY, 0)?);
        let same_file = sys!(SYS_dup, fd)? as i32;
        sys!(SYS_flock, fd, libc::LOCK_EX)?;
        refused!(sys!(SYS_flock, other, libc::LOCK_SH | libc::LOCK_NB), EAGAIN);
        sys!(SYS_flock, same_file, libc::LOCK_UN)?;
        sys!(SYS_flock, other, libc::LOCK_SH | libc::LOCK_NB)?;
        sys!(SYS_flock, fd, libc::LOCK_SH | libc::LOCK_NB)?;
        refused!(sys!(SYS_flock, fd, libc::LOCK_EX | libc::LOCK_NB), EAGAIN);
        Ok(())
    }
}
