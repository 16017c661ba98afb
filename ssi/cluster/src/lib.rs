//! The other kernels: links over shared memory and doorbells or a network, membership, and the services on them, plugged into one kernel. The image on bare
//! metal and the system simulator put a kernel together with this.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod life;
pub mod measure;
pub mod proof;
pub mod seat;
pub mod tree;

use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ::life::{LifeHandler, LifeService};
use base::KernelId;
use files::{FileHandler, FileService, abstracts::Abstracts};
use hal::boot::{BootInfo, PhysRange};
use hal::cpuref::{CpuRef, FenceToken, Fenced};
use hal::sync::{Once, SpinLock, rank};
use link::ether::{Clock, Nic};
use link::window::{HalWindows, Reach, Ring};
use link::{Carrier, Ether, Facts as Hello, Handler, Shm};
use membership::{Config, Machine, MembershipService, Outcome, Service, View};
use memory::{MemoryHandler, MemoryService};
use names::{NameHandler, NameService};
use plan::Plan;
use resources::{ResourceHandler, ResourceService};
use task::Kernel;
use task::cluster::CpuFact;
use task::time::{Expire, Timer};
use tasks::{ClusterView, OwnKernel, TaskHandler, TaskService};

use crate::life::Hands;
pub use crate::life::Starter;
pub use crate::seat::Hardware;
use crate::seat::{Orders, Seat};
use crate::tree::Own;

/// Who is there, and the links to them.
pub type Peers = MembershipService;

/// What a kernel has to do with kernels of other boards.
pub trait Far: Send + Sync {
    /// How this kernel reaches one of another board; `None` if it cannot.
    fn reach(&self, kernel: &plan::Kernel) -> Option<Reach>;
    /// Switches another board off, which has one kernel.
    fn stop(&self, board: usize) -> Fenced;
}

/// What a kernel is told of its machine.
#[derive(Clone)]
pub struct Facts<'a> {
    /// The machine.
    pub plan: &'a Plan,
    /// Its text: kernels of different plans do not talk.
    pub text: &'a str,
    /// This kernel.
    pub info: &'a BootInfo,
    /// The kernel that started it; none for the first of the machine.
    pub starter: Option<u16>,
    /// What is on other boards; none if there are no others.
    pub far: Option<Arc<dyn Far>>,
    /// What carries messages to boards that share nothing with this one.
    pub card: Option<Arc<dyn Nic>>,
}

