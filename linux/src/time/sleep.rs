//! Sleeping.

use base::{Errno, Result};
use linux_abi::structs::Timespec;
use task::{Cx, Interrupted, Timeout, time::Clock};

use super::{
    clocks::{ClockId, clock_id},
    timespec,
};

fn sleep(cx: &Cx, ns: u64, remaining_at: u64) -> Result<u64> {
    let deadline = cx.deadline(ns);
    match cx.wait_until(|| None::<()>, Timeout::At(deadline), Interrupted::NoHandler) {
        Err(e) if e == Errno::ETIMEDOUT => Ok(0),
        Err(e) => {
            if remaining_at != 0 {
                let left = deadline.saturating_sub(hal::time::now());
                cx.user(|u| u.write_struct(remaining_at, &Timespec::from_nanos(left)))?;
            }
            cx.restart_until(deadline);
            Err(e)
        }
        Ok(()) => Ok(0),
    }
}

/// nanosleep(2).
pub fn nanosleep(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let ns = timespec(cx, args[0])?;
    sleep(cx, ns, args[1])
}

/// clock_nanosleep(2).
pub fn clock_nanosleep(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    const ABSOLUTE: u64 = 1;
    let [clock, flags, request, remaining, ..] = args;
    let clock = match clock_id(clock)? {
        ClockId::Kernel(clock) => clock,
        ClockId::Process(_) => return Err(Errno::EOPNOTSUPP.into()),
        ClockId::Thread(_) => return Err(Errno::EINVAL.into()),
    };
    let ns = timespec(cx, request)?;
    if flags & ABSOLUTE == 0 {
        return sleep(cx, ns, remaining);
    }
    absolute(cx, clock, ns)
}

fn absolute(cx: &Cx, clock: Clock, at: u64) -> Result<u64> {
    let deadline = cx.kernel().clocks.deadline(clock, i64::try_from(at).unwrap_or(i64::MAX));
    match cx.wait_until(|| None::<()>, Timeout::At(deadline), Interrupted::NoHandler) {
        Err(e) if e == Errno::ETIMEDOUT => Ok(0),
        Err(e) => Err(e),
        Ok(()) => Ok(0),
    }
}
