//! The lives of kernels: who may start one, who makes one stop, and what all know of it (`docs/proc-cob.md`, `boot K` and `stop K`).
//!
//! * `state.rs` decides (no I/O); `rows.rs` is what all kernels know, a table that only grows.
//! * `service.rs` connects it to the links, the membership and what a kernel can do with a peer's memory and CPUs.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod codec;
pub mod rows;
pub mod service;
pub mod state;
pub mod types;

pub use rows::{Phase, Row, Rows};
pub use service::{LifeHandler, LifeService, Machine};
pub use state::Life;
pub use types::{Actions, Config, Event, Message, Seat, Ticket, What};
