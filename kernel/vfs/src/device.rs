//! Drivers by device number.

use alloc::{collections::BTreeMap, sync::Arc};

use base::{Errno, Error, TryResult};
use hal::sync::{RwSpinLock, rank};

use crate::{Caller, Device, OpenFile, OpenFlags, Place, Status, types::FileKind};

/// What stands behind a device node.
pub trait Driver: Send + Sync {
    /// Opens the device `device` found at `place`.
    ///
    /// # Errors
    /// `ENXIO` if it is not there.
    fn open(
        &self,
        device: Device,
        caller: &Caller,
        flags: OpenFlags,
        status: Status,
        place: Place,
    ) -> TryResult<Arc<dyn OpenFile>>;
}

/// The drivers of a kernel.
pub struct Devices {
    /// Keyed by major number and by one minor number, or by all that have no driver of their own.
    table: RwSpinLock<BTreeMap<(u8, u32, Option<u32>), Arc<dyn Driver>>>,
}

impl Devices {
    /// None.
    pub fn new() -> Self {
        Self { table: RwSpinLock::new(rank::REGISTRY, BTreeMap::new()) }
    }

    /// `driver` serves one minor number of `major`, or all others.
    pub fn add(&self, kind: FileKind, major: u32, minor: Option<u32>, driver: Arc<dyn Driver>) {
        let old = self.table.write().insert((kind as u8, major, minor), driver);
        drop(old);
    }

    /// Whose device that is.
    ///
    /// # Errors
    /// `ENXIO`.
    pub fn find(&self, kind: FileKind, device: Device) -> base::Result<Arc<dyn Driver>> {
        let table = self.table.read();
        let key = kind as u8;
        table
            .get(&(key, device.major, Some(device.minor)))
            .or_else(|| table.get(&(key, device.major, None)))
            .cloned()
            .ok_or(Error::new(Errno::ENXIO, "no such device"))
    }
}

impl Default for Devices {
    fn default() -> Self {
        Self::new()
    }
}
