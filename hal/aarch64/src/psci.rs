//! Firmware calls that switch CPUs on and off (Arm Power State Coordination Interface, DEN0022).

use core::sync::atomic::{AtomicBool, Ordering};

use hal_api::Refused;
use smccc::psci::{self, AffinityState, LowestAffinityLevel};
use smccc::{Hvc, Smc};

/// Calls go by `smc`, not by `hvc`.
static BY_SMC: AtomicBool = AtomicBool::new(false);

/// How calls go, as the device tree says.
pub(crate) fn set_smc(smc: bool) {
    BY_SMC.store(smc, Ordering::Relaxed);
}

/// See [`set_smc`].
pub(crate) fn is_smc() -> bool {
    BY_SMC.load(Ordering::Relaxed)
}

macro_rules! call {
    ($name:ident($($arg:expr),*)) => {
        if is_smc() { psci::$name::<Smc>($($arg),*) } else { psci::$name::<Hvc>($($arg),*) }
    };
}

/// Starts a CPU at the physical address `entry` with `argument` in `x0`.
///
/// # Safety
/// The CPU is the caller's to start, and `entry` is code that knows what to do.
pub(crate) unsafe fn cpu_on(mpidr: u64, entry: u64, argument: u64) -> Result<(), Refused> {
    call!(cpu_on(mpidr, entry, argument)).map_err(|_| Refused("the firmware does not start the CPU"))
}

/// Switches this CPU off. Returns only if the firmware cannot.
pub(crate) fn cpu_off() {
    // Nothing is left to do for whoever cannot be switched off.
    let _ = call!(cpu_off());
}

/// Whether a CPU is off.
pub(crate) fn is_off(mpidr: u64) -> bool {
    call!(affinity_info(mpidr, LowestAffinityLevel::All)) == Ok(AffinityState::Off)
}

/// Switches the machine off. Returns only if the firmware cannot.
pub(crate) fn system_off() {
    let _ = call!(system_off());
}

/// Resets the machine. Returns only if the firmware cannot.
pub(crate) fn system_reset() {
    let _ = call!(system_reset());
}
