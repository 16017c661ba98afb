//! Memory: what a program sees as its address space, and where the pages come from.
//!
//! * [`object`]: memory objects; a mapping is (object, offset, protection).
//! * [`cache`]: pages by index: the content of tmpfs and shared memory, and the page cache of files.
//! * [`vma`]: which mapping is where (pure data).
//! * [`space`]: the address space of a process: faults, `mmap` and its family, `fork`.
//! * [`sysv`]: System V segments.
//! * [`user`]: the running program's memory as system calls use it.
//! * [`memory`]: frames of this kernel with a reserve, reclaiming, counters.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod cache;
#[cfg(test)]
mod cache_tests;
pub mod memory;
pub mod object;
pub mod space;
pub mod sysv;
pub mod transfer;
pub mod user;
pub mod vdso;
pub mod vma;

pub use cache::{PageCache, PageSource, Seals, SourcePage};
pub use memory::{Killer, Memory, MemoryInfo};
pub use object::{Attachment, Lender, MappedPage, Mapper, Mappers, MemoryObject, ObjectKind, WordHome, WordSleep};
pub use space::{Advice, Fault, Limits, MapRequest, Place, Program, RemapRequest, Space, Violation, What};
pub use user::{IoVec, PageWait, User, UserRange};
pub use vma::{Content, FileLabel, Label, Prot, Totals, Vma, VmaFlags, VmaMap};
