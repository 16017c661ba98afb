//! Sockets of other kernels, and what their names stand for.

use alloc::{sync::Arc, vec::Vec};
use core::any::Any;

use base::{
    Errno, Error, KernelId, ObjectId, Ready, Result, Subscription, TryResult, Wake,
    io::{Sink, Source},
    wait::{Try, done},
};
use link::Incoming;
use objects::codec::{Body, Coded as _, Reader};
use vfs::{
    Caller, OpenFile,
    socket::{Address, Client, Facts, Socket},
    unix::{Attached, Kind, Name, Received},
};
use wire::files::{
    AddressConnect, AddressDeliver, AddressIs, FileGiven, SocketAccept, SocketAddress, SocketConnect, SocketData,
    SocketDo, SocketFacts, SocketIs, SocketReceive, SocketSend, state,
};

use crate::{
    codec::{AddressInTransit, Head, Said, encode, read_body as body},
    handles::FileInTransit,
    pieces::send_ahead,
    references::{Passed, all},
    remote::{RemoteFile, bad, count, nothing},
    service::{FileService, LONG},
};

/// The longest packet (`/proc/sys/net/core/wmem_default`), as at the home of a socket.
const LONGEST_PACKET: usize = 212_992;

/// What [`SocketDo`] is to do.
pub(crate) mod what {
    pub const ERROR: u8 = 0;
    pub const BOUND: u8 = 1;
    pub const BIND: u8 = 2;
    pub const BIND_ANY: u8 = 3;
    pub const LISTEN: u8 = 4;
    pub const DISCONNECT: u8 = 5;
    pub const SHUT_DOWN: u8 = 6;
}

/// What is known of an address without asking.
#[derive(Clone, Debug)]
pub struct Known {
    /// How its socket sends.
    pub kind: Kind,
    /// Its name when it was found.
    pub name: Option<Name>,
}

/// What the name of a socket of another kernel stands for.
pub struct RemoteAddress {
    service: Arc<FileService>,
    object: ObjectId,
    known: Known,
}

impl RemoteAddress {
    pub(crate) const fn new(service: Arc<FileService>, object: ObjectId, known: Known) -> Self {
        Self { service, object, known }
    }

    /// Its name in the machine.
    pub const fn object(&self) -> ObjectId {
        self.object
    }
}

impl Drop for RemoteAddress {
    fn drop(&mut self) {
        self.service.let_go(self.object);
    }
}

/// A socket whose kernel is dead refuses, as one whose process is dead.
fn refused(e: Error) -> Error {
    if e == Errno::EHOSTDOWN { Error::new(Errno::ECONNREFUSED, "the kernel of the socket is down") } else { e }
}

impl Address for RemoteAddress {
    fn id(&self) -> ObjectId {
        self.object
    }

    fn kind(&self) -> Kind {
        self.known.kind
    }

    fn name(&self) -> Option<Name> {
        self.known.name.clone()
    }

    fn connect(&self, client: &Client) -> TryResult<Arc<dyn OpenFile>> {
        let service = self.service.clone();
        self.service
            .ask(self.object, &AddressConnect {}, &encode(&[client]), move |answer| service.take_given(answer))
            .map_err(refused)
    }

    fn deliver(&self, source: &mut dyn Source, attached: &mut Attached, from: Option<Name>) -> TryResult<usize> {
        let Some(bytes) = packet(source)? else { return done(0) };
        let home = self.service.home(self.object).ok_or(Errno::ECONNREFUSED)?;
        self.service.say((home, self.object, true), attached, from, None, bytes)
    }

