//! Whole kernels on one simulated machine, put together as the image on bare metal puts one together.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU16, Ordering::SeqCst},
    },
};

use base::{KernelId, id::ObjectIds};
use cluster::{Cluster, Peers};
use hal::{
    boot::PhysRange,
    cpuref::{BootLoan, BootToken, CpuRef},
    host::{KernelConfig, Machine, MachineConfig},
};
use linux_abi::Isa;
use membership::Outcome as Fate;
use mm::Memory;
use plan::{Boot, Cpu, Kernel as KernelPlan, Membership, Plan, Range};
use task::{Facts, Hooks, Kernel, exec::Strings, kernel::Power};

/// An interrupt line that stands for somebody who says `kctl boot`, plus the kernel.
pub const BOOT: u32 = 100;
/// Porch and boot block: nothing of a former life may be seen there.
const HEAD: u64 = 17 * 4096;

static LINUX: linux::Linux = linux::Linux;

/// One kernel that came up.
#[derive(Clone)]
pub struct Whole {
    /// Itself.
    pub kernel: Arc<Kernel>,
    /// What it has with the others.
    pub cluster: Arc<Cluster>,
}

/// The kernels of a machine as somebody outside sees them.
#[derive(Default)]
pub struct Board {
    kernels: Mutex<BTreeMap<u16, Whole>>,
    /// Starts that have happened, by kernel.
    pub boots: Mutex<BTreeMap<u16, u32>>,
    /// The first processor of a kernel, for its others: they come with nothing but the address of what it was told at boot.
    up: AtomicU16,
}

impl Board {
    /// The last incarnation of a kernel that came up.
    pub fn kernel(&self, index: u16) -> Option<Whole> {
        self.kernels.lock().unwrap_or_else(PoisonError::into_inner).get(&index).cloned()
    }

    /// How many kernels came up so far, counting each start.
    pub fn ups(&self) -> u16 {
        self.up.load(SeqCst)
    }
}

thread_local! {
    /// Kernels by the address of what hal knows of them: for CPUs that start later.
    static HERE: RefCell<BTreeMap<usize, Arc<Kernel>>> = const { RefCell::new(BTreeMap::new()) };
}

fn here() -> usize {
    std::ptr::from_ref(hal::boot::info()).addr()
}

/// What this machine is like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// CPUs of each kernel.
    pub cpus: Vec<usize>,
    /// Memory of each, bytes.
    pub memory: u64,
}

impl Shape {
    /// As hal wants it.
    pub fn config(&self) -> Vec<KernelConfig> {
        self.cpus.iter().map(|&cpus| KernelConfig { cpus, memory: self.memory }).collect()
    }

    /// As the kernels are told.
    fn plan(&self, machine: &Machine) -> Plan {
        let kernels = (0..self.cpus.len()).map(|index| {
            let info = machine.boot_info(index);
            KernelPlan {
                index: index as u16,
                board: 0,
                isa: plan::Isa::X86_64,
                cpus: info.cpus().iter().map(|c| Cpu { global: c.global, hardware: c.hardware }).collect(),
                memory: info.owned().iter().map(|r| Range::new(r.start.0, r.len)).collect(),
                boot: if index == 0 { Boot::Firmware } else { Boot::Auto { by: 0 } },
                devices: Vec::new(),
                low_page: None,
                log_port: None,
            }
        });
        Plan {
            joined: plan::Joined::Memory,
            name: "simulated".into(),
            about: String::new(),
            boards: Vec::new(),
            kernels: kernels.collect(),
            links: Vec::new(),
            membership: Membership::default(),
            console: (0..self.cpus.len() as u16).collect(),
        }
    }
}

/// What a kernel asks of its machine.
struct Lent {
    plan: Arc<Plan>,
    peers: Arc<Mutex<Option<Arc<Peers>>>>,
}

impl Lent {
    fn peers(&self) -> Option<Arc<Peers>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Starts a kernel that is dead and of which all have let go, or that never ran.
    fn boot(&self, index: u16) {
        let Some(peers) = self.peers() else { return };
        let absent = peers.view().at(index).is_none_or(|id| peers.is_dead(id));
        if absent && peers.outcome(index) != Some(Fate::Lost) {
            start(&self.plan, index);
        }
    }
}

impl Hooks for Lent {
    fn power(&self, what: Power) {
        hal::cpu::power_off(what != Power::Restart);
    }

    fn doorbell(&self) {
        if let Some(peers) = self.peers() {
            peers.doorbell();
        }
    }

    fn irq(&self, line: u32) {
        if let Some(index) = line.checked_sub(BOOT) {
            self.boot(index as u16);
        }
    }
}

/// Cleans the head of a kernel's memory and starts its first CPU, as the boot path does with an image.
fn start(plan: &Plan, index: u16) {
    let token = BootToken::for_boot();
    let Some(kernel) = plan.kernel(index) else { return };
    let Some(range) = kernel.memory.first() else { return };
    let Some(cpu) = kernel.boot_cpu().and_then(|cpu| CpuRef::new(cpu.hardware).ok()) else { return };
    // Refused while it runs: then nothing of it is touched.
    let loan = BootLoan::new(&token, PhysRange::new(range.start, range.size));
    let cleaned = loan.is_ok_and(|loan| loan.zero(0, HEAD));
    assert!(cleaned, "the head of a kernel's memory is in it");
    if let Err(why) = cpu.start(&token, hal::addr::PhysAddr(0), range.start) {
        log::info!("kernel {index} is not started: {}", why.0);
    }
}

