//! Open files and directories of such a tree.
//!
//! Nothing is locked while a text or a listing is made: that takes the locks of processes, and may be an operation of a peer.

use alloc::{string::String, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU32, Ordering};

use base::{
    Errno, Error, ObjectId, Result, Try, TryResult,
    io::{Sink, Source},
    wait::done,
};
use hal::sync::{SpinLock, rank};
use vfs::{
    Caller, DirSink, FileKind, Inode, OpenFile, OpenFlags, Place, ReadOut, SeekFrom, SetAttr, Stat, StatFs, Status,
};

use crate::{
    entry::{Dir, Entry},
    fs::number,
};

/// The longest command in bytes.
const COMMAND_MAX: usize = 64 << 10;

/// How something was opened.
pub(crate) struct Opened {
    pub id: ObjectId,
    pub inode: Arc<dyn Inode>,
    pub place: Place,
    pub flags: OpenFlags,
    pub status: Status,
}

/// What the names in a directory are.
pub(crate) type Names = Vec<(Vec<u8>, FileKind)>;

enum Content {
    /// A text as it was when it was last read from its start.
    Text { entry: Arc<dyn Entry>, text: Arc<SpinLock<Option<Arc<Vec<u8>>>>> },
    /// A directory as it was when it was opened, or last read from its start.
    Directory { dir: Arc<dyn Dir>, ino: u64, by: Caller, names: SpinLock<(Arc<Names>, bool)> },
}

/// See the module.
pub(crate) struct TreeFile {
    id: ObjectId,
    inode: Arc<dyn Inode>,
    place: Place,
    flags: OpenFlags,
    status: AtomicU32,
    position: Arc<SpinLock<u64>>,
    content: Content,
}

impl TreeFile {
    fn new(opened: Opened, content: Content) -> Arc<dyn OpenFile> {
        Arc::new(Self {
            id: opened.id,
            inode: opened.inode,
            place: opened.place,
            flags: opened.flags,
            status: AtomicU32::new(opened.status.bits()),
            position: Arc::new(SpinLock::new(rank::OPEN_FILE, 0)),
            content,
        })
    }

    /// An open text.
    pub fn text(opened: Opened, entry: Arc<dyn Entry>) -> Arc<dyn OpenFile> {
        Self::new(opened, Content::Text { entry, text: Arc::new(SpinLock::new(rank::INODE, None)) })
    }

    /// An open directory with number `ino`, whose names are `names` now.
    pub fn directory(opened: Opened, dir: Arc<dyn Dir>, ino: u64, by: Caller, names: Names) -> Arc<dyn OpenFile> {
        let names = SpinLock::new(rank::INODE, (Arc::new(names), true));
        Self::new(opened, Content::Directory { dir, ino, by, names })
    }

    fn read_from(&self, caller: &Caller, offset: u64, advance: bool, sink: &mut dyn Sink) -> TryResult<ReadOut> {
        if !self.flags.contains(OpenFlags::READ) {
            return Err(Error::new(Errno::EBADF, "not open for reading"));
        }
        let Content::Text { entry, text } = &self.content else { return Err(Errno::EISDIR.into()) };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let known = if offset == 0 { None } else { text.lock().clone() };
        let made = match known {
            Some(known) => Try::Done(known),
            None => {
                let keep = text.clone();
                entry.read(caller)?.map(move |new| {
                    let new = Arc::new(new);
                    let old = keep.lock().replace(new.clone());
                    drop(old);
                    new
                })
            }
        };
        match made {
            Try::Done(text) => {
                let n = sink.put(text.get(from..).unwrap_or_default());
                if advance {
                    *self.position.lock() = offset + n as u64;
                }
                done(ReadOut::InPlace(n))
            }
            Try::WouldBlock => Ok(Try::WouldBlock),
            started @ Try::Started(_) => {
                let (position, room) = (self.position.clone(), sink.room());
                Ok(started.map(move |text| {
                    let bytes: Vec<u8> = text.iter().skip(from).take(room).copied().collect();
                    if advance {
                        *position.lock() = offset + bytes.len() as u64;
                    }
                    ReadOut::Bytes(bytes)
                }))
            }
        }
    }

