//! What a task blocks, and what it takes from the queues.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::{SigInfo, SigSet, Signal};
use crate::task::{AltStack, Task, work};

impl Task {
    /// Looks again whether a signal is pending that is not blocked.
    pub(crate) fn recheck_signals(&self) {
        let shared = self.process().shared.lock();
        let signals = self.signals.lock();
        let any = !signals.pending.set().or(shared.pending.set()).minus(signals.mask).is_empty();
        drop(signals);
        if any {
            self.work.fetch_or(work::SIGNAL, Ordering::SeqCst);
        } else {
            self.clear_work(work::SIGNAL);
        }
    }

    /// Sets the mask; the old one. SIGKILL and SIGSTOP stay unblocked.
    pub fn set_mask(&self, mask: SigSet) -> SigSet {
        let mask = mask.minus(SigSet::UNSTOPPABLE);
        let (old, newly) = {
            let mut signals = self.signals.lock();
            let old = core::mem::replace(&mut signals.mask, mask);
            (old, mask.minus(old))
        };
        self.note_mask(old, mask);
        // Another thread must look at what this one blocks now.
        if !newly.is_empty() {
            self.pass_on(newly);
        }
        self.recheck_signals();
        old
    }

    /// Whether the terminal can stop it depends on these two.
    fn note_mask(&self, old: SigSet, new: SigSet) {
        const TERMINAL: SigSet = SigSet::EMPTY.with(Signal::TTIN).with(Signal::TTOU);
        if old.and(TERMINAL) != new.and(TERMINAL) {
            self.process().changed();
        }
    }

    /// Sets a mask until the call returns (sigsuspend, ppoll, pselect, epoll_pwait): the old one comes back after the handler.
    pub fn set_mask_for_call(&self, mask: SigSet) {
        {
            let mut signals = self.signals.lock();
            let old = signals.mask;
            signals.saved_mask.get_or_insert(old);
            signals.mask = mask.minus(SigSet::UNSTOPPABLE);
            drop(signals);
            self.note_mask(old, mask);
        }
        self.work.fetch_or(work::MASK, Ordering::SeqCst);
        self.recheck_signals();
    }

    /// Signals of the process that this task was to take, and blocks or leaves now: wakes another thread for them.
    pub(crate) fn pass_on(&self, set: SigSet) {
        let other = {
            let shared = self.process().shared.lock();
            let left = shared.pending.set().and(set);
            if left.is_empty() {
                return;
            }
            let me = core::ptr::from_ref(self);
            shared
                .threads
                .iter()
                .find(|t| !core::ptr::eq(Arc::as_ptr(t), me) && !left.minus(t.signals.lock().mask).is_empty())
                .cloned()
        };
        if let Some(task) = other {
            task.set_work(work::SIGNAL);
            task.poke();
        }
    }

    /// The signals that are pending for this task or its process, sigpending(2).
    pub fn pending(&self) -> SigSet {
        let shared = self.process().shared.lock();
        let signals = self.signals.lock();
        signals.pending.set().or(shared.pending.set())
    }

    /// The signals that are pending for this task alone, and for its process, `/proc/PID/status`.
    pub fn pending_sets(&self) -> (SigSet, SigSet) {
        let shared = self.process().shared.lock();
        let signals = self.signals.lock();
        (signals.pending.set(), shared.pending.set())
    }

    /// Takes a pending signal of `wanted`, its own first.
    pub fn take_signal(&self, wanted: SigSet) -> Option<SigInfo> {
        let mut shared = self.process().shared.lock();
        let mut signals = self.signals.lock();
        let (own, common) = (signals.pending.len(), shared.pending.len());
        let info = signals.pending.take(wanted).or_else(|| shared.pending.take(wanted));
        let gone = own + common - signals.pending.len() - shared.pending.len();
        self.process().queued.fetch_sub(gone as u64, Ordering::Relaxed);
        drop(signals);
        drop(shared);
        info.map(|info| self.process().posix_timers.delivered(info))
    }

    /// While sigtimedwait(2) waits for `set`, these wake it although they are blocked.
    pub fn wait_for_signals(&self, set: SigSet) {
        self.signals.lock().waiting_for = set;
    }

    /// Its alternate signal stack.
    pub fn altstack(&self) -> AltStack {
        self.signals.lock().altstack
    }

    /// Sets its alternate signal stack.
    pub fn set_altstack(&self, stack: AltStack) {
        self.signals.lock().altstack = stack;
    }
}
