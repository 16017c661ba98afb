//! One session as a state machine without I/O: groups, members, foreground group, terminal. All changes are serialised here, wherever
//! the members run; a group signal is one message per kernel with members.
//!
//! # Invariants
//! * A group exists exactly as long as it has members; a zombie is a member until it is reaped.
//! * The foreground group, if there is one, may have died out (as on Linux, where `tcgetpgrp` still names it).
//! * A group that becomes orphaned while a member is stopped gets SIGHUP and SIGCONT, once per change (POSIX `_exit`, consequences).

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use base::{Errno, KernelId, ObjectId};
use vfs::Device;

use crate::{
    ids::Pid,
    signal::{SigInfo, Signal},
};

/// Who sends a signal, for kill(2)'s permission rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender {
    /// The sending process.
    pub pid: Pid,
    /// Its real user.
    pub uid: u32,
    /// Its effective user.
    pub euid: u32,
    /// Whether it has CAP_KILL.
    pub privileged: bool,
    /// Its session, which may always send SIGCONT.
    pub sid: Pid,
}

impl Sender {
    /// The kernel itself, which may do anything.
    pub const KERNEL: Self = Self { pid: Pid(0), uid: 0, euid: 0, privileged: true, sid: Pid(0) };

    /// kill(2): real or effective user of the sender equals real or saved user of the target; SIGCONT within a session is free.
    pub const fn may_signal(&self, target: Users, sid: Pid, signal: Signal) -> bool {
        self.privileged
            || self.euid == target.real
            || self.euid == target.saved
            || self.uid == target.real
            || self.uid == target.saved
            || (signal.number() == Signal::CONT.number() && sid.0 == self.sid.0)
    }
}

/// The users of a process as far as kill(2) looks at them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Users {
    /// Real.
    pub real: u32,
    /// Saved.
    pub saved: u32,
}

/// How far a member has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// It runs or sleeps.
    Alive,
    /// Job control stopped it.
    Stopped,
    /// It exited and waits to be reaped.
    Zombie,
}

/// A process of the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its group.
    pub pgid: Pid,
    /// Its parent.
    pub ppid: Pid,
    /// The kernel where it runs.
    pub place: KernelId,
    /// How far it has come.
    pub life: Life,
    /// It has called execve since it was forked: its parent may not move it any more.
    pub execed: bool,
    /// The session's terminal is its terminal: the leader took it, and it is the leader or was forked from there after that, and has not given it up.
    pub terminal: bool,
    /// Its users.
    pub users: Users,
}

impl Member {
    /// One that lives, was only forked, and has no terminal.
    pub const fn new(pgid: Pid, ppid: Pid, place: KernelId, users: Users) -> Self {
        Self { pgid, ppid, place, life: Life::Alive, execed: false, terminal: false, users }
    }
}

/// What a background process wants from the terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// To read: SIGTTIN.
    Read,
    /// To write while TOSTOP is set, or to change the terminal: SIGTTOU.
    Write,
}

