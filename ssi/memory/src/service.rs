//! The memory service of one kernel: the glue around [`Home`] and [`Holder`].

use alloc::{
    boxed::Box,
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::ops::Range;

use base::{
    Errno, Error, KernelId, ObjectId, Result, TryResult,
    wait::{Op, Try},
};
use hal::{
    addr::{PAGE_SIZE, PhysAddr},
    boot::PhysRange,
    frame::{Frame, GrantToken, PeerFrame},
    sync::Once,
};
use link::{Incoming, Links, lock::Lock, window::Reach};
use mm::{Mapper, MemoryObject, ObjectKind};
use objects::{Completer, call, from_wire, object_from_wire, object_to_wire, to_wire};
use task::{
    Kernel,
    futex::Armed,
    signal::{SigInfo, Signal},
};
use wire::memory::{MemoryOpen, MemoryOpened, MemoryRelease, MemoryRevoke};

use crate::{
    copies::glue::Exchange,
    holder::{Holder, Release},
    home::Home,
    proxy::Proxy,
};

/// How long a peer may take for what it answers at once, in ns.
const SOON: u64 = 10_000_000_000;

/// Who knows the files that are lent to other kernels.
pub trait Finder: Send + Sync {
    /// What a mapping of a lent open file maps.
    ///
    /// # Errors
    /// `ESTALE` if it is not lent, `ENODEV` if it cannot be mapped.
    fn memory_of(&self, file: ObjectId) -> Result<Arc<dyn MemoryObject>>;
}

/// An object of this kernel that others have open.
pub(crate) struct Lent {
    pub object: Arc<dyn MemoryObject>,
    mapper: Arc<dyn Mapper>,
    /// The opens of each holder, as the object counts its mappings.
    tokens: Vec<(KernelId, usize)>,
}

/// See the module.
pub struct MemoryService {
    pub(crate) me: Weak<Self>,
    pub(crate) links: Arc<Links>,
    pub(crate) kernel: Arc<Kernel>,
    finder: Once<Weak<dyn Finder>>,
    /// Where the memory of each kernel is, at this kernel's addresses.
    pub(crate) reaches: Vec<Reach>,
    /// Copies of pages, to and from kernels that do not see each other's memory.
    pub(crate) exchange: Exchange,
    pub(crate) home: Lock<Home<Frame>>,
    pub(crate) holder: Lock<Holder<PeerFrame>>,
    pub(crate) lent: Lock<BTreeMap<ObjectId, Lent>>,
    proxies: Lock<BTreeMap<ObjectId, Weak<Proxy>>>,
    /// Those who wait until a revocation has ended.
    revoking: Lock<BTreeMap<u64, Completer<()>>>,
    /// Tasks of peers that sleep at words of this kernel: by peer and request.
    pub(crate) sleeping: Lock<BTreeMap<(KernelId, u64), Armed>>,
}

impl MemoryService {
    /// The service of `kernel`, whose links these are. `reaches` says where every kernel's memory is.
    pub fn new(links: Arc<Links>, kernel: Arc<Kernel>, reaches: Vec<Reach>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            links,
            kernel,
            finder: Once::new(),
            reaches,
            exchange: Exchange::default(),
            home: Lock::new(Home::new()),
            holder: Lock::new(Holder::new()),
            lent: Lock::new(BTreeMap::new()),
            proxies: Lock::new(BTreeMap::new()),
            revoking: Lock::new(BTreeMap::new()),
            sleeping: Lock::new(BTreeMap::new()),
        })
    }

    /// Says who finds lent files; once.
    pub fn set_finder(&self, finder: Weak<dyn Finder>) {
        if self.finder.set(finder).is_err() {
            log::warn!("memory: there was a finder before");
        }
    }

    pub(crate) fn this(&self) -> Result<Arc<Self>> {
        self.me.upgrade().ok_or(Error::new(Errno::EHOSTDOWN, "shutting down"))
    }

    // -- the home's side -------------------------------------------------------------------------------------------

    /// A peer opens what one of its files here maps.
    pub(crate) fn lend(&self, file: ObjectId, holder: KernelId, writable: bool) -> Result<MemoryOpened> {
        let finder = self.finder.get().and_then(Weak::upgrade).ok_or(Error::from(Errno::EAGAIN))?;
        let object = finder.memory_of(file)?;
        let id = object.id();
        let mapper = {
            let mut lent = self.lent.lock();
            let entry = lent.entry(id).or_insert_with(|| Lent {
                object: object.clone(),
                mapper: Arc::new(Holders { service: self.me.clone() }),
                tokens: Vec::new(),
            });
            entry.mapper.clone()
        };
        let weak = Arc::downgrade(&mapper);
        let (token, writable) = match object.attach(&weak, writable) {
            // Sealed: it can still be read.
            Err(error) if error == Errno::EPERM && writable => (object.attach(&weak, false)?, false),
            other => (other?, writable),
        };
        self.home.lock().open(id, holder);
        let stale = match self.lent.lock().get_mut(&id) {
            Some(lent) => {
                lent.tokens.push((holder, token));
                false
            }
            None => true,
        };
        if stale {
            // Another holder closed it meanwhile: this one opens it anew.
            drop(self.home.lock().release(id, holder, 0, 1));
            object.detach(token);
            return Err(Error::new(Errno::EAGAIN, "the object was just closed"));
        }
        let kind = u8::from(object.kind() == ObjectKind::Shared);
        Ok(MemoryOpened { memory: object_to_wire(id), kind, writable: u8::from(writable) })
    }

    /// An object of this kernel that a peer has open.
    pub(crate) fn lent(&self, object: ObjectId, holder: KernelId) -> Result<Arc<dyn MemoryObject>> {
        let stale = Error::new(Errno::ESTALE, "not open");
        if !self.home.lock().is_open(object, holder) {
            return Err(stale);
        }
        self.lent.lock().get(&object).map(|lent| lent.object.clone()).ok_or(stale)
    }

    /// Where a frame of this kernel is in its memory.
    pub(crate) fn place_of(&self, frame: &Frame) -> Option<u64> {
        let me = from_wire(self.links.me());
        frame.phys().0.checked_sub(self.reaches.iter().find(|reach| reach.index == me.index)?.base()?)
    }

    /// Whether programs here may execute what lies in a peer's memory.
    pub(crate) fn may_execute(&self, home: KernelId) -> bool {
        self.reaches.iter().any(|reach| reach.index == home.index && reach.executable)
    }

    /// The frame at a place that a peer granted.
    pub(crate) fn frame_at(&self, home: KernelId, place: u64) -> Option<PeerFrame> {
        let reach = self.reaches.iter().find(|reach| reach.index == home.index)?;
        let at = reach.locate(place, PAGE_SIZE as u64)?;
        let grant = GrantToken::new(PhysRange { start: PhysAddr(at), len: PAGE_SIZE as u64 }).ok()?;
        PeerFrame::new(&grant, 0)
    }

    /// A holder gives back.
    pub(crate) fn take_back(&self, object: ObjectId, holder: KernelId, serial: u64, opens: u32) {
        let released = self.home.lock().release(object, holder, serial, opens);
        if released.closed {
            self.closed(object, holder);
        }
    }

    /// A holder has no open of the object left.
    fn closed(&self, id: ObjectId, holder: KernelId) {
        let (object, tokens, last) = {
            let mut lent = self.lent.lock();
            let Some(entry) = lent.get_mut(&id) else { return };
            let (theirs, others) = entry.tokens.iter().partition(|(of, _)| *of == holder);
            entry.tokens = others;
            let object = entry.object.clone();
            let last = if entry.tokens.is_empty() { lent.remove(&id) } else { None };
            let theirs: Vec<(KernelId, usize)> = theirs;
            (object, theirs, last)
        };
        for (_, token) in tokens {
            object.detach(token);
        }
        drop(last);
    }

    /// Takes pages back from all holders; the operation ends when none of them maps one any more.
    pub(crate) fn revoke(&self, object: ObjectId, pages: Range<u64>) -> Option<Box<dyn Op<()>>> {
        let revoke = self.home.lock().revoke(object, pages.clone())?;
        let (call, completer) = call();
        // Before anybody can answer.
        self.revoking.lock().insert(revoke.id, completer);
        let message = MemoryRevoke { first: pages.start, end: pages.end, serial: revoke.serial };
        for holder in revoke.ask {
            let service = self.me.clone();
            let then =
                Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| match (service.upgrade(), answer) {
                    (Some(service), Ok(_)) => service.acknowledged(revoke.id, holder),
                    // Its death ends the revocation when it is known to be stopped.
                    (_, Err(error)) if error.errno == Errno::EHOSTDOWN => {}
                    (_, Err(error)) => log::error!("memory: kernel {holder} does not take a revocation: {error}"),
                    (None, Ok(_)) => {}
                });
            // There is no time at which a frame that somebody may map could be used again: the answer or the death of the holder ends it.
            self.links.request(to_wire(holder), object_to_wire(object), &message, &[], u64::MAX, then);
        }
        Some(Box::new(call))
    }

    fn acknowledged(&self, id: u64, holder: KernelId) {
        let frames = self.home.lock().acknowledged(id, holder);
        if frames.is_some() {
            drop(frames);
            self.ended(id);
        }
    }

    /// A revocation has ended.
    fn ended(&self, id: u64) {
        let completer = self.revoking.lock().remove(&id);
        if let Some(completer) = completer {
            // If nobody waits it is just as well.
            drop(completer.complete(base::wait::done(())));
        }
    }

    // -- the holder's side -----------------------------------------------------------------------------------------

    /// What a mapping of another kernel's open file maps.
    ///
    /// # Errors
    /// `ENODEV`, `EHOSTDOWN`, `ETIMEDOUT`.
    pub fn open(&self, home: KernelId, file: ObjectId, writable: bool) -> TryResult<Arc<dyn MemoryObject>> {
        let (call, completer) = call::<Arc<dyn MemoryObject>>();
        let service = self.me.clone();
        let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
            let opened = answer.and_then(|answer| {
                let (opened, _) = answer.read::<MemoryOpened>()?;
                let service = service.upgrade().ok_or(link::Error::down(answer.from))?;
                Ok(Try::Done(service.opened(from_wire(answer.from), &opened) as Arc<dyn MemoryObject>))
            });
            // For nobody: the proxy goes, and gives the open back.
            drop(completer.complete(opened.map_err(objects::error)));
        });
        let message = MemoryOpen { writable: u8::from(writable) };
        let deadline = self.links.now().saturating_add(SOON);
        self.links.request(to_wire(home), object_to_wire(file), &message, &[], deadline, then);
        call.into_try()
    }

    fn opened(&self, home: KernelId, opened: &MemoryOpened) -> Arc<Proxy> {
        let id = object_from_wire(opened.memory);
        self.holder.lock().opened(id, home);
        let mut proxies = self.proxies.lock();
        let known = proxies.get(&id).and_then(Weak::upgrade);
        let proxy = known.unwrap_or_else(|| {
            let kind = if opened.kind == 0 { ObjectKind::File } else { ObjectKind::Shared };
            let proxy = Arc::new(Proxy::new(self.me.clone(), id, kind));
            proxies.insert(id, Arc::downgrade(&proxy));
            proxy
        });
        // Under the lock: each open belongs to the proxy that gives it back.
        proxy.count_open();
        drop(proxies);
        if opened.writable != 0 {
            proxy.allow_writing();
        }
        proxy
    }

    /// The last user of a proxy is gone.
    pub(crate) fn let_go(&self, object: ObjectId, opens: u32) {
        {
            let mut proxies = self.proxies.lock();
            // Another one may have been made since.
            if proxies.get(&object).is_some_and(|proxy| proxy.strong_count() == 0) {
                proxies.remove(&object);
            }
        }
        let release = self.holder.lock().close(object, opens);
        self.give_back(object, release);
    }

    pub(crate) fn give_back(&self, object: ObjectId, release: Option<Release>) {
        if let Some(Release { home, serial, opens }) = release {
            // If its home is dead there is nothing to give back to.
            let _ = self.links.send(to_wire(home), object_to_wire(object), &MemoryRelease { serial, opens }, &[]);
        }
    }

    pub(crate) fn proxy(&self, object: ObjectId) -> Option<Arc<Proxy>> {
        self.proxies.lock().get(&object).and_then(Weak::upgrade)
    }

    /// The home takes pages back: when this returns no CPU of this kernel reaches them.
    pub(crate) fn unmap(&self, object: ObjectId, pages: Range<u64>, serial: u64) {
        self.holder.lock().revoked(object, pages.clone(), serial);
        self.void_copies(object, pages.clone(), serial);
        if let Some(proxy) = self.proxy(object) {
            for mapper in proxy.mappers() {
                // Spaces of this kernel: they are done when they return.
                drop(mapper.unmap_pages(object, pages.clone()));
            }
        }
    }

    // -- the death of kernels --------------------------------------------------------------------------------------

    /// A kernel is dead: nothing of its memory is mapped here any more when this returns. Whoever had written to it has lost that, and ends.
    pub fn let_go_of(&self, dead: KernelId) {
        let lost = self.holder.lock().home_down(dead);
        for object in lost {
            self.forget_copies(object);
            let Some(proxy) = self.proxy(object) else { continue };
            for mapper in proxy.mappers() {
                if mapper.lose_pages(object) || proxy.has_written(&mapper) {
                    self.end_owner(&mapper, dead);
                }
            }
        }
    }

    /// Ends the process of a space.
    fn end_owner(&self, mapper: &Arc<dyn Mapper>, dead: KernelId) {
        let is_it = |space: &Arc<mm::Space>| core::ptr::addr_eq(Arc::as_ptr(space), Arc::as_ptr(mapper));
        for process in self.kernel.table.processes() {
            if process.space().as_ref().is_some_and(is_it) {
                log::warn!("process {} is killed: what it wrote to memory of kernel {dead} is lost", process.pid().0);
                // It may have ended by itself.
                let _ = process.signal(SigInfo::kernel(Signal::KILL));
            }
        }
    }

    /// A kernel died and was stopped: what it was granted is free. `lost`: it could not be stopped.
    pub fn peer_down(&self, dead: KernelId, lost: bool) {
        self.let_go_of(dead);
        self.take_from(dead);
        let down = self.home.lock().down(dead, lost);
        drop(down.frames);
        for object in down.closed {
            self.closed(object, dead);
        }
        for id in down.ended {
            self.ended(id);
        }
        let gone: Vec<Armed> = {
            let mut sleeping = self.sleeping.lock();
            let keys: Vec<_> = sleeping.range((dead, 0)..=(dead, u64::MAX)).map(|(key, _)| *key).collect();
            keys.iter().filter_map(|key| sleeping.remove(key)).collect()
        };
        for armed in gone {
            self.kernel.futexes.disarm(&armed);
        }
    }
}

/// The holders of an object, as the object knows who maps it.
struct Holders {
    service: Weak<MemoryService>,
}

impl Mapper for Holders {
    fn unmap_pages(&self, object: ObjectId, pages: Range<u64>) -> Option<Box<dyn Op<()>>> {
        let service = self.service.upgrade()?;
        let mut ops = service.cut_copies(object, pages.clone());
        ops.extend(service.revoke(object, pages));
        match mm::object::all(ops) {
            Ok(Try::Started(op)) => Some(op),
            _ => None,
        }
    }

    fn withdraw_page(&self, object: ObjectId, index: u64, _: &Frame) -> Option<Box<dyn Op<()>>> {
        // Copies are given back to who asked for this.
        self.service.upgrade()?.revoke(object, index..index.saturating_add(1))
    }
}
