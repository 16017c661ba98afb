//! Sessions whose home is another kernel, or was, or will be.
//!
//! * `state.rs` decides (no I/O).
//! * Here is what carries it out: one CPU at a time, in the order in which it was decided, so that nothing overtakes anything on the way to a session.

pub mod state;

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};

use base::{Errno, Error, KernelId, ObjectId, Result, TryResult, wait::done};
use link::{AnswerTo, Incoming, Links, lock::Lock};
use names::Kind;
use objects::{Completer, call, object_to_wire, to_wire, when_done};
use state::{Actions, Event, Home, Homes, Key, PeerRequest};
use task::{
    cluster::SessionHome,
    ids::Pid,
    session::{Member, Notice, Reply, Request, Session},
};
use wire::tasks::{
    SessionAnswer, SessionAsk, SessionCensus, SessionFetch, SessionFreeze, SessionFrozen, SessionGiven, SessionPart,
    SessionTell, SessionsSettled,
};

use crate::{
    codec::{decode, encode},
    service::{TaskService, name_of},
};

/// The most bytes of a session's state: some hundred thousand members.
const STATE_MAX: usize = 8 << 20;
/// Bytes of one piece.
const PIECE: usize = 4096;
/// Members in one census message.
const COUNTED: usize = 64;

/// What a request becomes that comes back from a home that died. What members a kernel has it tells when the session is made anew, so a new process is
/// known then, unless it has ended: it is not to be added once more.
pub fn again(request: Request) -> Request {
    match request {
        Request::Fork { child, .. } => Request::GroupOf(child),
        request => request,
    }
}

/// What somebody has for a session.
#[derive(Debug)]
pub enum Op {
    /// Somebody here asks, and waits.
    Ask(Request, Completer<Reply>),
    /// Somebody here tells.
    Tell(Notice),
    /// A peer asks.
    Asked(Request, AnswerTo),
    /// A peer tells.
    Told(Notice),
}

/// What is to be done.
enum Action {
    Serve(Key, Op),
    Send(KernelId, Key, Op),
    Elsewhere(Key, Op, Home),
    Lost(Key, Op),
    Freeze(KernelId, Key, u32),
    Frozen(KernelId, Key),
    HandOver(Key, PeerRequest, u32),
    Refuse(PeerRequest, Errno),
    Moved(PeerRequest, Home),
    TellHome(KernelId, Key, u32, bool, bool),
    Census(KernelId, Key, u32),
    Settled(KernelId, u32),
    Rebuild(Key, Vec<(Pid, Member)>),
    Merge(Key, Vec<(Pid, Member)>),
    Bury(KernelId),
    /// Behind all that was decided before.
    Call(Box<dyn FnOnce() + Send>),
}

struct Queue<'a>(&'a mut VecDeque<Action>);

impl Actions<Op> for Queue<'_> {
    fn serve(&mut self, key: Key, op: Op) {
        self.0.push_back(Action::Serve(key, op));
    }
    fn send(&mut self, to: KernelId, key: Key, op: Op) {
        self.0.push_back(Action::Send(to, key, op));
    }
    fn elsewhere(&mut self, key: Key, op: Op, home: Home) {
        self.0.push_back(Action::Elsewhere(key, op, home));
    }
    fn lost(&mut self, key: Key, op: Op) {
        self.0.push_back(Action::Lost(key, op));
    }
    fn freeze(&mut self, to: KernelId, key: Key, moves: u32) {
        self.0.push_back(Action::Freeze(to, key, moves));
    }
    fn frozen(&mut self, to: KernelId, key: Key) {
        self.0.push_back(Action::Frozen(to, key));
    }
    fn hand_over(&mut self, key: Key, _: KernelId, request: PeerRequest, moves: u32) {
        self.0.push_back(Action::HandOver(key, request, moves));
    }
    fn refuse(&mut self, request: PeerRequest, errno: Errno) {
        self.0.push_back(Action::Refuse(request, errno));
    }
    fn moved(&mut self, request: PeerRequest, home: Home) {
        self.0.push_back(Action::Moved(request, home));
    }
    fn tell_home(&mut self, to: KernelId, key: Key, moves: u32, rebuilt: bool, over: bool) {
        self.0.push_back(Action::TellHome(to, key, moves, rebuilt, over));
    }
    fn census(&mut self, to: KernelId, key: Key, moves: u32) {
        self.0.push_back(Action::Census(to, key, moves));
    }
    fn settled(&mut self, to: KernelId, epoch: u32) {
        self.0.push_back(Action::Settled(to, epoch));
    }
    fn rebuild(&mut self, key: Key, members: Vec<(Pid, Member)>) {
        self.0.push_back(Action::Rebuild(key, members));
    }
    fn bury(&mut self, dead: KernelId) {
        self.0.push_back(Action::Bury(dead));
    }
    fn merge(&mut self, key: Key, members: Vec<(Pid, Member)>) {
        self.0.push_back(Action::Merge(key, members));
    }
}

