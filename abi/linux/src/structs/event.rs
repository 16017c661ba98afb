//! Waiting for descriptors.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Encoded;
use crate::Isa;

/// `struct epoll_event` as a value. On x86-64 it is packed, to be the same as on i386.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpollEvent {
    /// `EPOLL*`.
    pub events: u32,
    pub data: u64,
}

impl EpollEvent {
    /// Bytes of one event in a program of this ISA.
    pub const fn size(isa: Isa) -> usize {
        match isa {
            Isa::X86_64 => 12,
            Isa::Aarch64 | Isa::Riscv64 => 16,
        }
    }

    /// As a program of this ISA reads it.
    pub fn encode(&self, isa: Isa) -> Encoded<16> {
        let [e0, e1, e2, e3] = self.events.to_le_bytes();
        let [d0, d1, d2, d3, d4, d5, d6, d7] = self.data.to_le_bytes();
        let bytes: [u8; 16] = match isa {
            Isa::X86_64 => [e0, e1, e2, e3, d0, d1, d2, d3, d4, d5, d6, d7, 0, 0, 0, 0],
            Isa::Aarch64 | Isa::Riscv64 => [e0, e1, e2, e3, 0, 0, 0, 0, d0, d1, d2, d3, d4, d5, d6, d7],
        };
        Encoded::new(bytes.get(..Self::size(isa)).unwrap_or_default())
    }

    /// As a program of this ISA wrote it; none if there are too few bytes.
    pub fn decode(isa: Isa, bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..Self::size(isa))?;
        let events = u32::from_le_bytes(*bytes.first_chunk()?);
        let data = u64::from_le_bytes(*bytes.last_chunk()?);
        Some(Self { events, data })
    }
}

/// `struct pollfd`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PollFd {
    pub fd: i32,
    /// `POLL*` asked for.
    pub events: u16,
    /// `POLL*` that hold.
    pub revents: u16,
}

/// The sets of `select`: 64-bit words, descriptor `n` is bit `n % 64` of word `n / 64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdSet;

impl FdSet {
    /// The bytes that the kernel reads and writes for descriptors below `n`.
    pub const fn bytes(n: usize) -> usize {
        n.div_ceil(64) * 8
    }
}

/// `struct signalfd_siginfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SignalfdSiginfo {
    pub signo: u32,
    pub errno: i32,
    pub code: i32,
    pub pid: u32,
    pub uid: u32,
    pub fd: i32,
    pub tid: u32,
    pub band: u32,
    pub overrun: u32,
    pub trapno: u32,
    pub status: i32,
    pub int: i32,
    pub ptr: u64,
    pub utime: u64,
    pub stime: u64,
    pub addr: u64,
    pub addr_lsb: u16,
    pub pad2: u16,
    pub syscall: i32,
    pub call_addr: u64,
    pub arch: u32,
    pub pad: [u32; 7],
}

// `man 2 signalfd`: 128 bytes, for ever.
const _: () = assert!(size_of::<SignalfdSiginfo>() == 128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_events_round_trip() {
        let event = EpollEvent { events: 0x8000_0001, data: 0x0102_0304_0506_0708 };
        for isa in Isa::ALL {
            let bytes = event.encode(isa);
            assert_eq!(bytes.len(), EpollEvent::size(isa));
            assert_eq!(EpollEvent::decode(isa, &bytes), Some(event));
            assert_eq!(EpollEvent::decode(isa, &bytes[1..]), None);
        }
        assert_eq!(event.encode(Isa::X86_64)[4], 8);
        assert_eq!(event.encode(Isa::Riscv64)[8], 8);
    }

    #[test]
    fn sets_are_whole_words() {
        assert_eq!([0, 1, 64, 65, 1024].map(FdSet::bytes), [0, 8, 8, 16, 128]);
    }
}
