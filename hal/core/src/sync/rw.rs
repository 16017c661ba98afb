//! A spin lock that many may read.

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};

use super::Rank;

const WRITER: u32 = 1 << 31;
const WAITING: u32 = 1 << 30;
const READERS: u32 = WAITING - 1;

/// A value that many CPUs may read at once or one may change. A waiting writer holds back new readers.
pub struct RwSpinLock<T: ?Sized> {
    #[cfg(any(feature = "checks", debug_assertions))]
    rank: Rank,
    state: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: readers share `&T`, a writer is alone.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwSpinLock<T> {}
// SAFETY: it owns its value.
unsafe impl<T: ?Sized + Send> Send for RwSpinLock<T> {}

/// The right to read.
#[must_use]
pub struct RwReadGuard<'a, T: ?Sized> {
    lock: &'a RwSpinLock<T>,
    _not_send: core::marker::PhantomData<*const ()>,
}

/// The right to change.
#[must_use]
pub struct RwWriteGuard<'a, T: ?Sized> {
    lock: &'a RwSpinLock<T>,
    _not_send: core::marker::PhantomData<*const ()>,
}

impl<T> RwSpinLock<T> {
    /// A lock with its place in the order.
    pub const fn new(rank: Rank, value: T) -> Self {
        // Only the checks look at it.
        #[cfg(not(any(feature = "checks", debug_assertions)))]
        let _ = rank;
        Self {
            #[cfg(any(feature = "checks", debug_assertions))]
            rank,
            state: AtomicU32::new(0),
            value: UnsafeCell::new(value),
        }
    }
}

impl<T: ?Sized> RwSpinLock<T> {
    /// Takes the lock for reading.
    #[track_caller]
    #[inline]
    pub fn read(&self) -> RwReadGuard<'_, T> {
        #[cfg(any(feature = "checks", debug_assertions))]
        super::checks::push(self.rank, false);
        #[cfg(not(target_os = "none"))]
        hal_host::preemption_point();
        let mut turn = 0;
        loop {
            let s = self.state.load(Ordering::Relaxed);
            if s & (WRITER | WAITING) == 0
                && self.state.compare_exchange_weak(s, s + 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                return RwReadGuard { lock: self, _not_send: core::marker::PhantomData };
            }
            super::spin(&mut turn);
        }
    }

    /// Takes the lock for writing.
    #[track_caller]
    #[inline]
    pub fn write(&self) -> RwWriteGuard<'_, T> {
        #[cfg(any(feature = "checks", debug_assertions))]
        super::checks::push(self.rank, false);
        #[cfg(not(target_os = "none"))]
        hal_host::preemption_point();
        let mut turn = 0;
        loop {
            let s = self.state.load(Ordering::Relaxed);
            if s & (WRITER | READERS) == 0 {
                if self.state.compare_exchange_weak(s, WRITER, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                    return RwWriteGuard { lock: self, _not_send: core::marker::PhantomData };
                }
            } else if s & WAITING == 0 {
                self.state.fetch_or(WAITING, Ordering::Relaxed);
            }
            super::spin(&mut turn);
        }
    }

    /// The value, through the only reference to the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: ?Sized> Deref for RwReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: while a reader holds the lock nobody writes.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> Deref for RwWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the writer is alone.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for RwWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the writer is alone, and `&mut self` is the only way to the value.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for RwReadGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.state.fetch_sub(1, Ordering::Release);
        #[cfg(any(feature = "checks", debug_assertions))]
        super::checks::pop(self.lock.rank);
    }
}

impl<T: ?Sized> Drop for RwWriteGuard<'_, T> {
    fn drop(&mut self) {
        // A writer that came to wait meanwhile sets WAITING again at its next turn.
        self.lock.state.store(0, Ordering::Release);
        #[cfg(any(feature = "checks", debug_assertions))]
        super::checks::pop(self.lock.rank);
    }
}
