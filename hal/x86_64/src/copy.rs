//! Copies between the kernel and the active user address space.
//!
//! The instructions that touch user memory are listed in `.extable` with the place where a fault goes on; there the count
//! register says how much is left. Words first: under emulation a string instruction costs one step per element. A word that
//! straddles the border of a good and a bad page is retried byte by byte, so that the count is exact.

use core::arch::asm;
use core::sync::atomic::Ordering;

use crate::cpu::SMAP;

/// Lets the kernel touch user memory.
#[inline]
fn open_user() {
    if SMAP.load(Ordering::Relaxed) {
        // SAFETY: SMAP exists, so does `stac`; it only sets AC.
        unsafe { asm!("stac", options(nostack)) };
    }
}

/// The opposite. Also after an entry from user mode by interrupt, where AC is the program's.
#[inline]
pub fn close_user() {
    if SMAP.load(Ordering::Relaxed) {
        // SAFETY: as above.
        unsafe { asm!("clac", options(nostack)) };
    }
}

/// Copies and returns how many bytes were *not* copied.
///
/// # Safety
/// The side in kernel memory is valid; the other is in the user half.
unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> usize {
    let left;
    open_user();
    // SAFETY: see above; faults on the user side go on at label 4 with the count of bytes left in rcx.
    unsafe {
        asm!(
            "6: rep movsq",
            "mov ecx, {tail:e}",
            "2: rep movsb",
            "jmp 4f",
            "3: lea rcx, [rcx * 8 + {tail}]", // the word at rsi failed: find the byte
            "jmp 2b",
            "4:",
            ".pushsection .extable, \"a\"",
            ".quad 6b, 3b",
            ".quad 2b, 4b",
            ".popsection",
            tail = in(reg) len & 7,
            inout("rcx") len >> 3 => left,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack),
        );
    }
    close_user();
    left
}

/// Copies from user memory; the number of bytes copied.
///
/// # Safety
/// `to` is writable for `len` bytes; `at..at + len` is in the user half.
#[inline]
pub unsafe fn read(to: *mut u8, at: u64, len: usize) -> usize {
    // SAFETY: the caller's promise.
    len - unsafe { copy(to, at as *const u8, len) }
}

/// Copies to user memory; the number of bytes copied.
///
/// # Safety
/// `from` is readable for `len` bytes; `at..at + len` is in the user half.
#[inline]
pub unsafe fn write(at: u64, from: *const u8, len: usize) -> usize {
    // SAFETY: the caller's promise.
    len - unsafe { copy(at as *mut u8, from, len) }
}

/// Fewer bytes are stored one by one.
const SHORT: usize = 8;

/// Fills user memory with zeros; the number of bytes filled.
///
/// `at..at + len` is in the user half.
pub fn zero(at: u64, len: usize) -> usize {
    let left: usize;
    open_user();
    if len < SHORT {
        // SAFETY: as `copy`. Starting a repeated store takes longer than a few stores.
        unsafe {
            asm!(
                "2: test rcx, rcx",
                "jz 4f",
                "3: mov byte ptr [rdi], 0",
                "inc rdi",
                "dec rcx",
                "jmp 2b",
                "4:",
                ".pushsection .extable, \"a\"",
                ".quad 3b, 4b",
                ".popsection",
                inout("rcx") len => left,
                inout("rdi") at => _,
                options(nostack),
            );
        }
        close_user();
        return len - left;
    }
    // SAFETY: as `copy`.
    unsafe {
        asm!(
            "6: rep stosq",
            "mov ecx, {tail:e}",
            "2: rep stosb",
            "jmp 4f",
            "3: lea rcx, [rcx * 8 + {tail}]",
            "jmp 2b",
            "4:",
            ".pushsection .extable, \"a\"",
            ".quad 6b, 3b",
            ".quad 2b, 4b",
            ".popsection",
            tail = in(reg) len & 7,
            inout("rcx") len >> 3 => left,
            inout("rdi") at => _,
            in("rax") 0,
            options(nostack),
        );
    }
    close_user();
    len - left
}

/// Loads an aligned word. `None` if it is not readable.
pub fn load_u32(at: u64) -> Option<u32> {
    let (value, bad): (u32, u32);
    open_user();
    // SAFETY: a fault goes on at 3, where `bad` is still 1.
    unsafe {
        asm!(
            "mov {bad:e}, 1",
            "2: mov {value:e}, [{at}]",
            "xor {bad:e}, {bad:e}",
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
    close_user();
    (bad == 0).then_some(value)
}

/// Atomic compare-exchange of an aligned word: the value found. `None` if it is not writable.
pub fn cas_u32(at: u64, expected: u32, new: u32) -> Option<u32> {
    let (found, bad): (u32, u32);
    open_user();
    // SAFETY: as `load_u32`.
    unsafe {
        asm!(
            "mov {bad:e}, 1",
            "2: lock cmpxchg [{at}], {new:e}",
            "mov {bad:e}, 0",
            "3:",
            ".pushsection .extable, \"a\"",
            ".quad 2b, 3b",
            ".popsection",
            at = in(reg) at,
            new = in(reg) new,
            inout("eax") expected => found,
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
    open_user();
    // SAFETY: reads bytes one by one from user memory, where a fault goes on at 5; writes at most `len` to `to`.
    unsafe {
        asm!(
            "xor {n:e}, {n:e}",
            "2: mov {b:l}, [{at} + {n}]",
            "mov [{to} + {n}], {b:l}",
            "test {b:l}, {b:l}",
            "jz 3f",
            "inc {n}",
            "cmp {n}, {len}",
            "jb 2b",
            "mov {end:e}, 1",
            "jmp 6f",
            "3: xor {end:e}, {end:e}",
            "jmp 6f",
            "5: mov {end:e}, 2",
            "6:",
            ".pushsection .extable, \"a\"",
            ".quad 2b, 5b",
            ".popsection",
            at = in(reg) at,
            to = in(reg) to,
            len = in(reg) len,
            n = out(reg) n,
            b = out(reg_abcd) _,
            end = out(reg) end,
            options(nostack),
        );
    }
    close_user();
    match end {
        0 => Ok(Some(n)),
        1 => Ok(None),
        _ => {
            n = n.min(len);
            Err(n)
        }
    }
}