struct Inner {
    homes: Homes<Op>,
    queue: VecDeque<Action>,
    /// Somebody carries out what is in the queue.
    busy: bool,
    epoch: u32,
    /// Peers' requests to become the home: where the answer goes and who takes the terminal.
    fetches: BTreeMap<PeerRequest, (AnswerTo, Pid)>,
    next: PeerRequest,
    /// States that come, by who sends them.
    coming: BTreeMap<(KernelId, ObjectId), Vec<u8>>,
}

/// The homes of sessions, as far as this kernel has to do with them.
pub struct SessionHomes(Lock<Inner>);

impl SessionHomes {
    pub(crate) fn new(me: KernelId, kernels: u16) -> Self {
        Self(Lock::new(Inner {
            homes: Homes::new(me, kernels),
            queue: VecDeque::new(),
            busy: false,
            epoch: 0,
            fetches: BTreeMap::new(),
            next: 1,
            coming: BTreeMap::new(),
        }))
    }
}

/// A session that is not at home here, or was not when the process that holds it came.
struct RemoteSession {
    service: Arc<TaskService>,
    key: Key,
    /// Where it was then.
    home: Home,
}

impl Session for RemoteSession {
    fn id(&self) -> ObjectId {
        self.key.object
    }

    fn sid(&self) -> Pid {
        self.key.sid
    }

    fn request(&self, request: Request) -> TryResult<Reply> {
        let (call, completer) = call();
        let op = Op::Ask(request, completer);
        self.service.homes_step(Event::Submit { key: self.key, home: self.home, op });
        call.into_try()
    }

    fn notice(&self, notice: Notice) {
        self.service.homes_step(Event::Submit { key: self.key, home: self.home, op: Op::Tell(notice) });
    }
}

impl Drop for RemoteSession {
    fn drop(&mut self) {
        self.service.homes_step(Event::Release { key: self.key });
    }
}

const GONE: Error = Error::new(Errno::ESRCH, "the session ended");

impl TaskService {
    /// A session as a process of this kernel holds it.
    pub(crate) fn remote_session(self: &Arc<Self>, object: ObjectId, sid: Pid, home: SessionHome) -> Arc<dyn Session> {
        let home = Home { moves: home.moves, kernel: home.kernel };
        Arc::new(RemoteSession { service: self.clone(), key: Key { object, sid }, home })
    }

    /// Where a session is as far as this kernel knows.
    pub(crate) fn home_of(&self, object: ObjectId, sid: Pid) -> SessionHome {
        let key = Key { object, sid };
        let known = self.homes.0.lock().homes.home(key);
        let here = Home { moves: 0, kernel: if self.has_session(key) { self.me() } else { object.birth } };
        let home = known.unwrap_or(here);
        SessionHome { kernel: home.kernel, moves: home.moves }
    }

    fn has_session(&self, key: Key) -> bool {
        self.local().is_ok_and(|local| local.has_session(key))
    }

    /// Steps the state machine and carries out what it wants, unless somebody is at that: then that one goes on.
    pub(crate) fn homes_step(self: &Arc<Self>, event: Event<Op>) {
        self.homes_do(|inner| {
            let Inner { homes, queue, .. } = inner;
            homes.step(event, &mut Queue(queue));
        });
    }

