//! Where the single system image is plugged in. A kernel alone is [`Alone`]; `ssi` brings the implementation for several.
//!
//! Nothing above asks "is it local?": a process is a [`ProcessRef`], a session a [`Session`], a parent a pid. The local table answers for what is
//! here, the cluster for the rest.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

use base::{Errno, Error, KernelId, ObjectId, Result, Subscription, TryResult, Wake};

use crate::{
    children::{ChildEvent, ChildRecord},
    ids::Pid,
    image::TaskImage,
    limits::{Limit, Resource},
    load::{Load, Traffic},
    moving::Handles,
    session::{Sender, Session},
    signal::SigInfo,
};

/// What the name service calls things of this crate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Name {
    /// A process, by pid.
    Process(Pid),
    /// A process group; the object is its session.
    Group(Pid),
    /// A session, by sid.
    Session(Pid),
}

/// A CPU of the machine as programs see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuFact {
    /// Its number in the machine.
    pub global: u32,
    /// The kernel that has it, by index.
    pub kernel: u16,
    /// Its ISA, as `uname -m` says it.
    pub isa: &'static str,
    /// Whether its kernel is in the view now.
    pub online: bool,
    /// The `name: value` lines of `/proc/cpuinfo`.
    pub describe: String,
}

/// A request to a process, wherever it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProcessRequest {
    /// kill(2), tgkill(2), rt_sigqueueinfo(2).
    Signal {
        /// The signal; nothing for signal number 0.
        info: Option<SigInfo>,
        /// Who sends it.
        from: Sender,
        /// To this thread only.
        thread: Option<Pid>,
    },
    /// getpgid, getsid and what setpgid needs to know.
    Ids,
    /// The nice value; 20 - nice.
    Nice,
    /// Sets the nice value of all threads.
    SetNice {
        /// The new value.
        nice: i8,
        /// Who asks, with CAP_SYS_NICE in `privileged`.
        from: Sender,
    },
    /// prlimit(2).
    Limit {
        /// Which limit.
        resource: Resource,
        /// The new one.
        new: Option<Limit>,
        /// Who asks, with CAP_SYS_RESOURCE in `privileged`.
        from: Sender,
    },
    /// Its parent exited; this is the new one.
    Reparent(Pid),
    /// Its session put it into this group. Two of these may overtake each other, so the process's kernel asks the session what holds.
    SetGroup(Pid),
    /// Its parent waited for it: the zombie can go.
    Reap,
    /// Whether it has ended: pidfd_open(2).
    IsOver,
}

/// The answer to a [`ProcessRequest`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcessReply {
    /// Done.
    Done,
    /// Who it is.
    Ids(Ids),
    /// 20 - nice, 1 to 40.
    Nice(u8),
    /// The limit before.
    Limit(Limit),
    /// Whether it has ended.
    Over(bool),
}

/// Who a process is among others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ids {
    /// Its pid.
    pub pid: Pid,
    /// Its parent.
    pub ppid: Pid,
    /// Its group.
    pub pgid: Pid,
    /// Its session.
    pub sid: Pid,
    /// Its real user.
    pub uid: u32,
    /// Its effective user.
    pub euid: u32,
}

/// Where a session is, and how often it moved before it was there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SessionHome {
    /// The kernel.
    pub kernel: KernelId,
    /// How often it moved: what counts more is newer.
    pub moves: u32,
}

/// A process, here or elsewhere.
pub trait ProcessRef: Send + Sync {
    /// Its pid.
    fn pid(&self) -> Pid;
    /// Asks something of it.
    ///
    /// # Errors
    /// `ESRCH` if it is gone, `EPERM` if it may not be asked, `EHOSTDOWN` if its kernel died.
    fn request(&self, request: ProcessRequest) -> TryResult<ProcessReply>;
}

/// Where the next execve(2) of a process goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Placement {
    /// Where the policy says; without one, where it is.
    #[default]
    Automatic,
    /// To the kernel with this index.
    Kernel(u16),
}

/// A task that another kernel is ready for. Dropping it leaves the task here.
pub trait Departure: Send {
    /// COMMIT: `Done` means that it runs there and this kernel forwards.
    ///
    /// # Errors
    /// `EHOSTDOWN`: that kernel died, and the task with it.
    fn commit(self: Box<Self>) -> TryResult<()>;
}

/// What one kernel needs of the others.
pub trait Cluster: Send + Sync {
    /// A pid that nobody has; `used` says whether this kernel still uses a number.
    ///
    /// # Errors
    /// `EAGAIN` if there is none.
    fn new_pid(&self, used: &mut dyn FnMut(Pid) -> bool) -> Result<Pid>;

