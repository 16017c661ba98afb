//! PCI configuration space (ECAM), functions and MSI-X.
//!
//! Source: PCI Local Bus Specification 3.0, sections 6.1, 6.7, 6.8.2; PCI Express Base Specification, section 7.2.2 (ECAM).

use alloc::{sync::Arc, vec::Vec};

use hal::{
    boot::PhysRange,
    io::{Mmio, Refused},
};
pub use virtio_drivers::transport::pci::bus::DeviceFunction;
use virtio_drivers::transport::pci::bus::{BarInfo, Command, ConfigurationAccess, MemoryBarType, PciRoot};

/// Bytes of configuration space of one bus: 32 devices of 8 functions of 4 KiB.
const BUS_SPAN: u64 = 32 * 8 * 4096;
/// Capability id of MSI-X.
const CAP_MSIX: u8 = 0x11;
/// In the message control word of MSI-X: enabled.
const MSIX_ENABLE: u32 = 1 << 31;
/// In the message control word of MSI-X: all vectors masked.
const MSIX_MASK_ALL: u32 = 1 << 30;

/// The register of the first base address (BAR); others follow.
const FIRST_BAR: u8 = 0x10;
/// In a BAR: it is of I/O ports.
const IO_BAR: u32 = 1;

/// Configuration space of the buses of one host bridge.
#[derive(Clone, Debug)]
pub struct Ecam {
    registers: Arc<Mmio>,
    buses: u8,
}

impl Ecam {
    /// Maps the configuration space at physical `base` for `buses` buses (the number that ACPI's MCFG or the device tree gives).
    pub fn new(base: u64, buses: u16) -> Result<Self, Refused> {
        let buses = buses.clamp(1, 255);
        let registers = Mmio::map(PhysRange::new(base, u64::from(buses) * BUS_SPAN))?;
        Ok(Self { registers: Arc::new(registers), buses: buses as u8 })
    }

    fn offset(&self, function: DeviceFunction, register: u8) -> Option<usize> {
        (function.valid() && function.bus < self.buses).then(|| {
            usize::from(function.bus) << 20
                | usize::from(function.device) << 15
                | usize::from(function.function) << 12
                | usize::from(register & !3)
        })
    }

    /// Vendor and device of a function; `None` if it is not there.
    pub fn ids(&self, function: DeviceFunction) -> Option<(u16, u16)> {
        let word = self.read_word(function, 0);
        (word != u32::MAX).then_some((word as u16, (word >> 16) as u16))
    }

    /// All functions that are there, with vendor and device id.
    pub fn functions(&self) -> Vec<(DeviceFunction, u16, u16)> {
        let root = PciRoot::new(self.clone());
        (0..self.buses)
            .flat_map(|bus| {
                root.enumerate_bus(bus).map(|(at, info)| (at, info.vendor_id, info.device_id)).collect::<Vec<_>>()
            })
            .collect()
    }
}

impl ConfigurationAccess for Ecam {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        // What the bus answers for a function that is not there.
        self.offset(function, register).map_or(u32::MAX, |off| self.registers.read32(off))
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, data: u32) {
        if let Some(off) = self.offset(function, register) {
            self.registers.write32(off, data);
        }
    }

    unsafe fn unsafe_clone(&self) -> Self {
        self.clone()
    }
}

/// The MSI-X table of a function.
#[derive(Debug)]
pub struct Msix {
    table: Mmio,
    entries: u16,
    ecam: Ecam,
    function: DeviceFunction,
    /// Of the capability in configuration space.
    offset: u8,
}

impl Msix {
    /// The table of a function, whose registers can be reached from now on. `None` if it has none. The function does not reach memory before
    /// [`Msix::enable`]: whoever had it before may have left it at work on memory of its own.
    pub fn find(ecam: &Ecam, function: DeviceFunction) -> Result<Option<Self>, Refused> {
        let mut root = PciRoot::new(ecam.clone());
        let Some(cap) = root.capabilities(function).find(|cap| cap.id == CAP_MSIX) else {
            return Ok(None);
        };
        let (_, command) = root.get_status_command(function);
        root.set_command(
            function,
            (command | Command::MEMORY_SPACE | Command::INTERRUPT_DISABLE) & !Command::BUS_MASTER,
        );
        let entries = (cap.private_header & 0x7ff) + 1;
        let place = ecam.read_word(function, cap.offset + 4);
        let base = memory_bar(ecam, function, (place & 7) as u8)?.start.0;
        let table = Mmio::map(PhysRange::new(base + u64::from(place & !7), u64::from(entries) * 16))?;
        Ok(Some(Self { table, entries, ecam: ecam.clone(), function, offset: cap.offset }))
    }

