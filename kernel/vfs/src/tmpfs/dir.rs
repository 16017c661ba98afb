//! The entries of a directory, by name and by a position that stays while others come and go.

use alloc::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};
use core::sync::atomic::{AtomicU64, Ordering};

use base::{Errno, Error, Result};
use hal::sync::{SpinLock, rank};

use super::TmpInode;
use crate::{DirSink, types::FileKind};

struct Entries {
    by_name: BTreeMap<Arc<[u8]>, (u64, Arc<TmpInode>)>,
    by_position: BTreeMap<u64, Arc<[u8]>>,
    next: u64,
    parent: Weak<TmpInode>,
    dead: bool,
}

/// See the module.
pub(super) struct Dir {
    entries: SpinLock<Entries>,
    version: AtomicU64,
}

/// Positions of `.` and `..` come first.
const FIRST: u64 = 2;

impl Dir {
    pub fn new(parent: Weak<TmpInode>) -> Self {
        Self {
            entries: SpinLock::new(
                rank::INODE_NAMES,
                Entries { by_name: BTreeMap::new(), by_position: BTreeMap::new(), next: FIRST, parent, dead: false },
            ),
            version: AtomicU64::new(1),
        }
    }

    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.version.fetch_add(1, Ordering::Release);
    }

    pub fn get(&self, name: &[u8]) -> Option<Arc<TmpInode>> {
        self.entries.lock().by_name.get(name).map(|(_, node)| node.clone())
    }

    pub fn len(&self) -> usize {
        self.entries.lock().by_name.len()
    }

    pub fn is_dead(&self) -> bool {
        self.entries.lock().dead
    }

    pub fn parent(&self) -> Option<Arc<TmpInode>> {
        self.entries.lock().parent.upgrade()
    }

    pub fn set_parent(&self, parent: Weak<TmpInode>) {
        self.entries.lock().parent = parent;
    }

    /// No entry may be added from now on, if there is none.
    pub fn kill(&self) -> Result<()> {
        let mut entries = self.entries.lock();
        if !entries.by_name.is_empty() {
            return Err(Error::new(Errno::ENOTEMPTY, "directory not empty"));
        }
        entries.dead = true;
        drop(entries);
        self.changed();
        Ok(())
    }

    pub fn insert(&self, name: &[u8], node: Arc<TmpInode>) -> Result<()> {
        {
            let mut entries = self.entries.lock();
            if entries.by_name.contains_key(name) {
                return Err(Error::new(Errno::EEXIST, "the name is taken"));
            }
            let name: Arc<[u8]> = name.into();
            let position = entries.next;
            entries.next += 1;
            entries.by_position.insert(position, name.clone());
            entries.by_name.insert(name, (position, node));
        }
        // A new name makes no name that was found before wrong.
        Ok(())
    }

    /// Puts an entry in the place of another one, or in a new one.
    pub fn put(&self, name: &[u8], node: Arc<TmpInode>) {
        let old = {
            let mut entries = self.entries.lock();
            match entries.by_name.get_mut(name) {
                Some((_, slot)) => Some(core::mem::replace(slot, node)),
                None => {
                    let name: Arc<[u8]> = name.into();
                    let position = entries.next;
                    entries.next += 1;
                    entries.by_position.insert(position, name.clone());
                    entries.by_name.insert(name, (position, node));
                    None
                }
            }
        };
        self.changed();
        drop(old);
    }

    /// Takes `name` out if it still names `node`.
    pub fn remove(&self, name: &[u8], node: &Arc<TmpInode>) -> bool {
        let old = {
            let mut entries = self.entries.lock();
            match entries.by_name.get(name) {
                Some((_, there)) if Arc::ptr_eq(there, node) => {}
                _ => return false,
            }
            let old = entries.by_name.remove(name);
            if let Some((position, _)) = &old {
                entries.by_position.remove(position);
            }
            old
        };
        self.changed();
        drop(old);
        true
    }

    /// Entries from `from` until the sink is full; where to go on.
    pub fn read(&self, me: u64, from: u64, sink: &mut dyn DirSink) -> u64 {
        let entries = self.entries.lock();
        let parent = entries.parent.upgrade().map_or(me, |p| p.ino);
        let mut at = from;
        for (position, name, ino) in [(0, &b"."[..], me), (1, &b".."[..], parent)] {
            if at == position {
                if !sink.put(name, ino, FileKind::Directory, position + 1) {
                    return at;
                }
                at = position + 1;
            }
        }
        for (position, name) in entries.by_position.range(at.max(FIRST)..) {
            let Some((_, node)) = entries.by_name.get(name) else { continue };
            if !sink.put(name, node.ino, node.kind, position + 1) {
                return at;
            }
            at = position + 1;
        }
        at
    }
}
