//! Interval timers and POSIX timers.

use base::{Errno, Error, Result};
use linux_abi::structs::{Itimerspec, Itimerval, Timespec, Timeval};
use task::{
    Cx, Pid, Signal,
    image::IntervalTimer,
    time::{
        itimer::Which,
        posix::{Notify, TimerClock},
    },
};

use super::clocks::{ClockId, clock_id};

const BAD: Error = Error::new(Errno::EINVAL, "timer");

fn which(nr: u64) -> Result<Which> {
    match nr {
        0 => Ok(Which::Real),
        1 => Ok(Which::Virtual),
        2 => Ok(Which::Prof),
        _ => Err(BAD),
    }
}

/// What the clock of a CPU-time timer shows.
fn used(cx: &Cx, which: Which) -> u64 {
    match which {
        Which::Virtual => cx.process().usage().0.user,
        _ => cx.process().cpu_time(),
    }
}

fn val(timer: IntervalTimer) -> Itimerval {
    // A timer that is about to expire must not look like one that is off.
    let value = Timeval::from_nanos(if timer.left == 0 { 0 } else { timer.left.max(1000) });
    Itimerval { interval: Timeval::from_nanos(timer.interval), value }
}

/// getitimer(2).
pub fn getitimer(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let timers = &cx.process().itimers;
    let now = match which(args[0])? {
        Which::Real => timers.real(),
        other => timers.cpu(other, used(cx, other)),
    };
    cx.user(|u| u.write_struct(args[1], &val(now)))?;
    Ok(0)
}

/// setitimer(2).
pub fn setitimer(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let which = which(args[0])?;
    let new = if args[1] == 0 {
        IntervalTimer::default()
    } else {
        let raw: Itimerval = cx.user(|u| u.read_struct(args[1]))?;
        IntervalTimer { left: raw.value.to_nanos().ok_or(BAD)?, interval: raw.interval.to_nanos().ok_or(BAD)? }
    };
    let timers = &cx.process().itimers;
    let old = match which {
        Which::Real => timers.set_real(new),
        other => timers.set_cpu(other, new, used(cx, other)),
    };
    if args[2] != 0 {
        cx.user(|u| u.write_struct(args[2], &val(old)))?;
    }
    Ok(0)
}

/// alarm(2): seconds.
pub fn alarm(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    const SECOND: u64 = 1_000_000_000;
    let new = IntervalTimer { left: u64::from(args[0] as u32) * SECOND, interval: 0 };
    let old = cx.process().itimers.set_real(new).left;
    // Rounded, but never to 0.
    Ok(if old == 0 { 0 } else { ((old + SECOND / 2) / SECOND).max(1) })
}

/// timer_create(2).
pub fn timer_create(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    const SIGNAL: i32 = 0;
    const NONE: i32 = 1;
    const THREAD_ID: i32 = 4;
    let [clock, event_at, id_at, ..] = args;
    let me = cx.process().pid();
    let clock = match clock_id(clock)? {
        ClockId::Kernel(clock) => TimerClock::Kernel(clock),
        ClockId::Process(pid) if pid == Pid(0) || pid == me => TimerClock::Process,
        ClockId::Thread(tid) => {
            let tid = if tid == Pid(0) { cx.task().tid() } else { tid };
            cx.process().thread(tid).ok_or(BAD)?;
            TimerClock::Thread(tid)
        }
        ClockId::Process(_) => return Err(Error::new(Errno::EOPNOTSUPP, "no timers on CPU time of others")),
    };
    let notify = if event_at == 0 {
        Notify::Signal { signal: Signal::ALRM, value: None, thread: None }
    } else {
        // struct sigevent: value, signo, notify, thread id.
        let value: u64 = cx.user(|u| u.read_struct(event_at))?;
        let [signo, how, tid]: [i32; 3] = cx.user(|u| u.read_struct(event_at + 8))?;
        let signal = || u64::try_from(signo).ok().and_then(Signal::new).ok_or(BAD);
        match how {
            NONE => Notify::None,
            SIGNAL => Notify::Signal { signal: signal()?, value: Some(value), thread: None },
            THREAD_ID => {
                let tid = Pid(tid as u32);
                cx.process().thread(tid).ok_or(BAD)?;
                Notify::Signal { signal: signal()?, value: Some(value), thread: Some(tid) }
            }
            _ => return Err(BAD),
        }
    };
    let id = cx.process().posix_timers.create(clock, notify)?;
    if let Err(e) = cx.user(|u| u.write(id_at, &id.to_le_bytes())) {
        cx.process().posix_timers.delete(id)?;
        return Err(e);
    }
    Ok(0)
}

fn spec(timer: IntervalTimer) -> Itimerspec {
    Itimerspec { interval: Timespec::from_nanos(timer.interval), value: Timespec::from_nanos(timer.left) }
}

/// timer_settime(2).
pub fn timer_settime(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    const ABSOLUTE: u64 = 1;
    let [id, flags, new_at, old_at, ..] = args;
    let timer = cx.process().posix_timers.get(id as i32)?;
    let raw: Itimerspec = cx.user(|u| u.read_struct(new_at))?;
    let new = IntervalTimer { left: raw.value.to_nanos().ok_or(BAD)?, interval: raw.interval.to_nanos().ok_or(BAD)? };
    let old = timer.set(new, flags & ABSOLUTE != 0);
    if old_at != 0 {
        cx.user(|u| u.write_struct(old_at, &spec(old)))?;
    }
    Ok(0)
}

/// timer_gettime(2).
pub fn timer_gettime(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    let timer = cx.process().posix_timers.get(args[0] as i32)?;
    cx.user(|u| u.write_struct(args[1], &spec(timer.read())))?;
    Ok(0)
}

/// timer_getoverrun(2).
pub fn timer_getoverrun(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    Ok(cx.process().posix_timers.get(args[0] as i32)?.overrun() as u64)
}

/// timer_delete(2).
pub fn timer_delete(cx: &Cx, args: [u64; 6]) -> Result<u64> {
    cx.process().posix_timers.delete(args[0] as i32)?;
    Ok(0)
}
