//! The membership protocol, without I/O.
//!
//! * **Views.** The coordinator (the live member with the lowest index) proposes the next view; every member of it lets go of what the
//!   view excludes and accepts; then it is in force. Who has installed a newer view than the proposal builds on refuses and says what it
//!   knows, so a coordinator that takes over from a dead one loses nobody who was let in.
//! * **Death.** A kernel that announces its death or is silent too long is fenced by who wins its fence word; if the fencer dies, the next one
//!   takes the word from it. Only when it is stopped is it called dead, so in a machine with shared memory nobody is ever declared dead and goes on.
//! * **Guilt.** A kernel that sends what is no message, or breaks a ring, is treated like one that is silent too long, whether it goes on or not: what
//!   it does to the memory that it shares cannot be known any more.
//! * **Without a fence word** silence is voted on, and only a majority of the last view goes on (of an even split the side with the lowest
//!   index); the rest parks itself. Such a dead kernel is lost: what it had is not used again.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec,
    vec::Vec,
};

use base::{Errno, KernelId};

use crate::{
    config::Config,
    detector::{Detector, Finding},
    types::{Actions, Claim, Event, Message, Outcome, View},
};

/// What this kernel is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Not in any view yet.
    Outside,
    /// In a view.
    Member,
    /// It said goodbye.
    Leaving,
    /// It stands still.
    Parked,
}

/// A view that this kernel proposed.
#[derive(Debug)]
struct Proposal {
    view: View,
    waiting: BTreeSet<KernelId>,
    since: u64,
    sent: u64,
}

/// A view that this kernel was asked to accept.
#[derive(Debug)]
struct Accepting {
    by: KernelId,
    view: View,
    sent: u64,
}

/// The membership of one kernel.
#[derive(Debug)]
pub struct Membership {
    me: KernelId,
    config: Config,
    phase: Phase,
    view: View,
    /// The newest view known to be in force somewhere; proposals build on it.
    newest: View,
    /// The highest epoch seen in a proposal.
    promised: u32,
    /// The dead: their highest dead incarnation by index, and how it ended.
    dead: BTreeMap<u16, (u32, Outcome)>,
    joining: BTreeSet<KernelId>,
    proposal: Option<Proposal>,
    accepting: Option<Accepting>,
    /// The newest view that this kernel accepted. If it came into force somewhere, everybody in it accepted it: who takes over from its
    /// proposer asks all of them.
    accepted: View,
    /// It has let go of what that view excludes.
    prepared: bool,
    detector: Detector,
    fencing: BTreeSet<KernelId>,
    /// Who is to be stopped, as far as this kernel can tell.
    concluded: BTreeSet<KernelId>,
    /// Who was stopped here but not declared dead: the kernel that held its fence word before must be stopped first.
    stopped: BTreeMap<KernelId, (Outcome, KernelId)>,
    /// From whom, not known to be dead, the fence word of a victim was taken.
    taken_from: BTreeMap<KernelId, KernelId>,
    /// Who fences whom, as far as their fence words said.
    fencers: BTreeMap<KernelId, KernelId>,
    /// Who broke the rules and was not judged yet.
    guilty: BTreeSet<KernelId>,
    /// Who votes against whom; only without fence words.
    votes: BTreeMap<KernelId, BTreeSet<KernelId>>,
    contacts: Vec<KernelId>,
    next_contact: usize,
    next_again: u64,
    nonce: u64,
}

fn fence_word(kernel: KernelId) -> u64 {
    // Never 0: incarnations count from 1.
    u64::from(kernel.incarnation) | u64::from(kernel.index) << 32
}

fn fencer_of(word: u64) -> KernelId {
    KernelId { index: (word >> 32) as u16, incarnation: word as u32 }
}

