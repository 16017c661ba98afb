//! For tests that run in the kernel: touches what no kernel code touches, so that it can be seen what comes of it. Every function here ends this
//! kernel if the protection that it tries works.

use core::arch::asm;

use hal_api::FaultKind;

use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};

use crate::{entry, paging};

/// A program that returns at once.
pub const RETURN: &[u8] = &[0xc3];
/// A system call; a store of the stack pointer to 0x50_0000; an undefined instruction.
pub const FAULTS: &[u8] = &[0x0f, 0x05, 0x48, 0x89, 0x24, 0x25, 0, 0, 0x50, 0, 0x0f, 0x0b];
/// Where in it the last one is.
pub const UNDEFINED_AT: u64 = 10;
/// Asks where the interrupt table is (`sidt [rsp]`), and what comes of it.
pub const SECRET: (&[u8], FaultKind) = (&[0x0f, 0x01, 0x0c, 0x24], FaultKind::Protection);

/// Reads a byte.
pub fn read(at: u64) -> u8 {
    let value: u8;
    // SAFETY: a load without effect on Rust's memory; an address that is not mapped ends this kernel, which is what is tried.
    unsafe { asm!("mov {}, [{}]", out(reg_byte) value, in(reg) at, options(nostack, readonly, preserves_flags)) };
    value
}

/// Writes the byte that is there already.
pub fn write(at: u64) {
    let value = read(at);
    // SAFETY: if the store goes through it changes nothing.
    unsafe { asm!("mov [{}], {}", in(reg) at, in(reg_byte) value, options(nostack, preserves_flags)) };
}

/// Calls the instruction there, which must be a return.
pub fn call(at: u64) {
    // SAFETY: the caller has put a `ret` there; if it cannot be executed this kernel ends.
    unsafe { asm!("call {}", in(reg) at, clobber_abi("C")) };
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
    let (cr0, cr4, efer) = (Cr0::read(), Cr4::read(), Efer::read());
    let seven = core::arch::x86_64::__cpuid_count(7, 0);
    let has = |register: u32, bit: u32| register & 1 << bit != 0;
    let wants = [
        ("write protection", true, cr0.contains(Cr0Flags::WRITE_PROTECT)),
        ("no-execute", true, efer.contains(EferFlags::NO_EXECUTE_ENABLE)),
        ("SMEP", has(seven.ebx, 7), cr4.contains(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION)),
        ("SMAP", has(seven.ebx, 20), cr4.contains(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION)),
        ("UMIP", has(seven.ecx, 2), cr4.contains(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION)),
    ];
    wants.into_iter().find(|(_, has, on)| *has && !on).map(|(name, ..)| name)
}
