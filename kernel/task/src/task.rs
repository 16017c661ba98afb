//! A task: one thread of a process, with a kernel thread that lives its life.

use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use base::{Ready, Wake};
use hal::{
    sync::{SpinLock, rank},
    usermode::UserContext,
};
use linux_abi::Isa;

use crate::{
    children::Usage,
    cx::Cx,
    fs::{Descriptors, FsState},
    ids::Pid,
    kernel::Kernel,
    process::Process,
    sched::{Params, Worker},
    signal::{Pending, SigInfo, SigSet},
    time::Expire,
    wait::{Park, WaitList},
};

/// Reasons for a task not to go straight back to user mode, and for its waits to look around.
pub mod work {
    /// A signal may be pending that is not blocked.
    pub const SIGNAL: u32 = 1;
    /// The process stops (job control).
    pub const STOP: u32 = 2;
    /// The task must end: its process exits, or another thread calls execve.
    pub const DIE: u32 = 4;
    /// A saved signal mask is to be restored.
    pub const MASK: u32 = 8;
    /// Timers on CPU time are to be looked at.
    pub const CPU_TIME: u32 = 16;
}

/// An alternate signal stack, sigaltstack(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AltStack {
    /// Its base.
    pub base: u64,
    /// Its size; 0: there is none.
    pub size: u64,
    /// `SS_AUTODISARM` or 0.
    pub flags: u32,
}

impl AltStack {
    /// `SS_ONSTACK`.
    pub const ONSTACK: u32 = 1;
    /// `SS_DISABLE`.
    pub const DISABLE: u32 = 2;
    /// `SS_AUTODISARM`.
    pub const AUTODISARM: u32 = 1 << 31;
    /// No stack.
    pub const NONE: Self = Self { base: 0, size: 0, flags: 0 };

    /// Whether `sp` lies on it.
    pub const fn holds(&self, sp: u64) -> bool {
        self.size != 0 && sp > self.base && sp - self.base <= self.size
    }
}

/// Signals of one task. The lock is taken with that of the process held, never before it.
#[derive(Debug)]
pub(crate) struct TaskSignals {
    pub pending: Pending,
    pub mask: SigSet,
    /// The mask before sigsuspend, ppoll or their like, to be restored after the handler.
    pub saved_mask: Option<SigSet>,
    pub altstack: AltStack,
    /// What sigtimedwait waits for: these do not count as blocked.
    pub waiting_for: SigSet,
}

/// CPU time and switches of one task.
#[derive(Debug, Default)]
pub struct Times {
    /// All CPU time, ns.
    total: AtomicU64,
    /// The part of it in the kernel, ns.
    system: AtomicU64,
    minor_faults: AtomicU64,
    major_faults: AtomicU64,
    voluntary: AtomicU64,
    involuntary: AtomicU64,
}

