//! Machines: memory, clock and CPUs of several kernels as data.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use hal_api::{BootInfo, CpuDesc, PAGE_SIZE, PhysAddr, PhysRange, Upcalls};

use crate::chance::{Chance, Trace};
use crate::coroutine::{Coroutine, End, Gate, message, my_gate};
use crate::cpu::{Identity, current, set_current};
use crate::script::Program;

/// Where the memory of every simulated machine begins.
const MEMORY_AT: u64 = 0x1000_0000;
/// What one look at the clock costs, in ns, so that loops that wait for a time end.
const LOOK: u64 = 20;
/// What one turn of a simulated CPU costs, in ns.
const TURN: u64 = 500;

pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One kernel of a machine.
#[derive(Clone, Copy, Debug)]
pub struct KernelConfig {
    /// Its CPUs.
    pub cpus: usize,
    /// Its memory in bytes: whole pages, at least 64. The first 17 pages (porch and boot block) are not handed out as frames.
    pub memory: u64,
}

/// A machine to be made.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Its kernels, by index.
    pub kernels: Vec<KernelConfig>,
    /// The archive.
    pub archive: Vec<u8>,
    /// Decides everything that is not decided by the programs.
    pub seed: u64,
    /// Decisions, by their numbers, that are taken the calm way: nobody is interrupted, CPUs have their turns one after the other, doorbells ring
    /// at once.
    pub calm: Vec<Range<u64>>,
    /// What goes wrong, and how many turns after [`Machine::arm`].
    pub faults: Vec<(u64, Fault)>,
    /// Print what happens.
    pub trace: bool,
}

/// What goes wrong from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A kernel panics, wherever it is, and says so ([`Machine::last_words`]).
    Panic(usize),
    /// A kernel does nothing any more.
    Hang(usize),
    /// Somebody presses a button: an interrupt line of the first kernel that runs.
    Line(u32),
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self {
            kernels: vec![KernelConfig { cpus: 1, memory: 32 << 20 }],
            archive: Vec::new(),
            seed: 1,
            calm: Vec::new(),
            faults: Vec::new(),
            trace: false,
        }
    }
}

/// A machine. Dropping it ends its threads (those that no kernel object owns any more).
pub struct Machine(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    base: NonNull<u8>,
    layout: Layout,
    archive: PhysRange,
    pub kernels: Vec<KernelSim>,
    pub clock: AtomicU64,
    pub chance: Chance,
    pub trace: Trace,
    faults: Mutex<VecDeque<(u64, Fault)>>,
    turns: AtomicU64,
    /// From which turn on faults are counted.
    armed: AtomicU64,
    last_words: Mutex<Option<Main>>,
    /// Looked at from outside: no CPU runs, and none can get in.
    pub still: AtomicBool,
    /// Its memory was given back: nobody runs on it any more.
    freed: AtomicBool,
    pub driver: Option<Driver>,
    pub programs: Mutex<HashMap<u64, Program>>,
    gates: Mutex<Vec<Weak<Gate>>>,
    panic: Mutex<Option<String>>,
    /// Said by `power_off`.
    pub off: Mutex<Option<bool>>,
    next_stack: AtomicUsize,
}

// SAFETY: `base` is a plain allocation; what lies in it is accessed through raw pointers by hal, under its rules.
unsafe impl Send for Shared {}
// SAFETY: the same.
unsafe impl Sync for Shared {}

pub(crate) struct KernelSim {
    pub range: PhysRange,
    pub first_cpu: u32,
    pub instance: AtomicPtr<()>,
    pub up: OnceLock<&'static dyn Upcalls>,
    pub cpus: Vec<CpuSim>,
    pub log: Mutex<Vec<u8>>,
    pub stopped: AtomicBool,
    /// Not started at power-on.
    held: AtomicBool,
    /// Counts the starts, from 1.
    pub incarnation: AtomicU32,
    /// The kernel that started it; its own number if it was there at power-on.
    pub starter: AtomicUsize,
}

pub(crate) struct CpuSim {
    pub pending: AtomicU32,
    pub lines: Mutex<VecDeque<u32>>,
    pub deadline: AtomicU64,
    /// When a doorbell that was rung arrives.
    pub bell: AtomicU64,
    /// The active root table; 0 for none.
    pub root: AtomicU64,
}

