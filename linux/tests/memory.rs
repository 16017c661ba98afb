//! Memory calls as programs make them, on a simulated machine: through the real system-call entry, page faults and signals.

use std::sync::{Arc, Mutex};

use base::{KernelId, id::ObjectIds};
use hal::{
    host::{KernelConfig, Machine, MachineConfig, UserCpu},
    usermode::UserContext,
};
use linux::Linux;
use linux_abi::Isa;
use mm::Memory;
use task::{Facts, Hooks, Kernel, Pid, kernel::Power};

const PAGE: u64 = 4096;
const RW: u64 = 3;
const PRIVATE: u64 = 0x22;
const SHARED: u64 = 0x21;
const NONE: u64 = u64::MAX;

mod nr {
    pub const MMAP: u64 = 9;
    pub const MPROTECT: u64 = 10;
    pub const MUNMAP: u64 = 11;
    pub const MREMAP: u64 = 25;
    pub const MINCORE: u64 = 27;
    pub const MADVISE: u64 = 28;
    pub const SHMGET: u64 = 29;
    pub const SHMAT: u64 = 30;
    pub const SHMCTL: u64 = 31;
    pub const GETPID: u64 = 39;
    pub const FORK: u64 = 57;
    pub const WAIT4: u64 = 61;
    pub const UNAME: u64 = 63;
    pub const SHMDT: u64 = 67;
    pub const REBOOT: u64 = 169;
    pub const PROCESS_VM_READV: u64 = 310;
    pub const MEMBARRIER: u64 = 324;
}

struct Off;

impl Hooks for Off {
    fn power(&self, _: Power) {
        hal::cpu::power_off(true);
    }
}

/// Runs `program` as process 1 of a machine with one kernel of `cpus` CPUs; it must get to its end.
fn run(cpus: usize, program: impl Fn(&mut UserCpu) + Send + Sync + 'static) {
    let config = MachineConfig { kernels: vec![KernelConfig { cpus, memory: 24 << 20 }], ..MachineConfig::default() };
    let machine = Machine::simulated(&config);
    let info = machine.boot_info(0);
    let done = Arc::new(Mutex::new(false));
    let at_end = done.clone();
    let at = machine.program(Arc::new(move |cpu: &mut UserCpu| {
        program(cpu);
        *at_end.lock().unwrap() = true;
        cpu.syscall(nr::REBOOT, [0xfee1_dead, 672_274_793, 0x4321_fedc, 0, 0, 0]);
        0
    }));
    machine.simulate(3_000_000, move |_| {
        hal::boot::init(info).unwrap();
        let id = KernelId { index: 0, incarnation: 1 };
        let ids = Arc::new(ObjectIds::new(id));
        let facts = Facts { id, isa: Isa::X86_64, name: "test".into(), kernels: 1, version: "#1".into() };
        let kernel = Kernel::new(facts, Memory::new(ids.clone()).unwrap(), ids, &Linux);
        kernel.set_hooks(Box::new(Off));
        hal::boot::install(kernel.handlers());
        kernel.start_scripted(Pid::INIT, UserContext::new(at, hal::addr::UserAddr(0))).unwrap();
        kernel.run_cpu();
    });
    assert!(*done.lock().unwrap(), "the program did not get to its end:\n{}", machine.log(0));
}

fn map(cpu: &mut UserCpu, pages: u64, flags: u64) -> u64 {
    let at = cpu.syscall(nr::MMAP, [0, pages * PAGE, RW, flags, NONE, 0]);
    assert!(at > 0, "mmap: {at}");
    at as u64
}

fn byte(cpu: &mut UserCpu, at: u64) -> u8 {
    let mut buf = [0];
    cpu.load(at, &mut buf);
    buf[0]
}

/// Forks a child that runs `body`; its wait status.
fn child(cpu: &mut UserCpu, body: impl Fn(&mut UserCpu) -> i32 + Send + Sync + 'static) -> i32 {
    let pid = cpu.fork(nr::FORK, [0; 6], Arc::new(body));
    assert!(pid > 0, "fork: {pid}");
    let status = map(cpu, 1, PRIVATE);
    assert_eq!(cpu.syscall(nr::WAIT4, [pid as u64, status, 0, 0, 0, 0]), pid);
    let mut word = [0; 4];
    cpu.load(status, &mut word);
    cpu.syscall(nr::MUNMAP, [status, PAGE, 0, 0, 0, 0]);
    i32::from_le_bytes(word)
}

