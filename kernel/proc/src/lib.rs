//! What `/proc` and `/sys` show.
//!
//! * `process.rs`: `/proc/PID` as text from plain facts.
//! * `system.rs`: the machine as text from plain facts.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod process;
pub mod system;
