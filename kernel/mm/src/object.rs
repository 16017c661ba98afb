//! Memory objects: what a mapping maps. A mapping is (object, offset, protection).
//!
//! An object has pages by index. Whoever implements one answers at once: [`Try::Done`](base::Try) where the page is here (every object of
//! this kernel), `Started` where it must come from a disk or a peer. The space maps what it gets and asks again at the next fault, so an object
//! may hand out a page read-only today and writable tomorrow: that is how dirty pages are noticed and how one writer is told from many readers.
//!
//! Who else holds a page, and who is its writer, is the business of the object's implementation. An object whose home is another kernel is
//! another implementation of the same trait.

use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::ops::Range;

use base::{
    ObjectId, Result, Try, TryResult, Wake,
    io::{Sink, Source},
    wait::{Op, done},
};
use hal::{
    frame::{Frame, MapFrame},
    usermode::Access,
};
use slab::Slab;

/// A page to be mapped.
#[derive(Debug)]
pub struct MappedPage {
    /// The frame that holds it; the mapping keeps it.
    pub frame: MapFrame,
    /// Whether stores may go to it without asking the object again.
    pub writable: bool,
}

/// What sort of memory it is, for the counters of `/proc/PID/status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ObjectKind {
    /// Pages of a file (`RssFile`).
    File,
    /// Shared memory: tmpfs, memfd, System V segments, shared anonymous mappings (`RssShmem`).
    Shared,
}

/// Somebody who maps pages of an object and can be told to let go of them.
pub trait Mapper: Send + Sync {
    /// Takes the pages `pages` of `object` out of its page tables. When it returns no CPU of this kernel reaches them. A mapper that stands for
    /// another kernel answers with an operation, which ends when no CPU of that kernel reaches them, and keeps the frames until then.
    ///
    /// Called with no lock of the object held.
    fn unmap_pages(&self, object: ObjectId, pages: Range<u64>) -> Option<Box<dyn Op<()>>>;
    /// Takes a page out where `frame` is mapped, the object's: what a private mapping has copied is its own. A mapper that stands for other kernels
    /// speaks to those who map the frame, and to nobody who has a copy.
    fn withdraw_page(&self, object: ObjectId, index: u64, frame: &Frame) -> Option<Box<dyn Op<()>>>;
    /// Takes one page out, which goes back to whom it was borrowed from; whether it had been written here.
    ///
    /// Called with no lock of the object held.
    fn take_page(&self, object: ObjectId, index: u64) -> bool {
        drop(self.unmap_pages(object, index..index.saturating_add(1)));
        false
    }
    /// Takes all pages of `object` out, whose content is lost; whether one of them had been written.
    ///
    /// Called with no lock of the object held.
    fn lose_pages(&self, object: ObjectId) -> bool {
        let _ = object;
        false
    }
}

/// Ends when all of `ops` have ended.
pub fn all(ops: Vec<Box<dyn Op<()>>>) -> TryResult<()> {
    if ops.is_empty() { done(()) } else { Ok(Try::Started(Box::new(All(ops)))) }
}

struct All(Vec<Box<dyn Op<()>>>);

impl Op<()> for All {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        for op in &mut self.0 {
            op.notify(waker.clone());
        }
    }

    fn soon(&self) -> bool {
        true
    }

    fn take(&mut self) -> Option<TryResult<()>> {
        // A mapper that died lets go as well.
        self.0.retain_mut(|op| op.take().is_none());
        self.0.is_empty().then(|| done(()))
    }
}

/// Who lends copies of an object's pages to kernels that do not see its frames. Asked with a lock of the object held.
pub trait Lender: Send + Sync {
    /// Whether a page may be used here as it is.
    fn is_free(&self, object: ObjectId, index: u64, write: bool) -> bool;
    /// A page that is not free is wanted here. The operation ends when it is; then it is tried again.
    fn claim(&self, object: ObjectId, index: u64, write: bool) -> Box<dyn Op<()>>;
}

