//! The task service of one kernel: other kernels' processes and sessions for this one, and this one's for the others.

use alloc::{boxed::Box, collections::BTreeMap, string::String, sync::Arc, vec::Vec};
use core::sync::atomic::Ordering::Relaxed;

use base::{
    Errno, Error, KernelId, ObjectId, Result,
    wait::{Op, Subscription, Try, TryResult, Wake, done},
};
use link::{Incoming, Links, lock::Lock};
use linux_abi::Isa;
use names::{Kind, Name, NameService, PidBlocks};
use objects::{call, codec::Body, from_wire, object_to_wire, to_wire, when_done};
use task::{
    children::{ChildChange, ChildEvent, ChildRecord, Status, Usage},
    cluster::{Cluster, CpuFact, Departure, Placement, ProcessRef, ProcessReply, ProcessRequest, SessionHome},
    ids::Pid,
    image::TaskImage,
    load::{Load, Traffic},
    session::{Member, Notice, Reply, Request, Sender, Session, State},
    signal::{SigInfo, Signal},
};
use wire::tasks::{
    Adopt, ChildTell, CpuIs, DescribeCpu, ListProcesses, LookAtSystem, MoveAbort, MoveComing, MoveCommit, MovePart,
    MovePrepare, ProcessAsk, SignalAll, SignalMembers, SignalledAll,
};

use crate::{
    codec::{Tasks, decode, encode},
    homes::{
        SessionHomes,
        state::{Event, Key},
    },
    moves::Moves,
    question::Question,
    watch::Watches,
};

/// How long a peer may take for what it answers at once, in ns.
const SOON: u64 = 10_000_000_000;
/// Within what time a process that moved away begins to ask for what it left here, in ns: a short one has ended by then.
const ASKS_SOON: u64 = 1_000_000;
/// How long a peer may take to say what `/proc` shows, in ns. Who is slower is left out.
const AT_ONCE: u64 = 2_000_000_000;
/// How long a peer may take to load a program, in ns.
const LOAD: u64 = 60_000_000_000;

/// The most members that one message signals.
const SIGNALLED: usize = 512;

/// The most pids in one answer: four bytes each and a count, what fits into one payload.
pub(crate) const LIST_MAX: usize = 1000;

