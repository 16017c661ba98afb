//! What is loaded of a kernel: an ELF file of nothing but its segments, and their bytes as they lie in memory. For any ISA, which the
//! host's binutils are not.

use anyhow::{Context, Result, ensure};

/// Bytes of an ELF-64 header and of a program header.
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// The program header of bytes to be loaded.
const LOAD: u32 = 1;
/// Segments begin at multiples of this in the file.
const ALIGN: usize = 4096;

struct Segment<'a> {
    header: &'a [u8],
    phys: u64,
    bytes: &'a [u8],
}

fn number(bytes: &[u8], at: usize, size: usize) -> Result<u64> {
    let mut le = [0; 8];
    let from = bytes.get(at..at + size).context("the kernel's ELF file is cut short")?;
    le[..size].copy_from_slice(from);
    Ok(u64::from_le_bytes(le))
}

fn segments(elf: &[u8]) -> Result<Vec<Segment<'_>>> {
    ensure!(elf.starts_with(b"\x7fELF\x02\x01"), "the kernel is no 64-bit little-endian ELF file");
    let (table, count) = (number(elf, 32, 8)? as usize, number(elf, 56, 2)? as usize);
    let mut out = Vec::new();
    for i in 0..count {
        let at = table + i * PROGRAM_HEADER;
        let header = elf.get(at..at + PROGRAM_HEADER).context("the kernel's ELF file is cut short")?;
        if number(header, 0, 4)? != u64::from(LOAD) {
            continue;
        }
        let (off, len) = (number(header, 8, 8)? as usize, number(header, 32, 8)? as usize);
        let bytes = elf.get(off..off + len).context("the kernel's ELF file is cut short")?;
        out.push(Segment { header, phys: number(header, 24, 8)?, bytes });
    }
    ensure!(!out.is_empty(), "the kernel has no segments");
    Ok(out)
}

/// The file without sections and symbols.
pub fn loadable(elf: &[u8]) -> Result<Vec<u8>> {
    let segments = segments(elf)?;
    let mut out = elf[..HEADER].to_vec();
    out[32..40].copy_from_slice(&(HEADER as u64).to_le_bytes());
    // No section headers: their place, size, number and names.
    out[40..48].fill(0);
    out[56..58].copy_from_slice(&(segments.len() as u16).to_le_bytes());
    out[58..64].fill(0);
    let mut at = (HEADER + segments.len() * PROGRAM_HEADER).next_multiple_of(ALIGN);
    for segment in &segments {
        let mut header = segment.header.to_vec();
        header[8..16].copy_from_slice(&(at as u64).to_le_bytes());
        out.extend_from_slice(&header);
        at = (at + segment.bytes.len()).next_multiple_of(ALIGN);
    }
    for segment in &segments {
        out.resize(out.len().next_multiple_of(ALIGN), 0);
        out.extend_from_slice(segment.bytes);
    }
    Ok(out)
}

/// The bytes from the lowest physical address on.
pub fn flat(elf: &[u8]) -> Result<Vec<u8>> {
    let segments = segments(elf)?;
    let lowest = segments.iter().map(|segment| segment.phys).min().context("no segments")?;
    let mut out = Vec::new();
    for segment in &segments {
        let at = (segment.phys - lowest) as usize;
        let end = at + segment.bytes.len();
        out.resize(out.len().max(end), 0);
        out[at..end].copy_from_slice(segment.bytes);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::{HEADER, PROGRAM_HEADER, flat, loadable};

    /// Two segments with a gap between them, a section header table behind them.
    fn sample() -> Vec<u8> {
        let mut elf = vec![0; HEADER + 2 * PROGRAM_HEADER];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[32] = HEADER as u8;
        elf[40] = 0xee;
        elf[54] = PROGRAM_HEADER as u8;
        elf[56] = 2;
        elf[60] = 7;
        for (i, (phys, bytes)) in [(0x1000u64, b"abcd"), (0x1010, b"efgh")].into_iter().enumerate() {
            let at = HEADER + i * PROGRAM_HEADER;
            let off = elf.len() as u64;
            elf[at] = 1;
            elf[at + 8..at + 16].copy_from_slice(&off.to_le_bytes());
            elf[at + 24..at + 32].copy_from_slice(&phys.to_le_bytes());
            elf[at + 32] = 4;
            elf.extend_from_slice(bytes);
        }
        elf
    }

    #[test]
    fn flat_is_what_lies_in_memory() {
        let mut wanted = b"abcd".to_vec();
        wanted.resize(16, 0);
        wanted.extend_from_slice(b"efgh");
        assert_eq!(flat(&sample()).expect("an image"), wanted);
    }

    #[test]
    fn loadable_loads_the_same() {
        let less = loadable(&sample()).expect("a file");
        assert_eq!(flat(&less).expect("an image"), flat(&sample()).expect("an image"));
        assert!(less[40..48].iter().chain(&less[58..64]).all(|byte| *byte == 0));
    }
}
