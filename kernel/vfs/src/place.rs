//! Where something is in the tree: nodes (a name in a directory), mounts, places.

use alloc::{
    collections::BTreeMap,
    string::String,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use hal::sync::{SpinLock, rank};

use crate::{Inode, types::FileKind};

/// A name in a directory and the file it names. Directories have one node per kernel, so `getcwd` works over renames.
pub struct Node {
    inode: Arc<dyn Inode>,
    up: SpinLock<Up>,
    /// Names found in this directory, each with the directory's `names_version` at that time.
    names: SpinLock<BTreeMap<Arc<[u8]>, Known>>,
    /// The `names_version` at which what was older was taken out.
    swept: AtomicU64,
    /// Something may be mounted here.
    pub(crate) mounted: AtomicBool,
}

/// A name that was found. What may not be kept (`/proc`, a peer's directory) is only remembered as long as somebody uses it, so that it stays the same
/// node while it is a working directory or a mount point.
struct Known {
    version: u64,
    weak: Weak<Node>,
    strong: Option<Arc<Node>>,
}

impl Known {
    fn new(node: &Arc<Node>, version: Option<u64>) -> Self {
        Self { version: version.unwrap_or(0), weak: Arc::downgrade(node), strong: version.map(|_| node.clone()) }
    }
}

struct Up {
    parent: Option<Arc<Node>>,
    name: Arc<[u8]>,
    gone: bool,
}

impl Node {
    /// The root of a file system, or a file without a name; `name` is only for people.
    pub fn root(inode: Arc<dyn Inode>, name: &[u8]) -> Arc<Self> {
        Self::new(inode, None, name.into())
    }

    fn new(inode: Arc<dyn Inode>, parent: Option<Arc<Self>>, name: Arc<[u8]>) -> Arc<Self> {
        Arc::new(Self {
            inode,
            up: SpinLock::new(rank::DENTRIES, Up { parent, name, gone: false }),
            names: SpinLock::new(rank::DENTRIES, BTreeMap::new()),
            swept: AtomicU64::new(0),
            mounted: AtomicBool::new(false),
        })
    }

    /// The file.
    #[inline]
    pub const fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }

    /// What it is.
    #[inline]
    pub fn kind(&self) -> FileKind {
        self.inode.kind()
    }

    /// The directory that has the name; `None` for a root.
    pub fn parent(&self) -> Option<Arc<Self>> {
        self.up.lock().parent.clone()
    }

    /// The name.
    pub fn name(&self) -> Arc<[u8]> {
        self.up.lock().name.clone()
    }

    /// Whether the name was taken away.
    pub fn is_gone(&self) -> bool {
        self.up.lock().gone
    }

    /// What is known about `name`, if it was found when the directory was at `version`.
    #[inline]
    pub(crate) fn cached(&self, name: &[u8], version: u64) -> Option<Arc<Self>> {
        match self.names.lock().get(name) {
            Some(known) if known.version == version => known.strong.clone(),
            _ => None,
        }
    }

    /// The node of this name, if something is mounted there: it cannot be removed or renamed.
    pub(crate) fn mounted(&self, name: &[u8]) -> Option<Arc<Self>> {
        let node = self.names.lock().get(name)?.weak.upgrade()?;
        node.mounted.load(Ordering::Acquire).then_some(node)
    }

    /// The node of `inode`, found as `name`; kept if `version` says that it may be.
    pub(crate) fn child(self: &Arc<Self>, name: &[u8], inode: Arc<dyn Inode>, version: Option<u64>) -> Arc<Self> {
        let mut names = self.names.lock();
        if let Some(known) = names.get_mut(name)
            && let Some(node) = known.weak.upgrade()
            && crate::inode::same(&node.inode, &inode)
        {
            known.version = version.unwrap_or(0);
            return node;
        }
        let name: Arc<[u8]> = name.into();
        let node = Self::new(inode, Some(self.clone()), name.clone());
        let mut dead = Vec::new();
        if let Some(version) = version
            && self.swept.swap(version, Ordering::Relaxed) != version
        {
            dead = Self::sweep(&mut names, version);
        }
        if version.is_none() && names.len() >= 64 {
            names.retain(|_, known| known.weak.strong_count() > 0);
        }
        dead.extend(names.insert(name, Known::new(&node, version)));
        drop(names);
        drop(dead);
        node
    }

    /// Takes out what was found before the directory changed: it would not be believed any more, and may have been removed through another kernel.
    /// Files that somebody uses stay the same nodes.
    fn sweep(names: &mut BTreeMap<Arc<[u8]>, Known>, version: u64) -> Vec<Known> {
        let old = names.iter().filter(|(_, known)| known.version != version);
        let old: Vec<Arc<[u8]>> = old.map(|(name, _)| name.clone()).collect();
        let mut dead = Vec::new();
        for name in old {
            let Some(known) = names.remove(&name) else { continue };
            if known.weak.strong_count() > usize::from(known.strong.is_some()) {
                names.insert(name, Known { version: 0, weak: known.weak.clone(), strong: None });
            }
            dead.push(known);
        }
        dead
    }

    /// The name was taken away.
    pub(crate) fn forget(&self, name: &[u8]) {
        let gone = self.names.lock().remove(name);
        if let Some(node) = gone.as_ref().and_then(|k| k.weak.upgrade()) {
            node.up.lock().gone = true;
            let inner = core::mem::take(&mut *node.names.lock());
            drop(inner);
        }
        drop(gone);
    }

    pub(crate) fn known(&self, name: &[u8]) -> Option<Arc<Self>> {
        self.names.lock().get(name).and_then(|k| k.weak.upgrade())
    }

    /// `name` of this directory is now `new` of `to`, and with `exchange` the other way round too.
    pub(crate) fn moved(self: &Arc<Self>, name: &[u8], to: &Arc<Self>, new: &[u8], exchange: bool) {
        let here = self.names.lock().remove(name).and_then(|k| k.weak.upgrade());
        let there = to.names.lock().remove(new).and_then(|k| k.weak.upgrade());
        if let Some(node) = here {
            node.settle(to, new);
        }
        match there {
            Some(node) if exchange => node.settle(self, name),
            Some(node) => node.up.lock().gone = true,
            None => {}
        }
    }

    /// This node is now `name` of `parent`.
    fn settle(self: Arc<Self>, parent: &Arc<Self>, name: &[u8]) {
        let name: Arc<[u8]> = name.into();
        let old = {
            let mut up = self.up.lock();
            up.name = name.clone();
            up.parent.replace(parent.clone())
        };
        drop(old);
        let known = Known { version: 0, weak: Arc::downgrade(&self), strong: Some(self) };
        let old = parent.names.lock().insert(name, known);
        drop(old);
    }
}

