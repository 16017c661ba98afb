//! `madvise(2)`, `msync(2)`, `mincore(2)`, `mlock(2)` and its family.

use alloc::vec::Vec;

use base::{Errno, Error, Result};
use mm::{Advice, VmaFlags, user::user_range};
use task::{Cx, wait::Interrupted};

use super::{PAGE, invalid, whole_pages};

/// `MADV_REMOVE`: a matter of the object behind the range.
const REMOVE: u64 = 9;

/// What an advice number asks for.
fn advice(number: u64) -> Option<Advice> {
    let flags = |set: VmaFlags, clear: VmaFlags| Some(Advice::Flags { set, clear });
    let none = VmaFlags::empty();
    match number {
        0 => flags(none, VmaFlags::RANDOM | VmaFlags::SEQUENTIAL),
        1 => flags(VmaFlags::RANDOM, VmaFlags::SEQUENTIAL),
        2 => flags(VmaFlags::SEQUENTIAL, VmaFlags::RANDOM),
        3 => Some(Advice::WillNeed),
        4 => Some(Advice::DontNeed),
        8 => Some(Advice::Free),
        10 => flags(VmaFlags::DONT_FORK, none),
        11 => flags(none, VmaFlags::DONT_FORK),
        16 => flags(VmaFlags::DONT_DUMP, none),
        17 => flags(none, VmaFlags::DONT_DUMP),
        18 => flags(VmaFlags::WIPE_ON_FORK, none),
        19 => flags(none, VmaFlags::WIPE_ON_FORK),
        20 | 21 => Some(Advice::Nothing),
        22 => Some(Advice::PopulateRead),
        23 => Some(Advice::PopulateWrite),
        // Huge and merged pages: EINVAL, as on a Linux built without them.
        _ => None,
    }
}

/// `madvise(addr, length, advice)`.
///
/// # Errors
/// See madvise(2).
pub fn madvise(cx: &Cx, [addr, len, number, ..]: [u64; 6]) -> Result<u64> {
    let advice = if number == REMOVE { None } else { Some(advice(number).ok_or(invalid("unknown advice"))?) };
    if !addr.is_multiple_of(PAGE) || whole_pages(len).and_then(|len| addr.checked_add(len)).is_none() {
        return Err(invalid("not a range of pages"));
    }
    if let Some(advice) = advice {
        return cx.space().advise(addr, len, advice).map(|()| 0);
    }
    for (object, bytes) in cx.space().removals(addr, len)? {
        cx.settle(object.punch(bytes), Interrupted::Killed)?;
    }
    Ok(0)
}

/// `msync(addr, length, flags)`.
///
/// # Errors
/// See msync(2).
pub fn msync(cx: &Cx, [addr, len, flags, ..]: [u64; 6]) -> Result<u64> {
    const ASYNC: u64 = 1;
    const INVALIDATE: u64 = 2;
    const SYNC: u64 = 4;
    let exclusive = ASYNC | SYNC;
    if flags & !(ASYNC | INVALIDATE | SYNC) != 0 || flags & exclusive == exclusive || !addr.is_multiple_of(PAGE) {
        return Err(invalid("flags that exclude each other, or not at a page border"));
    }
    for (object, bytes) in cx.space().shared_objects(addr, len, flags & INVALIDATE != 0)? {
        if flags & SYNC != 0 {
            cx.settle(object.write_back(bytes.start / PAGE..bytes.end.div_ceil(PAGE)), Interrupted::Restart)?;
        }
    }
    Ok(0)
}

/// `mincore(addr, length, vec)`.
///
/// # Errors
/// See mincore(2).
pub fn mincore(cx: &Cx, [addr, len, vec, ..]: [u64; 6]) -> Result<u64> {
    /// Pages of one step: what is looked up with the lock held.
    const STEP: u64 = 64;
    if !addr.is_multiple_of(PAGE) {
        return Err(invalid("not at a page border"));
    }
    let len =
        whole_pages(len).filter(|len| user_range(addr, *len)).ok_or(Error::new(Errno::ENOMEM, "no such range"))?;
    if !user_range(vec, len / PAGE) {
        return Err(Error::new(Errno::EFAULT, "bad address"));
    }
    let space = cx.space();
    let mut done = 0;
    while done < len / PAGE {
        let pages = STEP.min(len / PAGE - done);
        let mut bytes = Vec::with_capacity(pages as usize);
        space.resident(addr + done * PAGE, pages * PAGE, |there| bytes.push(u8::from(there)))?;
        cx.user(|user| user.write(vec + done, &bytes))?;
        done += pages;
    }
    Ok(0)
}

/// `mlock(addr, length)`.
///
/// # Errors
/// See mlock(2).
pub fn mlock(cx: &Cx, [addr, len, ..]: [u64; 6]) -> Result<u64> {
    cx.space().lock_pages(addr, len, true, false).map(|()| 0)
}

/// `mlock2(addr, length, flags)`.
///
/// # Errors
/// See mlock2(2).
pub fn mlock2(cx: &Cx, [addr, len, flags, ..]: [u64; 6]) -> Result<u64> {
    const ON_FAULT: u64 = 1;
    if flags & !ON_FAULT != 0 {
        return Err(invalid("unknown flags"));
    }
    cx.space().lock_pages(addr, len, true, flags & ON_FAULT != 0).map(|()| 0)
}

/// `munlock(addr, length)`.
///
/// # Errors
/// See munlock(2).
pub fn munlock(cx: &Cx, [addr, len, ..]: [u64; 6]) -> Result<u64> {
    cx.space().lock_pages(addr, len, false, false).map(|()| 0)
}

/// `mlockall(flags)`.
///
/// # Errors
/// See mlockall(2).
pub fn mlockall(cx: &Cx, [flags, ..]: [u64; 6]) -> Result<u64> {
    const CURRENT: u64 = 1;
    const FUTURE: u64 = 2;
    const ON_FAULT: u64 = 4;
    if flags & !(CURRENT | FUTURE | ON_FAULT) != 0 || flags & (CURRENT | FUTURE) == 0 {
        return Err(invalid("unknown flags"));
    }
    cx.space().lock_all(flags & CURRENT != 0, flags & FUTURE != 0, flags & ON_FAULT != 0).map(|()| 0)
}

/// `munlockall()`.
///
/// # Errors
/// None.
pub fn munlockall(cx: &Cx, _: [u64; 6]) -> Result<u64> {
    cx.space().lock_all(false, false, false).map(|()| 0)
}
