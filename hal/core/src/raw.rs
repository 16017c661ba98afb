//! Addresses, for the other crates of `hal/` (virtqueues, drivers' DMA). Everybody else uses frames, windows and [`crate::io`].

use core::ptr::NonNull;

use hal_api::{PhysAddr, PhysRange, Platform};

use crate::P;
use crate::cpuref::Refused;
use crate::frame::FrameRun;

/// Where a run of own frames is reached.
pub fn base(run: &FrameRun) -> NonNull<u8> {
    run.base()
}

/// Where an address of own memory (in the linear map) is in physical memory; `None` for any other address.
pub fn phys_of(at: NonNull<u8>) -> Option<PhysAddr> {
    crate::boot::info().owned().iter().find_map(|range| {
        let start = P::linear(range.start).addr().get();
        let off = at.addr().get().checked_sub(start)? as u64;
        (off < range.len).then(|| range.start + off)
    })
}

/// Maps device registers, uncached, for good.
///
/// # Errors
/// If that is own memory or there is no address space left.
pub fn map_device(range: PhysRange) -> Result<NonNull<u8>, Refused> {
    crate::cpuref::map_device(range)
}

/// Lets go of a run without giving it back; [`from_raw`] is the way back.
pub fn into_raw(run: FrameRun) -> PhysAddr {
    let at = run.phys();
    core::mem::forget(run);
    at
}

/// The run that [`into_raw`] let go of.
///
/// # Safety
/// `at` and `order` are of a run that was let go of, once.
pub unsafe fn from_raw(at: PhysAddr, order: usize) -> FrameRun {
    // SAFETY: the caller's promise.
    unsafe { FrameRun::from_raw(at, order) }
}
