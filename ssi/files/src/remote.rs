//! Files and inodes of other kernels, as this kernel's programs hold them.

use alloc::{collections::VecDeque, string::String, sync::Arc, vec::Vec};
use core::{
    any::Any,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
};

use base::{
    Errno, Error, KernelId, ObjectId, Ready, Result, Subscription, TryResult, Wake,
    io::{Sink, Source},
    wait::{Try, done},
};
use link::{Incoming, lock::Lock};
use mm::MemoryObject;
use objects::{
    codec::{Body, Reader},
    from_wire, object_to_wire,
};
use vfs::{
    Access, Caller, DirSink, Entry, FileKind, Inode, Ioctl, IoctlReply, NewNode, OpenFile, OpenFlags, Place, ReadOut,
    RenameFlags, SeekFrom, SetAttr, Stat, StatFs, Status, Vfs, lock::Change, socket::Address, unix::Kind,
};
use wire::files::{
    DirEntries, FileAllocate, FileArrived, FileCount, FileData, FileFlush, FileIoctl, FileIoctlDone, FileLock,
    FileLockTest, FileNode, FilePoll, FileRead, FileReadDir, FileSeek, FileSetStatus, FileSync, FileWrite, LinkIs,
    LockIs, NodeAccess, NodeAddress, NodeBind, NodeCreate, NodeCreateUnnamed, NodeLink, NodeLookup, NodeOpen,
    NodeReadLink, NodeRename, NodeUnlink, StatFsIs, StatIs, offset, state,
};

use crate::{
    codec::{Answer, Bytes, Files, encode},
    memory::RemoteMemory,
    pieces::send_ahead,
    service::{CHUNK, FileService, LONG},
};

/// What the holder of an open file knows without asking.
#[derive(Clone)]
pub struct Opened {
    /// How it was opened.
    pub flags: OpenFlags,
    /// Its status when it was sent.
    pub status: Status,
    /// Bit 0: epoll can watch it; bit 1: it can be mapped; bit 2: the archive has the same; bits 3 and 4: as a socket 1 streams, 2 datagrams, 3 packets.
    pub able: u8,
    /// What it is.
    pub kind: FileKind,
    /// The name of its inode: which pipe it is an end of.
    pub inode: Option<ObjectId>,
    /// Where it was found.
    pub place: Option<Place>,
    /// What this kernel has under the same name.
    pub base: Option<Arc<dyn Inode>>,
    /// What `/proc/PID/fd` shows.
    pub describe: Vec<u8>,
}

/// Bit 0 of `able`.
pub(crate) const ABLE_EPOLL: u8 = 1;
/// Bit 1 of `able`.
pub(crate) const ABLE_MAP: u8 = 2;

/// Bit 2 of `able`: the archive has the same.
pub(crate) const ABLE_BASE: u8 = 4;
/// Bits 3 and 4 of `able`.
pub(crate) const SOCKET_SHIFT: u32 = 3;

/// The bits of `able` of a socket.
pub(crate) const fn socket_bits(kind: Kind) -> u8 {
    (match kind {
        Kind::Stream => 1_u8,
        Kind::Datagram => 2,
        Kind::Packets => 3,
    }) << SOCKET_SHIFT
}

/// An open file whose home is another kernel.
pub struct RemoteFile {
    pub(crate) service: Arc<FileService>,
    object: ObjectId,
    opened: Opened,
    status: AtomicU32,
    directory: Arc<Lock<DirBuffer>>,
    /// How many bytes a write tries: as many as were taken last time, and twice as many when all were.
    window: Arc<AtomicUsize>,
}

/// Entries that came and were not yet handed out.
#[derive(Default)]
struct DirBuffer {
    entries: VecDeque<Entry>,
    ended: bool,
}

pub(crate) fn bad(answer: &Incoming<'_>) -> link::Error {
    link::Error::new(Errno::EBADMSG, "the answer does not decode", answer.from)
}

fn body<T: Body<Files>>(answer: &Incoming<'_>, payload: &[u8]) -> link::Result<T> {
    T::get(&mut Reader(payload)).map_err(|_| bad(answer))
}

pub(crate) fn count(answer: &Incoming<'_>) -> link::Result<Try<u64>> {
    let (answer, _) = answer.read::<FileCount>()?;
    Ok(if answer.state == state::WOULD_BLOCK { Try::WouldBlock } else { Try::Done(answer.count) })
}

