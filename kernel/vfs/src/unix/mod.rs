//! Local sockets, unix(7): streams, packets, datagrams; names in the tree and abstract ones; descriptors and credentials as messages.
//!
//! A socket has an inbox. Who sends puts a message into the other's inbox, so only one socket is locked at a time. `end.rs` shows it as
//! [`crate::socket`] has it, for system calls and for other kernels.

mod end;
mod inbox;
#[cfg(test)]
mod tests;

use alloc::{
    collections::VecDeque,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::any::Any;

use base::{
    Errno, Error, Ready, Result, Subscription, Try, TryResult, Wake,
    io::{Sink, Source},
    wait::done,
};
use hal::sync::{Once, SpinLock, rank};

use crate::{
    Caller, Ioctl, IoctlReply, LocalFile, Vfs, Waiters,
    anon::AnonInode,
    local::{FileOps, Wrote},
    socket::{Address, Facts},
    types::{FileKind, OpenFlags, Status},
};
pub use end::LocalAddress;
pub(crate) use end::bound_to;
use inbox::Inbox;
pub use inbox::{Attached, Credentials, Received};

/// How a socket sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Bytes between two (`SOCK_STREAM`).
    Stream,
    /// Packets to anybody (`SOCK_DGRAM`).
    Datagram,
    /// Packets between two (`SOCK_SEQPACKET`).
    Packets,
}

/// The name of a socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Name {
    /// In the tree, as it was given to bind(2).
    Path(Vec<u8>),
    /// In the abstract name space.
    Abstract(Vec<u8>),
}

/// Where a message goes.
enum Target {
    Here(Arc<UnixSocket>),
    There(Arc<dyn Address>),
}

enum Phase {
    Idle,
    Listening {
        backlog: usize,
        queue: VecDeque<Arc<LocalFile>>,
    },
    /// With somebody at the other end, who may be gone by now.
    Connected(Weak<UnixSocket>),
    /// Datagrams go to a socket of another kernel.
    Toward(Arc<dyn Address>),
}

struct State {
    name: Option<Name>,
    phase: Phase,
    inbox: Inbox,
    /// shutdown(2), or the other end is gone.
    no_receive: bool,
    no_send: bool,
    /// The other end was closed with messages unread: told once.
    reset: bool,
    closed: bool,
    peer: Credentials,
    /// The name of the other end when it connected.
    peer_name: Option<Name>,
}

/// See the module.
pub struct UnixSocket {
    me: Weak<Self>,
    vfs: Weak<Vfs>,
    kind: Kind,
    state: SpinLock<State>,
    waiters: Waiters,
    /// Who made it, as SO_PEERCRED tells the other end.
    maker: Credentials,
    /// What its names stand for.
    address: Once<Arc<LocalAddress>>,
    file: Once<Weak<LocalFile>>,
    /// For those who waited before the connection was at another kernel.
    forward: SpinLock<Option<Subscription>>,
}

const REFUSED: Error = Error::new(Errno::ECONNREFUSED, "nobody listens");
const NOT_CONNECTED: Error = Error::new(Errno::ENOTCONN, "not connected");
const BROKEN: Error = Error::new(Errno::EPIPE, "the other end is gone");

const READ_WRITE: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);

