//! eventfd(2), timerfd_create(2), signalfd(2).

use alloc::sync::{Arc, Weak};

use base::{
    Errno, Error, Ready, Result, Subscription, Try, TryResult, Wake,
    io::{Sink, Source},
    wait::done,
};
use hal::sync::{SpinLock, rank};

use crate::{
    Alarm, AlarmId, Caller, Env, LocalFile, OpenFlags, Status, Vfs, Waiters, anon,
    env::SignalSource,
    local::{FileOps, Wrote},
};

const TOO_SMALL: Error = Error::new(Errno::EINVAL, "the buffer is too small");

/// A counter: eventfd(2).
pub struct EventFd {
    count: SpinLock<u64>,
    /// EFD_SEMAPHORE: a read takes one.
    semaphore: bool,
    waiters: Waiters,
}

impl EventFd {
    /// Opens a counter at `count`.
    pub fn open(vfs: &Vfs, caller: &Caller, count: u64, semaphore: bool, status: Status) -> Arc<LocalFile> {
        let ops = Self { count: SpinLock::new(rank::EVENT, count), semaphore, waiters: Waiters::new() };
        let flags = OpenFlags::READ | OpenFlags::WRITE;
        anon::open(vfs, caller, Arc::new(ops), "anon_inode:[eventfd]", flags, status)
    }
}

impl FileOps for EventFd {
    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _: &LocalFile, _: &Caller, _: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        if sink.room() < 8 {
            return Err(TOO_SMALL);
        }
        {
            let mut count = self.count.lock();
            if *count == 0 {
                return Ok(Try::WouldBlock);
            }
            if !sink.can_put(8) {
                return done(0);
            }
            let taken = if self.semaphore { 1 } else { *count };
            *count -= taken;
            sink.put(&taken.to_le_bytes());
        }
        self.waiters.wake(Ready::OUT);
        done(8)
    }

    fn write(&self, _: &LocalFile, _: &Caller, _: u64, _: bool, source: &mut dyn Source) -> TryResult<Wrote> {
        if source.left() < 8 {
            return Err(TOO_SMALL);
        }
        let mut bytes = [0; 8];
        if source.peek(&mut bytes) < bytes.len() {
            return done(Wrote { bytes: 0, end: 0 });
        }
        let add = u64::from_le_bytes(bytes);
        if add == u64::MAX {
            return Err(Error::new(Errno::EINVAL, "the largest value cannot be added"));
        }
        {
            let mut count = self.count.lock();
            let Some(new) = count.checked_add(add).filter(|n| *n < u64::MAX) else { return Ok(Try::WouldBlock) };
            *count = new;
        }
        source.take(&mut bytes);
        self.waiters.wake(Ready::IN);
        done(Wrote { bytes: 8, end: 0 })
    }

    fn poll(&self, _: &LocalFile) -> Ready {
        let count = *self.count.lock();
        let mut ready = Ready::empty();
        ready.set(Ready::IN, count > 0);
        ready.set(Ready::OUT, count < u64::MAX - 1);
        ready
    }

    fn subscribe(&self, _: &LocalFile, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        self.waiters.subscribe(mask, waker)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// Which clock a timer follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerClock {
    /// Time of day.
    Realtime,
    /// Time since the machine was switched on.
    Monotonic,
}

#[derive(Default)]
struct Timer {
    /// When it expires next, ns of `hal::time::now`; 0 is never.
    next: u64,
    /// Between later expiries, ns; 0 is once.
    interval: u64,
    alarm: Option<AlarmId>,
}

impl Timer {
    /// How often it has expired by `now`; it goes on from there.
    fn expire(&mut self, now: u64) -> u64 {
        if self.next == 0 || now < self.next {
            return 0;
        }
        if self.interval == 0 {
            self.next = 0;
            return 1;
        }
        let times = (now - self.next) / self.interval + 1;
        self.next = self.next.saturating_add(times.saturating_mul(self.interval));
        times
    }
}

struct TimerState {
    timer: Timer,
    /// Expiries that were not read.
    expired: u64,
}

/// A timer: timerfd_create(2).
pub struct TimerFd {
    me: Weak<Self>,
    env: Arc<dyn Env>,
    clock: TimerClock,
    state: SpinLock<TimerState>,
    waiters: Waiters,
}

/// What a timer is set to, in ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TimerSetting {
    /// Until the first expiry; 0 is off.
    pub value: u64,
    /// Between later ones.
    pub interval: u64,
}

