//! `madvise(2)`, `mlock(2)`, `mincore(2)`, `msync(2)`.

use alloc::{sync::Arc, vec::Vec};
use core::ops::Range;

use base::{Errno, Error, Result};
use hal::{addr::UserAddr, usermode::Access};

use super::{
    CHUNK, Fault, PAGE, Space,
    map::{invalid, no_room, range},
};
use crate::{
    object::MemoryObject,
    vma::{Content, Prot, Vma, VmaFlags},
};

/// What `madvise` can be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// Drop the pages: zeros or the object's pages come back (`MADV_DONTNEED`).
    DontNeed,
    /// The same, when memory is needed (`MADV_FREE`); here at once. Private anonymous memory only.
    Free,
    /// Bring it in (`MADV_WILLNEED`).
    WillNeed,
    /// Bring it in for reading, and say if that fails (`MADV_POPULATE_READ`).
    PopulateRead,
    /// Bring it in for writing, and say if that fails (`MADV_POPULATE_WRITE`).
    PopulateWrite,
    /// Set and clear flags of the mappings.
    Flags {
        /// To set.
        set: VmaFlags,
        /// To clear.
        clear: VmaFlags,
    },
    /// Nothing to do, but the range must be mapped (`MADV_COLD`, `MADV_PAGEOUT`: there is nowhere to page out to).
    Nothing,
}

/// An object, and which bytes of it.
pub type ObjectPart = (Arc<dyn MemoryObject>, Range<u64>);

impl Space {
    /// Acts on advice about a range.
    ///
    /// # Errors
    /// `EINVAL` (not this kind of mapping), `ENOMEM` (a hole; the rest was done), `EFAULT` (populating failed), `EACCES`.
    pub fn advise(&self, start: u64, len: u64, advice: Advice) -> Result<()> {
        let range = range(start, len)?;
        if range.is_empty() {
            return Ok(());
        }
        let whole = self.inner.lock().vmas.covers(range.clone());
        let hole = if whole { Ok(()) } else { Err(no_room("a hole in the range")) };
        match advice {
            Advice::DontNeed | Advice::Free => {
                self.drop_pages(range, advice == Advice::Free)?;
            }
            Advice::WillNeed => {
                // It is only a hint: what cannot be had now is had at its fault.
                let _ = self.populate(range, Access::Read);
            }
            Advice::PopulateRead => {
                hole?;
                self.populate(range, Access::Read)?;
            }
            Advice::PopulateWrite => {
                hole?;
                self.populate(range, Access::Write)?;
            }
            Advice::Flags { set, clear } => self.change_flags(range, set, clear)?,
            Advice::Nothing => {}
        }
        hole
    }

