//! The local implementation of [`OpenFile`]: a position and status flags over what a file can do.

use alloc::{
    string::String,
    sync::{Arc, Weak},
};
use core::sync::atomic::{AtomicU32, Ordering};

use base::{
    Errno, Error, ObjectId, Ready, Result, Subscription, Try, TryResult, Wake,
    io::{Sink, Source},
    wait::done,
};
use hal::sync::{SpinLock, rank};
use mm::MemoryObject;

use crate::{
    Caller, DirSink, Inode, Ioctl, IoctlReply, OpenFile, Place, ReadOut, SeekFrom,
    lock::{Change, Lock, Owner},
    types::{FileKind, OpenFlags, SetAttr, Stat, StatFs, Status},
};

/// What was written, and where the position is afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wrote {
    /// Bytes.
    pub bytes: usize,
    /// The new position.
    pub end: u64,
}

/// What a file can do, without position and flags. Streams (pipes, terminals, sockets) ignore offsets.
pub trait FileOps: Send + Sync {
    /// Whether it has positions; without, reads and writes are not serialised here.
    fn is_seekable(&self) -> bool {
        true
    }
    /// Reads at `offset`.
    fn read(&self, file: &LocalFile, caller: &Caller, offset: u64, sink: &mut dyn Sink) -> TryResult<usize>;
    /// Writes at `offset`, or at the end under `append`.
    fn write(
        &self,
        file: &LocalFile,
        caller: &Caller,
        offset: u64,
        append: bool,
        source: &mut dyn Source,
    ) -> TryResult<Wrote>;
    /// Reads what stays to be read again: pipes.
    fn peek(&self, sink: &mut dyn Sink) -> TryResult<usize> {
        let _ = sink;
        Err(Errno::EINVAL.into())
    }
    /// Where SEEK_END, SEEK_DATA and SEEK_HOLE count from; `ESPIPE` if it has no positions.
    fn seek(&self, to: SeekFrom, now: u64) -> Result<u64> {
        let _ = (to, now);
        Err(Errno::ESPIPE.into())
    }
    /// Whether reads and polls may have to ask peers first what there is.
    fn asks_first(&self) -> bool {
        false
    }
    /// A read of at most `room` bytes that must first ask a peer; `None`: [`FileOps::read`].
    fn read_later(&self, room: usize) -> Option<TryResult<ReadOut>> {
        let _ = room;
        None
    }
    /// The same for [`FileOps::poll`].
    fn poll_later(&self) -> Option<TryResult<Ready>> {
        None
    }
    /// What it is ready for.
    fn poll(&self, file: &LocalFile) -> Ready {
        let _ = file;
        Ready::IN | Ready::OUT
    }
    /// Tells `waker`.
    fn subscribe(&self, file: &LocalFile, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        let _ = (file, mask, waker);
        Subscription::never()
    }
    /// Whether epoll can watch it.
    fn can_epoll(&self) -> bool {
        true
    }
    /// ioctl(2).
    fn ioctl(&self, file: &LocalFile, caller: &Caller, request: Ioctl) -> TryResult<IoctlReply> {
        let _ = (file, caller, request);
        Err(Errno::ENOTTY.into())
    }
    /// fallocate(2).
    fn allocate(&self, caller: &Caller, mode: u32, offset: u64, length: u64) -> TryResult<()> {
        let _ = (caller, mode, offset, length);
        Err(Errno::ESPIPE.into())
    }
    /// fsync(2).
    fn sync(&self) -> TryResult<()> {
        Err(Errno::EINVAL.into())
    }
    /// Entries from position `from`; the new position.
    fn read_dir(&self, from: u64, sink: &mut dyn DirSink) -> TryResult<u64> {
        let _ = (from, sink);
        Err(Errno::ENOTDIR.into())
    }
    /// What mmap(2) maps.
    fn memory(&self) -> Result<Arc<dyn MemoryObject>> {
        Err(Errno::ENODEV.into())
    }
    /// close(2) of one descriptor.
    fn flush(&self, file: &LocalFile, caller: &Caller) {
        let _ = (file, caller);
    }
    /// The last reference is going.
    fn release(&self, file: &LocalFile) {
        let _ = file;
    }
    /// For those who know the concrete type.
    fn as_any(&self) -> &dyn core::any::Any;
}

