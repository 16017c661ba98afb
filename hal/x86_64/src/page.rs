//! Whole pages: zeroing and copying.
//!
//! With AVX a page is 128 stores; string instructions take a step per word under emulation. The kernel is compiled without vector registers, so
//! the ones used here hold a program's values and are put back.

use core::arch::asm;
use core::sync::atomic::Ordering;

use hal_api::PAGE_SIZE;

use crate::cpu::XCR0;

const AVX: u64 = 4;

/// A place for registers while they are used here.
#[repr(C, align(32))]
#[allow(dead_code, reason = "only its place is used")]
struct Save([u8; 64]);

/// Fills a page with zeros.
///
/// # Safety
/// `page` is a whole writable page, page-aligned, that nobody else uses.
#[inline]
pub unsafe fn zero(page: *mut u8) {
    if XCR0.load(Ordering::Relaxed) & AVX == 0 {
        // SAFETY: by the contract.
        unsafe {
            asm!("rep stosq", inout("rdi") page => _, inout("rcx") PAGE_SIZE / 8 => _, in("rax") 0,
                options(nostack, preserves_flags));
        }
        return;
    }
    let mut save = core::mem::MaybeUninit::<Save>::uninit();
    // SAFETY: AVX is switched on; stores stay in the page; ymm0 is restored.
    unsafe {
        asm!(
            "vmovdqa [{save}], ymm0",
            "vpxor xmm0, xmm0, xmm0",
            "2:",
            ".irp off, 0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448, 480",
            "vmovdqa [{page} + \\off], ymm0",
            ".endr",
            "add {page}, 512",
            "cmp {page}, {end}",
            "jne 2b",
            "vmovdqa ymm0, [{save}]",
            save = in(reg) save.as_mut_ptr(),
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
    if XCR0.load(Ordering::Relaxed) & AVX == 0 {
        // SAFETY: by the contract.
        unsafe {
            asm!("rep movsq", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") PAGE_SIZE / 8 => _,
                options(nostack, preserves_flags));
        }
        return;
    }
    let mut save = core::mem::MaybeUninit::<Save>::uninit();
    // SAFETY: AVX is switched on; loads and stores stay in the pages; ymm0 and ymm1 are restored.
    unsafe {
        asm!(
            "vmovdqa [{save}], ymm0",
            "vmovdqa [{save} + 32], ymm1",
            "2:",
            ".irp off, 0, 64, 128, 192, 256, 320, 384, 448",
            "vmovdqa ymm0, [{from} + \\off]",
            "vmovdqa ymm1, [{from} + \\off + 32]",
            "vmovdqa [{to} + \\off], ymm0",
            "vmovdqa [{to} + \\off + 32], ymm1",
            ".endr",
            "add {from}, 512",
            "add {to}, 512",
            "cmp {to}, {end}",
            "jne 2b",
            "vmovdqa ymm0, [{save}]",
            "vmovdqa ymm1, [{save} + 32]",
            save = in(reg) save.as_mut_ptr(),
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            end = in(reg) to.wrapping_add(PAGE_SIZE),
            options(nostack),
        );
    }
}
