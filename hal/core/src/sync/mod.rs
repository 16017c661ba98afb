//! Locks. A kernel runs with interrupts off (C1), so locks do not touch the interrupt flag; a CPU that spins serves TLB shootdowns.
//!
//! Every lock has a [`Rank`]; where checks are on (feature `checks` or debug assertions) a CPU may only take a lock of a higher rank
//! than all it holds, and holds none where it breathes, idles, switches or enters user mode.

#[cfg(any(feature = "checks", debug_assertions))]
pub(crate) mod checks;
mod once;
pub mod rank;
mod rw;
mod spin;

pub use once::Once;
pub use rank::Rank;
pub use rw::{RwReadGuard, RwSpinLock, RwWriteGuard};
pub use spin::{SpinGuard, SpinLock};

use crate::P;
use hal_api::Platform;

/// Spins once, then looks whether another CPU waits for us to flush.
#[inline]
pub(crate) fn spin(turn: &mut u32) {
    *turn = turn.wrapping_add(1);
    P::relax();
    if turn.is_multiple_of(16) {
        crate::space::serve();
    }
}

/// Called where this CPU must hold no lock.
#[inline]
pub(crate) fn assert_no_lock(_what: &str) {
    #[cfg(any(feature = "checks", debug_assertions))]
    checks::assert_none(_what);
}

/// How many locks this CPU holds; always 0 without checks.
pub fn held() -> usize {
    #[cfg(any(feature = "checks", debug_assertions))]
    return checks::depth();
    #[cfg(not(any(feature = "checks", debug_assertions)))]
    0
}
