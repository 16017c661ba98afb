//! For tests that run in the kernel: touches what no kernel code touches, so that it can be seen what comes of it. Every function here ends this
//! kernel if the protection that it tries works.

use core::arch::asm;

use hal_api::FaultKind;

use crate::cpu::{self, register};
use crate::{entry, paging};

/// A program that returns at once: `ret`.
pub const RETURN: &[u8] = &[0x67, 0x80, 0, 0];
/// A system call; a store of the stack pointer to 0x50_0000; an undefined instruction:
/// `ecall`, `lui t0, 0x500`, `sd sp, 0(t0)`, `unimp`.
pub const FAULTS: &[u8] = &[0x73, 0, 0, 0, 0xb7, 0x02, 0x50, 0, 0x23, 0xb0, 0x22, 0, 0, 0, 0, 0];
/// Where in it the last one is.
pub const UNDEFINED_AT: u64 = 12;
/// Asks where the traps go (`csrr a0, stvec`), and what comes of it.
pub const SECRET: (&[u8], FaultKind) = (&[0x73, 0x25, 0x50, 0x10], FaultKind::Illegal);

/// Reads a byte.
pub fn read(at: u64) -> u8 {
    let value: u64;
    // SAFETY: a load without effect on Rust's memory; an address that is not mapped ends this kernel, which is what is tried.
    unsafe { asm!("lbu {}, 0({})", out(reg) value, in(reg) at, options(nostack, readonly, preserves_flags)) };
    value as u8
}

/// Writes the byte that is there already.
pub fn write(at: u64) {
    let value = u64::from(read(at));
    // SAFETY: if the store goes through it changes nothing.
    unsafe { asm!("sb {}, 0({})", in(reg) value, in(reg) at, options(nostack, preserves_flags)) };
}

/// Calls the instruction there, which must be a return.
pub fn call(at: u64) {
    // SAFETY: the caller has put a `ret` there; if it cannot be executed this kernel ends.
    unsafe { asm!("jalr {}", in(reg) at, clobber_abi("C")) };
}

/// Calls itself until the stack is used up.
pub fn exhaust_stack() -> u64 {
    #[inline(never)]
    fn deep(n: u64) -> u64 {
        let room = core::hint::black_box([n; 64]);
        if n == u64::MAX { 0 } else { deep(n + 1) + core::hint::black_box(room)[3] }
    }
    deep(0)
}

/// An address of the kernel's code.
pub const fn code() -> u64 {
    entry::IMAGE
}

/// Where this kernel would see physical memory if it were its own.
pub const fn linear(phys: u64) -> u64 {
    paging::LINEAR + phys
}

/// Where this kernel would see a peer's memory if that were mapped.
pub const fn window(phys: u64) -> u64 {
    paging::WINDOW + phys
}

/// What is not switched on of what protects a kernel, although this CPU has it.
pub fn missing() -> Option<&'static str> {
    let status = register!("sstatus");
    let off =
        [(cpu::SUM, "user memory closed"), (cpu::MXR, "executable memory unreadable"), (cpu::FS, "floating point off")];
    off.into_iter().find(|(bits, _)| status & bits != 0).map(|(_, name)| name)
}
