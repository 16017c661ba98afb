//! The address space of a process: its table of mappings and the page tables that follow it.
//!
//! * `map.rs`: `mmap`, `munmap`, `mprotect`, `mremap`, `brk`.
//! * `fault.rs`: bringing pages in.
//! * `fork.rs`: the copy.
//! * `advise.rs`: `madvise`, `mlock`, `mincore`, `msync`.
//! * `report.rs`: what `/proc/PID` shows.
//! * `poke.rs`: reading and writing the memory of a space that is not active.
//!
//! # Locks
//! One spin lock per space orders its table of mappings and every change of its page tables. Nothing waits with it held: a page that must come from
//! elsewhere is handed back as an operation, and the fault is tried again afterwards. Work on many pages drops the lock at chunk borders
//! (contract C1), so a big `munmap` or `fork` is not one step for the other threads of the process; the mappings of a chunk and their pages
//! always go together.

mod advise;
mod fault;
mod fork;
mod map;
mod poke;
mod report;
#[cfg(test)]
mod tests;
mod word;

use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::ops::Range;

use base::{Errno, Error, ObjectId, Result, wait::Op};
use hal::{
    addr::{PAGE_SIZE, UserAddr, user_top},
    frame::{Frame, MapFrame},
    space::AddressSpace,
    sync::{SpinGuard, SpinLock, rank},
};

pub use advise::Advice;
pub use fault::{Fault, Violation};
pub use map::{MapRequest, Place, RemapRequest, What};
pub use poke::{Poked, Stopped};
pub use report::{MappingInfo, Rss, SpaceInfo};

use crate::{
    memory::Memory,
    object::Mapper,
    vma::{Content, FileLabel, VmaMap},
};

pub(crate) const PAGE: u64 = PAGE_SIZE as u64;
/// Bytes of address space that are worked on without dropping the lock.
pub(crate) const CHUNK: u64 = 4 << 20;
/// Most mappings of a space (`/proc/sys/vm/max_map_count`).
pub const MAPPINGS_MAX: usize = 65530;
/// Lowest address that a program may map (`/proc/sys/vm/mmap_min_addr`).
pub const LOWEST: u64 = 64 << 10;
/// What stays unmapped below a stack that grows (Linux' `stack_guard_gap`).
pub const STACK_GAP: u64 = 256 * PAGE;

/// The resource limits that concern memory, in bytes; `u64::MAX` for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// RLIMIT_AS.
    pub address_space: u64,
    /// RLIMIT_DATA.
    pub data: u64,
    /// RLIMIT_STACK.
    pub stack: u64,
    /// RLIMIT_MEMLOCK; none for those with CAP_IPC_LOCK.
    pub locked: u64,
}

impl Default for Limits {
    /// What a Linux system starts with.
    fn default() -> Self {
        Self { address_space: u64::MAX, data: u64::MAX, stack: 8 << 20, locked: 8 << 20 }
    }
}

/// Where things are in a space; set by `exec`, shown in `/proc/PID/stat`.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Instructions of the program itself.
    pub code: Range<u64>,
    /// Its data.
    pub data: Range<u64>,
    /// The stack pointer at the start.
    pub stack: u64,
    /// Argument strings.
    pub args: Range<u64>,
    /// Environment strings.
    pub env: Range<u64>,
    /// The auxiliary vector.
    pub auxv: Vec<[u64; 2]>,
    /// The program's file (`/proc/PID/exe`).
    pub file: Option<Arc<FileLabel>>,
}

pub(crate) struct Inner {
    pub vmas: VmaMap,
    pub brk_start: u64,
    pub brk: u64,
    /// Free addresses are looked for below this, downwards.
    pub mmap_top: u64,
    pub limits: Limits,
    /// New mappings are locked (`mlockall(MCL_FUTURE)`).
    pub lock_future: bool,
    pub program: Arc<Program>,
    /// Most pages that were resident at once, as far as it was noticed.
    pub peak_pages: usize,
    pub peak_size: u64,
}

/// An address space.
pub struct Space {
    pub(crate) memory: Arc<Memory>,
    pub(crate) table: AddressSpace,
    pub(crate) inner: SpinLock<Inner>,
    pub(crate) me: Weak<Self>,
}

