//! The early console: a file of this kernel on the host, by semihosting ("RISC-V Semihosting", with the operations of Arm's). QEMU answers the calls itself,
//! so they need no device and no memory map (ARCHITECTURE.md C6).

use core::fmt;
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use crate::lock::Spin;

const OPEN: u64 = 0x01;
const WRITE: u64 = 0x05;
const SEEK: u64 = 0x0a;
const LENGTH: u64 = 0x0c;
const EXIT: u64 = 0x20;
/// Open for appending, binary.
const APPEND: u64 = 9;
const STOPPED_BY_APPLICATION: u64 = 0x20026;

static INDEX: AtomicU16 = AtomicU16::new(0);
/// The file's handle plus 1; 0: not open yet.
static HANDLE: AtomicU64 = AtomicU64::new(0);
static OPENING: Spin<()> = Spin::new(());

/// A semihosting call. Where nobody answers the instruction is a breakpoint: the kernel runs where `cob` starts it.
fn call(operation: u64, parameters: &[u64]) -> u64 {
    let result: u64;
    // SAFETY: the host reads the parameters and what they point to; it writes nothing of ours with the operations used here. The three
    // instructions are how a debugger knows the call: none of them is compressed, all lie in one page.
    unsafe {
        core::arch::asm!(
            ".balign 16",
            ".option push",
            ".option norvc",
            "slli x0, x0, 0x1f",
            "ebreak",
            "srai x0, x0, 7",
            ".option pop",
            inout("a0") operation => result,
            in("a1") parameters.as_ptr(),
            options(nostack)
        );
    }
    result
}

/// This kernel's index, known as soon as the boot block is read.
pub(crate) fn set_index(index: u16) {
    if INDEX.swap(index, Ordering::Relaxed) != index {
        HANDLE.store(0, Ordering::Relaxed);
    }
}

/// The index of this kernel.
pub fn index() -> u16 {
    INDEX.load(Ordering::Relaxed)
}

fn handle() -> u64 {
    let open = HANDLE.load(Ordering::Relaxed);
    if open != 0 {
        return open - 1;
    }
    let _one = OPENING.lock();
    let mut name = *b"k00.log\0";
    let index = index();
    let name = if index < 10 {
        name[1] = b'k';
        name[2] += index as u8;
        &name[1..]
    } else {
        name[1] += (index / 10) as u8;
        name[2] += (index % 10) as u8;
        &name[..]
    };
    let handle = call(OPEN, &[name.as_ptr() as u64, APPEND, name.len() as u64 - 1]);
    // The mode only keeps what is there; a former life of this kernel has written some.
    call(SEEK, &[handle, call(LENGTH, &[handle])]);
    HANDLE.store(handle.wrapping_add(1), Ordering::Relaxed);
    handle
}

/// Writes bytes to the log.
pub fn write(bytes: &[u8]) {
    if !bytes.is_empty() {
        call(WRITE, &[handle(), bytes.as_ptr() as u64, bytes.len() as u64]);
    }
}

/// Ends the emulator with this exit status.
pub(crate) fn exit(status: u64) {
    call(EXIT, &[STOPPED_BY_APPLICATION, status]);
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