/// See the module.
pub struct LocalFile {
    id: ObjectId,
    ops: Arc<dyn FileOps>,
    place: Place,
    flags: OpenFlags,
    status: AtomicU32,
    /// [`FileOps::asks_first`]: kept, for it is looked at in every read.
    asks_first: bool,
    position: SpinLock<u64>,
    /// Set when a lock was asked for through this file: those of the open file are given back when it is closed.
    locks: hal::sync::Once<Weak<crate::Vfs>>,
    /// A socket that is connected to another kernel: its end is this file there.
    elsewhere: hal::sync::Once<Arc<dyn OpenFile>>,
}

impl LocalFile {
    /// An open file at position 0.
    pub fn new(id: ObjectId, ops: Arc<dyn FileOps>, place: Place, flags: OpenFlags, status: Status) -> Arc<Self> {
        Arc::new(Self {
            id,
            asks_first: ops.asks_first(),
            ops,
            place,
            flags,
            status: AtomicU32::new(status.bits()),
            position: SpinLock::new(rank::OPEN_FILE, 0),
            locks: hal::sync::Once::new(),
            elsewhere: hal::sync::Once::new(),
        })
    }

    /// What it can do.
    pub const fn ops(&self) -> &Arc<dyn FileOps> {
        &self.ops
    }

    fn give_locks(&self, owners: &[Owner]) {
        if let Some(vfs) = self.locks.get().and_then(Weak::upgrade) {
            let inode = self.place.inode().id();
            for owner in owners {
                vfs.locks.give_all(inode, *owner);
            }
        }
    }

    /// From now on the stream is `file`, of another kernel.
    pub(crate) fn go_elsewhere(&self, file: Arc<dyn OpenFile>) {
        self.elsewhere.get_or_init(|| file);
    }

    /// Where it is, if not here.
    pub(crate) fn elsewhere(&self) -> Option<&Arc<dyn OpenFile>> {
        self.elsewhere.get()
    }

    /// Whether it must not wait.
    pub fn is_nonblocking(&self) -> bool {
        self.status().contains(Status::NONBLOCK)
    }

    fn readable(&self) -> Result<()> {
        if self.flags.contains(OpenFlags::READ) {
            Ok(())
        } else {
            Err(Error::new(Errno::EBADF, "not open for reading"))
        }
    }

    fn writable(&self) -> Result<()> {
        if self.flags.contains(OpenFlags::WRITE) {
            Ok(())
        } else {
            Err(Error::new(Errno::EBADF, "not open for writing"))
        }
    }
}

impl Drop for LocalFile {
    fn drop(&mut self) {
        self.give_locks(&[Owner::Flock(self.id), Owner::File(self.id)]);
        self.ops.clone().release(self);
    }
}

impl OpenFile for LocalFile {
    fn id(&self) -> ObjectId {
        self.id
    }

    fn flags(&self) -> OpenFlags {
        self.flags
    }

    fn status(&self) -> Status {
        Status::from_bits_truncate(self.status.load(Ordering::Relaxed))
    }

    fn set_status(&self, status: Status) -> TryResult<()> {
        self.status.store(status.bits(), Ordering::Relaxed);
        done(())
    }