bitflags::bitflags! {
    /// Mount flags as in `mount(2)`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MountFlags: u32 {
        /// Read-only.
        const RDONLY = 1;
        /// Set-id bits do not count.
        const NOSUID = 2;
        /// No device files.
        const NODEV = 4;
        /// No programs.
        const NOEXEC = 8;
        /// No access times.
        const NOATIME = 1024;
        /// Access times relative to changes.
        const RELATIME = 1 << 21;
    }
}

/// A file system in the tree.
pub struct Mount {
    /// Its number (`/proc/PID/mountinfo`).
    pub id: u32,
    /// What is seen at the mount point.
    pub root: Arc<Node>,
    /// Where; `None` for the root of all.
    pub at: Option<Place>,
    /// What was mounted, for `/proc/mounts`.
    pub source: String,
    /// The type.
    pub fs_type: String,
    /// Options beyond the flags.
    pub options: String,
    pub(crate) flags: AtomicU32,
}

impl Mount {
    /// Its flags.
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }
}

/// A node seen through a mount.
#[derive(Clone)]
pub struct Place {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The node.
    pub node: Arc<Node>,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mount, &other.mount) && Arc::ptr_eq(&self.node, &other.node)
    }
}

impl core::fmt::Debug for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Place({})", String::from_utf8_lossy(&self.path(None).0))
    }
}

impl Place {
    /// The file.
    #[inline]
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.node.inode()
    }

    /// What it is.
    #[inline]
    pub fn kind(&self) -> FileKind {
        self.node.kind()
    }

    /// The directory above, `root` staying itself.
    #[must_use]
    pub fn up(&self, root: &Self) -> Self {
        let mut place = self.clone();
        loop {
            if place == *root {
                return place;
            }
            if !Arc::ptr_eq(&place.node, &place.mount.root) {
                return match place.node.parent() {
                    Some(node) => Self { mount: place.mount, node },
                    None => place,
                };
            }
            match place.mount.at.clone() {
                Some(at) => place = at,
                None => return place,
            }
        }
    }

    /// The path from `root` (or the root of all) and whether it leads there: `false` if a name was taken away or `root` is not above.
    pub fn path(&self, root: Option<&Self>) -> (Vec<u8>, bool) {
        let mut parts: Vec<Arc<[u8]>> = Vec::new();
        let mut place = self.clone();
        let mut reachable = true;
        loop {
            if root.is_some_and(|r| *r == place) {
                break;
            }
            if Arc::ptr_eq(&place.node, &place.mount.root) {
                match place.mount.at.clone() {
                    Some(at) => place = at,
                    None => {
                        reachable &= root.is_none_or(|r| *r == place);
                        break;
                    }
                }
                continue;
            }
            let (parent, name, gone) = {
                let up = place.node.up.lock();
                (up.parent.clone(), up.name.clone(), up.gone)
            };
            reachable &= !gone;
            parts.push(name);
            match parent {
                Some(node) => place.node = node,
                // A pipe, a socket, an O_TMPFILE file: its name is all there is.
                None => return (join(&parts, false), false),
            }
        }
        (join(&parts, true), reachable)
    }
}

impl Place {
    /// What `/proc/PID/fd` shows for a file that was found here.
    pub fn describe(&self) -> String {
        let (path, reachable) = self.path(None);
        let mut text = String::from_utf8_lossy(&path).into_owned();
        if !reachable && text.starts_with('/') {
            text.push_str(" (deleted)");
        }
        text
    }
}

fn join(parts: &[Arc<[u8]>], slash: bool) -> Vec<u8> {
    let mut path = Vec::new();
    for part in parts.iter().rev() {
        if slash || !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(part);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    path
}
