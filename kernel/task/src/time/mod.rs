//! Deadlines: one queue per CPU over the CPU's deadline timer, exact to what the hardware can. There is no tick: an idle CPU wakes only for a
//! deadline or an interrupt.

pub mod clock;
pub(crate) mod cputime;
pub mod itimer;
pub mod posix;
pub mod queue;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hal::{
    cpu::CpuLocal,
    sync::{SpinLock, rank},
};

use crate::kernel::Kernel;
pub use clock::{Clock, Clocks};
use queue::{TimerKey, TimerQueue};

const NEVER: u64 = u64::MAX;

/// Told when its deadline has passed; in interrupt context, no lock held (C1).
pub trait Expire: Send + Sync {
    /// The deadline has passed.
    fn expire(self: Arc<Self>);
}

/// A deadline that was set; take it back with [`Timers::cancel`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timer {
    slot: usize,
    key: TimerKey,
}

impl Timer {
    /// When it is due, in ns of `hal::time::now`.
    pub const fn deadline(&self) -> u64 {
        self.key.deadline
    }
}

struct Cpu {
    queue: SpinLock<TimerQueue<Arc<dyn Expire>>>,
    /// When the slice of the running task ends.
    slice: AtomicU64,
    /// What the hardware was asked for.
    programmed: AtomicU64,
}

/// The deadlines of a kernel.
pub struct Timers {
    cpus: CpuLocal<Cpu>,
    /// What waits, after its deadline, for some CPU to wake for something else.
    patient: SpinLock<TimerQueue<Arc<dyn Expire>>>,
    /// Its first deadline.
    patient_next: AtomicU64,
}

impl Timers {
    /// No deadlines.
    pub fn new() -> Self {
        Self {
            cpus: CpuLocal::new(|_| Cpu {
                queue: SpinLock::new(rank::TIMERS, TimerQueue::new()),
                slice: AtomicU64::new(NEVER),
                programmed: AtomicU64::new(NEVER),
            }),
            patient: SpinLock::new(rank::TIMERS, TimerQueue::new()),
            patient_next: AtomicU64::new(NEVER),
        }
    }

    /// Asks for `what` to be told at `deadline`, in ns of `hal::time::now`.
    pub fn set(&self, deadline: u64, what: Arc<dyn Expire>) -> Timer {
        let cpu = self.cpus.get();
        let (key, first) = cpu.queue.lock().insert(deadline, what);
        if first {
            Self::program(cpu, deadline);
        }
        Timer { slot: hal::cpu::slot(), key }
    }

    /// Asks for `what` to be told some time after `deadline`: when a CPU is awake for another deadline. For what is only tidied up.
    pub fn set_patient(&self, deadline: u64, what: Arc<dyn Expire>) {
        let mut patient = self.patient.lock();
        patient.insert(deadline, what);
        self.patient_next.store(patient.next().unwrap_or(NEVER), Relaxed);
    }

    /// Tells those whose deadlines have passed and who waited for somebody to be awake.
    fn tidy(&self, now: u64) {
        while self.patient_next.load(Relaxed) <= now {
            let due = {
                let mut patient = self.patient.lock();
                let due = patient.expire(now);
                self.patient_next.store(patient.next().unwrap_or(NEVER), Relaxed);
                due
            };
            match due {
                Some(what) => what.expire(),
                None => return,
            }
        }
    }

    /// Takes a deadline back; whether it had not passed yet.
    pub fn cancel(&self, timer: Timer) -> bool {
        // The hardware may fire once for nothing; that is cheaper than programming it twice for every wait.
        self.cpus.of(timer.slot).is_some_and(|cpu| cpu.queue.lock().remove(timer.key).is_some())
    }

    /// The slice of the running task ends then; `None`: whenever it likes.
    pub(crate) fn slice(&self, at: Option<u64>) {
        let cpu = self.cpus.get();
        let at = at.unwrap_or(NEVER);
        cpu.slice.store(at, Relaxed);
        Self::program(cpu, at);
    }

    fn program(cpu: &Cpu, at: u64) {
        if at < cpu.programmed.load(Relaxed) {
            cpu.programmed.store(at, Relaxed);
            hal::time::set_deadline(Some(at));
        }
    }

    /// The deadline of this CPU has passed.
    pub(crate) fn interrupt(&self, kernel: &Kernel) {
        let cpu = self.cpus.get();
        cpu.programmed.store(NEVER, Relaxed);
        let now = hal::time::now();
        loop {
            let due = cpu.queue.lock().expire(now);
            match due {
                Some(what) => what.expire(),
                None => break,
            }
        }
        self.tidy(now);
        if cpu.slice.load(Relaxed) <= now {
            cpu.slice.store(NEVER, Relaxed);
            kernel.sched.tick(kernel);
        }
        let next = cpu.queue.lock().next().unwrap_or(NEVER);
        let at = next.min(cpu.slice.load(Relaxed));
        if at != NEVER {
            Self::program(cpu, at);
        }
    }
}

impl Default for Timers {
    fn default() -> Self {
        Self::new()
    }
}
