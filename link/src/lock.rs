//! The locks of the links, and of the services on them. Each guards a few lines of code; nothing waits in them.

pub use hal::sync::rank::{LINK, LINK_QUEUE, LINK_REQUESTS, LINK_RINGS, LINK_WINDOWS, SERVICE};
use hal::sync::{Rank, RwReadGuard, RwSpinLock, RwWriteGuard, SpinGuard, SpinLock};

/// A spin lock with its place in the order of locks.
#[derive(Debug)]
pub struct Lock<T>(SpinLock<T>);

impl<T> Lock<T> {
    /// The lock of a service's state.
    pub const fn new(value: T) -> Self {
        Self::ranked(SERVICE, value)
    }

    /// A lock of a rank.
    pub const fn ranked(rank: Rank, value: T) -> Self {
        Self(SpinLock::new(rank, value))
    }

    /// Takes the lock.
    #[track_caller]
    pub fn lock(&self) -> SpinGuard<'_, T> {
        self.0.lock()
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        self.0.try_lock()
    }
}

/// A table that is mostly read.
pub struct ReadMostly<T>(RwSpinLock<T>);

impl<T> ReadMostly<T> {
    /// The table, with the rank of the links' own tables.
    pub const fn new(value: T) -> Self {
        Self(RwSpinLock::new(LINK, value))
    }

    /// Reads.
    #[track_caller]
    pub fn read(&self) -> RwReadGuard<'_, T> {
        self.0.read()
    }

    /// Changes.
    #[track_caller]
    pub fn write(&self) -> RwWriteGuard<'_, T> {
        self.0.write()
    }
}