pub(crate) fn nothing(answer: &Incoming<'_>) -> link::Result<Try<()>> {
    count(answer).map(|t| t.map(|_| ()))
}

fn stat_of(answer: &Incoming<'_>) -> link::Result<Try<Stat>> {
    let (_, payload) = answer.read::<StatIs>()?;
    body(answer, payload).map(Try::Done)
}

fn stat_fs_of(answer: &Incoming<'_>) -> link::Result<Try<StatFs>> {
    let (_, payload) = answer.read::<StatFsIs>()?;
    body(answer, payload).map(Try::Done)
}

impl RemoteFile {
    pub(crate) fn new(service: Arc<FileService>, object: ObjectId, opened: Opened) -> Self {
        let status = AtomicU32::new(opened.status.bits());
        let window = Arc::new(AtomicUsize::new(LONG));
        Self { service, object, opened, status, directory: Arc::new(Lock::new(DirBuffer::default())), window }
    }

    /// Its name in the machine.
    pub const fn object(&self) -> ObjectId {
        self.object
    }

    /// What a further holder may know.
    pub fn opened(&self) -> Opened {
        let describe = self.describe().into_bytes();
        Opened { status: self.status(), describe, place: None, base: None, ..self.opened.clone() }
    }

    /// How it sends, if it is a socket.
    pub(crate) fn socket_kind(&self) -> Option<Kind> {
        let kinds = [Kind::Stream, Kind::Datagram, Kind::Packets];
        kinds.into_iter().find(|kind| self.opened.able & 3 << SOCKET_SHIFT == socket_bits(*kind))
    }

    fn read_from(&self, caller: &Caller, offset: u64, sink: &mut dyn Sink) -> TryResult<ReadOut> {
        let length = sink.room().min(LONG);
        // A file gives what it has; a stream gives what is there, and may be asked again only if that was all it was asked for.
        let whole = matches!(self.opened.kind, FileKind::Regular | FileKind::Block) && sink.room() > LONG;
        let service = self.service.clone();
        self.service.ask(self.object, &FileRead { length: length as u32, offset }, &encode(&[caller]), move |answer| {
            let (data, end) = answer.read::<FileData>()?;
            let bytes = service.pieces.whole(from_wire(answer.from), data.pieces, end);
            Ok(match data.state {
                state::WOULD_BLOCK => Try::WouldBlock,
                _ if whole && bytes.len() == length => Try::Done(ReadOut::Part(bytes)),
                _ => Try::Done(ReadOut::Bytes(bytes)),
            })
        })
    }

    fn write_to(&self, caller: &Caller, offset: u64, source: &mut dyn Source) -> TryResult<usize> {
        let Some(home) = self.service.home(self.object) else {
            return Err(Error::new(Errno::EHOSTDOWN, "the kernel that had it is down"));
        };
        let mut payload = encode(&[caller]);
        let head = payload.len();
        // Packets go as one, and what a pipe takes at once is not cut.
        let most = match self.socket_kind() {
            None | Some(Kind::Stream) => self.window.load(Ordering::Relaxed).max(CHUNK),
            Some(_) => source.left(),
        };
        let wanted = source.left().min(most);
        if self.socket_kind().is_some_and(|kind| kind != Kind::Stream) && !source.can_take(wanted) {
            return done(0);
        }
        payload.resize(head + wanted, 0);
        let taken = source.take(payload.get_mut(head..).unwrap_or_default());
        if taken == 0 && wanted > 0 {
            // Stalled: the caller brings the page in and comes again.
            return done(0);
        }
        payload.truncate(head + taken);
        let token = self.service.number();
        let ahead = send_ahead(&self.service.links, home, token, &payload, false);
        let (pieces, end) = ahead.map_err(objects::error)?;
        let message = FileWrite { offset, caller: head as u32, pieces };
        let window = self.window.clone();
        self.service.ask_kernel(home, self.object, &message, end, false, move |answer| {
            let used = count(answer)?;
            let used = used.map(|n| n as usize);
            if let Try::Done(n) = used {
                window.store(if n == taken { (most * 2).min(LONG) } else { n.max(CHUNK) }, Ordering::Relaxed);
            } else {
                window.store(CHUNK, Ordering::Relaxed);
            }
            Ok(used)
        })
    }
}

impl Drop for RemoteFile {
    fn drop(&mut self) {
        self.service.let_go(self.object);
    }
}

