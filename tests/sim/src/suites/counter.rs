//! Counters: objects with a home that moves, references that travel, requests that follow. They exercise the layer every service of
//! objects uses: `objects::{Exports, Imports}` and `link::requests::Requests`.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
};

use base::{KernelId, ObjectId};
use link::requests::{Asked, Requests};
use objects::{Exports, Imports, Receipt, Refusal, exports::Grants, object_to_wire, to_wire};
use wire::{Header, Lane};

use crate::{
    judge::{Judge, Rule},
    service::{Body, Context, Parts, SimService, Suite},
    world::MS,
};

/// An addition, named by who asked and its number there: it happens at most once.
type Addition = (KernelId, u64);

/// How an addition ended for who asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Done,
    Down,
    Late,
    Gone,
    TooManyHops,
}

#[derive(Clone, Debug)]
enum Note {
    Grant { object: ObjectId },
    Add { request: u64, object: ObjectId, addition: Addition },
    Added { request: u64 },
    Moved { request: u64, object: ObjectId, home: KernelId },
    Unknown { request: u64 },
    GiveBack { object: ObjectId, holder: KernelId, count: u32 },
    Import { object: ObjectId, counter: BTreeSet<Addition>, grants: Grants },
    Imported { object: ObjectId },
    Settle { object: ObjectId },
    Relocated { object: ObjectId, old: KernelId },
    Informed { object: ObjectId },
}

struct Waiting {
    object: ObjectId,
    addition: Addition,
    hops: u8,
}

/// The counters of one kernel.
pub struct Part {
    me: KernelId,
    serial: u64,
    additions: u64,
    /// Served here.
    homed: BTreeMap<ObjectId, BTreeSet<Addition>>,
    /// On the way out: not served, but kept until the other side has it.
    leaving: BTreeMap<ObjectId, BTreeSet<Addition>>,
    /// On the way in: not served before the old home says so or dies.
    arriving: BTreeMap<ObjectId, (KernelId, BTreeSet<Addition>, Grants)>,
    /// Came too early, or for what is leaving.
    parked: Vec<(KernelId, Note)>,
    exports: Exports,
    imports: Imports,
    /// References to what is homed here that are still on their way here (or on their way back): they cancel out.
    owed: BTreeMap<ObjectId, i64>,
    requests: Requests<Waiting>,
    begun: u64,
    ended: BTreeMap<Addition, End>,
    acknowledged: Vec<(ObjectId, Addition)>,
    twice: Option<Addition>,
}

impl Part {
    fn add_here(&mut self, object: ObjectId, addition: Addition) -> bool {
        let Some(counter) = self.homed.get_mut(&object) else { return false };
        if !counter.insert(addition) {
            self.twice = Some(addition);
        }
        true
    }

    fn end(&mut self, waiting: &Waiting, end: End) {
        if self.ended.insert(waiting.addition, end).is_some() {
            self.twice = Some(waiting.addition);
        }
        if end == End::Done {
            self.acknowledged.push((waiting.object, waiting.addition));
        }
    }

    fn ask(&mut self, home: KernelId, waiting: Waiting, context: &mut Context<'_>) {
        let (object, addition) = (waiting.object, waiting.addition);
        if home == self.me {
            let done = self.add_here(object, addition);
            return self.end(&waiting, if done { End::Done } else { End::Gone });
        }
        if waiting.hops > 16 {
            return self.end(&waiting, End::TooManyHops);
        }
        // Sooner than a silent kernel is dead: its silence is noticed by this, too.
        let deadline = context.now + 900 * MS;
        if context.closed.contains(&home) {
            return self.end(&waiting, End::Down);
        }
        let asked = Asked { peer: to_wire(home), object: object_to_wire(object), kind: 1, deadline };
        if let Some(request) = self.requests.begin(asked, waiting) {
            context.send(home, Lane::Request, Note::Add { request, object, addition });
            context.wake_at(deadline);
        }
    }

