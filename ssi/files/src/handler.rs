//! Serves the peers' messages of the families `files` and `generic` from this kernel.

use alloc::{sync::Arc, vec::Vec};

use base::{Errno, Error, ObjectId, Ready, Result, TryResult, io::VecSink, wait::done};
use hal::addr::PAGE_SIZE;
use link::{AnswerTo, Handler, Incoming, Links};
use objects::{
    Refusal,
    codec::{Body, Reader},
    from_wire, object_from_wire, object_to_wire,
};
use vfs::{
    Access, Caller, DirSink, Entry, FileKind, Inode, Ioctl, IoctlReply, NewNode, OpenFile, OpenFlags, ReadOut,
    RenameFlags, SeekFrom, SetAttr, Status,
    lock::{Change, Lock},
};
use wire::{
    Message as _,
    files::{
        AddressIs, DirEntries, FileAllocate, FileArrived, FileCount, FileData, FileDescribe, FileFlush, FileGiven,
        FileIoctl, FileIoctlDone, FileIs, FileLock, FileLockTest, FileNode, FileOpened, FilePoll, FileRead,
        FileReadDir, FileSeek, FileSetStatus, FileSync, FileWrite, GrantFor, LinkIs, LockArm, LockIs, NodeAccess,
        NodeCreate, NodeCreateUnnamed, NodeIs, NodeLink, NodeLookup, NodeOpen, NodeReadLink, NodeRename, NodeRoot,
        NodeUnlink, PageGet, PageIs, Piece, PieceBack, SocketData, StatFsIs, StatIs, offset, state,
    },
    generic::{Arm, Armed},
};

use crate::{
    codec::{Answer, Bytes, Files, encode},
    pieces::send_ahead,
    remote::{ABLE_BASE, ABLE_EPOLL, ABLE_MAP, socket_bits},
    service::{CHUNK, FileService, LONG, Lent, Queue},
    state::{Event, Note},
};

/// What [`Links`] calls for the family `files`, and for `generic` (arming and references).
pub struct FileHandler(pub Arc<FileService>);

/// Reads the structures of a payload one after the other.
struct Payload<'a>(Reader<'a>, wire::KernelId);

impl<'a> Payload<'a> {
    fn next<T: Body<Files>>(&mut self) -> link::Result<T> {
        T::get(&mut self.0).map_err(|_| link::Error::new(Errno::EBADMSG, "the payload does not decode", self.1))
    }

    fn name(&mut self) -> link::Result<Vec<u8>> {
        self.next::<Bytes>().map(|b| b.0)
    }
}

pub(crate) fn refused(error: Error, from: wire::KernelId) -> link::Error {
    link::Error::new(error.errno(), error.why(), from)
}

impl FileHandler {
    pub(crate) fn find(&self, object: ObjectId, from: wire::KernelId) -> link::Result<Lent> {
        let found = self.0.inner.lock().lent.get(&object).cloned();
        found.ok_or(link::Error::new(Errno::ESTALE, "not lent", from))
    }

    pub(crate) fn file(&self, message: &Incoming<'_>) -> link::Result<Arc<dyn OpenFile>> {
        match self.find(object_from_wire(message.header.object), message.from)? {
            Lent::File(file) => Ok(file),
            _ => Err(link::Error::new(Errno::EBADF, "not an open file", message.from)),
        }
    }

    fn node_by(&self, object: ObjectId, from: wire::KernelId) -> link::Result<Arc<dyn Inode>> {
        match self.find(object, from)? {
            Lent::Node(node) => Ok(node),
            _ => Err(link::Error::new(Errno::EINVAL, "not an inode", from)),
        }
    }

    pub(crate) fn node(&self, message: &Incoming<'_>) -> link::Result<Arc<dyn Inode>> {
        self.node_by(object_from_wire(message.header.object), message.from)
    }

    /// Answers with a number, or "would block", or an errno; now or when the operation ends.
    pub(crate) fn count(&self, to: AnswerTo, tried: TryResult<u64>) {
        self.0.when(to, tried, move |service, result| {
            let count = match result {
                Ok(count) => FileCount { state: state::DONE, count },
                Err(error) if error.errno() == Errno::EAGAIN => FileCount { state: state::WOULD_BLOCK, count: 0 },
                Err(error) => return service.links.refuse(to, error.errno()),
            };
            // If the asker died nobody needs the answer.
            let _ = service.links.answer(to, &count, &[]);
        });
    }

