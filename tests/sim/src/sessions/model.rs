//! What Linux does, one system call after the other: a table of processes and nothing else. The rules are those of setpgid(2), setsid(2), tty_ioctl(4),
//! wait(2) and of exit as POSIX has it; cases of `tests/abi` (`job`, `tty`, `process`) hold Linux itself to them.

use std::collections::BTreeMap;

/// A process.
pub type Pid = u32;
/// The process that adopts orphans and reaps them at once.
pub const INIT: Pid = 1;

/// The signals that matter here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sig {
    /// SIGSTOP.
    Stop,
    /// SIGTSTP, SIGTTIN, SIGTTOU.
    Tstp,
    /// SIGCONT.
    Cont,
    /// SIGKILL.
    Kill,
    /// SIGINT, SIGHUP, SIGTERM, without a handler.
    Term,
}

/// A system call, or something typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// fork(2): the child gets this number.
    Fork { p: Pid, child: Pid },
    /// setpgid(2).
    SetGroup { p: Pid, target: Pid, pgid: Pid },
    /// tcsetpgrp(3); `immune`: SIGTTOU is ignored.
    Front { p: Pid, tty: u16, pgid: Pid, immune: bool },
    /// tcgetpgrp(3).
    GetFront { p: Pid, tty: u16 },
    /// read(2) from a terminal; `immune`: SIGTTIN is ignored. What it would read does not matter.
    Read { p: Pid, tty: u16, immune: bool },
    /// open(2) of a terminal, which a leader without one gets.
    Open { p: Pid, tty: u16 },
    /// TIOCNOTTY.
    GiveUp { p: Pid, tty: u16 },
    /// Ctrl-C or Ctrl-Z.
    Key { tty: u16, sig: Sig },
    /// kill(2) of a group of the own session.
    KillGroup { p: Pid, pgid: Pid, sig: Sig },
    /// exit(2).
    Exit { p: Pid },
    /// waitpid(-1, WNOHANG | WUNTRACED | WCONTINUED).
    Wait { p: Pid },
    /// execve(2), on this kernel.
    Exec { p: Pid, to: u16 },
    /// setsid(2).
    SetSid { p: Pid },
}

impl Op {
    /// Whether signals may come of it.
    pub const fn signals(&self) -> bool {
        match self {
            Self::Key { .. } | Self::KillGroup { .. } | Self::Exit { .. } | Self::GiveUp { .. } => true,
            Self::Front { immune, .. } | Self::Read { immune, .. } => !*immune,
            _ => false,
        }
    }

    /// Whether it changes who is in which group.
    pub const fn regroups(&self) -> bool {
        matches!(self, Self::SetGroup { .. } | Self::SetSid { .. })
    }

    /// Who calls.
    pub const fn caller(&self) -> Option<Pid> {
        match *self {
            Self::Fork { p, .. }
            | Self::SetGroup { p, .. }
            | Self::Front { p, .. }
            | Self::GetFront { p, .. }
            | Self::Read { p, .. }
            | Self::Open { p, .. }
            | Self::GiveUp { p, .. }
            | Self::KillGroup { p, .. }
            | Self::Exit { p }
            | Self::Wait { p }
            | Self::Exec { p, .. }
            | Self::SetSid { p } => Some(p),
            Self::Key { .. } => None,
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// The caller was stopped or dead.
    NotRun,
    /// A number.
    Ok(u32),
    /// Somebody waited for: the child and what happened.
    Child(Pid, Report),
    /// The group was sent a stop signal; the call starts again later.
    Stopped,
    /// An errno.
    Err(&'static str),
}

/// What a parent is told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Report {
    /// It stopped.
    Stopped,
    /// It went on.
    Continued,
    /// It ended.
    Exited,
}

/// How far a process has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Life {
    /// It runs.
    Alive,
    /// It is stopped.
    Stopped,
    /// It ended.
    Zombie,
}

/// A process, as everybody can see it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Proc {
    /// Its parent.
    pub ppid: Pid,
    /// Its group.
    pub pgid: Pid,
    /// Its session.
    pub sid: Pid,
    /// How far it has come.
    pub life: Life,
    /// It called execve.
    pub execed: bool,
    /// It has the session's terminal.
    pub tty: bool,
    /// Where it runs.
    pub place: u16,
    /// What its parent does not know yet.
    pub report: Option<Report>,
    /// It ends when it goes on.
    pub doomed: bool,
}