    fn answered(&mut self, from: KernelId, request: u64) -> Option<Waiting> {
        let header = Header { request, ..Header::default() };
        self.requests.answered(to_wire(from), &header).map(|(_, waiting)| waiting)
    }

    fn add(&mut self, from: KernelId, note: &Note, context: &mut Context<'_>) {
        let Note::Add { request, object, addition } = *note else { return };
        if self.arriving.contains_key(&object) {
            return self.parked.push((from, note.clone()));
        }
        match self.exports.serve(object) {
            Ok(()) if self.add_here(object, addition) => context.send(from, Lane::Reply, Note::Added { request }),
            Ok(()) | Err(Refusal::Unknown | Refusal::Dead) => {
                context.send(from, Lane::Reply, Note::Unknown { request })
            }
            Err(Refusal::Moved { home }) => context.send(from, Lane::Reply, Note::Moved { request, object, home }),
            Err(Refusal::Leaving { .. }) => self.parked.push((from, note.clone())),
        }
    }

    fn give_back(&mut self, from: KernelId, note: &Note, context: &mut Context<'_>) {
        let Note::GiveBack { object, holder, count } = *note else { return };
        if holder == self.me {
            *self.owed.entry(object).or_default() -= i64::from(count);
            return;
        }
        if self.arriving.contains_key(&object) {
            return self.parked.push((from, note.clone()));
        }
        match self.exports.give_back(object, holder, count) {
            Ok(objects::Lent::Nobody) => drop(self.homed.remove(&object)),
            Ok(objects::Lent::Still) | Err(Refusal::Unknown | Refusal::Dead) => {}
            Err(Refusal::Moved { home }) => context.send(home, Lane::Request, note.clone()),
            Err(Refusal::Leaving { .. }) => self.parked.push((from, note.clone())),
        }
    }

    /// What waited for a move to end is looked at again.
    fn unpark(&mut self, context: &mut Context<'_>) {
        for (from, note) in std::mem::take(&mut self.parked) {
            match note {
                Note::Add { .. } => self.add(from, &note, context),
                _ => self.give_back(from, &note, context),
            }
        }
    }

    fn settle(&mut self, object: ObjectId, context: &mut Context<'_>) {
        let Some((old, counter, grants)) = self.arriving.remove(&object) else { return };
        self.homed.insert(object, counter);
        for holder in self.exports.arrive(object, grants, self.me, old) {
            context.send(holder, Lane::Reply, Note::Relocated { object, old });
        }
        self.unpark(context);
    }

    fn move_away(&mut self, object: ObjectId, to: KernelId, context: &mut Context<'_>) {
        if let Some(counter) = self.homed.get(&object).cloned()
            && let Ok(grants) = self.exports.leave(object, to)
        {
            self.homed.remove(&object);
            self.leaving.insert(object, counter.clone());
            context.send(to, Lane::Bulk, Note::Import { object, counter, grants });
        }
    }
}

