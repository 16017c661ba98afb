//! A program's registers.

use core::fmt::{self, Write};

use hal_api::{Access, Exit, Fault, FaultKind, PageFormat, SignalFrame, UserAddr, UserRegs};

use crate::cpu::{FS, SPIE};
use crate::format::Sv;
use crate::fpu::Vector;
use crate::trap::{BREAKPOINT, ECALL, FETCH_PAGE, ILLEGAL, INTERRUPT, LOAD_PAGE, Registers, STORE_PAGE, enter_user};

/// The state of every program: user mode of 64 bits, interrupts and floating point on.
const STATUS: u64 = SPIE | FS | 2 << 32;

// Places of registers in `Registers::x`, which begins with x1.
pub(crate) const RA: usize = 0;
pub(crate) const SP: usize = 1;
const TP: usize = 3;
/// a0, the first argument and the result.
pub(crate) const A0: usize = 9;
/// a7, the number of a system call.
const A7: usize = 16;

/// Bytes of `ecall`.
const ECALL_SIZE: u64 = 4;

/// The registers of one user thread.
#[repr(C, align(16))]
pub struct User {
    pub(crate) regs: Registers,
    /// a0 as it was when the system call began: its result goes there.
    argument: u64,
    pub(crate) vector: Vector,
}

impl Clone for User {
    fn clone(&self) -> Self {
        Self { regs: self.regs.clone(), argument: self.argument, vector: self.vector.clone() }
    }
}

impl User {
    #[cold]
    fn fault(&mut self) -> Exit {
        let r = &self.regs;
        let page = |access| {
            // This CPU may remember that there was nothing.
            crate::paging::forget_user(r.value & !0xfff, 1);
            (FaultKind::Page(access), r.value)
        };
        let (kind, addr) = match r.cause {
            0 | 4 | 6 => (FaultKind::Alignment, r.value),
            1 | 5 | 7 => (FaultKind::Bus, r.value),
            FETCH_PAGE => page(Access::Execute),
            LOAD_PAGE => page(Access::Read),
            STORE_PAGE => page(Access::Write),
            BREAKPOINT => (FaultKind::Breakpoint, r.pc),
            ILLEGAL => (FaultKind::Illegal, r.pc),
            _ => (FaultKind::Illegal, r.pc),
        };
        Exit::Fault(Fault { kind, addr: UserAddr(addr), trap: r.cause as u32, code: 0 })
    }
}

// SAFETY: `run` enters user mode with a state of which programs choose nothing, so whatever the registers hold the kernel gets
// control back by a trap that saves them where `enter_user` said.
unsafe impl UserRegs for User {
    const SIGNAL_FRAME_MAX: usize = crate::signal::FRAME_MAX;

    fn new(ip: UserAddr, sp: UserAddr) -> Self {
        let mut regs = Registers { pc: ip.0, status: STATUS, ..Registers::default() };
        regs.x[SP] = sp.0;
        Self { regs, argument: 0, vector: Vector::new() }
    }

    #[inline]
    fn run(&mut self) -> Exit {
        if self.regs.pc >= Sv::user_top() {
            let addr = UserAddr(self.regs.pc);
            return Exit::Fault(Fault { kind: FaultKind::Protection, addr, trap: FETCH_PAGE as u32, code: 0 });
        }
        self.vector.load();
        self.regs.status = STATUS;
        // SAFETY: the state is clean (see above), only urgent interrupts are open.
        unsafe { enter_user(&raw mut self.regs) };
        match self.regs.cause {
            ECALL => {
                self.argument = self.regs.x[A0];
                self.regs.pc = self.regs.pc.wrapping_add(ECALL_SIZE);
                Exit::Syscall
            }
            cause if cause & INTERRUPT != 0 => {
                crate::trap::interrupt(cause);
                Exit::Irq
            }
            _ => self.fault(),
        }
    }

    #[inline]
    fn syscall_nr(&self) -> u64 {
        self.regs.x[A7]
    }

    #[inline]
    fn syscall_args(&self) -> [u64; 6] {
        let x = &self.regs.x;
        [x[A0], x[A0 + 1], x[A0 + 2], x[A0 + 3], x[A0 + 4], x[A0 + 5]]
    }

    #[inline]
    fn set_result(&mut self, value: i64) {
        self.regs.x[A0] = value as u64;
    }

    fn result(&self) -> i64 {
        self.regs.x[A0] as i64
    }

    fn rewind_syscall(&mut self, nr: u64) {
        self.regs.pc = self.regs.pc.wrapping_sub(ECALL_SIZE);
        self.regs.x[A0] = self.argument;
        self.regs.x[A7] = nr;
    }

    fn ip(&self) -> UserAddr {
        UserAddr(self.regs.pc)
    }

    fn set_ip(&mut self, at: UserAddr) {
        self.regs.pc = at.0;
    }

    fn sp(&self) -> UserAddr {
        UserAddr(self.regs.x[SP])
    }

    fn set_sp(&mut self, at: UserAddr) {
        self.regs.x[SP] = at.0;
    }

    fn tls(&self) -> u64 {
        self.regs.x[TP]
    }

    fn set_tls(&mut self, value: u64) {
        self.regs.x[TP] = value;
    }

    fn fpu_save(&mut self) {
        self.vector.save();
    }

    fn fpu_restore(&mut self) {
        self.vector.load();
    }

    fn push_signal(&mut self, frame: &SignalFrame<'_>, buf: &mut [u8]) -> Option<(UserAddr, usize)> {
        crate::signal::push(self, frame, buf)
    }

    fn signal_frame_at(&self) -> (UserAddr, usize) {
        crate::signal::frame_at(self)
    }

    fn pop_signal(&mut self, frame: &[u8]) -> Option<u64> {
        crate::signal::pop(self, frame)
    }

    fn dump(&self, out: &mut dyn Write) -> fmt::Result {
        let r = &self.regs;
        writeln!(out, "pc {:016x} status {:x} cause {} value {:016x}", r.pc, r.status, r.cause, r.value)?;
        for (i, four) in r.x.chunks(4).enumerate() {
            for (j, value) in four.iter().enumerate() {
                write!(out, "x{:<2} {value:016x} ", i * 4 + j + 1)?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
