//! How long a CPU with nothing to do polls for messages before it sleeps.
//!
//! A sleeper costs its peer a bell and itself a wake-up, a poller costs the time that it polls. Polling pays if the next message comes soon. Nobody
//! knows that; but who polls for as long as a sleep costs pays at most twice what would have been best. Kernels talk in bursts (a program that moves is
//! a dozen questions), so a message that ended a sleep opens the window. A silence as long as the window closes it if the last message had been alone;
//! in a burst it takes two, for the pause between two questions may be one. An idle kernel does not poll at all. How long a window is can be said
//! (`/proc/cob/halt_poll_ns`): who needs the CPU's power elsewhere lets it sleep at once.

use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

/// The window unless somebody says otherwise, in nanoseconds: about what a sleep, a bell and a wake-up cost both sides.
const WINDOW: u64 = 160_000;
/// The longest that a CPU polls because somebody said that more will come, and the longest window.
pub const LONGEST: u64 = 1_000_000;
/// So many windows in a row that passed without a message close it.
const SILENCES: u8 = 2;

/// See the module.
#[derive(Debug)]
pub struct Polling {
    /// How long an open window is, in nanoseconds; 0: there is none.
    length: AtomicU64,
    /// Nanoseconds; 0: the CPU sleeps at once.
    window: AtomicU64,
    /// Windows that passed since the last message that came in one.
    silences: AtomicU8,
    /// The next window is at least so long: somebody said that more will come.
    expected: AtomicU64,
    /// A CPU is at it. Others sleep: one is enough to hear everything.
    taken: AtomicBool,
}

/// What an idle CPU of this kernel can do.
pub trait IdleCpu {
    /// There is something to run.
    fn has_work(&self) -> bool;
    /// Lets interrupts in.
    fn breathe(&self);
    /// Sleeps until the next interrupt, which is served.
    fn sleep(&self);
}

impl Default for Polling {
    fn default() -> Self {
        Self {
            length: AtomicU64::new(WINDOW),
            window: AtomicU64::new(0),
            silences: AtomicU8::new(0),
            expected: AtomicU64::new(0),
            taken: AtomicBool::new(false),
        }
    }
}

impl Polling {
    /// Says how long a window is from now on, in nanoseconds, at most [`LONGEST`]; 0: nobody polls before it sleeps.
    pub fn set_length(&self, ns: u64) {
        self.length.store(ns.min(LONGEST), Relaxed);
        self.window.store(0, Relaxed);
        self.expected.store(0, Relaxed);
    }

    /// How long a window is, in nanoseconds.
    pub fn length(&self) -> u64 {
        self.length.load(Relaxed)
    }

    /// How long to poll now, in nanoseconds. 0: not at all. Otherwise this CPU is the one that polls, until [`Polling::leave`].
    pub fn enter(&self) -> u64 {
        match self.window.load(Relaxed).max(self.expected.load(Relaxed)) {
            0 => 0,
            _ if self.taken.swap(true, Relaxed) => 0,
            window => {
                self.expected.store(0, Relaxed);
                window
            }
        }
    }

    /// More will come within so many nanoseconds: the next wait is polled that long.
    pub fn expect(&self, within: u64) {
        if self.length() > 0 {
            self.expected.store(within.min(LONGEST), Relaxed);
        }
    }

    /// This CPU polls no more.
    pub fn leave(&self) {
        self.taken.store(false, Relaxed);
    }

    /// The window passed and nothing came.
    pub fn silent(&self) {
        if self.silences.fetch_add(1, Relaxed) + 1 >= SILENCES {
            self.window.store(0, Relaxed);
        }
    }

    /// A message came while this CPU polled.
    pub fn heard(&self) {
        self.silences.store(0, Relaxed);
    }

    /// A message ended a sleep, so many nanoseconds after this CPU had nothing to do any more.
    pub fn woke(&self, after: u64) {
        let length = self.length();
        self.silences.store(if after <= length { 0 } else { SILENCES - 1 }, Relaxed);
        self.window.store(length, Relaxed);
    }

    /// The window, for people.
    pub fn window(&self) -> u64 {
        self.window.load(Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{LONGEST, Polling, WINDOW};

    #[test]
    fn the_window_follows_the_traffic() {
        let polling = Polling::default();
        assert_eq!(polling.enter(), 0, "an idle kernel sleeps");
        polling.woke(WINDOW + 1);
        assert_eq!(polling.window(), WINDOW, "it may be the first of many");
        polling.silent();
        assert_eq!(polling.window(), 0, "it was alone");
        polling.woke(5_000);
        for _ in 0..20 {
            polling.silent();
            assert_eq!(polling.window(), WINDOW, "a pause in a burst");
            polling.woke(WINDOW + 5_000);
            polling.heard();
        }
        polling.silent();
        polling.silent();
        assert_eq!(polling.enter(), 0, "the burst is over");
    }

    #[test]
    fn what_is_expected_is_waited_for_once() {
        let polling = Polling::default();
        polling.expect(500_000);
        assert_eq!(polling.enter(), 500_000);
        polling.leave();
        assert_eq!(polling.enter(), 0);
    }

    #[test]
    fn who_is_told_to_sleeps_at_once() {
        let polling = Polling::default();
        polling.woke(0);
        polling.expect(500_000);
        polling.set_length(0);
        assert_eq!(polling.enter(), 0);
        polling.woke(0);
        polling.expect(500_000);
        assert_eq!(polling.enter(), 0);
        polling.set_length(u64::MAX);
        polling.woke(0);
        assert_eq!(polling.enter(), LONGEST);
    }

    #[test]
    fn one_cpu_polls() {
        let polling = Polling::default();
        polling.woke(0);
        assert_eq!(polling.enter(), WINDOW);
        assert_eq!(polling.enter(), 0);
        polling.leave();
        assert_eq!(polling.enter(), WINDOW);
    }
}
