//! The file service of one kernel: what it lends, what it holds, and how it asks. What follows from what is decided in `state.rs`; here it is done.

use alloc::{
    boxed::Box,
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicU64, Ordering};

use base::{
    Errno, Error, KernelId, ObjectId, Ready, Result, Subscription, TryResult, Wake,
    wait::{Cancel, Try},
};
use hal::sync::Once;
use link::{AnswerTo, Incoming, Links, lock::Lock};
use memory::{Finder, MemoryService};
use mm::{Memory, MemoryObject};
use objects::{
    Abandon, call, from_wire, object_from_wire, object_to_wire, settled, to_wire, unless_abandoned, when_done,
};
use vfs::{Inode, OpenFile, Vfs, lock::Lock as FileLock, socket::Address};
use wire::{
    Message as _,
    files::{LockArm, NodeRoot, tree},
    generic::{Again, Arm, Armed, Disarm, Ready as ReadyEvent, Received, Release, SettleUp, SettledUp, Unsent},
};

use crate::{
    pieces::Pieces,
    remote::{RemoteFile, RemoteInode},
    sockets::RemoteAddress,
    state::{Actions, Event, Note, State},
};

/// How long a peer may take for what it answers at once, in ns.
const SOON: u64 = 10_000_000_000;
/// The most bytes of one message.
pub(crate) const CHUNK: usize = 4096;
/// The most bytes of one read or write, in pieces: what a pipe holds.
pub(crate) const LONG: usize = 65536;

/// What is lent to other kernels.
#[derive(Clone)]
pub(crate) enum Lent {
    File(Arc<dyn OpenFile>),
    Node(Arc<dyn Inode>),
    Address(Arc<dyn Address>),
}

/// A subscription of this kernel at a peer.
struct Waking {
    waker: Arc<dyn Wake>,
    /// For what lock, if it is for one.
    lock: Option<FileLock>,
}

/// A request of a peer that takes its time.
struct Working {
    to: AnswerTo,
    handle: Arc<dyn Abandon>,
}

/// Everything that changes together.
pub(crate) struct Inner {
    pub state: State,
    pub lent: BTreeMap<ObjectId, Lent>,
    pub files: BTreeMap<ObjectId, Weak<RemoteFile>>,
    pub nodes: BTreeMap<ObjectId, Weak<RemoteInode>>,
    pub addresses: BTreeMap<ObjectId, Weak<RemoteAddress>>,
    waking: BTreeMap<u64, Waking>,
    watching: BTreeMap<(KernelId, u64), Subscription>,
    working: BTreeMap<(KernelId, u64), Working>,
}

/// See the module.
pub struct FileService {
    pub(crate) me: Weak<Self>,
    pub(crate) links: Arc<Links>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) inner: Lock<Inner>,
    pub(crate) pieces: Pieces,
    next: AtomicU64,
    vfs: Once<Arc<Vfs>>,
    shared: Once<Arc<MemoryService>>,
    trees: [Once<Arc<dyn Inode>>; tree::COUNT],
}

/// Collects what a step wants done.
#[derive(Default)]
pub(crate) struct Queue(Vec<Action>);

enum Action {
    Send(KernelId, Note),
    Free(ObjectId),
    Wake(u64, Ready),
    Watch(KernelId, u64, ObjectId, Ready),
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
    fn watch(&mut self, peer: KernelId, token: u64, object: ObjectId, mask: Ready) {
        self.0.push(Action::Watch(peer, token, object, mask));
    }
    fn unwatch(&mut self, peer: KernelId, token: u64) {
        self.0.push(Action::Unwatch(peer, token));
    }
    fn abandon(&mut self, peer: KernelId, request: u64, answer: bool) {
        self.0.push(Action::Abandon(peer, request, answer));
    }
}

/// What is done after the lock is dropped.
#[derive(Default)]
struct After {
    freed: Vec<Lent>,
    ended: Vec<Subscription>,
    wakers: Vec<(Arc<dyn Wake>, Ready)>,
    undone: Vec<(Working, bool)>,
    /// Requests, and what goes to kernels without a link yet.
    notes: Vec<(KernelId, Note, Option<FileLock>)>,
    watch: Vec<(KernelId, u64, Lent, Ready)>,
}

