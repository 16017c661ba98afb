//! User address spaces: page tables, and what has to happen when an entry is taken away (TLB, frames).

mod batch;
mod cursor;
mod table;
#[cfg(test)]
mod tests;

pub use batch::TlbBatch;
pub(crate) use batch::{Request, idle, serve};
pub use cursor::{Cursor, Page};
pub use hal_api::Prot;

use ::alloc::sync::Arc;
use core::convert::Infallible;
use core::ops::Range;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use hal_api::{Leaf, PageFormat, PhysAddr, Platform, UserAddr};

use crate::P;
use crate::frame::{MapFrame, OutOfFrames};
use crate::instance::instance;
use crate::sync::{SpinLock, rank};
use table::Tables;

type Format = <P as Platform>::Format;

/// Why a page could not be mapped. The frame comes back where the caller may want it.
#[derive(Debug, PartialEq, Eq)]
pub enum MapError {
    /// No frame for a page table.
    OutOfFrames(MapFrame),
    /// A frame that is never freed is never writable either.
    ReadOnly(MapFrame),
    /// Something is mapped there.
    Occupied(MapFrame),
    /// Not a page border in the user half.
    BadAddress(MapFrame),
}

/// What is mapped at a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// The frame's address.
    pub phys: PhysAddr,
    /// What programs may do.
    pub prot: Prot,
    /// The page was used since this was last cleared.
    pub accessed: bool,
    /// The page was written since this was last cleared.
    pub dirty: bool,
}

/// A user address space. Every call locks the page tables for itself, so it can be shared; what belongs together (a list of mappings and
/// their pages) is for `mm` to hold together.
pub struct AddressSpace(Arc<Inner>);

pub(crate) struct Inner {
    tables: SpinLock<Tables<Format>>,
    root: PhysAddr,
    /// CPUs that may have entries of this space in their TLB.
    cpus: AtomicU64,
    /// Pages mapped; changed under the lock.
    pages: AtomicUsize,
}

impl AddressSpace {
    /// An empty address space that shares the kernel half.
    pub fn new() -> Result<Self, OutOfFrames> {
        let tables = Tables::new(P::kernel_root())?;
        let root = tables.root();
        Ok(Self(Arc::new(Inner {
            tables: SpinLock::new(rank::PAGE_TABLE, tables),
            root,
            cpus: AtomicU64::new(0),
            pages: AtomicUsize::new(0),
        })))
    }

    /// Maps a frame at the page `va`, where nothing is mapped. The mapping takes over the reference. No flush is needed: a TLB does not keep
    /// absent pages (RISC-V may; there the fault is spurious and [`AddressSpace::touch`] settles it).
    #[inline]
    pub fn map(&self, va: UserAddr, frame: MapFrame, prot: Prot) -> Result<(), MapError> {
        if !va.is_aligned() || va.0 >= crate::addr::user_top() {
            return Err(MapError::BadAddress(frame));
        }
        if prot.contains(Prot::WRITE) && matches!(frame, MapFrame::Static(_)) {
            return Err(MapError::ReadOnly(frame));
        }
        let mut tables = self.0.tables.lock();
        let Ok(table) = tables.leaf_table(va) else { return Err(MapError::OutOfFrames(frame)) };
        let slot = table.slot(va);
        if slot.load(Ordering::Relaxed) != 0 {
            return Err(MapError::Occupied(frame));
        }
        slot.store(entry(frame, prot), Ordering::Release);
        table.added(va);
        self.0.count(1);
        Ok(())
    }

    /// Puts another frame where one is mapped (or nothing is): the copy of a copy-on-write page. The old frame goes to the batch.
    pub fn replace(&self, va: UserAddr, frame: MapFrame, prot: Prot, batch: &mut TlbBatch<'_>) -> Result<(), MapError> {
        if !va.is_aligned() || va.0 >= crate::addr::user_top() {
            return Err(MapError::BadAddress(frame));
        }
        if prot.contains(Prot::WRITE) && matches!(frame, MapFrame::Static(_)) {
            return Err(MapError::ReadOnly(frame));
        }
        let mut tables = self.0.tables.lock();
        let Ok(table) = tables.leaf_table(va) else { return Err(MapError::OutOfFrames(frame)) };
        let old = table.slot(va).swap(entry(frame, prot), Ordering::AcqRel);
        if old == 0 {
            table.added(va);
            self.0.count(1);
        } else {
            batch.page(va);
            batch.hold(old);
        }
        Ok(())
    }

    /// Unmaps every page of the range; costs nothing for the parts where nothing is mapped. Returns how many were mapped.
    pub fn unmap(&self, range: Range<UserAddr>, batch: &mut TlbBatch<'_>) -> usize {
        let tables = self.0.tables.lock();
        let (mut at, end) = (range.start.page().0, range.end.page_up().0.min(crate::addr::user_top()));
        let mut all = 0;
        while let Some((table, first)) = tables.next_leaf_table(at, end) {
            let last = (first | (table::LEAF_SPAN - 1)).min(end - 1);
            let mut n = 0;
            let Ok(()) = table.each(first, last, |slot, va, _| {
                // The hardware may have changed accessed and dirty since the entry was read, never the frame.
                let old = slot.swap(0, Ordering::AcqRel);
                batch.page(va);
                batch.hold(old);
                n += 1;
                Ok::<(), Infallible>(())
            });
            table.removed(n);
            all += n as usize;
            at = last + 1;
        }
        self.0.count(-(all as isize));
        all
    }

