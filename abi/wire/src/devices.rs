//! Devices, and what else the machine has once: who owns it, and who takes it over (`ssi/resources`). Sets are bits by the number of a resource, which
//! the plan gives.

use crate::id::KernelId;

/// How a resource is held, in [`Is`].
pub mod standing {
    /// By the kernel that is named.
    pub const HELD: u8 = 1;
    /// By nobody: its holder died.
    pub const FREE: u8 = 2;
    /// Its holder died and could not be stopped.
    pub const LOST: u8 = 3;
}

crate::messages! {
    /// The sender wants these. Answered by [`Grant`], [`Busy`] or [`Is`], or by the sender's death.
    0x0b01 Claim (Request, event) {
        v1 {
            /// Of the sender's view; who has an older one answers when it has this one.
            epoch: u32,
            /// The term that would begin.
            term: u32,
            /// Which.
            set: u64,
        }
    }

    /// The sender has nothing against it.
    0x0b02 Grant (Request, event) {
        v1 {
            /// Of the claim.
            term: u32,
            /// The latest term that the sender has heard of.
            known: u32,
            /// Which.
            set: u64,
        }
    }

    /// The sender claims these itself, and came first.
    0x0b03 Busy (Request, event) {
        v1 {
            /// Of its claim.
            term: u32,
            /// Which.
            set: u64,
        }
    }

    /// The sender gives up its claim.
    0x0b04 Yield (Request, event) {
        v1 {
            /// Which.
            set: u64,
        }
    }

    /// What the sender knows of these: news, or the refusal of a claim.
    0x0b05 Is (Request, event) {
        v1 {
            /// Since when; grows with every holder.
            term: u32,
            /// `standing::*`.
            standing: u8,
            /// The holder, if there is one.
            owner: KernelId,
            /// Which.
            set: u64,
        }
    }
}
