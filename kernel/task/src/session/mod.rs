//! Sessions and process groups. A session is one object: groups, members, foreground group, terminal.
//!
//! * `state.rs` decides (no I/O).
//! * `local.rs` is the implementation for a session whose home is this kernel; `ssi` brings the remote one.

pub mod local;
pub mod state;
#[cfg(test)]
mod tests;

use base::{ObjectId, TryResult};

pub use local::LocalSession;
pub use state::{Access, Effects, Life, Member, Notice, Reply, Request, Sender, State, Users};

use crate::ids::Pid;

/// A session as a process holds it.
pub trait Session: Send + Sync {
    /// Its name in the machine.
    fn id(&self) -> ObjectId;
    /// Its number.
    fn sid(&self) -> Pid;
    /// Asks for a change and its answer.
    ///
    /// # Errors
    /// As [`State::request`], or `EHOSTDOWN` if its home died.
    fn request(&self, request: Request) -> TryResult<Reply>;
    /// Tells what happened; nobody waits. Notices and requests of one kernel arrive in order.
    fn notice(&self, notice: Notice);
}
