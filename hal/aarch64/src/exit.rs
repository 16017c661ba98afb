//! Leaving the machine.

use crate::{console, psci};

/// Ends the whole machine: the emulator exits with `status`. Where no emulator listens, by PSCI.
pub fn exit(status: u64) -> ! {
    console::exit(status);
    psci::system_off();
    halt()
}

/// Resets the machine.
pub fn reset() -> ! {
    psci::system_reset();
    halt()
}

/// Stops this CPU for good: PSCI switches it off, so whoever fences it finds that done.
pub fn halt() -> ! {
    // SAFETY: this CPU's masks only.
    unsafe { core::arch::asm!("msr daifset, #0xf", options(nostack)) };
    psci::cpu_off();
    loop {
        // SAFETY: waits.
        unsafe { core::arch::asm!("wfi", options(nomem, nostack)) };
    }
}
