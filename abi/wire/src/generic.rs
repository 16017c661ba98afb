//! What every object speaks: it moved, it is gone, the request is abandoned, it is ready.

use crate::id::{KernelId, ObjectId};

crate::messages! {
    /// Answers any request: an errno.
    0x0201 Failed (Reply, reply) {
        v1 {
            /// The Linux error number.
            errno: u16,
        }
    }

    /// Answers any request: the object lives elsewhere now; ask there.
    0x0202 Moved (Reply, reply) {
        v1 {
            /// The kernel where the object went.
            home: KernelId,
            /// The move's number: counts the moves of the object, so that old news is recognised.
            moves: u32,
        }
    }

    /// Answers any request: it was made in a view that the receiver has not entered, or has left. Wait for the view, ask again.
    0x0203 Stale (Reply, reply) {
        v1 {
            /// The receiver's epoch.
            epoch: u32,
        }
    }

    /// The sender abandons its request. The request is answered all the same: by [`Cancelled`] or by its result.
    /// On the request lane (or that of the request), so that it does not overtake what it cancels.
    0x0204 Cancel (Request, event) {
        v1 {
            /// The id of the request that is abandoned.
            target: u64,
            /// The type of that request: which service has it.
            kind: u16,
        }
    }

    /// Answers a request that was cancelled before it had an effect.
    0x0205 Cancelled (Reply, reply) {
        v1 {}
    }

    /// One per arming: the object of the header is ready.
    0x0206 Ready (Reply, event) {
        v1 {
            /// Names the arming at the receiver.
            token: u64,
            /// The generation of that arming: an older READY is dropped.
            generation: u32,
            /// What it is ready for: the bits of `poll(2)`.
            ready: u32,
        }
    }

    /// Tell me when something happens to the object: once, and after each [`Again`] once. Answered by [`Armed`], at once.
    0x0207 Arm (Request, request -> Armed) {
        v1 {
            /// Returned in [`Ready`].
            token: u64,
            /// Returned in [`Ready`].
            generation: u32,
            /// What is waited for: the bits of `poll(2)`.
            mask: u32,
        }
    }

    /// It is watched. What it is ready for already is no event: who armed looks after he armed.
    0x0208 Armed (Reply, reply) {
        v1 {
            /// The bits of `poll(2)`.
            ready: u32,
        }
    }

    /// Forget the arming.
    0x0209 Disarm (Request, event) {
        v1 {
            /// Names the arming.
            token: u64,
            /// Its generation.
            generation: u32,
        }
    }

    /// Do you know where this object is? Asked of every member when its birth kernel is dead and no forwarder is known.
    0x020a Locate (Request, request -> Located) {
        v1 {}
    }

    /// What the asked kernel knows.
    0x020b Located (Reply, reply) {
        v1 {
            /// The home, or none.
            home: KernelId,
            /// The number of the move that the answer knows of.
            moves: u32,
        }
    }

    /// The object of the header, with its state as the payload, comes to you. It serves at the new home from [`Settle`] on.
    0x020c Import (Request, request -> Imported, payload 4096) {
        v1 {
            /// The number of this move.
            moves: u32,
            /// The type number of the family whose service takes it.
            family: u16,
            /// Position of this piece of the state, in bytes.
            offset: u64,
            /// Bytes of the whole state.
            total: u64,
        }
    }

    /// The state is here, or an errno.
    0x020d Imported (Reply, reply) {
        v1 {
            /// 0, or why it cannot be taken.
            errno: u16,
        }
    }

    /// The old home only forwards from now on: serve.
    0x020e Settle (Reply, event) {
        v1 {
            /// The number of the move.
            moves: u32,
        }
    }

    /// The holder of a reference lets it go.
    0x020f Release (Request, event) {
        v1 {
            /// The object; the header names it too.
            object: ObjectId,
            /// How many references.
            count: u32,
        }
    }

    /// The READY of the generation before came: tell me what happened since, or happens.
    0x0210 Again (Request, event) {
        v1 {
            /// Names the arming.
            token: u64,
            /// Returned in the next [`Ready`].
            generation: u32,
        }
    }

    /// A reference that another holder passed on came.
    0x0211 Received (Request, event) {
        v1 {
            /// To what.
            object: ObjectId,
            /// Who passed it on.
            via: KernelId,
        }
    }

    /// A reference that the sender had asked for in the name of another holder was not sent.
    0x0212 Unsent (Request, event) {
        v1 {
            /// To what.
            object: ObjectId,
            /// Who was to have it.
            holder: KernelId,
        }
    }

    /// This kernel is dead: say [`SettledUp`] when all that it passed on to you has been told about.
    0x0213 SettleUp (Request, event) {
        v1 {
            /// The dead kernel.
            via: KernelId,
        }
    }

    /// All that came through the dead kernel has been told about. Follows the last [`Received`] on the same lane.
    0x0214 SettledUp (Request, event) {
        v1 {
            /// The dead kernel.
            via: KernelId,
        }
    }
}
