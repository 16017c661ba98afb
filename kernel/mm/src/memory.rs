//! The memory of one kernel: frames with a reserve, the page caches that can give some back, and the counts behind `/proc/meminfo`.

use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicI64, AtomicU8, AtomicUsize, Ordering::Relaxed};

use base::{Errno, Error, Result, id::ObjectIds};
use hal::{
    addr::{PAGE_SIZE, UserAddr},
    frame::{Frame, StaticFrame},
    sync::{Once, SpinLock, rank},
};

use crate::{object::ObjectKind, sysv::Segments};

/// What a frame is used for; kept in its tag, so that whoever unmaps it knows which counter to lower.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Use {
    /// Private memory of programs.
    Anonymous = 0,
    /// A page of a file.
    File = 1,
    /// A page of shared memory.
    Shared = 2,
}

impl Use {
    /// What `frame` was marked as.
    pub fn of(frame: &Frame) -> Self {
        match frame.tag() {
            1 => Self::File,
            2 => Self::Shared,
            _ => Self::Anonymous,
        }
    }
}

impl From<ObjectKind> for Use {
    fn from(kind: ObjectKind) -> Self {
        match kind {
            ObjectKind::File => Self::File,
            ObjectKind::Shared => Self::Shared,
        }
    }
}

/// Whoever can give frames back when there are few.
pub trait Reclaim: Send + Sync {
    /// Frees up to `pages` frames that nobody needs now and that can be had again; how many. Takes locks only by trying.
    fn reclaim(&self, pages: usize) -> usize;
}

/// Chooses a process and kills it, when reclaiming was not enough. Installed by the task layer.
pub trait Killer: Send + Sync {
    /// Sends SIGKILL to the process whose end frees most (see [`badness`]); `false` if there is none. Called with no lock held.
    fn kill_one(&self) -> bool;
}

/// How much the end of a process would help, as Linux scores it: what it holds, shifted by `oom_score_adj` thousandths of all memory.
/// `None`: it must not be chosen (`oom_score_adj` is -1000).
pub fn badness(held_pages: usize, oom_score_adj: i16, total_pages: usize) -> Option<i64> {
    if oom_score_adj <= -1000 {
        return None;
    }
    Some(held_pages as i64 + i64::from(oom_score_adj) * (total_pages as i64 / 1000))
}

/// What `mmap` does about memory that is not there, `/proc/sys/vm/overcommit_memory`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Overcommit {
    /// Refuse only what can never fit.
    Heuristic = 0,
    /// Refuse nothing.
    Always = 1,
    /// Refuse what exceeds half of the memory.
    Never = 2,
}

/// Counters in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryInfo {
    /// Frames that this kernel has for programs and itself.
    pub total: usize,
    /// Free ones.
    pub free: usize,
    /// Free, or to be had by reclaiming.
    pub available: usize,
    /// Pages of files in memory, shared memory included (`Cached`).
    pub cached: usize,
    /// Pages of tmpfs and shared memory.
    pub shared: usize,
    /// Promised memory (`Committed_AS`).
    pub committed: usize,
    /// What may be promised (`CommitLimit`).
    pub commit_limit: usize,
}

/// The memory of one kernel.
pub struct Memory {
    ids: Arc<ObjectIds>,
    /// How many frames may be taken before the reserve is looked at again.
    budget: AtomicI64,
    reserve: usize,
    total: usize,
    counts: [AtomicI64; 3],
    committed: AtomicI64,
    overcommit: AtomicU8,
    caches: SpinLock<Vec<Weak<dyn Reclaim>>>,
    next_cache: AtomicUsize,
    killer: Once<Arc<dyn Killer>>,
    zero: StaticFrame,
    segments: Segments,
    vdso: Once<crate::vdso::Vdso>,
}

const fn no_memory() -> Error {
    Error::new(Errno::ENOMEM, "no free frames")
}

impl Memory {
    /// Takes over the frames of this kernel.
    ///
    /// # Errors
    /// `ENOMEM` if there is not a single one.
    pub fn new(ids: Arc<ObjectIds>) -> Result<Arc<Self>> {
        let stats = hal::frame::stats();
        let zero = StaticFrame::leak(Frame::alloc(true).map_err(|_| no_memory())?);
        Ok(Arc::new(Self {
            ids,
            budget: AtomicI64::new(0),
            reserve: (stats.total / 64).clamp(64, 4096),
            total: stats.total,
            counts: [const { AtomicI64::new(0) }; 3],
            committed: AtomicI64::new(0),
            overcommit: AtomicU8::new(Overcommit::Heuristic as u8),
            caches: SpinLock::new(rank::REGISTRY, Vec::new()),
            next_cache: AtomicUsize::new(0),
            killer: Once::new(),
            zero,
            segments: Segments::new(),
            vdso: Once::new(),
        }))
    }

    /// Names for new objects.
    pub const fn ids(&self) -> &Arc<ObjectIds> {
        &self.ids
    }

    /// The frame of zeros, mapped read-only where a program has read memory that it never wrote.
    pub const fn zero_frame(&self) -> StaticFrame {
        self.zero
    }

    /// The System V segments of this kernel.
    pub const fn segments(&self) -> &Segments {
        &self.segments
    }

    /// The vDSO, once boot has built it.
    pub fn vdso(&self) -> Option<&crate::vdso::Vdso> {
        self.vdso.get()
    }