/// Where those wait who sleep on the words of an object (futex(2)), if that is another kernel.
pub trait WordHome: Send + Sync {
    /// Sleeps at the word at `offset` if it still is `expected` there. The operation ends when the sleeper is woken.
    ///
    /// # Errors
    /// `EAGAIN` if the word is something else (of the operation too), `EHOSTDOWN`.
    fn sleep(&self, offset: u64, expected: u32, bits: u32) -> Result<Box<dyn WordSleep>>;
    /// Wakes up to `count` sleepers whose bits meet `bits`; how many. An operation that is dropped is done all the same.
    fn wake(&self, offset: u64, count: u32, bits: u32) -> TryResult<usize>;
    /// Wakes up to `wake` sleepers and moves up to `requeue` others to the word at `to` of the object `target`; how many of each. If `target` has
    /// another home they are woken instead of moved.
    fn requeue(&self, offset: u64, target: ObjectId, to: u64, wake: u32, requeue: u32) -> TryResult<(usize, usize)>;
}

/// A sleep at a [`WordHome`].
pub trait WordSleep: Op<()> {
    /// Asks to end it. It still ends in one of two ways, and soon: with `ECANCELED`, or woken, and then the wake-up counts.
    fn cancel(&mut self);
}

/// Anything that has pages.
///
/// # Locks
/// A space calls [`page`](MemoryObject::page) with its own lock held, so an implementation's locks come after that of a space, and it never
/// calls a [`Mapper`] with a lock of its own held.
pub trait MemoryObject: Send + Sync {
    /// Its name in the machine.
    fn id(&self) -> ObjectId;

    /// Which counter its pages count for.
    fn kind(&self) -> ObjectKind;

    /// Its size in bytes. Pages wholly beyond it cannot be had (`SIGBUS`).
    fn size(&self) -> u64;

    /// The page `index` (in units of the page size) for an access that is about to happen. [`Access::Write`] is a promise that the page will be
    /// changed: it is dirty from now on.
    ///
    /// # Errors
    /// `EFAULT` beyond the end (`SIGBUS`), `ENOMEM` without frames, `EIO` or `EHOSTDOWN` if its home cannot give it (`SIGBUS`).
    fn page(&self, index: u64, access: Access) -> TryResult<MappedPage>;

    /// Pages of `range` that are here already, for mapping some around a fault before they are asked for. They are only read.
    /// Calls `each` in ascending order until it says `false`.
    fn resident(&self, range: Range<u64>, each: &mut dyn FnMut(u64, MappedPage) -> bool) {
        let _ = (range, each);
    }

    /// Moves bytes from `offset` into the sink, up to the end of the object or as much as the sink takes; how many.
    ///
    /// `Started` if a page must come from elsewhere; the op's result is the number of bytes moved so far, call again when it ends.
    fn read(&self, offset: u64, sink: &mut dyn Sink) -> TryResult<usize>;

    /// Moves all that `source` gives to `offset`; the object grows as needed.
    ///
    /// # Errors
    /// `EFBIG` beyond the largest size, `ENOSPC` or `ENOMEM` without room (only if nothing was moved), `EPERM` if it cannot be written.
    fn write(&self, offset: u64, source: &mut dyn Source) -> TryResult<usize>;

    /// Sets the size. What is cut off is unmapped everywhere before it returns; the rest of the last page reads as zeros.
    ///
    /// # Errors
    /// `EFBIG`, `EPERM`.
    fn resize(&self, size: u64) -> TryResult<()>;

    /// Gives the pages of `range` back (`fallocate(FALLOC_FL_PUNCH_HOLE)`, `MADV_REMOVE`): they read as zeros.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the object cannot.
    fn punch(&self, range: Range<u64>) -> TryResult<()> {
        let _ = range;
        Err(base::Error::new(base::Errno::EOPNOTSUPP, "this object cannot have holes"))
    }

    /// Brings dirty pages of `range` to where the object is kept (`msync`, `fsync`). Nothing to do for memory that lives nowhere else.
    ///
    /// # Errors
    /// `EIO`, `EHOSTDOWN`.
    fn write_back(&self, range: Range<u64>) -> TryResult<()> {
        let _ = range;
        base::wait::done(())
    }

