//! Who is in: joining, and how the members agree on the next view.

use alloc::{collections::BTreeMap, vec, vec::Vec};

use base::{Errno, KernelId};

use super::{Accepting, Membership, Phase, Proposal};
use crate::types::{Actions, Message, Outcome, View};

impl Membership {
    pub(super) fn found(&mut self, actions: &mut impl Actions) {
        self.promised = 1;
        self.enter(View { epoch: 1, members: vec![self.me] }, actions);
    }

    pub(super) fn ask_to_enter(&mut self, now: u64, actions: &mut impl Actions) {
        if let Some(&contact) = self.contacts.get(self.next_contact % self.contacts.len().max(1)) {
            actions.send(contact, Message::Join { kernel: self.me });
        }
        self.next_contact = (self.next_contact + 1) % self.contacts.len().max(1);
        self.next_again = now + self.config.again;
    }

    pub(super) fn join(&mut self, now: u64, kernel: KernelId, actions: &mut impl Actions) {
        if self.phase == Phase::Outside {
            return;
        }
        if self.newest.contains(kernel) {
            // It is in, but nobody told it: the proposer may be dead.
            return actions.send(kernel, Message::Install { view: self.newest.clone() });
        }
        if self.coordinator() != Some(self.me) {
            if let Some(coordinator) = self.coordinator() {
                actions.send(coordinator, Message::Join { kernel });
            }
            return;
        }
        let taken = self.newest.at(kernel.index).filter(|old| !self.is_dead(*old));
        if let Some(old) = taken.filter(|old| old.incarnation < kernel.incarnation) {
            // Its board was started again before anybody noticed. It asks again.
            return self.conclude(now, old, true, actions);
        }
        let errno = if self.is_dead(kernel) {
            Errno::EHOSTDOWN
        } else if taken.is_some() {
            Errno::EBUSY
        } else {
            self.joining.insert(kernel);
            return self.propose(now, actions);
        };
        actions.send(kernel, Message::Refused { kernel, errno: errno as u16 });
    }

    /// Proposes the next view if this kernel is the coordinator and there is a reason.
    pub(super) fn propose(&mut self, now: u64, actions: &mut impl Actions) {
        if self.proposal.is_some() || self.coordinator() != Some(self.me) || self.phase == Phase::Outside {
            return;
        }
        let mut members: BTreeMap<u16, KernelId> = BTreeMap::new();
        let (dead, alive): (Vec<_>, Vec<_>) = self.newest.members.iter().copied().partition(|k| self.is_dead(*k));
        if dead.iter().any(|k| self.outcome(k.index) == Some(Outcome::Lost)) && !self.is_quorum(&alive) {
            return self.park("the smaller side of a split", actions);
        }
        members.extend(alive.iter().map(|k| (k.index, *k)));
        let maybe = self.accepted.members.iter().filter(|_| self.accepted.epoch > self.newest.epoch);
        for kernel in self.joining.iter().chain(maybe).filter(|k| !self.is_dead(**k)) {
            members.entry(kernel.index).or_insert(*kernel);
        }
        let members: Vec<KernelId> = members.into_values().collect();
        if members == self.view.members && self.newest.epoch == self.view.epoch {
            return;
        }
        let epoch = self.promised.max(self.newest.epoch) + 1;
        let view = View { epoch, members };
        let waiting = view.members.iter().copied().collect();
        self.proposal = Some(Proposal { view: view.clone(), waiting, since: now, sent: now });
        self.next_again = now + self.config.again;
        self.send_proposal(None, actions);
        self.accept(now, self.me, view, actions);
    }

    /// Sends the proposal to those who have not accepted it, with the deaths that it takes for granted.
    pub(super) fn send_proposal(&self, only: Option<KernelId>, actions: &mut impl Actions) {
        let Some(proposal) = &self.proposal else { return };
        let (epoch, base) = (proposal.view.epoch, self.newest.epoch);
        let excluded: Vec<_> =
            self.newest.members.iter().chain(&self.view.members).filter(|k| self.is_dead(**k)).collect();
        for &to in proposal.waiting.iter().filter(|k| **k != self.me && only.is_none_or(|o| o == **k)) {
            for &&kernel in &excluded {
                if let Some(outcome) = self.outcome(kernel.index) {
                    actions.send(to, Message::Dead { kernel, outcome });
                }
            }
            actions.send(to, Message::Propose { epoch, base, members: proposal.view.members.clone() });
        }
    }

    pub(super) fn proposed(&mut self, now: u64, from: KernelId, base: u32, view: View, actions: &mut impl Actions) {
        if !view.contains(self.me) {
            // Only a majority without us can propose that.
            if self.view.contains(from) && base >= self.view.epoch && self.votes_count() {
                self.park("the others go on without this kernel", actions);
            }
            return;
        }
        if let Some(accepting) = &self.accepting
            && accepting.by == from
            && accepting.view == view
        {
            if self.prepared {
                actions.send(from, Message::Accept { epoch: view.epoch });
            }
            return;
        }
        if view.epoch == self.view.epoch && view == self.view {
            return actions.send(from, Message::Accept { epoch: view.epoch });
        }
        let dead: Vec<KernelId> = view.members.iter().copied().filter(|k| self.is_dead(*k)).collect();
        if base < self.view.epoch || view.epoch <= self.promised || !dead.is_empty() {
            for kernel in dead {
                if let Some(outcome) = self.outcome(kernel.index) {
                    actions.send(from, Message::Dead { kernel, outcome });
                }
            }
            let refusal = Message::Refuse { epoch: view.epoch, highest: self.promised, installed: self.view.clone() };
            return actions.send(from, refusal);
        }
        // Somebody lower took over while we proposed, or we did not know of a view.
        self.proposal = None;
        self.accept(now, from, view, actions);
    }

