//! Timers on CPU time: ITIMER_VIRTUAL, ITIMER_PROF, RLIMIT_CPU and POSIX timers on CPU clocks.
//!
//! There is no tick. The scheduler ends the turn of a task when its process may have used what the first of these timers waits for; the task
//! then looks at all of them on its way back to user mode.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::itimer::Which;
use crate::{
    limits::{INFINITY, Limit, Resource},
    process::Process,
    signal::{SigInfo, Signal},
    task::work,
};

const NEVER: u64 = u64::MAX;
/// The shortest time after which a process is looked at again, ns. Timers on CPU time are late by this at most (Linux: by a tick).
const GRAIN: u64 = 250_000;
const SECOND: u64 = 1_000_000_000;

/// CPU time of a process, and when to look at its timers.
#[derive(Debug)]
pub(crate) struct CpuWatch {
    used: AtomicU64,
    due: AtomicU64,
}

impl CpuWatch {
    /// Nothing used, nothing to wait for.
    pub const fn new() -> Self {
        Self { used: AtomicU64::new(0), due: AtomicU64::new(NEVER) }
    }

    /// A thread of the process ran for `ns`.
    #[inline]
    pub fn ran(&self, ns: u64) {
        self.used.fetch_add(ns, Relaxed);
    }

    /// Whether the timers are to be looked at.
    pub fn is_due(&self) -> bool {
        self.used.load(Relaxed) >= self.due.load(Relaxed)
    }

    /// How long a thread may run before the timers are to be looked at, ns; `None`: as long as it likes.
    #[inline]
    pub fn left(&self) -> Option<u64> {
        match self.due.load(Relaxed) {
            NEVER => None,
            due => {
                // All CPUs may run threads of the process: each takes its share, and looks again.
                let left = due.saturating_sub(self.used.load(Relaxed)) / hal::cpu::count().max(1) as u64;
                Some(left.max(GRAIN))
            }
        }
    }
}

impl Process {
    /// Rings the timers on CPU time whose time has come, and notes when to look again.
    pub(crate) fn check_cpu_timers(&self) {
        let (own, _) = self.usage();
        let total = own.user + own.system;
        let mut next = NEVER;
        for (which, used, signal) in [(Which::Virtual, own.user, Signal::VTALRM), (Which::Prof, total, Signal::PROF)] {
            let (rang, left) = self.itimers.check_cpu(which, used);
            if rang {
                let _ = self.signal(SigInfo::kernel(signal));
            }
            next = next.min(left);
        }
        next = next.min(self.posix_timers.check_cpu(total));
        next = next.min(self.check_cpu_limit(total));
        // User time never runs faster than all time, so this is not too late for a timer on user time.
        self.cpu.due.store(total.saturating_add(next), Relaxed);
    }

    /// SIGXCPU every second beyond the soft limit, SIGKILL at the hard one; what is left until then, ns.
    fn check_cpu_limit(&self, total: u64) -> u64 {
        let Limit { soft, hard } = self.limits(|l| l.get(Resource::Cpu));
        let ns = |seconds: u64| if seconds == INFINITY { NEVER } else { seconds.saturating_mul(SECOND) };
        if total >= ns(hard) {
            let _ = self.signal(SigInfo::kernel(Signal::KILL));
            return NEVER;
        }
        let mut soft = soft;
        if total >= ns(soft) {
            let _ = self.signal(SigInfo::kernel(Signal::XCPU));
            // As Linux: the limit moves on, and getrlimit shows it.
            soft = (total / SECOND).saturating_add(1).min(hard);
            self.limits(|l| {
                let hard = l.get(Resource::Cpu).hard;
                let _ = l.set(Resource::Cpu, Limit { soft: soft.min(hard), hard }, false);
            });
        }
        ns(soft.min(hard)).saturating_sub(total)
    }

    /// A timer on CPU time was set: the CPUs that run threads of the process look at it.
    pub(crate) fn watch_cpu(&self) {
        self.check_cpu_timers();
        if self.cpu.due.load(Relaxed) != NEVER {
            for task in self.threads() {
                self.kernel().sched.changed(&task);
            }
        }
    }
}

/// The scheduler found that a process used what its timers wait for: its task looks at them before it goes on.
pub(crate) fn tell(task: &crate::task::Task) {
    task.set_work(work::CPU_TIME);
}
