//! Page tables as such, for any format.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};

use hal_api::{PAGE_SHIFT, PageFormat, PhysAddr, Platform, UserAddr};

use crate::P;
use crate::frame::{Meta, OutOfFrames};
use crate::instance::instance;

/// Entries of a table.
const ENTRIES: usize = 512;
/// Entries that one bit in the table's metadata stands for.
const GROUP: usize = ENTRIES / 64;
/// Bytes that a level-0 table maps.
pub(super) const LEAF_SPAN: u64 = (ENTRIES as u64) << PAGE_SHIFT;

/// The tables of one address space. Owns them all, and what their leaves refer to.
pub(super) struct Tables<F: PageFormat> {
    root: Table,
    format: PhantomData<F>,
}

/// One table, by address. Valid as long as the `Tables` it belongs to, whose lock its users hold.
#[derive(Clone, Copy)]
pub(super) struct Table(PhysAddr);

impl Table {
    #[inline]
    fn entries(&self) -> &[AtomicU64; ENTRIES] {
        // SAFETY: a typed frame of own memory that only holds entries; the hardware changes them atomically.
        unsafe { P::linear(self.0).cast::<[AtomicU64; ENTRIES]>().as_ref() }
    }

    /// The level-0 entry for `va`.
    #[inline]
    pub fn slot(&self, va: UserAddr) -> &AtomicU64 {
        &self.entries()[index(va.0, 0)]
    }

    #[inline]
    pub fn meta(&self) -> &'static Meta {
        instance().frames.meta(self.0)
    }

    /// Notes that an entry came into use.
    #[inline]
    pub fn added(&self, va: UserAddr) {
        self.note(index(va.0, 0));
    }

    /// Notes that `n` entries came into use, all in the groups of `groups` (see [`Table::group`]).
    #[inline]
    pub fn added_all(&self, n: u32, groups: u64) {
        let meta = self.meta();
        meta.used.store(meta.used.load(Ordering::Relaxed) + n, Ordering::Relaxed);
        meta.tag.store(meta.tag.load(Ordering::Relaxed) | groups, Ordering::Relaxed);
    }

    /// The bit of the level-0 entry for `va`.
    #[inline]
    pub const fn group(va: UserAddr) -> u64 {
        1 << (index(va.0, 0) / GROUP)
    }

    /// Changed only under the lock of the tables, so no atomic read-modify-write is needed.
    #[inline]
    fn note(&self, index: usize) {
        self.added_all(1, 1 << (index / GROUP));
    }

    /// Notes that `n` entries were freed.
    #[inline]
    pub fn removed(&self, n: u32) {
        let meta = self.meta();
        let left = meta.used.load(Ordering::Relaxed).wrapping_sub(n);
        meta.used.store(left, Ordering::Relaxed);
        if left == 0 {
            meta.tag.store(0, Ordering::Relaxed);
        }
    }

    /// Calls `f` with the entries of level 0 in use for the pages of `first..=last`, which lie in this table.
    #[inline]
    pub fn each<E>(
        &self,
        first: u64,
        last: u64,
        mut f: impl FnMut(&AtomicU64, UserAddr, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let (low, high) = (index(first, 0), index(last, 0));
        let base = first & !(LEAF_SPAN - 1);
        let entries = self.entries();
        let mut groups = self.meta().tag.load(Ordering::Relaxed)
            & (u64::MAX << (low / GROUP))
            & (u64::MAX >> (ENTRIES / GROUP - 1 - high / GROUP));
        while groups != 0 {
            let start = groups.trailing_zeros() as usize * GROUP;
            groups &= groups - 1;
            let from = start.max(low);
            for (slot, i) in entries[from..=(start + GROUP - 1).min(high)].iter().zip(from as u64..) {
                let entry = slot.load(Ordering::Acquire);
                if entry != 0 {
                    f(slot, UserAddr(base + (i << PAGE_SHIFT)), entry)?;
                }
            }
        }
        Ok(())
    }
}

#[inline]
const fn index(va: u64, level: u32) -> usize {
    (va >> (PAGE_SHIFT + 9 * level)) as usize % ENTRIES
}