impl OpenFile for RemoteFile {
    fn id(&self) -> ObjectId {
        self.object
    }

    fn flags(&self) -> OpenFlags {
        self.opened.flags
    }

    fn status(&self) -> Status {
        Status::from_bits_truncate(self.status.load(Ordering::Relaxed))
    }

    fn set_status(&self, status: Status) -> TryResult<()> {
        self.status.store(status.bits(), Ordering::Relaxed);
        self.service.ask(self.object, &FileSetStatus { status: status.bits() }, &[], nothing)
    }

    fn read(&self, caller: &Caller, sink: &mut dyn Sink) -> TryResult<ReadOut> {
        self.read_from(caller, offset::CURRENT, sink)
    }

    fn read_at(&self, caller: &Caller, offset: u64, sink: &mut dyn Sink) -> TryResult<ReadOut> {
        self.read_from(caller, offset, sink)
    }

    fn write(&self, caller: &Caller, source: &mut dyn Source) -> TryResult<usize> {
        self.write_to(caller, offset::CURRENT, source)
    }

    fn write_at(&self, caller: &Caller, offset: u64, source: &mut dyn Source) -> TryResult<usize> {
        self.write_to(caller, offset, source)
    }

    fn peek(&self, sink: &mut dyn Sink) -> TryResult<ReadOut> {
        self.read_from(&Caller::kernel(), offset::PEEK, sink)
    }

    fn append(&self, caller: &Caller, moves: bool, source: &mut dyn Source) -> TryResult<usize> {
        self.write_to(caller, if moves { offset::END_MOVES } else { offset::END }, source)
    }

    fn seek(&self, to: SeekFrom) -> TryResult<u64> {
        *self.directory.lock() = DirBuffer::default();
        let (whence, offset) = match to {
            SeekFrom::Start(n) => (0, n as i64),
            SeekFrom::Current(n) => (1, n),
            SeekFrom::End(n) => (2, n),
            SeekFrom::Data(n) => (3, n as i64),
            SeekFrom::Hole(n) => (4, n as i64),
        };
        self.service.ask(self.object, &FileSeek { whence, offset }, &[], count)
    }

    fn poll(&self, caller: &Caller) -> TryResult<Ready> {
        if self.service.is_dead(self.object) {
            return done(Ready::ERR | Ready::HUP);
        }
        self.service.ask(self.object, &FilePoll {}, &encode(&[caller]), |answer| {
            count(answer).map(|t| t.map(|bits| Ready::from_bits_truncate(bits as u32)))
        })
    }

    fn subscribe(&self, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        self.service.subscribe(self.object, mask, None, waker)
    }

    fn can_epoll(&self) -> bool {
        self.opened.able & ABLE_EPOLL != 0
    }

    fn ioctl(&self, caller: &Caller, request: Ioctl) -> TryResult<IoctlReply> {
        if let Ioctl::PtyPeer(..) = request {
            // The new file would need a place in this kernel's tree.
            return Err(Error::new(Errno::EOPNOTSUPP, "open the pty by its name"));
        }
        self.service.ask(self.object, &FileIoctl {}, &encode(&[caller, &request]), |answer| {
            let (ended, payload) = answer.read::<FileIoctlDone>()?;
            if ended.state == state::WOULD_BLOCK {
                return Ok(Try::WouldBlock);
            }
            Ok(Try::Done(match body::<Answer>(answer, payload)? {
                Answer::Done => IoctlReply::Done,
                Answer::Number(n) => IoctlReply::Number(n),
                Answer::Termios(t) => IoctlReply::Termios(t),
                Answer::Window(w) => IoctlReply::Window(w),
            }))
        })
    }

    fn stat(&self) -> TryResult<Stat> {
        self.service.ask(self.object, &wire::files::Stat {}, &[], stat_of)
    }

    fn set_attr(&self, caller: &Caller, change: SetAttr) -> TryResult<()> {
        self.service.ask(self.object, &wire::files::SetAttr {}, &encode(&[caller, &change]), nothing)
    }

    fn stat_fs(&self) -> TryResult<StatFs> {
        self.service.ask(self.object, &wire::files::StatFs {}, &[], stat_fs_of)
    }

    fn allocate(&self, caller: &Caller, mode: u32, offset: u64, length: u64) -> TryResult<()> {
        self.service.ask(self.object, &FileAllocate { mode, offset, length }, &encode(&[caller]), nothing)
    }

