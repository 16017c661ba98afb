//! One kernel's tree: mounts, and the operations on paths that system calls are made of.

use alloc::{
    collections::BTreeMap,
    string::String,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use base::{Errno, Error, Result};
use hal::sync::{Once, SpinLock, rank};

use crate::{
    Caller, Env, Inode, Mount, Node, OpenFile, Place,
    caller::cap,
    device::Devices,
    inode::{NewNode, RenameFlags},
    place::MountFlags,
    types::{Access, FileKind, OpenFlags, Status},
    walk::{Follow, Jump, Walk, directory, same_mount},
};

/// Makes a file system for `mount(2)`.
pub trait FsType: Send + Sync {
    /// Its name (`tmpfs`).
    fn name(&self) -> &str;
    /// Whether it needs no block device (`nodev` in `/proc/filesystems`).
    fn no_device(&self) -> bool {
        true
    }
    /// A root directory.
    ///
    /// # Errors
    /// `EINVAL` for options that make no sense.
    fn mount(&self, vfs: &Arc<Vfs>, source: &str, options: &str) -> Result<Arc<dyn Inode>>;
}

/// See the module.
pub struct Vfs {
    me: Weak<Self>,
    env: Arc<dyn Env>,
    mounts: SpinLock<Vec<Arc<Mount>>>,
    next_mount: AtomicU32,
    next_device: AtomicU32,
    next_ino: AtomicU64,
    types: SpinLock<Vec<Arc<dyn FsType>>>,
    anonymous: Arc<Mount>,
    root: Once<Place>,
    /// Drivers by number.
    pub devices: Devices,
    /// Sockets bound to abstract names.
    pub abstract_sockets: SpinLock<BTreeMap<Vec<u8>, Arc<crate::unix::LocalAddress>>>,
    /// Abstract names of other kernels, if there are any.
    pub machine_names: Once<Arc<dyn crate::socket::Names>>,
    /// Pseudo terminals.
    pub ptys: crate::tty::pty::Ptys,
    /// Who watches files, inotify(7).
    pub watches: Arc<crate::watches::Watches>,
    /// POSIX and flock(2) locks.
    pub locks: Arc<crate::lock::Locks>,
}

impl Vfs {
    /// An empty tree.
    pub fn new(env: Arc<dyn Env>) -> Arc<Self> {
        let nothing: Arc<dyn Inode> = crate::anon::AnonInode::new(env.new_id(), 1, FileKind::Directory, 0o555);
        let anonymous = Arc::new(Mount {
            id: 0,
            root: Node::root(nothing, b""),
            at: None,
            source: String::from("none"),
            fs_type: String::from("anon"),
            options: String::new(),
            flags: AtomicU32::new(0),
        });
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            env,
            mounts: SpinLock::new(rank::MOUNTS, Vec::new()),
            next_mount: AtomicU32::new(1),
            next_device: AtomicU32::new(20),
            next_ino: AtomicU64::new(1000),
            types: SpinLock::new(rank::REGISTRY, Vec::new()),
            anonymous,
            root: Once::new(),
            devices: Devices::new(),
            abstract_sockets: SpinLock::new(rank::DENTRIES, BTreeMap::new()),
            machine_names: Once::new(),
            ptys: crate::tty::pty::Ptys::new(),
            watches: crate::watches::Watches::new(),
            locks: crate::lock::Locks::new(),
        })
    }

    /// What the kernel lends.
    pub const fn env(&self) -> &Arc<dyn Env> {
        &self.env
    }

    /// A counted reference to itself; `None` only while it is dropped.
    pub fn arc(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    /// A device number for a file system without a device.
    pub fn new_device(&self) -> crate::Device {
        crate::Device::new(0, self.next_device.fetch_add(1, Ordering::Relaxed))
    }

    /// An inode number for something without a file system (pipes, sockets).
    pub fn new_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// The place of something without a name in the tree; `name` is what `/proc/PID/fd` shows.
    pub fn anonymous(&self, inode: Arc<dyn Inode>, name: &[u8]) -> Place {
        Place { mount: self.anonymous_mount(), node: Node::root(inode, name) }
    }

    /// The same for a file that a peer found as `name` in a directory of this kernel.
    pub fn found_elsewhere(&self, inode: Arc<dyn Inode>, directory: Arc<dyn Inode>, name: &[u8]) -> Place {
        let node = Node::root(directory, b"remote").child(name, inode, None);
        Place { mount: self.anonymous_mount(), node }
    }

    fn anonymous_mount(&self) -> Arc<Mount> {
        self.anonymous.clone()
    }

    /// Makes `inode` the root of all; once, at boot.
    ///
    /// # Errors
    /// `EBUSY` the second time.
    pub fn mount_root(&self, inode: Arc<dyn Inode>, source: &str, fs_type: &str) -> Result<()> {
        directory(&inode)?;
        let mount = self.new_mount(inode, None, source, fs_type, "", MountFlags::empty());
        let place = Place { mount: mount.clone(), node: mount.root.clone() };
        self.root.set(place).map_err(|_| Error::new(Errno::EBUSY, "there is a root already"))?;
        self.mounts.lock().push(mount);
        Ok(())
    }

    fn new_mount(
        &self,
        inode: Arc<dyn Inode>,
        at: Option<Place>,
        source: &str,
        fs_type: &str,
        options: &str,
        flags: MountFlags,
    ) -> Arc<Mount> {
        Arc::new(Mount {
            id: self.next_mount.fetch_add(1, Ordering::Relaxed),
            root: Node::root(inode, b""),
            at,
            source: source.into(),
            fs_type: fs_type.into(),
            options: options.into(),
            flags: AtomicU32::new(flags.bits()),
        })
    }

    /// The root of all: what is mounted on the first one, if a kernel that joined put the tree of the machine over its own.
    ///
    /// # Errors
    /// `ENOENT` before there is one.
    pub fn root(&self) -> Result<Place> {
        self.root.get().cloned().map(|place| self.cross(place)).ok_or(Errno::ENOENT.into())
    }

    /// Knows a type of file system from now on.
    pub fn add_type(&self, fs: Arc<dyn FsType>) {
        self.types.lock().push(fs);
    }

    /// The names of all types, with `no_device`.
    pub fn types(&self) -> Vec<(String, bool)> {
        self.types.lock().iter().map(|t| (t.name().into(), t.no_device())).collect()
    }

    /// All mounts, in the order they were made.
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        self.mounts.lock().clone()
    }

    /// What is mounted on `place`, on the top of the pile.
    #[inline]
    pub(crate) fn cross(&self, place: Place) -> Place {
        if place.node.mounted.load(Ordering::Acquire) { self.cross_slow(place) } else { place }
    }

    #[cold]
    fn cross_slow(&self, mut place: Place) -> Place {
        while place.node.mounted.load(Ordering::Acquire) {
            let over = self.mounts.lock().iter().rev().find(|m| m.at.as_ref() == Some(&place)).cloned();
            match over {
                Some(mount) => place = Place { node: mount.root.clone(), mount },
                None => break,
            }
        }
        place
    }

    /// Mounts a new file system on `at`.
    ///
    /// # Errors
    /// `ENODEV` for an unknown type, `ENOTDIR`, `EPERM`.
    pub fn mount(
        &self,
        caller: &Caller,
        at: Place,
        source: &str,
        fs_type: &str,
        options: &str,
        flags: MountFlags,
    ) -> Result<()> {
        admin(caller)?;
        directory(at.inode())?;
        let fs = self.types.lock().iter().find(|t| t.name() == fs_type).cloned();
        let fs = fs.ok_or(Error::new(Errno::ENODEV, "unknown file system"))?;
        let me = self.arc().ok_or(Errno::ENODEV)?;
        let inode = fs.mount(&me, source, options)?;
        self.attach(at, inode, source, fs_type, options, flags);
        Ok(())
    }

    /// Mounts `inode` (of a file system that exists) on `at`.
    pub fn attach(
        &self,
        at: Place,
        inode: Arc<dyn Inode>,
        source: &str,
        fs_type: &str,
        options: &str,
        flags: MountFlags,
    ) {
        let node = at.node.clone();
        let mount = self.new_mount(inode, Some(at), source, fs_type, options, flags);
        self.mounts.lock().push(mount);
        node.mounted.store(true, Ordering::Release);
    }

    /// `MS_BIND`: what is at `from` is seen at `at` too.
    ///
    /// # Errors
    /// `EPERM`, `ENOTDIR`.
    pub fn bind(&self, caller: &Caller, from: &Place, at: Place) -> Result<()> {
        admin(caller)?;
        if (from.kind() == FileKind::Directory) != (at.kind() == FileKind::Directory) {
            return Err(Errno::ENOTDIR.into());
        }
        let node = at.node.clone();
        let mount = Arc::new(Mount {
            id: self.next_mount.fetch_add(1, Ordering::Relaxed),
            root: from.node.clone(),
            at: Some(at),
            source: from.mount.source.clone(),
            fs_type: from.mount.fs_type.clone(),
            options: from.mount.options.clone(),
            flags: AtomicU32::new(from.mount.flags().bits()),
        });
        self.mounts.lock().push(mount);
        node.mounted.store(true, Ordering::Release);
        Ok(())
    }

    /// `MS_REMOUNT`: other flags.
    ///
    /// # Errors
    /// `EPERM`, `EINVAL` if `at` is not a mount point.
    pub fn remount(&self, caller: &Caller, at: &Place, flags: MountFlags) -> Result<()> {
        admin(caller)?;
        if !Arc::ptr_eq(&at.node, &at.mount.root) {
            return Err(Errno::EINVAL.into());
        }
        at.mount.flags.store(flags.bits(), Ordering::Relaxed);
        Ok(())
    }

    /// umount2(2) of the mount whose root is `at`.
    ///
    /// # Errors
    /// `EPERM`, `EINVAL` if nothing is mounted there, `EBUSY` if it is in use and not `lazy`.
    pub fn unmount(&self, caller: &Caller, at: Place, lazy: bool) -> Result<()> {
        admin(caller)?;
        if !Arc::ptr_eq(&at.node, &at.mount.root) || at.mount.at.is_none() {
            return Err(Error::new(Errno::EINVAL, "nothing is mounted there"));
        }
        let mount = at.mount.clone();
        drop(at);
        let mut mounts = self.mounts.lock();
        let index = mounts.iter().position(|m| Arc::ptr_eq(m, &mount)).ok_or(Errno::EINVAL)?;
        let below = mounts.iter().any(|m| m.at.as_ref().is_some_and(|p| Arc::ptr_eq(&p.mount, &mount)));
        // One reference is ours, one is the table's.
        if !lazy && (below || Arc::strong_count(&mount) > 2) {
            return Err(Error::new(Errno::EBUSY, "the file system is in use"));
        }
        let gone = mounts.remove(index);
        let still = |p: &Place| mounts.iter().any(|m| m.at.as_ref().is_some_and(|q| Arc::ptr_eq(&q.node, &p.node)));
        if let Some(p) = gone.at.as_ref().filter(|p| !still(p)) {
            p.node.mounted.store(false, Ordering::Release);
        }
        drop(mounts);
        drop(gone);
        Ok(())
    }

    /// Takes out of the tree all mounts but `kept`, as a lazy umount2(2) does; gives them back, for whoever still is in one of them.
    pub fn detach_all_but(&self, kept: &[Arc<Mount>]) -> Vec<Arc<Mount>> {
        let mut mounts = self.mounts.lock();
        let is_kept = |m: &Arc<Mount>| kept.iter().any(|k| Arc::ptr_eq(k, m));
        let (stay, gone) = mounts.drain(..).partition::<Vec<_>, _>(is_kept);
        *mounts = stay;
        for place in gone.iter().filter_map(|m| m.at.as_ref()) {
            let still = mounts.iter().any(|m| m.at.as_ref().is_some_and(|p| Arc::ptr_eq(&p.node, &place.node)));
            place.node.mounted.store(still, Ordering::Release);
        }
        gone
    }

    /// Whether something is mounted on this node.
    fn is_mount_point(&self, node: &Arc<Node>) -> bool {
        node.mounted.load(Ordering::Acquire)
            && self.mounts.lock().iter().any(|m| m.at.as_ref().is_some_and(|p| Arc::ptr_eq(&p.node, node)))
    }
}

