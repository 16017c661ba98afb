//! Copies between the kernel and the active user address space.
//!
//! The kernel may touch user memory only while `sstatus.SUM` is set, which is as long as a copy takes. Loads and stores that may fault are listed in
//! `.extable` with the place where a fault goes on. Words first, if both sides are aligned alike (a misaligned access may be the firmware's to
//! emulate, or none at all); a word that cannot be had is tried byte by byte, so that the count is exact.

use core::arch::asm;

use crate::cpu::SUM;

/// Copies from user memory; the number of bytes copied.
///
/// # Safety
/// `to` is writable for `len` bytes; `at..at + len` is in the user half.
pub unsafe fn read(to: *mut u8, at: u64, len: usize) -> usize {
    let left: usize;
    // SAFETY: see above; a fault goes on where bytes are tried, or at the end.
    unsafe {
        asm!(
            "csrs sstatus, {sum}",
            "xor {a}, {at}, {to}",
            "andi {a}, {a}, 7",
            "bnez {a}, 7f",
            // Bytes to a border.
            "1: beqz {left}, 9f",
            "andi {a}, {at}, 7",
            "beqz {a}, 2f",
            "21: lb {a}, 0({at})",
            "sb {a}, 0({to})",
            "addi {at}, {at}, 1",
            "addi {to}, {to}, 1",
            "addi {left}, {left}, -1",
            "j 1b",
            "2: li {d}, 32",
            "3: bltu {left}, {d}, 5f",
            "22: ld {a}, 0({at})",
            "23: ld {b}, 8({at})",
            "24: ld {c}, 16({at})",
            "25: ld {e}, 24({at})",
            "sd {a}, 0({to})",
            "sd {b}, 8({to})",
            "sd {c}, 16({to})",
            "sd {e}, 24({to})",
            "addi {at}, {at}, 32",
            "addi {to}, {to}, 32",
            "addi {left}, {left}, -32",
            "j 3b",
            "5: li {d}, 8",
            "6: bltu {left}, {d}, 7f",
            "26: ld {a}, 0({at})",
            "sd {a}, 0({to})",
            "addi {at}, {at}, 8",
            "addi {to}, {to}, 8",
            "addi {left}, {left}, -8",
            "j 6b",
            "7: beqz {left}, 9f",
            "8: lb {a}, 0({at})",
            "sb {a}, 0({to})",
            "addi {at}, {at}, 1",
            "addi {to}, {to}, 1",
            "addi {left}, {left}, -1",
            "j 7b",
            "9: csrc sstatus, {sum}",
            ".pushsection .extable, \"a\"",
            ".quad 21b, 9b",
            ".quad 22b, 5b",
            ".quad 23b, 5b",
            ".quad 24b, 5b",
            ".quad 25b, 5b",
            ".quad 26b, 7b",
            ".quad 8b, 9b",
            ".popsection",
            left = inout(reg) len => left,
            at = inout(reg) at => _,
            to = inout(reg) to => _,
            sum = in(reg) SUM,
            a = out(reg) _,
            b = out(reg) _,
            c = out(reg) _,
            d = out(reg) _,
            e = out(reg) _,
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
            "csrs sstatus, {sum}",
            "xor {a}, {at}, {from}",
            "andi {a}, {a}, 7",
            "bnez {a}, 7f",
            "1: beqz {left}, 9f",
            "andi {a}, {at}, 7",
            "beqz {a}, 2f",
            "lb {a}, 0({from})",
            "21: sb {a}, 0({at})",
            "addi {at}, {at}, 1",
            "addi {from}, {from}, 1",
            "addi {left}, {left}, -1",
            "j 1b",
            "2: li {d}, 32",
            "3: bltu {left}, {d}, 5f",
            "ld {a}, 0({from})",
            "ld {b}, 8({from})",
            "ld {c}, 16({from})",
            "ld {e}, 24({from})",
            "22: sd {a}, 0({at})",
            "23: sd {b}, 8({at})",
            "24: sd {c}, 16({at})",
            "25: sd {e}, 24({at})",
            "addi {at}, {at}, 32",
            "addi {from}, {from}, 32",
            "addi {left}, {left}, -32",
            "j 3b",
            "5: li {d}, 8",
            "6: bltu {left}, {d}, 7f",
            "ld {a}, 0({from})",
            "26: sd {a}, 0({at})",
            "addi {at}, {at}, 8",
            "addi {from}, {from}, 8",
            "addi {left}, {left}, -8",
            "j 6b",
            "7: beqz {left}, 9f",
            "lb {a}, 0({from})",
            "8: sb {a}, 0({at})",
            "addi {at}, {at}, 1",
            "addi {from}, {from}, 1",
            "addi {left}, {left}, -1",
            "j 7b",
            "9: csrc sstatus, {sum}",
            ".pushsection .extable, \"a\"",
            ".quad 21b, 9b",
            ".quad 22b, 5b",
            ".quad 23b, 5b",
            ".quad 24b, 5b",
            ".quad 25b, 5b",
            ".quad 26b, 7b",
            ".quad 8b, 9b",
            ".popsection",
            left = inout(reg) len => left,
            at = inout(reg) at => _,
            from = inout(reg) from => _,
            sum = in(reg) SUM,
            a = out(reg) _,
            b = out(reg) _,
            c = out(reg) _,
            d = out(reg) _,
            e = out(reg) _,
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
            "csrs sstatus, {sum}",
            "1: beqz {left}, 9f",
            "andi {a}, {at}, 7",
            "beqz {a}, 2f",
            "21: sb zero, 0({at})",
            "addi {at}, {at}, 1",
            "addi {left}, {left}, -1",
            "j 1b",
            "2: li {a}, 8",
            "3: bltu {left}, {a}, 7f",
            "6: sd zero, 0({at})",
            "addi {at}, {at}, 8",
            "addi {left}, {left}, -8",
            "j 3b",
            "7: beqz {left}, 9f",
            "8: sb zero, 0({at})",
            "addi {at}, {at}, 1",
            "addi {left}, {left}, -1",
            "j 7b",
            "9: csrc sstatus, {sum}",
            ".pushsection .extable, \"a\"",
            ".quad 21b, 9b",
            ".quad 6b, 7b",
            ".quad 8b, 9b",
            ".popsection",
            left = inout(reg) len => left,
            at = inout(reg) at => _,
            sum = in(reg) SUM,
            a = out(reg) _,
            options(nostack),
        );
    }
    len - left
}

