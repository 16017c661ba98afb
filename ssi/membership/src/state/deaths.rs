//! Who is out: silence, guilt, fence words and votes.

use alloc::vec::Vec;

use base::KernelId;

use super::{Membership, Phase};
use crate::types::{Actions, Claim, Message, Outcome};

fn fence_word(kernel: KernelId) -> u64 {
    // Never 0: incarnations count from 1.
    u64::from(kernel.incarnation) | u64::from(kernel.index) << 32
}

fn fencer_of(word: u64) -> KernelId {
    KernelId { index: (word >> 32) as u16, incarnation: word as u32 }
}

impl Membership {
    pub(super) fn suspect(&mut self, now: u64, peer: KernelId) {
        if peer != self.me && !self.is_dead(peer) && self.phase != Phase::Outside {
            self.detector.suspect(peer, now);
        }
    }

    pub(super) fn heard_again(&mut self, peer: KernelId, actions: &mut impl Actions) {
        let me = self.me;
        self.concluded.remove(&peer);
        self.left.remove(&peer);
        if self.votes.get_mut(&peer).is_some_and(|votes| votes.remove(&me)) {
            self.broadcast(&Message::Suspect { kernel: peer, silent: false }, actions);
        }
    }

    /// Has those stopped that broke the rules. Who is in no view yet has nobody to tell, and does it when it is.
    pub(super) fn judge(&mut self, now: u64, actions: &mut impl Actions) {
        if self.phase == Phase::Member {
            for peer in core::mem::take(&mut self.guilty) {
                self.conclude(now, peer, false, actions);
            }
        }
    }

    /// The kernel is silent too long or announced its death: somebody has to stop it.
    pub(super) fn conclude(&mut self, now: u64, victim: KernelId, announced: bool, actions: &mut impl Actions) {
        let known = self.fencing.contains(&victim) || self.stopped.contains_key(&victim) || self.is_dead(victim);
        if known || self.phase == Phase::Leaving {
            return;
        }
        self.concluded.insert(victim);
        self.left.remove(&victim);
        self.stop(now, victim, announced, actions);
        // Who was left to it is somebody else's now.
        self.take_over(now, victim, actions);
    }

    /// Those who were left to a kernel that cannot be relied on any more are concluded anew.
    fn take_over(&mut self, now: u64, mate: KernelId, actions: &mut impl Actions) {
        while let Some((&victim, &(_, announced))) = self.left.iter().find(|(_, (of, _))| *of == mate) {
            self.left.remove(&victim);
            self.conclude(now, victim, announced, actions);
        }
    }

    /// A kernel of the victim's board that this one can rely on.
    fn mate(&self, victim: KernelId) -> Option<KernelId> {
        let board = |kernel: KernelId| self.boards.get(usize::from(kernel.index));
        let near = |kernel: &KernelId| *kernel != victim && board(*kernel).is_some() && board(*kernel) == board(victim);
        let relied = |kernel: &KernelId| !self.is_dead(*kernel) && !self.concluded.contains(kernel);
        self.newest.members.iter().copied().find(|kernel| near(kernel) && relied(kernel))
    }

    /// Stops a kernel, or sees to it that somebody does.
    fn stop(&mut self, now: u64, victim: KernelId, announced: bool, actions: &mut impl Actions) {
        let mut expected = 0;
        loop {
            match actions.claim_fence(victim, expected, fence_word(self.me)) {
                Claim::Was(word) if word == expected => {
                    self.fencing.insert(victim);
                    return actions.fence(victim);
                }
                Claim::Was(word) if word != 0 && (self.is_dead(fencer_of(word)) || fencer_of(word) == self.me) => {
                    // The fencer died before it was done. (Our own word from before counts as not done.)
                    if expected == word {
                        return;
                    }
                    expected = word;
                }
                Claim::Was(word) => {
                    let fencer = fencer_of(word);
                    self.fencers.insert(victim, fencer);
                    if !self.breaks_tie(victim, fencer) || expected == word {
                        // Whoever took it on may itself be silent, but most likely it is at work: asking at once would only keep it from that.
                        if fencer != self.me && !self.is_dead(fencer) && self.phase != Phase::Outside {
                            self.detector.expect(fencer, now);
                        }
                        return;
                    }
                    self.taken_from.insert(victim, fencer);
                    expected = word;
                }
                Claim::Unreachable => {
                    if let Some(mate) = self.mate(victim) {
                        self.left.insert(victim, (mate, announced));
                        actions.send(mate, Message::Suspect { kernel: victim, silent: true });
                        return self.detector.expect(mate, now);
                    }
                    if announced {
                        return self.declare_dead(now, victim, Outcome::Parked, actions);
                    }
                    return self.vote(now, victim, actions);
                }
            }
        }
    }

