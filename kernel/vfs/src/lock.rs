//! Advisory locks of files: flock(2) and fcntl(2) record locks, by inode.
//!
//! A lock belongs to an owner: for flock an open file, for records a process (or an open file, `F_OFD_*`).

use alloc::{collections::BTreeMap, vec::Vec};

use base::{Errno, Error, ObjectId, Ready, Subscription, Try, TryResult, Wake, wait::done};
use hal::sync::{SpinLock, rank};

use crate::Waiters;

/// Who holds a lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// A process, by pid: record locks.
    Process(u32),
    /// An open file: `F_OFD_*` record locks.
    File(ObjectId),
    /// An open file: flock(2). These and record locks do not see each other.
    Flock(ObjectId),
}

impl Owner {
    const fn is_flock(self) -> bool {
        matches!(self, Self::Flock(_))
    }
}

/// A lock on bytes `start..end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lock {
    /// Whose.
    pub owner: Owner,
    /// Excludes all others; otherwise only exclusive ones.
    pub exclusive: bool,
    /// First byte.
    pub start: u64,
    /// One past the last; `u64::MAX` is the end of the file, wherever that is.
    pub end: u64,
}

impl Lock {
    const fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    fn conflicts(&self, other: &Self) -> bool {
        self.owner.is_flock() == other.owner.is_flock()
            && self.owner != other.owner
            && self.overlaps(other)
            && (self.exclusive || other.exclusive)
    }
}

/// The locks of one kernel's files.
pub struct Locks {
    table: SpinLock<BTreeMap<ObjectId, Vec<Lock>>>,
    waiters: Waiters,
}

impl Locks {
    /// None.
    pub fn new() -> Self {
        Self { table: SpinLock::new(rank::DENTRIES, BTreeMap::new()), waiters: Waiters::new() }
    }

    /// The first lock on `inode` that is in the way of `wanted`.
    pub fn conflict(&self, inode: ObjectId, wanted: &Lock) -> Option<Lock> {
        self.table.lock().get(&inode).and_then(|list| list.iter().find(|l| l.conflicts(wanted)).copied())
    }

    /// Takes a lock in the place of what its owner had there.
    ///
    /// # Errors
    /// `ENOLCK`; `WouldBlock` if another one is in the way.
    pub fn take(&self, inode: ObjectId, wanted: Lock) -> TryResult<()> {
        if wanted.start >= wanted.end {
            return Err(Error::new(Errno::EINVAL, "an empty range"));
        }
        {
            let mut table = self.table.lock();
            let list = table.entry(inode).or_default();
            if list.iter().any(|l| l.conflicts(&wanted)) {
                return Ok(Try::WouldBlock);
            }
            cut(list, &wanted);
            join(list, wanted);
        }
        self.waiters.wake(Ready::IN);
        done(())
    }

    /// Gives locks back.
    pub fn give(&self, inode: ObjectId, owner: Owner, start: u64, end: u64) {
        {
            let mut table = self.table.lock();
            let Some(list) = table.get_mut(&inode) else { return };
            cut(list, &Lock { owner, exclusive: true, start, end });
            if list.is_empty() {
                table.remove(&inode);
            }
        }
        self.waiters.wake(Ready::IN);
    }

    /// Wakes when a lock may have become free.
    pub fn subscribe(&self, waker: alloc::sync::Arc<dyn Wake>) -> Subscription {
        self.waiters.subscribe(Ready::IN, waker)
    }

    /// All locks, for `/proc/locks`.
    pub fn list(&self) -> Vec<(ObjectId, Lock)> {
        self.table.lock().iter().flat_map(|(id, list)| list.iter().map(|l| (*id, *l))).collect()
    }
}

impl Default for Locks {
    fn default() -> Self {
        Self::new()
    }
}

/// Takes `hole` out of what its owner has.
fn cut(list: &mut Vec<Lock>, hole: &Lock) {
    let mut rest = Vec::new();
    list.retain(|l| {
        if l.owner != hole.owner || !l.overlaps(hole) {
            return true;
        }
        if l.start < hole.start {
            rest.push(Lock { end: hole.start, ..*l });
        }
        if l.end > hole.end {
            rest.push(Lock { start: hole.end, ..*l });
        }
        false
    });
    list.append(&mut rest);
}

/// Adds a lock, as one with its neighbours.
fn join(list: &mut Vec<Lock>, mut lock: Lock) {
    list.retain(|l| {
        let touches =
            l.owner == lock.owner && l.exclusive == lock.exclusive && (l.end == lock.start || l.start == lock.end);
        if touches {
            lock.start = lock.start.min(l.start);
            lock.end = lock.end.max(l.end);
        }
        !touches
    });
    list.push(lock);
}

#[cfg(test)]
mod tests {
    use base::{KernelId, ObjectId, Try};

    use super::{Lock, Locks, Owner};

    const FILE: ObjectId = ObjectId { birth: KernelId { index: 0, incarnation: 1 }, serial: 7 };

    fn lock(pid: u32, exclusive: bool, start: u64, end: u64) -> Lock {
        Lock { owner: Owner::Process(pid), exclusive, start, end }
    }

    fn got(locks: &Locks, l: Lock) -> bool {
        matches!(locks.take(FILE, l), Ok(Try::Done(())))
    }

    #[test]
    fn ranges_split_and_join() {
        let locks = Locks::new();
        assert!(got(&locks, lock(1, true, 0, 100)));
        assert!(!got(&locks, lock(2, false, 50, 60)));
        locks.give(FILE, Owner::Process(1), 40, 70);
        assert!(got(&locks, lock(2, false, 50, 60)));
        assert_eq!(locks.list().len(), 3);
        assert!(!got(&locks, lock(1, true, 0, u64::MAX)));
        locks.give(FILE, Owner::Process(2), 0, u64::MAX);
        assert!(got(&locks, lock(1, true, 40, 70)));
        assert_eq!(locks.list(), [(FILE, lock(1, true, 0, 100))]);
    }

    #[test]
    fn flock_and_records_do_not_meet() {
        let locks = Locks::new();
        assert!(got(&locks, lock(1, true, 0, u64::MAX)));
        assert!(got(&locks, Lock { owner: Owner::Flock(FILE), exclusive: true, start: 0, end: u64::MAX }));
    }
}
