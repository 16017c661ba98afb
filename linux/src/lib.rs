//! System calls: decode, check, call a kernel trait, encode. One family per folder; [`entry`] has the table.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod entry;
pub mod fs;
mod futex;
mod ipc;
pub mod mem;
mod misc;
mod process;
mod sched;
mod signal;
mod time;

pub use entry::{Handler, Linux};
