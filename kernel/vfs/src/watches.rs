//! Who watches which file, in one kernel; see [`crate::inotify`].
//!
//! A file is watched by instances here and by kernels that have instances. Each of those said for what; what it is told goes over [`Abroad`].

use alloc::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use base::{KernelId, ObjectId, TryResult};
use hal::sync::{Once, SpinLock, rank};

use crate::{
    FileKind, Place,
    inotify::{Inotify, Mask},
};

/// What the peers do for watches. Called without locks.
pub trait Abroad: Send + Sync {
    /// A kernel is to tell this one what happens to a file of its own, besides what it tells already.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `EHOSTDOWN`.
    fn watch(&self, home: KernelId, file: ObjectId, mask: Mask, serial: u64) -> TryResult<()>;
    /// It need not tell any more what it was asked with this serial or an earlier one.
    fn unwatch(&self, home: KernelId, file: ObjectId, serial: u64);
    /// Done when it has told what happened until now.
    ///
    /// # Errors
    /// `EHOSTDOWN`.
    fn settle(&self, home: KernelId) -> TryResult<()>;
    /// Tells a kernel that watches a file of this one.
    fn happened(&self, watcher: KernelId, file: ObjectId, what: Mask, cookie: u32, name: &[u8]);
    /// Something happened to a name in a directory of another kernel.
    fn touched(&self, home: KernelId, directory: ObjectId, what: Mask, name: &[u8]);
}

/// A kernel that watches a file of this one.
struct Far {
    kernel: KernelId,
    mask: Mask,
    serial: u64,
}

#[derive(Default)]
struct Watched {
    /// The kernel that has the file, if it is another one.
    home: Option<KernelId>,
    /// What that one tells.
    mask: Mask,
    /// Chosen when the first instance began to watch.
    serial: u64,
    here: Vec<Weak<Inotify>>,
    far: Vec<Far>,
}

impl Watched {
    fn is_unused(&self) -> bool {
        self.here.is_empty() && self.far.is_empty()
    }
}

#[derive(Default)]
struct Table {
    files: BTreeMap<ObjectId, Watched>,
    serial: u64,
}

/// See the module.
pub struct Watches {
    /// How many files are watched.
    active: AtomicUsize,
    table: SpinLock<Table>,
    cookie: AtomicU32,
    abroad: Once<Weak<dyn Abroad>>,
}

