//! Who waits for something of this crate (a child, a group's stop, a signal).

use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};

use base::{Ready, Subscription, Wake, wait::Cancel};
use hal::sync::{SpinLock, rank};

/// One entry.
struct Entry {
    id: u64,
    mask: Ready,
    wake: Arc<dyn Wake>,
}

struct Inner {
    next: u64,
    entries: Vec<Entry>,
}

/// Subscribers.
#[derive(Clone)]
pub struct WaitList(Arc<SpinLock<Inner>>);

/// A place in a list; dropping it takes it out.
pub struct Waiter {
    list: Weak<SpinLock<Inner>>,
    id: u64,
}

impl WaitList {
    /// Nobody waits.
    pub fn new() -> Self {
        Self(Arc::new(SpinLock::new(rank::WAITERS, Inner { next: 0, entries: Vec::new() })))
    }

    /// Adds somebody until the answer is dropped.
    pub fn add(&self, mask: Ready, wake: Arc<dyn Wake>) -> Waiter {
        let mut inner = self.0.lock();
        inner.next += 1;
        let id = inner.next;
        inner.entries.push(Entry { id, mask, wake });
        Waiter { list: Arc::downgrade(&self.0), id }
    }

    /// The same as a [`Subscription`].
    pub fn subscribe(&self, mask: Ready, wake: Arc<dyn Wake>) -> Subscription {
        Subscription::new(self.add(mask, wake))
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.lock().entries.is_empty()
    }

    /// Wakes all whose mask has a bit of `ready`.
    pub fn wake(&self, ready: Ready) {
        let inner = self.0.lock();
        for entry in inner.entries.iter().filter(|e| e.mask.intersects(ready)) {
            entry.wake.wake(ready);
        }
    }
}

impl Default for WaitList {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(list) = self.list.upgrade() {
            let gone = {
                let mut inner = list.lock();
                let at = inner.entries.iter().position(|e| e.id == self.id);
                at.map(|at| inner.entries.swap_remove(at))
            };
            drop(gone);
        }
    }
}

impl Cancel for Waiter {
    fn cancel(&mut self) {}
}