    /// Whether its frames are lent and can be taken back: then nothing of it may be mapped any more when the last mapping is detached.
    fn is_lent(&self) -> bool {
        false
    }

    /// Where sleepers on its words are kept; `None`: at this kernel.
    fn words(&self) -> Option<&dyn WordHome> {
        None
    }

    /// Bytes of memory that it holds (`st_blocks`).
    fn held(&self) -> u64;

    /// Notes that `mapper` is going to map pages: it is told of changes until [`detach`](MemoryObject::detach) with the token
    /// that this returns. Use [`Attachment`], which does both.
    ///
    /// # Errors
    /// `EPERM` if the object may not be mapped like this now (seals).
    fn attach(&self, mapper: &Weak<dyn Mapper>, shared_writable: bool) -> Result<usize>;

    /// Whether programs may execute its pages. What lies in the memory of another board is only looked at and written: it is copied to be executed, which
    /// a private mapping does.
    fn is_executable(&self) -> bool {
        true
    }

    /// Undoes [`attach`](MemoryObject::attach).
    fn detach(&self, token: usize);

    /// From now on pages are used here only as far as `lender` says. `false`: no copies of this object can be lent.
    fn set_lender(&self, lender: &Weak<dyn Lender>) -> bool {
        let _ = lender;
        false
    }

    /// The frame of a page, whatever its lender says: for the lender. `write`: its content will change.
    ///
    /// # Errors
    /// As [`page`](MemoryObject::page).
    fn lent_frame(&self, index: u64, write: bool) -> TryResult<Frame> {
        let _ = (index, write);
        Err(base::Error::new(base::Errno::EOPNOTSUPP, "no copies of this object are lent"))
    }

    /// Everybody who maps the page lets go of it; for the lender.
    fn withdraw(&self, index: u64) -> TryResult<()> {
        let _ = index;
        done(())
    }
}

/// A space's hold on an object that it maps: made once per mapping, shared by the pieces that the mapping is split into.
pub struct Attachment {
    object: Arc<dyn MemoryObject>,
    token: usize,
}

impl Attachment {
    /// Attaches `mapper` to `object`.
    ///
    /// # Errors
    /// As [`MemoryObject::attach`].
    pub fn new(object: Arc<dyn MemoryObject>, mapper: &Weak<dyn Mapper>, shared_writable: bool) -> Result<Arc<Self>> {
        let token = object.attach(mapper, shared_writable)?;
        Ok(Arc::new(Self { object, token }))
    }

    /// The object.
    pub const fn object(&self) -> &Arc<dyn MemoryObject> {
        &self.object
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.object.detach(self.token);
    }
}

/// Who maps an object: what implementations of [`MemoryObject::attach`] keep.
#[derive(Default)]
pub struct Mappers {
    list: Slab<(Weak<dyn Mapper>, bool)>,
    shared_writable: usize,
}

impl Mappers {
    /// Nobody.
    pub const fn new() -> Self {
        Self { list: Slab::new(), shared_writable: 0 }
    }

    /// One mapping more; its token.
    pub fn attach(&mut self, mapper: &Weak<dyn Mapper>, shared_writable: bool) -> usize {
        self.shared_writable += usize::from(shared_writable);
        self.list.insert((mapper.clone(), shared_writable))
    }

    /// One mapping less.
    pub fn detach(&mut self, token: usize) {
        if let Some((_, shared_writable)) = self.list.try_remove(token) {
            self.shared_writable -= usize::from(shared_writable);
        }
    }

    /// Whether somebody maps it shared and writable (what `F_SEAL_WRITE` must not meet).
    pub const fn has_shared_writable(&self) -> bool {
        self.shared_writable > 0
    }

    /// How many mappings there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nobody maps it.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them now, each once, to be told after the object's lock was dropped.
    pub fn snapshot(&self) -> Vec<Weak<dyn Mapper>> {
        let mut all: Vec<Weak<dyn Mapper>> = Vec::new();
        for (_, (mapper, _)) in &self.list {
            if !all.iter().any(|known| known.ptr_eq(mapper)) {
                all.push(mapper.clone());
            }
        }
        all
    }
}
