//! Files in memory: `/tmp`, `/dev`, and the root, whose base tree comes from the archive ([`archive`]).
//!
//! Content lies in [`mm::PageCache`]s, so `mmap` shares its pages. A file of the archive is a cache over the archive: its pages are had when they are
//! first used, dropped when memory is short, and what is written stays in the cache. So there is no second layer, no copy-up and no whiteout: what is
//! taken away from the tree is gone from the tree.

pub mod archive;
mod dir;
mod events;
mod file;
mod mount;
#[cfg(test)]
mod tests;

use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};
use core::{
    any::Any,
    sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering},
};

use base::{Errno, Error, KernelId, ObjectId, Result, TryResult, wait::done};
use hal::sync::{SpinLock, rank};
use mm::{MemoryObject, PageCache, cache::Quota};

use crate::{
    Caller, Device, Inode, OpenFile, Place, Vfs,
    caller::cap,
    inode::{NewNode, RenameFlags},
    inotify::Mask,
    local::LocalFile,
    pipe::Pipe,
    socket::Address,
    types::{Access, FileKind, OpenFlags, SetAttr, Stat, StatFs, Status, Time},
    watches::Watches,
};
use dir::Dir;
pub use mount::TmpfsType;

/// `TMPFS_MAGIC`.
const MAGIC: u64 = 0x0102_1994;
const PAGE: u64 = 4096;

/// One file system.
pub struct Tmpfs {
    vfs: Weak<Vfs>,
    env: Arc<dyn crate::Env>,
    device: Device,
    next_ino: AtomicU64,
    /// All changes of names are made one after the other.
    changes: SpinLock<()>,
    /// How many inodes there are.
    files: AtomicI64,
    /// What the content of its files may take; `None` is no limit.
    quota: Option<Arc<Quota>>,
    /// The most inodes.
    max_files: i64,
    /// Who watches files here.
    watches: Arc<Watches>,
}

/// What a file system may take, tmpfs(5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The most bytes of file content, in whole pages; `None` is no limit.
    pub bytes: Option<u64>,
    /// The most inodes; `None` is no limit.
    pub files: Option<u64>,
}

impl Limits {
    /// None.
    pub const NONE: Self = Self { bytes: None, files: None };

    /// Half of the memory of this kernel, as on Linux, which counts one inode for each of these pages.
    pub fn of_memory() -> Self {
        let half = hal::frame::stats().total as u64 / 2;
        Self { bytes: Some(half * PAGE), files: Some(half) }
    }
}

struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    accessed: Time,
    modified: Time,
    changed: Time,
}

enum Content {
    Regular(Arc<PageCache>),
    Directory(Dir),
    Symlink(Vec<u8>),
    Fifo(Arc<Pipe>),
    Socket(SpinLock<Option<Arc<dyn Address>>>),
    Device(Device),
}

/// One file.
pub struct TmpInode {
    me: Weak<Self>,
    fs: Arc<Tmpfs>,
    id: ObjectId,
    ino: u64,
    kind: FileKind,
    born: Time,
    meta: SpinLock<Meta>,
    content: Content,
    /// Opens for writing, less opens for execution: `ETXTBSY`.
    writers: AtomicI64,
    /// How often it is open.
    opens: AtomicU32,
    /// It is an unchanged file of the archive.
    base: AtomicBool,
}

impl Tmpfs {
    /// An empty file system whose root belongs to root.
    pub fn new(vfs: &Arc<Vfs>, mode: u32, limits: Limits) -> Arc<TmpInode> {
        let fs = Arc::new(Self {
            vfs: Arc::downgrade(vfs),
            env: vfs.env().clone(),
            device: vfs.new_device(),
            next_ino: AtomicU64::new(1),
            changes: SpinLock::new(rank::DIRECTORY, ()),
            files: AtomicI64::new(0),
            quota: limits.bytes.map(|bytes| Arc::new(Quota::new(bytes.div_ceil(PAGE)))),
            watches: vfs.watches.clone(),
            max_files: limits.files.map_or(i64::MAX, |n| i64::try_from(n).unwrap_or(i64::MAX)),
        });
        TmpInode::new(&fs, Content::Directory(Dir::new(Weak::new())), FileKind::Directory, mode, (0, 0))
    }

    fn now(&self) -> Time {
        Time(self.env.realtime())
    }