    pub(crate) fn nothing(&self, to: AnswerTo, tried: TryResult<()>) {
        self.count(to, tried.map(|t| t.map(|()| 0)));
    }

    /// Answers with a structure.
    pub(crate) fn structure<T: Body<Files> + 'static, M: wire::Message + Send + 'static>(
        &self,
        to: AnswerTo,
        tried: TryResult<T>,
        message: M,
    ) {
        self.0.when(to, tried, move |service, result| match result {
            Ok(value) => {
                let _ = service.links.answer(to, &message, &encode(&[&value]));
            }
            Err(error) => service.links.refuse(to, error.errno()),
        });
    }

    fn data(&self, to: AnswerTo, tried: TryResult<ReadOut>, sink: VecSink) {
        self.0.when(to, tried, move |service, result| {
            let (state, bytes) = match result {
                Ok(ReadOut::InPlace(_)) => (state::DONE, sink.bytes),
                Ok(ReadOut::Bytes(bytes) | ReadOut::Part(bytes)) => (state::DONE, bytes),
                Err(error) if error.errno() == Errno::EAGAIN => (state::WOULD_BLOCK, Vec::new()),
                Err(error) => return service.links.refuse(to, error.errno()),
            };
            // If the asker died nobody needs the answer.
            let _ = send_ahead(&service.links, from_wire(to.peer), service.number(), &bytes, true)
                .and_then(|(pieces, end)| service.links.answer(to, &FileData { state, pieces }, end));
        });
    }

    /// Answers with an inode, granted to the asker.
    fn give_node(&self, to: AnswerTo, tried: TryResult<Arc<dyn Inode>>) {
        let tried = tried.and_then(|t| {
            t.and_then(|node| {
                let stat = node.stat()?;
                Ok(stat.map(move |stat| (node, stat)))
            })
        });
        self.0.when(to, tried, move |service, result| {
            let holder = from_wire(to.peer);
            let lent = result.and_then(|(node, stat)| {
                let id = service.lend_node(&node, holder)?;
                Ok((id, NodeIs { node: object_to_wire(id), base: u8::from(is_base(&node)) }, stat))
            });
            match lent {
                Ok((id, message, stat)) => {
                    if service.links.answer(to, &message, &encode(&[&stat])).is_err() {
                        service.not_lent(id, holder);
                    }
                }
                Err(error) => service.links.refuse(to, error.errno()),
            }
        });
    }

    fn open(&self, to: AnswerTo, node: &Arc<dyn Inode>, caller: &Caller, open: &NodeOpen, name: &[u8]) {
        let flags = OpenFlags::from_bits_truncate(open.flags);
        let status = Status::from_bits_truncate(open.status);
        let directory = self.node_by(object_from_wire(open.parent), to.peer);
        let place = match (self.0.vfs(), directory) {
            // The holder has its own place for the file; this one is for those who watch the directory.
            (Ok(vfs), Ok(directory)) => vfs.found_elsewhere(node.clone(), directory, name),
            (Ok(vfs), Err(_)) => vfs.anonymous(node.clone(), b"remote"),
            (Err(error), _) => return self.0.links.refuse(to, error.errno()),
        };
        let base = if is_base(node) && !flags.contains(OpenFlags::WRITE) { ABLE_BASE } else { 0 };
        self.0.when(to, node.clone().open(caller, flags, status, place), move |service, result| {
            let holder = from_wire(to.peer);
            let lent = result.and_then(|file| Ok((service.lend_file(&file, holder)?, file)));
            match lent {
                Ok((id, file)) => {
                    let message = FileOpened { file: object_to_wire(id), able: able(&*file) | base, size: 0 };
                    if service.links.answer(to, &message, describe(&*file).as_slice()).is_err() {
                        service.not_lent(id, holder);
                    }
                }
                Err(error) => service.links.refuse(to, error.errno()),
            }
        });
    }