/// What changes the session and has an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// A member forked; the child is in its parent's group. The answer says that signals for the group reach the child, too: until then the
    /// child's kernel sees to that.
    Fork {
        /// The parent as wait(2) sees it (not the caller for CLONE_PARENT).
        ppid: Pid,
        /// The process whose group the child is born into.
        from: Pid,
        /// The child.
        child: Pid,
        /// Where it runs.
        place: KernelId,
    },
    /// setpgid(2) by `caller` for itself or a child. `pgid` 0 means `target`.
    SetGroup {
        /// Who asks.
        caller: Pid,
        /// Whom it concerns.
        target: Pid,
        /// The new group.
        pgid: Pid,
    },
    /// The group of a member (getpgid).
    GroupOf(Pid),
    /// `pid` leaves for a session of its own (setsid).
    Depart(Pid),
    /// kill(2) with a group.
    SignalGroup {
        /// The group.
        pgid: Pid,
        /// The signal; nothing for `kill(-pgid, 0)`.
        info: Option<SigInfo>,
        /// Who sends it.
        from: Sender,
    },
    /// A signal of the terminal for the foreground group (Ctrl-C, Ctrl-Z, window size).
    SignalForeground(SigInfo),
    /// tcgetpgrp(3).
    Foreground,
    /// tcsetpgrp(3).
    SetForeground {
        /// Who asks.
        caller: Pid,
        /// The group to bring to the front.
        pgid: Pid,
        /// Whether the caller blocks or ignores SIGTTOU.
        immune: bool,
    },
    /// May this member use the terminal like this now?
    Use {
        /// Who asks.
        caller: Pid,
        /// What it wants.
        access: Access,
        /// Whether it blocks or ignores the signal that it would get.
        immune: bool,
    },
    /// TIOCSCTTY by the leader, or the open of a terminal by a leader without one.
    TakeTerminal {
        /// Who asks.
        caller: Pid,
        /// Which terminal.
        terminal: ObjectId,
        /// Its device number.
        device: Device,
    },
    /// TIOCNOTTY.
    DropTerminal {
        /// Who asks.
        caller: Pid,
    },
    /// Which terminal a member has.
    Terminal(Pid),
    /// Whether a group is orphaned: then the stop signals of the terminal do nothing to it.
    IsOrphaned(Pid),
}

/// The answer to a [`Request`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Done, with nothing to say.
    Done,
    /// A group.
    Group(Pid),
    /// The device number of the controlling terminal, and the foreground group.
    Terminal(Option<(Device, Pid)>),
    /// Whether the group is orphaned.
    Orphaned(bool),
    /// The caller's group was sent a stop signal: act on it, then make the call again (ERESTARTSYS).
    Stopped,
}

/// What changes the session and needs no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// A member called execve.
    Exec(Pid),
    /// A member changed its users.
    Users(Pid, Users),
    /// A member stopped.
    Stop(Pid),
    /// A member went on.
    Continue(Pid),
    /// A member exited; its children now have another parent.
    Exit {
        /// The member.
        pid: Pid,
        /// The new parent of its children.
        reaper: Pid,
    },
    /// A zombie was reaped.
    Reap(Pid),
    /// A member runs on another kernel now.
    Moved {
        /// The member.
        pid: Pid,
        /// What that kernel knows of it, its place among it. It counts if the session lost it with the kernel where it was.
        member: Member,
    },
    /// A kernel died, and with it its members.
    Down(KernelId),
    /// A member that was in another session's children has a new parent.
    Reparent {
        /// The member.
        pid: Pid,
        /// Its new parent.
        ppid: Pid,
    },
}

/// What the session wants done, after its lock was dropped and in this order.
pub trait Effects {
    /// Deliver to these members of `pgid`, which are on `to` as far as is known, as far as `from` may signal them.
    fn signal(&mut self, to: KernelId, pgid: Pid, members: Vec<Pid>, info: SigInfo, from: Sender);
    /// The session lost its terminal because the leader exited or gave it up.
    fn terminal_lost(&mut self, terminal: ObjectId);
    /// A member that waits for the terminal or for a group change should look again.
    fn foreground_changed(&mut self) {}
    /// Group `pgid` exists now.
    fn group_made(&mut self, pgid: Pid) {
        let _ = pgid;
    }
    /// A member is in another group now; its kernel and its parent must know.
    fn regrouped(&mut self, pid: Pid, ppid: Pid, pgid: Pid) {
        let _ = (pid, ppid, pgid);
    }
    /// Group `pgid` has no members any more.
    fn group_gone(&mut self, pgid: Pid) {
        let _ = pgid;
    }
    /// The session has no members any more.
    fn empty(&mut self) {}
}

/// A session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    sid: Pid,
    members: BTreeMap<Pid, Member>,
    foreground: Pid,
    terminal: Option<ObjectId>,
    /// The device number of the terminal; meaningless without one.
    device: Device,
}

/// No terminal.
const NONE: Device = Device::new(0, 0);

