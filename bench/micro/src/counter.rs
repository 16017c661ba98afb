//! What a CPU counts time with: an instruction of each ISA.

/// The CPU's counter of time, which programs may read under both kernels.
pub fn ticks() -> u64 {
    // SAFETY: every CPU of x86-64 has the counter.
    #[cfg(target_arch = "x86_64")]
    return unsafe { std::arch::x86_64::_rdtsc() };
    #[cfg(not(target_arch = "x86_64"))]
    {
        let ticks: u64;
        // SAFETY: reads a register.
        #[cfg(target_arch = "aarch64")]
        unsafe {
            std::arch::asm!("mrs {}, cntvct_el0", out(reg) ticks, options(nomem, nostack));
        }
        // SAFETY: as above.
        #[cfg(target_arch = "riscv64")]
        unsafe {
            std::arch::asm!("rdtime {}", out(reg) ticks, options(nomem, nostack));
        }
        ticks
    }
}
