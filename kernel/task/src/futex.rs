//! Futexes; futex(2). A word of memory is named by what it lies in, so that processes that map it at different addresses meet. Those who sleep on
//! a word are kept where its memory is at home: [`mm::WordHome`] is the way there from other kernels, and [`Futexes::arm`] the way in.

use alloc::{boxed::Box, collections::VecDeque, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base::{Errno, Error, KernelId, ObjectId, Result, Try, TryResult};
use hal::sync::{SpinLock, rank};
use mm::{MemoryObject, Space, WordSleep};

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

/// A futex word, and the object that it lies in if its sleepers are kept elsewhere.
pub struct Word {
    key: Key,
    elsewhere: Option<(Arc<dyn MemoryObject>, u64)>,
}

impl Word {
    /// What it is, if those who sleep on it are kept here.
    pub(crate) fn here(&self) -> Option<Key> {
        self.elsewhere.is_none().then_some(self.key)
    }

    /// What the object and the offset are called where the word is at home.
    fn place(&self) -> (ObjectId, u64) {
        match (&self.elsewhere, self.key) {
            (Some((object, offset)), _) => (object.id(), *offset),
            (None, Key::Shared(object, offset)) => (object, offset),
            // Private memory has no home but its process.
            (None, Key::Private(..)) => (ObjectId { birth: KernelId { index: 0, incarnation: 0 }, serial: 0 }, 0),
        }
    }
}

/// Who sleeps at a word and is told once. Called with no lock of the futexes held.
pub trait Sleeper: Send + Sync {
    /// A waker chose it.
    fn woken(&self);
}

/// A task of this kernel.
struct Own(Arc<Task>);

impl Sleeper for Own {
    fn woken(&self) {
        self.0.wake_up();
    }
}

/// A sleeper in a queue; see [`Futexes::arm`].
pub struct Armed(Arc<Waiter>);

impl Armed {
    /// Whether a waker chose it.
    pub fn is_woken(&self) -> bool {
        self.0.woken.load(Ordering::Acquire)
    }
}

struct Waiter {
    sleeper: Arc<dyn Sleeper>,
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

    /// Queues a sleeper, if `still` says that the word is as it expects: a waker either sees the sleeper or changed the word before.
    pub fn arm(&self, key: Key, bits: u32, sleeper: Arc<dyn Sleeper>, still: impl FnOnce() -> bool) -> Option<Armed> {
        let index = Self::index(&key);
        let waiter = Arc::new(Waiter { sleeper, bits, woken: AtomicBool::new(false), bucket: AtomicUsize::new(index) });
        let mut bucket = self.bucket(index).lock();
        if !still() {
            return None;
        }
        bucket.push_back(Entry { key, waiter: waiter.clone() });
        Some(Armed(waiter))
    }

    /// Takes a sleeper out of the queue; `false` if it was woken before.
    pub fn disarm(&self, armed: &Armed) -> bool {
        self.leave(&armed.0);
        !armed.is_woken()
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
        waiter.sleeper.woken();
    }
    woken.len()
}

impl Cx {
    /// What the word at `at` is. `private`: the program says that no other process waits for it.
    ///
    /// # Errors
    /// `EINVAL` if it is not aligned, `EFAULT` if it is not mapped.
    pub fn futex_word(&self, at: u64, private: bool) -> Result<Word> {
        if !at.is_multiple_of(4) {
            return Err(Error::new(Errno::EINVAL, "futex word is not aligned"));
        }
        let space = self.space();
        if !private && let Some((object, offset)) = space.shared_place(at) {
            let key = Key::Shared(object.id(), offset);
            return Ok(Word { key, elsewhere: object.words().is_some().then_some((object, offset)) });
        }
        if !mm::user::user_range(at, 4) {
            return Err(Error::new(Errno::EFAULT, "futex word"));
        }
        Ok(Word { key: Key::Private(Arc::as_ptr(&space).cast::<Space>() as usize, at), elsewhere: None })
    }

    /// FUTEX_WAIT: sleeps if the word is `expected`, until woken.
    ///
    /// # Errors
    /// `EAGAIN` if the word is something else, `EINVAL` without bits, `ETIMEDOUT`, `EINTR`, `EFAULT`, `EHOSTDOWN` if the kernel that has the word died.
    pub fn futex_wait(&self, at: u64, private: bool, expected: u32, bits: u32, timeout: Timeout) -> Result<()> {
        if bits == 0 {
            return Err(Errno::EINVAL.into());
        }
        let word = self.futex_word(at, private)?;
        if let Some((words, offset)) = word.elsewhere.as_ref().and_then(|(object, at)| Some((object.words()?, *at))) {
            // Most often the word has changed already, and that can be seen from here.
            if self.user(|u| u.load_u32(at))? != expected {
                return Err(Error::new(Errno::EAGAIN, "the word changed"));
            }
            return self.sleep_elsewhere(words.sleep(offset, expected, bits)?, timeout);
        }
        let key = word.key;
        let futexes = &self.kernel().futexes;
        let sleeper = Arc::new(Own(self.task().clone()));
        let armed = loop {
            let mut seen = Ok(expected);
            let armed = futexes.arm(key, bits, sleeper.clone(), || {
                seen = hal::user::load_u32(hal::addr::UserAddr(at));
                seen == Ok(expected)
            });
            match (armed, seen) {
                (Some(armed), _) => break armed,
                (None, Ok(_)) => return Err(Error::new(Errno::EAGAIN, "the word changed")),
                (None, Err(fault)) => self.user(|u| u.resolve(fault, hal::usermode::Access::Read))?,
            }
        };
        let woken = || armed.is_woken().then_some(());
        let result = self.wait_until(woken, timeout, Interrupted::Restart);
        // A wake-up that came meanwhile counts.
        if result.is_err() && !futexes.disarm(&armed) {
            return Ok(());
        }
        result
    }

    /// Sleeps at a word of another kernel.
    fn sleep_elsewhere(&self, mut sleep: Box<dyn WordSleep>, timeout: Timeout) -> Result<()> {
        let ended = |result: TryResult<()>| match result {
            Ok(Try::Done(())) => Ok(()),
            Ok(_) => Err(Error::new(Errno::EAGAIN, "the word changed")),
            Err(error) => Err(error),
        };
        sleep.notify(self.waker());
        let early = match self.wait_until(|| sleep.take(), timeout, Interrupted::Restart) {
            Ok(result) => return ended(result),
            Err(early) => early,
        };
        // Whether the wake-up or this end came first is for the home to say.
        sleep.cancel();
        match self.wait_until(|| sleep.take(), Timeout::Never, Interrupted::Killed) {
            Ok(Err(error)) if error == Errno::ECANCELED => Err(early),
            Ok(result) => ended(result),
            Err(_) => Err(early),
        }
    }

    /// Begins to wake up to `count` sleepers of a word.
    fn begin_wake(&self, word: &Word, count: usize, bits: u32) -> TryResult<usize> {
        match word.elsewhere.as_ref().and_then(|(object, at)| Some((object.words()?, *at))) {
            Some((words, offset)) => words.wake(offset, u32::try_from(count).unwrap_or(u32::MAX), bits),
            None => base::wait::done(self.kernel().futexes.wake(word.key, count, bits)),
        }
    }

    /// FUTEX_WAKE of a word that is known.
    ///
    /// # Errors
    /// `EHOSTDOWN`, `EINTR` if this task is to die.
    pub fn futex_wake_word(&self, word: &Word, count: usize, bits: u32) -> Result<usize> {
        self.settle(self.begin_wake(word, count, bits), Interrupted::Killed)
    }

    /// FUTEX_WAKE.
    ///
    /// # Errors
    /// As [`Cx::futex_word`] and [`Cx::futex_wake_word`].
    pub fn futex_wake(&self, at: u64, private: bool, count: usize, bits: u32) -> Result<usize> {
        self.futex_wake_word(&self.futex_word(at, private)?, count, bits)
    }

    /// FUTEX_REQUEUE: wakes up to `wake` sleepers of `from` and moves up to `requeue` others to `to`; (woken, moved). Those who cannot be moved, because
    /// the words have different homes, are woken: they look at their word again.
    ///
    /// # Errors
    /// As [`Cx::futex_wake_word`].
    pub fn futex_requeue(&self, from: &Word, to: &Word, wake: usize, requeue: usize) -> Result<(usize, usize)> {
        let few = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        match (&from.elsewhere, &to.elsewhere) {
            (None, None) => Ok(self.kernel().futexes.requeue(from.key, to.key, wake, requeue)),
            (None, Some(_)) => {
                let woken = self.kernel().futexes.wake(from.key, wake.saturating_add(requeue), ANY);
                Ok((woken.min(wake), woken.saturating_sub(wake)))
            }
            (Some((object, offset)), _) => {
                let words = object.words().ok_or(Error::new(Errno::EFAULT, "the word has no home"))?;
                let (target, at) = to.place();
                self.settle(words.requeue(*offset, target, at, few(wake), few(requeue)), Interrupted::Killed)
            }
        }
    }

    /// Wakes one sleeper without waiting for the answer of its home: on the way out.
    fn tell_futex(&self, at: u64, private: bool) {
        if let Ok(word) = self.futex_word(at, private) {
            // If its home is dead so are its sleepers.
            let _ = self.begin_wake(&word, 1, ANY);
        }
    }

    /// At the end of a thread or its program: tells those who wait for its robust futexes and for its end.
    pub(crate) fn release_futexes(&self) {
        let head = self.task().robust_list.swap(0, Ordering::Relaxed);
        if head != 0 {
            // A list that the program has spoiled is not our business.
            let _ = self.walk_robust_list(head);
        }
        self.release_pi();
        let at = self.task().clear_tid.swap(0, Ordering::Relaxed);
        if at != 0 && self.user(|u| u.write(at, &0_u32.to_le_bytes())).is_ok() {
            // The word may be in shared memory, whatever the library says.
            self.tell_futex(at, false);
            self.tell_futex(at, true);
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
            self.tell_futex(at, false);
            self.tell_futex(at, true);
            return Ok(());
        }
        while old & robust::TID_MASK == tid {
            let new = (old & robust::WAITERS) | robust::OWNER_DIED;
            let found = self.user(|u| u.compare_exchange_u32(at, old, new))?;
            if found == old {
                if old & robust::WAITERS != 0 {
                    self.tell_futex(at, false);
                    self.tell_futex(at, true);
                }
                break;
            }
            old = found;
        }
        Ok(())
    }
}
