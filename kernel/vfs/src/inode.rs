//! A file, directory, link or device in a file system. The remote one is another implementation.

use alloc::{sync::Arc, vec::Vec};

use base::{
    Errno, Error, KernelId, ObjectId, Result,
    wait::{Try, TryResult, done},
};

use crate::{
    Caller, OpenFile, Place,
    socket::Address,
    types::{Access, Device, FileKind, OpenFlags, SetAttr, Stat, StatFs, Status},
};

/// What is made in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NewNode {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link with this target.
    Symlink(Vec<u8>),
    /// A FIFO.
    Fifo,
    /// The name of a unix socket.
    Socket,
    /// A device node.
    Device(FileKind, Device),
}

/// One entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// The file.
    pub inode: u64,
    /// What it is.
    pub kind: FileKind,
    /// The position behind it: where a later read goes on.
    pub next: u64,
}

/// Takes directory entries.
pub trait DirSink {
    /// Takes an entry; `false` if it does not fit, in which case it is not taken.
    fn put(&mut self, name: &[u8], inode: u64, kind: FileKind, next: u64) -> bool;
}

impl DirSink for Vec<Entry> {
    fn put(&mut self, name: &[u8], inode: u64, kind: FileKind, next: u64) -> bool {
        self.push(Entry { name: name.into(), inode, kind, next });
        true
    }
}

bitflags::bitflags! {
    /// renameat2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RenameFlags: u32 {
        /// Fail if the new name is there.
        const NO_REPLACE = 1;
        /// Exchange the two.
        const EXCHANGE = 2;
    }
}

impl NewNode {
    /// What it will be.
    pub const fn kind(&self) -> FileKind {
        match self {
            Self::Regular => FileKind::Regular,
            Self::Directory => FileKind::Directory,
            Self::Symlink(_) => FileKind::Symlink,
            Self::Fifo => FileKind::Fifo,
            Self::Socket => FileKind::Socket,
            Self::Device(kind, _) => *kind,
        }
    }
}

/// See the module. Names are single components, without `/`, never `.` or `..`, 255 bytes at most. Every operation checks permissions itself, where the
/// file is at home, so a walk through a remote tree costs one message a component.
pub trait Inode: Send + Sync {
    /// Its name in the machine.
    fn id(&self) -> ObjectId;
    /// What it is. Never changes.
    fn kind(&self) -> FileKind;
    /// Attributes.
    fn stat(&self) -> TryResult<Stat>;
    /// chmod, chown, utimensat, truncate.
    fn set_attr(&self, caller: &Caller, change: SetAttr) -> TryResult<()>;

    /// access(2).
    ///
    /// # Errors
    /// `EACCES`.
    fn access(&self, caller: &Caller, access: Access) -> TryResult<()> {
        match self.stat()? {
            Try::Done(stat) => done(stat.check(caller, access)?),
            _ => Err(Errno::EIO.into()),
        }
    }

    /// If the caller may search this directory and names found in it may be kept: a number that changes whenever a name does.
    fn names_version(&self, caller: &Caller) -> Option<u64> {
        let _ = caller;
        None
    }
    /// The entry with this name; the caller needs search permission.
    fn lookup(&self, caller: &Caller, name: &[u8]) -> TryResult<Arc<dyn Inode>> {
        let _ = (caller, name);
        Err(Errno::ENOTDIR.into())
    }
    /// Makes an entry; owner and group from the caller, the umask is applied here.
    fn create(&self, caller: &Caller, name: &[u8], node: NewNode, mode: u32) -> TryResult<Arc<dyn Inode>> {
        let _ = (caller, name, node, mode);
        Err(Errno::ENOTDIR.into())
    }
    /// A regular file without a name (O_TMPFILE).
    fn create_unnamed(&self, caller: &Caller, mode: u32) -> TryResult<Arc<dyn Inode>> {
        let _ = (caller, mode);
        Err(Errno::EOPNOTSUPP.into())
    }
    /// A second name for `target`, which is of the same file system (`EXDEV` otherwise).
    fn link(&self, caller: &Caller, name: &[u8], target: &Arc<dyn Inode>) -> TryResult<()> {
        let _ = (caller, name, target);
        Err(Errno::ENOTDIR.into())
    }
    /// Takes a name away: of a directory (rmdir) or of anything else (unlink).
    fn unlink(&self, caller: &Caller, name: &[u8], directory: bool) -> TryResult<()> {
        let _ = (caller, name, directory);
        Err(Errno::ENOTDIR.into())
    }
    /// Moves an entry to `to`, which is of the same file system (`EXDEV` otherwise).
    fn rename(
        &self,
        caller: &Caller,
        name: &[u8],
        to: &Arc<dyn Inode>,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> TryResult<()> {
        let _ = (caller, name, to, new_name, flags);
        Err(Errno::ENOTDIR.into())
    }
    /// The target of a symbolic link.
    fn read_link(&self, caller: &Caller) -> TryResult<Vec<u8>> {
        let _ = caller;
        Err(Errno::EINVAL.into())
    }
    /// For links that are not a path but a place (`/proc/PID/fd/N`, `/proc/PID/exe`): where they lead.
    fn follow(&self, caller: &Caller) -> TryResult<Option<Place>> {
        let _ = caller;
        done(None)
    }
    /// Opens it, found at `place`. Checks permission for `READ` and `WRITE` unless `CREATED` is set, and cuts a regular file under `TRUNCATE`. A FIFO answers
    /// `Started` until there is somebody at the other end.
    fn open(
        self: Arc<Self>,
        caller: &Caller,
        flags: OpenFlags,
        status: Status,
        place: Place,
    ) -> TryResult<Arc<dyn OpenFile>>;
    /// The name of a socket stands for it from now on.
    fn bind_socket(&self, caller: &Caller, address: &Arc<dyn Address>) -> TryResult<()> {
        let _ = (caller, address);
        Err(Error::new(Errno::EOPNOTSUPP, "no sockets in this file system"))
    }
    /// What the name of a socket stands for.
    fn socket_address(&self, caller: &Caller) -> TryResult<Arc<dyn Address>> {
        let _ = caller;
        Err(Error::new(Errno::ECONNREFUSED, "nobody is bound there"))
    }
    /// The file system.
    fn stat_fs(&self) -> TryResult<StatFs>;
    /// Where [`crate::inotify::Watches`] hears what happens to it: at this kernel (`None`) or at another.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if nobody tells; `EHOSTDOWN`.
    fn teller(&self) -> Result<Option<KernelId>> {
        Err(Error::new(Errno::EOPNOTSUPP, "the file system does not tell"))
    }
    /// For the file system that knows the concrete type.
    fn as_any(&self) -> &dyn core::any::Any;
}

/// Whether two are the same file.
pub fn same(a: &Arc<dyn Inode>, b: &Arc<dyn Inode>) -> bool {
    core::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b)) || a.id() == b.id()
}
