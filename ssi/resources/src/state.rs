//! The registry as a state machine without I/O.
//!
//! Every kernel has a *record* of each resource: who holds it, since which *term*. Terms grow with every holder; of two records the one with the later
//! term is true. When a holder dies and the view is without it, the first kernel in the resource's order *claims* it: it asks every member of its view. Whoever holds the
//! resource, or claims it and came first, refuses; all others grant, and do not claim it themselves as long as the claimant lives. With the
//! last grant the claimant takes the resource, and tells everybody when it has it.
//!
//! # Why there is one owner
//! A kernel that runs is in every view that is in force, so a claimant asks the holder and every other claimant, unless they came into the machine after
//! its view; then they asked *it* before they took anything, and it refused. Of two claimants that ask each other the one with the earlier term goes on (in
//! one term: the one that stands first in the order), and the other one gives up. Nobody is called dead before it is stopped; where a
//! kernel could not be stopped ([`Event::Down`] with `lost`), what it had or was about to take is lost, and lost for ever.
//!
//! # Invariants
//! * At most one kernel that runs owns a resource or is about to take it.
//! * The terms under which a kernel claims one resource grow, so a late grant never counts for a new claim.
//! * A grant, a refusal, a death: every claim ends.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use base::KernelId;

/// Some of the resources of the machine, by number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Set(pub u64);

impl Set {
    /// The most resources there can be.
    pub const MAX: usize = 64;

    /// One resource; nothing for a number that none has.
    pub const fn one(number: usize) -> Self {
        if number < Self::MAX { Self(1 << number) } else { Self(0) }
    }

    /// Whether a resource is in it.
    pub const fn has(self, number: usize) -> bool {
        self.0 & Self::one(number).0 != 0
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in either.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The numbers in it.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..Self::MAX).filter(move |number| self.has(*number))
    }
}

/// What the plan says about a resource.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The kernel that has it from its first boot.
    pub owner: u16,
    /// Who may own it, the first live one first.
    pub order: Vec<u16>,
}

/// How a resource is held.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Standing {
    /// By this kernel.
    Held(KernelId),
    /// By nobody: its holder died.
    Free,
    /// Its holder died and could not be stopped: nobody may touch it any more.
    Lost,
}

/// What is known of a resource.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Record {
    /// Grows with every holder; 0 for the first.
    pub term: u32,
    /// Who holds it, or held it in this term.
    pub standing: Standing,
}

impl Record {
    /// Which of two is nearer to now.
    fn rank(&self) -> (bool, u32, bool) {
        (self.standing == Standing::Lost, self.term, self.standing == Standing::Free)
    }
}

/// What kernels say to each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// The sender wants these.
    Claim {
        /// The epoch of the sender's view: who has an older one answers when it has this one.
        epoch: u32,
        /// The term that would begin.
        term: u32,
        /// Which.
        set: Set,
    },
    /// The answerer has nothing against it.
    Grant {
        /// Of the claim.
        term: u32,
        /// The latest term that the answerer has heard of: the holder's will be later.
        known: u32,
        /// Which.
        set: Set,
    },
    /// The answerer claims these itself, and came first.
    Busy {
        /// Of its claim.
        term: u32,
        /// Which.
        set: Set,
    },
    /// The sender gives up its claim.
    Yield {
        /// Which.
        set: Set,
    },
    /// What the sender knows: news, or the refusal of a claim.
    Is {
        /// The record of these.
        record: Record,
        /// Which.
        set: Set,
    },
}

impl Message {
    /// Which resources it is about.
    pub const fn set(&self) -> Set {
        match self {
            Self::Claim { set, .. }
            | Self::Grant { set, .. }
            | Self::Busy { set, .. }
            | Self::Yield { set }
            | Self::Is { set, .. } => *set,
        }
    }

