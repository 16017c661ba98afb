//! Groups: one kernel speaks, others listen to the same ring in its memory (`link/src/groups.rs`).

crate::messages! {
    /// Listen to my group.
    0x0c01 Invite (Control, event) {
        v1 {
            /// The speaker's number for it.
            group: u32,
            /// The first type of the family that is spoken there.
            family: u16,
        }
    }

    /// Where is it? From a kernel that was invited, or expelled because it was slow.
    0x0c02 Join (Control, request -> Joined) {
        v1 {
            /// The group.
            group: u32,
        }
    }

    /// There. What is said from now on is kept until you have read it, or are expelled.
    0x0c03 Joined (Reply, reply) {
        v1 {
            /// Where its memory is, counted from the beginning of the speaker's memory.
            at: u64,
            /// Bytes of it.
            bytes: u32,
            /// What the listener's line says as long as it is not expelled.
            seat: u32,
            /// How much has been said before.
            start: u64,
        }
    }

    /// You are not of the group any more, or it ends. Answered with [`Left`].
    0x0c04 Dismiss (Control, event) {
        v1 {
            /// The group.
            group: u32,
        }
    }

    /// The sender does not look at the group's memory any more.
    0x0c05 Left (Control, event) {
        v1 {
            /// The group.
            group: u32,
        }
    }
}
