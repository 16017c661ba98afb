//! Clocks, sleeps and timers.

mod clocks;
mod sleep;
mod timers;

use base::{Errno, Error, Result};
use linux_abi::structs::{Timespec, Timeval};
use task::Cx;

pub use clocks::{clock_getres, clock_gettime, clock_settime, gettimeofday, settimeofday, time};
pub use sleep::{clock_nanosleep, nanosleep};
pub use timers::{
    alarm, getitimer, setitimer, timer_create, timer_delete, timer_getoverrun, timer_gettime, timer_settime,
};

const BAD_TIME: Error = Error::new(Errno::EINVAL, "not a time");

/// Reads a `timespec`, in ns.
///
/// # Errors
/// `EINVAL` if it is negative or out of form, `EFAULT`.
pub fn timespec(cx: &Cx, at: u64) -> Result<u64> {
    cx.user(|u| u.read_struct::<Timespec>(at))?.to_nanos().ok_or(BAD_TIME)
}

/// Reads a `timeval`, in ns.
///
/// # Errors
/// As [`timespec`].
pub fn timeval(cx: &Cx, at: u64) -> Result<u64> {
    cx.user(|u| u.read_struct::<Timeval>(at))?.to_nanos().ok_or(BAD_TIME)
}