/// What this service asks of its own kernel when a peer asks. Nothing here sleeps.
pub trait Local: Send + Sync {
    /// Where a process went that was here and moved.
    fn moved_process(&self, pid: Pid) -> Option<KernelId>;
    /// A request to a process that is here. `ESRCH` if it is not.
    fn process(&self, pid: Pid, request: ProcessRequest) -> TryResult<ProcessReply>;
    /// Whether a session is here.
    fn has_session(&self, key: Key) -> bool;
    /// A request to a session that is here. `ESRCH` if it is not.
    fn session(&self, key: Key, request: Request) -> TryResult<Reply>;
    /// A notice to a session that is here.
    fn session_notice(&self, key: Key, notice: Notice);
    /// Whether a session that is here can go elsewhere, for a terminal that `caller` takes there.
    ///
    /// # Errors
    /// `EPERM`, `ESRCH`.
    fn session_may_leave(&self, key: Key, caller: Pid) -> Result<()>;
    /// The session goes elsewhere; `next` speaks with it from now on. Its state and its names; nothing if it cannot go.
    fn leave_session(&self, key: Key, caller: Pid, next: Arc<dyn Session>)
    -> Option<(State, Vec<task::cluster::Name>)>;
    /// A session comes here.
    fn import_session(&self, key: Key, state: State);
    /// A session whose home died goes on here, with these members.
    fn rebuild_session(&self, key: Key, members: Vec<(Pid, Member)>);
    /// Members of a session that is here, which it may not know.
    fn merge_session(&self, key: Key, members: Vec<(Pid, Member)>);
    /// The members of a session that are here.
    fn count_members(&self, key: Key) -> Vec<(Pid, Member)>;
    /// A kernel died: the sessions that are here lose the members that were there.
    fn kernel_died(&self, dead: KernelId);
    /// Delivers a group signal to members that are here.
    fn signal_members(&self, pgid: Pid, members: &[Pid], info: SigInfo, from: Sender);
    /// Signals every process here that `from` may signal; how many.
    fn signal_all(&self, info: SigInfo, from: Sender) -> usize;
    /// Something happened to a child of a process that is here. `false` if the parent is not.
    fn child_event(&self, parent: Pid, event: ChildEvent) -> bool;
    /// Parents that are here with children that are not, which live as far as is known.
    fn absent_children(&self) -> Vec<(Pid, Pid)>;
    /// Processes that are here, with their parents if those are not.
    fn away_from_parent(&self) -> Vec<(Pid, Pid)>;
    /// Children of pid 1 that are here.
    fn of_init(&self) -> Vec<Pid>;
    /// The parent of a process that is here died: pid 1 gets it.
    fn orphaned(&self, child: Pid, parent: Pid);
    /// New children for a process that is here. `false` if it is not.
    fn adopt(&self, parent: Pid, children: Vec<ChildRecord>) -> bool;
    /// A task that moves here: reserves everything that can fail and loads the program. The answer is the reserved process.
    fn prepare(&self, from: KernelId, image: Box<TaskImage>) -> TryResult<Box<dyn Prepared>>;
    /// Whether a process that is here has ended; `None`: it is not here.
    fn is_over(&self, pid: Pid) -> Option<bool>;
    /// The pids of the processes that are here, in order, above `after`.
    fn pids(&self, after: Pid) -> Vec<Pid>;
    /// What this kernel does.
    fn load(&self) -> Load;
    /// What `/proc` shows of a process that is here, as bytes: see [`Question`].
    fn look(&self, pid: Pid, question: &Question) -> TryResult<Vec<u8>>;
}

/// A process that is about to live here.
pub trait Prepared: Send {
    /// It is ours; ends when others find it here.
    fn enter(&self) -> TryResult<()>;
    /// It runs; after [`Prepared::enter`] ended.
    fn run(self: Box<Self>);
    // Dropping it gives everything back.
}

/// See the module.
pub struct TaskService {
    pub(crate) links: Arc<Links>,
    pub(crate) names: Arc<NameService>,
    local: Lock<Option<Arc<dyn Local>>>,
    pids: Lock<PidBlocks>,
    members: Lock<Vec<KernelId>>,
    cpus: Vec<CpuFact>,
    /// They are of several ISAs.
    mixed: bool,
    /// How kernels of other ISAs describe their CPUs, by index.
    described: Lock<BTreeMap<u16, String>>,
    handles: Lock<Option<Arc<dyn task::moving::Handles>>>,
    pub(crate) moves: Lock<Moves>,
    pub(crate) watches: Watches,
    /// What peers said last of what they do.
    pub(crate) heard: Lock<BTreeMap<KernelId, Load>>,
    /// Where the sessions are.
    pub(crate) homes: SessionHomes,
    /// Events for parents whose kernel is being looked up, in order.
    routes: Lock<BTreeMap<Pid, Vec<Parcel>>>,
}

/// What is on its way to a parent.
pub(crate) enum Parcel {
    Event(ChildEvent),
    Orphans(Vec<ChildRecord>),
}

impl TaskService {
    /// The service of the kernel whose links these are; `cpus` are those of the plan. Register it for the family `tasks`.
    pub fn new(links: Arc<Links>, names: Arc<NameService>, kernels: u16, cpus: Vec<CpuFact>) -> Arc<Self> {
        let me = from_wire(links.me());
        Arc::new(Self {
            links,
            names,
            local: Lock::new(None),
            pids: Lock::new(PidBlocks::new(me.index, kernels)),
            members: Lock::new(alloc::vec![me]),
            mixed: cpus.iter().any(|cpu| cpus.first().is_some_and(|first| first.isa != cpu.isa)),
            cpus,
            described: Lock::new(BTreeMap::new()),
            handles: Lock::new(None),
            moves: Lock::new(Moves::default()),
            watches: Watches::default(),
            heard: Lock::new(BTreeMap::new()),
            homes: SessionHomes::new(me, kernels),
            routes: Lock::new(BTreeMap::new()),
        })
    }

