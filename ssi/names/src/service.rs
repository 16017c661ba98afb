//! The name service of one kernel: speaks the messages of `wire::names` and keeps who waits for what.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

use base::{Errno, Error, KernelId, ObjectId, TryResult, wait::done};
use link::{AnswerTo, Handler, Incoming, Links, lock::Lock};
use objects::{Completer, call, from_wire, object_from_wire, object_to_wire, to_wire};
use wire::{
    Message as _,
    names::{Lookup, Named, Register, Retell, Settled, Unregister},
};

use crate::state::{Actions, Entry, Event, Kind, Name, Names, OpId, Outcome, PeerRequest, Request};

/// How long a registrar may take, in ns of the asker's clock. It answers at once unless it waits for a view.
const DEADLINE: u64 = 10_000_000_000;

/// See the module.
pub struct NameService {
    links: Arc<Links>,
    inner: Lock<Inner>,
}

struct Inner {
    names: Names,
    next: u64,
    waiting: BTreeMap<OpId, Completer<Option<Entry>>>,
    /// Peers' requests that have no answer yet, by the number the state machine knows.
    asked: BTreeMap<PeerRequest, AnswerTo>,
}

/// What the state machine wants done, in order; done after the lock is dropped.
#[derive(Default)]
struct Queue(Vec<Action>);

enum Action {
    Ask(KernelId, Option<OpId>, Request),
    Answer(PeerRequest, Outcome),
    Complete(OpId, Outcome),
}

impl Actions for Queue {
    fn ask(&mut self, to: KernelId, op: Option<OpId>, request: Request) {
        self.0.push(Action::Ask(to, op, request));
    }

    fn answer(&mut self, _to: KernelId, request_id: PeerRequest, outcome: Outcome) {
        self.0.push(Action::Answer(request_id, outcome));
    }

    fn complete(&mut self, op: OpId, outcome: Outcome) {
        self.0.push(Action::Complete(op, outcome));
    }
}

impl NameService {
    /// The service of the kernel whose links these are, in a plan of `kernels` kernels. Register it for the family `names`.
    pub fn new(links: Arc<Links>, kernels: u16) -> Arc<Self> {
        let names = Names::new(from_wire(links.me()), kernels);
        let inner = Inner { names, next: 1, waiting: BTreeMap::new(), asked: BTreeMap::new() };
        Arc::new(Self { links, inner: Lock::new(inner) })
    }

