//! System calls of this family.

use linux_abi::Call;

use crate::entry::Handler;

/// The handler of a call of this family; none for others.
pub const fn handler(call: Call) -> Option<Handler> {
    match call {
        _ => None,
    }
}