    /// The same about other resources.
    const fn about(mut self, of: Set) -> Self {
        match &mut self {
            Self::Claim { set, .. }
            | Self::Grant { set, .. }
            | Self::Busy { set, .. }
            | Self::Yield { set }
            | Self::Is { set, .. } => *set = of,
        }
        self
    }
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The membership has a new view.
    View {
        /// Its number; grows.
        epoch: u32,
        /// Its members, this kernel among them.
        members: Vec<KernelId>,
    },
    /// A kernel is dead.
    Down {
        /// Which.
        kernel: KernelId,
        /// It could not be stopped.
        lost: bool,
    },
    /// A message came.
    Received {
        /// From this kernel.
        from: KernelId,
        /// What it says.
        message: Message,
    },
    /// This kernel has taken over what [`Actions::take`] gave it.
    Taken {
        /// Which.
        set: Set,
    },
}

/// What the state machine wants done, in this order, after its lock is dropped.
pub trait Actions {
    /// Tell a peer. Messages to one peer keep their order.
    fn send(&mut self, to: KernelId, message: Message);
    /// These are this kernel's from now on: take them over from whatever state they are in, then say [`Event::Taken`].
    fn take(&mut self, set: Set);
    /// Another kernel has these now, or nobody has.
    fn changed(&mut self, set: Set);
}

/// What this kernel has to do with a resource.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Mine {
    Nothing,
    /// The latest term that anybody has heard of, who has not answered yet, and who was told that this kernel came first.
    Claims {
        term: u32,
        known: u32,
        waiting: BTreeSet<KernelId>,
        refused: BTreeSet<KernelId>,
    },
    Takes {
        term: u32,
    },
    Owns,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Resource {
    order: Vec<u16>,
    record: Record,
    /// As the plan has it: nobody needs to be told of that.
    planned: bool,
    mine: Mine,
    /// The latest term that this kernel has heard of: of a holder or of a claim, its own among them.
    known: u32,
    /// Claimants to whom it was granted or who said that they came first, with their terms.
    promised: BTreeMap<KernelId, u32>,
}

impl Resource {
    /// Where a kernel stands among those who may own it.
    fn place(&self, kernel: KernelId) -> usize {
        self.order.iter().position(|index| *index == kernel.index).unwrap_or(usize::MAX)
    }
}

/// Messages of one step, those that differ only in what they are about put together.
#[derive(Default)]
struct Outbox {
    messages: Vec<(KernelId, Message)>,
    taken: Set,
    changed: Set,
}

impl Outbox {
    fn send(&mut self, to: KernelId, message: Message) {
        let same = self.messages.iter_mut().find(|(k, m)| *k == to && m.about(Set(0)) == message.about(Set(0)));
        match same {
            Some((_, m)) => *m = m.about(m.set().and(message.set())),
            None => self.messages.push((to, message)),
        }
    }
}

/// The registry of one kernel.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Registry {
    me: KernelId,
    epoch: u32,
    members: Vec<KernelId>,
    /// The dead: their highest dead incarnation by index, and whether it could not be stopped.
    dead: BTreeMap<u16, (u32, bool)>,
    resources: Vec<Resource>,
    /// Claims made under a view that has not reached this kernel yet.
    ahead: Vec<(KernelId, Message)>,
}

impl Registry {
    /// The registry of kernel `me`, in no view yet. Resources beyond [`Set::MAX`] do not exist.
    pub fn new(me: KernelId, plans: Vec<Plan>) -> Self {
        let resource = |plan: Plan| {
            let first = KernelId { index: plan.owner, incarnation: 1 };
            // What an index had in its first life is free in its later ones, or somebody else has it and will say so.
            let former = plan.owner == me.index && me.incarnation > 1;
            Resource {
                order: plan.order,
                record: Record { term: 0, standing: if former { Standing::Free } else { Standing::Held(first) } },
                planned: true,
                mine: if first == me { Mine::Owns } else { Mine::Nothing },
                known: 0,
                promised: BTreeMap::new(),
            }
        };
        Self {
            me,
            epoch: 0,
            members: Vec::new(),
            dead: BTreeMap::new(),
            resources: plans.into_iter().take(Set::MAX).map(resource).collect(),
            ahead: Vec::new(),
        }
    }

