//! Files: references that are lent and passed on, subscriptions, requests that take their time, record locks. It runs `files::state` and
//! `vfs::lock::Table`, the same code as the kernels; what it adds is what the glue adds: the messages of operations and who uses what.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
};

use base::{KernelId, ObjectId, Ready};
use files::state::{Actions, Event, Note, State};
use link::requests::{Asked, Requests};
use objects::{Receipt, object_to_wire, to_wire};
use vfs::lock::{Change, Lock, Owner, Table};
use wire::{Header, Lane};

use crate::{
    judge::{Judge, Rule},
    service::{Body, Context, Parts, SimService, Suite},
    world::MS,
};

/// What is asked at the home of an object.
#[derive(Clone, Copy, Debug)]
enum What {
    /// One more reference for this kernel.
    Grant(KernelId),
    /// Something that ends when it pleases (the open of a FIFO), with an object as result.
    Open,
    /// A lock is taken or given back.
    Lock(Change),
    /// Tell me when it is ready for something.
    Arm { token: u64, generation: u32 },
    /// How often has something happened to it? Asked by whoever subscribed, after he did and whenever he is woken.
    Look { token: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Done,
    WouldBlock,
    Opened(ObjectId),
    Seen(u64),
    Cancelled,
    Refused,
}

#[derive(Clone, Debug)]
enum Say {
    Note(Note),
    Ask {
        request: u64,
        object: ObjectId,
        what: What,
    },
    Answer {
        request: u64,
        answer: Answer,
    },
    Cancel {
        request: u64,
    },
    /// A reference from the home; `passed`: from somebody who had it made, or that is to be confirmed.
    Give {
        object: ObjectId,
        home: KernelId,
        passed: bool,
    },
}

/// Why somebody waits for an answer.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    object: ObjectId,
    what: What,
    cancelled: bool,
}

/// An object of this kernel.
#[derive(Default)]
struct Thing {
    /// How often something happened to it.
    happened: u64,
    /// Somebody here uses it, whatever the others do.
    used: bool,
    /// Who watches it.
    watched: BTreeSet<(KernelId, u64)>,
}

/// A subscription of this kernel.
struct Watch {
    object: ObjectId,
    /// It was told that the home is dead, or that it cannot be watched.
    over: bool,
    /// What had happened when it was last looked at.
    seen: u64,
}

/// The files of one kernel.
pub struct Part {
    me: KernelId,
    state: State,
    things: BTreeMap<ObjectId, Thing>,
    locks: Table,
    watches: BTreeMap<u64, Watch>,
    /// Opens of peers that have not ended.
    opening: BTreeSet<(KernelId, u64)>,
    requests: Requests<Waiting>,
    /// Opens that were asked for.
    opens: BTreeSet<u64>,
    /// Locks that programs here believe they have: exclusive ones, by object and who.
    believed: BTreeSet<(ObjectId, u32)>,
    next: u64,
    begun: u64,
    ended: u64,
    wrong: Option<(Rule, String)>,
}

/// What a step wants done, kept until the step is over.
#[derive(Default)]
struct Queue(Vec<Action>);

enum Action {
    Send(KernelId, Note),
    Free(ObjectId),
    Wake(u64, Ready),
    Watch(KernelId, u64, ObjectId),
    Unwatch(KernelId, u64),
    Abandon(KernelId, u64, bool),
}

impl Actions for Queue {
    fn send(&mut self, to: KernelId, note: Note) {
        self.0.push(Action::Send(to, note));
    }
    fn free(&mut self, object: ObjectId) {
        self.0.push(Action::Free(object));
    }
    fn wake(&mut self, token: u64, ready: Ready) {
        self.0.push(Action::Wake(token, ready));
    }
    fn watch(&mut self, peer: KernelId, token: u64, object: ObjectId, _: Ready) {
        self.0.push(Action::Watch(peer, token, object));
    }
    fn unwatch(&mut self, peer: KernelId, token: u64) {
        self.0.push(Action::Unwatch(peer, token));
    }
    fn abandon(&mut self, peer: KernelId, request: u64, answer: bool) {
        self.0.push(Action::Abandon(peer, request, answer));
    }
}