    /// Lets the function, which was reset, reach memory and send messages.
    pub fn enable(&mut self) {
        let mut root = PciRoot::new(self.ecam.clone());
        let (_, command) = root.get_status_command(self.function);
        root.set_command(self.function, command | Command::BUS_MASTER);
        let header = self.ecam.read_word(self.function, self.offset);
        self.ecam.write_word(self.function, self.offset, (header | MSIX_ENABLE) & !MSIX_MASK_ALL);
    }

    /// Points an entry at a message and unmasks it.
    pub fn set(&mut self, entry: u16, address: u64, data: u32) -> Result<(), Refused> {
        if entry >= self.entries {
            return Err(Refused("no such MSI-X entry"));
        }
        let words = [address as u32, (address >> 32) as u32, data, 0];
        for (i, word) in words.into_iter().enumerate() {
            self.table.write32(usize::from(entry) * 16 + i * 4, word);
        }
        Ok(())
    }
}

/// The first memory BAR's place, as read without asking for its size: that disturbs who uses the function.
fn is_placed(ecam: &Ecam, function: DeviceFunction) -> bool {
    (0..6).any(|bar| {
        let word = ecam.read_word(function, FIRST_BAR + bar * 4);
        word & IO_BAR == 0 && word & !0xf != 0
    })
}

/// Gives the memory BARs of all functions places, if neither firmware nor another kernel of the board has: 32-bit ones in `narrow`, 64-bit
/// ones in `wide`.
pub fn assign_bars(ecam: &Ecam, narrow: PhysRange, wide: PhysRange) {
    if ecam.functions().into_iter().any(|(function, ..)| is_placed(ecam, function)) {
        return;
    }
    let mut root = PciRoot::new(ecam.clone());
    let (mut next32, mut next64) = (narrow.start.0, wide.start.0);
    for (function, ..) in ecam.functions() {
        let mut bar = 0;
        while bar < 6 {
            let info = root.bar_info(function, bar);
            let Ok(Some(BarInfo::Memory { address_type, size, .. })) = info else {
                bar += 1;
                continue;
            };
            let is_wide = address_type == MemoryBarType::Width64;
            let (next, room) = if is_wide { (&mut next64, wide) } else { (&mut next32, narrow) };
            let at = next.next_multiple_of(size.max(1));
            if size > 0 && at + size <= room.end().0 {
                if is_wide {
                    root.set_bar_64(function, bar, at);
                } else {
                    root.set_bar_32(function, bar, at as u32);
                }
                *next = at + size;
            }
            bar += if is_wide { 2 } else { 1 };
        }
    }
}

/// Stops a function from reading and writing memory (the fence of a kernel that died).
pub fn bus_master_off(ecam: &Ecam, function: DeviceFunction) {
    let mut root = PciRoot::new(ecam.clone());
    let (_, command) = root.get_status_command(function);
    root.set_command(function, command & !Command::BUS_MASTER);
}

/// Lets a function answer at its memory BARs.
pub fn let_memory(ecam: &Ecam, function: DeviceFunction) {
    let mut root = PciRoot::new(ecam.clone());
    let (_, command) = root.get_status_command(function);
    root.set_command(function, command | Command::MEMORY_SPACE);
}

/// What PCI calls a function as the sender of a message.
pub const fn requester(at: DeviceFunction) -> u16 {
    (at.bus as u16) << 8 | (at.device as u16) << 3 | at.function as u16
}

/// Where a memory BAR is, and how large.
///
/// # Errors
/// A sentence if it is not a memory BAR or nobody gave it a place.
pub fn memory_bar(ecam: &Ecam, function: DeviceFunction, bar: u8) -> Result<PhysRange, Refused> {
    match PciRoot::new(ecam.clone()).bar_info(function, bar) {
        Ok(Some(BarInfo::Memory { address, size, .. })) if address != 0 => Ok(PhysRange::new(address, size)),
        _ => Err(Refused("the BAR is not an assigned memory BAR")),
    }
}
