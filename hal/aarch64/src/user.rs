//! A program's registers.

use core::fmt::{self, Write};

use hal_api::{Aarch64, Access, Exit, Fault, FaultKind, PageFormat, SignalFrame, UserAddr, UserRegs};

use crate::fpu::Vector;
use crate::trap::{IRQ, Registers, SYNC, enter_user};

/// What a program may set in its state: N, Z, C, V and SSBS. Everything else is 0: AArch64 at EL0, nothing masked.
pub(crate) const PSTATE_USER: u64 = 0xf000_0000 | 1 << 12;

/// The registers of one user thread.
#[repr(C, align(16))]
pub struct User {
    pub(crate) regs: Registers,
    /// x0 as it was when the system call began: its result goes there.
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
        let (class, esr) = (r.esr >> 26 & 0x3f, r.esr as u32);
        let mut fault = Fault { kind: FaultKind::Illegal, addr: UserAddr(r.pc), trap: class as u32, code: esr };
        let mut memory = |access| {
            fault.addr = UserAddr(r.far);
            match esr & 0x3f {
                // Address size, translation, access flag, permission; by level.
                0x00..=0x0f => FaultKind::Page(access),
                0x21 => FaultKind::Alignment,
                _ => FaultKind::Bus,
            }
        };
        fault.kind = match class {
            0x20 => memory(Access::Execute),
            // A store, but for cache maintenance, which only has to be allowed to read.
            0x24 if esr & 1 << 6 != 0 && esr & 1 << 8 == 0 => memory(Access::Write),
            0x24 => memory(Access::Read),
            0x22 | 0x26 => FaultKind::Alignment,
            0x2c => FaultKind::Float(esr),
            0x30 | 0x32 | 0x34 => FaultKind::Debug,
            0x38 | 0x3c => FaultKind::Breakpoint,
            0x2f => FaultKind::Bus,
            _ => FaultKind::Illegal,
        };
        Exit::Fault(fault)
    }
}

/// `svc` from 64-bit code.
const SVC: u64 = 0x15;

// SAFETY: `run` enters EL0 with a state of which programs choose only flags (`new`, `pop_signal`), so whatever the registers hold the kernel gets
// control back by an exception that saves them where `enter_user` said.
unsafe impl UserRegs for User {
    const SIGNAL_FRAME_MAX: usize = crate::signal::FRAME_MAX;

    fn new(ip: UserAddr, sp: UserAddr) -> Self {
        let regs = Registers { pc: ip.0, sp: sp.0, ..Registers::default() };
        Self { regs, argument: 0, vector: Vector::new() }
    }

    #[inline]
    fn run(&mut self) -> Exit {
        if self.regs.pc >= Aarch64::user_top() {
            let addr = UserAddr(self.regs.pc);
            return Exit::Fault(Fault { kind: FaultKind::Protection, addr, trap: 0x20, code: 0 });
        }
        self.vector.load();
        // SAFETY: the state is clean (see above), interrupts are off.
        unsafe { enter_user(&raw mut self.regs) };
        match self.regs.kind {
            SYNC if self.regs.esr >> 26 & 0x3f == SVC => {
                self.argument = self.regs.x[0];
                Exit::Syscall
            }
            SYNC => self.fault(),
            IRQ => {
                crate::trap::interrupts();
                Exit::Irq
            }
            _ => {
                let addr = UserAddr(self.regs.pc);
                Exit::Fault(Fault { kind: FaultKind::Bus, addr, trap: 0x2f, code: self.regs.esr as u32 })
            }
        }
    }

    #[inline]
    fn syscall_nr(&self) -> u64 {
        self.regs.x[8]
    }

    #[inline]
    fn syscall_args(&self) -> [u64; 6] {
        let [a, b, c, d, e, f, ..] = self.regs.x;
        [a, b, c, d, e, f]
    }

    #[inline]
    fn set_result(&mut self, value: i64) {
        self.regs.x[0] = value as u64;
    }

    fn result(&self) -> i64 {
        self.regs.x[0] as i64
    }

    fn rewind_syscall(&mut self, nr: u64) {
        self.regs.pc = self.regs.pc.wrapping_sub(4);
        self.regs.x[0] = self.argument;
        self.regs.x[8] = nr;
    }

    fn ip(&self) -> UserAddr {
        UserAddr(self.regs.pc)
    }

    fn set_ip(&mut self, at: UserAddr) {
        self.regs.pc = at.0;
    }

    fn sp(&self) -> UserAddr {
        UserAddr(self.regs.sp)
    }

    fn set_sp(&mut self, at: UserAddr) {
        self.regs.sp = at.0;
    }

    fn tls(&self) -> u64 {
        self.vector.tls()
    }

    fn set_tls(&mut self, value: u64) {
        self.vector.set_tls(value);
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
        writeln!(out, "pc {:016x} sp {:016x} pstate {:08x} esr {:#x}", r.pc, r.sp, r.pstate, r.esr)?;
        for (i, four) in r.x.chunks(4).enumerate() {
            for (j, value) in four.iter().enumerate() {
                write!(out, "x{:<2} {value:016x} ", i * 4 + j)?;
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