    /// What is known of a resource.
    pub fn record(&self, number: usize) -> Option<Record> {
        self.resources.get(number).map(|r| r.record)
    }

    /// The kernel that has a resource, as far as is known.
    pub fn owner(&self, number: usize) -> Option<KernelId> {
        match self.record(number)?.standing {
            Standing::Held(owner) => Some(owner),
            Standing::Free | Standing::Lost => None,
        }
    }

    /// What a kernel has, as far as is known.
    pub fn owned_by(&self, kernel: KernelId) -> Set {
        let had = (0..self.resources.len()).filter(|number| self.owner(*number) == Some(kernel));
        had.fold(Set(0), |set, number| set.and(Set::one(number)))
    }

    /// What this kernel has or takes over just now.
    pub fn mine(&self) -> Set {
        let mine = |r: &Resource| matches!(r.mine, Mine::Takes { .. } | Mine::Owns);
        let numbers = self.resources.iter().enumerate().filter(|(_, r)| mine(r));
        numbers.fold(Set(0), |set, (number, _)| set.and(Set::one(number)))
    }

    /// The epoch of its view; 0 before it is in one.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether a claim or a take-over is under way here.
    pub fn is_busy(&self) -> bool {
        self.resources.iter().any(|r| matches!(r.mine, Mine::Claims { .. } | Mine::Takes { .. }))
    }

    /// What it does with one of its resources, the most of what it does with any, for the simulator's table of what met what.
    pub fn situation(&self) -> &'static str {
        let any = |which: fn(&Mine) -> bool| self.resources.iter().any(|r| which(&r.mine));
        match () {
            () if self.epoch == 0 => "outside",
            () if any(|mine| matches!(mine, Mine::Takes { .. })) => "taking",
            () if any(|mine| matches!(mine, Mine::Claims { .. })) => "claiming",
            () if any(|mine| matches!(mine, Mine::Owns)) => "owning",
            () => "without",
        }
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    fn is_dead(&self, kernel: KernelId) -> bool {
        self.dead.get(&kernel.index).is_some_and(|(incarnation, _)| *incarnation >= kernel.incarnation)
    }

    fn is_lost(&self, kernel: KernelId) -> bool {
        self.dead.get(&kernel.index).is_some_and(|(incarnation, lost)| *incarnation == kernel.incarnation && *lost)
    }

    /// One step.
    pub fn step(&mut self, event: Event, actions: &mut impl Actions) {
        let mut out = Outbox::default();
        match event {
            Event::View { epoch, members } => self.view(epoch, members, &mut out),
            Event::Down { kernel, lost } => self.down(kernel, lost, &mut out),
            Event::Received { from, message } => self.received(from, message, &mut out),
            Event::Taken { set } => self.taken(set, &mut out),
        }
        self.claim(&mut out);
        for (to, message) in out.messages {
            actions.send(to, message);
        }
        if !out.taken.is_empty() {
            actions.take(out.taken);
        }
        if !out.changed.is_empty() {
            actions.changed(out.changed);
        }
    }

    fn view(&mut self, epoch: u32, members: Vec<KernelId>, out: &mut Outbox) {
        if epoch <= self.epoch {
            return;
        }
        self.epoch = epoch;
        let old = core::mem::replace(&mut self.members, members);
        // Who is new does not know what has changed since the machine was switched on.
        for &newcomer in self.members.iter().filter(|k| **k != self.me && !old.contains(k)) {
            for (number, r) in self.resources.iter().enumerate().filter(|(_, r)| !r.planned) {
                out.send(newcomer, Message::Is { record: r.record, set: Set::one(number) });
            }
        }
        for (from, message) in core::mem::take(&mut self.ahead) {
            self.received(from, message, out);
        }
    }

