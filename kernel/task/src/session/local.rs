//! A session whose home is this kernel.

use alloc::{
    collections::BTreeSet,
    sync::{Arc, Weak},
    vec::Vec,
};

use base::{Errno, Error, KernelId, ObjectId, Result, TryResult, wait::done};
use hal::sync::{SpinLock, rank};

use vfs::{Caller, JobControl, Terminal, TtySignal, TtyUse, Verdict};

use super::{Access, Effects, Member, Notice, Reply, Request, Sender, Session, State};
use crate::{
    children::{ChildChange, ChildEvent},
    cluster::Name,
    ids::Pid,
    kernel::Kernel,
    signal::{SigInfo, Signal},
};

/// Where the truth about a session is.
enum Home {
    Here(State),
    /// It left; what still comes this way goes there.
    Left(Arc<dyn Session>),
}

/// See the module.
pub struct LocalSession {
    me: Weak<Self>,
    kernel: Weak<Kernel>,
    id: ObjectId,
    sid: Pid,
    state: SpinLock<Home>,
    terminal: SpinLock<Option<Arc<dyn Terminal>>>,
}

/// Something to be done after the lock is dropped.
enum Effect {
    Signal { to: KernelId, pgid: Pid, members: Vec<Pid>, info: SigInfo, from: Sender },
    TerminalLost,
    GroupMade(Pid),
    GroupGone(Pid),
    Regrouped { pid: Pid, ppid: Pid, pgid: Pid },
    Empty,
}

#[derive(Default)]
struct Queue(Vec<Effect>);

impl Effects for Queue {
    fn signal(&mut self, to: KernelId, pgid: Pid, members: Vec<Pid>, info: SigInfo, from: Sender) {
        self.0.push(Effect::Signal { to, pgid, members, info, from });
    }
    fn terminal_lost(&mut self, _: ObjectId) {
        self.0.push(Effect::TerminalLost);
    }
    fn group_made(&mut self, pgid: Pid) {
        self.0.push(Effect::GroupMade(pgid));
    }
    fn group_gone(&mut self, pgid: Pid) {
        self.0.push(Effect::GroupGone(pgid));
    }
    fn regrouped(&mut self, pid: Pid, ppid: Pid, pgid: Pid) {
        self.0.push(Effect::Regrouped { pid, ppid, pgid });
    }
    fn empty(&mut self) {
        self.0.push(Effect::Empty);
    }
}

impl LocalSession {
    /// A new session with its leader in a group of its own.
    pub fn new(kernel: &Arc<Kernel>, sid: Pid, leader: Member) -> Arc<Self> {
        Self::import(kernel, kernel.new_id(), State::new(sid, leader))
    }

