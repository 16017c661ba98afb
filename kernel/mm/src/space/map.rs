//! `mmap(2)`, `munmap(2)`, `mprotect(2)`, `mremap(2)`, `brk(2)`.

use alloc::{sync::Arc, vec::Vec};
use core::ops::Range;

use base::{Errno, Error, ObjectId, Result};
use hal::{
    addr::{UserAddr, user_top},
    frame::{MapFrame, StaticFrame},
    sync::SpinGuard,
};

use super::{CHUNK, Inner, LOWEST, MAPPINGS_MAX, PAGE, STACK_GAP, Space};
use crate::{
    cache::PageCache,
    object::{Attachment, MemoryObject},
    vma::{Content, Label, Prot, Vma, VmaFlags},
};

/// Where a mapping goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Where there is room, at this address if it is free (0: no wish).
    Hint(u64),
    /// Exactly there; what is there goes (`MAP_FIXED`).
    Fixed(u64),
    /// Exactly there, if it is free (`MAP_FIXED_NOREPLACE`).
    Free(u64),
}

/// What is mapped.
pub enum What {
    /// Zeros; with [`VmaFlags::SHARED`] a new shared object.
    Anonymous,
    /// An object from a byte offset (a multiple of the page size).
    Object(Arc<dyn MemoryObject>, u64),
}

/// The arguments of `mmap`.
pub struct MapRequest {
    /// Where.
    pub place: Place,
    /// Bytes; rounded up to pages.
    pub len: u64,
    /// What is allowed.
    pub prot: Prot,
    /// What may be allowed later.
    pub max: Prot,
    /// Shared, locked, and so on.
    pub flags: VmaFlags,
    /// What.
    pub what: What,
    /// What it is called.
    pub label: Label,
}

/// The arguments of `mremap`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemapRequest {
    /// Where it is.
    pub old: u64,
    /// How many bytes of it; 0 to map a shared mapping once more.
    pub old_len: u64,
    /// How many it shall have.
    pub new_len: u64,
    /// It may move (`MREMAP_MAYMOVE`).
    pub may_move: bool,
    /// It must move there (`MREMAP_FIXED`).
    pub to: Option<u64>,
    /// The old addresses stay mapped, empty (`MREMAP_DONTUNMAP`).
    pub keep_old: bool,
}

pub(super) const fn invalid(why: &'static str) -> Error {
    Error::new(Errno::EINVAL, why)
}

pub(super) const fn no_room(why: &'static str) -> Error {
    Error::new(Errno::ENOMEM, why)
}

/// The page-aligned range of `len` bytes from `start`.
///
/// # Errors
/// `EINVAL` if it is not in the user half or `start` is no page border.
pub(super) fn range(start: u64, len: u64) -> Result<Range<u64>> {
    if !start.is_multiple_of(PAGE) {
        return Err(invalid("not at a page border"));
    }
    let end = len.checked_next_multiple_of(PAGE).and_then(|len| start.checked_add(len));
    match end {
        Some(end) if end <= user_top() => Ok(start..end),
        _ => Err(invalid("beyond the address space")),
    }
}

