//! The clock and the deadline of each CPU.

use core::sync::atomic::Ordering::Relaxed;

use hal_api::Platform;

use crate::P;
use crate::instance::{instance, try_instance};

/// Nanoseconds since the machine was switched on, the same on all its kernels up to a measured skew. Never goes back on one CPU
/// as long as [`step_forward`] is the only one to correct it. 0 before boot.
#[inline]
pub fn now() -> u64 {
    match try_instance() {
        Some(i) => P::now().wrapping_add_signed(i.skew.load(Relaxed)),
        None => 0,
    }
}

/// Asks for [`Handlers::timer`](crate::boot::Handlers::timer) on this CPU at `at` (time of [`now`]), replacing the last request of this
/// CPU. A time in the past fires as soon as interrupts are let in. `None`: no timer.
pub fn set_deadline(at: Option<u64>) {
    // A time from before this kernel's clock was stepped forward has passed all the same.
    P::set_deadline(at.map(|t| t.saturating_add_signed(-instance().skew.load(Relaxed)).max(1)));
}

/// Moves this kernel's clock forward so that `now()` is at least `seen`, a time that a peer's message carried. Never back. Returns by how
/// much it moved.
pub fn step_forward(seen: u64) -> u64 {
    let behind = seen.saturating_sub(now());
    if behind > 0 {
        let step = i64::try_from(behind).unwrap_or(0);
        let i = instance();
        i.clock.update(i.skew.fetch_add(step, Relaxed).wrapping_add(step));
    }
    behind
}

/// How far this kernel's clock is ahead of the hardware's, in ns.
pub fn skew() -> i64 {
    instance().skew.load(Relaxed)
}
