//! References to objects across kernels: who holds what, where its home is, what dies with a kernel.
//!
//! Reference counts exist only at the home. A reference that is sent to a kernel is a *grant*; the home counts the grants per
//! holder, the holder counts what it received, and gives all of them back in one message when its last local user is gone. So a grant
//! that is still on its way when the holder lets go keeps the object alive, whatever the order of the messages.
//!
//! Homes move: the old home forwards (`Moved`) until every holder has heard of the new one.
//!
//! * `exports.rs`: the home's side.
//! * `imports.rs`: the holder's side.
//! * `call.rs`: a request to a peer as an [`base::wait::Op`] that a task can wait for.
//! * `codec.rs`: structures in the payload of messages.
//! * `convert.rs`: ids and errors as the links have them and as the kernel has them.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod call;
pub mod codec;
pub mod convert;
pub mod exports;
pub mod imports;

pub use call::{Abandon, Call, Completer, call, map_error, settled, unless_abandoned, when_done};
pub use convert::{error, from_wire, object_from_wire, object_to_wire, to_wire};
pub use exports::{Exports, Lent};
pub use imports::{Imports, Receipt};

/// Why a request about an object was not served where it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The object's home is now this kernel: ask there.
    Moved {
        /// The new home.
        home: base::KernelId,
    },
    /// The object is on its way to this kernel; ask there, it answers when it has arrived.
    Leaving {
        /// The kernel that will be its home.
        home: base::KernelId,
    },
    /// It would be a reference for a kernel that is dead.
    Dead,
    /// Nobody holds such an object here: it ended, or a peer made the name up (`ESTALE`).
    Unknown,
}
