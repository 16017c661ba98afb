//! The early console: QEMU's `isa-debugcon`, one I/O port per kernel. Bytes go straight to the host's log file of this kernel.

use core::fmt;
use core::sync::atomic::{AtomicU16, Ordering};

/// Port of kernel 0; kernel `i` writes to `DEBUGCON + i` (ARCHITECTURE.md C6).
const DEBUGCON: u16 = 0x1e00;

static PORT: AtomicU16 = AtomicU16::new(DEBUGCON);

/// This kernel's index, known as soon as the boot block is read.
pub(crate) fn set_index(index: u16) {
    PORT.store(DEBUGCON + index, Ordering::Relaxed);
}

/// The index of this kernel.
pub fn index() -> u16 {
    PORT.load(Ordering::Relaxed) - DEBUGCON
}

/// Writes bytes to the log. `rep outsb` makes a line one instruction, so lines of several CPUs rarely mix.
pub fn write(bytes: &[u8]) {
    // SAFETY: the port belongs to this kernel and only takes bytes; the slice is readable.
    unsafe {
        core::arch::asm!("rep outsb", in("dx") PORT.load(Ordering::Relaxed), inout("rsi") bytes.as_ptr() => _,
            inout("rcx") bytes.len() => _, options(nostack, preserves_flags));
    }
}

/// The early console as a formatter; collects a line before it writes.
pub struct Writer {
    buf: [u8; 256],
    len: usize,
}

impl Writer {
    /// An empty line.
    pub const fn new() -> Self {
        Self { buf: [0; 256], len: 0 }
    }

    /// Writes out what has been collected.
    pub fn flush(&mut self) {
        write(&self.buf[..self.len]);
        self.len = 0;
    }
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Write for Writer {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for &b in s.as_bytes() {
            if self.len == self.buf.len() {
                self.flush();
            }
            self.buf[self.len] = b;
            self.len += 1;
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Formats to the early console.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => {{
        let _ = core::fmt::Write::write_fmt(&mut $crate::console::Writer::new(), core::format_args!($($arg)*));
    }};
}

/// Formats a line to the early console.
#[macro_export]
macro_rules! println {
    ($($arg:tt)*) => { $crate::print!("{}\n", core::format_args!($($arg)*)) };
}
