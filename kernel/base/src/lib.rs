//! What every part of a kernel uses: errors, ids, waiting, sinks and sources. No policy, no state.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod error;
pub mod id;
pub mod io;
pub mod wait;

pub use error::{Error, Result};
pub use id::{KernelId, ObjectId};
pub use linux_abi::Errno;
pub use wait::{Ready, Subscription, Try, TryResult, Wake};
