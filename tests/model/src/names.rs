//! The name service: what was registered is found from every kernel, by whoever asks afterwards, whoever dies meanwhile.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Errno, KernelId, ObjectId};
use names::state::{Actions, Entry, Event, Kind, Name, Names, OpId, Outcome, PeerRequest, Request};

use crate::world::{Machine, Out, Part, State};

/// What kernels say to each other about names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// A request to a registrar, under a view.
    Ask { id: u64, epoch: u32, request: Request },
    /// Its answer.
    Answer { id: u64, outcome: Outcome },
    /// The object is the receiver's from now on.
    Moves { name: Name, object: ObjectId },
    /// It is registered.
    Landed { name: Name },
}

/// What somebody on a kernel wants.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The name is to stand for an object of this kernel.
    Register(Name, ObjectId),
    /// It is to stand for nothing again.
    Unregister(Name, ObjectId),
    /// What does it stand for?
    Lookup(Name),
    /// The object goes to another kernel.
    Move(Name, ObjectId, KernelId),
}

/// What is so.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Truth {
    /// Names that must be found, with the kernels whose death changes that.
    known: BTreeMap<Name, BTreeSet<KernelId>>,
    /// Operations under way.
    open: BTreeMap<(KernelId, OpId), (Operation, bool)>,
    dead: BTreeSet<KernelId>,
    wrong: Option<String>,
}

impl Truth {
    fn forget(&mut self, name: Name) {
        self.known.remove(&name);
        for (operation, must) in self.open.values_mut() {
            if *operation == Operation::Lookup(name) {
                *must = false;
            }
        }
    }
}

/// The name service of a kernel, with the links' table of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamesOfKernel {
    names: Names,
    epoch: u32,
    asked: BTreeMap<u64, (KernelId, OpId)>,
    down: BTreeSet<KernelId>,
    /// Objects on their way from here.
    flying: BTreeMap<Name, KernelId>,
    /// Objects that came here, with whom they came from, by what registers them.
    landing: BTreeMap<OpId, KernelId>,
    next: u64,
}

/// Collects what a step wants.
#[derive(Default)]
struct Wanted {
    asks: Vec<(KernelId, Option<OpId>, Request)>,
    answers: Vec<(KernelId, PeerRequest, Outcome)>,
    done: Vec<(OpId, Outcome)>,
}

impl Actions for Wanted {
    fn ask(&mut self, to: KernelId, op: Option<OpId>, request: Request) {
        self.asks.push((to, op, request));
    }
    fn answer(&mut self, to: KernelId, request_id: PeerRequest, outcome: Outcome) {
        self.answers.push((to, request_id, outcome));
    }
    fn complete(&mut self, op: OpId, outcome: Outcome) {
        self.done.push((op, outcome));
    }
}

impl NamesOfKernel {
    fn new(me: KernelId, kernels: u16) -> Self {
        Self {
            names: Names::new(me, kernels),
            epoch: 0,
            asked: BTreeMap::new(),
            down: BTreeSet::new(),
            flying: BTreeMap::new(),
            landing: BTreeMap::new(),
            next: 1,
        }
    }

    fn event(&mut self, event: Event, out: &mut Out<'_, Self>) {
        let mut wanted = Wanted::default();
        self.names.step(event, &mut wanted);
        for (to, op, request) in wanted.asks {
            let id = self.next;
            self.next += 1;
            match op {
                // There is no link to it any more.
                Some(op) if self.down.contains(&to) => {
                    self.event(Event::Lost { op }, out);
                    continue;
                }
                Some(op) => drop(self.asked.insert(id, (to, op))),
                None => {}
            }
            out.send(to, Message::Ask { id, epoch: self.epoch, request });
        }
        for (to, id, outcome) in wanted.answers {
            out.send(to, Message::Answer { id, outcome });
        }
        for (op, outcome) in wanted.done {
            self.ended(op, outcome, out);
        }
    }

    fn begin(&mut self, operation: Operation, must: bool, out: &mut Out<'_, Self>) -> OpId {
        let op = self.next;
        self.next += 1;
        out.truth.open.insert((out.me, op), (operation, must));
        op
    }

