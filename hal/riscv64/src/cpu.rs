//! CPU features: what there is, what is switched on.

use core::arch::asm;

use crate::board;

macro_rules! register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reads a register that every hart has.
        unsafe { core::arch::asm!(concat!("csrr {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }};
}
pub(crate) use register;

/// In `sie`: what a peer that fences this kernel sends; always open. The timer and devices are open only while programs run and where the
/// kernel lets them in.
pub const URGENT: u64 = 1 << 1;
/// In `sie`: everything.
pub const ALL: u64 = URGENT | 1 << 5 | 1 << 9;
/// In `sstatus`: interrupts will be taken after `sret`.
pub const SPIE: u64 = 1 << 5;
/// In `sstatus`: the kernel may touch memory of programs.
pub const SUM: u64 = 1 << 18;
/// In `sstatus`: what can only be executed can be read.
pub const MXR: u64 = 1 << 19;
/// In `sstatus`: floating point may be used, and its state has changed.
pub const FS: u64 = 3 << 13;

/// Switches on everything that a kernel wants on this CPU: no access to user memory by mistake, no floating point in the kernel, counters for programs.
pub fn enable() {
    // SAFETY: see above. The only counter is the clock.
    unsafe {
        asm!("csrc sstatus, {}", "csrw scounteren, {}", in(reg) SUM | MXR | FS, in(reg) 1u64 << 1,
            options(nostack, preserves_flags));
    }
}

/// Lets urgent interrupts in, for good: a peer that fences this kernel sends one.
pub fn listen() {
    // SAFETY: the handler never returns. What was meant for a former life is gone.
    unsafe { asm!("csrc sip, {0}", "csrw sie, {0}", "csrsi sstatus, 2", in(reg) URGENT, options(nostack)) };
}

/// 64 bits from the jitter of the counter, folded: the seed register (Zkr) is the firmware's.
pub fn entropy() -> u64 {
    let mut pool = crate::clock::ticks();
    for i in 0..256u32 {
        // Each turn takes a time that depends on caches, interrupts of the host and the emulator's state.
        for _ in 0..(pool >> 7 & 31) + 1 {
            core::hint::black_box(&mut pool);
        }
        pool = (pool ^ register!("cycle")).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(i % 63 + 1);
    }
    pool
}

/// `AT_HWCAP`: a bit per letter of the ISA (uapi/asm/hwcap.h).
pub fn hwcap() -> u64 {
    board::found().features & 0xffff_ffff
}

/// The lines of `/proc/cpuinfo`.
pub fn describe(out: &mut dyn core::fmt::Write) -> core::fmt::Result {
    out.write_str("isa\t\t: ")?;
    board::isa(out)?;
    writeln!(out, "\nmmu\t\t: {}", if crate::paging::levels() == 4 { "sv48" } else { "sv39" })
}
