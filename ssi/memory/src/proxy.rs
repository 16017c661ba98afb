//! A memory object of another kernel, as the spaces of this kernel map it.

use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use base::{
    Errno, Error, ObjectId, Result, TryResult,
    io::{Sink, Source},
    wait::{Try, done},
};
use hal::{
    addr::PAGE_SIZE,
    frame::{MapFrame, PeerFrame},
    usermode::Access,
};
use link::{Incoming, Links, lock::Lock};
use mm::{MappedPage, Mapper, Mappers, MemoryObject, ObjectKind, WordHome};
use objects::{call, from_wire, object_to_wire, to_wire};
use wire::memory::{MemoryDone, MemoryMap, MemoryMapped, MemoryPunch, PAGE_RECORD, PAGE_WRITABLE};

use crate::{holder::Have, service::MemoryService};

/// Pages around one that is asked for which are welcome with it: a power of two.
const AROUND: u64 = 32;

/// See the module.
pub struct Proxy {
    service: Weak<MemoryService>,
    id: ObjectId,
    kind: ObjectKind,
    writable: AtomicBool,
    /// How often it was opened: what goes back with it.
    opens: AtomicU32,
    mappers: Lock<Mappers>,
    /// Spaces that have written to pages which went back since.
    wrote: Lock<Vec<Weak<dyn Mapper>>>,
}

impl Proxy {
    pub(crate) const fn new(service: Weak<MemoryService>, id: ObjectId, kind: ObjectKind) -> Self {
        Self {
            service,
            id,
            kind,
            writable: AtomicBool::new(false),
            opens: AtomicU32::new(0),
            mappers: Lock::new(Mappers::new()),
            wrote: Lock::new(Vec::new()),
        }
    }

    /// The home has counted this kernel among those who may write it.
    pub(crate) fn allow_writing(&self) {
        self.writable.store(true, Ordering::Relaxed);
    }

    /// An open was answered.
    pub(crate) fn count_open(&self) {
        self.opens.fetch_add(1, Ordering::Relaxed);
    }

    /// The spaces that map it.
    pub(crate) fn mappers(&self) -> Vec<Arc<dyn Mapper>> {
        let all = self.mappers.lock().snapshot();
        all.iter().filter_map(Weak::upgrade).collect()
    }

    /// A space had written to a page that goes back.
    pub(crate) fn note_writer(&self, mapper: &Arc<dyn Mapper>) {
        let mapper = Arc::downgrade(mapper);
        let mut wrote = self.wrote.lock();
        wrote.retain(|known| known.strong_count() > 0);
        if !wrote.iter().any(|known| known.ptr_eq(&mapper)) {
            wrote.push(mapper);
        }
    }

    /// Whether one had.
    pub(crate) fn has_written(&self, mapper: &Arc<dyn Mapper>) -> bool {
        self.wrote.lock().iter().any(|known| known.ptr_eq(&Arc::downgrade(mapper)))
    }

    pub(crate) fn service(&self) -> Result<Arc<MemoryService>> {
        self.service.upgrade().ok_or(Error::new(Errno::EHOSTDOWN, "shutting down"))
    }

    /// Whether this kernel sees the memory of its home. Of a dead one nobody asks anything.
    fn is_seen(&self, service: &Arc<MemoryService>) -> bool {
        let home = service.holder.lock().home(self.id);
        home.is_none_or(|home| service.sees(home))
    }

    /// Asks the home for a page. When the operation ends the page is here, or it says why not.
    fn ask(
        &self,
        service: &Arc<MemoryService>,
        home: base::KernelId,
        index: u64,
        write: bool,
    ) -> TryResult<MappedPage> {
        let (call, completer) = call();
        let (id, weak) = (self.id, self.service.clone());
        let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
            let Some(service) = weak.upgrade() else { return };
            let taken = answer.and_then(|answer| take(&service, id, &answer));
            if taken.is_err() {
                service.holder.lock().refused(id);
            }
            // The fault is tried again. If nobody waits the page stays for the next one.
            drop(completer.complete(taken.map(|()| Try::WouldBlock).map_err(objects::error)));
        });
        let first = index & !(AROUND - 1);
        let message = MemoryMap { index, first, count: AROUND as u32, write: u8::from(write) };
        // Answered at once, or by the death of the home: a grant that came too late could not be undone by itself.
        service.links.request(to_wire(home), object_to_wire(id), &message, &[], u64::MAX, then);
        call.into_try()
    }
}

