//! A session whose home is this kernel.

use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};

use base::{KernelId, ObjectId, Result, TryResult, wait::done};
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

/// See the module.
pub struct LocalSession {
    me: Weak<Self>,
    kernel: Weak<Kernel>,
    id: ObjectId,
    sid: Pid,
    state: SpinLock<State>,
    terminal: SpinLock<Option<Arc<dyn Terminal>>>,
}

/// Something to be done after the lock is dropped.
enum Effect {
    Signal { to: KernelId, pgid: Pid, info: SigInfo, from: Sender },
    TerminalLost,
    GroupMade(Pid),
    GroupGone(Pid),
    Regrouped { pid: Pid, ppid: Pid, pgid: Pid },
    Empty,
}

#[derive(Default)]
struct Queue(Vec<Effect>);

impl Effects for Queue {
    fn signal(&mut self, to: KernelId, pgid: Pid, info: SigInfo, from: Sender) {
        self.0.push(Effect::Signal { to, pgid, info, from });
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
        let session = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            kernel: Arc::downgrade(kernel),
            id,
            sid: state.sid(),
            state: SpinLock::new(rank::SESSION, state),
            terminal: SpinLock::new(rank::PROCESS_FS, None),
        });
        kernel.table.add_session(&session);
        kernel.cluster().register(Name::Session(session.sid), id);
        let groups: Vec<_> = session.state.lock().members().map(|(_, m)| m.pgid).collect();
        for pgid in groups {
            kernel.table.add_group(pgid, &session);
            kernel.cluster().register(Name::Group(pgid), id);
        }
        session
    }

    /// What it is made of, for a new home or for `/proc`.
    pub fn export(&self) -> State {
        self.state.lock().clone()
    }

    fn apply(&self, effects: Queue) {
        if effects.0.is_empty() {
            return;
        }
        let (Some(kernel), Some(me)) = (self.kernel.upgrade(), self.me.upgrade()) else { return };
        for effect in effects.0 {
            match effect {
                Effect::Signal { to, pgid, info, from } if to == kernel.id() => {
                    kernel.signal_members(pgid, self.sid, info, from);
                }
                Effect::Signal { to, pgid, info, from } => kernel.cluster().signal_members(to, pgid, info, from),
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
                    match kernel.table.process(pid) {
                        Some(p) => p.set_pgid(pgid),
                        None => kernel.cluster().tell(pid, crate::cluster::ProcessRequest::SetGroup(pgid)),
                    }
                    kernel.child_event(ppid, ChildEvent { pid, change: ChildChange::Group(pgid) });
                }
                Effect::Empty => {
                    kernel.table.remove_session(self.sid);
                    kernel.cluster().unregister(Name::Session(self.sid), self.id);
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
        let reply = self.state.lock().request(request, &mut effects);
        self.apply(effects);
        done(reply?)
    }

    fn notice(&self, notice: Notice) {
        let mut effects = Queue::default();
        self.state.lock().notice(notice, &mut effects);
        self.apply(effects);
    }
}

impl LocalSession {
    fn ask(&self, request: Request) -> Result<Reply> {
        let mut effects = Queue::default();
        let reply = self.state.lock().request(request, &mut effects);
        self.apply(effects);
        Ok(reply?)
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
        self.state.lock().foreground().0
    }

    fn set_foreground(&self, caller: &Caller, pgid: u32) -> Result<Verdict> {
        let request = Request::SetForeground { caller: Pid(caller.pid), pgid: Pid(pgid), immune: caller.immune_ttou };
        self.ask(request).map(verdict)
    }

    fn take_terminal(&self, caller: &Caller, terminal: Arc<dyn Terminal>) -> Result<()> {
        self.ask(Request::TakeTerminal { caller: Pid(caller.pid), terminal: terminal.id() })?;
        let old = self.terminal.lock().replace(terminal);
        drop(old);
        Ok(())
    }

    fn drop_terminal(&self, caller: &Caller) -> Result<()> {
        self.ask(Request::DropTerminal { caller: Pid(caller.pid) }).map(drop)
    }

    fn terminal(&self, pid: u32) -> Option<Arc<dyn Terminal>> {
        let has = self.state.lock().has_terminal(Pid(pid));
        if has { self.terminal.lock().clone() } else { None }
    }

    fn hung_up(&self) {
        let mut effects = Queue::default();
        self.state.lock().hang_up(&mut effects);
        self.apply(effects);
    }
}
