//! Pages kept by index: the content of tmpfs files and shared memory, and the page cache of files that come from elsewhere.
//!
//! One type for both: a [`PageCache`] with a [`PageSource`] asks it for pages that it does not hold; without one, what is not there is zeros.
//! Pages that came from the source and were not changed since can be dropped and had again.

use alloc::{
    boxed::Box,
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::{ops::Range, sync::atomic::AtomicU64, sync::atomic::Ordering::Relaxed};

use base::{
    Errno, Error, ObjectId, Result, Try, TryResult, Wake,
    io::{Sink, Source},
    wait::{Op, done},
};
use hal::{
    addr::{PAGE_SHIFT, PAGE_SIZE},
    frame::{Frame, MapFrame},
    sync::{Once, SpinLock, rank},
    usermode::Access,
};

use crate::{
    memory::{Memory, Reclaim, Use},
    object::{Lender, MappedPage, Mapper, Mappers, MemoryObject, ObjectKind, all},
    transfer,
};

/// The largest size (`s_maxbytes` of Linux' tmpfs).
pub const SIZE_MAX: u64 = i64::MAX as u64;

/// A page as its source has it.
#[derive(Debug)]
pub enum SourcePage {
    /// Nothing there: zeros.
    Hole,
    /// A frame that was filled with it, zeros after the end.
    Filled(Frame),
}

/// Where the pages of a file come from. Read-only: what is changed stays in the cache.
pub trait PageSource: Send + Sync {
    /// The page `index`.
    ///
    /// # Errors
    /// `ENOMEM`, `EIO`, `EHOSTDOWN`.
    fn page(&self, index: u64) -> TryResult<SourcePage>;
    /// These bytes, if they are in memory that can be read as it is: then reading makes no pages.
    fn bytes(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let _ = (offset, len);
        None
    }
}

struct Inner {
    pages: BTreeMap<u64, Page>,
    mappers: Mappers,
    size: u64,
    /// Bytes of the source that still count: what was cut off once does not come back.
    source_size: u64,
    seals: Seals,
}

bitflags::bitflags! {
    /// `F_SEAL_*` of `fcntl(2)`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Seals: u32 {
        /// No more seals.
        const SEAL = 1;
        /// Never smaller.
        const SHRINK = 2;
        /// Never larger.
        const GROW = 4;
        /// Never changed.
        const WRITE = 8;
        /// Never changed but through mappings that exist.
        const FUTURE_WRITE = 16;
    }
}

/// What the files of one file system may hold together (`size=` of tmpfs).
#[derive(Debug)]
pub struct Quota {
    used: AtomicU64,
    max: u64,
}

impl Quota {
    /// Nothing used of `max` pages.
    pub const fn new(max: u64) -> Self {
        Self { used: AtomicU64::new(0), max }
    }

    /// The most pages.
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// Pages in use.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    fn take(&self) -> Result<()> {
        let more = |used: u64| (used < self.max).then_some(used + 1);
        match self.used.fetch_update(Relaxed, Relaxed, more) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(Errno::ENOSPC, "the file system is full")),
        }
    }

    fn give(&self, pages: u64) {
        self.used.fetch_sub(pages, Relaxed);
    }
}

/// Pages by index.
pub struct PageCache {
    id: ObjectId,
    kind: ObjectKind,
    memory: Arc<Memory>,
    quota: Option<Arc<Quota>>,
    source: Option<Arc<dyn PageSource>>,
    inner: SpinLock<Inner>,
    /// A copy of the size that is read without the lock.
    size: AtomicU64,
    /// Who lends copies of pages, if anybody ever did.
    lender: Once<Weak<dyn Lender>>,
    me: Weak<Self>,
}

const fn beyond_end() -> Error {
    Error::new(Errno::EFAULT, "beyond the end of the object")
}

const fn sealed() -> Error {
    Error::new(Errno::EPERM, "sealed")
}

impl PageCache {
    /// Empty shared memory: a tmpfs file, a memfd, a System V segment, a shared anonymous mapping. Reads as zeros up to `size`.
    pub fn new(memory: &Arc<Memory>, size: u64) -> Arc<Self> {
        Self::make(memory, ObjectKind::Shared, None, size, None)
    }

    /// The same for a file of a file system whose files may hold no more than `quota` together: `ENOSPC` beyond it.
    pub fn within(memory: &Arc<Memory>, quota: Arc<Quota>) -> Arc<Self> {
        Self::make(memory, ObjectKind::Shared, None, 0, Some(quota))
    }

