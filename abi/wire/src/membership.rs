//! Membership: who is there, who is silent, who is dead (`ssi/membership`).

use crate::id::KernelId;

/// How a dead kernel was stopped, in [`Dead::outcome`].
pub mod outcome {
    /// Its CPUs are stopped by hardware and its devices can no longer write: its memory can be used again.
    pub const FENCED: u8 = 1;
    /// It acknowledged that it stands still: its memory can be used again.
    pub const PARKED: u8 = 2;
    /// Nobody could stop it: its memory, devices and grants are never used again.
    pub const LOST: u8 = 3;
}

crate::messages! {
    /// The first message on a link: who I am and what I speak. The payload is the table of [`crate::table`].
    0x0101 Hello (Control, request -> HelloReply, payload 4096) {
        v1 {
            /// The sender.
            kernel: KernelId,
            /// The epoch of the sender's view; 0 before it has one.
            epoch: u32,
            /// The sender's ISA as `e_machine` of ELF.
            isa: u16,
            /// CPUs that the sender runs on.
            cpus: u16,
            /// Bytes of memory that the sender owns.
            memory: u64,
            /// Hash of the plan's text: kernels of different plans do not talk.
            plan: u64,
        }
    }

    /// The answer to [`Hello`], with the same facts of the receiver and its table as the payload.
    0x0102 HelloReply (Reply, reply, payload 4096) {
        v1 {
            /// The receiver of the Hello.
            kernel: KernelId,
            /// The epoch of its view.
            epoch: u32,
            /// Its ISA as `e_machine` of ELF.
            isa: u16,
            /// CPUs it runs on.
            cpus: u16,
            /// Bytes of memory it owns.
            memory: u64,
            /// 0, or the errno for which it refuses to talk.
            refused: u16,
            /// The message type that is the reason, or 0.
            because: u16,
        }
    }

    /// Are you there?
    0x0103 Probe (Control, event) {
        v1 {
            /// Returned in the answer.
            nonce: u64,
            /// The epoch of the sender's view.
            epoch: u32,
        }
    }

    /// I am.
    0x0104 ProbeReply (Control, event) {
        v1 {
            /// The probe's.
            nonce: u64,
            /// The epoch of the answerer's view.
            epoch: u32,
        }
    }

    /// A kernel that was started asks a member to let it in; a member passes the request to the coordinator.
    0x0105 Join (Control, event) {
        v1 {
            /// Who wants to join.
            kernel: KernelId,
        }
    }

    /// The kernel is silent; where no fence word can be reached this is a vote.
    0x0106 Suspect (Control, event) {
        v1 {
            /// The silent kernel.
            kernel: KernelId,
            /// 1: silent; 0: heard of again.
            silent: u8,
        }
    }

    /// The kernel is dead and stopped.
    0x0107 Dead (Control, event) {
        v1 {
            /// Who died.
            kernel: KernelId,
            /// `outcome::*`.
            outcome: u8,
        }
        v2 {
            /// 1: it had said goodbye. Who said so may not have been heard by everybody.
            orderly: u8 = 0,
        }
    }

    /// The coordinator proposes a view. The payload is its members, 8 bytes each.
    0x0108 Propose (Control, event, payload 512) {
        v1 {
            /// The epoch of the proposed view.
            epoch: u32,
            /// The epoch of the view it was made from.
            base: u32,
        }
    }

    /// The member has let go of what the view excludes.
    0x0109 Accept (Control, event) {
        v1 {
            /// The proposed epoch.
            epoch: u32,
        }
    }

    /// The member knows more than the proposer. The payload is the members of its installed view.
    0x010a Refuse (Control, event, payload 512) {
        v1 {
            /// The proposed epoch.
            epoch: u32,
            /// The highest epoch that the member has seen.
            highest: u32,
            /// The epoch of its installed view.
            installed: u32,
        }
    }

    /// Everybody accepted: the view is in force. The payload is its members.
    0x010b Install (Control, event, payload 512) {
        v1 {
            /// Its epoch.
            epoch: u32,
        }
    }

    /// The sender stops; what it homed is gone.
    0x010c Goodbye (Control, event) {
        v1 {
            /// Who leaves.
            kernel: KernelId,
        }
    }

    /// A kernel that wanted to join cannot.
    0x010d Refused (Control, event) {
        v1 {
            /// Who is refused.
            kernel: KernelId,
            /// Why: an errno.
            errno: u16,
        }
    }
}