/// How a simulation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A kernel switched the machine off: cleanly or as a failure.
    PoweredOff(bool),
    /// Every CPU waits and no timer is set: nothing will ever happen again.
    Quiet,
    /// The number of turns given was not enough.
    OutOfTurns,
}

impl Shared {
    /// Where physical memory lies in this process.
    pub fn at(&self, at: PhysAddr, len: usize) -> NonNull<u8> {
        let off = at.0.wrapping_sub(MEMORY_AT) as usize;
        assert!(off <= self.layout.size() && len <= self.layout.size() - off, "no memory at {at:?}");
        // SAFETY: inside the allocation.
        unsafe { self.base.add(off) }
    }

    pub fn now(&self) -> u64 {
        self.clock.fetch_add(LOOK, SeqCst)
    }

    pub fn new_stack(&self) -> usize {
        self.next_stack.fetch_add(1, SeqCst)
    }

    pub fn watch(&self, gate: &Arc<Gate>) {
        let mut gates = lock(&self.gates);
        gates.retain(|g| g.strong_count() > 0);
        gates.push(Arc::downgrade(gate));
    }

    /// A thread of the machine panicked: nobody who waits will get the baton.
    pub fn panicked(&self, why: &str) {
        lock(&self.panic).get_or_insert_with(|| why.to_owned());
        for gate in lock(&self.gates).drain(..).filter_map(|g| g.upgrade()) {
            gate.poison(why);
        }
        if let Some(d) = &self.driver {
            d.gate.open(None);
        }
    }

    /// The kernel that has a CPU, by hardware id.
    pub fn kernel_of(&self, hardware: u32) -> Option<usize> {
        let has = |k: &KernelSim| hardware.checked_sub(k.first_cpu).is_some_and(|s| (s as usize) < k.cpus.len());
        self.kernels.iter().position(has)
    }

    fn next_deadline(&self) -> Option<u64> {
        let all = self.kernels.iter().filter(|k| !k.stopped.load(SeqCst)).flat_map(|k| &k.cpus);
        all.map(|c| c.deadline.load(SeqCst).min(c.bell.load(SeqCst))).min().filter(|&d| d != u64::MAX)
    }

