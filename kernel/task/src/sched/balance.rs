//! Which CPU a task goes to, and what idle CPUs take from busy ones.

use core::sync::atomic::Ordering;

use super::{Cpu, Sched, queue::Arrival, queue::Entity};
use crate::task::Task;

/// How often a busy CPU looks for an idle one that could take its surplus, in ns.
const PERIOD: u64 = 10_000_000;

impl Sched {
    fn waiting(&self, slot: usize) -> u64 {
        self.cpus.of(slot).map_or(u64::MAX, |c| c.waiting.load(Ordering::Relaxed))
    }

    /// The CPU for a task that wakes: the one where it ran if that is idle, another idle one, else where it ran (its cache is warm) unless
    /// another has less to do.
    pub(super) fn choose(&self, task: &Task, new: bool) -> usize {
        let here = hal::cpu::slot();
        if hal::cpu::count() == 1 {
            return here;
        }
        let allowed = task.sched.affinity() & self.online();
        let bit = |slot: usize| 1_u64 << (slot & 63);
        if allowed == 0 || allowed == bit(here) {
            return here;
        }
        let last = if new { here } else { task.sched.cpu() };
        let idle = self.idle.load(Ordering::Acquire) & allowed;
        if idle & bit(last) != 0 {
            return last;
        }
        if idle != 0 {
            return idle.trailing_zeros() as usize;
        }
        let mut best = if allowed & bit(last) != 0 { last } else { allowed.trailing_zeros() as usize };
        for slot in 0..hal::cpu::count() {
            if allowed & bit(slot) != 0 && self.waiting(slot) + 1 < self.waiting(best) {
                best = slot;
            }
        }
        best
    }

    /// Wakes an idle CPU if tasks wait here: it pulls one.
    pub(super) fn push_surplus(&self, cpu: &Cpu, now: u64) {
        let idle = self.idle.load(Ordering::Acquire);
        if idle == 0 || cpu.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let due = {
            let mut run = cpu.run.lock();
            let due = now.saturating_sub(run.balanced) >= PERIOD;
            if due {
                run.balanced = now;
            }
            due
        };
        if due {
            hal::cpu::kick(idle.trailing_zeros() as usize);
        }
    }

    /// An idle CPU takes a waiting task from the one with most of them.
    pub(super) fn pull(&self, slot: usize) {
        if hal::cpu::count() == 1 || self.waiting(slot) > 0 {
            return;
        }
        let busiest = (0..hal::cpu::count()).filter(|s| *s != slot).max_by_key(|s| self.waiting(*s));
        let (Some(other), Some(cpu)) = (busiest.and_then(|s| self.cpus.of(s)), self.cpus.of(slot)) else { return };
        if other.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let stolen = {
            let mut run = other.run.lock();
            let stolen = run.queue.steal(|t| t.sched.allows(slot));
            other.note_waiting(&run);
            stolen
        };
        if let Some((task, lag)) = stolen {
            let mut run = cpu.run.lock();
            task.sched.set_cpu(slot);
            let entity = Entity::new(task.sched.class(), lag);
            run.queue.push(task, entity, Arrival::Enter);
            cpu.note_waiting(&run);
        }
    }
}
