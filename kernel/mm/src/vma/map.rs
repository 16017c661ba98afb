//! The ordered set of mappings, with split and merge.

use alloc::{collections::BTreeMap, vec::Vec};
use core::ops::Range;

use super::{Prot, Vma, VmaFlags};

/// Sums over all mappings, kept up to date; bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// All of it (`VmSize`, RLIMIT_AS).
    pub size: u64,
    /// Private writable memory that is not the stack (RLIMIT_DATA).
    pub data: u64,
    /// Memory that may need frames of its own (the overcommit account).
    pub committed: u64,
    /// Locked memory (`VmLck`, RLIMIT_MEMLOCK).
    pub locked: u64,
    /// Stack memory (`VmStk`).
    pub stack: u64,
    /// Executable memory (`VmExe` and `VmLib` together).
    pub exec: u64,
}

impl Totals {
    fn of(vma: &Vma) -> Self {
        let len = vma.len();
        let when = |condition| if condition { len } else { 0 };
        let stack = vma.flags.contains(VmaFlags::GROWS_DOWN);
        Self {
            size: len,
            data: when(vma.is_private() && vma.prot.contains(Prot::WRITE) && !stack),
            committed: when(vma.is_committed()),
            locked: when(vma.flags.contains(VmaFlags::LOCKED)),
            stack: when(stack),
            exec: when(vma.prot.contains(Prot::EXEC)),
        }
    }

    fn add(&mut self, vma: &Vma) {
        let of = Self::of(vma);
        self.size += of.size;
        self.data += of.data;
        self.committed += of.committed;
        self.locked += of.locked;
        self.stack += of.stack;
        self.exec += of.exec;
    }

    fn sub(&mut self, vma: &Vma) {
        let of = Self::of(vma);
        self.size -= of.size;
        self.data -= of.data;
        self.committed -= of.committed;
        self.locked -= of.locked;
        self.stack -= of.stack;
        self.exec -= of.exec;
    }
}

/// What is known about addresses that are taken: in `above..within.end` no hole is larger than `largest`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Full {
    within: Range<u64>,
    above: u64,
    largest: u64,
}

/// All mappings of a space by start address.
///
/// # Invariants
/// No two overlap; no two neighbours could be one; `totals` is the sum over all.
#[derive(Clone, Debug, Default)]
pub struct VmaMap {
    map: BTreeMap<u64, Vma>,
    totals: Totals,
    version: u64,
    full: Option<Full>,
}

impl VmaMap {
    /// No mappings.
    pub const fn new() -> Self {
        Self {
            map: BTreeMap::new(),
            totals: Totals { size: 0, data: 0, committed: 0, locked: 0, stack: 0, exec: 0 },
            version: 0,
            full: None,
        }
    }

    /// Counts the changes: whoever looked earlier can tell whether it still holds.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The sums.
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The mapping that holds `addr`.
    pub fn find(&self, addr: u64) -> Option<&Vma> {
        self.map.range(..=addr).next_back().map(|(_, vma)| vma).filter(|vma| addr < vma.end)
    }

    /// The mapping that holds `addr`, or else the first one above it.
    pub fn find_or_next(&self, addr: u64) -> Option<&Vma> {
        self.find(addr).or_else(|| self.map.range(addr..).next().map(|(_, vma)| vma))
    }

    /// The last mapping that ends at or below `addr`.
    pub fn before(&self, addr: u64) -> Option<&Vma> {
        self.map.range(..addr).next_back().map(|(_, vma)| vma)
    }

