//! Delivery, on the way back to user mode: stops, ends, handlers, and calls that start again.

use base::{Errno, Result};
use hal::{
    addr::UserAddr,
    usermode::{Fault, SIGNAL_FRAME_MAX, SignalFrame},
};

use super::{
    Action, Origin, SigInfo, SigSet, Signal,
    action::{self, flags},
    set::Default,
};
use crate::{
    children::Status,
    cx::{Cx, Restart},
    process::JobState,
    task::{AltStack, State, work},
    wait::{Interrupted, Timeout},
};

/// The call that user mode is to return from, if it was a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Call {
    pub nr: u64,
}

impl Cx {
    /// Does what keeps the task from going back to user mode. Returns when nothing does, or when the task has ended (see `Cx::ended`).
    pub(crate) fn attend(&self, mut call: Option<Call>) {
        loop {
            let bits = self.task().work.load(core::sync::atomic::Ordering::SeqCst);
            if bits & work::DIE != 0 {
                return self.die();
            }
            if bits & work::CPU_TIME != 0 {
                self.task().clear_work(work::CPU_TIME);
                self.process().check_cpu_timers();
                continue;
            }
            if bits & work::STOP != 0 {
                self.stop_here();
                continue;
            }
            if bits & work::SIGNAL != 0 {
                let mask = self.task().mask();
                match self.task().take_signal(SigSet(!mask.0)) {
                    Some(info) => {
                        if self.deliver(info, call) {
                            // The call's fate is decided; another signal on top interrupts the handler.
                            call = None;
                        }
                        if self.ended.get() {
                            return;
                        }
                    }
                    None => self.task().recheck_signals(),
                }
                continue;
            }
            // No handler runs: the call starts again where it should.
            if let Some(call) = call.take() {
                self.restart_without_handler(call);
            }
            if bits & work::MASK != 0 {
                self.task().clear_work(work::MASK);
                let saved = self.task().signals.lock().saved_mask.take();
                if let Some(mask) = saved {
                    self.task().set_mask(mask);
                }
                continue;
            }
            return;
        }
    }

    fn die(&self) {
        let status = {
            let shared = self.process().shared.lock();
            match (shared.exiting, shared.execing) {
                // Another thread calls execve: only this one ends.
                (None, Some(tid)) if tid != self.task().tid() => Status::Killed { signal: Signal::KILL, core: false },
                (None, _) => {
                    drop(shared);
                    self.task().clear_work(work::DIE);
                    return;
                }
                (Some(status), _) => status,
            }
        };
        self.exit_thread(status);
    }

    fn restart_without_handler(&self, call: Call) {
        let restart = self.take_restart();
        let mut regs = self.regs();
        if regs.result() != -i64::from(Errno::EINTR.number()) {
            return;
        }
        match restart {
            Restart::No => {}
            Restart::IfAllowed | Restart::NoHandler | Restart::Always => regs.rewind_syscall(call.nr),
            Restart::Block => {
                let nr = self.task().kernel().abi().restart_nr(self.task().isa);
                regs.rewind_syscall(nr);
            }
        }
    }

    /// Whether a handler was entered.
    fn deliver(&self, info: SigInfo, call: Option<Call>) -> bool {
        let signal = info.signal;
        let action = {
            let mut shared = self.process().shared.lock();
            let action = *shared.actions.get(signal);
            if action.handler > action::IGNORE && action.flags & flags::SA_RESETHAND != 0 {
                shared.actions.set(signal, Action { handler: action::DEFAULT, ..action });
            }
            action
        };
        match action.handler {
            action::IGNORE => false,
            action::DEFAULT => {
                self.default_action(info);
                false
            }
            _ => {
                self.restart_for_handler(call, &action);
                if self.enter_handler(&info, &action, None).is_err() {
                    self.force_fault(signal == Signal::SEGV);
                }
                true
            }
        }
    }

    fn restart_for_handler(&self, call: Option<Call>, action: &Action) {
        let Some(call) = call else { return };
        let restart = self.take_restart();
        let mut regs = self.regs();
        if regs.result() != -i64::from(Errno::EINTR.number()) {
            return;
        }
        let again = match restart {
            Restart::Always => true,
            Restart::IfAllowed => action.flags & flags::SA_RESTART != 0,
            Restart::No | Restart::NoHandler | Restart::Block => false,
        };
        if again {
            regs.rewind_syscall(call.nr);
        }
    }