    /// The cache of a file that comes from `source`; `size` bytes of it.
    pub fn of_source(memory: &Arc<Memory>, source: Arc<dyn PageSource>, size: u64) -> Arc<Self> {
        let cache = Self::make(memory, ObjectKind::File, Some(source), size, None);
        let weak: Weak<Self> = Arc::downgrade(&cache);
        memory.add_cache(weak);
        cache
    }

    fn make(
        memory: &Arc<Memory>,
        kind: ObjectKind,
        source: Option<Arc<dyn PageSource>>,
        size: u64,
        quota: Option<Arc<Quota>>,
    ) -> Arc<Self> {
        let inner = Inner {
            pages: BTreeMap::new(),
            mappers: Mappers::new(),
            size,
            source_size: if source.is_some() { size } else { 0 },
            seals: Seals::empty(),
        };
        Arc::new_cyclic(|me| Self {
            id: memory.ids().next(),
            kind,
            memory: memory.clone(),
            quota,
            source,
            inner: SpinLock::new(rank::PAGES, inner),
            size: AtomicU64::new(size),
            lender: Once::new(),
            me: me.clone(),
        })
    }

    /// The seals.
    pub fn seals(&self) -> Seals {
        self.inner.lock().seals
    }

    /// Adds seals.
    ///
    /// # Errors
    /// `EPERM` if no more may be added, `EBUSY` if somebody maps it shared and writable and it shall not be written.
    pub fn add_seals(&self, seals: Seals) -> Result<()> {
        let mut inner = self.inner.lock();
        if inner.seals.contains(Seals::SEAL) {
            return Err(sealed());
        }
        if seals.contains(Seals::WRITE) && inner.mappers.has_shared_writable() {
            return Err(Error::new(Errno::EBUSY, "mapped writable"));
        }
        inner.seals |= seals;
        Ok(())
    }

    /// How many mappings there are in all spaces.
    pub fn mappings(&self) -> usize {
        self.inner.lock().mappers.len()
    }

    fn new_frame(&self, zero: bool) -> Result<Frame> {
        if let Some(quota) = &self.quota {
            quota.take()?;
        }
        let frame = self.memory.frame(zero).inspect_err(|_| self.give(1))?;
        self.adopt(&frame);
        Ok(frame)
    }

    fn adopt(&self, frame: &Frame) {
        let which = Use::from(self.kind);
        frame.set_tag(which as u64);
        self.memory.count(which, 1);
    }

    /// Whether a page may be used here, as far as copies of it are lent.
    fn is_free(&self, index: u64, write: bool) -> bool {
        self.lender.get().and_then(Weak::upgrade).is_none_or(|lender| lender.is_free(self.id, index, write))
    }

    /// What to wait for before a page may be used here.
    fn claim(&self, index: u64, write: bool) -> Option<Waiting> {
        let lender = self.lender.get().and_then(Weak::upgrade)?;
        (!lender.is_free(self.id, index, write)).then(|| Waiting::Lent(lender.claim(self.id, index, write)))
    }

    /// Makes sure that the page `index` is in the table, if it is not a hole, and may be read.
    fn bring(&self, inner: &mut Inner, index: u64) -> Result<Bring> {
        match self.claim(index, false) {
            Some(wait) => Ok(Bring::Wait(wait)),
            None => self.fetch(inner, index),
        }
    }

    /// The same, whoever has copies.
    fn fetch(&self, inner: &mut Inner, index: u64) -> Result<Bring> {
        if inner.pages.contains_key(&index) {
            return Ok(Bring::Here);
        }
        let start = index << PAGE_SHIFT;
        let Some(source) = self.source.as_ref().filter(|_| start < inner.source_size) else { return Ok(Bring::Hole) };
        match source.page(index)? {
            Try::Done(SourcePage::Hole) => Ok(Bring::Hole),
            Try::Done(SourcePage::Filled(frame)) => {
                self.keep(inner, index, frame);
                Ok(Bring::Here)
            }
            Try::WouldBlock => Err(Error::new(Errno::EIO, "a page source is not ready and does not say when")),
            Try::Started(op) => Ok(Bring::Wait(Waiting::Source(Bringing { op, cache: self.me.clone(), index }))),
        }
    }

