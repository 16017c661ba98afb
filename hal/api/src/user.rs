//! What the kernel and a program's registers have to do with each other.

use crate::addr::UserAddr;

/// What an instruction wanted to do with memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Execute,
}

/// Why a program stopped other than by asking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// A page that is absent or does not allow the access; `addr` says which.
    Page(Access),
    /// An instruction that does not exist or is not allowed (SIGILL).
    Illegal,
    /// A privileged or otherwise protected operation (x86 #GP, #SS, #NP): SIGSEGV with `SI_KERNEL`.
    Protection,
    /// Integer division (SIGFPE, `FPE_INTDIV`).
    Divide,
    /// Integer overflow trap (SIGFPE, `FPE_INTOVF`).
    Overflow,
    /// Floating point (SIGFPE); the raw status word.
    Float(u32),
    /// A breakpoint instruction (SIGTRAP, `SI_KERNEL`).
    Breakpoint,
    /// Single step or hardware breakpoint (SIGTRAP).
    Debug,
    /// A misaligned access that the hardware refuses (SIGBUS, `BUS_ADRALN`).
    Alignment,
    /// A machine or bus error (SIGBUS).
    Bus,
}

/// A fault of a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// The data address of a page or alignment fault, else the instruction pointer.
    pub addr: UserAddr,
    /// The hardware's trap number, for the signal frame (x86 `trapno`).
    pub trap: u32,
    /// The hardware's error code, for the signal frame (x86 `err`).
    pub code: u32,
}

/// Why user mode ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// A system call; number and arguments are in the context.
    Syscall,
    /// The program did something it may not.
    Fault(Fault),
    /// An interrupt arrived; its handler has already run.
    Irq,
}

/// What is needed to call a signal handler. Numbers are those of the program's ISA.
#[derive(Clone, Copy, Debug)]
pub struct SignalFrame<'a> {
    /// Signal number.
    pub signo: u32,
    /// `siginfo_t`, 128 bytes as the program sees them.
    pub siginfo: &'a [u8; 128],
    /// Where the handler is.
    pub handler: UserAddr,
    /// `sa_restorer`, the return address of the handler (ISAs with a vDSO trampoline put that here).
    pub restorer: UserAddr,
    /// Whether the handler wants `siginfo` and `ucontext` (SA_SIGINFO); the frame holds them anyway.
    pub siginfo_wanted: bool,
    /// The mask to restore at return.
    pub old_mask: u64,
    /// Alternate stack to write into `uc_stack`: base, size, flags.
    pub altstack: (u64, u64, u32),
    /// The top of the alternate stack if the handler is to run on it, else the interrupted stack is used.
    pub stack_top: Option<UserAddr>,
    /// For a page fault: the address for `cr2`/`fault_address`, trap number and error code.
    pub fault: Option<Fault>,
}

/// The registers of one user thread. A value: cloning it is what `clone` does.
///
/// # Safety
/// `run` returns only with the kernel's own state intact, whatever the registers hold: an implementation cleans or refuses
/// register values that would hurt the kernel (`rflags`, segment selectors, non-canonical addresses, reserved MXCSR bits).
pub unsafe trait UserRegs: Clone + Send + Sized + 'static {
    /// Most bytes of a signal frame, the red zone excluded.
    const SIGNAL_FRAME_MAX: usize;

    /// Registers for a program that starts at `ip` with its stack at `sp`; everything else 0.
    fn new(ip: UserAddr, sp: UserAddr) -> Self;
    /// Runs the program in the active address space until it ends up in the kernel again. Called and returns with interrupts off.
    fn run(&mut self) -> Exit;

    /// The number of the system call.
    fn syscall_nr(&self) -> u64;
    /// Its six arguments.
    fn syscall_args(&self) -> [u64; 6];
    /// Puts the result where the program looks for it.
    fn set_result(&mut self, value: i64);
    /// The value the program would see now.
    fn result(&self) -> i64;
    /// Goes back to the system-call instruction with number `nr` and the original arguments (SA_RESTART, `restart_syscall`).
    fn rewind_syscall(&mut self, nr: u64);

    /// Instruction pointer.
    fn ip(&self) -> UserAddr;
    /// Sets the instruction pointer; a value outside the user half makes `run` return a fault.
    fn set_ip(&mut self, at: UserAddr);
    /// Stack pointer.
    fn sp(&self) -> UserAddr;
    /// Sets the stack pointer.
    fn set_sp(&mut self, at: UserAddr);
    /// The thread pointer (fs base, TPIDR_EL0, tp).
    fn tls(&self) -> u64;
    /// Sets the thread pointer.
    fn set_tls(&mut self, value: u64);
    /// The second base register where there is one (x86 gs base), else 0.
    fn tls2(&self) -> u64 {
        0
    }
    /// Sets it; `false` where there is none.
    fn set_tls2(&mut self, _value: u64) -> bool {
        false
    }

    /// Brings the FPU and vector state that lies in the CPU into this value: before another thread runs on this CPU, before a
    /// clone, before a signal frame. No-op for a thread that never used it.
    fn fpu_save(&mut self);
    /// Puts it back into the CPU before `run`.
    fn fpu_restore(&mut self);

    /// Writes the frame image for a handler into `buf` and returns `(user address where the bytes go, number of bytes)`, and
    /// changes the registers so that `run` enters the handler. `fpu_save` was called. `None` if `sp` leaves no room.
    fn push_signal(&mut self, frame: &SignalFrame<'_>, buf: &mut [u8]) -> Option<(UserAddr, usize)>;
    /// Where the frame of the handler that now calls `rt_sigreturn` lies, and how many bytes to read (at most).
    fn signal_frame_at(&self) -> (UserAddr, usize);
    /// Takes the registers back from a frame image; the mask to restore, or `None` if the frame is not acceptable (SIGSEGV).
    fn pop_signal(&mut self, frame: &[u8]) -> Option<u64>;

    /// The registers as `ptrace` and core dumps order them on this ISA (`user_regs_struct`), for diagnostics.
    fn dump(&self, out: &mut dyn core::fmt::Write) -> core::fmt::Result;
}