    /// Whether there may be one inode more.
    fn check_files(&self) -> Result<()> {
        if self.files.load(Ordering::Relaxed) < self.max_files {
            Ok(())
        } else {
            Err(Error::new(Errno::ENOSPC, "no more inodes"))
        }
    }
}

impl Drop for TmpInode {
    fn drop(&mut self) {
        self.fs.files.fetch_sub(1, Ordering::Relaxed);
    }
}

impl TmpInode {
    fn new(fs: &Arc<Tmpfs>, content: Content, kind: FileKind, mode: u32, owner: (u32, u32)) -> Arc<Self> {
        let now = fs.now();
        fs.files.fetch_add(1, Ordering::Relaxed);
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            fs: fs.clone(),
            id: fs.env.new_id(),
            ino: fs.next_ino.fetch_add(1, Ordering::Relaxed),
            kind,
            born: now,
            meta: SpinLock::new(
                rank::INODE,
                Meta {
                    mode,
                    uid: owner.0,
                    gid: owner.1,
                    links: if kind == FileKind::Directory { 2 } else { 1 },
                    accessed: now,
                    modified: now,
                    changed: now,
                },
            ),
            content,
            writers: AtomicI64::new(0),
            opens: AtomicU32::new(0),
            base: AtomicBool::new(false),
        })
    }

    fn make(&self, what: NewNode, mode: u32, owner: (u32, u32)) -> Arc<Self> {
        let kind = what.kind();
        let content = match what {
            NewNode::Regular => Content::Regular(match &self.fs.quota {
                Some(quota) => PageCache::within(self.fs.env.memory(), quota.clone()),
                None => PageCache::new(self.fs.env.memory(), 0),
            }),
            NewNode::Directory => Content::Directory(Dir::new(self.me.clone())),
            NewNode::Symlink(target) => Content::Symlink(target),
            NewNode::Fifo => Content::Fifo(Pipe::new()),
            NewNode::Socket => Content::Socket(SpinLock::new(rank::EVENT, None)),
            NewNode::Device(_, device) => Content::Device(device),
        };
        Self::new(&self.fs, content, kind, mode, owner)
    }

    /// Makes an entry without asking anybody; for the kernel's own set-up.
    ///
    /// # Errors
    /// `EEXIST`, `ENOTDIR`.
    pub fn add(&self, name: &[u8], what: NewNode, mode: u32) -> Result<Arc<Self>> {
        let _changes = self.fs.changes.lock();
        let node = self.make(what, mode, (0, 0));
        self.insert(name, &node)?;
        Ok(node)
    }

    /// The entry with this name, if it is there.
    pub fn get(&self, name: &[u8]) -> Option<Arc<Self>> {
        match &self.content {
            Content::Directory(dir) => dir.get(name),
            _ => None,
        }
    }

    fn dir(&self) -> Result<&Dir> {
        match &self.content {
            Content::Directory(dir) => Ok(dir),
            _ => Err(Error::new(Errno::ENOTDIR, "not a directory")),
        }
    }

    /// Puts an entry in, with `changes` held.
    fn insert(&self, name: &[u8], node: &Arc<Self>) -> Result<()> {
        let dir = self.dir()?;
        dir.insert(name, node.clone())?;
        if node.kind == FileKind::Directory {
            self.meta.lock().links += 1;
        }
        self.touch();
        Ok(())
    }

    /// Content changed just now.
    fn touch(&self) {
        let now = self.fs.now();
        let mut meta = self.meta.lock();
        meta.modified = now;
        meta.changed = now;
    }

    fn touch_links(&self, change: i32) {
        let now = self.fs.now();
        let mut meta = self.meta.lock();
        meta.links = meta.links.saturating_add_signed(change);
        meta.changed = now;
    }

    fn stat_now(&self) -> Stat {
        let meta = self.meta.lock();
        let (size, held) = match &self.content {
            Content::Regular(cache) => (cache.size(), None),
            Content::Symlink(target) => (target.len() as u64, Some(0)),
            Content::Directory(dir) => (dir.len() as u64 * 20 + 40, Some(0)),
            _ => (0, Some(0)),
        };
        let stat = Stat {
            device: self.fs.device,
            inode: self.ino,
            kind: self.kind,
            mode: meta.mode,
            links: meta.links,
            uid: meta.uid,
            gid: meta.gid,
            rdev: if let Content::Device(device) = self.content { device } else { Device::default() },
            size,
            block_size: PAGE as u32,
            blocks: held.unwrap_or(0),
            accessed: meta.accessed,
            modified: meta.modified,
            changed: meta.changed,
            born: self.born,
        };
        drop(meta);
        match &self.content {
            // A file of the archive fills what it says, whatever of it is in memory now.
            Content::Regular(_) if self.base.load(Ordering::Relaxed) => {
                Stat { blocks: size.div_ceil(PAGE) * (PAGE / 512), ..stat }
            }
            Content::Regular(cache) => Stat { blocks: cache.held() / 512, ..stat },
            _ => stat,
        }
    }

    fn may(&self, caller: &Caller, access: Access) -> Result<()> {
        let mode = self.meta.lock().mode;
        // Most files grant to everybody what most callers want.
        let wanted = u32::from(access.bits());
        if mode & wanted == wanted && (mode >> 3) & wanted == wanted && (mode >> 6) & wanted == wanted {
            return Ok(());
        }
        self.stat_now().check(caller, access)
    }

    /// For a change of names in this directory.
    fn may_change(&self, caller: &Caller) -> Result<()> {
        self.may(caller, Access::WRITE | Access::EXECUTE)?;
        if self.dir()?.is_dead() { Err(Error::new(Errno::ENOENT, "the directory was removed")) } else { Ok(()) }
    }

    /// Whether it is a file of the archive that nobody changed: a replica elsewhere has the same bytes.
    pub fn is_base(&self) -> bool {
        self.base.load(Ordering::Relaxed)
    }

    /// The content of a regular file.
    pub fn content(&self) -> Option<Arc<dyn MemoryObject>> {
        match &self.content {
            Content::Regular(cache) => Some(cache.clone()),
            _ => None,
        }
    }

    fn of(inode: &Arc<dyn Inode>, fs: &Arc<Tmpfs>) -> Result<Arc<Self>> {
        match inode.as_any().downcast_ref::<Self>() {
            Some(node) if Arc::ptr_eq(&node.fs, fs) => node.me.upgrade().ok_or(Errno::ENOENT.into()),
            _ => Err(Error::new(Errno::EXDEV, "another file system")),
        }
    }

    fn set_size(&self, caller: &Caller, size: u64) -> TryResult<()> {
        let Content::Regular(cache) = &self.content else {
            return Err(if self.kind == FileKind::Directory { Errno::EISDIR } else { Errno::EINVAL }.into());
        };
        if i64::try_from(size).is_err() {
            return Err(Errno::EINVAL.into());
        }
        if size > cache.size() && size > caller.file_size_limit {
            return Err(Error::new(Errno::EFBIG, "beyond RLIMIT_FSIZE"));
        }
        let tried = cache.resize(size)?;
        self.base.store(false, Ordering::Relaxed);
        self.written(caller);
        Ok(tried)
    }

    /// Content was written by `caller`.
    fn written(&self, caller: &Caller) {
        let now = self.fs.now();
        let mut meta = self.meta.lock();
        meta.modified = now;
        meta.changed = now;
        if meta.mode & 0o6000 != 0 && !caller.can(cap::FSETID) {
            meta.mode &= if meta.mode & 0o010 != 0 { !0o6000 } else { !0o4000 };
        }
    }
}

