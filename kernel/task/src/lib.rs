//! Tasks, scheduling, processes, signals, waiting, exec.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod children;
pub mod cluster;
pub mod creds;
pub mod exec;
pub mod ids;
pub mod image;
pub mod limits;
pub mod sched;
pub mod session;
pub mod signal;
pub mod time;

pub use cluster::{Alone, Cluster, Placement, ProcessRef};
pub use creds::Creds;
pub use ids::Pid;
pub use session::Session;
pub use signal::{SigInfo, SigSet, Signal};
