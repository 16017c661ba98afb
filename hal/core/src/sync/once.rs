//! A value that is set once.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU8, Ordering};

const EMPTY: u8 = 0;
const BUSY: u8 = 1;
const SET: u8 = 2;

/// A cell that is empty until it is set, then never changes. Reading costs one load.
pub struct Once<T> {
    state: AtomicU8,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: the value is written by the one who moved the state from EMPTY to BUSY, and read only after SET was seen with Acquire.
unsafe impl<T: Send + Sync> Sync for Once<T> {}
// SAFETY: it owns its value.
unsafe impl<T: Send> Send for Once<T> {}

impl<T> Once<T> {
    /// An empty cell.
    pub const fn new() -> Self {
        Self { state: AtomicU8::new(EMPTY), value: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// A cell that is set already.
    pub const fn with(value: T) -> Self {
        Self { state: AtomicU8::new(SET), value: UnsafeCell::new(MaybeUninit::new(value)) }
    }

    /// Sets the value; gives it back if there is one already (or another CPU is about to set one).
    pub fn set(&self, value: T) -> Result<(), T> {
        if self.state.compare_exchange(EMPTY, BUSY, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return Err(value);
        }
        // SAFETY: we alone moved it to BUSY; nobody reads before SET.
        unsafe { (*self.value.get()).write(value) };
        self.state.store(SET, Ordering::Release);
        Ok(())
    }

    /// The value, if it is set.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if self.state.load(Ordering::Acquire) == SET {
            // SAFETY: SET was stored after the value was written; it is never written again.
            Some(unsafe { (*self.value.get()).assume_init_ref() })
        } else {
            None
        }
    }

    /// The value; makes it if there is none. Should two CPUs make it at once, one of the two values is dropped.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if self.get().is_none() {
            let _ = self.set(make());
        }
        let mut turn = 0;
        loop {
            if let Some(v) = self.get() {
                return v;
            }
            super::spin(&mut turn);
        }
    }
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for Once<T> {
    fn drop(&mut self) {
        if *self.state.get_mut() == SET {
            // SAFETY: SET says that it is initialised, and we are its owner.
            unsafe { self.value.get_mut().assume_init_drop() };
        }
    }
}
