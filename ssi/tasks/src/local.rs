//! What the task service asks of its own kernel, answered by the kernel.

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use base::{Errno, KernelId, Result, TryResult};
use procfs::LocalView;
use task::{
    Kernel,
    children::{ChildEvent, ChildRecord},
    cluster::{Name, ProcessRef, ProcessReply, ProcessRequest},
    ids::Pid,
    image::TaskImage,
    load::Load,
    moving::Arrival,
    session::{LocalSession, Member, Notice, Reply, Request, Sender, Session, State},
    signal::SigInfo,
    table::Entry,
};

use crate::{
    homes::state::Key,
    question::Question,
    service::{Local, Prepared},
};

/// A kernel as its own task service sees it.
pub struct OwnKernel(pub Arc<Kernel>);

impl OwnKernel {
    fn find(&self, key: Key) -> Option<Arc<LocalSession>> {
        self.0.table.session(key.sid).filter(|session| session.id() == key.object)
    }
}

impl Local for OwnKernel {
    fn moved_process(&self, pid: Pid) -> Option<KernelId> {
        match self.0.table.get(pid) {
            Some(Entry::Moved(to)) => Some(to),
            _ => None,
        }
    }

    fn process(&self, pid: Pid, request: ProcessRequest) -> TryResult<ProcessReply> {
        self.0.table.process(pid).ok_or(Errno::ESRCH)?.request(request)
    }

    fn has_session(&self, key: Key) -> bool {
        self.find(key).is_some()
    }

    fn session(&self, key: Key, request: Request) -> TryResult<Reply> {
        self.find(key).ok_or(Errno::ESRCH)?.request(request)
    }

    fn session_notice(&self, key: Key, notice: Notice) {
        if let Some(session) = self.find(key) {
            session.notice(notice);
        }
    }

    fn session_may_leave(&self, key: Key, caller: Pid) -> Result<()> {
        self.find(key).ok_or(Errno::ESRCH)?.may_leave(caller)
    }

    fn leave_session(&self, key: Key, caller: Pid, next: Arc<dyn Session>) -> Option<(State, Vec<Name>)> {
        self.find(key)?.leave(caller, next)
    }

    fn import_session(&self, key: Key, state: State) {
        LocalSession::import(&self.0, key.object, state);
    }

    fn rebuild_session(&self, key: Key, members: Vec<(Pid, Member)>) {
        LocalSession::import(&self.0, key.object, State::import(key.sid, members));
    }

    fn merge_session(&self, key: Key, members: Vec<(Pid, Member)>) {
        if let Some(session) = self.find(key) {
            session.merge(members);
        }
    }

    fn count_members(&self, key: Key) -> Vec<(Pid, Member)> {
        let processes = self.0.table.processes();
        let ours = processes.iter().filter(|p| p.session().id() == key.object);
        ours.map(|p| (p.pid(), p.as_member())).collect()
    }

    fn kernel_died(&self, dead: KernelId) {
        for session in self.0.table.sessions() {
            session.notice(Notice::Down(dead));
        }
    }

    fn signal_members(&self, pgid: Pid, members: &[Pid], info: SigInfo, from: Sender) {
        // Whether SIGCONT is free within the session was decided at its home.
        self.0.signal_members(pgid, members, from.sid, info, from);
    }

    fn signal_all(&self, info: SigInfo, from: Sender) -> usize {
        self.0.signal_all_here(info, from).0
    }

    fn child_event(&self, parent: Pid, event: ChildEvent) -> bool {
        match self.0.table.process(parent) {
            Some(parent) => {
                parent.child_changed(event);
                true
            }
            None => false,
        }
    }

    fn absent_children(&self) -> Vec<(Pid, Pid)> {
        let here = |pid: Pid| self.0.table.process(pid).is_some();
        let of = |parent: &Arc<task::process::Process>| {
            let pid = parent.pid();
            parent.living_children().into_iter().map(move |child| (pid, child)).collect::<Vec<_>>()
        };
        self.0.table.processes().iter().flat_map(of).filter(|(_, child)| !here(*child)).collect()
    }

    fn away_from_parent(&self) -> Vec<(Pid, Pid)> {
        let table = &self.0.table;
        let of = |p: &Arc<task::process::Process>| (p.pid(), p.ppid());
        let away = |(_, parent): &(Pid, Pid)| parent.0 != 0 && table.process(*parent).is_none();
        table.processes().iter().map(of).filter(away).collect()
    }

    fn of_init(&self) -> Vec<Pid> {
        self.0.table.processes().iter().filter(|p| p.ppid() == Pid::INIT).map(|p| p.pid()).collect()
    }

    fn orphaned(&self, child: Pid, parent: Pid) {
        if let Some(process) = self.0.table.process(child) {
            self.0.orphan(&process, parent);
        }
    }

    fn adopt(&self, parent: Pid, children: Vec<ChildRecord>) -> bool {
        let here = self.0.table.process(parent).is_some();
        if here {
            self.0.adopt(parent, children);
        }
        here
    }

    fn prepare(&self, from: KernelId, image: Box<TaskImage>) -> TryResult<Box<dyn Prepared>> {
        Ok(self.0.prepare_move(from, image)?.map(|arrival| Box::new(arrival) as Box<dyn Prepared>))
    }

    fn is_over(&self, pid: Pid) -> Option<bool> {
        self.0.table.process(pid).map(|process| process.zombie().is_some())
    }

    fn pids(&self, after: Pid) -> Vec<Pid> {
        self.0.table.processes().iter().map(|p| p.pid()).filter(|pid| *pid > after).collect()
    }

    fn load(&self) -> Load {
        self.0.load()
    }

    fn look(&self, pid: Pid, question: &Question) -> TryResult<Vec<u8>> {
        question.ask(&LocalView::new(self.0.clone()), pid)
    }
}

impl Prepared for Arrival {
    fn enter(&self) -> TryResult<()> {
        Self::enter(self)
    }

    fn run(self: Box<Self>) {
        Self::run(*self);
    }
}
