//! What the machine has once, in the hands of this kernel: devices, the file tree, process 1. `resources` decides whose they are; a kernel thread
//! does what follows from that, since it takes time and asks peers.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use base::{Errno, KernelId, Ready, Wake as _};
use files::FileService;
use hal::sync::{Once, SpinLock, rank};
use names::{Kind, Name, NameService};
use plan::{Device, Plan};
use resources::{ResourceService, Set, Taker};
use task::{Kernel, Task, ids::Pid};
use tasks::TaskService;
use vfs::Mount;

use crate::Peers;
use crate::tree::{self, InThread, Node, Own};

/// The number of the file tree among the resources; devices have theirs in [`Device::ALL`].
pub const TREE: usize = Device::ALL.len();

/// The number of a device among the resources.
pub fn number(device: Device) -> usize {
    Device::ALL.iter().position(|d| *d == device).unwrap_or(Set::MAX)
}

/// The devices of a set.
pub fn devices(set: Set) -> Vec<Device> {
    Device::ALL.into_iter().filter(|device| set.has(number(*device))).collect()
}

/// What the plan says about the resources, by number.
pub fn plans(plan: &Plan) -> Vec<resources::Plan> {
    let nobodys = resources::Plan { owner: u16::MAX, order: Vec::new() };
    let device = |device: Device| {
        let owner = plan.kernels.iter().find(|kernel| kernel.has(device))?;
        // Only kernels of its board reach a device.
        let near = |index: &u16| plan.kernel(*index).is_some_and(|kernel| kernel.board == owner.board);
        let order = plan.console.iter().copied().filter(near).collect();
        Some(resources::Plan { owner: owner.index, order })
    };
    let mut plans: Vec<_> = Device::ALL.into_iter().map(|d| device(d).unwrap_or_else(|| nobodys.clone())).collect();
    let first = plan.primary(0).map_or(0, |kernel| kernel.index);
    plans.push(resources::Plan { owner: first, order: plan.console.clone() });
    plans
}

/// What the image does with devices. A kernel without any has none of it.
pub trait Hardware: Send + Sync {
    /// A kernel is stopped that had these, and what the plan gives to it alone: what they do by themselves ends too, before its memory is used again.
    /// Called on the receive path.
    fn quiet(&self, victim: u16, devices: &[Device]);
    /// These are this kernel's now, in whatever state they are. What does not work is said in the log and left out. What `/dev` shows of them.
    fn take(&self, kernel: &Arc<Kernel>, devices: &[Device]) -> Vec<Node>;
    /// Starts process 1.
    fn first_program(&self, kernel: &Arc<Kernel>);
}

/// The registry's word on its way to the thread.
pub struct Orders {
    /// What is to be taken over.
    take: SpinLock<Set>,
    thread: Once<Arc<Task>>,
}

impl Orders {
    /// None.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { take: SpinLock::new(rank::LINK, Set(0)), thread: Once::new() })
    }

    /// The thread looks whether something has changed.
    pub fn look(&self) {
        if let Some(thread) = self.thread.get() {
            thread.clone().wake(Ready::all());
        }
    }
}

impl Taker for Orders {
    fn take(&self, set: Set) {
        {
            let mut take = self.take.lock();
            *take = take.and(set);
        }
        self.look();
    }

    fn changed(&self, _: Set) {
        self.look();
    }
}

/// What the thread works with.
pub struct Seat {
    pub kernel: Arc<Kernel>,
    pub peers: Weak<Peers>,
    pub names: Arc<NameService>,
    pub tasks: Arc<TaskService>,
    pub files: Arc<FileService>,
    pub resources: Arc<ResourceService>,
    pub orders: Arc<Orders>,
    pub hardware: Option<Arc<dyn Hardware>>,
    pub own: Own,
}

