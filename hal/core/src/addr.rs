//! Addresses that cannot be mixed up.

pub use hal_api::{PAGE_SHIFT, PAGE_SIZE, PhysAddr, PhysRange, UserAddr};

use crate::P;
use hal_api::{PageFormat, Platform};

/// One past the highest user address (Linux' `TASK_SIZE`).
pub const USER_TOP: u64 = <<P as Platform>::Format as PageFormat>::USER_TOP;

/// Whether `[at, at + len)` lies in the user half.
#[inline]
pub const fn is_user_range(at: UserAddr, len: usize) -> bool {
    at.0 <= USER_TOP && len as u64 <= USER_TOP - at.0
}

/// How many pages `bytes` need.
pub const fn pages(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_SIZE)
}