impl UnixSocket {
    fn make(vfs: &Vfs, caller: &Caller, kind: Kind, status: Status) -> (Arc<Self>, Arc<LocalFile>) {
        let maker = Credentials { pid: caller.pid, uid: caller.uid, gid: caller.gid };
        let socket = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            vfs: vfs.arc().map(|v| Arc::downgrade(&v)).unwrap_or_default(),
            kind,
            state: SpinLock::new(
                rank::SOCKET,
                State {
                    name: None,
                    phase: Phase::Idle,
                    inbox: Inbox::new(kind == Kind::Stream),
                    no_receive: false,
                    no_send: false,
                    reset: false,
                    closed: false,
                    peer: Credentials::default(),
                    peer_name: None,
                },
            ),
            waiters: Waiters::new(),
            maker,
            address: Once::new(),
            file: Once::new(),
            forward: SpinLock::new(rank::EVENT, None),
        });
        let ino = vfs.new_ino();
        let inode = AnonInode::of(&**vfs.env(), ino, caller, FileKind::Socket, 0o777, None);
        let place = vfs.anonymous(inode, alloc::format!("socket:[{ino}]").as_bytes());
        let file = LocalFile::new(vfs.env().new_id(), socket.clone(), place, READ_WRITE, status);
        socket.file.get_or_init(|| Arc::downgrade(&file));
        (socket, file)
    }

    /// socket(2).
    pub fn open(vfs: &Vfs, caller: &Caller, kind: Kind, status: Status) -> Arc<LocalFile> {
        Self::make(vfs, caller, kind, status).1
    }

    /// socketpair(2).
    pub fn pair(vfs: &Vfs, caller: &Caller, kind: Kind, status: Status) -> [Arc<LocalFile>; 2] {
        let (a, file_a) = Self::make(vfs, caller, kind, status);
        let (b, file_b) = Self::make(vfs, caller, kind, status);
        a.join(&b, None);
        b.join(&a, None);
        [file_a, file_b]
    }

    /// How it sends.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    fn join(&self, other: &Arc<Self>, name: Option<Name>) {
        let mut state = self.state.lock();
        state.phase = Phase::Connected(Arc::downgrade(other));
        state.peer = other.maker;
        state.peer_name = name;
    }

    /// Its name.
    pub fn name(&self) -> Option<Name> {
        self.state.lock().name.clone()
    }

    /// What getsockname(2) and others tell.
    pub fn facts(&self) -> Facts {
        let state = self.state.lock();
        let connected = matches!(state.phase, Phase::Connected(_) | Phase::Toward(_));
        Facts {
            name: state.name.clone(),
            peer_name: connected.then(|| state.peer_name.clone()),
            peer: state.peer,
            listening: matches!(state.phase, Phase::Listening { .. }),
        }
    }

    /// SO_ERROR: the error that waits to be told.
    pub fn take_error(&self) -> Option<Errno> {
        core::mem::take(&mut self.state.lock().reset).then_some(Errno::ECONNRESET)
    }

    /// What its names stand for.
    pub fn address(&self) -> Arc<LocalAddress> {
        let new = || Arc::new(LocalAddress::new(&self.vfs, self.kind, self.me.clone()));
        self.address.get_or_init(new).clone()
    }

    /// Whether it may be given a name.
    ///
    /// # Errors
    /// `EINVAL` if it has one.
    pub fn may_bind(&self) -> Result<()> {
        if self.state.lock().name.is_none() { Ok(()) } else { Err(Error::new(Errno::EINVAL, "bound already")) }
    }

    /// Notes a name that was made in the tree.
    ///
    /// # Errors
    /// `EINVAL` if it has one.
    pub fn bound(&self, path: Vec<u8>) -> Result<()> {
        let mut state = self.state.lock();
        if state.name.is_some() {
            return Err(Error::new(Errno::EINVAL, "bound already"));
        }
        state.name = Some(Name::Path(path));
        Ok(())
    }

    /// bind(2) in the abstract name space. Other kernels are asked whether they have the name.
    ///
    /// # Errors
    /// `EADDRINUSE`, `EINVAL`.
    pub fn bind_abstract(&self, name: Vec<u8>) -> TryResult<()> {
        self.may_bind()?;
        let vfs = self.vfs.upgrade().ok_or(Errno::EADDRNOTAVAIL)?;
        let address = self.address();
        {
            let mut table = vfs.abstract_sockets.lock();
            if table.get(&name).is_some_and(|a| a.socket().is_some()) {
                return Err(Error::new(Errno::EADDRINUSE, "the name is taken"));
            }
            table.insert(name.clone(), address.clone());
        }
        let Some(names) = vfs.machine_names.get() else {
            return done(self.got(&vfs, name)?);
        };
        let me = self.me.clone();
        let (id, claimed) = (address.id(), name.clone());
        let tried = names.claim(&name, id);
        let finish = move |_| {
            let socket = me.upgrade().ok_or(Errno::EBADF)?;
            let vfs = socket.vfs.upgrade().ok_or(Errno::EADDRNOTAVAIL)?;
            done(socket.got(&vfs, claimed)?)
        };
        let tried = tried.and_then(|t| t.and_then(finish));
        let table = self.vfs.clone();
        // Whatever ends it without the name: nobody finds the socket by it.
        end::or_else(tried, move || {
            if let Some(vfs) = table.upgrade() {
                end::forget(&vfs, &name, id);
            }
        })
    }

    /// The name is this socket's.
    fn got(&self, vfs: &Vfs, name: Vec<u8>) -> Result<()> {
        let mut state = self.state.lock();
        if state.name.is_some() || state.closed {
            drop(state);
            if let Some(names) = vfs.machine_names.get() {
                names.free(&name, self.address().id());
            }
            return Err(Error::new(Errno::EINVAL, "bound already"));
        }
        state.name = Some(Name::Abstract(name));
        Ok(())
    }

    /// What an abstract name stands for at this kernel.
    pub fn find_here(vfs: &Vfs, name: &[u8]) -> Option<Arc<LocalAddress>> {
        vfs.abstract_sockets.lock().get(name).filter(|address| address.socket().is_some()).cloned()
    }

    /// What an abstract name stands for.
    ///
    /// # Errors
    /// `ECONNREFUSED`.
    pub fn find_abstract(vfs: &Vfs, name: &[u8]) -> TryResult<Arc<dyn Address>> {
        match (Self::find_here(vfs, name), vfs.machine_names.get()) {
            (Some(address), _) => done(address),
            (None, Some(names)) => names.find(name),
            (None, None) => Err(REFUSED),
        }
    }

    /// listen(2).
    ///
    /// # Errors
    /// `EOPNOTSUPP` for datagrams, `EINVAL` without a name or when connected.
    pub fn listen(&self, backlog: usize) -> Result<()> {
        if self.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let mut state = self.state.lock();
        if state.name.is_none() {
            return Err(Error::new(Errno::EINVAL, "a listener needs a name"));
        }
        let wanted = backlog.clamp(1, 4096);
        match &mut state.phase {
            Phase::Idle => state.phase = Phase::Listening { backlog: wanted, queue: VecDeque::new() },
            Phase::Listening { backlog, .. } => *backlog = wanted,
            Phase::Connected(_) | Phase::Toward(_) => return Err(Errno::EINVAL.into()),
        }
        Ok(())
    }

    /// connect(2) to `target`. A stream answers `WouldBlock` while the listener's queue is full: wait for the target's `OUT`.
    ///
    /// # Errors
    /// `ECONNREFUSED`, `EISCONN`, `EPROTOTYPE`.
    pub fn connect(&self, caller: &Caller, target: &Arc<Self>) -> TryResult<()> {
        if target.kind != self.kind {
            return Err(Error::new(Errno::EPROTOTYPE, "another type of socket"));
        }
        let target_name = target.name();
        if self.kind == Kind::Datagram {
            self.join(target, target_name);
            return done(());
        }
        let me = self.me.upgrade().ok_or(REFUSED)?;
        match self.state.lock().phase {
            Phase::Idle => {}
            Phase::Connected(_) | Phase::Toward(_) => return Err(Error::new(Errno::EISCONN, "connected already")),
            Phase::Listening { .. } => return Err(Errno::EINVAL.into()),
        }
        let Some(server) = target.enqueue(caller, &me)? else { return Ok(Try::WouldBlock) };
        self.join(&server, target_name);
        self.state.lock().peer = target.maker;
        target.waiters.wake(Ready::IN);
        self.waiters.wake(Ready::OUT);
        done(())
    }

    /// The other end of a new connection of this listener, in its queue. `None`: the queue is full.
    fn enqueue(&self, caller: &Caller, client: &Arc<Self>) -> Result<Option<Arc<Self>>> {
        let vfs = self.vfs.upgrade().ok_or(REFUSED)?;
        let (server, file) = Self::make(&vfs, caller, self.kind, Status::empty());
        server.state.lock().name = self.name();
        server.join(client, client.name());
        let mut state = self.state.lock();
        let Phase::Listening { backlog, queue } = &mut state.phase else { return Err(REFUSED) };
        if queue.len() > *backlog {
            // It goes with nothing locked.
            drop(state);
            return Ok(None);
        }
        queue.push_back(file);
        Ok(Some(server))
    }

    /// Takes a connected datagram socket apart (`AF_UNSPEC`).
    pub fn disconnect(&self) {
        let mut state = self.state.lock();
        if self.kind == Kind::Datagram {
            state.phase = Phase::Idle;
            state.peer_name = None;
        }
    }

    /// accept(2).
    ///
    /// # Errors
    /// `EINVAL` if it does not listen.
    pub fn accept(&self) -> TryResult<Arc<LocalFile>> {
        let file = {
            let mut state = self.state.lock();
            let Phase::Listening { queue, .. } = &mut state.phase else {
                return Err(Error::new(Errno::EINVAL, "not listening"));
            };
            queue.pop_front()
        };
        match file {
            Some(file) => {
                self.waiters.wake(Ready::OUT);
                done(file)
            }
            None => Ok(Try::WouldBlock),
        }
    }

    /// shutdown(2).
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn shut_down(&self, receive: bool, send: bool) -> Result<()> {
        let peer = {
            let mut state = self.state.lock();
            let peer = match &state.phase {
                Phase::Connected(peer) => peer.upgrade(),
                Phase::Toward(_) => None,
                _ => return Err(NOT_CONNECTED),
            };
            state.no_receive |= receive;
            state.no_send |= send;
            peer
        };
        if let Some(peer) = peer.filter(|_| self.kind != Kind::Datagram) {
            {
                let mut state = peer.state.lock();
                state.no_receive |= send;
                state.no_send |= receive;
            }
            peer.waiters.wake(Ready::all());
        }
        self.waiters.wake(Ready::all());
        Ok(())
    }

    /// Where a message without an address goes.
    fn target(&self) -> Result<Target> {
        let state = self.state.lock();
        if state.no_send {
            return Err(BROKEN);
        }
        match &state.phase {
            Phase::Toward(to) => Ok(Target::There(to.clone())),
            Phase::Connected(peer) => {
                let gone = if self.kind == Kind::Datagram { REFUSED } else { BROKEN };
                peer.upgrade().map(Target::Here).ok_or(gone)
            }
            _ => Err(NOT_CONNECTED),
        }
    }

    /// Sends what `source` has, with `attached`, which is taken when the message goes. A stream takes what there is room for.
    ///
    /// # Errors
    /// `EPIPE`, `ENOTCONN`, `ECONNREFUSED`, `EMSGSIZE`.
    pub fn send(
        &self,
        source: &mut dyn Source,
        attached: &mut Attached,
        to: Option<&Arc<dyn Address>>,
    ) -> TryResult<usize> {
        let from = if self.kind == Kind::Datagram { self.name() } else { None };
        if let Some(to) = to {
            {
                let state = self.state.lock();
                if state.no_send {
                    return Err(BROKEN);
                }
                if self.kind != Kind::Datagram {
                    let connected = matches!(state.phase, Phase::Connected(_));
                    return Err(if connected { Error::new(Errno::EISCONN, "connected") } else { NOT_CONNECTED });
                }
            }
            return to.deliver(source, attached, from);
        }
        match self.target()? {
            Target::Here(target) => target.accept_message(source, attached, from),
            Target::There(to) => to.deliver(source, attached, from),
        }
    }

    /// A message for this socket.
    fn accept_message(&self, source: &mut dyn Source, attached: &mut Attached, from: Option<Name>) -> TryResult<usize> {
        let sent = {
            let mut state = self.state.lock();
            if state.closed && self.kind == Kind::Datagram {
                return Err(REFUSED);
            }
            if state.no_receive {
                return Err(BROKEN);
            }
            state.inbox.put(source, attached, from)?
        };
        if let Try::Done(_) = sent {
            self.waiters.wake(Ready::IN);
        }
        Ok(sent)
    }

    /// Receives into `sink`. `peek` leaves the message where it is.
    ///
    /// # Errors
    /// `ENOTCONN`, `ECONNRESET`.
    pub fn receive(&self, sink: &mut dyn Sink, peek: bool) -> TryResult<Received> {
        let (received, peer) = {
            let mut state = self.state.lock();
            if self.kind != Kind::Datagram && !matches!(state.phase, Phase::Connected(_)) {
                return Err(if self.kind == Kind::Stream { Errno::EINVAL.into() } else { NOT_CONNECTED });
            }
            match state.inbox.take(sink, peek) {
                Some(received) => {
                    let peer = if let Phase::Connected(peer) = &state.phase { peer.upgrade() } else { None };
                    (received, peer)
                }
                None if core::mem::take(&mut state.reset) => {
                    return Err(Error::new(Errno::ECONNRESET, "closed with messages unread"));
                }
                None if state.no_receive => return done(Received::default()),
                None => return Ok(Try::WouldBlock),
            }
        };
        // Senders wait at their own socket.
        if let Some(peer) = peer {
            peer.waiters.wake(Ready::OUT);
        }
        self.waiters.wake(Ready::OUT);
        done(received)
    }
}

