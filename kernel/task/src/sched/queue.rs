//! The run queue of one CPU, as a pure data structure: real-time tasks by priority, fair ones by virtual time.
//!
//! Virtual time runs for each task at `1024 / weight` of real time. The task that is furthest behind runs next; so over any interval two runnable
//! tasks get CPU time in proportion to their weights, within one slice each. A task that slept comes back at most [`BONUS`] behind the
//! others: enough to run soon, not enough to make up for its sleep.

use alloc::vec::Vec;

/// How long a fair task runs before another one gets its turn, in ns.
pub const SLICE: u64 = 3_000_000;
/// How much virtual time a waking task may lag behind the others, in ns.
pub const BONUS: i64 = SLICE as i64;
/// How far a waking task must be behind the running one to take its CPU, in ns of virtual time.
pub const WAKE_MARGIN: i64 = 1_000_000;
/// The slice of SCHED_RR in ns (`sched_rr_get_interval`).
pub const RR_SLICE: u64 = 100_000_000;
/// The weight of nice 0.
pub const NICE_0: u32 = 1024;
/// The weight of SCHED_IDLE.
pub const IDLE_WEIGHT: u32 = 3;

/// The weight of a nice value (-20 to 19): each step is a factor of 1.25.
pub const fn weight(nice: i8) -> u32 {
    let mut w = 1024_u64 << 16;
    let mut n = nice;
    while n > 0 {
        w = w * 4 / 5;
        n -= 1;
    }
    while n < 0 {
        w = w * 5 / 4;
        n += 1;
    }
    ((w + (1 << 15)) >> 16) as u32
}

/// Which tasks come before which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// SCHED_FIFO and SCHED_RR, priority 1 (low) to 99.
    RealTime {
        /// The priority.
        priority: u8,
        /// Tasks of one priority take turns.
        round_robin: bool,
    },
    /// SCHED_OTHER, SCHED_BATCH and SCHED_IDLE.
    Fair {
        /// From nice or [`IDLE_WEIGHT`].
        weight: u32,
        /// Does not take the CPU of others when it wakes (SCHED_BATCH, SCHED_IDLE).
        batch: bool,
    },
}

/// What the queue knows about a task while it is runnable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entity {
    /// Which tasks it comes before.
    pub class: Class,
    /// Virtual time in ns: absolute while runnable here, relative to the queue's while elsewhere.
    vtime: i64,
    /// What is left of its slice, in ns.
    left: u64,
}

impl Entity {
    /// A task that has not run here; `lag` is what [`Queue::leave`] said, 0 for a new one.
    pub const fn new(class: Class, lag: i64) -> Self {
        Self { class, vtime: lag, left: Self::slice(class) }
    }

    const fn slice(class: Class) -> u64 {
        match class {
            Class::RealTime { round_robin: true, .. } => RR_SLICE,
            Class::RealTime { .. } => u64::MAX,
            Class::Fair { .. } => SLICE,
        }
    }

    /// What is left of its slice, in ns; `None` if it has no end.
    pub const fn left(&self) -> Option<u64> {
        if self.left == u64::MAX { None } else { Some(self.left) }
    }

    const fn is_fair(&self) -> bool {
        matches!(self.class, Class::Fair { .. })
    }
}

/// How a task comes to a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// It is new, woke up or comes from another CPU: its virtual time is relative.
    Enter,
    /// It ran here and lost the CPU to a better one.
    Preempted,
    /// It ran here and its slice is over, or it yielded.
    TurnOver,
}

/// Runnable tasks of one CPU, without the one that runs.
#[derive(Debug)]
pub struct Queue<T> {
    /// By virtual time, the next one last.
    fair: Vec<(T, Entity)>,
    /// By priority, the next one last.
    real: Vec<(T, Entity)>,
    /// Never goes back; about the virtual time of the task furthest behind.
    floor: i64,
    weight: u64,
}

impl<T> Queue<T> {
    /// Nothing runnable.
    pub const fn new() -> Self {
        Self { fair: Vec::new(), real: Vec::new(), floor: 0, weight: 0 }
    }

    /// How many wait here.
    pub fn len(&self) -> usize {
        self.fair.len() + self.real.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.fair.is_empty() && self.real.is_empty()
    }

    /// The sum of the weights of waiting fair tasks.
    pub const fn weight(&self) -> u64 {
        self.weight
    }

    /// Puts a task in.
    pub fn push(&mut self, task: T, mut e: Entity, arrival: Arrival) {
        match e.class {
            Class::RealTime { priority, .. } => {
                if arrival == Arrival::TurnOver || arrival == Arrival::Enter {
                    e.left = Entity::slice(e.class);
                }
                let ahead_of_equals = arrival == Arrival::Preempted;
                let at = self.real.partition_point(|(_, other)| match other.class {
                    Class::RealTime { priority: p, .. } => p < priority || (ahead_of_equals && p == priority),
                    Class::Fair { .. } => false,
                });
                self.real.insert(at, (task, e));
            }
            Class::Fair { weight, .. } => {
                match arrival {
                    Arrival::Enter => {
                        e.vtime = self.floor + e.vtime.clamp(-BONUS, 4 * BONUS);
                        e.left = SLICE;
                    }
                    Arrival::TurnOver => e.left = SLICE,
                    Arrival::Preempted => {}
                }
                self.weight += u64::from(weight);
                // Before equals in the list, which is after them in time.
                let at = self.fair.partition_point(|(_, other)| other.vtime > e.vtime);
                self.fair.insert(at, (task, e));
            }
        }
    }

