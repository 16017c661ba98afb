//! A local socket as [`crate::socket`] has it, and what its names stand for.

use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::any::Any;

use base::{
    Errno, Error, ObjectId, Ready, Result, Subscription, Try, TryResult, Wake,
    io::{Sink, Source},
    wait::{Op, done},
};

use super::{Attached, Credentials, Kind, Name, Phase, REFUSED, Received, UnixSocket};
use crate::{
    Caller, LocalFile, OpenFile, Status, Vfs,
    socket::{Address, Client, Facts, Socket},
};

/// What the names of a local socket stand for. Does not keep it open.
pub struct LocalAddress {
    id: ObjectId,
    kind: Kind,
    socket: Weak<UnixSocket>,
}

impl LocalAddress {
    pub(super) fn new(vfs: &Weak<Vfs>, kind: Kind, socket: Weak<UnixSocket>) -> Self {
        // Without a tree there is nobody to name it for.
        let nobody = ObjectId { birth: base::KernelId { index: 0, incarnation: 0 }, serial: 0 };
        Self { id: vfs.upgrade().map_or(nobody, |vfs| vfs.env().new_id()), kind, socket }
    }

    /// The socket, while it is open.
    pub fn socket(&self) -> Option<Arc<UnixSocket>> {
        self.socket.upgrade().filter(|socket| !socket.state.lock().closed)
    }
}

impl Address for LocalAddress {
    fn id(&self) -> ObjectId {
        self.id
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn name(&self) -> Option<Name> {
        self.socket()?.name()
    }

    fn connect(&self, client: &Client) -> TryResult<Arc<dyn OpenFile>> {
        if client.kind != self.kind {
            return Err(Error::new(Errno::EPROTOTYPE, "another type of socket"));
        }
        let listener = self.socket().ok_or(REFUSED)?;
        let vfs = listener.vfs.upgrade().ok_or(REFUSED)?;
        let Credentials { pid, uid, gid } = client.credentials;
        let caller = Caller { pid, uid, gid, ..Caller::default() };
        let (end, file) = UnixSocket::make(&vfs, &caller, self.kind, Status::empty());
        end.state.lock().name = client.name.clone();
        let Some(server) = listener.enqueue(&caller, &end)? else { return Ok(Try::WouldBlock) };
        end.join(&server, listener.name());
        end.state.lock().peer = listener.maker;
        listener.waiters.wake(Ready::IN);
        done(file)
    }

    fn deliver(&self, source: &mut dyn Source, attached: &mut Attached, from: Option<Name>) -> TryResult<usize> {
        self.socket().ok_or(REFUSED)?.accept_message(source, attached, from)
    }

    fn subscribe(&self, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        self.socket().map_or(Subscription::never(), |socket| socket.waiters.subscribe(mask, waker))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The abstract name does not stand for this any more, at this kernel.
pub(super) fn forget(vfs: &Vfs, name: &[u8], id: ObjectId) {
    let old = {
        let mut table = vfs.abstract_sockets.lock();
        if table.get(name).is_some_and(|address| address.id == id) { table.remove(name) } else { None }
    };
    drop(old);
}

/// Does `undo` if the operation ends with an error or is abandoned, now or later.
pub(super) fn or_else<T: 'static>(tried: TryResult<T>, undo: impl FnOnce() + Send + 'static) -> TryResult<T> {
    match tried {
        Ok(Try::Done(value)) => done(value),
        Ok(Try::Started(op)) => Ok(Try::Started(Box::new(Undoing { op, undo: Some(undo) }))),
        ended => {
            undo();
            ended
        }
    }
}

struct Undoing<T, F: FnOnce()> {
    op: Box<dyn Op<T>>,
    undo: Option<F>,
}

impl<T, F: FnOnce()> Drop for Undoing<T, F> {
    fn drop(&mut self) {
        if let Some(undo) = self.undo.take() {
            undo();
        }
    }
}

impl<T: 'static, F: FnOnce() + Send + 'static> Op<T> for Undoing<T, F> {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        self.op.notify(waker);
    }

    fn soon(&self) -> bool {
        self.op.soon()
    }

    fn take(&mut self) -> Option<TryResult<T>> {
        let result = self.op.take()?;
        let undo = self.undo.take()?;
        Some(or_else(result, undo))
    }
}

/// Wakes who waited here before the connection was elsewhere.
struct Forward(Weak<UnixSocket>);

impl Wake for Forward {
    fn wake(&self, ready: Ready) {
        if let Some(socket) = self.0.upgrade() {
            socket.waiters.wake(ready);
        }
    }
}

impl UnixSocket {
    /// The socket behind a local file.
    pub(crate) fn of(file: &LocalFile) -> Option<Arc<Self>> {
        file.ops().as_any().downcast_ref::<Self>().and_then(|socket| socket.me.upgrade())
    }

