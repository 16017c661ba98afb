//! The machine: kernels, links, a clock, a queue of what happens next. One thread, no chance but the seed's.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    rc::Rc,
};

use base::KernelId;
use membership::{Config, Event, Membership, Message, Outcome, Phase, View};
use wire::Lane;

use crate::{
    Options,
    coverage::Coverage,
    effects::Hands,
    judge::{Judge, Rule},
    plan::{Medium, Plan},
    rng::Rng,
    service::{Body, Context, SimService, Suite},
};

/// Makes another stream of chance out of a seed.
const MADNESS: u64 = 0x6d61_646e_6573_7321;
/// A seed with 16 kernels takes some ten thousand.
const MOST_STEPS: u64 = 2_000_000;
/// A millisecond.
pub const MS: u64 = 1_000_000;

/// What travels.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Membership(Message),
    Service(usize, Rc<dyn Body>),
}

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Deliver {
        from: KernelId,
        to: KernelId,
        payload: Payload,
    },
    Tick {
        node: KernelId,
        turn: u64,
    },
    Timer {
        node: KernelId,
        service: usize,
        turn: u64,
    },
    /// It has let go of what a view excludes.
    Prepared {
        node: KernelId,
        epoch: u32,
        excluded: Vec<KernelId>,
    },
    /// The fencer's interrupt arrives.
    Stop {
        victim: KernelId,
    },
    Fenced {
        fencer: KernelId,
        victim: KernelId,
        outcome: Outcome,
    },
    /// The doorbell of a dying kernel.
    Notice {
        node: KernelId,
        dying: KernelId,
    },
    /// What came is no message, if it comes to a member.
    Garbage {
        from: KernelId,
        to: KernelId,
        payload: Payload,
    },
    /// A kernel begins to send garbage.
    Madness {
        index: u16,
    },
    /// A debugger holds a kernel for so long.
    Hold {
        index: u16,
        ns: u64,
    },
    /// A kernel hears that somebody is held, or that nobody is any more.
    Held {
        node: KernelId,
        held: bool,
    },
    Operate,
    Restart {
        index: u16,
    },
    Heal,
}

impl Item {
    /// On which kernel it happens; `None` for what happens to the machine.
    const fn node(&self) -> Option<KernelId> {
        match self {
            Self::Deliver { to: node, .. }
            | Self::Garbage { to: node, .. }
            | Self::Tick { node, .. }
            | Self::Timer { node, .. }
            | Self::Prepared { node, .. }
            | Self::Fenced { fencer: node, .. }
            | Self::Held { node, .. }
            | Self::Notice { node, .. } => Some(*node),
            Self::Stop { .. }
            | Self::Madness { .. }
            | Self::Hold { .. }
            | Self::Operate
            | Self::Restart { .. }
            | Self::Heal => None,
        }
    }
}

/// One kernel.
pub(crate) struct Node {
    pub id: KernelId,
    pub membership: Membership,
    pub parts: Vec<Box<dyn SimService>>,
    /// It runs no more, in this incarnation.
    pub stopped: bool,
    /// It does nothing, but it is not stopped: nobody knows what its CPUs and devices do.
    pub hung: bool,
    pub parked: bool,
    pub paused_from: u64,
    pub paused_until: u64,
    /// For how long it is or was paused, for the check of false deaths.
    pub pause: u64,
    /// It sends what nobody should.
    pub mad: bool,
    /// It dies in the middle of its next step that has so many effects, after that many of them.
    pub torn: Option<usize>,
    /// Who got such a thing from it.
    pub caught: BTreeSet<KernelId>,
    pub beats: u64,
    pub fence_word: u64,
    /// Whose memory it maps.
    pub mapped: BTreeSet<KernelId>,
    /// Whose links it closed.
    pub closed: BTreeSet<KernelId>,
    /// Its open links: by index, to which incarnation. There is no other to that index before it is closed.
    pub open: BTreeMap<u16, u32>,
    pub fencing: BTreeSet<KernelId>,
    /// The epoch it is in.
    pub entered: u32,
    /// When it entered its first view.
    pub member_since: u64,
    turn: u64,
    timer_turns: Vec<u64>,
}

impl Node {
    /// Whether its CPUs may still do something.
    pub const fn is_live(&self) -> bool {
        !self.stopped && !self.parked
    }

