//! Serves the peers' messages of the families `files` and `generic` from this kernel.

use alloc::{sync::Arc, vec::Vec};

use base::{Errno, Error, ObjectId, Ready, Result, TryResult, Wake, io::VecSink, wait::done};
use hal::addr::PAGE_SIZE;
use link::{AnswerTo, Handler, Incoming, Links, lock::Lock};
use objects::{
    codec::{Body, Reader},
    from_wire, object_from_wire, object_to_wire, when_done,
};
use vfs::{
    Access, Caller, DirSink, Entry, FileKind, Inode, Ioctl, IoctlReply, NewNode, OpenFile, OpenFlags, ReadOut,
    RenameFlags, SeekFrom, SetAttr, Status,
};
use wire::{
    Message as _,
    files::{
        DirEntries, FileAllocate, FileCount, FileData, FileDescribe, FileFlush, FileIoctl, FileIoctlDone, FileIs,
        FileOpened, FilePoll, FileRead, FileReadDir, FileSeek, FileSetStatus, FileSync, FileWrite, GrantFor, LinkIs,
        NodeAccess, NodeCreate, NodeCreateUnnamed, NodeIs, NodeLink, NodeLookup, NodeOpen, NodeReadLink, NodeRename,
        NodeRoot, NodeUnlink, PageGet, PageIs, StatFsIs, StatIs, state,
    },
    generic::{Arm, Armed, Disarm, Ready as ReadyEvent, Release},
};

