//! An open file description: what descriptors share, of processes on any kernel. The remote one is another implementation, so every
//! operation takes and gives plain data and none waits.

use alloc::{string::String, sync::Arc, vec::Vec};

use base::{
    Errno, KernelId, ObjectId, Ready, Result, Subscription, Wake,
    io::{Sink, Source},
    wait::{TryResult, done},
};
use mm::MemoryObject;

use crate::{
    Caller, DirSink, Inode, Ioctl, IoctlReply, Place, Vfs,
    lock::{Change, Lock},
    socket::Socket,
    types::{FileKind, OpenFlags, SetAttr, Stat, StatFs, Status},
};

/// Where the bytes of a read are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadOut {
    /// So many were put into the sink.
    InPlace(usize),
    /// Here: the caller puts them into its sink (the answer of a peer).
    Bytes(Vec<u8>),
    /// The same, and there is more for the rest of the sink: read again.
    Part(Vec<u8>),
}

/// lseek(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SeekFrom {
    /// SEEK_SET.
    Start(u64),
    /// SEEK_CUR.
    Current(i64),
    /// SEEK_END.
    End(i64),
    /// SEEK_DATA.
    Data(u64),
    /// SEEK_HOLE.
    Hole(u64),
}

/// See the module. Defaults are what Linux answers for an object that does not know the operation.
pub trait OpenFile: Send + Sync {
    /// Its name in the machine, given when it is first lent to another kernel or asked for.
    fn id(&self) -> ObjectId;

    /// How it was opened.
    fn flags(&self) -> OpenFlags;
    /// `F_GETFL`.
    fn status(&self) -> Status;
    /// `F_SETFL`.
    fn set_status(&self, status: Status) -> TryResult<()>;

    /// read(2): from the current position.
    fn read(&self, caller: &Caller, sink: &mut dyn Sink) -> TryResult<ReadOut>;
    /// pread(2).
    fn read_at(&self, caller: &Caller, offset: u64, sink: &mut dyn Sink) -> TryResult<ReadOut> {
        let _ = (caller, offset, sink);
        Err(Errno::ESPIPE.into())
    }
    /// As `read`, of what can be read again afterwards: tee(2). Only pipes can.
    fn peek(&self, sink: &mut dyn Sink) -> TryResult<ReadOut> {
        let _ = sink;
        Err(Errno::EINVAL.into())
    }
    /// write(2). The result says how many bytes of the source were used; the caller starts its next source there.
    fn write(&self, caller: &Caller, source: &mut dyn Source) -> TryResult<usize>;
    /// pwrite(2).
    fn write_at(&self, caller: &Caller, offset: u64, source: &mut dyn Source) -> TryResult<usize> {
        let _ = (caller, offset, source);
        Err(Errno::ESPIPE.into())
    }
    /// Writes at the end, wherever that is, without O_APPEND; the position is moved there if `moves`. `RWF_APPEND` of pwritev2(2).
    fn append(&self, caller: &Caller, moves: bool, source: &mut dyn Source) -> TryResult<usize> {
        let _ = (caller, moves, source);
        Err(Errno::EOPNOTSUPP.into())
    }
    /// lseek(2); the new position.
    fn seek(&self, to: SeekFrom) -> TryResult<u64> {
        let _ = to;
        Err(Errno::ESPIPE.into())
    }

    /// What it is ready for now.
    fn poll(&self, caller: &Caller) -> TryResult<Ready> {
        let _ = caller;
        done(Ready::IN | Ready::OUT)
    }
    /// Tells `waker` when something of `mask` (or ERR, HUP) may have become true.
    fn subscribe(&self, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        let _ = (mask, waker);
        Subscription::never()
    }
    /// Whether epoll can watch it (regular files and directories cannot: `EPERM`).
    fn can_epoll(&self) -> bool {
        true
    }

    /// ioctl(2).
    fn ioctl(&self, caller: &Caller, request: Ioctl) -> TryResult<IoctlReply> {
        let _ = (caller, request);
        Err(Errno::ENOTTY.into())
    }

