//! A whole kernel on the host with scripted programs: they go through the real system-call entry, and a seed decides who runs when.

use std::sync::{Arc, Mutex};

use base::{KernelId, id::ObjectIds};
use hal::{
    addr::UserAddr,
    host::{KernelConfig, Machine, MachineConfig, Outcome, Program, UserCpu, program_here},
    usermode::UserContext,
};
use linux::Linux;
use linux_abi::Isa;
use mm::{Label, MapRequest, Memory, Place, Prot, VmaFlags, What};
use task::{
    Hooks, Kernel, Pid,
    kernel::{Facts, Power},
};

/// System calls by their x86-64 numbers.
#[allow(dead_code)]
pub mod nr {
    pub const RT_SIGACTION: u64 = 13;
    pub const RT_SIGPROCMASK: u64 = 14;
    pub const SCHED_YIELD: u64 = 24;
    pub const PAUSE: u64 = 34;
    pub const NANOSLEEP: u64 = 35;
    pub const ALARM: u64 = 37;
    pub const GETPID: u64 = 39;
    pub const CLONE: u64 = 56;
    pub const FORK: u64 = 57;
    pub const VFORK: u64 = 58;
    pub const EXIT: u64 = 60;
    pub const WAIT4: u64 = 61;
    pub const KILL: u64 = 62;
    pub const SETPGID: u64 = 109;
    pub const GETPPID: u64 = 110;
    pub const SETSID: u64 = 112;
    pub const SETREUID: u64 = 113;
    pub const GETPGID: u64 = 121;
    pub const GETSID: u64 = 124;
    pub const RT_SIGTIMEDWAIT: u64 = 128;
    pub const RT_SIGQUEUEINFO: u64 = 129;
    pub const RT_SIGSUSPEND: u64 = 130;
    pub const PRCTL: u64 = 157;
    pub const GETTID: u64 = 186;
    pub const FUTEX: u64 = 202;
    pub const TIMER_CREATE: u64 = 222;
    pub const TIMER_SETTIME: u64 = 223;
    pub const CLOCK_GETTIME: u64 = 228;
    pub const EXIT_GROUP: u64 = 231;
    pub const TGKILL: u64 = 234;
    pub const MMAP: u64 = 9;
    pub const NOSUCH: u64 = 500;
}

/// The stack of every script: shared by nobody, inherited by children.
pub const STACK: u64 = 0x10_0000;
const STACK_LEN: u64 = 0x1_0000;
/// Memory that scripts may use as they like.
pub const DATA: u64 = 0x20_0000;
const DATA_LEN: u64 = 0x1_0000;

struct Off;

impl Hooks for Off {
    fn power(&self, what: Power) {
        hal::cpu::power_off(what != Power::Restart);
    }
}

static LINUX: Linux = Linux;

/// Programs share what they find out through this.
pub type Notes = Arc<Mutex<Vec<String>>>;

fn memory(process: &task::Process, at: u64, len: u64) {
    let request = MapRequest {
        place: Place::Fixed(at),
        len,
        prot: Prot::READ | Prot::WRITE,
        max: Prot::all(),
        flags: VmaFlags::empty(),
        what: What::Anonymous,
        label: Label::None,
    };
    process.space().unwrap().map(request).unwrap();
}