    fn default_action(&self, info: SigInfo) {
        let signal = info.signal;
        match signal.default() {
            Default::Ignore | Default::Continue => {}
            Default::Stop => self.begin_stop(signal),
            Default::Terminate | Default::Core => {
                if self.process().is_init() && !matches!(info.origin, Origin::Fault { .. }) {
                    return;
                }
                // No core file is written yet, so the status does not claim one.
                self.exit_group(Status::Killed { signal, core: false });
            }
        }
    }

    /// A stop signal: the process stops, unless its group is orphaned (then the three of the terminal do nothing).
    fn begin_stop(&self, signal: Signal) {
        if signal != Signal::STOP {
            let session = self.process().session();
            let orphaned = session.request(crate::session::Request::IsOrphaned(self.process().pgid()));
            if matches!(self.settle(orphaned, Interrupted::Killed), Ok(crate::session::Reply::Orphaned(true))) {
                return;
            }
        }
        let mut shared = self.process().shared.lock();
        // A SIGCONT or SIGKILL may have come while the session was asked.
        if shared.exiting.is_some() || shared.job != JobState::Running {
            return;
        }
        let conts = SigSet::EMPTY.with(Signal::CONT);
        if !shared.pending.set().and(conts).is_empty() {
            return;
        }
        shared.stops += 1;
        shared.job = JobState::Stopping { signal, left: shared.threads.len() };
        for task in &shared.threads {
            task.set_work(work::STOP);
            task.poke();
        }
    }

    /// This thread stops with its process, until SIGCONT or SIGKILL.
    fn stop_here(&self) {
        let (stopped, stops) = {
            let mut shared = self.process().shared.lock();
            let stopped = match shared.job {
                JobState::Stopping { signal, left } => {
                    let left = left.saturating_sub(1);
                    if left == 0 {
                        shared.job = JobState::Stopped(signal);
                        Some(signal)
                    } else {
                        shared.job = JobState::Stopping { signal, left };
                        None
                    }
                }
                JobState::Stopped(_) => None,
                JobState::Running => {
                    drop(shared);
                    return self.task().clear_work(work::STOP);
                }
            };
            (stopped, shared.stops)
        };
        if let Some(signal) = stopped {
            self.process().report_job(Status::Stopped(signal));
        }
        loop {
            self.task().begin_wait();
            let bits = self.task().work.load(core::sync::atomic::Ordering::SeqCst);
            // It may have gone on and been stopped again before this thread noticed: then it must be counted again.
            let stale = self.process().shared.lock().stops != stops;
            if bits & work::DIE != 0 || bits & work::STOP == 0 || stale {
                return;
            }
            self.task().set_state(State::Stopped);
            self.park();
            self.task().set_state(State::Running);
        }
    }

    /// A fault of the program: its handler, or the end.
    pub(crate) fn raise_fault(&self, info: SigInfo, fault: &Fault) {
        let signal = info.signal;
        let action = {
            let mut shared = self.process().shared.lock();
            let action = *shared.actions.get(signal);
            if action.handler > action::IGNORE && action.flags & flags::SA_RESETHAND != 0 {
                shared.actions.set(signal, Action { handler: action::DEFAULT, ..action });
            }
            action
        };
        // A fault cannot wait: a blocked or ignored one ends the process.
        if action.handler <= action::IGNORE || self.task().mask().has(signal) {
            let regs = self.regs();
            log::info!(
                "{} ({}) {signal:?} at {:#x}, ip {:#x}",
                crate::fmt_name(&self.task().name()),
                self.task().tid(),
                fault.addr.0,
                regs.ip().0
            );
            drop(regs);
            return self.exit_group(Status::Killed { signal, core: false });
        }
        if self.enter_handler(&info, &action, Some(*fault)).is_err() {
            self.force_fault(signal == Signal::SEGV);
        }
    }

