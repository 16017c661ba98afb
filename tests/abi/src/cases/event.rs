//! eventfd, timerfd, signalfd.

use crate::sys;
use crate::sys::{child, get, good, mask, pid, ready, write};
use crate::{cases, check, refused, same};

fn eventfd(value: u32, flags: i32) -> sys::Sys<i32> {
    Ok(sys!(SYS_eventfd2, value, flags)? as i32)
}

/// The number that an eventfd or timerfd gives.
fn number(fd: i32) -> sys::Sys<u64> {
    Ok(u64::from_le_bytes(get(fd, 8)?.try_into().unwrap_or_default()))
}

fn timerfd(flags: i32) -> sys::Sys<i32> {
    Ok(sys!(SYS_timerfd_create, libc::CLOCK_MONOTONIC, flags)? as i32)
}

fn set_timer(fd: i32, flags: i32, value_ns: i64, interval_ns: i64) -> sys::Sys {
    let time = |ns: i64| libc::timespec { tv_sec: ns / 1_000_000_000, tv_nsec: ns % 1_000_000_000 };
    let timer = libc::itimerspec { it_interval: time(interval_ns), it_value: time(value_ns) };
    sys!(SYS_timerfd_settime, fd, flags, &raw const timer, 0usize)
}

fn signalfd(old: i32, signals: &[i32], flags: i32) -> sys::Sys<i32> {
    let set = sys::bits(signals);
    Ok(sys!(SYS_signalfd4, old, &raw const set, 8usize, flags)? as i32)
}