/// A session: its terminal and the foreground group.
pub type Session = (Option<u16>, Pid);

/// All of them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Model {
    /// The processes.
    pub procs: BTreeMap<Pid, Proc>,
    /// The sessions.
    pub sessions: BTreeMap<Pid, Session>,
}

impl Model {
    /// pid 1 on kernel 0 and a shell without a terminal.
    pub fn new(shell: Pid, place: u16) -> Self {
        let leader = |pid: Pid, ppid, place| Proc {
            ppid,
            pgid: pid,
            sid: pid,
            life: Life::Alive,
            execed: true,
            tty: false,
            place,
            report: None,
            doomed: false,
        };
        let procs = [(INIT, leader(INIT, 0, 0)), (shell, leader(shell, INIT, place))].into();
        Self { procs, sessions: [(INIT, (None, 0)), (shell, (None, 0))].into() }
    }

    fn owner(&self, tty: u16) -> Option<Pid> {
        self.sessions.iter().find(|(_, s)| s.0 == Some(tty)).map(|(sid, _)| *sid)
    }

    fn group(&self, pgid: Pid) -> Vec<Pid> {
        self.procs.iter().filter(|(_, p)| p.pgid == pgid).map(|(pid, _)| *pid).collect()
    }

    /// Whether the parent of a member holds the group: it is of another group of the same session.
    fn holds(&self, p: &Proc) -> bool {
        p.ppid != INIT && self.procs.get(&p.ppid).is_some_and(|parent| parent.pgid != p.pgid && parent.sid == p.sid)
    }

    fn orphaned(&self, pgid: Pid, without: Pid) -> bool {
        !self.procs.iter().any(|(pid, p)| {
            p.pgid == pgid && *pid != without && p.life != Life::Zombie && self.holds(p) && {
                let parent = self.procs.get(&p.ppid);
                parent.is_some_and(|parent| parent.life != Life::Zombie)
            }
        })
    }

    fn send_group(&mut self, pgid: Pid, sig: Sig) {
        for pid in self.group(pgid) {
            self.send(pid, sig);
        }
    }

    fn send(&mut self, pid: Pid, sig: Sig) {
        let Some(p) = self.procs.get(&pid).copied().filter(|p| p.life != Life::Zombie && pid != INIT) else { return };
        let stop = match sig {
            Sig::Stop => true,
            Sig::Tstp => !self.orphaned(p.pgid, 0),
            _ => false,
        };
        let mut ends = sig == Sig::Kill;
        if let Some(p) = self.procs.get_mut(&pid) {
            match sig {
                _ if stop && p.life == Life::Alive => (p.life, p.report) = (Life::Stopped, Some(Report::Stopped)),
                Sig::Cont if p.life == Life::Stopped => {
                    (p.life, p.report) = (Life::Alive, Some(Report::Continued));
                    ends = p.doomed;
                }
                Sig::Term if p.life == Life::Stopped => p.doomed = true,
                Sig::Term => ends = true,
                _ => {}
            }
        }
        if ends {
            self.exit(pid);
        }
    }

    fn lose_terminal(&mut self, sid: Pid) {
        self.sessions.insert(sid, (None, 0));
        for p in self.procs.values_mut().filter(|p| p.sid == sid) {
            p.tty = false;
        }
    }

