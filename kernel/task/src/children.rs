//! What a parent knows about its children. It is kept at the parent's kernel, so that `wait` never asks a peer: a child's kernel tells what happens.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::{ids::Pid, signal::Signal};

/// How a process ended, or why it stopped; encodes as wait(2) shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// `exit(code)`.
    Exited(u8),
    /// Killed by a signal.
    Killed {
        /// Which.
        signal: Signal,
        /// Whether it would have dumped core.
        core: bool,
    },
    /// Stopped by a signal.
    Stopped(Signal),
    /// Went on.
    Continued,
}

impl Status {
    /// The `wstatus` of wait4(2).
    pub const fn wstatus(self) -> i32 {
        match self {
            Self::Exited(code) => (code as i32) << 8,
            Self::Killed { signal, core } => signal.number() as i32 | if core { 0x80 } else { 0 },
            Self::Stopped(signal) => 0x7f | (signal.number() as i32) << 8,
            Self::Continued => 0xffff,
        }
    }

    /// `si_code` and `si_status` of waitid(2) and SIGCHLD.
    pub const fn code_and_status(self) -> (i32, i32) {
        use crate::signal::info::code;
        match self {
            Self::Exited(c) => (code::CLD_EXITED, c as i32),
            Self::Killed { signal, core: false } => (code::CLD_KILLED, signal.number() as i32),
            Self::Killed { signal, core: true } => (code::CLD_DUMPED, signal.number() as i32),
            Self::Stopped(signal) => (code::CLD_STOPPED, signal.number() as i32),
            Self::Continued => (code::CLD_CONTINUED, Signal::CONT.number() as i32),
        }
    }
}

/// Resources used; getrusage(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// User time in ns.
    pub user: u64,
    /// System time in ns.
    pub system: u64,
    /// Largest resident set in KiB.
    pub max_rss: u64,
    /// Faults without I/O.
    pub minor_faults: u64,
    /// Faults with I/O.
    pub major_faults: u64,
    /// Times it gave up the CPU.
    pub voluntary: u64,
    /// Times it lost the CPU.
    pub involuntary: u64,
}

impl Usage {
    /// Adds what another one used.
    pub fn add(&mut self, other: &Self) {
        self.user += other.user;
        self.system += other.system;
        self.max_rss = self.max_rss.max(other.max_rss);
        self.minor_faults += other.minor_faults;
        self.major_faults += other.major_faults;
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
    }
}

/// What happened to a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChildEvent {
    /// The child.
    pub pid: Pid,
    /// What.
    pub change: ChildChange,
}

/// See [`ChildEvent`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChildChange {
    /// It exited, was killed, stopped or went on.
    Status {
        /// How.
        status: Status,
        /// Its real user.
        uid: u32,
        /// What it and its reaped children used.
        usage: Usage,
    },
    /// It is in another group now.
    Group(Pid),
    /// It was exec'd: its exit signal is SIGCHLD again.
    Exec,
    /// It was waited for, by a thread of its parent that did not come along when that moved.
    Gone,
}

/// A child as its parent knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChildRecord {
    /// The child.
    pub pid: Pid,
    /// Its group, for `waitpid(-pgid)`.
    pub pgid: Pid,
    /// What the parent gets when it exits; 0 for none. A child with one other than SIGCHLD is a "clone child" (`__WCLONE`).
    pub exit_signal: u8,
    /// Its real user.
    pub uid: u32,
    /// The thread of the parent that made it (`__WNOTHREAD`).
    pub by: Pid,
    /// It is a zombie with this status.
    pub zombie: Option<(Status, Usage)>,
    /// Stopped or continued, not yet waited for.
    pub job: Option<Status>,
}

/// Which children a wait is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// Any.
    Any,
    /// This one.
    One(Pid),
    /// Those of this group.
    Group(Pid),
}

/// What a wait looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Which children.
    pub who: Who,
    /// WEXITED.
    pub exited: bool,
    /// WSTOPPED / WUNTRACED.
    pub stopped: bool,
    /// WCONTINUED.
    pub continued: bool,
    /// WNOWAIT: leave it as it is.
    pub keep: bool,
    /// `__WCLONE` only, or `__WALL`.
    pub clone: CloneChildren,
    /// `__WNOTHREAD`: only those that this thread made.
    pub by: Option<Pid>,
}

/// What a wait says about children whose exit signal is not SIGCHLD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloneChildren {
    /// Not those.
    No,
    /// Only those (`__WCLONE`).
    Only,
    /// Those too (`__WALL`).
    Too,
}

/// What a wait found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// This child, with its status and what it used; taken unless the wait wanted to keep it.
    Child(ChildRecord, Status, Usage),
    /// There are such children, but nothing happened.
    NotYet,
    /// There are none (`ECHILD`).
    None,
}

/// The children of one process.
#[derive(Debug, Default)]
pub struct Children {
    by_pid: BTreeMap<Pid, ChildRecord>,
}

impl Children {
    /// None.
    pub const fn new() -> Self {
        Self { by_pid: BTreeMap::new() }
    }

    /// Adds one.
    pub fn insert(&mut self, child: ChildRecord) {
        self.by_pid.insert(child.pid, child);
    }

    /// Forgets one.
    pub fn remove(&mut self, pid: Pid) -> Option<ChildRecord> {
        self.by_pid.remove(&pid)
    }

