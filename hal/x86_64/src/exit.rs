//! Leaving the machine.

use x86_64::instructions::port::Port;

/// QEMU's `isa-debug-exit` (ARCHITECTURE.md C6).
const EXIT: u16 = 0xf4;

/// Ends the whole machine with `code`: QEMU exits with `code * 2 + 1`. Where there is no such device the CPU halts.
pub fn exit(code: u32) -> ! {
    // SAFETY: the port ends the emulator or does nothing.
    unsafe { Port::new(EXIT).write(code) };
    halt()
}

/// Resets the machine: by the chipset's reset register (PCI, port 0xcf9), else by a triple fault.
pub fn reset() -> ! {
    // SAFETY: both end everything, as asked.
    unsafe {
        Port::new(0xcf9u16).write(0x06u8);
        let nothing = crate::percpu::Pointer { limit: 0, base: 0 };
        core::arch::asm!("lidt [{}]", "int3", in(reg) &nothing, options(noreturn));
    }
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}
