//! Names for addresses, and backtraces for a kernel that is too young for `hal::console`.

use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use symtab::SymbolTable;

use crate::entry::IMAGE;

static SYMBOLS: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static SYMBOLS_LEN: AtomicUsize = AtomicUsize::new(0);

/// Gives the backtraces names; `table` is what the build made from this image (`symtab`).
pub fn set_symbols(table: &'static [u8]) {
    SYMBOLS_LEN.store(table.len(), Ordering::Relaxed);
    SYMBOLS.store(table.as_ptr().cast_mut(), Ordering::Release);
}

/// The function at an address of the image, and how far into it.
pub fn symbol(ip: u64) -> Option<(&'static str, u64)> {
    let p = SYMBOLS.load(Ordering::Acquire);
    if p.is_null() {
        return None;
    }
    // SAFETY: pointer and length come from one `&'static [u8]`; the length was stored before the pointer.
    let table = unsafe { core::slice::from_raw_parts(p, SYMBOLS_LEN.load(Ordering::Relaxed)) };
    let (name, off) = SymbolTable::parse(table)?.lookup(u32::try_from(ip.checked_sub(IMAGE)?).ok()?)?;
    Some((name, u64::from(off)))
}

/// Prints the callers found by following frame pointers, at most 32.
pub fn backtrace(pc: Option<u64>, mut frame: u64) {
    let k = crate::console::index();
    let line = |ip: u64| match symbol(ip) {
        Some((name, at)) => crate::println!("kernel {k}:   {ip:#x} {name}+{at:#x}"),
        None => crate::println!("kernel {k}:   {ip:#x}"),
    };
    if let Some(ip) = pc {
        line(ip);
    }
    for _ in 0..32 {
        if frame < 0xffff_8000_0000_0010 || !frame.is_multiple_of(8) {
            return;
        }
        // SAFETY: frame pointers of kernel code point behind (previous frame, return address) on a mapped stack. A wild one
        // faults; the fault handler does not come here twice.
        let (next, ip) = unsafe { (*((frame - 16) as *const u64), *((frame - 8) as *const u64)) };
        if ip < IMAGE {
            return;
        }
        line(ip - 1);
        if next <= frame {
            return;
        }
        frame = next;
    }
}

/// The frame pointer of the caller.
#[inline(always)]
pub fn frame_pointer() -> u64 {
    let fp: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mv {}, s0", out(reg) fp, options(nomem, nostack, preserves_flags)) };
    fp
}