impl Space {
    /// Maps something; the address. Pages come at first use, or with [`Space::populate`].
    ///
    /// # Errors
    /// `EINVAL` (length 0, bad address), `ENOMEM` (no room, limits, commitment), `EEXIST` ([`Place::Free`]), `EPERM` (below the
    /// lowest address, sealed), `EAGAIN` (too much locked memory).
    pub fn map(&self, request: MapRequest) -> Result<u64> {
        let MapRequest { place, len, prot, mut max, mut flags, what, label } = request;
        if len == 0 {
            return Err(invalid("nothing to map"));
        }
        let len = len.checked_next_multiple_of(PAGE).filter(|len| *len <= user_top()).ok_or(no_room("too long"))?;
        let shared = flags.contains(VmaFlags::SHARED);
        let content = match what {
            What::Anonymous if shared => {
                // Shared by what fork makes of this space, so it needs an object that outlives each of them.
                let object = PageCache::new(&self.memory, len);
                Content::Object { hold: Attachment::new(object, &self.mapper(), true)?, offset: 0 }
            }
            What::Anonymous => Content::Anonymous,
            What::Object(object, offset) => {
                if !offset.is_multiple_of(PAGE) || offset.checked_add(len).is_none_or(|end| end > i64::MAX as u64) {
                    return Err(Error::new(Errno::EOVERFLOW, "beyond the largest offset"));
                }
                let writable = shared && max.contains(Prot::WRITE);
                let hold = match Attachment::new(object.clone(), &self.mapper(), writable) {
                    // Sealed: it can still be read, and never be made writable.
                    Err(error) if error == Errno::EPERM && writable && !prot.contains(Prot::WRITE) => {
                        max -= Prot::WRITE;
                        Attachment::new(object, &self.mapper(), false)?
                    }
                    other => other?,
                };
                Content::Object { hold, offset }
            }
        };
        let mut inner = self.inner.lock();
        if inner.lock_future {
            flags |= VmaFlags::LOCKED;
        }
        let start = match place {
            Place::Hint(hint) => free_range(&mut inner, hint, len).ok_or(no_room("no free addresses"))?,
            Place::Fixed(at) | Place::Free(at) => {
                let fixed = range(at, len).map_err(|e| if at.is_multiple_of(PAGE) { no_room(e.why()) } else { e })?;
                if at < LOWEST {
                    return Err(Error::new(Errno::EPERM, "below the lowest address"));
                }
                if matches!(place, Place::Free(_)) && inner.vmas.overlapping(fixed).next().is_some() {
                    return Err(Error::new(Errno::EEXIST, "something is mapped there"));
                }
                at
            }
        };
        let replaces = matches!(place, Place::Fixed(_));
        let vma = Vma { start, end: start + len, prot, max, flags, content, label };
        let replaced = if replaces { overlap(&inner, start..start + len) } else { 0 };
        check_limits(&inner, &vma, replaced)?;
        if replaces && replaced > 0 {
            inner = self.unmap_locked(inner, start..start + len);
            // Another thread may have mapped something there while the lock was dropped; the last one wins, as between two calls.
            if inner.vmas.overlapping(start..start + len).next().is_some() {
                inner = self.unmap_locked(inner, start..start + len);
            }
        }
        if vma.is_committed() {
            self.memory.commit(len)?;
        }
        inner.vmas.insert(vma);
        inner.peak_size = inner.peak_size.max(inner.vmas.totals().size);
        Ok(start)
    }

