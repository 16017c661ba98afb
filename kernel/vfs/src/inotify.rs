//! Telling what happens to files; inotify(7).
//!
//! A file system that tells (tmpfs) asks [`Watches`] before it makes an event: as long as nobody watches anything that is one read of a counter.
//! Files are watched where they live. An instance with files of peers first lets those say what has happened (`fresh`), so that its reader sees all that
//! happened before, as on one kernel.

use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
    vec::Vec,
};

use base::{
    Errno, Error, KernelId, ObjectId, Ready, Result, Subscription, Try, TryResult, Wake,
    io::{Sink, Source, VecSink},
    wait::done,
};
use hal::sync::{SpinLock, rank};

use crate::{
    Caller, Inode, Ioctl, IoctlReply, LocalFile, OpenFlags, ReadOut, Status, Vfs, Waiters, anon,
    local::{FileOps, Wrote},
    watches::{Abroad, Watches},
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
        /// Where the file was is gone.
        const UNMOUNT = 0x2000;
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
    /// The kernel that has the file, if it is another one.
    home: Option<KernelId>,
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
    /// `EINVAL` without events, `EEXIST` with `MASK_CREATE` if it is watched, `ENOSPC`, `EOPNOTSUPP` for a file that does not tell, `EHOSTDOWN`.
    pub fn watch(&self, inode: &Arc<dyn Inode>, mask: Mask) -> TryResult<i32> {
        if !mask.intersects(Mask::EVENTS) || mask.contains(Mask::MASK_ADD | Mask::MASK_CREATE) {
            return Err(Error::new(Errno::EINVAL, "nothing to watch for"));
        }
        self.watch_at(inode.id(), inode.teller()?, mask)
    }

    pub(crate) fn watch_at(&self, file: ObjectId, home: Option<KernelId>, mask: Mask) -> TryResult<i32> {
        let kept = mask & (Mask::EVENTS | Mask::EXCL_UNLINK | Mask::ONESHOT);
        let (number, new) = self.note(file, home, kept, mask)?;
        let Some(tried) = self.all.add(file, home, kept & Mask::EVENTS, &self.me) else { return done(number) };
        let me = self.me.clone();
        Try::settled(tried).and_then(move |told| {
            if let (Err(_), true, Some(me)) = (&told, new, me.upgrade()) {
                // Nobody would tell.
                me.state.lock().watches.remove(&number);
                me.all.remove(file, &me.me);
            }
            told.and(done(number))
        })
    }

    /// The number of a watch, and whether it is new.
    fn note(&self, file: ObjectId, home: Option<KernelId>, kept: Mask, mask: Mask) -> Result<(i32, bool)> {
        let mut state = self.state.lock();
        if let Some((number, watch)) = state.watches.iter_mut().find(|(_, w)| w.file == file) {
            if mask.contains(Mask::MASK_CREATE) {
                return Err(Errno::EEXIST.into());
            }
            let old = if mask.contains(Mask::MASK_ADD) { watch.mask } else { Mask::empty() };
            watch.mask = old | kept;
            return Ok((*number, false));
        }
        if state.watches.len() >= MAX_WATCHES {
            return Err(Errno::ENOSPC.into());
        }
        let number = state.last.checked_add(1).ok_or(Errno::ENOSPC)?;
        state.last = number;
        state.watches.insert(number, Watch { file, mask: kept, home });
        Ok((number, true))
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

    pub(crate) fn happened(&self, file: ObjectId, what: Mask, cookie: u32, name: &[u8]) {
        let mut once = false;
        {
            let mut state = self.state.lock();
            let Some((number, watch)) = state.watches.iter().find(|(_, w)| w.file == file) else { return };
            let (number, mask) = (*number, watch.mask);
            // Where its files are gone everybody is told.
            if !(mask | Mask::UNMOUNT).intersects(what & (Mask::EVENTS | Mask::UNMOUNT)) {
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
    pub(crate) fn forget(&self, file: ObjectId) {
        {
            let mut state = self.state.lock();
            let Some(number) = state.watches.iter().find(|(_, w)| w.file == file).map(|(n, _)| *n) else { return };
            state.watches.remove(&number);
            state.push(Event { watch: number, mask: Mask::IGNORED.bits(), cookie: 0, name: Vec::new() });
        }
        self.waiters.wake(Ready::IN);
    }

    #[cfg(test)]
    pub(crate) fn this(&self) -> Weak<Self> {
        self.me.clone()
    }

    /// Lets the peers whose files are watched say what has happened; `None` if there are none.
    fn fresh(&self) -> Option<TryResult<()>> {
        let mut homes: Vec<KernelId> = Vec::new();
        for home in self.state.lock().watches.values().filter_map(|watch| watch.home) {
            if !homes.contains(&home) {
                homes.push(home);
            }
        }
        if homes.is_empty() { None } else { self.all.abroad().map(|abroad| settle(abroad, homes)) }
    }

    /// Takes the events that fit.
    fn take(&self, sink: &mut dyn Sink) -> TryResult<usize> {
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

    fn ready(&self) -> Ready {
        if self.state.lock().queue.is_empty() { Ready::empty() } else { Ready::IN }
    }

    fn readable(&self) -> u64 {
        self.state.lock().queue.iter().map(|e| 16 + e.name_size() as u64).sum()
    }
}

/// One kernel after the other.
fn settle(abroad: Arc<dyn Abroad>, mut homes: Vec<KernelId>) -> TryResult<()> {
    let Some(home) = homes.pop() else { return done(()) };
    // One that is dead has told all that it will.
    Try::settled(abroad.settle(home)).and_then(move |_| settle(abroad, homes))
}

impl FileOps for Inotify {
    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _: &LocalFile, _: &Caller, _: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        self.take(sink)
    }

    fn asks_first(&self) -> bool {
        true
    }

    fn read_later(&self, room: usize) -> Option<TryResult<ReadOut>> {
        let (fresh, me) = (self.fresh()?, self.me.upgrade()?);
        let read = move |()| {
            let mut sink = VecSink::new(room);
            me.take(&mut sink).map(|t| t.map(|_| ReadOut::Bytes(sink.bytes)))
        };
        Some(fresh.and_then(|t| t.and_then(read)))
    }

    fn poll_later(&self) -> Option<TryResult<Ready>> {
        let (fresh, me) = (self.fresh()?, self.me.upgrade()?);
        Some(fresh.and_then(|t| t.and_then(move |()| done(me.ready()))))
    }

    fn write(&self, _: &LocalFile, _: &Caller, _: u64, _: bool, _: &mut dyn Source) -> TryResult<Wrote> {
        Err(Error::new(Errno::EBADF, "events cannot be written"))
    }

    fn poll(&self, _: &LocalFile) -> Ready {
        self.ready()
    }

    fn subscribe(&self, _: &LocalFile, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        self.waiters.subscribe(mask, waker)
    }

    fn ioctl(&self, _: &LocalFile, _: &Caller, request: Ioctl) -> TryResult<IoctlReply> {
        match request {
            Ioctl::BytesReadable => {
                let Some((fresh, me)) = self.fresh().zip(self.me.upgrade()) else {
                    return done(IoctlReply::Number(self.readable()));
                };
                fresh?.and_then(move |()| done(IoctlReply::Number(me.readable())))
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
