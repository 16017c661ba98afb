//! What programs say about signals, and are told about one.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Encoded;
use crate::Isa;

/// The kernel's `struct sigaction` as a value. riscv64 has no restorer: its return code lies in the vDSO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SigAction {
    /// An address, `SIG_DFL` (0) or `SIG_IGN` (1).
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// The code that calls `rt_sigreturn`; valid with `SA_RESTORER`.
    pub restorer: u64,
    /// Signal `n` is bit `n - 1`.
    pub mask: u64,
}

impl SigAction {
    /// Bytes in a program of this ISA.
    pub const fn size(isa: Isa) -> usize {
        match isa {
            Isa::X86_64 | Isa::Aarch64 => 32,
            Isa::Riscv64 => 24,
        }
    }

    /// As a program of this ISA reads it.
    pub fn encode(&self, isa: Isa) -> Encoded<32> {
        match isa {
            Isa::X86_64 | Isa::Aarch64 => Encoded::new([self.handler, self.flags, self.restorer, self.mask].as_bytes()),
            Isa::Riscv64 => Encoded::new([self.handler, self.flags, self.mask].as_bytes()),
        }
    }

    /// As a program of this ISA wrote it; none if there are too few bytes.
    pub fn decode(isa: Isa, bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..Self::size(isa))?;
        match isa {
            Isa::X86_64 | Isa::Aarch64 => {
                let [handler, flags, restorer, mask] = <[u64; 4]>::read_from_bytes(bytes).ok()?;
                Some(Self { handler, flags, restorer, mask })
            }
            Isa::Riscv64 => {
                let [handler, flags, mask] = <[u64; 3]>::read_from_bytes(bytes).ok()?;
                Some(Self { handler, flags, restorer: 0, mask })
            }
        }
    }
}

/// `stack_t`. The same on all 64-bit ISAs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigAltStack {
    pub sp: u64,
    /// `SS_*`.
    pub flags: i32,
    pub pad: u32,
    /// Bytes.
    pub size: u64,
}

/// `siginfo_t` as a value; the same bytes on all 64-bit ISAs. Which fields there are depends on the signal and `code` (`man 2 sigaction`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigInfo {
    /// From `kill`, `tgkill`, `sigqueue`: who, and a value with `SI_QUEUE`.
    User { signo: i32, code: i32, pid: i32, uid: u32, value: u64 },
    /// `SIGCHLD`: which child, and how it changed. Times in clock ticks.
    Child { signo: i32, code: i32, pid: i32, uid: u32, status: i32, utime: i64, stime: i64 },
    /// `SIGSEGV`, `SIGBUS`, `SIGFPE`, `SIGILL`, `SIGTRAP`: where.
    Fault { signo: i32, code: i32, addr: u64, addr_lsb: u16 },
    /// `SI_TIMER`: which POSIX timer.
    Timer { signo: i32, id: i32, overrun: i32, value: u64 },
    /// `SIGIO`: which descriptor.
    Poll { signo: i32, code: i32, band: i64, fd: i32 },
    /// From the kernel, with nothing more to say (`SI_KERNEL`).
    Kernel { signo: i32, code: i32 },
}

impl SigInfo {
    /// Bytes of a `siginfo_t`.
    pub const SIZE: usize = 128;

    /// The signal.
    pub const fn signo(&self) -> i32 {
        match *self {
            Self::User { signo, .. }
            | Self::Child { signo, .. }
            | Self::Fault { signo, .. }
            | Self::Timer { signo, .. }
            | Self::Poll { signo, .. }
            | Self::Kernel { signo, .. } => signo,
        }
    }

    /// `si_code`.
    pub const fn code(&self) -> i32 {
        match *self {
            Self::User { code, .. }
            | Self::Child { code, .. }
            | Self::Fault { code, .. }
            | Self::Poll { code, .. }
            | Self::Kernel { code, .. } => code,
            Self::Timer { .. } => linux_raw_sys::general::SI_TIMER,
        }
    }

    /// As programs read it.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let low = |value: i32| u64::from(value as u32);
        let pair = |low_half: i32, high_half: u32| low(low_half) | u64::from(high_half) << 32;
        // After signo, errno, code and padding, the union starts at byte 16.
        let fields = match *self {
            Self::User { pid, uid, value, .. } => [pair(pid, uid), value, 0, 0],
            Self::Child { pid, uid, status, utime, stime, .. } => {
                [pair(pid, uid), low(status), utime as u64, stime as u64]
            }
            Self::Fault { addr, addr_lsb, .. } => [addr, addr_lsb.into(), 0, 0],
            Self::Timer { id, overrun, value, .. } => [pair(id, overrun as u32), value, 0, 0],
            Self::Poll { band, fd, .. } => [band as u64, low(fd), 0, 0],
            Self::Kernel { .. } => [0; 4],
        };
        let head = [low(self.signo()), low(self.code())];
        let mut bytes = [0; Self::SIZE];
        for (to, word) in bytes.chunks_exact_mut(8).zip(head.into_iter().chain(fields)) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// What `rt_sigqueueinfo` and `pidfd_send_signal` pass on: the sender's bytes read as [`SigInfo::User`].
    pub fn decode_user(bytes: &[u8; Self::SIZE]) -> Self {
        let word = |at: usize| bytes.get(at..).and_then(|b| b.first_chunk::<4>()).map_or(0, |b| i32::from_le_bytes(*b));
        let value = bytes.get(24..).and_then(|b| b.first_chunk::<8>()).map_or(0, |b| u64::from_le_bytes(*b));
        Self::User { signo: word(0), code: word(8), pid: word(16), uid: word(20) as u32, value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_round_trip() {
        let action = SigAction { handler: 1 << 40, flags: 0x0400_0000, restorer: 5 << 30, mask: 0xf0 };
        for isa in Isa::ALL {
            let bytes = action.encode(isa);
            assert_eq!(bytes.len(), SigAction::size(isa));
            let back = SigAction::decode(isa, &bytes).expect("all bytes");
            let restorer = if isa == Isa::Riscv64 { 0 } else { action.restorer };
            assert_eq!(back, SigAction { restorer, ..action });
            assert_eq!(SigAction::decode(isa, &bytes[1..]), None);
        }
    }

    #[test]
    fn siginfo_as_the_c_library_reads_it() {
        let info = SigInfo::Child { signo: 17, code: 1, pid: 42, uid: 7, status: 3, utime: 5, stime: 6 };
        let bytes = info.encode();
        // The offsets of glibc's siginfo_t for SIGCHLD.
        assert_eq!(
            (bytes[0], bytes[8], bytes[16], bytes[20], bytes[24], bytes[32], bytes[40]),
            (17, 1, 42, 7, 3, 5, 6)
        );
        let user = SigInfo::User { signo: 34, code: -1, pid: 9, uid: 8, value: u64::MAX - 1 };
        assert_eq!(SigInfo::decode_user(&user.encode()), user);
        let fault = SigInfo::Fault { signo: 11, code: 2, addr: 0xdead_beef_0000, addr_lsb: 0 };
        assert_eq!(fault.encode()[16..24], 0xdead_beef_0000u64.to_le_bytes());
    }
}