    /// fstat(2).
    fn stat(&self) -> TryResult<Stat>;
    /// fchmod(2), fchown(2), futimens(3), ftruncate(2).
    fn set_attr(&self, caller: &Caller, change: SetAttr) -> TryResult<()> {
        let _ = (caller, change);
        Err(Errno::EINVAL.into())
    }
    /// fstatfs(2).
    fn stat_fs(&self) -> TryResult<StatFs> {
        Err(Errno::ENOSYS.into())
    }
    /// fallocate(2); `mode` has the `FALLOC_FL_*` bits.
    fn allocate(&self, caller: &Caller, mode: u32, offset: u64, length: u64) -> TryResult<()> {
        let _ = (caller, mode, offset, length);
        Err(Errno::ENODEV.into())
    }
    /// fsync(2), fdatasync(2).
    fn sync(&self) -> TryResult<()> {
        Err(Errno::EINVAL.into())
    }
    /// getdents64(2): entries from the current position until the sink is full; how many.
    fn read_dir(&self, sink: &mut dyn DirSink) -> TryResult<usize> {
        let _ = sink;
        Err(Errno::ENOTDIR.into())
    }

    /// The file behind it, if it has a place in a file system.
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        None
    }
    /// Where in the tree it was opened, for fchdir(2), `*at` calls and `/proc/PID/fd`.
    fn place(&self) -> Option<Place> {
        None
    }
    /// What it is, if it has an inode, wherever that is.
    fn kind(&self) -> Option<FileKind> {
        self.inode().map(|inode| inode.kind())
    }
    /// The name of its inode in the machine.
    fn inode_id(&self) -> Option<ObjectId> {
        self.inode().map(|inode| inode.id())
    }
    /// Where to open it once more (`/proc/PID/fd/N`): its place, or one without a path.
    fn find_place(&self) -> TryResult<Option<Place>> {
        done(self.place())
    }
    /// What mmap(2) maps.
    ///
    /// # Errors
    /// `ENODEV` if it cannot be mapped.
    fn memory(&self) -> Result<Arc<dyn MemoryObject>> {
        Err(Errno::ENODEV.into())
    }
    /// What a shared mapping maps: the pages that everybody sees who has the file. `writable`: it may be written through memory.
    ///
    /// # Errors
    /// As [`OpenFile::memory`]; `EHOSTDOWN`.
    fn share(&self, writable: bool) -> TryResult<Arc<dyn MemoryObject>> {
        let _ = writable;
        done(self.memory()?)
    }
    /// What `/proc/PID/fd` shows, `pipe:[12]` for example.
    fn describe(&self) -> String;
    /// flock(2) and the record locks of fcntl(2): takes or gives back. `vfs` is that of the file's home.
    fn lock(&self, vfs: &Arc<Vfs>, change: Change) -> TryResult<()> {
        let _ = (vfs, change);
        Err(Errno::ENOLCK.into())
    }
    /// F_GETLK: what is in the way.
    fn lock_conflict(&self, vfs: &Arc<Vfs>, wanted: &Lock) -> TryResult<Option<Lock>> {
        let _ = (vfs, wanted);
        Err(Errno::ENOLCK.into())
    }
    /// Tells `waker` when `wanted` may have become free, until the answer is dropped.
    fn lock_wait(&self, vfs: &Arc<Vfs>, wanted: &Lock, waker: Arc<dyn Wake>) -> Subscription {
        let _ = (vfs, wanted, waker);
        Subscription::never()
    }
    /// The process `caller` goes on at `kernel` and has the file there: its record locks go with it.
    fn arrived(&self, caller: &Caller, kernel: KernelId) {
        let _ = (caller, kernel);
    }
    /// A descriptor of a process was closed (close(2)): file locks of that process go. Not the last reference: that is `Drop`.
    fn flush(&self, vfs: &Arc<Vfs>, caller: &Caller) {
        let _ = (vfs, caller);
    }
    /// What socket calls do with it, if it is a socket.
    fn socket(&self) -> Option<Arc<dyn Socket>> {
        None
    }
    /// For the layers that know the concrete type (epoll, sockets, SCM_RIGHTS).
    fn as_any(&self) -> &dyn core::any::Any;
}
