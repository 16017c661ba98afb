//! Futexes; futex(2). A word of memory is named by what it lies in, so that processes that map it at different addresses meet.

use alloc::{collections::VecDeque, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base::{Errno, Error, ObjectId, Result};
use hal::sync::{SpinLock, rank};
use mm::Space;

use crate::{
    cx::Cx,
    task::Task,
    wait::{Interrupted, Timeout},
};

const BUCKETS: usize = 64;
/// All bits: any waker wakes any waiter.
pub const ANY: u32 = u32::MAX;
/// The word's bits in a robust futex, `linux/futex.h`.
pub mod robust {
    /// Somebody waits.
    pub const WAITERS: u32 = 0x8000_0000;
    /// The owner died.
    pub const OWNER_DIED: u32 = 0x4000_0000;
    /// The owner's thread number.
    pub const TID_MASK: u32 = 0x3fff_ffff;
    /// Most entries of a robust list that are looked at.
    pub const LIST_LIMIT: usize = 2048;
}

/// What a futex word is, for everybody who can reach it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// In private memory: the address space and the address.
    Private(usize, u64),
    /// In a memory object: the object and the offset.
    Shared(ObjectId, u64),
}

struct Waiter {
    task: Arc<Task>,
    bits: u32,
    woken: AtomicBool,
    /// The bucket in which it is now; changes by requeue under both locks.
    bucket: AtomicUsize,
}

struct Entry {
    key: Key,
    waiter: Arc<Waiter>,
}

/// The futexes of a kernel.
pub struct Futexes {
    buckets: Vec<SpinLock<VecDeque<Entry>>>,
}

impl Futexes {
    /// Nobody waits.
    pub fn new() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| SpinLock::new(rank::FUTEX, VecDeque::new())).collect() }
    }

    fn index(key: &Key) -> usize {
        let (a, b) = match *key {
            Key::Private(space, at) => (space as u64, at),
            Key::Shared(id, offset) => (id.serial, offset),
        };
        let h = (a ^ (b >> 2)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (h >> 58) as usize % BUCKETS
    }

    fn bucket(&self, index: usize) -> &SpinLock<VecDeque<Entry>> {
        &self.buckets[index % BUCKETS]
    }

    /// Wakes up to `count` waiters of a word whose bits meet `bits`; how many.
    pub fn wake(&self, key: Key, count: usize, bits: u32) -> usize {
        let woken = {
            let mut bucket = self.bucket(Self::index(&key)).lock();
            take(&mut bucket, key, count, bits)
        };
        finish(&woken)
    }

    /// Wakes up to `wake` waiters of `from` and moves up to `requeue` others to `to`; (woken, moved).
    pub fn requeue(&self, from: Key, to: Key, wake: usize, requeue: usize) -> (usize, usize) {
        let (a, b) = (Self::index(&from), Self::index(&to));
        let (woken, moved) = if a == b {
            let mut bucket = self.bucket(a).lock();
            let woken = take(&mut bucket, from, wake, ANY);
            let mut moved = 0;
            if from != to {
                for entry in bucket.iter_mut().filter(|e| e.key == from).take(requeue) {
                    entry.key = to;
                    moved += 1;
                }
            }
            (woken, moved)
        } else {
            let (mut source, mut target) = SpinLock::lock_both(self.bucket(a), self.bucket(b));
            let woken = take(&mut source, from, wake, ANY);
            let mut moved = 0;
            let mut at = 0;
            while moved < requeue && at < source.len() {
                if source[at].key == from {
                    if let Some(mut entry) = source.remove(at) {
                        entry.key = to;
                        entry.waiter.bucket.store(b, Ordering::Release);
                        target.push_back(entry);
                        moved += 1;
                    }
                } else {
                    at += 1;
                }
            }
            (woken, moved)
        };
        (finish(&woken), moved)
    }

    /// Takes a waiter out wherever it is now; whether it was still there.
    fn leave(&self, waiter: &Arc<Waiter>) {
        loop {
            let index = waiter.bucket.load(Ordering::Acquire);
            let mut bucket = self.bucket(index).lock();
            if waiter.bucket.load(Ordering::Acquire) != index {
                continue;
            }
            let at = bucket.iter().position(|e| Arc::ptr_eq(&e.waiter, waiter));
            let entry = at.and_then(|at| bucket.remove(at));
            drop(bucket);
            drop(entry);
            return;
        }
    }
}

impl Default for Futexes {
    fn default() -> Self {
        Self::new()
    }
}

fn take(bucket: &mut VecDeque<Entry>, key: Key, count: usize, bits: u32) -> Vec<Arc<Waiter>> {
    let mut woken = Vec::new();
    let mut at = 0;
    while woken.len() < count && at < bucket.len() {
        if bucket[at].key == key && bucket[at].waiter.bits & bits != 0 {
            if let Some(entry) = bucket.remove(at) {
                entry.waiter.woken.store(true, Ordering::Release);
                woken.push(entry.waiter);
            }
        } else {
            at += 1;
        }
    }
    woken
}

fn finish(woken: &[Arc<Waiter>]) -> usize {
    for waiter in woken {
        waiter.task.wake_up();
    }
    woken.len()
}

