//! Who waits for an object of this crate.

use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicUsize, Ordering};

use base::{Ready, Subscription, Wake, wait::Cancel};
use hal::sync::{SpinLock, rank};

struct Entry {
    id: u64,
    mask: Ready,
    exclusive: bool,
    wake: Arc<dyn Wake>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    entries: Vec<Entry>,
}

struct Shared {
    /// How many entries there are, read without the lock: most objects have none.
    count: AtomicUsize,
    inner: SpinLock<Inner>,
}

/// Subscribers of one object.
pub struct Waiters(Arc<Shared>);

struct Waiter {
    list: Weak<Shared>,
    id: u64,
}

impl Waiters {
    /// Nobody waits.
    pub fn new() -> Self {
        Self::ranked(rank::WAITERS)
    }

    /// Those of an epoll instance, which is itself a subscriber.
    pub fn of_epoll() -> Self {
        Self::ranked(rank::EPOLL_WAITERS)
    }

    fn ranked(rank: hal::sync::Rank) -> Self {
        Self(Arc::new(Shared { count: AtomicUsize::new(0), inner: SpinLock::new(rank, Inner::default()) }))
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.count.load(Ordering::SeqCst) == 0
    }

    /// Adds somebody until the answer is dropped. `ERR` and `HUP` are always told.
    pub fn subscribe(&self, mask: Ready, wake: Arc<dyn Wake>) -> Subscription {
        self.add(mask | Ready::ERR | Ready::HUP, wake, false)
    }

    /// The same; of all exclusive subscribers one is told (EPOLLEXCLUSIVE).
    pub fn subscribe_exclusive(&self, mask: Ready, wake: Arc<dyn Wake>) -> Subscription {
        self.add(mask | Ready::ERR | Ready::HUP, wake, true)
    }

    fn add(&self, mask: Ready, wake: Arc<dyn Wake>, exclusive: bool) -> Subscription {
        let mut inner = self.0.inner.lock();
        inner.next += 1;
        let id = inner.next;
        inner.entries.push(Entry { id, mask, exclusive, wake });
        self.0.count.store(inner.entries.len(), Ordering::SeqCst);
        Subscription::new(Waiter { list: Arc::downgrade(&self.0), id })
    }

    /// Wakes all whose mask has a bit of `ready`. The state that they will look at was changed before.
    #[inline]
    pub fn wake(&self, ready: Ready) {
        core::sync::atomic::fence(Ordering::SeqCst);
        if self.0.count.load(Ordering::SeqCst) != 0 {
            self.wake_all(ready);
        }
    }

    #[cold]
    fn wake_all(&self, ready: Ready) {
        // Wakers may look at other objects (epoll), so the list is not locked while they are called. Few have more than four.
        let mut few: [Option<Arc<dyn Wake>>; 4] = [const { None }; 4];
        let mut more = Vec::new();
        {
            let inner = self.0.inner.lock();
            let mut exclusive_told = false;
            let mut free = few.iter_mut();
            for entry in inner.entries.iter().filter(|e| e.mask.intersects(ready)) {
                if entry.exclusive && core::mem::replace(&mut exclusive_told, true) {
                    continue;
                }
                match free.next() {
                    Some(slot) => *slot = Some(entry.wake.clone()),
                    None => more.push(entry.wake.clone()),
                }
            }
        }
        for wake in few.into_iter().flatten().chain(more) {
            wake.wake(ready);
        }
    }
}

impl Default for Waiters {
    fn default() -> Self {
        Self::new()
    }
}

impl Cancel for Waiter {
    fn cancel(&mut self) {
        let Some(list) = self.list.upgrade() else { return };
        let gone = {
            let mut inner = list.inner.lock();
            let at = inner.entries.iter().position(|e| e.id == self.id);
            let gone = at.map(|at| inner.entries.swap_remove(at));
            list.count.store(inner.entries.len(), Ordering::SeqCst);
            gone
        };
        drop(gone);
    }
}