    fn homes_do(self: &Arc<Self>, change: impl FnOnce(&mut Inner)) {
        {
            let mut inner = self.homes.0.lock();
            change(&mut inner);
            if core::mem::replace(&mut inner.busy, true) {
                return;
            }
        }
        loop {
            let action = {
                let mut inner = self.homes.0.lock();
                let action = inner.queue.pop_front();
                inner.busy = action.is_some();
                action
            };
            match action {
                Some(action) => self.carry_out(action),
                None => return,
            }
        }
    }

    fn carry_out(self: &Arc<Self>, action: Action) {
        match action {
            Action::Serve(key, op) => self.serve_session(key, op),
            Action::Send(to, key, Op::Ask(request, completer)) => self.ask_session(to, key, request, completer),
            Action::Send(to, key, Op::Tell(notice) | Op::Told(notice)) => {
                // If it is dead its members are counted soon.
                let message = SessionTell { sid: key.sid.0 };
                let _ = self.links.send(to_wire(to), object_to_wire(key.object), &message, &encode(&notice));
            }
            Action::Send(to, _, Op::Asked(_, answer)) => self.links.moved(answer, to_wire(to), 0),
            Action::Elsewhere(_, Op::Asked(_, answer), home) => {
                self.links.moved(answer, to_wire(home.kernel), home.moves);
            }
            Action::Elsewhere(key, op, home) => self.carry_out(Action::Send(home.kernel, key, op)),
            Action::Lost(_, Op::Ask(_, completer)) => drop(completer.complete(Err(GONE))),
            Action::Lost(_, Op::Asked(_, answer)) => self.links.refuse(answer, Errno::ESRCH),
            Action::Lost(key, Op::Tell(notice) | Op::Told(notice)) => {
                log::debug!("session {} ended before {notice:?}", key.sid);
            }
            Action::Freeze(to, key, moves) => self.tell_about(to, key, &SessionFreeze { sid: key.sid.0, moves }),
            Action::Frozen(to, key) => self.tell_about(to, key, &SessionFrozen { sid: key.sid.0 }),
            Action::HandOver(key, request, moves) => self.hand_session_over(key, request, moves),
            Action::Refuse(request, errno) => {
                if let Some((answer, _)) = self.take_fetch(request) {
                    self.links.refuse(answer, errno);
                }
            }
            Action::Moved(request, home) => {
                if let Some((answer, _)) = self.take_fetch(request) {
                    self.links.moved(answer, to_wire(home.kernel), home.moves);
                }
            }
            Action::TellHome(to, key, moves, rebuilt, over) => {
                let message = wire::tasks::SessionHome {
                    sid: key.sid.0,
                    moves,
                    rebuilt: u8::from(rebuilt),
                    over: u8::from(over),
                };
                self.tell_about(to, key, &message);
            }
            Action::Census(to, key, moves) => self.tell_members(to, key, moves),
            Action::Settled(to, epoch) => {
                let _ = self.links.send(to_wire(to), wire::ObjectId::NONE, &SessionsSettled { epoch }, &[]);
            }
            Action::Rebuild(key, members) => {
                if let Ok(local) = self.local() {
                    log::info!("session {}: its home died, it goes on here with {} members", key.sid, members.len());
                    local.rebuild_session(key, members);
                }
            }
            Action::Merge(key, members) => {
                if let Ok(local) = self.local() {
                    local.merge_session(key, members);
                }
            }
            Action::Bury(dead) => {
                if let Ok(local) = self.local() {
                    local.kernel_died(dead);
                }
            }
            Action::Call(then) => then(),
        }
    }

    /// An event about a session for a peer. If that is dead nobody needs it.
    fn tell_about<M: wire::Message>(&self, to: KernelId, key: Key, message: &M) {
        let _ = self.links.send(to_wire(to), object_to_wire(key.object), message, &[]);
    }

    fn take_fetch(&self, request: PeerRequest) -> Option<(AnswerTo, Pid)> {
        self.homes.0.lock().fetches.remove(&request)
    }

