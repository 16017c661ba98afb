//! Links between kernels: rings, lanes, transports, request and reply. Described in `docs/protocol.md`.
//!
//! From below: [`memory`] (shared memory as loads and stores), [`ring`] (one writer, one reader), [`porch`] (the page where kernels find each other),
//! [`shm`] (a channel made of these; [`transport`] is what every kind of channel offers), [`group`] (one writer, many readers), [`requests`] (what waits for an
//! answer), and
//! [`Links`]: all links of one kernel, with the dispatch to the services ([`Handler`]).
//!
//! [`polling`] says how long a CPU with nothing to do listens before it sleeps. [`window`] puts all of it on the memory and the bells that `hal` gives.
//!
//! The receive path runs from the doorbell interrupt or while polling; a handler never sleeps (contract C1).
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod counters;
pub mod echo;
pub mod error;
pub mod ether;
pub mod group;
pub mod groups;
mod hello;
pub mod latency;
pub mod links;
pub mod lock;
pub mod memory;
pub mod peer;
pub mod polling;
pub mod porch;
mod receive;
pub mod requests;
pub mod ring;
pub mod service;
pub mod shm;
pub mod signs;
pub mod transport;
pub mod window;

pub use error::{Error, Result};
pub use ether::Ether;
pub use groups::GroupReport;
pub use links::{Links, Then, Tick};
pub use peer::{ANSWERS, Peer};
pub use service::{AnswerTo, Facts, Guilt, Handler, Hooks, Incoming};
pub use shm::{Shm, Windows};
pub use signs::{Sign, Signs, State};
pub use transport::{Carrier, Transport};
