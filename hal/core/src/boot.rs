//! From the loader's facts to a kernel that may use hal, and the handlers it installs.

use alloc::boxed::Box;

use hal_api::{Ipi, PhysAddr, Platform, Upcalls};

pub use hal_api::{BootInfo, CpuDesc, MAX_RANGES, PciHost, PhysRange, RawBoot, SerialPort};

use crate::P;
use crate::frame::Frames;
use crate::instance::{Instance, instance, try_instance};

/// What a kernel does when something happens outside a system call. Installed once. All are called on the CPU concerned, with
/// interrupts off and no lock held (C1), and return soon.
pub trait Handlers: Send + Sync + 'static {
    /// The deadline of this CPU has passed.
    fn timer(&self);
    /// Another CPU of this kernel asked for attention.
    fn kick(&self);
    /// A peer kernel rang.
    fn doorbell(&self);
    /// A device line or vector.
    fn irq(&self, line: u32);
}

/// Makes this kernel known to hal: clock, interrupts, frames, heap growth. Called once by `boot` on the boot CPU.
///
/// `info` is trusted as the memory map of the firmware is: `free` is memory that this kernel owns and that holds nothing. What can be checked is
/// checked; the rest is the plan's word, whose parser refuses overlaps.
///
/// # Errors
/// A sentence for the log if `info` makes no sense (no CPU, no memory, memory that overlaps).
pub fn init(info: BootInfo) -> Result<(), &'static str> {
    if info.cpus().is_empty() {
        return Err("the boot information names no CPU");
    }
    if try_instance().is_some() {
        return Err("this kernel was booted twice");
    }
    for (i, free) in info.free().iter().enumerate() {
        if !info.owned().iter().any(|o| free.start >= o.start && free.end() <= o.end()) {
            return Err("free memory outside of what the kernel owns");
        }
        if info.free()[..i].iter().any(|o| free.start < o.end() && o.start < free.end()) {
            return Err("free memory named twice");
        }
    }
    // SAFETY: once per kernel, checked above; `info` is the truth about memory as far as anybody knows.
    unsafe { P::init(&info, &Up) };
    let mut info = info;
    if let Some(unused) = crate::heap::unused()
        && let Some(slot) = info.free.get_mut(info.n_free)
    {
        *slot = unused;
        info.n_free += 1;
    }
    // SAFETY: the same.
    let frames = unsafe { Frames::new(info.free()) }.ok_or("no memory for frames")?;
    P::set_instance(core::ptr::from_ref(Instance::leak(&info, frames)).cast());
    Ok(())
}

/// Installs the kernel's handlers; interrupts may come as soon as somebody breathes. `false` if there were some already.
pub fn install(handlers: Box<dyn Handlers>) -> bool {
    instance().handlers.set(handlers).is_ok()
}

/// What this kernel is.
pub fn info() -> &'static BootInfo {
    &instance().info
}

/// How hal hears from the platform.
pub(crate) struct Up;

fn handlers() -> Option<&'static dyn Handlers> {
    try_instance()?.handlers.get().map(|b| &**b)
}

impl Upcalls for Up {
    fn timer(&self) {
        if let Some(h) = handlers() {
            h.timer();
        }
    }

    fn ipi(&self, kind: Ipi) {
        match kind {
            Ipi::Kick => {
                if let Some(h) = handlers() {
                    h.kick();
                }
            }
            Ipi::Shootdown => crate::space::serve(),
            Ipi::Stop => P::halt(),
        }
    }

    fn doorbell(&self) {
        if let Some(h) = handlers() {
            h.doorbell();
        }
    }

    fn irq(&self, line: u32) {
        match handlers() {
            Some(h) => h.irq(line),
            None => P::irq_disable(line),
        }
    }

    fn frame_alloc(&self) -> Option<PhysAddr> {
        instance().frames.take_typed()
    }

    fn frame_free(&self, at: PhysAddr) {
        instance().frames.give_typed(at);
    }

    fn kernel_fault(&self, what: core::fmt::Arguments<'_>, ip: u64, frame_pointer: u64) -> ! {
        crate::console::fault(what, ip, frame_pointer)
    }
}
