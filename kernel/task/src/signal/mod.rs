//! Signals: numbers and sets, what comes with them, what a process does with them, and the queues.

pub mod action;
pub(crate) mod deliver;
pub mod info;
mod mask;
pub mod queue;
mod send;
pub mod set;

pub use action::{Action, Actions};
pub use info::{Origin, SigInfo};
pub use queue::{Pending, Queued};
pub use set::{SigSet, Signal};
