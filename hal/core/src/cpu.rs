//! CPUs of this kernel.

use alloc::boxed::Box;
use alloc::vec::Vec;

use hal_api::{Ipi, Platform};

use crate::P;
use crate::instance::instance;

/// The most CPUs that one kernel can have.
pub use hal_api::MAX_CPUS;

/// The index of this CPU in this kernel, `0..count()`.
#[inline]
pub fn slot() -> usize {
    P::slot()
}

/// How many CPUs this kernel has.
pub fn count() -> usize {
    instance().info.n_cpus
}

/// The number of a CPU in the whole machine, as programs see it.
///
/// # Panics
/// If `slot` is not below [`count`].
pub fn global_id(slot: usize) -> u32 {
    instance().info.cpus()[slot].global
}

/// What the interrupt controller calls a CPU of this kernel.
///
/// # Panics
/// If `slot` is not below [`count`].
pub fn hardware_id(slot: usize) -> u32 {
    instance().info.cpus()[slot].hardware
}

/// Lets pending interrupts in. Long work calls it at points where it holds no lock (at least every 64 KiB or 64 pages).
#[track_caller]
pub fn breathe() {
    crate::sync::assert_no_lock("breathe");
    P::breathe();
}

/// Waits for an interrupt with interrupts on; returns with them off after one was handled. Other CPUs do not wake this one to flush its TLB:
/// it flushes before it returns.
#[track_caller]
pub fn idle_wait() {
    crate::sync::assert_no_lock("idle");
    crate::space::idle(P::idle_wait);
}

/// Makes another CPU of this kernel call [`Handlers::kick`](crate::boot::Handlers::kick) soon.
pub fn kick(slot: usize) {
    P::send_ipi(slot, Ipi::Kick);
}

/// One turn of a loop that polls memory which another CPU or device changes; serves TLB shootdowns now and then.
#[inline]
pub fn relax(turn: &mut u32) {
    crate::sync::spin(turn);
}

/// 64 unpredictable bits from the best source of this CPU.
pub fn entropy() -> u64 {
    P::entropy()
}

/// The ELF machine number of the programs that run here (`EM_*`).
pub const ELF_MACHINE: u16 = P::ELF_MACHINE;

/// What `AT_HWCAP` and `AT_HWCAP2` tell programs about this CPU.
pub fn hwcap() -> [u64; 2] {
    P::hwcap()
}

/// Starts the CPU of `slot`: it calls `main(slot)`, which must not return, with interrupts off.
pub fn start(slot: usize, main: fn(usize) -> !) -> Result<(), crate::cpuref::Refused> {
    P::start_slot(slot, main)
}

/// Tells what CPU this is: model name and feature names, one `name: value` a line, as `/proc/cpuinfo` shows them.
pub fn describe(out: &mut dyn core::fmt::Write) -> core::fmt::Result {
    P::describe_cpu(out)
}

/// Stops all CPUs of this kernel for good, this one last, with interrupts off: the others as soon as they let interrupts in.
pub fn halt_all() -> ! {
    let me = slot();
    for other in (0..count()).filter(|s| *s != me) {
        P::send_ipi(other, Ipi::Stop);
    }
    P::halt()
}

/// Switches the machine off. `clean` decides the emulator's exit status.
pub fn power_off(clean: bool) -> ! {
    P::power_off(clean)
}

/// Resets the machine.
pub fn reset() -> ! {
    P::reset()
}

/// One `T` for each CPU of this kernel. Others may look with [`CpuLocal::of`], so `T` must be safe to share.
#[derive(Debug)]
pub struct CpuLocal<T>(Box<[Padded<T>]>);

#[derive(Debug)]
#[repr(align(64))]
struct Padded<T>(T);

impl<T> CpuLocal<T> {
    /// Makes the value of each slot.
    pub fn new(mut make: impl FnMut(usize) -> T) -> Self {
        Self((0..count()).map(|s| Padded(make(s))).collect::<Vec<_>>().into_boxed_slice())
    }

    /// The value of this CPU. A thread that sleeps may wake on another one: do not keep it over a switch.
    #[inline]
    pub fn get(&self) -> &T {
        &self.0[slot()].0
    }

    /// The value of another CPU, if there is such a CPU.
    pub fn of(&self, slot: usize) -> Option<&T> {
        self.0.get(slot).map(|p| &p.0)
    }

    /// All values, by slot.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|p| &p.0)
    }
}