impl Inode for TmpInode {
    fn id(&self) -> ObjectId {
        self.id
    }

    fn kind(&self) -> FileKind {
        self.kind
    }

    fn bind_socket(&self, _: &Caller, address: &Arc<dyn Address>) -> TryResult<()> {
        let Content::Socket(slot) = &self.content else {
            return Err(Error::new(Errno::EINVAL, "not the name of a socket"));
        };
        let old = slot.lock().replace(address.clone());
        drop(old);
        done(())
    }

    fn socket_address(&self, caller: &Caller) -> TryResult<Arc<dyn Address>> {
        self.stat_now().check(caller, Access::WRITE)?;
        match &self.content {
            Content::Socket(slot) => done(crate::unix::bound_to(&slot.lock())?),
            _ => done(crate::unix::bound_to(&None)?),
        }
    }

    fn stat(&self) -> TryResult<Stat> {
        done(self.stat_now())
    }

    fn access(&self, caller: &Caller, access: Access) -> TryResult<()> {
        done(self.may(caller, access)?)
    }

    fn set_attr(&self, caller: &Caller, mut change: SetAttr) -> TryResult<()> {
        caller.check_change(&self.stat_now(), &mut change)?;
        if let Some(size) = change.size {
            self.may(caller, Access::WRITE)?;
            match self.set_size(caller, size)? {
                base::Try::Done(()) => {}
                other => return Ok(other),
            }
        }
        if self.fs.watches.is_active() {
            self.fs.tell(self.id, change.event());
        }
        let now = self.fs.now();
        let mut meta = self.meta.lock();
        meta.mode = change.mode.unwrap_or(meta.mode);
        meta.uid = change.uid.unwrap_or(meta.uid);
        meta.gid = change.gid.unwrap_or(meta.gid);
        meta.accessed = change.accessed.map_or(meta.accessed, |t| if change.times_are_now { now } else { t });
        meta.modified = change.modified.map_or(meta.modified, |t| if change.times_are_now { now } else { t });
        meta.changed = now;
        done(())
    }