/// Keeps what a grant says.
fn take(service: &Arc<MemoryService>, id: ObjectId, answer: &Incoming<'_>) -> link::Result<()> {
    let (mapped, payload) = answer.read::<MemoryMapped>()?;
    let home = from_wire(answer.from);
    let bad = link::Error::new(Errno::EBADMSG, "a grant of what is not the sender's memory", answer.from);
    let mut pages: Vec<(u64, PeerFrame, bool)> = Vec::new();
    for record in payload.as_chunks::<PAGE_RECORD>().0 {
        let (words, _) = record.as_chunks::<8>();
        let &[index, place, flags] = words else { return Err(bad) };
        let frame = service.frame_at(home, u64::from_le_bytes(place)).ok_or(bad)?;
        pages.push((u64::from_le_bytes(index), frame, u64::from_le_bytes(flags) & PAGE_WRITABLE != 0));
    }
    let back = service.holder.lock().granted(id, home, mapped.serial, pages);
    service.give_back(id, back);
    Ok(())
}

impl MemoryObject for Proxy {
    fn id(&self) -> ObjectId {
        self.id
    }

    fn kind(&self) -> ObjectKind {
        self.kind
    }

    fn size(&self) -> u64 {
        // Only its home knows: a page that is beyond the end cannot be had.
        mm::cache::SIZE_MAX
    }

    fn page(&self, index: u64, access: Access) -> TryResult<MappedPage> {
        let service = self.service()?;
        let write = access == Access::Write;
        if !self.is_seen(&service) {
            return self.copy(&service, index, write);
        }
        let have = service.holder.lock().page(self.id, index, write);
        match have {
            Have::Here { place, writable } => done(MappedPage { frame: MapFrame::Peer(place), writable }),
            Have::Ask(home) => self.ask(&service, home, index, write),
            Have::Dead => Err(Error::new(Errno::EHOSTDOWN, "the kernel that had the page is down")),
        }
    }

    fn resident(&self, range: Range<u64>, each: &mut dyn FnMut(u64, MappedPage) -> bool) {
        let Ok(service) = self.service() else { return };
        service.holder.lock().resident(self.id, range, |index, place, writable| {
            each(index, MappedPage { frame: MapFrame::Peer(place), writable })
        });
    }

    fn read(&self, _: u64, _: &mut dyn Sink) -> TryResult<usize> {
        // Who reads a file without mapping it asks the file.
        Err(Errno::EOPNOTSUPP.into())
    }

    fn write(&self, _: u64, _: &mut dyn Source) -> TryResult<usize> {
        Err(Errno::EOPNOTSUPP.into())
    }

    fn resize(&self, _: u64) -> TryResult<()> {
        Err(Errno::EOPNOTSUPP.into())
    }

    fn punch(&self, range: Range<u64>) -> TryResult<()> {
        let service = self.service()?;
        let home = service.holder.lock().home(self.id);
        let home = home.ok_or(Error::new(Errno::EHOSTDOWN, "the kernel that had the memory is down"))?;
        let (call, completer) = call();
        let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
            let ended = answer.and_then(|answer| answer.read::<MemoryDone>().map(|_| Try::Done(())));
            drop(completer.complete(ended.map_err(objects::error)));
        });
        let message = MemoryPunch { start: range.start, end: range.end };
        // It ends when every holder has answered, each of which may die first.
        service.links.request(to_wire(home), object_to_wire(self.id), &message, &[], u64::MAX, then);
        call.into_try()
    }

    fn is_lent(&self) -> bool {
        true
    }

    fn is_executable(&self) -> bool {
        let Ok(service) = self.service() else { return false };
        let home = service.holder.lock().home(self.id);
        home.is_some_and(|home| service.may_execute(home))
    }

    fn words(&self) -> Option<&dyn WordHome> {
        Some(self)
    }

    fn held(&self) -> u64 {
        let mut pages = 0;
        self.resident(0..u64::MAX, &mut |_, _| {
            pages += 1;
            true
        });
        pages * PAGE_SIZE as u64
    }

    fn attach(&self, mapper: &Weak<dyn Mapper>, shared_writable: bool) -> Result<usize> {
        if shared_writable && !self.writable.load(Ordering::Relaxed) {
            return Err(Error::new(Errno::EPERM, "sealed"));
        }
        self.service()?.holder.lock().attach(self.id);
        Ok(self.mappers.lock().attach(mapper, shared_writable))
    }

    fn detach(&self, token: usize) {
        self.mappers.lock().detach(token);
        if let Ok(service) = self.service() {
            let (back, home) = {
                let mut holder = service.holder.lock();
                let back = holder.detach(self.id);
                (back, holder.home(self.id).filter(|_| holder.mapped(self.id) == 0))
            };
            service.give_back(self.id, back);
            if let Some(home) = home.filter(|home| !service.sees(*home)) {
                service.give_back_copies(home, self.id);
            }
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Ok(service) = self.service() {
            service.let_go(self.id, self.opens.load(Ordering::Relaxed));
        }
    }
}
