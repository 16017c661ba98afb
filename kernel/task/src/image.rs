//! A stopped task as plain data: all that goes with it when execve(2) continues on another kernel.

use alloc::{string::String, vec::Vec};

use base::ObjectId;

use crate::{
    children::{ChildRecord, Usage},
    cluster::SessionHome,
    creds::Creds,
    ids::Pid,
    limits::Limits,
    signal::{SigInfo, SigSet},
};

/// How a task is scheduled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scheduling {
    /// `SCHED_*`.
    pub policy: u8,
    /// Real-time priority, 0 for the fair policies.
    pub priority: u8,
    /// Nice value.
    pub nice: i8,
    /// CPUs of the old kernel that it was bound to, by global number; empty if it was not bound.
    pub reset_on_fork: bool,
}

/// An interval timer, in ns; 0 is off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IntervalTimer {
    /// Until the next expiry.
    pub left: u64,
    /// Between later ones.
    pub interval: u64,
}

/// What a handle is to be opened as at the other side. The file service makes and resolves these; this crate only carries them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HandleImage {
    /// The object.
    pub object: ObjectId,
    /// What the file service needs besides, in its own encoding.
    pub data: Vec<u8>,
}

/// A descriptor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FdImage {
    /// Its number.
    pub fd: u32,
    /// FD_CLOEXEC never moves: such descriptors are closed first.
    pub handle: HandleImage,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskImage {
    /// Its pid, which it keeps.
    pub pid: Pid,
    /// The process object.
    pub id: ObjectId,
    /// Its parent.
    pub ppid: Pid,
    /// Its group.
    pub pgid: Pid,
    /// Its session.
    pub sid: Pid,
    /// The session object.
    pub session: ObjectId,
    /// Where its session is, as far as the kernel that it leaves knows.
    pub session_home: SessionHome,
    /// Its children with zombies.
    pub children: Vec<ChildRecord>,
    /// PR_SET_CHILD_SUBREAPER.
    pub subreaper: bool,
    /// What its parent gets when it exits.
    pub exit_signal: u8,
    /// PR_SET_PDEATHSIG.
    pub parent_death_signal: u8,
    /// Credentials.
    pub creds: Creds,
    /// File mode creation mask.
    pub umask: u32,
    /// Resource limits.
    pub limits: Limits,
    /// Nice, policy.
    pub scheduling: Scheduling,
    /// Blocked signals.
    pub mask: SigSet,
    /// Signals that it ignores.
    pub ignored: SigSet,
    /// Signals pending for the process.
    pub pending: Vec<SigInfo>,
    /// Signals pending for the thread.
    pub pending_thread: Vec<SigInfo>,
    /// ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.
    pub itimers: [IntervalTimer; 3],
    /// What it used.
    pub usage: Usage,
    /// What its reaped children used.
    pub children_usage: Usage,
    /// When it started, ns of machine time.
    pub started: u64,
    /// Its working directory.
    pub cwd: HandleImage,
    /// Its root directory.
    pub root: HandleImage,
    /// The program to execute, opened.
    pub program: HandleImage,
    /// Its path, for `AT_EXECFN`, `/proc/PID/exe` and scripts.
    pub path: String,
    /// Open descriptors that survive.
    pub files: Vec<FdImage>,
    /// Arguments.
    pub argv: Vec<Vec<u8>>,
    /// Environment.
    pub envp: Vec<Vec<u8>>,
    /// Timer slack, ns.
    pub timer_slack: u64,
    /// Personality.
    pub personality: u32,
}
