//! Interval timers: setitimer(2), alarm(2).

use alloc::sync::{Arc, Weak};

use hal::sync::{SpinLock, rank};

use super::{Expire, Timer};
use crate::{
    children::Usage,
    image::IntervalTimer,
    process::Process,
    signal::{SigInfo, Signal},
};

/// Which timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Which {
    /// Wall clock: SIGALRM.
    Real = 0,
    /// User CPU time: SIGVTALRM.
    Virtual = 1,
    /// CPU time: SIGPROF.
    Prof = 2,
}

#[derive(Default)]
struct Inner {
    timer: Option<Timer>,
    interval: u64,
    /// CPU-time timers: when they expire, in ns of CPU time; 0: off.
    cpu: [(u64, u64); 2],
}

/// The interval timers of a process.
pub struct IntervalTimers {
    alarm: Arc<Alarm>,
}

struct Alarm {
    process: Weak<Process>,
    inner: SpinLock<Inner>,
}

impl IntervalTimers {
    pub(crate) fn new(process: Weak<Process>) -> Self {
        Self { alarm: Arc::new(Alarm { process, inner: SpinLock::new(rank::TASK, Inner::default()) }) }
    }

    /// What is left of the real timer, and its interval.
    pub fn real(&self) -> IntervalTimer {
        let inner = self.alarm.inner.lock();
        let left = inner.timer.map_or(0, |t| t.deadline().saturating_sub(hal::time::now()).max(1));
        IntervalTimer { left, interval: inner.interval }
    }

    /// Sets the real timer; what it was.
    pub fn set_real(&self, new: IntervalTimer) -> IntervalTimer {
        let Some(process) = self.alarm.process.upgrade() else { return IntervalTimer::default() };
        let timers = &process.kernel().timers;
        let old = self.real();
        let stale = {
            let mut inner = self.alarm.inner.lock();
            inner.interval = new.interval;
            inner.timer.take()
        };
        if let Some(timer) = stale {
            timers.cancel(timer);
        }
        if new.left != 0 {
            let at = hal::time::now().saturating_add(new.left);
            let timer = timers.set(at, self.alarm.clone());
            self.alarm.inner.lock().timer = Some(timer);
        }
        old
    }

    /// All three at this CPU time, for a task that moves.
    pub(crate) fn all(&self, usage: &Usage) -> [IntervalTimer; 3] {
        let total = usage.user + usage.system;
        [self.real(), self.cpu(Which::Virtual, usage.user), self.cpu(Which::Prof, total)]
    }

    /// Sets all three to go on at this CPU time.
    pub(crate) fn restore(&self, [real, user, all]: &[IntervalTimer; 3], usage: &Usage) {
        if real.left != 0 {
            self.set_real(*real);
        }
        self.set_cpu(Which::Virtual, *user, usage.user);
        self.set_cpu(Which::Prof, *all, usage.user + usage.system);
    }

    /// Whether a CPU-time timer has expired at `used` ns of its clock, and how long until it does, ns (`u64::MAX`: it is off).
    pub(crate) fn check_cpu(&self, which: Which, used: u64) -> (bool, u64) {
        let mut inner = self.alarm.inner.lock();
        let (due, interval) = &mut inner.cpu[(which as usize).saturating_sub(1) & 1];
        if *due == 0 {
            return (false, u64::MAX);
        }
        let rang = used >= *due;
        if rang {
            // Late expiries do not pile up: the signals merge anyway.
            *due = if *interval == 0 { 0 } else { (*due + *interval).max(used.saturating_add(1)) };
        }
        (rang, if *due == 0 { u64::MAX } else { due.saturating_sub(used) })
    }

    /// What is left of a CPU-time timer at `used` ns of its clock.
    pub fn cpu(&self, which: Which, used: u64) -> IntervalTimer {
        let (due, interval) = self.alarm.inner.lock().cpu[(which as usize).saturating_sub(1) & 1];
        IntervalTimer { left: if due == 0 { 0 } else { due.saturating_sub(used).max(1) }, interval }
    }

    /// Sets a CPU-time timer; what it was.
    pub fn set_cpu(&self, which: Which, new: IntervalTimer, used: u64) -> IntervalTimer {
        let old = self.cpu(which, used);
        let due = if new.left == 0 { 0 } else { used.saturating_add(new.left) };
        self.alarm.inner.lock().cpu[(which as usize).saturating_sub(1) & 1] = (due, new.interval);
        if due != 0
            && let Some(process) = self.alarm.process.upgrade()
        {
            process.watch_cpu();
        }
        old
    }

    /// The process ends.
    pub(crate) fn stop(&self) {
        let timer = self.alarm.inner.lock().timer.take();
        if let (Some(timer), Some(process)) = (timer, self.alarm.process.upgrade()) {
            process.kernel().timers.cancel(timer);
        }
    }
}

impl Expire for Alarm {
    fn expire(self: Arc<Self>) {
        let Some(process) = self.process.upgrade() else { return };
        {
            let mut inner = self.inner.lock();
            let Some(was) = inner.timer.take() else { return };
            if inner.interval != 0 {
                // Late expiries do not pile up: SIGALRM merges anyway.
                let next = was.deadline().saturating_add(inner.interval).max(hal::time::now());
                let timer = process.kernel().timers.set(next, self.clone());
                inner.timer = Some(timer);
            }
        }
        // SIGALRM carries no value, so a full queue does not lose it.
        let _ = process.signal(SigInfo::kernel(Signal::ALRM));
    }
}
