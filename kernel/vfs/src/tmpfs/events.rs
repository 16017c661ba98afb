//! What those who watch files of tmpfs are told; inotify(7).

use core::sync::atomic::Ordering;

use base::ObjectId;

use super::{TmpInode, Tmpfs};
use crate::{FileKind, Place, inotify::Mask};

impl Tmpfs {
    /// Something happened to a file.
    pub(super) fn tell(&self, file: ObjectId, what: Mask) {
        if self.watches.is_active() {
            self.watches.tell(file, what, 0, b"");
        }
    }
}

impl TmpInode {
    /// Something happened to a name in this directory.
    pub(super) fn tell_name(&self, what: Mask, name: &[u8], node: &Self) {
        if self.fs.watches.is_active() {
            let dir = if node.kind == FileKind::Directory { Mask::ISDIR } else { Mask::empty() };
            self.fs.watches.tell(self.id, what | dir, 0, name);
        }
    }

    pub(super) fn opened(&self, place: &Place) {
        self.opens.fetch_add(1, Ordering::Relaxed);
        if self.fs.watches.is_active() {
            self.fs.watches.tell_at(place, Mask::OPEN);
        }
    }

    /// Without a name and not open: it will not be seen again.
    pub(super) fn check_gone(&self) {
        if self.fs.watches.is_active() && self.opens.load(Ordering::Relaxed) == 0 && self.meta.lock().links == 0 {
            self.fs.watches.gone(self.id);
        }
    }
}