    fn register(&mut self, name: Name, object: ObjectId, from: Option<KernelId>, out: &mut Out<'_, Self>) {
        let op = self.begin(Operation::Register(name, object), false, out);
        let (entry, replace) = (Entry { object, home: out.me }, from.is_some());
        if let Some(from) = from {
            self.landing.insert(op, from);
        }
        self.event(Event::Local { op, request: Request::Register { name, entry, replace } }, out);
    }

    fn ended(&mut self, op: OpId, outcome: Outcome, out: &mut Out<'_, Self>) {
        let me = out.me;
        let Some((operation, must)) = out.truth.open.remove(&(me, op)) else {
            out.truth.wrong = Some(format!("{me}: an operation ended twice"));
            return;
        };
        match (operation, outcome) {
            (Operation::Register(name, object), Outcome::Done) => {
                // It may have been given up before this was known.
                if !out.truth.open.values().any(|(open, _)| *open == Operation::Unregister(name, object)) {
                    out.truth.known.insert(name, BTreeSet::from([me]));
                }
                if let Some(from) = self.landing.remove(&op) {
                    out.send(from, Message::Landed { name });
                }
            }
            (Operation::Lookup(name), Outcome::Failed(Errno::ESRCH)) if must => {
                out.truth.wrong = Some(format!("{me}: {name:?} is not found"));
            }
            (Operation::Lookup(_), Outcome::Found(_) | Outcome::Failed(Errno::ESRCH)) => {}
            (Operation::Unregister(..), Outcome::Done) => {}
            // What was registered here before is known: it goes.
            (Operation::Move(name, object, to), Outcome::Done) => {
                if out.truth.dead.contains(&to) {
                    out.truth.forget(name);
                } else if let Some(with) = out.truth.known.get_mut(&name) {
                    // From here on it may live or die with either of them.
                    with.insert(to);
                }
                self.event(Event::Leaves { name }, out);
                if self.down.contains(&to) {
                    return self.event(Event::Landed { name }, out);
                }
                self.flying.insert(name, to);
                out.send(to, Message::Moves { name, object });
            }
            (operation, outcome) => {
                out.truth.wrong = Some(format!("{me}: {operation:?} ended with {outcome:?}"));
            }
        }
    }
}

impl Part for NamesOfKernel {
    type Message = Message;
    type Operation = Operation;
    type Truth = Truth;

    fn operate(&mut self, operation: &Operation, out: &mut Out<'_, Self>) {
        match *operation {
            Operation::Register(name, object) => self.register(name, object, None, out),
            Operation::Unregister(name, object) => {
                out.truth.forget(name);
                let op = self.begin(operation.clone(), false, out);
                self.event(Event::Local { op, request: Request::Unregister { name, object } }, out);
            }
            Operation::Lookup(name) => {
                let must = out.truth.known.contains_key(&name);
                let op = self.begin(operation.clone(), must, out);
                self.event(Event::Local { op, request: Request::Lookup { name } }, out);
            }
            Operation::Move(..) => {
                let op = self.begin(operation.clone(), false, out);
                self.event(Event::Flush { op }, out);
            }
        }
    }

    fn receive(&mut self, from: KernelId, message: Message, out: &mut Out<'_, Self>) {
        match message {
            Message::Ask { id, epoch, request } => {
                self.event(Event::Asked { from, request_id: id, epoch, request }, out);
            }
            Message::Answer { id, outcome } => {
                // Nobody waits for the answers to what is told again.
                if let Some((_, op)) = self.asked.remove(&id) {
                    self.event(Event::Answered { op, outcome }, out);
                }
            }
            Message::Moves { name, object } => self.register(name, object, Some(from), out),
            Message::Landed { name } => {
                self.flying.remove(&name);
                self.event(Event::Landed { name }, out);
            }
        }
    }