    /// A peer wants to know when something happens to an object, or when a lock may be free.
    fn arm(&self, message: &Incoming<'_>) -> link::Result<()> {
        let (token, generation, mask, lock) = if message.header.kind == Arm::SPEC.number {
            let (arm, _) = message.read::<Arm>()?;
            (arm.token, arm.generation, Ready::from_bits_truncate(arm.mask), None)
        } else {
            let (arm, payload) = message.read::<LockArm>()?;
            let lock: Lock = Payload(Reader(payload), message.from).next()?;
            (arm.token, arm.generation, Ready::IN, Some(lock))
        };
        let object = object_from_wire(message.header.object);
        let lent = self.find(object, message.from)?;
        let peer = from_wire(message.from);
        let note = Note::Arm { object, token, generation, mask };
        match lock {
            None => self.0.step(Event::Told { from: peer, note }),
            Some(lock) => {
                // The step asks for a watch of the object; this one watches its locks.
                let service = &self.0;
                service.with(|inner, _| inner.state.step(Event::Told { from: peer, note }, &mut Queue::default()));
                service.watch(peer, token, &lent, mask, Some(&lock));
            }
        }
        let _ = self.0.links.answer(message.answer_to(), &Armed { ready: 0 }, &[]);
        Ok(())
    }
}

/// Whether it is still as the archive has it, so that every kernel has the same.
fn is_base(node: &Arc<dyn Inode>) -> bool {
    node.as_any().downcast_ref::<vfs::tmpfs::TmpInode>().is_some_and(vfs::tmpfs::TmpInode::is_base)
}

pub(crate) fn able(file: &dyn OpenFile) -> u8 {
    let epoll = if file.can_epoll() { ABLE_EPOLL } else { 0 };
    let map = if file.memory().is_ok() { ABLE_MAP } else { 0 };
    epoll | map | file.socket().map_or(0, |socket| socket_bits(socket.kind()))
}

pub(crate) fn describe(file: &dyn OpenFile) -> Vec<u8> {
    let mut text = file.describe().into_bytes();
    text.truncate(512);
    text
}

/// Collects entries up to a number of bytes.
struct Entries {
    bytes: Vec<u8>,
    room: usize,
}

impl DirSink for Entries {
    fn put(&mut self, name: &[u8], inode: u64, kind: FileKind, next: u64) -> bool {
        let entry = encode(&[&Entry { name: name.to_vec(), inode, kind, next }]);
        let fits = self.bytes.len() + entry.len() <= self.room;
        if fits {
            self.bytes.extend_from_slice(&entry);
        }
        fits
    }
}

/// The answer to an ioctl as it crosses the link.
fn answer_of(reply: IoctlReply) -> Result<Answer> {
    Ok(match reply {
        IoctlReply::Done => Answer::Done,
        IoctlReply::Number(n) => Answer::Number(n),
        IoctlReply::Termios(t) => Answer::Termios(t),
        IoctlReply::Window(w) => Answer::Window(w),
        IoctlReply::File(_) => return Err(Error::new(Errno::EOPNOTSUPP, "the file would have no place there")),
    })
}