    fn drop_pages(&self, range: Range<u64>, only_anonymous: bool) -> Result<()> {
        let mut inner = self.inner.lock();
        let refuses = |vma: &Vma| {
            vma.flags.intersects(VmaFlags::LOCKED | VmaFlags::SPECIAL)
                || (only_anonymous && !(vma.is_private() && matches!(vma.content, Content::Anonymous)))
        };
        if inner.vmas.overlapping(range.clone()).any(refuses) {
            return Err(invalid("locked, or not private anonymous memory"));
        }
        let step = if self.table.pages() as u64 * PAGE > CHUNK { CHUNK } else { u64::MAX };
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at.saturating_add(step) & !(PAGE - 1));
            let mut batch = self.table.batch();
            self.table.unmap(UserAddr(at)..UserAddr(end), &mut batch);
            drop(batch);
            at = end;
            if at < range.end {
                inner = self.relax(inner);
            }
        }
        Ok(())
    }

    fn change_flags(&self, range: Range<u64>, set: VmaFlags, clear: VmaFlags) -> Result<()> {
        let mut inner = self.inner.lock();
        let anonymous = |vma: &Vma| vma.is_private() && matches!(vma.content, Content::Anonymous);
        if set.contains(VmaFlags::WIPE_ON_FORK) && !inner.vmas.overlapping(range.clone()).all(anonymous) {
            return Err(invalid("only private anonymous memory can be wiped on fork"));
        }
        inner.vmas.update(range, |vma| {
            if !vma.flags.contains(VmaFlags::SPECIAL) {
                vma.flags = (vma.flags - clear) | set;
            }
        });
        Ok(())
    }

    /// The objects behind a range, and which bytes of them are to become holes (`MADV_REMOVE`): see [`MemoryObject::punch`].
    ///
    /// # Errors
    /// `EINVAL` (no object), `EACCES` (not a shared writable mapping), `ENOMEM` (a hole in the range).
    pub fn removals(&self, start: u64, len: u64) -> Result<Vec<ObjectPart>> {
        let range = range(start, len)?;
        let inner = self.inner.lock();
        let mut parts: Vec<ObjectPart> = Vec::new();
        for vma in inner.vmas.overlapping(range.clone()) {
            let Content::Object { hold, offset } = &vma.content else {
                return Err(invalid("no object to remove from"));
            };
            if vma.is_private() || !vma.max.contains(Prot::WRITE) {
                return Err(Error::new(Errno::EACCES, "not a shared writable mapping"));
            }
            let (from, to) = (vma.start.max(range.start), vma.end.min(range.end));
            parts.push((hold.object().clone(), offset + (from - vma.start)..offset + (to - vma.start)));
        }
        if inner.vmas.covers(range) { Ok(parts) } else { Err(no_room("a hole in the range")) }
    }

    /// Brings in what can be had at once, for reading or writing. Pages that must come from elsewhere are left to their own faults.
    ///
    /// # Errors
    /// `ENOMEM` without frames, `EFAULT` where the access is not possible.
    pub fn populate(&self, range: Range<u64>, access: Access) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            // Sixty-four pages, then interrupts get in.
            for _ in 0..64 {
                if at >= range.end {
                    break;
                }
                match self.fault(UserAddr(at), access)? {
                    Fault::Resolved | Fault::Wait(_) => {}
                    Fault::NoMemory => return Err(no_room("no free frames")),
                }
                at += PAGE;
            }
            if hal::sync::held() == 0 {
                hal::cpu::breathe();
            }
        }
        Ok(())
    }

    /// Brings in what a new mapping promises (`MAP_POPULATE`, `MAP_LOCKED`, `mlock`): for writing where it is private and writable. Errors do not matter.
    pub fn populate_mapped(&self, range: Range<u64>) {
        let mut at = range.start;
        while at < range.end {
            let Some((end, prot, private)) = self
                .inner
                .lock()
                .vmas
                .find_or_next(at)
                .filter(|vma| vma.start < range.end)
                .map(|vma| (vma.end.min(range.end), vma.prot, vma.is_private()))
            else {
                return;
            };
            let access = if private && prot.contains(Prot::WRITE) { Access::Write } else { Access::Read };
            if !prot.is_empty() && self.populate(at..end, access).is_err() {
                return;
            }
            at = end;
        }
    }

    /// Locks (or unlocks) the pages of a range in memory. Nothing is ever paged out here, so to lock is to bring in and to count.
    ///
    /// # Errors
    /// `ENOMEM` (a hole, or more than RLIMIT_MEMLOCK), `EPERM` (RLIMIT_MEMLOCK is 0), `EINVAL`.
    pub fn lock_pages(&self, start: u64, len: u64, lock: bool, on_fault: bool) -> Result<()> {
        let first = start & !(PAGE - 1);
        let range = range(first, len.saturating_add(start - first)).map_err(|_| no_room("beyond the address space"))?;
        if range.is_empty() {
            return Ok(());
        }
        let mut inner = self.inner.lock();
        if lock {
            let new: u64 = inner
                .vmas
                .overlapping(range.clone())
                .filter(|vma| !vma.flags.contains(VmaFlags::LOCKED))
                .map(|vma| vma.end.min(range.end) - vma.start.max(range.start))
                .sum();
            if inner.limits.locked == 0 {
                return Err(Error::new(Errno::EPERM, "RLIMIT_MEMLOCK is 0"));
            }
            if inner.vmas.totals().locked + new > inner.limits.locked {
                return Err(no_room("RLIMIT_MEMLOCK"));
            }
        }
        let whole = inner.vmas.covers(range.clone());
        inner.vmas.update(range.clone(), |vma| vma.flags.set(VmaFlags::LOCKED, lock));
        drop(inner);
        if !whole {
            return Err(no_room("a hole in the range"));
        }
        if lock && !on_fault {
            self.populate_mapped(range);
        }
        Ok(())
    }

    /// `mlockall` and `munlockall`: everything there is, everything to come.
    ///
    /// # Errors
    /// `ENOMEM`, `EPERM` by RLIMIT_MEMLOCK.
    pub fn lock_all(&self, current: bool, future: bool, on_fault: bool) -> Result<()> {
        let mut inner = self.inner.lock();
        if current || future {
            if inner.limits.locked == 0 {
                return Err(Error::new(Errno::EPERM, "RLIMIT_MEMLOCK is 0"));
            }
            if current && inner.vmas.totals().size > inner.limits.locked {
                return Err(no_room("RLIMIT_MEMLOCK"));
            }
        }
        inner.lock_future = future;
        let lock = current || future;
        if current || !lock {
            inner.vmas.update(0..hal::addr::user_top(), |vma| {
                if !vma.flags.contains(VmaFlags::SPECIAL) {
                    vma.flags.set(VmaFlags::LOCKED, lock);
                }
            });
        }
        drop(inner);
        if current && !on_fault {
            self.populate_mapped(0..hal::addr::user_top());
        }
        Ok(())
    }

    /// For each page of the range, whether an access would not have to wait for anything (`mincore`).
    ///
    /// # Errors
    /// `EINVAL`, `ENOMEM` (a hole).
    pub fn resident(&self, start: u64, len: u64, mut each: impl FnMut(bool)) -> Result<()> {
        let range = range(start, len)?;
        let inner = self.inner.lock();
        if !inner.vmas.covers(range.clone()) {
            return Err(no_room("a hole in the range"));
        }
        let mut at = range.start;
        while at < range.end {
            let mut there = self.table.query(UserAddr(at)).is_some();
            if !there && let Some((object, index)) = inner.vmas.find(at).and_then(|vma| vma.object_page(at)) {
                object.resident(index..index + 1, &mut |_, _| {
                    there = true;
                    false
                });
            }
            each(there);
            at += PAGE;
        }
        Ok(())
    }

    /// The objects behind the shared mappings of a range, and which bytes of them: for `msync`.
    ///
    /// # Errors
    /// `EINVAL`, `ENOMEM` (a hole), `EBUSY` (`invalidate` and something is locked).
    pub fn shared_objects(&self, start: u64, len: u64, invalidate: bool) -> Result<Vec<ObjectPart>> {
        let range = range(start, len).map_err(|e| if start.is_multiple_of(PAGE) { no_room(e.why()) } else { e })?;
        let inner = self.inner.lock();
        let mut parts = Vec::new();
        for vma in inner.vmas.overlapping(range.clone()) {
            if invalidate && vma.flags.contains(VmaFlags::LOCKED) {
                return Err(Error::new(Errno::EBUSY, "locked memory"));
            }
            if let Content::Object { hold, offset } = &vma.content
                && !vma.is_private()
            {
                let (from, to) = (vma.start.max(range.start), vma.end.min(range.end));
                parts.push((hold.object().clone(), offset + (from - vma.start)..offset + (to - vma.start)));
            }
        }
        if !inner.vmas.covers(range) {
            return Err(no_room("a hole in the range"));
        }
        Ok(parts)
    }
}
