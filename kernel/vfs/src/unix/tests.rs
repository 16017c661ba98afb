use std::{sync::Arc, vec::Vec};

use base::{Errno, Ready, Try, io::VecSink};

use super::{Attached, Kind, UnixSocket};
use crate::{Caller, LocalFile, OpenFile, Status, pipe::Pipe, socket::Socket, testing::with_tree};

fn send(file: &LocalFile, bytes: &[u8]) -> base::Result<usize> {
    match file.write(&Caller::kernel(), &mut &*bytes)? {
        Try::Done(n) => Ok(n),
        _ => Err(Errno::EAGAIN.into()),
    }
}

fn receive(file: &LocalFile, room: usize) -> base::Result<Vec<u8>> {
    let mut sink = VecSink::new(room);
    match file.read(&Caller::kernel(), &mut sink)? {
        Try::Done(_) => Ok(sink.bytes),
        _ => Err(Errno::EAGAIN.into()),
    }
}

fn poll(file: &LocalFile) -> Ready {
    match file.poll(&Caller::kernel()) {
        Ok(Try::Done(ready)) => ready,
        _ => panic!("a local socket waits"),
    }
}

#[test]
fn streams_have_no_borders_and_packets_do() {
    with_tree(|vfs| {
        let caller = Caller::kernel();
        let [a, b] = UnixSocket::pair(vfs, &caller, Kind::Stream, Status::empty());
        assert_eq!(receive(&b, 10).unwrap_err(), Errno::EAGAIN);
        send(&a, b"one").expect("room");
        send(&a, b"two").expect("room");
        assert_eq!(receive(&b, 4).expect("there"), b"onet");
        assert_eq!(receive(&b, 10).expect("there"), b"wo");
        let [a, b] = UnixSocket::pair(vfs, &caller, Kind::Packets, Status::empty());
        send(&a, b"one").expect("room");
        send(&a, b"two").expect("room");
        assert_eq!(receive(&b, 2).expect("there"), b"on");
        assert_eq!(receive(&b, 10).expect("there"), b"two");
        drop(a);
        assert_eq!(receive(&b, 10).expect("the end"), b"");
        assert_eq!(send(&b, b"x").unwrap_err(), Errno::EPIPE);
        assert!(poll(&b).contains(Ready::IN | Ready::HUP | Ready::RDHUP));
    });
}

#[test]
fn a_listener_is_found_by_name_and_accepts() {
    with_tree(|vfs| {
        let caller = Caller { pid: 7, ..Caller::kernel() };
        let listener = UnixSocket::open(vfs, &caller, Kind::Stream, Status::empty());
        let l = UnixSocket::of(&listener).expect("a socket");
        assert_eq!(l.listen(1).unwrap_err(), Errno::EINVAL);
        assert!(matches!(l.bind_abstract(b"name".to_vec()), Ok(Try::Done(()))));
        l.listen(1).expect("bound");
        let client = UnixSocket::open(vfs, &caller, Kind::Stream, Status::empty());
        let c = UnixSocket::of(&client).expect("a socket");
        let Ok(Try::Done(target)) = UnixSocket::find_abstract(vfs, b"name") else { panic!("bound") };
        assert!(matches!(Socket::connect(&*c, &caller, &target), Ok(Try::Done(()))));
        assert!(poll(&listener).contains(Ready::IN));
        send(&client, b"early").expect("before accept");
        let Ok(Try::Done(server)) = l.accept() else { panic!("somebody connected") };
        assert_eq!(receive(&server, 10).expect("there"), b"early");
        send(&server, b"hello").expect("connected");
        assert_eq!(receive(&client, 10).expect("there"), b"hello");
        assert_eq!(c.facts().peer.pid, 7);
        drop((listener, l, target));
        assert_eq!(UnixSocket::find_abstract(vfs, b"name").err().expect("gone"), Errno::ECONNREFUSED);
    });
}

#[test]
fn descriptors_travel_with_their_bytes() {
    with_tree(|vfs| {
        let caller = Caller::kernel();
        let [a, b] = UnixSocket::pair(vfs, &caller, Kind::Stream, Status::empty());
        let (reader, writer) = Pipe::pair(vfs, &caller, Status::empty());
        let (a, b) = (UnixSocket::of(&a).expect("socket"), (UnixSocket::of(&b).expect("socket"), a, b));
        send(&b.1, b"before").expect("room");
        let mut attached = Attached { files: [writer].into(), ..Attached::default() };
        assert!(a.send(&mut &b"with"[..], &mut attached, None).is_ok());
        let mut sink = VecSink::new(100);
        let Ok(Try::Done(first)) = b.0.receive(&mut sink, false) else { panic!("there") };
        assert_eq!((sink.bytes.as_slice(), first.attached.files.len()), (&b"before"[..], 0));
        let mut sink = VecSink::new(100);
        let Ok(Try::Done(second)) = b.0.receive(&mut sink, false) else { panic!("there") };
        assert_eq!((sink.bytes.as_slice(), second.attached.files.len()), (&b"with"[..], 1));
        let writer: Arc<dyn OpenFile> = second.attached.files[0].clone();
        drop(second);
        assert!(matches!(writer.write(&caller, &mut &b"x"[..]), Ok(Try::Done(1))));
        drop(writer);
        let mut sink = VecSink::new(10);
        assert!(reader.read(&caller, &mut sink).is_ok());
        assert_eq!(sink.bytes, b"x");
        let mut sink = VecSink::new(10);
        assert!(matches!(reader.read(&caller, &mut sink), Ok(Try::Done(_))), "the last writer is gone");
    });
}

#[test]
fn a_connection_from_elsewhere_is_made_at_the_listener() {
    with_tree(|vfs| {
        let caller = Caller { pid: 7, ..Caller::kernel() };
        let listener = UnixSocket::open(vfs, &caller, Kind::Stream, Status::empty());
        let l = UnixSocket::of(&listener).expect("a socket");
        assert!(matches!(l.bind_abstract(b"far".to_vec()), Ok(Try::Done(()))));
        l.listen(1).expect("bound");
        let Ok(Try::Done(target)) = UnixSocket::find_abstract(vfs, b"far") else { panic!("bound") };
        let credentials = super::Credentials { pid: 9, uid: 1, gid: 2 };
        let client = crate::socket::Client { kind: Kind::Stream, name: None, credentials };
        let other = crate::socket::Client { kind: Kind::Packets, ..client.clone() };
        assert_eq!(target.connect(&other).err().expect("another type"), Errno::EPROTOTYPE);
        let Ok(Try::Done(end)) = target.connect(&client) else { panic!("it listens") };
        let Ok(Try::Done(server)) = l.accept() else { panic!("somebody connected") };
        assert_eq!(UnixSocket::of(&server).expect("a socket").facts().peer.pid, 9);
        // The socket that connected shows what the far end does.
        let near = UnixSocket::open(vfs, &caller, Kind::Stream, Status::empty());
        near.go_elsewhere(end);
        send(&server, b"hello").expect("connected");
        assert!(poll(&near).contains(Ready::IN));
        let mut sink = VecSink::new(10);
        let socket = near.socket().expect("a socket");
        assert!(matches!(socket.receive(&mut sink, false), Ok(Try::Done(_))));
        assert_eq!(sink.bytes, b"hello");
        drop((near, socket));
        assert_eq!(send(&server, b"x").unwrap_err(), Errno::EPIPE);
        drop((l, listener, server));
        assert_eq!(target.connect(&client).err().expect("closed"), Errno::ECONNREFUSED);
    });
}