    /// Puts a page from the source into the table, unless one is there by now.
    fn keep(&self, inner: &mut Inner, index: u64, frame: Frame) {
        inner.pages.entry(index).or_insert_with(|| {
            self.adopt(&frame);
            Page { frame, dirty: false }
        });
    }

    /// The frame of the page `index`, which will be changed: brought, or made. `whole`: all of it will be overwritten.
    fn own(&self, inner: &mut Inner, index: u64, whole: bool) -> Result<Own> {
        match self.claim(index, true) {
            Some(wait) => Ok(Own::Wait(wait)),
            None => self.own_lent(inner, index, whole),
        }
    }

    /// The same, whoever has copies.
    fn own_lent(&self, inner: &mut Inner, index: u64, whole: bool) -> Result<Own> {
        if !whole || inner.pages.contains_key(&index) {
            match self.fetch(inner, index)? {
                Bring::Here => {}
                Bring::Wait(wait) => return Ok(Own::Wait(wait)),
                Bring::Hole => {
                    let frame = self.new_frame(true)?;
                    inner.pages.insert(index, Page { frame, dirty: true });
                }
            }
        } else {
            // A stalled source may overwrite less than it promised, so it is zeroed all the same.
            let frame = self.new_frame(true)?;
            inner.pages.insert(index, Page { frame, dirty: true });
        }
        match inner.pages.get_mut(&index) {
            Some(page) => {
                page.dirty = true;
                Ok(Own::Frame(page.frame.clone()))
            }
            None => Err(Error::new(Errno::EIO, "the page vanished")),
        }
    }

    fn set_size(&self, inner: &mut Inner, size: u64) {
        inner.size = size;
        self.size.store(size, Relaxed);
    }

    /// Tells everybody who maps the object to let go of `pages`. No lock held.
    fn unmap(&self, mappers: Vec<Weak<dyn Mapper>>, pages: &Range<u64>) -> TryResult<()> {
        let letting = mappers.iter().filter_map(Weak::upgrade);
        all(letting.filter_map(|mapper| mapper.unmap_pages(self.id, pages.clone())).collect())
    }

    fn give(&self, pages: u64) {
        if let Some(quota) = &self.quota {
            quota.give(pages);
        }
    }

    /// Writes at the end: how many bytes, and where the end is then. Up to 64 KiB stay together whoever else writes.
    ///
    /// # Errors
    /// As [`MemoryObject::write`].
    pub fn append(&self, source: &mut dyn Source) -> TryResult<(usize, u64)> {
        self.write_from(None, source)
    }

    fn forget(&self, pages: BTreeMap<u64, Page>) {
        self.give(pages.len() as u64);
        self.memory.count(Use::from(self.kind), -(pages.len() as i64));
        drop(pages);
    }

    /// Writes at an offset, or at the end, wherever that is by then: how many bytes, and where the next one would go.
    fn write_from(&self, offset: Option<u64>, source: &mut dyn Source) -> TryResult<(usize, u64)> {
        let mut moved = 0;
        let mut end = offset.unwrap_or(0);
        loop {
            let mut inner = self.inner.lock();
            if inner.seals.intersects(Seals::WRITE | Seals::FUTURE_WRITE) {
                return Err(sealed());
            }
            if offset.is_none() {
                // Looked at under the lock: what others append meanwhile is before or behind, never under it.
                end = inner.size;
            }
            for _ in 0..16 {
                let at = end;
                let within = at as usize % PAGE_SIZE;
                let mut want = (PAGE_SIZE - within).min(source.left());
                if want == 0 {
                    return done((moved, end));
                }
                let room = if inner.seals.contains(Seals::GROW) { inner.size } else { SIZE_MAX };
                want = want.min(room.saturating_sub(at).min(PAGE_SIZE as u64) as usize);
                if want == 0 && moved == 0 {
                    let full = if room == SIZE_MAX { Errno::EFBIG } else { Errno::EPERM };
                    return Err(Error::new(full, "the object cannot grow"));
                }
                if want == 0 {
                    return done((moved, end));
                }
                // Nothing is made for bytes that cannot be had now.
                if !source.can_take(1) {
                    return done((moved, end));
                }
                let frame = match self.own(&mut inner, at >> PAGE_SHIFT, want == PAGE_SIZE) {
                    Ok(Own::Frame(frame)) => frame,
                    _ if moved > 0 => return done((moved, end)),
                    Ok(Own::Wait(wait)) => return Ok(Try::Started(Box::new(wait))),
                    Err(error) => return Err(error),
                };
                let n = transfer::take(source, &frame, within, want);
                moved += n;
                end = at + n as u64;
                if n > 0 && end > inner.size {
                    self.set_size(&mut inner, end);
                }
                if n < want {
                    return done((moved, end));
                }
            }
            // Another CPU may have its turn; interrupts wait for the caller, who may hold the lock of a file's position.
            drop(inner);
        }
    }