    /// Moves that are under way to this kernel, and parents that are being looked up.
    pub fn counts(&self) -> (usize, usize) {
        let moves = self.moves.lock().count();
        (moves, self.routes.lock().len())
    }

    /// The kernel is there: peers' requests are served from now on.
    pub fn attach(&self, local: Arc<dyn Local>) {
        *self.local.lock() = Some(local);
    }

    /// How descriptors and directories go with a task that moves.
    pub fn set_handles(&self, handles: Arc<dyn task::moving::Handles>) {
        *self.handles.lock() = Some(handles);
    }

    /// The membership has a new view; the name service heard of it before. Children that were on a kernel that is gone have no name any more: their
    /// parents learn that they were killed.
    pub fn view(self: &Arc<Self>, epoch: u32, members: Vec<KernelId>) {
        let gone: Vec<KernelId> = {
            let mut now = self.members.lock();
            let gone = now.iter().copied().filter(|member| !members.contains(member)).collect();
            now.clone_from(&members);
            gone
        };
        if self.mixed {
            self.ask_descriptions(&members);
        }
        self.sessions_view(epoch, members);
        let Some(local) = self.local().ok().filter(|_| !gone.is_empty()) else {
            return;
        };
        self.look_again();
        self.orphans(&local);
        for (parent, child) in local.absent_children() {
            self.perhaps_killed(&local, parent, child);
        }
    }

    /// Kernels of other ISAs know what their CPUs are.
    fn ask_descriptions(self: &Arc<Self>, members: &[KernelId]) {
        let of = |index: u16| self.cpus.iter().find(|cpu| cpu.kernel == index).map(|cpu| cpu.isa);
        let own = of(self.me().index);
        for member in members.iter().filter(|member| of(member.index) != own) {
            let (service, index) = (self.clone(), member.index);
            let then: link::Then = Box::new(move |_, answer| {
                // Without an answer its CPUs are shown without a description.
                if let Ok((_, text)) =
                    answer.and_then(|answer| answer.read::<CpuIs>().map(|(is, text)| (is, text.to_vec())))
                {
                    service.described.lock().insert(index, String::from_utf8_lossy(&text).into_owned());
                }
            });
            self.links.request(to_wire(*member), wire::ObjectId::NONE, &DescribeCpu {}, &[], self.soon(), then);
        }
    }

    /// How the CPUs of this kernel are described.
    pub(crate) fn own_description(&self) -> &str {
        let me = self.me().index;
        self.cpus.iter().find(|cpu| cpu.kernel == me).map_or("", |cpu| &cpu.describe)
    }

    /// A child of a process here may have been on a kernel that is gone. If it has no name any more its parent learns that it was killed.
    fn perhaps_killed(&self, local: &Arc<dyn Local>, parent: Pid, child: Pid) {
        let local = local.clone();
        let name = Name { kind: Kind::Process, key: u64::from(child.0) };
        when_done(self.names.lookup(name), move |found| {
            if found.is_err_and(|error| error.errno() == Errno::ESRCH) {
                log::info!("process {child} was killed: its kernel is down");
                let status = Status::Killed { signal: Signal::KILL, core: false };
                let change = ChildChange::Status { status, uid: 0, usage: Usage::default() };
                local.child_event(parent, ChildEvent { pid: child, change });
            }
        });
    }

    /// Processes here whose parents were on a kernel that is gone are pid 1's. If pid 1 is gone too they wait for the next one: see
    /// [`TaskService::new_init`].
    fn orphans(self: &Arc<Self>, local: &Arc<dyn Local>) {
        for (child, parent) in local.away_from_parent() {
            let local = local.clone();
            let name = Name { kind: Kind::Process, key: u64::from(parent.0) };
            when_done(self.names.lookup(name), move |found| {
                if parent != Pid::INIT && found.is_err_and(|error| error.errno() == Errno::ESRCH) {
                    local.orphaned(child, parent);
                }
            });
        }
    }

