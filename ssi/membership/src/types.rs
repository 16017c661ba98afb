//! What membership speaks of.

use alloc::vec::Vec;

use base::KernelId;

/// Who is there. Views are totally ordered by their epochs, and two kernels that enter the same epoch enter the same view.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct View {
    /// Counts the views of the machine; 0 for "none yet".
    pub epoch: u32,
    /// The members, sorted by index; at most one incarnation of each.
    pub members: Vec<KernelId>,
}

impl View {
    /// Whether this very incarnation is a member.
    pub fn contains(&self, kernel: KernelId) -> bool {
        self.members.contains(&kernel)
    }

    /// The member with this index.
    pub fn at(&self, index: u16) -> Option<KernelId> {
        self.members.iter().copied().find(|k| k.index == index)
    }
}

/// `7: [0.1-3.1, 5.2]`: the epoch and the members, runs of more than three by their ends.
impl core::fmt::Display for View {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: [", self.epoch)?;
        let mut rest = self.members.as_slice();
        let mut comma = "";
        while let Some(first) = rest.first() {
            let follows = |(i, k): &(usize, &KernelId)| {
                k.incarnation == first.incarnation && usize::from(k.index) == usize::from(first.index) + i
            };
            let run = rest.iter().enumerate().take_while(follows).count();
            let run = if run > 3 { run } else { 1 };
            let (these, others) = rest.split_at(run);
            write!(f, "{comma}{first}")?;
            if let Some(last) = these.last().filter(|_| run > 1) {
                write!(f, "-{last}")?;
            }
            (rest, comma) = (others, ", ");
        }
        f.write_str("]")
    }
}

/// How a dead kernel was stopped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// By hardware: CPUs stopped, bus mastering off.
    Fenced,
    /// It acknowledged that it stands still.
    Parked,
    /// Nobody could stop it: what it had is quarantined, never used again.
    Lost,
}

/// What kernels tell each other about membership. Plain values: the glue turns them into `wire::membership`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// Are you there?
    Probe {
        /// Returned in the answer.
        nonce: u64,
        /// The sender's epoch: who has a newer view says so.
        epoch: u32,
    },
    /// I am.
    ProbeReply {
        /// The probe's.
        nonce: u64,
        /// The answerer's epoch.
        epoch: u32,
    },
    /// This kernel wants to be a member.
    Join {
        /// Who.
        kernel: KernelId,
    },
    /// It cannot be one.
    Refused {
        /// Who.
        kernel: KernelId,
        /// Why: an errno number.
        errno: u16,
    },
    /// A vote where no fence word can be reached: the kernel is silent, or (`false`) heard of again.
    Suspect {
        /// Who.
        kernel: KernelId,
        /// Whether it is silent.
        silent: bool,
    },
    /// It is dead and stopped.
    Dead {
        /// Who.
        kernel: KernelId,
        /// How.
        outcome: Outcome,
    },
    /// The coordinator proposes a view.
    Propose {
        /// The proposed epoch.
        epoch: u32,
        /// The view that it follows.
        base: u32,
        /// The proposed members.
        members: Vec<KernelId>,
    },
    /// I have let go of what the proposed view excludes.
    Accept {
        /// The proposed epoch.
        epoch: u32,
    },
    /// I know more than you.
    Refuse {
        /// The proposed epoch.
        epoch: u32,
        /// The highest epoch I have seen.
        highest: u32,
        /// My view.
        installed: View,
    },
    /// All accepted: the view is in force.
    Install {
        /// The view.
        view: View,
    },
    /// The sender stops.
    Goodbye,
}

/// What happens to a kernel's membership.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// This kernel is the first of the machine.
    Found,
    /// This kernel was started by a peer: ask these (the starter first) to be let in. May be repeated with other contacts: some may have died.
    Enter {
        /// Kernels that may be members.
        contacts: Vec<KernelId>,
    },
    /// A message came.
    Received {
        /// From whom.
        from: KernelId,
        /// What.
        message: Message,
    },
    /// Time passed; also called when [`Actions::wake_at`] asked for it.
    Tick,
    /// The sign of life of a kernel of [`crate::Membership::watched`]: a number that changes while it lives.
    Beat {
        /// Who.
        peer: KernelId,
        /// The number.
        count: u64,
    },
    /// A request to this kernel was not answered in time.
    Overdue {
        /// Who.
        peer: KernelId,
    },
    /// Its porch says that it is dying or stopped.
    Dying {
        /// Who.
        peer: KernelId,
    },
    /// It sent what no kernel sends: whatever it still does, it is broken.
    Guilty {
        /// Who.
        peer: KernelId,
    },
    /// What [`Actions::fence`] came to.
    Fenced {
        /// Who.
        victim: KernelId,
        /// How it ended.
        outcome: Outcome,
    },
    /// What [`Actions::prepare`] asked for is done.
    Prepared {
        /// The epoch that it was asked for.
        epoch: u32,
    },
    /// A debugger stopped or released some kernel: silence means nothing meanwhile.
    Hold(bool),
    /// This kernel stops.
    Leave,
}

/// The answer of a fence word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// What the word was before.
    Was(u64),
    /// There is no memory that this kernel shares with it.
    Unreachable,
}

/// What membership makes happen. Nothing here waits; nothing is called while the caller holds a lock that these need.
pub trait Actions {
    /// Sends a message, in order per peer.
    fn send(&mut self, to: KernelId, message: Message);
    /// Puts `claim` into the victim's fence word if it is `expected`.
    fn claim_fence(&mut self, victim: KernelId, expected: u64, claim: u64) -> Claim;
    /// Stops a kernel: its CPUs, then its bus mastering. Ends with [`Event::Fenced`].
    fn fence(&mut self, victim: KernelId);
    /// The kernel is dead and stopped: close its link, so that every request to it is answered.
    fn down(&mut self, victim: KernelId);
    /// A member of a view had earlier incarnations that were never in a view with this kernel: close links to them.
    fn outlived(&mut self, member: KernelId);
    /// A view is proposed: unmap what belongs to the excluded, let services make ready. Ends with [`Event::Prepared`].
    fn prepare(&mut self, view: &View, excluded: &[(KernelId, Outcome)]);
    /// The view is in force. Every survivor has let go of the excluded: what they had may be used again unless they are lost. Then
    /// tell every service who went down.
    fn install(&mut self, view: &View, excluded: &[(KernelId, Outcome)]);
    /// This kernel may not go on: it is declared dead, refused, or on the smaller side of a split.
    fn park(&mut self, why: &'static str);
    /// Call with [`Event::Tick`] at this time, on the clock of `step`, at the latest.
    fn wake_at(&mut self, at: u64);
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec, vec::Vec};

    use base::KernelId;

    use super::View;

    #[test]
    fn many_members_are_shown_by_the_ends_of_their_runs() {
        let kernel = |index, incarnation| KernelId { index, incarnation };
        let few = View { epoch: 2, members: vec![kernel(0, 1), kernel(1, 1), kernel(2, 1)] };
        assert_eq!(few.to_string(), "2: [0.1, 1.1, 2.1]");
        let mut members: Vec<KernelId> = (0..48).map(|index| kernel(index, 1)).collect();
        assert_eq!(View { epoch: 9, members: members.clone() }.to_string(), "9: [0.1-47.1]");
        members[5].incarnation = 2;
        members.remove(40);
        assert_eq!(View { epoch: 9, members }.to_string(), "9: [0.1-4.1, 5.2, 6.1-39.1, 41.1-47.1]");
        assert_eq!(View::default().to_string(), "0: []");
    }
}
