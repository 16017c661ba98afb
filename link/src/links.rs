//! All links of one kernel: send, request, receive.

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use hal::{sync::Once, trace::Kind as Traced};
use linux_abi::Errno;
use wire::{
    FLAG_REPLY, FLAG_REQUEST, Header, KernelId, Kind, Lane, MAX_BODY, MAX_KERNELS, Malformed, Message, ObjectId,
    Request,
    generic::{Cancel, Cancelled, Failed, Moved, Stale},
    groups::Invite,
};

use crate::{
    counters::Counters,
    error::{Error, Result},
    groups::Groups,
    hello,
    lock::{LINK, LINK_REQUESTS, Lock, ReadMostly},
    peer::Peer,
    polling::Polling,
    receive::Receiver,
    requests::{Asked, Requests},
    service::{AnswerTo, Guilt, Handler, Hooks, Incoming},
    transport::{Carrier, SendError},
};

/// What goes on when a request ends: the answer, or why there is none. Called on the receive path (see [`Handler`]) or by
/// whoever called [`Links::tick`] or [`Links::peer_down`].
pub type Then = Box<dyn FnOnce(&Links, Result<Incoming<'_>>) + Send>;

/// Families are the high byte of the type number.
const FAMILY_SLOTS: usize = 128;
/// How often a request follows its object before it gives up with ELOOP.
const MAX_HOPS: u8 = 16;
/// How long to wait before a request is made again that came too early for the receiver's view, in nanoseconds.
const STALE_PAUSE: u64 = 1_000_000;

pub(crate) struct Waiting {
    then: Then,
    /// What is needed to ask again elsewhere.
    lane: Lane,
    header: Header,
    body: Arc<[u8]>,
    hops: u8,
}

/// How a message goes.
#[derive(Clone, Copy)]
struct Way {
    lane: Lane,
    object: ObjectId,
    request: u64,
    flags: u8,
}

/// Notes what happens to a message, if somebody wants to know.
fn traced(what: Traced, header: &Header, lane: Lane, peer: KernelId) {
    let kind = u32::from(header.kind) | (lane as u32) << 16;
    hal::trace::note(what, kind, peer.index.into(), header.trace.into());
}

/// A request that waits for a view, or for the receiver to enter it.
struct Paused {
    id: u64,
    until: u64,
    epoch: u32,
}

/// All links of one kernel.
pub struct Links {
    me: KernelId,
    hooks: Arc<dyn Hooks>,
    /// What it says that it speaks.
    pub(crate) spoken: hello::Spoken,
    pub(crate) carriers: Vec<Arc<dyn Carrier>>,
    pub(crate) peers: ReadMostly<[Option<Arc<Peer>>; MAX_KERNELS]>,
    handlers: [Once<Arc<dyn Handler>>; FAMILY_SLOTS],
    requests: Lock<Requests<Waiting>>,
    paused: Lock<Vec<Paused>>,
    epoch: AtomicU32,
    trace: AtomicU64,
    pub(crate) receiving: Lock<Option<Box<Receiver>>>,
    pub(crate) again: AtomicBool,
    pub(crate) polling: Polling,
    /// Messages that were taken out of rings.
    pub(crate) taken: AtomicU64,
    pub(crate) groups: Groups,
    /// Who waits for the last request to end.
    quiet: Lock<Vec<Box<dyn FnOnce() + Send>>>,
    awaited: AtomicBool,
}

impl Links {
    /// The links of kernel `me` over these carriers; the first that reaches a peer is used for it.
    pub fn new(me: KernelId, hooks: Arc<dyn Hooks>, carriers: Vec<Arc<dyn Carrier>>) -> Self {
        Self {
            me,
            hooks,
            spoken: hello::Spoken::new(),
            carriers,
            peers: ReadMostly::new([const { None }; MAX_KERNELS]),
            handlers: [const { Once::new() }; FAMILY_SLOTS],
            requests: Lock::ranked(LINK_REQUESTS, Requests::new()),
            paused: Lock::ranked(LINK_REQUESTS, Vec::new()),
            epoch: AtomicU32::new(0),
            trace: AtomicU64::new(0),
            receiving: Lock::ranked(LINK, Some(Box::default())),
            again: AtomicBool::new(false),
            groups: Groups::default(),
            quiet: Lock::ranked(LINK_REQUESTS, Vec::new()),
            awaited: AtomicBool::new(false),
            polling: Polling::default(),
            taken: AtomicU64::new(0),
        }
    }

    /// This kernel.
    pub const fn me(&self) -> KernelId {
        self.me
    }

    /// What it reaches others by, the best first.
    pub fn carriers(&self) -> &[Arc<dyn Carrier>] {
        &self.carriers
    }

    pub(crate) fn hooks(&self) -> &dyn Hooks {
        &*self.hooks
    }

    /// The kernel's clock in nanoseconds: deadlines of requests are on it.
    pub fn now(&self) -> u64 {
        self.hooks.now()
    }

    /// The epoch that outgoing messages carry.
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// How many requests of this kernel have not been answered.
    pub fn unanswered(&self) -> usize {
        self.requests.lock().len()
    }

    /// This kernel entered a view: later messages say so, and requests that waited for it are made again.
    pub fn set_epoch(&self, epoch: u32) {
        self.epoch.store(epoch, Ordering::Release);
        self.resume(self.hooks.now());
    }

    /// Registers the service that handles a family of messages. `false` if there is no such family or it has its service.
    pub fn register(&self, family: &'static str, handler: Arc<dyn Handler>) -> bool {
        let Some(family) = wire::FAMILIES.iter().find(|f| f.name == family) else { return false };
        self.handlers.get(usize::from(family.first >> 8)).is_some_and(|slot| slot.set(handler).is_ok())
    }

    pub(crate) fn handler(&self, kind: u16) -> Option<&Arc<dyn Handler>> {
        self.handlers.get(usize::from(kind >> 8))?.get()
    }

    /// The link to a kernel, if it is open.
    pub fn peer(&self, id: KernelId) -> Option<Arc<Peer>> {
        self.peers.read().get(usize::from(id.index))?.clone().filter(|p| p.id == id && !p.is_down())
    }

    /// The open link to whoever runs at this index.
    pub(crate) fn peer_at(&self, index: u16) -> Option<Arc<Peer>> {
        self.peers.read().get(usize::from(index))?.clone().filter(|p| !p.is_down())
    }

    /// All open links.
    pub fn peers(&self) -> Vec<Arc<Peer>> {
        self.peers.read().iter().flatten().filter(|p| !p.is_down()).cloned().collect()
    }

    /// Opens the link to a kernel (if it is not open) and says hello.
    ///
    /// # Errors
    /// `EHOSTDOWN` if the incarnation is not there or not admitted; `ENOTCONN` if no carrier reaches it.
    pub fn connect(&self, id: KernelId) -> Result<Arc<Peer>> {
        if let Some(peer) = self.peer(id) {
            return Ok(peer);
        }
        if id == self.me || usize::from(id.index) >= MAX_KERNELS {
            return Err(Error::new(Errno::ENOTCONN, "there is no link to it", id));
        }
        if !self.hooks.admit(id) {
            return Err(Error::down(id));
        }
        let peer = {
            let mut peers = self.peers.write();
            let Some(slot) = peers.get_mut(usize::from(id.index)) else { return Err(Error::down(id)) };
            match slot {
                Some(open) if open.id == id && !open.is_down() => return Ok(open.clone()),
                // The old incarnation must have been taken down first.
                Some(open) if !open.is_down() => return Err(Error::down(id)),
                _ => {}
            }
            let (carrier, transport) = self
                .carriers
                .iter()
                .find_map(|carrier| Some((carrier.name(), carrier.connect(id)?)))
                .ok_or(Error::new(Errno::ENOTCONN, "no carrier reaches it", id))?;
            let peer = Arc::new(Peer::new(id, carrier, transport));
            *slot = Some(peer.clone());
            peer
        };
        // It may have asked for lanes before we knew it.
        peer.transport.attend();
        hello::say(self, &peer)?;
        Ok(peer)
    }

    // -- sending ---------------------------------------------------------------------------------------------------

    fn header<M: Message>(&self, way: Way, fixed: usize, payload: usize) -> Header {
        Header {
            kind: M::SPEC.number,
            version: M::SPEC.max,
            flags: way.flags,
            length: (fixed + payload) as u32,
            fixed: fixed as u16,
            sender: self.me,
            epoch: self.epoch(),
            request: way.request,
            object: way.object,
            clock: self.hooks.now(),
            trace: if hal::trace::is_on() { self.trace.fetch_add(1, Ordering::Relaxed) as u32 + 1 } else { 0 },
        }
    }

    /// The header of an event that goes to many.
    pub(crate) fn event_header<M: Message>(&self, object: ObjectId, fixed: usize, payload: usize) -> Header {
        self.header::<M>(Way { lane: M::SPEC.lane, object, request: 0, flags: 0 }, fixed, payload)
    }

    fn put(&self, peer: &Peer, lane: Lane, header: &Header, parts: &[&[u8]]) -> Result<()> {
        if peer.refuses(header.kind) {
            return Err(
                Error::new(Errno::EPROTONOSUPPORT, "the peer speaks another version", peer.id).about(header.kind)
            );
        }
        traced(Traced::Send, header, lane, peer.id);
        peer.send(lane, &header.to_raw(), parts).map_err(|e| {
            let (errno, why) = match e {
                SendError::TooLong => (Errno::EMSGSIZE, "longer than the lane takes"),
                SendError::Corrupt => (Errno::EPROTO, "the peer broke the lane"),
                SendError::Closed | SendError::Later => (Errno::EHOSTDOWN, "the kernel is down"),
            };
            if e == SendError::Corrupt && peer.break_lane(lane) {
                self.hooks.guilty(peer.id, Guilt::Lane(lane));
            }
            Error::new(errno, why, peer.id).about(header.kind)
        })
    }

    fn post<M: Message>(&self, to: KernelId, way: Way, message: &M, payload: &[u8]) -> Result<()> {
        self.post_to(&*self.connect(to)?, way, message, payload)
    }

    fn post_to<M: Message>(&self, peer: &Peer, way: Way, message: &M, payload: &[u8]) -> Result<()> {
        // Most are short, and zeroing what is not used takes longer than the rest.
        if M::SPEC.fixed <= 64 {
            self.post_with::<M, 64>(peer, way, message, payload)
        } else {
            self.post_with::<M, 512>(peer, way, message, payload)
        }
    }

    fn post_with<M: Message, const N: usize>(&self, peer: &Peer, way: Way, message: &M, payload: &[u8]) -> Result<()> {
        let spec = M::SPEC;
        if payload.len() > spec.payload || spec.fixed > N {
            return Err(Error::new(Errno::EMSGSIZE, "longer than the type allows", peer.id).about(spec.number));
        }
        let mut fixed = [0; N];
        let n = message.encode(&mut fixed);
        let header = self.header::<M>(way, n, payload.len());
        let fixed = fixed.get(..n).unwrap_or_default();
        if payload.is_empty() {
            return self.put(peer, way.lane, &header, &[fixed]);
        }
        self.put(peer, way.lane, &header, &[fixed, payload])
    }

    /// Sends an event to an object of a peer (or to the service itself: [`ObjectId::NONE`]). Returns at once; it is delivered unless the peer dies.
    ///
    /// # Errors
    /// `EHOSTDOWN`, `ENOTCONN`, `EMSGSIZE`, `EPROTONOSUPPORT`.
    pub fn send<M: Message>(&self, to: KernelId, object: ObjectId, message: &M, payload: &[u8]) -> Result<()> {
        debug_assert!(M::SPEC.kind == Kind::Event);
        self.post(to, Way { lane: M::SPEC.lane, object, request: 0, flags: 0 }, message, payload)
    }

    /// Asks an object of a peer; `then` is called once: with the answer, or with `EHOSTDOWN`, `ETIMEDOUT`, `ECANCELED`, or the errno that the
    /// peer answered. It may be called before this returns only if this fails, in which case the error is given to it.
    /// If the object moved, the request follows it.
    pub fn request<M: Request>(
        &self,
        to: KernelId,
        object: ObjectId,
        message: &M,
        payload: &[u8],
        deadline: u64,
        then: Then,
    ) -> u64 {
        let spec = M::SPEC;
        let mut bytes = Vec::with_capacity(spec.fixed + payload.len());
        bytes.resize(spec.fixed, 0);
        let n = message.encode(&mut bytes);
        bytes.extend_from_slice(payload);
        let body: Arc<[u8]> = bytes.into();
        let way = Way { lane: spec.lane, object, request: 0, flags: FLAG_REQUEST };
        let mut header = self.header::<M>(way, n, payload.len());
        let asked = Asked { peer: to, object, kind: spec.number, deadline };
        let begun = {
            let mut requests = self.requests.lock();
            let waiting = Waiting { then, lane: spec.lane, header, body: body.clone(), hops: 0 };
            requests.begin(asked, waiting)
        };
        let Some(id) = begun else { return 0 };
        self.hooks.set_alarm(deadline);
        if payload.len() > spec.payload {
            self.fail(id, Error::new(Errno::EMSGSIZE, "longer than the type allows", to).about(spec.number));
        } else {
            header.request = id;
            self.ask_with(id, to, spec.lane, &header, &body);
        }
        id
    }

    /// Sends the request to where the table says it goes.
    fn ask(&self, id: u64) {
        let taken = {
            let mut requests = self.requests.lock();
            requests.get(id).map(|(asked, waiting)| {
                waiting.header.request = id;
                waiting.header.epoch = self.epoch();
                waiting.header.clock = self.hooks.now();
                (asked.peer, waiting.lane, waiting.header, waiting.body.clone())
            })
        };
        if let Some((to, lane, header, body)) = taken {
            self.ask_with(id, to, lane, &header, &body);
        }
    }

    fn ask_with(&self, id: u64, to: KernelId, lane: Lane, header: &Header, body: &[u8]) {
        let sent = self.connect(to).and_then(|peer| {
            self.put(&peer, lane, header, &[body])?;
            // It died between the send and now: `peer_down` may have run before the request was in the table.
            if peer.is_down() { Err(Error::down(to)) } else { Ok(()) }
        });
        if let Err(error) = sent {
            self.fail(id, error);
        }
    }

    fn fail(&self, id: u64, error: Error) {
        let ended = self.requests.lock().end(id);
        if let Some((asked, waiting)) = ended {
            (waiting.then)(self, Err(error.about(asked.kind)));
            self.rest_quiet();
        }
    }

    /// Calls `then` when no request of this kernel is under way, at once if that is so. Every request has a deadline, so it is called.
    pub fn when_quiet(&self, then: impl FnOnce() + Send + 'static) {
        self.quiet.lock().push(Box::new(then));
        self.awaited.store(true, Ordering::Release);
        self.rest_quiet();
    }

    fn rest_quiet(&self) {
        // Hardly ever does anybody wait for this.
        if !self.awaited.load(Ordering::Acquire) || self.under_way() > 0 {
            return;
        }
        self.awaited.store(false, Ordering::Release);
        let told = core::mem::take(&mut *self.quiet.lock());
        for then in told {
            then();
        }
    }

    /// How many requests of this kernel are under way.
    pub fn under_way(&self) -> usize {
        self.requests.lock().len()
    }

    /// Abandons a request: the peer is told; the answer (the result, or `ECANCELED`) still comes, unless the peer dies.
    pub fn cancel(&self, id: u64) {
        let found = self.requests.lock().get(id).map(|(asked, waiting)| (asked, waiting.lane));
        if let Some((asked, lane)) = found {
            let message = Cancel { target: id, kind: asked.kind };
            // If it cannot be sent the peer is down, and that ends the request.
            let way = Way { lane, object: asked.object, request: 0, flags: 0 };
            let _ = self.post(asked.peer, way, &message, &[]);
        }
    }

    /// Forgets a request: its `then` is dropped, the peer is told, and an answer goes to [`Handler::undo`].
    pub fn forget(&self, id: u64) {
        self.cancel(id);
        let ended = self.requests.lock().end(id);
        drop(ended);
        self.rest_quiet();
    }

    /// Answers a request.
    ///
    /// # Errors
    /// `EHOSTDOWN` if the asker died: undo what the answer would have granted.
    pub fn answer<M: Message>(&self, to: AnswerTo, message: &M, payload: &[u8]) -> Result<()> {
        debug_assert!(M::SPEC.kind == Kind::Reply);
        let peer = self.peer(to.peer).ok_or(Error::down(to.peer))?;
        let way = Way { lane: M::SPEC.lane, object: to.object, request: to.request, flags: FLAG_REPLY };
        self.post_to(&peer, way, message, payload)
    }

    /// Answers a request with an errno.
    pub fn refuse(&self, to: AnswerTo, errno: Errno) {
        // The asker may be dead; then nobody needs the answer.
        let _ = self.answer(to, &Failed { errno: errno as u16 }, &[]);
    }

    /// Answers a request: the object lives at `home` now.
    pub fn moved(&self, to: AnswerTo, home: KernelId, moves: u32) {
        let _ = self.answer(to, &Moved { home, moves }, &[]);
    }

    /// Answers a request that was made in another view than this kernel's.
    pub fn stale(&self, to: AnswerTo) {
        let _ = self.answer(to, &Stale { epoch: self.epoch() }, &[]);
    }

    /// Answers a request that was cancelled before it had an effect.
    pub fn cancelled(&self, to: AnswerTo) {
        let _ = self.answer(to, &Cancelled {}, &[]);
    }

    // -- what came ---------------------------------------------------------------------------------------------------

    /// Checks one message and hands it on.
    pub(crate) fn take(&self, peer: &Peer, lane: Lane, bytes: &[u8]) {
        peer.counters.received(lane, bytes.len());
        self.taken.store(self.taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let (header, body) = match Header::parse(bytes) {
            Ok(parsed) => parsed,
            Err(what) => return self.blame(peer.id, Error::malformed(what, 0, peer.id)),
        };
        if header.sender != peer.id {
            return Counters::add(&peer.counters.strangers);
        }
        if body.len() > MAX_BODY {
            return self.blame(peer.id, Error::malformed(Malformed::TooLong, header.kind, peer.id));
        }
        peer.hear();
        self.hooks.step_forward(header.clock);
        let message = Incoming { from: peer.id, lane, header, body };
        traced(Traced::Receive, &header, lane, peer.id);
        if message.is_reply() {
            self.take_answer(peer, &message);
        } else {
            self.take_message(peer, &message);
        }
        traced(Traced::Handled, &header, lane, peer.id);
    }

    fn blame(&self, peer: KernelId, error: Error) {
        self.hooks.guilty(peer, Guilt::Message(error));
    }

    fn take_message(&self, peer: &Peer, message: &Incoming<'_>) {
        let kind = message.header.kind;
        let handled = if kind == wire::membership::Hello::SPEC.number {
            hello::heard(self, peer, message)
        } else if kind == Cancel::SPEC.number {
            self.take_cancel(message)
        } else if kind >> 8 == Invite::SPEC.number >> 8 {
            self.about_groups(message)
        } else {
            match self.handler(kind) {
                _ if peer.refuses(kind) => {
                    Err(Error::new(Errno::EPROTONOSUPPORT, "the peer speaks another version", peer.id))
                }
                Some(handler) => handler.handle(self, message),
                None => Err(Error::new(Errno::ENOSYS, "no service handles it", peer.id)),
            }
        };
        if let Err(error) = handled {
            if error.errno == Errno::EBADMSG {
                self.blame(peer.id, error.about(kind));
            }
            if message.is_request() {
                self.refuse(message.answer_to(), error.errno);
            }
        }
    }

    fn take_cancel(&self, message: &Incoming<'_>) -> Result<()> {
        let (cancel, _) = message.read::<Cancel>()?;
        if let Some(handler) = self.handler(cancel.kind) {
            let request = AnswerTo {
                peer: message.from,
                request: cancel.target,
                object: message.header.object,
                kind: cancel.kind,
            };
            handler.cancel(self, request);
        }
        Ok(())
    }

    fn take_answer(&self, peer: &Peer, message: &Incoming<'_>) {
        let kind = message.header.kind;
        if kind == Moved::SPEC.number {
            return match message.read::<Moved>() {
                Ok((moved, _)) => self.follow(message, moved.home),
                Err(error) => self.end_with(message, error),
            };
        }
        if kind == Stale::SPEC.number {
            return match message.read::<Stale>() {
                Ok((stale, _)) => self.pause(message, stale.epoch),
                Err(error) => self.end_with(message, error),
            };
        }
        let ended = self.requests.lock().answered(peer.id, &message.header);
        let Some((asked, waiting)) = ended else {
            Counters::add(&peer.counters.orphans);
            if let Some(handler) = self.handler(kind) {
                handler.undo(self, message);
            }
            return;
        };
        peer.counters.answered(waiting.lane, self.hooks.now().saturating_sub(waiting.header.clock));
        let result = if kind == Failed::SPEC.number {
            Err(message.read::<Failed>().map_or_else(
                |e| e,
                |(failed, _)| {
                    let errno = Errno::from_number(failed.errno).unwrap_or(Errno::EIO);
                    Error::new(errno, "the peer says", peer.id).about(asked.kind)
                },
            ))
        } else if kind == Cancelled::SPEC.number {
            Err(Error::new(Errno::ECANCELED, "cancelled", peer.id).about(asked.kind))
        } else {
            Ok(*message)
        };
        if let Err(error) = &result
            && error.errno == Errno::EBADMSG
        {
            self.blame(peer.id, *error);
        }
        (waiting.then)(self, result);
        self.rest_quiet();
    }

    fn end_with(&self, message: &Incoming<'_>, error: Error) {
        self.blame(message.from, error);
        let ended = self.requests.lock().answered(message.from, &message.header);
        if let Some((_, waiting)) = ended {
            (waiting.then)(self, Err(error));
            self.rest_quiet();
        }
    }

    /// The object lives elsewhere: ask there. A request that comes back to this kernel ends with `EREMCHG`: its caller asks locally.
    fn follow(&self, message: &Incoming<'_>, home: KernelId) {
        let Some((asked, mut waiting)) = self.requests.lock().answered(message.from, &message.header) else {
            return;
        };
        self.hooks.relocated(asked.object, home);
        waiting.hops += 1;
        if home == self.me {
            return (waiting.then)(
                self,
                Err(Error::new(Errno::EREMCHG, "the object came here", home).about(asked.kind)),
            );
        }
        if waiting.hops > MAX_HOPS || !home.is_some() {
            return (waiting.then)(
                self,
                Err(Error::new(Errno::ELOOP, "the object moves too often", home).about(asked.kind)),
            );
        }
        let next = self.requests.lock().begin(Asked { peer: home, ..asked }, waiting);
        if let Some(id) = next {
            self.ask(id);
        }
    }

    /// The request came in another view than the receiver's: wait for ours, or for the receiver's.
    fn pause(&self, message: &Incoming<'_>, epoch: u32) {
        let id = message.header.request;
        let known = self.requests.lock().get(id).is_some_and(|(asked, _)| asked.peer == message.from);
        if known {
            let until = self.hooks.now() + STALE_PAUSE;
            self.paused.lock().push(Paused { id, until, epoch });
            self.hooks.set_alarm(until);
        }
    }

    fn resume(&self, now: u64) {
        let mine = self.epoch();
        let due: Vec<u64> = {
            let mut paused = self.paused.lock();
            let due = paused.iter().filter(|p| p.epoch <= mine && p.until <= now).map(|p| p.id).collect();
            paused.retain(|p| p.epoch > mine || p.until > now);
            due
        };
        for id in due {
            self.ask(id);
        }
    }

    // -- time and death --------------------------------------------------------------------------------------------

    /// Ends requests whose deadline has passed. Says when to call again, and which kernels were silent too long.
    pub fn tick(&self) -> Tick {
        let now = self.hooks.now();
        self.resume(now);
        let late = self.requests.lock().end_where(|asked| asked.deadline <= now);
        let mut overdue = Vec::new();
        for (_, asked, waiting) in late {
            if !overdue.contains(&asked.peer) {
                overdue.push(asked.peer);
            }
            let error = Error::new(Errno::ETIMEDOUT, "no answer in time", asked.peer).about(asked.kind);
            (waiting.then)(self, Err(error));
        }
        self.rest_quiet();
        let next = self.requests.lock().next_deadline();
        let paused = self.paused.lock().iter().filter(|p| p.epoch <= self.epoch()).map(|p| p.until).min();
        let groups = self.flush_groups();
        let carriers = self.carriers.iter().filter_map(|carrier| carrier.tick(now));
        Tick { next: next.into_iter().chain(paused).chain(groups).chain(carriers).min(), overdue }
    }

    /// The peer is dead: its link ends, every request to it is answered `EHOSTDOWN`. Nothing of it is handled after this returned,
    /// except by a CPU that is in the middle of a handler.
    pub fn peer_down(&self, id: KernelId) {
        let peer = {
            let mut peers = self.peers.write();
            match peers.get_mut(usize::from(id.index)) {
                Some(slot) if slot.as_ref().is_some_and(|p| p.id == id) => slot.take(),
                _ => None,
            }
        };
        if let Some(peer) = peer {
            peer.close();
        }
        self.forget_in_groups(id);
        let ended = self.requests.lock().end_where(|asked| asked.peer == id);
        for (_, asked, waiting) in ended {
            (waiting.then)(self, Err(Error::down(id).about(asked.kind)));
        }
        self.rest_quiet();
        // A new incarnation may have poked us while the old one was not yet down.
        for carrier in &self.carriers {
            if let Some(next) = carrier.present(id.index).filter(|&next| next != id)
                && self.hooks.admit(next)
            {
                // If it cannot be reached now it pokes again.
                let _ = self.connect(next);
            }
        }
    }
}

/// What [`Links::tick`] found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tick {
    /// When to call again, on the kernel's clock.
    pub next: Option<u64>,
    /// Kernels that left a request unanswered: suspect them.
    pub overdue: Vec<KernelId>,
}
