//! A tree of entries as a file system.

use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
    vec::Vec,
};

use base::{
    Errno, Error, KernelId, ObjectId, Result, Try, TryResult, Wake,
    io::{Sink, Source},
    wait::{Op, done},
};
use hal::sync::{SpinLock, rank};
use vfs::{
    Access, Caller, Device, DirSink, FileKind, Inode, LocalFile, OpenFile, OpenFlags, Place, SeekFrom, SetAttr, Stat,
    StatFs, Status, Time, Vfs,
    local::{FileOps, Wrote},
    mounts::FsType,
};

use crate::entry::{Dir, Entry, Found, Item};

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
fn number(parent: u64, name: &[u8]) -> u64 {
    let start = parent ^ 0xcbf2_9ce4_8422_2325;
    name.iter().fold(start, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3)) >> 2 | 1
}

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

    fn read_link(&self, caller: &Caller) -> TryResult<Vec<u8>> {
        match &self.item {
            Item::Link(link) => link.target(caller),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    fn follow(&self, caller: &Caller) -> TryResult<Option<Place>> {
        match &self.item {
            Item::Link(link) => done(link.place(caller)),
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
        let ops: Arc<dyn FileOps> = match &self.item {
            Item::Dir(dir) => Arc::new_cyclic(|me| Listing {
                me: me.clone(),
                dir: dir.clone(),
                caller: caller.clone(),
                ino: self.ino,
                names: SpinLock::new(rank::INODE, None),
            }),
            Item::File(entry) => Arc::new_cyclic(|me| Snapshot {
                me: me.clone(),
                entry: entry.clone(),
                text: SpinLock::new(rank::INODE, Snap { text: Vec::new(), fresh: false, taken: false }),
            }),
            Item::Link(_) => return Err(Errno::ELOOP.into()),
        };
        done(LocalFile::new(self.fs.env.new_id(), ops, place, flags, status))
    }

    fn stat_fs(&self) -> TryResult<StatFs> {
        done(StatFs { magic: self.fs.magic, block_size: 4096, name_max: 255, ..StatFs::default() })
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

struct Snap {
    text: Vec<u8>,
    /// It came by an operation that was waited for, and nobody has read it.
    fresh: bool,
    taken: bool,
}

/// An open file: its text as it was when the reader was at the start.
struct Snapshot {
    me: Weak<Self>,
    entry: Arc<dyn Entry>,
    text: SpinLock<Snap>,
}

/// Keeps what an operation brings, and says "try again".
struct Keep<T> {
    op: Box<dyn Op<T>>,
    keep: Box<dyn FnMut(T) + Send>,
}

impl<T, U> Op<U> for Keep<T> {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        self.op.notify(waker);
    }

    fn take(&mut self) -> Option<TryResult<U>> {
        Some(match self.op.take()? {
            Ok(Try::Done(value)) => {
                (self.keep)(value);
                Ok(Try::WouldBlock)
            }
            Ok(Try::WouldBlock) => Ok(Try::WouldBlock),
            Ok(Try::Started(op)) => {
                self.op = op;
                return None;
            }
            Err(e) => Err(e),
        })
    }
}

impl FileOps for Snapshot {
    fn read(&self, _: &LocalFile, caller: &Caller, offset: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        let renew = {
            let snap = self.text.lock();
            !snap.taken || (offset == 0 && !snap.fresh)
        };
        if renew {
            match self.entry.read(caller)? {
                Try::Done(text) => {
                    let mut snap = self.text.lock();
                    let old = core::mem::replace(&mut *snap, Snap { text, fresh: true, taken: true });
                    drop(snap);
                    drop(old);
                }
                Try::WouldBlock => return Ok(Try::WouldBlock),
                Try::Started(op) => {
                    let me = self.me.clone();
                    let keep = Box::new(move |text| {
                        if let Some(me) = me.upgrade() {
                            *me.text.lock() = Snap { text, fresh: true, taken: true };
                        }
                    });
                    return Ok(Try::Started(Box::new(Keep { op, keep })));
                }
            }
        }
        // A sink may be memory of the program: nothing is locked while it is filled.
        let text = core::mem::take(&mut self.text.lock().text);
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let n = sink.put(text.get(from..).unwrap_or_default());
        let mut snap = self.text.lock();
        snap.text = text;
        snap.fresh = n == 0 && sink.stalled();
        drop(snap);
        done(n)
    }

    fn write(&self, _: &LocalFile, caller: &Caller, offset: u64, _: bool, source: &mut dyn Source) -> TryResult<Wrote> {
        /// The longest command.
        const MAX: usize = 65536;
        let n = source.left();
        if n > MAX {
            return Err(Error::new(Errno::EINVAL, "too long"));
        }
        if !source.can_take(n) {
            return done(Wrote { bytes: 0, end: offset });
        }
        let mut bytes = alloc::vec![0; n];
        let n = source.take(&mut bytes);
        bytes.truncate(n);
        let wrote = Wrote { bytes: n, end: offset + n as u64 };
        Ok(self.entry.write(caller, &bytes)?.map(move |()| wrote))
    }

    fn seek(&self, to: SeekFrom, _: u64) -> Result<u64> {
        match to {
            SeekFrom::End(by) => 0_u64.checked_add_signed(by).ok_or(Errno::EINVAL.into()),
            _ => Err(Errno::EINVAL.into()),
        }
    }

    fn can_epoll(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

type Names = Vec<(Vec<u8>, FileKind)>;

/// An open directory: its names as they were when the reader was at the start.
struct Listing {
    me: Weak<Self>,
    dir: Arc<dyn Dir>,
    caller: Caller,
    ino: u64,
    names: SpinLock<Option<(Names, bool)>>,
}

impl FileOps for Listing {
    fn read(&self, _: &LocalFile, _: &Caller, _: u64, _: &mut dyn Sink) -> TryResult<usize> {
        Err(Errno::EISDIR.into())
    }

    fn write(&self, _: &LocalFile, _: &Caller, _: u64, _: bool, _: &mut dyn Source) -> TryResult<Wrote> {
        Err(Errno::EISDIR.into())
    }

    fn can_epoll(&self) -> bool {
        false
    }

    fn read_dir(&self, from: u64, sink: &mut dyn DirSink) -> TryResult<u64> {
        let renew = self.names.lock().as_ref().is_none_or(|(_, fresh)| from == 0 && !fresh);
        if renew {
            match self.dir.list(&self.caller)? {
                Try::Done(names) => *self.names.lock() = Some((names, true)),
                Try::WouldBlock => return Ok(Try::WouldBlock),
                Try::Started(op) => {
                    let me = self.me.clone();
                    let keep = Box::new(move |names| {
                        if let Some(me) = me.upgrade() {
                            *me.names.lock() = Some((names, true));
                        }
                    });
                    return Ok(Try::Started(Box::new(Keep { op, keep })));
                }
            }
        }
        let mut names = self.names.lock();
        let Some((names, fresh)) = names.as_mut() else { return done(from) };
        *fresh = false;
        let mut at = from;
        for (position, name) in [(0, &b"."[..]), (1, &b".."[..])] {
            if at == position {
                if !sink.put(name, self.ino, FileKind::Directory, position + 1) {
                    return done(at);
                }
                at = position + 1;
            }
        }
        let skip = usize::try_from(at.saturating_sub(2)).unwrap_or(usize::MAX);
        for (name, kind) in names.iter().skip(skip) {
            if !sink.put(name, number(self.ino, name), *kind, at + 1) {
                break;
            }
            at += 1;
        }
        done(at)
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
