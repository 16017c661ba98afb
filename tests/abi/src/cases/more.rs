//! Memory, files, sockets and signals: calls that the other themes do not need.

use crate::case::Fail;
use crate::sys;
use crate::sys::{Do, Status, anon, c, child, good, pipe, read, wait, write};
use crate::{cases, check, old, refused, same};

const PAGE: usize = 4096;
const CWD: i32 = libc::AT_FDCWD;

/// Where a sandbox forbids a call that Linux has.
fn allowed(result: sys::Sys) -> Result<i64, Fail> {
    match result {
        Err(linux_abi::Errno::EPERM | linux_abi::Errno::ENOSYS) => Err(Fail::Skip("forbidden here".into())),
        other => Ok(other?),
    }
}

fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

/// A local socket address with this path.
fn address(path: &str) -> ([u8; 110], usize) {
    let mut bytes = [0u8; 110];
    bytes[..2].copy_from_slice(&(libc::AF_UNIX as u16).to_le_bytes());
    bytes[2..2 + path.len()].copy_from_slice(path.as_bytes());
    (bytes, 3 + path.len())
}

cases! {
    fn shared_segments [shmget, shmat, shmctl, shmdt] {
        let id = sys!(SYS_shmget, libc::IPC_PRIVATE, 2 * PAGE, 0o600 | libc::IPC_CREAT)? as i32;
        let at = sys!(SYS_shmat, id, 0usize, 0)? as usize;
        sys::poke(at + PAGE, 7);
        good(child(|| {
            let here = sys!(SYS_shmat, id, 0usize, libc::SHM_RDONLY)? as usize;
            same!(sys::peek(here + PAGE), 7);
            sys!(SYS_shmdt, here)?;
            sys::poke(at, 9);
            Ok(())
        })?)?;
        same!(sys::peek(at), 9);
        // SAFETY: all zeroes is a valid struct of numbers.
        let mut info: libc::shmid_ds = unsafe { std::mem::zeroed() };
        sys!(SYS_shmctl, id, libc::IPC_STAT, &raw mut info)?;
        same!((info.shm_segsz, info.shm_nattch as u64, info.shm_cpid), (2 * PAGE, 1, sys::pid()));
        sys!(SYS_shmctl, id, libc::IPC_RMID, 0usize)?;
        sys!(SYS_shmdt, at)?;
        refused!(sys!(SYS_shmdt, at), EINVAL);
        refused!(sys!(SYS_shmat, id, 0usize, 0), EINVAL);
        refused!(sys!(SYS_shmget, libc::IPC_PRIVATE, 0usize, 0o600), EINVAL);
        Ok(())
    }

    fn shared_segments_by_key [shmget] {
        let key = 0x5100_0000 | sys::pid();
        refused!(sys!(SYS_shmget, key, PAGE, 0o600), ENOENT);
        let id = sys!(SYS_shmget, key, PAGE, 0o600 | libc::IPC_CREAT | libc::IPC_EXCL)?;
        let tests = || -> crate::case::Outcome {
            same!(sys!(SYS_shmget, key, PAGE, 0o600)?, id);
            refused!(sys!(SYS_shmget, key, PAGE, 0o600 | libc::IPC_CREAT | libc::IPC_EXCL), EEXIST);
            refused!(sys!(SYS_shmget, key, 3 * PAGE, 0o600), EINVAL);
            Ok(())
        };
        let result = tests();
        sys!(SYS_shmctl, id, libc::IPC_RMID, 0usize)?;
        result
    }

    fn locking_all_memory [mlockall, munlockall, mlock2] {
        refused!(sys!(SYS_mlockall, 0), EINVAL);
        refused!(sys!(SYS_mlockall, 99), EINVAL);
        same!(sys!(SYS_munlockall)?, 0);
        let map = anon(PAGE)?;
        sys!(SYS_mlock2, map, PAGE, 0)?;
        sys!(SYS_munlock, map, PAGE)?;
        sys!(SYS_mlock2, map, PAGE, libc::MLOCK_ONFAULT as i32)?;
        refused!(sys!(SYS_mlock2, map, PAGE, 2), EINVAL);
        Ok(())
    }

    fn memory_policies [mbind, set_mempolicy, get_mempolicy] {
        let mut mode = -1i32;
        allowed(sys!(SYS_get_mempolicy, &raw mut mode, 0usize, 0u64, 0usize, 0))?;
        same!(mode, 0);
        allowed(sys!(SYS_set_mempolicy, 0, 0usize, 0u64))?;
        refused!(sys!(SYS_set_mempolicy, 99, 0usize, 0u64), EINVAL);
        let map = anon(PAGE)?;
        allowed(sys!(SYS_mbind, map, PAGE, 0, 0usize, 0u64, 0))?;
        refused!(sys!(SYS_mbind, map, PAGE, 99, 0usize, 0u64, 0), EINVAL);
        refused!(sys!(SYS_mbind, map + 1, PAGE, 0, 0usize, 0u64, 0), EINVAL);
        Ok(())
    }

    fn barriers [membarrier] {
        let known = allowed(sys!(SYS_membarrier, 0, 0, 0))?;
        check!(known & libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED as i64 != 0);
        refused!(sys!(SYS_membarrier, libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0), EPERM);
        sys!(SYS_membarrier, libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0)?;
        sys!(SYS_membarrier, libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0)?;
        refused!(sys!(SYS_membarrier, 1 << 20, 0, 0), EINVAL);
        refused!(sys!(SYS_membarrier, 0, 1, 0), EINVAL);
        Ok(())
    }

    fn file_advice_and_syncing [readahead, sync_file_range, fadvise64, syncfs] {
        let fd = sys::file("f", b"some bytes")?;
        same!(sys!(SYS_readahead, fd, 0i64, 10usize)?, 0);
        same!(sys!(SYS_sync_file_range, fd, 0i64, 10i64, libc::SYNC_FILE_RANGE_WRITE)?, 0);
        refused!(sys!(SYS_sync_file_range, fd, 0i64, 10i64, 99), EINVAL);
        same!(old!(Fadvise64, fd, 0i64, 10i64, libc::POSIX_FADV_WILLNEED)?, 0);
        refused!(old!(Fadvise64, fd, 0i64, 10i64, 99), EINVAL);
        let (reader, _writer) = pipe()?;
        refused!(old!(Fadvise64, reader, 0i64, 10i64, 0), ESPIPE);
        refused!(sys!(SYS_sync_file_range, reader, 0i64, 10i64, 0), ESPIPE);
        refused!(sys!(SYS_readahead, reader, 0i64, 10usize), EINVAL);
        same!(sys!(SYS_syncfs, fd)?, 0);
        refused!(sys!(SYS_syncfs, 999), EBADF);
        same!(sys::get(fd, 20)?, b"some bytes");
        Ok(())
    }

    fn attributes_that_are_not_there [setxattr, getxattr, listxattr, removexattr, lsetxattr, lgetxattr, llistxattr, lremovexattr, fsetxattr, fgetxattr, flistxattr, fremovexattr] {
        // A file system without extended attributes, on Linux too.
        let (file, gone, name) = (c("/proc/self/status"), c("/proc/self/none"), c("user.x"));
        let mut room = [0u8; 64];
        let fd = sys::open("/proc/self/status", libc::O_RDONLY, 0)?;
        refused!(sys!(SYS_setxattr, file.as_ptr(), name.as_ptr(), b"1".as_ptr(), 1usize, 0), EOPNOTSUPP);
        refused!(sys!(SYS_getxattr, file.as_ptr(), name.as_ptr(), room.as_mut_ptr(), 64usize), EOPNOTSUPP);
        refused!(sys!(SYS_lgetxattr, file.as_ptr(), name.as_ptr(), room.as_mut_ptr(), 64usize), EOPNOTSUPP);
        refused!(sys!(SYS_fgetxattr, fd, name.as_ptr(), room.as_mut_ptr(), 64usize), EOPNOTSUPP);
        refused!(sys!(SYS_lsetxattr, file.as_ptr(), name.as_ptr(), b"1".as_ptr(), 1usize, 0), EOPNOTSUPP);
        refused!(sys!(SYS_fsetxattr, fd, name.as_ptr(), b"1".as_ptr(), 1usize, 0), EOPNOTSUPP);
        refused!(sys!(SYS_removexattr, file.as_ptr(), name.as_ptr()), EOPNOTSUPP);
        refused!(sys!(SYS_lremovexattr, file.as_ptr(), name.as_ptr()), EOPNOTSUPP);
        refused!(sys!(SYS_fremovexattr, fd, name.as_ptr()), EOPNOTSUPP);
        refused!(sys!(SYS_getxattr, gone.as_ptr(), name.as_ptr(), room.as_mut_ptr(), 64usize), ENOENT);
        refused!(sys!(SYS_listxattr, gone.as_ptr(), room.as_mut_ptr(), 64usize), ENOENT);
        refused!(sys!(SYS_flistxattr, 999, room.as_mut_ptr(), 64usize), EBADF);
        same!(sys!(SYS_listxattr, file.as_ptr(), room.as_mut_ptr(), 64usize)?, 0);
        same!(sys!(SYS_llistxattr, file.as_ptr(), room.as_mut_ptr(), 64usize)?, 0);
        same!(sys!(SYS_flistxattr, fd, room.as_mut_ptr(), 64usize)?, 0);
        Ok(())
    }

    fn file_scattered_io_with_flags [preadv2, pwritev2] {
        let fd = sys::file("f", b"")?;
        let parts = [iovec(b"ab"), iovec(b"cdef")];
        same!(sys!(SYS_pwritev2, fd, parts.as_ptr(), 2usize, -1i64, 0, 0)?, 6);
        same!(sys!(SYS_pwritev2, fd, parts.as_ptr(), 1usize, 1i64, 0, 0)?, 2);
        same!(std::fs::read("f")?, b"aabdef");
        let into = [0u8; 4];
        let to = [iovec(&into)];
        same!(sys!(SYS_preadv2, fd, to.as_ptr(), 1usize, 2i64, 0, 0)?, 4);
        same!(std::hint::black_box(into), *b"bdef");
        // The position is after what was written at it.
        same!(sys::seek(fd, 0, libc::SEEK_CUR)?, 6);
        refused!(sys!(SYS_preadv2, fd, to.as_ptr(), 1usize, 0i64, 0, 1 << 30), EOPNOTSUPP);
        same!(sys!(SYS_pwritev2, fd, parts.as_ptr(), 1usize, 0i64, 0, libc::RWF_APPEND)?, 2);
        same!(std::fs::read("f")?, b"aabdefab");
        let (reader, _writer) = pipe()?;
        refused!(sys!(SYS_preadv2, reader, to.as_ptr(), 1usize, -1i64, 0, libc::RWF_NOWAIT), EAGAIN);
        Ok(())
    }

    fn file_open_by_how [openat2] {
        let open = |path: &str, flags: u64, mode: u64, resolve: u64, size: usize| {
            let how = [flags, mode, resolve, 0];
            sys!(SYS_openat2, CWD, c(path).as_ptr(), how.as_ptr(), size)
        };
        let fd = allowed(open("f", (libc::O_CREAT | libc::O_RDWR) as u64, 0o600, 0, 24))? as i32;
        same!(write(fd, b"x")?, 1);
        refused!(open("f", 0, 0o600, 0, 24), EINVAL);
        refused!(open("f", 1 << 40, 0, 0, 24), EINVAL);
        refused!(open("f", 0, 0, 0, 23), EINVAL);
        refused!(open("f", 0, 0, 1 << 40, 24), EINVAL);
        std::os::unix::fs::symlink("f", "l")?;
        check!(open("l", 0, 0, 0, 24).is_ok());
        same!(open("l", 0, 0, 0, 32)? > 2, true);
        Ok(())
    }

    fn file_access_with_flags [faccessat2, fchmodat2] {
        sys::file("f", b"")?;
        std::os::unix::fs::symlink("none", "l")?;
        same!(allowed(sys!(SYS_faccessat2, CWD, c("f").as_ptr(), libc::R_OK, libc::AT_EACCESS))?, 0);
        same!(sys!(SYS_faccessat2, CWD, c("l").as_ptr(), libc::F_OK, libc::AT_SYMLINK_NOFOLLOW)?, 0);
        refused!(sys!(SYS_faccessat2, CWD, c("l").as_ptr(), libc::F_OK, 0), ENOENT);
        refused!(sys!(SYS_faccessat2, CWD, c("f").as_ptr(), libc::F_OK, 1), EINVAL);
        same!(allowed(old!(Fchmodat2, CWD, c("f").as_ptr(), 0o611, libc::AT_SYMLINK_NOFOLLOW))?, 0);
        same!(sys::stat("f")?.st_mode & 0o7777, 0o611);
        refused!(old!(Fchmodat2, CWD, c("f").as_ptr(), 0o600, 1), EINVAL);
        Ok(())
    }

    fn memory_into_a_pipe_and_out [vmsplice] {
        let (reader, writer) = pipe()?;
        let parts = [iovec(b"in two"), iovec(b" parts")];
        same!(sys!(SYS_vmsplice, writer, parts.as_ptr(), 2usize, 0)?, 12);
        let into = [0u8; 6];
        same!(sys!(SYS_vmsplice, reader, [iovec(&into)].as_ptr(), 1usize, 0)?, 6);
        same!(std::hint::black_box(into), *b"in two");
        same!(sys::get(reader, 20)?, b" parts");
        refused!(sys!(SYS_vmsplice, reader, [iovec(&into)].as_ptr(), 1usize, libc::SPLICE_F_NONBLOCK as i32), EAGAIN);
        refused!(sys!(SYS_vmsplice, sys::file("f", b"")?, parts.as_ptr(), 2usize, 0), EBADF);
        refused!(sys!(SYS_vmsplice, writer, parts.as_ptr(), 2usize, 99), EINVAL);
        Ok(())
    }

    fn splice_keeps_what_does_not_fit [splice, tee] {
        let (a_out, a_in) = pipe()?;
        let (b_out, b_in) = sys::pipe2(libc::O_NONBLOCK)?;
        let page = [5u8; PAGE];
        while write(b_in, &page).is_ok() {}
        write(a_in, b"kept")?;
        refused!(sys!(SYS_splice, a_out, 0usize, b_in, 0usize, 10usize, libc::SPLICE_F_NONBLOCK as i32), EAGAIN);
        same!(sys::get(a_out, 10)?, b"kept");
        refused!(sys!(SYS_splice, a_out, 0usize, a_in, 0usize, 10usize, 0), EINVAL);
        refused!(sys!(SYS_tee, a_out, a_in, 10usize, 0), EINVAL);
        refused!(sys!(SYS_tee, a_out, b_in, 10usize, libc::SPLICE_F_NONBLOCK as i32), EAGAIN);
        let file = sys::file("f", b"from a file")?;
        let mut at = 5i64;
        same!(sys!(SYS_splice, file, &raw mut at, a_in, 0usize, 100usize, 0)?, 6);
        same!(at, 11);
        same!(sys::get(a_out, 100)?, b"a file");
        refused!(sys!(SYS_splice, file, 0usize, file, 0usize, 1usize, 0), EINVAL);
        refused!(sys!(SYS_splice, a_out, &raw mut at, b_in, 0usize, 1usize, 0), ESPIPE);
        sys::close(b_out)?;
        Ok(())
    }

    fn socket_names_and_options [accept, getsockname, getpeername, setsockopt, getsockopt] {
        let listener = sys!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)? as i32;
        let (name, length) = address("here");
        sys!(SYS_bind, listener, name.as_ptr(), length)?;
        sys!(SYS_listen, listener, 5)?;
        let client = sys!(SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0)? as i32;
        let mut got = [0u8; 110];
        let mut room = 110u32;
        refused!(sys!(SYS_getpeername, client, got.as_mut_ptr(), &raw mut room), ENOTCONN);
        sys!(SYS_connect, client, name.as_ptr(), length)?;
        let server = sys!(SYS_accept, listener, 0usize, 0usize)? as i32;
        room = 110;
        sys!(SYS_getsockname, listener, got.as_mut_ptr(), &raw mut room)?;
        same!((room as usize, got.get(..length)), (length, name.get(..length)));
        room = 110;
        sys!(SYS_getpeername, client, got.as_mut_ptr(), &raw mut room)?;
        same!((room as usize, got.get(..length)), (length, name.get(..length)));
        room = 110;
        sys!(SYS_getpeername, server, got.as_mut_ptr(), &raw mut room)?;
        same!(room, 2);
        let (mut value, mut size) = (0i32, 4u32);
        sys!(SYS_getsockopt, server, libc::SOL_SOCKET, libc::SO_TYPE, &raw mut value, &raw mut size)?;
        same!((value, size), (libc::SOCK_STREAM, 4));
        refused!(sys!(SYS_setsockopt, server, libc::SOL_SOCKET, 9999, &raw const value, 4u32), ENOPROTOOPT);
        refused!(sys!(SYS_getsockname, 0, got.as_mut_ptr(), &raw mut room), ENOTSOCK);
        Ok(())
    }

    fn signals_to_threads [tkill, rt_tgsigqueueinfo] {
        sys::on(libc::SIGUSR1, Do::Count, 0)?;
        let me = sys!(SYS_gettid)?;
        sys!(SYS_tkill, me, libc::SIGUSR1)?;
        same!(sys::came(libc::SIGUSR1), 1);
        refused!(sys!(SYS_tkill, -1, libc::SIGUSR1), EINVAL);
        refused!(sys!(SYS_tkill, 0x3f_ffff, libc::SIGUSR1), ESRCH);
        let mut info = [0i32; 32];
        info[2] = libc::SI_QUEUE;
        sys!(SYS_rt_tgsigqueueinfo, sys::pid(), me, libc::SIGUSR1, info.as_ptr())?;
        same!(sys::came(libc::SIGUSR1), 2);
        refused!(sys!(SYS_rt_tgsigqueueinfo, 0, me, libc::SIGUSR1, info.as_ptr()), EINVAL);
        Ok(())
    }

    fn sleep_goes_on_after_a_stop [restart_syscall, nanosleep] {
        // By itself it has nothing to go on with.
        refused!(sys!(SYS_restart_syscall), EINTR);
        let (reader, writer) = pipe()?;
        let pid = child(|| {
            let start = sys::clock(libc::CLOCK_MONOTONIC)?;
            write(writer, b"x")?;
            let time = sys::ms(200);
            sys!(SYS_nanosleep, &raw const time, 0usize)?;
            check!(sys::clock(libc::CLOCK_MONOTONIC)? - start >= 200_000_000);
            Ok(())
        })?;
        read(reader, &mut [0])?;
        sys::kill(pid, libc::SIGSTOP)?;
        same!(wait(pid, libc::WUNTRACED)?, Status::Stopped(libc::SIGSTOP));
        sys::kill(pid, libc::SIGCONT)?;
        good(pid)
    }

    fn itimer_prof_and_cpu_clocks [setitimer, timer_create, timer_settime, timer_gettime] {
        sys::on(libc::SIGPROF, Do::Count, 0)?;
        sys::on(libc::SIGUSR1, Do::Count, 0)?;
        let times = [libc::timeval { tv_sec: 0, tv_usec: 5000 }, libc::timeval { tv_sec: 0, tv_usec: 5000 }];
        sys!(SYS_setitimer, libc::ITIMER_PROF, times.as_ptr(), 0usize)?;
        // SAFETY: all zeroes is a valid struct of numbers.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_signo = libc::SIGUSR1;
        let mut id = -1i32;
        sys!(SYS_timer_create, libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut event, &raw mut id)?;
        let time = libc::itimerspec { it_interval: sys::ms(0), it_value: sys::ms(20) };
        let start = sys::clock(libc::CLOCK_PROCESS_CPUTIME_ID)?;
        sys!(SYS_timer_settime, id, 0, &raw const time, 0usize)?;
        let mut n = 0u64;
        while sys::came(libc::SIGUSR1) == 0 || sys::came(libc::SIGPROF) < 3 {
            n = std::hint::black_box(n + 1);
        }
        check!(sys::clock(libc::CLOCK_PROCESS_CPUTIME_ID)? - start >= 20_000_000);
        let mut left = time;
        sys!(SYS_timer_gettime, id, &raw mut left)?;
        same!((left.it_value.tv_sec, left.it_value.tv_nsec), (0, 0));
        Ok(())
    }
}