impl Part {
    fn with<T>(&mut self, context: &mut Context<'_>, change: impl FnOnce(&mut State, &mut Queue) -> T) -> T {
        let mut queue = Queue::default();
        let result = change(&mut self.state, &mut queue);
        for action in queue.0 {
            self.act(action, context);
        }
        result
    }

    fn step(&mut self, event: Event, context: &mut Context<'_>) {
        self.with(context, |state, queue| state.step(event, queue));
    }

    fn act(&mut self, action: Action, context: &mut Context<'_>) {
        match action {
            Action::Send(to, Note::Arm { object, token, generation, .. }) => {
                self.ask(to, Waiting { object, what: What::Arm { token, generation }, cancelled: false }, context);
            }
            Action::Send(to, note) => {
                // READY overtakes requests, as on its lane.
                let lane = if matches!(note, Note::Ready { .. }) { Lane::Reply } else { Lane::Request };
                context.send(to, lane, Say::Note(note));
            }
            Action::Free(object) => {
                if self.things.get(&object).is_some_and(|thing| !thing.used) {
                    self.things.remove(&object);
                }
            }
            Action::Wake(token, ready) => {
                if let Some(watch) = self.watches.get_mut(&token) {
                    watch.over |= ready.contains(Ready::HUP);
                    let object = watch.object;
                    self.look(token, object, context);
                }
            }
            Action::Watch(peer, token, object) => {
                if let Some(thing) = self.things.get_mut(&object) {
                    thing.watched.insert((peer, token));
                }
            }
            Action::Unwatch(peer, token) => {
                for thing in self.things.values_mut() {
                    thing.watched.remove(&(peer, token));
                }
            }
            Action::Abandon(peer, request, answer) => {
                if !self.opening.remove(&(peer, request)) {
                    self.wrong = Some((
                        Rule::UndoneOnce,
                        format!("request {request} of {peer} is abandoned, but it is not under way"),
                    ));
                }
                if answer {
                    context.send(peer, Lane::Reply, Say::Answer { request, answer: Answer::Cancelled });
                }
            }
        }
    }

    fn look(&mut self, token: u64, object: ObjectId, context: &mut Context<'_>) {
        if let Some(home) = self.state.imports.home(object) {
            self.ask(home, Waiting { object, what: What::Look { token }, cancelled: false }, context);
        }
    }

    fn ask(&mut self, home: KernelId, waiting: Waiting, context: &mut Context<'_>) {
        self.begun += 1;
        if context.closed.contains(&home) {
            return self.answered(home, &waiting, Answer::Refused, context);
        }
        // An open takes as long as it pleases; the rest is answered at once.
        let deadline = if matches!(waiting.what, What::Open) { u64::MAX } else { context.now + 60_000 * MS };
        let (object, what) = (waiting.object, waiting.what);
        let asked = Asked { peer: to_wire(home), object: object_to_wire(object), kind: 1, deadline };
        if let Some(request) = self.requests.begin(asked, waiting) {
            if matches!(what, What::Open) {
                self.opens.insert(request);
            }
            context.send(home, Lane::Request, Say::Ask { request, object, what });
        }
    }

