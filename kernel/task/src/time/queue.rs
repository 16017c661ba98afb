//! Deadlines of one CPU, as a pure data structure.

use alloc::collections::BTreeMap;

/// Names an entry; never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TimerKey {
    /// In ns of `hal::time::now`.
    pub deadline: u64,
    serial: u64,
}

/// What is due when.
#[derive(Debug)]
pub struct TimerQueue<T> {
    entries: BTreeMap<TimerKey, T>,
    serial: u64,
}

impl<T> TimerQueue<T> {
    /// Nothing due.
    pub const fn new() -> Self {
        Self { entries: BTreeMap::new(), serial: 0 }
    }

    /// Something is due at `deadline`. Whether it is the first now.
    pub fn insert(&mut self, deadline: u64, what: T) -> (TimerKey, bool) {
        self.serial += 1;
        let key = TimerKey { deadline, serial: self.serial };
        let first = self.next().is_none_or(|d| deadline < d);
        self.entries.insert(key, what);
        (key, first)
    }

    /// Takes an entry back, if it has not been due yet.
    pub fn remove(&mut self, key: TimerKey) -> Option<T> {
        self.entries.remove(&key)
    }

    /// When the next entry is due.
    pub fn next(&self) -> Option<u64> {
        self.entries.first_key_value().map(|(key, _)| key.deadline)
    }

    /// Takes the first entry if it is due at `now`.
    pub fn expire(&mut self, now: u64) -> Option<T> {
        if self.next()? <= now { self.entries.pop_first().map(|(_, what)| what) } else { None }
    }

    /// How many are due some time.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is due.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl<T> Default for TimerQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::TimerQueue;

    #[test]
    fn entries_expire_in_order_and_once() {
        let mut q = TimerQueue::new();
        let (_, first) = q.insert(30, 'c');
        assert!(first);
        let (b, first) = q.insert(20, 'b');
        assert!(first);
        let (_, first) = q.insert(20, 'B');
        assert!(!first);
        q.insert(10, 'a');
        assert_eq!(q.expire(9), None);
        assert_eq!(q.expire(25), Some('a'));
        assert_eq!(q.remove(b), Some('b'));
        assert_eq!(q.remove(b), None);
        assert_eq!(q.expire(25), Some('B'));
        assert_eq!(q.expire(25), None);
        assert_eq!((q.next(), q.len()), (Some(30), 1));
    }
}