struct NoDevices;

impl cluster::tree::Devices for NoDevices {
    fn register(&self, _: &vfs::Vfs) {}
    fn nodes(&self) -> Vec<cluster::tree::Node> {
        Vec::new()
    }
}

/// A machine whose kernels boot each other, and what can be seen of it.
pub struct Simulated {
    /// The hardware.
    pub machine: Arc<Machine>,
    /// The kernels.
    pub board: Arc<Board>,
}

impl Simulated {
    /// A machine that is off.
    pub fn new(config: &MachineConfig) -> Self {
        hal::console::start_log(log::LevelFilter::Debug);
        let machine = Arc::new(Machine::simulated(config));
        for index in 1..config.kernels.len() {
            machine.hold(index);
        }
        Self { machine, board: Arc::default() }
    }

    /// Runs it for so many turns at most; `init` is the first program.
    pub fn run(&self, shape: &Shape, turns: u64, init: &'static str) -> hal::host::Outcome {
        let plan = Arc::new(shape.plan(&self.machine));
        let (here, board) = (Arc::downgrade(&self.machine), self.board.clone());
        let dying = self.board.clone();
        self.machine.last_words(move |index| {
            if let Some(whole) = dying.kernel(index as u16) {
                whole.cluster.peers.dying("ordered by the seed", hal::time::now());
            }
        });
        let outcome = self.machine.simulate(turns, move |index| boot(&here, &board, &plan, index as u16, init));
        HERE.with(|h| h.borrow_mut().clear());
        outcome
    }
}

/// The life of a kernel on its first CPU.
fn boot(machine: &Weak<Machine>, board: &Arc<Board>, plan: &Arc<Plan>, index: u16, init: &str) {
    let Some((info, starter)) = machine.upgrade().map(|m| (m.boot_info(index.into()), m.starter(index.into()))) else {
        return;
    };
    if let Err(why) = hal::boot::init(info) {
        panic!("{why}");
    }
    let id = KernelId { index, incarnation: info.incarnation };
    let ids = Arc::new(ObjectIds::new(id));
    let Ok(memory) = Memory::new(ids.clone()) else { panic!("no memory") };
    let facts = Facts {
        id,
        isa: Isa::X86_64,
        name: plan.name.clone(),
        kernels: plan.kernels.len() as u16,
        version: "#1 SMP".into(),
    };
    let kernel = Kernel::new(facts, memory, ids, &LINUX);
    let peers = Arc::new(Mutex::new(None));
    kernel.set_hooks(Box::new(Lent { plan: plan.clone(), peers: peers.clone() }));
    assert!(hal::boot::install(kernel.handlers()), "a kernel has one set of handlers");
    let text = format!("{plan:?}");
    let about =
        cluster::Facts { plan, text: &text, info: &info, starter: starter.map(|s| s as u16), far: None, card: None };
    let joined = cluster::join(&about, &kernel, Vec::new(), |made| {
        peers.lock().unwrap_or_else(PoisonError::into_inner).replace(made.clone()).is_none()
    });
    let cluster = match joined {
        Ok(cluster) => Arc::new(cluster),
        Err(why) => panic!("{why}"),
    };
    let archive = hal::window::archive().unwrap_or_default();
    let processes = cluster.processes.clone();
    let own = match cluster::tree::make(&kernel, Some(processes), archive, &NoDevices, "") {
        Ok(own) => own,
        Err(why) => panic!("the file tree: {why:?}"),
    };
    cluster.share(&kernel, own);
    cluster.enter();
    // They ask for the tree.
    if index == 0 && info.incarnation == 1 {
        for other in plan.starts(0) {
            start(plan, other.index);
        }
    }
    let whole = Whole { kernel: kernel.clone(), cluster };
    board.kernels.lock().unwrap_or_else(PoisonError::into_inner).insert(index, whole);
    *board.boots.lock().unwrap_or_else(PoisonError::into_inner).entry(index).or_default() += 1;
    board.up.fetch_add(1, SeqCst);
    if index == 0 && info.incarnation == 1 {
        let (mut argv, envp) = (Strings::new(), Strings::new());
        let started = argv.push(init.as_bytes()).and_then(|()| kernel.start_init(init.as_bytes(), argv, envp, None));
        if let Err(why) = started {
            panic!("process 1: {why:?}");
        }
    }
    HERE.with(|h| h.borrow_mut().insert(here(), kernel.clone()));
    for slot in 1..hal::cpu::count() {
        let started = hal::cpu::start(slot, |_| {
            let kernel = HERE.with(|h| h.borrow().get(&here()).cloned());
            match kernel {
                Some(kernel) => kernel.run_cpu(),
                None => panic!("a CPU was started before its kernel"),
            }
        });
        assert!(started.is_ok(), "CPUs of the plan can be started");
    }
    kernel.run_cpu()
}