    /// Takes the task to run next.
    pub fn pop(&mut self) -> Option<(T, Entity)> {
        if let Some(next) = self.real.pop() {
            return Some(next);
        }
        let next = self.fair.pop()?;
        self.forget(&next.1);
        self.floor = self.floor.max(next.1.vtime);
        Some(next)
    }

    fn forget(&mut self, e: &Entity) {
        if let Class::Fair { weight, .. } = e.class {
            self.weight -= u64::from(weight);
        }
    }

    /// The running task has used the CPU for `ns`.
    pub fn charge(&mut self, current: &mut Entity, ns: u64) {
        if let Class::Fair { weight, .. } = current.class {
            let scaled = if weight == NICE_0 { ns } else { ns * u64::from(NICE_0) / u64::from(weight.max(1)) };
            current.vtime += scaled as i64;
            let behind = self.fair.last().map_or(current.vtime, |(_, e)| e.vtime.min(current.vtime));
            self.floor = self.floor.max(behind);
        }
        if current.left != u64::MAX {
            current.left = current.left.saturating_sub(ns);
        }
    }

    /// Whether the running task should make room now that `woken` is runnable.
    pub fn woken_beats(&self, woken: &Entity, current: &Entity) -> bool {
        match (woken.class, current.class) {
            (Class::RealTime { priority: a, .. }, Class::RealTime { priority: b, .. }) => a > b,
            (Class::RealTime { .. }, Class::Fair { .. }) => true,
            (Class::Fair { .. }, Class::RealTime { .. }) => false,
            (Class::Fair { batch: true, .. }, Class::Fair { .. }) => false,
            (Class::Fair { .. }, Class::Fair { .. }) => {
                let vtime = self.floor + woken.vtime.clamp(-BONUS, 4 * BONUS);
                current.vtime - vtime > WAKE_MARGIN
            }
        }
    }

    /// Whether the running task's turn is over: somebody waits who comes first.
    pub fn turn_over(&self, current: &Entity) -> bool {
        if let Some((_, best)) = self.real.last() {
            return match (best.class, current.class) {
                (_, Class::Fair { .. }) => true,
                (Class::RealTime { priority: a, .. }, Class::RealTime { priority: b, round_robin }) => {
                    a > b || (a == b && round_robin && current.left == 0)
                }
                (Class::Fair { .. }, Class::RealTime { .. }) => false,
            };
        }
        current.is_fair() && current.left == 0 && !self.fair.is_empty()
    }

    /// Whether the running task should be looked at again when its slice ends.
    pub fn contended(&self, current: &Entity) -> bool {
        match current.class {
            Class::Fair { .. } => !self.is_empty(),
            // Only who takes turns with others of its priority: else the end of a slice would come again at once, and again.
            Class::RealTime { priority, round_robin } => {
                let best = self.real.last().map(|(_, best)| best.class);
                round_robin && matches!(best, Some(Class::RealTime { priority: best, .. }) if best >= priority)
            }
        }
    }

    /// The running task sleeps or goes elsewhere: its lag for the next [`Entity::new`].
    pub fn leave(&self, current: &Entity) -> i64 {
        if current.is_fair() { current.vtime - self.floor } else { 0 }
    }

