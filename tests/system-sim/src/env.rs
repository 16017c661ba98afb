//! What the scripts of a run have in common, outside of the machine.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use hal::host::{Machine, UserCpu};

use crate::{
    calls::{Body, Cpu},
    machine::Board,
    rng::Rng,
};

/// A process that is on its way to another kernel: its name, its numbers, what it goes on with.
type Kept = (String, Rng, Body);

/// See the module.
pub struct Env {
    /// How many kernels the machine has.
    pub kernels: u16,
    cpus: Vec<usize>,
    /// Files of different runs of a script have different names.
    serial: AtomicU64,
    kept: Mutex<Vec<Kept>>,
    machine: Weak<Machine>,
    board: Arc<Board>,
}

impl Env {
    /// Of a machine that has not started.
    pub fn new(machine: &Arc<Machine>, board: &Arc<Board>, cpus: &[usize]) -> Arc<Self> {
        Arc::new(Self {
            kernels: cpus.len() as u16,
            cpus: cpus.to_vec(),
            serial: AtomicU64::new(1),
            kept: Mutex::default(),
            machine: Arc::downgrade(machine),
            board: board.clone(),
        })
    }

    /// How many CPUs a kernel has.
    pub fn cpus(&self, kernel: u16) -> usize {
        self.cpus.get(usize::from(kernel)).copied().unwrap_or(0)
    }

    /// A number that nobody else has.
    pub fn serial(&self) -> u64 {
        self.serial.fetch_add(1, SeqCst)
    }

    /// Keeps what a process goes on with; its number.
    pub fn keep(&self, name: String, rng: Rng, body: Body) -> usize {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push((name, rng, body));
        kept.len() - 1
    }

    /// The program `/bin/run`: goes on with what was kept under the number in its first argument.
    pub fn run(self: &Arc<Self>, user: &mut UserCpu) -> i32 {
        let mut cpu = Cpu::new(user, self.clone(), Rng::new(0), "run".into());
        let id = cpu.argument(1);
        let kept = |id: usize| self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let Some((name, rng, body)) = id.parse().ok().and_then(kept) else { panic!("/bin/run {id:?}") };
        let mut cpu = Cpu::new(user, self.clone(), rng, name);
        body(&mut cpu)
    }

    /// Whether a kernel died so far.
    pub fn has_trouble(&self) -> bool {
        (0..self.kernels).any(|k| self.has_died(k))
    }

    /// Whether a kernel died so far; it may have been started again.
    pub fn has_died(&self, kernel: u16) -> bool {
        let Some(machine) = self.machine.upgrade() else { return true };
        // A kernel that has not come up yet is not dead; one that was started again is, from its start on.
        let came_up = self.board.boots.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&kernel);
        machine.boot_info(kernel.into()).incarnation > 1 || came_up && !machine.runs(kernel.into())
    }

    /// The hardware.
    pub fn machine(&self) -> Option<Arc<Machine>> {
        self.machine.upgrade()
    }

    /// The kernels.
    pub const fn board(&self) -> &Arc<Board> {
        &self.board
    }
}
