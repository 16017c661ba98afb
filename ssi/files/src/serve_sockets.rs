//! Serves the peers' messages about sockets and the names of sockets.

use alloc::{sync::Arc, vec::Vec};

use base::{Errno, Error, Result, TryResult, io::VecSink, wait::done};
use link::{AnswerTo, Incoming};
use objects::{
    codec::{Body, Coded as _, Reader},
    from_wire, object_from_wire, object_to_wire, to_wire,
};
use vfs::{
    Caller, OpenFile,
    socket::{Address, Client, Socket},
    unix::{Attached, UnixSocket},
};
use wire::{
    Message as _,
    files::{
        AddressConnect, AddressDeliver, AddressFind, AddressIs, FileGiven, NodeAddress, NodeBind, SocketAccept,
        SocketAddress, SocketConnect, SocketData, SocketDo, SocketFacts, SocketIs, SocketReceive, SocketSend, state,
    },
};

use crate::{
    codec::{AddressInTransit, Head, Said, encode, kind_number},
    handler::{FileHandler, refused},
    pieces::send_ahead,
    service::Lent,
    sockets::what,
};

/// More than any receiver has room for.
const MOST: usize = 256 << 10;

/// A message for a socket, put together.
struct Came {
    bytes: Vec<u8>,
    attached: Attached,
    head: Head,
    to: Option<Arc<dyn Address>>,
}

impl FileHandler {
    fn socket(&self, message: &Incoming<'_>) -> link::Result<Arc<dyn Socket>> {
        let not = link::Error::new(Errno::ENOTSOCK, "not a socket", message.from);
        self.file(message)?.socket().ok_or(not)
    }

    fn address(&self, message: &Incoming<'_>) -> link::Result<Arc<dyn Address>> {
        match self.find(object_from_wire(message.header.object), message.from)? {
            Lent::Address(address) => Ok(address),
            _ => Err(link::Error::new(Errno::EINVAL, "not an address", message.from)),
        }
    }

    /// Everything that came with a message is received first, whatever becomes of the message.
    fn said(&self, message: &Incoming<'_>, pieces: u64, payload: &[u8]) -> link::Result<Came> {
        let from = from_wire(message.from);
        let whole = self.0.pieces.whole(from, pieces, payload);
        let mut rest = Reader(&whole);
        let bad = |_| link::Error::new(Errno::EBADMSG, "the payload does not decode", message.from);
        let mut head = <Head as Body<_>>::get(&mut rest).map_err(bad)?;
        let files: Vec<_> =
            core::mem::take(&mut head.files).into_iter().map(|file| self.0.arrive_file(file, from)).collect();
        let to = head.to.take().map(|address| self.0.arrive_address(address, from));
        let wrong = |e| refused(e, message.from);
        let files = files.into_iter().collect::<Result<Vec<_>>>().map_err(wrong)?;
        let to = to.transpose().map_err(wrong)?;
        Ok(Came { bytes: rest.0.to_vec(), attached: Attached { files, from: head.from }, head, to })
    }

    fn give_address(&self, to: AnswerTo, tried: TryResult<Arc<dyn Address>>) {
        let service = self.0.clone();
        let tried = tried.and_then(|t| t.and_then(move |address| service.send_address(&address, from_wire(to.peer))));
        self.0.when(to, tried, move |service, result| match result {
            Ok((address, passed)) => {
                let is = AddressIs {
                    address: object_to_wire(address.object),
                    home: to_wire(address.home),
                    kind: kind_number(address.kind),
                };
                if service.links.answer(to, &is, &encode(&[&address])).is_ok() {
                    passed.sent();
                }
            }
            Err(error) => service.links.refuse(to, error.errno()),
        });
    }

    /// Answers with an open file, granted to the asker.
    fn give_file(&self, to: AnswerTo, tried: TryResult<Arc<dyn OpenFile>>) {
        let service = self.0.clone();
        let tried = tried.and_then(|t| t.and_then(move |file| service.send_passed(&file, from_wire(to.peer))));
        self.0.when(to, tried, move |service, result| match result {
            Ok((file, passed)) => {
                let given = FileGiven { state: state::DONE, file: object_to_wire(file.object) };
                if service.links.answer(to, &given, &file.to_bytes()).is_ok() {
                    passed.sent();
                }
            }
            Err(error) if error.errno() == Errno::EAGAIN => {
                let given = FileGiven { state: state::WOULD_BLOCK, file: wire::ObjectId::NONE };
                let _ = service.links.answer(to, &given, &[]);
            }
            Err(error) => service.links.refuse(to, error.errno()),
        });
    }

    fn receive_message(&self, to: AnswerTo, socket: &Arc<dyn Socket>, ask: &SocketReceive) {
        let holder = from_wire(to.peer);
        let mut sink = VecSink::new((ask.length as usize).min(MOST));
        let tried = socket.receive(&mut sink, ask.peek != 0);
        let service = self.0.clone();
        let tried = tried.and_then(|t| {
            t.and_then(move |mut received| {
                let bytes = if received.data.is_empty() { sink.bytes } else { core::mem::take(&mut received.data) };
                let said = Said { length: received.length as u64, truncated: received.truncated };
                let head = service.send_head(holder, &received.attached, received.name.take(), None, said)?;
                // What is on its way is kept until it is confirmed or its holder dies, so the open files may go.
                Ok(head.map(move |(head, passed)| (head, passed, bytes)))
            })
        });
        self.0.when(to, tried, move |service, result| {
            let answer = |state, pieces, end: &[u8]| service.links.answer(to, &SocketData { state, pieces }, end);
            let (head, passed, bytes) = match result {
                Ok(message) => message,
                Err(error) if error.errno() == Errno::EAGAIN => {
                    let _ = answer(state::WOULD_BLOCK, 0, &[]);
                    return;
                }
                Err(error) => return service.links.refuse(to, error.errno()),
            };
            let mut payload = encode(&[&head]);
            payload.extend_from_slice(&bytes);
            let sent = send_ahead(&service.links, holder, service.number(), &payload, true)
                .and_then(|(pieces, end)| answer(state::DONE, pieces, end));
            if sent.is_ok() {
                passed.into_iter().for_each(crate::references::Passed::sent);
            }
        });
    }