    /// How many names this kernel keeps as their registrar, and how many operations have not ended.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.names.registered().count(), inner.names.open_operations() + inner.waiting.len() + inner.asked.len())
    }

    /// How many of all shares of the names each member of the view has.
    pub fn shares(&self) -> Vec<(KernelId, u16)> {
        self.inner.lock().names.shares()
    }

    /// The membership has a new view.
    pub fn view(self: &Arc<Self>, epoch: u32, members: Vec<KernelId>) {
        self.step(Event::View { epoch, members });
    }

    /// What does the name stand for?
    ///
    /// # Errors
    /// `ESRCH` if there is no such name.
    pub fn lookup(self: &Arc<Self>, name: Name) -> TryResult<Entry> {
        let found = self.local(Request::Lookup { name })?;
        Ok(found.map(|entry| entry.unwrap_or(NOWHERE)))
    }

    /// The name stands for `object`, homed here, from now on. With `replace` the object moved here. Nobody has to wait: if the registrar is another
    /// kernel it hears of it in time, since messages of one kernel keep their order.
    pub fn register(self: &Arc<Self>, name: Name, object: ObjectId, replace: bool) {
        let entry = Entry { object, home: from_wire(self.links.me()) };
        if let Err(error) = self.local(Request::Register { name, entry, replace }) {
            log::warn!("names: {name:?} cannot be registered: {error}");
        }
    }

    /// As [`NameService::register`] for a name that may be in use: the caller waits for the answer.
    ///
    /// # Errors
    /// `EEXIST` if the name is in use.
    pub fn claim(self: &Arc<Self>, name: Name, object: ObjectId) -> TryResult<()> {
        let entry = Entry { object, home: from_wire(self.links.me()) };
        Ok(self.local(Request::Register { name, entry, replace: false })?.map(|_| ()))
    }

    /// What the name stands for moved here; ends when the registrar knows.
    ///
    /// # Errors
    /// `EEXIST` if the name stands for something else.
    pub fn move_here(self: &Arc<Self>, name: Name, object: ObjectId) -> TryResult<()> {
        let entry = Entry { object, home: from_wire(self.links.me()) };
        Ok(self.local(Request::Register { name, entry, replace: true })?.map(|_| ()))
    }

    /// The name is free again.
    pub fn unregister(self: &Arc<Self>, name: Name, object: ObjectId) {
        if let Err(error) = self.local(Request::Unregister { name, object }) {
            log::warn!("names: {name:?} cannot be freed: {error}");
        }
    }

    /// Ends when everything that this kernel registers and frees now is done: before an object moves, so that nothing of the old home comes after what
    /// the new one registers.
    pub fn flush(self: &Arc<Self>) -> TryResult<()> {
        Ok(self.begin(|op| Event::Flush { op })?.map(|_| ()))
    }

    /// The object of the name moved to another kernel, which registers it.
    pub fn moved_away(self: &Arc<Self>, name: Name) {
        self.step(Event::MovedAway { name });
    }

    /// The object of the name is on its way to another kernel; [`Self::landed`] follows.
    pub fn leaves(self: &Arc<Self>, name: Name) {
        self.step(Event::Leaves { name });
    }

    /// It is registered there, or that kernel is dead.
    pub fn landed(self: &Arc<Self>, name: Name) {
        self.step(Event::Landed { name });
    }

    fn local(self: &Arc<Self>, request: Request) -> TryResult<Option<Entry>> {
        self.begin(|op| Event::Local { op, request })
    }

    fn begin(self: &Arc<Self>, event: impl FnOnce(OpId) -> Event) -> TryResult<Option<Entry>> {
        let (call, completer) = call();
        let op = {
            let mut inner = self.inner.lock();
            let op = inner.next;
            inner.next += 1;
            inner.waiting.insert(op, completer);
            op
        };
        self.step(event(op));
        call.into_try()
    }

    fn step(self: &Arc<Self>, event: Event) {
        let mut queue = Queue::default();
        self.inner.lock().names.step(event, &mut queue);
        for action in queue.0 {
            match action {
                Action::Ask(to, op, request) => self.ask(to, op, request),
                Action::Answer(id, outcome) => self.answer(id, outcome),
                Action::Complete(op, outcome) => {
                    let completer = self.inner.lock().waiting.remove(&op);
                    if let Some(completer) = completer {
                        // A result for nobody needs no undoing: an entry is only knowledge.
                        drop(completer.complete(match outcome {
                            Outcome::Done => done(None),
                            Outcome::Found(entry) => done(Some(entry)),
                            Outcome::Failed(errno) => Err(Error::new(errno, "the registrar says")),
                            Outcome::Stale { .. } => Err(Error::new(Errno::ESTALE, "the view changes")),
                        }));
                    }
                }
            }
        }
    }

    fn ask(self: &Arc<Self>, to: KernelId, op: Option<OpId>, request: Request) {
        let peer = to_wire(to);
        let none = wire::ObjectId::NONE;
        let Some(op) = op else {
            let sent = match request {
                Request::Register { name, entry, .. } => {
                    let retell = Retell {
                        kind: name.kind as u8,
                        key: name.key,
                        object: object_to_wire(entry.object),
                        home: to_wire(entry.home),
                    };
                    self.links.send(peer, none, &retell, &[])
                }
                Request::Settled { epoch } => self.links.send(peer, none, &Settled { epoch }, &[]),
                Request::Unregister { .. } | Request::Lookup { .. } => Ok(()),
            };
            if let Err(error) = sent {
                // It is dead, or about to be: the next view asks again.
                log::debug!("names: {error}");
            }
            return;
        };
        let service = self.clone();
        let then = alloc::boxed::Box::new(move |_: &Links, result: link::Result<Incoming<'_>>| {
            let outcome = match result.and_then(|message| message.read::<Named>()) {
                Ok((named, _)) if named.epoch != 0 => Outcome::Stale { epoch: named.epoch },
                Ok((named, _)) if named.object.is_some() => {
                    Outcome::Found(Entry { object: object_from_wire(named.object), home: from_wire(named.home) })
                }
                Ok(_) => Outcome::Done,
                Err(error) if error.errno == Errno::EHOSTDOWN || error.errno == Errno::ENOTCONN => {
                    return service.step(Event::Lost { op });
                }
                Err(error) => Outcome::Failed(error.errno),
            };
            service.step(Event::Answered { op, outcome });
        });
        let deadline = self.links.now().saturating_add(DEADLINE);
        match request {
            Request::Register { name, entry, replace } => {
                let message = Register {
                    kind: name.kind as u8,
                    replace: u8::from(replace),
                    key: name.key,
                    object: object_to_wire(entry.object),
                    home: to_wire(entry.home),
                };
                self.links.request(peer, none, &message, &[], deadline, then);
            }
            Request::Unregister { name, object } => {
                let message = Unregister { kind: name.kind as u8, key: name.key, object: object_to_wire(object) };
                self.links.request(peer, none, &message, &[], deadline, then);
            }
            Request::Lookup { name } => {
                let message = Lookup { kind: name.kind as u8, key: name.key };
                self.links.request(peer, none, &message, &[], deadline, then);
            }
            Request::Settled { .. } => {}
        }
    }

    fn answer(&self, id: PeerRequest, outcome: Outcome) {
        let Some(to) = self.inner.lock().asked.remove(&id) else {
            return;
        };
        match outcome {
            Outcome::Done => {
                // If the asker died nobody needs the answer.
                let _ = self.links.answer(to, &NOTHING, &[]);
            }
            Outcome::Found(entry) => {
                let named = Named { object: object_to_wire(entry.object), home: to_wire(entry.home), epoch: 0 };
                let _ = self.links.answer(to, &named, &[]);
            }
            Outcome::Failed(errno) => self.links.refuse(to, errno),
            Outcome::Stale { epoch } => {
                let _ = self.links.answer(to, &Named { epoch, ..NOTHING }, &[]);
            }
        }
    }
}