    /// Moves bytes of one page into the sink; how many.
    fn read_page(&self, inner: &mut Inner, offset: u64, len: usize, sink: &mut dyn Sink) -> Result<Moved> {
        let (index, within) = (offset >> PAGE_SHIFT, offset as usize % PAGE_SIZE);
        if let Some(source) = self.source.as_ref().filter(|_| !inner.pages.contains_key(&index))
            && offset.saturating_add(len as u64) <= inner.source_size
            && let Some(bytes) = source.bytes(offset, len)
        {
            // In memory anyway: a page of its own would only be a copy.
            return Ok(Moved::Bytes(sink.put(bytes)));
        }
        Ok(match self.bring(inner, index)? {
            Bring::Hole => Moved::Bytes(sink.put_zeros(len)),
            Bring::Wait(wait) => Moved::Wait(wait),
            Bring::Here => match inner.pages.get(&index) {
                Some(page) => Moved::Bytes(transfer::put(sink, &page.frame, within, len)),
                None => Moved::Bytes(0),
            },
        })
    }
}

struct Page {
    frame: Frame,
    /// Changed since it came from the source, or never there: cannot be dropped.
    dirty: bool,
}

enum Bring {
    Here,
    Hole,
    Wait(Waiting),
}

enum Own {
    Frame(Frame),
    Wait(Waiting),
}

enum Moved {
    Bytes(usize),
    Wait(Waiting),
}

/// What must end before something can be done with a page. Whatever was wanted with it, the answer is "try again".
enum Waiting {
    /// It is on its way from the source.
    Source(Bringing),
    /// Copies of it are in the way.
    Lent(Box<dyn Op<()>>),
}

impl<T> Op<T> for Waiting {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        match self {
            Self::Source(bringing) => Op::<T>::notify(bringing, waker),
            Self::Lent(op) => op.notify(waker),
        }
    }

    fn take(&mut self) -> Option<TryResult<T>> {
        match self {
            Self::Source(bringing) => bringing.take(),
            Self::Lent(op) => op.take().map(|ended| ended.map(|_| Try::WouldBlock)),
        }
    }
}

/// A page on its way from the source. Whatever was wanted with it, the answer is "try again".
struct Bringing {
    op: Box<dyn Op<SourcePage>>,
    cache: Weak<PageCache>,
    index: u64,
}

impl<T> Op<T> for Bringing {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        self.op.notify(waker);
    }

    fn take(&mut self) -> Option<TryResult<T>> {
        match self.op.take()? {
            Ok(Try::Done(page)) => {
                if let Some(cache) = self.cache.upgrade() {
                    let frame = match page {
                        SourcePage::Filled(frame) => frame,
                        // Kept as a page of zeros, so that the next try need not ask again.
                        SourcePage::Hole => match cache.memory.frame(true) {
                            Ok(frame) => frame,
                            Err(error) => return Some(Err(error)),
                        },
                    };
                    cache.keep(&mut cache.inner.lock(), self.index, frame);
                }
                Some(Ok(Try::WouldBlock))
            }
            Ok(_) => Some(Ok(Try::WouldBlock)),
            Err(error) => Some(Err(error)),
        }
    }
}

impl MemoryObject for PageCache {
    fn id(&self) -> ObjectId {
        self.id
    }

    fn kind(&self) -> ObjectKind {
        self.kind
    }

    fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    fn page(&self, index: u64, access: Access) -> TryResult<MappedPage> {
        let mut inner = self.inner.lock();
        if index >= inner.size.div_ceil(PAGE_SIZE as u64) {
            return Err(beyond_end());
        }
        let write = access == Access::Write;
        if write && inner.seals.intersects(Seals::WRITE) {
            return Err(sealed());
        }
        if !write {
            match self.bring(&mut inner, index)? {
                Bring::Here => {
                    if let Some(page) = inner.pages.get(&index) {
                        let writable = page.dirty && self.is_free(index, true);
                        return done(MappedPage { frame: MapFrame::Own(page.frame.clone()), writable });
                    }
                }
                Bring::Wait(wait) => return Ok(Try::Started(Box::new(wait))),
                // A mapped hole becomes a page: the zero frame could not be taken back when somebody else writes.
                Bring::Hole => {}
            }
        }
        match self.own(&mut inner, index, false)? {
            Own::Frame(frame) => done(MappedPage { frame: MapFrame::Own(frame), writable: true }),
            Own::Wait(wait) => Ok(Try::Started(Box::new(wait))),
        }
    }

    fn resident(&self, range: Range<u64>, each: &mut dyn FnMut(u64, MappedPage) -> bool) {
        let inner = self.inner.lock();
        let end = range.end.min(inner.size.div_ceil(PAGE_SIZE as u64));
        if range.start >= end {
            return;
        }
        for (index, page) in inner.pages.range(range.start..end) {
            if !self.is_free(*index, false) {
                continue;
            }
            let writable = page.dirty && self.is_free(*index, true);
            if !each(*index, MappedPage { frame: MapFrame::Own(page.frame.clone()), writable }) {
                break;
            }
        }
    }

    fn read(&self, offset: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        let mut moved = 0;
        loop {
            let mut inner = self.inner.lock();
            for _ in 0..16 {
                let at = offset.saturating_add(moved as u64);
                let in_page = PAGE_SIZE - at as usize % PAGE_SIZE;
                let left = inner.size.saturating_sub(at).min(usize::MAX as u64) as usize;
                let want = in_page.min(left).min(sink.room());
                if want == 0 {
                    return done(moved);
                }
                match self.read_page(&mut inner, at, want, sink) {
                    Ok(Moved::Bytes(n)) => {
                        moved += n;
                        if n < want {
                            return done(moved);
                        }
                    }
                    // What is there already is delivered; who wants more asks again.
                    _ if moved > 0 => return done(moved),
                    Ok(Moved::Wait(wait)) => return Ok(Try::Started(Box::new(wait))),
                    Err(error) => return Err(error),
                }
            }
            // Another CPU may have its turn; interrupts wait for the caller, who may hold the lock of a file's position.
            drop(inner);
        }
    }

    fn write(&self, offset: u64, source: &mut dyn Source) -> TryResult<usize> {
        self.write_from(Some(offset), source).map(|tried| tried.map(|(moved, _)| moved))
    }

    fn resize(&self, size: u64) -> TryResult<()> {
        if size > SIZE_MAX {
            return Err(Error::new(Errno::EFBIG, "larger than any file"));
        }
        let mut inner = self.inner.lock();
        if (size < inner.size && inner.seals.contains(Seals::SHRINK))
            || (size > inner.size && inner.seals.contains(Seals::GROW))
        {
            return Err(sealed());
        }
        if size >= inner.size {
            self.set_size(&mut inner, size);
            return done(());
        }
        let tail = size as usize % PAGE_SIZE;
        if tail != 0 {
            // The rest of the last page must read as zeros when the object grows again.
            match self.bring(&mut inner, size >> PAGE_SHIFT)? {
                Bring::Wait(wait) => return Ok(Try::Started(Box::new(wait))),
                Bring::Hole => {}
                Bring::Here => match self.own(&mut inner, size >> PAGE_SHIFT, false)? {
                    Own::Frame(frame) => frame.fill(tail, PAGE_SIZE - tail, 0),
                    Own::Wait(wait) => return Ok(Try::Started(Box::new(wait))),
                },
            }
        }
        let first = size.div_ceil(PAGE_SIZE as u64);
        let gone = inner.pages.split_off(&first);
        let last = inner.size.div_ceil(PAGE_SIZE as u64);
        inner.source_size = inner.source_size.min(size);
        self.set_size(&mut inner, size);
        let mappers = inner.mappers.snapshot();
        drop(inner);
        let letting = self.unmap(mappers, &(first..last.max(first)));
        self.forget(gone);
        letting
    }