/// Loads an aligned word. `None` if it is not readable.
pub fn load_u32(at: u64) -> Option<u32> {
    let (value, bad): (u64, u64);
    // SAFETY: a fault goes on at 3, where `bad` is still 1.
    unsafe {
        asm!(
            "csrs sstatus, {sum}",
            "li {bad}, 1",
            "2: lw {value}, 0({at})",
            "li {bad}, 0",
            "3: csrc sstatus, {sum}",
            ".pushsection .extable, \"a\"",
            ".quad 2b, 3b",
            ".popsection",
            at = in(reg) at,
            sum = in(reg) SUM,
            value = out(reg) value,
            bad = out(reg) bad,
            options(nostack),
        );
    }
    (bad == 0).then_some(value as u32)
}

/// Atomic compare-exchange of an aligned word: the value found. `None` if it is not writable.
pub fn cas_u32(at: u64, expected: u32, new: u32) -> Option<u32> {
    let (found, bad): (u64, u64);
    // SAFETY: as `load_u32`.
    unsafe {
        asm!(
            "csrs sstatus, {sum}",
            "li {bad}, 1",
            "2: lr.w.aqrl {found}, ({at})",
            "mv {put}, {found}", // a word that is not to change must be writable too
            "bne {found}, {expected}, 3f",
            "mv {put}, {new}",
            "3: sc.w.rl {again}, {put}, ({at})",
            "bnez {again}, 2b",
            "li {bad}, 0",
            "fence rw, rw",
            "5: csrc sstatus, {sum}",
            ".pushsection .extable, \"a\"",
            ".quad 2b, 5b",
            ".quad 3b, 5b",
            ".popsection",
            at = in(reg) at,
            // `lr.w` extends the sign.
            expected = in(reg) i64::from(expected as i32),
            new = in(reg) u64::from(new),
            sum = in(reg) SUM,
            found = out(reg) found,
            put = out(reg) _,
            again = out(reg) _,
            bad = out(reg) bad,
            options(nostack),
        );
    }
    (bad == 0).then_some(found as u32)
}

/// Copies a string up to its NUL: see `Platform::user_read_str`.
///
/// # Safety
/// `to` is writable for `len` bytes; `at..at + len` is in the user half.
pub unsafe fn read_str(to: *mut u8, at: u64, len: usize) -> Result<Option<usize>, usize> {
    if len == 0 {
        return Ok(None);
    }
    let (left, end): (usize, u64);
    // SAFETY: reads bytes one by one from user memory, where a fault goes on at 5; writes at most `len` to `to`.
    unsafe {
        asm!(
            "csrs sstatus, {sum}",
            "2: lb {b}, 0({at})",
            "sb {b}, 0({to})",
            "li {end}, 0",
            "beqz {b}, 6f",
            "addi {at}, {at}, 1",
            "addi {to}, {to}, 1",
            "addi {left}, {left}, -1",
            "bnez {left}, 2b",
            "li {end}, 1",
            "j 6f",
            "5: li {end}, 2",
            "6: csrc sstatus, {sum}",
            ".pushsection .extable, \"a\"",
            ".quad 2b, 5b",
            ".popsection",
            at = inout(reg) at => _,
            to = inout(reg) to => _,
            left = inout(reg) len => left,
            sum = in(reg) SUM,
            b = out(reg) _,
            end = out(reg) end,
            options(nostack),
        );
    }
    match end {
        0 => Ok(Some(len - left)),
        1 => Ok(None),
        _ => Err(len - left),
    }
}