impl SimService for Part {
    fn message(&mut self, from: KernelId, body: &dyn Body, context: &mut Context<'_>) {
        let Some(note) = body.as_any().downcast_ref::<Note>() else { return };
        match *note {
            Note::Grant { object } => {
                if let Some(owed) = self.owed.get_mut(&object).filter(|owed| **owed > 0) {
                    *owed -= 1;
                } else if self.imports.receive(object, from) == Receipt::New && context.rng.one_in(3) {
                    self.additions += 1;
                    self.begun += 1;
                    let addition = (self.me, self.additions);
                    self.ask(from, Waiting { object, addition, hops: 0 }, context);
                }
            }
            Note::Add { .. } => self.add(from, note, context),
            Note::GiveBack { .. } => self.give_back(from, note, context),
            Note::Added { request } => {
                if let Some(waiting) = self.answered(from, request) {
                    self.end(&waiting, End::Done);
                }
            }
            Note::Unknown { request } => {
                if let Some(waiting) = self.answered(from, request) {
                    self.end(&waiting, End::Gone);
                }
            }
            Note::Moved { request, object, home } => {
                self.imports.relocated(object, home);
                if let Some(mut waiting) = self.answered(from, request) {
                    waiting.hops += 1;
                    self.ask(home, waiting, context);
                }
            }
            Note::Import { object, ref counter, ref grants } => {
                let mut grants = grants.clone();
                // What this kernel held ends here: the home holds no reference to its own object.
                let granted = i64::from(grants.remove(&self.me).unwrap_or(0));
                *self.owed.entry(object).or_default() += granted - i64::from(self.imports.received(object));
                self.imports.came_home(object);
                self.arriving.insert(object, (from, counter.clone(), grants));
                context.send(from, Lane::Reply, Note::Imported { object });
            }
            Note::Imported { object } => {
                if self.leaving.remove(&object).is_some() {
                    self.exports.left(object, self.me);
                    context.send(from, Lane::Reply, Note::Settle { object });
                    self.unpark(context);
                }
            }
            Note::Settle { object } => self.settle(object, context),
            Note::Relocated { object, old } => {
                self.imports.relocated(object, from);
                // Behind what was sent to the old home before: the forwarder must not end while something is on its way to it.
                context.send(old, Lane::Request, Note::Informed { object });
            }
            Note::Informed { object } => self.exports.informed(object, from),
        }
    }

    fn down(&mut self, dead: KernelId, context: &mut Context<'_>) {
        for (_, _, waiting) in self.requests.end_where(|asked| asked.peer == to_wire(dead)) {
            self.end(&waiting, End::Down);
        }
        self.imports.peer_down(dead);
        self.parked.retain(|(from, _)| *from != dead);
        let stranded: Vec<ObjectId> = self.leaving.keys().copied().collect();
        for object in self.exports.peer_down(dead).free {
            self.homed.remove(&object);
            self.leaving.remove(&object);
        }
        // What was on its way to the dead stays; what was on its way from it is ours.
        for object in stranded {
            if !matches!(self.exports.serve(object), Err(Refusal::Leaving { .. }))
                && let Some(counter) = self.leaving.remove(&object)
            {
                self.homed.insert(object, counter);
            }
        }
        let orphans: Vec<ObjectId> =
            self.arriving.iter().filter(|(_, (old, ..))| *old == dead).map(|(object, _)| *object).collect();
        for object in orphans {
            self.settle(object, context);
        }
        self.unpark(context);
    }

