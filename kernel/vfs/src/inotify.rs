//! Telling what happens to files; inotify(7).
//!
//! A file system that tells (tmpfs) asks [`Watches`] before it makes an event: as long as nobody watches anything that is one read of a counter.
//! Files are watched where they live; those of peers cannot be.

use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use base::{
    Errno, Error, ObjectId, Ready, Result, Subscription, Try, TryResult, Wake,
    io::{Sink, Source},
    wait::done,
};
use hal::sync::{SpinLock, rank};

use crate::{
    Caller, FileKind, Inode, Ioctl, IoctlReply, LocalFile, OpenFlags, Place, Status, Vfs, Waiters, anon,
    local::{FileOps, Wrote},
};

bitflags::bitflags! {
    /// What happened, what is watched for, and how; the bits of `inotify(7)`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Mask: u32 {
        /// Read.
        const ACCESS = 0x1;
        /// Written or cut.
        const MODIFY = 0x2;
        /// Owner, mode, times, links.
        const ATTRIB = 0x4;
        /// Closed after it was open for writing.
        const CLOSE_WRITE = 0x8;
        /// Closed otherwise.
        const CLOSE_NOWRITE = 0x10;
        /// Opened.
        const OPEN = 0x20;
        /// A name went from here.
        const MOVED_FROM = 0x40;
        /// A name came here.
        const MOVED_TO = 0x80;
        /// A name was made.
        const CREATE = 0x100;
        /// A name was taken away.
        const DELETE = 0x200;
        /// The file itself is gone.
        const DELETE_SELF = 0x400;
        /// The file itself has another name.
        const MOVE_SELF = 0x800;
        /// All that can be watched for.
        const EVENTS = 0xfff;
        /// Events were lost.
        const Q_OVERFLOW = 0x4000;
        /// The watch is gone.
        const IGNORED = 0x8000;
        /// Only if it is a directory.
        const ONLYDIR = 0x0100_0000;
        /// The link itself.
        const DONT_FOLLOW = 0x0200_0000;
        /// Nothing of names that are gone.
        const EXCL_UNLINK = 0x0400_0000;
        /// Only if it is not watched yet.
        const MASK_CREATE = 0x1000_0000;
        /// Besides what is watched for.
        const MASK_ADD = 0x2000_0000;
        /// The event is about a directory.
        const ISDIR = 0x4000_0000;
        /// For one event.
        const ONESHOT = 0x8000_0000;
    }
}

/// Most events that wait to be read (`/proc/sys/fs/inotify/max_queued_events`).
pub const MAX_QUEUED: usize = 16384;
/// Most watches of an instance (`/proc/sys/fs/inotify/max_user_watches`).
pub const MAX_WATCHES: usize = 65536;

#[derive(Clone, PartialEq, Eq)]
struct Event {
    watch: i32,
    mask: u32,
    cookie: u32,
    name: Vec<u8>,
}

impl Event {
    /// The name with its end, in whole units of the header.
    fn name_size(&self) -> usize {
        if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(16) }
    }

    fn bytes(&self) -> Vec<u8> {
        let size = self.name_size();
        let mut bytes = Vec::with_capacity(16 + size);
        for word in [self.watch as u32, self.mask, self.cookie, size as u32] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&self.name);
        bytes.resize(16 + size, 0);
        bytes
    }
}

struct Watch {
    file: ObjectId,
    mask: Mask,
}

#[derive(Default)]
struct State {
    watches: BTreeMap<i32, Watch>,
    last: i32,
    queue: VecDeque<Event>,
}

impl State {
    fn push(&mut self, event: Event) {
        // The same once more tells nothing new.
        if self.queue.back() == Some(&event) {
            return;
        }
        if self.queue.len() < MAX_QUEUED {
            self.queue.push_back(event);
        } else if self.queue.back().is_some_and(|e| e.mask != Mask::Q_OVERFLOW.bits()) {
            self.queue.push_back(Event { watch: -1, mask: Mask::Q_OVERFLOW.bits(), cookie: 0, name: Vec::new() });
        }
    }
}

/// An instance: inotify_init1(2).
pub struct Inotify {
    me: Weak<Self>,
    all: Arc<Watches>,
    state: SpinLock<State>,
    waiters: Waiters,
}

/// Who watches what, in one kernel.
pub struct Watches {
    /// How many files are watched.
    active: AtomicUsize,
    by_file: SpinLock<BTreeMap<ObjectId, Vec<Weak<Inotify>>>>,
    cookie: AtomicU32,
}