impl Watches {
    /// Nobody watches.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            active: AtomicUsize::new(0),
            table: SpinLock::new(rank::EVENT, Table::default()),
            cookie: AtomicU32::new(1),
            abroad: Once::new(),
        })
    }

    /// The way to the peers; `false` if there is one.
    pub fn set_abroad(&self, abroad: Weak<dyn Abroad>) -> bool {
        self.abroad.set(abroad).is_ok()
    }

    pub(crate) fn abroad(&self) -> Option<Arc<dyn Abroad>> {
        self.abroad.get()?.upgrade()
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

    /// Something happened to a file of this kernel, or to `name` in it.
    #[cold]
    pub fn tell(&self, file: ObjectId, what: Mask, cookie: u32, name: &[u8]) {
        let (here, far) = {
            let table = self.table.lock();
            let Some(watched) = table.files.get(&file) else { return };
            let wants = |far: &&Far| far.mask.intersects(what & Mask::EVENTS);
            let far: Vec<_> = watched.far.iter().filter(wants).map(|far| far.kernel).collect();
            (instances(watched), far)
        };
        for watcher in here {
            watcher.happened(file, what, cookie, name);
        }
        if let Some(abroad) = self.abroad() {
            far.into_iter().for_each(|kernel| abroad.happened(kernel, file, what, cookie, name));
        }
    }

    /// Something happened to a file at a place: those who watch it, and those who watch its directory, are told.
    #[cold]
    pub fn tell_at(&self, place: &Place, what: Mask) {
        self.tell_parent(place, what);
        let dir = if place.kind() == FileKind::Directory { Mask::ISDIR } else { Mask::empty() };
        self.tell(place.inode().id(), what | dir, 0, b"");
    }

    /// Something happened to a file at a place: those who watch its directory are told, at whatever kernel that is.
    #[cold]
    pub fn tell_parent(&self, place: &Place, what: Mask) {
        let Some(parent) = place.node.parent().filter(|_| !place.node.is_gone()) else { return };
        let dir = if place.kind() == FileKind::Directory { Mask::ISDIR } else { Mask::empty() };
        let (directory, name) = (parent.inode().id(), place.node.name());
        match (parent.inode().teller(), self.abroad()) {
            (Ok(None), _) => self.tell(directory, what | dir, 0, &name),
            (Ok(Some(home)), Some(abroad)) => abroad.touched(home, directory, what | dir, &name),
            _ => {}
        }
    }

    /// A file has no name any more and nobody has it open.
    #[cold]
    pub fn gone(&self, file: ObjectId) {
        self.tell(file, Mask::DELETE_SELF, 0, b"");
        let Some(watched) = self.forget(file) else { return };
        for watcher in instances(&watched) {
            watcher.forget(file);
        }
        if let Some(abroad) = self.abroad() {
            watched.far.iter().for_each(|far| abroad.happened(far.kernel, file, Mask::IGNORED, 0, b""));
        }
    }

    fn forget(&self, file: ObjectId) -> Option<Watched> {
        let watched = self.table.lock().files.remove(&file)?;
        self.active.fetch_sub(1, Relaxed);
        Some(watched)
    }

    /// An instance watches a file. What its home has to be asked for that; `None`: nothing.
    pub(crate) fn add(
        &self,
        file: ObjectId,
        home: Option<KernelId>,
        mask: Mask,
        watcher: &Weak<Inotify>,
    ) -> Option<TryResult<()>> {
        let (home, serial, mask) = {
            let mut table = self.table.lock();
            let Table { files, serial } = &mut *table;
            let watched = files.entry(file).or_default();
            if watched.is_unused() {
                self.active.fetch_add(1, Relaxed);
            }
            if watched.here.is_empty() {
                *serial += 1;
                (watched.home, watched.serial, watched.mask) = (home, *serial, Mask::empty());
            }
            if !watched.here.iter().any(|w| w.ptr_eq(watcher)) {
                watched.here.push(watcher.clone());
            }
            if watched.mask.contains(mask) {
                return None;
            }
            watched.mask |= mask;
            (home?, watched.serial, watched.mask)
        };
        Some(self.abroad()?.watch(home, file, mask, serial))
    }

    pub(crate) fn remove(&self, file: ObjectId, watcher: &Weak<Inotify>) {
        let told = {
            let mut table = self.table.lock();
            let Some(watched) = table.files.get_mut(&file) else { return };
            watched.here.retain(|w| !w.ptr_eq(watcher));
            let told = watched.home.filter(|_| watched.here.is_empty()).map(|home| (home, watched.serial));
            if watched.is_unused() {
                table.files.remove(&file);
                self.active.fetch_sub(1, Relaxed);
            }
            told
        };
        if let (Some((home, serial)), Some(abroad)) = (told, self.abroad()) {
            abroad.unwatch(home, file, serial);
        }
    }

    // -- peers -----------------------------------------------------------------------------------------------------

    /// A peer wants to be told about a file of this kernel.
    pub fn watched_by(&self, kernel: KernelId, file: ObjectId, mask: Mask, serial: u64) {
        let mut table = self.table.lock();
        let watched = table.files.entry(file).or_default();
        if watched.is_unused() {
            self.active.fetch_add(1, Relaxed);
        }
        match watched.far.iter_mut().find(|far| far.kernel == kernel) {
            Some(far) => (far.mask, far.serial) = (far.mask | mask, far.serial.max(serial)),
            None => watched.far.push(Far { kernel, mask, serial }),
        }
    }

    /// A peer need not be told any more.
    pub fn unwatched_by(&self, kernel: KernelId, file: ObjectId, serial: u64) {
        self.drop_far(|of, far| of == file && far.kernel == kernel && far.serial <= serial);
    }

    fn drop_far(&self, mut which: impl FnMut(ObjectId, &Far) -> bool) {
        let mut table = self.table.lock();
        table.files.retain(|file, watched| {
            watched.far.retain(|far| !which(*file, far));
            let unused = watched.is_unused();
            if unused {
                self.active.fetch_sub(1, Relaxed);
            }
            !unused
        });
    }

    /// The home of a watched file says what happened.
    pub fn heard(&self, home: KernelId, file: ObjectId, what: Mask, cookie: u32, name: &[u8]) {
        let (here, serial) = {
            let table = self.table.lock();
            let watched = table.files.get(&file).filter(|watched| watched.home == Some(home));
            (watched.map(instances), table.serial)
        };
        let Some(here) = here else {
            // It was asked before the last instance ended, and heard of that end first: all that was asked until now is over.
            if let (false, Some(abroad)) = (what.contains(Mask::IGNORED), self.abroad()) {
                abroad.unwatch(home, file, serial);
            }
            return;
        };
        if what.contains(Mask::IGNORED) {
            self.forget(file);
        }
        for watcher in here {
            if what.contains(Mask::IGNORED) {
                watcher.forget(file);
            } else {
                watcher.happened(file, what, cookie, name);
            }
        }
    }

    /// A kernel died: its files are gone, and nobody there watches.
    pub fn peer_down(&self, dead: KernelId) {
        self.drop_far(|_, far| far.kernel == dead);
        let lost: Vec<ObjectId> = {
            let table = self.table.lock();
            table.files.iter().filter(|(_, watched)| watched.home == Some(dead)).map(|(file, _)| *file).collect()
        };
        for file in lost {
            self.heard(dead, file, Mask::UNMOUNT, 0, b"");
            self.heard(dead, file, Mask::IGNORED, 0, b"");
        }
    }
}