    /// There is a new pid 1, which knows none of the children of the old one.
    pub fn new_init(self: &Arc<Self>) {
        let Ok(local) = self.local() else { return };
        for child in local.of_init() {
            local.orphaned(child, Pid::INIT);
        }
    }

    /// A kernel died: what moved here from it and was not committed is forgotten.
    pub fn peer_down(self: &Arc<Self>, dead: KernelId) {
        let gone = self.moves.lock().peer_down(dead);
        drop(gone);
        self.homes_step(Event::Down { dead });
    }

    pub(crate) fn me(&self) -> KernelId {
        from_wire(self.links.me())
    }

    pub(crate) fn local(&self) -> Result<Arc<dyn Local>> {
        self.local.lock().clone().ok_or(Error::new(Errno::EAGAIN, "the kernel is still booting"))
    }

    pub(crate) fn others(&self) -> Vec<KernelId> {
        let me = self.me();
        self.members.lock().iter().copied().filter(|&member| member != me).collect()
    }

    pub(crate) fn soon(&self) -> u64 {
        self.links.now().saturating_add(SOON)
    }

    pub(crate) fn at_once(&self) -> u64 {
        self.links.now().saturating_add(AT_ONCE)
    }

    /// Asks a peer and decodes the answer's payload.
    fn ask<M: wire::Request, T: Body<Tasks> + Send + 'static>(
        &self,
        to: KernelId,
        object: ObjectId,
        message: &M,
        payload: &[u8],
    ) -> TryResult<T> {
        self.ask_until(self.soon(), to, object, message, payload)
    }

    /// [`Self::ask`] with the time when it is too late.
    fn ask_until<M: wire::Request, T: Body<Tasks> + Send + 'static>(
        &self,
        deadline: u64,
        to: KernelId,
        object: ObjectId,
        message: &M,
        payload: &[u8],
    ) -> TryResult<T> {
        let (call, completer) = call();
        let then = Box::new(move |_: &Links, result: link::Result<Incoming<'_>>| {
            let result = result.and_then(|answer| {
                let (_, payload) = answer.read::<M::Reply>()?;
                decode::<T>(payload)
                    .map_err(|_| link::Error::new(Errno::EBADMSG, "the answer does not decode", answer.from))
            });
            // An answer for nobody: only knowledge, nothing to undo.
            drop(completer.complete(result.map(Try::Done).map_err(objects::error)));
        });
        let id = self.links.request(to_wire(to), object_to_wire(object), message, payload, deadline, then);
        let links = self.links.clone();
        call.on_abandon(move || links.forget(id)).into_try()
    }

    /// Finds who stands behind a name and goes on with it, now or when the answer comes.
    fn resolve<T: 'static>(
        self: &Arc<Self>,
        name: Name,
        make: impl FnOnce(names::Entry) -> T + Send + 'static,
    ) -> TryResult<T> {
        let me = self.me();
        match self.names.lookup(name)? {
            Try::Done(entry) if entry.home == me => Err(Error::new(Errno::ESRCH, "registered here but gone")),
            other => Ok(other.map(make)),
        }
    }

    fn deliver(self: &Arc<Self>, parent: Pid, parcel: Parcel) {
        {
            let mut routes = self.routes.lock();
            if let Some(queue) = routes.get_mut(&parent) {
                // A lookup is under way: later events stay behind earlier ones.
                queue.push(parcel);
                return;
            }
            routes.insert(parent, alloc::vec![parcel]);
        }
        let name = Name { kind: Kind::Process, key: u64::from(parent.0) };
        let service = self.clone();
        when_done(self.names.lookup(name), move |found| service.flush_route(parent, found.ok()));
    }

    /// The kernel of a parent is known (or there is none any more): send what waits for it.
    fn flush_route(self: &Arc<Self>, parent: Pid, entry: Option<names::Entry>) {
        let Some(parcels) = self.routes.lock().remove(&parent) else {
            return;
        };
        let Some(entry) = entry else {
            // The parent is gone; whoever reaped it became the parent, and was told so by the parent's kernel.
            return;
        };
        for parcel in parcels {
            if entry.home == self.me() {
                // It moved here meanwhile.
                if let Ok(local) = self.local() {
                    Self::hand_over(&*local, parent, parcel);
                }
                continue;
            }
            let (to, object) = (to_wire(entry.home), object_to_wire(entry.object));
            let payload = match &parcel {
                Parcel::Event(event) => encode(event),
                Parcel::Orphans(children) => encode(children),
            };
            let is_event = matches!(parcel, Parcel::Event(_));
            let service = self.clone();
            let then: link::Then = Box::new(move |_, result| match result {
                Ok(_) => {}
                // It came here meanwhile.
                Err(error) if error.errno == Errno::EREMCHG => {
                    if let Ok(local) = service.local() {
                        Self::hand_over(&*local, parent, parcel);
                    }
                }
                Err(error) => log::debug!("tasks: a parent cannot be told: {error}"),
            });
            if is_event {
                self.links.request(to, object, &ChildTell { parent: parent.0 }, &payload, self.soon(), then);
            } else {
                self.links.request(to, object, &Adopt { parent: parent.0 }, &payload, self.soon(), then);
            }
        }
    }

    pub(crate) fn hand_over(local: &dyn Local, parent: Pid, parcel: Parcel) -> bool {
        match parcel {
            Parcel::Event(event) => local.child_event(parent, event),
            Parcel::Orphans(children) => local.adopt(parent, children),
        }
    }

    /// What a kernel does.
    pub(crate) fn load_of(&self, of: KernelId) -> TryResult<Load> {
        self.ask_until(self.at_once(), of, NO_OBJECT, &LookAtSystem {}, &[])
    }

    /// The pids of a kernel's processes above `after`, for `/proc`; at most [`LIST_MAX`].
    pub fn list(&self, of: KernelId, after: Pid) -> TryResult<Vec<Pid>> {
        self.ask_until(self.at_once(), of, NO_OBJECT, &ListProcesses { after: after.0 }, &[])
    }
}