    /// Changes what programs may do with the pages of the range that are mapped. Frames that are never freed do not become writable.
    pub fn protect(&self, range: Range<UserAddr>, prot: Prot, batch: &mut TlbBatch<'_>) {
        let mut cursor = self.cursor(range);
        while let Some(mut page) = cursor.next() {
            page.set_prot(prot, batch);
        }
    }

    /// What is mapped at the page that holds `va`.
    pub fn query(&self, va: UserAddr) -> Option<Mapping> {
        let tables = self.0.tables.lock();
        let leaf = Format::as_leaf(tables.find(va)?.slot(va).load(Ordering::Acquire))?;
        Some(Mapping { phys: leaf.at, prot: leaf.prot, accessed: leaf.accessed, dirty: leaf.dirty })
    }

    /// Another reference to the frame mapped at the page that holds `va`, and what programs may do with it.
    pub fn frame(&self, va: UserAddr) -> Option<(MapFrame, Prot)> {
        let tables = self.0.tables.lock();
        let leaf = Format::as_leaf(tables.find(va)?.slot(va).load(Ordering::Acquire))?;
        // SAFETY: the entry stays while we hold the lock.
        Some((unsafe { MapFrame::clone_entry(leaf.kind, leaf.at) }, leaf.prot))
    }

    /// Settles a fault that page tables alone explain: the entry allows `need` already (another CPU was faster) or only lacks accessed or
    /// dirty bits that this CPU does not set by itself. `false`: a real fault.
    pub fn touch(&self, va: UserAddr, need: Prot) -> bool {
        let tables = self.0.tables.lock();
        let Some(table) = tables.find(va) else { return false };
        let slot = table.slot(va);
        let old = slot.load(Ordering::Acquire);
        let Some(mut leaf) = Format::as_leaf(old) else { return false };
        if !leaf.prot.contains(need.normal()) {
            return false;
        }
        if !Format::HARDWARE_AD {
            leaf.accessed = true;
            leaf.dirty |= need.contains(Prot::WRITE);
            slot.store(Format::leaf(leaf), Ordering::Release);
        }
        P::flush(va.page(), 1);
        true
    }

    /// Makes the page at `va` writable if it is mapped, counted, and its frame has no other reference; the last owner of a copy-on-write
    /// page needs no copy. `false` if it has other owners or is not such a page. The local TLB is brought up to date; other CPUs fault
    /// once more at worst, which [`AddressSpace::touch`] settles.
    pub fn reclaim_cow(&self, va: UserAddr, prot: Prot) -> bool {
        let tables = self.0.tables.lock();
        let Some(table) = tables.find(va) else { return false };
        let slot = table.slot(va);
        let Some(leaf) = Format::as_leaf(slot.load(Ordering::Acquire)) else { return false };
        if leaf.kind != hal_api::LeafKind::Own || instance().frames.meta(leaf.at).refs.load(Ordering::Acquire) != 1 {
            return false;
        }
        slot.store(Format::leaf(Leaf { prot, accessed: true, dirty: true, ..leaf }), Ordering::Release);
        P::flush(va.page(), 1);
        true
    }