impl Membership {
    /// The membership of kernel `me`, which is in no view yet.
    pub const fn new(me: KernelId, config: Config) -> Self {
        let nobody = View { epoch: 0, members: Vec::new() };
        Self {
            me,
            config,
            phase: Phase::Outside,
            view: nobody,
            newest: View { epoch: 0, members: Vec::new() },
            promised: 0,
            dead: BTreeMap::new(),
            joining: BTreeSet::new(),
            proposal: None,
            accepting: None,
            accepted: View { epoch: 0, members: Vec::new() },
            prepared: false,
            detector: Detector::new(config),
            fencing: BTreeSet::new(),
            concluded: BTreeSet::new(),
            stopped: BTreeMap::new(),
            taken_from: BTreeMap::new(),
            fencers: BTreeMap::new(),
            guilty: BTreeSet::new(),
            votes: BTreeMap::new(),
            contacts: Vec::new(),
            next_contact: 0,
            next_again: 0,
            nonce: 0,
        }
    }

    /// The view in force here.
    pub const fn view(&self) -> &View {
        &self.view
    }

    /// What this kernel is.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// What it is in the middle of, in a word, for the simulator's table of what met what.
    pub fn situation(&self) -> &'static str {
        match self.phase {
            Phase::Outside if self.accepting.is_some() => "entering",
            Phase::Outside => "outside",
            Phase::Leaving => "leaving",
            Phase::Parked => "parked",
            Phase::Member if self.proposal.is_some() => "proposing",
            Phase::Member if self.accepting.is_some() => "accepting",
            Phase::Member if !self.fencing.is_empty() => "fencing",
            Phase::Member => "member",
        }
    }

    /// Whether a kernel is known to be dead.
    pub fn is_dead(&self, kernel: KernelId) -> bool {
        self.dead.get(&kernel.index).is_some_and(|(incarnation, _)| *incarnation >= kernel.incarnation)
    }

    /// How the last dead incarnation of an index ended.
    pub fn outcome(&self, index: u16) -> Option<Outcome> {
        self.dead.get(&index).map(|(_, outcome)| *outcome)
    }

    /// Whether a kernel is silent and being probed.
    pub fn is_suspect(&self, kernel: KernelId) -> bool {
        self.detector.suspects(kernel)
    }

    /// Lets no incarnation of this index before this one in any more: it is being started. `false` if one is in, or on its way in.
    pub fn bar(&mut self, next: KernelId) -> bool {
        let below = |k: &KernelId| k.index == next.index && k.incarnation < next.incarnation;
        let proposed = self.proposal.iter().map(|p| &p.view).chain(self.accepting.iter().map(|a| &a.view));
        let views = [&self.view, &self.newest].into_iter().chain(proposed);
        let accepted = Some(&self.accepted).filter(|view| view.epoch > self.newest.epoch);
        if views.chain(accepted).flat_map(|view| &view.members).any(|k| below(k) && !self.is_dead(*k)) {
            return false;
        }
        self.joining.retain(|k| !below(k));
        let last = next.incarnation.saturating_sub(1);
        if last > 0 && self.dead.get(&next.index).is_none_or(|(dead, _)| *dead < last) {
            // It was never let in, and its CPUs are stopped before the next one starts.
            self.dead.insert(next.index, (last, Outcome::Fenced));
        }
        true
    }

    /// Whose beat is to be told before every tick.
    pub fn watched(&self) -> Option<KernelId> {
        self.detector.watched()
    }

    /// The member that proposes views: the lowest that is not dead.
    pub fn coordinator(&self) -> Option<KernelId> {
        self.newest.members.iter().copied().find(|k| !self.is_dead(*k))
    }

    /// Whether it is in the middle of a view change or a fence.
    pub fn is_busy(&self) -> bool {
        self.proposal.is_some() || self.accepting.is_some() || !self.fencing.is_empty() || self.phase == Phase::Outside
    }

    /// One step.
    pub fn step(&mut self, now: u64, event: Event, actions: &mut impl Actions) {
        if self.phase == Phase::Parked {
            return;
        }
        match event {
            Event::Found => self.found(actions),
            Event::Enter { contacts } => {
                let first = self.contacts.is_empty();
                self.contacts = contacts;
                if first {
                    self.ask_to_enter(now, actions);
                }
            }
            Event::Received { from, message } => self.received(now, from, message, actions),
            Event::Tick => self.tick(now, actions),
            Event::Beat { peer, count } => {
                if self.detector.beat(peer, count) {
                    self.heard_again(peer, actions);
                }
            }
            Event::Overdue { peer } => self.suspect(now, peer),
            Event::Dying { peer } => {
                // Who is in no view has nobody to tell what it found.
                if !self.is_dead(peer) && peer != self.me && self.phase != Phase::Outside {
                    self.conclude(now, peer, true, actions);
                }
            }
            Event::Guilty { peer } => {
                if peer != self.me {
                    self.guilty.insert(peer);
                    self.judge(now, actions);
                }
            }
            Event::Fenced { victim, outcome } => {
                if self.fencing.remove(&victim) {
                    let holder = self.taken_from.remove(&victim).unwrap_or(victim);
                    self.stopped.insert(victim, (outcome, holder));
                    self.declare_stopped(now, actions);
                }
            }
            Event::Prepared { epoch } => self.prepared(now, epoch, actions),
            Event::Hold(held) => {
                self.detector.hold(held);
                // What was watched was let go of.
                self.watch();
            }
            Event::Leave => {
                self.phase = Phase::Leaving;
                self.broadcast(&Message::Goodbye, actions);
            }
        }
        if self.phase != Phase::Parked {
            actions.wake_at(self.next_wake(now));
        }
    }

    fn next_wake(&self, now: u64) -> u64 {
        let again = if self.phase == Phase::Outside || self.proposal.is_some() || self.accepting.is_some() {
            self.next_again.max(now + 1)
        } else {
            u64::MAX
        };
        self.detector.next().max(now + 1).min(again)
    }

    fn broadcast(&self, message: &Message, actions: &mut impl Actions) {
        let proposed = self.proposal.iter().flat_map(|p| &p.view.members);
        let all: BTreeSet<KernelId> =
            self.view.members.iter().chain(&self.newest.members).chain(proposed).copied().collect();
        for kernel in all.into_iter().filter(|k| *k != self.me && !self.is_dead(*k)) {
            actions.send(kernel, message.clone());
        }
    }

    fn park(&mut self, why: &'static str, actions: &mut impl Actions) {
        self.phase = Phase::Parked;
        actions.park(why);
    }

    // -- joining ---------------------------------------------------------------------------------------------------

    fn found(&mut self, actions: &mut impl Actions) {
        self.promised = 1;
        self.enter(View { epoch: 1, members: vec![self.me] }, actions);
    }

    fn ask_to_enter(&mut self, now: u64, actions: &mut impl Actions) {
        if let Some(&contact) = self.contacts.get(self.next_contact % self.contacts.len().max(1)) {
            actions.send(contact, Message::Join { kernel: self.me });
        }
        self.next_contact += 1;
        self.next_again = now + self.config.again;
    }

    fn join(&mut self, now: u64, kernel: KernelId, actions: &mut impl Actions) {
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
        let taken = self.newest.at(kernel.index).is_some_and(|old| !self.is_dead(old));
        let errno = if self.is_dead(kernel) {
            Errno::EHOSTDOWN
        } else if taken {
            Errno::EBUSY
        } else {
            self.joining.insert(kernel);
            return self.propose(now, actions);
        };
        actions.send(kernel, Message::Refused { kernel, errno: errno as u16 });
    }

    // -- views -----------------------------------------------------------------------------------------------------

    /// Proposes the next view if this kernel is the coordinator and there is a reason.
    fn propose(&mut self, now: u64, actions: &mut impl Actions) {
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
    fn send_proposal(&self, only: Option<KernelId>, actions: &mut impl Actions) {
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

    fn proposed(&mut self, now: u64, from: KernelId, base: u32, view: View, actions: &mut impl Actions) {
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

    fn prepared(&mut self, now: u64, epoch: u32, actions: &mut impl Actions) {
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

    fn accepted(&mut self, now: u64, from: KernelId, epoch: u32, actions: &mut impl Actions) {
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

    fn refused(&mut self, now: u64, epoch: u32, highest: u32, installed: View, actions: &mut impl Actions) {
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
    fn watch(&mut self) {
        let mut live = self.view.members.iter().copied().filter(|k| !self.is_dead(*k));
        let first = live.clone().next();
        let neighbour = live.find(|k| k.index > self.me.index).or(first).filter(|k| *k != self.me);
        self.detector.watch(neighbour);
    }

    /// A member says that a view is in force. It holds for whoever accepted it, whoever proposed it; and a view that is in force was
    /// accepted by all its members, so this kernel enters it even if it has accepted a later one since.
    fn installed(&mut self, now: u64, view: View, actions: &mut impl Actions) {
        let accepted = self.prepared && view == self.accepted;
        let before = view.epoch < self.accepted.epoch;
        if (accepted || before) && view.contains(self.me) && view.epoch > self.view.epoch {
            self.enter(view, actions);
            self.propose(now, actions);
        }
    }

    // -- life and death --------------------------------------------------------------------------------------------

    fn suspect(&mut self, now: u64, peer: KernelId) {
        if peer != self.me && !self.is_dead(peer) && self.phase != Phase::Outside {
            self.detector.suspect(peer, now);
        }
    }

    fn heard_again(&mut self, peer: KernelId, actions: &mut impl Actions) {
        let me = self.me;
        self.concluded.remove(&peer);
        if self.votes.get_mut(&peer).is_some_and(|votes| votes.remove(&me)) {
            self.broadcast(&Message::Suspect { kernel: peer, silent: false }, actions);
        }
    }

    /// Has those stopped that broke the rules. Who is in no view yet has nobody to tell, and does it when it is.
    fn judge(&mut self, now: u64, actions: &mut impl Actions) {
        if self.phase == Phase::Member {
            for peer in core::mem::take(&mut self.guilty) {
                self.conclude(now, peer, false, actions);
            }
        }
    }

    fn tick(&mut self, now: u64, actions: &mut impl Actions) {
        self.judge(now, actions);
        for finding in self.detector.tick(now) {
            match finding {
                Finding::Probe(peer) => {
                    self.nonce += 1;
                    actions.send(peer, Message::Probe { nonce: self.nonce, epoch: self.view.epoch });
                }
                Finding::Dead(peer) => self.conclude(now, peer, false, actions),
            }
        }
        if self.phase == Phase::Parked || now < self.next_again {
            return;
        }
        self.next_again = now + self.config.again;
        // Who may propose must know of the dead; where messages get lost it is told again.
        if let Some(coordinator) = self.coordinator().filter(|k| *k != self.me) {
            for &kernel in self.newest.members.iter().filter(|k| self.is_dead(**k)) {
                if let Some(outcome) = self.outcome(kernel.index) {
                    actions.send(coordinator, Message::Dead { kernel, outcome });
                }
            }
        }
        if self.phase == Phase::Outside {
            // Also while accepting: the proposer may be dead, and nobody tells an outsider.
            self.ask_to_enter(now, actions);
        }
        if let Some(proposal) = &mut self.proposal {
            let waited = now.saturating_sub(proposal.since) >= self.config.beat;
            proposal.sent = now;
            let silent: Vec<KernelId> = proposal.waiting.iter().copied().filter(|k| *k != self.me).collect();
            self.send_proposal(None, actions);
            if waited {
                for kernel in silent {
                    self.suspect(now, kernel);
                }
            }
        }
        if let Some(accepting) = &mut self.accepting
            && self.prepared
            && accepting.by != self.me
        {
            accepting.sent = now;
            actions.send(accepting.by, Message::Accept { epoch: accepting.view.epoch });
        }
    }

    /// The kernel is silent too long or announced its death: somebody has to stop it.
    fn conclude(&mut self, now: u64, victim: KernelId, announced: bool, actions: &mut impl Actions) {
        let known = self.fencing.contains(&victim) || self.stopped.contains_key(&victim) || self.is_dead(victim);
        if known || self.phase == Phase::Leaving {
            return;
        }
        self.concluded.insert(victim);
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
                Claim::Unreachable if announced => return self.declare_dead(now, victim, Outcome::Parked, actions),
                Claim::Unreachable => return self.vote(now, victim, actions),
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

    fn declare_stopped(&mut self, now: u64, actions: &mut impl Actions) {
        loop {
            let ready = self.stopped.iter().find(|(victim, (_, holder))| {
                holder == *victim || self.is_dead(*holder) || self.stopped.contains_key(holder)
            });
            let Some((&victim, &(outcome, _))) = ready else { return };
            // The one it was taken from stays in the table, or is dead: so it is found for the other one too.
            self.declare_dead(now, victim, outcome, actions);
        }
    }

    fn votes_count(&self) -> bool {
        self.view.members.len() > 1
    }

    /// Whether these members of the last view may go on without the others.
    fn is_quorum(&self, alive: &[KernelId]) -> bool {
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

    fn count_votes(&mut self, now: u64, victim: KernelId, actions: &mut impl Actions) {
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

    fn died(&mut self, now: u64, by: KernelId, victim: KernelId, outcome: Outcome, actions: &mut impl Actions) {
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
        self.declare_stopped(now, actions);
        self.propose(now, actions);
    }

    /// A member that is behind is told what is in force: its Install got lost.
    fn teach(&self, peer: KernelId, epoch: u32, actions: &mut impl Actions) {
        if epoch < self.view.epoch && self.view.contains(peer) {
            actions.send(peer, Message::Install { view: self.view.clone() });
        }
    }

    // -- messages --------------------------------------------------------------------------------------------------

    fn received(&mut self, now: u64, from: KernelId, message: Message, actions: &mut impl Actions) {
        if self.is_dead(from) {
            // It does not know, so it was not stopped: tell it.
            if !matches!(message, Message::Dead { .. } | Message::ProbeReply { .. })
                && let Some(outcome) = self.outcome(from.index)
            {
                actions.send(from, Message::Dead { kernel: from, outcome });
            }
            return;
        }
        if self.detector.alive(from) {
            self.heard_again(from, actions);
        }
        match message {
            Message::Probe { nonce, epoch } => {
                actions.send(from, Message::ProbeReply { nonce, epoch: self.view.epoch });
                self.teach(from, epoch, actions);
            }
            Message::ProbeReply { epoch, .. } => self.teach(from, epoch, actions),
            Message::Join { kernel } => self.join(now, kernel, actions),
            Message::Refused { kernel, .. } => {
                if kernel == self.me && self.phase == Phase::Outside {
                    self.park("refused by the coordinator", actions);
                }
            }
            Message::Suspect { kernel, silent } => {
                if let Some(outcome) = self.outcome(kernel.index).filter(|_| self.is_dead(kernel)) {
                    actions.send(from, Message::Dead { kernel, outcome });
                } else if silent && kernel != self.me {
                    self.votes.entry(kernel).or_default().insert(from);
                    self.suspect(now, kernel);
                    self.count_votes(now, kernel, actions);
                } else if let Some(votes) = self.votes.get_mut(&kernel) {
                    votes.remove(&from);
                }
            }
            Message::Dead { kernel, outcome } => {
                if kernel == self.me {
                    self.park("declared dead", actions);
                } else {
                    self.died(now, from, kernel, outcome, actions);
                }
            }
            Message::Propose { epoch, base, members } => {
                self.proposed(now, from, base, View { epoch, members }, actions);
            }
            Message::Accept { epoch } => self.accepted(now, from, epoch, actions),
            Message::Refuse { epoch, highest, installed } => self.refused(now, epoch, highest, installed, actions),
            Message::Install { view } => self.installed(now, view, actions),
            Message::Goodbye => {
                if self.phase != Phase::Outside {
                    self.conclude(now, from, true, actions);
                }
            }
        }
    }
}
