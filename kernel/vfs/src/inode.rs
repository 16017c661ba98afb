//! A file, directory, link or device in a file system. The remote one is another implementation.

use alloc::{sync::Arc, vec::Vec};

use base::{Errno, ObjectId, wait::TryResult};

use crate::{
    Caller, OpenFile,
    types::{Device, FileKind, OpenFlags, SetAttr, Stat, StatFs, Status},
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

/// See the module. Names are single components, without `/`, never `.` or `..`. Permissions of the directory were checked by the walk; what only the
/// file system can check atomically (sticky bit, existence) it checks itself.
pub trait Inode: Send + Sync {
    /// Its name in the machine.
    fn id(&self) -> ObjectId;
    /// What it is. Never changes.
    fn kind(&self) -> FileKind;
    /// Attributes.
    fn stat(&self) -> TryResult<Stat>;
    /// chmod, chown, utimensat, truncate.
    fn set_attr(&self, caller: &Caller, change: SetAttr) -> TryResult<()>;

    /// The entry with this name.
    fn lookup(&self, name: &[u8]) -> TryResult<Arc<dyn Inode>> {
        let _ = name;
        Err(Errno::ENOTDIR.into())
    }
    /// Makes an entry; owner and group from the caller, `mode` already masked.
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
    fn read_link(&self) -> TryResult<Vec<u8>> {
        Err(Errno::EINVAL.into())
    }
    /// For links that are not a path but a place (`/proc/PID/fd/N`, `/proc/PID/exe`): where they lead.
    fn follow(&self, caller: &Caller) -> TryResult<Option<Arc<dyn Inode>>> {
        let _ = caller;
        base::wait::done(None)
    }
    /// Opens it. Permissions were checked.
    fn open(self: Arc<Self>, caller: &Caller, flags: OpenFlags, status: Status) -> TryResult<Arc<dyn OpenFile>>;
    /// The file system.
    fn stat_fs(&self) -> TryResult<StatFs>;
    /// For the file system that knows the concrete type.
    fn as_any(&self) -> &dyn core::any::Any;
}