fn forks(cpus: usize) {
    run(cpus, |cpu| {
        let own = map(cpu, 4, PRIVATE);
        let shared = map(cpu, 4, SHARED);
        cpu.store(own, b"parent");
        cpu.store(shared, b"parent");
        let status = child(cpu, move |cpu| {
            assert_eq!(byte(cpu, own), b'p');
            cpu.store(own, b"child!");
            cpu.store(shared, b"child!");
            cpu.store(shared + 3 * PAGE, b"new");
            assert_eq!(byte(cpu, own), b'c');
            // A grandchild sees what the child wrote.
            child(cpu, move |cpu| i32::from(byte(cpu, own + 1))) >> 8
        });
        assert_eq!(status, i32::from(b'h') << 8);
        assert_eq!((byte(cpu, own), byte(cpu, shared), byte(cpu, shared + 3 * PAGE)), (b'p', b'c', b'n'));
    });
}

#[test]
fn fork_copies_on_write_and_shares_what_is_shared() {
    forks(1);
}

#[test]
fn fork_works_across_cpus() {
    forks(2);
}

#[test]
fn bad_accesses_are_signals_and_bad_pointers_are_efault() {
    run(1, |cpu| {
        let at = map(cpu, 3, PRIVATE);
        cpu.store(at, &[1; 3 * PAGE as usize]);
        assert_eq!(cpu.syscall(nr::MPROTECT, [at, PAGE, 1, 0, 0, 0]), 0);
        assert_eq!(cpu.syscall(nr::MPROTECT, [at + PAGE, PAGE, 0, 0, 0, 0]), 0);
        assert_eq!(cpu.syscall(nr::MUNMAP, [at + 2 * PAGE, PAGE, 0, 0, 0, 0]), 0);
        for page in 0..3 {
            let status = child(cpu, move |cpu| {
                cpu.store(at + page * PAGE, b"x");
                0
            });
            assert_eq!(status & 0x7f, 11, "page {page}");
            assert_eq!(cpu.syscall(nr::UNAME, [at + page * PAGE, 0, 0, 0, 0, 0]), -14);
        }
        assert_eq!(byte(cpu, at), 1);
        assert_eq!(cpu.syscall(nr::MPROTECT, [at, 3 * PAGE, RW, 0, 0, 0]), -12);
        assert_eq!(cpu.syscall(nr::MPROTECT, [at, 2 * PAGE, RW, 0, 0, 0]), 0);
        cpu.store(at, b"x");
        assert_eq!((byte(cpu, at), byte(cpu, at + PAGE)), (b'x', 1));
        // A result that crosses into a page that was never touched.
        let fresh = map(cpu, 2, PRIVATE);
        assert_eq!(cpu.syscall(nr::UNAME, [fresh + PAGE - 10, 0, 0, 0, 0, 0]), 0);
        assert_eq!(byte(cpu, fresh + PAGE - 10), b'L');
    });
}

