//! The devices of a PC that `boot` asks about.

use hal_api::{PciHost, PhysAddr, SerialPort};

/// The console: COM1.
pub fn serial() -> Option<SerialPort> {
    Some(SerialPort::Ports16550 { base: 0x3f8, line: 4 })
}

/// PCI, whose BARs the firmware has assigned.
pub fn pci() -> Option<PciHost> {
    crate::acpi::ecam().map(|ecam| PciHost { ecam: PhysAddr(ecam), unassigned: None })
}

/// What the kernel found of what boards differ in, for its log.
pub const fn about() -> &'static str {
    "APIC"
}
