//! One virtio device on PCI.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2, sections 3.1.1 (initialisation), 4.1.4 (PCI structures), 4.1.5.1.2 (MSI-X vectors).

use hal::{
    boot::PhysRange,
    io::{Mmio, Refused},
};
use virtio_drivers::transport::{
    DeviceStatus, Transport,
    pci::{
        PciTransport, VIRTIO_PCI_CAP_COMMON_CFG,
        bus::{ConfigurationAccess as _, PciRoot},
    },
};

use crate::{
    dma::Dma,
    pci::{DeviceFunction, Ecam, Msix, memory_bar},
};

/// Why a device cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error(pub &'static str);

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self(refused.0)
    }
}

/// Capability id of vendor data.
const CAP_VENDOR: u8 = 9;
/// Offsets of 16-bit words in the common configuration structure (VIRTIO 1.2, section 4.1.4.3).
const CONFIG_VECTOR: usize = 16;
const QUEUE_SELECT: usize = 22;
const QUEUE_VECTOR: usize = 26;
/// No vector.
const NO_VECTOR: u16 = 0xffff;
/// Feature bit: the device is a modern one (VIRTIO 1.2, section 6).
const VERSION_1: u64 = 1 << 32;

/// A virtio device of this kernel, being set up or live.
pub struct Device {
    pub(crate) transport: PciTransport,
    common: Mmio,
    msix: Msix,
    /// The device's own feature bits that both sides have.
    pub features: u64,
}

impl core::fmt::Debug for Device {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Device").field("features", &self.features).finish_non_exhaustive()
    }
}

impl Device {
    /// Takes the device over: resets it and agrees on `wanted` features (and VERSION_1). Queues come next, then [`Device::go`].
    pub fn new(ecam: &Ecam, function: DeviceFunction, wanted: u64) -> Result<Self, Error> {
        let mut msix = Msix::find(ecam, function)?.ok_or(Error("the device has no MSI-X"))?;
        let mut root = PciRoot::new(ecam.clone());
        let common = root
            .capabilities(function)
            .find(|cap| cap.id == CAP_VENDOR && (cap.private_header >> 8) as u8 == VIRTIO_PCI_CAP_COMMON_CFG)
            .ok_or(Error("not a modern virtio device"))?;
        let bar = ecam.read_word(function, common.offset + 4) as u8;
        let offset = ecam.read_word(function, common.offset + 8);
        let base = memory_bar(ecam, function, bar)?.start.0;
        let common = Mmio::map(PhysRange::new(base + u64::from(offset), 64))?;
        let mut transport = PciTransport::new::<Dma, _>(&mut root, function)
            .map_err(|_| Error("virtio structures are not as the standard says"))?;
        // Whoever had it before may be dead: what it told the device is forgotten before the device reaches memory again.
        transport.set_status(DeviceStatus::empty());
        if !transport.get_status().is_empty() {
            return Err(Error("the device does not reset"));
        }
        msix.enable();
        transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
        let features = transport.read_device_features() & (wanted | VERSION_1);
        if features & VERSION_1 == 0 {
            return Err(Error("the device does not know VIRTIO 1.0"));
        }
        transport.write_driver_features(features);
        let agreed = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK;
        transport.set_status(agreed);
        if !transport.get_status().contains(DeviceStatus::FEATURES_OK) {
            return Err(Error("the device refuses the features"));
        }
        let mut device = Self { transport, common, msix, features };
        device.write16(CONFIG_VECTOR, NO_VECTOR);
        Ok(device)
    }

    /// Sends the interrupts of queue `queue` to the message (`address`, `data`), through MSI-X entry `queue`; the device must have as many.
    pub(crate) fn set_vector(&mut self, queue: u16, message: Option<(u64, u32)>) -> Result<(), Error> {
        let mut vector = NO_VECTOR;
        if let Some((address, data)) = message {
            self.msix.set(queue, address, data)?;
            vector = queue;
        }
        self.write16(QUEUE_SELECT, queue);
        self.write16(QUEUE_VECTOR, vector);
        if self.read16(QUEUE_VECTOR) != vector {
            return Err(Error("the device has no room for the interrupt vector"));
        }
        Ok(())
    }

    /// The first bytes of the device's own configuration.
    pub fn config_bytes<const N: usize>(&self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        for (offset, byte) in bytes.iter_mut().enumerate() {
            *byte = self.transport.read_config_space(offset).map_err(|_| Error("the device has no configuration"))?;
        }
        Ok(bytes)
    }

    /// The queues are set up: the device may work.
    pub fn go(&mut self) {
        let status = self.transport.get_status();
        self.transport.set_status(status | DeviceStatus::DRIVER_OK);
    }

    fn write16(&mut self, offset: usize, value: u16) {
        self.common.write16(offset, value);
    }

    fn read16(&self, offset: usize) -> u16 {
        self.common.read16(offset)
    }
}
