//! What a kernel lends this crate: time, memory, deadlines, sessions.

use alloc::{sync::Arc, vec::Vec};

use base::{ObjectId, Result, Subscription, TryResult, Wake};

use crate::{caller::Caller, terminal::JobControl};

/// A deadline that was set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlarmId(pub u64, pub u64, pub u64);

/// Told when its deadline has passed; in interrupt context, no lock held.
pub trait Alarm: Send + Sync {
    /// The deadline has passed.
    fn ring(self: Arc<Self>);
}

/// Signals of a process, for signalfd(2).
pub trait SignalSource: Send + Sync {
    /// Takes a pending signal of `mask` (bit n-1 is signal n) off the caller, already encoded as `signalfd_siginfo` (128 bytes).
    fn take(&self, mask: u64) -> Option<[u8; 128]>;
    /// Whether there is one.
    fn pending(&self, mask: u64) -> bool;
    /// Wakes when one comes.
    fn subscribe(&self, waker: Arc<dyn Wake>) -> Subscription;
}

/// See the module.
pub trait Env: Send + Sync {
    /// Time of day, ns since 1970.
    fn realtime(&self) -> i64;
    /// When the realtime clock shows `at`, in ns of `hal::time::now`.
    fn realtime_deadline(&self, at: i64) -> u64;
    /// A name for a new object.
    fn new_id(&self) -> ObjectId;
    /// Frames and counters.
    fn memory(&self) -> &Arc<mm::Memory>;
    /// Asks for `alarm` at `deadline`, ns of `hal::time::now`.
    fn set_alarm(&self, deadline: u64, alarm: Arc<dyn Alarm>) -> AlarmId;
    /// Takes it back; whether it had not passed.
    fn cancel_alarm(&self, alarm: AlarmId) -> bool;
    /// The session of a process.
    ///
    /// # Errors
    /// `ESRCH` if it is gone.
    fn session(&self, caller: &Caller) -> Result<Arc<dyn JobControl>>;
    /// The session of a process, brought here if it was elsewhere, for a terminal of this kernel that the process takes.
    ///
    /// # Errors
    /// `ESRCH` if it is gone, `EPERM` if the process may not take a terminal.
    fn bring_session(&self, caller: &Caller) -> TryResult<Arc<dyn JobControl>>;
    /// The signals of a process.
    ///
    /// # Errors
    /// `ESRCH` if it is gone.
    fn signals(&self, caller: &Caller) -> Result<Arc<dyn SignalSource>>;
    /// Says something for the log.
    fn log(&self, line: core::fmt::Arguments<'_>);
    /// Unpredictable bytes.
    fn random(&self, n: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(n + 8);
        while bytes.len() < n {
            bytes.extend_from_slice(&hal::cpu::entropy().to_le_bytes());
        }
        bytes.truncate(n);
        bytes
    }
}
