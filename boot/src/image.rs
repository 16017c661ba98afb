//! The assembler for x86-64.

use core::panic::PanicInfo;
use hal_x86_64::boot::BootInfo;

hal_x86_64::entry!(start);

/// The first safe code of a kernel, on its first CPU, with interrupts off.
fn start(info: &BootInfo) -> ! {
    hal_x86_64::println!("cob: kernel {} at {:#x}", info.index, info.image_phys);
    for r in info.memory_map() {
        hal_x86_64::println!("  {:#012x}..{:#012x} {:?}", r.start, r.end, r.kind);
    }
    hal_x86_64::exit::exit(0x10)
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    hal_x86_64::panic::panicked(info)
}