/// For requests that are for a service, not for an object.
const NO_OBJECT: ObjectId = ObjectId { birth: KernelId { index: 0, incarnation: 0 }, serial: 0 };

/// A process of another kernel.
struct RemoteProcess {
    service: Arc<TaskService>,
    pid: Pid,
    object: ObjectId,
    home: KernelId,
}

impl ProcessRef for RemoteProcess {
    fn pid(&self) -> Pid {
        self.pid
    }

    fn request(&self, request: ProcessRequest) -> TryResult<ProcessReply> {
        let asked = self.service.ask(self.home, self.object, &ProcessAsk { pid: self.pid.0 }, &encode(&request));
        let (service, pid) = (self.service.clone(), self.pid);
        Try::settled(asked).and_then(move |answer| match answer {
            // It came here meanwhile.
            Err(error) if error.errno() == Errno::EREMCHG => service.local()?.process(pid, request),
            answer => done(answer?),
        })
    }
}

/// The name service's word for a name of crate `task`.
pub(crate) fn name_of(name: task::cluster::Name) -> Name {
    let (kind, pid) = match name {
        task::cluster::Name::Process(pid) => (Kind::Process, pid),
        task::cluster::Name::Group(pid) => (Kind::Group, pid),
        task::cluster::Name::Session(pid) => (Kind::Session, pid),
    };
    Name { kind, key: u64::from(pid.0) }
}

/// What crate `task` gets: the service behind an [`Arc`], since proxies keep it.
pub struct Peers(pub Arc<TaskService>);

impl Peers {
    fn session_of(&self, name: Name, sid: Pid) -> TryResult<Arc<dyn Session>> {
        let service = self.0.clone();
        self.0.resolve(name, move |entry| {
            service.remote_session(entry.object, sid, SessionHome { kernel: entry.home, moves: 0 })
        })
    }
}

