//! Memory system calls.
//!
//! * `map.rs`: `mmap`, `munmap`, `mprotect`, `mremap`, `brk`.
//! * `advise.rs`: `madvise`, `msync`, `mincore`, `mlock` and its family.
//! * `policy.rs`: NUMA policies; each kernel is a node, and a process has memory of one kernel.
//! * `barrier.rs`: `membarrier`.
//! * `shm.rs`: System V segments.
//! * `other.rs`: `process_vm_readv`, `process_vm_writev`.

pub mod advise;
pub mod barrier;
pub mod map;
pub mod other;
pub mod policy;
pub mod shm;

use base::{Errno, Error};
use linux_abi::Call;

use crate::entry::Handler;

pub(crate) const PAGE: u64 = hal::addr::PAGE_SIZE as u64;

/// `EINVAL` with a reason.
pub(crate) const fn invalid(why: &'static str) -> Error {
    Error::new(Errno::EINVAL, why)
}

/// Rounds a length up to pages.
pub(crate) fn whole_pages(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(PAGE)
}

/// The handler of a call of this family; none for others.
pub const fn handler(call: Call) -> Option<Handler> {
    let handler: Handler = match call {
        Call::Mmap => map::mmap,
        Call::Munmap => map::munmap,
        Call::Mprotect => map::mprotect,
        Call::Mremap => map::mremap,
        Call::Brk => map::brk,
        Call::Madvise => advise::madvise,
        Call::Msync => advise::msync,
        Call::Mincore => advise::mincore,
        Call::Mlock => advise::mlock,
        Call::Mlock2 => advise::mlock2,
        Call::Munlock => advise::munlock,
        Call::Mlockall => advise::mlockall,
        Call::Munlockall => advise::munlockall,
        Call::SetMempolicy => policy::set_mempolicy,
        Call::Mbind => policy::mbind,
        Call::GetMempolicy => policy::get_mempolicy,
        Call::Shmget => shm::shmget,
        Call::Shmat => shm::shmat,
        Call::Shmdt => shm::shmdt,
        Call::Shmctl => shm::shmctl,
        Call::Membarrier => barrier::membarrier,
        Call::ProcessVmReadv => other::process_vm_readv,
        Call::ProcessVmWritev => other::process_vm_writev,
        _ => return None,
    };
    Some(handler)
}
