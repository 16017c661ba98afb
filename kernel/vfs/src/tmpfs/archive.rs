//! The base tree: a cpio "newc" archive in memory, the same for all kernels of a machine.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::Ordering;

use base::{Errno, Error, Result, TryResult, wait::done};
use hal::frame::Frame;
use mm::{PageCache, PageSource, SourcePage};

use super::{Content, Limits, PAGE, TmpInode, Tmpfs};
use crate::{
    Device, Vfs,
    inode::NewNode,
    types::{FileKind, Time},
};

/// One file's bytes in the archive.
struct Piece(&'static [u8]);

impl PageSource for Piece {
    fn page(&self, index: u64) -> TryResult<SourcePage> {
        let start = usize::try_from(index).ok().and_then(|i| i.checked_mul(PAGE as usize)).unwrap_or(usize::MAX);
        let Some(bytes) = self.0.get(start..).filter(|b| !b.is_empty()) else { return done(SourcePage::Hole) };
        let bytes = bytes.get(..PAGE as usize).unwrap_or(bytes);
        let no_memory = |_| Error::new(Errno::ENOMEM, "no frame for a page of the archive");
        let frame = Frame::alloc(bytes.len() < PAGE as usize).map_err(no_memory)?;
        frame.write(0, bytes);
        done(SourcePage::Filled(frame))
    }

    fn bytes(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        self.0.get(start..start.checked_add(len)?)
    }
}

/// A tree with what is in the archive. The bytes stay where they are; pages are copied when they are first used.
///
/// # Errors
/// `EINVAL` if an entry makes no sense.
pub fn load(vfs: &Arc<Vfs>, archive: &'static [u8]) -> Result<Arc<TmpInode>> {
    let root = Tmpfs::new(vfs, 0o755, Limits::of_memory());
    let mut links: Vec<(u32, Arc<TmpInode>)> = Vec::new();
    for entry in cpio::entries(archive) {
        let path = cpio::trimmed(entry.name);
        let mode = entry.mode;
        if path.is_empty() || path == b"." {
            continue;
        }
        let kind = FileKind::from_mode(mode).ok_or(Error::new(Errno::EINVAL, "an entry of unknown type"))?;
        let (dir, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
            None => (&b""[..], path),
        };
        let dir = directory(&root, dir)?;
        // Later entries win over earlier ones, but a directory keeps what is in it.
        if let Some(old) = dir.get(name) {
            if kind == FileKind::Directory && old.kind == FileKind::Directory {
                stamp(&old, &entry, mode);
                continue;
            }
            let _changes = dir.fs.changes.lock();
            dir.dir()?.remove(name, &old);
        }
        if kind == FileKind::Regular
            && entry.nlink > 1
            && let Some((_, first)) = links.iter().find(|(ino, _)| *ino == entry.ino && entry.file.is_empty())
        {
            let _changes = dir.fs.changes.lock();
            dir.insert(name, first)?;
            first.touch_links(1);
            continue;
        }
        let node = if kind == FileKind::Regular && !entry.file.is_empty() {
            let cache = PageCache::of_source(vfs.env().memory(), Arc::new(Piece(entry.file)), entry.file.len() as u64);
            let node = TmpInode::new(&root.fs, Content::Regular(cache), kind, mode & 0o7777, (0, 0));
            node.base.store(true, Ordering::Relaxed);
            let _changes = dir.fs.changes.lock();
            dir.insert(name, &node)?;
            node
        } else {
            let device = Device::new(entry.rdev.0, entry.rdev.1);
            let what = match kind {
                FileKind::Regular => NewNode::Regular,
                FileKind::Directory => NewNode::Directory,
                FileKind::Symlink => NewNode::Symlink(entry.file.into()),
                FileKind::Fifo => NewNode::Fifo,
                FileKind::Socket => NewNode::Socket,
                FileKind::Char | FileKind::Block => NewNode::Device(kind, device),
            };
            dir.add(name, what, mode & 0o7777)?
        };
        stamp(&node, &entry, mode);
        if entry.nlink > 1 && kind == FileKind::Regular {
            links.push((entry.ino, node));
        }
    }
    Ok(root)
}

fn stamp(node: &TmpInode, entry: &cpio::Entry<'_>, mode: u32) {
    let at = Time(i64::from(entry.mtime) * 1_000_000_000);
    let mut meta = node.meta.lock();
    meta.mode = mode & 0o7777;
    (meta.uid, meta.gid) = (entry.uid, entry.gid);
    (meta.accessed, meta.modified, meta.changed) = (at, at, at);
}

/// The directory at `path`, made where it is missing.
fn directory(root: &Arc<TmpInode>, path: &[u8]) -> Result<Arc<TmpInode>> {
    let mut here = root.clone();
    for name in path.split(|b| *b == b'/').filter(|n| !n.is_empty()) {
        here = match here.get(name) {
            Some(next) => next,
            None => here.add(name, NewNode::Directory, 0o755)?,
        };
    }
    Ok(here)
}