    /// The connection came about at another kernel, where `end` is this end of it.
    fn connected_elsewhere(&self, end: Arc<dyn OpenFile>) -> TryResult<()> {
        let file = self.file.get().and_then(Weak::upgrade).ok_or(REFUSED)?;
        {
            let mut state = self.state.lock();
            match state.phase {
                Phase::Idle if !state.closed && file.elsewhere().is_none() => {}
                _ => return Err(Error::new(Errno::EISCONN, "connected already")),
            }
            // Whoever looks at the local one finds an end, and that the rest is elsewhere.
            state.phase = Phase::Connected(Weak::new());
        }
        if !self.waiters.is_empty() {
            let forward = end.subscribe(Ready::all(), Arc::new(Forward(self.me.clone())));
            *self.forward.lock() = Some(forward);
        }
        file.go_elsewhere(end);
        self.waiters.wake(Ready::OUT);
        done(())
    }

    fn connect_far(&self, caller: &Caller, to: &Arc<dyn Address>) -> TryResult<()> {
        if to.kind() != self.kind {
            return Err(Error::new(Errno::EPROTOTYPE, "another type of socket"));
        }
        let name = self.name();
        if self.kind == Kind::Datagram {
            let old = {
                let mut state = self.state.lock();
                state.peer_name = to.name();
                core::mem::replace(&mut state.phase, Phase::Toward(to.clone()))
            };
            drop(old);
            return done(());
        }
        match self.state.lock().phase {
            Phase::Idle => {}
            Phase::Listening { .. } => return Err(Errno::EINVAL.into()),
            _ => return Err(Error::new(Errno::EISCONN, "connected already")),
        }
        let credentials = Credentials { pid: caller.pid, uid: caller.uid, gid: caller.gid };
        let me = self.me.clone();
        to.connect(&Client { kind: self.kind, name, credentials })?
            .and_then(move |end| me.upgrade().ok_or(REFUSED)?.connected_elsewhere(end))
    }
}

impl Socket for UnixSocket {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn facts(&self) -> TryResult<Facts> {
        done(Self::facts(self))
    }

    fn take_error(&self) -> TryResult<Option<Errno>> {
        done(Self::take_error(self))
    }

    fn address(&self) -> TryResult<Arc<dyn Address>> {
        done(Self::address(self))
    }

    fn bound(&self, path: Vec<u8>) -> TryResult<()> {
        done(Self::bound(self, path)?)
    }

    fn bind_abstract(&self, name: Option<Vec<u8>>) -> TryResult<()> {
        match name {
            Some(name) => Self::bind_abstract(self, name),
            None => {
                // Chance, so that kernels do not try the same names; who is told that one is taken asks again.
                let chance = self.vfs.upgrade().map_or(Vec::new(), |vfs| vfs.env().random(4));
                let number = chance.iter().fold(0_u32, |n, byte| n << 8 | u32::from(*byte)) & 0xf_ffff;
                Self::bind_abstract(self, alloc::format!("{number:05x}").into_bytes())
            }
        }
    }

    fn listen(&self, backlog: usize) -> TryResult<()> {
        done(Self::listen(self, backlog)?)
    }

    fn connect(&self, caller: &Caller, to: &Arc<dyn Address>) -> TryResult<()> {
        match to.as_any().downcast_ref::<LocalAddress>() {
            Some(here) => Self::connect(self, caller, &here.socket().ok_or(REFUSED)?),
            None => self.connect_far(caller, to),
        }
    }

    fn disconnect(&self) -> TryResult<()> {
        Self::disconnect(self);
        done(())
    }

    fn accept(&self) -> TryResult<Arc<dyn OpenFile>> {
        Ok(Self::accept(self)?.map(|file| file as _))
    }

    fn shut_down(&self, receive: bool, send: bool) -> TryResult<()> {
        done(Self::shut_down(self, receive, send)?)
    }

    fn send(
        &self,
        source: &mut dyn Source,
        attached: &mut Attached,
        to: Option<&Arc<dyn Address>>,
    ) -> TryResult<usize> {
        Self::send(self, source, attached, to)
    }

    fn send_room(&self, to: Option<&Arc<dyn Address>>, waker: Arc<dyn Wake>) -> Subscription {
        let toward = match &self.state.lock().phase {
            Phase::Toward(to) => Some(to.clone()),
            _ => None,
        };
        match to.or(toward.as_ref()) {
            Some(to) => to.subscribe(Ready::OUT, waker),
            None => self.waiters.subscribe(Ready::OUT, waker),
        }
    }

    fn receive(&self, sink: &mut dyn Sink, peek: bool) -> TryResult<Received> {
        Self::receive(self, sink, peek)
    }
}

/// For the file systems that have names of sockets.
///
/// # Errors
/// `ECONNREFUSED` if nobody is bound.
pub(crate) fn bound_to(slot: &Option<Arc<dyn Address>>) -> Result<Arc<dyn Address>> {
    slot.clone().ok_or(REFUSED)
}
