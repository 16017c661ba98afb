//! What the device tree said about this board, read once by the kernel that firmware started and handed on to those that it starts.

use core::cell::UnsafeCell;

use devicetree::{Device, Tree};
use hal_api::{PciHost, PhysRange, SerialPort};

/// Where the devices are that this crate and `boot` use; an empty range for what is not there.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Found {
    /// The interrupt files of the harts, for the kernels' mode: a page per hart.
    pub imsic: PhysRange,
    /// What turns wires into messages.
    pub aplic: PhysRange,
    uart: PhysRange,
    uart_line: u64,
    ecam: PhysRange,
    narrow: PhysRange,
    wide: PhysRange,
    /// The clock that keeps the date.
    pub rtc: PhysRange,
    /// Ticks of the counter per second.
    pub hz: u64,
    /// What the harts can do: [`SSTC`], and the letters of their ISA as `AT_HWCAP` has them.
    pub features: u64,
}

/// In [`Found::features`]: the timer is a register of the hart.
pub const SSTC: u64 = 1 << 32;

const NOTHING: PhysRange = PhysRange::new(0, 0);

struct Cell(UnsafeCell<Found>);
// SAFETY: written by the boot CPU before anything else runs, then only read.
unsafe impl Sync for Cell {}

static FOUND: Cell = Cell(UnsafeCell::new(Found {
    imsic: NOTHING,
    aplic: NOTHING,
    uart: NOTHING,
    uart_line: 0,
    ecam: NOTHING,
    narrow: NOTHING,
    wide: NOTHING,
    rtc: NOTHING,
    hz: 0,
    features: 0,
}));

/// What is known.
#[inline]
pub fn found() -> &'static Found {
    // SAFETY: not written any more once others can read it.
    unsafe { &*FOUND.0.get() }
}

/// Takes over what the starter found.
pub(crate) fn set_found(found: &Found) {
    // SAFETY: the boot CPU runs alone.
    unsafe { *FOUND.0.get() = *found };
}

/// The supervisor's external interrupt, as device trees number what a hart takes.
const EXTERNAL: u32 = 9;

/// Asks the tree.
pub(crate) fn read(tree: &Tree<'_>) {
    let range = |range: Option<devicetree::Range>| range.map_or(NOTHING, |r| PhysRange::new(r.start, r.size));
    let first = |device: Option<Device<'_>>| range(device.and_then(|device| device.register(0)));
    let find = |names: &[&str]| first(tree.devices(names).next());
    // There is one of each for the firmware's mode too.
    let imsic = tree.devices(&["riscv,imsics"]).find(|d| d.cell("interrupts-extended", 1) == Some(EXTERNAL));
    let handle = imsic.as_ref().and_then(|device| device.cell("phandle", 0));
    let aplic = tree.devices(&["riscv,aplic"]).find(|d| handle.is_some() && d.cell("msi-parent", 0) == handle);
    let uart = tree.devices(&["ns16550a"]).next();
    let pci = tree.pci();
    set_found(&Found {
        imsic: first(imsic),
        aplic: first(aplic),
        uart: first(uart),
        uart_line: uart.and_then(|uart| uart.cell("interrupts", 0)).map_or(0, u64::from),
        ecam: range(pci.map(|pci| pci.ecam)),
        narrow: range(pci.map(|pci| pci.memory32)),
        wide: range(pci.map(|pci| pci.memory64)),
        rtc: find(&["google,goldfish-rtc"]),
        hz: tree.number("/cpus", "timebase-frequency").map_or(0, u64::from),
        features: features(tree.text("/cpus/cpu@0", "riscv,isa").unwrap_or("")),
    });
}

/// The letters that programs may use: this kernel keeps no state of others.
const LETTERS: &str = "imafdc";

/// From the string that device trees and `/proc/cpuinfo` have: `rv64`, letters, longer names after underscores.
fn features(isa: &str) -> u64 {
    let mut parts = isa.trim_start_matches("rv64").split('_');
    let letters = parts.next().unwrap_or("").bytes().filter(|letter| LETTERS.as_bytes().contains(letter));
    let letters = letters.fold(0, |all, letter| all | 1 << (letter - b'a'));
    letters | if parts.any(|name| name == "sstc") { SSTC } else { 0 }
}

/// `rv64` and the letters.
pub(crate) fn isa(out: &mut dyn core::fmt::Write) -> core::fmt::Result {
    out.write_str("rv64")?;
    for letter in LETTERS.chars().filter(|letter| found().features & 1 << (*letter as u32 - u32::from(b'a')) != 0) {
        out.write_char(letter)?;
    }
    Ok(())
}

/// The console: the first UART.
pub fn serial() -> Option<SerialPort> {
    let found = found();
    (found.uart.len > 0).then_some(SerialPort::Memory16550 { registers: found.uart, line: found.uart_line as u32 })
}

/// PCI, whose BARs nobody has assigned.
pub fn pci() -> Option<PciHost> {
    let found = found();
    (found.ecam.len > 0).then_some(PciHost { ecam: found.ecam.start, unassigned: Some((found.narrow, found.wide)) })
}

/// What the kernel found of what boards differ in, for its log.
pub fn about() -> &'static str {
    if crate::paging::levels() == 4 { "IMSIC, Sv48" } else { "IMSIC, Sv39" }
}
