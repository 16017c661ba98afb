//! How descriptors and directories go with a task that moves.

use alloc::{sync::Arc, vec::Vec};

use base::{Errno, Error, KernelId, ObjectId, Result, TryResult};
use objects::codec::{Coded, Reader, Short, Writer};
use task::{image::HandleImage, moving::Handles};
use vfs::{Caller, FileKind, Follow, OpenFile, OpenFlags, Place, Status, WaitOps, Walk};

use crate::{
    handler::{able, describe},
    references::Passed,
    remote::{Opened, RemoteFile},
    service::FileService,
};

/// An open file on its way: its name, its home, and what its holder knows without asking.
#[derive(Clone)]
pub struct FileInTransit {
    /// Its name in the machine.
    pub object: ObjectId,
    /// Its home.
    pub home: KernelId,
    /// What its new holder knows.
    pub opened: Opened,
}

impl Coded for FileInTransit {
    fn put(&self, to: &mut Writer) {
        to.record(|to| {
            self.object.put(to);
            self.home.put(to);
            self.opened.flags.bits().put(to);
            self.opened.status.bits().put(to);
            self.opened.able.put(to);
            (self.opened.kind as u8).put(to);
            self.opened.inode.put(to);
            self.opened.describe.put(to);
        });
    }

    fn get(from: &mut Reader<'_>) -> core::result::Result<Self, Short> {
        let mut record = from.record()?;
        let from = &mut record;
        let (object, home) = (Coded::get(from)?, Coded::get(from)?);
        let opened = Opened {
            flags: OpenFlags::from_bits_truncate(Coded::get(from)?),
            status: Status::from_bits_truncate(Coded::get(from)?),
            able: Coded::get(from)?,
            kind: crate::codec::kind(Coded::get(from)?)?,
            inode: Coded::get(from)?,
            describe: Coded::get(from)?,
            place: None,
            base: None,
        };
        Ok(Self { object, home, opened })
    }
}

/// What a new holder of a file may know.
pub(crate) fn opened(file: &Arc<dyn OpenFile>) -> Opened {
    match file.as_any().downcast_ref::<RemoteFile>() {
        Some(remote) => remote.opened(),
        None => Opened {
            flags: file.flags(),
            status: file.status(),
            able: able(&**file),
            kind: file.kind().unwrap_or(FileKind::Char),
            inode: file.inode_id(),
            place: None,
            base: None,
            describe: describe(&**file),
        },
    }
}

impl FileService {
    /// Makes an open file ready to be sent to kernel `to`.
    ///
    /// # Errors
    /// `EHOSTDOWN` if its home is dead and does not grant.
    pub(crate) fn send_passed(&self, file: &Arc<dyn OpenFile>, to: KernelId) -> TryResult<(FileInTransit, Passed)> {
        let opened = opened(file);
        Ok(self
            .pass_on(file, to)?
            .map(move |passed| (FileInTransit { object: passed.object, home: passed.home, opened }, passed)))
    }

    /// An open file that `via` sent arrives.
    ///
    /// # Errors
    /// `ESTALE` if it is said to be here but is not; `EHOSTDOWN` if `via` is dead.
    pub fn arrive_file(&self, file: FileInTransit, via: KernelId) -> Result<Arc<dyn OpenFile>> {
        self.receive_file(file.object, file.home, via, true, file.opened)
    }

    /// The path of a directory, as every kernel finds it again.
    ///
    /// # Errors
    /// `ENOENT` if the directory was removed: it has no path.
    pub fn path_of(&self, place: &Place) -> Result<Vec<u8>> {
        match place.path(None) {
            (path, true) => Ok(path),
            (_, false) => Err(Error::new(Errno::ENOENT, "the directory has no path any more")),
        }
    }

    /// The place at a path; waits, in the context of the task that arrives.
    ///
    /// # Errors
    /// As for any path.
    pub fn place_at(&self, path: &[u8], wait: &dyn WaitOps) -> Result<Place> {
        let vfs = self.vfs()?;
        let root = vfs.root()?;
        let caller = Caller::kernel();
        Walk { vfs, caller: &caller, start: root.clone(), root, wait }.find(path, Follow::Yes)
    }
}

/// Places go by their path: every kernel of the machine finds the same directory there.
const BY_PATH: ObjectId = ObjectId { birth: KernelId { index: 0, incarnation: 0 }, serial: 0 };

impl Handles for FileService {
    fn give_file(&self, file: &Arc<dyn OpenFile>, to: KernelId) -> TryResult<HandleImage> {
        let sent = self.send_passed(file, to)?;
        Ok(sent.map(|(file, passed)| {
            // The image goes as bytes: who makes it says if it does not go.
            passed.sent();
            HandleImage { object: file.object, data: file.to_bytes() }
        }))
    }

    fn give_place(&self, place: &Place, _to: KernelId) -> TryResult<HandleImage> {
        base::wait::done(HandleImage { object: BY_PATH, data: self.path_of(place)? })
    }

    fn take_file(&self, handle: &HandleImage, from: KernelId) -> TryResult<Arc<dyn OpenFile>> {
        let bad = |_| Error::new(Errno::EBADMSG, "the descriptor does not decode");
        let file = FileInTransit::from_bytes(&handle.data).map_err(bad)?;
        base::wait::done(self.arrive_file(file, from)?)
    }

    fn not_given(&self, handle: &HandleImage, to: KernelId) {
        if let Ok(file) = FileInTransit::from_bytes(&handle.data) {
            self.not_sent(file.object, file.home, to);
        }
    }

    fn take_place(&self, handle: &HandleImage, _from: KernelId, wait: &dyn WaitOps) -> Result<Place> {
        self.place_at(&handle.data, wait)
    }
}
