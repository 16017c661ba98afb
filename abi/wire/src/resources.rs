//! Resources: what one kernel asks another to do with itself (`/proc/cob/control`), and who starts and stops whom (`ssi/life`).

/// What an [`Order`] asks for.
pub mod order {
    /// Panic.
    pub const CRASH: u8 = 1;
    /// Spin with interrupts off.
    pub const HANG: u8 = 2;
}

/// What a [`LifeAsk`] asks for.
pub mod life {
    /// The sender wants to start the kernel.
    pub const BOOT: u8 = 1;
    /// The kernel is to stop in good order.
    pub const STOP: u8 = 2;
}

/// Where an incarnation is in its life; grows in it. In the rows of a [`LifeTable`].
pub mod phase {
    /// Somebody starts it.
    pub const BOOTING: u8 = 1;
    /// It did not come up, or whoever started it died.
    pub const FAILED: u8 = 2;
    /// It is or was a member.
    pub const UP: u8 = 3;
    /// It ends its processes.
    pub const STOPPING: u8 = 4;
    /// It died.
    pub const DEAD: u8 = 5;
    /// It stopped in good order.
    pub const OFF: u8 = 6;
    /// It died and could not be stopped.
    pub const LOST: u8 = 7;
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

    /// Asks the coordinator for leave to start a kernel, or to make one stop. The answer is a row of a [`LifeTable`], or [`LifeDenied`].
    0x0703 LifeAsk (Request, event) {
        v1 {
            /// The sender's epoch.
            epoch: u32,
            /// Which kernel.
            index: u16,
            /// `life::*`.
            what: u8,
        }
    }

    /// The coordinator says no.
    0x0704 LifeDenied (Request, event) {
        v1 {
            /// Which kernel.
            index: u16,
            /// `life::*`.
            what: u8,
            /// Why: a Linux error number.
            errno: u16,
        }
    }

    /// What the sender knows of the lives of kernels. The payload is rows of 16 bytes: index u16, `phase::*` u8, 0 u8, incarnation u32, who
    /// starts it as a kernel id (8 bytes; 0 if nobody does).
    0x0705 LifeTable (Request, event, payload 1024) {
        v1 {
            /// Not 0: all that the sender knows, for the coordinator of the view with this epoch.
            epoch: u32,
            /// 1: these are all rows, and nothing that ever was is unknown to the sender.
            whole: u8,
        }
    }

    /// Start a kernel that the sender cannot reach.
    0x0706 LifeHelp (Request, event) {
        v1 {
            /// Returned in the answer.
            ticket: u64,
            /// Which kernel.
            index: u16,
        }
    }

    /// What became of a [`LifeHelp`].
    0x0707 LifeHelped (Request, event) {
        v1 {
            /// Of the request.
            ticket: u64,
            /// 0, or why not.
            errno: u16,
        }
    }

    /// The sender stops: answer when all that it sent before on this lane is handled.
    0x0708 Drain (Request, request -> Drained) {
        v1 {}
    }

    /// It is.
    0x0709 Drained (Reply, reply) {
        v1 {}
    }

    /// The sender has leave to start a kernel and does so when all know: answer with [`LifeHeard`].
    0x070a LifeTell (Request, event) {
        v1 {
            /// Which kernel.
            index: u16,
            /// As which incarnation.
            incarnation: u32,
        }
    }

    /// The sender knows that the kernel is started as this incarnation.
    0x070b LifeHeard (Request, event) {
        v1 {
            /// Which kernel.
            index: u16,
            /// Its incarnation.
            incarnation: u32,
        }
    }

    /// The coordinator tells the receiver, if it is this very kernel, to stop in good order.
    0x070c LifeStop (Request, event) {
        v1 {
            /// Which kernel.
            index: u16,
            /// Its incarnation.
            incarnation: u32,
        }
    }
}
