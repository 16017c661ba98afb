//! Which kernels are members, and what happens when one dies.
//!
//! * `state.rs` decides (no I/O): views, joining, fencing, the majority where there is no shared memory; `detector.rs` measures silence.
//! * `glue.rs` connects it to the links, the porches and the services of one kernel.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod codec;
pub mod config;
pub mod detector;
pub mod glue;
pub mod state;
pub mod types;

pub use config::Config;
pub use glue::{Death, Machine, MembershipService, Service};
pub use state::{IN_THE_WAY, Membership, Phase};
pub use types::{Actions, Claim, Event, Message, Outcome, View};
