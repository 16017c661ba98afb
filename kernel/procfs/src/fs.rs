//! A tree of entries as a file system.

use alloc::{sync::Arc, vec::Vec};

use base::{Errno, Error, KernelId, ObjectId, Result, Try, TryResult, wait::done};
use vfs::{
    Access, Caller, Device, FileKind, Inode, NewNode, OpenFile, OpenFlags, Place, RenameFlags, SetAttr, Stat, StatFs,
    Status, Time, Vfs, mounts::FsType,
};

use crate::{
    entry::{Dir, Found, Item},
    file::{Opened, TreeFile},
};

/// One such file system.
pub struct ProcFs {
    name: &'static str,
    magic: u64,
    root: Arc<dyn Dir>,
    env: Arc<dyn vfs::Env>,
    device: Device,
    birth: KernelId,
    born: Time,
}

impl ProcFs {
    /// The tree below `root`, mounted as type `name`.
    pub fn new(vfs: &Vfs, name: &'static str, magic: u64, root: Arc<dyn Dir>) -> Arc<Self> {
        let env = vfs.env().clone();
        let (birth, born) = (env.new_id().birth, Time(env.realtime()));
        Arc::new(Self { name, magic, root, device: vfs.new_device(), birth, born, env })
    }
}

/// The type for mount(2); all mounts show the same tree.
pub struct Proc(pub Arc<ProcFs>);

impl FsType for Proc {
    fn name(&self) -> &str {
        self.0.name
    }

    fn mount(&self, _: &Arc<Vfs>, _: &str, _: &str) -> Result<Arc<dyn Inode>> {
        Ok(Node::new(&self.0, &Found::from(Item::Dir(self.0.root.clone())), 1))
    }
}

/// A file, directory or link of the tree. Its number is computed from its path, so that it is the same whenever it is found.
struct Node {
    fs: Arc<ProcFs>,
    item: Item,
    owner: (u32, u32),
    ino: u64,
}

/// FNV-1a over a name, continuing from the number of the directory.
pub(crate) fn number(parent: u64, name: &[u8]) -> u64 {
    let start = parent ^ 0xcbf2_9ce4_8422_2325;
    name.iter().fold(start, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3)) >> 2 | 1
}

const FIXED: Error = Error::new(Errno::EPERM, "names here are made by the kernel");

impl Node {
    fn new(fs: &Arc<ProcFs>, found: &Found, ino: u64) -> Arc<Self> {
        Arc::new(Self { fs: fs.clone(), item: found.item.clone(), owner: (found.uid, found.gid), ino })
    }

    fn stat_now(&self) -> Stat {
        let now = Time(self.fs.env.realtime());
        let (mode, links) = match &self.item {
            Item::Dir(_) => (0o555, 2),
            Item::File(entry) => (entry.mode(), 1),
            Item::Link(_) => (0o777, 1),
        };
        Stat {
            device: self.fs.device,
            inode: self.ino,
            kind: self.item.kind(),
            mode,
            links,
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: Device::default(),
            size: 0,
            block_size: 1024,
            blocks: 0,
            accessed: now,
            modified: now,
            changed: now,
            born: self.fs.born,
        }
    }
}

impl Inode for Node {
    fn id(&self) -> ObjectId {
        // Numbers of this sort have the highest bit set; those that are handed out never come so far.
        ObjectId { birth: self.fs.birth, serial: 1 << 63 | u64::from(self.fs.device.minor) << 62 ^ self.ino }
    }

    fn kind(&self) -> FileKind {
        self.item.kind()
    }

    fn stat(&self) -> TryResult<Stat> {
        done(self.stat_now())
    }

    fn set_attr(&self, caller: &Caller, change: SetAttr) -> TryResult<()> {
        if change.size.is_some() {
            // `echo x > /proc/...` cuts the file first, which means nothing.
            return done(self.stat_now().check(caller, Access::WRITE)?);
        }
        Err(Error::new(Errno::EPERM, "attributes here are what they are"))
    }

    fn lookup(&self, caller: &Caller, name: &[u8]) -> TryResult<Arc<dyn Inode>> {
        let Item::Dir(dir) = &self.item else { return Err(Errno::ENOTDIR.into()) };
        let ino = number(self.ino, name);
        let found = dir.find(caller, name)?;
        let fs = self.fs.clone();
        Ok(found.map(move |found| Node::new(&fs, &found, ino) as Arc<dyn Inode>))
    }

    fn create(&self, caller: &Caller, name: &[u8], _: NewNode, _: u32) -> TryResult<Arc<dyn Inode>> {
        match &self.item {
            Item::Dir(dir) => match dir.find(caller, name)? {
                Try::Done(_) => Err(Errno::EEXIST.into()),
                _ => Err(FIXED),
            },
            _ => Err(Errno::ENOTDIR.into()),
        }
    }

    fn link(&self, _: &Caller, _: &[u8], _: &Arc<dyn Inode>) -> TryResult<()> {
        Err(FIXED)
    }

    fn unlink(&self, _: &Caller, _: &[u8], _: bool) -> TryResult<()> {
        Err(FIXED)
    }

    fn rename(&self, _: &Caller, _: &[u8], _: &Arc<dyn Inode>, _: &[u8], _: RenameFlags) -> TryResult<()> {
        Err(FIXED)
    }

    fn read_link(&self, caller: &Caller) -> TryResult<Vec<u8>> {
        match &self.item {
            Item::Link(link) => link.target(caller),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    fn follow(&self, caller: &Caller) -> TryResult<Option<Place>> {
        match &self.item {
            Item::Link(link) => link.place(caller),
            _ => done(None),
        }
    }

    fn open(
        self: Arc<Self>,
        caller: &Caller,
        flags: OpenFlags,
        status: Status,
        place: Place,
    ) -> TryResult<Arc<dyn OpenFile>> {
        let mut want = Access::empty();
        want.set(Access::READ, flags.contains(OpenFlags::READ));
        want.set(Access::WRITE, flags.contains(OpenFlags::WRITE));
        self.stat_now().check(caller, want)?;
        let opened = Opened { id: self.fs.env.new_id(), inode: self.clone(), place, flags, status };
        match &self.item {
            Item::Dir(_) if flags.contains(OpenFlags::WRITE) => Err(Errno::EISDIR.into()),
            Item::Dir(dir) => {
                let (ino, by, dir) = (self.ino, caller.clone(), dir.clone());
                let names = dir.list(caller)?;
                Ok(names.map(move |names| TreeFile::directory(opened, dir, ino, by, names)))
            }
            Item::File(entry) => done(TreeFile::text(opened, entry.clone())),
            Item::Link(_) => Err(Errno::ELOOP.into()),
        }
    }

    fn stat_fs(&self) -> TryResult<StatFs> {
        done(StatFs { magic: self.fs.magic, block_size: 4096, name_max: 255, ..StatFs::default() })
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
