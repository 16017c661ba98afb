//! Copies between the kernel and the active user address space.
//!
//! User memory is touched with the loads and stores that act as the program's own (`ldtr`, `sttr`), so PAN stays set. They are listed in `.extable`
//! with the place where a fault goes on. Words first; a word that cannot be had is tried byte by byte, so that the count is exact. There is no such
//! load for atomic words: those clear PAN for as long as they take.

use core::arch::asm;
use core::sync::atomic::Ordering;

use crate::cpu::PAN;

/// Lets ordinary loads and stores touch user memory.
#[inline]
fn open_user() {
    if PAN.load(Ordering::Relaxed) {
        // SAFETY: `msr pan, #0`; the CPU has PAN.
        unsafe { asm!(".inst 0xd500409f", options(nostack)) };
    }
}

/// The opposite.
#[inline]
fn close_user() {
    if PAN.load(Ordering::Relaxed) {
        // SAFETY: `msr pan, #1`.
        unsafe { asm!(".inst 0xd500419f", options(nostack)) };
    }
}

/// Copies from user memory; the number of bytes copied.
///
/// # Safety
/// `to` is writable for `len` bytes; `at..at + len` is in the user half.
pub unsafe fn read(to: *mut u8, at: u64, len: usize) -> usize {
    let left: usize;
    // SAFETY: see above; a fault goes on where bytes are tried, or at the end.
    unsafe {
        asm!(
            "2: cmp {left}, #32",
            "b.lo 5f",
            "3: ldtr {a}, [{at}]",
            "4: ldtr {b}, [{at}, #8]",
            "23: ldtr {c}, [{at}, #16]",
            "24: ldtr {d}, [{at}, #24]",
            "stp {a}, {b}, [{to}]",
            "stp {c}, {d}, [{to}, #16]",
            "add {at}, {at}, #32",
            "add {to}, {to}, #32",
            "sub {left}, {left}, #32",
            "b 2b",
            "5: cmp {left}, #8",
            "b.lo 7f",
            "6: ldtr {a}, [{at}]",
            "str {a}, [{to}], #8",
            "add {at}, {at}, #8",
            "sub {left}, {left}, #8",
            "b 5b",
            "7: cbz {left}, 9f",
            "8: ldtrb {a:w}, [{at}]",
            "strb {a:w}, [{to}], #1",
            "add {at}, {at}, #1",
            "sub {left}, {left}, #1",
            "b 7b",
            "9:",
            ".pushsection .extable, \"a\"",
            ".quad 3b, 5b",
            ".quad 4b, 5b",
            ".quad 23b, 5b",
            ".quad 24b, 5b",
            ".quad 6b, 7b",
            ".quad 8b, 9b",
            ".popsection",
            left = inout(reg) len => left,
            at = inout(reg) at => _,
            to = inout(reg) to => _,
            a = out(reg) _,
            b = out(reg) _,
            c = out(reg) _,
            d = out(reg) _,
            options(nostack),
        );
    }
    len - left
}

/// Copies to user memory; the number of bytes copied.
///
/// # Safety
/// `from` is readable for `len` bytes; `at..at + len` is in the user half.
pub unsafe fn write(at: u64, from: *const u8, len: usize) -> usize {
    let left: usize;
    // SAFETY: as `read`. Stores that went through before one that faults are done again byte by byte.
    unsafe {
        asm!(
            "2: cmp {left}, #32",
            "b.lo 5f",
            "ldp {a}, {b}, [{from}]",
            "ldp {c}, {d}, [{from}, #16]",
            "3: sttr {a}, [{at}]",
            "4: sttr {b}, [{at}, #8]",
            "23: sttr {c}, [{at}, #16]",
            "24: sttr {d}, [{at}, #24]",
            "add {at}, {at}, #32",
            "add {from}, {from}, #32",
            "sub {left}, {left}, #32",
            "b 2b",
            "5: cmp {left}, #8",
            "b.lo 7f",
            "ldr {a}, [{from}]",
            "6: sttr {a}, [{at}]",
            "add {from}, {from}, #8",
            "add {at}, {at}, #8",
            "sub {left}, {left}, #8",
            "b 5b",
            "7: cbz {left}, 9f",
            "ldrb {a:w}, [{from}]",
            "8: sttrb {a:w}, [{at}]",
            "add {from}, {from}, #1",
            "add {at}, {at}, #1",
            "sub {left}, {left}, #1",
            "b 7b",
            "9:",
            ".pushsection .extable, \"a\"",
            ".quad 3b, 5b",
            ".quad 4b, 5b",
            ".quad 23b, 5b",
            ".quad 24b, 5b",
            ".quad 6b, 7b",
            ".quad 8b, 9b",
            ".popsection",
            left = inout(reg) len => left,
            at = inout(reg) at => _,
            from = inout(reg) from => _,
            a = out(reg) _,
            b = out(reg) _,
            c = out(reg) _,
            d = out(reg) _,
            options(nostack),
        );
    }
    len - left
}