    /// The number of the directory above.
    fn above(&self) -> Option<u64> {
        let up = match self.place.node.parent() {
            Some(node) => node,
            None => self.place.mount.at.as_ref()?.node.parent()?,
        };
        match up.inode().stat() {
            Ok(Try::Done(stat)) => Some(stat.inode),
            _ => None,
        }
    }
}

impl OpenFile for TreeFile {
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

    fn read(&self, caller: &Caller, sink: &mut dyn Sink) -> TryResult<ReadOut> {
        let position = *self.position.lock();
        self.read_from(caller, position, true, sink)
    }

    fn read_at(&self, caller: &Caller, offset: u64, sink: &mut dyn Sink) -> TryResult<ReadOut> {
        self.read_from(caller, offset, false, sink)
    }

    fn write(&self, caller: &Caller, source: &mut dyn Source) -> TryResult<usize> {
        if !self.flags.contains(OpenFlags::WRITE) {
            return Err(Error::new(Errno::EBADF, "not open for writing"));
        }
        let Content::Text { entry, .. } = &self.content else { return Err(Errno::EISDIR.into()) };
        let length = source.left();
        if length > COMMAND_MAX {
            return Err(Error::new(Errno::EINVAL, "too long for a command"));
        }
        if !source.can_take(length) {
            // A command is taken as a whole: tried again when all of it was brought in.
            return done(0);
        }
        let mut bytes = alloc::vec![0; length];
        let length = source.take(&mut bytes);
        bytes.truncate(length);
        let position = self.position.clone();
        Ok(entry.write(caller, &bytes)?.map(move |()| {
            *position.lock() += length as u64;
            length
        }))
    }

    fn write_at(&self, caller: &Caller, _: u64, source: &mut dyn Source) -> TryResult<usize> {
        self.write(caller, source)
    }

    fn seek(&self, to: SeekFrom) -> TryResult<u64> {
        let mut position = self.position.lock();
        let new = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => position.checked_add_signed(by),
            // Nobody knows where the end will be.
            _ => None,
        };
        let new = new.filter(|n| i64::try_from(*n).is_ok()).ok_or(Error::new(Errno::EINVAL, "no such position"))?;
        *position = new;
        done(new)
    }

    fn can_epoll(&self) -> bool {
        false
    }

    fn stat(&self) -> TryResult<Stat> {
        self.inode.stat()
    }

    fn set_attr(&self, caller: &Caller, change: SetAttr) -> TryResult<()> {
        self.inode.set_attr(caller, change)
    }

    fn stat_fs(&self) -> TryResult<StatFs> {
        self.inode.stat_fs()
    }

    fn read_dir(&self, sink: &mut dyn DirSink) -> TryResult<usize> {
        let Content::Directory { dir, ino, by, names } = &self.content else { return Err(Errno::ENOTDIR.into()) };
        let from = *self.position.lock();
        let fresh = core::mem::replace(&mut names.lock().1, false);
        if from == 0
            && !fresh
            && let Try::Done(new) = dir.list(by)?
        {
            // After rewinddir(3). What takes long, because peers are asked, stays as it was when the directory was opened.
            let old = core::mem::replace(&mut names.lock().0, Arc::new(new));
            drop(old);
        }
        let names = names.lock().0.clone();
        let (mut at, mut count) = (from, 0);
        let dots = [(&b"."[..], *ino), (&b".."[..], self.above().unwrap_or(*ino))];
        let dots = dots.into_iter().map(|(name, ino)| (name, ino, FileKind::Directory));
        let entries = names.iter().map(|(name, kind)| (&name[..], number(*ino, name), *kind));
        for (name, ino, kind) in dots.chain(entries).skip(usize::try_from(from).unwrap_or(usize::MAX)) {
            if !sink.put(name, ino, kind, at + 1) {
                break;
            }
            at += 1;
            count += 1;
        }
        *self.position.lock() = at;
        done(count)
    }

    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.inode.clone())
    }

    fn place(&self) -> Option<Place> {
        Some(self.place.clone())
    }

    fn memory(&self) -> Result<Arc<dyn mm::MemoryObject>> {
        Err(Errno::ENODEV.into())
    }

    fn describe(&self) -> String {
        String::from_utf8_lossy(&self.place.path(None).0).into_owned()
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