    #[inline]
    fn names_version(&self, caller: &Caller) -> Option<u64> {
        match &self.content {
            Content::Directory(dir) if self.may(caller, Access::EXECUTE).is_ok() => Some(dir.version()),
            _ => None,
        }
    }

    fn lookup(&self, caller: &Caller, name: &[u8]) -> TryResult<Arc<dyn Inode>> {
        let dir = self.dir()?;
        self.may(caller, Access::EXECUTE)?;
        match dir.get(name) {
            Some(node) => done(node),
            None => Err(Error::new(Errno::ENOENT, "no such file")),
        }
    }

    fn create(&self, caller: &Caller, name: &[u8], what: NewNode, mode: u32) -> TryResult<Arc<dyn Inode>> {
        let dir = self.dir()?;
        if dir.get(name).is_some() {
            self.may(caller, Access::EXECUTE)?;
            return Err(Errno::EEXIST.into());
        }
        self.may_change(caller)?;
        if let NewNode::Device(..) = what
            && !caller.can(cap::MKNOD)
        {
            return Err(Errno::EPERM.into());
        }
        let is_dir = what.kind() == FileKind::Directory;
        let (mut mode, gid) = caller.new_mode(&self.stat_now(), mode, is_dir);
        if what.kind() == FileKind::Symlink {
            mode = 0o777;
        }
        self.fs.check_files()?;
        let node = self.make(what, mode, (caller.uid, gid));
        let changes = self.fs.changes.lock();
        if dir.is_dead() {
            return Err(Errno::ENOENT.into());
        }
        self.insert(name, &node)?;
        drop(changes);
        self.tell_name(Mask::CREATE, name, &node);
        done(node)
    }

    fn create_unnamed(&self, caller: &Caller, mode: u32) -> TryResult<Arc<dyn Inode>> {
        self.may_change(caller)?;
        let (mode, gid) = caller.new_mode(&self.stat_now(), mode, false);
        self.fs.check_files()?;
        let node = self.make(NewNode::Regular, mode, (caller.uid, gid));
        node.meta.lock().links = 0;
        done(node)
    }

    fn link(&self, caller: &Caller, name: &[u8], target: &Arc<dyn Inode>) -> TryResult<()> {
        let target = Self::of(target, &self.fs)?;
        self.may_change(caller)?;
        if target.kind == FileKind::Directory {
            return Err(Errno::EPERM.into());
        }
        let changes = self.fs.changes.lock();
        self.insert(name, &target)?;
        target.touch_links(1);
        drop(changes);
        self.fs.tell(target.id, Mask::ATTRIB);
        self.tell_name(Mask::CREATE, name, &target);
        done(())
    }

    fn unlink(&self, caller: &Caller, name: &[u8], directory: bool) -> TryResult<()> {
        let dir = self.dir()?;
        let no_entry = || self.may(caller, Access::EXECUTE).err().unwrap_or(Errno::ENOENT.into());
        let node = dir.get(name).ok_or_else(no_entry)?;
        self.may_change(caller)?;
        node.stat_now().check_sticky(&self.stat_now(), caller)?;
        let changes = self.fs.changes.lock();
        match (&node.content, directory) {
            (Content::Directory(_), false) => return Err(Errno::EISDIR.into()),
            (Content::Directory(inner), true) => inner.kill()?,
            (_, true) => return Err(Errno::ENOTDIR.into()),
            _ => {}
        }
        if !dir.remove(name, &node) {
            return Err(Errno::ENOENT.into());
        }
        if directory {
            self.meta.lock().links -= 1;
            node.meta.lock().links = 0;
        } else {
            node.touch_links(-1);
        }
        self.touch();
        drop(changes);
        if !directory {
            self.fs.tell(node.id, Mask::ATTRIB);
        }
        self.tell_name(Mask::DELETE, name, &node);
        node.check_gone();
        done(())
    }

