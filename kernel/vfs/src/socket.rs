//! Sockets as system calls see them, whatever kernel they are at: [`Socket`] is an end, [`Address`] what a name stands for.
//!
//! The local ones are in [`crate::unix`]; the remote ones speak messages. A connection is at home where the listener is: the connecting end of another
//! kernel becomes a proxy of an end that is made there, so whatever is local about a connection is local to both its ends.

use alloc::{sync::Arc, vec::Vec};
use core::any::Any;

use base::{
    Errno, ObjectId, Ready, Result, Subscription, TryResult, Wake,
    io::{Sink, Source},
};

use crate::{
    Caller, OpenFile,
    unix::{Attached, Credentials, Kind, Name, Received},
};

/// Who connects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    /// How it sends.
    pub kind: Kind,
    /// Its name.
    pub name: Option<Name>,
    /// Who it is: SO_PEERCRED at the other end.
    pub credentials: Credentials,
}

/// What getsockname(2), getpeername(2) and getsockopt(2) tell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// Its name.
    pub name: Option<Name>,
    /// Whether it is connected, and the name of the other end.
    pub peer_name: Option<Option<Name>>,
    /// SO_PEERCRED.
    pub peer: Credentials,
    /// SO_ACCEPTCONN.
    pub listening: bool,
}

/// What a name of a socket stands for. It does not keep the socket open: a closed one refuses.
pub trait Address: Send + Sync {
    /// Its name in the machine.
    fn id(&self) -> ObjectId;
    /// How the socket sends.
    fn kind(&self) -> Kind;
    /// Its name as programs know it.
    fn name(&self) -> Option<Name>;
    /// connect(2) of a socket of another kernel: the connecting end of the new connection. `WouldBlock` while the listener's queue is full: wait
    /// for `OUT`.
    ///
    /// # Errors
    /// `ECONNREFUSED`, `EPROTOTYPE`.
    fn connect(&self, client: &Client) -> TryResult<Arc<dyn OpenFile>>;
    /// A datagram for it, from a socket with the name `from`.
    ///
    /// # Errors
    /// `ECONNREFUSED`, `EMSGSIZE`, `EPIPE`.
    fn deliver(&self, source: &mut dyn Source, attached: &mut Attached, from: Option<Name>) -> TryResult<usize>;
    /// Tells `waker` when it may have room.
    fn subscribe(&self, mask: Ready, waker: Arc<dyn Wake>) -> Subscription;
    /// For those who know the concrete type.
    fn as_any(&self) -> &dyn Any;
}

/// See the module. Every operation is a try.
pub trait Socket: Send + Sync {
    /// How it sends.
    fn kind(&self) -> Kind;
    /// Names, the other end, whether it listens.
    fn facts(&self) -> TryResult<Facts>;
    /// SO_ERROR: the error that waits to be told.
    fn take_error(&self) -> TryResult<Option<Errno>>;
    /// What a name of it is to stand for.
    fn address(&self) -> TryResult<Arc<dyn Address>>;
    /// Notes a name that was made in the tree.
    ///
    /// # Errors
    /// `EINVAL` if it has one.
    fn bound(&self, path: Vec<u8>) -> TryResult<()>;
    /// bind(2) in the abstract name space of the machine. No name: one is chosen.
    ///
    /// # Errors
    /// `EADDRINUSE`, `EINVAL`.
    fn bind_abstract(&self, name: Option<Vec<u8>>) -> TryResult<()>;
    /// listen(2).
    ///
    /// # Errors
    /// `EOPNOTSUPP` for datagrams, `EINVAL` without a name or when connected.
    fn listen(&self, backlog: usize) -> TryResult<()>;
    /// connect(2). `WouldBlock` while the listener's queue is full: wait for its `OUT`.
    ///
    /// # Errors
    /// `ECONNREFUSED`, `EISCONN`, `EPROTOTYPE`.
    fn connect(&self, caller: &Caller, to: &Arc<dyn Address>) -> TryResult<()>;
    /// Takes a connected datagram socket apart (`AF_UNSPEC`).
    fn disconnect(&self) -> TryResult<()>;
    /// accept(2).
    ///
    /// # Errors
    /// `EINVAL` if it does not listen.
    fn accept(&self) -> TryResult<Arc<dyn OpenFile>>;
    /// shutdown(2).
    ///
    /// # Errors
    /// `ENOTCONN`.
    fn shut_down(&self, receive: bool, send: bool) -> TryResult<()>;
    /// Sends what `source` has, with `attached`, which is taken when the message goes. A stream takes what there is room for.
    ///
    /// # Errors
    /// `EPIPE`, `ENOTCONN`, `ECONNREFUSED`, `EMSGSIZE`.
    fn send(&self, source: &mut dyn Source, attached: &mut Attached, to: Option<&Arc<dyn Address>>)
    -> TryResult<usize>;
    /// Tells `waker` when a send to `to`, or to the other end, may find room.
    fn send_room(&self, to: Option<&Arc<dyn Address>>, waker: Arc<dyn Wake>) -> Subscription;
    /// Receives into `sink`, or into [`Received::data`]. `peek` leaves the message where it is.
    ///
    /// # Errors
    /// `ENOTCONN`, `ECONNRESET`.
    fn receive(&self, sink: &mut dyn Sink, peek: bool) -> TryResult<Received>;
}

/// Abstract names of the whole machine.
pub trait Names: Send + Sync {
    /// The name stands for `object` of this kernel from now on.
    ///
    /// # Errors
    /// `EADDRINUSE`.
    fn claim(&self, name: &[u8], object: ObjectId) -> TryResult<()>;
    /// It is free again.
    fn free(&self, name: &[u8], object: ObjectId);
    /// What it stands for on another kernel.
    ///
    /// # Errors
    /// `ECONNREFUSED`.
    fn find(&self, name: &[u8]) -> TryResult<Arc<dyn Address>>;
}

/// The socket behind an open file.
///
/// # Errors
/// `ENOTSOCK`.
pub fn behind(file: &dyn OpenFile) -> Result<Arc<dyn Socket>> {
    file.socket().ok_or(base::Error::new(Errno::ENOTSOCK, "not a socket"))
}
