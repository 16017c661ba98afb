//! What a process does with each signal.

use super::set::{MAX, SigSet, Signal};

/// Flags of sigaction(2); the same on all ISAs here.
pub mod flags {
    /// No SIGCHLD when a child stops.
    pub const SA_NOCLDSTOP: u64 = 1;
    /// Children do not become zombies.
    pub const SA_NOCLDWAIT: u64 = 2;
    /// The handler takes three arguments.
    pub const SA_SIGINFO: u64 = 4;
    /// `sa_restorer` is set.
    pub const SA_RESTORER: u64 = 0x0400_0000;
    /// Run the handler on the alternate stack.
    pub const SA_ONSTACK: u64 = 0x0800_0000;
    /// Interrupted calls start again.
    pub const SA_RESTART: u64 = 0x1000_0000;
    /// The signal is not blocked in its own handler.
    pub const SA_NODEFER: u64 = 0x4000_0000;
    /// Back to the default when the handler is called.
    pub const SA_RESETHAND: u64 = 0x8000_0000;
    /// The flags that this kernel knows; others are cleared, so that programs can probe (`SA_UNSUPPORTED`).
    pub const KNOWN: u64 =
        SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_RESTORER | SA_ONSTACK | SA_RESTART | SA_NODEFER | SA_RESETHAND;
}

/// `SIG_DFL`.
pub const DEFAULT: u64 = 0;
/// `SIG_IGN`.
pub const IGNORE: u64 = 1;

/// A `sigaction`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Action {
    /// [`DEFAULT`], [`IGNORE`] or the handler's address.
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// Blocked while the handler runs.
    pub mask: SigSet,
}

/// The actions of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actions {
    table: [Action; MAX as usize],
    /// Signals that would be thrown away now: ignored, or default with nothing to do.
    ignored: SigSet,
}

impl Actions {
    /// All default.
    pub fn new() -> Self {
        let mut it = Self { table: [Action::default(); MAX as usize], ignored: SigSet::EMPTY };
        it.ignored = it.compute_ignored();
        it
    }

    fn compute_ignored(&self) -> SigSet {
        let all = SigSet(u64::MAX);
        all.iter().filter(|&s| self.is_ignored_now(s)).fold(SigSet::EMPTY, SigSet::with)
    }

    fn is_ignored_now(&self, signal: Signal) -> bool {
        match self.get(signal).handler {
            IGNORE => true,
            DEFAULT => matches!(signal.default(), super::set::Default::Ignore | super::set::Default::Continue),
            _ => false,
        }
    }

    /// The action for `signal`.
    pub const fn get(&self, signal: Signal) -> &Action {
        &self.table[signal.index()]
    }

    /// Sets the action for `signal`; the old one. The caller refuses SIGKILL and SIGSTOP, and drops pending signals if it is ignored now.
    pub fn set(&mut self, signal: Signal, mut action: Action) -> Action {
        action.flags &= flags::KNOWN;
        action.mask = action.mask.minus(SigSet::UNSTOPPABLE);
        let old = core::mem::replace(&mut self.table[signal.index()], action);
        self.ignored =
            if self.is_ignored_now(signal) { self.ignored.with(signal) } else { self.ignored.without(signal) };
        old
    }

    /// The signals that are thrown away if they come now.
    pub const fn ignored(&self) -> SigSet {
        self.ignored
    }

    /// Those that the program asked to ignore (SIG_IGN): what survives execve(2).
    pub fn explicitly_ignored(&self) -> SigSet {
        SigSet(u64::MAX).iter().filter(|&s| self.get(s).handler == IGNORE).fold(SigSet::EMPTY, SigSet::with)
    }

    /// Those with a handler.
    pub fn caught(&self) -> SigSet {
        let caught = |s: &Signal| !matches!(self.get(*s).handler, IGNORE | DEFAULT);
        SigSet(u64::MAX).iter().filter(caught).fold(SigSet::EMPTY, SigSet::with)
    }

    /// At execve(2): handlers go back to default, ignored stay ignored.
    pub fn reset_for_exec(&mut self) {
        for action in &mut self.table {
            *action = Action { handler: if action.handler == IGNORE { IGNORE } else { DEFAULT }, ..Action::default() };
        }
        self.ignored = self.compute_ignored();
    }

    /// With these ignored and all others default, for a task that arrives.
    pub fn with_ignored(set: SigSet) -> Self {
        let mut it = Self::new();
        for signal in set.iter() {
            it.set(signal, Action { handler: IGNORE, ..Action::default() });
        }
        it
    }
}

impl Default for Actions {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Actions, IGNORE};
    use crate::signal::{SigSet, Signal};

    #[test]
    fn exec_keeps_ignored_and_drops_handlers() {
        let mut a = Actions::new();
        a.set(Signal::INT, Action { handler: 0x1000, flags: 4, ..Action::default() });
        a.set(Signal::HUP, Action { handler: IGNORE, ..Action::default() });
        assert!(a.ignored().has(Signal::CHLD) && a.ignored().has(Signal::HUP) && !a.ignored().has(Signal::INT));
        a.reset_for_exec();
        assert_eq!(a.get(Signal::INT), &Action::default());
        assert_eq!(a.explicitly_ignored(), SigSet::EMPTY.with(Signal::HUP));
        assert_eq!(a, Actions::with_ignored(SigSet::EMPTY.with(Signal::HUP)));
    }

    #[test]
    fn kill_and_stop_cannot_be_masked_by_a_handler() {
        let mut a = Actions::new();
        a.set(Signal::INT, Action { handler: 2, mask: SigSet(u64::MAX), ..Action::default() });
        assert!(!a.get(Signal::INT).mask.has(Signal::KILL) && !a.get(Signal::INT).mask.has(Signal::STOP));
    }
}