impl Times {
    pub(crate) fn ran(&self, ns: u64) {
        self.total.fetch_add(ns, Ordering::Relaxed);
    }
    pub(crate) fn in_kernel(&self, ns: u64) {
        self.system.fetch_add(ns, Ordering::Relaxed);
    }
    pub(crate) fn gave_cpu(&self) {
        self.voluntary.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn lost_cpu(&self) {
        self.involuntary.fetch_add(1, Ordering::Relaxed);
    }
    pub(crate) fn faulted(&self, major: bool) {
        let counter = if major { &self.major_faults } else { &self.minor_faults };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// CPU time up to the last look of the scheduler, ns.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// As getrusage(2) reports it.
    pub fn usage(&self) -> Usage {
        let total = self.total();
        let system = self.system.load(Ordering::Relaxed).min(total);
        Usage {
            user: total - system,
            system,
            max_rss: 0,
            minor_faults: self.minor_faults.load(Ordering::Relaxed),
            major_faults: self.major_faults.load(Ordering::Relaxed),
            voluntary: self.voluntary.load(Ordering::Relaxed),
            involuntary: self.involuntary.load(Ordering::Relaxed),
        }
    }
}

/// What a task does with its life.
pub(crate) enum Start {
    /// Runs a program with these registers.
    User(Box<UserContext>),
    /// Executes a program, from inside.
    Program(Box<dyn FnOnce(&Cx) -> base::Result<()> + Send>),
    /// Runs a function of the kernel.
    Kernel(Box<dyn FnOnce(&Arc<Task>) + Send>),
}

/// A parent that waits in vfork(2).
#[derive(Debug, Default)]
pub struct VforkDone {
    done: AtomicBool,
}

/// A thread.
pub struct Task {
    me: Weak<Self>,
    tid: AtomicU32,
    kernel: Arc<Kernel>,
    process: Arc<Process>,
    /// The ABI of its program.
    pub isa: Isa,
    pub(crate) park: Park,
    worker: SpinLock<Option<Arc<Worker>>>,
    start: SpinLock<Option<Start>>,
    /// How it is scheduled.
    pub sched: Params,
    /// What it used.
    pub times: Times,
    pub(crate) work: AtomicU32,
    pub(crate) signals: SpinLock<TaskSignals>,
    /// Told when a signal becomes pending: signalfd(2) and sigtimedwait(2).
    pub signal_waiters: WaitList,
    name: SpinLock<[u8; 16]>,
    files: SpinLock<Arc<Descriptors>>,
    fs: SpinLock<Arc<FsState>>,
    /// Where to store 0 and wake a futex at exit; set_tid_address(2).
    pub clear_tid: AtomicU64,
    /// Where it stores its number before it first runs (CLONE_CHILD_SETTID); 0: nowhere.
    pub(crate) set_tid_at: AtomicU64,
    /// The head of the list of robust futexes.
    pub robust_list: AtomicU64,
    /// It has let go of its futexes, for good: it ends.
    pub(crate) let_go: AtomicBool,
    /// Its `struct rseq`; 0: none.
    pub(crate) rseq: AtomicU64,
    /// What marks the abort handlers of its restartable sequences.
    pub(crate) rseq_signature: AtomicU32,
    /// The CPU whose number is in its `struct rseq`, by slot.
    pub(crate) rseq_slot: AtomicUsize,
    pub(crate) vfork: SpinLock<Option<(Arc<VforkDone>, Arc<Task>)>>,
    /// Why it sleeps, for `/proc/PID/stat`: a [`State`].
    state: AtomicU8,
    /// Wakes-ups of waits may be late by this, ns; PR_SET_TIMERSLACK.
    pub timer_slack: AtomicU64,
    /// When it started, ns of machine time.
    pub started: u64,
}

/// What a task does, as `/proc/PID/stat` shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// Runs or waits for a CPU (`R`).
    Running = b'R',
    /// Sleeps; signals end it (`S`).
    Sleeping = b'S',
    /// Sleeps; only SIGKILL ends it (`D`).
    Waiting = b'D',
    /// Stopped (`T`).
    Stopped = b'T',
    /// Exited (`Z`).
    Zombie = b'Z',
}

/// What a new task is made of.
pub(crate) struct TaskParts {
    pub tid: Pid,
    pub process: Arc<Process>,
    pub isa: Isa,
    pub start: Start,
    pub sched: Params,
    pub mask: SigSet,
    pub altstack: AltStack,
    pub name: [u8; 16],
    pub files: Arc<Descriptors>,
    pub fs: Arc<FsState>,
    pub clear_tid: u64,
    pub set_tid: u64,
    /// The `struct rseq`, its signature, and the slot of the CPU that it names.
    pub rseq: (u64, u32, usize),
    pub vfork: Option<(Arc<VforkDone>, Arc<Task>)>,
    pub timer_slack: u64,
}

impl Task {
    pub(crate) fn new(parts: TaskParts) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            tid: AtomicU32::new(parts.tid.0),
            kernel: parts.process.kernel().clone(),
            process: parts.process,
            isa: parts.isa,
            park: Park::new(),
            worker: SpinLock::new(rank::WORKER, None),
            start: SpinLock::new(rank::WORKER, Some(parts.start)),
            sched: parts.sched,
            times: Times::default(),
            work: AtomicU32::new(0),
            signals: SpinLock::new(
                rank::TASK,
                TaskSignals {
                    pending: Pending::new(),
                    mask: parts.mask,
                    saved_mask: None,
                    altstack: parts.altstack,
                    waiting_for: SigSet::EMPTY,
                },
            ),
            signal_waiters: WaitList::new(),
            name: SpinLock::new(rank::PROCESS_FS, parts.name),
            files: SpinLock::new(rank::PROCESS_FS, parts.files),
            fs: SpinLock::new(rank::PROCESS_FS, parts.fs),
            clear_tid: AtomicU64::new(parts.clear_tid),
            set_tid_at: AtomicU64::new(parts.set_tid),
            robust_list: AtomicU64::new(0),
            let_go: AtomicBool::new(false),
            rseq: AtomicU64::new(parts.rseq.0),
            rseq_signature: AtomicU32::new(parts.rseq.1),
            rseq_slot: AtomicUsize::new(parts.rseq.2),
            vfork: SpinLock::new(rank::PROCESS_FS, parts.vfork),
            state: AtomicU8::new(State::Running as u8),
            timer_slack: AtomicU64::new(parts.timer_slack),
            started: hal::time::now(),
        })
    }

    /// Its number.
    pub fn tid(&self) -> Pid {
        Pid(self.tid.load(Ordering::Relaxed))
    }

    /// At execve(2) the thread that stays takes the number of its process.
    pub(crate) fn set_tid(&self, tid: Pid) {
        self.tid.store(tid.0, Ordering::Relaxed);
    }

    /// The CPU time that it used so far, ns.
    pub fn cpu_time(&self) -> u64 {
        self.kernel.sched.charge_running();
        self.times.total()
    }

    /// Its kernel.
    pub const fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    /// Its process.
    pub const fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// A counted reference to itself; `None` only while it is dropped.
    pub fn arc(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    pub(crate) fn worker(&self) -> Option<Arc<Worker>> {
        self.worker.lock().clone()
    }

    pub(crate) fn set_worker(&self, worker: Arc<Worker>) {
        *self.worker.lock() = Some(worker);
    }

    pub(crate) fn take_worker(&self) -> Option<Arc<Worker>> {
        self.worker.lock().take()
    }

    pub(crate) fn take_start(&self) -> Option<Start> {
        self.start.lock().take()
    }

    /// Its descriptors.
    pub fn files(&self) -> Arc<Descriptors> {
        self.files.lock().clone()
    }

    /// Gives it other descriptors: unshare(CLONE_FILES), execve(2). The old ones.
    pub fn set_files(&self, files: Arc<Descriptors>) -> Arc<Descriptors> {
        core::mem::replace(&mut *self.files.lock(), files)
    }

    /// Its working directory, root and umask.
    pub fn fs(&self) -> Arc<FsState> {
        self.fs.lock().clone()
    }

    pub(crate) fn umask(&self) -> u32 {
        self.fs.lock().umask()
    }

    /// Gives it another one: unshare(CLONE_FS). The old one.
    pub fn set_fs(&self, fs: Arc<FsState>) -> Arc<FsState> {
        core::mem::replace(&mut *self.fs.lock(), fs)
    }

    /// Its name, up to a NUL; PR_GET_NAME.
    pub fn name(&self) -> [u8; 16] {
        *self.name.lock()
    }

    /// Sets its name; only the first 15 bytes count.
    pub fn set_name(&self, name: &[u8]) {
        let mut new = [0; 16];
        for (to, from) in new.iter_mut().take(15).zip(name.iter().take_while(|b| **b != 0)) {
            *to = *from;
        }
        *self.name.lock() = new;
        self.note_name();
    }

    /// Whoever traces this kernel learns the name.
    pub fn note_name(&self) {
        if hal::trace::is_on() {
            hal::trace::note_name(self.tid().0, &self.name());
        }
    }

    /// What it does now.
    pub fn state(&self) -> u8 {
        match self.state.load(Ordering::Relaxed) {
            // It said that it would sleep; whether it does is known to the scheduler.
            s if s == State::Sleeping as u8 && !self.park.is_parked() => State::Running as u8,
            s => s,
        }
    }

    pub(crate) fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Makes it look around: at its way back to user mode, and in its waits.
    pub(crate) fn set_work(&self, bits: u32) {
        self.work.fetch_or(bits, Ordering::SeqCst);
        self.wake_up();
    }

    pub(crate) fn clear_work(&self, bits: u32) {
        self.work.fetch_and(!bits, Ordering::SeqCst);
    }

    /// Wakes it if it sleeps, and makes its CPU notice if it runs in user mode elsewhere.
    pub(crate) fn wake_up(&self) {
        if self.park.wake()
            && let Some(me) = self.me.upgrade()
        {
            self.kernel.sched.enqueue(&me);
        }
    }

    /// If it runs in user mode on another CPU, makes it come into the kernel.
    pub(crate) fn poke(&self) {
        let slot = self.sched.cpu();
        if slot != hal::cpu::slot() && !self.park.is_parked() {
            hal::cpu::kick(slot);
        }
    }

    /// Whether a wait that signals may end should end.
    #[inline]
    pub fn is_interrupted(&self) -> bool {
        self.work.load(Ordering::SeqCst) & (work::SIGNAL | work::STOP | work::DIE) != 0
    }

    /// Whether it is to die: this ends every wait.
    #[inline]
    pub fn is_dying(&self) -> bool {
        self.work.load(Ordering::SeqCst) & work::DIE != 0
    }

    /// The signals that it blocks.
    pub fn mask(&self) -> SigSet {
        self.signals.lock().mask
    }

    /// Forgets earlier wake-ups; what it is about to wait for is checked after this.
    #[inline]
    pub fn begin_wait(&self) {
        self.park.begin();
    }

    pub(crate) fn queue_signal(&self, info: SigInfo, room: bool) -> crate::signal::Queued {
        self.signals.lock().pending.push(info, room)
    }
}

impl Wake for Task {
    fn wake(&self, _: Ready) {
        self.wake_up();
    }
}

impl Expire for Task {
    fn expire(self: Arc<Self>) {
        if self.park.wake() {
            self.kernel.sched.enqueue(&self);
        }
    }
}

impl VforkDone {
    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    pub(crate) fn finish(&self) {
        self.done.store(true, Ordering::Release);
    }
}

impl core::fmt::Debug for Task {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Task({})", self.tid())
    }
}
