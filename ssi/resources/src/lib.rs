//! The registry of what the machine has once: devices, and the file tree that programs see. It says who owns each, and when an owner dies the next
//! kernel takes over what it had.
//!
//! * `state.rs` decides, without I/O; it runs in the protocol simulator.
//! * `service.rs` connects it to links and membership.
//!
//! What an owner does with a device when it gets it is its kernel's business ([`Taker`]); others reach the device through the owner's files.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod service;
pub mod state;

pub use service::{ResourceHandler, ResourceService, Taker};
pub use state::{Plan, Record, Registry, Set, Standing};
