//! Calls that make descriptors out of nothing: pipe2(2), memfd_create(2), eventfd2(2), timerfd_create(2), signalfd4(2).

use alloc::sync::Arc;

use base::{Errno, Error, Result};
use linux_abi::{
    flags::OpenFlags as Abi,
    structs::{Itimerspec, Timespec},
};
use mm::Seals;
use task::{Cx, SigSet};
use vfs::{
    LocalFile, OpenFile,
    event::{EventFd, SignalFd, TimerClock, TimerFd, TimerSetting},
    pipe::Pipe,
};

use super::{file, install, invalid, open};
use crate::signal::read_set;

fn do_pipe(cx: &Cx, at: u64, flags: Abi) -> Result<u64> {
    if !(Abi::CLOEXEC | Abi::NONBLOCK | Abi::DIRECT).contains(flags) {
        return Err(invalid("unknown flags"));
    }
    if flags.contains(Abi::DIRECT) {
        return Err(invalid("no packet pipes"));
    }
    let close_on_exec = flags.contains(Abi::CLOEXEC);
    let (reader, writer) = Pipe::pair(cx.kernel().vfs(), &cx.caller(), open::status(flags));
    let r = install(cx, reader, close_on_exec)?;
    let undo = |fd: u64| {
        let _ = cx.task().files().close(fd);
    };
    let w = install(cx, writer, close_on_exec).inspect_err(|_| undo(r))?;
    cx.user(|u| u.write_struct(at, &[r as u32, w as u32])).inspect_err(|_| {
        undo(r);
        undo(w);
    })?;
    Ok(0)
}

/// pipe(2).
pub fn pipe(cx: &Cx, [at, ..]: [u64; 6]) -> Result<u64> {
    do_pipe(cx, at, Abi::empty())
}

/// pipe2(2).
pub fn pipe2(cx: &Cx, [at, flags, ..]: [u64; 6]) -> Result<u64> {
    do_pipe(cx, at, Abi::from_program(cx.task().isa, flags as u32))
}

/// memfd_create(2).
pub fn memfd_create(cx: &Cx, [name, flags, ..]: [u64; 6]) -> Result<u64> {
    const CLOEXEC: u64 = 1;
    const ALLOW_SEALING: u64 = 2;
    const NOEXEC_SEAL: u64 = 8;
    const EXEC: u64 = 16;
    if flags & !(CLOEXEC | ALLOW_SEALING | NOEXEC_SEAL | EXEC) != 0 || flags & (NOEXEC_SEAL | EXEC) == 24 {
        return Err(invalid("unknown flags"));
    }
    let name = cx.user(|u| u.string(name, 250))?.ok_or(Error::new(Errno::EINVAL, "name too long"))?;
    let seals = if flags & ALLOW_SEALING != 0 { Seals::empty() } else { Seals::SEAL };
    let file = vfs::tmpfs::memfd(cx.kernel().vfs(), &cx.caller(), &name, seals)?;
    install(cx, file, flags & CLOEXEC != 0)
}

/// The flags that eventfd2, timerfd_create and signalfd4 share: `O_CLOEXEC` and `O_NONBLOCK` by other names.
fn common(cx: &Cx, flags: u64, more: u64) -> Result<Abi> {
    let abi = Abi::from_program(cx.task().isa, (flags & !more) as u32);
    if flags >> 32 != 0 || !(Abi::CLOEXEC | Abi::NONBLOCK).contains(abi) {
        return Err(invalid("unknown flags"));
    }
    Ok(abi)
}

/// eventfd(2) without flags.
pub fn eventfd(cx: &Cx, [count, ..]: [u64; 6]) -> Result<u64> {
    eventfd2(cx, [count, 0, 0, 0, 0, 0])
}

/// eventfd2(2).
pub fn eventfd2(cx: &Cx, [count, flags, ..]: [u64; 6]) -> Result<u64> {
    const SEMAPHORE: u64 = 1;
    let flags = flags & 0xffff_ffff;
    let abi = common(cx, flags, SEMAPHORE)?;
    let count = u64::from(count as u32);
    let semaphore = flags & SEMAPHORE != 0;
    let file = EventFd::open(cx.kernel().vfs(), &cx.caller(), count, semaphore, open::status(abi));
    install(cx, file, abi.contains(Abi::CLOEXEC))
}

