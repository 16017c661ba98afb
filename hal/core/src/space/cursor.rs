//! A walk over the mapped pages of a range.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use hal_api::{Leaf, LeafKind, PAGE_SIZE, PageFormat, PhysAddr, Prot, UserAddr};

use super::table::{LEAF_SPAN, Table, Tables};
use super::{Format, Inner, TlbBatch};
use crate::frame::MapFrame;
use crate::sync::SpinGuard;

/// Walks the mapped pages of a range, in order, skipping what is empty. Holds the lock of the page tables.
pub struct Cursor<'a> {
    space: &'a Inner,
    tables: SpinGuard<'a, Tables<Format>>,
    at: u64,
    end: u64,
    table: Option<Table>,
}

/// A mapped page under a [`Cursor`].
pub struct Page<'c> {
    space: &'c Inner,
    table: Table,
    va: UserAddr,
    entry: u64,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(space: &'a Inner, range: Range<UserAddr>) -> Self {
        let end = range.end.page_up().0.min(crate::addr::user_top());
        Self { space, tables: space.tables.lock(), at: range.start.page().0, end, table: None }
    }

    /// The next mapped page.
    #[allow(clippy::should_implement_trait, reason = "the page borrows the cursor")]
    pub fn next(&mut self) -> Option<Page<'_>> {
        while self.at < self.end {
            let table = match self.table {
                Some(t) => t,
                None => {
                    let (table, at) = self.tables.next_leaf_table(self.at, self.end)?;
                    self.at = at;
                    *self.table.insert(table)
                }
            };
            // The end of what this table maps (0 at the very top of the address space cannot be: the end is below).
            let stop = ((self.at | (LEAF_SPAN - 1)) + 1).min(self.end);
            while self.at < stop {
                let va = UserAddr(self.at);
                self.at += PAGE_SIZE as u64;
                let entry = table.slot(va).load(Ordering::Acquire);
                if entry != 0 {
                    if self.at.is_multiple_of(LEAF_SPAN) {
                        self.table = None;
                    }
                    return Some(Page { space: self.space, table, va, entry });
                }
            }
            self.table = None;
        }
        None
    }
}

impl Page<'_> {
    /// Its address.
    pub fn va(&self) -> UserAddr {
        self.va
    }

    /// The frame's address.
    pub fn phys(&self) -> PhysAddr {
        Format::leaf_at(self.entry)
    }

    fn leaf(&self) -> Leaf {
        Format::as_leaf(self.entry).unwrap_or(Leaf {
            at: self.phys(),
            prot: Prot::empty(),
            kind: LeafKind::Static,
            accessed: false,
            dirty: false,
        })
    }

    /// What programs may do with it.
    pub fn prot(&self) -> Prot {
        self.leaf().prot
    }

    /// Whether it was used since that was last cleared.
    pub fn accessed(&self) -> bool {
        self.leaf().accessed
    }

    /// Whether it was written since that was last cleared.
    pub fn dirty(&self) -> bool {
        self.leaf().dirty
    }

    /// Another reference to its frame.
    pub fn frame(&self) -> MapFrame {
        let leaf = self.leaf();
        // SAFETY: the entry stays while the cursor holds the lock.
        unsafe { MapFrame::clone_entry(leaf.kind, leaf.at) }
    }

    fn slot(&self) -> &AtomicU64 {
        self.table.slot(self.va)
    }

    /// Changes the entry atomically with respect to the accessed and dirty bits that the hardware sets.
    fn update(&mut self, change: impl Fn(Leaf) -> Leaf) -> bool {
        loop {
            let new = Format::leaf(change(self.leaf()));
            if new == self.entry {
                return false;
            }
            match self.slot().compare_exchange(self.entry, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.entry = new;
                    return true;
                }
                Err(now) => self.entry = now,
            }
        }
    }

    /// Changes what programs may do. A frame that is never freed does not become writable.
    pub fn set_prot(&mut self, prot: Prot, batch: &mut TlbBatch<'_>) {
        let change = |l: Leaf| {
            let prot = if l.kind == LeafKind::Static { prot - Prot::WRITE } else { prot };
            Leaf { prot, dirty: l.dirty || (!Format::HARDWARE_AD && prot.contains(Prot::WRITE)), ..l }
        };
        if self.update(change) {
            batch.page(self.va);
        }
    }

    /// Clears accessed; whether it was set. Without a flush the CPU may go on without setting it again, so a batch is needed for exact answers.
    pub fn clear_accessed(&mut self, batch: &mut TlbBatch<'_>) -> bool {
        let was = self.update(|l| Leaf { accessed: false, ..l });
        if was {
            batch.page(self.va);
        }
        was
    }

    /// Clears dirty; whether it was set. After the batch is flushed the next store sets it again.
    pub fn clear_dirty(&mut self, batch: &mut TlbBatch<'_>) -> bool {
        let was = self.update(|l| Leaf { dirty: false, ..l });
        if was {
            batch.page(self.va);
        }
        was
    }

    /// Unmaps the page; its frame goes to the batch. Says whether it was dirty.
    pub fn take(self, batch: &mut TlbBatch<'_>) -> bool {
        let old = self.slot().swap(0, Ordering::AcqRel);
        self.table.removed(1);
        self.space.count(-1);
        batch.page(self.va);
        let dirty = Format::as_leaf(old).is_some_and(|l| l.dirty);
        batch.hold(old);
        dirty
    }
}