    /// Maps frames that are never freed (the vDSO) where there is room below `below`; the address.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn map_static(&self, parts: &[(&[StaticFrame], Prot, Label)]) -> Result<u64> {
        let pages: usize = parts.iter().map(|(frames, _, _)| frames.len()).sum();
        let mut inner = self.inner.lock();
        let start = free_range(&mut inner, 0, pages as u64 * PAGE).ok_or(no_room("no free addresses"))?;
        let mut at = start;
        for (frames, prot, label) in parts {
            let from = at;
            for frame in *frames {
                self.table
                    .map(UserAddr(at), MapFrame::Static(*frame), *prot)
                    .map_err(|_| no_room("no frame for page tables"))?;
                at += PAGE;
            }
            if from < at {
                inner.vmas.insert(Vma {
                    start: from,
                    end: at,
                    prot: *prot,
                    max: *prot,
                    flags: VmaFlags::SPECIAL,
                    content: Content::Anonymous,
                    label: label.clone(),
                });
            }
        }
        Ok(start)
    }

    /// Unmaps whatever is in the range.
    ///
    /// # Errors
    /// `EINVAL`, `ENOMEM` (a split would make too many mappings).
    pub fn unmap(&self, start: u64, len: u64) -> Result<()> {
        let range = range(start, len)?;
        if range.is_empty() {
            return Err(invalid("nothing to unmap"));
        }
        let inner = self.inner.lock();
        if inner.vmas.len() >= MAPPINGS_MAX
            && inner.vmas.find(range.start).is_some_and(|vma| vma.start < range.start && range.end < vma.end)
        {
            return Err(no_room("too many mappings"));
        }
        drop(self.unmap_locked(inner, range));
        Ok(())
    }

    /// Unmaps the System V segment that is attached at `at`; its object.
    ///
    /// # Errors
    /// `EINVAL` if none is.
    pub fn detach_segment(&self, at: u64) -> Result<ObjectId> {
        let mut inner = self.inner.lock();
        let none = invalid("no segment is attached there");
        let first = inner.vmas.find(at).filter(|vma| vma.start == at && vma.flags.contains(VmaFlags::SYSV));
        let (object, len) = match first.map(|vma| &vma.content) {
            Some(Content::Object { hold, offset: 0 }) => (hold.object().id(), hold.object().size()),
            _ => return Err(none),
        };
        // Parts of it may have been unmapped or replaced since.
        let end = at.saturating_add(len).min(user_top());
        let parts: Vec<Range<u64>> = inner
            .vmas
            .overlapping(at..end)
            .filter(|vma| vma.flags.contains(VmaFlags::SYSV))
            .filter(|vma| {
                vma.object_page(vma.start).is_some_and(|(o, i)| o.id() == object && vma.start == at + i * PAGE)
            })
            .map(|vma| vma.start..vma.end)
            .collect();
        for part in parts {
            inner = self.unmap_locked(inner, part);
        }
        Ok(object)
    }

    /// Takes mappings and pages out, chunk by chunk where there is much.
    pub(super) fn unmap_locked<'a>(
        &'a self,
        mut inner: SpinGuard<'a, Inner>,
        range: Range<u64>,
    ) -> SpinGuard<'a, Inner> {
        let pages = self.table.pages();
        inner.peak_pages = inner.peak_pages.max(pages);
        let step = if pages as u64 * PAGE > CHUNK { CHUNK } else { u64::MAX };
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at.saturating_add(step) & !(PAGE - 1));
            let committed = inner.vmas.totals().committed;
            // A hold on an object may be its last; it goes after the pages are unmapped.
            let mut gone = Vec::new();
            inner.vmas.remove(at..end, |vma| gone.push(vma));
            if !gone.is_empty() {
                self.memory.uncommit(committed - inner.vmas.totals().committed);
                let mut batch = self.table.batch();
                self.table.unmap(UserAddr(at)..UserAddr(end), &mut batch);
            }
            at = end;
            if at < range.end {
                // Long stretches of nothing are skipped.
                at = inner.vmas.find_or_next(at).map_or(range.end, |vma| vma.start.max(at)).min(range.end);
                inner = self.relax(inner);
            }
        }
        inner
    }

    /// Changes what is allowed in the range.
    ///
    /// # Errors
    /// `EINVAL`, `ENOMEM` (a hole; what is below it was changed), `EACCES` (more than the object allows).
    pub fn protect(&self, start: u64, len: u64, prot: Prot) -> Result<()> {
        let range = range(start, len)?;
        if range.is_empty() {
            return Ok(());
        }
        let mut inner = self.inner.lock();
        let mut end = range.start;
        let mut result = Ok(());
        let mut commit = 0;
        for vma in inner.vmas.overlapping(range.clone()) {
            if vma.start > end {
                break;
            }
            if !vma.max.contains(prot) || vma.flags.contains(VmaFlags::SPECIAL) && prot.contains(Prot::WRITE) {
                result = Err(Error::new(Errno::EACCES, "more than the object allows"));
                break;
            }
            end = vma.end.min(range.end);
            let after = Vma { prot, ..vma.clone() };
            if after.is_committed() && !vma.is_committed() {
                commit += end - vma.start.max(range.start);
            }
        }
        if result.is_ok() && end < range.end {
            result = Err(no_room("a hole in the range"));
        }
        if end == range.start {
            return result;
        }
        if inner.vmas.len() + 2 > MAPPINGS_MAX {
            return Err(no_room("too many mappings"));
        }
        self.memory.commit(commit)?;
        let before = inner.vmas.totals().committed;
        inner.vmas.update(range.start..end, |vma| vma.prot = prot);
        // What was committed and is not any more.
        self.memory.uncommit((before + commit).saturating_sub(inner.vmas.totals().committed));
        let prot = prot.normal();
        let mut batch = self.table.batch();
        let mut cursor = self.table.cursor(UserAddr(range.start)..UserAddr(end));
        while let Some(mut page) = cursor.next() {
            // A page that is not writable now may be shared or clean: a fault decides.
            let write = page.prot() & prot & Prot::WRITE;
            page.set_prot((prot - Prot::WRITE) | write, &mut batch);
        }
        drop(cursor);
        drop(batch);
        result
    }

    /// Sets the end of the heap; the end there is now (unchanged if that cannot be).
    pub fn set_brk(&self, to: u64) -> u64 {
        let mut inner = self.inner.lock();
        let (start, old) = (inner.brk_start, inner.brk);
        if to < start || to > user_top() - PAGE {
            return old;
        }
        let (old_end, new_end) = (old.next_multiple_of(PAGE), to.next_multiple_of(PAGE));
        if new_end < old_end {
            inner.brk = to;
            drop(self.unmap_locked(inner, new_end..old_end));
            return to;
        }
        if new_end > old_end {
            // A page stays free behind the heap, and more below a stack.
            if inner.vmas.overlapping(old_end..(new_end + PAGE).min(user_top())).next().is_some()
                || !keeps_gap(&inner, new_end)
            {
                return old;
            }
            let vma = Vma {
                start: old_end,
                end: new_end,
                prot: Prot::READ | Prot::WRITE,
                max: Prot::all(),
                flags: if inner.lock_future { VmaFlags::LOCKED } else { VmaFlags::empty() },
                content: Content::Anonymous,
                label: Label::Heap,
            };
            if to - start > inner.limits.data
                || check_limits(&inner, &vma, 0).is_err()
                || self.memory.commit(new_end - old_end).is_err()
            {
                return old;
            }
            inner.vmas.insert(vma);
            inner.peak_size = inner.peak_size.max(inner.vmas.totals().size);
        }
        inner.brk = to;
        to
    }

    /// Changes the size or the place of a mapping; the address.
    ///
    /// # Errors
    /// `EINVAL`, `EFAULT` (not one mapping), `ENOMEM`, `EAGAIN`.
    pub fn remap(&self, request: RemapRequest) -> Result<u64> {
        let RemapRequest { old, old_len, new_len, may_move, to, keep_old } = request;
        let old_range = range(old, old_len)?;
        let new_len = new_len.checked_next_multiple_of(PAGE).filter(|len| *len > 0 && *len <= user_top());
        let new_len = new_len.ok_or(invalid("bad length"))?;
        let old_len = old_range.end - old_range.start;
        if (to.is_some() || keep_old) && !may_move || (keep_old && old_len != new_len) {
            return Err(invalid("flags that exclude each other"));
        }
        let mut inner = self.inner.lock();
        let vma = inner.vmas.find(old).cloned().ok_or(Error::new(Errno::EFAULT, "nothing is mapped there"))?;
        if old_len == 0 && vma.is_private() {
            return Err(invalid("only shared mappings can be doubled"));
        }
        if old_range.end > vma.end || vma.flags.contains(VmaFlags::SPECIAL) {
            return Err(Error::new(Errno::EFAULT, "not one mapping"));
        }
        if to.is_none() && !keep_old && old_len > 0 {
            if new_len <= old_len {
                if new_len < old_len {
                    drop(self.unmap_locked(inner, old + new_len..old_range.end));
                }
                return Ok(old);
            }
            // In place, if the mapping ends here and there is room behind it.
            let grown = old_range.end..old + new_len;
            if old_range.end == vma.end
                && grown.end <= user_top()
                && inner.vmas.overlapping(grown.clone()).next().is_none()
            {
                let more = Vma {
                    content: offset_content(&vma, old_range.end),
                    start: grown.start,
                    end: grown.end,
                    ..vma.clone()
                };
                check_limits(&inner, &more, 0)?;
                if more.is_committed() {
                    self.memory.commit(more.len())?;
                }
                inner.vmas.insert(more);
                return Ok(old);
            }
            if !may_move {
                return Err(no_room("no room behind it"));
            }
        }
        let target = match to {
            Some(to) => {
                let target = range(to, new_len)?;
                if target.start < old_range.end && old_range.start < target.end {
                    return Err(invalid("old and new overlap"));
                }
                if to < LOWEST {
                    return Err(Error::new(Errno::EPERM, "below the lowest address"));
                }
                inner = self.unmap_locked(inner, target);
                to
            }
            None => free_range(&mut inner, 0, new_len).ok_or(no_room("no free addresses"))?,
        };
        let moved = Vma { content: offset_content(&vma, old), start: target, end: target + new_len, ..vma.clone() };
        check_limits(&inner, &moved, if keep_old { 0 } else { old_len })?;
        if moved.is_committed() {
            self.memory.commit(new_len)?;
        }
        inner.vmas.insert(moved);
        self.move_pages(old..old + old_len.min(new_len), target)?;
        if keep_old || old_len == 0 {
            return Ok(target);
        }
        drop(self.unmap_locked(inner, old_range));
        Ok(target)
    }

    /// Moves what is mapped in `from` to `to`, where nothing is. The lock is held.
    fn move_pages(&self, from: Range<u64>, to: u64) -> Result<()> {
        let mut batch = self.table.batch();
        let mut at = from.start;
        loop {
            // One page at a time: a cursor holds the lock that `map` needs.
            let mut cursor = self.table.cursor(UserAddr(at)..UserAddr(from.end));
            let Some(page) = cursor.next() else { return Ok(()) };
            let (va, frame, prot) = (page.va().0, page.frame(), page.prot());
            page.take(&mut batch);
            drop(cursor);
            if self.table.map(UserAddr(to + (va - from.start)), frame, prot).is_err() {
                return Err(no_room("no frame for page tables"));
            }
            at = va + PAGE;
        }
    }

    /// Where the heap ends.
    pub fn brk(&self) -> u64 {
        self.inner.lock().brk
    }
}

