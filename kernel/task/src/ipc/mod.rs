//! System V semaphores and message queues of one kernel; sysvipc(7). (Shared memory is `mm::sysv`.)

pub mod msg;
pub mod sem;

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

use base::{Errno, Error, Result};
use hal::sync::{SpinLock, rank};

use crate::creds::{Creds, cap};

/// The key by which nothing is found (`IPC_PRIVATE`).
pub const PRIVATE: i32 = 0;

/// Who may do what with an object; `struct ipc_perm`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Perm {
    /// Key.
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
}

impl Perm {
    /// Of an object that somebody makes.
    pub fn new(key: i32, mode: u32, creds: &Creds) -> Self {
        Self { key, uid: creds.euid, gid: creds.egid, cuid: creds.euid, cgid: creds.egid, mode: mode & 0o777 }
    }

    /// Whether somebody has the permission bits `want` (of one class: 4 to read, 2 to change).
    ///
    /// # Errors
    /// `EACCES`.
    pub fn allows(&self, creds: &Creds, want: u32) -> Result<()> {
        let class = if creds.euid == self.uid || creds.euid == self.cuid {
            self.mode >> 6
        } else if creds.in_group(self.gid) || creds.in_group(self.cgid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if class & want == want || creds.can(cap::IPC_OWNER) {
            Ok(())
        } else {
            Err(Error::new(Errno::EACCES, "the IPC object does not allow that"))
        }
    }

    /// Whether somebody may remove or change the object itself.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn owned_by(&self, creds: &Creds) -> Result<()> {
        if creds.euid == self.uid || creds.euid == self.cuid || creds.can(cap::SYS_ADMIN) {
            Ok(())
        } else {
            Err(Error::new(Errno::EPERM, "not the owner of the IPC object"))
        }
    }
}

/// What a *get* call asks for.
#[derive(Clone, Copy, Debug)]
pub struct Get {
    /// The key.
    pub key: i32,
    /// `IPC_CREAT`.
    pub create: bool,
    /// `IPC_EXCL`.
    pub exclusive: bool,
    /// Permission bits.
    pub mode: u32,
}

/// Something with a key.
pub trait Keyed {
    /// Who may do what.
    fn perm(&self) -> Perm;
}

struct Inner<T> {
    objects: BTreeMap<i32, Arc<T>>,
    next: i32,
}

/// The objects of one kind, by id.
pub struct Table<T> {
    inner: SpinLock<Inner<T>>,
    most: usize,
}

impl<T: Keyed> Table<T> {
    /// None; at most `most`.
    pub fn new(most: usize) -> Self {
        Self { inner: SpinLock::new(rank::PROCESS_TABLE, Inner { objects: BTreeMap::new(), next: 0 }), most }
    }

    /// Finds what `get` asks for, or makes it.
    ///
    /// # Errors
    /// `ENOENT`, `EEXIST`, `EACCES`, `ENOSPC`; those of `fits` (what is there) and `make`.
    pub fn get(
        &self,
        get: Get,
        creds: &Creds,
        fits: impl FnOnce(&T) -> Result<()>,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<i32> {
        let mut inner = self.inner.lock();
        if get.key != PRIVATE
            && let Some((id, object)) = inner.objects.iter().find(|(_, o)| o.perm().key == get.key)
        {
            if get.create && get.exclusive {
                return Err(Error::new(Errno::EEXIST, "the key is taken"));
            }
            fits(object)?;
            object.perm().allows(creds, (get.mode >> 6 | get.mode >> 3 | get.mode) & 6)?;
            return Ok(*id);
        }
        if get.key != PRIVATE && !get.create {
            return Err(Error::new(Errno::ENOENT, "nothing with that key"));
        }
        let object = make()?;
        if inner.objects.len() >= self.most {
            return Err(Error::new(Errno::ENOSPC, "too many IPC objects"));
        }
        let id = loop {
            let id = inner.next;
            inner.next = inner.next.checked_add(1).unwrap_or(0);
            if !inner.objects.contains_key(&id) {
                break id;
            }
        };
        inner.objects.insert(id, Arc::new(object));
        Ok(id)
    }

    /// An object by its id.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn find(&self, id: i32) -> Result<Arc<T>> {
        self.inner.lock().objects.get(&id).cloned().ok_or(Error::new(Errno::EINVAL, "no such IPC object"))
    }

    /// Takes an object out.
    ///
    /// # Errors
    /// `EINVAL`.
    pub fn remove(&self, id: i32) -> Result<Arc<T>> {
        self.inner.lock().objects.remove(&id).ok_or(Error::new(Errno::EINVAL, "no such IPC object"))
    }

    /// All, by id.
    pub fn list(&self) -> Vec<(i32, Arc<T>)> {
        self.inner.lock().objects.iter().map(|(id, object)| (*id, object.clone())).collect()
    }
}

/// All of one kernel.
pub struct Ipc {
    /// Sets of semaphores.
    pub semaphores: Table<sem::Set>,
    /// Message queues.
    pub queues: Table<msg::Queue>,
}

impl Ipc {
    /// None.
    pub fn new() -> Self {
        Self { semaphores: Table::new(sem::SETS_MAX), queues: Table::new(msg::QUEUES_MAX) }
    }
}

impl Default for Ipc {
    fn default() -> Self {
        Self::new()
    }
}