    /// A name stands for an object of this kernel from now on. Nobody waits.
    fn register(&self, name: Name, object: ObjectId);
    /// As [`Cluster::register`] for what moved here; ends when whoever asks for the name is sent here.
    fn register_moved(&self, name: Name, object: ObjectId) -> TryResult<()>;
    /// Ends when all kernels can find what was registered here before.
    fn registered(&self) -> TryResult<()>;
    /// It does no more.
    fn unregister(&self, name: Name, object: ObjectId);

    /// A process that is not here.
    ///
    /// # Errors
    /// `ESRCH` if there is none anywhere.
    fn find_process(&self, pid: Pid) -> TryResult<Arc<dyn ProcessRef>>;
    /// The session that has group `pgid`, whose home is not here.
    ///
    /// # Errors
    /// `ESRCH` if there is none anywhere.
    fn find_group(&self, pgid: Pid) -> TryResult<Arc<dyn Session>>;
    /// A session whose home is not here.
    ///
    /// # Errors
    /// `ESRCH` if there is none anywhere.
    fn find_session(&self, sid: Pid) -> TryResult<Arc<dyn Session>>;
    /// A session by its object id, for a task that arrives; `home` is where it was for the kernel that the task comes from.
    fn session(&self, id: ObjectId, sid: Pid, home: SessionHome) -> Arc<dyn Session>;
    /// Where a session is as far as this kernel knows, for a task that leaves.
    fn session_home(&self, id: ObjectId, sid: Pid) -> SessionHome;
    /// Brings a session here, for a terminal of this kernel that its leader `caller` takes. Afterwards it is in the table.
    ///
    /// # Errors
    /// `ESRCH` if there is none, `EPERM` if the caller is not its leader or it has a terminal, `EBUSY` if it is on its way somewhere.
    fn fetch_session(&self, sid: Pid, caller: Pid) -> TryResult<()>;
    /// A session whose home is here has no members any more.
    fn session_over(&self, id: ObjectId, sid: Pid);

    /// `kill(-1)` on all other kernels: how many processes were signalled there.
    fn signal_all(&self, info: SigInfo, from: Sender) -> TryResult<usize>;
    /// Deliver a group signal to members on another kernel (an effect of a session whose home is here).
    fn signal_members(&self, to: KernelId, pgid: Pid, members: &[Pid], info: SigInfo, from: Sender);

    /// Something happened to the child of a process that is not here. Nobody waits.
    fn child_event(&self, parent: Pid, event: ChildEvent);
    /// Children (with zombies) whose parent exited become those of `parent`, which is not here.
    fn adopt(&self, parent: Pid, children: Vec<ChildRecord>);
    /// `child` runs on kernel `to` from now on, and its number stands for nobody here any more. If that kernel died before this was known here,
    /// `parent` learns that the child was killed, and its own children here become pid 1's.
    fn runs_elsewhere(&self, parent: Pid, child: Pid, to: KernelId);
    /// A child that is not here has a new parent, or its parent asks it to die with it.
    fn tell(&self, child: Pid, request: ProcessRequest);

    /// Tells `waker` when a process that is not here ends, or may be elsewhere: look again.
    fn watch_process(&self, pid: Pid, waker: Arc<dyn Wake>) -> Subscription;
    /// A process of this kernel has ended (`over`) or moved: whoever watches it is told. Nobody waits.
    fn process_changed(&self, pid: Pid, over: bool);

    /// The kernel where an execve with this placement goes on; `None`: here.
    ///
    /// # Errors
    /// `ENODEV` if no kernel has that index, `EHOSTDOWN` if it is not in the view.
    fn place(&self, placement: Placement) -> Result<Option<KernelId>>;
    /// Whether the machine has kernels of several instruction sets.
    fn is_mixed(&self) -> bool {
        false
    }
    /// A kernel of an instruction set, of those that are up.
    fn kernel_of(&self, isa: linux_abi::Isa) -> Option<KernelId> {
        let _ = isa;
        None
    }
    /// A task will go to kernel `to` as soon as it is made ready.
    fn about_to_go(&self, to: KernelId) {
        let _ = to;
    }
    /// Asks kernel `to` to reserve everything for a task and to load its program: PREPARE. It stays here until the result is committed, or for good if
    /// that is dropped.
    ///
    /// # Errors
    /// Any errno of execve(2).
    fn prepare_exec(&self, to: KernelId, image: Box<TaskImage>) -> TryResult<Box<dyn Departure>>;

    /// How files go with a task that moves; `None`: they cannot.
    fn handles(&self) -> Option<Arc<dyn Handles>> {
        None
    }

    /// What the other kernels do, asked of all at once.
    ///
    /// # Errors
    /// None: one that does not answer is left out, or shown as it was.
    fn loads(&self) -> TryResult<Vec<Load>>;

    /// What this kernel and the others have told each other.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    /// All CPUs of the machine, by number.
    fn cpus(&self) -> Vec<CpuFact>;
}

/// The cluster of a kernel that has no peers.
pub struct Alone {
    next: core::sync::atomic::AtomicU32,
    cpus: Vec<CpuFact>,
}

