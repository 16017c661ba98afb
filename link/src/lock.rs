//! The lock of this crate's tables. Each guards a few lines of code that call nothing outside the crate but transports: a leaf.

/// A spin lock.
pub type Lock<T> = spin::Mutex<T>;
/// A read-mostly table.
pub type ReadMostly<T> = spin::RwLock<T>;