/// A handler that whoever puts the kernel together adds to the links: under which name, and what it does.
pub type Extra = (&'static str, Arc<dyn Handler>);

/// What membership asks of this kernel.
struct Board {
    kernel: Arc<Kernel>,
    hello: Hello,
    /// The hardware numbers of the CPUs of each kernel of this board.
    cpus: Vec<(u16, Vec<u32>)>,
    /// The boards of the others.
    boards: Vec<(u16, usize)>,
    far: Option<Arc<dyn Far>>,
    alarm: SpinLock<Option<Timer>>,
    /// When it is due; `u64::MAX` if there is none. Changed with the alarm's lock held.
    soonest: AtomicU64,
    peers: Once<Weak<Peers>>,
    memory: Once<Weak<MemoryService>>,
    resources: Once<Arc<ResourceService>>,
    hardware: Once<Arc<dyn Hardware>>,
    me: Weak<Self>,
}

impl Expire for Board {
    fn expire(self: Arc<Self>) {
        {
            let mut alarm = self.alarm.lock();
            *alarm = None;
            self.soonest.store(u64::MAX, Ordering::Relaxed);
        }
        if let Some(peers) = self.peers.get().and_then(Weak::upgrade) {
            peers.tick();
        }
    }
}

impl Clock for Board {
    fn now(&self) -> u64 {
        Machine::now(self)
    }

    fn set_alarm(&self, at: u64) {
        Machine::set_alarm(self, at);
    }
}

impl Machine for Board {
    fn now(&self) -> u64 {
        hal::time::now()
    }

    fn step_forward(&self, clock: u64) {
        hal::time::step_forward(clock);
    }

    fn set_alarm(&self, at: u64) {
        // Every request asks; most are due later than what is set.
        if at >= self.soonest.load(Ordering::Relaxed) {
            return;
        }
        let Some(me) = self.me.upgrade() else { return };
        let mut alarm = self.alarm.lock();
        if alarm.is_none_or(|timer| at < timer.deadline())
            && let Some(old) = alarm.replace(self.kernel.timers.set(at, me))
        {
            self.kernel.timers.cancel(old);
        }
        self.soonest.store(alarm.map_or(u64::MAX, |timer| timer.deadline()), Ordering::Relaxed);
    }

    fn facts(&self) -> Hello {
        self.hello
    }

    fn fence(&self, victim: KernelId) -> Outcome {
        let outcome = |fenced| match fenced {
            Fenced::Reset => Outcome::Fenced,
            Fenced::Parked => Outcome::Parked,
            Fenced::Lost => Outcome::Lost,
        };
        if let Some((_, board)) = self.boards.iter().find(|(index, _)| *index == victim.index) {
            // With its CPUs its devices stand still.
            return outcome(self.far.as_ref().map_or(Fenced::Lost, |far| far.stop(*board)));
        }
        let token = FenceToken::for_fence();
        let mut outcome = Outcome::Fenced;
        for cpu in self.cpus.iter().filter(|(index, _)| *index == victim.index).flat_map(|(_, cpus)| cpus) {
            let fenced = CpuRef::new(*cpu).map_or(Fenced::Lost, |cpu| cpu.fence(&token));
            outcome = match (outcome, fenced) {
                (_, Fenced::Lost) | (Outcome::Lost, _) => Outcome::Lost,
                (_, Fenced::Parked) | (Outcome::Parked, _) => Outcome::Parked,
                (Outcome::Fenced, Fenced::Reset) => Outcome::Fenced,
            };
        }
        if outcome != Outcome::Lost
            && let (Some(resources), Some(hardware)) = (self.resources.get(), self.hardware.get())
        {
            hardware.quiet(victim.index, &seat::devices(resources.owned_by(victim)));
        }
        outcome
    }

    fn let_go(&self, excluded: &[(KernelId, Outcome)]) {
        // Their rings went with their links, which are closed by now.
        if let Some(memory) = self.memory.get().and_then(Weak::upgrade) {
            for (dead, _) in excluded {
                memory.let_go_of(*dead);
            }
        }
    }

    fn free(&self, _: &[(KernelId, Outcome)]) {
        // What they were granted of this kernel ended when they were stopped; their own memory is used again by whoever boots the kernel again.
    }

    fn park(&self, why: &'static str) {
        panic!("this kernel may not go on: {why}");
    }
}

/// The services that depend on who is there, told in this order: a task's home is looked up by its name.
struct Services {
    names: Arc<NameService>,
    tasks: Arc<TaskService>,
    memory: Arc<MemoryService>,
    files: Arc<FileService>,
    peers: Weak<Peers>,
    resources: Arc<ResourceService>,
    orders: Arc<Orders>,
    kernel: Arc<Kernel>,
    reaches: Vec<Reach>,
    /// The memory shared with kernels of other boards is still to be proved: by whoever comes later, once.
    unproved: AtomicBool,
}

impl Services {
    fn prove(&self, view: &View) {
        let (me, Some(peers)) = (self.kernel.id(), self.peers.upgrade()) else { return };
        if view.contains(me) && self.unproved.swap(false, Ordering::Relaxed) {
            // What cannot be executed is on another board.
            let is_far = |index: u16| self.reaches.iter().any(|reach| reach.index == index && !reach.executable);
            let far = view.members.iter().copied().filter(|member| *member != me && is_far(member.index)).collect();
            proof::begin(&self.kernel, &peers, &self.reaches, far);
        }
    }
}

impl Service for Services {
    fn peer_down(&self, dead: KernelId) {
        self.tasks.peer_down(dead);
        let outcome = self.peers.upgrade().and_then(|peers| peers.outcome(dead.index));
        self.memory.peer_down(dead, outcome.is_none_or(|outcome| outcome == Outcome::Lost));
        self.files.peer_down(dead);
        self.resources.peer_down(dead, outcome == Some(Outcome::Lost));
    }

    fn view(&self, view: &View) {
        self.names.view(view.epoch, view.members.clone());
        self.tasks.view(view.epoch, view.members.clone());
        self.resources.view(view.epoch, view.members.clone());
        self.orders.look();
        self.prove(view);
    }
}

/// What this kernel has with the others.
pub struct Cluster {
    /// Who is there.
    pub peers: Arc<Peers>,
    /// Files of all kernels.
    pub files: Arc<FileService>,
    /// Processes of all kernels, for `/proc`.
    pub processes: Arc<ClusterView>,
    /// Who owns what the machine has once.
    pub resources: Arc<ResourceService>,
    /// Who starts and stops whom.
    pub life: Arc<LifeService>,
    /// Which kernel keeps which names.
    pub names: Arc<NameService>,
    tasks: Arc<TaskService>,
    orders: Arc<Orders>,
    board: Arc<Board>,
    hands: Arc<Hands>,
    /// How this kernel reaches all of them.
    pub reaches: Vec<Reach>,
    starter: Option<u16>,
}

/// What a kernel has with the others, counted: when no process is left it is what it was before there were any.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Names that it keeps as their registrar.
    pub names: usize,
    /// Operations on names that have not ended.
    pub lookups: usize,
    /// Moves to it, and parents being looked up.
    pub tasks: (usize, usize),
    /// What is lent, borrowed and subscribed to, as [`FileService::counts`] has it.
    pub files: [usize; 5],
    /// Requests that were not answered.
    pub unanswered: usize,
}