    /// An idle CPU of a machine that runs free: time passes.
    pub fn free_idle(&self, c: &Identity) {
        let deadline = c.cpu().deadline.load(SeqCst);
        if deadline != u64::MAX {
            self.clock.fetch_max(deadline, SeqCst);
        } else if self.kernels.iter().map(|k| k.cpus.len()).sum::<usize>() == 1 {
            panic!("the only CPU idles without a deadline: nothing will ever happen");
        } else {
            std::thread::yield_now();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if *self.freed.get_mut() {
            return;
        }
        // SAFETY: allocated with this layout in `Machine::build`; whoever could reach it holds an `Arc` of us.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

impl Machine {
    /// A machine whose CPUs are played by the threads that [`Machine::enter`] it.
    pub fn new(config: &MachineConfig) -> Self {
        Self::build(config, None)
    }

    /// A machine to be run by [`Machine::simulate`].
    pub fn simulated(config: &MachineConfig) -> Self {
        let cpus = config.kernels.iter().map(|k| k.cpus).sum();
        Self::build(config, Some(Driver::new(cpus)))
    }

    fn build(config: &MachineConfig, driver: Option<Driver>) -> Self {
        let mut at = MEMORY_AT;
        let mut first_cpu = 0;
        let mut kernels = Vec::new();
        for k in &config.kernels {
            assert!(
                k.memory.is_multiple_of(PAGE_SIZE as u64) && k.memory >= 64 * PAGE_SIZE as u64,
                "too little memory"
            );
            kernels.push(KernelSim {
                range: PhysRange::new(at, k.memory),
                first_cpu,
                instance: AtomicPtr::new(std::ptr::null_mut()),
                up: OnceLock::new(),
                cpus: (0..k.cpus)
                    .map(|_| CpuSim {
                        pending: AtomicU32::new(0),
                        lines: Mutex::new(VecDeque::new()),
                        deadline: AtomicU64::new(u64::MAX),
                        bell: AtomicU64::new(u64::MAX),
                        root: AtomicU64::new(0),
                    })
                    .collect(),
                log: Mutex::new(Vec::new()),
                stopped: AtomicBool::new(false),
                held: AtomicBool::new(false),
                incarnation: AtomicU32::new(1),
                starter: AtomicUsize::new(kernels.len()),
            });
            // A hole after each kernel, so that running over the end is noticed by the frame allocator's checks.
            at = (at + k.memory + (1 << 20)).next_multiple_of(2 << 20);
            first_cpu += k.cpus as u32;
        }
        let archive = PhysRange::new(at, config.archive.len() as u64);
        let size = (archive.end().page_up().0 - MEMORY_AT) as usize;
        let layout = match Layout::from_size_align(size.max(PAGE_SIZE), PAGE_SIZE) {
            Ok(l) => l,
            Err(e) => panic!("{e}"),
        };
        // SAFETY: the layout is not empty.
        let Some(base) = NonNull::new(unsafe { alloc_zeroed(layout) }) else { panic!("no memory for a machine") };
        let mut faults = config.faults.clone();
        faults.sort_by_key(|&(turn, _)| turn);
        let shared = Shared {
            base,
            layout,
            archive,
            kernels,
            clock: AtomicU64::new(1_000_000),
            chance: Chance::new(config.seed, config.calm.clone()),
            trace: Trace::new(config.trace),
            faults: Mutex::new(faults.into()),
            turns: AtomicU64::new(0),
            armed: AtomicU64::new(u64::MAX),
            last_words: Mutex::new(None),
            still: AtomicBool::new(false),
            freed: AtomicBool::new(false),
            driver,
            programs: Mutex::new(HashMap::new()),
            gates: Mutex::new(Vec::new()),
            panic: Mutex::new(None),
            off: Mutex::new(None),
            next_stack: AtomicUsize::new(1),
        };
        // SAFETY: the archive's place is inside the allocation and nobody uses it yet.
        unsafe {
            let to = shared.at(archive.start, config.archive.len());
            to.as_ptr().copy_from_nonoverlapping(config.archive.as_ptr(), config.archive.len());
        }
        Self(Arc::new(shared))
    }

    /// What kernel `index` is, for `hal::boot::init`.
    pub fn boot_info(&self, index: usize) -> BootInfo {
        let k = &self.0.kernels[index];
        let mut info = BootInfo::new(index as u16, k.incarnation.load(SeqCst));
        let porch = 17 * PAGE_SIZE as u64;
        info.owned[0] = k.range;
        info.n_owned = 1;
        info.free[0] = PhysRange::new(k.range.start.0 + porch, k.range.len - porch);
        info.n_free = 1;
        for slot in 0..k.cpus.len() {
            let id = k.first_cpu + slot as u32;
            info.cpus[slot] = CpuDesc { global: id, hardware: id };
        }
        info.n_cpus = k.cpus.len();
        info.archive = self.0.archive;
        info
    }

    fn strike(&self, fault: Fault) {
        let all = &self.0.kernels;
        let stop = |kernel: usize, what: &str| {
            let running = self.runs(kernel);
            if running {
                self.0.trace.line(self.now(), kernel, 0, format_args!("{what}"));
                all[kernel].stopped.store(true, SeqCst);
            }
            running
        };
        match fault {
            Fault::Panic(kernel) => {
                if stop(kernel, "panics")
                    && let Some(say) = lock(&self.0.last_words).clone()
                {
                    self.inspect(kernel, 0, || say(kernel));
                }
            }
            Fault::Hang(kernel) => {
                stop(kernel, "hangs");
            }
            Fault::Line(line) => {
                if let Some(first) = (0..all.len()).find(|&k| self.runs(k)) {
                    self.raise(first, 0, line);
                }
            }
        }
    }

    fn identity(&self, kernel: usize, slot: usize) -> Identity {
        assert!(slot < self.0.kernels[kernel].cpus.len(), "no such CPU");
        Identity { machine: self.0.clone(), kernel, slot }
    }

    /// Lets the calling thread play a CPU while `f` runs. Only for machines made by [`Machine::new`].
    pub fn enter<R>(&self, kernel: usize, slot: usize, f: impl FnOnce() -> R) -> R {
        struct Back(Option<Identity>);
        impl Drop for Back {
            fn drop(&mut self) {
                set_current(self.0.take());
            }
        }
        assert!(self.0.driver.is_none(), "a simulated machine runs by itself");
        let _back = Back(current());
        self.0.watch(&my_gate());
        set_current(Some(self.identity(kernel, slot)));
        f()
    }

    /// Registers a program and returns the address at which it "lies": a [`HostUser`](crate::HostUser) that starts there runs it.
    pub fn program(&self, program: Program) -> hal_api::UserAddr {
        hal_api::UserAddr(register(&self.0, program))
    }

    /// What kernel `index` has written to its log.
    pub fn log(&self, index: usize) -> String {
        String::from_utf8_lossy(&lock(&self.0.kernels[index].log)).into_owned()
    }

    /// The machine's time in ns.
    pub fn now(&self) -> u64 {
        self.0.clock.load(SeqCst)
    }

    /// Lets time pass.
    pub fn advance(&self, ns: u64) {
        self.0.clock.fetch_add(ns, SeqCst);
    }

    /// Raises an interrupt line on a CPU.
    pub fn raise(&self, kernel: usize, slot: usize, line: u32) {
        lock(&self.0.kernels[kernel].cpus[slot].lines).push_back(line);
    }

    /// What kernel `index` does with its last breath when it panics ([`Fault::Panic`]): on its first CPU, wherever that is. It may take no lock.
    pub fn last_words(&self, say: impl Fn(usize) + Send + Sync + 'static) {
        *lock(&self.0.last_words) = Some(Arc::new(say));
    }

    /// From now on the faults of the machine strike, after as many turns as each has.
    pub fn arm(&self) {
        self.0.armed.store(self.0.turns.load(SeqCst), SeqCst);
    }

    /// The kernel that started kernel `index`; none if it was there at power-on.
    pub fn starter(&self, index: usize) -> Option<usize> {
        Some(self.0.kernels[index].starter.load(SeqCst)).filter(|&starter| starter != index)
    }

    /// Whether kernel `index` runs.
    pub fn runs(&self, index: usize) -> bool {
        let kernel = &self.0.kernels[index];
        !kernel.stopped.load(SeqCst) && !kernel.held.load(SeqCst)
    }

    /// A number for all that happened: two runs with the same number were the same.
    pub fn trace(&self) -> u64 {
        self.0.trace.hash()
    }

    /// How many decisions the seed made.
    pub fn decisions(&self) -> u64 {
        self.0.chance.decided()
    }

    /// Looks at a kernel of a simulated machine that does not run now: `f` plays one of its CPUs, and nobody gets in.
    pub fn inspect<R>(&self, kernel: usize, slot: usize, f: impl FnOnce() -> R) -> R {
        let before = current();
        set_current(Some(self.identity(kernel, slot)));
        self.0.still.store(true, SeqCst);
        let result = catch_unwind(AssertUnwindSafe(f));
        self.0.still.store(false, SeqCst);
        set_current(before);
        match result {
            Ok(result) => result,
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }

    /// Leaves a kernel off at power-on: a peer starts it (`CpuRef::start`).
    pub fn hold(&self, kernel: usize) {
        self.0.kernels[kernel].held.store(true, SeqCst);
        self.0.kernels[kernel].incarnation.store(0, SeqCst);
    }

    /// Runs the machine: `main(kernel)` on slot 0 of each kernel that is not held, other CPUs and kernels as they are started. The seed
    /// decides which CPU goes on at every point where the running one lets go. The same seed gives the same run.
    ///
    /// # Panics
    /// If anything on the machine panics; the message has the seed's run to blame.
    pub fn simulate(&self, turns: u64, main: impl Fn(usize) + Send + Sync + 'static) -> Outcome {
        let Some(driver) = &self.0.driver else { panic!("made by Machine::new: enter it instead") };
        let main: Main = Arc::new(main);
        *lock(&driver.main) = Some(main.clone());
        for kernel in (0..self.0.kernels.len()).filter(|&k| !self.0.kernels[k].held.load(SeqCst)) {
            let main = main.clone();
            start_cpu(&self.identity(kernel, 0), Box::new(move || main(kernel)));
        }
        let outcome = driver.run(self, turns);
        if let Some(why) = lock(&self.0.panic).take() {
            panic!("{why}");
        }
        outcome
    }
}

/// Makes a CPU of a simulated machine ready to run `body`.
pub(crate) fn start_cpu(id: &Identity, body: Box<dyn FnOnce() + Send>) {
    let machine = Arc::downgrade(&id.machine);
    let (kernel, slot) = (id.kernel, id.slot);
    let co = Coroutine::new(
        &id.machine,
        End::Forgotten,
        Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(body));
            let Some(machine) = machine.upgrade() else { return };
            if let Err(payload) = result {
                if payload.is::<PoweredOff>() {
                } else {
                    let why = message(&*payload);
                    if why != "?" {
                        machine.panicked(&why);
                    } else {
                        std::panic::resume_unwind(payload);
                    }
                }
            }
            if let Some(d) = &machine.driver {
                d.ended(&machine, kernel, slot);
            }
        }),
    );
    if let Some(d) = &id.machine.driver {
        d.add(id, co);
    }
}

/// What a kernel does on its boot CPU.
type Main = Arc<dyn Fn(usize) + Send + Sync>;

/// Starts a kernel that is off or was fenced: a new incarnation on slot 0. What its old threads hold is lost, as on a real machine.
pub(crate) fn start_kernel(machine: &Arc<Shared>, kernel: usize, starter: usize) -> Result<(), &'static str> {
    let Some(driver) = &machine.driver else { return Err("kernels of a free machine are entered, not started") };
    let Some(main) = lock(&driver.main).clone() else { return Err("the machine does not run yet") };
    let k = &machine.kernels[kernel];
    if !k.held.swap(false, SeqCst) && !k.stopped.load(SeqCst) {
        return Err("that kernel runs");
    }
    k.instance.store(std::ptr::null_mut(), SeqCst);
    for cpu in &k.cpus {
        cpu.pending.store(0, SeqCst);
        cpu.deadline.store(u64::MAX, SeqCst);
        cpu.bell.store(u64::MAX, SeqCst);
        cpu.root.store(0, SeqCst);
        lock(&cpu.lines).clear();
    }
    for slot in 0..k.cpus.len() {
        lock(&driver.turns)[Driver::number(machine, kernel, slot)] = Turn::Absent;
    }
    k.incarnation.fetch_add(1, SeqCst);
    k.starter.store(starter, SeqCst);
    k.stopped.store(false, SeqCst);
    start_cpu(&Identity { machine: machine.clone(), kernel, slot: 0 }, Box::new(move || main(kernel)));
    Ok(())
}

