//! POSIX timers: timer_create(2) and its family.

use alloc::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use base::{Errno, Error, Result};
use hal::sync::{SpinLock, rank};

use super::{Clock, Expire, Timer};
use crate::{
    ids::Pid,
    image::IntervalTimer,
    process::Process,
    signal::{Origin, SigInfo, Signal, info::code},
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

struct Inner {
    timer: Option<Timer>,
    interval: u64,
    overrun: i32,
}

/// One timer.
pub struct PosixTimer {
    process: Weak<Process>,
    id: i32,
    clock: Clock,
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
    pub fn create(&self, clock: Clock, notify: Notify) -> Result<i32> {
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
            inner: SpinLock::new(rank::FUTEX, Inner { timer: None, interval: 0, overrun: 0 }),
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
}

impl PosixTimer {
    fn stop(&self) {
        let timer = self.inner.lock().timer.take();
        if let (Some(timer), Some(process)) = (timer, self.process.upgrade()) {
            process.kernel().timers.cancel(timer);
        }
    }

    /// What is left and the interval.
    pub fn read(&self) -> IntervalTimer {
        let inner = self.inner.lock();
        let left = inner.timer.map_or(0, |t| t.deadline().saturating_sub(hal::time::now()).max(1));
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
        let mut inner = self.inner.lock();
        inner.interval = new.interval;
        inner.overrun = 0;
        if new.left != 0 {
            let at = if absolute {
                process.kernel().clocks.deadline(self.clock, i64::try_from(new.left).unwrap_or(i64::MAX))
            } else {
                hal::time::now().saturating_add(new.left)
            };
            inner.timer = Some(process.kernel().timers.set(at, self.clone()));
        }
        old
    }
}

impl Expire for PosixTimer {
    fn expire(self: Arc<Self>) {
        let Some(process) = self.process.upgrade() else { return };
        let overrun = {
            let mut inner = self.inner.lock();
            let Some(was) = inner.timer.take() else { return };
            let mut missed = 0;
            let late = hal::time::now().saturating_sub(was.deadline());
            if let Some(intervals) = late.checked_div(inner.interval) {
                missed = intervals;
                let next = was.deadline() + (missed + 1) * inner.interval;
                inner.timer = Some(process.kernel().timers.set(next, self.clone()));
            }
            inner.overrun = i32::try_from(missed).unwrap_or(i32::MAX);
            inner.overrun
        };
        let Notify::Signal { signal, value, thread } = self.notify else { return };
        let value = value.unwrap_or(self.id as u64);
        let origin = Origin::Timer { id: self.id, overrun, value };
        let info = SigInfo { signal, code: code::SI_TIMER, errno: 0, origin };
        let sent = match thread.map(|tid| process.thread(tid)) {
            Some(Some(task)) => process.signal_thread(&task, info),
            Some(None) => Ok(()),
            None => process.signal(info),
        };
        if let Err(e) = sent {
            log::debug!("timer {} of {process:?}: {e}", self.id);
        }
    }
}