    fn view(&mut self, _: &mut Context<'_>) {}

    fn operate(&mut self, context: &mut Context<'_>) {
        let peers = context.peers();
        let Some(peer) = context.rng.pick(&peers) else { return };
        let mine: Vec<ObjectId> = self.homed.keys().copied().collect();
        let held: Vec<ObjectId> = self.imports.objects().collect();
        match context.rng.below(10) {
            0 | 1 => {
                self.serial += 1;
                let object = ObjectId { birth: self.me, serial: self.serial };
                self.homed.insert(object, BTreeSet::new());
                if self.exports.grant(object, peer).is_ok() {
                    context.send(peer, Lane::Request, Note::Grant { object });
                }
            }
            2 => {
                if let Some(object) = context.rng.pick(&mine)
                    && self.exports.grant(object, peer).is_ok()
                {
                    context.send(peer, Lane::Request, Note::Grant { object });
                }
            }
            3 | 4 => {
                if let Some(object) = context.rng.pick(&mine) {
                    self.move_away(object, peer, context);
                }
            }
            5 => {
                if let Some(object) = context.rng.pick(&held)
                    && let Some(back) = self.imports.drop_proxy(object)
                {
                    let note = Note::GiveBack { object, holder: self.me, count: back.count };
                    context.send(back.home, Lane::Request, note);
                }
            }
            _ => {
                if let Some(object) = context.rng.pick(&held)
                    && let Some(home) = self.imports.home(object)
                {
                    self.additions += 1;
                    self.begun += 1;
                    let addition = (self.me, self.additions);
                    self.ask(home, Waiting { object, addition, hops: 0 }, context);
                }
            }
        }
    }

    fn timer(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        for (_, asked, waiting) in self.requests.end_where(|asked| asked.deadline <= now) {
            context.overdue.push(objects::from_wire(asked.peer));
            self.end(&waiting, End::Late);
        }
        if let Some(next) = self.requests.next_deadline() {
            context.wake_at(next);
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What must hold for counters.
#[derive(Default)]
pub struct Counters;

fn part(service: &dyn SimService) -> Option<&Part> {
    service.as_any().downcast_ref()
}

impl Suite for Counters {
    fn name(&self) -> &'static str {
        "counters"
    }

    fn start(&self, me: KernelId, _: u16) -> Box<dyn SimService> {
        Box::new(Part {
            me,
            serial: 0,
            additions: 0,
            homed: BTreeMap::new(),
            leaving: BTreeMap::new(),
            arriving: BTreeMap::new(),
            parked: Vec::new(),
            exports: Exports::new(),
            imports: Imports::new(),
            owed: BTreeMap::new(),
            requests: Requests::new(),
            begun: 0,
            ended: BTreeMap::new(),
            acknowledged: Vec::new(),
            twice: None,
        })
    }

    fn check(&mut self, changed: KernelId, parts: &Parts<'_>, judge: &Judge) -> Result<(), String> {
        let Some(this) = parts.iter().find(|(k, _)| *k == changed).and_then(|(_, p)| part(*p)) else { return Ok(()) };
        if let Some(addition) = this.twice {
            judge.broken(Rule::CountedOnce, || format!("{addition:?} happened or ended twice on {changed}"))?;
        }
        if this.begun != this.ended.len() as u64 + this.requests.len() as u64 {
            judge.broken(Rule::RequestsKept, || {
                format!("{changed} lost a request: {} begun, {} ended", this.begun, this.ended.len())
            })?;
        }
        for (other, object) in parts
            .iter()
            .filter(|(k, _)| *k != changed)
            .filter_map(|(k, p)| Some((*k, part(*p)?)))
            .flat_map(|(k, p)| p.homed.keys().map(move |o| (k, o)))
        {
            if this.homed.contains_key(object) {
                judge.broken(Rule::OneHome, || format!("{object:?} is served by {changed} and by {other}"))?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, parts: &Parts<'_>, judge: &Judge) -> Result<(), String> {
        let parts: Vec<(KernelId, &Part)> = parts.iter().filter_map(|(k, p)| Some((*k, part(*p)?))).collect();
        for (k, p) in &parts {
            if !p.requests.is_empty() || !p.parked.is_empty() || !p.leaving.is_empty() || !p.arriving.is_empty() {
                judge.broken(Rule::Quiet, || {
                    format!(
                        "{k} has {} requests, {} parked, {} leaving, {} arriving when all is quiet",
                        p.requests.len(),
                        p.parked.len(),
                        p.leaving.len(),
                        p.arriving.len()
                    )
                })?;
            }
            if p.ended.values().any(|end| *end == End::TooManyHops) {
                judge.broken(Rule::NoCircle, || format!("a request of {k} ran in a circle"))?;
            }
            for (object, addition) in &p.acknowledged {
                let home = parts.iter().find_map(|(_, h)| h.homed.get(object));
                if home.is_some_and(|counter| !counter.contains(addition)) {
                    judge.broken(Rule::AcknowledgedKept, || {
                        format!("{addition:?} to {object:?} was acknowledged and is lost")
                    })?;
                }
            }
            for object in p.homed.keys() {
                for (holder, h) in parts.iter().filter(|(h, _)| h != k) {
                    let (granted, received) = (p.exports.granted(*object, *holder), h.imports.received(*object));
                    // More granted than received is a leak that ends with the holder; the other way round the object ends under its holder.
                    if granted < received {
                        judge.broken(Rule::ReferencesCovered, || {
                            format!("{object:?} at {k}: {granted} references granted to {holder}, which has {received}")
                        })?;
                    }
                }
            }
        }
        Ok(())
    }
}