    /// All, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Vma> {
        self.map.values()
    }

    /// Those that touch `range`, in order.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = &Vma> {
        let first = self.find(range.start).map_or(range.start, |vma| vma.start);
        self.map.range(first..range.end.max(first)).map(|(_, vma)| vma)
    }

    /// Whether every page of `range` is mapped.
    pub fn covers(&self, range: Range<u64>) -> bool {
        let mut at = range.start;
        for vma in self.overlapping(range.clone()) {
            if vma.start > at {
                return false;
            }
            at = vma.end;
        }
        at >= range.end
    }

    /// Adds a mapping to a free range, and makes it one with its neighbours where they continue each other.
    pub fn insert(&mut self, mut vma: Vma) {
        debug_assert!(self.overlapping(vma.start..vma.end).next().is_none());
        self.version += 1;
        self.totals.add(&vma);
        if let Some((&start, before)) = self.map.range(..vma.start).next_back()
            && before.continues(&vma)
        {
            if !self.map.range(vma.start..).next().is_some_and(|(_, next)| vma.continues(next)) {
                if let Some(before) = self.map.get_mut(&start) {
                    before.end = vma.end;
                }
                return;
            }
            if let Some(mut before) = self.map.remove(&start) {
                before.end = vma.end;
                vma = before;
            }
        }
        if let Some((&start, next)) = self.map.range(vma.start..).next()
            && vma.continues(next)
            && let Some(next) = self.map.remove(&start)
        {
            vma.end = next.end;
        }
        self.map.insert(vma.start, vma);
    }

    /// Makes `at` a border between mappings, if it lies inside one.
    fn split(&mut self, at: u64) {
        let Some((_, vma)) = self.map.range_mut(..at).next_back() else { return };
        if at >= vma.end {
            return;
        }
        let mut upper = vma.clone();
        upper.content = vma.content_at(at);
        upper.start = at;
        vma.end = at;
        self.map.insert(at, upper);
    }

    /// Takes `range` out and hands each piece to `each`, in order.
    pub fn remove(&mut self, range: Range<u64>, mut each: impl FnMut(Vma)) {
        if range.is_empty() {
            return;
        }
        if self.full.as_ref().is_some_and(|full| range.end >= full.above) {
            self.full = None;
        }
        // Most calls name one mapping, all of it or its front.
        if self.map.get(&range.start).is_some_and(|vma| vma.end >= range.end)
            && let Some(mut vma) = self.map.remove(&range.start)
        {
            self.version += 1;
            if vma.end > range.end {
                let mut rest = vma.clone();
                rest.content = vma.content_at(range.end);
                rest.start = range.end;
                self.map.insert(rest.start, rest);
                vma.end = range.end;
            }
            self.totals.sub(&vma);
            each(vma);
            return;
        }
        if self.overlapping(range.clone()).next().is_none() {
            return;
        }
        self.version += 1;
        self.split(range.start);
        self.split(range.end);
        while let Some((&start, _)) = self.map.range(range.clone()).next() {
            let Some(vma) = self.map.remove(&start) else { break };
            self.totals.sub(&vma);
            each(vma);
        }
    }

    /// Changes what lies in `range` and merges again. `change` must not touch `start` and `end`.
    pub fn update(&mut self, range: Range<u64>, mut change: impl FnMut(&mut Vma)) {
        let mut pieces = Vec::new();
        self.remove(range, |vma| pieces.push(vma));
        for mut vma in pieces {
            change(&mut vma);
            self.insert(vma);
        }
    }

    /// Moves the start of the mapping that begins at `start` down to `new_start` (a stack grows). The room below is free.
    pub fn grow_down(&mut self, start: u64, new_start: u64) {
        let Some(mut vma) = self.map.remove(&start) else { return };
        self.version += 1;
        self.totals.sub(&vma);
        vma.start = new_start;
        self.totals.add(&vma);
        self.map.insert(new_start, vma);
    }

    /// The highest free range of `len` bytes inside `within`, whose start is a multiple of `align`; its start. What grows down keeps `gap` bytes.
    pub fn find_free_down(&mut self, len: u64, align: u64, gap: u64, within: Range<u64>) -> Option<u64> {
        let fits = |low: u64, high: u64| {
            let start = high.checked_sub(len)? & !(align - 1);
            (start >= low.max(within.start)).then_some(start)
        };
        // What was looked at in vain last time need not be looked at again.
        let known = self.full.as_ref().filter(|full| full.within == within && full.largest < len);
        let mut high = known.map_or(within.end, |full| full.above);
        let mut largest = known.map_or(0, |full| full.largest);
        let mut found = None;
        for vma in self.map.range(..high).rev().map(|(_, vma)| vma) {
            found = fits(vma.end, high);
            if found.is_some() || vma.start <= within.start {
                break;
            }
            largest = largest.max(high.saturating_sub(vma.end));
            high = vma.floor(gap).min(high);
        }
        if found.is_none() && self.map.range(..high).next().is_none() {
            found = fits(within.start, high);
        }
        self.full = found.map(|_| Full { within, above: high, largest });
        found
    }

    /// The lowest free range of `len` bytes inside `within`; its start. What grows down keeps `gap` bytes.
    pub fn find_free_up(&self, len: u64, align: u64, gap: u64, within: Range<u64>) -> Option<u64> {
        let fits = |low: u64, high: u64| {
            let start = low.max(within.start).checked_add(align - 1)? & !(align - 1);
            (start.checked_add(len)? <= high.min(within.end)).then_some(start)
        };
        let mut low = within.start;
        for vma in self.overlapping(within.clone()) {
            if let Some(start) = fits(low, vma.floor(gap)) {
                return Some(start);
            }
            low = vma.end;
        }
        fits(low, within.end)
    }
}