impl Seat {
    /// Begins to serve. A kernel that joined shows the tree of the kernel that has it, in place of its own.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn start(self) -> base::Result<()> {
        let kernel = self.kernel.clone();
        kernel.start_thread("seat", move |thread| self.serve(thread)).map(drop)
    }

    fn serve(self, thread: &Arc<Task>) {
        // There is one thread.
        let _ = self.orders.thread.set(thread.clone());
        let me = self.kernel.id();
        // Whose tree is shown: at first its own.
        let mut shown = me;
        let mut refused = None;
        loop {
            thread.begin_wait();
            let set = core::mem::take(&mut *self.orders.take.lock());
            if !set.is_empty() {
                if set.has(TREE) {
                    shown = me;
                }
                self.take(set, thread);
                continue;
            }
            let home = self.resources.owner(TREE).filter(|home| *home != shown && *home != me && self.is_member(*home));
            let Some(home) = home.filter(|home| refused != Some(*home)) else {
                // Whatever refused is asked again when something has changed.
                refused = None;
                thread.park();
                continue;
            };
            match self.show(home, thread) {
                Ok(()) => {
                    log::info!("the tree of kernel {home}");
                    shown = home;
                    self.kernel.open_doors();
                }
                Err(why) if why.errno() == Errno::EHOSTDOWN => {
                    log::info!("kernel {home} died before its tree was seen");
                    refused = Some(home);
                }
                Err(why) => {
                    log::error!("the tree of kernel {home} cannot be seen: {why}");
                    refused = Some(home);
                }
            }
        }
    }

    fn is_member(&self, kernel: KernelId) -> bool {
        self.peers.upgrade().is_some_and(|peers| peers.view().contains(kernel) && !peers.is_dead(kernel))
    }

    /// Puts the tree of another kernel over this one's own.
    fn show(&self, home: KernelId, thread: &Arc<Task>) -> base::Result<()> {
        let gone = self.kernel.vfs().detach_all_but(&self.own.mounts);
        let seen = tree::see(&self.kernel, &self.files, home, thread);
        self.settle(gone, thread);
        seen?;
        self.tasks.new_init();
        Ok(())
    }

    /// Programs that were in the tree that is gone go on at the same places of the one that is there.
    fn settle(&self, gone: Vec<Arc<Mount>>, thread: &Arc<Task>) {
        if !gone.is_empty() {
            tree::relocate(&self.kernel, &gone, &InThread(thread));
        }
    }

    /// Takes over what a dead kernel had.
    fn take(&self, set: Set, thread: &Arc<Task>) {
        let taken = devices(set);
        log::warn!("takes over {taken:?}{}", if set.has(TREE) { " and the file tree" } else { "" });
        if let Some(hardware) = &self.hardware {
            for (name, kind, number, mode) in hardware.take(&self.kernel, &taken) {
                // It may have been there before, if this kernel had the device in the plan.
                if let Err(why) = self.own.devfs.add(name, kind, number, mode) {
                    log::debug!("/dev/{name}: {why}");
                }
            }
        }
        if set.has(TREE) {
            let gone = self.kernel.vfs().detach_all_but(&self.own.mounts);
            if let Err(why) = tree::complete(&self.kernel, &self.own, thread) {
                log::error!("the tree is not complete: {why}");
            }
            self.settle(gone, thread);
            self.first_program(thread);
            self.tasks.new_init();
        }
        self.resources.taken(set);
        if set.has(TREE) {
            self.kernel.open_doors();
        }
    }

    /// Starts process 1 if it died.
    fn first_program(&self, thread: &Arc<Task>) {
        let name = Name { kind: Kind::Process, key: u64::from(Pid::INIT.0) };
        // The name service answers when every kernel of the view has told what it has.
        let wait: &dyn vfs::WaitOps = &InThread(thread);
        let found = wait.finish(self.names.lookup(name));
        if found.is_err_and(|error| error.errno() == Errno::ESRCH)
            && let Some(hardware) = &self.hardware
        {
            hardware.first_program(&self.kernel);
        }
    }
}