/// The CPUs of this kernel.
pub(crate) fn own_cpus(facts: &crate::kernel::Facts) -> Vec<CpuFact> {
    (0..hal::cpu::count())
        .map(|slot| {
            let mut describe = String::new();
            // The description of a CPU is for people; one that cannot be written is left out.
            let _ = hal::cpu::describe(&mut describe);
            CpuFact {
                global: hal::cpu::global_id(slot),
                kernel: facts.id.index,
                isa: facts.isa.name(),
                online: true,
                describe,
            }
        })
        .collect()
}

/// One more than the largest pid (`/proc/sys/kernel/pid_max`).
pub const PID_MAX: u32 = 4_194_304;

impl Alone {
    /// A machine of one kernel with these CPUs.
    pub const fn new(cpus: Vec<CpuFact>) -> Self {
        Self { next: core::sync::atomic::AtomicU32::new(2), cpus }
    }
}

const NO_PEER: Error = Error::new(Errno::EHOSTDOWN, "there are no other kernels");

impl Cluster for Alone {
    fn new_pid(&self, used: &mut dyn FnMut(Pid) -> bool) -> Result<Pid> {
        use core::sync::atomic::Ordering::Relaxed;
        for _ in 0..PID_MAX {
            let n = self.next.fetch_update(Relaxed, Relaxed, |n| Some(if n + 1 < PID_MAX { n + 1 } else { 2 }));
            let pid = Pid(n.unwrap_or(2));
            if !used(pid) {
                return Ok(pid);
            }
        }
        Err(Error::new(Errno::EAGAIN, "all pids are in use"))
    }

    fn register(&self, _: Name, _: ObjectId) {}
    fn register_moved(&self, _: Name, _: ObjectId) -> TryResult<()> {
        base::wait::done(())
    }
    fn registered(&self) -> TryResult<()> {
        base::wait::done(())
    }
    fn unregister(&self, _: Name, _: ObjectId) {}

    fn find_process(&self, _: Pid) -> TryResult<Arc<dyn ProcessRef>> {
        Err(Errno::ESRCH.into())
    }

    fn find_group(&self, _: Pid) -> TryResult<Arc<dyn Session>> {
        Err(Errno::ESRCH.into())
    }

    fn find_session(&self, _: Pid) -> TryResult<Arc<dyn Session>> {
        Err(Errno::ESRCH.into())
    }

    fn session(&self, id: ObjectId, sid: Pid, _: SessionHome) -> Arc<dyn Session> {
        Arc::new(NoSession { id, sid })
    }

    fn session_home(&self, id: ObjectId, _: Pid) -> SessionHome {
        SessionHome { kernel: id.birth, moves: 0 }
    }

    fn fetch_session(&self, _: Pid, _: Pid) -> TryResult<()> {
        Err(Errno::ESRCH.into())
    }

    fn session_over(&self, _: ObjectId, _: Pid) {}

    fn signal_all(&self, _: SigInfo, _: Sender) -> TryResult<usize> {
        base::wait::done(0)
    }

    fn signal_members(&self, _: KernelId, _: Pid, _: &[Pid], _: SigInfo, _: Sender) {}
    fn child_event(&self, _: Pid, _: ChildEvent) {}
    fn adopt(&self, _: Pid, _: Vec<ChildRecord>) {}
    fn runs_elsewhere(&self, _: Pid, _: Pid, _: KernelId) {}

    fn watch_process(&self, _: Pid, _: Arc<dyn Wake>) -> Subscription {
        Subscription::never()
    }

    fn process_changed(&self, _: Pid, _: bool) {}
    fn tell(&self, _: Pid, _: ProcessRequest) {}

    fn place(&self, placement: Placement) -> Result<Option<KernelId>> {
        match placement {
            Placement::Automatic => Ok(None),
            Placement::Kernel(index) if self.cpus.iter().any(|c| c.kernel == index) => Ok(None),
            Placement::Kernel(_) => Err(Error::new(Errno::ENODEV, "this machine has one kernel")),
        }
    }

    fn prepare_exec(&self, _: KernelId, _: Box<TaskImage>) -> TryResult<Box<dyn Departure>> {
        Err(NO_PEER)
    }

    fn loads(&self) -> TryResult<Vec<Load>> {
        base::wait::done(Vec::new())
    }

    fn cpus(&self) -> Vec<CpuFact> {
        self.cpus.clone()
    }
}

/// A session that cannot be reached.
struct NoSession {
    id: ObjectId,
    sid: Pid,
}

impl Session for NoSession {
    fn id(&self) -> ObjectId {
        self.id
    }
    fn sid(&self) -> Pid {
        self.sid
    }
    fn request(&self, _: crate::session::Request) -> TryResult<crate::session::Reply> {
        Err(NO_PEER)
    }
    fn notice(&self, _: crate::session::Notice) {}
}
