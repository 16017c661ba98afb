//! A spin lock: test and test-and-set (queue locks collapse when the CPUs of an emulator are descheduled).

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

use super::Rank;

/// A value behind a lock.
pub struct SpinLock<T: ?Sized> {
    #[cfg(any(feature = "checks", debug_assertions))]
    rank: Rank,
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands the value to one CPU at a time.
unsafe impl<T: ?Sized + Send> Sync for SpinLock<T> {}
// SAFETY: it owns its value.
unsafe impl<T: ?Sized + Send> Send for SpinLock<T> {}

/// The right to use the value; the lock is released when it is dropped.
#[must_use]
pub struct SpinGuard<'a, T: ?Sized> {
    lock: &'a SpinLock<T>,
    // A guard belongs to the CPU that took it.
    _not_send: core::marker::PhantomData<*const ()>,
}

// SAFETY: sharing a guard shares `&T`.
unsafe impl<T: ?Sized + Sync> Sync for SpinGuard<'_, T> {}

impl<T> SpinLock<T> {
    /// A lock with its place in the order.
    pub const fn new(rank: Rank, value: T) -> Self {
        // Only the checks look at it.
        #[cfg(not(any(feature = "checks", debug_assertions)))]
        let _ = rank;
        Self {
            #[cfg(any(feature = "checks", debug_assertions))]
            rank,
            taken: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// The value, when the lock is no longer needed.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }

    /// Takes two locks of one rank, in the order of their addresses.
    ///
    /// # Panics
    /// If both are the same lock.
    #[track_caller]
    pub fn lock_both<'a>(a: &'a Self, b: &'a Self) -> (SpinGuard<'a, T>, SpinGuard<'a, T>) {
        let (pa, pb) = (core::ptr::from_ref(a), core::ptr::from_ref(b));
        assert!(pa != pb, "one lock taken twice");
        if pa < pb {
            let ga = a.lock();
            (ga, b.take(true))
        } else {
            let gb = b.lock();
            (a.take(true), gb)
        }
    }
}

impl<T: ?Sized> SpinLock<T> {
    /// Takes the lock.
    #[track_caller]
    #[inline]
    pub fn lock(&self) -> SpinGuard<'_, T> {
        self.take(false)
    }

    #[track_caller]
    #[inline]
    fn take(&self, _again: bool) -> SpinGuard<'_, T> {
        #[cfg(any(feature = "checks", debug_assertions))]
        super::checks::push(self.rank, _again);
        #[cfg(not(target_os = "none"))]
        hal_host::preemption_point();
        if self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.contend();
        }
        SpinGuard { lock: self, _not_send: core::marker::PhantomData }
    }

    #[cold]
    fn contend(&self) {
        let mut turn = 0;
        loop {
            while self.taken.load(Ordering::Relaxed) {
                super::spin(&mut turn);
            }
            if self.taken.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Takes the lock if it is free; never spins, and so may be tried out of order.
    #[inline]
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        if self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return None;
        }
        #[cfg(any(feature = "checks", debug_assertions))]
        super::checks::push_tried(self.rank);
        Some(SpinGuard { lock: self, _not_send: core::marker::PhantomData })
    }

    /// The value, through the only reference to the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Takes the value without the lock, for a panic report only.
    #[cfg_attr(not(target_os = "none"), allow(dead_code))]
    pub(crate) fn force_unlock(&self) {
        self.taken.store(false, Ordering::Release);
    }
}

impl<T: ?Sized> Deref for SpinGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the guard exists, so this CPU holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for SpinGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard exists, so this CPU holds the lock, and `&mut self` is the only way to it.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for SpinGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.taken.store(false, Ordering::Release);
        #[cfg(any(feature = "checks", debug_assertions))]
        super::checks::pop(self.lock.rank);
    }
}

impl<T: ?Sized + core::fmt::Debug> core::fmt::Debug for SpinLock<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.try_lock() {
            Some(g) => write!(f, "SpinLock({:?})", &*g),
            None => f.write_str("SpinLock(taken)"),
        }
    }
}
