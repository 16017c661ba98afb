//! Files of text, made when they are read, and directories of them.

use alloc::{collections::BTreeMap, string::String, sync::Arc, vec::Vec};

use base::{
    Errno, Error, TryResult,
    wait::{Try, done},
};
use hal::sync::{SpinLock, rank};
use vfs::{Caller, FileKind, Place};

/// A file of text.
pub trait Entry: Send + Sync {
    /// The text now.
    ///
    /// # Errors
    /// Any; `ESRCH` for a process that is gone.
    fn read(&self, caller: &Caller) -> TryResult<Vec<u8>>;
    /// Something was written to it: a setting, or a command.
    ///
    /// # Errors
    /// `EINVAL` for nonsense, `EPERM` for those who may not.
    fn write(&self, caller: &Caller, bytes: &[u8]) -> TryResult<()> {
        let _ = (caller, bytes);
        Err(Errno::EIO.into())
    }
    /// Permission bits.
    fn mode(&self) -> u32 {
        0o444
    }
}

/// A symbolic link.
pub trait Link: Send + Sync {
    /// Its text.
    ///
    /// # Errors
    /// Any.
    fn target(&self, caller: &Caller) -> TryResult<Vec<u8>>;
    /// The place that it leads to without its text, if that is known here.
    ///
    /// # Errors
    /// Any.
    fn place(&self, caller: &Caller) -> TryResult<Option<Place>> {
        let _ = caller;
        done(None)
    }
}

/// A directory.
pub trait Dir: Send + Sync {
    /// The names in it.
    ///
    /// # Errors
    /// Any.
    fn list(&self, caller: &Caller) -> TryResult<Vec<(Vec<u8>, FileKind)>>;
    /// What has this name.
    ///
    /// # Errors
    /// `ENOENT`.
    fn find(&self, caller: &Caller, name: &[u8]) -> TryResult<Found>;
}

/// Something with a name.
#[derive(Clone)]
pub enum Item {
    /// A directory.
    Dir(Arc<dyn Dir>),
    /// A file.
    File(Arc<dyn Entry>),
    /// A link.
    Link(Arc<dyn Link>),
}

impl Item {
    /// Its type.
    pub const fn kind(&self) -> FileKind {
        match self {
            Self::Dir(_) => FileKind::Directory,
            Self::File(_) => FileKind::Regular,
            Self::Link(_) => FileKind::Symlink,
        }
    }
}

/// Something that was found, and whose it is.
#[derive(Clone)]
pub struct Found {
    /// What.
    pub item: Item,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl From<Item> for Found {
    fn from(item: Item) -> Self {
        Self { item, uid: 0, gid: 0 }
    }
}

/// A file whose text a function makes.
pub struct Text<F>(pub F);

impl<F: Fn() -> String + Send + Sync> Entry for Text<F> {
    fn read(&self, _: &Caller) -> TryResult<Vec<u8>> {
        done((self.0)().into_bytes())
    }
}

/// A setting: a function makes its text, another takes what is written.
pub struct Setting<R, W>(pub R, pub W);

impl<R, W> Entry for Setting<R, W>
where
    R: Fn() -> String + Send + Sync,
    W: Fn(&Caller, &str) -> base::Result<()> + Send + Sync,
{
    fn read(&self, _: &Caller) -> TryResult<Vec<u8>> {
        done((self.0)().into_bytes())
    }

    fn write(&self, caller: &Caller, bytes: &[u8]) -> TryResult<()> {
        let text = core::str::from_utf8(bytes).map_err(|_| Error::new(Errno::EINVAL, "not text"))?;
        done((self.1)(caller, text.trim())?)
    }

    fn mode(&self) -> u32 {
        0o644
    }
}

/// A link whose target a function makes.
pub struct To<F>(pub F);

impl<F: Fn(&Caller) -> String + Send + Sync> Link for To<F> {
    fn target(&self, caller: &Caller) -> TryResult<Vec<u8>> {
        done((self.0)(caller).into_bytes())
    }
}

/// A directory to which things are added.
pub struct Folder(SpinLock<BTreeMap<Vec<u8>, Item>>);

impl Folder {
    /// Empty.
    pub fn new() -> Arc<Self> {
        Arc::new(Self(SpinLock::new(rank::INODE_NAMES, BTreeMap::new())))
    }

    /// Adds something, in the place of what had that name.
    pub fn add(&self, name: &str, item: Item) {
        let old = self.0.lock().insert(name.as_bytes().into(), item);
        drop(old);
    }

    /// Adds a file.
    pub fn file(&self, name: &str, entry: impl Entry + 'static) {
        self.add(name, Item::File(Arc::new(entry)));
    }

    /// Adds a file whose text `make` makes.
    pub fn text(&self, name: &str, make: impl Fn() -> String + Send + Sync + 'static) {
        self.file(name, Text(make));
    }

    /// Takes a name away.
    pub fn remove(&self, name: &str) {
        let old = self.0.lock().remove(name.as_bytes());
        drop(old);
    }

    /// The directory with this name, made if it is not there. What is no directory is replaced.
    pub fn dir(&self, name: &str) -> Arc<Self> {
        // Only folders are ever put in as directories by this function; others (a directory of processes) are not found again.
        let new = Self::new();
        self.add(name, Item::Dir(new.clone()));
        new
    }
}

impl Dir for Folder {
    fn list(&self, _: &Caller) -> TryResult<Vec<(Vec<u8>, FileKind)>> {
        done(self.0.lock().iter().map(|(name, item)| (name.clone(), item.kind())).collect())
    }

    fn find(&self, _: &Caller, name: &[u8]) -> TryResult<Found> {
        self.0.lock().get(name).cloned().map(|i| Try::Done(i.into())).ok_or(Errno::ENOENT.into())
    }
}
