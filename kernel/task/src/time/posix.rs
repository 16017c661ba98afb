//! POSIX timers: timer_create(2) and its family.

use alloc::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};

use base::{Errno, Error, Result};
use hal::sync::{SpinLock, rank};

use super::{Clock, Expire, Timer};
use crate::{
    ids::Pid,
    image::IntervalTimer,
    process::Process,
    signal::{Origin, SigInfo, Signal, info::code},
    task::Task,
};

/// Most timers of a process.
const MAX: usize = 1024;

/// What happens when a timer expires.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notify {
    /// Nothing: the program reads the timer.
    None,
    /// A signal to the process, or to one thread of it.
    Signal {
        /// Which.
        signal: Signal,
        /// `sigev_value`; `None`: the timer's id.
        value: Option<u64>,
        /// SIGEV_THREAD_ID.
        thread: Option<Pid>,
    },
}

/// The clock that a timer follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerClock {
    /// A clock of the kernel.
    Kernel(Clock),
    /// CPU time of the process.
    Process,
    /// CPU time of one of its threads.
    Thread(Pid),
}

#[derive(Default)]
struct Inner {
    timer: Option<Timer>,
    /// On a clock of CPU time: when it expires, ns of that clock; 0: off.
    due: u64,
    interval: u64,
    /// Expiries since the signal was queued that has not been delivered.
    missed: i32,
    /// Those of the signal that was delivered last.
    overrun: i32,
}

/// One timer.
pub struct PosixTimer {
    process: Weak<Process>,
    id: i32,
    clock: TimerClock,
    notify: Notify,
    inner: SpinLock<Inner>,
}

/// The timers of a process.
pub struct PosixTimers {
    process: Weak<Process>,
    all: SpinLock<(i32, BTreeMap<i32, Arc<PosixTimer>>)>,
}

impl PosixTimers {
    pub(crate) fn new(process: Weak<Process>) -> Self {
        Self { process, all: SpinLock::new(rank::TASK, (0, BTreeMap::new())) }
    }

    /// A new timer that is off; its id.
    ///
    /// # Errors
    /// `EAGAIN` if there are too many.
    pub fn create(&self, clock: TimerClock, notify: Notify) -> Result<i32> {
        let mut all = self.all.lock();
        if all.1.len() >= MAX {
            return Err(Error::new(Errno::EAGAIN, "too many timers"));
        }
        let id = all.0;
        all.0 = all.0.wrapping_add(1) & i32::MAX;
        let timer = Arc::new(PosixTimer {
            process: self.process.clone(),
            id,
            clock,
            notify,
            inner: SpinLock::new(rank::FUTEX, Inner::default()),
        });
        all.1.insert(id, timer);
        Ok(id)
    }

    /// A timer.
    ///
    /// # Errors
    /// `EINVAL` if there is none with that id.
    pub fn get(&self, id: i32) -> Result<Arc<PosixTimer>> {
        self.all.lock().1.get(&id).cloned().ok_or(Error::new(Errno::EINVAL, "no such timer"))
    }

    /// Deletes a timer.
    ///
    /// # Errors
    /// `EINVAL` if there is none with that id.
    pub fn delete(&self, id: i32) -> Result<()> {
        let timer = self.all.lock().1.remove(&id).ok_or(Error::new(Errno::EINVAL, "no such timer"))?;
        timer.stop();
        Ok(())
    }

    /// At execve(2) and exit: all are gone.
    pub(crate) fn clear(&self) {
        let all = core::mem::take(&mut self.all.lock().1);
        for timer in all.into_values() {
            timer.stop();
        }
    }

    /// A signal is about to be delivered: if it is of a timer, it says how many expiries it stands for.
    pub(crate) fn delivered(&self, mut info: SigInfo) -> SigInfo {
        if let Origin::Timer { id, overrun, .. } = &mut info.origin
            && let Ok(timer) = self.get(*id)
        {
            let mut inner = timer.inner.lock();
            inner.overrun = core::mem::take(&mut inner.missed);
            *overrun = inner.overrun;
        }
        info
    }

    /// Rings those on CPU time whose time has come, with `total` ns used by the process; how long until the next one at least, ns.
    pub(crate) fn check_cpu(&self, total: u64) -> u64 {
        let Some(process) = self.process.upgrade() else { return u64::MAX };
        let all: Vec<_> = {
            let all = self.all.lock();
            all.1.values().filter(|t| !matches!(t.clock, TimerClock::Kernel(_))).cloned().collect()
        };
        let mut next = u64::MAX;
        for timer in all {
            let Some(now) = timer.cpu_now(&process, total) else { continue };
            next = next.min(timer.check_cpu(&process, now));
        }
        next
    }
}

impl PosixTimer {
    fn stop(&self) {
        let timer = {
            let mut inner = self.inner.lock();
            inner.due = 0;
            inner.timer.take()
        };
        if let (Some(timer), Some(process)) = (timer, self.process.upgrade()) {
            process.kernel().timers.cancel(timer);
        }
    }

