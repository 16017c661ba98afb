//! Who runs where and when.
//!
//! Each CPU has a [`queue::Queue`] and the task that runs. A task is in exactly one of these places: running on a CPU, in the queue of a
//! CPU, or parked. Kernel code is not preempted (C1); a task gives up its CPU where it waits, on its way back to user mode, and at `Cx::relax`.

mod balance;
pub mod params;
pub mod queue;
mod stats;
mod worker;

use alloc::{boxed::Box, sync::Arc};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hal::{
    cpu::CpuLocal,
    sync::{Once, SpinLock, rank},
    thread::{self, Thread},
    trace::Kind,
};

pub use params::{Params, Policy};
use queue::{Arrival, Entity, Queue};
pub use stats::CpuTimes;
pub(crate) use worker::{Pool, Worker};

use crate::{kernel::Kernel, task::Task};

struct Running {
    task: Arc<Task>,
    entity: Entity,
    since: u64,
}

#[derive(Default)]
struct Run {
    queue: Queue<Arc<Task>>,
    running: Option<Running>,
    balanced: u64,
}

impl Run {
    /// Accounts for what the running task used up to `now`.
    fn charge(&mut self, now: u64) {
        if let Some(r) = &mut self.running {
            let ns = now.saturating_sub(r.since);
            r.since = now;
            r.task.times.ran(ns);
            r.task.process().cpu.ran(ns);
            self.queue.charge(&mut r.entity, ns);
        }
    }

    /// When the running task should be looked at again: if anybody waits, or if its process has timers on CPU time.
    fn due(&self) -> Option<u64> {
        let r = self.running.as_ref()?;
        let turn = if self.queue.contended(&r.entity) { r.entity.left() } else { None };
        match (turn, r.task.process().cpu.left()) {
            (None, None) => None,
            (turn, timers) => Some(r.since + turn.unwrap_or(u64::MAX).min(timers.unwrap_or(u64::MAX))),
        }
    }
}

struct Cpu {
    run: SpinLock<Run>,
    /// Somebody better waits: look at the queue before going back to user mode.
    resched: AtomicBool,
    /// How many wait in the queue; a hint for others.
    waiting: AtomicU64,
    idle: Once<Box<Thread>>,
    switches: AtomicU64,
    /// Time spent idle, ns, and since when it is idle now (0: it is not).
    idle_ns: AtomicU64,
    idle_since: AtomicU64,
    /// When it began to take tasks, ns of machine time.
    online_since: AtomicU64,
    /// Time that tasks spent in the kernel here, ns.
    system_ns: AtomicU64,
    /// Sleeps that an interrupt ended.
    wakeups: AtomicU64,
}

impl Cpu {
    fn note_waiting(&self, run: &Run) {
        self.waiting.store(run.queue.len() as u64, Ordering::Relaxed);
    }
}

/// Why a task gives up its CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leave {
    /// Until somebody wakes it.
    Park,
    /// Somebody better is there.
    Preempted,
    /// sched_yield(2) or the end of its slice.
    TurnOver,
}

/// The scheduler of a kernel.
pub struct Sched {
    cpus: CpuLocal<Cpu>,
    /// CPUs whose idle thread runs, by slot.
    idle: AtomicU64,
    /// CPUs that take tasks.
    online: AtomicU64,
    load: SpinLock<stats::LoadAverage>,
    pub(crate) pool: Pool,
}

impl Sched {
    /// A scheduler for the CPUs of this kernel, none of which takes tasks yet.
    pub fn new() -> Self {
        Self {
            cpus: CpuLocal::new(|_| Cpu {
                run: SpinLock::new(rank::RUN_QUEUE, Run::default()),
                resched: AtomicBool::new(false),
                waiting: AtomicU64::new(0),
                idle: Once::new(),
                switches: AtomicU64::new(0),
                idle_ns: AtomicU64::new(0),
                idle_since: AtomicU64::new(0),
                online_since: AtomicU64::new(0),
                system_ns: AtomicU64::new(0),
                wakeups: AtomicU64::new(0),
            }),
            idle: AtomicU64::new(0),
            online: AtomicU64::new(0),
            load: SpinLock::new(rank::RUN_QUEUE, stats::LoadAverage::default()),
            pool: Pool::new(),
        }
    }

    /// How often CPUs were woken from idling since boot.
    pub fn wakeups(&self) -> u64 {
        self.cpus.iter().map(|cpu| cpu.wakeups.load(Ordering::Relaxed)).sum()
    }

    /// CPUs that take tasks, by slot.
    pub fn online(&self) -> u64 {
        self.online.load(Ordering::Relaxed)
    }

