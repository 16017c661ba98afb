//! Floating point of programs. The kernel runs with it switched off, so it keeps the program's values until another thread runs on the CPU.
//!
//! Whose state a CPU holds is known on both sides: the CPU names the thread's id ([`PerCpu::fpu_owner`](crate::percpu::PerCpu)), the
//! thread names the CPU. Only if both agree is the state "in the CPU". A thread that runs again where it ran last loads nothing.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::cpu::FS;
use crate::percpu;

/// f0 to f31.
pub const REGISTERS: usize = 32;
const NOWHERE: u32 = u32::MAX;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

global_asm!(
    r#"
    .option push
    .option arch, +d
    .text
    .balign 16
    .global save_floats, load_floats
save_floats:
    li a1, {fs}
    csrs sstatus, a1
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    fsd f\n, 8 * \n(a0)
    .endr
    frcsr a2
    sw a2, 256(a0)
    csrc sstatus, a1
    ret
load_floats:
    li a1, {fs}
    csrs sstatus, a1
    .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    fld f\n, 8 * \n(a0)
    .endr
    lw a2, 256(a0)
    fscsr a2
    csrc sstatus, a1
    ret
    .option pop
    "#,
    fs = const FS,
);

unsafe extern "C" {
    fn save_floats(to: *mut State);
    fn load_floats(from: *const State);
}

/// The registers as they lie in memory.
#[derive(Clone)]
#[repr(C)]
pub struct State {
    /// f0 to f31.
    pub registers: [u64; REGISTERS],
    /// fcsr.
    pub control: u32,
}

/// Everything of a thread that stays in the CPU while the kernel runs.
#[repr(C)]
pub struct Vector {
    state: State,
    id: u64,
    /// The slot of the CPU that loaded it last.
    cpu: u32,
    /// `state` is what the CPU holds: nothing ran since the last save.
    saved: bool,
}

impl Clone for Vector {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), id: NEXT_ID.fetch_add(1, Ordering::Relaxed), cpu: NOWHERE, saved: true }
    }
}

impl Vector {
    /// The initial state of a program.
    pub fn new() -> Self {
        let state = State { registers: [0; REGISTERS], control: 0 };
        Self { state, id: NEXT_ID.fetch_add(1, Ordering::Relaxed), cpu: NOWHERE, saved: true }
    }

    #[inline]
    fn here(&self) -> bool {
        let cpu = percpu::this();
        cpu.fpu_owner.load(Ordering::Relaxed) == self.id && self.cpu == cpu.slot() as u32
    }

    /// Brings the state into this CPU; `run` will change it there.
    #[inline]
    pub fn load(&mut self) {
        if !self.here() {
            self.load_slow();
        }
        self.saved = false;
    }

    #[cold]
    fn load_slow(&mut self) {
        let cpu = percpu::this();
        // SAFETY: these registers are programs' only, and any value is allowed in them.
        unsafe { load_floats(&raw const self.state) };
        self.cpu = cpu.slot() as u32;
        cpu.fpu_owner.store(self.id, Ordering::Relaxed);
    }

    /// Brings the state from this CPU into memory, if it is there and newer.
    pub fn save(&mut self) {
        if self.saved || !self.here() {
            return;
        }
        // SAFETY: the place is this thread's.
        unsafe { save_floats(&raw mut self.state) };
        self.saved = true;
    }

    /// The saved state. Call [`Vector::save`] first.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Takes a state from a program.
    pub fn set_state(&mut self, state: State) {
        self.state = state;
        self.saved = true;
        self.cpu = NOWHERE;
    }
}