fn admin(caller: &Caller) -> Result<()> {
    if caller.can(cap::SYS_ADMIN) { Ok(()) } else { Err(Error::new(Errno::EPERM, "not permitted to mount")) }
}

const READ_ONLY: Error = Error::new(Errno::EROFS, "read-only mount");
const BUSY: Error = Error::new(Errno::EBUSY, "a mount point, or a name that cannot change");

/// Whether the mount may be written through.
pub(crate) fn writable(place: &Place) -> Result<()> {
    if place.mount.flags().contains(MountFlags::RDONLY) { Err(READ_ONLY) } else { Ok(()) }
}

impl Walk<'_> {
    /// openat(2). `mode` is for what is created.
    ///
    /// # Errors
    /// As open(2).
    pub fn open(&self, path: &[u8], flags: OpenFlags, status: Status, mode: u32) -> Result<Arc<dyn OpenFile>> {
        if flags.contains(OpenFlags::TMPFILE) {
            return self.open_unnamed(path, flags, status, mode);
        }
        if !flags.contains(OpenFlags::CREATE) {
            let follow = if flags.contains(OpenFlags::NO_FOLLOW) { Follow::No } else { Follow::Yes };
            let place = self.find(path, follow)?;
            return self.open_place(place, flags, status);
        }
        let mut links = 0;
        let (mut dir, mut last) = self.find_parent_from(self.start.clone(), path, &mut links)?;
        loop {
            if !last.is_plain() {
                return Err(if flags.contains(OpenFlags::EXCLUSIVE) { Errno::EEXIST } else { Errno::EISDIR }.into());
            }
            let found = match self.step(&dir, &last.name) {
                Ok(place) => place,
                Err(e) if e == Errno::ENOENT => {
                    if last.slash {
                        return Err(Errno::EISDIR.into());
                    }
                    match self.make(&dir, &last.name, NewNode::Regular, mode) {
                        Ok(place) => return self.open_place(place, flags | OpenFlags::CREATED, status),
                        // Somebody was faster: look again.
                        Err(e) if e == Errno::EEXIST => continue,
                        Err(e) => return Err(e),
                    }
                }
                Err(e) => return Err(e),
            };
            if flags.contains(OpenFlags::EXCLUSIVE) {
                return Err(Errno::EEXIST.into());
            }
            if found.kind() == FileKind::Symlink {
                if flags.contains(OpenFlags::NO_FOLLOW) {
                    return Err(Errno::ELOOP.into());
                }
                match self.jump(&found, &mut links)? {
                    Jump::Place(place) => return self.open_place(place, flags, status),
                    Jump::Path(target) => {
                        (dir, last) = self.find_parent_from(dir, &target, &mut links)?;
                        continue;
                    }
                }
            }
            if found.kind() == FileKind::Directory {
                return Err(Errno::EISDIR.into());
            }
            if last.slash {
                return Err(Errno::ENOTDIR.into());
            }
            return self.open_place(found, flags, status);
        }
    }

    fn open_unnamed(&self, path: &[u8], flags: OpenFlags, status: Status, mode: u32) -> Result<Arc<dyn OpenFile>> {
        if !flags.contains(OpenFlags::WRITE) {
            return Err(Errno::EINVAL.into());
        }
        let dir = self.find(path, Follow::Yes)?;
        directory(dir.inode())?;
        writable(&dir)?;
        let inode = self.wait.finish(dir.inode().create_unnamed(self.caller, mode))?;
        let name = alloc::format!("#{} (deleted)", inode.id().serial);
        let place = Place { mount: dir.mount, node: Node::root(inode, name.as_bytes()) };
        self.open_place(place, flags | OpenFlags::CREATED, status)
    }

    /// Opens what is at `place`.
    ///
    /// # Errors
    /// As open(2).
    pub fn open_place(&self, place: Place, flags: OpenFlags, status: Status) -> Result<Arc<dyn OpenFile>> {
        let kind = place.kind();
        if flags.contains(OpenFlags::DIRECTORY) && kind != FileKind::Directory {
            return Err(Errno::ENOTDIR.into());
        }
        if flags.contains(OpenFlags::PATH) {
            return Ok(crate::anon::PathFile::new(self.vfs.env().new_id(), place));
        }
        match kind {
            FileKind::Symlink => return Err(Errno::ELOOP.into()),
            FileKind::Directory if flags.intersects(OpenFlags::WRITE) => return Err(Errno::EISDIR.into()),
            FileKind::Socket => return Err(Errno::ENXIO.into()),
            FileKind::Regular | FileKind::Directory if flags.intersects(OpenFlags::WRITE | OpenFlags::TRUNCATE) => {
                writable(&place)?;
            }
            FileKind::Char | FileKind::Block if place.mount.flags().contains(MountFlags::NODEV) => {
                return Err(Errno::EACCES.into());
            }
            _ => {}
        }
        let inode = place.inode().clone();
        self.wait.finish(inode.open(self.caller, flags, status, place))
    }

    /// Makes `name` in `dir`.
    ///
    /// # Errors
    /// As mknod(2) and mkdir(2).
    pub fn make(&self, dir: &Place, name: &[u8], what: NewNode, mode: u32) -> Result<Place> {
        if name.len() > crate::walk::NAME_MAX {
            return Err(Errno::ENAMETOOLONG.into());
        }
        writable(dir)?;
        let inode = self.wait.finish(dir.inode().create(self.caller, name, what, mode))?;
        let version = dir.inode().names_version(self.caller);
        Ok(Place { mount: dir.mount.clone(), node: dir.node.child(name, inode, version) })
    }

    /// mkdirat(2), mknodat(2), symlinkat(2): makes what `path` names.
    ///
    /// # Errors
    /// As those.
    pub fn create(&self, path: &[u8], what: NewNode, mode: u32) -> Result<Place> {
        let (dir, last) = self.find_parent(path)?;
        if !last.is_plain() {
            return Err(Errno::EEXIST.into());
        }
        if last.slash && what.kind() != FileKind::Directory {
            self.step(&dir, &last.name)?;
            return Err(Errno::EEXIST.into());
        }
        self.make(&dir, &last.name, what, mode)
    }

    /// linkat(2): another name for what is at `from`.
    ///
    /// # Errors
    /// As linkat(2).
    pub fn link(&self, from: &Place, path: &[u8]) -> Result<()> {
        let (dir, last) = self.find_parent(path)?;
        if !last.is_plain() {
            return Err(Errno::EEXIST.into());
        }
        if last.slash {
            return Err(Errno::ENOENT.into());
        }
        same_mount(from, &dir)?;
        writable(&dir)?;
        if from.kind() == FileKind::Directory {
            return Err(Errno::EPERM.into());
        }
        self.wait.finish(dir.inode().link(self.caller, &last.name, from.inode()))
    }

    /// unlinkat(2).
    ///
    /// # Errors
    /// As unlink(2) and rmdir(2).
    pub fn unlink(&self, path: &[u8], directory: bool) -> Result<()> {
        let (dir, last) = self.find_parent(path)?;
        match (last.name.as_slice(), directory) {
            (b".", true) => return Err(Errno::EINVAL.into()),
            (b"..", true) => return Err(Errno::ENOTEMPTY.into()),
            (b"", true) => return Err(Errno::EBUSY.into()),
            (b"" | b"." | b"..", false) => return Err(Errno::EISDIR.into()),
            _ => {}
        }
        if last.slash && !directory {
            let there = self.step(&dir, &last.name)?;
            let e = if there.kind() == FileKind::Directory { Errno::EISDIR } else { Errno::ENOTDIR };
            return Err(e.into());
        }
        writable(&dir)?;
        self.not_mounted(&dir, &last.name)?;
        self.wait.finish(dir.inode().unlink(self.caller, &last.name, directory))?;
        dir.node.forget(&last.name);
        Ok(())
    }

    /// renameat2(2) from `old` to `new` as seen by another walk (another start).
    ///
    /// # Errors
    /// As rename(2).
    pub fn rename(&self, old: &[u8], other: &Walk<'_>, new: &[u8], flags: RenameFlags) -> Result<()> {
        if flags.contains(RenameFlags::NO_REPLACE | RenameFlags::EXCHANGE) {
            return Err(Errno::EINVAL.into());
        }
        let (from, old) = self.find_parent(old)?;
        let (to, new) = other.find_parent(new)?;
        same_mount(&from, &to)?;
        if !old.is_plain() || !new.is_plain() {
            let e =
                if flags.contains(RenameFlags::NO_REPLACE) && !new.is_plain() { Errno::EEXIST } else { Errno::EBUSY };
            return Err(e.into());
        }
        writable(&from)?;
        let moving = self.step(&from, &old.name)?;
        if (old.slash || (new.slash && !flags.contains(RenameFlags::EXCHANGE))) && moving.kind() != FileKind::Directory
        {
            return Err(Errno::ENOTDIR.into());
        }
        self.not_mounted(&from, &old.name)?;
        self.not_mounted(&to, &new.name)?;
        if new.name.len() > crate::walk::NAME_MAX {
            return Err(Errno::ENAMETOOLONG.into());
        }
        // Two names of one file: nothing to do (rename(2)).
        if !flags.contains(RenameFlags::NO_REPLACE)
            && let Ok(there) = self.step(&to, &new.name)
            && crate::inode::same(there.inode(), moving.inode())
        {
            return Ok(());
        }
        self.wait.finish(from.inode().rename(self.caller, &old.name, to.inode(), &new.name, flags))?;
        from.node.moved(&old.name, &to.node, &new.name, flags.contains(RenameFlags::EXCHANGE));
        Ok(())
    }

    fn not_mounted(&self, dir: &Place, name: &[u8]) -> Result<()> {
        match dir.node.known(name) {
            Some(node) if self.vfs.is_mount_point(&node) => Err(BUSY),
            _ => Ok(()),
        }
    }

    /// Checks that the caller may make `place` its working directory or root.
    ///
    /// # Errors
    /// `ENOTDIR`, `EACCES`.
    pub fn may_enter(&self, place: &Place) -> Result<()> {
        directory(place.inode())?;
        self.wait.finish(place.inode().access(self.caller, Access::EXECUTE))
    }
}