/// An answer that says nothing but that it is one.
const NOTHING: Named = Named { object: wire::ObjectId::NONE, home: wire::KernelId::NONE, epoch: 0 };

/// Never handed out: a lookup that is done found something.
const NOWHERE: Entry = Entry {
    object: ObjectId { birth: KernelId { index: 0, incarnation: 0 }, serial: 0 },
    home: KernelId { index: 0, incarnation: 0 },
};

fn name(kind: u8, key: u64, from: wire::KernelId) -> link::Result<Name> {
    let kind = Kind::from_number(kind).ok_or(link::Error::new(Errno::EBADMSG, "no such sort of name", from))?;
    Ok(Name { kind, key })
}

/// The handler that [`Links`] calls: the service behind an [`Arc`], since answers come later.
pub struct NameHandler(pub Arc<NameService>);

impl Handler for NameHandler {
    fn handle(&self, _links: &Links, message: &Incoming<'_>) -> link::Result<()> {
        let from = message.from;
        let request = match message.header.kind {
            kind if kind == Register::SPEC.number => {
                let (m, _) = message.read::<Register>()?;
                let entry = Entry { object: object_from_wire(m.object), home: from_wire(m.home) };
                Request::Register { name: name(m.kind, m.key, from)?, entry, replace: m.replace != 0 }
            }
            kind if kind == Unregister::SPEC.number => {
                let (m, _) = message.read::<Unregister>()?;
                Request::Unregister { name: name(m.kind, m.key, from)?, object: object_from_wire(m.object) }
            }
            kind if kind == Lookup::SPEC.number => {
                let (m, _) = message.read::<Lookup>()?;
                Request::Lookup { name: name(m.kind, m.key, from)? }
            }
            kind if kind == Retell::SPEC.number => {
                let (m, _) = message.read::<Retell>()?;
                let entry = Entry { object: object_from_wire(m.object), home: from_wire(m.home) };
                Request::Register { name: name(m.kind, m.key, from)?, entry, replace: true }
            }
            kind if kind == Settled::SPEC.number => {
                let (m, _) = message.read::<Settled>()?;
                Request::Settled { epoch: m.epoch }
            }
            _ => return Err(link::Error::new(Errno::ENOSYS, "the name service does not know it", from)),
        };
        let request_id = {
            let mut inner = self.0.inner.lock();
            let id = inner.next;
            inner.next += 1;
            if message.is_request() {
                inner.asked.insert(id, message.answer_to());
            }
            id
        };
        let epoch = message.header.epoch;
        self.0.step(Event::Asked { from: from_wire(from), request_id, epoch, request });
        Ok(())
    }
}

impl core::fmt::Debug for NameService {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("NameService").finish_non_exhaustive()
    }
}

impl core::fmt::Debug for NameHandler {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("NameHandler")
    }
}
