//! inotify(7) across kernels: files are watched where they live ([`vfs::watches`]), and those kernels are told that have instances.
//!
//! What happened is told on the lane of answers, so that it comes before the answer to whatever was asked after it: an operation, or [`WatchSettle`].

use base::{Errno, Error, KernelId, ObjectId, TryResult, wait::done};
use link::Incoming;
use objects::{from_wire, object_from_wire, object_to_wire, to_wire};
use vfs::{inotify::Mask, watches::Abroad};
use wire::{
    Message as _,
    files::{NodeHappened, NodeTouched, NodeUnwatch, NodeWatch, WatchSettle},
};

use crate::{
    handler::{FileHandler, refused},
    remote::nothing,
    service::FileService,
};

impl Abroad for FileService {
    fn watch(&self, home: KernelId, file: ObjectId, mask: Mask, serial: u64) -> TryResult<()> {
        self.ask_kernel(home, file, &NodeWatch { mask: mask.bits(), serial }, &[], false, nothing)
    }

    fn unwatch(&self, home: KernelId, file: ObjectId, serial: u64) {
        // If it is dead nobody tells anything.
        let _ = self.links.send(to_wire(home), object_to_wire(file), &NodeUnwatch { serial }, &[]);
    }

    fn settle(&self, home: KernelId) -> TryResult<()> {
        let nothing_of_it = ObjectId { birth: home, serial: 0 };
        self.ask_kernel(home, nothing_of_it, &WatchSettle {}, &[], false, nothing)
    }

    fn happened(&self, watcher: KernelId, file: ObjectId, what: Mask, cookie: u32, name: &[u8]) {
        let message = NodeHappened { mask: what.bits(), cookie };
        // If it is dead nobody watches there.
        let _ = self.links.send(to_wire(watcher), object_to_wire(file), &message, name);
    }

    fn touched(&self, home: KernelId, directory: ObjectId, what: Mask, name: &[u8]) {
        let message = NodeTouched { mask: what.bits() };
        // If it is dead so is the directory.
        let _ = self.links.send(to_wire(home), object_to_wire(directory), &message, name);
    }
}

impl FileHandler {
    /// `false`: the message is about something else.
    pub(crate) fn handle_watch(&self, message: &Incoming<'_>) -> link::Result<bool> {
        let (kind, from) = (message.header.kind, from_wire(message.from));
        let file = object_from_wire(message.header.object);
        let is = |number: u16| kind == number;
        if ![NodeWatch::SPEC, NodeUnwatch::SPEC, NodeTouched::SPEC, NodeHappened::SPEC, WatchSettle::SPEC]
            .iter()
            .any(|spec| is(spec.number))
        {
            return Ok(false);
        }
        let vfs = self.0.vfs().map_err(|error| refused(error, message.from))?;
        if is(NodeWatch::SPEC.number) {
            let (watch, _) = message.read::<NodeWatch>()?;
            // What this kernel has from another one is watched there.
            let own = self.node(message)?.teller().and_then(|teller| match teller {
                None => Ok(()),
                Some(_) => Err(Error::new(Errno::EOPNOTSUPP, "not of this kernel")),
            });
            own.map_err(|error| refused(error, message.from))?;
            vfs.watches.watched_by(from, file, Mask::from_bits_truncate(watch.mask), watch.serial);
            self.nothing(message.answer_to(), done(()));
        } else if is(NodeUnwatch::SPEC.number) {
            vfs.watches.unwatched_by(from, file, message.read::<NodeUnwatch>()?.0.serial);
        } else if is(NodeTouched::SPEC.number) {
            let (touched, name) = message.read::<NodeTouched>()?;
            vfs.watches.tell(file, Mask::from_bits_truncate(touched.mask) & (Mask::EVENTS | Mask::ISDIR), 0, name);
        } else if is(NodeHappened::SPEC.number) {
            let (happened, name) = message.read::<NodeHappened>()?;
            vfs.watches.heard(from, file, Mask::from_bits_truncate(happened.mask), happened.cookie, name);
        } else {
            self.nothing(message.answer_to(), done(()));
        }
        Ok(true)
    }
}
