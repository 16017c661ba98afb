//! Memory system calls.
//!
//! * `map.rs`: `mmap`, `munmap`, `mprotect`, `mremap`, `brk`.
//! * `advise.rs`: `madvise`, `msync`, `mincore`, `mlock` and its family.
//! * `policy.rs`: NUMA policies; each kernel is a node, and a process has memory of one kernel.
//! * `shm.rs`: System V segments.
//! * `other.rs`: `process_vm_readv`, `process_vm_writev`.

pub mod advise;
pub mod map;
pub mod other;
pub mod policy;
pub mod shm;

use base::{Errno, Error};

pub(crate) const PAGE: u64 = hal::addr::PAGE_SIZE as u64;

/// `EINVAL` with a reason.
pub(crate) const fn invalid(why: &'static str) -> Error {
    Error::new(Errno::EINVAL, why)
}

/// Rounds a length up to pages.
pub(crate) fn whole_pages(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(PAGE)
}