    /// What its clock of CPU time shows; `None` if the thread is gone or it has another clock.
    fn cpu_now(&self, process: &Process, total: u64) -> Option<u64> {
        match self.clock {
            TimerClock::Kernel(_) => None,
            TimerClock::Process => Some(total),
            TimerClock::Thread(tid) => process.thread(tid).map(|t| t.times.total()),
        }
    }

    /// What is left and the interval.
    pub fn read(&self) -> IntervalTimer {
        let now = self.process.upgrade().and_then(|p| {
            let total = p.cpu_time();
            self.cpu_now(&p, total)
        });
        let inner = self.inner.lock();
        let left = match (inner.timer, now) {
            (Some(t), _) => t.deadline().saturating_sub(hal::time::now()).max(1),
            (None, Some(now)) if inner.due != 0 => inner.due.saturating_sub(now).max(1),
            _ => 0,
        };
        IntervalTimer { left, interval: inner.interval }
    }

    /// Expiries beyond the one that the last signal stands for.
    pub fn overrun(&self) -> i32 {
        self.inner.lock().overrun
    }

    /// Sets it; what it was. `absolute`: `left` is a time of its clock.
    pub fn set(self: &Arc<Self>, new: IntervalTimer, absolute: bool) -> IntervalTimer {
        let old = self.read();
        self.stop();
        let Some(process) = self.process.upgrade() else { return old };
        let now = self.cpu_now(&process, process.cpu_time());
        let mut inner = self.inner.lock();
        inner.interval = new.interval;
        (inner.missed, inner.overrun) = (0, 0);
        if new.left == 0 {
            return old;
        }
        match (self.clock, now) {
            (TimerClock::Kernel(clock), _) => {
                let at = if absolute {
                    process.kernel().clocks.deadline(clock, i64::try_from(new.left).unwrap_or(i64::MAX))
                } else {
                    hal::time::now().saturating_add(new.left)
                };
                inner.timer = Some(process.kernel().timers.set(at, self.clone()));
            }
            (_, Some(now)) => {
                inner.due = if absolute { new.left } else { now.saturating_add(new.left) };
                drop(inner);
                process.watch_cpu();
            }
            // The thread whose time it follows has ended: it never expires.
            (_, None) => {}
        }
        old
    }

    /// Rings a timer on CPU time if its time has come; how long until it does, ns.
    fn check_cpu(&self, process: &Process, now: u64) -> u64 {
        let (missed, left) = {
            let mut inner = self.inner.lock();
            if inner.due == 0 {
                return u64::MAX;
            }
            if now < inner.due {
                return inner.due - now;
            }
            let late = now - inner.due;
            match late.checked_div(inner.interval) {
                Some(missed) => {
                    inner.due = inner.due.saturating_add((missed + 1).saturating_mul(inner.interval));
                    (missed, inner.due.saturating_sub(now))
                }
                None => {
                    inner.due = 0;
                    (0, u64::MAX)
                }
            }
        };
        self.ring(process, missed);
        left
    }

    /// It has expired, and `missed` times more.
    fn ring(&self, process: &Process, missed: u64) {
        let Notify::Signal { signal, value, thread } = self.notify else { return };
        let missed = i32::try_from(missed).unwrap_or(i32::MAX);
        let to = thread.map(|tid| process.thread(tid));
        if process.timer_signal_waits(self.id, to.as_ref().and_then(Option::as_ref)) {
            // It stands for this expiry too.
            let mut inner = self.inner.lock();
            inner.missed = inner.missed.saturating_add(missed).saturating_add(1);
            return;
        }
        self.inner.lock().missed = missed;
        let value = value.unwrap_or(self.id as u64);
        let origin = Origin::Timer { id: self.id, overrun: missed, value };
        let info = SigInfo { signal, code: code::SI_TIMER, errno: 0, origin };
        let sent = match to {
            Some(Some(task)) => process.signal_thread(&task, info),
            Some(None) => Ok(()),
            None => process.signal(info),
        };
        if let Err(e) = sent {
            log::debug!("timer {} of {process:?}: {e}", self.id);
        }
    }
}

impl Process {
    /// Whether a signal of the timer `id` is pending: for the process, or for the thread `to`.
    fn timer_signal_waits(&self, id: i32, to: Option<&Arc<Task>>) -> bool {
        let shared = self.shared.lock();
        let of_timer = |info: &SigInfo| matches!(info.origin, Origin::Timer { id: of, .. } if of == id);
        match to {
            Some(task) => task.signals.lock().pending.iter().any(of_timer),
            None => shared.pending.iter().any(of_timer),
        }
    }
}

impl Expire for PosixTimer {
    fn expire(self: Arc<Self>) {
        let Some(process) = self.process.upgrade() else { return };
        let missed = {
            let mut inner = self.inner.lock();
            let Some(was) = inner.timer.take() else { return };
            let late = hal::time::now().saturating_sub(was.deadline());
            match late.checked_div(inner.interval) {
                Some(missed) => {
                    let next = was.deadline() + (missed + 1) * inner.interval;
                    inner.timer = Some(process.kernel().timers.set(next, self.clone()));
                    missed
                }
                None => 0,
            }
        };
        self.ring(&process, missed);
    }
}
