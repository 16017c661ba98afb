//! Pipes and FIFOs.

use crate::sys;
use crate::sys::{Do, Status, child, close, get, get_all, good, on, pipe, pipe2, ready, wait, write};
use crate::{cases, check, refused, same};

cases! {
    fn pipe_carries_bytes [pipe2, read, write] {
        let (reader, writer) = pipe()?;
        same!(write(writer, b"hello")?, 5);
        same!(get(reader, 2)?, b"he");
        same!(get(reader, 10)?, b"llo");
        Ok(())
    }

    fn pipe_end_of_file [read, close] {
        let (reader, writer) = pipe()?;
        write(writer, b"x")?;
        close(writer)?;
        same!(get(reader, 10)?, b"x");
        same!(get(reader, 10)?, b"");
        Ok(())
    }

    fn pipe_without_reader [write] {
        let (reader, writer) = pipe()?;
        close(reader)?;
        on(libc::SIGPIPE, Do::Count, 0)?;
        refused!(write(writer, b"x"), EPIPE);
        same!(sys::came(libc::SIGPIPE), 1);
        let pid = child(|| {
            on(libc::SIGPIPE, Do::Default, 0)?;
            write(writer, b"x")?;
            Ok(())
        })?;
        same!(wait(pid, 0)?, Status::Killed(libc::SIGPIPE));
        Ok(())
    }

    fn pipe_nonblocking [pipe2, read, write, fcntl] {
        let (reader, writer) = pipe2(libc::O_NONBLOCK)?;
        refused!(get(reader, 1), EAGAIN);
        let mut total = 0;
        loop {
            match write(writer, &[7; 1000]) {
                Ok(n) => total += n,
                Err(linux_abi::Errno::EAGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        check!(total >= 60_000, "{total}");
        let got = get_all(reader, total)?.len();
        same!(got, total);
        refused!(get(reader, 1), EAGAIN);
        Ok(())
    }

    fn pipe_small_writes_are_whole [write] {
        let (reader, writer) = pipe()?;
        let writers = (0..4u8)
            .map(|id| {
                child(|| {
                    for n in 0..50u8 {
                        let mut record = [id; 4096];
                        record[1] = n;
                        same!(write(writer, &record)?, 4096);
                    }
                    Ok(())
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        close(writer)?;
        let mut next = [0u8; 4];
        for _ in 0..200 {
            let record = get_all(reader, 4096)?;
            let id = record.first().copied().unwrap_or(9);
            check!(record.len() == 4096 && id < 4 && record[2..].iter().all(|byte| *byte == id), "torn record");
            same!(record[1], next[id as usize]);
            next[id as usize] += 1;
        }
        writers.into_iter().try_for_each(good)
    }

    fn pipe_nonblocking_atomic_or_nothing [write] {
        let (reader, writer) = pipe2(libc::O_NONBLOCK)?;
        let size = sys::fcntl(writer, libc::F_GETPIPE_SZ, 0)? as usize;
        for _ in 0..size / 4096 {
            same!(write(writer, &[1; 4096])?, 4096);
        }
        refused!(write(writer, b"x"), EAGAIN);
        same!(get_all(reader, 4096)?.len(), 4096);
        same!(write(writer, &[2; 4096])?, 4096);
        Ok(())
    }

    fn pipe_large_write_waits_for_the_reader [write, read] {
        let (reader, writer) = pipe()?;
        let bytes: Vec<u8> = (0..1_000_000u32).map(|n| (n * 7 + n / 256) as u8).collect();
        let pid = child(|| {
            same!(write(writer, &bytes)?, bytes.len());
            Ok(())
        })?;
        close(writer)?;
        check!(get_all(reader, bytes.len() + 1)? == bytes);
        good(pid)
    }

    fn pipe_read_is_interrupted [read, setitimer] {
        on(libc::SIGALRM, Do::Count, 0)?;
        let (reader, _writer) = pipe()?;
        sys::pester(5)?;
        refused!(get(reader, 1), EINTR);
        Ok(())
    }

    fn pipe_read_is_restarted [read, rt_sigaction] {
        on(libc::SIGALRM, Do::Count, libc::SA_RESTART)?;
        let (reader, writer) = pipe()?;
        let (seen, tell) = pipe()?;
        let pid = child(|| {
            on(libc::SIGALRM, Do::Default, 0)?;
            get(seen, 1)?;
            write(writer, b"late")?;
            Ok(())
        })?;
        extern "C" fn tell_after_three(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
            sys::count(signal, info, context);
            if sys::came(signal) == 3 {
                let fd = sys::SPARE[1].load(std::sync::atomic::Ordering::SeqCst);
                let _ = write(fd as i32, b"x");
            }
        }
        sys::SPARE[1].store(tell as u32, std::sync::atomic::Ordering::SeqCst);
        on(libc::SIGALRM, Do::Call(tell_after_three), libc::SA_RESTART)?;
        sys::pester(5)?;
        same!(get(reader, 10)?, b"late");
        check!(sys::came(libc::SIGALRM) >= 3);
        good(pid)
    }

    fn pipe_write_interrupted_tells_how_much [write] {
        on(libc::SIGALRM, Do::Count, 0)?;
        let (_reader, writer) = pipe()?;
        sys::pester(5)?;
        let written = write(writer, &vec![0; 1 << 20])?;
        check!(written > 0 && written < 1 << 20, "{written}");
        refused!(write(writer, &[0; 4096]), EINTR);
        Ok(())
    }

    fn pipe_poll_states [ppoll] {
        let (reader, writer) = pipe2(libc::O_NONBLOCK)?;
        same!(ready(reader, libc::POLLIN, 0)?, 0);
        same!(ready(writer, libc::POLLOUT, 0)?, libc::POLLOUT);
        write(writer, b"x")?;
        same!(ready(reader, libc::POLLIN, -1)?, libc::POLLIN);
        while write(writer, &[0; 4096]).is_ok() {}
        same!(ready(writer, libc::POLLOUT, 0)?, 0);
        close(writer)?;
        same!(ready(reader, libc::POLLIN, 0)?, libc::POLLIN | libc::POLLHUP);
        let (reader, writer) = pipe()?;
        close(reader)?;
        same!(ready(writer, libc::POLLOUT, 0)? & libc::POLLERR, libc::POLLERR);
        Ok(())
    }

    fn pipe_bytes_waiting [ioctl] {
        let (reader, writer) = pipe()?;
        let mut waiting = -1i32;
        write(writer, b"12345")?;
        sys::ioctl(reader, libc::FIONREAD as u64, &mut waiting)?;
        same!(waiting, 5);
        Ok(())
    }

    fn pipe_wrong_uses [read, write, lseek, pipe2] {
        let (reader, writer) = pipe()?;
        refused!(get(writer, 1), EBADF);
        refused!(write(reader, b"x"), EBADF);
        refused!(sys::seek(reader, 0, libc::SEEK_SET), ESPIPE);
        refused!(pipe2(libc::O_CREAT), EINVAL);
        refused!(sys!(SYS_pipe2, 8usize, 0), EFAULT);
        refused!(sys!(SYS_write, writer, 8usize, 10usize), EFAULT);
        same!(write(writer, b"")?, 0);
        Ok(())
    }

    fn pipe_capacity_changes [fcntl] {
        let (reader, writer) = pipe2(libc::O_NONBLOCK)?;
        same!(sys::fcntl(reader, libc::F_GETPIPE_SZ, 0)?, 65536);
        check!(sys::fcntl(writer, libc::F_SETPIPE_SZ, 200_000)? >= 200_000);
        same!(write(writer, &vec![1; 200_000])?, 200_000);
        refused!(sys::fcntl(writer, libc::F_SETPIPE_SZ, 4096), EBUSY);
        Ok(())
    }

    fn fifo_between_processes [mknodat, openat] {
        sys!(SYS_mknodat, libc::AT_FDCWD, sys::c("fifo").as_ptr(), libc::S_IFIFO | 0o600, 0usize)?;
        refused!(sys::open("fifo", libc::O_WRONLY | libc::O_NONBLOCK, 0), ENXIO);
        let pid = child(|| {
            let fd = sys::open("fifo", libc::O_WRONLY, 0)?;
            write(fd, b"through the fifo")?;
            Ok(())
        })?;
        let fd = sys::open("fifo", libc::O_RDONLY, 0)?;
        same!(get_all(fd, 100)?, b"through the fifo");
        same!(sys::stat("fifo")?.st_mode & libc::S_IFMT, libc::S_IFIFO);
        good(pid)
    }

    fn splice_and_tee [splice, tee] {
        let (a_out, a_in) = pipe()?;
        let (b_out, b_in) = pipe()?;
        write(a_in, b"bytes")?;
        same!(sys!(SYS_tee, a_out, b_in, 100usize, 0)?, 5);
        same!(get(b_out, 10)?, b"bytes");
        let fd = sys::open("out", libc::O_RDWR | libc::O_CREAT, 0o600)?;
        same!(sys!(SYS_splice, a_out, 0usize, fd, 0usize, 100usize, 0)?, 5);
        same!(std::fs::read("out")?, b"bytes");
        Ok(())
    }
}