    /// The frame of a handler could not be written, or was not acceptable: SIGSEGV, for good if that is the handler in question.
    pub(crate) fn force_fault(&self, for_good: bool) {
        let info = SigInfo::kernel(Signal::SEGV);
        let action = *self.process().shared.lock().actions.get(Signal::SEGV);
        let blocked = self.task().mask().has(Signal::SEGV);
        if for_good || blocked || action.handler <= action::IGNORE || self.enter_handler(&info, &action, None).is_err()
        {
            self.exit_group(Status::Killed { signal: Signal::SEGV, core: false });
        }
    }

    fn enter_handler(&self, info: &SigInfo, action: &Action, fault: Option<Fault>) -> Result<()> {
        let task = self.task();
        if task.rseq.load(core::sync::atomic::Ordering::Relaxed) != 0 {
            self.rseq_interrupted();
            if self.ended.get() {
                return Ok(());
            }
        }
        let sp = self.regs().sp().0;
        let (old_mask, altstack) = {
            let mut signals = task.signals.lock();
            let mask = signals.mask;
            (signals.saved_mask.take().unwrap_or(mask), signals.altstack)
        };
        task.clear_work(work::MASK);
        let on_stack = altstack.holds(sp);
        let wants_stack = action.flags & flags::SA_ONSTACK != 0 && altstack.size != 0 && !on_stack;
        let stack_flags = match (altstack.size, on_stack) {
            (0, _) => AltStack::DISABLE,
            (_, true) => AltStack::ONSTACK | altstack.flags,
            (_, false) => altstack.flags,
        };
        let siginfo = info.to_bytes();
        // Without a restorer of its own, and on an ISA that has one there, it returns to the code in the vDSO.
        let common = hal::vdso::sigreturn().filter(|_| action.flags & flags::SA_RESTORER == 0);
        let common = common.and_then(|offset| Some(self.space().labelled(&mm::vma::Label::Vdso)? + offset));
        let frame = SignalFrame {
            signo: u32::from(info.signal.number()),
            siginfo: &siginfo,
            handler: UserAddr(action.handler),
            restorer: UserAddr(common.unwrap_or(action.restorer)),
            siginfo_wanted: action.flags & flags::SA_SIGINFO != 0,
            old_mask: old_mask.0,
            altstack: (altstack.base, altstack.size, stack_flags),
            stack_top: wants_stack.then(|| UserAddr(altstack.base.wrapping_add(altstack.size))),
            fault,
        };
        let mut buf = alloc::vec![0_u8; SIGNAL_FRAME_MAX];
        // The registers change only if the frame can be written.
        let before = self.regs().clone();
        let pushed = self.regs().push_signal(&frame, &mut buf);
        let written = match pushed {
            Some((at, n)) => self.user(|u| u.write(at.0, buf.get(..n).unwrap_or(&buf))),
            None => Err(Errno::EFAULT.into()),
        };
        if let Err(e) = written {
            *self.regs() = before;
            return Err(e);
        }
        if altstack.flags & AltStack::AUTODISARM != 0 && wants_stack {
            task.set_altstack(AltStack::NONE);
        }
        let mut mask = task.mask().or(action.mask);
        if action.flags & flags::SA_NODEFER == 0 {
            mask = mask.with(info.signal);
        }
        task.set_mask(mask);
        Ok(())
    }

    /// rt_sigreturn(2): back to where the handler interrupted the program.
    pub fn signal_return(&self) {
        let (at, len) = self.regs().signal_frame_at();
        let mut buf = alloc::vec![0_u8; len.min(SIGNAL_FRAME_MAX)];
        if self.user(|u| u.read(at.0, &mut buf)).is_err() {
            return self.force_fault(false);
        }
        let mask = self.regs().pop_signal(&buf);
        match mask {
            Some(mask) => {
                self.task().set_mask(SigSet(mask));
            }
            None => self.force_fault(false),
        }
    }

    /// sigsuspend(2), pause(2): until a signal with a handler was delivered.
    ///
    /// # Errors
    /// Always `EINTR`.
    pub fn wait_for_handler(&self) -> base::Error {
        match self.wait_until(|| None::<()>, Timeout::Never, Interrupted::NoHandler) {
            Ok(()) => Errno::EINTR.into(),
            Err(e) => e,
        }
    }
}
