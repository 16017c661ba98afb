//! The structs that programs and the kernel hand each other, as bytes.
//!
//! A struct that is the same on all ISAs is a `repr(C)` type without padding: `zerocopy` turns it into bytes and back. One that
//! differs is a plain value with `encode(isa)` and `decode(isa)`. Layouts are checked at compile time, on every target that this
//! crate is built for, against `linux-raw-sys` (see `check.rs`).

mod check;
mod event;
mod file;
mod signal;
mod stat;
mod system;
mod terminal;
mod time;

pub use event::{EpollEvent, FdSet, PollFd, SignalfdSiginfo};
pub use file::{Dirent, FileLock, IoVec, Statfs};
pub use signal::{SigAction, SigAltStack, SigInfo};
pub use stat::{Stat, Statx, StatxTimestamp};
pub use system::{CloneArgs, RLimit, RUsage, RobustListHead, Sysinfo, Utsname};
pub use terminal::{Termios, Termios2, Winsize};
pub use time::{Itimerspec, Itimerval, Timespec, Timeval};

/// The bytes of a struct, of which the length depends on the ISA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded<const MAX: usize> {
    bytes: [u8; MAX],
    length: usize,
}

impl<const MAX: usize> Encoded<MAX> {
    /// Takes the front of `MAX` bytes; `from` is never longer.
    fn new(from: &[u8]) -> Self {
        let mut bytes = [0; MAX];
        let length = from.len().min(MAX);
        for (to, byte) in bytes.iter_mut().zip(from) {
            *to = *byte;
        }
        Self { bytes, length }
    }
}

impl<const MAX: usize> core::ops::Deref for Encoded<MAX> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or(&self.bytes)
    }
}