    /// A request ended, by an answer or a death.
    fn answered(&mut self, from: KernelId, waiting: &Waiting, answer: Answer, context: &mut Context<'_>) {
        self.ended += 1;
        match (waiting.what, answer) {
            (What::Grant(holder), Answer::Done) => {
                let object = waiting.object;
                // Not all that is made is sent: a move fails, a task dies.
                if context.rng.one_in(4) {
                    self.with(context, |state, queue| state.unsent(object, from, holder, queue));
                } else if !context.closed.contains(&holder) {
                    context.send(holder, Lane::Request, Say::Give { object, home: from, passed: true });
                }
            }
            (What::Open, Answer::Opened(object)) => {
                self.receive(object, from, from, false, context);
                if waiting.cancelled {
                    // It came for nobody.
                    self.step(Event::Dropped { object }, context);
                }
            }
            (What::Arm { token, generation }, answer) => {
                let done = matches!(answer, Answer::Done);
                self.step(Event::Armed { from, token, generation, done }, context);
            }
            (What::Look { token }, Answer::Seen(happened)) => {
                if let Some(watch) = self.watches.get_mut(&token) {
                    watch.seen = watch.seen.max(happened);
                }
            }
            (What::Lock(Change::Take(lock)), Answer::Done) => {
                if let Owner::Process(pid) = lock.owner {
                    self.believed.insert((waiting.object, pid));
                }
            }
            _ => {}
        }
    }

    fn receive(&mut self, object: ObjectId, home: KernelId, via: KernelId, passed: bool, context: &mut Context<'_>) {
        let there = self.things.contains_key(&object);
        let receipt = self.with(context, |state, queue| state.receive(object, home, via, passed, queue));
        if receipt == Ok(Receipt::Home) && !there {
            self.wrong = Some((Rule::LentIsThere, format!("{object:?} came home to {home}, and is not there")));
        }
    }

    fn serve(&mut self, from: KernelId, request: u64, object: ObjectId, what: What, context: &mut Context<'_>) {
        let held = self.things.contains_key(&object) && self.state.exports.granted(object, from) > 0;
        let answer = match what {
            _ if !held => {
                // A holder that has a reference, which we count, finds the object.
                if self.state.exports.granted(object, from) > 0 {
                    self.wrong = Some((Rule::LentIsThere, format!("{object:?} is lent to {from} and is not there")));
                }
                Answer::Refused
            }
            What::Grant(holder) => match self.state.exports.grant_for(object, from, holder) {
                Ok(()) => Answer::Done,
                Err(_) => Answer::Refused,
            },
            What::Look { .. } => Answer::Seen(self.things.get(&object).map_or(0, |thing| thing.happened)),
            What::Open => {
                self.state.begin(from, request);
                self.opening.insert((from, request));
                return;
            }
            What::Lock(change) => match self.locks.change(object, change) {
                Ok(true) => Answer::Done,
                Ok(false) => Answer::WouldBlock,
                Err(_) => Answer::Refused,
            },
            What::Arm { token, generation } => {
                let note = Note::Arm { object, token, generation, mask: Ready::IN };
                self.step(Event::Told { from, note }, context);
                Answer::Done
            }
        };
        context.send(from, Lane::Reply, Say::Answer { request, answer });
        // Just after somebody looked, before he has armed again: what happens now is easily lost.
        // (Less often the more look because of that, or it never ends.)
        let watchers = self.things.get(&object).map_or(0, |thing| thing.watched.len() as u64);
        if matches!(what, What::Look { .. }) && context.rng.one_in(2 + 2 * watchers) {
            self.happen(object, context);
        }
    }

    /// An open ends: somebody opened the other end.
    fn finish_open(&mut self, context: &mut Context<'_>) {
        let under_way: Vec<_> = self.opening.iter().copied().collect();
        if let Some((peer, request)) = context.rng.pick(&under_way) {
            self.finish(peer, request, context);
        }
    }

    fn finish(&mut self, peer: KernelId, request: u64, context: &mut Context<'_>) {
        self.opening.remove(&(peer, request));
        let object = self.make(false);
        let mine = self.state.end(peer, request);
        if !mine || self.state.lend(object, peer).is_err() {
            self.things.remove(&object);
            return;
        }
        context.send(peer, Lane::Reply, Say::Answer { request, answer: Answer::Opened(object) });
    }

    fn make(&mut self, used: bool) -> ObjectId {
        self.next += 1;
        let object = ObjectId { birth: self.me, serial: self.next };
        self.things.insert(object, Thing { used, ..Thing::default() });
        object
    }