    /// One of them.
    pub fn get(&self, pid: Pid) -> Option<&ChildRecord> {
        self.by_pid.get(&pid)
    }

    /// One of them.
    pub fn get_mut(&mut self, pid: Pid) -> Option<&mut ChildRecord> {
        self.by_pid.get_mut(&pid)
    }

    /// All, by pid.
    pub fn iter(&self) -> impl Iterator<Item = &ChildRecord> {
        self.by_pid.values()
    }

    /// Gives them all away.
    pub fn take(&mut self) -> Vec<ChildRecord> {
        core::mem::take(&mut self.by_pid).into_values().collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_pid.is_empty()
    }

    fn matches(child: &ChildRecord, wanted: &Wanted) -> bool {
        let who = match wanted.who {
            Who::Any => true,
            Who::One(pid) => child.pid == pid,
            Who::Group(pgid) => child.pgid == pgid,
        };
        let is_clone = child.exit_signal != Signal::CHLD.number();
        let sort = match wanted.clone {
            CloneChildren::No => !is_clone,
            CloneChildren::Only => is_clone,
            CloneChildren::Too => true,
        };
        who && sort && wanted.by.is_none_or(|by| child.by == by)
    }

    /// Looks for a child to report, as wait(2) does. A zombie that is taken is forgotten: the caller frees its pid.
    pub fn wait(&mut self, wanted: &Wanted) -> Found {
        let mut any = false;
        let mut hit = None;
        let mut look = |child: &ChildRecord| {
            if !Self::matches(child, wanted) {
                return false;
            }
            if let Some((status, usage)) = child.zombie {
                // A zombie matches even a wait that does not want it: then it counts as a child for which one may wait.
                any = true;
                if wanted.exited {
                    hit = Some((*child, status, usage));
                }
                return wanted.exited;
            }
            any = true;
            let wants_job = match child.job {
                Some(Status::Stopped(_)) => wanted.stopped,
                Some(Status::Continued) => wanted.continued,
                _ => false,
            };
            if wants_job && let Some(status) = child.job {
                hit = Some((*child, status, Usage::default()));
            }
            wants_job
        };
        match wanted.who {
            Who::One(pid) => {
                self.by_pid.get(&pid).map(&mut look);
            }
            _ => {
                self.by_pid.values().any(&mut look);
            }
        }
        let Some((child, status, usage)) = hit else {
            return if any { Found::NotYet } else { Found::None };
        };
        if !wanted.keep {
            if child.zombie.is_some() {
                self.by_pid.remove(&child.pid);
            } else if let Some(c) = self.by_pid.get_mut(&child.pid) {
                c.job = None;
            }
        }
        Found::Child(child, status, usage)
    }
}

#[cfg(test)]
mod tests {
    use super::{ChildRecord, Children, CloneChildren, Found, Status, Usage, Wanted, Who};
    use crate::{ids::Pid, signal::Signal};

    fn child(pid: u32, pgid: u32) -> ChildRecord {
        ChildRecord { pid: Pid(pid), pgid: Pid(pgid), exit_signal: 17, uid: 0, by: Pid(1), zombie: None, job: None }
    }

    const ANY: Wanted = Wanted {
        who: Who::Any,
        exited: true,
        stopped: false,
        continued: false,
        keep: false,
        clone: CloneChildren::No,
        by: None,
    };

    #[test]
    fn status_words_are_those_of_wait() {
        assert_eq!(Status::Exited(3).wstatus(), 0x300);
        assert_eq!(Status::Killed { signal: Signal::SEGV, core: true }.wstatus(), 0x8b);
        assert_eq!(Status::Stopped(Signal::TSTP).wstatus(), 0x147f);
        assert_eq!(Status::Continued.wstatus(), 0xffff);
    }

    #[test]
    fn a_zombie_is_reported_once() {
        let mut c = Children::new();
        assert_eq!(c.wait(&ANY), Found::None);
        c.insert(child(5, 5));
        c.insert(child(6, 5));
        assert_eq!(c.wait(&ANY), Found::NotYet);
        c.get_mut(Pid(6)).unwrap().zombie = Some((Status::Exited(1), Usage::default()));
        assert!(matches!(c.wait(&Wanted { keep: true, ..ANY }), Found::Child(r, ..) if r.pid == Pid(6)));
        assert!(matches!(c.wait(&ANY), Found::Child(r, Status::Exited(1), _) if r.pid == Pid(6)));
        assert_eq!(c.wait(&ANY), Found::NotYet);
        assert_eq!(c.wait(&Wanted { who: Who::One(Pid(6)), ..ANY }), Found::None);
        assert_eq!(c.wait(&Wanted { who: Who::Group(Pid(5)), ..ANY }), Found::NotYet);
        assert_eq!(c.wait(&Wanted { clone: CloneChildren::Only, ..ANY }), Found::None);
    }

    #[test]
    fn stops_are_for_those_who_ask() {
        let mut c = Children::new();
        c.insert(child(5, 5));
        c.get_mut(Pid(5)).unwrap().job = Some(Status::Stopped(Signal::TSTP));
        assert_eq!(c.wait(&ANY), Found::NotYet);
        let stops = Wanted { stopped: true, ..ANY };
        assert!(matches!(c.wait(&stops), Found::Child(_, Status::Stopped(Signal::TSTP), _)));
        assert_eq!(c.wait(&stops), Found::NotYet);
    }
}
