//! Whole pages: zeroing and copying.

use core::arch::asm;

use hal_api::PAGE_SIZE;

/// Fills a page with zeros.
///
/// # Safety
/// `page` is a whole writable page, page-aligned, that nobody else uses.
#[inline]
pub unsafe fn zero(page: *mut u8) {
    let about: u64;
    // SAFETY: reads a register: how much `dc zva` fills, and whether it may be used.
    unsafe { asm!("mrs {}, dczid_el0", out(reg) about, options(nomem, nostack, preserves_flags)) };
    let step = 4usize << (about & 15);
    if about & 16 != 0 || step > PAGE_SIZE {
        // SAFETY: by the contract.
        return unsafe { page.write_bytes(0, PAGE_SIZE) };
    }
    // SAFETY: stores stay in the page.
    unsafe {
        asm!(
            "2: dc zva, {page}",
            "add {page}, {page}, {step}",
            "cmp {page}, {end}",
            "b.ne 2b",
            page = inout(reg) page => _,
            step = in(reg) step,
            end = in(reg) page.wrapping_add(PAGE_SIZE),
            options(nostack),
        );
    }
}

/// Copies a page.
///
/// # Safety
/// Both are whole pages, page-aligned and different; `to` is the caller's alone.
#[inline]
pub unsafe fn copy(to: *mut u8, from: *const u8) {
    // SAFETY: loads and stores stay in the pages.
    unsafe {
        asm!(
            "2: ldp {a}, {b}, [{from}]",
            "ldp {c}, {d}, [{from}, #16]",
            "stp {a}, {b}, [{to}]",
            "stp {c}, {d}, [{to}, #16]",
            "ldp {a}, {b}, [{from}, #32]",
            "ldp {c}, {d}, [{from}, #48]",
            "stp {a}, {b}, [{to}, #32]",
            "stp {c}, {d}, [{to}, #48]",
            "add {from}, {from}, #64",
            "add {to}, {to}, #64",
            "cmp {to}, {end}",
            "b.ne 2b",
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            end = in(reg) to.wrapping_add(PAGE_SIZE),
            a = out(reg) _,
            b = out(reg) _,
            c = out(reg) _,
            d = out(reg) _,
            options(nostack),
        );
    }
}

/// Makes stores to memory visible to those that do not use the caches: a CPU that starts with its MMU off.
///
/// # Safety
/// The range is mapped.
pub unsafe fn clean(at: u64, len: u64) {
    // SAFETY: cleaning changes no byte. 64 is the smallest line of CPUs with 64-bit addresses in use.
    unsafe {
        for line in (at..at + len).step_by(64) {
            asm!("dc civac, {}", in(reg) line, options(nostack, preserves_flags));
        }
        asm!("dsb sy", options(nostack, preserves_flags));
    }
}

/// Makes stores visible to instruction fetches of all CPUs.
pub fn sync_code(at: *const u8, len: usize) {
    let about: u64;
    // SAFETY: reads a register: the smallest lines.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) about, options(nomem, nostack, preserves_flags)) };
    let (data, code) = (4usize << (about >> 16 & 15), 4usize << (about & 15));
    let (from, to) = (at.addr(), at.addr() + len);
    // SAFETY: maintenance by address of memory that the caller has written.
    unsafe {
        for line in (from & !(data - 1)..to).step_by(data) {
            asm!("dc cvau, {}", in(reg) line, options(nostack, preserves_flags));
        }
        asm!("dsb ish", options(nostack, preserves_flags));
        for line in (from & !(code - 1)..to).step_by(code) {
            asm!("ic ivau, {}", in(reg) line, options(nostack, preserves_flags));
        }
        asm!("dsb ish", "isb", options(nostack, preserves_flags));
    }
}