/// What a CPU unwinds with when the machine is switched off.
pub(crate) struct PoweredOff;

pub(crate) fn register(machine: &Shared, program: Program) -> u64 {
    let mut programs = lock(&machine.programs);
    let at = 0x40_0000 + 16 * programs.len() as u64;
    programs.insert(at, program);
    at
}

/// Registers a program on the machine whose CPU the calling thread plays: see [`Machine::program`].
///
/// # Panics
/// If it plays none.
pub fn program_here(program: Program) -> hal_api::UserAddr {
    hal_api::UserAddr(crate::cpu::with(|c| register(&c.machine, program)))
}

enum Turn {
    /// Not started.
    Absent,
    /// Made, never run.
    New(Coroutine),
    /// Waits at a gate for its next turn.
    Ready(Arc<Gate>),
    /// Idles: its turn comes with an interrupt.
    Idle(Arc<Gate>),
    /// Has the baton.
    Running,
    /// Its main function returned or the machine was switched off.
    Ended,
}

/// Gives turns to the CPUs of a simulated machine.
pub(crate) struct Driver {
    gate: Arc<Gate>,
    turns: Mutex<Vec<Turn>>,
    mains: Mutex<Vec<Coroutine>>,
    main: Mutex<Option<Main>>,
}

impl Driver {
    fn new(cpus: usize) -> Self {
        Self {
            gate: Gate::new(),
            turns: Mutex::new((0..cpus).map(|_| Turn::Absent).collect()),
            mains: Mutex::new(Vec::new()),
            main: Mutex::new(None),
        }
    }