fn offset_content(vma: &Vma, at: u64) -> Content {
    match &vma.content {
        Content::Anonymous => Content::Anonymous,
        Content::Object { hold, offset } => Content::Object { hold: hold.clone(), offset: offset + (at - vma.start) },
    }
}

fn overlap(inner: &Inner, range: Range<u64>) -> u64 {
    inner.vmas.overlapping(range.clone()).map(|vma| vma.end.min(range.end) - vma.start.max(range.start)).sum()
}

/// Free addresses, the hint if it is free. A stack that grows keeps its gap.
fn free_range(inner: &mut Inner, hint: u64, len: u64) -> Option<u64> {
    let hint = hint & !(PAGE - 1);
    if hint >= LOWEST
        && let Some(end) = hint.checked_add(len)
        && end <= user_top()
        && inner.vmas.overlapping(hint..end).next().is_none()
        && keeps_gap(inner, end)
    {
        return Some(hint);
    }
    let below = LOWEST..inner.mmap_top;
    // If the area below is full, above it, as Linux does.
    let above = inner.mmap_top..user_top();
    inner
        .vmas
        .find_free_down(len, PAGE, STACK_GAP, below)
        .or_else(|| inner.vmas.find_free_up(len, PAGE, STACK_GAP, above))
}

fn keeps_gap(inner: &Inner, end: u64) -> bool {
    !inner
        .vmas
        .find_or_next(end)
        .is_some_and(|next| next.flags.contains(VmaFlags::GROWS_DOWN) && end + STACK_GAP > next.start)
}

/// Whether the limits allow one more mapping where `replaced` bytes go.
fn check_limits(inner: &Inner, vma: &Vma, replaced: u64) -> Result<()> {
    let (totals, limits) = (inner.vmas.totals(), &inner.limits);
    let len = vma.len();
    if inner.vmas.len() >= MAPPINGS_MAX {
        return Err(no_room("too many mappings"));
    }
    if (totals.size - replaced).saturating_add(len) > limits.address_space {
        return Err(no_room("RLIMIT_AS"));
    }
    let is_data = vma.is_private() && vma.prot.contains(Prot::WRITE) && !vma.flags.contains(VmaFlags::GROWS_DOWN);
    if is_data && totals.data.saturating_add(len) > limits.data {
        return Err(no_room("RLIMIT_DATA"));
    }
    if vma.flags.contains(VmaFlags::LOCKED) && totals.locked.saturating_add(len) > limits.locked {
        return Err(Error::new(Errno::EAGAIN, "RLIMIT_MEMLOCK"));
    }
    Ok(())
}
