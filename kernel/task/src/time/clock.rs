//! Clocks that programs read; clock_gettime(2).

use core::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// A clock of the whole kernel. Those of a process or thread are computed from what it used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// Time of day.
    Realtime,
    /// Since the machine was switched on.
    Monotonic,
    /// The same here: this machine does not suspend.
    Boottime,
    /// Atomic time: time of day and an offset that nobody has set.
    Tai,
}

/// The clocks of a kernel.
#[derive(Debug, Default)]
pub struct Clocks {
    /// Nanoseconds from `hal::time::now` to the time since 1970.
    offset: AtomicI64,
}

impl Clocks {
    /// With an unknown time of day (1970).
    pub const fn new() -> Self {
        Self { offset: AtomicI64::new(0) }
    }

    /// Time since the machine was switched on, ns.
    pub fn monotonic(&self) -> u64 {
        hal::time::now()
    }

    /// Time since 1970, ns.
    pub fn realtime(&self) -> i64 {
        (hal::time::now() as i64).wrapping_add(self.offset())
    }

    /// What to add to the monotonic clock.
    pub fn offset(&self) -> i64 {
        self.offset.load(Relaxed)
    }

    /// Sets the time of day, ns since 1970.
    pub fn set_realtime(&self, ns: i64) {
        let offset = ns.wrapping_sub(hal::time::now() as i64);
        self.offset.store(offset, Relaxed);
        hal::vdso::set_wall(offset as u64);
    }

    /// What a clock shows, ns.
    pub fn read(&self, clock: Clock) -> i64 {
        match clock {
            Clock::Realtime | Clock::Tai => self.realtime(),
            Clock::Monotonic | Clock::Boottime => self.monotonic() as i64,
        }
    }

    /// When `clock` shows `at`, in ns of `hal::time::now`; in the past is 0.
    pub fn deadline(&self, clock: Clock, at: i64) -> u64 {
        let at = match clock {
            Clock::Realtime | Clock::Tai => at.saturating_sub(self.offset()),
            Clock::Monotonic | Clock::Boottime => at,
        };
        u64::try_from(at).unwrap_or(0)
    }
}
