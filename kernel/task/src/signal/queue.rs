//! Pending signals: one of each standard signal, any number (up to a limit) of real-time ones, in order.

use alloc::collections::VecDeque;

use super::{
    info::SigInfo,
    set::{SigSet, Signal},
};

/// What became of a signal that was to be queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queued {
    /// It is pending, with its info.
    Yes,
    /// A standard signal that was pending already; this one merged with it.
    Merged,
    /// No room for its info: it is pending without one (kill), which a sender of info learns as `EAGAIN`.
    Full,
}

/// Signals that wait for one task or one process.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    set: SigSet,
    queue: VecDeque<SigInfo>,
}

impl Pending {
    /// Nothing pending.
    pub const fn new() -> Self {
        Self { set: SigSet::EMPTY, queue: VecDeque::new() }
    }

    /// Which are pending.
    pub const fn set(&self) -> SigSet {
        self.set
    }

    /// How many infos are held, for RLIMIT_SIGPENDING.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing is pending.
    pub const fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Makes a signal pending. `room` says whether the user may queue one more info.
    pub fn push(&mut self, info: SigInfo, room: bool) -> Queued {
        if !info.signal.is_realtime() && self.set.has(info.signal) {
            return Queued::Merged;
        }
        if !room && info.signal.is_realtime() && info.code < 0 {
            // sigqueue(3) reports this to the sender and the signal is lost.
            return Queued::Full;
        }
        self.set = self.set.with(info.signal);
        if room {
            self.queue.push_back(info);
            Queued::Yes
        } else {
            Queued::Full
        }
    }

    /// Takes the next signal of `wanted`.
    pub fn take(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let signal = self.set.and(wanted).first()?;
        Some(self.take_one(signal))
    }

    fn take_one(&mut self, signal: Signal) -> SigInfo {
        let info = match self.queue.iter().position(|i| i.signal == signal) {
            Some(at) => self.queue.remove(at),
            None => None,
        };
        if !(signal.is_realtime() && self.queue.iter().any(|i| i.signal == signal)) {
            self.set = self.set.without(signal);
        }
        // Pending without info: there was no room for it; Linux then says SI_USER from nobody.
        info.unwrap_or(SigInfo::user(signal, crate::ids::Pid(0), 0))
    }

    /// Throws away all signals of `set`.
    pub fn discard(&mut self, set: SigSet) {
        if !self.set.and(set).is_empty() {
            self.queue.retain(|i| !set.has(i.signal));
            self.set = self.set.minus(set);
        }
    }

    /// What is pending, for a task that moves.
    pub fn iter(&self) -> impl Iterator<Item = &SigInfo> {
        self.queue.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::{Pending, Queued};
    use crate::{
        ids::Pid,
        signal::{Origin, SigInfo, SigSet, Signal},
    };

    fn rt(nr: u64, value: u64) -> SigInfo {
        SigInfo {
            signal: Signal::new(nr).unwrap(),
            code: -1,
            errno: 0,
            origin: Origin::User { pid: Pid(1), uid: 0, value },
        }
    }

    #[test]
    fn standard_signals_merge_and_real_time_ones_queue_in_order() {
        let mut p = Pending::new();
        assert_eq!(p.push(SigInfo::kernel(Signal::INT), true), Queued::Yes);
        assert_eq!(p.push(SigInfo::kernel(Signal::INT), true), Queued::Merged);
        for v in 0..3 {
            assert_eq!(p.push(rt(40, v), true), Queued::Yes);
        }
        p.push(rt(36, 9), true);
        let all = SigSet(u64::MAX);
        assert_eq!(p.take(all).unwrap().signal, Signal::INT);
        assert_eq!(p.take(all), Some(rt(36, 9)));
        for v in 0..3 {
            assert_eq!(p.take(all), Some(rt(40, v)));
        }
        assert!(p.take(all).is_none() && p.is_empty() && p.is_empty());
    }

    #[test]
    fn without_room_kill_still_arrives_and_sigqueue_fails() {
        let mut p = Pending::new();
        assert_eq!(p.push(rt(40, 1), false), Queued::Full);
        assert!(p.is_empty());
        assert_eq!(p.push(SigInfo::kernel(Signal::TERM), false), Queued::Full);
        assert_eq!(p.take(SigSet(u64::MAX)).unwrap().signal, Signal::TERM);
    }

    #[test]
    fn only_wanted_signals_are_taken() {
        let mut p = Pending::new();
        p.push(SigInfo::kernel(Signal::INT), true);
        assert!(p.take(SigSet::EMPTY.with(Signal::TERM)).is_none());
        p.discard(SigSet::EMPTY.with(Signal::INT));
        assert!(p.is_empty());
    }
}
