//! Processes as plain data.

use alloc::vec::Vec;

use base::TryResult;
use proc::process::{ProcessFile, ProcessLink};
use vfs::{Caller, Place};

/// Who a process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// The processes that `/proc` shows. This kernel's are [`crate::LocalView`]; the single system image wraps that to add those of others.
pub trait ProcessView: Send + Sync {
    /// All processes.
    ///
    /// # Errors
    /// Those of peers never: who does not answer in time is left out.
    fn pids(&self) -> TryResult<Vec<u32>>;
    /// Whether there is such a process or thread, and whose it is.
    ///
    /// # Errors
    /// `ENOENT`.
    fn owner(&self, pid: u32) -> TryResult<Owner>;
    /// Its threads.
    ///
    /// # Errors
    /// `ENOENT`.
    fn threads(&self, pid: u32) -> TryResult<Vec<u32>>;
    /// Its descriptors.
    ///
    /// # Errors
    /// `ENOENT`, `EACCES`.
    fn descriptors(&self, caller: &Caller, pid: u32) -> TryResult<Vec<u32>>;
    /// The text of one of its files, of the process (`tid` = `pid`) or of a thread.
    ///
    /// # Errors
    /// `ESRCH`, `EACCES`.
    fn text(&self, caller: &Caller, pid: u32, tid: u32, what: ProcessFile) -> TryResult<Vec<u8>>;
    /// The text of `fdinfo/N`.
    ///
    /// # Errors
    /// `ENOENT`, `EACCES`.
    fn descriptor_info(&self, caller: &Caller, pid: u32, fd: u32) -> TryResult<Vec<u8>>;
    /// Where a link leads, as text.
    ///
    /// # Errors
    /// `ENOENT`, `EACCES`.
    fn link(&self, caller: &Caller, pid: u32, which: ProcessLink) -> TryResult<Vec<u8>>;
    /// Where a link leads, if that can be said better than as text.
    ///
    /// # Errors
    /// Any.
    fn place(&self, caller: &Caller, pid: u32, which: ProcessLink) -> TryResult<Option<Place>>;
    /// Something was written to one of its files.
    ///
    /// # Errors
    /// `EACCES`, `EINVAL`.
    fn set(&self, caller: &Caller, pid: u32, what: ProcessFile, text: &str) -> TryResult<()>;
}