    fn punch(&self, range: Range<u64>) -> TryResult<()> {
        let mut inner = self.inner.lock();
        if inner.seals.contains(Seals::WRITE) {
            return Err(sealed());
        }
        let page = PAGE_SIZE as u64;
        let end = range.end.min(inner.size.next_multiple_of(page));
        if range.start >= end {
            return done(());
        }
        let (first, last) = (range.start / page, end.div_ceil(page));
        // Pages of the source cannot be forgotten: they would come back. They become zeros that stay, as do parts of pages.
        let from_source = inner.source_size.div_ceil(page).clamp(first, last);
        let mut touched: Vec<u64> = (first..from_source).collect();
        touched.extend(inner.pages.range(from_source..last).map(|(index, _)| *index));
        let part = |index: u64| range.start.max(index * page)..end.min((index + 1) * page);
        let (whole, parts): (Vec<u64>, Vec<u64>) = touched
            .into_iter()
            .partition(|index| *index >= from_source && part(*index).end - part(*index).start == page);
        // First what may have to wait: it is all done again then.
        for index in parts {
            let part = part(index);
            match self.bring(&mut inner, index)? {
                Bring::Wait(wait) => return Ok(Try::Started(Box::new(wait))),
                Bring::Hole => {}
                Bring::Here => match self.own(&mut inner, index, false)? {
                    Own::Frame(frame) => {
                        frame.fill(part.start as usize % PAGE_SIZE, (part.end - part.start) as usize, 0);
                    }
                    Own::Wait(wait) => return Ok(Try::Started(Box::new(wait))),
                },
            }
        }
        let mut gone = BTreeMap::new();
        for index in whole {
            gone.extend(inner.pages.remove_entry(&index));
        }
        let mappers = inner.mappers.snapshot();
        drop(inner);
        let letting = self.unmap(mappers, &(first..last));
        self.forget(gone);
        letting
    }

    fn held(&self) -> u64 {
        (self.inner.lock().pages.len() * PAGE_SIZE) as u64
    }

    fn attach(&self, mapper: &Weak<dyn Mapper>, shared_writable: bool) -> Result<usize> {
        let mut inner = self.inner.lock();
        if shared_writable && inner.seals.intersects(Seals::WRITE | Seals::FUTURE_WRITE) {
            return Err(sealed());
        }
        Ok(inner.mappers.attach(mapper, shared_writable))
    }

    fn detach(&self, token: usize) {
        self.inner.lock().mappers.detach(token);
    }

    fn set_lender(&self, lender: &Weak<dyn Lender>) -> bool {
        // It was set before, by the same one.
        let _ = self.lender.set(lender.clone());
        true
    }

    fn lent_frame(&self, index: u64, write: bool) -> TryResult<Frame> {
        let mut inner = self.inner.lock();
        if index >= inner.size.div_ceil(PAGE_SIZE as u64) {
            return Err(beyond_end());
        }
        if write && inner.seals.intersects(Seals::WRITE) {
            return Err(sealed());
        }
        if !write {
            match self.fetch(&mut inner, index)? {
                Bring::Here => {
                    if let Some(page) = inner.pages.get(&index) {
                        return done(page.frame.clone());
                    }
                }
                Bring::Wait(wait) => return Ok(Try::Started(Box::new(wait))),
                Bring::Hole => {}
            }
        }
        match self.own_lent(&mut inner, index, false)? {
            Own::Frame(frame) => done(frame),
            Own::Wait(wait) => Ok(Try::Started(Box::new(wait))),
        }
    }

    fn withdraw(&self, index: u64) -> TryResult<()> {
        let (frame, mappers) = {
            let inner = self.inner.lock();
            // What is not there is mapped nowhere.
            let Some(page) = inner.pages.get(&index) else { return done(()) };
            (page.frame.clone(), inner.mappers.snapshot())
        };
        let letting = mappers.iter().filter_map(Weak::upgrade);
        all(letting.filter_map(|mapper| mapper.withdraw_page(self.id, index, &frame)).collect())
    }
}

impl Reclaim for PageCache {
    fn reclaim(&self, pages: usize) -> usize {
        let Some(mut inner) = self.inner.try_lock() else { return 0 };
        let mut gone = Vec::new();
        inner.pages.retain(|_, page| {
            let drop = gone.len() < pages && !page.dirty && page.frame.ref_count() == 1;
            if drop {
                gone.push(page.frame.clone());
            }
            !drop
        });
        drop(inner);
        self.memory.count(Use::from(self.kind), -(gone.len() as i64));
        gone.len()
    }
}

impl Drop for PageCache {
    fn drop(&mut self) {
        let pages = core::mem::take(&mut self.inner.get_mut().pages);
        self.forget(pages);
    }
}
