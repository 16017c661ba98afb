//! On whose behalf something is done. Plain data: it crosses links as it is.

use alloc::{boxed::Box, sync::Arc};

use base::{
    Errno, Error, Result,
    wait::{Op, Try, TryResult},
};

use crate::types::{Access, FileKind, SetAttr, Stat};

/// The caller of an operation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Caller {
    /// User for files (`fsuid`).
    pub uid: u32,
    /// Group for files (`fsgid`).
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Arc<[u32]>,
    /// Effective capabilities, capabilities(7).
    pub capabilities: u64,
    /// File mode creation mask.
    pub umask: u32,
    /// The process.
    pub pid: u32,
    /// Its process group.
    pub pgid: u32,
    /// Its session.
    pub sid: u32,
    /// Whether it blocks or ignores SIGTTIN.
    pub immune_ttin: bool,
    /// Whether it blocks or ignores SIGTTOU.
    pub immune_ttou: bool,
    /// RLIMIT_FSIZE in bytes.
    pub file_size_limit: u64,
}

/// Capability numbers that files look at.
pub mod cap {
    /// Change owners.
    pub const CHOWN: u8 = 0;
    /// Bypass permission bits.
    pub const DAC_OVERRIDE: u8 = 1;
    /// Bypass read and search permission.
    pub const DAC_READ_SEARCH: u8 = 2;
    /// Bypass owner checks.
    pub const FOWNER: u8 = 3;
    /// Keep set-id bits.
    pub const FSETID: u8 = 4;
    /// Make device nodes.
    pub const MKNOD: u8 = 27;
    /// Mount.
    pub const SYS_ADMIN: u8 = 21;
}

impl Caller {
    /// The kernel itself: may do anything.
    pub fn kernel() -> Self {
        Self { capabilities: u64::MAX, file_size_limit: u64::MAX, ..Self::default() }
    }

    /// Whether it has capability `which`.
    pub const fn can(&self, which: u8) -> bool {
        self.capabilities & 1 << which != 0
    }

    /// Whether `gid` is its group for files or a supplementary one.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }

    /// Owner, or CAP_FOWNER.
    pub const fn owns(&self, stat: &Stat) -> bool {
        self.uid == stat.uid || self.can(cap::FOWNER)
    }

    /// Whether attributes may be changed like this, and what else changes with it (set-id bits); chmod(2), chown(2), utimensat(2).
    ///
    /// # Errors
    /// `EPERM`, `EACCES`.
    pub fn check_change(&self, stat: &Stat, change: &mut SetAttr) -> Result<()> {
        const NOT_OWNER: Error = Error::new(Errno::EPERM, "not the owner");
        if let Some(mode) = &mut change.mode {
            if !self.owns(stat) {
                return Err(NOT_OWNER);
            }
            *mode &= 0o7777;
            if !self.in_group(change.gid.unwrap_or(stat.gid)) && !self.can(cap::FSETID) {
                *mode &= !0o2000;
            }
        }
        if let Some(uid) = change.uid
            && !self.can(cap::CHOWN)
            && !(self.uid == stat.uid && uid == stat.uid)
        {
            return Err(NOT_OWNER);
        }
        if let Some(gid) = change.gid
            && !self.can(cap::CHOWN)
            && !(self.uid == stat.uid && (gid == stat.gid || self.in_group(gid)))
        {
            return Err(NOT_OWNER);
        }
        if (change.uid.is_some() || change.gid.is_some()) && stat.kind != FileKind::Directory {
            let now = change.mode.unwrap_or(stat.mode);
            let kept = now & !0o4000 & if now & 0o010 != 0 { !0o2000 } else { !0 };
            if kept != now {
                change.mode = Some(kept);
            }
        }
        if (change.accessed.is_some() || change.modified.is_some()) && !self.owns(stat) {
            if !change.times_are_now {
                return Err(NOT_OWNER);
            }
            stat.check(self, Access::WRITE)?;
        }
        Ok(())
    }

    /// Permission bits and group of something new in `dir`: umask, and set-group-id directories.
    pub const fn new_mode(&self, dir: &Stat, mode: u32, is_directory: bool) -> (u32, u32) {
        let mode = mode & !self.umask & 0o7777;
        if dir.mode & 0o2000 != 0 {
            (if is_directory { mode | 0o2000 } else { mode }, dir.gid)
        } else {
            (mode, self.gid)
        }
    }
}

/// How an operation that was started is waited for. The task layer implements it; a path walk gets it, so that it works for inodes of any kernel.
pub trait WaitOps {
    /// Sleeps until `ready` says so, which is asked again after each wake-up of the op. Interrupted by signals.
    ///
    /// # Errors
    /// `EINTR` if a signal came; the op is then abandoned by its owner.
    fn wait(&self, op: &mut dyn Waitable) -> Result<()>;
}

/// An op without its type.
pub trait Waitable {
    /// Names who is told.
    fn notify(&mut self, waker: alloc::sync::Arc<dyn base::Wake>);
    /// Whether the result is there now.
    fn ready(&mut self) -> bool;
    /// Whether it ends by itself soon: see [`Op::soon`].
    fn soon(&self) -> bool;
}

struct Held<T> {
    op: Box<dyn Op<T>>,
    result: Option<TryResult<T>>,
}

impl<T> Waitable for Held<T> {
    fn notify(&mut self, waker: alloc::sync::Arc<dyn base::Wake>) {
        self.op.notify(waker);
    }

    fn soon(&self) -> bool {
        self.op.soon()
    }

    fn ready(&mut self) -> bool {
        if self.result.is_none() {
            self.result = self.op.take();
        }
        self.result.is_some()
    }
}

impl dyn WaitOps + '_ {
    /// The value of an operation that must not say "would block" (lookup, stat, open): waits if it was started.
    ///
    /// # Errors
    /// That of the operation, or `EINTR`.
    pub fn finish<T>(&self, mut tried: TryResult<T>) -> Result<T> {
        loop {
            match tried? {
                Try::Done(value) => return Ok(value),
                Try::WouldBlock => return Err(Error::new(base::Errno::EAGAIN, "would block")),
                Try::Started(op) => {
                    let mut held = Held { op, result: None };
                    if !held.ready() {
                        self.wait(&mut held)?;
                    }
                    tried = held.result.unwrap_or(Err(Error::new(base::Errno::EINTR, "woken without a result")));
                }
            }
        }
    }
}

/// For callers that know that nothing is remote (the kernel's own set-up, tests): a started op is an error.
#[derive(Clone, Copy, Debug)]
pub struct NoWait;

impl WaitOps for NoWait {
    fn wait(&self, op: &mut dyn Waitable) -> Result<()> {
        if op.ready() { Ok(()) } else { Err(Error::new(base::Errno::EDEADLK, "cannot wait here")) }
    }
}