impl FileService {
    /// The service of the kernel whose links these are. Register it for the families `files` and `generic`.
    pub fn new(links: Arc<Links>, memory: Arc<Memory>) -> Arc<Self> {
        let inner = Inner {
            state: State::new(from_wire(links.me())),
            lent: BTreeMap::new(),
            files: BTreeMap::new(),
            nodes: BTreeMap::new(),
            addresses: BTreeMap::new(),
            waking: BTreeMap::new(),
            watching: BTreeMap::new(),
            working: BTreeMap::new(),
        };
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            links,
            memory,
            inner: Lock::new(inner),
            pieces: Pieces::new(),
            next: AtomicU64::new(1),
            vfs: Once::new(),
            shared: Once::new(),
            trees: [const { Once::new() }; tree::COUNT],
        })
    }

    /// The kernel's files are there: peers are served from now on.
    pub fn attach(&self, vfs: Arc<Vfs>) {
        let abroad = vfs.watches.set_abroad(self.me.clone());
        if self.vfs.set(vfs).is_err() || !abroad {
            log::warn!("files: attached before");
        }
    }

    /// The service that maps files of peers; once.
    pub fn set_memory(&self, memory: Arc<MemoryService>) {
        if self.shared.set(memory).is_err() {
            log::warn!("files: there was a memory service before");
        }
    }

    /// What a shared mapping of a peer's file maps.
    pub(crate) fn share(&self, file: ObjectId, writable: bool) -> TryResult<Arc<dyn MemoryObject>> {
        let home = self.home(file).ok_or(Error::new(Errno::EHOSTDOWN, "the kernel that had it is down"))?;
        self.shared.get().ok_or(Error::new(Errno::ENODEV, "the kernel is still booting"))?.open(home, file, writable)
    }

    /// A tree of this kernel (`wire::files::tree`), which peers reach by [`FileService::root_of`]; also what stays of a peer's tree here when that peer is
    /// dead.
    pub fn set_tree(&self, which: u8, root: Arc<dyn Inode>) {
        if self.trees.get(usize::from(which)).is_none_or(|slot| slot.set(root).is_err()) {
            log::warn!("files: tree {which} was set before");
        }
    }

    pub(crate) fn root(&self, which: u8) -> Result<Arc<dyn Inode>> {
        let tree = self.trees.get(usize::from(which)).ok_or(Error::new(Errno::EINVAL, "no such tree"))?;
        tree.get().cloned().ok_or(Error::new(Errno::EAGAIN, "the kernel is still booting"))
    }

    pub(crate) fn vfs(&self) -> Result<&Arc<Vfs>> {
        self.vfs.get().ok_or(Error::new(Errno::EAGAIN, "the kernel is still booting"))
    }

    pub(crate) fn this(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    /// This kernel.
    pub fn kernel(&self) -> KernelId {
        from_wire(self.links.me())
    }

    fn soon(&self) -> u64 {
        self.links.now().saturating_add(SOON)
    }

    /// A number that was not used before.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    // -- steps -----------------------------------------------------------------------------------------------------

    /// Takes an event and does what follows.
    pub(crate) fn step(&self, event: Event) {
        self.with(|inner, queue| inner.state.step(event, queue));
    }

    /// Changes what changes together, and does what follows.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Inner, &mut Queue) -> T) -> T {
        let mut after = After::default();
        let result = {
            let mut inner = self.inner.lock();
            let mut queue = Queue::default();
            let result = change(&mut inner, &mut queue);
            for action in queue.0 {
                self.act(&mut inner, action, &mut after);
            }
            result
        };
        self.finish(after);
        result
    }

    /// Notes are sent under the lock, so that their order is that of the steps.
    fn act(&self, inner: &mut Inner, action: Action, after: &mut After) {
        match action {
            Action::Send(to, note @ Note::Arm { token, .. }) => {
                let lock = inner.waking.get(&token).and_then(|waking| waking.lock);
                after.notes.push((to, note, lock));
            }
            Action::Send(to, note) if self.links.peer(to_wire(to)).is_none() => after.notes.push((to, note, None)),
            Action::Send(to, note) => self.send(to, note),
            Action::Free(object) => after.freed.extend(inner.lent.remove(&object)),
            Action::Wake(token, ready) => {
                after.wakers.extend(inner.waking.get(&token).map(|waking| (waking.waker.clone(), ready)));
            }
            Action::Watch(peer, token, object, mask) => {
                after.watch.extend(inner.lent.get(&object).map(|lent| (peer, token, lent.clone(), mask)));
            }
            Action::Unwatch(peer, token) => after.ended.extend(inner.watching.remove(&(peer, token))),
            Action::Abandon(peer, request, answer) => {
                after.undone.extend(inner.working.remove(&(peer, request)).map(|working| (working, answer)));
            }
        }
    }

    fn finish(&self, after: After) {
        for (to, note, lock) in after.notes {
            match note {
                Note::Arm { object, token, generation, mask } => self.arm(to, object, token, generation, mask, lock),
                note => self.send(to, note),
            }
        }
        for (peer, token, lent, mask) in after.watch {
            self.watch(peer, token, &lent, mask, None);
        }
        for (waker, ready) in after.wakers {
            waker.wake(ready);
        }
        for (working, answer) in after.undone {
            working.handle.abandon();
            if answer {
                self.links.cancelled(working.to);
            }
        }
        drop((after.ended, after.freed));
    }

    /// If the receiver is dead nobody needs it.
    fn send(&self, to: KernelId, note: Note) {
        let (to, none) = (to_wire(to), wire::ObjectId::NONE);
        let _ = match note {
            Note::Arm { .. } => Ok(()),
            Note::Again { token, generation } => self.links.send(to, none, &Again { token, generation }, &[]),
            Note::Disarm { token } => self.links.send(to, none, &Disarm { token, generation: 0 }, &[]),
            Note::Ready { token, generation, ready } => {
                self.links.send(to, none, &ReadyEvent { token, generation, ready: ready.bits() }, &[])
            }
            Note::Release { object, count } => {
                let object = object_to_wire(object);
                self.links.send(to, object, &Release { object, count }, &[])
            }
            Note::Received { object, via } => {
                let object = object_to_wire(object);
                self.links.send(to, object, &Received { object, via: to_wire(via) }, &[])
            }
            Note::Unsent { object, holder } => {
                let object = object_to_wire(object);
                self.links.send(to, object, &Unsent { object, holder: to_wire(holder) }, &[])
            }
            Note::Question { via } => self.links.send(to, none, &SettleUp { via: to_wire(via) }, &[]),
            Note::Settled { via } => self.links.send(to, none, &SettledUp { via: to_wire(via) }, &[]),
        };
    }

    /// A note of a peer, if the message is one.
    pub(crate) fn note(message: &Incoming<'_>) -> link::Result<Option<Note>> {
        let kind = message.header.kind;
        Ok(Some(match kind {
            _ if kind == Again::SPEC.number => {
                let (again, _) = message.read::<Again>()?;
                Note::Again { token: again.token, generation: again.generation }
            }
            _ if kind == Disarm::SPEC.number => Note::Disarm { token: message.read::<Disarm>()?.0.token },
            _ if kind == ReadyEvent::SPEC.number => {
                let (ready, _) = message.read::<ReadyEvent>()?;
                Note::Ready {
                    token: ready.token,
                    generation: ready.generation,
                    ready: Ready::from_bits_truncate(ready.ready),
                }
            }
            _ if kind == Release::SPEC.number => {
                let (release, _) = message.read::<Release>()?;
                Note::Release { object: object_from_wire(release.object), count: release.count }
            }
            _ if kind == Received::SPEC.number => {
                let (received, _) = message.read::<Received>()?;
                Note::Received { object: object_from_wire(received.object), via: from_wire(received.via) }
            }
            _ if kind == Unsent::SPEC.number => {
                let (unsent, _) = message.read::<Unsent>()?;
                Note::Unsent { object: object_from_wire(unsent.object), holder: from_wire(unsent.holder) }
            }
            _ if kind == SettleUp::SPEC.number => Note::Question { via: from_wire(message.read::<SettleUp>()?.0.via) },
            _ if kind == SettledUp::SPEC.number => Note::Settled { via: from_wire(message.read::<SettledUp>()?.0.via) },
            _ => return Ok(None),
        }))
    }

    // -- asking ----------------------------------------------------------------------------------------------------

    /// Asks about an object at its home; `read` makes the value of the answer.
    pub(crate) fn ask<M: wire::Request, T: Send + 'static>(
        &self,
        object: ObjectId,
        message: &M,
        payload: &[u8],
        read: impl FnOnce(&Incoming<'_>) -> link::Result<Try<T>> + Send + 'static,
    ) -> TryResult<T> {
        // A try is answered at once. If a signal ended the wait for it, what it has read would be lost.
        self.ask_long(object, message, payload, false, read)
    }

    /// As [`FileService::ask`]; `long`: it may take as long as somebody pleases.
    pub(crate) fn ask_long<M: wire::Request, T: Send + 'static>(
        &self,
        object: ObjectId,
        message: &M,
        payload: &[u8],
        long: bool,
        read: impl FnOnce(&Incoming<'_>) -> link::Result<Try<T>> + Send + 'static,
    ) -> TryResult<T> {
        let Some(home) = self.home(object) else {
            return Err(Error::new(Errno::EHOSTDOWN, "the kernel that had it is down"));
        };
        self.ask_kernel(home, object, message, payload, long, read)
    }

    /// Where an object of another kernel is; none if that kernel is dead.
    pub(crate) fn home(&self, object: ObjectId) -> Option<KernelId> {
        self.inner.lock().state.imports.home(object)
    }

    /// The proxy of an open file, while somebody has it.
    pub(crate) fn proxy(&self, object: ObjectId) -> Option<Arc<RemoteFile>> {
        self.inner.lock().files.get(&object).and_then(Weak::upgrade)
    }

    pub(crate) fn ask_kernel<M: wire::Request, T: Send + 'static>(
        &self,
        to: KernelId,
        object: ObjectId,
        message: &M,
        payload: &[u8],
        long: bool,
        read: impl FnOnce(&Incoming<'_>) -> link::Result<Try<T>> + Send + 'static,
    ) -> TryResult<T> {
        let (call, completer) = call();
        let then = Box::new(move |_: &Links, result: link::Result<Incoming<'_>>| {
            let result = result.and_then(|answer| read(&answer)).map_err(objects::error);
            // A value for nobody is dropped, and with it the proxies and grants in it.
            drop(completer.complete(result));
        });
        let id = self.links.request(
            to_wire(to),
            object_to_wire(object),
            message,
            payload,
            if long { u64::MAX } else { self.soon() },
            then,
        );
        let links = self.links.clone();
        call.on_abandon(move || links.cancel(id)).long(long).into_try()
    }

    /// Tells an object something; nobody waits.
    pub(crate) fn tell<M: wire::Message>(&self, object: ObjectId, message: &M, payload: &[u8]) {
        if let Some(home) = self.home(object) {
            // If it is dead nobody is left to tell.
            let _ = self.links.send(to_wire(home), object_to_wire(object), message, payload);
        }
    }

    /// The root of a tree of another kernel.
    ///
    /// # Errors
    /// `EHOSTDOWN`, `EAGAIN` while that kernel boots.
    pub fn root_of(&self, kernel: KernelId, which: u8) -> TryResult<Arc<dyn Inode>> {
        let nothing = ObjectId { birth: kernel, serial: 0 };
        let service = self.me.clone();
        let base = self.root(which).ok();
        self.ask_kernel(kernel, nothing, &NodeRoot { tree: which }, &[], false, move |answer| {
            let service = service.upgrade().ok_or(link::Error::down(answer.from))?;
            service.take_node(answer, |_| base).map(Try::Done)
        })
    }

    // -- answering -------------------------------------------------------------------------------------------------

    /// Answers a request when its operation ends; until then the asker may abandon it.
    pub(crate) fn when<T: 'static>(
        &self,
        to: AnswerTo,
        tried: TryResult<T>,
        then: impl FnOnce(&Self, Result<T>) + Send + 'static,
    ) {
        let Ok(Try::Started(_)) = &tried else { return then(self, settled(tried)) };
        let Some(service) = self.this() else { return };
        let key = (from_wire(to.peer), to.request);
        self.inner.lock().state.begin(key.0, key.1);
        let handle = unless_abandoned(tried, move |result| {
            let (mine, handle) = {
                let mut inner = service.inner.lock();
                (inner.state.end(key.0, key.1), inner.working.remove(&key))
            };
            drop(handle);
            // Abandoned at the last moment: what it made is dropped.
            if mine {
                then(&service, result);
            }
        });
        if let Some(handle) = handle {
            let late = {
                let mut inner = self.inner.lock();
                if inner.state.is_working(key.0, key.1) {
                    inner.working.insert(key, Working { to, handle });
                    None
                } else {
                    Some(handle)
                }
            };
            if let Some(handle) = late {
                handle.abandon();
            }
        }
    }

    // -- readiness -------------------------------------------------------------------------------------------------

    /// Subscribes at the home of a proxy; for a lock, to when it may be free.
    pub(crate) fn subscribe(
        &self,
        object: ObjectId,
        mask: Ready,
        lock: Option<FileLock>,
        waker: Arc<dyn Wake>,
    ) -> Subscription {
        let token = self.number();
        self.with(|inner, queue| {
            inner.waking.insert(token, Waking { waker, lock });
            inner.state.step(Event::Subscribe { token, object, mask }, queue);
        });
        Subscription::new(Disarming { service: self.me.clone(), token })
    }

    fn arm(&self, home: KernelId, object: ObjectId, token: u64, generation: u32, mask: Ready, lock: Option<FileLock>) {
        let read = |answer: &Incoming<'_>| {
            answer.read::<Armed>()?;
            Ok(Try::Done(from_wire(answer.from)))
        };
        let tried = match lock {
            None => {
                let message = Arm { token, generation, mask: mask.bits() };
                self.ask_kernel(home, object, &message, &[], false, read)
            }
            Some(lock) => {
                let payload = crate::codec::encode(&[&lock]);
                self.ask_kernel(home, object, &LockArm { token, generation }, &payload, false, read)
            }
        };
        let service = self.me.clone();
        when_done(tried, move |armed| {
            if let Some(service) = service.upgrade() {
                let (from, done) = armed.map_or((home, false), |from| (from, true));
                service.step(Event::Armed { from, token, generation, done });
            }
        });
    }

    /// Watches an object of this kernel for a peer.
    pub(crate) fn watch(&self, peer: KernelId, token: u64, lent: &Lent, mask: Ready, lock: Option<&FileLock>) {
        let waker = Arc::new(Watcher { service: self.me.clone(), peer, token });
        let subscription = match (lent, lock, self.vfs()) {
            (Lent::File(file), Some(lock), Ok(vfs)) => file.lock_wait(vfs, lock, waker),
            (Lent::File(file), ..) => file.subscribe(mask, waker),
            (Lent::Address(address), ..) => address.subscribe(mask, waker),
            (Lent::Node(_), ..) => Subscription::never(),
        };
        let old = {
            let mut inner = self.inner.lock();
            if inner.state.is_watched(peer, token) {
                inner.watching.insert((peer, token), subscription)
            } else {
                Some(subscription)
            }
        };
        drop(old);
    }

    /// A kernel died: its references come back, what it homed is dead, who waited for that is woken.
    pub fn peer_down(&self, dead: KernelId) {
        self.pieces.peer_down(dead);
        if let Ok(vfs) = self.vfs() {
            vfs.locks.peer_down(dead);
            vfs.watches.peer_down(dead);
        }
        self.step(Event::Down { dead });
    }

    /// What is lent and what is held, for `/proc/cob` and for tests: objects lent, objects held, subscriptions here, subscriptions of peers, requests
    /// of peers under way.
    pub fn counts(&self) -> [usize; 5] {
        let inner = self.inner.lock();
        let [armed, watched, working, _] = inner.state.open();
        [inner.state.exports.len(), inner.state.imports.len(), armed, watched, working]
    }
}

/// Tells the service that what a peer watches became ready.
struct Watcher {
    service: Weak<FileService>,
    peer: KernelId,
    token: u64,
}

impl Wake for Watcher {
    fn wake(&self, ready: Ready) {
        if let Some(service) = self.service.upgrade() {
            service.step(Event::Happened { peer: self.peer, token: self.token, ready });
        }
    }
}

impl Finder for FileService {
    fn memory_of(&self, file: ObjectId) -> Result<Arc<dyn MemoryObject>> {
        let found = self.inner.lock().lent.get(&file).cloned();
        match found {
            Some(Lent::File(file)) => file.memory(),
            _ => Err(Error::new(Errno::ESTALE, "no such open file")),
        }
    }
}

/// Ends a subscription at a peer.
struct Disarming {
    service: Weak<FileService>,
    token: u64,
}

impl Cancel for Disarming {
    fn cancel(&mut self) {
        let Some(service) = self.service.upgrade() else { return };
        let waking = service.with(|inner, queue| {
            inner.state.step(Event::Unsubscribe { token: self.token }, queue);
            inner.waking.remove(&self.token)
        });
        drop(waking);
    }
}
