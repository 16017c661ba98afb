//! Advisory locks of files: flock(2) and fcntl(2) record locks, by inode.
//!
//! A lock belongs to an owner: for flock an open file, for records a process (or an open file, `F_OFD_*`). All locks of a file are at its home,
//! whatever kernel their owners run on: so they exclude each other over the whole machine. [`Table`] decides (and runs in the protocol simulator);
//! [`Locks`] is the table of one kernel, with those who wait.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

use core::sync::atomic::{AtomicBool, Ordering};

use base::{Errno, Error, KernelId, ObjectId, Ready, Subscription, Try, TryResult, Wake, wait::Cancel, wait::done};
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
    /// Where its owner runs. A process lock ends with that kernel.
    pub kernel: KernelId,
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

/// What is asked of the locks of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Take it, in the place of what its owner has there.
    Take(Lock),
    /// The same, by somebody who waits until it is there: `EDEADLK` if that would be for ever.
    TakeInTime(Lock),
    /// Give back what its owner has there.
    Give(Lock),
}

/// How many owners a chain of waiting is followed over.
const LONGEST_CHAIN: usize = 64;

/// The locks of many files and who waits for them. Without I/O and without sleep.
#[derive(Debug, Default)]
pub struct Table {
    files: BTreeMap<ObjectId, Vec<Lock>>,
    /// Who waits for what, by a number of the wait.
    waiting: BTreeMap<u64, (ObjectId, Lock)>,
    next: u64,
}

impl Table {
    /// No locks.
    pub const fn new() -> Self {
        Self { files: BTreeMap::new(), waiting: BTreeMap::new(), next: 1 }
    }

    /// The first lock on `file` that is in the way of `wanted`.
    pub fn conflict(&self, file: ObjectId, wanted: &Lock) -> Option<Lock> {
        self.files.get(&file).and_then(|list| list.iter().find(|l| l.conflicts(wanted)).copied())
    }

    /// Does what is asked; `false` if another lock is in the way.
    ///
    /// # Errors
    /// `EINVAL` for an empty range, `EDEADLK`.
    pub fn change(&mut self, file: ObjectId, change: Change) -> base::Result<bool> {
        let (wanted, in_time) = match change {
            Change::Give(hole) => {
                self.give(file, hole.owner, hole.start, hole.end);
                return Ok(true);
            }
            Change::Take(wanted) => (wanted, false),
            Change::TakeInTime(wanted) => (wanted, true),
        };
        if wanted.start >= wanted.end {
            return Err(Error::new(Errno::EINVAL, "an empty range"));
        }
        if self.conflict(file, &wanted).is_some() {
            if in_time && self.would_wait_for_itself(file, &wanted) {
                return Err(Error::new(Errno::EDEADLK, "who has it waits for the asker"));
            }
            return Ok(false);
        }
        let list = self.files.entry(file).or_default();
        cut(list, &wanted);
        join(list, wanted);
        Ok(true)
    }

    /// Whether somebody in the chain of those whom the owner would wait for waits for the owner. As on Linux only records of processes are
    /// looked at: an open file may have many users.
    fn would_wait_for_itself(&self, file: ObjectId, wanted: &Lock) -> bool {
        if !matches!(wanted.owner, Owner::Process(_)) {
            return false;
        }
        let blockers = |file: ObjectId, wanted: &Lock| -> Vec<Owner> {
            let list = self.files.get(&file).into_iter().flatten();
            list.filter(|l| l.conflicts(wanted)).map(|l| l.owner).collect()
        };
        let mut chain = blockers(file, wanted);
        let mut at = 0;
        while let Some(owner) = chain.get(at).copied().filter(|_| at < LONGEST_CHAIN) {
            if owner == wanted.owner {
                return true;
            }
            at += 1;
            for (file, lock) in self.waiting.values().filter(|(_, lock)| lock.owner == owner) {
                for next in blockers(*file, lock) {
                    if !chain.contains(&next) {
                        chain.push(next);
                    }
                }
            }
        }
        false
    }

