//! The registers of a user thread, and running it.

use hal_api::{Platform, UserAddr, UserRegs};

pub use hal_api::{Access, Exit, Fault, FaultKind, SignalFrame};

use crate::P;

type Regs = <P as Platform>::User;

/// Most bytes of a signal frame on this ISA.
pub const SIGNAL_FRAME_MAX: usize = Regs::SIGNAL_FRAME_MAX;

/// The registers of one user thread, FPU and vector state included. Cloning it copies them all (after [`UserContext::fpu_save`]).
#[derive(Clone)]
pub struct UserContext(Regs);

impl UserContext {
    /// Registers for a program that starts at `ip` with its stack at `sp`; everything else is 0.
    pub fn new(ip: UserAddr, sp: UserAddr) -> Self {
        Self(Regs::new(ip, sp))
    }

    /// Runs the program in the active address space until it ends up in the kernel again. An interrupt's handler has run before this
    /// returns `Exit::Irq`.
    ///
    /// # Panics
    /// With checks: if this CPU holds a lock.
    #[inline]
    #[track_caller]
    pub fn run(&mut self) -> Exit {
        crate::sync::assert_no_lock("user mode");
        self.0.run()
    }

    /// The number of the system call that `run` returned for.
    #[inline]
    pub fn syscall_nr(&self) -> u64 {
        self.0.syscall_nr()
    }

    /// Its six arguments.
    #[inline]
    pub fn syscall_args(&self) -> [u64; 6] {
        self.0.syscall_args()
    }

    /// Puts the result (or a negated errno) where the program looks for it.
    #[inline]
    pub fn set_result(&mut self, value: i64) {
        self.0.set_result(value);
    }

    /// The result as the program would see it now.
    pub fn result(&self) -> i64 {
        self.0.result()
    }

    /// Goes back to the system-call instruction, with number `nr` and the original arguments.
    pub fn rewind_syscall(&mut self, nr: u64) {
        self.0.rewind_syscall(nr);
    }

    /// Instruction pointer.
    pub fn ip(&self) -> UserAddr {
        self.0.ip()
    }

    /// Sets the instruction pointer.
    pub fn set_ip(&mut self, at: UserAddr) {
        self.0.set_ip(at);
    }

    /// Stack pointer.
    pub fn sp(&self) -> UserAddr {
        self.0.sp()
    }

    /// Sets the stack pointer.
    pub fn set_sp(&mut self, at: UserAddr) {
        self.0.set_sp(at);
    }

    /// The thread pointer.
    pub fn tls(&self) -> u64 {
        self.0.tls()
    }

    /// Sets the thread pointer.
    pub fn set_tls(&mut self, value: u64) {
        self.0.set_tls(value);
    }

    /// The second base register (x86 gs base), 0 where there is none.
    pub fn tls2(&self) -> u64 {
        self.0.tls2()
    }

    /// Sets it; `false` where there is none.
    pub fn set_tls2(&mut self, value: u64) -> bool {
        self.0.set_tls2(value)
    }

    /// Brings FPU and vector state from the CPU into this value, if the program has any: before another thread runs here, before a clone.
    #[inline]
    pub fn fpu_save(&mut self) {
        self.0.fpu_save();
    }

    /// Puts it back into the CPU: before `run`, after another thread ran here.
    #[inline]
    pub fn fpu_restore(&mut self) {
        self.0.fpu_restore();
    }

    /// The registers of a new thread or process: a copy in which the system call returned 0, with its own stack and thread pointer if given.
    pub fn for_clone(&mut self, sp: Option<UserAddr>, tls: Option<u64>) -> Self {
        self.0.fpu_save();
        let mut child = self.clone();
        child.set_result(0);
        if let Some(sp) = sp {
            child.set_sp(sp);
        }
        if let Some(tls) = tls {
            child.set_tls(tls);
        }
        child
    }

    /// Builds the signal frame in `buf` (at least [`SIGNAL_FRAME_MAX`] bytes) and sets the registers to enter the handler. Returns where in user
    /// memory the first `n` bytes of `buf` must be copied: the caller does that, and if it cannot, the program dies of SIGSEGV. `None`: the
    /// stack pointer leaves no room.
    pub fn push_signal(&mut self, frame: &SignalFrame<'_>, buf: &mut [u8]) -> Option<(UserAddr, usize)> {
        self.0.fpu_save();
        self.0.push_signal(frame, buf)
    }

    /// Where the frame that `rt_sigreturn` is to undo lies, and how many bytes to read at most.
    pub fn signal_frame_at(&self) -> (UserAddr, usize) {
        self.0.signal_frame_at()
    }

    /// Takes the registers back from a frame; the signal mask to restore, or `None` if the frame is not acceptable (SIGSEGV).
    pub fn pop_signal(&mut self, frame: &[u8]) -> Option<u64> {
        let mask = self.0.pop_signal(frame)?;
        self.0.fpu_restore();
        Some(mask)
    }

    /// The registers for people.
    pub fn dump(&self, out: &mut dyn core::fmt::Write) -> core::fmt::Result {
        self.0.dump(out)
    }

    /// The platform's registers; on the host that is the script.
    #[cfg(not(target_os = "none"))]
    pub fn regs_mut(&mut self) -> &mut Regs {
        &mut self.0
    }
}

impl core::fmt::Debug for UserContext {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "UserContext(ip {:#x}, sp {:#x})", self.ip().0, self.sp().0)
    }
}