    fn accept(&mut self, now: u64, by: KernelId, view: View, actions: &mut impl Actions) {
        self.promised = view.epoch;
        self.outlive(&view, actions);
        let excluded = self.excluded_by(&view);
        actions.prepare(&view, &excluded);
        self.accepted = view.clone();
        self.prepared = false;
        self.accepting = Some(Accepting { by, view, sent: now });
        self.next_again = now + self.config.again;
    }

    fn excluded_by(&self, view: &View) -> Vec<(KernelId, Outcome)> {
        let gone = self.view.members.iter().filter(|k| !view.contains(**k));
        gone.map(|k| (*k, self.outcome(k.index).unwrap_or(Outcome::Lost))).collect()
    }

    pub(super) fn prepared(&mut self, now: u64, epoch: u32, actions: &mut impl Actions) {
        if self.accepted.epoch == epoch {
            self.prepared = true;
        }
        let Some(accepting) = self.accepting.as_mut().filter(|a| a.view.epoch == epoch) else { return };
        accepting.sent = now;
        let by = accepting.by;
        if by == self.me {
            self.accepted(now, self.me, epoch, actions);
        } else {
            actions.send(by, Message::Accept { epoch });
        }
    }

    pub(super) fn accepted(&mut self, now: u64, from: KernelId, epoch: u32, actions: &mut impl Actions) {
        let Some(proposal) = self.proposal.as_mut().filter(|p| p.view.epoch == epoch) else {
            // Its Install got lost.
            if self.view.epoch >= epoch && from != self.me && self.view.contains(from) {
                actions.send(from, Message::Install { view: self.view.clone() });
            }
            return;
        };
        proposal.waiting.remove(&from);
        if proposal.waiting.is_empty()
            && let Some(proposal) = self.proposal.take()
        {
            self.broadcast_install(&proposal.view, actions);
            self.enter(proposal.view, actions);
            self.propose(now, actions);
        }
    }

    fn broadcast_install(&self, view: &View, actions: &mut impl Actions) {
        for &kernel in view.members.iter().filter(|k| **k != self.me) {
            actions.send(kernel, Message::Install { view: view.clone() });
        }
    }

    pub(super) fn refused(&mut self, now: u64, epoch: u32, highest: u32, installed: View, actions: &mut impl Actions) {
        self.promised = self.promised.max(highest);
        if installed.epoch > self.newest.epoch {
            self.newest = installed;
        }
        if self.proposal.as_ref().is_some_and(|p| p.view.epoch == epoch) {
            self.proposal = None;
            self.propose(now, actions);
        }
    }

    /// An incarnation starts when the ones before it are stopped, so who learns of it knows that: nobody tells a kernel of a death that was
    /// agreed on before it came in, and it may have asked the dead one to be let in.
    fn outlive(&mut self, view: &View, actions: &mut impl Actions) {
        for &member in &view.members {
            let last = KernelId { incarnation: member.incarnation.saturating_sub(1), ..member };
            let told = self.view.members.iter().any(|k| k.index == member.index && k.incarnation <= last.incarnation);
            if last.incarnation == 0 || told || self.is_dead(last) {
                continue;
            }
            self.dead.insert(last.index, (last.incarnation, Outcome::Fenced));
            self.detector.forget_before(member);
            self.joining.retain(|k| k.index != member.index || k.incarnation >= member.incarnation);
            actions.outlived(member);
        }
    }

    fn enter(&mut self, view: View, actions: &mut impl Actions) {
        self.outlive(&view, actions);
        let excluded = self.excluded_by(&view);
        self.accepting.take_if(|a| a.view.epoch <= view.epoch);
        self.joining.retain(|k| !view.contains(*k));
        self.votes.retain(|k, _| view.contains(*k));
        self.view = view;
        if self.view.epoch > self.newest.epoch {
            self.newest = self.view.clone();
        }
        if self.phase == Phase::Outside {
            self.phase = Phase::Member;
        }
        self.watch();
        actions.install(&self.view, &excluded);
    }

    /// Watches the next live member in the ring: also when the view still has the dead one, whose coordinator may be the next to die.
    pub(super) fn watch(&mut self) {
        let mut live = self.view.members.iter().copied().filter(|k| !self.is_dead(*k));
        let first = live.clone().next();
        let neighbour = live.find(|k| k.index > self.me.index).or(first).filter(|k| *k != self.me);
        self.detector.watch(neighbour);
    }

    /// A member says that a view is in force. It holds for whoever accepted it, whoever proposed it; and a view that is in force was
    /// accepted by all its members, so this kernel enters it even if it has accepted a later one since.
    pub(super) fn installed(&mut self, now: u64, view: View, actions: &mut impl Actions) {
        let accepted = self.prepared && view == self.accepted;
        let before = view.epoch < self.accepted.epoch;
        if (accepted || before) && view.contains(self.me) && view.epoch > self.view.epoch {
            self.enter(view, actions);
            self.propose(now, actions);
        }
    }
}