    /// Closes its link to an incarnation before this one.
    pub fn close_before(&mut self, member: KernelId) {
        self.open.retain(|index, incarnation| *index != member.index || *incarnation >= member.incarnation);
    }

    /// A message goes to a kernel or came from it: the link is open from then on.
    fn talk(&mut self, to: KernelId) {
        if !self.membership.is_dead(to) {
            self.open.entry(to.index).or_insert(to.incarnation);
        }
    }

    /// Whether it works.
    pub const fn runs(&self) -> bool {
        self.is_live() && !self.hung
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Steps of state machines.
    pub events: u64,
    /// Messages.
    pub messages: u64,
    /// Operations that were started.
    pub operations: u64,
    /// Faults that happened.
    pub faults: u64,
    /// Views that came into force.
    pub views: u64,
    /// Kernels that were declared dead.
    pub deaths: u64,
}

/// What of a seed is kept: a failing one is made smaller by leaving out what it does not need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Only {
    /// These operations, by number; all if there is no list.
    pub operations: Option<BTreeSet<u32>>,
    /// These faults, by number; all if there is no list.
    pub faults: Option<BTreeSet<u32>>,
}

/// A machine in the middle of a run.
pub struct World {
    pub(crate) only: Only,
    pub(crate) judge: Judge,
    /// What met what.
    pub coverage: Coverage,
    pub(crate) now: u64,
    pub(crate) rng: Rng,
    pub(crate) plan: Plan,
    pub(crate) nodes: Vec<Node>,
    pub(crate) suites: Vec<Box<dyn Suite>>,
    pub(crate) report: Report,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    items: BTreeMap<u64, Item>,
    serial: u64,
    lanes: BTreeMap<(KernelId, KernelId, usize), u64>,
    pub(crate) epochs: BTreeMap<u32, Vec<KernelId>>,
    pub(crate) deaths: BTreeSet<KernelId>,
    pub(crate) cut: BTreeSet<u16>,
    /// Some were.
    pub(crate) was_cut: bool,
    pub(crate) faults: u32,
    pub(crate) next_fault: u64,
    /// Who goes mad, when, and what it sends is not drawn from the same stream as the rest: seeds without it are as they were.
    pub(crate) madness: Rng,
    print: bool,
}

impl World {
    /// The machine of a seed, before its first step.
    pub fn new(seed: u64, suites: Vec<Box<dyn Suite>>, options: &Options) -> Self {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::of(&mut rng);
        if let Some(kernels) = options.kernels {
            plan.kernels = kernels;
        }
        let mut world = Self {
            now: 0,
            rng,
            plan,
            nodes: Vec::new(),
            suites,
            report: Report::default(),
            queue: BinaryHeap::new(),
            items: BTreeMap::new(),
            serial: 0,
            lanes: BTreeMap::new(),
            epochs: BTreeMap::new(),
            deaths: BTreeSet::new(),
            cut: BTreeSet::new(),
            was_cut: false,
            faults: 0,
            next_fault: 0,
            madness: Rng::new(seed ^ MADNESS),
            print: options.trace,
            only: options.only.clone(),
            judge: options.judge.clone(),
            coverage: Coverage::default(),
        };
        world.note(|w| format!("plan {:?}", w.plan));
        for index in 0..world.plan.kernels {
            let node = world.node(KernelId { index, incarnation: 1 });
            world.nodes.push(node);
        }
        world
    }

    pub(crate) fn node(&self, id: KernelId) -> Node {
        let parts: Vec<_> = self.suites.iter().map(|s| s.start(id, self.plan.kernels)).collect();
        Node {
            id,
            membership: Membership::new(id, Config::new(), self.plan.boards()),
            timer_turns: vec![0; parts.len()],
            parts,
            stopped: false,
            hung: false,
            parked: false,
            paused_from: 0,
            paused_until: 0,
            pause: 0,
            mad: false,
            torn: None,
            caught: BTreeSet::new(),
            beats: 0,
            fence_word: 0,
            mapped: BTreeSet::new(),
            closed: BTreeSet::new(),
            open: BTreeMap::new(),
            fencing: BTreeSet::new(),
            turn: 0,
            entered: 0,
            member_since: 0,
        }
    }