impl Cluster for Peers {
    fn new_pid(&self, used: &mut dyn FnMut(Pid) -> bool) -> Result<Pid> {
        // `used` looks into the process table, whose lock comes before this one: ask it without.
        for _ in 0..names::pids::PID_MAX {
            let next = self.0.pids.lock().take(|_| false);
            let Some(pid) = next.map(|pid| Pid(pid as u32)) else {
                break;
            };
            if !used(pid) {
                return Ok(pid);
            }
        }
        Err(Error::new(Errno::EAGAIN, "all pids of this kernel's blocks are in use"))
    }

    fn register(&self, name: task::cluster::Name, object: ObjectId) {
        // A process or session that moved here is registered by the same call: it replaces the entry of the same object.
        self.0.names.register(name_of(name), object, true);
    }

    fn register_moved(&self, name: task::cluster::Name, object: ObjectId) -> TryResult<()> {
        self.0.names.move_here(name_of(name), object)
    }

    fn registered(&self) -> TryResult<()> {
        self.0.names.flush()
    }

    fn unregister(&self, name: task::cluster::Name, object: ObjectId) {
        self.0.names.unregister(name_of(name), object);
    }

    fn find_process(&self, pid: Pid) -> TryResult<Arc<dyn ProcessRef>> {
        let service = self.0.clone();
        self.0.resolve(name_of(task::cluster::Name::Process(pid)), move |entry| {
            let remote = RemoteProcess { service, pid, object: entry.object, home: entry.home };
            Arc::new(remote) as Arc<dyn ProcessRef>
        })
    }

    fn find_group(&self, pgid: Pid) -> TryResult<Arc<dyn Session>> {
        self.session_of(name_of(task::cluster::Name::Group(pgid)), pgid)
    }

    fn find_session(&self, sid: Pid) -> TryResult<Arc<dyn Session>> {
        self.session_of(name_of(task::cluster::Name::Session(sid)), sid)
    }

    fn session(&self, id: ObjectId, sid: Pid, home: SessionHome) -> Arc<dyn Session> {
        self.0.remote_session(id, sid, home)
    }

    fn session_home(&self, id: ObjectId, sid: Pid) -> SessionHome {
        self.0.home_of(id, sid)
    }

    fn fetch_session(&self, sid: Pid, caller: Pid) -> TryResult<()> {
        self.0.fetch_session(sid, caller)
    }

    fn session_over(&self, id: ObjectId, sid: Pid) {
        self.0.homes_step(Event::Over { key: Key { object: id, sid } });
    }

