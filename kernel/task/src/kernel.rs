//! One kernel as a value. Everything hangs off it; there are no statics.

use alloc::{boxed::Box, string::String, sync::Arc};
use core::sync::atomic::{AtomicBool, Ordering};

use base::{KernelId, ObjectId, id::ObjectIds};
use hal::sync::{Once, SpinLock, rank};
use linux_abi::Isa;
use mm::Memory;

use crate::{
    cluster::Cluster,
    cx::Cx,
    fs::{Descriptors, FsState},
    futex::Futexes,
    ipc::Ipc,
    pi::Inheritance,
    process::Process,
    sched::Sched,
    stop::Doors,
    table::Table,
    time::{Clocks, Timers},
};

/// What the plan says about this kernel.
#[derive(Clone, Debug)]
pub struct Facts {
    /// This run of this kernel.
    pub id: KernelId,
    /// Its ISA.
    pub isa: Isa,
    /// Its name in the plan.
    pub name: String,
    /// How many kernels the plan has.
    pub kernels: u16,
    /// The version of the system (`uname -v`).
    pub version: String,
}

/// The system-call layer, as the task layer calls it.
pub trait Abi: Send + Sync {
    /// A task asked for something. The result is put where the program looks for it: a value, or a negated errno. A call that sets the
    /// registers (execve, rt_sigreturn) gives the result that is in them.
    fn syscall(&self, cx: &Cx, nr: u64, args: [u64; 6]) -> i64;
    /// The number of restart_syscall(2) on this ISA.
    fn restart_nr(&self, isa: Isa) -> u64;
}

/// What reboot(2) asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Power {
    /// Switch the machine off.
    Off,
    /// Start it again.
    Restart,
    /// Stop.
    Halt,
}

/// What `boot` lends a kernel.
pub trait Hooks: Send + Sync {
    /// Does what reboot(2) asked for, for the whole machine.
    fn power(&self, what: Power);
    /// A device line or vector.
    fn irq(&self, line: u32) {
        let _ = line;
    }
    /// A peer kernel rang.
    fn doorbell(&self) {}
    /// This CPU has nothing to run: waits for an interrupt and serves it, or comes back earlier because there is something. `has_work` says
    /// whether there is something to run. Says whether the CPU slept.
    fn idle(&self, has_work: &dyn Fn() -> bool) -> bool {
        let _ = has_work;
        hal::cpu::idle_wait();
        true
    }
}

/// A kernel.
pub struct Kernel {
    /// What the plan says about it.
    pub facts: Facts,
    /// Hands out object ids.
    pub objects: Arc<ObjectIds>,
    /// Its memory.
    pub memory: Arc<Memory>,
    /// Who runs when.
    pub sched: Sched,
    /// Deadlines.
    pub timers: Timers,
    /// Clocks.
    pub clocks: Clocks,
    /// Processes and threads.
    pub table: Table,
    /// Futexes.
    pub futexes: Futexes,
    /// Futexes with priority inheritance.
    pub inheritance: Inheritance,
    /// System V semaphores and message queues.
    pub ipc: Ipc,
    /// The host and domain name, uname(2).
    pub names: SpinLock<HostNames>,
    cluster: Once<Arc<dyn Cluster>>,
    pub(crate) vfs: Once<Arc<vfs::Vfs>>,
    pub(crate) kernel_process: Once<Arc<Process>>,
    no_files: Arc<Descriptors>,
    no_fs: Arc<FsState>,
    abi: &'static dyn Abi,
    /// As hal knows it too; here it is at hand where a call is served.
    traced: AtomicBool,
    hooks: Once<Box<dyn Hooks>>,
    pub(crate) counters: Counters,
    pub(crate) doors: Doors,
}

/// Host and domain name.
#[derive(Clone, Debug)]
pub struct HostNames {
    /// `gethostname`.
    pub host: String,
    /// `getdomainname`.
    pub domain: String,
}

/// Counters for `/proc/stat`.
#[derive(Debug, Default)]
pub struct Counters {
    /// Processes and threads made since boot.
    pub forks: core::sync::atomic::AtomicU64,
    /// Interrupts served.
    pub interrupts: core::sync::atomic::AtomicU64,
}