    fn exit(&mut self, pid: Pid) {
        let Some(p) = self.procs.get_mut(&pid) else { return };
        p.life = Life::Zombie;
        p.report = Some(Report::Exited);
        let gone = *p;
        if gone.sid == pid && self.sessions.get(&pid).is_some_and(|s| s.0.is_some()) {
            let front = self.sessions.get(&pid).map_or(0, |s| s.1);
            self.lose_terminal(pid);
            self.send_group(front, Sig::Term);
        }
        let children: Vec<Pid> = self.procs.iter().filter(|(_, p)| p.ppid == pid).map(|(pid, _)| *pid).collect();
        let held: Vec<Pid> = children.iter().filter_map(|c| self.procs.get(c)).map(|c| c.pgid).collect();
        let mut hung_up = Vec::new();
        for (child, pgid) in children.iter().zip(held) {
            if let Some(c) = self.procs.get_mut(child) {
                let (sid, zombie) = (c.sid, c.life == Life::Zombie);
                c.ppid = INIT;
                if zombie {
                    self.procs.remove(child);
                }
                if pgid != gone.pgid && sid == gone.sid {
                    hung_up.push(pgid);
                }
            }
        }
        if self.holds(&gone) {
            hung_up.push(gone.pgid);
        }
        hung_up.sort_unstable();
        hung_up.dedup();
        hung_up.retain(|pgid| {
            let stopped = |p: &Proc| p.pgid == *pgid && p.life == Life::Stopped;
            self.orphaned(*pgid, pid) && self.procs.values().any(stopped)
        });
        for pgid in hung_up {
            self.send_group(pgid, Sig::Term);
            self.send_group(pgid, Sig::Cont);
        }
        if self.procs.get(&pid).is_some_and(|p| p.ppid == INIT) {
            self.procs.remove(&pid);
        }
        self.sweep();
    }

    /// Whom a call would send which signal, if that signal waits until each takes it: to be generated and to be taken are two things (signal(7)), and
    /// a call that is under way goes on to its end between them. SIGCONT acts at once.
    pub fn aim(&self, op: Op) -> Option<(Vec<Pid>, Sig)> {
        let (pgid, sig) = match op {
            Op::Key { tty, sig } => (self.sessions[&self.owner(tty)?].1, sig),
            Op::KillGroup { p, pgid, sig } => {
                let caller = self.procs.get(&p).filter(|q| q.life == Life::Alive)?;
                let there = self.procs.values().any(|q| q.pgid == pgid && q.sid == caller.sid);
                (there.then_some(pgid)?, sig)
            }
            _ => return None,
        };
        (sig != Sig::Cont).then(|| (self.group(pgid), sig))
    }

    /// A process takes a signal that waited.
    pub fn take(&mut self, pid: Pid, sig: Sig) {
        self.send(pid, sig);
    }

    /// Sessions end with their last process.
    fn sweep(&mut self) {
        let procs = &self.procs;
        self.sessions.retain(|sid, _| procs.values().any(|p| p.sid == *sid));
    }

    /// Does one thing.
    pub fn step(&mut self, op: Op) -> Outcome {
        self.call(op, false)
    }

    /// Does one thing that the caller was in the middle of when a signal came that stops or ends it: calls go on to their end.
    pub fn go_on(&mut self, op: Op) -> Outcome {
        self.call(op, true)
    }