    fn give(&mut self, file: ObjectId, owner: Owner, start: u64, end: u64) {
        let Some(list) = self.files.get_mut(&file) else { return };
        // Only whose it is counts for what is cut.
        let hole = Lock { owner, kernel: file.birth, exclusive: true, start, end };
        cut(list, &hole);
        if list.is_empty() {
            self.files.remove(&file);
        }
    }

    /// Somebody begins to wait; the number ends it.
    pub fn begin_wait(&mut self, file: ObjectId, wanted: Lock) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, (file, wanted));
        number
    }

    /// Somebody waits no more.
    pub fn end_wait(&mut self, number: u64) {
        self.waiting.remove(&number);
    }

    /// A process goes on at another kernel: its locks on `file` go with it.
    pub fn moved(&mut self, file: ObjectId, pid: u32, to: KernelId) {
        let list = self.files.get_mut(&file).into_iter().flatten();
        for lock in list.filter(|lock| lock.owner == Owner::Process(pid)) {
            lock.kernel = to;
        }
    }

    /// A kernel died: the locks of its processes are free. Those of open files end with the files.
    pub fn peer_down(&mut self, dead: KernelId) {
        self.files.retain(|_, list| {
            list.retain(|lock| lock.kernel != dead || !matches!(lock.owner, Owner::Process(_)));
            !list.is_empty()
        });
        self.waiting.retain(|_, (_, lock)| lock.kernel != dead);
    }

    /// All locks.
    pub fn list(&self) -> impl Iterator<Item = (ObjectId, Lock)> + '_ {
        self.files.iter().flat_map(|(id, list)| list.iter().map(|l| (*id, *l)))
    }
}

/// The locks of one kernel's files.
pub struct Locks {
    table: SpinLock<Table>,
    /// Somebody took a lock once: most systems never do.
    used: AtomicBool,
    waiters: Arc<Waiters>,
    me: alloc::sync::Weak<Self>,
}

impl Locks {
    /// None.
    pub fn new() -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            table: SpinLock::new(rank::DENTRIES, Table::new()),
            used: AtomicBool::new(false),
            waiters: Arc::new(Waiters::new()),
            me: me.clone(),
        })
    }

    /// Whether there ever was a lock.
    #[inline]
    pub fn are_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// The first lock on `inode` that is in the way of `wanted`.
    pub fn conflict(&self, inode: ObjectId, wanted: &Lock) -> Option<Lock> {
        self.table.lock().conflict(inode, wanted)
    }

    /// Does what is asked.
    ///
    /// # Errors
    /// `EINVAL`, `EDEADLK`; `WouldBlock` if another lock is in the way.
    pub fn change(&self, inode: ObjectId, change: Change) -> TryResult<()> {
        self.used.store(true, Ordering::Relaxed);
        if !self.table.lock().change(inode, change)? {
            return Ok(Try::WouldBlock);
        }
        // A shared lock in the place of an exclusive one frees too.
        self.waiters.wake(Ready::IN);
        done(())
    }

    /// Gives all back that `owner` has on `inode`.
    pub fn give_all(&self, inode: ObjectId, owner: Owner) {
        self.table.lock().give(inode, owner, 0, u64::MAX);
        self.waiters.wake(Ready::IN);
    }

    /// Wakes when `wanted` may have become free.
    pub fn wait(&self, inode: ObjectId, wanted: Lock, waker: Arc<dyn Wake>) -> Subscription {
        let number = self.table.lock().begin_wait(inode, wanted);
        let inner = self.waiters.subscribe(Ready::IN, waker);
        Subscription::new(Waiting { locks: self.me.clone(), number, _inner: inner })
    }

    /// A process goes on at another kernel.
    pub fn moved(&self, inode: ObjectId, pid: u32, to: KernelId) {
        self.table.lock().moved(inode, pid, to);
    }

    /// A kernel died.
    pub fn peer_down(&self, dead: KernelId) {
        self.table.lock().peer_down(dead);
        self.waiters.wake(Ready::IN);
    }

    /// All locks, for `/proc/locks`.
    pub fn list(&self) -> Vec<(ObjectId, Lock)> {
        self.table.lock().list().collect()
    }
}