    /// Takes a waiting task that `wanted` accepts, the last in turn first; with its lag.
    pub fn steal(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Option<(T, i64)> {
        if let Some(at) = self.real.iter().position(|(t, _)| wanted(t)) {
            return Some((self.real.remove(at).0, 0));
        }
        let at = self.fair.iter().position(|(t, _)| wanted(t))?;
        let (task, e) = self.fair.remove(at);
        self.forget(&e);
        Some((task, e.vtime - self.floor))
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{Arrival, Class, Entity, IDLE_WEIGHT, Queue, SLICE, weight};
    use alloc::{collections::BTreeMap, vec::Vec};

    fn fair(nice: i8) -> Class {
        Class::Fair { weight: weight(nice), batch: false }
    }

    /// Runs the queue for `turns` ticks of `tick` ns; what each task got.
    fn run(queue: &mut Queue<u32>, turns: u32, tick: u64) -> BTreeMap<u32, u64> {
        let mut got = BTreeMap::new();
        let Some((mut task, mut e)) = queue.pop() else { return got };
        for _ in 0..turns {
            *got.entry(task).or_insert(0) += tick;
            queue.charge(&mut e, tick);
            if queue.turn_over(&e) {
                queue.push(task, e, Arrival::TurnOver);
                (task, e) = queue.pop().unwrap();
            }
        }
        queue.push(task, e, Arrival::Preempted);
        got
    }

    #[test]
    fn weights_are_what_nice_says() {
        assert_eq!(weight(0), 1024);
        assert!((weight(-20) as i64 - 88761).abs() < 200, "{}", weight(-20));
        assert!((weight(19) as i64 - 15).abs() <= 1, "{}", weight(19));
    }

    #[test]
    fn cpu_time_is_shared_by_weight() {
        for nices in [&[0, 0, 0][..], &[0, 5], &[-5, 0, 5, 10], &[19, -20]] {
            let mut q = Queue::new();
            for (i, n) in nices.iter().enumerate() {
                q.push(i as u32, Entity::new(fair(*n), 0), Arrival::Enter);
            }
            let turns = 200_000;
            let got = run(&mut q, turns, 250_000);
            let total: u64 = nices.iter().map(|n| u64::from(weight(*n))).sum();
            for (i, n) in nices.iter().enumerate() {
                let due = u64::from(turns) * 250_000 * u64::from(weight(*n)) / total;
                let has = got.get(&(i as u32)).copied().unwrap_or(0);
                let slack = 2 * SLICE * nices.len() as u64 + due / 50;
                assert!(has.abs_diff(due) <= slack, "nice {n}: {has} of {due}");
            }
        }
    }

    #[test]
    fn idle_policy_yields_to_everybody_but_still_runs() {
        let mut q = Queue::new();
        q.push(0, Entity::new(fair(0), 0), Arrival::Enter);
        q.push(1, Entity::new(Class::Fair { weight: IDLE_WEIGHT, batch: true }, 0), Arrival::Enter);
        let got = run(&mut q, 100_000, 1_000_000);
        assert!(got[&0] > 250 * got[&1] && got[&1] > 0, "{got:?}");
    }

    #[test]
    fn a_sleeper_comes_soon_but_gains_nothing_by_sleeping() {
        let mut q = Queue::new();
        q.push(0, Entity::new(fair(0), 0), Arrival::Enter);
        run(&mut q, 1000, 1_000_000);
        let sleeper = Entity::new(fair(0), -1_000_000_000_000);
        let (busy, e) = q.pop().unwrap();
        assert!(q.woken_beats(&sleeper, &e));
        q.push(busy, e, Arrival::Preempted);
        q.push(1, sleeper, Arrival::Enter);
        assert_eq!(q.pop().map(|(t, e)| (t, q.push(1, e, Arrival::Preempted)).0), Some(1));
        let got = run(&mut q, 1000, 100_000);
        assert!(got[&1] - got[&0] <= 3 * SLICE, "{got:?}");
    }

    #[test]
    fn real_time_comes_first_in_order() {
        let rt = |priority, round_robin| Entity::new(Class::RealTime { priority, round_robin }, 0);
        let mut q = Queue::new();
        q.push(0, Entity::new(fair(-20), 0), Arrival::Enter);
        q.push(1, rt(10, false), Arrival::Enter);
        q.push(2, rt(50, false), Arrival::Enter);
        q.push(3, rt(10, false), Arrival::Enter);
        let (t, e) = q.pop().unwrap();
        assert_eq!(t, 2);
        assert!(!q.turn_over(&e) && e.left().is_none());
        assert!(q.woken_beats(&rt(51, false), &e) && !q.woken_beats(&rt(50, false), &e));
        let order: Vec<_> = core::iter::from_fn(|| q.pop().map(|(t, _)| t)).collect();
        assert_eq!(order, [1, 3, 0]);
        // A preempted FIFO task stays the first of its priority, one whose turn is over becomes the last.
        q.push(4, rt(10, false), Arrival::Enter);
        q.push(5, rt(10, false), Arrival::Preempted);
        q.push(6, rt(10, true), Arrival::TurnOver);
        let order: Vec<_> = core::iter::from_fn(|| q.pop().map(|(t, _)| t)).collect();
        assert_eq!(order, [5, 4, 6]);
    }

    #[test]
    fn a_slice_ends_only_where_its_end_changes_something() {
        let rt = |priority, round_robin| Class::RealTime { priority, round_robin };
        let mut q = Queue::new();
        q.push(0, Entity::new(rt(5, false), 0), Arrival::Enter);
        // Its slice was used up when it got a real-time class.
        let mut current = Entity::new(fair(0), 0);
        q.charge(&mut current, SLICE);
        current.class = rt(5, false);
        assert!(!q.contended(&current));
        current.class = rt(9, true);
        assert!(!q.contended(&current));
        current.class = rt(5, true);
        assert!(q.contended(&current) && q.turn_over(&current));
    }

    #[test]
    fn stealing_takes_what_is_allowed_and_keeps_the_books() {
        let mut q = Queue::new();
        for i in 0..5 {
            q.push(i, Entity::new(fair(0), i64::from(i)), Arrival::Enter);
        }
        assert_eq!(q.steal(|t| *t == 2), Some((2, 2)));
        assert_eq!(q.steal(|t| *t == 2), None);
        assert_eq!((q.len(), q.weight()), (4, 4 * 1024));
        while q.pop().is_some() {}
        assert_eq!(q.weight(), 0);
    }
}
