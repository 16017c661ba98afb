//! A session whose home is this kernel.

use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};

use base::{KernelId, ObjectId, TryResult, wait::done};
use hal::sync::{SpinLock, rank};

use super::{Effects, Member, Notice, Reply, Request, Sender, Session, State};
use crate::{
    children::{ChildChange, ChildEvent},
    cluster::Name,
    ids::Pid,
    kernel::Kernel,
    signal::SigInfo,
};

/// A terminal that a session can lose.
pub trait Terminal: Send + Sync {
    /// The session that had it is gone or gave it up.
    fn lost(&self, session: Pid);
}

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

    /// Which terminal is told when the session loses it.
    pub fn set_terminal(&self, terminal: Option<Arc<dyn Terminal>>) {
        let old = core::mem::replace(&mut *self.terminal.lock(), terminal);
        drop(old);
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
                        terminal.lost(self.sid);
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
