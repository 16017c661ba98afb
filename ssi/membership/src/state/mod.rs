//! The membership protocol, without I/O.
//!
//! * **Views.** The coordinator (the live member with the lowest index) proposes the next view; every member of it lets go of what the
//!   view excludes and accepts; then it is in force. Who has installed a newer view than the proposal builds on refuses and says what it
//!   knows, so a coordinator that takes over from a dead one loses nobody who was let in.
//! * **Death.** A kernel that announces its death or is silent too long is fenced by who wins its fence word; if the fencer dies, the next one
//!   takes the word from it. Only when it is stopped is it called dead, so in a machine with shared memory nobody is ever declared dead and goes on.
//! * **Guilt.** A kernel that sends what is no message, or breaks a ring, is treated like one that is silent too long, whether it goes on or not: what
//!   it does to the memory that it shares cannot be known any more.
//! * **Of several boards** that do not reach each other's fence words a kernel is left to those of its own board. If a whole board is silent it is as
//!   if there were no fence words.
//! * **Without a fence word** silence is voted on, and only a majority of the last view goes on (of an even split the side with the lowest
//!   index); the rest parks itself. Such a dead kernel is lost: what it had is not used again.

mod deaths;
mod views;

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use base::{Errno, KernelId};

use crate::{
    config::Config,
    detector::{Detector, Finding},
    types::{Actions, Event, Message, Outcome, View},
};

/// Why a kernel parks itself that is refused because another one has its index.
pub const IN_THE_WAY: &str = "another kernel has its place";

/// What this kernel is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
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
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Proposal {
    view: View,
    waiting: BTreeSet<KernelId>,
    since: u64,
    sent: u64,
}

/// A view that this kernel was asked to accept.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Accepting {
    by: KernelId,
    view: View,
    sent: u64,
}

/// The membership of one kernel.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
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
    /// Who is left to another kernel of its board, which reaches its fence word, and whether it announced its end.
    left: BTreeMap<KernelId, (KernelId, bool)>,
    /// The board of each kernel, if fence words reach no further than a board; else empty.
    boards: Vec<usize>,
    /// Who broke the rules and was not judged yet.
    guilty: BTreeSet<KernelId>,
    /// Who votes against whom; only without fence words.
    votes: BTreeMap<KernelId, BTreeSet<KernelId>>,
    contacts: Vec<KernelId>,
    next_contact: usize,
    next_again: u64,
    nonce: u64,
}

impl Membership {
    /// The membership of kernel `me`, which is in no view yet. `boards`: the board of each kernel by its index, if fence words reach no further than
    /// a board; empty if a kernel reaches all of them, or none.
    pub const fn new(me: KernelId, config: Config, boards: Vec<usize>) -> Self {
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
            left: BTreeMap::new(),
            boards,
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
        let waits = self.proposal.is_some() || self.accepting.is_some() || !self.left.is_empty();
        let again = if self.phase == Phase::Outside || waits { self.next_again.max(now + 1) } else { u64::MAX };
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
        for (&kernel, &(mate, _)) in &self.left {
            actions.send(mate, Message::Suspect { kernel, silent: true });
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
            Message::Refused { kernel, errno } => {
                if kernel == self.me && self.phase == Phase::Outside {
                    let busy = errno == Errno::EBUSY as u16;
                    self.park(if busy { IN_THE_WAY } else { "refused by the coordinator" }, actions);
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