impl FileOps for UnixSocket {
    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _: &LocalFile, _: &Caller, _: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        if sink.room() == 0 && self.kind == Kind::Stream {
            return done(0);
        }
        // Descriptors that nobody asked for are closed.
        Ok(self.receive(sink, false)?.map(|r| r.bytes))
    }

    fn write(&self, _: &LocalFile, caller: &Caller, _: u64, _: bool, source: &mut dyn Source) -> TryResult<Wrote> {
        let mut attached = Attached::of(caller);
        Ok(self.send(source, &mut attached, None)?.map(|bytes| Wrote { bytes, end: 0 }))
    }

    fn poll(&self, _: &LocalFile) -> Ready {
        let mut ready = Ready::empty();
        let peer = {
            let state = self.state.lock();
            match &state.phase {
                Phase::Listening { queue, .. } => {
                    ready.set(Ready::IN, !queue.is_empty());
                    return ready;
                }
                Phase::Idle if self.kind != Kind::Datagram => return Ready::OUT | Ready::HUP,
                Phase::Idle => None,
                Phase::Connected(peer) => {
                    ready.set(Ready::IN, !state.inbox.is_empty() || state.no_receive || state.reset);
                    ready.set(Ready::RDHUP, state.no_receive);
                    ready.set(Ready::HUP, state.no_receive && state.no_send);
                    ready.set(Ready::ERR, state.reset);
                    Some(peer.upgrade())
                }
                Phase::Toward(_) => None,
            }
        };
        match peer {
            // Without a connection the first datagram always has a place to go or says why not.
            None => {
                let waiting = !self.state.lock().inbox.is_empty();
                ready.set(Ready::IN, waiting);
                ready |= Ready::OUT;
            }
            Some(Some(peer)) => ready.set(Ready::OUT, peer.state.lock().inbox.has_room()),
            Some(None) => ready |= Ready::OUT,
        }
        ready
    }

    fn subscribe(&self, _: &LocalFile, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        self.waiters.subscribe(mask, waker)
    }

    fn ioctl(&self, _: &LocalFile, _: &Caller, request: Ioctl) -> TryResult<IoctlReply> {
        match request {
            Ioctl::BytesReadable => done(IoctlReply::Number(self.state.lock().inbox.first_bytes() as u64)),
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    fn release(&self, _: &LocalFile) {
        let mut toward = None;
        let (peer, unread, queue, name, old) = {
            let mut state = self.state.lock();
            state.closed = true;
            state.no_receive = true;
            state.no_send = true;
            let phase = core::mem::replace(&mut state.phase, Phase::Idle);
            let (peer, queue) = match phase {
                Phase::Connected(peer) => (peer.upgrade(), VecDeque::new()),
                Phase::Listening { queue, .. } => (None, queue),
                Phase::Idle => (None, VecDeque::new()),
                Phase::Toward(to) => {
                    toward = Some(to);
                    (None, VecDeque::new())
                }
            };
            let unread = !state.inbox.is_empty();
            (peer, unread, queue, state.name.take(), core::mem::replace(&mut state.inbox, Inbox::new(false)))
        };
        if let Some(peer) = peer.filter(|_| self.kind != Kind::Datagram) {
            {
                let mut state = peer.state.lock();
                state.no_receive = true;
                state.no_send = true;
                state.reset |= unread;
            }
            peer.waiters.wake(Ready::all());
        }
        if let (Some(Name::Abstract(name)), Some(vfs)) = (name, self.vfs.upgrade()) {
            let id = self.address().id();
            end::forget(&vfs, &name, id);
            if let Some(names) = vfs.machine_names.get() {
                names.free(&name, id);
            }
        }
        let forward = self.forward.lock().take();
        self.waiters.wake(Ready::all());
        // Connections that nobody accepted, and descriptors in messages, are closed here, with nothing locked.
        drop((queue, old, toward, forward));
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
