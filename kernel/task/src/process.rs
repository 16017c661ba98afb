//! A process: threads, children, signals, and what its threads share.

use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicBool, AtomicI16, AtomicU8, AtomicU32, AtomicU64, Ordering};

use base::{
    ObjectId, Ready, Result,
    wait::{Op, Try, Wake},
};
use hal::sync::{RwSpinLock, SpinLock, rank};
use mm::Space;

use crate::{
    children::{Children, Status, Usage},
    cluster::{Ids, Placement},
    creds::Creds,
    ids::Pid,
    kernel::Kernel,
    limits::Limits,
    session::{Life, Member, Reply, Request, Session},
    signal::{Actions, Pending, Signal},
    task::Task,
    time::cputime::CpuWatch,
    time::itimer::IntervalTimers,
    time::posix::PosixTimers,
    wait::WaitList,
};

/// Where job control has a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum JobState {
    /// It runs.
    Running,
    /// A stop signal came; its threads are on their way.
    Stopping {
        signal: Signal,
        /// How many threads still have to stop.
        left: usize,
    },
    /// All its threads have stopped.
    Stopped(Signal),
}

/// What the threads of a process share and one lock guards. Taken before the lock of a task's signals.
pub(crate) struct Shared {
    pub threads: Vec<Arc<Task>>,
    pub children: Children,
    pub pending: Pending,
    pub actions: Actions,
    pub job: JobState,
    /// Counts the stops, so that a thread knows whether it was counted for this one.
    pub stops: u64,
    /// Set when the process ends: no thread may be added, all are to die.
    pub exiting: Option<Status>,
    /// The thread that calls execve and waits for the others to die.
    pub execing: Option<Pid>,
    /// What threads that have ended used.
    pub ended: Usage,
    /// What children that were waited for used.
    pub children_usage: Usage,
    /// Set when it has exited: its status for those who look.
    pub zombie: Option<(Status, Usage)>,
    /// It runs on another kernel: what it is told here has to follow it.
    pub away: bool,
    /// What its first thread was called when it ended: a zombie keeps its name.
    pub last_name: [u8; 16],
}

/// A process.
pub struct Process {
    kernel: Arc<Kernel>,
    pub(crate) me: Weak<Self>,
    pid: Pid,
    id: ObjectId,
    /// When it started, ns of machine time.
    pub started: u64,
    pub(crate) shared: SpinLock<Shared>,
    ppid: AtomicU32,
    pgid: AtomicU32,
    /// What the parent gets when it exits; 0 for none.
    pub(crate) exit_signal: AtomicU8,
    /// PR_SET_PDEATHSIG.
    pub parent_death_signal: AtomicU8,
    /// PR_SET_CHILD_SUBREAPER.
    pub subreaper: AtomicBool,
    /// A child or descendant of a subreaper: at exit a reaper nearer than pid 1 is looked for.
    pub(crate) has_subreaper: AtomicBool,
    /// It has called execve since it was forked.
    pub(crate) execed: AtomicBool,
    session: SpinLock<Arc<dyn Session>>,
    /// Its session may not know it yet: the answer to [`Request::Fork`].
    announced: SpinLock<Option<Box<dyn Op<Reply>>>>,
    creds: RwSpinLock<Arc<Creds>>,
    limits: SpinLock<Limits>,
    space: SpinLock<Option<Arc<Space>>>,
    /// Told when something happens to a child, or to the threads of this process.
    pub child_waiters: WaitList,
    /// Told when it ends or moves to another kernel: pidfd_open(2).
    pub(crate) end_waiters: WaitList,
    /// setitimer(2), alarm(2).
    pub itimers: IntervalTimers,
    /// timer_create(2).
    pub posix_timers: PosixTimers,
    /// What its threads used, and the timers on that.
    pub(crate) cpu: CpuWatch,
    placement: SpinLock<Placement>,
    /// `personality(2)`.
    pub personality: AtomicU32,
    /// `/proc/PID/oom_score_adj`.
    pub oom_score_adj: AtomicI16,
    /// PR_SET_DUMPABLE.
    pub dumpable: AtomicU8,
    /// Signals queued with info, for RLIMIT_SIGPENDING.
    pub(crate) queued: AtomicU64,
    /// Counts changes of what a `vfs::Caller` says of it.
    pub(crate) changes: AtomicU64,
    /// membarrier(2) registrations.
    pub membarrier: AtomicU32,
}