    fn rename(
        &self,
        caller: &Caller,
        name: &[u8],
        to: &Arc<dyn Inode>,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> TryResult<()> {
        let to = Self::of(to, &self.fs)?;
        self.may_change(caller)?;
        to.may_change(caller)?;
        let changes = self.fs.changes.lock();
        let (from_dir, to_dir) = (self.dir()?, to.dir()?);
        let node = from_dir.get(name).ok_or(Errno::ENOENT)?;
        let there = to_dir.get(new_name);
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        if to_dir.is_dead() {
            return Err(Errno::ENOENT.into());
        }
        node.stat_now().check_sticky(&self.stat_now(), caller)?;
        if let Some(there) = &there {
            if flags.contains(RenameFlags::NO_REPLACE) {
                return Err(Errno::EEXIST.into());
            }
            there.stat_now().check_sticky(&to.stat_now(), caller)?;
        } else if exchange {
            return Err(Errno::ENOENT.into());
        }
        let inside = Error::new(Errno::EINVAL, "a directory cannot move into itself");
        if node.contains(&to) {
            return Err(inside);
        }
        let is_dir = |n: &Arc<Self>| n.kind == FileKind::Directory;
        if exchange {
            let Some(there) = &there else { return Err(Errno::ENOENT.into()) };
            if there.contains(self) {
                return Err(inside);
            }
            from_dir.put(name, there.clone());
            to_dir.put(new_name, node.clone());
            if !core::ptr::eq(self, Arc::as_ptr(&to)) && is_dir(&node) != is_dir(there) {
                let (gains, loses) = if is_dir(&node) { (&*to, self) } else { (self, &*to) };
                gains.meta.lock().links += 1;
                loses.meta.lock().links -= 1;
            }
            for (n, parent) in [(&node, to.me.clone()), (there, self.me.clone())] {
                if let Content::Directory(dir) = &n.content {
                    dir.set_parent(parent);
                }
                n.touch_links(0);
            }
        } else {
            if let Some(there) = &there {
                match (&there.content, is_dir(&node)) {
                    (Content::Directory(_), false) => return Err(Errno::EISDIR.into()),
                    (Content::Directory(dir), true) => dir.kill()?,
                    (_, true) => return Err(Errno::ENOTDIR.into()),
                    _ => {}
                }
                if is_dir(there) {
                    there.meta.lock().links = 0;
                    to.meta.lock().links -= 1;
                } else {
                    there.touch_links(-1);
                }
            }
            from_dir.remove(name, &node);
            to_dir.put(new_name, node.clone());
            if let Content::Directory(dir) = &node.content {
                dir.set_parent(to.me.clone());
                self.meta.lock().links -= 1;
                to.meta.lock().links += 1;
            }
            node.touch_links(0);
        }
        self.touch();
        to.touch();
        drop(changes);
        if self.fs.watches.is_active() {
            let dir = if is_dir(&node) { Mask::ISDIR } else { Mask::empty() };
            let cookie = self.fs.watches.cookie();
            self.fs.watches.tell(self.id, Mask::MOVED_FROM | dir, cookie, name);
            self.fs.watches.tell(to.id, Mask::MOVED_TO | dir, cookie, new_name);
            if let Some(replaced) = there.filter(|_| !exchange) {
                self.fs.tell(replaced.id, Mask::ATTRIB);
                replaced.check_gone();
            }
            self.fs.tell(node.id, Mask::MOVE_SELF);
        }
        done(())
    }

    fn read_link(&self, _: &Caller) -> TryResult<Vec<u8>> {
        match &self.content {
            Content::Symlink(target) => done(target.clone()),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    fn open(
        self: Arc<Self>,
        caller: &Caller,
        flags: OpenFlags,
        status: Status,
        place: Place,
    ) -> TryResult<Arc<dyn OpenFile>> {
        if !flags.contains(OpenFlags::CREATED) {
            let mut want = Access::empty();
            want.set(Access::READ, flags.contains(OpenFlags::READ));
            want.set(Access::WRITE, flags.intersects(OpenFlags::WRITE | OpenFlags::TRUNCATE));
            want.set(Access::EXECUTE, flags.contains(OpenFlags::EXECUTE));
            self.may(caller, want)?;
        }
        match &self.content {
            Content::Regular(_) => {
                self.hold(flags)?;
                self.opened(&place);
                let file = LocalFile::new(self.fs.env.new_id(), self.clone(), place, flags, status);
                if flags.contains(OpenFlags::TRUNCATE) && !flags.contains(OpenFlags::CREATED) {
                    let root = Caller { file_size_limit: u64::MAX, ..caller.clone() };
                    match self.set_size(&root, 0)? {
                        base::Try::Done(()) => {}
                        base::Try::WouldBlock => return Ok(base::Try::WouldBlock),
                        started @ base::Try::Started(_) => return Ok(started.map(move |()| file as Arc<dyn OpenFile>)),
                    }
                }
                done(file)
            }
            Content::Directory(_) => {
                self.opened(&place);
                done(LocalFile::new(self.fs.env.new_id(), self.clone(), place, flags, status))
            }
            Content::Fifo(pipe) => pipe.open_fifo(self.fs.env.new_id(), flags, status, place),
            Content::Device(device) => {
                let vfs = self.fs.vfs.upgrade().ok_or(Errno::ENXIO)?;
                vfs.devices.find(self.kind, *device)?.open(*device, caller, flags, status, place)
            }
            Content::Socket(_) => Err(Errno::ENXIO.into()),
            Content::Symlink(_) => Err(Errno::ELOOP.into()),
        }
    }

    fn stat_fs(&self) -> TryResult<StatFs> {
        let memory = hal::frame::stats();
        let (total, free) = match &self.fs.quota {
            Some(quota) => (quota.max(), quota.max().saturating_sub(quota.used()).min(memory.free as u64)),
            None => (memory.total as u64, memory.free as u64),
        };
        let files = self.fs.files.load(Ordering::Relaxed).unsigned_abs();
        let most = if self.fs.max_files == i64::MAX { memory.total as u64 } else { self.fs.max_files.unsigned_abs() };
        done(StatFs {
            magic: MAGIC,
            block_size: PAGE,
            blocks: total,
            free,
            files: most,
            free_files: most.saturating_sub(files),
            name_max: 255,
            flags: 0,
        })
    }

    fn teller(&self) -> Result<Option<KernelId>> {
        Ok(None)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl TmpInode {
    /// Whether `other` is this directory or lies below it; with `changes` held.
    fn contains(&self, other: &Self) -> bool {
        if self.kind != FileKind::Directory {
            return false;
        }
        if core::ptr::eq(self, other) {
            return true;
        }
        let mut at = other.dir().ok().and_then(Dir::parent);
        while let Some(node) = at {
            if core::ptr::eq(self, Arc::as_ptr(&node)) {
                return true;
            }
            at = node.dir().ok().and_then(Dir::parent);
        }
        false
    }

    /// Counts an open; `ETXTBSY` between writers and running programs.
    fn hold(&self, flags: OpenFlags) -> Result<()> {
        let step = if flags.contains(OpenFlags::EXECUTE) {
            -1
        } else if flags.contains(OpenFlags::WRITE) {
            1
        } else {
            return Ok(());
        };
        let update = |n: i64| (n == 0 || (n > 0) == (step > 0)).then_some(n + step);
        match self.writers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(Errno::ETXTBSY, "a running program")),
        }
    }
}

/// What has the seals of an open file of tmpfs.
pub fn seals_of(file: &LocalFile) -> Option<&PageCache> {
    match &file.ops().as_any().downcast_ref::<TmpInode>()?.content {
        Content::Regular(cache) => Some(cache),
        _ => None,
    }
}

/// memfd_create(2): a file without a name anywhere. `seals` are there from the start.
pub fn memfd(vfs: &Arc<Vfs>, caller: &Caller, name: &[u8], seals: mm::Seals) -> Result<Arc<dyn OpenFile>> {
    let root = Tmpfs::new(vfs, 0o777, Limits::NONE);
    let node = root.make(NewNode::Regular, 0o777, (caller.uid, caller.gid));
    node.meta.lock().links = 0;
    if let Content::Regular(cache) = &node.content {
        cache.add_seals(seals)?;
    }
    let label = [b"/memfd:", name].concat();
    let place = vfs.anonymous(node.clone(), &label);
    let flags = OpenFlags::READ | OpenFlags::WRITE | OpenFlags::LARGE;
    node.hold(flags)?;
    node.opened(&place);
    Ok(LocalFile::new(vfs.env().new_id(), node, place, flags, Status::empty()))
}
