//! Between terminals and sessions. A session is homed with its terminal, so neither waits for the other.

use alloc::sync::Arc;

use base::{ObjectId, Result, TryResult};

use crate::{Caller, Device, OpenFile, OpenFlags, Place, Status};

/// What a process wants from its terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TtyUse {
    /// To read: SIGTTIN in the background.
    Read,
    /// To write under TOSTOP, or to change something: SIGTTOU in the background.
    Write,
}

/// Whether it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Yes.
    Go,
    /// Its group was sent a stop signal; the call starts again afterwards.
    Stopped,
}

/// What a terminal tells the foreground group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TtySignal {
    /// SIGINT.
    Interrupt,
    /// SIGQUIT.
    Quit,
    /// SIGTSTP.
    Suspend,
    /// SIGWINCH.
    WindowChange,
}

/// A session as its terminal sees it. Implemented by the task layer.
pub trait JobControl: Send + Sync {
    /// Its number.
    fn sid(&self) -> u32;
    /// May this process use the terminal like this now?
    ///
    /// # Errors
    /// `EIO` for an orphaned group, or for a reader that ignores SIGTTIN.
    fn may(&self, caller: &Caller, what: TtyUse) -> Result<Verdict>;
    /// A signal for the foreground group. Callable in interrupt context.
    fn signal_foreground(&self, signal: TtySignal);
    /// tcgetpgrp(3); 0 if there is none.
    fn foreground(&self) -> u32;
    /// tcsetpgrp(3).
    ///
    /// # Errors
    /// `EPERM`, `ESRCH`, `EINVAL`.
    fn set_foreground(&self, caller: &Caller, pgid: u32) -> Result<Verdict>;
    /// Makes `terminal` the controlling one of this session; only for its leader without one.
    ///
    /// # Errors
    /// `EPERM`.
    fn take_terminal(&self, caller: &Caller, terminal: Arc<dyn Terminal>) -> Result<()>;
    /// TIOCNOTTY.
    ///
    /// # Errors
    /// `ENOTTY` if it has none.
    fn drop_terminal(&self, caller: &Caller) -> Result<()>;
    /// What `/dev/tty` opens for a process of the session.
    fn terminal(&self, pid: u32) -> Option<Arc<dyn Terminal>>;
    /// The terminal hung up: SIGHUP and SIGCONT to the leader and the foreground group, and no terminal any more.
    fn hung_up(&self);
}

/// A terminal as a session holds it.
pub trait Terminal: Send + Sync {
    /// Its name in the machine.
    fn id(&self) -> ObjectId;
    /// Its device number (`tty_nr` of `/proc/PID/stat`).
    fn device(&self) -> Device;
    /// The session gave it up or ended.
    fn lost(&self, sid: u32);
    /// Opens it (`/dev/tty`).
    ///
    /// # Errors
    /// `EIO` after a hang-up.
    fn open(&self, caller: &Caller, flags: OpenFlags, status: Status, place: Place) -> TryResult<Arc<dyn OpenFile>>;
}
