//! The assembler for x86-64.

use core::panic::PanicInfo;

use hal_x86_64::{RawBoot, println};

hal_x86_64::entry!(start);

/// The first safe code of a kernel, on its first CPU, with interrupts off.
fn start(raw: &'static RawBoot) -> ! {
    println!("{raw:#x?}");
    hal_x86_64::exit::exit(0x10)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    hal_x86_64::panic::panicked(info)
}

struct None;
unsafe impl core::alloc::GlobalAlloc for None {
    unsafe fn alloc(&self, _: core::alloc::Layout) -> *mut u8 {
        core::ptr::null_mut()
    }
    unsafe fn dealloc(&self, _: *mut u8, _: core::alloc::Layout) {}
}
#[global_allocator]
static A: None = None;