impl State {
    /// A session whose only member is its leader.
    pub fn new(sid: Pid, leader: Member) -> Self {
        let mut members = BTreeMap::new();
        members.insert(sid, Member { pgid: sid, ..leader });
        Self { sid, members, foreground: Pid(0), terminal: None, device: NONE }
    }

    /// Put together from what [`State::export`] gave, at a new home.
    pub fn import(sid: Pid, members: Vec<(Pid, Member)>) -> Self {
        Self { sid, members: members.into_iter().collect(), foreground: Pid(0), terminal: None, device: NONE }
    }

    /// All there is to know, for a new home: a session with a terminal has none but that of the terminal.
    pub fn export(&self) -> (Pid, Vec<(Pid, Member)>) {
        (self.sid, self.members.iter().map(|(p, m)| (*p, *m)).collect())
    }

    /// The session's number.
    pub const fn sid(&self) -> Pid {
        self.sid
    }

    /// The controlling terminal.
    pub const fn terminal(&self) -> Option<ObjectId> {
        self.terminal
    }

    /// A member.
    pub fn member(&self, pid: Pid) -> Option<&Member> {
        self.members.get(&pid)
    }

    /// The members by pid.
    pub fn members(&self) -> impl Iterator<Item = (Pid, &Member)> {
        self.members.iter().map(|(pid, m)| (*pid, m))
    }

    /// The group in the foreground (0: none).
    pub const fn foreground(&self) -> Pid {
        self.foreground
    }

    /// Whether the session's terminal is the controlling terminal of a member.
    pub fn has_terminal(&self, pid: Pid) -> bool {
        self.members.get(&pid).is_some_and(|m| m.terminal)
    }

    fn group(&self, pgid: Pid) -> impl Iterator<Item = (Pid, &Member)> {
        self.members().filter(move |(_, m)| m.pgid == pgid)
    }

    /// Whether a group has members.
    pub fn has_group(&self, pgid: Pid) -> bool {
        self.group(pgid).next().is_some()
    }

    /// POSIX: orphaned if the parent of every member is in the group itself or outside the session.
    pub fn is_orphaned(&self, pgid: Pid) -> bool {
        !self.group(pgid).any(|(_, m)| {
            m.life != Life::Zombie
                && m.ppid != Pid::INIT
                && self.members.get(&m.ppid).is_some_and(|p| p.pgid != pgid && p.life != Life::Zombie)
        })
    }

    fn has_stopped(&self, pgid: Pid) -> bool {
        self.group(pgid).any(|(_, m)| m.life == Life::Stopped)
    }

    fn send(&self, pgid: Pid, info: SigInfo, from: Sender, effects: &mut impl Effects) {
        let mut places: BTreeMap<KernelId, Vec<Pid>> = BTreeMap::new();
        for (pid, m) in self.group(pgid).filter(|(_, m)| m.life != Life::Zombie) {
            places.entry(m.place).or_default().push(pid);
        }
        for (to, members) in places {
            effects.signal(to, pgid, members, info, from);
        }
    }

    fn send_kernel(&self, pgid: Pid, signal: Signal, effects: &mut impl Effects) {
        self.send(pgid, SigInfo::kernel(signal), Sender::KERNEL, effects);
    }