impl<F: PageFormat> Tables<F> {
    /// An empty root; its kernel half is that of `kernel`.
    pub fn new(kernel: Option<PhysAddr>) -> Result<Self, OutOfFrames> {
        let root = Table(instance().frames.take_typed().ok_or(OutOfFrames)?);
        if let Some(kernel) = kernel {
            let from = P::linear(kernel).cast::<u64>();
            let (skip, n) = (F::USER_ROOT_ENTRIES, ENTRIES - F::USER_ROOT_ENTRIES);
            // SAFETY: both are whole tables; the kernel's top entries never change (`Platform::kernel_root`), and the new root is ours alone.
            unsafe { P::linear(root.0).cast::<u64>().add(skip).copy_from_nonoverlapping(from.add(skip), n) };
        }
        Ok(Self { root, format: PhantomData })
    }

    /// Where the root lies.
    pub fn root(&self) -> PhysAddr {
        self.root.0
    }

    /// The level-0 table for `va`, if there is one.
    #[inline]
    pub fn find(&self, va: UserAddr) -> Option<Table> {
        if va.0 >= F::user_top() {
            return None;
        }
        let mut table = self.root;
        let mut level = F::levels() - 1;
        while level > 0 {
            table = Table(F::as_table(table.entries()[index(va.0, level)].load(Ordering::Relaxed))?);
            level -= 1;
        }
        Some(table)
    }

    /// The level-0 table for `va`, which is in the user half; makes what is missing.
    #[inline]
    pub fn leaf_table(&mut self, va: UserAddr) -> Result<Table, OutOfFrames> {
        let mut table = self.root;
        let mut level = F::levels() - 1;
        while level > 0 {
            table = match F::as_table(table.entries()[index(va.0, level)].load(Ordering::Relaxed)) {
                Some(lower) => Table(lower),
                None => self.add_table(table, index(va.0, level))?,
            };
            level -= 1;
        }
        Ok(table)
    }

    #[cold]
    fn add_table(&self, parent: Table, index: usize) -> Result<Table, OutOfFrames> {
        let at = instance().frames.take_typed().ok_or(OutOfFrames)?;
        parent.entries()[index].store(F::table(at), Ordering::Release);
        parent.note(index);
        Ok(Table(at))
    }

    /// The first level-0 table that maps something at or above `from` and below `end`, and the first address in it that is not below `from`.
    pub fn next_leaf_table(&self, from: u64, end: u64) -> Option<(Table, u64)> {
        let end = end.min(F::user_top());
        let mut at = from;
        'again: while at < end {
            let mut table = self.root;
            let mut level = F::levels() - 1;
            while level > 0 {
                match F::as_table(table.entries()[index(at, level)].load(Ordering::Relaxed)) {
                    Some(lower) => table = Table(lower),
                    None => {
                        at = next_border(at, level)?;
                        continue 'again;
                    }
                }
                level -= 1;
            }
            if table.meta().used.load(Ordering::Relaxed) != 0 {
                return Some((table, at));
            }
            at = next_border(at, 1)?;
        }
        None
    }

    /// Frees a table of `level`, and all below it. Of a root only the user half has notes.
    fn free(table: Table, level: u32) {
        let frames = &instance().frames;
        let entries = table.entries();
        let mut groups = table.meta().tag.load(Ordering::Relaxed);
        while groups != 0 {
            let start = groups.trailing_zeros() as usize * GROUP;
            groups &= groups - 1;
            for slot in &entries[start..start + GROUP] {
                let entry = slot.load(Ordering::Relaxed);
                if level == 0 {
                    // The entry held the reference and is never looked at again. A free entry is not `own`.
                    if F::is_own(entry) {
                        frames.release(F::leaf_at(entry));
                    }
                } else if let Some(lower) = F::as_table(entry) {
                    Self::free(Table(lower), level - 1);
                }
            }
        }
        frames.give_typed(table.0);
    }
}

/// The first address after the part that one entry of `level` maps.
const fn next_border(at: u64, level: u32) -> Option<u64> {
    let span = 1u64 << (PAGE_SHIFT + 9 * level);
    (at & !(span - 1)).checked_add(span)
}

impl<F: PageFormat> Drop for Tables<F> {
    fn drop(&mut self) {
        // No CPU has the space active: each that does holds a reference to it.
        Self::free(self.root, F::levels() - 1);
    }
}
