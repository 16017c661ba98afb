//! Processes of all kernels as one: signals, sessions, exits, and the exec move.
//!
//! * `codec.rs`: the types of crate `task` as bytes.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod codec;