impl Handler for FileHandler {
    fn handle(&self, links: &Links, message: &Incoming<'_>) -> link::Result<()> {
        let from = message.from;
        let to = message.answer_to();
        macro_rules! is {
            ($t:ty) => {
                message.header.kind == <$t>::SPEC.number
            };
        }
        macro_rules! read {
            ($t:ty) => {{
                let (fixed, payload) = message.read::<$t>()?;
                (fixed, Payload(Reader(payload), from))
            }};
        }
        if is!(FileRead) {
            let (read, mut payload) = read!(FileRead);
            let caller: Caller = payload.next()?;
            let file = self.file(message)?;
            let mut sink = VecSink::new((read.length as usize).min(LONG));
            let tried = match read.offset {
                offset::CURRENT => file.read(&caller, &mut sink),
                offset::PEEK => file.peek(&mut sink),
                offset => file.read_at(&caller, offset, &mut sink),
            };
            self.data(to, tried, sink);
        } else if is!(FileWrite) {
            let (write, payload) = message.read::<FileWrite>()?;
            let whole;
            let payload = if write.pieces == 0 {
                payload
            } else {
                whole = self.0.pieces.whole(from_wire(from), write.pieces, payload);
                &whole
            };
            let (head, mut bytes) = payload.split_at_checked(write.caller as usize).ok_or(link::Error::new(
                Errno::EBADMSG,
                "shorter than it says",
                from,
            ))?;
            let caller: Caller = Payload(Reader(head), from).next()?;
            let file = self.file(message)?;
            let tried = match write.offset {
                offset::CURRENT => file.write(&caller, &mut bytes),
                offset::END => file.append(&caller, false, &mut bytes),
                offset::END_MOVES => file.append(&caller, true, &mut bytes),
                offset => file.write_at(&caller, offset, &mut bytes),
            };
            self.count(to, tried.map(|t| t.map(|n| n as u64)));
        } else if is!(FilePoll) {
            let (_, mut payload) = read!(FilePoll);
            let caller: Caller = payload.next()?;
            self.count(to, self.file(message)?.poll(&caller).map(|t| t.map(|r| u64::from(r.bits()))));
        } else if is!(FileSeek) {
            let (seek, _) = read!(FileSeek);
            let target = match seek.whence {
                0 => SeekFrom::Start(seek.offset as u64),
                1 => SeekFrom::Current(seek.offset),
                2 => SeekFrom::End(seek.offset),
                3 => SeekFrom::Data(seek.offset as u64),
                4 => SeekFrom::Hole(seek.offset as u64),
                _ => return Err(link::Error::new(Errno::EBADMSG, "no such whence", from)),
            };
            self.count(to, self.file(message)?.seek(target));
        } else if is!(FileIoctl) {
            let (_, mut payload) = read!(FileIoctl);
            let caller: Caller = payload.next()?;
            let request: Ioctl = payload.next()?;
            self.0.when(to, self.file(message)?.ioctl(&caller, request), move |service, result| {
                let (state, body) = match result.and_then(answer_of) {
                    Ok(answer) => (state::DONE, encode(&[&answer])),
                    Err(error) if error.errno() == Errno::EAGAIN => (state::WOULD_BLOCK, Vec::new()),
                    Err(error) => return service.links.refuse(to, error.errno()),
                };
                let _ = service.links.answer(to, &FileIoctlDone { state }, &body);
            });
        } else if is!(wire::files::Stat) {
            let tried = match self.find(object_from_wire(message.header.object), from)? {
                Lent::File(file) => file.stat(),
                Lent::Node(node) => node.stat(),
                Lent::Address(_) => Err(Errno::EBADF.into()),
            };
            self.structure(to, tried, StatIs {});
        } else if is!(wire::files::SetAttr) {
            let (_, mut payload) = read!(wire::files::SetAttr);
            let caller: Caller = payload.next()?;
            let change: SetAttr = payload.next()?;
            let tried = match self.find(object_from_wire(message.header.object), from)? {
                Lent::File(file) => file.set_attr(&caller, change),
                Lent::Node(node) => node.set_attr(&caller, change),
                Lent::Address(_) => Err(Errno::EBADF.into()),
            };
            self.nothing(to, tried);
        } else if is!(wire::files::StatFs) {
            let tried = match self.find(object_from_wire(message.header.object), from)? {
                Lent::File(file) => file.stat_fs(),
                Lent::Node(node) => node.stat_fs(),
                Lent::Address(_) => Err(Errno::EBADF.into()),
            };
            self.structure(to, tried, StatFsIs {});
        } else if is!(FileReadDir) {
            let (read, _) = read!(FileReadDir);
            let mut entries = Entries { bytes: Vec::new(), room: (read.room as usize).min(CHUNK) };
            let tried = self.file(message)?.read_dir(&mut entries);
            self.0.when(to, tried, move |service, result| match result {
                Ok(_) => {
                    let _ = service.links.answer(to, &DirEntries {}, &entries.bytes);
                }
                Err(error) => service.links.refuse(to, error.errno()),
            });
        } else if is!(FileSetStatus) {
            let (set, _) = read!(FileSetStatus);
            self.nothing(to, self.file(message)?.set_status(Status::from_bits_truncate(set.status)));
        } else if is!(FileAllocate) {
            let (allocate, mut payload) = read!(FileAllocate);
            let caller: Caller = payload.next()?;
            let (mode, offset, length) = (allocate.mode, allocate.offset, allocate.length);
            self.nothing(to, self.file(message)?.allocate(&caller, mode, offset, length));
        } else if is!(FileSync) {
            self.nothing(to, self.file(message)?.sync());
        } else if is!(FileFlush) {
            let (_, mut payload) = read!(FileFlush);
            let caller: Caller = payload.next()?;
            let vfs = self.0.vfs().map_err(|error| refused(error, from))?;
            self.file(message)?.flush(vfs, &caller);
        } else if is!(FileDescribe) {
            let file = self.file(message)?;
            let is = FileIs { flags: file.flags().bits(), status: file.status().bits(), able: able(&*file) };
            let _ = links.answer(to, &is, &describe(&*file));
        } else if is!(PageGet) {
            let (get, _) = read!(PageGet);
            self.page(to, &*self.file(message)?, get.index).map_err(|error| refused(error, from))?;
        } else if is!(GrantFor) {
            let (grant, _) = read!(GrantFor);
            let object = object_from_wire(message.header.object);
            let (asker, holder) = (from_wire(from), from_wire(grant.holder));
            let granted = self.0.inner.lock().state.exports.grant_for(object, asker, holder);
            let tried = match granted {
                Ok(()) => done(()),
                Err(Refusal::Dead) => Err(Error::new(Errno::EHOSTDOWN, "who is to hold it is down")),
                Err(_) => Err(Error::new(Errno::ESTALE, "not lent to the asker")),
            };
            self.nothing(to, tried);
        } else if is!(FileLock) {
            let (change, mut payload) = read!(FileLock);
            let lock: Lock = Lock { kernel: from_wire(from), ..payload.next()? };
            let change = match change.what {
                0 => Change::Take(lock),
                1 => Change::TakeInTime(lock),
                2 => Change::Give(lock),
                _ => return Err(link::Error::new(Errno::EBADMSG, "no such change of a lock", from)),
            };
            let vfs = self.0.vfs().map_err(|error| refused(error, from))?;
            self.nothing(to, self.file(message)?.lock(vfs, change));
        } else if is!(FileLockTest) {
            let (_, mut payload) = read!(FileLockTest);
            let lock: Lock = payload.next()?;
            let vfs = self.0.vfs().map_err(|error| refused(error, from))?;
            self.0.when(to, self.file(message)?.lock_conflict(vfs, &lock), move |service, result| match result {
                Ok(found) => {
                    let found = found.map_or(Vec::new(), |lock| encode(&[&lock]));
                    let _ = service.links.answer(to, &LockIs {}, &found);
                }
                Err(error) => service.links.refuse(to, error.errno()),
            });
        } else if is!(FileArrived) {
            let (_, mut payload) = read!(FileArrived);
            let caller: Caller = payload.next()?;
            self.file(message)?.arrived(&caller, from_wire(from));
        } else if is!(FileNode) {
            let place = self.file(message)?.find_place();
            let node = place.map(|t| t.map(|place| place.map(|place| place.inode().clone())));
            let none = Error::new(Errno::ENOENT, "it has no inode");
            self.give_node(to, node.and_then(|t| t.and_then(move |node| done(node.ok_or(none)?))));
        } else if is!(Piece) {
            let (piece, bytes) = message.read::<Piece>()?;
            self.0.pieces.add(from_wire(from), piece.token, bytes);
        } else if is!(PieceBack) {
            let (piece, bytes) = message.read::<PieceBack>()?;
            self.0.pieces.add(from_wire(from), piece.token, bytes);
        } else if self.handle_watch(message)? || self.handle_socket(message)? {
        } else {
            return self.handle_node(message);
        }
        Ok(())
    }

