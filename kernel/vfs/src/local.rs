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
    lock::Owner,
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
    position: SpinLock<u64>,
    /// Set when a lock was asked for through this file: they go with it.
    locks: hal::sync::Once<Weak<crate::Vfs>>,
}

impl LocalFile {
    /// An open file at position 0.
    pub fn new(id: ObjectId, ops: Arc<dyn FileOps>, place: Place, flags: OpenFlags, status: Status) -> Arc<Self> {
        Arc::new(Self {
            id,
            ops,
            place,
            flags,
            status: AtomicU32::new(status.bits()),
            position: SpinLock::new(rank::OPEN_FILE, 0),
            locks: hal::sync::Once::new(),
        })
    }

    /// What it can do.
    pub const fn ops(&self) -> &Arc<dyn FileOps> {
        &self.ops
    }

    /// Locks are taken through it: they are given back when a descriptor of their process, or the file, is closed.
    pub fn has_locks(&self, vfs: &Arc<crate::Vfs>) {
        self.locks.get_or_init(|| Arc::downgrade(vfs));
    }

    fn give_locks(&self, owners: &[Owner]) {
        if let Some(vfs) = self.locks.get().and_then(Weak::upgrade) {
            let inode = self.place.inode().id();
            for owner in owners {
                vfs.locks.give(inode, *owner, 0, u64::MAX);
            }
        }
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

    fn poll(&self, _: &Caller) -> TryResult<Ready> {
        done(self.ops.poll(self))
    }

    fn subscribe(&self, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        self.ops.subscribe(self, mask, waker)
    }

    fn can_epoll(&self) -> bool {
        self.ops.can_epoll()
    }

    fn ioctl(&self, caller: &Caller, request: Ioctl) -> TryResult<IoctlReply> {
        self.ops.ioctl(self, caller, request)
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
        let (path, reachable) = self.place.path(None);
        let mut text = String::from_utf8_lossy(&path).into_owned();
        if !reachable && text.starts_with('/') {
            text.push_str(" (deleted)");
        }
        text
    }

    fn flush(&self, caller: &Caller) {
        self.give_locks(&[Owner::Process(caller.pid)]);
        self.ops.flush(self, caller);
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
