//! What comes with a signal: `siginfo_t` as a kernel type, encoded for a program only at delivery. The layout is that of all 64-bit
//! ISAs (`asm-generic/siginfo.h`).

use super::set::Signal;
use crate::ids::Pid;

/// `si_code` values, sigaction(2).
pub mod code {
    /// kill(2).
    pub const SI_USER: i32 = 0;
    /// The kernel.
    pub const SI_KERNEL: i32 = 0x80;
    /// rt_sigqueueinfo(2).
    pub const SI_QUEUE: i32 = -1;
    /// A POSIX timer expired.
    pub const SI_TIMER: i32 = -2;
    /// tkill(2), tgkill(2).
    pub const SI_TKILL: i32 = -6;
    /// A child exited.
    pub const CLD_EXITED: i32 = 1;
    /// A child was killed.
    pub const CLD_KILLED: i32 = 2;
    /// A child was killed and dumped core.
    pub const CLD_DUMPED: i32 = 3;
    /// A child stopped.
    pub const CLD_STOPPED: i32 = 5;
    /// A child went on.
    pub const CLD_CONTINUED: i32 = 6;
    /// Address not mapped.
    pub const SEGV_MAPERR: i32 = 1;
    /// Access not allowed.
    pub const SEGV_ACCERR: i32 = 2;
    /// Misaligned.
    pub const BUS_ADRALN: i32 = 1;
    /// Beyond the end of the object.
    pub const BUS_ADRERR: i32 = 2;
    /// Illegal opcode.
    pub const ILL_ILLOPC: i32 = 1;
    /// Illegal operand.
    pub const ILL_ILLOPN: i32 = 2;
    /// Division by zero.
    pub const FPE_INTDIV: i32 = 1;
    /// Integer overflow.
    pub const FPE_INTOVF: i32 = 2;
    /// Floating-point division by zero.
    pub const FPE_FLTDIV: i32 = 3;
    /// Floating-point overflow.
    pub const FPE_FLTOVF: i32 = 4;
    /// Floating-point underflow.
    pub const FPE_FLTUND: i32 = 5;
    /// Inexact result.
    pub const FPE_FLTRES: i32 = 6;
    /// Invalid operation.
    pub const FPE_FLTINV: i32 = 7;
    /// Breakpoint.
    pub const TRAP_BRKPT: i32 = 1;
    /// Single step.
    pub const TRAP_TRACE: i32 = 2;
}

/// The part of a `siginfo_t` that depends on where the signal came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The kernel, with nothing to add.
    Kernel,
    /// kill(2) and its relatives.
    User {
        /// The sender.
        pid: Pid,
        /// Its real user.
        uid: u32,
        /// The value of sigqueue(3); 0 for kill.
        value: u64,
    },
    /// A POSIX timer.
    Timer {
        /// The timer's id.
        id: i32,
        /// Expiries since the signal was queued.
        overrun: i32,
        /// `sigev_value`.
        value: u64,
    },
    /// A child changed state.
    Child {
        /// The child.
        pid: Pid,
        /// Its real user.
        uid: u32,
        /// Exit code or signal number.
        status: i32,
        /// User time in clock ticks of 10 ms.
        utime: u64,
        /// System time in clock ticks.
        stime: u64,
    },
    /// A fault of the program.
    Fault {
        /// The address concerned.
        addr: u64,
    },
    /// What a program gave to rt_sigqueueinfo(2) itself: the 112 bytes after `si_code` and its padding.
    Raw([u8; 112]),
}

/// A signal with its `siginfo_t`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SigInfo {
    /// Which signal.
    pub signal: Signal,
    /// `si_code`.
    pub code: i32,
    /// `si_errno`.
    pub errno: i32,
    /// Where it came from.
    pub origin: Origin,
}

impl SigInfo {
    /// From the kernel (`SI_KERNEL`).
    pub const fn kernel(signal: Signal) -> Self {
        Self { signal, code: code::SI_KERNEL, errno: 0, origin: Origin::Kernel }
    }

    /// From kill(2).
    pub const fn user(signal: Signal, pid: Pid, uid: u32) -> Self {
        Self { signal, code: code::SI_USER, errno: 0, origin: Origin::User { pid, uid, value: 0 } }
    }

    /// From a fault.
    pub const fn fault(signal: Signal, code: i32, addr: u64) -> Self {
        Self { signal, code, errno: 0, origin: Origin::Fault { addr } }
    }

    /// The 128 bytes that a program sees.
    pub fn to_bytes(&self) -> [u8; 128] {
        let mut b = [0_u8; 128];
        put(&mut b, 0, &i32::from(self.signal.number()).to_le_bytes());
        put(&mut b, 4, &self.errno.to_le_bytes());
        put(&mut b, 8, &self.code.to_le_bytes());
        match self.origin {
            Origin::Kernel => {}
            Origin::User { pid, uid, value } => {
                put(&mut b, 16, &pid.0.to_le_bytes());
                put(&mut b, 20, &uid.to_le_bytes());
                put(&mut b, 24, &value.to_le_bytes());
            }
            Origin::Timer { id, overrun, value } => {
                put(&mut b, 16, &id.to_le_bytes());
                put(&mut b, 20, &overrun.to_le_bytes());
                put(&mut b, 24, &value.to_le_bytes());
            }
            Origin::Child { pid, uid, status, utime, stime } => {
                put(&mut b, 16, &pid.0.to_le_bytes());
                put(&mut b, 20, &uid.to_le_bytes());
                put(&mut b, 24, &status.to_le_bytes());
                put(&mut b, 32, &utime.to_le_bytes());
                put(&mut b, 40, &stime.to_le_bytes());
            }
            Origin::Fault { addr } => put(&mut b, 16, &addr.to_le_bytes()),
            Origin::Raw(raw) => put(&mut b, 16, &raw),
        }
        b
    }

    /// What a program gave to rt_sigqueueinfo(2); the signal number is the call's argument, not the struct's.
    pub fn from_bytes(signal: Signal, b: &[u8; 128]) -> Self {
        let mut raw = [0; 112];
        raw.copy_from_slice(&b[16..128]);
        Self { signal, code: word(b, 8), errno: word(b, 4), origin: Origin::Raw(raw) }
    }

    /// The sender's pid, if it has one (`ssi_pid`).
    pub fn pid(&self) -> Option<Pid> {
        match self.origin {
            Origin::User { pid, .. } | Origin::Child { pid, .. } => Some(pid),
            _ => None,
        }
    }
}

fn put(b: &mut [u8; 128], at: usize, bytes: &[u8]) {
    b[at..at + bytes.len()].copy_from_slice(bytes);
}

fn word(b: &[u8; 128], at: usize) -> i32 {
    i32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::{Origin, SigInfo};
    use crate::{ids::Pid, signal::Signal};

    #[test]
    fn a_child_record_lies_where_programs_look() {
        let info = SigInfo {
            signal: Signal::CHLD,
            code: 1,
            errno: 0,
            origin: Origin::Child { pid: Pid(7), uid: 3, status: 42, utime: 5, stime: 6 },
        };
        let b = info.to_bytes();
        assert_eq!((b[0], b[8], b[16], b[20], b[24], b[32], b[40]), (17, 1, 7, 3, 42, 5, 6));
    }

    #[test]
    fn raw_info_survives() {
        let mut b = [7_u8; 128];
        b[0] = 10;
        let info = SigInfo::from_bytes(Signal::USR1, &b);
        let back = info.to_bytes();
        assert_eq!(back[16..], b[16..]);
        assert_eq!(back[8..12], b[8..12]);
    }
}
