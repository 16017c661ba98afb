//! poll and select.

use crate::sys;
use crate::sys::{Do, child, file, good, ms, on, pipe, ready, write};
use crate::{cases, check, refused, same};

/// `ppoll` of several.
fn poll(fds: &mut [libc::pollfd], timeout: Option<i64>) -> sys::Sys {
    let time = ms(timeout.unwrap_or(0));
    let time = timeout.map_or(std::ptr::null(), |_| &raw const time);
    sys!(SYS_ppoll, fds.as_mut_ptr(), fds.len(), time, 0usize, 8usize)
}

fn entry(fd: i32, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: -1 }
}

/// `pselect6` of the first 64 descriptors for reading.
fn select(read: &mut u64, timeout: Option<i64>) -> sys::Sys {
    let mut time = ms(timeout.unwrap_or(0));
    let time = timeout.map_or(std::ptr::null_mut(), |_| &raw mut time);
    sys!(SYS_pselect6, 64, std::ptr::from_mut(read), 0usize, 0usize, time, 0usize)
}

cases! {
    fn poll_times_out [ppoll] {
        let start = sys::clock(libc::CLOCK_MONOTONIC)?;
        same!(poll(&mut [], Some(30))?, 0);
        check!(sys::clock(libc::CLOCK_MONOTONIC)? - start >= 30_000_000);
        let (reader, _writer) = pipe()?;
        same!(poll(&mut [entry(reader, libc::POLLIN)], Some(10))?, 0);
        Ok(())
    }

    fn poll_several [ppoll] {
        let (a, b) = (pipe()?, pipe()?);
        write(b.1, b"x")?;
        let mut fds = [entry(a.0, libc::POLLIN), entry(b.0, libc::POLLIN), entry(a.1, libc::POLLOUT)];
        same!(poll(&mut fds, None)?, 2);
        same!(fds.map(|fd| fd.revents), [0, libc::POLLIN, libc::POLLOUT]);
        Ok(())
    }

    fn poll_negative_and_closed [ppoll] {
        let mut fds = [entry(-1, libc::POLLIN), entry(999, libc::POLLIN)];
        same!(poll(&mut fds, Some(0))?, 1);
        same!(fds.map(|fd| fd.revents), [0, libc::POLLNVAL]);
        Ok(())
    }

    fn poll_files_are_ready [ppoll] {
        let fd = file("f", b"")?;
        same!(ready(fd, libc::POLLIN | libc::POLLOUT, -1)?, libc::POLLIN | libc::POLLOUT);
        Ok(())
    }

    fn poll_wakes_up [ppoll] {
        let (reader, writer) = pipe()?;
        let pid = child(|| {
            write(writer, b"x")?;
            Ok(())
        })?;
        same!(ready(reader, libc::POLLIN, -1)?, libc::POLLIN);
        good(pid)
    }

    fn poll_hang_up_without_asking [ppoll] {
        let (reader, writer) = pipe()?;
        sys::close(writer)?;
        same!(ready(reader, 0, -1)?, libc::POLLHUP);
        Ok(())
    }

    fn poll_is_interrupted_never_restarted [ppoll] {
        on(libc::SIGALRM, Do::Count, libc::SA_RESTART)?;
        sys::pester(5)?;
        let (reader, _writer) = pipe()?;
        refused!(poll(&mut [entry(reader, libc::POLLIN)], None), EINTR);
        Ok(())
    }

    fn ppoll_with_a_mask [ppoll] {
        on(libc::SIGUSR1, Do::Count, 0)?;
        sys::mask(libc::SIG_BLOCK, &[libc::SIGUSR1])?;
        sys::kill(sys::pid(), libc::SIGUSR1)?;
        let none = 0u64;
        refused!(sys!(SYS_ppoll, 0usize, 0u64, 0usize, &raw const none, 8usize), EINTR);
        same!(sys::came(libc::SIGUSR1), 1);
        same!(sys::mask(libc::SIG_BLOCK, &[])? & sys::bits(&[libc::SIGUSR1]), sys::bits(&[libc::SIGUSR1]));
        Ok(())
    }

    fn ppoll_ready_beats_pending_signal [ppoll] {
        let (reader, writer) = pipe()?;
        write(writer, b"x")?;
        on(libc::SIGUSR1, Do::Count, 0)?;
        sys::mask(libc::SIG_BLOCK, &[libc::SIGUSR1])?;
        sys::kill(sys::pid(), libc::SIGUSR1)?;
        let none = 0u64;
        let mut fd = entry(reader, libc::POLLIN);
        same!(sys!(SYS_ppoll, &raw mut fd, 1u64, 0usize, &raw const none, 8usize)?, 1);
        Ok(())
    }

    fn poll_many_descriptors [ppoll] {
        let pipes = (0..200).map(|_| pipe()).collect::<Result<Vec<_>, _>>()?;
        let mut fds: Vec<_> = pipes.iter().map(|(reader, _)| entry(*reader, libc::POLLIN)).collect();
        write(pipes[137].1, b"x")?;
        same!(poll(&mut fds, None)?, 1);
        same!(fds.iter().position(|fd| fd.revents == libc::POLLIN), Some(137));
        Ok(())
    }

    fn poll_checks [ppoll] {
        refused!(sys!(SYS_ppoll, 8usize, 1u64, 0usize, 0usize, 8usize), EFAULT);
        refused!(sys!(SYS_ppoll, 0usize, 1u64 << 31, 0usize, 0usize, 8usize), EINVAL);
        let bad = libc::timespec { tv_sec: -1, tv_nsec: 0 };
        refused!(sys!(SYS_ppoll, 0usize, 0u64, &raw const bad, 0usize, 8usize), EINVAL);
        Ok(())
    }

    fn select_reads [pselect6] {
        let (reader, writer) = pipe()?;
        let mut set = 1u64 << reader;
        same!(select(&mut set, Some(0))?, 0);
        same!(set, 0);
        write(writer, b"x")?;
        let mut set = 1u64 << reader;
        same!(select(&mut set, None)?, 1);
        same!(set, 1 << reader);
        Ok(())
    }

    fn select_counts_each_set [pselect6] {
        let (reader, writer) = pipe()?;
        write(writer, b"x")?;
        let (mut read, mut write_set, mut except) = (1u64 << reader, 1u64 << writer, 0u64);
        same!(sys!(SYS_pselect6, 64, &raw mut read, &raw mut write_set, &raw mut except, 0usize, 0usize)?, 2);
        same!((read, write_set), (1 << reader, 1 << writer));
        Ok(())
    }

    fn select_checks [pselect6] {
        let mut set = 1u64 << 60;
        refused!(select(&mut set, Some(0)), EBADF);
        refused!(sys!(SYS_pselect6, -1, 0usize, 0usize, 0usize, 0usize, 0usize), EINVAL);
        Ok(())
    }

    fn select_updates_the_time_left [pselect6] {
        let (reader, writer) = pipe()?;
        write(writer, b"x")?;
        let mut set = 1u64 << reader;
        let mut time = ms(5000);
        same!(sys!(SYS_pselect6, 64, &raw mut set, 0usize, 0usize, &raw mut time, 0usize)?, 1);
        check!((0..=5).contains(&time.tv_sec));
        Ok(())
    }
}
