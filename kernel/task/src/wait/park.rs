//! The word on which a task sleeps and is woken. A wake-up is never lost: one that comes while the task still runs makes its next sleep end at once.

use core::sync::atomic::{AtomicU8, Ordering};

/// The task runs, or waits for a CPU.
const RUNNING: u8 = 0;
/// It was woken since its last `begin`.
const NOTIFIED: u8 = 1;
/// It sleeps.
const PARKED: u8 = 2;

/// See the module.
#[derive(Debug)]
pub struct Park(AtomicU8);

impl Park {
    /// Of a task that is about to run.
    pub const fn new() -> Self {
        Self(AtomicU8::new(RUNNING))
    }

    /// Forgets earlier wake-ups. What makes the task wait is checked after this.
    pub fn begin(&self) {
        self.0.swap(RUNNING, Ordering::SeqCst);
    }

    /// The task is about to leave its CPU: whether it may, or was woken meanwhile.
    pub fn sleep(&self) -> bool {
        let slept = self.0.compare_exchange(RUNNING, PARKED, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if !slept {
            self.0.store(RUNNING, Ordering::SeqCst);
        }
        slept
    }

    /// Wakes the task: whether it slept, so that the caller must make it runnable.
    pub fn wake(&self) -> bool {
        self.0.swap(NOTIFIED, Ordering::SeqCst) == PARKED
    }

    /// Whether it sleeps.
    pub fn is_parked(&self) -> bool {
        self.0.load(Ordering::SeqCst) == PARKED
    }
}

impl Default for Park {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Park;

    #[test]
    fn a_wake_up_between_look_and_sleep_is_kept() {
        let p = Park::new();
        p.begin();
        assert!(!p.wake());
        assert!(!p.sleep());
        p.begin();
        assert!(p.sleep());
        assert!(p.wake(), "a sleeper must be queued, once");
        assert!(!p.wake());
    }
}