    /// Answers a request.
    ///
    /// # Errors
    /// As the system call that it stands for: `EPERM`, `ESRCH`, `EACCES`, `EIO`, `ENOTTY`.
    pub fn request(&mut self, request: Request, effects: &mut impl Effects) -> Result<Reply, Errno> {
        match request {
            Request::Fork { ppid, from, child, place } => {
                let parent = self.members.get(&from).ok_or(Errno::ESRCH)?;
                let member = Member { ppid, place, life: Life::Alive, execed: false, ..*parent };
                // Asked again after the home died, it may be known by now. The parent may be in another group than it knew.
                let pgid = self.members.entry(child).or_insert(member).pgid;
                Ok(Reply::Group(pgid))
            }
            Request::SetGroup { caller, target, pgid } => self.set_group(caller, target, pgid, effects),
            Request::GroupOf(pid) => self.members.get(&pid).map(|m| Reply::Group(m.pgid)).ok_or(Errno::ESRCH),
            Request::Depart(pid) => self.depart(pid, effects),
            Request::SignalGroup { pgid, info, from } => {
                let mut any = false;
                let mut allowed = false;
                for (_, m) in self.group(pgid) {
                    any = true;
                    let signal = info.map_or(Signal::HUP, |i| i.signal);
                    allowed |= from.may_signal(m.users, self.sid, signal);
                }
                if !any {
                    return Err(Errno::ESRCH);
                }
                if !allowed {
                    return Err(Errno::EPERM);
                }
                if let Some(info) = info {
                    self.send(pgid, info, from, effects);
                }
                Ok(Reply::Done)
            }
            Request::SignalForeground(info) => {
                self.send(self.foreground, info, Sender::KERNEL, effects);
                Ok(Reply::Done)
            }
            Request::Foreground => {
                if self.terminal.is_none() {
                    return Err(Errno::ENOTTY);
                }
                Ok(Reply::Group(self.foreground))
            }
            Request::SetForeground { caller, pgid, immune } => {
                self.terminal.filter(|_| self.has_terminal(caller)).ok_or(Errno::ENOTTY)?;
                if self.use_terminal(caller, Access::Write, immune, effects)? == Reply::Stopped {
                    return Ok(Reply::Stopped);
                }
                // As on Linux, the number of any process will do: it may lead a group before long.
                if !self.has_group(pgid) && !self.members.contains_key(&pgid) {
                    return Err(Errno::EPERM);
                }
                self.foreground = pgid;
                effects.foreground_changed();
                Ok(Reply::Done)
            }
            Request::Use { caller, access, immune } => self.use_terminal(caller, access, immune, effects),
            Request::TakeTerminal { caller, terminal, device } => {
                if self.terminal == Some(terminal) {
                    return Ok(Reply::Done);
                }
                if caller != self.sid || self.terminal.is_some() {
                    return Err(Errno::EPERM);
                }
                self.terminal = Some(terminal);
                self.device = device;
                self.foreground = self.members.get(&caller).map_or(self.sid, |m| m.pgid);
                self.change(caller, |m| m.terminal = true);
                Ok(Reply::Done)
            }
            Request::DropTerminal { caller } => {
                let terminal = self.terminal.filter(|_| self.has_terminal(caller)).ok_or(Errno::ENOTTY)?;
                if caller == self.sid {
                    self.send_kernel(self.foreground, Signal::HUP, effects);
                    self.send_kernel(self.foreground, Signal::CONT, effects);
                    self.lose_terminal();
                    effects.terminal_lost(terminal);
                } else {
                    self.change(caller, |m| m.terminal = false);
                }
                Ok(Reply::Done)
            }
            Request::Terminal(pid) => {
                let shown = self.has_terminal(pid).then_some((self.device, self.foreground));
                Ok(Reply::Terminal(shown))
            }
            Request::IsOrphaned(pgid) => Ok(Reply::Orphaned(self.is_orphaned(pgid))),
        }
    }

    fn set_group(&mut self, caller: Pid, target: Pid, pgid: Pid, effects: &mut impl Effects) -> Result<Reply, Errno> {
        let pgid = if pgid.0 == 0 { target } else { pgid };
        let member = *self.members.get(&target).ok_or(Errno::ESRCH)?;
        if caller != target {
            if member.ppid != caller {
                return Err(Errno::ESRCH);
            }
            if member.execed {
                return Err(Errno::EACCES);
            }
        }
        if target == self.sid {
            return Err(Errno::EPERM);
        }
        if pgid != target && !self.has_group(pgid) {
            return Err(Errno::EPERM);
        }
        if member.pgid == pgid {
            return Ok(Reply::Group(pgid));
        }
        if !self.has_group(pgid) {
            effects.group_made(pgid);
        }
        // Unlike an exit, a change of group never hangs up a group that it orphans: POSIX and Linux do that on exits only.
        if let Some(m) = self.members.get_mut(&target) {
            m.pgid = pgid;
        }
        effects.regrouped(target, member.ppid, pgid);
        self.note_gone(member.pgid, effects);
        Ok(Reply::Group(pgid))
    }

