//! The file service of one kernel: what it lends, what it holds, and how it asks.

use alloc::{
    boxed::Box,
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};

use base::{
    Errno, Error, KernelId, ObjectId, Ready, Result, Subscription, TryResult, Wake,
    wait::{Cancel, Try},
};
use hal::sync::Once;
use link::{Incoming, Links, lock::Lock};
use memory::{Finder, MemoryService};
use mm::{Memory, MemoryObject};
use objects::{Exports, Imports, Receipt, call, from_wire, object_from_wire, object_to_wire, to_wire, when_done};
use vfs::{Inode, OpenFile, OpenFlags, Place, Stat, Status, Vfs};
use wire::{
    Message as _,
    files::{FileIoctl, FileRead, FileWrite, GrantFor, NodeRoot, tree},
    generic::{Arm, Armed, Disarm, Release},
};

use crate::remote::{Opened, RemoteFile, RemoteInode};

/// How long a peer may take for what it answers at once, in ns.
const SOON: u64 = 10_000_000_000;
/// The most bytes of one answer or write.
pub(crate) const CHUNK: usize = 4096;

/// What is lent to other kernels.
#[derive(Clone)]
pub(crate) enum Lent {
    File(Arc<dyn OpenFile>),
    Node(Arc<dyn Inode>),
}

/// What this kernel holds of others.
#[derive(Default)]
struct Held {
    imports: Imports,
    files: BTreeMap<ObjectId, Weak<RemoteFile>>,
    nodes: BTreeMap<ObjectId, Weak<RemoteInode>>,
}

/// A subscription of this kernel at a peer.
struct Armed1 {
    object: ObjectId,
    mask: Ready,
    generation: u32,
    waker: Arc<dyn Wake>,
}

/// See the module.
pub struct FileService {
    me: Weak<Self>,
    pub(crate) links: Arc<Links>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) exports: Lock<Exports>,
    pub(crate) lent: Lock<BTreeMap<ObjectId, Lent>>,
    held: Lock<Held>,
    armed: Lock<(u64, BTreeMap<u64, Armed1>)>,
    /// Subscriptions of peers here: by peer and its token.
    pub(crate) serving: Lock<BTreeMap<(KernelId, u64), Subscription>>,
    vfs: Once<Arc<Vfs>>,
    shared: Once<Arc<MemoryService>>,
    trees: [Once<Arc<dyn Inode>>; tree::COUNT],
}