    fn sync(&self) -> TryResult<()> {
        self.service.ask(self.object, &FileSync {}, &[], nothing)
    }

    fn read_dir(&self, sink: &mut dyn DirSink) -> TryResult<usize> {
        // Entries cannot wait in an op for a sink that is gone by then: an answer fills the buffer, and the next call empties it.
        let mut buffer = self.directory.lock();
        let mut taken = 0;
        while let Some(entry) = buffer.entries.front() {
            if !sink.put(&entry.name, entry.inode, entry.kind, entry.next) {
                let none = taken == 0;
                return if none { Err(Errno::EINVAL.into()) } else { done(taken) };
            }
            buffer.entries.pop_front();
            taken += 1;
        }
        if taken > 0 || core::mem::take(&mut buffer.ended) {
            return done(taken);
        }
        drop(buffer);
        let buffer = self.directory.clone();
        self.service.ask(self.object, &FileReadDir { room: CHUNK as u32 }, &[], move |answer| {
            let (_, payload) = answer.read::<DirEntries>()?;
            let mut from = Reader(payload);
            let mut entries = VecDeque::new();
            while !from.0.is_empty() {
                entries.push_back(<Entry as Body<Files>>::get(&mut from).map_err(|_| bad(answer))?);
            }
            let mut buffer = buffer.lock();
            buffer.ended = entries.is_empty();
            buffer.entries.extend(entries);
            Ok(Try::Done(0))
        })
    }

    fn place(&self) -> Option<Place> {
        self.opened.place.clone()
    }

    fn kind(&self) -> Option<FileKind> {
        Some(self.opened.kind)
    }

    fn inode_id(&self) -> Option<ObjectId> {
        self.opened.inode.or_else(|| Some(self.opened.place.as_ref()?.inode().id()))
    }

    fn inode(&self) -> Option<Arc<dyn Inode>> {
        self.opened.place.as_ref().map(|place| place.inode().clone())
    }

    fn memory(&self) -> Result<Arc<dyn MemoryObject>> {
        if self.opened.able & ABLE_MAP == 0 {
            return Err(Errno::ENODEV.into());
        }
        // A program of the base tree is executed from this kernel's own copy: not a byte is fetched.
        if self.opened.able & ABLE_BASE != 0
            && let Some(memory) = self.opened.base.as_ref().and_then(|base| base_content(base))
        {
            return Ok(memory);
        }
        let me = self.service.proxy(self.object).ok_or(Error::new(Errno::ENODEV, "the file is being closed"))?;
        Ok(RemoteMemory::make(&self.service, me))
    }

    fn share(&self, writable: bool) -> TryResult<Arc<dyn MemoryObject>> {
        if self.opened.able & ABLE_MAP == 0 {
            return Err(Errno::ENODEV.into());
        }
        self.service.share(self.object, writable)
    }

    fn describe(&self) -> String {
        match &self.opened.place {
            Some(place) => place.describe(),
            None => String::from_utf8_lossy(&self.opened.describe).into_owned(),
        }
    }

    fn find_place(&self) -> TryResult<Option<Place>> {
        if let Some(place) = &self.opened.place {
            return done(Some(place.clone()));
        }
        let (service, label) = (self.service.clone(), self.opened.describe.clone());
        self.service.ask(self.object, &FileNode {}, &[], move |answer| {
            let node = service.take_node(answer, |_| None)?;
            let vfs = service.vfs().map_err(|e| link::Error::new(e.errno(), e.why(), answer.from))?;
            Ok(Try::Done(Some(vfs.anonymous(node, &label))))
        })
    }

    fn lock(&self, _: &Arc<Vfs>, change: Change) -> TryResult<()> {
        let (what, lock) = match change {
            Change::Take(lock) => (0, lock),
            Change::TakeInTime(lock) => (1, lock),
            Change::Give(lock) => (2, lock),
        };
        self.service.ask(self.object, &FileLock { what }, &encode(&[&lock]), nothing)
    }

    fn lock_conflict(&self, _: &Arc<Vfs>, wanted: &vfs::lock::Lock) -> TryResult<Option<vfs::lock::Lock>> {
        self.service.ask(self.object, &FileLockTest {}, &encode(&[wanted]), |answer| {
            let (_, payload) = answer.read::<LockIs>()?;
            Ok(Try::Done(if payload.is_empty() { None } else { Some(body(answer, payload)?) }))
        })
    }