    /// Makes the running code the idle thread of this CPU: runs tasks whenever there are some. Does not return.
    pub fn run_cpu(&self, kernel: &Kernel) -> ! {
        let slot = hal::cpu::slot();
        let cpu = self.cpus.get();
        if cpu.idle.set(Thread::current()).is_err() {
            log::error!("CPU {slot} was started twice");
        }
        cpu.online_since.store(hal::time::now().max(1), Ordering::Relaxed);
        self.online.fetch_or(1 << slot, Ordering::AcqRel);
        loop {
            self.pull(slot);
            let (next, due) = {
                let mut run = cpu.run.lock();
                let next = self.pick(cpu, &mut run, hal::time::now());
                if next.is_none() {
                    // Under the lock, so that whoever queues a task here afterwards sees it and kicks.
                    self.idle.fetch_or(1 << slot, Ordering::AcqRel);
                }
                (next, run.due())
            };
            match (next, cpu.idle.get()) {
                (Some(next), Some(idle)) => {
                    kernel.timers.slice(due);
                    thread::switch(idle, next.thread());
                }
                _ => {
                    if kernel.is_traced() {
                        hal::trace::note(Kind::Switch, 0, 0, 0);
                    }
                    let from = hal::time::now();
                    cpu.idle_since.store(from, Ordering::Relaxed);
                    let has_work = || cpu.waiting.load(Ordering::Relaxed) != 0;
                    let slept = match kernel.hooks() {
                        Some(hooks) => hooks.idle(&has_work),
                        None => {
                            hal::cpu::idle_wait();
                            true
                        }
                    };
                    cpu.wakeups.fetch_add(u64::from(slept), Ordering::Relaxed);
                    cpu.idle_since.store(0, Ordering::Relaxed);
                    cpu.idle_ns.fetch_add(hal::time::now().saturating_sub(from), Ordering::Relaxed);
                    self.idle.fetch_and(!(1 << slot), Ordering::AcqRel);
                }
            }
        }
    }

    /// Takes the next task out of the queue and makes it the running one; its thread.
    fn pick(&self, cpu: &Cpu, run: &mut Run, now: u64) -> Option<Arc<Worker>> {
        loop {
            let (task, entity) = run.queue.pop()?;
            cpu.note_waiting(run);
            // A task in a queue has a thread from its start to its end.
            if let Some(worker) = task.worker() {
                if task.kernel().is_traced() {
                    hal::trace::note(Kind::Switch, task.tid().0, task.process().pid().0.into(), 0);
                }
                run.running = Some(Running { task, entity, since: now });
                cpu.switches.fetch_add(1, Ordering::Relaxed);
                return Some(worker);
            }
        }
    }

    /// Makes a new task runnable.
    ///
    /// # Errors
    /// `ENOMEM` if there is no kernel stack for it.
    pub fn start(&self, task: &Arc<Task>) -> base::Result<()> {
        task.set_worker(self.pool.take(task.kernel())?);
        task.note_name();
        self.place(task, true);
        Ok(())
    }

    /// A parked task that was woken is runnable again.
    pub(crate) fn enqueue(&self, task: &Arc<Task>) {
        self.place(task, false);
    }

    /// Chooses a CPU for a task that is on none, and puts it into the queue there.
    fn place(&self, task: &Arc<Task>, new: bool) {
        let slot = self.choose(task, new);
        let Some(cpu) = self.cpus.of(slot) else { return };
        let entity = task.sched.entity();
        let mut run = cpu.run.lock();
        task.sched.set_cpu(slot);
        run.charge(hal::time::now());
        let idle = run.running.is_none();
        let beats = run.running.as_ref().is_none_or(|r| run.queue.woken_beats(&entity, &r.entity));
        run.queue.push(task.clone(), entity, Arrival::Enter);
        let first = run.queue.len() == 1;
        cpu.note_waiting(&run);
        let due = run.due();
        drop(run);
        if beats && !idle {
            cpu.resched.store(true, Ordering::Release);
        }
        if slot != hal::cpu::slot() {
            if beats || first {
                hal::cpu::kick(slot);
            }
        } else if first && !idle {
            task.kernel().timers.slice(due);
        }
    }

    /// The running task waits until somebody wakes it. Returns at once if that has happened since its last `begin_wait`.
    pub(crate) fn park(&self, me: &Arc<Task>) {
        self.leave(me, Leave::Park);
    }

    /// The running task lets others run before it goes on.
    pub(crate) fn yield_now(&self, me: &Arc<Task>) {
        self.leave(me, Leave::TurnOver);
    }

    /// Whether somebody better waits for this CPU.
    #[inline]
    pub fn wants_cpu(&self) -> bool {
        self.cpus.get().resched.load(Ordering::Relaxed)
    }

    /// Gives the CPU to somebody better, if there is one.
    pub(crate) fn preempt(&self, me: &Arc<Task>) {
        let cpu = self.cpus.get();
        cpu.resched.store(false, Ordering::Relaxed);
        let why = {
            let mut run = cpu.run.lock();
            run.charge(hal::time::now());
            match &run.running {
                Some(r) if r.entity.left() == Some(0) => Leave::TurnOver,
                _ => Leave::Preempted,
            }
        };
        me.times.lost_cpu();
        self.leave(me, why);
    }

