//! Things without a name in a file system: inodes of pipes, sockets and events, and descriptors that only name a place (O_PATH).

use alloc::{string::String, sync::Arc};

use base::{
    Errno, ObjectId, TryResult,
    io::{Sink, Source},
    wait::done,
};
use hal::sync::{SpinLock, rank};

use crate::{
    Caller, Device, Env, Inode, LocalFile, OpenFile, Place, ReadOut, Vfs,
    local::FileOps,
    types::{FileKind, OpenFlags, SetAttr, Stat, StatFs, Status, Time},
};

/// `ANON_INODE_FS_MAGIC`.
const ANON_MAGIC: u64 = 0x0904_1934;
/// The device number of everything without a file system.
const ANON_DEVICE: Device = Device::new(0, 14);

struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    times: [Time; 3],
}

/// The inode of something without a name.
pub struct AnonInode {
    id: ObjectId,
    ino: u64,
    kind: FileKind,
    meta: SpinLock<Meta>,
    /// What a second open through `/proc/PID/fd` opens.
    open: Option<alloc::boxed::Box<dyn Reopen>>,
}

/// Opens something without a name again.
pub trait Reopen: Send + Sync {
    /// See [`Inode::open`].
    ///
    /// # Errors
    /// `ENXIO` if that makes no sense.
    fn reopen(&self, caller: &Caller, flags: OpenFlags, status: Status, place: Place) -> TryResult<Arc<dyn OpenFile>>;
}

impl AnonInode {
    /// An inode with this number and permission bits, owned by root, at the epoch.
    pub fn new(id: ObjectId, ino: u64, kind: FileKind, mode: u32) -> Arc<Self> {
        let meta = Meta { mode, uid: 0, gid: 0, times: [Time(0); 3] };
        Arc::new(Self { id, ino, kind, meta: SpinLock::new(rank::INODE, meta), open: None })
    }

    /// One of `caller`, made now.
    pub fn of(
        env: &dyn Env,
        ino: u64,
        caller: &Caller,
        kind: FileKind,
        mode: u32,
        open: Option<alloc::boxed::Box<dyn Reopen>>,
    ) -> Arc<Self> {
        let now = Time(env.realtime());
        let meta = Meta { mode, uid: caller.uid, gid: caller.gid, times: [now; 3] };
        Arc::new(Self { id: env.new_id(), ino, kind, meta: SpinLock::new(rank::INODE, meta), open })
    }
}

impl Inode for AnonInode {
    fn id(&self) -> ObjectId {
        self.id
    }

    fn kind(&self) -> FileKind {
        self.kind
    }

    fn stat(&self) -> TryResult<Stat> {
        let meta = self.meta.lock();
        done(Stat {
            device: ANON_DEVICE,
            inode: self.ino,
            kind: self.kind,
            mode: meta.mode,
            links: 1,
            uid: meta.uid,
            gid: meta.gid,
            rdev: Device::default(),
            size: 0,
            block_size: 4096,
            blocks: 0,
            accessed: meta.times[0],
            modified: meta.times[1],
            changed: meta.times[2],
            born: meta.times[2],
        })
    }

    fn set_attr(&self, caller: &Caller, mut change: SetAttr) -> TryResult<()> {
        if change.size.is_some() {
            return Err(Errno::EINVAL.into());
        }
        if let base::Try::Done(stat) = self.stat()? {
            caller.check_change(&stat, &mut change)?;
        }
        let mut meta = self.meta.lock();
        meta.mode = change.mode.unwrap_or(meta.mode);
        meta.uid = change.uid.unwrap_or(meta.uid);
        meta.gid = change.gid.unwrap_or(meta.gid);
        meta.times[0] = change.accessed.unwrap_or(meta.times[0]);
        meta.times[1] = change.modified.unwrap_or(meta.times[1]);
        done(())
    }

    fn open(
        self: Arc<Self>,
        caller: &Caller,
        flags: OpenFlags,
        status: Status,
        place: Place,
    ) -> TryResult<Arc<dyn OpenFile>> {
        match &self.open {
            Some(open) => open.reopen(caller, flags, status, place),
            None => Err(Errno::ENXIO.into()),
        }
    }

    fn stat_fs(&self) -> TryResult<StatFs> {
        done(StatFs { magic: ANON_MAGIC, block_size: 4096, name_max: 255, ..StatFs::default() })
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// Opens `ops` without a name: an eventfd, an epoll instance. `label` is what `/proc/PID/fd` shows, `anon_inode:[eventfd]`.
pub fn open(
    vfs: &Vfs,
    caller: &Caller,
    ops: Arc<dyn FileOps>,
    label: &str,
    flags: OpenFlags,
    status: Status,
) -> Arc<LocalFile> {
    let env = vfs.env();
    // All anonymous inodes are one on Linux: mode 0600, no type. Character device is the nearest that stat(2) can say.
    let inode = AnonInode::of(&**env, 1, caller, FileKind::Regular, 0o600, None);
    let place = vfs.anonymous(inode, label.as_bytes());
    LocalFile::new(env.new_id(), ops, place, flags, status)
}

/// A descriptor that only names a place: O_PATH.
pub struct PathFile {
    id: ObjectId,
    place: Place,
}

impl PathFile {
    /// Names `place`.
    pub fn new(id: ObjectId, place: Place) -> Arc<dyn OpenFile> {
        Arc::new(Self { id, place })
    }
}

impl OpenFile for PathFile {
    fn id(&self) -> ObjectId {
        self.id
    }
    fn flags(&self) -> OpenFlags {
        OpenFlags::PATH
    }
    fn status(&self) -> Status {
        Status::empty()
    }
    fn set_status(&self, _: Status) -> TryResult<()> {
        Err(Errno::EBADF.into())
    }
    fn read(&self, _: &Caller, _: &mut dyn Sink) -> TryResult<ReadOut> {
        Err(Errno::EBADF.into())
    }
    fn read_at(&self, _: &Caller, _: u64, _: &mut dyn Sink) -> TryResult<ReadOut> {
        Err(Errno::EBADF.into())
    }
    fn write(&self, _: &Caller, _: &mut dyn Source) -> TryResult<usize> {
        Err(Errno::EBADF.into())
    }
    fn write_at(&self, _: &Caller, _: u64, _: &mut dyn Source) -> TryResult<usize> {
        Err(Errno::EBADF.into())
    }
    fn seek(&self, _: crate::SeekFrom) -> TryResult<u64> {
        Err(Errno::EBADF.into())
    }
    fn ioctl(&self, _: &Caller, _: crate::Ioctl) -> TryResult<crate::IoctlReply> {
        Err(Errno::EBADF.into())
    }
    fn stat(&self) -> TryResult<Stat> {
        self.place.inode().stat()
    }
    fn set_attr(&self, _: &Caller, _: SetAttr) -> TryResult<()> {
        Err(Errno::EBADF.into())
    }
    fn stat_fs(&self) -> TryResult<StatFs> {
        self.place.inode().stat_fs()
    }
    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.place.inode().clone())
    }
    fn place(&self) -> Option<Place> {
        Some(self.place.clone())
    }
    fn memory(&self) -> base::Result<Arc<dyn mm::MemoryObject>> {
        Err(Errno::EBADF.into())
    }
    fn describe(&self) -> String {
        String::from_utf8_lossy(&self.place.path(None).0).into_owned()
    }
    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