    fn signal_all(&self, info: SigInfo, from: Sender) -> TryResult<usize> {
        let mut sum = AllSignalled::default();
        let payload = encode(&(info, from));
        for to in self.0.others() {
            let (call, completer) = call();
            let then = Box::new(move |_: &Links, result: link::Result<Incoming<'_>>| {
                // A kernel that died has no processes to count.
                let count = result.and_then(|answer| Ok(answer.read::<SignalledAll>()?.0.count)).unwrap_or(0);
                drop(completer.complete(done(count as usize)));
            });
            self.0.links.request(to_wire(to), wire::ObjectId::NONE, &SignalAll {}, &payload, self.0.soon(), then);
            match call.into_try()? {
                Try::Done(count) => sum.total += count,
                Try::Started(op) => sum.open.push(op),
                Try::WouldBlock => {}
            }
        }
        if sum.open.is_empty() { done(sum.total) } else { Ok(Try::Started(Box::new(sum))) }
    }

    fn signal_members(&self, to: KernelId, pgid: Pid, members: &[Pid], info: SigInfo, from: Sender) {
        let message = SignalMembers { pgid: pgid.0 };
        for some in members.chunks(SIGNALLED) {
            let payload = encode(&(info, from, some.to_vec()));
            let sent = self.0.links.send(to_wire(to), wire::ObjectId::NONE, &message, &payload);
            if let Err(error) = sent {
                log::debug!("tasks: members of group {pgid} on kernel {to} cannot be signalled: {error}");
            }
        }
    }

    fn child_event(&self, parent: Pid, event: ChildEvent) {
        self.0.deliver(parent, Parcel::Event(event));
    }

    fn adopt(&self, parent: Pid, children: Vec<ChildRecord>) {
        // A message carries some dozens; the order among them does not matter.
        for some in children.chunks(32) {
            self.0.deliver(parent, Parcel::Orphans(some.to_vec()));
        }
    }

    fn runs_elsewhere(&self, parent: Pid, child: Pid, to: KernelId) {
        // Members change before children are looked through: either they are without it now, or the child is seen not to be here then.
        let lives = self.0.members.lock().contains(&to);
        if !lives && let Ok(local) = self.0.local() {
            self.0.perhaps_killed(&local, parent, child);
            self.0.orphans(&local);
        }
    }

    fn tell(&self, child: Pid, request: ProcessRequest) {
        let service = self.0.clone();
        // When its kernel died, whom did it have as a parent? The old one may have heard of the death as it gave the child away, the new one before it
        // had it: who adopts looks for itself.
        let adopted_by = match &request {
            ProcessRequest::Reparent(parent) => Some(*parent),
            _ => None,
        };
        let untold = move || {
            if let Some(parent) = adopted_by
                && let Ok(local) = service.local()
            {
                service.perhaps_killed(&local, parent, child);
            }
        };
        when_done(self.find_process(child), move |found| {
            let Ok(process) = found else {
                // It is gone: nobody is left to tell.
                return untold();
            };
            when_done(process.request(request), move |told| {
                if let Err(error) = told {
                    log::debug!("tasks: process {child} cannot be told: {error}");
                    untold();
                }
            });
        });
    }

    fn watch_process(&self, pid: Pid, waker: Arc<dyn Wake>) -> Subscription {
        self.0.watch(pid, waker)
    }

    fn process_changed(&self, pid: Pid, over: bool) {
        self.0.tell_watchers(pid, over);
    }

    fn place(&self, placement: Placement) -> Result<Option<KernelId>> {
        let Placement::Kernel(index) = placement else {
            return Ok(None);
        };
        if index == self.0.me().index {
            return Ok(None);
        }
        if !self.0.cpus.iter().any(|cpu| cpu.kernel == index) {
            return Err(Error::new(Errno::ENODEV, "the plan has no such kernel"));
        }
        let members = self.0.members.lock();
        let member = members.iter().find(|member| member.index == index);
        member.copied().map(Some).ok_or(Error::new(Errno::EHOSTDOWN, "that kernel is not running"))
    }

    fn is_mixed(&self) -> bool {
        self.0.mixed
    }

    fn kernel_of(&self, isa: Isa) -> Option<KernelId> {
        let of = |index: u16| self.0.cpus.iter().any(|cpu| cpu.kernel == index && cpu.isa == isa.name());
        self.0.members.lock().iter().copied().filter(|member| of(member.index)).min_by_key(|member| member.index)
    }

    fn about_to_go(&self, to: KernelId) {
        // If it is dead, whatever comes next says so.
        let _ = self.0.links.send(to_wire(to), wire::ObjectId::NONE, &MoveComing {}, &[]);
    }

    fn prepare_exec(&self, to: KernelId, image: Box<TaskImage>) -> TryResult<Box<dyn Departure>> {
        let service = &self.0;
        let serial = service.moves.lock().next_serial();
        let (pid, id) = (image.pid, image.id);
        let bytes = encode(&*image);
        let peer = to_wire(to);
        for (n, part) in bytes.chunks(4096).enumerate() {
            let message = MovePart { serial, offset: (n * 4096) as u32 };
            service.links.send(peer, wire::ObjectId::NONE, &message, part).map_err(objects::error)?;
        }
        // Whoever gives up waiting drops it, and that aborts.
        let ready = Leaving { service: service.clone(), to, serial, pid, id, committed: false };
        let (call, completer) = call();
        let then = Box::new(move |_: &Links, result: link::Result<Incoming<'_>>| {
            let ready = Box::new(ready) as Box<dyn Departure>;
            drop(completer.complete(result.map(|_| Try::Done(ready)).map_err(objects::error)));
        });
        let message = MovePrepare { serial, total: bytes.len() as u32, pid: pid.0 };
        let deadline = service.links.now().saturating_add(LOAD);
        service.links.request(peer, wire::ObjectId::NONE, &message, &[], deadline, then);
        call.into_try()
    }

    fn handles(&self) -> Option<Arc<dyn task::moving::Handles>> {
        self.0.handles.lock().clone()
    }

    fn loads(&self) -> TryResult<Vec<Load>> {
        self.0.clone().loads()
    }

    fn traffic(&self) -> Traffic {
        let mut all = Traffic::default();
        for peer in self.0.links.peers() {
            for report in wire::Lane::ALL.map(|lane| peer.counters.lane(lane)) {
                all.sent += report.sent;
                all.sent_bytes += report.sent_bytes;
                all.received += report.received;
            }
            all.doorbells += peer.counters.doorbells.load(Relaxed);
        }
        all
    }

    fn cpus(&self) -> Vec<CpuFact> {
        let members = self.0.members.lock().clone();
        let mut cpus = self.0.cpus.clone();
        let described = self.0.described.lock();
        for cpu in &mut cpus {
            cpu.online = members.iter().any(|member| member.index == cpu.kernel);
            if let Some(text) = described.get(&cpu.kernel) {
                cpu.describe.clone_from(text);
            }
        }
        cpus
    }
}

