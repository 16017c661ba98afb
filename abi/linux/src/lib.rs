//! The Linux ABI as data, for all ISAs side by side: which ABI applies is a field of the task, not a `cfg`.
#![no_std]
#![forbid(unsafe_code)]

pub mod call;
pub mod errno;
pub mod flags;
mod isa;
pub mod signal;
pub mod structs;

pub use call::Call;
pub use errno::Errno;
pub use isa::Isa;

/// The constants and structs that are the same on all three ISAs: `common::general::AT_FDCWD`. Nothing whose number differs between
/// ISAs may be taken from here, as this is the compiling target's: system-call numbers are in [`Call`], `O_*` in [`flags::OpenFlags`], and
/// structs in [`structs`].
pub use linux_raw_sys as common;