impl Watches {
    /// Nobody watches.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            active: AtomicUsize::new(0),
            by_file: SpinLock::new(rank::EVENT, BTreeMap::new()),
            cookie: AtomicU32::new(1),
        })
    }

    /// Whether anything is watched at all.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.active.load(Relaxed) != 0
    }

    /// Ties the two events of a move together.
    pub fn cookie(&self) -> u32 {
        self.cookie.fetch_add(1, Relaxed)
    }

    /// Something happened to the file, or to `name` in it.
    #[cold]
    pub fn tell(&self, file: ObjectId, what: Mask, cookie: u32, name: &[u8]) {
        let watchers: Vec<_> = {
            let by_file = self.by_file.lock();
            by_file.get(&file).map(|list| list.iter().filter_map(Weak::upgrade).collect()).unwrap_or_default()
        };
        for watcher in watchers {
            watcher.happened(file, what, cookie, name);
        }
    }

    /// Something happened to a file at a place: those who watch it, and those who watch its directory, are told.
    #[cold]
    pub fn tell_at(&self, place: &Place, what: Mask) {
        self.tell_parent(place, what);
        let dir = if place.kind() == FileKind::Directory { Mask::ISDIR } else { Mask::empty() };
        self.tell(place.inode().id(), what | dir, 0, b"");
    }

    /// Something happened to a file at a place: those who watch its directory are told.
    #[cold]
    pub fn tell_parent(&self, place: &Place, what: Mask) {
        let dir = if place.kind() == FileKind::Directory { Mask::ISDIR } else { Mask::empty() };
        if let Some(parent) = place.node.parent().filter(|_| !place.node.is_gone()) {
            self.tell(parent.inode().id(), what | dir, 0, &place.node.name());
        }
    }

    /// A file has no name any more and nobody has it open.
    #[cold]
    pub fn gone(&self, file: ObjectId) {
        self.tell(file, Mask::DELETE_SELF, 0, b"");
        let watchers = self.by_file.lock().remove(&file).unwrap_or_default();
        if !watchers.is_empty() {
            self.active.fetch_sub(1, Relaxed);
        }
        for watcher in watchers.iter().filter_map(Weak::upgrade) {
            watcher.forget(file);
        }
    }

    fn add(&self, file: ObjectId, watcher: &Weak<Inotify>) {
        let mut by_file = self.by_file.lock();
        let list = by_file.entry(file).or_default();
        if list.is_empty() {
            self.active.fetch_add(1, Relaxed);
        }
        if !list.iter().any(|w| w.ptr_eq(watcher)) {
            list.push(watcher.clone());
        }
    }

    fn remove(&self, file: ObjectId, watcher: &Weak<Inotify>) {
        let mut by_file = self.by_file.lock();
        if let Some(list) = by_file.get_mut(&file) {
            list.retain(|w| !w.ptr_eq(watcher));
            if list.is_empty() {
                by_file.remove(&file);
                self.active.fetch_sub(1, Relaxed);
            }
        }
    }
}

