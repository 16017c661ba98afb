//! A program's registers.

use core::fmt::{self, Write};

use hal_api::{Access, Exit, Fault, FaultKind, PageFormat, SignalFrame, UserAddr, UserRegs, X86_64};
use x86_64::registers::control::Cr2;

use crate::fpu::Vector;
use crate::percpu::{USER_CS, USER_SS};
use crate::trap::{Registers, SYSCALL, enter_user};

/// Interrupt flag: always set in user mode.
pub(crate) const IF: u64 = 1 << 9;
/// What a program may set in rflags: CF PF AF ZF SF TF DF OF NT RF AC ID, as Linux' `FIX_EFLAGS`.
pub(crate) const RFLAGS_USER: u64 = 0x0005_0dd5;

/// The registers of one user thread.
#[repr(C, align(64))]
pub struct User {
    pub(crate) regs: Registers,
    pub(crate) vector: Vector,
}

impl Clone for User {
    fn clone(&self) -> Self {
        Self { regs: self.regs.clone(), vector: self.vector.clone() }
    }
}

impl User {
    /// Registers as a program sees them: `syscall` leaves its return address in rcx and the flags in r11.
    pub(crate) fn settle(&mut self) {
        if self.regs.vector == SYSCALL {
            self.regs.rcx = self.regs.rip;
            self.regs.r11 = self.regs.rflags;
        }
    }

    #[cold]
    fn fault(&mut self) -> Exit {
        let r = &self.regs;
        let mut fault =
            Fault { kind: FaultKind::Protection, addr: UserAddr(r.rip), trap: r.vector as u32, code: r.error as u32 };
        fault.kind = match r.vector {
            0 => FaultKind::Divide,
            1 => FaultKind::Debug,
            3 => FaultKind::Breakpoint,
            4 => FaultKind::Overflow,
            5 => FaultKind::Protection,
            6 => FaultKind::Illegal,
            14 => {
                fault.addr = UserAddr(Cr2::read_raw());
                FaultKind::Page(match (r.error & 1 << 4 != 0, r.error & 2 != 0) {
                    (true, _) => Access::Execute,
                    (_, true) => Access::Write,
                    _ => Access::Read,
                })
            }
            16 => FaultKind::Float(crate::fpu::x87_status()),
            17 => FaultKind::Alignment,
            18 => FaultKind::Bus,
            19 => FaultKind::Float(crate::fpu::mxcsr()),
            _ => FaultKind::Protection,
        };
        Exit::Fault(fault)
    }
}

// SAFETY: `run` cleans rflags and selectors where they enter (`new`, `pop_signal`), and refuses an instruction pointer outside
// the user half, so neither `sysret` nor `iretq` can fault; vector state is cleaned in `fpu`.
unsafe impl UserRegs for User {
    const SIGNAL_FRAME_MAX: usize = crate::signal::FRAME_MAX;

    fn new(ip: UserAddr, sp: UserAddr) -> Self {
        let regs = Registers {
            rip: ip.0,
            rsp: sp.0,
            cs: u64::from(USER_CS),
            ss: u64::from(USER_SS),
            rflags: IF,
            ..Registers::default()
        };
        Self { regs, vector: Vector::new() }
    }

    #[inline]
    fn run(&mut self) -> Exit {
        if self.regs.rip >= X86_64::user_top() {
            let addr = UserAddr(self.regs.rip);
            return Exit::Fault(Fault { kind: FaultKind::Protection, addr, trap: 13, code: 0 });
        }
        self.vector.load();
        // SAFETY: the registers are clean (see above), interrupts are off, GS is this CPU's block.
        unsafe { enter_user(&raw mut self.regs) };
        let vector = self.regs.vector;
        if vector == SYSCALL {
            return Exit::Syscall;
        }
        crate::copy::close_user();
        if vector < 0x20 {
            return self.fault();
        }
        crate::trap::interrupt(vector as u8);
        Exit::Irq
    }

    #[inline]
    fn syscall_nr(&self) -> u64 {
        self.regs.rax
    }

    #[inline]
    fn syscall_args(&self) -> [u64; 6] {
        let r = &self.regs;
        [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9]
    }

    #[inline]
    fn set_result(&mut self, value: i64) {
        self.regs.rax = value as u64;
    }

    fn result(&self) -> i64 {
        self.regs.rax as i64
    }

    fn rewind_syscall(&mut self, nr: u64) {
        // The instruction is two bytes long.
        self.regs.rip = self.regs.rip.wrapping_sub(2);
        self.regs.rax = nr;
    }

    fn ip(&self) -> UserAddr {
        UserAddr(self.regs.rip)
    }

    fn set_ip(&mut self, at: UserAddr) {
        self.regs.rip = at.0;
    }

    fn sp(&self) -> UserAddr {
        UserAddr(self.regs.rsp)
    }

    fn set_sp(&mut self, at: UserAddr) {
        self.regs.rsp = at.0;
    }

    fn tls(&self) -> u64 {
        self.vector.fs_base()
    }

    fn set_tls(&mut self, value: u64) {
        self.vector.set_fs_base(value);
    }

    fn tls2(&self) -> u64 {
        self.vector.gs_base()
    }

    fn set_tls2(&mut self, value: u64) -> bool {
        self.vector.set_gs_base(value);
        true
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
        writeln!(out, "rip {:016x} rsp {:016x} rflags {:08x} vector {:#x}", r.rip, r.rsp, r.rflags, r.vector)?;
        writeln!(out, "rax {:016x} rbx {:016x} rcx {:016x} rdx {:016x}", r.rax, r.rbx, r.rcx, r.rdx)?;
        writeln!(out, "rsi {:016x} rdi {:016x} rbp {:016x} r8  {:016x}", r.rsi, r.rdi, r.rbp, r.r8)?;
        writeln!(out, "r9  {:016x} r10 {:016x} r11 {:016x} r12 {:016x}", r.r9, r.r10, r.r11, r.r12)?;
        writeln!(out, "r13 {:016x} r14 {:016x} r15 {:016x} fs  {:016x}", r.r13, r.r14, r.r15, self.tls())
    }
}
