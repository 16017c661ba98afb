//! The little of ACPI that interrupts and PCI need, read once at boot from the tables that firmware left (ACPI 6.5, 5.2).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Physical address of the I/O APIC with lines 0..24; 0 if none was found.
static IO_APIC: AtomicU64 = AtomicU64::new(0);
/// Physical address of PCI configuration space (bus 0), 0 if none was found.
static ECAM: AtomicU64 = AtomicU64::new(0);
/// For each ISA interrupt: pin | active low << 16 | level << 17.
static LINES: [AtomicU32; 16] = [const { AtomicU32::new(u32::MAX) }; 16];

/// Where the I/O APIC is.
pub fn io_apic() -> Option<u64> {
    Some(IO_APIC.load(Ordering::Relaxed)).filter(|a| *a != 0)
}

/// Where PCI configuration space is (1 MiB per bus).
pub fn ecam() -> Option<u64> {
    Some(ECAM.load(Ordering::Relaxed)).filter(|a| *a != 0)
}

/// How a line is wired: (pin, active low, level triggered). ISA lines are edges unless ACPI says otherwise, others are PCI's.
pub fn line(line: u32) -> (u32, bool, bool) {
    match LINES.get(line as usize).map(|l| l.load(Ordering::Relaxed)) {
        Some(u32::MAX) => (line, false, false),
        Some(l) => (l & 0xffff, l & 1 << 16 != 0, l & 1 << 17 != 0),
        None => (line, true, true),
    }
}

/// What was found, for a kernel that is started by this one and cannot see the tables.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Found {
    io_apic: u64,
    ecam: u64,
    lines: [u32; 16],
}

/// See [`Found`].
pub fn found() -> Found {
    let mut lines = [0; 16];
    for (to, from) in lines.iter_mut().zip(&LINES) {
        *to = from.load(Ordering::Relaxed);
    }
    Found { io_apic: IO_APIC.load(Ordering::Relaxed), ecam: ECAM.load(Ordering::Relaxed), lines }
}

/// Takes over what the starter found.
pub fn set_found(f: &Found) {
    IO_APIC.store(f.io_apic, Ordering::Relaxed);
    ECAM.store(f.ecam, Ordering::Relaxed);
    for (to, from) in LINES.iter().zip(f.lines) {
        to.store(from, Ordering::Relaxed);
    }
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at + 8)?.try_into().ok()?))
}

/// Reads the tables below `rsdp`. `memory` gives bytes at physical addresses, if it can. Damaged tables are skipped.
pub fn scan<'m>(rsdp: u64, memory: &impl Fn(u64, usize) -> Option<&'m [u8]>) -> Option<()> {
    let root = memory(rsdp, 36)?;
    if root.get(..8)? != b"RSD PTR " {
        return None;
    }
    let (at, width) = match root[15] {
        0 => (u64::from(u32_at(root, 16)?), 4),
        _ => (u64_at(root, 24)?, 8),
    };
    let list = table(at, memory)?;
    for entry in list.get(36..)?.chunks_exact(width) {
        let at = if width == 4 { u64::from(u32_at(entry, 0)?) } else { u64_at(entry, 0)? };
        let Some(t) = table(at, memory) else { continue };
        match t.get(..4) {
            Some(b"APIC") => madt(t),
            Some(b"MCFG") => {
                if let Some(base) = u64_at(t, 44) {
                    ECAM.store(base, Ordering::Relaxed);
                }
                Some(())
            }
            _ => None,
        };
    }
    Some(())
}

fn table<'m>(at: u64, memory: &impl Fn(u64, usize) -> Option<&'m [u8]>) -> Option<&'m [u8]> {
    let len = u32_at(memory(at, 36)?, 4)? as usize;
    let t = memory(at, len.max(36))?;
    (t.iter().fold(0u8, |a, b| a.wrapping_add(*b)) == 0).then_some(t)
}

fn madt(t: &[u8]) -> Option<()> {
    let mut rest = t.get(44..)?;
    while let [kind, len, ..] = *rest {
        let len = usize::from(len);
        let entry = rest.get(..len).filter(|_| len >= 2)?;
        match kind {
            1 if u32_at(entry, 8)? == 0 => IO_APIC.store(u64::from(u32_at(entry, 4)?), Ordering::Relaxed),
            2 => {
                let flags = *entry.get(8)?;
                // 0: as the bus (ISA: active high, edge); 3: active low / level
                let wired = (u32_at(entry, 4)? & 0xffff)
                    | u32::from(flags & 3 == 3) << 16
                    | u32::from(flags >> 2 & 3 == 3) << 17;
                if let Some(l) = LINES.get(usize::from(*entry.get(3)?)) {
                    l.store(wired, Ordering::Relaxed);
                }
            }
            _ => {}
        }
        rest = rest.get(len..)?;
    }
    Some(())
}