    /// Kernels that fence each other and are both silent: the lowest of the others takes both words, and declares neither dead before both
    /// are stopped, so that none can stop the other's successor.
    fn breaks_tie(&self, victim: KernelId, fencer: KernelId) -> bool {
        let both = self.concluded.contains(&fencer) && self.concluded.contains(&victim);
        let tied = self.fencers.get(&fencer).is_some_and(|holder| self.concluded.contains(holder))
            || self.taken_from.contains_key(&fencer)
            || self.stopped.contains_key(&fencer);
        let lowest = self.view.members.iter().find(|k| !self.is_dead(**k) && !self.concluded.contains(k));
        both && tied && lowest == Some(&self.me)
    }

    pub(super) fn declare_stopped(&mut self, now: u64, actions: &mut impl Actions) {
        loop {
            let ready = self.stopped.iter().find(|(victim, (_, holder))| {
                holder == *victim || self.is_dead(*holder) || self.stopped.contains_key(holder)
            });
            let Some((&victim, &(outcome, _))) = ready else { return };
            // The one it was taken from stays in the table, or is dead: so it is found for the other one too.
            self.declare_dead(now, victim, outcome, actions);
        }
    }

    pub(super) fn votes_count(&self) -> bool {
        self.view.members.len() > 1
    }

    /// Whether these members of the last view may go on without the others.
    pub(super) fn is_quorum(&self, alive: &[KernelId]) -> bool {
        let all = &self.newest.members;
        let alive = alive.iter().filter(|k| all.contains(k)).collect::<Vec<_>>();
        let lowest = all.first();
        alive.len() * 2 > all.len() || alive.len() * 2 == all.len() && lowest.is_some_and(|l| alive.contains(&l))
    }

    fn vote(&mut self, now: u64, victim: KernelId, actions: &mut impl Actions) {
        let me = self.me;
        self.votes.entry(victim).or_default().insert(me);
        self.broadcast(&Message::Suspect { kernel: victim, silent: true }, actions);
        self.count_votes(now, victim, actions);
        if self.phase == Phase::Parked || self.is_dead(victim) {
            return;
        }
        // Who should vote too may be silent itself, and its watcher dead.
        for kernel in self.newest.members.clone() {
            self.suspect(now, kernel);
        }
        let heard: Vec<KernelId> = self
            .newest
            .members
            .iter()
            .copied()
            .filter(|k| !self.is_dead(*k) && !self.votes.get(k).is_some_and(|v| v.contains(&me)))
            .collect();
        if !self.is_quorum(&heard) {
            self.park("the smaller side of a split", actions);
        }
    }

    pub(super) fn count_votes(&mut self, now: u64, victim: KernelId, actions: &mut impl Actions) {
        let Some(votes) = self.votes.get(&victim) else { return };
        let votes: Vec<KernelId> = votes.iter().copied().filter(|k| !self.is_dead(*k)).collect();
        // A kernel that never was in a view has no vote against it but the coordinator's.
        let outsider = !self.newest.contains(victim) && votes.contains(&self.me);
        if votes.contains(&self.me) && (self.is_quorum(&votes) || outsider) {
            self.declare_dead(now, victim, Outcome::Lost, actions);
        }
    }

    fn declare_dead(&mut self, now: u64, victim: KernelId, outcome: Outcome, actions: &mut impl Actions) {
        self.broadcast(&Message::Dead { kernel: victim, outcome }, actions);
        self.died(now, self.me, victim, outcome, actions);
    }

    pub(super) fn died(
        &mut self,
        now: u64,
        by: KernelId,
        victim: KernelId,
        outcome: Outcome,
        actions: &mut impl Actions,
    ) {
        if self.is_dead(victim) {
            return;
        }
        self.dead.insert(victim.index, (victim.incarnation, outcome));
        self.detector.forget(victim);
        self.joining.remove(&victim);
        self.fencing.remove(&victim);
        self.concluded.remove(&victim);
        self.stopped.remove(&victim);
        self.taken_from.remove(&victim);
        self.fencers.remove(&victim);
        self.left.remove(&victim);
        self.votes.remove(&victim);
        self.watch();
        actions.down(victim);
        // Who may propose must know, unless it said so.
        if let Some(coordinator) = self.coordinator().filter(|k| *k != self.me && *k != by) {
            actions.send(coordinator, Message::Dead { kernel: victim, outcome });
        }
        if self.proposal.as_ref().is_some_and(|p| p.view.contains(victim)) {
            self.proposal = None;
        }
        if self.accepting.as_ref().is_some_and(|a| a.by == victim || a.view.contains(victim)) {
            self.accepting = None;
        }
        let orphans: Vec<KernelId> =
            self.fencers.iter().filter(|(_, fencer)| **fencer == victim).map(|(orphan, _)| *orphan).collect();
        for orphan in orphans {
            self.fencers.remove(&orphan);
            self.conclude(now, orphan, true, actions);
        }
        self.take_over(now, victim, actions);
        self.declare_stopped(now, actions);
        self.propose(now, actions);
    }

    /// A member that is behind is told what is in force: its Install got lost.
    pub(super) fn teach(&self, peer: KernelId, epoch: u32, actions: &mut impl Actions) {
        if epoch < self.view.epoch && self.view.contains(peer) {
            actions.send(peer, Message::Install { view: self.view.clone() });
        }
    }
}