    fn make_do(&self, to: AnswerTo, socket: &Arc<dyn Socket>, ask: &SocketDo, name: &[u8]) {
        let tried = match ask.what {
            what::ERROR => {
                let tried = socket.take_error();
                let number = |e: Option<Errno>| u64::from(e.map_or(0, Errno::number));
                return self.count(to, tried.map(|t| t.map(number)));
            }
            what::BOUND => socket.bound(name.to_vec()),
            what::BIND => socket.bind_abstract(Some(name.to_vec())),
            what::BIND_ANY => socket.bind_abstract(None),
            what::LISTEN => socket.listen(usize::try_from(ask.arg).unwrap_or(usize::MAX)),
            what::DISCONNECT => socket.disconnect(),
            what::SHUT_DOWN => socket.shut_down(ask.arg & 1 != 0, ask.arg & 2 != 0),
            _ => Err(Error::new(Errno::EINVAL, "no such request")),
        };
        self.nothing(to, tried);
    }

    /// Serves a message about sockets; `false` if it is none.
    pub(crate) fn handle_socket(&self, message: &Incoming<'_>) -> link::Result<bool> {
        let (from, to) = (message.from, message.answer_to());
        macro_rules! is {
            ($t:ty) => {
                message.header.kind == <$t>::SPEC.number
            };
        }
        let bad = |_| link::Error::new(Errno::EBADMSG, "the payload does not decode", from);
        if is!(SocketSend) || is!(AddressDeliver) {
            let (pieces, payload) = if is!(SocketSend) {
                let (send, payload) = message.read::<SocketSend>()?;
                (send.pieces, payload)
            } else {
                let (send, payload) = message.read::<AddressDeliver>()?;
                (send.pieces, payload)
            };
            let mut said = self.said(message, pieces, payload)?;
            let mut bytes = said.bytes.as_slice();
            let tried = if is!(SocketSend) {
                self.socket(message)?.send(&mut bytes, &mut said.attached, said.to.as_ref())
            } else {
                self.address(message)?.deliver(&mut bytes, &mut said.attached, said.head.name)
            };
            self.count(to, tried.map(|t| t.map(|n| n as u64)));
        } else if is!(SocketReceive) {
            let (ask, _) = message.read::<SocketReceive>()?;
            self.receive_message(to, &self.socket(message)?, &ask);
        } else if is!(SocketFacts) {
            self.structure(to, self.socket(message)?.facts(), SocketIs {});
        } else if is!(SocketDo) {
            let (ask, name) = message.read::<SocketDo>()?;
            self.make_do(to, &self.socket(message)?, &ask, name);
        } else if is!(SocketAddress) {
            self.give_address(to, self.socket(message)?.address());
        } else if is!(SocketConnect) {
            let (_, payload) = message.read::<SocketConnect>()?;
            let mut rest = Reader(payload);
            let caller = <Caller as Body<_>>::get(&mut rest).map_err(bad)?;
            let address = <AddressInTransit as Body<_>>::get(&mut rest).map_err(bad)?;
            let address = self.0.arrive_address(address, from_wire(from)).map_err(|e| refused(e, from))?;
            self.nothing(to, self.socket(message)?.connect(&caller, &address));
        } else if is!(SocketAccept) {
            self.give_file(to, self.socket(message)?.accept());
        } else if is!(AddressConnect) {
            let (_, payload) = message.read::<AddressConnect>()?;
            let client = <Client as Body<_>>::get(&mut Reader(payload)).map_err(bad)?;
            self.give_file(to, self.address(message)?.connect(&client));
        } else if is!(AddressFind) {
            let (_, name) = message.read::<AddressFind>()?;
            let vfs = self.0.vfs().map_err(|e| refused(e, from))?;
            let found = UnixSocket::find_here(vfs, name).ok_or(Error::new(Errno::ECONNREFUSED, "nobody is bound"));
            self.give_address(to, found.and_then(|address| done(address as _)));
        } else if is!(NodeBind) {
            let (_, payload) = message.read::<NodeBind>()?;
            let mut rest = Reader(payload);
            let caller = <Caller as Body<_>>::get(&mut rest).map_err(bad)?;
            let address = <AddressInTransit as Body<_>>::get(&mut rest).map_err(bad)?;
            let address = self.0.arrive_address(address, from_wire(from)).map_err(|e| refused(e, from))?;
            self.nothing(to, self.node(message)?.bind_socket(&caller, &address));
        } else if is!(NodeAddress) {
            let (_, payload) = message.read::<NodeAddress>()?;
            let caller = <Caller as Body<_>>::get(&mut Reader(payload)).map_err(bad)?;
            self.give_address(to, self.node(message)?.socket_address(&caller));
        } else {
            return Ok(false);
        }
        Ok(true)
    }
}
