//! For tests that run in the kernel: touches what no kernel code touches, so that it can be seen what comes of it. Every function here ends this
//! kernel if the protection that it tries works.

use core::arch::asm;
use core::sync::atomic::Ordering;

use hal_api::FaultKind;

use crate::cpu::register;
use crate::{cpu, entry, paging};

/// A program that returns at once: `ret`.
pub const RETURN: &[u8] = &[0xc0, 0x03, 0x5f, 0xd6];
/// A system call; a store of the stack pointer to 0x50_0000; an undefined instruction:
/// `svc #0`, `movz x1, #0x50, lsl #16`, `mov x2, sp`, `str x2, [x1]`, `udf #0`.
pub const FAULTS: &[u8] =
    &[0x01, 0, 0, 0xd4, 0x01, 0x0a, 0xa0, 0xd2, 0xe2, 0x03, 0, 0x91, 0x22, 0, 0, 0xf9, 0, 0, 0, 0];
/// Where in it the last one is.
pub const UNDEFINED_AT: u64 = 16;
/// Asks where the exception vectors are (`mrs x0, vbar_el1`), and what comes of it.
pub const SECRET: (&[u8], FaultKind) = (&[0x00, 0xc0, 0x38, 0xd5], FaultKind::Illegal);

/// Reads a byte.
pub fn read(at: u64) -> u8 {
    let value: u32;
    // SAFETY: a load without effect on Rust's memory; an address that is not mapped ends this kernel, which is what is tried.
    unsafe { asm!("ldrb {:w}, [{}]", out(reg) value, in(reg) at, options(nostack, readonly, preserves_flags)) };
    value as u8
}

/// Writes the byte that is there already.
pub fn write(at: u64) {
    let value = u32::from(read(at));
    // SAFETY: if the store goes through it changes nothing.
    unsafe { asm!("strb {:w}, [{}]", in(reg) value, in(reg) at, options(nostack, preserves_flags)) };
}

/// Calls the instruction there, which must be a return.
pub fn call(at: u64) {
    // SAFETY: the caller has put a `ret` there; if it cannot be executed this kernel ends.
    unsafe { asm!("blr {}", in(reg) at, clobber_abi("C")) };
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
    let pan: u64;
    if cpu::PAN.load(Ordering::Relaxed) {
        // SAFETY: reads the PAN bit; the CPU has it.
        unsafe { asm!("mrs {}, s3_0_c4_c2_3", out(reg) pan, options(nomem, nostack, preserves_flags)) };
        if pan & 1 << 22 == 0 {
            return Some("PAN");
        }
    }
    (register!("sctlr_el1") & 1 << 23 != 0).then_some("PAN on entry")
}
