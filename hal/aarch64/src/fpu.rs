//! Vector state and thread pointers of programs. The kernel itself is compiled without vector registers, so they keep the program's values until
//! another thread runs on the CPU.
//!
//! Whose state a CPU holds is known on both sides: the CPU names the thread's id ([`PerCpu::fpu_owner`](crate::percpu::PerCpu)), the
//! thread names the CPU. Only if both agree is the state "in the CPU". A thread that runs again where it ran last loads nothing.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use crate::percpu;

/// q0 to q31.
pub const AREA: usize = 512;
const NOWHERE: u32 = u32::MAX;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

global_asm!(
    r#"
    .arch_extension fp
    .arch_extension simd
    .text
    .balign 16
    .irp name, save_vectors, load_vectors
    .global \name
    .endr
save_vectors:
    stp q0, q1, [x0]
    stp q2, q3, [x0, #32]
    stp q4, q5, [x0, #64]
    stp q6, q7, [x0, #96]
    stp q8, q9, [x0, #128]
    stp q10, q11, [x0, #160]
    stp q12, q13, [x0, #192]
    stp q14, q15, [x0, #224]
    stp q16, q17, [x0, #256]
    stp q18, q19, [x0, #288]
    stp q20, q21, [x0, #320]
    stp q22, q23, [x0, #352]
    stp q24, q25, [x0, #384]
    stp q26, q27, [x0, #416]
    stp q28, q29, [x0, #448]
    stp q30, q31, [x0, #480]
    mrs x1, fpsr
    mrs x2, fpcr
    str w1, [x0, #512]
    str w2, [x0, #516]
    ret
load_vectors:
    ldp q0, q1, [x0]
    ldp q2, q3, [x0, #32]
    ldp q4, q5, [x0, #64]
    ldp q6, q7, [x0, #96]
    ldp q8, q9, [x0, #128]
    ldp q10, q11, [x0, #160]
    ldp q12, q13, [x0, #192]
    ldp q14, q15, [x0, #224]
    ldp q16, q17, [x0, #256]
    ldp q18, q19, [x0, #288]
    ldp q20, q21, [x0, #320]
    ldp q22, q23, [x0, #352]
    ldp q24, q25, [x0, #384]
    ldp q26, q27, [x0, #416]
    ldp q28, q29, [x0, #448]
    ldp q30, q31, [x0, #480]
    ldr w1, [x0, #512]
    ldr w2, [x0, #516]
    msr fpsr, x1
    msr fpcr, x2
    ret
    .arch_extension nosimd
    .arch_extension nofp
    "#
);

unsafe extern "C" {
    fn save_vectors(to: *mut State);
    fn load_vectors(from: *const State);
}

/// The registers as they lie in memory.
#[derive(Clone)]
#[repr(C, align(16))]
pub struct State {
    /// q0 to q31.
    pub registers: [u8; AREA],
    /// FPSR.
    pub status: u32,
    /// FPCR.
    pub control: u32,
}

/// Everything of a thread that stays in the CPU while the kernel runs.
#[repr(C)]
pub struct Vector {
    state: State,
    tls: u64,
    id: u64,
    /// The slot of the CPU that loaded it last.
    cpu: u32,
    /// `state` and thread pointer are what the CPU holds: nothing ran since the last save.
    saved: bool,
}

impl Clone for Vector {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            tls: self.tls(),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            cpu: NOWHERE,
            saved: true,
        }
    }
}

impl Vector {
    /// The initial state of a program.
    pub fn new() -> Self {
        let state = State { registers: [0; AREA], status: 0, control: 0 };
        Self { state, tls: 0, id: NEXT_ID.fetch_add(1, Ordering::Relaxed), cpu: NOWHERE, saved: true }
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
        unsafe {
            load_vectors(&raw const self.state);
            asm!("msr tpidr_el0, {}", in(reg) self.tls, options(nomem, nostack, preserves_flags));
        }
        self.cpu = cpu.slot() as u32;
        cpu.fpu_owner.store(self.id, Ordering::Relaxed);
    }

    /// Brings the state from this CPU into memory, if it is there and newer.
    pub fn save(&mut self) {
        if self.saved || !self.here() {
            return;
        }
        // SAFETY: the place is this thread's.
        unsafe { save_vectors(&raw mut self.state) };
        self.tls = self.tls();
        self.saved = true;
    }

    /// The program's thread pointer.
    pub fn tls(&self) -> u64 {
        if !self.saved && self.here() {
            let value: u64;
            // SAFETY: reads a register.
            unsafe { asm!("mrs {}, tpidr_el0", out(reg) value, options(nomem, nostack, preserves_flags)) };
            return value;
        }
        self.tls
    }

    /// Sets it.
    pub fn set_tls(&mut self, value: u64) {
        self.tls = value;
        if self.here() {
            // SAFETY: a register of programs.
            unsafe { asm!("msr tpidr_el0, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
        }
    }

    /// The saved state. Call [`Vector::save`] first.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Takes a state from a program.
    pub fn set_state(&mut self, state: State) {
        self.save();
        self.state = state;
        self.saved = true;
        self.cpu = NOWHERE;
    }
}