impl Space {
    /// An empty space. Nothing may be mapped before [`Space::set_layout`] has said where.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(memory: &Arc<Memory>) -> Result<Arc<Self>> {
        let table = AddressSpace::new().map_err(|_| Error::new(Errno::ENOMEM, "no frame for page tables"))?;
        let inner = Inner {
            vmas: VmaMap::new(),
            brk_start: 0,
            brk: 0,
            mmap_top: user_top() / 2,
            limits: Limits::default(),
            lock_future: false,
            program: Arc::default(),
            peak_pages: 0,
            peak_size: 0,
        };
        Ok(Arc::new_cyclic(|me| Self {
            memory: memory.clone(),
            table,
            inner: SpinLock::new(rank::MAPPINGS, inner),
            me: me.clone(),
        }))
    }

    /// The memory it draws from.
    pub const fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Makes it the user address space of this CPU.
    #[inline]
    pub fn activate(&self) {
        self.table.activate();
    }

    /// Whether it is the active one of this CPU; user copies go to that one.
    pub fn is_active(&self) -> bool {
        self.table.is_active()
    }

    /// When this returns, every CPU that runs a thread of this space has executed a full memory barrier since the call.
    pub fn synchronize(&self) {
        self.table.synchronize();
    }

    /// Whether every page of `[start, end)` is mapped.
    pub fn covers(&self, start: u64, end: u64) -> bool {
        self.inner.lock().vmas.covers(start & !(PAGE - 1)..end)
    }

    /// Sets the limits: at `exec`, and by `setrlimit`.
    pub fn set_limits(&self, limits: Limits) {
        self.inner.lock().limits = limits;
    }

    /// Says where mappings go (downwards from `mmap_top`) and where the heap begins.
    pub fn set_layout(&self, mmap_top: u64, brk: u64) {
        let mut inner = self.inner.lock();
        inner.mmap_top = mmap_top & !(PAGE - 1);
        inner.brk_start = brk;
        inner.brk = brk;
    }

    /// Says what the program is.
    pub fn set_program(&self, program: Program) {
        self.inner.lock().program = Arc::new(program);
    }

    /// What the program is.
    pub fn program(&self) -> Arc<Program> {
        self.inner.lock().program.clone()
    }

    /// The weak reference by which objects know this space.
    pub(crate) fn mapper(&self) -> Weak<dyn Mapper> {
        self.me.clone()
    }

    /// Drops everything between chunks of long work, lets interrupts in, and takes the lock again.
    pub(crate) fn relax<'a>(&'a self, guard: SpinGuard<'a, Inner>) -> SpinGuard<'a, Inner> {
        drop(guard);
        if hal::sync::held() == 0 {
            hal::cpu::breathe();
        }
        self.inner.lock()
    }

    /// The address ranges at which pages of `object` are mapped, from the page each begins with.
    fn views(inner: &Inner, object: ObjectId, pages: &Range<u64>) -> Vec<Range<u64>> {
        let view = |vma: &crate::vma::Vma| {
            let Content::Object { hold, offset } = &vma.content else { return None };
            if hold.object().id() != object {
                return None;
            }
            let (from, to) = (offset / PAGE, (offset + vma.len()) / PAGE);
            let (first, last) = (pages.start.max(from), pages.end.min(to));
            (first < last).then(|| vma.start + (first - from) * PAGE..vma.start + (last - from) * PAGE)
        };
        inner.vmas.iter().filter_map(view).collect()
    }
}

impl Mapper for Space {
    fn unmap_pages(&self, object: ObjectId, pages: Range<u64>) -> Option<Box<dyn Op<()>>> {
        // Under one lock: a mapping that moves meanwhile must not escape. A page that a private mapping has copied goes as well: Linux keeps none
        // of them beyond the end of a file either.
        let inner = self.inner.lock();
        let mut batch = self.table.batch();
        for view in Self::views(&inner, object, &pages) {
            self.table.unmap(UserAddr(view.start)..UserAddr(view.end), &mut batch);
        }
        None
    }

    fn withdraw_page(&self, object: ObjectId, index: u64, frame: &Frame) -> Option<Box<dyn Op<()>>> {
        self.take_pages(
            object,
            &(index..index.saturating_add(1)),
            |mapped| matches!(mapped, MapFrame::Own(own) if own == *frame),
        );
        None
    }

    fn take_page(&self, object: ObjectId, index: u64) -> bool {
        self.take_pages(object, &(index..index.saturating_add(1)), |_| true)
    }

    fn lose_pages(&self, object: ObjectId) -> bool {
        self.take_pages(object, &(0..u64::MAX), |_| true)
    }
}

impl Space {
    /// Takes those pages out that `which` says; whether one of them had been written.
    fn take_pages(&self, object: ObjectId, pages: &Range<u64>, which: impl Fn(MapFrame) -> bool) -> bool {
        let inner = self.inner.lock();
        let mut batch = self.table.batch();
        let mut written = false;
        for view in Self::views(&inner, object, pages) {
            let mut cursor = self.table.cursor(UserAddr(view.start)..UserAddr(view.end));
            while let Some(page) = cursor.next() {
                if which(page.frame()) {
                    written |= page.take(&mut batch);
                }
            }
        }
        written
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // A CPU that still has the page tables loaded keeps them; what is lent must be out of them before it is given back.
        for vma in self.inner.get_mut().vmas.iter() {
            if let Content::Object { hold, .. } = &vma.content
                && hold.object().is_lent()
            {
                self.table.unmap(UserAddr(vma.start)..UserAddr(vma.end), &mut self.table.batch());
            }
        }
        let committed = self.inner.get_mut().vmas.totals().committed;
        self.memory.uncommit(committed);
    }
}

impl core::fmt::Debug for Space {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Space({:?})", self.table)
    }
}