impl Cluster {
    /// Counts.
    pub fn counts(&self) -> Counts {
        let (names, lookups) = self.names.counts();
        let (tasks, files, unanswered) = (self.tasks.counts(), self.files.counts(), self.peers.links().unanswered());
        Counts { names, lookups, tasks, files, unanswered }
    }

    /// Asks to be let in, if another kernel started this one. Who asks is expected to answer from then on: this comes last, when nothing that takes long
    /// with interrupts off is to be done any more.
    pub fn enter(&self) {
        if let Some(starter) = self.starter {
            self.peers.enter(starter);
        }
    }

    /// What drives the devices of this kernel, and of those that die.
    pub fn set_hardware(&self, hardware: Arc<dyn Hardware>) {
        // It is set once, when the kernel is put together.
        let _ = self.board.hardware.set(hardware);
    }

    /// What starts peers of this kernel.
    pub fn set_starter(&self, starter: Arc<dyn Starter>) {
        self.hands.set_starter(starter);
    }

    /// Serves this kernel's own trees to the others, shows its programs the tree of the kernel that has the machine's, and takes over what others
    /// had that died.
    pub fn share(&self, kernel: &Arc<Kernel>, own: Own) {
        self.files.set_tree(wire::files::tree::ROOT, own.root.clone());
        self.files.set_tree(wire::files::tree::DEVICES, own.dev.clone());
        self.files.set_tree(wire::files::tree::PTYS, own.pts.clone());
        let seat = Seat {
            kernel: kernel.clone(),
            peers: Arc::downgrade(&self.peers),
            names: self.names.clone(),
            tasks: self.tasks.clone(),
            files: self.files.clone(),
            resources: self.resources.clone(),
            orders: self.orders.clone(),
            hardware: self.board.hardware.get().cloned(),
            own,
        };
        if let Err(why) = seat.start() {
            log::error!("the tree of the others: {why}");
        }
    }
}