/// Runs `init` as pid 1 on a kernel of `cpus` CPUs; ends when it ends. What was noted.
pub fn run(seed: u64, cpus: usize, init: impl Fn(&mut UserCpu, &Notes) -> i32 + Send + Sync + 'static) -> Vec<String> {
    let config = MachineConfig {
        kernels: vec![KernelConfig { cpus, memory: 16 << 20 }],
        archive: Vec::new(),
        seed,
        ..MachineConfig::default()
    };
    let machine = Arc::new(Machine::simulated(&config));
    let info = machine.boot_info(0);
    let notes = Notes::default();
    let shared = notes.clone();
    let init: Arc<dyn Fn(&mut UserCpu, &Notes) -> i32 + Send + Sync> = Arc::new(init);
    static KERNELS: Mutex<Vec<(u64, Arc<Kernel>)>> = Mutex::new(Vec::new());
    let outcome = machine.simulate(5_000_000, move |_| {
        hal::boot::init(info).unwrap();
        let id = KernelId { index: 0, incarnation: 1 };
        let ids = Arc::new(ObjectIds::new(id));
        let memory_of = Memory::new(ids.clone()).unwrap();
        let facts = Facts { id, isa: Isa::X86_64, name: "lab".into(), kernels: 1, version: "#1".into() };
        let kernel = Kernel::new(facts, memory_of, ids, &LINUX);
        kernel.set_hooks(Box::new(Off));
        assert!(hal::boot::install(kernel.handlers()));
        let (init, notes) = (init.clone(), shared.clone());
        let program: Program = Arc::new(move |cpu: &mut UserCpu| init(cpu, &notes));
        let regs = UserContext::new(program_here(program), UserAddr(STACK + STACK_LEN));
        let process = kernel.start_scripted(Pid::INIT, regs).unwrap();
        memory(&process, STACK, STACK_LEN);
        memory(&process, DATA, DATA_LEN);
        drop(process);
        // CPUs that start later come with nothing but their number and their kernel's first.
        let me = std::ptr::from_ref(hal::boot::info()) as u64;
        KERNELS.lock().unwrap().push((me, kernel.clone()));
        for slot in 1..hal::cpu::count() {
            hal::cpu::start(slot, |_| {
                let me = std::ptr::from_ref(hal::boot::info()) as u64;
                let kernel = KERNELS.lock().unwrap().iter().find(|(k, _)| *k == me).map(|(_, k)| k.clone());
                kernel.unwrap().run_cpu()
            })
            .unwrap();
        }
        kernel.run_cpu()
    });
    assert_eq!(outcome, Outcome::PoweredOff(true), "seed {seed}: {:?}\n{}", notes.lock().unwrap(), machine.log(0));

    notes.lock().unwrap().clone()
}

/// What scripts do often.
#[allow(dead_code)]
pub trait Calls {
    fn call(&mut self, nr: u64, args: &[u64]) -> i64;
    fn fork_with(&mut self, child: impl Fn(&mut UserCpu) -> i32 + Send + Sync + 'static) -> i64;
    fn wait(&mut self, pid: i64, options: u64) -> (i64, i32);
    fn handle(&mut self, signal: u64, flags: u64, f: impl Fn(&mut UserCpu) -> i32 + Send + Sync + 'static);
    fn sleep(&mut self, ns: u64) -> i64;
    fn word(&mut self, at: u64) -> u32;
    fn now(&mut self) -> u64;
}

impl Calls for UserCpu {
    fn call(&mut self, nr: u64, args: &[u64]) -> i64 {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        self.syscall(nr, all)
    }

    fn fork_with(&mut self, child: impl Fn(&mut UserCpu) -> i32 + Send + Sync + 'static) -> i64 {
        self.fork(nr::FORK, [0; 6], Arc::new(child))
    }

    fn wait(&mut self, pid: i64, options: u64) -> (i64, i32) {
        let r = self.call(nr::WAIT4, &[pid as u64, DATA + 0x800, options, 0]);
        (r, self.word(DATA + 0x800) as i32)
    }

    fn handle(&mut self, signal: u64, flags: u64, f: impl Fn(&mut UserCpu) -> i32 + Send + Sync + 'static) {
        let at = self.function(Arc::new(f));
        let action = [at, flags | 0x0400_0000, 0x1000, 0_u64];
        let bytes: Vec<u8> = action.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.store(DATA + 0x900, &bytes);
        assert_eq!(self.call(nr::RT_SIGACTION, &[signal, DATA + 0x900, 0, 8]), 0);
    }

    fn sleep(&mut self, ns: u64) -> i64 {
        let mut bytes = (ns / 1_000_000_000).to_le_bytes().to_vec();
        bytes.extend_from_slice(&(ns % 1_000_000_000).to_le_bytes());
        self.store(DATA + 0xa00, &bytes);
        self.call(nr::NANOSLEEP, &[DATA + 0xa00, 0])
    }

    fn word(&mut self, at: u64) -> u32 {
        let mut b = [0; 4];
        self.load(at, &mut b);
        u32::from_le_bytes(b)
    }

    fn now(&mut self) -> u64 {
        assert_eq!(self.call(nr::CLOCK_GETTIME, &[1, DATA + 0xb00]), 0);
        let mut b = [0; 16];
        self.load(DATA + 0xb00, &mut b);
        let half = |i: usize| u64::from_le_bytes(b[i..i + 8].try_into().unwrap());
        half(0) * 1_000_000_000 + half(8)
    }
}