    fn lock_wait(&self, _: &Arc<Vfs>, wanted: &vfs::lock::Lock, waker: Arc<dyn Wake>) -> Subscription {
        self.service.subscribe(self.object, Ready::IN, Some(*wanted), waker)
    }

    fn arrived(&self, caller: &Caller, _: KernelId) {
        if self.opened.kind == FileKind::Regular {
            self.service.tell(self.object, &FileArrived {}, &encode(&[caller]));
        }
    }

    fn socket(&self) -> Option<Arc<dyn vfs::socket::Socket>> {
        self.socket_kind()?;
        self.service.proxy(self.object).map(|me| me as _)
    }

    fn flush(&self, _: &Arc<Vfs>, caller: &Caller) {
        // Only what has bytes can have record locks on them.
        if self.opened.kind == FileKind::Regular {
            self.service.tell(self.object, &FileFlush {}, &encode(&[caller]));
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An inode whose home is another kernel.
pub struct RemoteInode {
    service: Arc<FileService>,
    object: ObjectId,
    kind: FileKind,
    /// What this kernel has under the same name: the replica of the base tree, which stays when the home dies.
    base: Option<Arc<dyn Inode>>,
}

impl RemoteInode {
    pub(crate) const fn new(
        service: Arc<FileService>,
        object: ObjectId,
        kind: FileKind,
        base: Option<Arc<dyn Inode>>,
    ) -> Self {
        Self { service, object, kind, base }
    }

    /// The replica, if the home is dead and there is one. It is only read: what is written belongs into the tree of the machine, whose next home
    /// this kernel need not be.
    fn replica(&self) -> Option<&Arc<dyn Inode>> {
        self.base.as_ref().filter(|_| self.service.is_dead(self.object))
    }

    fn node<M: wire::Request>(&self, message: &M, payload: &[u8], name: &[u8]) -> TryResult<Arc<dyn Inode>> {
        let service = self.service.clone();
        let child = self.base.as_ref().and_then(|base| match base.lookup(&Caller::kernel(), name) {
            Ok(Try::Done(child)) => Some(child),
            _ => None,
        });
        self.service.ask(self.object, message, payload, move |answer| {
            let same = |stat: &Stat| {
                child.filter(|child| match child.stat() {
                    Ok(Try::Done(own)) => own.kind == stat.kind && own.inode == stat.inode,
                    _ => false,
                })
            };
            service.take_node(answer, same).map(Try::Done)
        })
    }
}

impl Drop for RemoteInode {
    fn drop(&mut self) {
        self.service.let_go(self.object);
    }
}

/// The content of this kernel's copy of a file of the archive.
fn base_content(base: &Arc<dyn Inode>) -> Option<Arc<dyn MemoryObject>> {
    base.as_any().downcast_ref::<vfs::tmpfs::TmpInode>().filter(|inode| inode.is_base())?.content()
}

/// The name of an inode that must be of the same home as the one that is asked.
fn same_home(other: &Arc<dyn Inode>) -> Result<ObjectId> {
    let remote = other.as_any().downcast_ref::<RemoteInode>();
    remote.map(|inode| inode.object).ok_or(Error::new(Errno::EXDEV, "not of the same file system"))
}

fn name_of(name: &[u8]) -> Bytes {
    Bytes(name.to_vec())
}

impl Inode for RemoteInode {
    fn id(&self) -> ObjectId {
        self.object
    }

    fn kind(&self) -> FileKind {
        self.kind
    }

    fn stat(&self) -> TryResult<Stat> {
        if let Some(replica) = self.replica() {
            return replica.stat();
        }
        self.service.ask(self.object, &wire::files::Stat {}, &[], stat_of)
    }

    fn set_attr(&self, caller: &Caller, change: SetAttr) -> TryResult<()> {
        self.service.ask(self.object, &wire::files::SetAttr {}, &encode(&[caller, &change]), nothing)
    }

    fn access(&self, caller: &Caller, access: Access) -> TryResult<()> {
        if let Some(replica) = self.replica() {
            return replica.access(caller, access);
        }
        self.service.ask(self.object, &NodeAccess { access: access.bits() }, &encode(&[caller]), nothing)
    }

    fn lookup(&self, caller: &Caller, name: &[u8]) -> TryResult<Arc<dyn Inode>> {
        if let Some(replica) = self.replica() {
            return replica.lookup(caller, name);
        }
        self.node(&NodeLookup {}, &encode(&[caller, &name_of(name)]), name)
    }

    fn create(&self, caller: &Caller, name: &[u8], node: NewNode, mode: u32) -> TryResult<Arc<dyn Inode>> {
        self.node(&NodeCreate { mode }, &encode(&[caller, &name_of(name), &node]), name)
    }

    fn create_unnamed(&self, caller: &Caller, mode: u32) -> TryResult<Arc<dyn Inode>> {
        self.node(&NodeCreateUnnamed { mode }, &encode(&[caller]), b"")
    }

    fn link(&self, caller: &Caller, name: &[u8], target: &Arc<dyn Inode>) -> TryResult<()> {
        let message = NodeLink { target: object_to_wire(same_home(target)?) };
        self.service.ask(self.object, &message, &encode(&[caller, &name_of(name)]), nothing)
    }

    fn unlink(&self, caller: &Caller, name: &[u8], directory: bool) -> TryResult<()> {
        let message = NodeUnlink { directory: u8::from(directory) };
        self.service.ask(self.object, &message, &encode(&[caller, &name_of(name)]), nothing)
    }

    fn rename(
        &self,
        caller: &Caller,
        name: &[u8],
        to: &Arc<dyn Inode>,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> TryResult<()> {
        let message = NodeRename { to: object_to_wire(same_home(to)?), flags: flags.bits() };
        self.service.ask(self.object, &message, &encode(&[caller, &name_of(name), &name_of(new_name)]), nothing)
    }

    fn read_link(&self, caller: &Caller) -> TryResult<Vec<u8>> {
        if let Some(replica) = self.replica() {
            return replica.read_link(caller);
        }
        self.service.ask(self.object, &NodeReadLink {}, &encode(&[caller]), |answer| {
            let (_, target) = answer.read::<LinkIs>()?;
            Ok(Try::Done(target.to_vec()))
        })
    }

    fn open(
        self: Arc<Self>,
        caller: &Caller,
        flags: OpenFlags,
        status: Status,
        place: Place,
    ) -> TryResult<Arc<dyn OpenFile>> {
        if let Some(replica) = self.replica().filter(|_| !flags.intersects(OpenFlags::WRITE | OpenFlags::TRUNCATE)) {
            return replica.clone().open(caller, flags, status, place);
        }
        // Who watches the directory is told of the file by its name there.
        let directory = place.node.parent().and_then(|parent| same_home(parent.inode()).ok());
        let parent = directory.map_or(wire::ObjectId::NONE, object_to_wire);
        let name = Bytes(if directory.is_some() { place.node.name().to_vec() } else { Vec::new() });
        let message = NodeOpen { flags: flags.bits(), status: status.bits(), parent };
        let service = self.service.clone();
        let base = self.base.clone();
        // A FIFO opens when somebody opens its other end.
        let long = self.kind == FileKind::Fifo;
        self.service.ask_long(self.object, &message, &encode(&[caller, &name]), long, move |answer| {
            service.take_file(answer, flags, status, Some(place), base).map(Try::Done)
        })
    }

    fn bind_socket(&self, caller: &Caller, address: &Arc<dyn Address>) -> TryResult<()> {
        let home =
            self.service.home(self.object).ok_or(Error::new(Errno::EHOSTDOWN, "the directory's kernel is down"))?;
        let (service, object, caller) = (self.service.clone(), self.object, caller.clone());
        self.service.send_address(address, home)?.and_then(move |(address, passed)| {
            let payload = encode(&[&caller, &address]);
            let tried = service.ask_kernel(home, object, &NodeBind {}, &payload, false, nothing);
            passed.sent();
            tried
        })
    }

    fn socket_address(&self, caller: &Caller) -> TryResult<Arc<dyn Address>> {
        if let Some(replica) = self.replica() {
            return replica.socket_address(caller);
        }
        let service = self.service.clone();
        self.service.ask(self.object, &NodeAddress {}, &encode(&[caller]), move |answer| service.take_address(answer))
    }

    fn stat_fs(&self) -> TryResult<StatFs> {
        if let Some(replica) = self.replica() {
            return replica.stat_fs();
        }
        self.service.ask(self.object, &wire::files::StatFs {}, &[], stat_fs_of)
    }

    fn teller(&self) -> Result<Option<KernelId>> {
        let down = Error::new(Errno::EHOSTDOWN, "the kernel that had it is down");
        self.service.home(self.object).ok_or(down).map(Some)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
