//! Processes of all kernels as one: signals, sessions, exits, and the exec move.
//!
//! * `service.rs`: implements `task::Cluster` over messages.
//! * `handler.rs`: serves the peers' messages from this kernel.
//! * `local.rs`: this kernel as the peers see it.
//! * `moves.rs`: moves that come here.
//! * `homes`: sessions whose home is another kernel, and how homes move.
//! * `view.rs`: all processes for `/proc`; `question.rs`: what one kernel asks another for it.
//! * `codec`: the types of crate `task` as bytes.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod codec;
pub mod handler;
pub mod homes;
mod loads;
pub mod local;
pub mod moves;
pub mod question;
pub mod service;
pub mod view;
mod watch;

pub use handler::TaskHandler;
pub use local::OwnKernel;
pub use service::{Local, Peers, Prepared, TaskService};
pub use view::ClusterView;
