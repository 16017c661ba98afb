//! Waiting: sleeping and waking of one task, and everything that blocks, over *try* and *subscribe*.

mod block;
mod children;
mod list;
mod park;

pub(crate) use block::INTERRUPTED;
pub use block::{AGAIN, Bell, Interrupted, Sleep, TIMED_OUT, Timeout};
pub use list::{WaitList, Waiter};
pub use park::Park;