cases! {
    fn eventfd_counts [eventfd2, read, write] {
        let fd = eventfd(3, libc::EFD_NONBLOCK)?;
        write(fd, &4u64.to_le_bytes())?;
        same!(number(fd)?, 7);
        refused!(number(fd), EAGAIN);
        Ok(())
    }

    fn eventfd_semaphore [eventfd2, read] {
        let fd = eventfd(2, libc::EFD_SEMAPHORE | libc::EFD_NONBLOCK)?;
        same!((number(fd)?, number(fd)?), (1, 1));
        refused!(number(fd), EAGAIN);
        Ok(())
    }

    fn eventfd_full [write, ppoll] {
        let fd = eventfd(0, libc::EFD_NONBLOCK)?;
        write(fd, &(u64::MAX - 1).to_le_bytes())?;
        refused!(write(fd, &1u64.to_le_bytes()), EAGAIN);
        refused!(write(fd, &u64::MAX.to_le_bytes()), EINVAL);
        same!(ready(fd, libc::POLLIN | libc::POLLOUT, 0)?, libc::POLLIN);
        refused!(get(fd, 4), EINVAL);
        same!(number(fd)?, u64::MAX - 1);
        same!(ready(fd, libc::POLLIN | libc::POLLOUT, 0)?, libc::POLLOUT);
        Ok(())
    }

    fn eventfd_blocks_until_written [eventfd2, read] {
        let fd = eventfd(0, 0)?;
        let pid = child(|| {
            write(fd, &9u64.to_le_bytes())?;
            Ok(())
        })?;
        same!(number(fd)?, 9);
        good(pid)
    }

    fn timerfd_once [timerfd_create, timerfd_settime, read] {
        let fd = timerfd(0)?;
        let start = sys::clock(libc::CLOCK_MONOTONIC)?;
        set_timer(fd, 0, 20_000_000, 0)?;
        same!(number(fd)?, 1);
        check!(sys::clock(libc::CLOCK_MONOTONIC)? - start >= 20_000_000);
        sys::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK.into())?;
        refused!(number(fd), EAGAIN);
        Ok(())
    }

    fn timerfd_again_and_again [timerfd_settime, read] {
        let fd = timerfd(0)?;
        let start = sys::clock(libc::CLOCK_MONOTONIC)?;
        set_timer(fd, 0, 1_000_000, 2_000_000)?;
        let mut total = 0;
        while total < 10 {
            total += number(fd)?;
        }
        check!(sys::clock(libc::CLOCK_MONOTONIC)? - start >= 17_000_000);
        Ok(())
    }

    fn timerfd_absolute [timerfd_settime] {
        let fd = timerfd(libc::TFD_NONBLOCK)?;
        set_timer(fd, libc::TFD_TIMER_ABSTIME, 1, 0)?;
        same!(ready(fd, libc::POLLIN, -1)?, libc::POLLIN);
        same!(number(fd)?, 1);
        Ok(())
    }

    fn timerfd_gettime_and_disarm [timerfd_gettime, timerfd_settime] {
        let fd = timerfd(libc::TFD_NONBLOCK)?;
        set_timer(fd, 0, 100_000_000_000, 7)?;
        let mut now = [0i64; 4];
        sys!(SYS_timerfd_gettime, fd, now.as_mut_ptr())?;
        same!((now[0], now[1]), (0, 7));
        check!((90..=100).contains(&now[2]));
        set_timer(fd, 0, 0, 0)?;
        sys!(SYS_timerfd_gettime, fd, now.as_mut_ptr())?;
        same!((now[2], now[3]), (0, 0));
        same!(ready(fd, libc::POLLIN, 0)?, 0);
        Ok(())
    }

    fn timerfd_checks [timerfd_create, timerfd_settime] {
        refused!(sys!(SYS_timerfd_create, 99, 0), EINVAL);
        refused!(timerfd(1), EINVAL);
        let fd = timerfd(0)?;
        let bad = [0i64, 0, 0, 1_000_000_000];
        refused!(sys!(SYS_timerfd_settime, fd, 0, bad.as_ptr(), 0usize), EINVAL);
        let (reader, _writer) = sys::pipe()?;
        refused!(set_timer(reader, 0, 1, 0), EINVAL);
        refused!(write(fd, &1u64.to_le_bytes()), EINVAL);
        Ok(())
    }

    fn signalfd_reads_signals [signalfd4, read] {
        mask(libc::SIG_BLOCK, &[libc::SIGUSR1, libc::SIGUSR2])?;
        let fd = signalfd(-1, &[libc::SIGUSR1, libc::SIGUSR2], libc::SFD_NONBLOCK)?;
        refused!(get(fd, 128), EAGAIN);
        same!(ready(fd, libc::POLLIN, 0)?, 0);
        sys::kill(pid(), libc::SIGUSR2)?;
        sys::kill(pid(), libc::SIGUSR1)?;
        same!(ready(fd, libc::POLLIN, 0)?, libc::POLLIN);
        let bytes = get(fd, 1000)?;
        same!(bytes.len(), 256);
        let word = |at: usize| bytes.get(at..).and_then(|b| b.first_chunk()).map(|b| i32::from_le_bytes(*b));
        same!((word(0), word(128)), (Some(libc::SIGUSR1), Some(libc::SIGUSR2)));
        same!((word(8), word(12)), (Some(libc::SI_USER), Some(pid())));
        same!(sys::pending()?, 0);
        Ok(())
    }

    fn signalfd_changes_its_set [signalfd4] {
        mask(libc::SIG_BLOCK, &[libc::SIGUSR1, libc::SIGUSR2])?;
        let fd = signalfd(-1, &[libc::SIGUSR1], libc::SFD_NONBLOCK)?;
        sys::kill(pid(), libc::SIGUSR2)?;
        refused!(get(fd, 128), EAGAIN);
        same!(signalfd(fd, &[libc::SIGUSR2], 0)?, fd);
        same!(get(fd, 128)?.len(), 128);
        refused!(get(fd, 100), EINVAL);
        refused!(signalfd(sys::pipe()?.0, &[libc::SIGUSR1], 0), EINVAL);
        Ok(())
    }

    fn signalfd_blocks_until_a_signal [signalfd4, read] {
        mask(libc::SIG_BLOCK, &[libc::SIGCHLD])?;
        let fd = signalfd(-1, &[libc::SIGCHLD], 0)?;
        let child = child(|| Ok(()))?;
        let bytes = get(fd, 128)?;
        same!(bytes.get(12..16), Some(&child.to_le_bytes()[..]));
        good(child)
    }
}
