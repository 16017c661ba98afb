//! Reading and setting clocks.

use base::{Errno, Error, Result};
use linux_abi::structs::{Timespec, Timeval};
use task::{Cx, Pid, creds::cap, time::Clock};

use super::{timespec, timeval};

/// What a clock id of a program means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClockId {
    /// A clock of the kernel.
    Kernel(Clock),
    /// CPU time of a process; 0 is the caller.
    Process(Pid),
    /// CPU time of a thread; 0 is the caller.
    Thread(Pid),
}

/// Decodes a clock id; `linux/time.h`, and `linux/posix-timers.h` for those of other processes.
///
/// # Errors
/// `EINVAL`.
pub fn clock_id(id: u64) -> Result<ClockId> {
    let id = id as i32;
    if id < 0 {
        let pid = Pid((!(id >> 3)).unsigned_abs());
        return match id & 7 {
            0..=2 => Ok(ClockId::Process(pid)),
            4..=6 => Ok(ClockId::Thread(pid)),
            _ => Err(Errno::EINVAL.into()),
        };
    }
    Ok(match id {
        0 | 5 => ClockId::Kernel(Clock::Realtime),
        1 | 4 | 6 => ClockId::Kernel(Clock::Monotonic),
        2 => ClockId::Process(Pid(0)),
        3 => ClockId::Thread(Pid(0)),
        7 => ClockId::Kernel(Clock::Boottime),
        11 => ClockId::Kernel(Clock::Tai),
        _ => return Err(Errno::EINVAL.into()),
    })
}

fn read(cx: &Cx, id: ClockId) -> Result<i64> {
    let none = || Error::from(Errno::EINVAL);
    match id {
        ClockId::Kernel(clock) => Ok(cx.kernel().clocks.read(clock)),
        ClockId::Process(Pid(0)) => Ok(cx.process().cpu_time() as i64),
        ClockId::Process(pid) => cx.kernel().table.process(pid).map(|p| p.cpu_time() as i64).ok_or_else(none),
        ClockId::Thread(Pid(0)) => Ok(cx.task().cpu_time() as i64),
        ClockId::Thread(tid) => cx.kernel().table.task(tid).map(|t| t.cpu_time() as i64).ok_or_else(none),
    }
}

const fn split(ns: i64) -> Timespec {
    Timespec { sec: ns.div_euclid(1_000_000_000), nsec: ns.rem_euclid(1_000_000_000) }
}

/// clock_gettime(2).
pub fn clock_gettime(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let now = split(read(cx, clock_id(args[0])?)?);
    cx.user(|u| u.write_struct(args[1], &now))?;
    Ok(0)
}

/// clock_getres(2).
pub fn clock_getres(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    clock_id(args[0])?;
    if args[1] != 0 {
        cx.user(|u| u.write_struct(args[1], &Timespec { sec: 0, nsec: 1 }))?;
    }
    Ok(0)
}

fn set(cx: &Cx, ns: u64) -> Result<u64> {
    if !cx.process().creds().can(cap::SYS_TIME) {
        return Err(Errno::EPERM.into());
    }
    cx.kernel().clocks.set_realtime(i64::try_from(ns).map_err(|_| Error::from(Errno::EINVAL))?);
    Ok(0)
}

/// clock_settime(2).
pub fn clock_settime(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    if clock_id(args[0])? != ClockId::Kernel(Clock::Realtime) {
        return Err(Errno::EINVAL.into());
    }
    set(cx, timespec(cx, args[1])?)
}

/// gettimeofday(2); the time zone is always UTC.
pub fn gettimeofday(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let now = cx.kernel().clocks.realtime();
    let tv = Timeval { sec: now.div_euclid(1_000_000_000), usec: now.rem_euclid(1_000_000_000) / 1000 };
    cx.user(|u| {
        if args[0] != 0 {
            u.write_struct(args[0], &tv)?;
        }
        if args[1] != 0 {
            u.write(args[1], &[0; 8])?;
        }
        Ok(())
    })?;
    Ok(0)
}

/// settimeofday(2).
pub fn settimeofday(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    if args[1] != 0 {
        return Err(Error::new(Errno::EINVAL, "the kernel has no time zone"));
    }
    if args[0] == 0 {
        return Ok(0);
    }
    set(cx, timeval(cx, args[0])?)
}

/// time(2).
pub fn time(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let now = cx.kernel().clocks.realtime().div_euclid(1_000_000_000);
    if args[0] != 0 {
        cx.user(|u| u.write(args[0], &now.to_le_bytes()))?;
    }
    Ok(now as u64)
}