    fn serve_session(self: &Arc<Self>, key: Key, op: Op) {
        let Ok(local) = self.local() else { return };
        match op {
            Op::Ask(request, completer) => {
                when_done(local.session(key, request), move |reply| {
                    drop(completer.complete(reply.map(base::Try::Done)));
                });
            }
            Op::Asked(request, answer) => {
                let links = self.links.clone();
                when_done(local.session(key, request), move |reply| match reply {
                    // If the asker died nobody needs the answer.
                    Ok(reply) => {
                        let _ = links.answer(answer, &SessionAnswer {}, &encode(&reply));
                    }
                    Err(error) => links.refuse(answer, error.errno()),
                });
            }
            Op::Tell(notice) | Op::Told(notice) => local.session_notice(key, notice),
        }
    }

    fn ask_session(self: &Arc<Self>, to: KernelId, key: Key, request: Request, completer: Completer<Reply>) {
        let payload = encode(&request);
        let service = self.clone();
        let then = Box::new(move |_: &Links, result: link::Result<Incoming<'_>>| {
            let result = result.and_then(|answer| {
                let (_, payload) = answer.read::<SessionAnswer>()?;
                decode::<Reply>(payload)
                    .map_err(|_| link::Error::new(Errno::EBADMSG, "the answer does not decode", answer.from))
            });
            match result {
                Err(error) if error.errno == Errno::EHOSTDOWN => {
                    service.homes_step(Event::Returned { key, op: Op::Ask(again(request), completer) });
                }
                Err(error) if error.errno == Errno::EREMCHG => {
                    // It came here meanwhile.
                    let home = Home { moves: 0, kernel: service.me() };
                    service.homes_step(Event::Submit { key, home, op: Op::Ask(request, completer) });
                }
                result => drop(completer.complete(result.map(base::Try::Done).map_err(objects::error))),
            }
        });
        let message = SessionAsk { sid: key.sid.0 };
        self.links.request(to_wire(to), object_to_wire(key.object), &message, &payload, self.soon(), then);
    }

    /// Everybody stands still: the session goes.
    fn hand_session_over(self: &Arc<Self>, key: Key, request: PeerRequest, moves: u32) {
        let Some((answer, caller)) = self.take_fetch(request) else {
            return self.homes_step(Event::Stays { key });
        };
        let home = SessionHome { kernel: objects::from_wire(answer.peer), moves };
        let next = self.remote_session(key.object, key.sid, home);
        let left = self.local().ok().and_then(|local| local.leave_session(key, caller, next));
        let Some((state, names)) = left else {
            self.links.refuse(answer, Errno::EPERM);
            return self.homes_step(Event::Stays { key });
        };
        let service = self.clone();
        when_done(self.names.flush(), move |_| {
            for name in names {
                service.names.moved_away(name_of(name));
            }
            let bytes = encode(&state);
            for (n, piece) in bytes.chunks(PIECE).enumerate() {
                let message = SessionPart { offset: (n * PIECE) as u32 };
                let _ = service.links.send(answer.peer, answer.object, &message, piece);
            }
            // If it died, the next view sees to the session.
            let _ = service.links.answer(answer, &SessionGiven { moves, total: bytes.len() as u32 }, &[]);
            service.homes_step(Event::Left { key });
        });
    }

    /// Counts the members that are here, for the kernel that makes the session anew.
    fn tell_members(self: &Arc<Self>, to: KernelId, key: Key, moves: u32) {
        let Ok(local) = self.local() else { return };
        let mut members = local.count_members(key);
        {
            // What is about to run elsewhere is counted there.
            let moves = self.moves.lock();
            members.retain(|(pid, _)| !moves.is_leaving(*pid));
        }
        let epoch = self.homes.0.lock().epoch;
        let from = self.me();
        if to == from {
            return self.homes_step(Event::Census { from, key, moves, epoch, members });
        }
        let message = SessionCensus { sid: key.sid.0, moves, epoch };
        let mut pieces: Vec<Vec<(Pid, Member)>> = members.chunks(COUNTED).map(Into::into).collect();
        if pieces.is_empty() {
            pieces.push(Vec::new());
        }
        for piece in pieces {
            let _ = self.links.send(to_wire(to), object_to_wire(key.object), &message, &encode(&piece));
        }
    }

    /// A new view, for the sessions.
    pub(crate) fn sessions_view(self: &Arc<Self>, epoch: u32, members: Vec<KernelId>) {
        self.homes_do(|inner| {
            inner.epoch = epoch;
            inner.coming.retain(|(from, _), _| members.contains(from));
            let Inner { homes, queue, .. } = inner;
            homes.step(Event::View { epoch, members }, &mut Queue(queue));
        });
    }

    /// A peer wants to be the home.
    pub(crate) fn session_fetched(self: &Arc<Self>, answer: AnswerTo, key: Key, caller: Pid) -> Result<()> {
        let local = self.local()?;
        let here = local.has_session(key);
        if here {
            local.session_may_leave(key, caller)?;
        }
        self.homes_do(|inner| {
            let request = inner.next;
            inner.next += 1;
            inner.fetches.insert(request, (answer, caller));
            let from = objects::from_wire(answer.peer);
            let Inner { homes, queue, .. } = inner;
            homes.step(Event::Fetch { from, key, here, request }, &mut Queue(queue));
        });
        Ok(())
    }

    /// A piece of a state that comes.
    pub(crate) fn session_part(&self, from: KernelId, object: ObjectId, offset: usize, piece: &[u8]) -> Option<()> {
        let mut inner = self.homes.0.lock();
        let state = inner.coming.entry((from, object)).or_default();
        if offset == 0 {
            state.clear();
        }
        if offset != state.len() || state.len() + piece.len() > STATE_MAX {
            inner.coming.remove(&(from, object));
            return None;
        }
        state.extend_from_slice(piece);
        Some(())
    }

    /// Brings a session here: see [`task::cluster::Cluster::fetch_session`].
    pub(crate) fn fetch_session(self: &Arc<Self>, sid: Pid, caller: Pid) -> TryResult<()> {
        let name = names::Name { kind: Kind::Session, key: u64::from(sid.0) };
        let service = self.clone();
        self.names.lookup(name)?.and_then(move |entry| {
            let key = Key { object: entry.object, sid };
            if entry.home == service.me() {
                return if service.has_session(key) { done(()) } else { Err(GONE) };
            }
            let (call, completer) = call();
            let me = service.clone();
            let then = Box::new(move |_: &Links, result: link::Result<Incoming<'_>>| {
                match result.and_then(|answer| Ok((answer.read::<SessionGiven>()?.0, answer.from))) {
                    Ok((given, from)) => me.session_came(key, objects::from_wire(from), given, completer),
                    // Its home is this kernel.
                    Err(error) if error.errno == Errno::EREMCHG => drop(completer.complete(done(()))),
                    Err(error) => drop(completer.complete(Err(objects::error(error)))),
                }
            });
            let message = SessionFetch { sid: sid.0, caller: caller.0 };
            let (to, object) = (to_wire(entry.home), object_to_wire(entry.object));
            service.links.request(to, object, &message, &[], service.soon(), then);
            call.into_try()
        })
    }

    /// The whole state is here.
    fn session_came(self: &Arc<Self>, key: Key, from: KernelId, given: SessionGiven, completer: Completer<()>) {
        let bytes = self.homes.0.lock().coming.remove(&(from, key.object)).unwrap_or_default();
        let state: Option<task::session::State> =
            if bytes.len() == given.total as usize { decode(&bytes).ok() } else { None };
        let (Some(state), Ok(local)) = (state, self.local()) else {
            // A kernel that breaks the protocol: its session is as lost as if it had died.
            log::error!("kernel {from} sent session {} in a form that nobody understands", key.sid);
            drop(completer.complete(Err(Error::new(Errno::EBADMSG, "the session does not decode"))));
            return;
        };
        let places = state.members().map(|(_, member)| member.place).collect();
        local.import_session(key, state);
        self.homes_do(move |inner| {
            let Inner { homes, queue, .. } = inner;
            homes.step(Event::Came { key, moves: given.moves, places }, &mut Queue(queue));
            // Whoever waited comes behind those whose operations were parked.
            queue.push_back(Action::Call(Box::new(move || drop(completer.complete(done(()))))));
        });
    }
}
