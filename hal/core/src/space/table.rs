//! Page tables as such, for any format.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicU64, Ordering};

use hal_api::{PAGE_SHIFT, PageFormat, PhysAddr, Platform, UserAddr};

use crate::P;
use crate::frame::{MapFrame, OutOfFrames};
use crate::instance::instance;

/// Entries of a table.
const ENTRIES: usize = 512;
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

    /// Counts entries that came into use.
    #[inline]
    pub fn added(&self, n: u32) {
        let used = &instance().frames.meta(self.0).used;
        used.store(used.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// Counts an entry that was freed.
    #[inline]
    pub fn removed(&self) {
        let used = &instance().frames.meta(self.0).used;
        used.store(used.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }

    /// How many entries are in use.
    fn used(&self) -> u32 {
        instance().frames.meta(self.0).used.load(Ordering::Relaxed)
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
            for i in F::USER_ROOT_ENTRIES..ENTRIES {
                root.entries()[i].store(Table(kernel).entries()[i].load(Ordering::Relaxed), Ordering::Relaxed);
            }
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
        if va.0 >= F::USER_TOP {
            return None;
        }
        let mut table = self.root;
        let mut level = F::LEVELS - 1;
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
        let mut level = F::LEVELS - 1;
        while level > 0 {
            let slot = &table.entries()[index(va.0, level)];
            table = match F::as_table(slot.load(Ordering::Relaxed)) {
                Some(lower) => Table(lower),
                None => self.add_table(slot)?,
            };
            level -= 1;
        }
        Ok(table)
    }

    #[cold]
    fn add_table(&self, slot: &AtomicU64) -> Result<Table, OutOfFrames> {
        let at = instance().frames.take_typed().ok_or(OutOfFrames)?;
        slot.store(F::table(at), Ordering::Release);
        Ok(Table(at))
    }

    /// The first level-0 table that maps something at or above `from` and below `end`, and the first address in it that is not below `from`.
    pub fn next_leaf_table(&self, from: u64, end: u64) -> Option<(Table, u64)> {
        let end = end.min(F::USER_TOP);
        let mut at = from;
        'again: while at < end {
            let mut table = self.root;
            let mut level = F::LEVELS - 1;
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
            if table.used() != 0 {
                return Some((table, at));
            }
            at = next_border(at, 1)?;
        }
        None
    }

    fn free(table: Table, level: u32, entries: usize) {
        let frames = &instance().frames;
        for slot in &table.entries()[..entries] {
            let entry = slot.load(Ordering::Relaxed);
            if entry == 0 {
                continue;
            }
            if level == 0 {
                if let Some(leaf) = F::as_leaf(entry) {
                    // SAFETY: the entry held the reference and is never looked at again.
                    drop(unsafe { MapFrame::from_entry(leaf.kind, leaf.at) });
                }
            } else if let Some(lower) = F::as_table(entry) {
                Self::free(Table(lower), level - 1, ENTRIES);
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
        Self::free(self.root, F::LEVELS - 1, F::USER_ROOT_ENTRIES);
    }
}
