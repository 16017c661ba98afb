//! System V shared memory segments (`sysvipc(7)`) of one kernel: which keys and ids there are. Their pages are those of an ordinary
//! memory object, so attaching one is mapping it.
//!
//! A segment that was removed lives on without its key until the last mapping goes.

use alloc::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};

use base::{Errno, Error, Result};
use hal::sync::{SpinLock, rank};

use crate::{cache::PageCache, memory::Memory, object::MemoryObject};

/// The key that no segment is found by (`IPC_PRIVATE`).
pub const PRIVATE: i32 = 0;
/// Most segments (`/proc/sys/kernel/shmmni`).
pub const SEGMENTS_MAX: usize = 4096;

/// What is kept about a segment besides its pages; `struct shmid_ds`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Info {
    /// Key, [`PRIVATE`] if it has none (any more).
    pub key: i32,
    /// Owner.
    pub uid: u32,
    /// Owner's group.
    pub gid: u32,
    /// Creator.
    pub cuid: u32,
    /// Creator's group.
    pub cgid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Bytes that were asked for.
    pub size: u64,
    /// Last attach, s since 1970.
    pub attached: i64,
    /// Last detach.
    pub detached: i64,
    /// Last change of these.
    pub changed: i64,
    /// Pid of the creator.
    pub creator: u32,
    /// Pid of whoever attached or detached last.
    pub last: u32,
    /// It is to go when nobody maps it (`SHM_DEST`).
    pub removed: bool,
}

enum Pages {
    Held(Arc<PageCache>),
    /// Removed: only mappings keep it.
    Removed(Weak<PageCache>),
}

struct Segment {
    info: Info,
    pages: Pages,
}

impl Segment {
    fn object(&self) -> Option<Arc<PageCache>> {
        match &self.pages {
            Pages::Held(object) => Some(object.clone()),
            Pages::Removed(object) => object.upgrade(),
        }
    }
}

/// A segment as it is now.
#[derive(Clone)]
pub struct View {
    /// Its id.
    pub id: i32,
    /// What is known.
    pub info: Info,
    /// Its pages.
    pub object: Arc<PageCache>,
}

impl View {
    /// How many mappings there are (`shm_nattch`).
    pub fn mappings(&self) -> usize {
        self.object.mappings()
    }
}

struct Inner {
    slots: BTreeMap<i32, Segment>,
    next: i32,
}

/// All segments.
pub struct Segments(SpinLock<Inner>);

const fn gone() -> Error {
    Error::new(Errno::EINVAL, "no such segment")
}

impl Default for Segments {
    fn default() -> Self {
        Self::new()
    }
}

impl Segments {
    /// None.
    pub const fn new() -> Self {
        Self(SpinLock::new(rank::MOUNTS, Inner { slots: BTreeMap::new(), next: 0 }))
    }

    /// Finds a segment by its key.
    pub fn find(&self, key: i32) -> Option<View> {
        let inner = self.0.lock();
        let (id, segment) = inner.slots.iter().find(|(_, segment)| key != PRIVATE && segment.info.key == key)?;
        Some(View { id: *id, info: segment.info, object: segment.object()? })
    }

    /// Makes a segment. `info` says what it is; its key is free, or found to be taken meanwhile.
    ///
    /// # Errors
    /// `EEXIST`, `ENOSPC` (too many).
    pub fn create(&self, memory: &Arc<Memory>, info: Info) -> Result<i32> {
        let pages = info.size.div_ceil(crate::space::PAGE) * crate::space::PAGE;
        let object = PageCache::new(memory, pages);
        let mut inner = self.0.lock();
        let inner = &mut *inner;
        // What went with its last mapping makes room.
        inner.slots.retain(|_, segment| segment.object().is_some());
        if info.key != PRIVATE && inner.slots.values().any(|segment| segment.info.key == info.key) {
            return Err(Error::new(Errno::EEXIST, "the key is taken"));
        }
        if inner.slots.len() >= SEGMENTS_MAX {
            return Err(Error::new(Errno::ENOSPC, "too many segments"));
        }
        let id = loop {
            let id = inner.next;
            inner.next = inner.next.checked_add(1).unwrap_or(0);
            if !inner.slots.contains_key(&id) {
                break id;
            }
        };
        inner.slots.insert(id, Segment { info, pages: Pages::Held(object) });
        Ok(id)
    }

    /// A segment by its id.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn get(&self, id: i32) -> Result<View> {
        let inner = self.0.lock();
        let segment = inner.slots.get(&id).ok_or(gone())?;
        Ok(View { id, info: segment.info, object: segment.object().ok_or(gone())? })
    }

    /// Changes what is known about a segment.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn change(&self, id: i32, change: impl FnOnce(&mut Info)) -> Result<()> {
        let mut inner = self.0.lock();
        inner.slots.get_mut(&id).map(|segment| change(&mut segment.info)).ok_or(gone())
    }

    /// Removes a segment: nobody finds it by its key any more, and it goes with its last mapping.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn remove(&self, id: i32) -> Result<()> {
        let mut inner = self.0.lock();
        let segment = inner.slots.get_mut(&id).ok_or(gone())?;
        segment.info.key = PRIVATE;
        segment.info.removed = true;
        if let Pages::Held(object) = &segment.pages {
            // Dropped after the lock: it may be the last and hold many pages.
            let object = object.clone();
            segment.pages = Pages::Removed(Arc::downgrade(&object));
            drop(inner);
            drop(object);
        }
        Ok(())
    }

    /// The segment whose pages `object` is.
    pub fn of_object(&self, object: base::ObjectId) -> Option<i32> {
        let inner = self.0.lock();
        inner.slots.iter().find(|(_, s)| s.object().is_some_and(|o| o.id() == object)).map(|(id, _)| *id)
    }

    /// All that exist (`SHM_INFO`, `/proc/sysvipc/shm`).
    pub fn list(&self) -> Vec<View> {
        let inner = self.0.lock();
        inner
            .slots
            .iter()
            .filter_map(|(id, segment)| Some(View { id: *id, info: segment.info, object: segment.object()? }))
            .collect()
    }
}