#[test]
fn mappings_move_grow_and_forget() {
    run(1, |cpu| {
        let at = map(cpu, 2, PRIVATE);
        cpu.store(at + PAGE, b"second");
        // Something behind it, so that it must move.
        let behind = cpu.syscall(nr::MMAP, [at + 2 * PAGE, PAGE, RW, PRIVATE | 0x10_0000, NONE, 0]);
        assert!(behind == (at + 2 * PAGE) as i64 || behind == -17);
        assert_eq!(cpu.syscall(nr::MREMAP, [at, 2 * PAGE, 8 * PAGE, 0, 0, 0]), -12);
        let moved = cpu.syscall(nr::MREMAP, [at, 2 * PAGE, 8 * PAGE, 1, 0, 0]) as u64;
        assert_ne!(moved, at);
        assert_eq!((byte(cpu, moved), byte(cpu, moved + PAGE), byte(cpu, moved + 7 * PAGE)), (0, b's', 0));
        let vec = map(cpu, 1, PRIVATE);
        cpu.store(vec, &[7; 8]);
        assert_eq!(cpu.syscall(nr::MINCORE, [moved, 8 * PAGE, vec, 0, 0, 0]), 0);
        let mut there = [0; 8];
        cpu.load(vec, &mut there);
        assert_eq!(there, [1, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(cpu.syscall(nr::MADVISE, [moved, 8 * PAGE, 4, 0, 0, 0]), 0);
        assert_eq!(byte(cpu, moved + PAGE), 0);
        assert_eq!(cpu.syscall(nr::MADVISE, [moved, 8 * PAGE, 12345, 0, 0, 0]), -22);
        assert_eq!(cpu.syscall(nr::MUNMAP, [moved + 1, PAGE, 0, 0, 0, 0]), -22);
        assert_eq!(cpu.syscall(nr::MMAP, [0, 0, RW, PRIVATE, NONE, 0]), -22);
        assert_eq!(cpu.syscall(nr::MMAP, [0, PAGE, RW, 0x2, 99, 0]), -9);
        assert_eq!(cpu.syscall(nr::MEMBARRIER, [8, 0, 0, 0, 0, 0]), -1);
        assert_eq!(cpu.syscall(nr::MEMBARRIER, [16, 0, 0, 0, 0, 0]), 0);
        assert_eq!(cpu.syscall(nr::MEMBARRIER, [8, 0, 0, 0, 0, 0]), 0);
    });
}

#[test]
fn system_v_segments_and_the_memory_of_others() {
    run(1, |cpu| {
        let id = cpu.syscall(nr::SHMGET, [0x1234, 5000, 0o1600, 0, 0, 0]);
        assert!(id >= 0);
        assert_eq!(cpu.syscall(nr::SHMGET, [0x1234, 0, 0, 0, 0, 0]), id);
        assert_eq!(cpu.syscall(nr::SHMGET, [0x1234, 5000, 0o3600, 0, 0, 0]), -17);
        let at = cpu.syscall(nr::SHMAT, [id as u64, 0, 0, 0, 0, 0]) as u64;
        cpu.store(at + PAGE, b"hello");
        let status = child(cpu, move |cpu| {
            let other = cpu.syscall(nr::SHMAT, [id as u64, 0, 0o10000, 0, 0, 0]) as u64;
            let same = byte(cpu, other + PAGE) == b'h' && byte(cpu, at + PAGE) == b'h';
            cpu.store(at, b"child");
            i32::from(same && cpu.syscall(nr::SHMDT, [other, 0, 0, 0, 0, 0]) == 0)
        });
        assert_eq!(status, 1 << 8);
        assert_eq!(byte(cpu, at), b'c');
        assert_eq!(cpu.syscall(nr::SHMCTL, [id as u64, 0, 0, 0, 0, 0]), 0);
        assert_eq!(cpu.syscall(nr::SHMGET, [0x1234, 0, 0, 0, 0, 0]), -2);
        assert_eq!(byte(cpu, at), b'c');
        assert_eq!(cpu.syscall(nr::SHMDT, [at, 0, 0, 0, 0, 0]), 0);
        assert_eq!(cpu.syscall(nr::SHMDT, [at, 0, 0, 0, 0, 0]), -22);
        assert_eq!(cpu.syscall(nr::SHMCTL, [id as u64, 0, 0, 0, 0, 0]), -22);

        let page = map(cpu, 2, PRIVATE);
        cpu.store(page, b"from here");
        let mut vecs = Vec::new();
        for word in [page + PAGE, 9, page, 9] {
            vecs.extend(word.to_le_bytes());
        }
        cpu.store(page + 100, &vecs);
        let pid = cpu.syscall(nr::GETPID, [0; 6]) as u64;
        assert_eq!(cpu.syscall(nr::PROCESS_VM_READV, [pid, page + 100, 1, page + 116, 1, 0]), 9);
        let mut back = [0; 9];
        cpu.load(page + PAGE, &mut back);
        assert_eq!(&back, b"from here");
    });
}

#[test]
fn when_memory_runs_out_a_process_ends_and_the_others_go_on() {
    run(1, |cpu| {
        let own = map(cpu, 1, PRIVATE);
        cpu.store(own, b"mine");
        for _ in 0..2 {
            let status = child(cpu, |cpu| {
                for _ in 0..4 {
                    let at = map(cpu, 2048, PRIVATE);
                    for page in 0..2048 {
                        cpu.store(at + page * PAGE, b"x");
                    }
                }
                0
            });
            assert_eq!(status & 0x7f, 9);
        }
        assert_eq!(byte(cpu, own), b'm');
    });
}