    /// Something happens to an object of ours.
    fn happen(&mut self, object: ObjectId, context: &mut Context<'_>) {
        let Some(thing) = self.things.get_mut(&object) else { return };
        thing.happened += 1;
        let watchers: Vec<_> = thing.watched.iter().copied().collect();
        for (peer, token) in watchers {
            self.step(Event::Happened { peer, token, ready: Ready::IN }, context);
        }
    }

    fn lock(&mut self, object: ObjectId, home: KernelId, context: &mut Context<'_>) {
        let pid = 1 + context.rng.below(3) as u32;
        let lock = Lock {
            owner: Owner::Process(pid + 10 * u32::from(self.me.index)),
            kernel: self.me,
            exclusive: true,
            start: 0,
            end: 1,
        };
        let Owner::Process(owner) = lock.owner else { return };
        let change = if self.believed.remove(&(object, owner)) { Change::Give(lock) } else { Change::Take(lock) };
        self.ask(home, Waiting { object, what: What::Lock(change), cancelled: false }, context);
    }
}

impl SimService for Part {
    fn message(&mut self, from: KernelId, body: &dyn Body, context: &mut Context<'_>) {
        let Some(say) = body.as_any().downcast_ref::<Say>() else { return };
        match *say {
            Say::Note(note) => self.step(Event::Told { from, note }, context),
            Say::Ask { request, object, what } => self.serve(from, request, object, what, context),
            Say::Answer { request, answer } => {
                let header = Header { request, ..Header::default() };
                if let Some((_, waiting)) = self.requests.answered(to_wire(from), &header) {
                    self.answered(from, &waiting, answer, context);
                }
            }
            Say::Cancel { request } => {
                // Somebody may have opened the other end just before.
                if self.opening.contains(&(from, request)) && context.rng.one_in(4) {
                    self.finish(from, request, context);
                }
                self.step(Event::Cancelled { peer: from, request }, context);
            }
            Say::Give { object, home, passed } => self.receive(object, home, from, passed, context),
        }
    }

    fn down(&mut self, dead: KernelId, context: &mut Context<'_>) {
        for (_, _, waiting) in self.requests.end_where(|asked| asked.peer == to_wire(dead)) {
            self.answered(dead, &waiting, Answer::Refused, context);
        }
        self.locks.peer_down(dead);
        let gone: Vec<_> = self.believed.iter().copied().filter(|(object, _)| object.birth == dead).collect();
        for lock in gone {
            self.believed.remove(&lock);
        }
        self.step(Event::Down { dead }, context);
    }