    fn cancel(&self, _: &Links, request: AnswerTo) {
        self.0.step(Event::Cancelled { peer: from_wire(request.peer), request: request.request });
    }

    fn undo(&self, _: &Links, answer: &Incoming<'_>) {
        let service = &self.0;
        let kind = answer.header.kind;
        let from = from_wire(answer.from);
        // What it grants is taken and let go of.
        if kind == NodeIs::SPEC.number {
            drop(service.take_node(answer, |_| None));
        } else if kind == FileOpened::SPEC.number {
            drop(service.take_file(answer, OpenFlags::empty(), Status::empty(), None, None));
        } else if kind == FileGiven::SPEC.number {
            drop(service.take_given(answer));
        } else if kind == AddressIs::SPEC.number {
            drop(service.take_address(answer));
        } else if kind == FileData::SPEC.number {
            drop(answer.read::<FileData>().map(|(data, _)| service.pieces.whole(from, data.pieces, &[])));
        } else if kind == SocketData::SPEC.number {
            drop(service.take_message(answer));
        }
    }
}

impl FileHandler {
    fn handle_node(&self, message: &Incoming<'_>) -> link::Result<()> {
        let from = message.from;
        let to = message.answer_to();
        macro_rules! is {
            ($t:ty) => {
                message.header.kind == <$t>::SPEC.number
            };
        }
        macro_rules! read {
            ($t:ty) => {{
                let (fixed, payload) = message.read::<$t>()?;
                let mut payload = Payload(Reader(payload), from);
                let caller: Caller = payload.next()?;
                (fixed, caller, payload)
            }};
        }
        if is!(NodeRoot) {
            let (which, _) = message.read::<NodeRoot>()?;
            let root = self.0.root(which.tree).map_err(|error| refused(error, from))?;
            self.give_node(to, done(root));
            return Ok(());
        }
        if is!(Arm) || is!(LockArm) {
            return self.arm(message);
        }
        if let Some(note) = FileService::note(message)? {
            self.0.step(Event::Told { from: from_wire(from), note });
            return Ok(());
        }
        let node = self.node(message)?;
        if is!(NodeLookup) {
            let (_, caller, mut payload) = read!(NodeLookup);
            let name = payload.name()?;
            self.give_node(to, node.lookup(&caller, &name));
        } else if is!(NodeCreate) {
            let (create, caller, mut payload) = read!(NodeCreate);
            let name = payload.name()?;
            let new: NewNode = payload.next()?;
            self.give_node(to, node.create(&caller, &name, new, create.mode));
        } else if is!(NodeCreateUnnamed) {
            let (create, caller, _) = read!(NodeCreateUnnamed);
            self.give_node(to, node.create_unnamed(&caller, create.mode));
        } else if is!(NodeLink) {
            let (link, caller, mut payload) = read!(NodeLink);
            let target = self.node_by(object_from_wire(link.target), from)?;
            let name = payload.name()?;
            self.nothing(to, node.link(&caller, &name, &target));
        } else if is!(NodeUnlink) {
            let (unlink, caller, mut payload) = read!(NodeUnlink);
            let name = payload.name()?;
            self.nothing(to, node.unlink(&caller, &name, unlink.directory != 0));
        } else if is!(NodeRename) {
            let (rename, caller, mut payload) = read!(NodeRename);
            let target = self.node_by(object_from_wire(rename.to), from)?;
            let (name, new_name) = (payload.name()?, payload.name()?);
            let flags = RenameFlags::from_bits_truncate(rename.flags);
            self.nothing(to, node.rename(&caller, &name, &target, &new_name, flags));
        } else if is!(NodeReadLink) {
            let (_, caller, _) = read!(NodeReadLink);
            self.0.when(to, node.read_link(&caller), move |service, result| match result {
                Ok(target) => {
                    let _ = service.links.answer(to, &LinkIs {}, &target);
                }
                Err(error) => service.links.refuse(to, error.errno()),
            });
        } else if is!(NodeOpen) {
            let (open, caller, mut payload) = read!(NodeOpen);
            // A sender of the first version has no name for it.
            let name = payload.name().unwrap_or_default();
            self.open(to, &node, &caller, &open, &name);
        } else if is!(NodeAccess) {
            let (access, caller, _) = read!(NodeAccess);
            self.nothing(to, node.access(&caller, Access::from_bits_truncate(access.access)));
        } else {
            return Err(link::Error::new(Errno::ENOSYS, "the file service does not know it", from));
        }
        Ok(())
    }

    /// Answers with a page of a file.
    fn page(&self, to: AnswerTo, file: &dyn OpenFile, index: u64) -> Result<()> {
        let memory = file.memory()?;
        let size = memory.size();
        let offset = index.checked_mul(PAGE_SIZE as u64).ok_or(Error::from(Errno::EINVAL))?;
        let mut sink = VecSink::new(PAGE_SIZE);
        let tried = memory.read(offset, &mut sink);
        self.0.when(to, tried, move |service, result| match result {
            Ok(_) => {
                let end = sink.bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                sink.bytes.truncate(end);
                let _ = service.links.answer(to, &PageIs { size }, &sink.bytes);
            }
            Err(error) => service.links.refuse(to, error.errno()),
        });
        Ok(())
    }
}