/// What [`serve`] made, for others to build on.
struct Served {
    files: Arc<FileService>,
    processes: Arc<ClusterView>,
    memory: Arc<MemoryService>,
    resources: Arc<ResourceService>,
    names: Arc<NameService>,
    tasks: Arc<TaskService>,
    orders: Arc<Orders>,
    life: Arc<LifeService>,
    hands: Arc<Hands>,
}

/// Plugs the services into the links and into the kernel.
fn serve(
    facts: &Facts<'_>,
    kernel: &Arc<Kernel>,
    peers: &Arc<Peers>,
    reaches: Vec<Reach>,
    board: &Arc<Board>,
    extras: Vec<Extra>,
) -> Result<Served, String> {
    let (links, kernels) = (peers.links(), facts.plan.kernels.len() as u16);
    let names = NameService::new(links.clone(), kernels);
    // CPUs of an ISA are alike; kernels of others are asked. One that cannot describe itself has no description.
    let mut describe = String::new();
    let _ = hal::cpu::describe(&mut describe);
    let cpus = facts.plan.kernels.iter().flat_map(|k| {
        k.cpus.iter().map(|c| CpuFact {
            global: c.global,
            kernel: k.index,
            isa: k.isa.name(),
            online: true,
            describe: if k.isa == kernel.facts.isa { describe.clone() } else { String::new() },
        })
    });
    let tasks = TaskService::new(links.clone(), names.clone(), kernels, cpus.collect());
    let files = FileService::new(links.clone(), kernel.memory.clone());
    let memory = MemoryService::new(links.clone(), kernel.clone(), reaches.clone());
    let weak: Weak<FileService> = Arc::downgrade(&files);
    memory.set_finder(weak);
    files.set_memory(memory.clone());
    tasks.attach(Arc::new(OwnKernel(kernel.clone())));
    files.attach(kernel.vfs().clone());
    tasks.set_handles(files.clone());
    let orders = Orders::new();
    let resources = ResourceService::new(links.clone(), seat::plans(facts.plan), orders.clone());
    // Made a moment ago: nobody else has set it.
    let _ = board.resources.set(resources.clone());
    let (hands, life) = Hands::new(facts.plan, kernel, peers);
    let machine_names: Arc<dyn vfs::socket::Names> = Abstracts::new(&files, names.clone());
    let named = kernel.vfs().machine_names.set(machine_names).is_ok();
    let registered = named
        && links.register("names", Arc::new(NameHandler(names.clone())))
        && links.register("tasks", Arc::new(TaskHandler(tasks.clone())))
        && links.register("memory", Arc::new(MemoryHandler(memory.clone())))
        && links.register("files", Arc::new(FileHandler(files.clone())))
        && links.register("generic", Arc::new(FileHandler(files.clone())))
        && links.register("devices", Arc::new(ResourceHandler(resources.clone())))
        && links.register("test", measure::Tests::new(kernel, links, reaches.clone()))
        && links.register("resources", Arc::new(LifeHandler(life.clone())))
        && extras.into_iter().all(|(name, handler)| links.register(name, handler))
        && kernel.set_cluster(Arc::new(tasks::Peers(tasks.clone())));
    let processes = Arc::new(ClusterView::new(kernel.clone(), tasks.clone()));
    let (of, weak) = (memory.clone(), Arc::downgrade(peers));
    peers.add(Arc::new(Services {
        names: names.clone(),
        tasks: tasks.clone(),
        memory: of,
        files: files.clone(),
        peers: weak,
        resources: resources.clone(),
        orders: orders.clone(),
        kernel: kernel.clone(),
        reaches,
        unproved: AtomicBool::new(facts.starter.is_some()),
    }));
    // Last: who waits for the end of a kernel finds everybody told.
    peers.add(life.clone());
    let served = Served { files, processes, memory, resources, names, tasks, orders, life, hands };
    if registered { Ok(served) } else { Err(String::from("a service was there already")) }
}