struct Waiting {
    locks: alloc::sync::Weak<Locks>,
    number: u64,
    _inner: Subscription,
}

impl Cancel for Waiting {
    fn cancel(&mut self) {
        if let Some(locks) = self.locks.upgrade() {
            locks.table.lock().end_wait(self.number);
        }
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
    use base::{Errno, KernelId, ObjectId};

    use super::{Change, Lock, Owner, Table};

    const A: KernelId = KernelId { index: 0, incarnation: 1 };
    const B: KernelId = KernelId { index: 1, incarnation: 1 };
    const FILE: ObjectId = ObjectId { birth: A, serial: 7 };
    const OTHER: ObjectId = ObjectId { birth: A, serial: 8 };

    fn lock(pid: u32, exclusive: bool, start: u64, end: u64) -> Lock {
        Lock { owner: Owner::Process(pid), kernel: A, exclusive, start, end }
    }

    fn got(locks: &mut Table, l: Lock) -> bool {
        locks.change(FILE, Change::Take(l)).expect("a range")
    }

    #[test]
    fn ranges_split_and_join() {
        let mut locks = Table::new();
        assert!(got(&mut locks, lock(1, true, 0, 100)));
        assert!(!got(&mut locks, lock(2, false, 50, 60)));
        assert!(locks.change(FILE, Change::Give(lock(1, true, 40, 70))).unwrap());
        assert!(got(&mut locks, lock(2, false, 50, 60)));
        assert_eq!(locks.list().count(), 3);
        assert!(!got(&mut locks, lock(1, true, 0, u64::MAX)));
        locks.give(FILE, Owner::Process(2), 0, u64::MAX);
        assert!(got(&mut locks, lock(1, true, 40, 70)));
        assert!(locks.list().eq([(FILE, lock(1, true, 0, 100))]));
        assert_eq!(locks.change(FILE, Change::Take(lock(1, true, 5, 5))).unwrap_err(), Errno::EINVAL);
    }

    #[test]
    fn flock_and_records_do_not_meet() {
        let mut locks = Table::new();
        assert!(got(&mut locks, lock(1, true, 0, u64::MAX)));
        assert!(got(&mut locks, Lock { owner: Owner::Flock(FILE), ..lock(0, true, 0, u64::MAX) }));
    }

    #[test]
    fn who_waits_in_a_circle_is_told() {
        let mut locks = Table::new();
        for (pid, file) in [(1, FILE), (2, OTHER)] {
            assert!(locks.change(file, Change::Take(lock(pid, true, 0, 10))).unwrap());
        }
        let second = lock(2, true, 0, 10);
        assert!(!locks.change(FILE, Change::TakeInTime(second)).unwrap());
        let wait = locks.begin_wait(FILE, second);
        let first = lock(1, false, 5, 6);
        assert_eq!(locks.change(OTHER, Change::TakeInTime(first)).unwrap_err(), Errno::EDEADLK);
        assert!(!locks.change(OTHER, Change::Take(first)).unwrap(), "who does not wait is not warned");
        // Beside what the other has there is no circle.
        assert!(locks.change(OTHER, Change::TakeInTime(lock(1, true, 10, 20))).unwrap());
        locks.end_wait(wait);
        assert!(!locks.change(OTHER, Change::TakeInTime(first)).unwrap());
    }

    #[test]
    fn locks_end_with_the_kernel_of_their_process() {
        let mut locks = Table::new();
        let there = Lock { kernel: B, ..lock(1, true, 0, 10) };
        let moved = Lock { kernel: B, ..lock(2, true, 10, 20) };
        assert!(got(&mut locks, there) && got(&mut locks, moved) && got(&mut locks, lock(3, true, 20, 30)));
        locks.moved(FILE, 2, A);
        locks.peer_down(B);
        assert!(got(&mut locks, lock(4, true, 0, 10)));
        assert!(!got(&mut locks, lock(4, true, 10, 20)));
    }
}