    fn depart(&mut self, pid: Pid, effects: &mut impl Effects) -> Result<Reply, Errno> {
        if self.has_group(pid) {
            return Err(Errno::EPERM);
        }
        let member = self.members.remove(&pid).ok_or(Errno::ESRCH)?;
        self.note_gone(member.pgid, effects);
        Ok(Reply::Done)
    }

    fn use_terminal(
        &mut self,
        caller: Pid,
        access: Access,
        immune: bool,
        effects: &mut impl Effects,
    ) -> Result<Reply, Errno> {
        let Some(member) = self.members.get(&caller).filter(|m| m.terminal) else {
            // It has the terminal open, but it is not its controlling one: job control is not its business.
            return Ok(Reply::Done);
        };
        let pgid = member.pgid;
        if self.terminal.is_none() || self.foreground.0 == 0 || pgid == self.foreground {
            return Ok(Reply::Done);
        }
        let signal = match access {
            Access::Read if immune => return Err(Errno::EIO),
            Access::Read => Signal::TTIN,
            Access::Write if immune => return Ok(Reply::Done),
            Access::Write => Signal::TTOU,
        };
        if self.is_orphaned(pgid) {
            return Err(Errno::EIO);
        }
        self.send_kernel(pgid, signal, effects);
        Ok(Reply::Stopped)
    }

    /// Takes a notice. One about somebody who is not a member is late and means nothing.
    pub fn notice(&mut self, notice: Notice, effects: &mut impl Effects) {
        match notice {
            Notice::Exec(pid) => self.change(pid, |m| m.execed = true),
            Notice::Users(pid, users) => self.change(pid, |m| m.users = users),
            Notice::Stop(pid) => self.change(pid, |m| {
                if m.life == Life::Alive {
                    m.life = Life::Stopped;
                }
            }),
            Notice::Continue(pid) => self.change(pid, |m| {
                if m.life == Life::Stopped {
                    m.life = Life::Alive;
                }
            }),
            Notice::Exit { pid, reaper } => self.exit(&[pid], Some(reaper), effects),
            Notice::Reap(pid) => self.remove(pid, effects),
            Notice::Moved { pid, member } => match self.members.get_mut(&pid) {
                Some(known) => known.place = member.place,
                None => self.add(pid, member, effects),
            },
            Notice::Reparent { pid, ppid } => self.reparent(pid, ppid, effects),
            Notice::Down(kernel) => {
                let dead: Vec<_> = self.members().filter(|(_, m)| m.place == kernel).map(|(p, _)| p).collect();
                // Whose parents died tell who their parent is now: one may have moved just before its kernel died.
                self.exit(&dead, None, effects);
                for pid in dead {
                    self.remove(pid, effects);
                }
            }
        }
    }

    /// Members that a kernel has, some of them perhaps not known here: the home before this one died with what was on its way to it.
    pub fn merge(&mut self, members: Vec<(Pid, Member)>, effects: &mut impl Effects) {
        for (pid, member) in members {
            match self.members.get_mut(&pid) {
                Some(known) => *known = Member { pgid: known.pgid, terminal: known.terminal, ..member },
                None => self.add(pid, member, effects),
            }
        }
    }

    fn add(&mut self, pid: Pid, member: Member, effects: &mut impl Effects) {
        if !self.has_group(member.pgid) {
            effects.group_made(member.pgid);
        }
        self.members.insert(pid, Member { terminal: false, ..member });
    }

    fn change(&mut self, pid: Pid, f: impl FnOnce(&mut Member)) {
        if let Some(m) = self.members.get_mut(&pid) {
            f(m);
        }
    }

