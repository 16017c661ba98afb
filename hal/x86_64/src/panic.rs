//! The last words of a kernel.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use symtab::SymbolTable;

static SYMBOLS: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static SYMBOLS_LEN: AtomicUsize = AtomicUsize::new(0);
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Gives the backtraces names; `table` is what the build made from this image (`symtab`).
pub fn set_symbols(table: &'static [u8]) {
    SYMBOLS_LEN.store(table.len(), Ordering::Relaxed);
    SYMBOLS.store(table.as_ptr().cast_mut(), Ordering::Release);
}

fn symbols() -> Option<SymbolTable<'static>> {
    let p = SYMBOLS.load(Ordering::Acquire);
    if p.is_null() {
        return None;
    }
    // SAFETY: pointer and length come from one `&'static [u8]`; the length was stored before the pointer.
    SymbolTable::parse(unsafe { core::slice::from_raw_parts(p, SYMBOLS_LEN.load(Ordering::Relaxed)) })
}

/// Prints the callers found by following frame pointers from `rbp`, at most 32.
pub fn backtrace(rip: Option<u64>, mut rbp: u64) {
    let k = crate::console::index();
    let table = symbols();
    let line = |n: usize, ip: u64| {
        let offset = ip.wrapping_sub(crate::entry::IMAGE);
        match table.as_ref().and_then(|t| t.lookup(offset as u32)) {
            Some((name, at)) => crate::println!("kernel {k}: #{n:<2} {ip:#x} {name}+{at:#x}"),
            None => crate::println!("kernel {k}: #{n:<2} {ip:#x}"),
        }
    };
    let mut n = 0;
    if let Some(ip) = rip {
        line(n, ip);
        n += 1;
    }
    // A frame lies on a kernel stack: in the image (boot stack) or in the stack area, and callers have higher addresses.
    while n < 32 && rbp >= 0xffff_8000_0000_0000 && rbp.is_multiple_of(8) {
        // SAFETY: frame pointers of kernel code point to (previous frame, return address) on a mapped stack. A wild one
        // faults; the second panic is caught by PANICKED.
        let (next, ip) = unsafe { (*(rbp as *const u64), *((rbp + 8) as *const u64)) };
        if ip < crate::entry::IMAGE {
            break;
        }
        line(n, ip - 1);
        n += 1;
        if next <= rbp {
            break;
        }
        rbp = next;
    }
}

/// Says what happened and where, then ends this kernel.
pub fn panicked(info: &PanicInfo) -> ! {
    x86_64::instructions::interrupts::disable();
    let k = crate::console::index();
    if PANICKED.swap(true, Ordering::AcqRel) {
        crate::println!("kernel {k}: panicked while it panicked");
        crate::exit::halt();
    }
    match info.location() {
        Some(l) => crate::println!("kernel {k}: PANIC at {l}: {}", info.message()),
        None => crate::println!("kernel {k}: PANIC: {}", info.message()),
    }
    let rbp: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) };
    backtrace(None, rbp);
    crate::exit::exit(0x11)
}