    fn view(&mut self, _: &mut Context<'_>) {}

    fn operate(&mut self, context: &mut Context<'_>) {
        let peers = context.peers();
        let Some(peer) = context.rng.pick(&peers) else { return };
        let things: Vec<ObjectId> = self.things.keys().copied().collect();
        let held: Vec<ObjectId> = self.state.imports.objects().collect();
        let held = context.rng.pick(&held).and_then(|object| Some((object, self.state.imports.home(object)?)));
        match (context.rng.below(20), held) {
            (0..=2, _) => {
                let used = context.rng.one_in(2);
                let object = self.make(used);
                if self.state.lend(object, peer).is_ok() {
                    context.send(peer, Lane::Reply, Say::Give { object, home: self.me, passed: false });
                } else {
                    self.things.remove(&object);
                }
            }
            (3, _) => {
                // One of ours in a message that is confirmed, or that fails.
                if let Some(object) = context.rng.pick(&things)
                    && self.state.pass(object, peer).is_ok()
                {
                    if context.rng.one_in(4) {
                        let me = self.me;
                        self.with(context, |state, queue| state.unsent(object, me, peer, queue));
                    } else {
                        context.send(peer, Lane::Request, Say::Give { object, home: self.me, passed: true });
                    }
                }
            }
            (4..=6, Some((object, home))) => {
                // Sometimes it goes home.
                let holder = if context.rng.one_in(4) { home } else { peer };
                self.ask(home, Waiting { object, what: What::Grant(holder), cancelled: false }, context);
            }
            (7, Some((object, home))) => {
                self.ask(home, Waiting { object, what: What::Open, cancelled: false }, context);
            }
            (8, _) => self.finish_open(context),
            (9, _) => {
                self.opens.retain(|request| self.requests.get(*request).is_some_and(|(_, waiting)| !waiting.cancelled));
                let open: Vec<u64> = self.opens.iter().copied().collect();
                if let Some(request) = context.rng.pick(&open)
                    && let Some((asked, waiting)) = self.requests.get(request)
                {
                    waiting.cancelled = true;
                    context.send(objects::from_wire(asked.peer), Lane::Request, Say::Cancel { request });
                }
            }
            (10 | 16, Some((object, _))) => {
                self.next += 1;
                let token = self.next;
                self.watches.insert(token, Watch { object, over: false, seen: 0 });
                self.step(Event::Subscribe { token, object, mask: Ready::IN }, context);
                self.look(token, object, context);
            }
            (11, _) => {
                let tokens: Vec<u64> = self.watches.keys().copied().collect();
                if let Some(token) = context.rng.pick(&tokens) {
                    self.watches.remove(&token);
                    self.step(Event::Unsubscribe { token }, context);
                }
            }
            (12, Some((object, home))) => self.lock(object, home, context),
            (13, Some((object, _))) => {
                // Its locks go with it, as with a file that is closed.
                self.believed.retain(|(locked, _)| *locked != object);
                let tokens: Vec<u64> =
                    self.watches.iter().filter(|(_, w)| w.object == object).map(|(token, _)| *token).collect();
                // Whoever subscribed may outlive the last user.
                let late = context.rng.one_in(2);
                if late {
                    self.step(Event::Dropped { object }, context);
                }
                for token in tokens {
                    self.watches.remove(&token);
                    self.step(Event::Unsubscribe { token }, context);
                }
                if !late {
                    self.step(Event::Dropped { object }, context);
                }
            }
            _ => {
                // Mostly to what somebody watches, and more than once: so that some of it happens while a READY is on its way.
                let watched: Vec<ObjectId> = self
                    .things
                    .iter()
                    .filter(|(_, thing)| !thing.watched.is_empty())
                    .map(|(object, _)| *object)
                    .collect();
                let from = if watched.is_empty() || context.rng.one_in(4) { &things } else { &watched };
                if let Some(object) = context.rng.pick(from) {
                    for _ in 0..1 + context.rng.below(3) {
                        self.happen(object, context);
                    }
                }
            }
        }
    }

    fn timer(&mut self, _: &mut Context<'_>) {}

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What must hold for files.
#[derive(Default)]
pub struct Files;

fn part(service: &dyn SimService) -> Option<&Part> {
    service.as_any().downcast_ref()
}

impl Suite for Files {
    fn name(&self) -> &'static str {
        "files"
    }

    fn start(&self, me: KernelId, _: u16) -> Box<dyn SimService> {
        Box::new(Part {
            me,
            state: State::new(me),
            things: BTreeMap::new(),
            locks: Table::new(),
            watches: BTreeMap::new(),
            opening: BTreeSet::new(),
            requests: Requests::new(),
            opens: BTreeSet::new(),
            believed: BTreeSet::new(),
            next: 0,
            begun: 0,
            ended: 0,
            wrong: None,
        })
    }

    fn check(&mut self, changed: KernelId, parts: &Parts<'_>, judge: &Judge) -> Result<(), String> {
        let parts: Vec<(KernelId, &Part)> = parts.iter().filter_map(|(k, p)| Some((*k, part(*p)?))).collect();
        let Some((_, this)) = parts.iter().find(|(k, _)| *k == changed) else { return Ok(()) };
        if let Some((rule, wrong)) = &this.wrong {
            judge.broken(*rule, || wrong.clone())?;
        }
        if this.begun != this.ended + this.requests.len() as u64 {
            judge.broken(Rule::RequestsKept, || {
                format!("{changed} lost a request: {} begun, {} ended", this.begun, this.ended)
            })?;
        }
        for lock in &this.believed {
            // Whose home is alive: what a dead one had locked is locked no more.
            let home = parts.iter().any(|(k, _)| *k == lock.0.birth);
            let other = parts.iter().find(|(k, p)| {
                *k != changed && p.believed.iter().any(|(object, pid)| *object == lock.0 && *pid != lock.1)
            });
            if let Some((other, _)) = other.filter(|_| home) {
                judge.broken(Rule::OneLock, || format!("{changed} and {other} both hold the lock of {:?}", lock.0))?;
            }
            if let Some((object, pid)) = this.believed.iter().find(|(object, pid)| *object == lock.0 && *pid != lock.1)
            {
                judge.broken(Rule::OneLock, || {
                    format!("two processes of {changed} hold the lock of {object:?}: {pid} and {}", lock.1)
                })?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, parts: &Parts<'_>, judge: &Judge) -> Result<(), String> {
        let parts: Vec<(KernelId, &Part)> = parts.iter().filter_map(|(k, p)| Some((*k, part(*p)?))).collect();
        for (k, p) in &parts {
            let waiting = p.requests.len();
            let opens =
                parts.iter().map(|(_, h)| h.opening.iter().filter(|(peer, _)| peer == k).count()).sum::<usize>();
            if waiting != opens {
                judge.broken(Rule::Quiet, || {
                    format!("{k} waits for {waiting} answers, and {opens} opens are under way")
                })?;
            }
            if let Some((peer, request)) = p.opening.iter().find(|(peer, _)| p.state.exports.is_dead(*peer)) {
                judge
                    .broken(Rule::Quiet, || format!("{k} still works at request {request} of {peer}, which is dead"))?;
            }
            let [.., working, questions] = p.state.open();
            if working != p.opening.len() || questions != 0 || p.state.exports.on_their_way() != 0 {
                judge.broken(Rule::Quiet, || format!(
                    "{k}: {working} requests for {} opens, {questions} questions, {} references on their way when all is quiet",
                    p.opening.len(),
                    p.state.exports.on_their_way()
                ))?;
            }
            for (object, thing) in &p.things {
                for (holder, h) in parts.iter().filter(|(h, _)| h != k) {
                    let (granted, received) =
                        (p.state.exports.granted(*object, *holder), h.state.imports.received(*object));
                    if granted != received {
                        judge.broken(Rule::ReferencesConserved, || {
                            format!("{object:?}: {granted} references granted to {holder}, which has {received}")
                        })?;
                    }
                }
                let lent = parts.iter().any(|(h, _)| p.state.exports.granted(*object, *h) > 0);
                if !lent && !thing.used {
                    judge.broken(Rule::KeptForSomebody, || format!("{object:?} is kept for nobody"))?;
                }
                for (peer, token) in &thing.watched {
                    let watch = parts.iter().find(|(h, _)| h == peer).and_then(|(_, h)| h.watches.get(token));
                    let Some(watch) = watch else {
                        judge.broken(Rule::WatchedForSomebody, || {
                            format!("{object:?} is watched for {peer}, where nobody wants to know")
                        })?;
                        continue;
                    };
                    if thing.happened != watch.seen {
                        let (happened, seen) = (thing.happened, watch.seen);
                        judge.broken(Rule::ToldOfAll, || {
                            format!("{happened} things happened to {object:?}, {peer} was told of {seen}")
                        })?;
                    }
                }
            }
            for (token, watch) in &p.watches {
                let home = parts.iter().find(|(h, _)| *h == watch.object.birth);
                let watched = home.is_some_and(|(_, h)| {
                    h.things.get(&watch.object).is_some_and(|thing| thing.watched.contains(&(*k, *token)))
                });
                if !watched && !watch.over {
                    judge.broken(Rule::WatchLives, || format!("{k} waits for {:?} for ever", watch.object))?;
                }
            }
        }
        Ok(())
    }
}