use crate::{
    codec::{Answer, Bytes, Files, encode},
    remote::{ABLE_BASE, ABLE_EPOLL, ABLE_MAP},
    service::{CHUNK, FileService, Lent},
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

fn refused(error: Error, from: wire::KernelId) -> link::Error {
    link::Error::new(error.errno(), error.why(), from)
}

impl FileHandler {
    fn find(&self, object: ObjectId, from: wire::KernelId) -> link::Result<Lent> {
        let found = self.0.lent.lock().get(&object).cloned();
        found.ok_or(link::Error::new(Errno::ESTALE, "not lent", from))
    }

    fn file(&self, message: &Incoming<'_>) -> link::Result<Arc<dyn OpenFile>> {
        match self.find(object_from_wire(message.header.object), message.from)? {
            Lent::File(file) => Ok(file),
            Lent::Node(_) => Err(link::Error::new(Errno::EBADF, "an inode, not an open file", message.from)),
        }
    }

    fn node_by(&self, object: ObjectId, from: wire::KernelId) -> link::Result<Arc<dyn Inode>> {
        match self.find(object, from)? {
            Lent::Node(node) => Ok(node),
            Lent::File(_) => Err(link::Error::new(Errno::EINVAL, "an open file, not an inode", from)),
        }
    }

    fn node(&self, message: &Incoming<'_>) -> link::Result<Arc<dyn Inode>> {
        self.node_by(object_from_wire(message.header.object), message.from)
    }

    /// Answers with a number, or "would block", or an errno; now or when the operation ends.
    fn count(&self, to: AnswerTo, tried: TryResult<u64>) {
        let links = self.0.links.clone();
        when_done(tried, move |result| {
            let count = match result {
                Ok(count) => FileCount { state: state::DONE, count },
                Err(error) if error.errno() == Errno::EAGAIN => FileCount { state: state::WOULD_BLOCK, count: 0 },
                Err(error) => return links.refuse(to, error.errno()),
            };
            // If the asker died nobody needs the answer.
            let _ = links.answer(to, &count, &[]);
        });
    }

    fn nothing(&self, to: AnswerTo, tried: TryResult<()>) {
        self.count(to, tried.map(|t| t.map(|()| 0)));
    }

    /// Answers with a structure.
    fn structure<T: Body<Files> + 'static, M: wire::Message + Send + 'static>(
        &self,
        to: AnswerTo,
        tried: TryResult<T>,
        message: M,
    ) {
        let links = self.0.links.clone();
        when_done(tried, move |result| match result {
            Ok(value) => {
                let _ = links.answer(to, &message, &encode(&[&value]));
            }
            Err(error) => links.refuse(to, error.errno()),
        });
    }

    fn data(&self, to: AnswerTo, tried: TryResult<ReadOut>, sink: VecSink) {
        let links = self.0.links.clone();
        when_done(tried, move |result| {
            let (state, bytes) = match result {
                Ok(ReadOut::InPlace(_)) => (state::DONE, sink.bytes),
                Ok(ReadOut::Bytes(bytes)) => (state::DONE, bytes),
                Err(error) if error.errno() == Errno::EAGAIN => (state::WOULD_BLOCK, Vec::new()),
                Err(error) => return links.refuse(to, error.errno()),
            };
            let _ = links.answer(to, &FileData { state }, &bytes);
        });
    }

    /// Answers with an inode, granted to the asker.
    fn give_node(&self, to: AnswerTo, tried: TryResult<Arc<dyn Inode>>) {
        let service = self.0.clone();
        when_done(tried, move |result| {
            let node = match result {
                Ok(node) => node,
                Err(error) => return service.links.refuse(to, error.errno()),
            };
            let again = service.clone();
            when_done(node.stat(), move |stat| {
                let stat = match stat {
                    Ok(stat) => stat,
                    Err(error) => return again.links.refuse(to, error.errno()),
                };
                let holder = from_wire(to.peer);
                let id = again.lend_node(&node, holder);
                let message = NodeIs { node: object_to_wire(id), base: u8::from(is_base(&node)) };
                if again.links.answer(to, &message, &encode(&[&stat])).is_err() {
                    again.give_back(id, holder, 1);
                }
            });
        });
    }

    fn open(&self, to: AnswerTo, node: Arc<dyn Inode>, caller: &Caller, open: &NodeOpen) {
        let service = self.0.clone();
        let flags = OpenFlags::from_bits_truncate(open.flags);
        let status = Status::from_bits_truncate(open.status);
        let place = match self.0.vfs() {
            // The name does not matter: the holder has its own place for the file.
            Ok(vfs) => vfs.anonymous(node.clone(), b"remote"),
            Err(error) => return self.0.links.refuse(to, error.errno()),
        };
        when_done(node.clone().open(caller, flags, status, place), move |result| {
            let file = match result {
                Ok(file) => file,
                Err(error) => return service.links.refuse(to, error.errno()),
            };
            let holder = from_wire(to.peer);
            let id = service.lend_file(&file, holder);
            let mut able = able(&*file);
            if is_base(&node) && !flags.contains(OpenFlags::WRITE) {
                able |= ABLE_BASE;
            }
            let message = FileOpened { file: object_to_wire(id), able, size: size(&*file) };
            if service.links.answer(to, &message, describe(&*file).as_slice()).is_err() {
                service.give_back(id, holder, 1);
            }
        });
    }

    fn arm(&self, message: &Incoming<'_>) -> link::Result<()> {
        let (arm, _) = message.read::<Arm>()?;
        let file = self.file(message)?;
        let mask = Ready::from_bits_truncate(arm.mask);
        let waker = Arc::new(Ring {
            links: self.0.links.clone(),
            to: message.from,
            object: message.header.object,
            message: ReadyEvent { token: arm.token, generation: arm.generation, ready: 0 },
            rung: Lock::new(false),
        });
        let subscription = file.subscribe(mask, waker);
        let old = self.0.serving.lock().insert((from_wire(message.from), arm.token), subscription);
        drop(old);
        let links = self.0.links.clone();
        let to = message.answer_to();
        // Its caller is not known here and need not be: readiness does not depend on it.
        when_done(file.poll(&Caller::kernel()), move |ready| {
            let now = ready.unwrap_or(Ready::ERR) & (mask | Ready::ERR | Ready::HUP);
            let _ = links.answer(to, &Armed { ready: now.bits() }, &[]);
        });
        Ok(())
    }
}

/// Sends READY, once per arming.
struct Ring {
    links: Arc<Links>,
    to: wire::KernelId,
    object: wire::ObjectId,
    message: ReadyEvent,
    rung: Lock<bool>,
}

impl Wake for Ring {
    fn wake(&self, ready: Ready) {
        if core::mem::replace(&mut *self.rung.lock(), true) {
            return;
        }
        let message = ReadyEvent { ready: ready.bits(), ..self.message };
        // If the holder died nobody waits.
        let _ = self.links.send(self.to, self.object, &message, &[]);
    }
}

/// Whether it is still as the archive has it, so that every kernel has the same.
fn is_base(node: &Arc<dyn Inode>) -> bool {
    node.as_any().downcast_ref::<vfs::tmpfs::TmpInode>().is_some_and(vfs::tmpfs::TmpInode::is_base)
}

pub(crate) fn able(file: &dyn OpenFile) -> u8 {
    (if file.can_epoll() { ABLE_EPOLL } else { 0 }) | if file.memory().is_ok() { ABLE_MAP } else { 0 }
}

/// Bytes of what can be mapped.
pub(crate) fn size(file: &dyn OpenFile) -> u64 {
    file.memory().map_or(0, |memory| memory.size())
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
            let mut sink = VecSink::new((read.length as usize).min(CHUNK));
            let tried = match read.offset {
                u64::MAX => file.read(&caller, &mut sink),
                offset => file.read_at(&caller, offset, &mut sink),
            };
            self.data(to, tried, sink);
        } else if is!(FileWrite) {
            let (write, payload) = message.read::<FileWrite>()?;
            let (head, mut bytes) = payload.split_at_checked(write.caller as usize).ok_or(link::Error::new(
                Errno::EBADMSG,
                "shorter than it says",
                from,
            ))?;
            let caller: Caller = Payload(Reader(head), from).next()?;
            let file = self.file(message)?;
            let tried = match write.offset {
                u64::MAX => file.write(&caller, &mut bytes),
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
            let links = self.0.links.clone();
            when_done(self.file(message)?.ioctl(&caller, request), move |result| {
                let (state, body) = match result.and_then(answer_of) {
                    Ok(answer) => (state::DONE, encode(&[&answer])),
                    Err(error) if error.errno() == Errno::EAGAIN => (state::WOULD_BLOCK, Vec::new()),
                    Err(error) => return links.refuse(to, error.errno()),
                };
                let _ = links.answer(to, &FileIoctlDone { state }, &body);
            });
        } else if is!(wire::files::Stat) {
            let tried = match self.find(object_from_wire(message.header.object), from)? {
                Lent::File(file) => file.stat(),
                Lent::Node(node) => node.stat(),
            };
            self.structure(to, tried, StatIs {});
        } else if is!(wire::files::SetAttr) {
            let (_, mut payload) = read!(wire::files::SetAttr);
            let caller: Caller = payload.next()?;
            let change: SetAttr = payload.next()?;
            let tried = match self.find(object_from_wire(message.header.object), from)? {
                Lent::File(file) => file.set_attr(&caller, change),
                Lent::Node(node) => node.set_attr(&caller, change),
            };
            self.nothing(to, tried);
        } else if is!(wire::files::StatFs) {
            let tried = match self.find(object_from_wire(message.header.object), from)? {
                Lent::File(file) => file.stat_fs(),
                Lent::Node(node) => node.stat_fs(),
            };
            self.structure(to, tried, StatFsIs {});
        } else if is!(FileReadDir) {
            let (read, _) = read!(FileReadDir);
            let mut entries = Entries { bytes: Vec::new(), room: (read.room as usize).min(CHUNK) };
            let tried = self.file(message)?.read_dir(&mut entries);
            let links = self.0.links.clone();
            when_done(tried, move |result| match result {
                Ok(_) => {
                    let _ = links.answer(to, &DirEntries {}, &entries.bytes);
                }
                Err(error) => links.refuse(to, error.errno()),
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
            self.file(message)?.flush(&caller);
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
            let granted = self.0.exports.lock().grant_for(object, from_wire(from), from_wire(grant.holder));
            let tried = granted.map_or(Err(Error::new(Errno::ESTALE, "not lent to the asker")), |()| done(()));
            self.nothing(to, tried);
        } else {
            return self.handle_node(message);
        }
        Ok(())
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
        if is!(Arm) {
            return self.arm(message);
        }
        if is!(Disarm) {
            let (disarm, _) = message.read::<Disarm>()?;
            let old = self.0.serving.lock().remove(&(from_wire(from), disarm.token));
            drop(old);
            return Ok(());
        }
        if is!(ReadyEvent) {
            let (ready, _) = message.read::<ReadyEvent>()?;
            self.0.ready(ready.token, Ready::from_bits_truncate(ready.ready));
            return Ok(());
        }
        if is!(Release) {
            let (release, _) = message.read::<Release>()?;
            self.0.give_back(object_from_wire(release.object), from_wire(from), release.count);
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
            let links = self.0.links.clone();
            when_done(node.read_link(&caller), move |result| match result {
                Ok(target) => {
                    let _ = links.answer(to, &LinkIs {}, &target);
                }
                Err(error) => links.refuse(to, error.errno()),
            });
        } else if is!(NodeOpen) {
            let (open, caller, _) = read!(NodeOpen);
            self.open(to, node, &caller, &open);
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
        let links = self.0.links.clone();
        when_done(tried, move |result| match result {
            Ok(_) => {
                let end = sink.bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                sink.bytes.truncate(end);
                let _ = links.answer(to, &PageIs { size }, &sink.bytes);
            }
            Err(error) => links.refuse(to, error.errno()),
        });
        Ok(())
    }
}