impl Kernel {
    /// A kernel without tasks. `memory` and `objects` are its own.
    pub fn new(facts: Facts, memory: Arc<Memory>, objects: Arc<ObjectIds>, abi: &'static dyn Abi) -> Arc<Self> {
        let kernel = Arc::new(Self {
            names: SpinLock::new(
                rank::PROCESS_FS,
                HostNames { host: String::from("cob"), domain: String::from("(none)") },
            ),
            facts,
            objects,
            memory,
            sched: Sched::new(),
            timers: Timers::new(),
            clocks: Clocks::new(),
            table: Table::new(),
            inheritance: Inheritance::new(),
            ipc: Ipc::new(),
            futexes: Futexes::new(),
            cluster: Once::new(),
            vfs: Once::new(),
            kernel_process: Once::new(),
            no_files: Arc::new(Descriptors::new()),
            no_fs: Arc::new(FsState::new(None, None, 0o022)),
            abi,
            traced: AtomicBool::new(false),
            hooks: Once::new(),
            counters: Counters::default(),
            doors: Doors::new(),
        });
        kernel.memory.set_killer(crate::oom::OomKiller::of(&kernel));
        kernel
    }

    /// This run of this kernel.
    pub const fn id(&self) -> KernelId {
        self.facts.id
    }

    /// A new object id.
    pub fn new_id(&self) -> ObjectId {
        self.objects.next()
    }

    /// Plugs in the other kernels; once, before the first process.
    pub fn set_cluster(&self, cluster: Arc<dyn Cluster>) -> bool {
        self.cluster.set(cluster).is_ok()
    }

    /// The other kernels.
    pub fn cluster(&self) -> &Arc<dyn Cluster> {
        self.cluster.get_or_init(|| Arc::new(crate::cluster::Alone::new(crate::cluster::own_cpus(&self.facts))))
    }

    /// Plugs in what `boot` lends; once.
    pub fn set_hooks(&self, hooks: Box<dyn Hooks>) -> bool {
        self.hooks.set(hooks).is_ok()
    }

    /// What `boot` lends.
    pub fn hooks(&self) -> Option<&dyn Hooks> {
        self.hooks.get().map(|b| &**b)
    }

    /// Whether somebody wants to know what happens here ([`hal::trace`]).
    #[inline]
    pub fn is_traced(&self) -> bool {
        self.traced.load(Ordering::Relaxed)
    }

    pub(crate) fn set_traced(&self, traced: bool) {
        self.traced.store(traced, Ordering::Relaxed);
    }

    /// The system-call layer.
    pub const fn abi(&self) -> &'static dyn Abi {
        self.abi
    }

    /// Makes the running code the idle thread of this CPU. Does not return.
    pub fn run_cpu(self: &Arc<Self>) -> ! {
        self.sched.run_cpu(self)
    }

    /// The handlers that hal calls; install them with `hal::boot::install`.
    pub fn handlers(self: &Arc<Self>) -> Box<dyn hal::boot::Handlers> {
        Box::new(Interrupts { kernel: self.clone() })
    }

    /// The descriptors of tasks that have none: kernel threads, and those that end.
    pub(crate) fn no_files(&self) -> Arc<Descriptors> {
        self.no_files.clone()
    }

    pub(crate) fn no_fs(&self) -> Arc<FsState> {
        self.no_fs.clone()
    }

    /// A task's scheduling parameters were changed by somebody: it is looked at again.
    pub fn sched_changed(&self, task: &Arc<crate::task::Task>) {
        self.sched.changed(task);
    }

    /// Counters for `/proc/stat`.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}

struct Interrupts {
    kernel: Arc<Kernel>,
}

impl hal::boot::Handlers for Interrupts {
    fn timer(&self) {
        self.kernel.counters.interrupts.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        self.kernel.timers.interrupt(&self.kernel);
    }

    fn kick(&self) {
        self.kernel.sched.kicked(&self.kernel);
    }

    fn doorbell(&self) {
        if let Some(hooks) = self.kernel.hooks() {
            hooks.doorbell();
        }
    }

    fn irq(&self, line: u32) {
        self.kernel.counters.interrupts.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        if let Some(hooks) = self.kernel.hooks() {
            hooks.irq(line);
        }
    }
}