impl FileService {
    /// The service of the kernel whose links these are. Register it for the families `files` and `generic`.
    pub fn new(links: Arc<Links>, memory: Arc<Memory>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            links,
            memory,
            exports: Lock::new(Exports::new()),
            lent: Lock::new(BTreeMap::new()),
            held: Lock::new(Held::default()),
            armed: Lock::new((1, BTreeMap::new())),
            serving: Lock::new(BTreeMap::new()),
            vfs: Once::new(),
            shared: Once::new(),
            trees: [const { Once::new() }; tree::COUNT],
        })
    }

    /// The kernel's files are there: peers are served from now on.
    pub fn attach(&self, vfs: Arc<Vfs>) {
        if self.vfs.set(vfs).is_err() {
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
        let home = self.held.lock().imports.home(file);
        let home = home.ok_or(Error::new(Errno::EHOSTDOWN, "the kernel that had it is down"))?;
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

    /// Asks about an object at its home; `read` makes the value of the answer.
    pub(crate) fn ask<M: wire::Request, T: Send + 'static>(
        &self,
        object: ObjectId,
        message: &M,
        payload: &[u8],
        read: impl FnOnce(&Incoming<'_>) -> link::Result<Try<T>> + Send + 'static,
    ) -> TryResult<T> {
        // Everything is answered at once but what waits for data or room.
        let long = [FileRead::SPEC.number, FileWrite::SPEC.number, FileIoctl::SPEC.number];
        self.ask_long(object, message, payload, long.contains(&M::SPEC.number), read)
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
        let Some(home) = self.held.lock().imports.home(object) else {
            return Err(Error::new(Errno::EHOSTDOWN, "the kernel that had it is down"));
        };
        self.ask_kernel(home, object, message, payload, long, read)
    }

    /// The proxy of an open file, while somebody has it.
    pub(crate) fn proxy(&self, object: ObjectId) -> Option<Arc<RemoteFile>> {
        self.held.lock().files.get(&object).and_then(Weak::upgrade)
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
        let home = self.held.lock().imports.home(object);
        if let Some(home) = home {
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

    // -- lending ---------------------------------------------------------------------------------------------------

    /// Lends a file to `holder`: the name to send. A file that is itself a proxy is granted by its home first: see [`FileService::pass_on`].
    pub(crate) fn lend_file(&self, file: &Arc<dyn OpenFile>, holder: KernelId) -> ObjectId {
        let id = file.id();
        self.lent.lock().entry(id).or_insert_with(|| Lent::File(file.clone()));
        if let Err(refusal) = self.exports.lock().grant(id, holder) {
            log::warn!("files: {id:?} is lent while it moves: {refusal:?}");
        }
        id
    }

    /// Lends an inode.
    pub(crate) fn lend_node(&self, node: &Arc<dyn Inode>, holder: KernelId) -> ObjectId {
        let id = node.id();
        self.lent.lock().entry(id).or_insert_with(|| Lent::Node(node.clone()));
        if let Err(refusal) = self.exports.lock().grant(id, holder) {
            log::warn!("files: {id:?} is lent while it moves: {refusal:?}");
        }
        id
    }

    /// A grant that could not be sent, or that a holder gives back.
    pub(crate) fn give_back(&self, object: ObjectId, holder: KernelId, count: u32) {
        let outcome = self.exports.lock().give_back(object, holder, count);
        if outcome == Ok(objects::Lent::Nobody) {
            let released = self.lent.lock().remove(&object);
            drop(released);
        }
    }

    /// Makes a reference to an open file that can be sent to `holder` (descriptors of a task that moves): the object and its home.
    pub fn pass_on(&self, file: &Arc<dyn OpenFile>, holder: KernelId) -> TryResult<(ObjectId, KernelId)> {
        let Some(remote) = file.as_any().downcast_ref::<RemoteFile>() else {
            let me = self.kernel();
            return base::wait::done((self.lend_file(file, holder), me));
        };
        let object = remote.object();
        let home = self.held.lock().imports.home(object);
        let Some(home) = home else {
            // Its home is dead: the new holder gets the same dead file.
            return base::wait::done((object, object.birth));
        };
        if home == holder {
            // It goes home: its new kernel has the real one.
            return base::wait::done((object, home));
        }
        self.ask(object, &GrantFor { holder: to_wire(holder) }, &[], move |answer| {
            answer.read::<wire::files::FileCount>()?;
            Ok(Try::Done((object, home)))
        })
    }

    /// A reference to an open file came: the real one if this is its home, else a proxy.
    ///
    /// # Errors
    /// `ESTALE` if it is said to be here but is not.
    pub fn receive_file(&self, object: ObjectId, home: KernelId, opened: Opened) -> Result<Arc<dyn OpenFile>> {
        if home == self.kernel() {
            return match self.lent.lock().get(&object) {
                Some(Lent::File(file)) => Ok(file.clone()),
                _ => Err(Error::new(Errno::ESTALE, "no such open file")),
            };
        }
        let service = self.this().ok_or(Error::new(Errno::EHOSTDOWN, "shutting down"))?;
        let mut held = self.held.lock();
        let receipt = held.imports.receive(object, home);
        if receipt != Receipt::New
            && let Some(file) = held.files.get(&object).and_then(Weak::upgrade)
        {
            return Ok(file);
        }
        let file = Arc::new(RemoteFile::new(service, object, opened));
        held.files.insert(object, Arc::downgrade(&file));
        Ok(file)
    }

    /// A reference to an inode came.
    pub(crate) fn receive_node(
        &self,
        object: ObjectId,
        home: KernelId,
        stat: Stat,
        base: Option<Arc<dyn Inode>>,
    ) -> Result<Arc<dyn Inode>> {
        if home == self.kernel() {
            return match self.lent.lock().get(&object) {
                Some(Lent::Node(node)) => Ok(node.clone()),
                _ => Err(Error::new(Errno::ESTALE, "no such inode")),
            };
        }
        let service = self.this().ok_or(Error::new(Errno::EHOSTDOWN, "shutting down"))?;
        let mut held = self.held.lock();
        let receipt = held.imports.receive(object, home);
        if receipt != Receipt::New
            && let Some(node) = held.nodes.get(&object).and_then(Weak::upgrade)
        {
            return Ok(node);
        }
        let node = Arc::new(RemoteInode::new(service, object, stat.kind, base));
        held.nodes.insert(object, Arc::downgrade(&node));
        Ok(node)
    }

    /// An inode in an answer. `base` finds what this kernel has under the same name, for one that is still as the archive has it.
    pub(crate) fn take_node(
        &self,
        answer: &Incoming<'_>,
        base: impl FnOnce(&Stat) -> Option<Arc<dyn Inode>>,
    ) -> link::Result<Arc<dyn Inode>> {
        let (node, payload) = answer.read::<wire::files::NodeIs>()?;
        let bad = |_| link::Error::new(Errno::EBADMSG, "the answer does not decode", answer.from);
        let stat = <Stat as objects::codec::Body<crate::codec::Files>>::get(&mut objects::codec::Reader(payload))
            .map_err(bad)?;
        let base = if node.base != 0 || stat.kind == vfs::FileKind::Directory { base(&stat) } else { None };
        self.receive_node(object_from_wire(node.node), from_wire(answer.from), stat, base)
            .map_err(|error| link::Error::new(error.errno(), error.why(), answer.from))
    }

    /// An open file in an answer.
    pub(crate) fn take_file(
        &self,
        answer: &Incoming<'_>,
        flags: OpenFlags,
        status: Status,
        place: Option<Place>,
        base: Option<Arc<dyn Inode>>,
    ) -> link::Result<Arc<dyn OpenFile>> {
        let (opened, payload) = answer.read::<wire::files::FileOpened>()?;
        let facts =
            Opened { flags, status, able: opened.able, size: opened.size, place, base, describe: payload.into() };
        self.receive_file(object_from_wire(opened.file), from_wire(answer.from), facts)
            .map_err(|error| link::Error::new(error.errno(), error.why(), answer.from))
    }

    /// The last user of a proxy is gone.
    pub(crate) fn let_go(&self, object: ObjectId) {
        let back = {
            let mut held = self.held.lock();
            // A new proxy may have been made since the last one died: then it keeps the grants.
            if held.files.get(&object).is_some_and(|file| file.strong_count() > 0)
                || held.nodes.get(&object).is_some_and(|node| node.strong_count() > 0)
            {
                return;
            }
            held.files.remove(&object);
            held.nodes.remove(&object);
            held.imports.drop_proxy(object)
        };
        if let Some(back) = back {
            let release = Release { object: object_to_wire(object), count: back.count };
            // If its home is dead there is nothing to give back to.
            let _ = self.links.send(to_wire(back.home), object_to_wire(object), &release, &[]);
        }
    }

    /// Whether the home of a proxy is dead.
    pub(crate) fn is_dead(&self, object: ObjectId) -> bool {
        self.held.lock().imports.home(object).is_none()
    }

    // -- readiness -------------------------------------------------------------------------------------------------

    /// Subscribes at the home of a proxy.
    pub(crate) fn subscribe(&self, object: ObjectId, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        let token = {
            let mut armed = self.armed.lock();
            let token = armed.0;
            armed.0 += 1;
            armed.1.insert(token, Armed1 { object, mask, generation: 0, waker });
            token
        };
        self.arm(token);
        Subscription::new(Disarming { service: self.me.clone(), token })
    }

    /// Sends an arming; what is ready already wakes at once.
    fn arm(&self, token: u64) {
        let (object, mask, generation) = {
            let mut armed = self.armed.lock();
            let Some(one) = armed.1.get_mut(&token) else {
                return;
            };
            one.generation += 1;
            (one.object, one.mask, one.generation)
        };
        let message = Arm { token, generation, mask: mask.bits() };
        let tried = self.ask(object, &message, &[], |answer| {
            let (armed, _) = answer.read::<Armed>()?;
            Ok(Try::Done(Ready::from_bits_truncate(armed.ready)))
        });
        let service = self.me.clone();
        when_done(tried, move |ready| {
            let ready = ready.unwrap_or(Ready::ERR | Ready::HUP);
            if let Some(service) = service.upgrade()
                && !ready.is_empty()
            {
                service.wake(token, ready);
            }
        });
    }

    fn wake(&self, token: u64, ready: Ready) {
        let waker = self.armed.lock().1.get(&token).map(|one| one.waker.clone());
        if let Some(waker) = waker {
            waker.wake(ready);
        }
    }

    /// READY came: wake, and arm again for the next time.
    pub(crate) fn ready(&self, token: u64, ready: Ready) {
        self.wake(token, ready);
        self.arm(token);
    }

    /// A kernel died: its references come back, what it homed is dead, who waited for that is woken.
    pub fn peer_down(&self, dead: KernelId) {
        let free = self.exports.lock().peer_down(dead);
        let mut released = Vec::new();
        {
            let mut lent = self.lent.lock();
            released.extend(free.iter().filter_map(|object| lent.remove(object)));
        }
        drop(released);
        let gone = self.held.lock().imports.peer_down(dead);
        let wakers: Vec<_> = {
            let armed = self.armed.lock();
            armed.1.values().filter(|one| gone.contains(&one.object)).map(|one| one.waker.clone()).collect()
        };
        for waker in wakers {
            waker.wake(Ready::ERR | Ready::HUP);
        }
        let ended: Vec<_> = {
            let mut serving = self.serving.lock();
            let keys: Vec<_> = serving.range((dead, 0)..=(dead, u64::MAX)).map(|(key, _)| *key).collect();
            keys.iter().filter_map(|key| serving.remove(key)).collect()
        };
        drop(ended);
    }
}

impl Finder for FileService {
    fn memory_of(&self, file: ObjectId) -> Result<Arc<dyn MemoryObject>> {
        let found = self.lent.lock().get(&file).cloned();
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
        let Some(service) = self.service.upgrade() else {
            return;
        };
        let Some(one) = service.armed.lock().1.remove(&self.token) else {
            return;
        };
        let home = service.held.lock().imports.home(one.object);
        if let Some(home) = home {
            let message = Disarm { token: self.token, generation: one.generation };
            // If it is dead nothing is armed there.
            let _ = service.links.send(to_wire(home), object_to_wire(one.object), &message, &[]);
        }
    }
}
