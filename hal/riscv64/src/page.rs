//! Whole pages: zeroing and copying.

use core::arch::asm;

use hal_api::PAGE_SIZE;

/// Fills a page with zeros.
///
/// # Safety
/// `page` is a whole writable page, page-aligned, that nobody else uses.
#[inline]
pub unsafe fn zero(page: *mut u8) {
    // SAFETY: stores stay in the page.
    unsafe {
        asm!(
            "2: sd zero, 0({page})",
            "sd zero, 8({page})",
            "sd zero, 16({page})",
            "sd zero, 24({page})",
            "sd zero, 32({page})",
            "sd zero, 40({page})",
            "sd zero, 48({page})",
            "sd zero, 56({page})",
            "addi {page}, {page}, 64",
            "bne {page}, {end}, 2b",
            page = inout(reg) page => _,
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
            "2: ld {a}, 0({from})",
            "ld {b}, 8({from})",
            "ld {c}, 16({from})",
            "ld {d}, 24({from})",
            "sd {a}, 0({to})",
            "sd {b}, 8({to})",
            "sd {c}, 16({to})",
            "sd {d}, 24({to})",
            "addi {from}, {from}, 32",
            "addi {to}, {to}, 32",
            "bne {to}, {end}, 2b",
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

/// Makes stores visible to instruction fetches of all CPUs of this kernel.
pub fn sync_code() {
    // SAFETY: a barrier.
    unsafe { asm!("fence rw, rw", "fence.i", options(nostack)) };
    if let Some(others) = crate::smp::others() {
        // The firmware refuses only harts that it does not know; those run nothing.
        let _ = sbi_rt::remote_fence_i(others);
    }
}