    /// Sets the vDSO that every program gets; once.
    pub fn set_vdso(&self, vdso: crate::vdso::Vdso) {
        // A second one would be a second boot; the first stays.
        let _ = self.vdso.set(vdso);
    }

    /// Installs the one who ends processes when memory is out; once.
    pub fn set_killer(&self, killer: Arc<dyn Killer>) {
        let _ = self.killer.set(killer);
    }

    /// A frame for a program or a cache. Leaves a reserve to the kernel itself, and reclaims clean pages when it is reached.
    ///
    /// # Errors
    /// `ENOMEM`.
    #[inline]
    pub fn frame(&self, zero: bool) -> Result<Frame> {
        if self.budget.fetch_sub(1, Relaxed) <= 0 {
            self.rebudget()?;
        }
        Frame::alloc(zero).map_err(|_| no_memory())
    }

    /// A frame with a copy of `other`.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn duplicate(&self, other: &Frame) -> Result<Frame> {
        let frame = self.frame(false)?;
        frame.copy_from(other);
        Ok(frame)
    }

    #[cold]
    fn rebudget(&self) -> Result<()> {
        const MOST: usize = 1024;
        let mut free = hal::frame::stats().free;
        if free <= self.reserve {
            self.reclaim(self.reserve / 2 + 32);
            free = hal::frame::stats().free;
            if free <= self.reserve {
                return Err(no_memory());
            }
        }
        self.budget.store((free - self.reserve).min(MOST) as i64, Relaxed);
        Ok(())
    }

    /// Counts a frame more or less in use.
    pub fn count(&self, which: Use, change: i64) {
        if let Some(count) = self.counts.get(which as usize) {
            count.fetch_add(change, Relaxed);
        }
    }

    /// Notes a cache that can give frames back. Forgotten by itself when it is gone.
    pub fn add_cache(&self, cache: Weak<dyn Reclaim>) {
        self.caches.lock().push(cache);
    }

    /// Asks the caches in turn for `pages` frames; how many came. May be called with any lock held.
    pub fn reclaim(&self, pages: usize) -> usize {
        let mut freed = 0;
        // Tried, because this may run below any lock.
        let Some(mut caches) = self.caches.try_lock() else { return 0 };
        let rounds = caches.len();
        let mut dropped = Vec::new();
        for _ in 0..rounds {
            if freed >= pages || caches.is_empty() {
                break;
            }
            let at = self.next_cache.fetch_add(1, Relaxed) % caches.len();
            match caches.get(at).and_then(Weak::upgrade) {
                Some(cache) => {
                    freed += cache.reclaim(pages - freed);
                    // Its last reference may be ours, and its end may free more than fits under this lock.
                    dropped.push(cache);
                }
                None => drop(caches.swap_remove(at)),
            }
        }
        drop(caches);
        drop(dropped);
        freed
    }

    /// Makes room when a fault found no frame: reclaims, else ends a process. `false` if nothing can be done. No lock held.
    pub fn make_room(&self) -> bool {
        let wanted = self.reserve.max(128);
        let freed = self.reclaim(wanted);
        if freed >= wanted / 4 {
            return true;
        }
        // The little that caches still had is what those that run read next: they would take it from each other for ever.
        self.killer.get().is_some_and(|killer| killer.kill_one()) || freed > 0
    }

    /// Promises `bytes` of private memory.
    ///
    /// # Errors
    /// `ENOMEM` if the policy refuses.
    pub fn commit(&self, bytes: u64) -> Result<()> {
        let pages = (bytes / PAGE_SIZE as u64) as i64;
        let limit = match self.overcommit() {
            Overcommit::Heuristic if pages > self.total as i64 => 0,
            Overcommit::Heuristic | Overcommit::Always => i64::MAX,
            Overcommit::Never => self.commit_limit() as i64,
        };
        if self.committed.fetch_add(pages, Relaxed).saturating_add(pages) > limit {
            self.committed.fetch_sub(pages, Relaxed);
            return Err(Error::new(Errno::ENOMEM, "more than can be promised"));
        }
        Ok(())
    }

    /// Takes a promise back.
    pub fn uncommit(&self, bytes: u64) {
        self.committed.fetch_sub((bytes / PAGE_SIZE as u64) as i64, Relaxed);
    }

    fn commit_limit(&self) -> usize {
        self.total / 2
    }

    /// The policy.
    pub fn overcommit(&self) -> Overcommit {
        match self.overcommit.load(Relaxed) {
            1 => Overcommit::Always,
            2 => Overcommit::Never,
            _ => Overcommit::Heuristic,
        }
    }

    /// Sets the policy.
    pub fn set_overcommit(&self, policy: Overcommit) {
        self.overcommit.store(policy as u8, Relaxed);
    }

    /// The counters.
    pub fn info(&self) -> MemoryInfo {
        let count = |which: Use| self.counts.get(which as usize).map_or(0, |c| c.load(Relaxed).max(0) as usize);
        let free = hal::frame::stats().free;
        let (file, shared) = (count(Use::File), count(Use::Shared));
        MemoryInfo {
            total: self.total,
            free,
            available: (free + file).saturating_sub(self.reserve),
            cached: file + shared,
            shared,
            committed: self.committed.load(Relaxed).max(0) as usize,
            commit_limit: self.commit_limit(),
        }
    }
}

impl core::fmt::Debug for Memory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}", self.info())
    }
}

/// An address as programs give it, rounded down to its page.
pub(crate) const fn page_of(addr: u64) -> UserAddr {
    UserAddr(addr & !(PAGE_SIZE as u64 - 1))
}