/// Waits for the session's answer about a new process.
struct Announcement {
    process: Weak<Process>,
    /// The group that it was born into as far as this kernel knew.
    believed: Pid,
}

impl Wake for Announcement {
    fn wake(&self, _: Ready) {
        if let Some(process) = self.process.upgrade() {
            process.look_at_announcement(self.believed);
        }
    }
}

/// What a new process is made of.
pub(crate) struct ProcessParts {
    pub kernel: Arc<Kernel>,
    pub pid: Pid,
    pub id: ObjectId,
    pub started: u64,
    pub ppid: Pid,
    pub pgid: Pid,
    pub session: Arc<dyn Session>,
    pub exit_signal: u8,
    pub creds: Arc<Creds>,
    pub limits: Limits,
    pub actions: Actions,
    pub space: Option<Arc<Space>>,
    pub has_subreaper: bool,
    pub personality: u32,
    pub oom_score_adj: i16,
    pub placement: Placement,
}

impl Process {
    pub(crate) fn new(parts: ProcessParts) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            kernel: parts.kernel,
            me: me.clone(),
            pid: parts.pid,
            id: parts.id,
            started: parts.started,
            shared: SpinLock::new(
                rank::PROCESS,
                Shared {
                    threads: Vec::new(),
                    away: false,
                    children: Children::new(),
                    pending: Pending::new(),
                    actions: parts.actions,
                    job: JobState::Running,
                    stops: 0,
                    exiting: None,
                    execing: None,
                    ended: Usage::default(),
                    children_usage: Usage::default(),
                    zombie: None,
                    last_name: [0; 16],
                },
            ),
            ppid: AtomicU32::new(parts.ppid.0),
            pgid: AtomicU32::new(parts.pgid.0),
            exit_signal: AtomicU8::new(parts.exit_signal),
            parent_death_signal: AtomicU8::new(0),
            subreaper: AtomicBool::new(false),
            has_subreaper: AtomicBool::new(parts.has_subreaper),
            execed: AtomicBool::new(false),
            session: SpinLock::new(rank::PROCESS_FS, parts.session),
            announced: SpinLock::new(rank::PROCESS_FS, None),
            creds: RwSpinLock::new(rank::PROCESS_FS, parts.creds),
            limits: SpinLock::new(rank::PROCESS_FS, parts.limits),
            space: SpinLock::new(rank::PROCESS_FS, parts.space),
            child_waiters: WaitList::new(),
            end_waiters: WaitList::new(),
            itimers: IntervalTimers::new(me.clone()),
            posix_timers: PosixTimers::new(me.clone()),
            cpu: CpuWatch::new(),
            placement: SpinLock::new(rank::PROCESS_FS, parts.placement),
            personality: AtomicU32::new(parts.personality),
            oom_score_adj: AtomicI16::new(parts.oom_score_adj),
            dumpable: AtomicU8::new(1),
            queued: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            membarrier: AtomicU32::new(0),
        })
    }

    /// Its kernel.
    pub const fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    /// A counted reference to itself; `None` only while it is dropped.
    pub fn arc(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    /// Its number.
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Its name in the machine.
    pub const fn id(&self) -> ObjectId {
        self.id
    }

    /// Its parent.
    pub fn ppid(&self) -> Pid {
        Pid(self.ppid.load(Ordering::Relaxed))
    }

    pub(crate) fn set_ppid(&self, ppid: Pid) {
        self.ppid.store(ppid.0, Ordering::Relaxed);
    }

    /// Gives it from one parent to another; `false` if it has another parent by now.
    pub(crate) fn leaves_parent(&self, from: Pid, to: Pid) -> bool {
        self.ppid.compare_exchange(from.0, to.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Its group, as far as this kernel knows; the session has the truth.
    pub fn pgid(&self) -> Pid {
        Pid(self.pgid.load(Ordering::Relaxed))
    }

    pub(crate) fn set_pgid(&self, pgid: Pid) {
        self.pgid.store(pgid.0, Ordering::Relaxed);
        self.changed();
    }

    /// Its session.
    pub fn session(&self) -> Arc<dyn Session> {
        self.session.lock().clone()
    }

    /// Tells its session of a new process.
    pub(crate) fn announce(&self, fork: Request) {
        let believed = self.pgid();
        match self.session().request(fork) {
            Ok(Try::Started(mut op)) => {
                op.notify(Arc::new(Announcement { process: self.me.clone(), believed }));
                *self.announced.lock() = Some(op);
                // The answer may have come between the two lines.
                self.look_at_announcement(believed);
            }
            Ok(Try::Done(reply)) => self.learn_group(reply, believed),
            Ok(Try::WouldBlock) => {}
            Err(e) => log::debug!("session {} does not take {}: {e}", self.session().sid(), self.pid),
        }
    }

    fn look_at_announcement(&self, believed: Pid) {
        let answer = {
            let mut announced = self.announced.lock();
            let answer = announced.as_mut().and_then(|op| op.take());
            // Not dropped under the lock.
            answer.map(|answer| (answer, announced.take()))
        };
        if let Some((Ok(Try::Done(reply)), _)) = answer {
            self.learn_group(reply, believed);
        }
    }

    /// The parent may have been in another group than this kernel knew.
    fn learn_group(&self, reply: Reply, believed: Pid) {
        if let Reply::Group(pgid) = reply
            && pgid != believed
        {
            // It may have been put into yet another one meanwhile.
            let changed = self.pgid.compare_exchange(believed.0, pgid.0, Ordering::Relaxed, Ordering::Relaxed);
            if changed.is_ok() {
                self.changed();
            }
        }
    }

    /// Whether its session knows it. If not, nobody else brings it the signals of its group.
    pub(crate) fn is_announced(&self) -> bool {
        self.announced.lock().is_none()
    }

    pub(crate) fn set_session(&self, session: Arc<dyn Session>) {
        let old = core::mem::replace(&mut *self.session.lock(), session);
        drop(old);
        self.changed();
    }

    /// Who it is among others.
    pub fn ids(&self) -> Ids {
        let creds = self.creds();
        Ids {
            pid: self.pid,
            ppid: self.ppid(),
            pgid: self.pgid(),
            sid: self.session().sid(),
            uid: creds.uid,
            euid: creds.euid,
        }
    }

    /// Its credentials.
    pub fn creds(&self) -> Arc<Creds> {
        self.creds.read().clone()
    }

    /// Changes its credentials: all threads have the same here. (On Linux each has its own, and libc keeps them equal.)
    ///
    /// # Errors
    /// What `change` says; then nothing is changed.
    pub fn change_creds<R>(&self, change: impl FnOnce(&mut Creds) -> Result<R>) -> Result<R> {
        let (result, users) = {
            let mut creds = self.creds.write();
            let mut new = (**creds).clone();
            let result = change(&mut new)?;
            let users = (creds.users() != new.users()).then(|| new.users());
            *creds = Arc::new(new);
            (result, users)
        };
        self.changed();
        if let Some(users) = users {
            self.session().notice(crate::session::Notice::Users(self.pid, users));
        }
        Ok(result)
    }

    /// Does something with its limits.
    pub fn limits<R>(&self, f: impl FnOnce(&mut Limits) -> R) -> R {
        f(&mut self.limits.lock())
    }

    /// Its address space; `None` for a zombie.
    pub fn space(&self) -> Option<Arc<Space>> {
        self.space.lock().clone()
    }

    pub(crate) fn set_space(&self, space: Option<Arc<Space>>) -> Option<Arc<Space>> {
        core::mem::replace(&mut *self.space.lock(), space)
    }

    /// Its threads.
    pub fn threads(&self) -> Vec<Arc<Task>> {
        self.shared.lock().threads.clone()
    }

    /// How many threads it has.
    pub fn thread_count(&self) -> usize {
        self.shared.lock().threads.len()
    }

    /// A thread of it.
    pub fn thread(&self, tid: Pid) -> Option<Arc<Task>> {
        self.shared.lock().threads.iter().find(|t| t.tid() == tid).cloned()
    }

    /// The thread that stands for the process: the first one, while it lives.
    pub fn leader(&self) -> Option<Arc<Task>> {
        let shared = self.shared.lock();
        shared.threads.iter().find(|t| t.tid() == self.pid).or_else(|| shared.threads.first()).cloned()
    }

    /// What it does, as `/proc/PID/stat` shows it: what its first thread does, and a zombie once that has ended.
    pub fn state(&self) -> u8 {
        let shared = self.shared.lock();
        match shared.threads.iter().find(|t| t.tid() == self.pid) {
            Some(task) => task.state(),
            None => crate::task::State::Zombie as u8,
        }
    }

    /// Whether it has exited and waits to be reaped.
    pub fn zombie(&self) -> Option<(Status, Usage)> {
        self.shared.lock().zombie
    }

    /// What its first thread was called when it ended; zeroes while that lives.
    pub fn last_name(&self) -> [u8; 16] {
        self.shared.lock().last_name
    }

    /// Whether job control has stopped it.
    pub fn is_stopped(&self) -> bool {
        matches!(self.shared.lock().job, JobState::Stopped(_))
    }

    /// What it used; `children` adds what those did that were waited for.
    pub fn usage(&self) -> (Usage, Usage) {
        self.kernel.sched.charge_running();
        let mut shared = self.shared.lock();
        let shared = &mut *shared;
        let mut own = shared.ended;
        for task in &shared.threads {
            own.add(&task.times.usage());
        }
        (own, shared.children_usage)
    }

    /// CPU time of all its threads, ns.
    pub fn cpu_time(&self) -> u64 {
        self.kernel.sched.charge_running();
        let shared = self.shared.lock();
        shared.ended.user + shared.ended.system + shared.threads.iter().map(|t| t.times.total()).sum::<u64>()
    }

    /// Where its next execve goes: `/proc/self/cob/placement`.
    pub fn placement(&self) -> Placement {
        *self.placement.lock()
    }

    /// Says where its next execve goes.
    pub fn set_placement(&self, placement: Placement) {
        *self.placement.lock() = placement;
    }

    /// The signal that its parent gets when it exits; 0 for none.
    pub fn exit_signal(&self) -> u8 {
        self.exit_signal.load(Ordering::Relaxed)
    }

    /// How many signals are queued with info, for RLIMIT_SIGPENDING.
    pub fn queued_signals(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Whether signals that would end it are thrown away unless it has a handler: pid 1.
    pub fn is_init(&self) -> bool {
        self.pid == Pid::INIT
    }

    /// Does something with its signal actions.
    pub fn actions<R>(&self, f: impl FnOnce(&mut Actions) -> R) -> R {
        let mut shared = self.shared.lock();
        let before = shared.actions.ignored();
        let result = f(&mut shared.actions);
        let after = shared.actions.ignored();
        drop(shared);
        if before != after {
            self.changed();
        }
        result
    }

    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }
}

impl core::fmt::Debug for Process {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Process({})", self.pid)
    }
}

impl Process {
    /// Its children that have not ended, as far as it knows.
    pub fn living_children(&self) -> Vec<Pid> {
        self.shared.lock().children.iter().filter(|child| child.zombie.is_none()).map(|child| child.pid).collect()
    }

    /// What this kernel knows of it as a member of its session.
    pub fn as_member(&self) -> Member {
        let new = Member::new(self.pgid(), self.ppid(), self.kernel.id(), self.creds().users());
        let life = {
            let shared = self.shared.lock();
            match shared.job {
                _ if shared.zombie.is_some() => Life::Zombie,
                JobState::Stopped(_) => Life::Stopped,
                _ => Life::Alive,
            }
        };
        Member { life, execed: self.execed.load(Ordering::Relaxed), ..new }
    }

    /// Whether it runs on another kernel, and this is what is left.
    pub(crate) fn is_away(&self) -> bool {
        self.shared.lock().away
    }

    /// Whether it has a child with this number.
    pub fn has_child(&self, pid: Pid) -> bool {
        self.shared.lock().children.get(pid).is_some()
    }

    /// Makes it the leader of a new session and group; it has left its old session.
    pub fn lead_session(self: &Arc<Self>) {
        use crate::{
            children::{ChildChange, ChildEvent},
            session::LocalSession,
        };
        let leader = Member { pgid: self.pid, ..self.as_member() };
        self.set_pgid(self.pid);
        let session = LocalSession::new(&self.kernel, self.pid, leader);
        self.set_session(session);
        self.kernel.child_event(self.ppid(), ChildEvent { pid: self.pid, change: ChildChange::Group(self.pid) });
    }
}