    /// Walks the mapped pages of a range with the page tables locked.
    pub fn cursor(&self, range: Range<UserAddr>) -> Cursor<'_> {
        Cursor::new(&self.0, range)
    }

    /// A batch that collects what must be flushed and freed after changes to this space. Dropping it flushes.
    pub fn batch(&self) -> TlbBatch<'_> {
        TlbBatch::new(&self.0)
    }

    /// Maps all that is mapped in `range` into `to` as well (where nothing is mapped there), without `WRITE` in both: what `fork` does with a
    /// private mapping. On failure some pages may have been copied. Frames of peers are left out: whoever takes one back must find every page
    /// that maps it, and a copy that is made meanwhile would escape it; the other space asks for its own.
    pub fn copy_cow(&self, to: &Self, range: Range<UserAddr>, batch: &mut TlbBatch<'_>) -> Result<(), OutOfFrames> {
        self.copy(to, range, true, batch)
    }

    /// Maps all that is mapped in `range` into `to` as well, with the same protection: a shared mapping over `fork`.
    pub fn copy_shared(&self, to: &Self, range: Range<UserAddr>) -> Result<(), OutOfFrames> {
        self.copy(to, range, false, &mut self.batch())
    }

    fn copy(&self, to: &Self, range: Range<UserAddr>, cow: bool, batch: &mut TlbBatch<'_>) -> Result<(), OutOfFrames> {
        let (from_tables, mut to_tables) = SpinLock::lock_both(&self.0.tables, &to.0.tables);
        let frames = &instance().frames;
        let end = range.end.page_up().0.min(crate::addr::user_top());
        let mut at = range.start.page().0;
        let mut copied = 0;
        let mut result = Ok(());
        while let Some((table, first)) = from_tables.next_leaf_table(at, end) {
            let last = (first | (table::LEAF_SPAN - 1)).min(end - 1);
            let Ok(target) = to_tables.leaf_table(UserAddr(first)) else {
                result = Err(OutOfFrames);
                break;
            };
            let (mut changed, mut added, mut groups) = (0, 0, 0);
            let Ok(()) = table.each(first, last, |slot, va, mut entry| {
                let copy = target.slot(va);
                if copy.load(Ordering::Relaxed) != 0 || is_peer(entry) {
                    return Ok::<(), Infallible>(());
                }
                if cow {
                    let mut without = Format::without_write(entry);
                    // The hardware may set accessed and dirty meanwhile.
                    while without != entry {
                        match slot.compare_exchange(entry, without, Ordering::AcqRel, Ordering::Acquire) {
                            Ok(_) => {
                                changed += 1;
                                break;
                            }
                            Err(now) => {
                                entry = now;
                                without = Format::without_write(entry);
                            }
                        }
                    }
                    entry = without;
                }
                if Format::is_own(entry) {
                    frames.meta(Format::leaf_at(entry)).refs.fetch_add(1, Ordering::Relaxed);
                }
                copy.store(entry, Ordering::Release);
                added += 1;
                groups |= table::Table::group(va);
                Ok(())
            });
            target.added_all(added, groups);
            copied += added as isize;
            if changed > 0 {
                batch.span(first, last + 1, changed);
            }
            at = last + 1;
        }
        to.0.count(copied);
        result
    }

    /// When this returns, every CPU that runs a program in this space has executed a full memory barrier since the call (`membarrier(2)`).
    pub fn synchronize(&self) {
        batch::synchronize(&self.0);
    }

    /// How many pages are mapped.
    pub fn pages(&self) -> usize {
        self.0.pages.load(Ordering::Relaxed)
    }

    /// Makes this the user address space of this CPU.
    #[inline]
    pub fn activate(&self) {
        let cpu = instance().this_cpu();
        let new = Arc::as_ptr(&self.0);
        if core::ptr::eq(cpu.space.load(Ordering::Relaxed), new) {
            return;
        }
        // Before the root is loaded: whoever changes the tables from now on flushes here too.
        self.0.cpus.fetch_or(1 << P::slot(), Ordering::SeqCst);
        // SAFETY: the clone below keeps the tables until another space is active here.
        unsafe { P::activate(Some(self.0.root)) };
        leave(cpu.space.swap(Arc::into_raw(self.0.clone()).cast_mut(), Ordering::Relaxed));
    }

    /// Whether it is the active one of this CPU.
    pub fn is_active(&self) -> bool {
        core::ptr::eq(instance().this_cpu().space.load(Ordering::Relaxed), Arc::as_ptr(&self.0))
    }
}

/// Leaves this CPU without a user address space: before the last owner of an address space ends.
pub fn deactivate() {
    let cpu = instance().this_cpu();
    let old = cpu.space.swap(core::ptr::null_mut(), Ordering::Relaxed);
    if !old.is_null() {
        // SAFETY: no user half is always valid.
        unsafe { P::activate(None) };
        leave(old);
    }
}

/// Gives up the reference that this CPU held to the space that was active.
fn leave(old: *mut Inner) {
    if !old.is_null() {
        // SAFETY: `activate` made it with `into_raw`, and it was swapped out by us.
        let old = unsafe { Arc::from_raw(old.cast_const()) };
        old.cpus.fetch_and(!(1 << P::slot()), Ordering::SeqCst);
    }
}

/// The space that is active on a CPU; see [`AddressSpace::activate`].
pub(crate) type ActiveSpace = AtomicPtr<Inner>;

impl Inner {
    #[inline]
    fn count(&self, by: isize) {
        // Changed only under the lock of the tables.
        let n = self.pages.load(Ordering::Relaxed);
        self.pages.store(n.wrapping_add_signed(by), Ordering::Relaxed);
    }
}

impl core::fmt::Debug for AddressSpace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "AddressSpace({:#x}, {} pages)", self.0.root.0, self.pages())
    }
}

/// Whether an entry maps a frame of a peer.
#[inline]
fn is_peer(entry: u64) -> bool {
    !Format::is_own(entry) && Format::as_leaf(entry).is_some_and(|leaf| leaf.kind == hal_api::LeafKind::Peer)
}

/// The entry that maps `frame`; takes over its reference.
#[inline]
fn entry(frame: MapFrame, prot: Prot) -> u64 {
    let (kind, at) = frame.into_entry();
    let set = !Format::HARDWARE_AD;
    Format::leaf(Leaf { at, prot, kind, accessed: true, dirty: set && prot.contains(Prot::WRITE) })
}