    /// The running task ends; returns in another task's life, when its thread is used again.
    pub(crate) fn end(&self, me: Arc<Task>) {
        let cpu = self.cpus.get();
        let kernel = me.kernel().clone();
        let (next, due, old) = {
            let mut run = cpu.run.lock();
            let now = hal::time::now();
            run.charge(now);
            let old = run.running.take();
            let next = self.pick(cpu, &mut run, now);
            cpu.note_waiting(&run);
            (next, run.due(), old)
        };
        let Some(mine) = me.take_worker() else { return };
        // Nothing of it stays on this stack while the thread waits for its next task.
        drop(old);
        drop(me);
        // Whoever takes the thread waits until it is off its stack.
        self.pool.give(mine.clone());
        Self::go(cpu, &kernel, &mine, next, due);
    }

    /// Brings the CPU time of all running tasks up to date: there is no tick that would.
    pub fn charge_running(&self) {
        for cpu in self.cpus.iter() {
            cpu.run.lock().charge(hal::time::now());
        }
    }

    /// The task that runs on this CPU.
    pub fn current(&self) -> Option<Arc<Task>> {
        self.cpus.get().run.lock().running.as_ref().map(|r| r.task.clone())
    }

    fn leave(&self, me: &Arc<Task>, why: Leave) {
        let cpu = self.cpus.get();
        let slot = hal::cpu::slot();
        let mut moves = false;
        let (next, due, old) = {
            let mut run = cpu.run.lock();
            let now = hal::time::now();
            run.charge(now);
            let Some(mut r) = run.running.take() else { return };
            me.sched.left(run.queue.leave(&r.entity));
            let mut old = None;
            match why {
                Leave::Park => {
                    if !me.park.sleep() {
                        run.running = Some(r);
                        return;
                    }
                    me.times.gave_cpu();
                    old = Some(r.task);
                }
                Leave::Preempted | Leave::TurnOver if me.sched.allows(slot) => {
                    let arrival = if why == Leave::Preempted { Arrival::Preempted } else { Arrival::TurnOver };
                    r.entity.class = me.sched.class();
                    run.queue.push(r.task, r.entity, arrival);
                }
                Leave::Preempted | Leave::TurnOver => {
                    moves = true;
                    old = Some(r.task);
                }
            }
            let next = self.pick(cpu, &mut run, now);
            cpu.note_waiting(&run);
            (next, run.due(), old)
        };
        // It was bound to other CPUs meanwhile. Whoever picks it there waits until it is off this stack.
        if moves {
            self.place(me, false);
        }
        cpu.resched.store(false, Ordering::Relaxed);
        drop(old);
        if let Some(mine) = me.worker() {
            Self::go(cpu, me.kernel(), &mine, next, due);
        }
    }

    /// Switches from thread `mine` to `next`, or to the idle thread.
    fn go(cpu: &Cpu, kernel: &Kernel, mine: &Arc<Worker>, next: Option<Arc<Worker>>, due: Option<u64>) {
        match (&next, cpu.idle.get()) {
            (Some(next), _) => {
                kernel.timers.slice(due);
                if !Arc::ptr_eq(next, mine) {
                    thread::switch(mine.thread(), next.thread());
                }
            }
            (None, Some(idle)) => thread::switch(mine.thread(), idle),
            (None, None) => log::error!("a CPU has no idle thread"),
        }
    }

    /// The timer of this CPU: is the turn of the running task over?
    pub(crate) fn tick(&self, kernel: &Kernel) {
        let cpu = self.cpus.get();
        let now = hal::time::now();
        let mut watched = None;
        let due = {
            let mut run = cpu.run.lock();
            run.charge(now);
            if let Some(r) = run.running.as_ref().filter(|r| r.task.process().cpu.is_due()) {
                watched = Some(r.task.clone());
            }
            let over = run.running.as_ref().is_some_and(|r| run.queue.turn_over(&r.entity));
            if over {
                cpu.resched.store(true, Ordering::Release);
                None
            } else {
                run.due()
            }
        };
        kernel.timers.slice(due);
        if let Some(task) = watched {
            crate::time::cputime::tell(&task);
        }
        self.push_surplus(cpu, now);
    }

    /// Another CPU asked this one to look at its queue.
    pub(crate) fn kicked(&self, kernel: &Kernel) {
        let due = self.cpus.get().run.lock().due();
        kernel.timers.slice(due);
    }

    /// The parameters or CPUs of a task changed: if it runs or waits, it is looked at again.
    pub(crate) fn changed(&self, task: &Arc<Task>) {
        let slot = task.sched.cpu();
        let Some(cpu) = self.cpus.of(slot) else { return };
        let mut run = cpu.run.lock();
        if let Some((task, lag)) = run.queue.steal(|t| Arc::ptr_eq(t, task)) {
            cpu.note_waiting(&run);
            drop(run);
            task.sched.left(lag);
            return self.place(&task, false);
        }
        let runs = run.running.as_ref().is_some_and(|r| Arc::ptr_eq(&r.task, task));
        drop(run);
        if runs {
            cpu.resched.store(true, Ordering::Release);
            if slot != hal::cpu::slot() {
                hal::cpu::kick(slot);
            }
        }
    }
}

impl Default for Sched {
    fn default() -> Self {
        Self::new()
    }
}