    /// Writes a line of the trace.
    pub(crate) fn note(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.print {
            let line = text(self);
            println!("{:>13.6} ms  {line}", self.now as f64 / MS as f64);
        }
    }

    pub(crate) fn schedule(&mut self, at: u64, item: Item) {
        self.serial += 1;
        self.queue.push(Reverse((at.max(self.now), self.serial)));
        self.items.insert(self.serial, item);
    }

    pub(crate) fn find(&self, id: KernelId) -> Option<usize> {
        self.nodes.iter().position(|n| n.id == id)
    }

    /// Runs the seed.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn run(&mut self) -> Result<Report, String> {
        self.start()?;
        let quiet = self.plan.busy + 40_000 * MS;
        while let Some(Reverse((at, serial))) = self.queue.pop() {
            if at > quiet {
                break;
            }
            self.now = at;
            let Some(item) = self.items.remove(&serial) else { continue };
            self.happen(serial, item)?;
            if self.report.events > MOST_STEPS {
                return Err(format!("[{}] {} steps", Rule::Calm.name(), self.report.events));
            }
            // At the latest in time for the others: where few are left little happens.
            let late = self.plan.busy / u64::from(self.plan.faults + 1) * u64::from(self.faults + 1);
            let due = self.report.events >= self.next_fault || self.now >= late;
            if self.now < self.plan.busy && self.faults < self.plan.faults && due {
                self.fault();
            }
        }
        self.finish()?;
        Ok(self.report)
    }

    fn start(&mut self) -> Result<(), String> {
        let first = self.nodes[0].id;
        self.membership(first, Event::Found)?;
        for index in 1..self.plan.kernels {
            // A tree: each is started by one that was started before it.
            let parent = self.rng.below(u64::from(index)) as u16;
            let contacts = vec![KernelId { index: parent, incarnation: 1 }, first];
            self.now += self.rng.below(20 * MS);
            let me = self.nodes[usize::from(index)].id;
            self.membership(me, Event::Enter { contacts })?;
        }
        let pace = self.plan.busy / u64::from(self.plan.operations);
        let mut at = 0;
        for _ in 0..self.plan.operations {
            at += self.rng.below(2 * pace);
            self.schedule(at, Item::Operate);
        }
        self.next_fault = self.rng.below(200);
        // Where nobody can be fenced, nobody can do anything about it.
        if self.plan.medium == Medium::Shared && self.madness.one_in(4) {
            let index = self.madness.below(u64::from(self.plan.kernels)) as u16;
            let at = self.madness.below(self.plan.busy);
            self.schedule(at, Item::Madness { index });
        }
        if self.plan.medium == Medium::Shared && self.madness.one_in(6) {
            let index = self.madness.below(u64::from(self.plan.kernels)) as u16;
            let (at, ns) = (self.madness.below(self.plan.busy), self.madness.between(100, 9000) * MS);
            self.schedule(at, Item::Hold { index, ns });
        }
        Ok(())
    }

    fn happen(&mut self, serial: u64, item: Item) -> Result<(), String> {
        if let Some(id) = item.node() {
            let Some(at) = self.find(id) else { return Ok(()) };
            let node = &self.nodes[at];
            if !node.runs() {
                return Ok(());
            }
            if node.paused_until > self.now {
                // In the order in which it would have come.
                self.queue.push(Reverse((node.paused_until, serial)));
                self.items.insert(serial, item);
                return Ok(());
            }
        }
        match item {
            Item::Deliver { from, to, payload } => self.deliver(from, to, payload),
            Item::Tick { node, turn } => self.tick(node, turn),
            Item::Timer { node, service, turn } => {
                let at = self.find(node).filter(|at| self.nodes[*at].timer_turns[service] == turn);
                at.map_or(Ok(()), |at| self.service(at, service, |part, context| part.timer(context)))
            }
            Item::Prepared { node, epoch, excluded } => {
                if let Some(at) = self.find(node) {
                    self.nodes[at].mapped.retain(|kernel| !excluded.contains(kernel));
                }
                self.membership(node, Event::Prepared { epoch })
            }
            Item::Stop { victim } => {
                self.stop(victim);
                Ok(())
            }
            Item::Fenced { fencer, victim, outcome } => {
                if let Some(at) = self.find(fencer) {
                    self.nodes[at].fencing.remove(&victim);
                }
                self.membership(fencer, Event::Fenced { victim, outcome })
            }
            Item::Notice { node, dying } => self.membership(node, Event::Dying { peer: dying }),
            Item::Garbage { from, to, payload } => self.garbage(from, to, payload),
            Item::Madness { index } => {
                if let Some(node) = self.nodes.get_mut(usize::from(index)).filter(|node| node.runs()) {
                    let id = node.id;
                    node.mad = true;
                    self.report.faults += 1;
                    self.note(|_| format!("{id} goes mad"));
                    let at = self.now + self.madness.between(2000, 9000) * MS;
                    self.schedule(at, Item::Restart { index });
                }
                Ok(())
            }
            Item::Hold { index, ns } => {
                self.hold(index, ns);
                Ok(())
            }
            Item::Held { node, held } => self.membership(node, Event::Hold(held)),
            Item::Operate => self.operate(),
            Item::Restart { index } => self.restart(index),
            Item::Heal => {
                self.note(|_| "the cut heals".into());
                self.cut.clear();
                Ok(())
            }
        }
    }

    fn deliver(&mut self, from: KernelId, to: KernelId, payload: Payload) -> Result<(), String> {
        let Some(at) = self.find(to) else { return Ok(()) };
        self.nodes[at].talk(from);
        self.report.messages += 1;
        match payload {
            Payload::Membership(message) => {
                self.note(|_| format!("{from} -> {to} {message:?}"));
                self.membership(to, Event::Received { from, message })
            }
            Payload::Service(service, body) => {
                if self.nodes[at].closed.contains(&from) {
                    return Ok(());
                }
                self.note(|w| format!("{from} -> {to} {}: {body:?}", w.suites[service].name()));
                self.service(at, service, |part, context| part.message(from, &*body, context))
            }
        }
    }

    /// A member that gets it judges who sent it. Who is outside, or just came in, gets what it would have been: a newcomer is told once what it has to
    /// know, maybe by the only one who does, and that a kernel dies in the middle of that step is not simulated of any other fault either.
    fn garbage(&mut self, from: KernelId, to: KernelId, payload: Payload) -> Result<(), String> {
        let (Some(sender), Some(at)) = (self.find(from), self.find(to)) else { return Ok(()) };
        let since = self.nodes[at].member_since;
        if self.nodes[at].membership.phase() != Phase::Member || self.now < since + 100 * MS + 2 * self.plan.delay {
            return self.deliver(from, to, payload);
        }
        if !self.nodes[at].closed.contains(&from) {
            self.nodes[sender].caught.insert(to);
        }
        self.membership(to, Event::Guilty { peer: from })
    }

    fn tick(&mut self, id: KernelId, turn: u64) -> Result<(), String> {
        let Some(at) = self.find(id).filter(|at| self.nodes[*at].turn == turn) else { return Ok(()) };
        self.nodes[at].beats += 1;
        if let Some(peer) = self.nodes[at].membership.watched()
            && self.plan.near(id.index, peer.index)
            && let Some(watched) = self.find(peer)
        {
            let count = self.nodes[watched].beats;
            self.membership(id, Event::Beat { peer, count })?;
        }
        if self.nodes[at].membership.phase() == Phase::Outside {
            // It sees who is there by their porches.
            let contacts = self.nodes.iter().map(|n| n.id).filter(|k| *k != id).collect();
            self.membership(id, Event::Enter { contacts })?;
        }
        self.membership(id, Event::Tick)
    }

    /// One step of a kernel's membership.
    pub(crate) fn membership(&mut self, id: KernelId, event: Event) -> Result<(), String> {
        let Some(at) = self.find(id).filter(|at| self.nodes[*at].runs()) else { return Ok(()) };
        self.report.events += 1;
        if !matches!(event, Event::Tick | Event::Beat { .. } | Event::Received { .. }) {
            self.note(|_| format!("{id} {event:?}"));
        }
        let mut words: BTreeMap<KernelId, u64> = BTreeMap::new();
        if self.plan.medium != Medium::Lossy {
            let near = self.nodes.iter().filter(|n| self.plan.near(id.index, n.id.index));
            words.extend(near.map(|n| (n.id, n.fence_word)));
        }
        let apart = self.plan.medium == Medium::Boards;
        let now_there = self.nodes.iter().map(|n| n.id).filter(|_| apart).collect();
        let mut hands = Hands { words, now_there, effects: Vec::new() };
        let now = self.now;
        let situation = self.nodes[at].membership.situation();
        match &event {
            Event::Received { message, .. } => self.coverage.met("membership", situation, message),
            event => self.coverage.met("membership", situation, event),
        }
        self.nodes[at].membership.step(now, event, &mut hands);
        for (kernel, word) in hands.words {
            if let Some(n) = self.find(kernel) {
                self.nodes[n].fence_word = word;
            }
        }
        let torn = self.torn(at, hands.effects.len());
        for effect in hands.effects.into_iter().take(torn.unwrap_or(usize::MAX)) {
            self.apply(id, effect)?;
        }
        if torn.is_some() {
            self.panic(id);
        }
        Ok(())
    }

    /// Whether a kernel dies in this step, which has so many effects, and after how many.
    fn torn(&mut self, at: usize, effects: usize) -> Option<usize> {
        let early = self.now < self.plan.busy;
        self.nodes[at].torn.take_if(|torn| early && *torn < effects)
    }

    /// One step of a service on a kernel.
    pub(crate) fn service(
        &mut self,
        at: usize,
        service: usize,
        step: impl FnOnce(&mut dyn SimService, &mut Context<'_>),
    ) -> Result<(), String> {
        self.report.events += 1;
        let now = self.now;
        let node = &mut self.nodes[at];
        let me = node.id;
        let mut context = Context {
            me,
            now,
            view: node.membership.view(),
            membership: &node.membership,
            rng: &mut self.rng,
            closed: &node.closed,
            sent: Vec::new(),
            overdue: Vec::new(),
            wake: None,
            coverage: &mut self.coverage,
        };
        step(&mut *node.parts[service], &mut context);
        let (sent, overdue, wake) = (context.sent, context.overdue, context.wake);
        let torn = self.torn(at, sent.len());
        for (to, lane, body) in sent.into_iter().take(torn.unwrap_or(usize::MAX)) {
            self.post(me, to, lane, Payload::Service(service, body));
        }
        if torn.is_some() {
            self.panic(me);
            return Ok(());
        }
        if let Some(wake) = wake {
            let node = &mut self.nodes[at];
            node.timer_turns[service] += 1;
            let turn = node.timer_turns[service];
            self.schedule(wake, Item::Timer { node: me, service, turn });
        }
        self.check(me, service)?;
        for peer in overdue {
            self.membership(me, Event::Overdue { peer })?;
        }
        Ok(())
    }

    fn check(&mut self, changed: KernelId, service: usize) -> Result<(), String> {
        // Who said goodbye does nothing any more, though its CPUs stop a little later.
        let here = |n: &&Node| n.is_live() && n.membership.phase() != Phase::Leaving;
        let parts: Vec<_> = self.nodes.iter().filter(here).map(|n| (n.id, &*n.parts[service])).collect();
        let suite = &mut self.suites[service];
        suite.check(changed, &parts, &self.judge).map_err(|e| format!("{}: {e}", suite.name()))
    }

    /// Sends a message: chooses when it arrives, and whether.
    pub(crate) fn post(&mut self, from: KernelId, to: KernelId, lane: Lane, payload: Payload) {
        if let Some(at) = self.find(from) {
            self.nodes[at].talk(to);
        }
        if self.find(from).is_some_and(|at| self.nodes[at].mad) && self.madness.one_in(3) {
            let at = self.now + 1 + self.madness.below(self.plan.delay);
            return self.schedule(at, Item::Garbage { from, to, payload });
        }
        let lossy = !self.plan.near(from.index, to.index);
        let cut = self.cut.contains(&from.index) != self.cut.contains(&to.index);
        let unreliable = lossy && matches!(payload, Payload::Membership(_));
        // In the end nothing is lost: else somebody may be held for dead, rightly, at the moment at which the views are compared.
        let loses = self.now < self.plan.busy + 10_000 * MS;
        if unreliable && (cut || loses && self.rng.one_in(10)) {
            return;
        }
        let mut at = self.now + 1 + self.rng.below(self.plan.delay);
        if unreliable {
            if self.rng.one_in(20) {
                let again = self.now + 1 + self.rng.below(self.plan.delay);
                self.schedule(again, Item::Deliver { from, to, payload: payload.clone() });
            }
        } else {
            if cut {
                at += self.plan.busy;
            }
            let last = self.lanes.entry((from, to, lane as usize)).or_default();
            at = at.max(*last + 1);
            *last = at;
        }
        self.schedule(at, Item::Deliver { from, to, payload });
    }

    fn operate(&mut self) -> Result<(), String> {
        let able: Vec<usize> = (0..self.nodes.len())
            .filter(|at| {
                let node = &self.nodes[*at];
                node.runs() && node.paused_until <= self.now && node.membership.phase() == Phase::Member
            })
            .collect();
        let Some(at) = self.rng.pick(&able) else {
            // Somebody wakes up or joins, or the last ones parked themselves.
            if self.now < self.plan.busy + 10_000 * MS {
                self.schedule(self.now + 50 * MS, Item::Operate);
            }
            return Ok(());
        };
        let number = self.report.operations as u32;
        self.report.operations += 1;
        if self.suites.is_empty() {
            return Ok(());
        }
        let service = self.rng.below(self.suites.len() as u64) as usize;
        // Its choices are its own: one that is left out does not change those of the next.
        let own = Rng::new(self.rng.below(u64::MAX));
        if self.only.operations.as_ref().is_some_and(|list| !list.contains(&number)) {
            return Ok(());
        }
        let name = self.suites[service].name();
        self.note(|w| format!("operation {number}: {name} on {}", w.nodes[at].id));
        let rest = std::mem::replace(&mut self.rng, own);
        let done = self.service(at, service, |part, context| part.operate(context));
        self.rng = rest;
        done
    }

    pub(crate) fn wake(&mut self, id: KernelId, at: u64) {
        if let Some(n) = self.find(id) {
            self.nodes[n].turn += 1;
            let turn = self.nodes[n].turn;
            self.schedule(at, Item::Tick { node: id, turn });
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        // Where nobody can fence it, or could when it was noticed, a kernel that hangs stays as it is. One that hangs before it was let in is its starter's to notice.
        let lossy = self.plan.medium != Medium::Shared;
        let is_member = |n: &Node| n.runs() && n.membership.phase() == Phase::Member;
        let fenced_by = |n: &Node| {
            self.nodes.iter().any(|m| m.id != n.id && is_member(m) && self.plan.near(m.id.index, n.id.index))
        };
        let nobody = !self.nodes.iter().any(|n| n.runs() && n.membership.phase() == Phase::Member);
        let counted = |id: KernelId| self.nodes.iter().any(|n| n.runs() && n.membership.view().contains(id));
        let forgiven = |n: &Node| {
            let outside = n.membership.phase() == Phase::Outside && !counted(n.id);
            n.hung && (lossy && (!fenced_by(n) || self.deaths.contains(&n.id)) || outside) || lossy && outside && nobody
        };
        let running: Vec<&Node> = self.nodes.iter().filter(|n| n.is_live() && !forgiven(n)).collect();
        let ids: Vec<KernelId> = running.iter().map(|n| n.id).collect();
        for node in &running {
            let judges = |by: &KernelId| {
                self.find(*by)
                    .is_some_and(|at| self.nodes[at].runs() && self.nodes[at].membership.phase() == Phase::Member)
            };
            if let Some(by) = node.caught.iter().find(|by| judges(by)) {
                self.judge.broken(Rule::GuiltyStopped, || {
                    format!("{} sent garbage to {by}, and nobody stopped it", node.id)
                })?;
            }
            if node.hung {
                self.judge.broken(Rule::HangNoticed, || format!("{} hangs and nobody noticed", node.id))?;
            }
        }
        for node in &running {
            let view: &View = node.membership.view();
            if view.members != ids {
                self.judge.broken(Rule::OneViewInTheEnd, || {
                    format!("when all is quiet {} is in view {view:?}, but {ids:?} are alive", node.id)
                })?;
            }
        }
        for service in 0..self.suites.len() {
            let parts: Vec<_> = self
                .nodes
                .iter()
                .filter(|n| n.runs() && n.membership.phase() == Phase::Member)
                .map(|n| (n.id, &*n.parts[service]))
                .collect();
            let suite = &mut self.suites[service];
            suite.finish(&parts, &self.judge).map_err(|e| format!("{}: {e}", suite.name()))?;
        }
        Ok(())
    }
}