    fn down(&mut self, dead: KernelId, out: &mut Out<'_, Self>) {
        self.down.insert(dead);
        let lost: Vec<_> =
            self.asked.iter().filter(|(_, (to, _))| *to == dead).map(|(id, (_, op))| (*id, *op)).collect();
        for (id, op) in lost {
            self.asked.remove(&id);
            self.event(Event::Lost { op }, out);
        }
        let landed: Vec<Name> = self.flying.iter().filter(|(_, to)| **to == dead).map(|(name, _)| *name).collect();
        for name in landed {
            self.flying.remove(&name);
            self.event(Event::Landed { name }, out);
        }
    }

    fn view(&mut self, epoch: u32, members: &[KernelId], out: &mut Out<'_, Self>) {
        self.epoch = epoch;
        self.event(Event::View { epoch, members: members.to_vec() }, out);
    }

    fn died(truth: &mut Truth, kernel: KernelId) {
        truth.dead.insert(kernel);
        truth.open.retain(|(who, _), _| *who != kernel);
        let gone: Vec<Name> = truth.known.iter().filter(|(_, with)| with.contains(&kernel)).map(|(n, _)| *n).collect();
        for name in gone {
            truth.forget(name);
        }
    }

    fn wrong(state: &State<Self>) -> Option<String> {
        state.truth.wrong.clone()
    }

    fn missing(state: &State<Self>) -> Option<String> {
        if let Some(((kernel, _), (operation, _))) = state.truth.open.iter().next() {
            return Some(format!("{kernel}: {operation:?} never ends"));
        }
        for (kernel, part) in &state.parts {
            for (name, entry) in part.names.registered() {
                if !state.lives(entry.home) {
                    return Some(format!("{kernel}: {name:?} stands for something of {}, which is dead", entry.home));
                }
                if part.names.registrar(name) != *kernel {
                    return Some(format!("{kernel}: keeps {name:?}, of which it is not the registrar"));
                }
            }
        }
        for name in state.truth.known.keys() {
            let kept = |part: &Self| part.names.registered().any(|(kept, _)| kept == *name);
            if !state.parts.values().any(kept) {
                return Some(format!("{name:?} is kept by nobody"));
            }
        }
        None
    }
}

const fn kernel(index: u16) -> KernelId {
    KernelId { index, incarnation: 1 }
}

/// A name of a process of each registrar is registered, looked up from everywhere, moved or given up, while kernels die: three kernels and one death, or more.
pub fn machines(kernels: u16, crashes: u32) -> Vec<(String, Machine<NamesOfKernel>)> {
    let part = |index| (kernel(index), NamesOfKernel::new(kernel(index), kernels));
    let parts = || (0..kernels).map(part).collect::<BTreeMap<_, _>>();
    let object = ObjectId { birth: kernel(1), serial: 7 };
    let name = |registrar: u16| {
        let of = |key: &u64| Name { kind: Kind::Process, key: *key }.first_registrar(kernels) == registrar;
        Name { kind: Kind::Process, key: (1..10_000).find(of).unwrap_or(1) }
    };
    let wanted = |list: &[(u16, &[Operation])]| {
        let wishes = |(index, list): &(u16, &[Operation])| (kernel(*index), VecDeque::from(list.to_vec()));
        list.iter().map(wishes).collect::<BTreeMap<_, _>>()
    };
    let mut all = Vec::new();
    // The registrar is the one that asks or gets the object, the home itself, or a third kernel.
    for registrar in 0..kernels {
        let name = name(registrar);
        let (register, lookup) = (Operation::Register(name, object), Operation::Lookup(name));
        let asks: [Operation; 2] = [lookup.clone(), lookup];
        let given_up = [register.clone(), Operation::Unregister(name, object)];
        let moved = [register, Operation::Move(name, object, kernel(0))];
        for (what, first) in [("given up", &given_up), ("moved", &moved)] {
            let what = format!("{kernels} kernels, {crashes} deaths, kept by kernel {registrar}, {what}");
            let wanted = wanted(&[(1, first), (0, &asks), (2, &asks)]);
            all.push((what, Machine { parts: parts(), wanted, crashes }));
        }
    }
    all
}
