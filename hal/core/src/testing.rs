//! A kernel for unit tests: one call makes a machine with one kernel and runs a closure on its first CPU.

use hal_host::{KernelConfig, Machine, MachineConfig};

/// Runs `f` on a machine with one kernel of one CPU and 32 MiB.
pub fn on_kernel<R>(f: impl FnOnce() -> R) -> R {
    with_machine(1, 32 << 20, |_| f())
}

/// Runs `f` on slot 0 of the only kernel of a machine. Other slots are entered from threads of the test
/// ([`Machine::enter`]).
///
/// # Panics
/// If the kernel does not come up: that is a bug here.
pub fn with_machine<R>(cpus: usize, memory: u64, f: impl FnOnce(&Machine) -> R) -> R {
    let config = MachineConfig { kernels: alloc::vec![KernelConfig { cpus, memory }], ..MachineConfig::default() };
    let machine = Machine::new(&config);
    let info = machine.boot_info(0);
    machine.enter(0, 0, || {
        if let Err(why) = crate::boot::init(info) {
            panic!("{why}");
        }
        f(&machine)
    })
}
