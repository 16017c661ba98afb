//! The life of a task: run the program, serve what it asks for, go back.

use alloc::{boxed::Box, sync::Arc};
use core::sync::atomic::Ordering;

use base::Errno;
use hal::addr::UserAddr;
use hal::trace::Kind;
use hal::usermode::{Access, Exit, Fault, FaultKind, UserContext};
use mm::Violation;

use crate::{
    children::Status,
    cx::Cx,
    signal::{SigInfo, Signal, deliver::Call, info::code},
    task::{Start, Task},
};

type Exec = Box<dyn FnOnce(&Cx) -> base::Result<()> + Send>;

impl Task {
    /// What the thread of a task does from its first moment to its last.
    pub(crate) fn live(self: &Arc<Self>) {
        match self.take_start() {
            Some(Start::Kernel(run)) => run(self),
            Some(Start::User(regs)) => self.live_in_user_mode(regs, None),
            Some(Start::Program(exec)) => {
                let regs = Box::new(UserContext::new(UserAddr(0), UserAddr(0)));
                self.live_in_user_mode(regs, Some(exec));
            }
            None => {}
        }
        hal::space::deactivate();
    }

    fn live_in_user_mode(self: &Arc<Self>, regs: Box<UserContext>, exec: Option<Exec>) {
        let Some(space) = self.process().space() else { return };
        space.activate();
        let mut cx = Cx::new(self.clone(), regs, space);
        let tid_at = self.set_tid_at.load(Ordering::Relaxed);
        if tid_at != 0 {
            // Linux ignores a bad address here.
            let _ = cx.user(|u| u.write(tid_at, &self.tid().0.to_le_bytes()));
        }
        if let Some(exec) = exec
            && let Err(e) = exec(&cx)
        {
            log::error!("pid {} cannot execute its program: {e}", self.process().pid());
            cx.exit_group(Status::Exited(127));
        }
        // A signal may have come before the first instruction.
        if !cx.ended.get() {
            cx.attend(None);
        }
        cx.rseq_interrupted();
        while !cx.ended.get() {
            cx.one_round();
        }
    }
}

impl Cx {
    /// Once to user mode and back.
    #[inline]
    fn one_round(&mut self) {
        if self.fpu_away.replace(false) {
            self.regs_mut().fpu_restore();
        }
        let exit = self.regs_mut().run();
        let mut call = None;
        match exit {
            Exit::Syscall => {
                let regs = self.regs_mut();
                let (nr, args) = (regs.syscall_nr(), regs.syscall_args());
                let kernel = self.task().kernel();
                let result =
                    if kernel.is_traced() { self.traced_call(nr, args) } else { kernel.abi().syscall(self, nr, args) };
                self.regs_mut().set_result(result);
                call = Some(Call { nr });
            }
            Exit::Fault(fault) => self.fault(&fault),
            Exit::Irq => {}
        }
        if self.task().work.load(Ordering::Relaxed) != 0 && !self.ended.get() {
            self.attend(call);
        } else if let Some(call) = call
            && self.restart_is_set()
        {
            self.attend(Some(call));
        }
        if self.kernel().sched.wants_cpu() && !self.ended.get() {
            self.preempt();
        }
        if self.switched.replace(false) {
            self.rseq_interrupted();
        }
        if self.kernel_since.get() != 0 {
            self.count_kernel_time();
        }
    }

    /// A system call, noted.
    #[cold]
    #[inline(never)]
    fn traced_call(&self, nr: u64, args: [u64; 6]) -> i64 {
        hal::trace::note(Kind::Enter, nr as u32, args[0], args[1]);
        let result = self.task().kernel().abi().syscall(self, nr, args);
        hal::trace::note(Kind::Exit, nr as u32, result as u64, 0);
        result
    }

    #[cold]
    fn fault(&mut self, fault: &Fault) {
        self.kernel_since.set(hal::time::now());
        let info = match fault.kind {
            FaultKind::Page(access) => match self.page_fault(fault, access) {
                Some(info) => info,
                None => return,
            },
            kind => SigInfo::fault(signal_of(kind).0, signal_of(kind).1, fault.addr.0),
        };
        self.raise_fault(info, fault);
    }

    /// Brings the page in; or what the program did wrong.
    fn page_fault(&self, fault: &Fault, access: Access) -> Option<SigInfo> {
        self.task().times.faulted(false);
        let traced = self.kernel().is_traced();
        if traced {
            hal::trace::note(Kind::Fault, 0, fault.addr.0, 0);
        }
        let resolved = self.user(|u| u.resolve_why(fault.addr, access));
        if traced {
            hal::trace::note(Kind::Faulted, 0, 0, 0);
        }
        match resolved {
            Ok(Ok(())) => None,
            Ok(Err(violation)) => {
                let (signal, code) = match violation {
                    Violation::NotMapped => (Signal::SEGV, code::SEGV_MAPERR),
                    Violation::NotAllowed => (Signal::SEGV, code::SEGV_ACCERR),
                    Violation::NoPage => (Signal::BUS, code::BUS_ADRERR),
                };
                Some(SigInfo::fault(signal, code, fault.addr.0))
            }
            Err(e) if e == Errno::EINTR => None,
            Err(_) => {
                log::warn!("{:?} is out of memory at {:#x}", self.task(), fault.addr.0);
                self.exit_group(Status::Killed { signal: Signal::KILL, core: false });
                None
            }
        }
    }
}

const fn signal_of(kind: FaultKind) -> (Signal, i32) {
    match kind {
        FaultKind::Page(_) => (Signal::SEGV, code::SEGV_MAPERR),
        FaultKind::Illegal => (Signal::ILL, code::ILL_ILLOPN),
        FaultKind::Protection => (Signal::SEGV, code::SI_KERNEL),
        FaultKind::Divide => (Signal::FPE, code::FPE_INTDIV),
        FaultKind::Overflow => (Signal::FPE, code::FPE_INTOVF),
        FaultKind::Float(status) => (Signal::FPE, float_code(status)),
        FaultKind::Breakpoint => (Signal::TRAP, code::SI_KERNEL),
        FaultKind::Debug => (Signal::TRAP, code::TRAP_TRACE),
        FaultKind::Alignment => (Signal::BUS, code::BUS_ADRALN),
        FaultKind::Bus => (Signal::BUS, code::BUS_ADRERR),
    }
}

/// The order in which Linux looks at the bits of an x87/SSE status word; other ISAs give the same bits here.
const fn float_code(status: u32) -> i32 {
    if status & 0x01 != 0 {
        code::FPE_FLTINV
    } else if status & 0x04 != 0 {
        code::FPE_FLTDIV
    } else if status & 0x08 != 0 {
        code::FPE_FLTOVF
    } else if status & 0x12 != 0 {
        code::FPE_FLTUND
    } else if status & 0x20 != 0 {
        code::FPE_FLTRES
    } else {
        0
    }
}