/// Fills user memory with zeros; the number of bytes filled. `at..at + len` is in the user half.
pub fn zero(at: u64, len: usize) -> usize {
    let left: usize;
    // SAFETY: as `write`.
    unsafe {
        asm!(
            "5: cmp {left}, #8",
            "b.lo 7f",
            "6: sttr xzr, [{at}]",
            "add {at}, {at}, #8",
            "sub {left}, {left}, #8",
            "b 5b",
            "7: cbz {left}, 9f",
            "8: sttrb wzr, [{at}]",
            "add {at}, {at}, #1",
            "sub {left}, {left}, #1",
            "b 7b",
            "9:",
            ".pushsection .extable, \"a\"",
            ".quad 6b, 7b",
            ".quad 8b, 9b",
            ".popsection",
            left = inout(reg) len => left,
            at = inout(reg) at => _,
            options(nostack),
        );
    }
    len - left
}

/// Loads an aligned word. `None` if it is not readable.
pub fn load_u32(at: u64) -> Option<u32> {
    let (value, bad): (u32, u32);
    // SAFETY: a fault goes on at 3, where `bad` is still 1.
    unsafe {
        asm!(
            "mov {bad:w}, #1",
            "2: ldtr {value:w}, [{at}]",
            "mov {bad:w}, wzr",
            "3:",
            ".pushsection .extable, \"a\"",
            ".quad 2b, 3b",
            ".popsection",
            at = in(reg) at,
            value = out(reg) value,
            bad = out(reg) bad,
            options(nostack),
        );
    }
    (bad == 0).then_some(value)
}

/// Atomic compare-exchange of an aligned word: the value found. `None` if it is not writable.
pub fn cas_u32(at: u64, expected: u32, new: u32) -> Option<u32> {
    let (found, bad): (u32, u32);
    open_user();
    // SAFETY: as `load_u32`.
    unsafe {
        asm!(
            "mov {bad:w}, #1",
            "2: ldaxr {found:w}, [{at}]",
            "cmp {found:w}, {expected:w}",
            "csel {put:w}, {new:w}, {found:w}, eq", // a word that is not to change must be writable too
            "3: stlxr {again:w}, {put:w}, [{at}]",
            "cbnz {again:w}, 2b",
            "mov {bad:w}, wzr",
            "dmb ish",
            "5:",
            ".pushsection .extable, \"a\"",
            ".quad 2b, 5b",
            ".quad 3b, 5b",
            ".popsection",
            at = in(reg) at,
            expected = in(reg) expected,
            new = in(reg) new,
            found = out(reg) found,
            put = out(reg) _,
            again = out(reg) _,
            bad = out(reg) bad,
            options(nostack),
        );
    }
    close_user();
    (bad == 0).then_some(found)
}

/// Copies a string up to its NUL: see `Platform::user_read_str`.
///
/// # Safety
/// `to` is writable for `len` bytes; `at..at + len` is in the user half.
pub unsafe fn read_str(to: *mut u8, at: u64, len: usize) -> Result<Option<usize>, usize> {
    if len == 0 {
        return Ok(None);
    }
    let (mut n, end): (usize, u32);
    // SAFETY: reads bytes one by one from user memory, where a fault goes on at 5; writes at most `len` to `to`.
    unsafe {
        asm!(
            "mov {n}, xzr",
            "2: ldtrb {b:w}, [{at}]",
            "strb {b:w}, [{to}, {n}]",
            "cbz {b:w}, 3f",
            "add {at}, {at}, #1",
            "add {n}, {n}, #1",
            "cmp {n}, {len}",
            "b.lo 2b",
            "mov {end:w}, #1",
            "b 6f",
            "3: mov {end:w}, wzr",
            "b 6f",
            "5: mov {end:w}, #2",
            "6:",
            ".pushsection .extable, \"a\"",
            ".quad 2b, 5b",
            ".popsection",
            at = inout(reg) at => _,
            to = in(reg) to,
            len = in(reg) len,
            n = out(reg) n,
            b = out(reg) _,
            end = out(reg) end,
            options(nostack),
        );
    }
    match end {
        0 => Ok(Some(n)),
        1 => Ok(None),
        _ => {
            n = n.min(len);
            Err(n)
        }
    }
}