    fn number(machine: &Shared, kernel: usize, slot: usize) -> usize {
        machine.kernels[kernel].first_cpu as usize + slot
    }

    fn set(&self, c: &Identity, turn: Turn) {
        lock(&self.turns)[Self::number(&c.machine, c.kernel, c.slot)] = turn;
    }

    fn add(&self, c: &Identity, co: Coroutine) {
        self.set(c, Turn::New(co));
    }

    pub fn yielded(&self, c: &Identity, gate: Arc<Gate>) {
        self.set(c, Turn::Ready(gate));
        self.gate.open(None);
    }

    pub fn idles(&self, c: &Identity, gate: Arc<Gate>) {
        self.set(c, Turn::Idle(gate));
        self.gate.open(None);
    }

    pub fn ended(&self, machine: &Shared, kernel: usize, slot: usize) {
        lock(&self.turns)[Self::number(machine, kernel, slot)] = Turn::Ended;
        self.gate.open(None);
    }

    fn run(&self, machine: &Machine, mut left: u64) -> Outcome {
        let shared = &machine.0;
        let everyone: Vec<Identity> = (0..shared.kernels.len())
            .flat_map(|k| (0..shared.kernels[k].cpus.len()).map(move |s| (k, s)))
            .map(|(k, s)| machine.identity(k, s))
            .collect();
        let mut last = 0;
        loop {
            if lock(&shared.panic).is_some() {
                return Outcome::OutOfTurns;
            }
            if let Some(clean) = *lock(&shared.off) {
                return Outcome::PoweredOff(clean);
            }
            if left == 0 {
                return Outcome::OutOfTurns;
            }
            left -= 1;
            let turns = shared.turns.fetch_add(1, SeqCst).checked_sub(shared.armed.load(SeqCst));
            while lock(&shared.faults).front().is_some_and(|&(at, _)| turns.is_some_and(|turns| at <= turns)) {
                if let Some((_, fault)) = lock(&shared.faults).pop_front() {
                    machine.strike(fault);
                }
            }
            let now = shared.clock.fetch_add(TURN, SeqCst) + TURN;
            let ready: Vec<usize> = {
                let turns = lock(&self.turns);
                let may = |i: &usize| match &turns[*i] {
                    Turn::New(_) | Turn::Ready(_) => true,
                    Turn::Idle(_) => {
                        let cpu = everyone[*i].cpu();
                        cpu.pending.load(SeqCst) != 0
                            || cpu.deadline.load(SeqCst) <= now
                            || cpu.bell.load(SeqCst) <= now
                            || !lock(&cpu.lines).is_empty()
                    }
                    _ => false,
                };
                (0..turns.len()).filter(may).filter(|&i| !everyone[i].kernel().stopped.load(SeqCst)).collect()
            };
            if ready.is_empty() {
                match shared.next_deadline() {
                    Some(at) => {
                        shared.clock.fetch_max(at, SeqCst);
                        continue;
                    }
                    None => return Outcome::Quiet,
                }
            }
            let i = shared.chance.turn(&ready, last);
            last = i;
            shared.trace.number(i as u64);
            let turn = std::mem::replace(&mut lock(&self.turns)[i], Turn::Running);
            let id = Some(everyone[i].clone());
            match turn {
                Turn::New(mut co) => {
                    co.resume(id);
                    lock(&self.mains).push(co);
                }
                Turn::Ready(gate) | Turn::Idle(gate) => gate.open(id),
                other => lock(&self.turns)[i] = other,
            }
            self.gate.wait();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(d) = &self.0.driver {
            // What was suspended is forgotten where it is, as when the power goes.
            for gate in lock(&self.0.gates).drain(..).filter_map(|g| g.upgrade()) {
                crate::fiber::abandon(&gate);
            }
            lock(&d.mains).clear();
            lock(&d.turns).clear();
            *lock(&d.main) = None;
            *lock(&self.0.last_words) = None;
            lock(&self.0.programs).clear();
            if !self.0.freed.swap(true, SeqCst) {
                // SAFETY: allocated with this layout in `build`. No CPU of the machine runs again: the driver, which gives the turns, is gone with us.
                unsafe { dealloc(self.0.base.as_ptr(), self.0.layout) };
            }
        }
        lock(&self.0.programs).clear();
    }
}
