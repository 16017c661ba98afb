//! Leaving the machine.

use sbi_rt::{NoReason, Shutdown, WarmReboot};

use crate::console;

/// Ends the whole machine: the emulator exits with `status`. Where no emulator listens, by the firmware.
pub fn exit(status: u64) -> ! {
    console::exit(status);
    // Nothing is left to do where that is refused.
    let _ = sbi_rt::system_reset(Shutdown, NoReason);
    halt()
}

/// Resets the machine.
pub fn reset() -> ! {
    let _ = sbi_rt::system_reset(WarmReboot, NoReason);
    halt()
}

/// Stops this CPU for good: the firmware keeps it, so whoever fences it finds that done.
pub fn halt() -> ! {
    // SAFETY: this CPU's masks only.
    unsafe { core::arch::asm!("csrci sstatus, 2", "csrw sie, zero", options(nostack)) };
    let _ = sbi_rt::hart_stop();
    loop {
        // SAFETY: waits.
        unsafe { core::arch::asm!("wfi", options(nomem, nostack)) };
    }
}
