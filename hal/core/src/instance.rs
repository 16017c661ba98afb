//! What hal knows about the kernel that runs: one value per kernel, found through the platform.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicI64, AtomicPtr, AtomicU8, AtomicU64};

use hal_api::{BootInfo, Platform};

use crate::P;
use crate::boot::Handlers;
use crate::frame::{Frames, LocalFrames};
use crate::sync::Once;
#[cfg(any(feature = "checks", debug_assertions))]
use crate::sync::checks::Held;

/// The state of one kernel in hal.
pub(crate) struct Instance {
    pub info: BootInfo,
    pub frames: Frames,
    pub handlers: Once<Box<dyn Handlers>>,
    pub skew: AtomicI64,
    /// What programs read the time from.
    pub clock: crate::vdso::Clock,
    pub trace: crate::trace::Trace,
    cpus: &'static [CpuState],
}

/// What hal keeps for each CPU.
#[repr(align(64))]
pub(crate) struct CpuState {
    /// The thread that was left by the last switch on this CPU and is not yet released.
    pub left: AtomicPtr<crate::thread::Thread>,
    /// The thread that was last switched to on this CPU; null before the first switch.
    pub current: AtomicPtr<crate::thread::Thread>,
    /// Which CPUs have asked this one to flush.
    pub inbox: AtomicU64,
    /// What this CPU asks others to flush.
    pub request: crate::space::Request,
    /// The user address space that is active here; holds a reference.
    pub space: crate::space::ActiveSpace,
    /// Whether this CPU idles and so need not be told to flush; see `space::idle`.
    pub idle: AtomicU8,
    frames: UnsafeCell<LocalFrames>,
    #[cfg(any(feature = "checks", debug_assertions))]
    pub held: Held,
}

// SAFETY: `frames` is touched only through `local_frames`, whose contract is that the caller is on this CPU.
unsafe impl Sync for CpuState {}

impl CpuState {
    const fn new() -> Self {
        Self {
            left: AtomicPtr::new(core::ptr::null_mut()),
            current: AtomicPtr::new(core::ptr::null_mut()),
            inbox: AtomicU64::new(0),
            request: crate::space::Request::new(),
            space: AtomicPtr::new(core::ptr::null_mut()),
            idle: AtomicU8::new(0),
            frames: UnsafeCell::new(LocalFrames::new()),
            #[cfg(any(feature = "checks", debug_assertions))]
            held: Held::new(),
        }
    }
}

impl Instance {
    /// Made once per kernel, for ever.
    pub fn leak(info: &BootInfo, frames: Frames) -> &'static Self {
        Box::leak(Box::new(Self {
            info: *info,
            frames,
            handlers: Once::new(),
            skew: AtomicI64::new(0),
            clock: crate::vdso::Clock::new(),
            trace: crate::trace::Trace::new(),
            // Not in the instance itself, which passes over the boot stack.
            cpus: Vec::leak((0..info.n_cpus).map(|_| CpuState::new()).collect()),
        }))
    }

    /// The state of the CPU of `slot`.
    pub fn cpu(&self, slot: usize) -> &CpuState {
        &self.cpus[slot]
    }

    /// The state of this CPU.
    #[inline]
    pub fn this_cpu(&self) -> &CpuState {
        // The platform gives slots below `n_cpus`.
        &self.cpus[P::slot()]
    }

    /// How many frames a CPU keeps for itself.
    pub fn cached_frames(&self, slot: usize) -> usize {
        LocalFrames::len(self.cpus[slot].frames.get())
    }

    /// This CPU's frames, for the length of one call.
    #[inline]
    pub fn local_frames<R>(&self, f: impl FnOnce(&mut LocalFrames) -> R) -> R {
        // SAFETY: only this CPU uses its own cell; interrupts are off in the kernel (C1) and `f` is a function of `frame` that
        // neither switches threads nor calls back here.
        f(unsafe { &mut *self.this_cpu().frames.get() })
    }
}

/// The kernel that runs this code, once `boot::init` has made it.
#[inline]
pub(crate) fn try_instance() -> Option<&'static Instance> {
    // SAFETY: the anchor is null or the leaked `Instance` that `boot::init` stored.
    unsafe { P::instance().cast::<Instance>().as_ref() }
}

/// The kernel that runs this code.
#[inline]
pub(crate) fn instance() -> &'static Instance {
    match try_instance() {
        Some(i) => i,
        None => not_booted(),
    }
}

#[cold]
fn not_booted() -> ! {
    panic!("hal is used before hal::boot::init (on the host: outside a simulated CPU)")
}