/// A process that another kernel is ready for.
struct Leaving {
    service: Arc<TaskService>,
    to: KernelId,
    serial: u64,
    pid: Pid,
    id: ObjectId,
    committed: bool,
}

impl Departure for Leaving {
    fn commit(mut self: Box<Self>) -> TryResult<()> {
        self.committed = true;
        // What the other kernel registers comes behind what this one did.
        let flushed = self.service.names.flush()?;
        flushed.and_then(move |()| {
            // From here on it is there. If that kernel dies now the process dies with it.
            self.service.moves.lock().leaves(self.pid);
            let name = name_of(task::cluster::Name::Process(self.pid));
            self.service.names.leaves(name);
            let (call, completer) = call();
            let (service, pid) = (self.service.clone(), self.pid);
            let told: link::Then = Box::new(move |links, result| {
                // It has files and a parent here: it will ask soon.
                links.expect(ASKS_SOON);
                service.moves.lock().left(pid);
                service.names.landed(name);
                drop(completer.complete(result.map(|_| Try::Done(())).map_err(objects::error)));
            });
            let (peer, object) = (to_wire(self.to), object_to_wire(self.id));
            let message = MoveCommit { serial: self.serial };
            // Not a matter of time: it is answered, or that kernel is dead.
            self.service.links.request(peer, object, &message, &[], u64::MAX, told);
            call.into_try()
        })
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if !self.committed {
            // If it is dead there is nothing to abort.
            let message = MoveAbort { serial: self.serial };
            let _ = self.service.links.send(to_wire(self.to), wire::ObjectId::NONE, &message, &[]);
        }
    }
}

/// The sum over all kernels of a `kill(-1)`.
#[derive(Default)]
struct AllSignalled {
    total: usize,
    open: Vec<Box<dyn Op<usize>>>,
}

impl Op<usize> for AllSignalled {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        for op in &mut self.open {
            op.notify(waker.clone());
        }
    }

    fn take(&mut self) -> Option<TryResult<usize>> {
        let mut total = self.total;
        self.open.retain_mut(|op| match op.take() {
            None => true,
            Some(Ok(Try::Done(count))) => {
                total += count;
                false
            }
            Some(_) => false,
        });
        self.total = total;
        self.open.is_empty().then(|| done(self.total))
    }
}
