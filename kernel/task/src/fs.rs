//! What a task holds of the file system: descriptors, and working directory, root and umask.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use base::{Errno, Error, Result};
use hal::sync::{SpinLock, rank};
use vfs::{OpenFile, Place};

/// A descriptor.
#[derive(Clone)]
pub struct Descriptor {
    /// What it stands for.
    pub file: Arc<dyn OpenFile>,
    /// FD_CLOEXEC.
    pub close_on_exec: bool,
}

/// A table of descriptors, shared by the tasks that were cloned with CLONE_FILES.
#[derive(Default)]
pub struct Descriptors {
    slots: Table,
}

struct Table(SpinLock<Vec<Option<Descriptor>>>);

impl Default for Table {
    fn default() -> Self {
        Self(SpinLock::new(rank::FILES, Vec::new()))
    }
}

const BAD: Error = Error::new(Errno::EBADF, "no such descriptor");
const FULL: Error = Error::new(Errno::EMFILE, "too many descriptors");

impl Descriptors {
    /// None open.
    pub fn new() -> Self {
        Self::default()
    }

    /// What a descriptor stands for.
    ///
    /// # Errors
    /// `EBADF`.
    #[inline]
    pub fn get(&self, fd: u64) -> Result<Arc<dyn OpenFile>> {
        // Only the low 32 bits of the argument are the descriptor.
        match self.slots.0.lock().get(fd as u32 as usize) {
            Some(Some(d)) => Ok(d.file.clone()),
            _ => Err(BAD),
        }
    }

    /// The descriptor with its flag.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn descriptor(&self, fd: u64) -> Result<Descriptor> {
        match self.slots.0.lock().get(fd as u32 as usize) {
            Some(Some(d)) => Ok(d.clone()),
            _ => Err(BAD),
        }
    }

    /// Opens the lowest free descriptor at or above `from`; `limit` is RLIMIT_NOFILE.
    ///
    /// # Errors
    /// `EMFILE`.
    pub fn open(&self, file: Arc<dyn OpenFile>, close_on_exec: bool, from: usize, limit: u64) -> Result<u32> {
        let mut slots = self.slots.0.lock();
        let free = slots.iter().skip(from).position(Option::is_none).map(|i| i + from);
        let fd = free.unwrap_or_else(|| slots.len().max(from));
        if fd as u64 >= limit {
            return Err(FULL);
        }
        if fd >= slots.len() {
            slots.resize_with(fd + 1, || None);
        }
        if let Some(slot) = slots.get_mut(fd) {
            *slot = Some(Descriptor { file, close_on_exec });
        }
        Ok(fd as u32)
    }

    /// Makes `fd` stand for `file` (dup2); what it stood for, which the caller closes.
    ///
    /// # Errors
    /// `EBADF` at or above `limit`.
    pub fn replace(
        &self,
        fd: u32,
        file: Arc<dyn OpenFile>,
        close_on_exec: bool,
        limit: u64,
    ) -> Result<Option<Arc<dyn OpenFile>>> {
        let at = fd as usize;
        if u64::from(fd) >= limit {
            return Err(BAD);
        }
        let mut slots = self.slots.0.lock();
        if at >= slots.len() {
            slots.resize_with(at + 1, || None);
        }
        let Some(slot) = slots.get_mut(at) else { return Err(BAD) };
        Ok(slot.replace(Descriptor { file, close_on_exec }).map(|d| d.file))
    }

    /// Closes a descriptor; what it stood for, which the caller flushes and drops with no lock held.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn close(&self, fd: u64) -> Result<Arc<dyn OpenFile>> {
        let mut slots = self.slots.0.lock();
        let old = slots.get_mut(fd as u32 as usize).and_then(Option::take).ok_or(BAD)?;
        Ok(old.file)
    }

    /// Sets FD_CLOEXEC.
    ///
    /// # Errors
    /// `EBADF`.
    pub fn set_close_on_exec(&self, fd: u64, on: bool) -> Result<()> {
        match self.slots.0.lock().get_mut(fd as u32 as usize) {
            Some(Some(d)) => {
                d.close_on_exec = on;
                Ok(())
            }
            _ => Err(BAD),
        }
    }

    /// A copy with the same descriptors: fork(2).
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn fork(&self) -> Result<Arc<Self>> {
        let copy = self.slots.0.lock().clone();
        Ok(Arc::new(Self { slots: Table(SpinLock::new(rank::FILES, copy)) }))
    }

    /// Takes out those with FD_CLOEXEC: execve(2). The caller flushes and drops them with no lock held.
    pub fn take_close_on_exec(&self) -> Vec<Arc<dyn OpenFile>> {
        let mut slots = self.slots.0.lock();
        slots
            .iter_mut()
            .filter(|s| s.as_ref().is_some_and(|d| d.close_on_exec))
            .filter_map(Option::take)
            .map(|d| d.file)
            .collect()
    }

    /// Takes out those in `range` (close_range(2)), or all.
    pub fn take(&self, range: core::ops::RangeInclusive<u32>) -> Vec<Arc<dyn OpenFile>> {
        let mut slots = self.slots.0.lock();
        let mut taken = Vec::new();
        for (fd, slot) in slots.iter_mut().enumerate() {
            if range.contains(&(fd as u32))
                && let Some(d) = slot.take()
            {
                taken.push(d.file);
            }
        }
        taken
    }

    /// All open descriptors, ascending.
    pub fn list(&self) -> Vec<(u32, Descriptor)> {
        let slots = self.slots.0.lock();
        slots.iter().enumerate().filter_map(|(fd, d)| d.clone().map(|d| (fd as u32, d))).collect()
    }
}

/// Working directory, root and umask, shared by the tasks that were cloned with CLONE_FS.
pub struct FsState {
    places: SpinLock<(Option<Place>, Option<Place>)>,
    umask: AtomicU32,
}

impl FsState {
    /// With this working directory and root; none for kernel threads.
    pub fn new(cwd: Option<Place>, root: Option<Place>, umask: u32) -> Self {
        Self { places: SpinLock::new(rank::PROCESS_FS, (cwd, root)), umask: AtomicU32::new(umask) }
    }

    /// A copy: fork(2).
    #[must_use]
    pub fn fork(&self) -> Arc<Self> {
        let places = self.places.lock().clone();
        Arc::new(Self { places: SpinLock::new(rank::PROCESS_FS, places), umask: AtomicU32::new(self.umask()) })
    }

    /// The working directory.
    ///
    /// # Errors
    /// `ENOENT` for a task that has none.
    pub fn cwd(&self) -> Result<Place> {
        self.places.lock().0.clone().ok_or(Errno::ENOENT.into())
    }

    /// The root directory.
    ///
    /// # Errors
    /// `ENOENT` for a task that has none.
    pub fn root(&self) -> Result<Place> {
        self.places.lock().1.clone().ok_or(Errno::ENOENT.into())
    }

    /// Changes the working directory.
    pub fn set_cwd(&self, place: Place) {
        let old = self.places.lock().0.replace(place);
        drop(old);
    }

    /// Changes the root directory.
    pub fn set_root(&self, place: Place) {
        let old = self.places.lock().1.replace(place);
        drop(old);
    }

    /// The file mode creation mask.
    pub fn umask(&self) -> u32 {
        self.umask.load(Relaxed)
    }

    /// Sets it; the old one.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Relaxed)
    }
}
