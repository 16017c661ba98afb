//! Several kernels' links in one process: memory on the heap, bells as flags.
#![allow(dead_code, reason = "each test file uses a part")]
use std::sync::{
    Arc, Mutex, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use link::{Carrier, Facts, Guilt, Hooks, Links, Shm, Windows, memory::HeapMemory, memory::Memory};
use wire::KernelId;

pub const MEMORY: usize = 1 << 20;
/// Where allocated memory begins.
const FIRST: u64 = 8192;

pub struct Kernel {
    pub memory: HeapMemory,
    next: AtomicU64,
    pub bell: AtomicBool,
    pub rung: AtomicU64,
}

impl Kernel {
    /// Bytes that were allocated.
    pub fn allocated(&self) -> u64 {
        self.next.load(Ordering::Relaxed) - FIRST
    }
}

/// The hardware of the machine.
pub struct Machine {
    pub kernels: Vec<Kernel>,
    pub clock: AtomicU64,
}

impl Machine {
    pub fn new(n: usize) -> Arc<Self> {
        let kernel = |_| Kernel {
            memory: HeapMemory::new(MEMORY),
            next: AtomicU64::new(FIRST),
            bell: AtomicBool::new(false),
            rung: AtomicU64::new(0),
        };
        Arc::new(Self { kernels: (0..n).map(kernel).collect(), clock: AtomicU64::new(1) })
    }
}

pub struct View {
    pub machine: Arc<Machine>,
    pub me: u16,
}

impl Windows for View {
    type M = HeapMemory;

    fn porch(&self, index: u16) -> Option<HeapMemory> {
        self.map(index, 0, link::porch::SIZE)
    }

    fn allocate(&self, len: usize) -> Option<(u64, HeapMemory)> {
        let len = len.next_multiple_of(64);
        let at = self.machine.kernels[usize::from(self.me)].next.fetch_add(len as u64, Ordering::Relaxed);
        let memory = self.map(self.me, at, len)?;
        memory.write(0, &vec![0; len]);
        Some((at, memory))
    }

    fn free(&self, _at: u64, _len: usize) {}

    fn map(&self, peer: u16, at: u64, len: usize) -> Option<HeapMemory> {
        self.machine.kernels.get(usize::from(peer))?.memory.part(usize::try_from(at).ok()?, len)
    }

    fn ring(&self, peer: u16) {
        let kernel = &self.machine.kernels[usize::from(peer)];
        kernel.rung.fetch_add(1, Ordering::Relaxed);
        kernel.bell.store(true, Ordering::SeqCst);
    }
}

pub struct TestHooks {
    machine: Arc<Machine>,
    pub plan: u64,
    pub dead: Mutex<Vec<KernelId>>,
    pub hellos: Mutex<Vec<(KernelId, Facts)>>,
    pub guilty: Mutex<Vec<(KernelId, Guilt)>>,
}

impl Hooks for TestHooks {
    fn now(&self) -> u64 {
        self.machine.clock.load(Ordering::Relaxed)
    }
    fn facts(&self) -> Facts {
        Facts { isa: 62, cpus: 1, memory: MEMORY as u64, plan: self.plan, epoch: 0 }
    }
    fn admit(&self, peer: KernelId) -> bool {
        !self.dead.lock().unwrap().contains(&peer)
    }
    fn hello(&self, peer: KernelId, facts: Facts) {
        self.hellos.lock().unwrap().push((peer, facts));
    }
    fn guilty(&self, peer: KernelId, guilt: Guilt) {
        self.guilty.lock().unwrap().push((peer, guilt));
    }
}

pub struct Node {
    pub id: KernelId,
    pub links: Links,
    pub hooks: Arc<TestHooks>,
    pub machine: Weak<Machine>,
}

pub fn boot(machine: &Arc<Machine>, id: KernelId, plan: u64) -> Node {
    boot_with(machine, id, plan, Arc::new(link::echo::EchoService))
}

/// A kernel with another service for the messages of tests.
pub fn boot_with(machine: &Arc<Machine>, id: KernelId, plan: u64, service: Arc<dyn link::Handler>) -> Node {
    let shm = Shm::new(id, View { machine: machine.clone(), me: id.index }).expect("has a porch");
    let hooks = Arc::new(TestHooks {
        machine: machine.clone(),
        plan,
        dead: Mutex::default(),
        hellos: Mutex::default(),
        guilty: Mutex::default(),
    });
    let carriers: Vec<Arc<dyn Carrier>> = vec![Arc::new(shm)];
    let links = Links::new(id, hooks.clone(), carriers);
    assert!(links.register("test", service));
    Node { id, links, hooks, machine: Arc::downgrade(machine) }
}

/// Runs the doorbell interrupts until no bell rings.
pub fn settle(machine: &Machine, nodes: &[&Node]) {
    loop {
        let mut rang = false;
        for node in nodes {
            if machine.kernels[usize::from(node.id.index)].bell.swap(false, Ordering::SeqCst) {
                rang = true;
                while node.links.receive(16) {}
            }
        }
        if !rang {
            return;
        }
    }
}