    #[inline]
    fn read(&self, caller: &Caller, sink: &mut dyn Sink) -> TryResult<ReadOut> {
        self.readable()?;
        if !self.ops.is_seekable() {
            if let Some(there) = self.elsewhere() {
                return there.read(caller, sink);
            }
            if self.asks_first
                && let Some(later) = self.ops.read_later(sink.room())
            {
                return later;
            }
            return Ok(self.ops.read(self, caller, 0, sink)?.map(ReadOut::InPlace));
        }
        let mut position = self.position.lock();
        let tried = self.ops.read(self, caller, *position, sink)?;
        if let Try::Done(n) = &tried {
            *position += *n as u64;
        }
        drop(position);
        Ok(tried.map(ReadOut::InPlace))
    }

    fn read_at(&self, caller: &Caller, offset: u64, sink: &mut dyn Sink) -> TryResult<ReadOut> {
        if !self.ops.is_seekable() {
            return Err(Errno::ESPIPE.into());
        }
        self.readable()?;
        Ok(self.ops.read(self, caller, offset, sink)?.map(ReadOut::InPlace))
    }

    fn peek(&self, sink: &mut dyn Sink) -> TryResult<ReadOut> {
        self.readable()?;
        Ok(self.ops.peek(sink)?.map(ReadOut::InPlace))
    }

    #[inline]
    fn write(&self, caller: &Caller, source: &mut dyn Source) -> TryResult<usize> {
        self.writable()?;
        if !self.ops.is_seekable() {
            if let Some(there) = self.elsewhere() {
                return there.write(caller, source);
            }
            return Ok(self.ops.write(self, caller, 0, false, source)?.map(|w| w.bytes));
        }
        let append = self.status().contains(Status::APPEND);
        let mut position = self.position.lock();
        let tried = self.ops.write(self, caller, *position, append, source)?;
        if let Try::Done(wrote) = &tried {
            *position = wrote.end;
        }
        drop(position);
        Ok(tried.map(|w| w.bytes))
    }

    fn write_at(&self, caller: &Caller, offset: u64, source: &mut dyn Source) -> TryResult<usize> {
        if !self.ops.is_seekable() {
            return Err(Errno::ESPIPE.into());
        }
        self.writable()?;
        // O_APPEND wins over the offset, as on Linux (pwrite(2), BUGS).
        let append = self.status().contains(Status::APPEND);
        Ok(self.ops.write(self, caller, offset, append, source)?.map(|w| w.bytes))
    }

    fn append(&self, caller: &Caller, moves: bool, source: &mut dyn Source) -> TryResult<usize> {
        self.writable()?;
        if !self.ops.is_seekable() {
            return Ok(self.ops.write(self, caller, 0, false, source)?.map(|w| w.bytes));
        }
        let mut position = self.position.lock();
        let tried = self.ops.write(self, caller, 0, true, source)?;
        if let Try::Done(wrote) = &tried
            && moves
        {
            *position = wrote.end;
        }
        drop(position);
        Ok(tried.map(|w| w.bytes))
    }

    fn seek(&self, to: SeekFrom) -> TryResult<u64> {
        let mut position = self.position.lock();
        let new = match to {
            SeekFrom::Start(at) if self.ops.is_seekable() => at,
            SeekFrom::Current(by) if self.ops.is_seekable() => {
                position.checked_add_signed(by).ok_or(Error::new(Errno::EINVAL, "before the start"))?
            }
            _ => self.ops.seek(to, *position)?,
        };
        if i64::try_from(new).is_err() {
            return Err(Error::new(Errno::EINVAL, "beyond the largest position"));
        }
        *position = new;
        done(new)
    }

    fn poll(&self, caller: &Caller) -> TryResult<Ready> {
        match self.elsewhere() {
            Some(there) => there.poll(caller),
            None => self.ops.poll_later().unwrap_or_else(|| done(self.ops.poll(self))),
        }
    }

    fn subscribe(&self, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        if let Some(there) = self.elsewhere() {
            return there.subscribe(mask, waker);
        }
        self.ops.subscribe(self, mask, waker)
    }

    fn can_epoll(&self) -> bool {
        self.ops.can_epoll()
    }

