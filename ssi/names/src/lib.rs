//! Maps (kind, key) to an object and its home: pids, process groups, sessions, ports, abstract sockets, System V keys.
//!
//! * `state.rs` decides (no I/O): which kernel is the registrar of a name, what it answers, what survives a death.
//! * `service.rs` speaks the messages and keeps who waits for what.
//!
//! Who the registrar of a name is follows from the view alone, so nobody has to be asked for it: a numeric key belongs to the
//! kernel whose *block of 256* it is (block `b` of the keys belongs to kernel `b mod plan size`), other keys to a hash bucket; if that
//! kernel is not in the view, the next live one stands in. Pids come from a kernel's own blocks, so a new pid needs no message at all.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod pids;
pub mod service;
pub mod state;

pub use pids::PidBlocks;
pub use service::{NameHandler, NameService};
pub use state::{Actions, Entry, Event, Kind, Name, Names, Outcome, Request};