    /// A session that arrives here.
    pub fn import(kernel: &Arc<Kernel>, id: ObjectId, state: State) -> Arc<Self> {
        let groups: BTreeSet<_> = state.members().map(|(_, m)| m.pgid).collect();
        let session = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            kernel: Arc::downgrade(kernel),
            id,
            sid: state.sid(),
            state: SpinLock::new(rank::SESSION, Home::Here(state)),
            terminal: SpinLock::new(rank::PROCESS_FS, None),
        });
        kernel.table.add_session(&session);
        kernel.cluster().register(Name::Session(session.sid), id);
        for pgid in groups {
            kernel.table.add_group(pgid, &session);
            kernel.cluster().register(Name::Group(pgid), id);
        }
        session
    }

    /// The session goes to another kernel, for a terminal that its leader `caller` takes there; `next` speaks with it from now on. Its state and its
    /// names, or nothing if that cannot be (see [`LocalSession::may_leave`]).
    pub fn leave(&self, caller: Pid, next: Arc<dyn Session>) -> Option<(State, Vec<Name>)> {
        let state = {
            let mut home = self.state.lock();
            match &*home {
                Home::Here(state) if may_leave(state, caller).is_ok() => {}
                _ => return None,
            }
            match core::mem::replace(&mut *home, Home::Left(next)) {
                Home::Here(state) => state,
                Home::Left(_) => return None,
            }
        };
        let groups: BTreeSet<_> = state.members().map(|(_, m)| m.pgid).collect();
        if let Some(kernel) = self.kernel.upgrade() {
            kernel.table.remove_session(self);
            for pgid in &groups {
                kernel.table.remove_group(*pgid, self);
            }
        }
        let names = core::iter::once(Name::Session(self.sid)).chain(groups.into_iter().map(Name::Group)).collect();
        Some((state, names))
    }

    /// Whether the session can go to another kernel for a terminal that `caller` takes there.
    ///
    /// # Errors
    /// `EPERM` unless the caller is the leader of a session without a terminal.
    pub fn may_leave(&self, caller: Pid) -> Result<()> {
        match &*self.state.lock() {
            Home::Here(state) => may_leave(state, caller),
            Home::Left(_) => Err(AWAY),
        }
    }

    /// Members that a kernel has: see [`State::merge`].
    pub fn merge(&self, members: Vec<(Pid, Member)>) {
        let mut effects = Queue::default();
        if let Home::Here(state) = &mut *self.state.lock() {
            state.merge(members, &mut effects);
        }
        self.apply(effects);
    }

    /// Looks at the state, if it is here.
    fn here<R>(&self, f: impl FnOnce(&State) -> R) -> Option<R> {
        match &*self.state.lock() {
            Home::Here(state) => Some(f(state)),
            Home::Left(_) => None,
        }
    }

    /// Tells a process what group it is in, if it is still a member. What another CPU changes at the same time, it tells after this. `false`: the
    /// session has left meanwhile.
    fn regroup(&self, process: &crate::Process) -> bool {
        let Home::Here(state) = &*self.state.lock() else { return false };
        if let Some(member) = state.member(process.pid()) {
            process.set_pgid(member.pgid);
        }
        true
    }

    fn apply(&self, effects: Queue) {
        if effects.0.is_empty() {
            return;
        }
        let (Some(kernel), Some(me)) = (self.kernel.upgrade(), self.me.upgrade()) else { return };
        for effect in effects.0 {
            match effect {
                Effect::Signal { to, pgid, members, info, from } if to == kernel.id() => {
                    kernel.signal_members(pgid, &members, self.sid, info, from);
                }
                Effect::Signal { to, pgid, members, info, from } => {
                    kernel.cluster().signal_members(to, pgid, &members, info, from);
                }
                Effect::TerminalLost => {
                    let terminal = self.terminal.lock().take();
                    if let Some(terminal) = terminal {
                        terminal.lost(self.sid.0);
                    }
                }
                Effect::GroupMade(pgid) => {
                    kernel.table.add_group(pgid, &me);
                    kernel.cluster().register(Name::Group(pgid), self.id);
                }
                Effect::GroupGone(pgid) => {
                    kernel.table.remove_group(pgid, self);
                    kernel.cluster().unregister(Name::Group(pgid), self.id);
                }
                Effect::Regrouped { pid, ppid, pgid } => {
                    if !kernel.table.process(pid).is_some_and(|process| self.regroup(&process)) {
                        kernel.cluster().tell(pid, crate::cluster::ProcessRequest::SetGroup(pgid));
                    }
                    kernel.child_event(ppid, ChildEvent { pid, change: ChildChange::Group(pgid) });
                }
                Effect::Empty => {
                    kernel.table.remove_session(self);
                    kernel.cluster().unregister(Name::Session(self.sid), self.id);
                    kernel.cluster().session_over(self.id, self.sid);
                }
            }
        }
    }
}

impl Session for LocalSession {
    fn id(&self) -> ObjectId {
        self.id
    }

    fn sid(&self) -> Pid {
        self.sid
    }