/// FNV-1a of the plan: kernels of different plans do not talk.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// Begins this kernel's membership. `publish` makes it known to the doorbell and the panic path before the first message can come; it says
/// `false` if another one is known there.
///
/// # Errors
/// A sentence for the log.
pub fn join(
    facts: &Facts<'_>,
    kernel: &Arc<Kernel>,
    extras: Vec<Extra>,
    publish: impl FnOnce(&Arc<Peers>) -> bool,
) -> Result<Cluster, String> {
    let me = KernelId { index: facts.info.index, incarnation: facts.info.incarnation };
    let board = facts.plan.kernel(me.index).map_or(0, |k| k.board);
    let near = |k: &plan::Kernel| k.board == board;
    let seen = facts.plan.kernels.iter().filter(|k| facts.plan.share_memory(me.index, k.index));
    let reaches = seen.filter_map(|k| match &facts.far {
        Some(far) if !near(k) => far.reach(k),
        _ => Some(Reach {
            index: k.index,
            memory: k.memory.iter().map(|r| PhysRange::new(r.start, r.size)).collect(),
            bell: CpuRef::new(k.boot_cpu()?.hardware).ok().map(|cpu| Arc::new(cpu) as Arc<dyn Ring>),
            executable: true,
        }),
    });
    let reaches: Vec<Reach> = reaches.collect();
    let windows = HalWindows::new(me.index, reaches.clone()).ok_or("the porch cannot be reached")?;
    let wire_me = wire::KernelId::new(me.index, me.incarnation);
    let shm = Shm::new(wire_me, windows).ok_or("there is no porch")?;
    let board = Arc::new_cyclic(|weak| Board {
        kernel: kernel.clone(),
        hello: Hello {
            isa: hal::cpu::ELF_MACHINE,
            cpus: facts.info.n_cpus as u16,
            memory: facts.info.owned().iter().map(|r| r.len).sum(),
            plan: hash(facts.text),
            epoch: 0,
        },
        cpus: facts.plan.on_board(board).map(|k| (k.index, k.cpus.iter().map(|c| c.hardware).collect())).collect(),
        boards: facts.plan.kernels.iter().filter(|k| !near(k)).map(|k| (k.index, k.board)).collect(),
        far: facts.far.clone(),
        alarm: SpinLock::new(rank::LINK, None),
        soonest: AtomicU64::new(u64::MAX),
        peers: Once::new(),
        memory: Once::new(),
        resources: Once::new(),
        hardware: Once::new(),
        me: weak.clone(),
    });
    // The best first.
    let mut carriers: Vec<Arc<dyn Carrier>> = alloc::vec![Arc::new(shm)];
    if let Some(card) = &facts.card {
        carriers.push(Arc::new(Ether::new(wire_me, hash(facts.text) as u32, card.clone(), board.clone())));
    }
    let ms = |n: u32| u64::from(n) * 1_000_000;
    let plan = &facts.plan.membership;
    let config =
        Config { probe_gap: ms(plan.probe_ms), probes: plan.probes, silence: ms(plan.dead_after_ms), ..Config::new() };
    let boards = facts.plan.kernels.iter().map(|k| k.board).filter(|_| facts.plan.is_apart()).collect();
    let peers = MembershipService::new(me, facts.plan.kernels.len() as u16, carriers, board.clone(), config, boards);
    // Made a moment ago: nobody else has set it.
    let _ = board.peers.set(Arc::downgrade(&peers));
    let Served { files, processes, memory, resources, names, tasks, orders, life, hands } =
        serve(facts, kernel, &peers, reaches.clone(), &board, extras)?;
    let _ = board.memory.set(Arc::downgrade(&memory));
    if !publish(&peers) {
        return Err(String::from("it has begun already"));
    }
    if facts.starter.is_none() {
        peers.found();
    }
    let starter = facts.starter;
    Ok(Cluster { peers, files, processes, resources, life, names, tasks, orders, board, hands, reaches, starter })
}
