//! Addresses that cannot be mixed up.

pub use hal_api::{PAGE_SHIFT, PAGE_SIZE, PhysAddr, PhysRange, UserAddr};

use crate::P;
use hal_api::{PageFormat, Platform};

/// One past the highest user address (Linux' `TASK_SIZE`). A constant but on riscv64, whose CPUs differ.
#[inline]
pub fn user_top() -> u64 {
    <P as Platform>::Format::user_top()
}

/// Whether `[at, at + len)` lies in the user half.
#[inline]
pub fn is_user_range(at: UserAddr, len: usize) -> bool {
    at.0 <= user_top() && len as u64 <= user_top() - at.0
}

/// How many pages `bytes` need.
pub const fn pages(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_SIZE)
}
