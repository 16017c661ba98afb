//! The Linux ABI as data, for all ISAs side by side: which ABI applies is a field of the task, not a `cfg`.
#![no_std]
#![forbid(unsafe_code)]

pub mod call;
pub mod errno;
mod isa;

pub use call::Call;
pub use errno::Errno;
pub use isa::Isa;