    fn down(&mut self, kernel: KernelId, lost: bool, out: &mut Outbox) {
        if self.is_dead(kernel) {
            return;
        }
        self.dead.insert(kernel.index, (kernel.incarnation, lost));
        self.ahead.retain(|(from, _)| *from != kernel);
        for number in 0..self.resources.len() {
            let Some(r) = self.resources.get_mut(number) else { continue };
            let promised = r.promised.remove(&kernel).is_some();
            if let Mine::Claims { waiting, .. } = &mut r.mine {
                waiting.remove(&kernel);
            }
            let (term, held) = (r.record.term, r.record.standing == Standing::Held(kernel));
            // A claimant may have begun to take what is free; what somebody has it has not got.
            if lost && (held || promised && r.record.standing == Standing::Free) {
                self.give_up(number, out);
                let record = Record { term, standing: Standing::Lost };
                self.learn(number, record, out);
                // Others may think that it could be stopped.
                for &peer in self.members.iter().filter(|k| **k != self.me) {
                    out.send(peer, Message::Is { record, set: Set::one(number) });
                }
            } else if held {
                self.learn(number, Record { term, standing: Standing::Free }, out);
            }
            self.take_if_granted(number, out);
        }
    }

    fn received(&mut self, from: KernelId, message: Message, out: &mut Outbox) {
        if self.is_dead(from) || from == self.me {
            return;
        }
        if let Message::Claim { epoch, .. } = message
            && epoch > self.epoch
        {
            // Under the claimant's view this kernel may know of a holder, or of a claim, that it does not know of now.
            self.ahead.push((from, message));
            return;
        }
        let known = self.resources.len();
        for number in message.set().iter().filter(|number| *number < known) {
            match message {
                Message::Claim { term, .. } => self.claimed(number, from, term, out),
                Message::Grant { term, known, .. } => {
                    if let Some(Resource { mine: Mine::Claims { term: asked, known: latest, waiting, .. }, .. }) =
                        self.resources.get_mut(number)
                        && *asked == term
                    {
                        waiting.remove(&from);
                        *latest = known.max(*latest);
                    }
                    self.take_if_granted(number, out);
                }
                Message::Busy { term, .. } => {
                    self.give_up(number, out);
                    if let Some(r) = self.resources.get_mut(number) {
                        r.promised.insert(from, term);
                    }
                }
                Message::Yield { .. } => {
                    if let Some(r) = self.resources.get_mut(number) {
                        r.promised.remove(&from);
                    }
                }
                Message::Is { record, .. } => self.told(number, from, record, out),
            }
        }
    }

    /// Another kernel claims a resource.
    fn claimed(&mut self, number: usize, from: KernelId, term: u32, out: &mut Outbox) {
        let Some(r) = self.resources.get(number) else { return };
        let set = Set::one(number);
        match &r.mine {
            Mine::Owns => return out.send(from, Message::Is { record: r.record, set }),
            Mine::Takes { term: mine } => {
                let record = Record { term: *mine, standing: Standing::Held(self.me) };
                return out.send(from, Message::Is { record, set });
            }
            _ if r.record.standing == Standing::Lost => return out.send(from, Message::Is { record: r.record, set }),
            Mine::Claims { term: mine, .. } if (*mine, r.place(self.me)) < (term, r.place(from)) => {
                out.send(from, Message::Busy { term: *mine, set });
                if let Some(Resource { mine: Mine::Claims { refused, .. }, .. }) = self.resources.get_mut(number) {
                    refused.insert(from);
                }
                return;
            }
            Mine::Claims { .. } => self.give_up(number, out),
            Mine::Nothing => {}
        }
        if let Some(r) = self.resources.get_mut(number) {
            r.promised.insert(from, term);
            out.send(from, Message::Grant { term, known: r.known, set });
            r.known = term.max(r.known);
        }
    }