impl Cx {
    /// What the word at `at` is. `private`: the program says that no other process waits for it.
    ///
    /// # Errors
    /// `EINVAL` if it is not aligned, `EFAULT` if it is not mapped.
    pub fn futex_key(&self, at: u64, private: bool) -> Result<Key> {
        if !at.is_multiple_of(4) {
            return Err(Error::new(Errno::EINVAL, "futex word is not aligned"));
        }
        let space = self.space();
        if !private && let Some((object, offset)) = space.shared_place(at) {
            return Ok(Key::Shared(object, offset));
        }
        if !mm::user::user_range(at, 4) {
            return Err(Error::new(Errno::EFAULT, "futex word"));
        }
        Ok(Key::Private(Arc::as_ptr(&space).cast::<Space>() as usize, at))
    }

    /// FUTEX_WAIT: sleeps if the word is `expected`, until woken.
    ///
    /// # Errors
    /// `EAGAIN` if the word is something else, `EINVAL` without bits, `ETIMEDOUT`, `EINTR`, `EFAULT`.
    pub fn futex_wait(&self, at: u64, private: bool, expected: u32, bits: u32, timeout: Timeout) -> Result<()> {
        if bits == 0 {
            return Err(Errno::EINVAL.into());
        }
        let key = self.futex_key(at, private)?;
        let futexes = &self.kernel().futexes;
        let index = Futexes::index(&key);
        let waiter = Arc::new(Waiter {
            task: self.task().clone(),
            bits,
            woken: AtomicBool::new(false),
            bucket: AtomicUsize::new(index),
        });
        loop {
            let fault = {
                let mut bucket = futexes.bucket(index).lock();
                // The word is read with the bucket locked, so that a waker either sees the waiter or changed the word before.
                match hal::user::load_u32(hal::addr::UserAddr(at)) {
                    Ok(word) if word != expected => return Err(Error::new(Errno::EAGAIN, "the word changed")),
                    Ok(_) => {
                        bucket.push_back(Entry { key, waiter: waiter.clone() });
                        None
                    }
                    Err(fault) => Some(fault),
                }
            };
            match fault {
                None => break,
                Some(fault) => self.user(|u| u.resolve(fault, hal::usermode::Access::Read))?,
            }
        }
        let woken = || waiter.woken.load(Ordering::Acquire).then_some(());
        let result = self.wait_until(woken, timeout, Interrupted::Restart);
        if result.is_err() {
            futexes.leave(&waiter);
            // A wake-up that came meanwhile counts.
            if woken().is_some() {
                return Ok(());
            }
        }
        result
    }

    /// FUTEX_WAKE.
    ///
    /// # Errors
    /// As [`Cx::futex_key`].
    pub fn futex_wake(&self, at: u64, private: bool, count: usize, bits: u32) -> Result<usize> {
        let key = self.futex_key(at, private)?;
        Ok(self.kernel().futexes.wake(key, count, bits))
    }

    /// At the end of a thread or its program: tells those who wait for its robust futexes and for its end.
    pub(crate) fn release_futexes(&self) {
        let head = self.task().robust_list.swap(0, Ordering::Relaxed);
        if head != 0 {
            // A list that the program has spoiled is not our business.
            let _ = self.walk_robust_list(head);
        }
        let at = self.task().clear_tid.swap(0, Ordering::Relaxed);
        if at != 0 && self.user(|u| u.write(at, &0_u32.to_le_bytes())).is_ok() {
            // The word may be in shared memory, whatever the library says.
            let _ = self.futex_wake(at, false, 1, ANY);
            let _ = self.futex_wake(at, true, 1, ANY);
        }
    }

    fn walk_robust_list(&self, head: u64) -> Result<()> {
        let word = |at: u64| self.user(|u| u.read_struct::<u64>(at));
        let mut entry = word(head)?;
        let offset = word(head.wrapping_add(8))?;
        let pending = word(head.wrapping_add(16))?;
        for _ in 0..robust::LIST_LIMIT {
            // The lowest bit says that the futex is one of those with priority inheritance.
            let at = entry & !1;
            if at == head {
                break;
            }
            let next = word(at);
            if at != pending & !1 {
                self.release_robust(at.wrapping_add(offset), false)?;
            }
            entry = next?;
        }
        if pending & !1 != 0 {
            self.release_robust((pending & !1).wrapping_add(offset), true)?;
        }
        Ok(())
    }

    fn release_robust(&self, at: u64, pending: bool) -> Result<()> {
        if !at.is_multiple_of(4) {
            return Err(Errno::EINVAL.into());
        }
        let tid = self.task().tid().0;
        let mut old = self.user(|u| u.load_u32(at))?;
        // Between unlocking and leaving the list: somebody may wait for a word that nobody owns.
        if pending && old == 0 {
            self.futex_wake(at, false, 1, ANY)?;
            self.futex_wake(at, true, 1, ANY)?;
            return Ok(());
        }
        while old & robust::TID_MASK == tid {
            let new = (old & robust::WAITERS) | robust::OWNER_DIED;
            let found = self.user(|u| u.compare_exchange_u32(at, old, new))?;
            if found == old {
                if old & robust::WAITERS != 0 {
                    self.futex_wake(at, false, 1, ANY)?;
                    self.futex_wake(at, true, 1, ANY)?;
                }
                break;
            }
            old = found;
        }
        Ok(())
    }
}