    fn request(&self, request: Request) -> TryResult<Reply> {
        let mut effects = Queue::default();
        let reply = match &mut *self.state.lock() {
            Home::Here(state) => Ok(state.request(request, &mut effects)),
            Home::Left(next) => Err((next.clone(), request)),
        };
        self.apply(effects);
        match reply {
            Ok(reply) => done(reply?),
            Err((next, request)) => next.request(request),
        }
    }

    fn notice(&self, notice: Notice) {
        let mut effects = Queue::default();
        let next = match &mut *self.state.lock() {
            Home::Here(state) => {
                state.notice(notice, &mut effects);
                None
            }
            Home::Left(next) => Some(next.clone()),
        };
        self.apply(effects);
        if let Some(next) = next {
            next.notice(notice);
        }
    }
}

/// A session that left has no terminal here.
const AWAY: Error = Error::new(Errno::EIO, "the session is at another kernel");

fn may_leave(state: &State, caller: Pid) -> Result<()> {
    if caller == state.sid() && state.member(caller).is_some() && state.terminal().is_none() {
        Ok(())
    } else {
        Err(Error::new(Errno::EPERM, "not a session leader without a terminal"))
    }
}

impl LocalSession {
    fn ask(&self, request: Request) -> Result<Reply> {
        let mut effects = Queue::default();
        let reply = match &mut *self.state.lock() {
            Home::Here(state) => state.request(request, &mut effects).map_err(Error::from),
            Home::Left(_) => Err(AWAY),
        };
        self.apply(effects);
        reply
    }
}

const fn verdict(reply: Reply) -> Verdict {
    match reply {
        Reply::Stopped => Verdict::Stopped,
        _ => Verdict::Go,
    }
}

impl JobControl for LocalSession {
    fn sid(&self) -> u32 {
        self.sid.0
    }

    fn may(&self, caller: &Caller, what: TtyUse) -> Result<Verdict> {
        let (access, immune) = match what {
            TtyUse::Read => (Access::Read, caller.immune_ttin),
            TtyUse::Write => (Access::Write, caller.immune_ttou),
        };
        self.ask(Request::Use { caller: Pid(caller.pid), access, immune }).map(verdict)
    }

    fn signal_foreground(&self, signal: TtySignal) {
        let signal = match signal {
            TtySignal::Interrupt => Signal::INT,
            TtySignal::Quit => Signal::QUIT,
            TtySignal::Suspend => Signal::TSTP,
            TtySignal::WindowChange => Signal::WINCH,
        };
        // Without a foreground group there is nobody to tell.
        let _ = self.ask(Request::SignalForeground(SigInfo::kernel(signal)));
    }

    fn foreground(&self) -> u32 {
        self.here(|state| state.foreground().0).unwrap_or(0)
    }

    fn set_foreground(&self, caller: &Caller, pgid: u32) -> Result<Verdict> {
        let request = Request::SetForeground { caller: Pid(caller.pid), pgid: Pid(pgid), immune: caller.immune_ttou };
        self.ask(request).map(verdict)
    }

    fn take_terminal(&self, caller: &Caller, terminal: Arc<dyn Terminal>) -> Result<()> {
        let device = terminal.device();
        self.ask(Request::TakeTerminal { caller: Pid(caller.pid), terminal: terminal.id(), device })?;
        let old = self.terminal.lock().replace(terminal);
        drop(old);
        Ok(())
    }

    fn drop_terminal(&self, caller: &Caller) -> Result<()> {
        self.ask(Request::DropTerminal { caller: Pid(caller.pid) }).map(drop)
    }

    fn terminal(&self, pid: u32) -> Option<Arc<dyn Terminal>> {
        let has = self.here(|state| state.has_terminal(Pid(pid)));
        if has == Some(true) { self.terminal.lock().clone() } else { None }
    }

    fn hung_up(&self) {
        let mut effects = Queue::default();
        if let Home::Here(state) = &mut *self.state.lock() {
            state.hang_up(&mut effects);
        }
        self.apply(effects);
    }
}
