//! How long a CPU with nothing to do polls for messages before it sleeps.
//!
//! A sleeper costs its peer a bell and itself a wake-up, a poller costs the time that it polls. Polling pays if the next message comes soon, so the
//! window follows what happens: a message that woke a CPU which a longer window would have kept awake makes the window longer, one that came after a
//! long silence closes it. An idle kernel does not poll at all.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// The first window, in nanoseconds: more than a peer takes to answer.
const FIRST: u64 = 20_000;
/// The longest window, in nanoseconds: about what a sleep, a bell and a wake-up cost both sides.
const MOST: u64 = 160_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Polling {
    /// Nanoseconds; 0: the CPU sleeps at once.
    window: AtomicU64,
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

impl Polling {
    /// How long to poll now, in nanoseconds. 0: not at all. Otherwise this CPU is the one that polls, until [`Polling::leave`].
    pub fn enter(&self) -> u64 {
        match self.window.load(Relaxed) {
            0 => 0,
            _ if self.taken.swap(true, Relaxed) => 0,
            window => window,
        }
    }

    /// This CPU polls no more.
    pub fn leave(&self) {
        self.taken.store(false, Relaxed);
    }

    /// A message ended a sleep, so many nanoseconds after this CPU had nothing to do any more.
    pub fn woke(&self, after: u64) {
        let window = self.window.load(Relaxed);
        let next = if after > MOST { 0 } else { (2 * window).clamp(FIRST, MOST) };
        self.window.store(next, Relaxed);
    }

    /// The window, for people.
    pub fn window(&self) -> u64 {
        self.window.load(Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{FIRST, MOST, Polling};

    #[test]
    fn the_window_follows_the_traffic() {
        let polling = Polling::default();
        assert_eq!(polling.enter(), 0, "an idle kernel sleeps");
        polling.woke(5_000);
        assert_eq!(polling.window(), FIRST);
        for _ in 0..20 {
            polling.woke(FIRST + 5_000);
        }
        assert_eq!(polling.window(), MOST);
        polling.woke(MOST + 1);
        assert_eq!(polling.enter(), 0, "messages come too seldom");
    }

    #[test]
    fn one_cpu_polls() {
        let polling = Polling::default();
        polling.woke(0);
        assert_eq!(polling.enter(), FIRST);
        assert_eq!(polling.enter(), 0);
        polling.leave();
        assert_eq!(polling.enter(), FIRST);
    }
}