    /// A peer says what it knows.
    fn told(&mut self, number: usize, from: KernelId, record: Record, out: &mut Outbox) {
        let mut record = record;
        match record.standing {
            Standing::Held(owner) if owner == self.me => return,
            Standing::Held(owner) if self.is_lost(owner) => record.standing = Standing::Lost,
            Standing::Held(owner) if self.is_dead(owner) => record.standing = Standing::Free,
            Standing::Held(owner) => {
                self.give_up(number, out);
                if let Some(r) = self.resources.get_mut(number) {
                    r.promised.remove(&owner);
                    if from == owner && r.mine == Mine::Nothing && r.record != record {
                        // Nobody knows it better.
                        r.known = record.term.max(r.known);
                        (r.record, r.planned) = (record, false);
                        out.changed = out.changed.and(Set::one(number));
                    }
                }
            }
            Standing::Lost => self.give_up(number, out),
            Standing::Free => {}
        }
        self.learn(number, record, out);
    }

    /// Believes a record if it is nearer to now than what is known.
    fn learn(&mut self, number: usize, record: Record, out: &mut Outbox) {
        let Some(r) = self.resources.get_mut(number) else { return };
        // What this kernel has it knows best.
        if matches!(r.mine, Mine::Takes { .. } | Mine::Owns) || record.rank() <= r.record.rank() {
            return;
        }
        r.record = record;
        r.known = record.term.max(r.known);
        r.planned = false;
        out.changed = out.changed.and(Set::one(number));
    }

    /// Ends a claim of this kernel.
    fn give_up(&mut self, number: usize, out: &mut Outbox) {
        let Some(r) = self.resources.get_mut(number) else { return };
        if let Mine::Claims { refused, .. } = &mut r.mine {
            // Those who were told that this kernel came first may be in a view that it has not seen yet.
            let told = core::mem::take(refused);
            r.mine = Mine::Nothing;
            let others = self.members.iter().copied().filter(|k| *k != self.me);
            for peer in others.chain(told).collect::<BTreeSet<_>>() {
                out.send(peer, Message::Yield { set: Set::one(number) });
            }
        }
    }

    /// Claims what is free, if this kernel is the next one.
    fn claim(&mut self, out: &mut Outbox) {
        let alive = self.members.clone();
        // As long as the view still has a dead kernel, so have other services: who takes over finds nothing of it any more.
        if !alive.contains(&self.me) || alive.iter().any(|k| self.is_dead(*k)) {
            return;
        }
        for number in 0..self.resources.len() {
            let Some(r) = self.resources.get_mut(number) else { continue };
            let first = r.order.iter().find_map(|index| alive.iter().find(|k| k.index == *index));
            let free = r.record.standing == Standing::Free && r.mine == Mine::Nothing && r.promised.is_empty();
            if !free || first != Some(&self.me) {
                continue;
            }
            let known = r.known;
            let term = self.epoch.max(known.saturating_add(1));
            r.known = term;
            let waiting: BTreeSet<KernelId> = alive.iter().copied().filter(|k| *k != self.me).collect();
            for &peer in &waiting {
                out.send(peer, Message::Claim { epoch: self.epoch, term, set: Set::one(number) });
            }
            r.mine = Mine::Claims { term, known, waiting, refused: BTreeSet::new() };
            self.take_if_granted(number, out);
        }
    }

    /// The last grant came.
    fn take_if_granted(&mut self, number: usize, out: &mut Outbox) {
        let Some(r) = self.resources.get_mut(number) else { return };
        if let Mine::Claims { term, known, waiting, .. } = &r.mine
            && waiting.is_empty()
        {
            r.mine = Mine::Takes { term: known.saturating_add(1).max(*term) };
            out.taken = out.taken.and(Set::one(number));
        }
    }

    /// This kernel has what it took: everybody is told.
    fn taken(&mut self, set: Set, out: &mut Outbox) {
        for number in set.iter() {
            let Some(r) = self.resources.get_mut(number) else { continue };
            let Mine::Takes { term } = r.mine else { continue };
            r.record = Record { term, standing: Standing::Held(self.me) };
            r.planned = false;
            r.mine = Mine::Owns;
            out.changed = out.changed.and(Set::one(number));
            for &peer in self.members.iter().filter(|k| **k != self.me) {
                out.send(peer, Message::Is { record: r.record, set: Set::one(number) });
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