    /// The terminal hung up: SIGHUP and SIGCONT for leader and foreground group, and no terminal any more.
    pub fn hang_up(&mut self, effects: &mut impl Effects) {
        let Some(terminal) = self.terminal else { return };
        let leaders = self.members.get(&self.sid).map(|m| m.pgid);
        for signal in [Signal::HUP, Signal::CONT] {
            self.send_kernel(self.foreground, signal, effects);
            if let Some(pgid) = leaders.filter(|pgid| *pgid != self.foreground) {
                self.send_kernel(pgid, signal, effects);
            }
        }
        self.lose_terminal();
        effects.terminal_lost(terminal);
    }

    /// Nobody of the session has a terminal any more.
    fn lose_terminal(&mut self) {
        self.terminal = None;
        self.device = NONE;
        self.foreground = Pid(0);
        for m in self.members.values_mut() {
            m.terminal = false;
        }
    }

    fn exit(&mut self, dead: &[Pid], reaper: Option<Pid>, effects: &mut impl Effects) {
        // Only the groups of the dead and of their children can become orphaned by this.
        let touched: BTreeSet<_> = self
            .members()
            .filter(|(pid, m)| dead.contains(pid) || dead.contains(&m.ppid))
            .map(|(_, m)| m.pgid)
            .collect();
        let lets_go = |pgid| {
            self.group(pgid)
                .any(|(pid, m)| m.life == Life::Zombie && dead.contains(&m.ppid) && self.is_held_by_parent(pid))
        };
        let held: Vec<_> = touched.into_iter().filter(|g| !self.is_orphaned(*g) || lets_go(*g)).collect();
        let mut leader_died = false;
        for pid in dead {
            leader_died |= *pid == self.sid && self.members.get(pid).is_some_and(|m| m.life != Life::Zombie);
            self.change(*pid, |m| m.life = Life::Zombie);
        }
        for m in self.members.values_mut() {
            if let Some(reaper) = reaper.filter(|_| dead.contains(&m.ppid)) {
                m.ppid = reaper;
            }
        }
        if leader_died && let Some(terminal) = self.terminal {
            self.send_kernel(self.foreground, Signal::HUP, effects);
            self.lose_terminal();
            effects.terminal_lost(terminal);
        }
        for pgid in held {
            self.hang_up_orphaned(pgid, effects);
        }
    }

    /// The new parent may tell this before the old one's exit gets here: they are on different kernels. The group is orphaned by whichever comes first.
    fn reparent(&mut self, pid: Pid, ppid: Pid, effects: &mut impl Effects) {
        let held = self.is_held_by_parent(pid);
        let Some(member) = self.members.get_mut(&pid).filter(|m| m.ppid != ppid) else { return };
        member.ppid = ppid;
        let pgid = member.pgid;
        if held {
            self.hang_up_orphaned(pgid, effects);
        }
    }

    /// Whether the parent of a member is of another group of the session. As on Linux the member may be a zombie: it keeps no group from being orphaned,
    /// but when it loses that parent its group is looked at.
    fn is_held_by_parent(&self, pid: Pid) -> bool {
        let Some(m) = self.members.get(&pid).filter(|m| m.ppid != Pid::INIT) else { return false };
        self.members.get(&m.ppid).is_some_and(|parent| parent.pgid != m.pgid)
    }

    fn hang_up_orphaned(&self, pgid: Pid, effects: &mut impl Effects) {
        if self.is_orphaned(pgid) && self.has_stopped(pgid) {
            self.send_kernel(pgid, Signal::HUP, effects);
            self.send_kernel(pgid, Signal::CONT, effects);
        }
    }

    fn remove(&mut self, pid: Pid, effects: &mut impl Effects) {
        if let Some(member) = self.members.remove(&pid) {
            self.note_gone(member.pgid, effects);
        }
    }

    fn note_gone(&mut self, pgid: Pid, effects: &mut impl Effects) {
        if !self.has_group(pgid) {
            effects.group_gone(pgid);
        }
        if self.members.is_empty() {
            effects.empty();
        }
    }
}
