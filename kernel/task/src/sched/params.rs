//! How a task is scheduled: policy, nice, priority, CPUs. Changed by anybody, read by the scheduler when it next looks.

use core::sync::atomic::{AtomicI8, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::queue::{Class, Entity, IDLE_WEIGHT, weight};

/// Scheduling policies, sched(7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Policy {
    /// SCHED_OTHER.
    Other = 0,
    /// SCHED_FIFO.
    Fifo = 1,
    /// SCHED_RR.
    RoundRobin = 2,
    /// SCHED_BATCH.
    Batch = 3,
    /// SCHED_IDLE.
    Idle = 5,
}

impl Policy {
    /// The policy with this number.
    pub const fn new(nr: u64) -> Option<Self> {
        Some(match nr {
            0 => Self::Other,
            1 => Self::Fifo,
            2 => Self::RoundRobin,
            3 => Self::Batch,
            5 => Self::Idle,
            _ => return None,
        })
    }

    /// Whether it is a real-time policy.
    pub const fn is_realtime(self) -> bool {
        matches!(self, Self::Fifo | Self::RoundRobin)
    }
}

/// The urgency of the lowest nice value; those of real-time priorities are above it.
const FAIR_MOST: u8 = 40;

/// The parameters of one task.
#[derive(Debug)]
pub struct Params {
    policy: AtomicU8,
    priority: AtomicU8,
    nice: AtomicI8,
    /// SCHED_RESET_ON_FORK.
    reset_on_fork: AtomicU8,
    /// The urgency of who waits for something that it has; 0: nobody does.
    lent: AtomicU8,
    affinity: AtomicU64,
    cpu: AtomicUsize,
    lag: AtomicI64,
}

impl Params {
    /// SCHED_OTHER, nice 0, any CPU.
    pub const fn new() -> Self {
        Self {
            policy: AtomicU8::new(Policy::Other as u8),
            priority: AtomicU8::new(0),
            nice: AtomicI8::new(0),
            reset_on_fork: AtomicU8::new(0),
            lent: AtomicU8::new(0),
            affinity: AtomicU64::new(u64::MAX),
            cpu: AtomicUsize::new(0),
            lag: AtomicI64::new(0),
        }
    }

    /// For the child of a task with these.
    pub fn for_child(&self) -> Self {
        let it = Self::new();
        it.affinity.store(self.affinity(), Relaxed);
        if self.resets_on_fork() {
            it.nice.store(self.nice().max(0), Relaxed);
            if !self.policy().is_realtime() {
                it.policy.store(self.policy() as u8, Relaxed);
            }
        } else {
            it.policy.store(self.policy() as u8, Relaxed);
            it.priority.store(self.priority(), Relaxed);
            it.nice.store(self.nice(), Relaxed);
        }
        it
    }

    /// The policy.
    pub fn policy(&self) -> Policy {
        Policy::new(u64::from(self.policy.load(Relaxed))).unwrap_or(Policy::Other)
    }

    /// The real-time priority, 0 for other policies.
    pub fn priority(&self) -> u8 {
        self.priority.load(Relaxed)
    }

    /// The nice value.
    pub fn nice(&self) -> i8 {
        self.nice.load(Relaxed)
    }

    /// Whether children start with the default policy.
    pub fn resets_on_fork(&self) -> bool {
        self.reset_on_fork.load(Relaxed) != 0
    }

    /// CPUs it may run on, by slot.
    pub fn affinity(&self) -> u64 {
        self.affinity.load(Relaxed)
    }

    /// Whether it may run on a CPU.
    pub fn allows(&self, slot: usize) -> bool {
        self.affinity() & 1 << (slot & 63) != 0
    }

    /// The slot of the CPU where it runs, waits or last ran.
    pub fn cpu(&self) -> usize {
        self.cpu.load(Relaxed)
    }

    /// Sets the nice value (-20 to 19). Tell the scheduler afterwards.
    pub fn set_nice(&self, nice: i8) {
        self.nice.store(nice.clamp(-20, 19), Relaxed);
    }

    /// Sets policy and priority. Tell the scheduler afterwards.
    pub fn set_policy(&self, policy: Policy, priority: u8, reset_on_fork: bool) {
        self.policy.store(policy as u8, Relaxed);
        self.priority.store(priority, Relaxed);
        self.reset_on_fork.store(u8::from(reset_on_fork), Relaxed);
    }

    /// Sets the CPUs. Tell the scheduler afterwards.
    pub fn set_affinity(&self, slots: u64) {
        self.affinity.store(slots, Relaxed);
    }

    pub(super) fn set_cpu(&self, slot: usize) {
        self.cpu.store(slot, Relaxed);
    }

    pub(super) fn left(&self, lag: i64) {
        self.lag.store(lag, Relaxed);
    }

    /// How urgent it is by itself: 1 to 40 for nice values from 19 to -20, more for real-time priorities.
    fn own_urgency(&self) -> u8 {
        match self.policy() {
            Policy::Fifo | Policy::RoundRobin => FAIR_MOST + self.priority(),
            Policy::Other | Policy::Batch => (20 - self.nice()).clamp(1, FAIR_MOST as i8) as u8,
            Policy::Idle => 0,
        }
    }

    /// How urgent it is, with what it was lent.
    pub(crate) fn urgency(&self) -> u8 {
        self.own_urgency().max(self.lent.load(Relaxed))
    }

    /// Lends it this urgency instead of what it was lent before; whether that makes a difference. Tell the scheduler afterwards.
    pub(crate) fn lend(&self, urgency: u8) -> bool {
        let before = self.urgency();
        self.lent.store(urgency, Relaxed);
        self.urgency() != before
    }

    pub(super) fn class(&self) -> Class {
        let lent = self.lent.load(Relaxed);
        if lent > self.own_urgency() {
            return match lent.checked_sub(FAIR_MOST) {
                Some(priority) if priority > 0 => Class::RealTime { priority, round_robin: false },
                _ => Class::Fair { weight: weight(20 - lent as i8), batch: false },
            };
        }
        match self.policy() {
            Policy::Fifo => Class::RealTime { priority: self.priority(), round_robin: false },
            Policy::RoundRobin => Class::RealTime { priority: self.priority(), round_robin: true },
            Policy::Other => Class::Fair { weight: weight(self.nice()), batch: false },
            Policy::Batch => Class::Fair { weight: weight(self.nice()), batch: true },
            Policy::Idle => Class::Fair { weight: IDLE_WEIGHT, batch: true },
        }
    }

    pub(super) fn entity(&self) -> Entity {
        Entity::new(self.class(), self.lag.load(Relaxed))
    }
}

impl Default for Params {
    fn default() -> Self {
        Self::new()
    }
}