    fn call(&mut self, op: Op, begun: bool) -> Outcome {
        let caller = match op.caller() {
            Some(pid) => match self.procs.get(&pid) {
                Some(p) if p.life == Life::Alive || begun => *p,
                _ => return Outcome::NotRun,
            },
            None => Proc { ppid: 0, pgid: 0, sid: 0, ..self.procs[&INIT] },
        };
        match op {
            Op::Fork { p, child } => {
                self.procs.insert(child, Proc { ppid: p, execed: false, report: None, ..caller });
                Outcome::Ok(child)
            }
            Op::SetGroup { p, target, pgid } => self.set_group(p, target, pgid),
            Op::Front { p, tty, pgid, immune } => {
                if self.owner(tty) != Some(caller.sid) || !caller.tty {
                    return Outcome::Err("ENOTTY");
                }
                match self.background(p, immune, false) {
                    Outcome::Ok(_) => {}
                    other => return other,
                }
                // A group, or a process that leads none now.
                let fits = |(pid, q): (&Pid, &Proc)| q.sid == caller.sid && (q.pgid == pgid || *pid == pgid);
                if !self.procs.iter().any(fits) {
                    return Outcome::Err("EPERM");
                }
                self.sessions.insert(caller.sid, (Some(tty), pgid));
                Outcome::Ok(0)
            }
            Op::GetFront { tty, .. } => {
                if self.owner(tty) != Some(caller.sid) || !caller.tty {
                    return Outcome::Err("ENOTTY");
                }
                Outcome::Ok(self.sessions[&caller.sid].1)
            }
            Op::Read { p, tty, immune } => {
                if self.owner(tty) != Some(caller.sid) || !caller.tty {
                    return Outcome::Ok(0);
                }
                self.background(p, immune, true)
            }
            Op::Open { p, tty } => {
                let free = self.sessions.get(&p).is_some_and(|s| s.0.is_none());
                if caller.sid == p && free && self.owner(tty).is_none() {
                    self.sessions.insert(p, (Some(tty), caller.pgid));
                    if let Some(p) = self.procs.get_mut(&p) {
                        p.tty = true;
                    }
                }
                Outcome::Ok(0)
            }
            Op::GiveUp { p, tty } => {
                if self.owner(tty) != Some(caller.sid) || !caller.tty {
                    return Outcome::Err("ENOTTY");
                }
                if caller.sid == p {
                    let front = self.sessions[&p].1;
                    self.lose_terminal(p);
                    self.send_group(front, Sig::Term);
                    self.send_group(front, Sig::Cont);
                } else if let Some(p) = self.procs.get_mut(&p) {
                    p.tty = false;
                }
                Outcome::Ok(0)
            }
            Op::Key { tty, sig } => {
                if let Some(sid) = self.owner(tty) {
                    let front = self.sessions[&sid].1;
                    self.send_group(front, sig);
                }
                Outcome::Ok(0)
            }
            Op::KillGroup { pgid, sig, .. } => {
                if !self.procs.values().any(|q| q.pgid == pgid && q.sid == caller.sid) {
                    return Outcome::Err("ESRCH");
                }
                self.send_group(pgid, sig);
                Outcome::Ok(0)
            }
            Op::Exit { p } => {
                self.exit(p);
                Outcome::Ok(0)
            }
            Op::Wait { p } => self.wait(p),
            Op::Exec { p, to } => {
                if let Some(p) = self.procs.get_mut(&p) {
                    (p.place, p.execed) = (to, true);
                }
                Outcome::Ok(0)
            }
            Op::SetSid { p } => {
                if self.procs.values().any(|q| q.pgid == p) {
                    return Outcome::Err("EPERM");
                }
                if let Some(q) = self.procs.get_mut(&p) {
                    (q.sid, q.pgid, q.tty) = (p, p, false);
                }
                self.sessions.insert(p, (None, 0));
                self.sweep();
                Outcome::Ok(p)
            }
        }
    }

    /// The check of job control (POSIX, General Terminal Interface).
    fn background(&mut self, p: Pid, immune: bool, read: bool) -> Outcome {
        let caller = self.procs[&p];
        let front = self.sessions[&caller.sid].1;
        if front == 0 || caller.pgid == front {
            return Outcome::Ok(0);
        }
        if immune {
            return if read { Outcome::Err("EIO") } else { Outcome::Ok(0) };
        }
        if self.orphaned(caller.pgid, 0) {
            return Outcome::Err("EIO");
        }
        self.send_group(caller.pgid, Sig::Tstp);
        Outcome::Stopped
    }

    fn set_group(&mut self, p: Pid, target: Pid, pgid: Pid) -> Outcome {
        let caller = self.procs[&p];
        let Some(q) = self.procs.get(&target).copied() else { return Outcome::Err("ESRCH") };
        if target != p {
            if q.ppid != p {
                return Outcome::Err("ESRCH");
            }
            if q.sid != caller.sid {
                return Outcome::Err("EPERM");
            }
            if q.execed {
                return Outcome::Err("EACCES");
            }
        }
        let there = self.procs.values().any(|g| g.pgid == pgid && g.sid == caller.sid);
        if q.sid == target || pgid != target && !there {
            return Outcome::Err("EPERM");
        }
        if let Some(q) = self.procs.get_mut(&target) {
            q.pgid = pgid;
        }
        Outcome::Ok(0)
    }

    fn wait(&mut self, p: Pid) -> Outcome {
        if !self.procs.values().any(|c| c.ppid == p) {
            return Outcome::Err("ECHILD");
        }
        let Some((pid, report)) =
            self.procs.iter().find_map(|(pid, c)| Some((*pid, c.report.filter(|_| c.ppid == p)?)))
        else {
            return Outcome::Ok(0);
        };
        if report == Report::Exited {
            self.procs.remove(&pid);
            self.sweep();
        } else if let Some(c) = self.procs.get_mut(&pid) {
            c.report = None;
        }
        Outcome::Child(pid, report)
    }
}