impl TimerFd {
    /// Opens a timer that is off.
    pub fn open(vfs: &Vfs, caller: &Caller, clock: TimerClock, status: Status) -> Arc<LocalFile> {
        let ops = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            env: vfs.env().clone(),
            clock,
            state: SpinLock::new(rank::EVENT, TimerState { timer: Timer::default(), expired: 0 }),
            waiters: Waiters::new(),
        });
        anon::open(vfs, caller, ops, "anon_inode:[timerfd]", OpenFlags::READ | OpenFlags::WRITE, status)
    }

    /// The clock that it follows.
    pub const fn clock(&self) -> TimerClock {
        self.clock
    }

    /// timerfd_gettime(2).
    pub fn get(&self) -> TimerSetting {
        let mut state = self.state.lock();
        let now = hal::time::now();
        let n = state.timer.expire(now);
        state.expired += n;
        let value = if state.timer.next == 0 { 0 } else { state.timer.next.saturating_sub(now).max(1) };
        TimerSetting { value, interval: state.timer.interval }
    }

    /// timerfd_settime(2); what it was set to. `value` is a time of its clock if `absolute`.
    pub fn set(&self, new: TimerSetting, absolute: bool) -> TimerSetting {
        let old = self.get();
        let now = hal::time::now();
        let next = match (new.value, absolute, self.clock) {
            (0, ..) => 0,
            (at, true, TimerClock::Realtime) => {
                self.env.realtime_deadline(i64::try_from(at).unwrap_or(i64::MAX)).max(1)
            }
            (at, true, TimerClock::Monotonic) => at,
            (after, false, _) => now.saturating_add(after),
        };
        let stale = {
            let mut state = self.state.lock();
            state.expired = 0;
            let stale = state.timer.alarm.take();
            state.timer = Timer { next, interval: new.interval, alarm: None };
            stale
        };
        if let Some(stale) = stale {
            self.env.cancel_alarm(stale);
        }
        self.arm(next);
        old
    }

    fn arm(&self, next: u64) {
        if next == 0 {
            return;
        }
        let Some(me) = self.me.upgrade() else { return };
        let alarm = self.env.set_alarm(next, me);
        let mut state = self.state.lock();
        // Set again meanwhile: the newer alarm stays, this one rings for nothing.
        if state.timer.next == next {
            state.timer.alarm = Some(alarm);
        }
    }
}

impl Alarm for TimerFd {
    fn ring(self: Arc<Self>) {
        let next = {
            let mut state = self.state.lock();
            let n = state.timer.expire(hal::time::now());
            state.expired += n;
            state.timer.next
        };
        self.waiters.wake(Ready::IN);
        self.arm(next);
    }
}

impl FileOps for TimerFd {
    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _: &LocalFile, _: &Caller, _: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        if sink.room() < 8 {
            return Err(TOO_SMALL);
        }
        let mut state = self.state.lock();
        let n = state.timer.expire(hal::time::now());
        state.expired += n;
        if state.expired == 0 {
            return Ok(Try::WouldBlock);
        }
        if !sink.can_put(8) {
            return done(0);
        }
        let count = core::mem::take(&mut state.expired);
        sink.put(&count.to_le_bytes());
        done(8)
    }

    fn write(&self, _: &LocalFile, _: &Caller, _: u64, _: bool, _: &mut dyn Source) -> TryResult<Wrote> {
        Err(Error::new(Errno::EINVAL, "timers cannot be written"))
    }

    fn poll(&self, _: &LocalFile) -> Ready {
        let mut state = self.state.lock();
        let n = state.timer.expire(hal::time::now());
        state.expired += n;
        if state.expired > 0 { Ready::IN } else { Ready::empty() }
    }

    fn subscribe(&self, _: &LocalFile, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        self.waiters.subscribe(mask, waker)
    }

    fn release(&self, _: &LocalFile) {
        let alarm = {
            let mut state = self.state.lock();
            state.timer.next = 0;
            state.timer.alarm.take()
        };
        if let Some(alarm) = alarm {
            self.env.cancel_alarm(alarm);
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// Signals as data: signalfd(2). They are those of the process that made it.
pub struct SignalFd {
    mask: SpinLock<u64>,
    source: Arc<dyn SignalSource>,
}

impl SignalFd {
    /// Opens one for the signals of `mask`.
    ///
    /// # Errors
    /// `ESRCH`.
    pub fn open(vfs: &Vfs, caller: &Caller, mask: u64, status: Status) -> Result<Arc<LocalFile>> {
        let source = vfs.env().signals(caller)?;
        let ops = Arc::new(Self { mask: SpinLock::new(rank::EVENT, mask), source });
        Ok(anon::open(vfs, caller, ops, "anon_inode:[signalfd]", OpenFlags::READ | OpenFlags::WRITE, status))
    }

    /// Changes which signals it takes.
    pub fn set_mask(&self, mask: u64) {
        *self.mask.lock() = mask;
    }
}

impl FileOps for SignalFd {
    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _: &LocalFile, _: &Caller, _: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        if sink.room() < 128 {
            return Err(TOO_SMALL);
        }
        let mask = *self.mask.lock();
        let mut moved = 0;
        while sink.room() >= 128 {
            // A signal that was taken cannot be put back.
            if !sink.can_put(128) {
                return done(moved);
            }
            match self.source.take(mask) {
                Some(info) => {
                    sink.put(&info);
                    moved += info.len();
                }
                None => break,
            }
        }
        if moved == 0 { Ok(Try::WouldBlock) } else { done(moved) }
    }

    fn write(&self, _: &LocalFile, _: &Caller, _: u64, _: bool, _: &mut dyn Source) -> TryResult<Wrote> {
        Err(Error::new(Errno::EINVAL, "signals cannot be written"))
    }

    fn poll(&self, _: &LocalFile) -> Ready {
        let mask = *self.mask.lock();
        if self.source.pending(mask) { Ready::IN } else { Ready::empty() }
    }

    fn subscribe(&self, _: &LocalFile, _: Ready, waker: Arc<dyn Wake>) -> Subscription {
        self.source.subscribe(waker)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::Timer;

    #[test]
    fn a_timer_counts_what_was_missed() {
        let mut t = Timer { next: 100, interval: 10, alarm: None };
        assert_eq!(t.expire(99), 0);
        assert_eq!(t.expire(100), 1);
        assert_eq!(t.expire(135), 3);
        assert_eq!(t.next, 140);
        let mut once = Timer { next: 5, interval: 0, alarm: None };
        assert_eq!((once.expire(9), once.expire(10), once.next), (1, 0, 0));
    }
}
