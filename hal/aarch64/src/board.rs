//! What the device tree said about this board, read once by the kernel that firmware started and handed on to those that it starts.

use core::cell::UnsafeCell;

use devicetree::Tree;
use hal_api::{PciHost, PhysRange, SerialPort};

/// Where the devices are that this crate and `boot` use; an empty range for what is not there.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Found {
    /// 2 or 3; 0: none.
    pub gic_version: u64,
    /// The distributor.
    pub gic: PhysRange,
    /// The CPU interface (2) or the redistributors (3).
    pub gic_cpu: PhysRange,
    /// The frame for message-signalled interrupts of a GICv2, the translation service of a GICv3.
    pub msi: PhysRange,
    uart: PhysRange,
    uart_line: u64,
    ecam: PhysRange,
    narrow: PhysRange,
    wide: PhysRange,
    /// The clock that keeps the date.
    pub rtc: PhysRange,
    smc: u64,
}

const NOTHING: PhysRange = PhysRange::new(0, 0);

struct Cell(UnsafeCell<Found>);
// SAFETY: written by the boot CPU before anything else runs, then only read.
unsafe impl Sync for Cell {}

static FOUND: Cell = Cell(UnsafeCell::new(Found {
    gic_version: 0,
    gic: NOTHING,
    gic_cpu: NOTHING,
    msi: NOTHING,
    uart: NOTHING,
    uart_line: 0,
    ecam: NOTHING,
    narrow: NOTHING,
    wide: NOTHING,
    rtc: NOTHING,
    smc: 0,
}));

/// What is known.
pub fn found() -> &'static Found {
    // SAFETY: not written any more once others can read it.
    unsafe { &*FOUND.0.get() }
}

/// Takes over what the starter found.
pub(crate) fn set_found(found: &Found) {
    // SAFETY: the boot CPU runs alone.
    unsafe { *FOUND.0.get() = *found };
    crate::psci::set_smc(found.smc != 0);
}

/// Asks the tree.
pub(crate) fn read(tree: &Tree<'_>) {
    let device = |names: &[&str], index| {
        tree.device(names, index).map_or(NOTHING, |range| PhysRange::new(range.start, range.size))
    };
    let (v2, v3) = (["arm,cortex-a15-gic", "arm,gic-400"], ["arm,gic-v3"]);
    let gic_version = match (device(&v2, 0).len, device(&v3, 0).len) {
        (0, 0) => 0,
        (0, _) => 3,
        _ => 2,
    };
    let gic: &[&str] = if gic_version == 3 { &v3 } else { &v2 };
    let pci = tree.pci();
    let range = |range: Option<devicetree::Range>| range.map_or(NOTHING, |r| PhysRange::new(r.start, r.size));
    set_found(&Found {
        gic_version,
        gic: device(gic, 0),
        gic_cpu: device(gic, 1),
        msi: device(&[if gic_version == 3 { "arm,gic-v3-its" } else { "arm,gic-v2m-frame" }], 0),
        uart: device(&["arm,pl011"], 0),
        // Shared peripheral interrupts begin at 32.
        uart_line: tree.interrupt(&["arm,pl011"], 1).map_or(0, |n| u64::from(n) + 32),
        ecam: range(pci.map(|pci| pci.ecam)),
        narrow: range(pci.map(|pci| pci.memory32)),
        wide: range(pci.map(|pci| pci.memory64)),
        rtc: device(&["arm,pl031"], 0),
        smc: u64::from(tree.text("/psci", "method") == Some("smc")),
    });
}

/// The console: the first UART.
pub fn serial() -> Option<SerialPort> {
    let found = found();
    (found.uart.len > 0).then_some(SerialPort::Pl011 { registers: found.uart, line: found.uart_line as u32 })
}

/// PCI, whose BARs nobody has assigned.
pub fn pci() -> Option<PciHost> {
    let found = found();
    (found.ecam.len > 0).then_some(PciHost { ecam: found.ecam.start, unassigned: Some((found.narrow, found.wide)) })
}

/// What the kernel found of what boards differ in, for its log.
pub fn about() -> &'static str {
    match (found().gic_version, found().msi.len > 0) {
        (3, true) => "GICv3 with ITS",
        (3, false) => "GICv3",
        (_, true) => "GICv2 with v2m",
        _ => "GICv2",
    }
}
