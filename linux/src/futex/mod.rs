//! futex(2).

use base::{Errno, Error, Result};
use task::{Cx, Timeout, cx::Restart, futex::ANY, time::Clock};

use crate::time::timespec;

const WAIT: u32 = 0;
const WAKE: u32 = 1;
const REQUEUE: u32 = 3;
const CMP_REQUEUE: u32 = 4;
const WAKE_OP: u32 = 5;
const LOCK_PI: u32 = 6;
const UNLOCK_PI: u32 = 7;
const TRYLOCK_PI: u32 = 8;
const WAIT_BITSET: u32 = 9;
const WAKE_BITSET: u32 = 10;
const LOCK_PI2: u32 = 13;
const PRIVATE: u32 = 128;
const CLOCK_REALTIME: u32 = 256;

/// futex(2), without `FUTEX_WAIT_REQUEUE_PI`.
pub fn futex(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let [at, op, value, timeout, second, third] = args;
    let op = op as u32;
    let private = op & PRIVATE != 0;
    let realtime = op & CLOCK_REALTIME != 0;
    let value = value as u32;
    let command = op & !(PRIVATE | CLOCK_REALTIME);
    if realtime && !matches!(command, WAIT | WAIT_BITSET | LOCK_PI2) {
        return Err(Errno::ENOSYS.into());
    }
    let count = |n: u64| usize::try_from(n as i32).unwrap_or(usize::MAX);
    match command {
        WAIT => wait_relative(cx, at, private, value, timeout),
        LOCK_PI | LOCK_PI2 => {
            // The older one has always meant the time of day.
            let timeout = until(cx, timeout, realtime || command == LOCK_PI)?;
            cx.futex_lock_pi(at, private, timeout, false).map(|()| 0)
        }
        TRYLOCK_PI => cx.futex_lock_pi(at, private, Timeout::Now, true).map(|()| 0),
        UNLOCK_PI => cx.futex_unlock_pi(at, private).map(|()| 0),
        WAIT_BITSET => {
            let timeout = until(cx, timeout, realtime)?;
            cx.futex_wait(at, private, value, third as u32, timeout).map(|()| 0)
        }
        WAKE => cx.futex_wake(at, private, count(value.into()).max(1), ANY).map(|n| n as u64),
        WAKE_BITSET => {
            if third as u32 == 0 {
                return Err(Errno::EINVAL.into());
            }
            cx.futex_wake(at, private, count(value.into()).max(1), third as u32).map(|n| n as u64)
        }
        REQUEUE | CMP_REQUEUE => {
            if (value as i32) < 0 || (timeout as i32) < 0 {
                return Err(Errno::EINVAL.into());
            }
            let (from, to) = (cx.futex_word(at, private)?, cx.futex_word(second, private)?);
            if command == CMP_REQUEUE && cx.user(|u| u.load_u32(at))? != third as u32 {
                return Err(Errno::EAGAIN.into());
            }
            let (woken, moved) = cx.futex_requeue(&from, &to, count(value.into()), count(timeout))?;
            Ok((woken + if command == CMP_REQUEUE { moved } else { 0 }) as u64)
        }
        WAKE_OP => wake_op(cx, [at, second], private, [count(value.into()), count(timeout)], third as u32),
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// A time-out at a time of a clock; none at address 0.
fn until(cx: &Cx, at: u64, realtime: bool) -> Result<Timeout> {
    if at == 0 {
        return Ok(Timeout::Never);
    }
    let clock = if realtime { Clock::Realtime } else { Clock::Monotonic };
    let time = i64::try_from(timespec(cx, at)?).unwrap_or(i64::MAX);
    Ok(Timeout::At(cx.kernel().clocks.deadline(clock, time)))
}

fn wait_relative(cx: &Cx, at: u64, private: bool, value: u32, timeout: u64) -> Result<u64> {
    if timeout == 0 {
        return cx.futex_wait(at, private, value, ANY, Timeout::Never).map(|()| 0);
    }
    let deadline = cx.deadline(timespec(cx, timeout)?);
    match cx.futex_wait(at, private, value, ANY, Timeout::At(deadline)) {
        Err(e) if e == Errno::EINTR => {
            // Linux restarts a wait with a time-out as restart_syscall, so that the time goes on.
            cx.restart_until(deadline);
            Err(e)
        }
        other => other.map(|()| 0),
    }
}

/// FUTEX_WAKE_OP: changes the second word, wakes waiters of the first, and of the second if its old value compares.
fn wake_op(cx: &Cx, at: [u64; 2], private: bool, counts: [usize; 2], op: u32) -> Result<u64> {
    let sign = |bits: u32| ((bits << 20) as i32 >> 20) as u32;
    let (argument, compare) = (sign(op >> 12 & 0xfff), sign(op & 0xfff));
    let shifted = op >> 28 & 8 != 0;
    let argument = if shifted { 1_u32.wrapping_shl(argument) } else { argument };
    let change = move |old: u32| match op >> 28 & 7 {
        0 => argument,
        1 => old.wrapping_add(argument),
        2 => old | argument,
        3 => old & !argument,
        _ => old ^ argument,
    };
    if op >> 28 & 7 > 4 {
        return Err(Error::new(Errno::ENOSYS, "futex operation"));
    }
    let (first, second) = (cx.futex_word(at[0], private)?, cx.futex_word(at[1], private)?);
    let old = cx.user(|u| u.fetch_update_u32(at[1], change))?;
    let (a, b) = (old as i32, compare as i32);
    let hit = match op >> 24 & 15 {
        0 => a == b,
        1 => a != b,
        2 => a < b,
        3 => a <= b,
        4 => a > b,
        5 => a >= b,
        _ => return Err(Error::new(Errno::ENOSYS, "futex comparison")),
    };
    let mut woken = cx.futex_wake_word(&first, counts[0].max(1), ANY)?;
    if hit {
        woken += cx.futex_wake_word(&second, counts[1].max(1), ANY)?;
    }
    cx.set_restart(Restart::No);
    Ok(woken as u64)
}