/// timerfd_create(2).
pub fn timerfd_create(cx: &Cx, [clock, flags, ..]: [u64; 6]) -> Result<u64> {
    let clock = match clock as i32 {
        0 => TimerClock::Realtime,
        // CLOCK_BOOTTIME is the same as CLOCK_MONOTONIC where nothing suspends.
        1 | 7 => TimerClock::Monotonic,
        // CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM.
        8 | 9 => return Err(Errno::EPERM.into()),
        _ => return Err(invalid("no such clock")),
    };
    let abi = common(cx, flags & 0xffff_ffff, 0)?;
    let file = TimerFd::open(cx.kernel().vfs(), &cx.caller(), clock, open::status(abi));
    install(cx, file, abi.contains(Abi::CLOEXEC))
}

/// Does something with the timer behind a descriptor.
fn timer<R>(cx: &Cx, fd: u64, f: impl FnOnce(&TimerFd) -> R) -> Result<R> {
    let file = file(cx, fd)?;
    let local = file.as_any().downcast_ref::<LocalFile>();
    let timer = local.and_then(|l| l.ops().as_any().downcast_ref::<TimerFd>());
    timer.map(f).ok_or(invalid("not a timer"))
}

fn encode(setting: TimerSetting) -> Itimerspec {
    Itimerspec { interval: Timespec::from_nanos(setting.interval), value: Timespec::from_nanos(setting.value) }
}

/// timerfd_settime(2).
pub fn timerfd_settime(cx: &Cx, [fd, flags, new, old, ..]: [u64; 6]) -> Result<u64> {
    const ABSTIME: u64 = 1;
    const CANCEL_ON_SET: u64 = 2;
    if flags & !(ABSTIME | CANCEL_ON_SET) != 0 {
        return Err(invalid("unknown flags"));
    }
    if flags & CANCEL_ON_SET != 0 && flags & ABSTIME != 0 && timer(cx, fd, TimerFd::clock)? == TimerClock::Realtime {
        // Nobody is told when the time of day is set. For other clocks and times the flag means nothing.
        return Err(invalid("no TFD_TIMER_CANCEL_ON_SET"));
    }
    let new: Itimerspec = cx.user(|u| u.read_struct(new))?;
    let bad = invalid("bad time");
    let setting =
        TimerSetting { value: new.value.to_nanos().ok_or(bad)?, interval: new.interval.to_nanos().ok_or(bad)? };
    let before = timer(cx, fd, |t| t.set(setting, flags & ABSTIME != 0))?;
    if old != 0 {
        cx.user(|u| u.write_struct(old, &encode(before)))?;
    }
    Ok(0)
}

/// timerfd_gettime(2).
pub fn timerfd_gettime(cx: &Cx, [fd, at, ..]: [u64; 6]) -> Result<u64> {
    let setting = timer(cx, fd, TimerFd::get)?;
    cx.user(|u| u.write_struct(at, &encode(setting))).map(|()| 0)
}

/// signalfd(2) without flags.
pub fn signalfd(cx: &Cx, [fd, mask, size, ..]: [u64; 6]) -> Result<u64> {
    signalfd4(cx, [fd, mask, size, 0, 0, 0])
}

/// signalfd4(2).
pub fn signalfd4(cx: &Cx, [fd, mask, size, flags, ..]: [u64; 6]) -> Result<u64> {
    let abi = common(cx, flags & 0xffff_ffff, 0)?;
    let mask = read_set(cx, mask, size)?.minus(SigSet::UNSTOPPABLE);
    if fd as i32 == -1 {
        let made: Arc<dyn OpenFile> = SignalFd::open(cx.kernel().vfs(), &cx.caller(), mask.0, open::status(abi))?;
        return install(cx, made, abi.contains(Abi::CLOEXEC));
    }
    let file = file(cx, fd)?;
    let local = file.as_any().downcast_ref::<LocalFile>();
    let signals = local.and_then(|l| l.ops().as_any().downcast_ref::<SignalFd>()).ok_or(invalid("not a signalfd"))?;
    signals.set_mask(mask.0);
    Ok(u64::from(fd as u32))
}