impl Inotify {
    /// Opens an instance that watches nothing.
    pub fn open(vfs: &Vfs, caller: &Caller, status: Status) -> Arc<LocalFile> {
        let ops = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            all: vfs.watches.clone(),
            state: SpinLock::new(rank::EVENT, State::default()),
            waiters: Waiters::new(),
        });
        anon::open(vfs, caller, ops, "anon_inode:inotify", OpenFlags::READ, status)
    }

    /// Watches a file; the number of the watch.
    ///
    /// # Errors
    /// `EINVAL` without events, `EEXIST` with `MASK_CREATE` if it is watched, `ENOSPC`, `EOPNOTSUPP` for a file that does not tell: one of a peer.
    pub fn watch(&self, inode: &Arc<dyn Inode>, mask: Mask) -> Result<i32> {
        if !mask.intersects(Mask::EVENTS) || mask.contains(Mask::MASK_ADD | Mask::MASK_CREATE) {
            return Err(Error::new(Errno::EINVAL, "nothing to watch for"));
        }
        if !inode.tells() {
            return Err(Error::new(Errno::EOPNOTSUPP, "the file system does not tell"));
        }
        let file = inode.id();
        let kept = Mask::EVENTS | Mask::EXCL_UNLINK | Mask::ONESHOT;
        let mut state = self.state.lock();
        if let Some((number, watch)) = state.watches.iter_mut().find(|(_, w)| w.file == file) {
            if mask.contains(Mask::MASK_CREATE) {
                return Err(Errno::EEXIST.into());
            }
            let old = if mask.contains(Mask::MASK_ADD) { watch.mask } else { Mask::empty() };
            watch.mask = old | mask & kept;
            return Ok(*number);
        }
        if state.watches.len() >= MAX_WATCHES {
            return Err(Errno::ENOSPC.into());
        }
        let number = state.last.checked_add(1).ok_or(Errno::ENOSPC)?;
        state.last = number;
        state.watches.insert(number, Watch { file, mask: mask & kept });
        drop(state);
        self.all.add(file, &self.me);
        Ok(number)
    }

    /// Ends a watch.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn unwatch(&self, number: i32) -> Result<()> {
        let watch = {
            let mut state = self.state.lock();
            let watch = state.watches.remove(&number).ok_or(Error::new(Errno::EINVAL, "no such watch"))?;
            state.push(Event { watch: number, mask: Mask::IGNORED.bits(), cookie: 0, name: Vec::new() });
            watch
        };
        self.all.remove(watch.file, &self.me);
        self.waiters.wake(Ready::IN);
        Ok(())
    }

    fn happened(&self, file: ObjectId, what: Mask, cookie: u32, name: &[u8]) {
        let mut once = false;
        {
            let mut state = self.state.lock();
            let Some((number, watch)) = state.watches.iter().find(|(_, w)| w.file == file) else { return };
            let (number, mask) = (*number, watch.mask);
            if !mask.intersects(what & Mask::EVENTS) {
                return;
            }
            state.push(Event { watch: number, mask: what.bits(), cookie, name: name.into() });
            if mask.contains(Mask::ONESHOT) {
                state.watches.remove(&number);
                state.push(Event { watch: number, mask: Mask::IGNORED.bits(), cookie: 0, name: Vec::new() });
                once = true;
            }
        }
        if once {
            self.all.remove(file, &self.me);
        }
        self.waiters.wake(Ready::IN);
    }

    /// The file is gone, and the watch with it.
    fn forget(&self, file: ObjectId) {
        {
            let mut state = self.state.lock();
            let Some(number) = state.watches.iter().find(|(_, w)| w.file == file).map(|(n, _)| *n) else { return };
            state.watches.remove(&number);
            state.push(Event { watch: number, mask: Mask::IGNORED.bits(), cookie: 0, name: Vec::new() });
        }
        self.waiters.wake(Ready::IN);
    }
}

impl FileOps for Inotify {
    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _: &LocalFile, _: &Caller, _: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        let mut moved = 0;
        loop {
            // One at a time, so that nobody else's event is lost if the buffer stalls.
            let mut state = self.state.lock();
            let Some(size) = state.queue.front().map(|e| 16 + e.name_size()) else {
                return if moved == 0 { Ok(Try::WouldBlock) } else { done(moved) };
            };
            if sink.room() < size {
                return if moved == 0 { Err(Error::new(Errno::EINVAL, "too small for an event")) } else { done(moved) };
            }
            if !sink.can_put(size) {
                return done(moved);
            }
            if let Some(event) = state.queue.pop_front() {
                moved += sink.put(&event.bytes());
            }
        }
    }

    fn write(&self, _: &LocalFile, _: &Caller, _: u64, _: bool, _: &mut dyn Source) -> TryResult<Wrote> {
        Err(Error::new(Errno::EBADF, "events cannot be written"))
    }

    fn poll(&self, _: &LocalFile) -> Ready {
        if self.state.lock().queue.is_empty() { Ready::empty() } else { Ready::IN }
    }

    fn subscribe(&self, _: &LocalFile, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        self.waiters.subscribe(mask, waker)
    }

    fn ioctl(&self, _: &LocalFile, _: &Caller, request: Ioctl) -> TryResult<IoctlReply> {
        match request {
            Ioctl::BytesReadable => {
                let bytes: usize = self.state.lock().queue.iter().map(|e| 16 + e.name_size()).sum();
                done(IoctlReply::Number(bytes as u64))
            }
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    fn release(&self, _: &LocalFile) {
        let watches = core::mem::take(&mut self.state.lock().watches);
        for watch in watches.into_values() {
            self.all.remove(watch.file, &self.me);
        }
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