    fn subscribe(&self, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        self.service.subscribe(self.object, mask, None, waker)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A whole packet; none while it must be brought in first.
fn packet(source: &mut dyn Source) -> Result<Option<Vec<u8>>> {
    let length = source.left();
    if length > LONGEST_PACKET {
        return Err(Error::new(Errno::EMSGSIZE, "packet too long"));
    }
    if !source.can_take(length) {
        return Ok(None);
    }
    let mut bytes = alloc::vec![0; length];
    let taken = source.take(&mut bytes);
    bytes.truncate(taken);
    Ok(Some(bytes))
}

impl FileService {
    /// An open file in a [`FileGiven`].
    pub(crate) fn take_given(&self, answer: &Incoming<'_>) -> link::Result<Try<Arc<dyn OpenFile>>> {
        let (given, payload) = answer.read::<FileGiven>()?;
        if given.state == state::WOULD_BLOCK {
            return Ok(Try::WouldBlock);
        }
        let file = FileInTransit::get(&mut Reader(payload)).map_err(|_| bad(answer))?;
        let file = self.arrive_file(file, objects::from_wire(answer.from));
        file.map(Try::Done).map_err(|e| link::Error::new(e.errno(), e.why(), answer.from))
    }

    /// What a socket received, in a [`SocketData`].
    pub(crate) fn take_message(&self, answer: &Incoming<'_>) -> link::Result<Try<Received>> {
        let (data, payload) = answer.read::<SocketData>()?;
        let from = objects::from_wire(answer.from);
        let whole = self.pieces.whole(from, data.pieces, payload);
        if data.state == state::WOULD_BLOCK {
            return Ok(Try::WouldBlock);
        }
        let mut rest = Reader(&whole);
        let head = <Head as Body<_>>::get(&mut rest).map_err(|_| bad(answer))?;
        let files: Vec<Result<_>> = head.files.into_iter().map(|file| self.arrive_file(file, from)).collect();
        let files: Result<Vec<_>> = files.into_iter().collect();
        let files = files.map_err(|e| link::Error::new(e.errno(), e.why(), answer.from))?;
        Ok(Try::Done(Received {
            bytes: rest.0.len(),
            data: rest.0.to_vec(),
            length: head.said.length as usize,
            truncated: head.said.truncated,
            attached: Attached { files, from: head.from },
            name: head.name,
        }))
    }

    /// An address in an [`AddressIs`].
    pub(crate) fn take_address(&self, answer: &Incoming<'_>) -> link::Result<Try<Arc<dyn Address>>> {
        let (_, payload) = answer.read::<AddressIs>()?;
        let address: AddressInTransit = body(answer, payload)?;
        let address = self.arrive_address(address, objects::from_wire(answer.from));
        address.map(Try::Done).map_err(|e| link::Error::new(e.errno(), e.why(), answer.from))
    }

    /// An address that `via` sent arrives.
    ///
    /// # Errors
    /// `ESTALE`, `EHOSTDOWN`.
    pub(crate) fn arrive_address(&self, address: AddressInTransit, via: KernelId) -> Result<Arc<dyn Address>> {
        let known = Known { kind: address.kind, name: address.name };
        self.receive_address(address.object, address.home, via, known)
    }

    /// Makes an address ready to be sent to kernel `to`.
    pub(crate) fn send_address(
        &self,
        address: &Arc<dyn Address>,
        to: KernelId,
    ) -> TryResult<(AddressInTransit, Passed)> {
        let (kind, name) = (address.kind(), address.name());
        Ok(self
            .pass_address(address, to)?
            .map(move |passed| (AddressInTransit { object: passed.object, home: passed.home, kind, name }, passed)))
    }

    /// Makes what goes with a message ready for kernel `to`.
    pub(crate) fn send_head(
        &self,
        to: KernelId,
        attached: &Attached,
        name: Option<Name>,
        target: Option<&Arc<dyn Address>>,
        facts: Said,
    ) -> TryResult<(Head, Vec<Passed>)> {
        let files = attached.files.iter().map(|file| self.send_passed(file, to)).collect();
        let target = target.map(|address| self.send_address(address, to));
        let from = attached.from;
        all(files)?.and_then(move |files| {
            let (files, mut passed): (Vec<_>, Vec<_>) = files.into_iter().unzip();
            let head = move |to| Head { from, name, files, to, said: facts };
            match target {
                None => done((head(None), passed)),
                Some(target) => Ok(target?.map(move |(address, one)| {
                    passed.push(one);
                    (head(Some(address)), passed)
                })),
            }
        })
    }

    /// Sends a message to a socket, or (`deliver`) to what a name of one stands for.
    fn say(
        &self,
        (home, object, deliver): (KernelId, ObjectId, bool),
        attached: &Attached,
        name: Option<Name>,
        to: Option<&Arc<dyn Address>>,
        bytes: Vec<u8>,
    ) -> TryResult<usize> {
        let service = self.this().ok_or(Errno::EHOSTDOWN)?;
        let head = self.send_head(home, attached, name, to, Said::default())?;
        head.and_then(move |(head, passed)| {
            let mut payload = encode(&[&head]);
            payload.extend_from_slice(&bytes);
            let token = service.number();
            let (pieces, end) = send_ahead(&service.links, home, token, &payload, false).map_err(objects::error)?;
            let read = |answer: &Incoming<'_>| count(answer).map(|t| t.map(|n| n as usize));
            let tried = if deliver {
                service.ask_kernel(home, object, &AddressDeliver { pieces }, end, false, read).map_err(refused)
            } else {
                service.ask_kernel(home, object, &SocketSend { pieces }, end, false, read)
            };
            passed.into_iter().for_each(Passed::sent);
            tried
        })
    }
}

impl RemoteFile {
    fn make_do(&self, what: u8, arg: u64, name: &[u8]) -> TryResult<()> {
        self.service.ask(self.object(), &SocketDo { what, arg }, name, nothing)
    }
}

impl Socket for RemoteFile {
    fn kind(&self) -> Kind {
        self.socket_kind().unwrap_or(Kind::Stream)
    }

    fn facts(&self) -> TryResult<Facts> {
        self.service.ask(self.object(), &SocketFacts {}, &[], |answer| {
            let (_, payload) = answer.read::<SocketIs>()?;
            body(answer, payload).map(Try::Done)
        })
    }

    fn take_error(&self) -> TryResult<Option<Errno>> {
        let doing = SocketDo { what: what::ERROR, arg: 0 };
        let number = self.service.ask(self.object(), &doing, &[], count)?;
        Ok(number.map(|n| u16::try_from(n).ok().and_then(Errno::from_number)))
    }

    fn address(&self) -> TryResult<Arc<dyn Address>> {
        let service = self.service.clone();
        self.service.ask(self.object(), &SocketAddress {}, &[], move |answer| service.take_address(answer))
    }

    fn bound(&self, path: Vec<u8>) -> TryResult<()> {
        self.make_do(what::BOUND, 0, &path)
    }

    fn bind_abstract(&self, name: Option<Vec<u8>>) -> TryResult<()> {
        match name {
            Some(name) => self.make_do(what::BIND, 0, &name),
            None => self.make_do(what::BIND_ANY, 0, &[]),
        }
    }

    fn listen(&self, backlog: usize) -> TryResult<()> {
        self.make_do(what::LISTEN, backlog as u64, &[])
    }

    fn connect(&self, caller: &Caller, to: &Arc<dyn Address>) -> TryResult<()> {
        let Some(home) = self.service.home(self.object()) else { return Err(Errno::EHOSTDOWN.into()) };
        let (service, object, caller) = (self.service.clone(), self.object(), caller.clone());
        self.service.send_address(to, home)?.and_then(move |(address, passed)| {
            let payload = encode(&[&caller, &address]);
            let tried = service.ask_kernel(home, object, &SocketConnect {}, &payload, false, nothing);
            passed.sent();
            tried
        })
    }

    fn disconnect(&self) -> TryResult<()> {
        self.make_do(what::DISCONNECT, 0, &[])
    }

    fn accept(&self) -> TryResult<Arc<dyn OpenFile>> {
        let service = self.service.clone();
        self.service.ask(self.object(), &SocketAccept {}, &[], move |answer| service.take_given(answer))
    }

    fn shut_down(&self, receive: bool, send: bool) -> TryResult<()> {
        self.make_do(what::SHUT_DOWN, u64::from(receive) | u64::from(send) << 1, &[])
    }

    fn send(
        &self,
        source: &mut dyn Source,
        attached: &mut Attached,
        to: Option<&Arc<dyn Address>>,
    ) -> TryResult<usize> {
        let Some(home) = self.service.home(self.object()) else { return Err(Errno::EHOSTDOWN.into()) };
        let bytes = if Socket::kind(self) == Kind::Stream {
            let wanted = source.left().min(LONG);
            let mut bytes = alloc::vec![0; wanted];
            let taken = source.take(&mut bytes);
            bytes.truncate(taken);
            if taken == 0 && wanted > 0 { None } else { Some(bytes) }
        } else {
            packet(source)?
        };
        // Stalled: the caller brings the page in and comes again.
        let Some(bytes) = bytes else { return done(0) };
        self.service.say((home, self.object(), false), attached, None, to, bytes)
    }

    fn send_room(&self, to: Option<&Arc<dyn Address>>, waker: Arc<dyn Wake>) -> Subscription {
        match to {
            Some(to) => to.subscribe(Ready::OUT, waker),
            None => self.subscribe(Ready::OUT, waker),
        }
    }

    fn receive(&self, sink: &mut dyn Sink, peek: bool) -> TryResult<Received> {
        let length = sink.room().min(LONGEST_PACKET) as u32;
        let service = self.service.clone();
        let message = SocketReceive { length, peek: u8::from(peek) };
        self.service.ask(self.object(), &message, &[], move |answer| service.take_message(answer))
    }
}
