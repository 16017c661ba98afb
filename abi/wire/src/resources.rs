//! Resources: what one kernel asks another to do with itself (`/proc/cob/control`).

/// What an [`Order`] asks for.
pub mod order {
    /// Panic.
    pub const CRASH: u8 = 1;
    /// Spin with interrupts off.
    pub const HANG: u8 = 2;
}

crate::messages! {
    /// Do this to yourself. `EINVAL` if the receiver knows no such order.
    0x0701 Order (Request, request -> OrderDone) {
        v1 {
            /// `order::*`.
            what: u8,
        }
    }

    /// It is being done: nothing follows from a kernel that crashes or hangs.
    0x0702 OrderDone (Reply, reply) {
        v1 {
            /// The order.
            what: u8,
        }
    }
}