fn instances(watched: &Watched) -> Vec<Arc<Inotify>> {
    watched.here.iter().filter_map(Weak::upgrade).collect()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, vec::Vec};

    use base::{KernelId, ObjectId, Try, TryResult, wait::done};
    use hal::sync::{SpinLock, rank};

    use super::{Abroad, Watches};
    use crate::{
        Caller, LocalFile, OpenFile as _, ReadOut, Status, inotify::Inotify, inotify::Mask, testing::with_tree,
    };

    const HOME: KernelId = KernelId { index: 1, incarnation: 1 };
    const FILE: ObjectId = ObjectId { birth: HOME, serial: 7 };

    #[derive(Clone, PartialEq, Eq, Debug)]
    enum Said {
        Watch(Mask, u64),
        Unwatch(u64),
        Settle,
        Happened(KernelId, Mask),
        Touched,
    }

    struct Peer(SpinLock<Vec<Said>>);

    impl Peer {
        fn say(&self, said: Said) {
            self.0.lock().push(said);
        }
        fn take(&self) -> Vec<Said> {
            core::mem::take(&mut *self.0.lock())
        }
    }

    impl Abroad for Peer {
        fn watch(&self, _: KernelId, _: ObjectId, mask: Mask, serial: u64) -> TryResult<()> {
            self.say(Said::Watch(mask, serial));
            done(())
        }
        fn unwatch(&self, _: KernelId, _: ObjectId, serial: u64) {
            self.say(Said::Unwatch(serial));
        }
        fn settle(&self, _: KernelId) -> TryResult<()> {
            self.say(Said::Settle);
            done(())
        }
        fn happened(&self, watcher: KernelId, _: ObjectId, what: Mask, _: u32, _: &[u8]) {
            self.say(Said::Happened(watcher, what));
        }
        fn touched(&self, _: KernelId, _: ObjectId, _: Mask, _: &[u8]) {
            self.say(Said::Touched);
        }
    }

    fn instance(file: &LocalFile) -> std::sync::Weak<Inotify> {
        file.ops().as_any().downcast_ref::<Inotify>().expect("an instance").this()
    }

    fn masks(file: &LocalFile) -> Vec<u32> {
        let mut sink = base::io::VecSink::new(4096);
        let bytes = match file.read(&Caller::kernel(), &mut sink) {
            Ok(Try::Done(ReadOut::Bytes(bytes))) => bytes,
            Ok(Try::Done(ReadOut::InPlace(_))) => sink.bytes,
            _ => Vec::new(),
        };
        bytes.chunks(16).map(|event| u32::from_le_bytes(event[4..8].try_into().unwrap())).collect()
    }

    fn with_peer(f: impl FnOnce(&Arc<Watches>, &Peer, [Arc<LocalFile>; 2])) {
        with_tree(|vfs| {
            let peer = Arc::new(Peer(SpinLock::new(rank::LINK, Vec::new())));
            let weak: std::sync::Weak<Peer> = Arc::downgrade(&peer);
            assert!(vfs.watches.set_abroad(weak));
            let open = || Inotify::open(vfs, &Caller::kernel(), Status::NONBLOCK);
            f(&vfs.watches, &peer, [open(), open()]);
        });
    }

    #[test]
    fn a_home_is_asked_for_what_is_new() {
        with_peer(|watches, peer, [a, b]| {
            let add = |file: &LocalFile, mask| watches.add(FILE, Some(HOME), mask, &instance(file)).is_some();
            assert!(add(&a, Mask::OPEN));
            assert!(!add(&b, Mask::OPEN), "it tells that already");
            assert!(add(&b, Mask::MODIFY));
            assert_eq!(peer.take(), [Said::Watch(Mask::OPEN, 1), Said::Watch(Mask::OPEN | Mask::MODIFY, 1)]);
            watches.remove(FILE, &instance(&a));
            assert_eq!(peer.take(), [], "the other one still watches");
            watches.remove(FILE, &instance(&b));
            assert!(!watches.is_active());
            assert!(add(&a, Mask::OPEN));
            assert_eq!(peer.take(), [Said::Unwatch(1), Said::Watch(Mask::OPEN, 2)]);
            watches.remove(FILE, &instance(&a));
            peer.take();
            watches.heard(HOME, FILE, Mask::OPEN, 0, b"");
            assert_eq!(peer.take(), [Said::Unwatch(2)], "a home that tells nobody is told so");
        });
    }

    #[test]
    fn an_old_end_does_not_end_a_new_wish() {
        with_peer(|watches, peer, _| {
            watches.watched_by(HOME, FILE, Mask::OPEN, 2);
            watches.unwatched_by(HOME, FILE, 1);
            watches.tell(FILE, Mask::OPEN, 0, b"");
            watches.tell(FILE, Mask::MODIFY, 0, b"");
            assert_eq!(peer.take(), [Said::Happened(HOME, Mask::OPEN)], "what nobody asked for is not told");
            watches.unwatched_by(HOME, FILE, 2);
            assert!(!watches.is_active());
            watches.watched_by(HOME, FILE, Mask::OPEN, 3);
            watches.peer_down(HOME);
            assert!(!watches.is_active());
        });
    }

    #[test]
    fn a_reader_first_lets_the_home_say_what_happened_and_hears_of_its_death() {
        with_peer(|watches, peer, [a, _]| {
            let inotify = instance(&a).upgrade().expect("open");
            assert!(matches!(inotify.watch_at(FILE, Some(HOME), Mask::OPEN), Ok(Try::Done(1))));
            peer.take();
            assert_eq!(masks(&a), []);
            assert_eq!(peer.take(), [Said::Settle]);
            watches.heard(HOME, FILE, Mask::OPEN, 0, b"");
            watches.peer_down(HOME);
            assert_eq!(masks(&a), [Mask::OPEN.bits(), Mask::UNMOUNT.bits(), Mask::IGNORED.bits()]);
            assert!(!watches.is_active());
        });
    }
}