    fn ioctl(&self, caller: &Caller, request: Ioctl) -> TryResult<IoctlReply> {
        match self.elsewhere() {
            Some(there) => there.ioctl(caller, request),
            None => self.ops.ioctl(self, caller, request),
        }
    }

    fn socket(&self) -> Option<Arc<dyn crate::socket::Socket>> {
        match self.elsewhere() {
            Some(there) => there.socket(),
            None => crate::unix::UnixSocket::of(self).map(|socket| socket as _),
        }
    }

    fn stat(&self) -> TryResult<Stat> {
        self.place.inode().stat()
    }

    fn set_attr(&self, caller: &Caller, change: SetAttr) -> TryResult<()> {
        if change.size.is_some() {
            if !self.flags.contains(OpenFlags::WRITE) {
                return Err(Errno::EINVAL.into());
            }
            // Who could open it for writing may cut it, whatever its mode says by now.
            return self.place.inode().set_attr(
                &Caller { capabilities: u64::MAX, ..caller.clone() },
                SetAttr { size: change.size, ..SetAttr::default() },
            );
        }
        self.place.inode().set_attr(caller, change)
    }

    fn stat_fs(&self) -> TryResult<StatFs> {
        self.place.inode().stat_fs()
    }

    fn allocate(&self, caller: &Caller, mode: u32, offset: u64, length: u64) -> TryResult<()> {
        self.writable()?;
        self.ops.allocate(caller, mode, offset, length)
    }

    fn sync(&self) -> TryResult<()> {
        self.ops.sync()
    }

    fn read_dir(&self, sink: &mut dyn DirSink) -> TryResult<usize> {
        struct Count<'a>(&'a mut dyn DirSink, usize);
        impl DirSink for Count<'_> {
            fn put(&mut self, name: &[u8], inode: u64, kind: FileKind, next: u64) -> bool {
                let taken = self.0.put(name, inode, kind, next);
                self.1 += usize::from(taken);
                taken
            }
        }
        let mut count = Count(sink, 0);
        let mut position = self.position.lock();
        match self.ops.read_dir(*position, &mut count)? {
            Try::Done(next) => {
                *position = next;
                done(count.1)
            }
            Try::WouldBlock => Ok(Try::WouldBlock),
            Try::Started(op) => Ok(Try::Started(op).map(|_| 0)),
        }
    }

    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.place.inode().clone())
    }

    fn place(&self) -> Option<Place> {
        Some(self.place.clone())
    }

    fn memory(&self) -> Result<Arc<dyn MemoryObject>> {
        self.ops.memory()
    }

    fn describe(&self) -> String {
        self.place.describe()
    }

    fn lock(&self, vfs: &Arc<crate::Vfs>, change: Change) -> TryResult<()> {
        self.locks.get_or_init(|| Arc::downgrade(vfs));
        vfs.locks.change(self.place.inode().id(), change)
    }

    fn lock_conflict(&self, vfs: &Arc<crate::Vfs>, wanted: &Lock) -> TryResult<Option<Lock>> {
        done(vfs.locks.conflict(self.place.inode().id(), wanted))
    }

    fn lock_wait(&self, vfs: &Arc<crate::Vfs>, wanted: &Lock, waker: Arc<dyn Wake>) -> Subscription {
        vfs.locks.wait(self.place.inode().id(), *wanted, waker)
    }

    fn arrived(&self, caller: &Caller, kernel: base::KernelId) {
        if let Some(vfs) = self.locks.get().and_then(Weak::upgrade) {
            vfs.locks.moved(self.place.inode().id(), caller.pid, kernel);
        }
    }

    fn flush(&self, vfs: &Arc<crate::Vfs>, caller: &Caller) {
        // Those on the file, through whatever descriptor they were taken: fcntl_locking(2).
        if vfs.locks.are_used() {
            vfs.locks.give_all(self.place.inode().id(), Owner::Process(caller.pid));
        }
        self.ops.flush(self, caller);
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
