//! A compact table from addresses to function names, for backtraces.
//!
//! The build makes it from the image's ELF symbols with [`encode`]; the kernel looks addresses up in place with
//! [`SymbolTable`], without allocation. All numbers are little-endian and relative to the begin of the image:
//!
//! ```text
//! magic "COBSYM1\0"
//! count u32, names u32 (bytes)
//! count x { address u32, name u32 (offset into the names) }      sorted by address
//! names: each one length u16 + UTF-8
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

const MAGIC: &[u8; 8] = b"COBSYM1\0";
const HEADER: usize = 16;
const ENTRY: usize = 8;

/// A table in memory. Reading a damaged one finds nothing, or a wrong name, but never fails otherwise.
#[derive(Clone, Copy, Debug)]
pub struct SymbolTable<'a> {
    entries: &'a [u8],
    names: &'a [u8],
}

fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

impl<'a> SymbolTable<'a> {
    /// Takes the header apart. `None` if this is no symbol table or it is cut short.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        if bytes.get(..8)? != MAGIC {
            return None;
        }
        let entries = (u32_at(bytes, 8)? as usize).checked_mul(ENTRY)?.checked_add(HEADER)?;
        let names = entries.checked_add(u32_at(bytes, 12)? as usize)?;
        Some(Self { entries: bytes.get(HEADER..entries)?, names: bytes.get(entries..names)? })
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.entries.len() / ENTRY
    }

    /// Whether there is no symbol.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn address(&self, i: usize) -> Option<u32> {
        u32_at(self.entries, i.checked_mul(ENTRY)?)
    }

    /// The last symbol at or before `offset` (bytes from the begin of the image), and how far `offset` is into it.
    pub fn lookup(&self, offset: u32) -> Option<(&'a str, u32)> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let mid = low + (high - low) / 2;
            if self.address(mid)? <= offset {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        let i = low.checked_sub(1)?;
        let at = u32_at(self.entries, i * ENTRY + 4)? as usize;
        let len = self.names.get(at..at.checked_add(2)?)?;
        let len = u16::from_le_bytes([len[0], len[1]]) as usize;
        let name = self.names.get(at + 2..at.checked_add(2)?.checked_add(len)?)?;
        Some((core::str::from_utf8(name).ok()?, offset - self.address(i)?))
    }
}

/// Makes a table of (offset from the begin of the image, demangled name). Of several names for one address the first stays.
pub fn encode<'s>(symbols: impl IntoIterator<Item = (u32, &'s str)>) -> Vec<u8> {
    let mut all: Vec<(u32, &str)> = symbols.into_iter().filter(|(_, n)| !n.is_empty()).collect();
    all.sort_by_key(|s| s.0);
    all.dedup_by_key(|s| s.0);
    let mut names: Vec<u8> = Vec::new();
    let mut out: Vec<u8> = Vec::with_capacity(HEADER + all.len() * ENTRY);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&(all.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for (address, name) in &all {
        let mut len = name.len().min(u16::MAX as usize);
        while !name.is_char_boundary(len) {
            len -= 1;
        }
        out.extend_from_slice(&address.to_le_bytes());
        out.extend_from_slice(&(names.len() as u32).to_le_bytes());
        names.extend_from_slice(&(len as u16).to_le_bytes());
        names.extend_from_slice(&name.as_bytes()[..len]);
    }
    out[12..16].copy_from_slice(&(names.len() as u32).to_le_bytes());
    out.extend_from_slice(&names);
    out
}

/// Makes a table of the functions of a 64-bit little-endian ELF whose image begins at virtual address `image`.
/// `demangle` gets each raw name. `None` if this is not such an ELF or it has no symbols.
pub fn from_elf<N: AsRef<str>>(elf: &[u8], image: u64, demangle: impl Fn(&str) -> N) -> Option<Vec<u8>> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(elf.get(at..at.checked_add(2)?)?.try_into().ok()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(elf.get(at..at.checked_add(8)?)?.try_into().ok()?));
    // ELF-64 object file format: class 2 (64 bits), data 1 (little-endian)
    if elf.get(..6)? != [0x7f, b'E', b'L', b'F', 2, 1] {
        return None;
    }
    let table = u64_at(0x28)? as usize;
    let (size, count) = (u16_at(0x3a)? as usize, u16_at(0x3c)? as usize);
    let section = |i: usize| table.checked_add(i.checked_mul(size)?);
    let mut found: Vec<(u32, N)> = Vec::new();
    for s in 0..count {
        let s = section(s)?;
        const SHT_SYMTAB: u32 = 2;
        if u32_at(elf, s.checked_add(4)?)? != SHT_SYMTAB {
            continue;
        }
        let (offset, bytes) = (u64_at(s.checked_add(0x18)?)? as usize, u64_at(s.checked_add(0x20)?)? as usize);
        let strings = section(u32_at(elf, s.checked_add(0x28)?)? as usize)?;
        let (str_offset, str_bytes) =
            (u64_at(strings.checked_add(0x18)?)? as usize, u64_at(strings.checked_add(0x20)?)? as usize);
        let strings = elf.get(str_offset..str_offset.checked_add(str_bytes)?)?;
        for symbol in elf.get(offset..offset.checked_add(bytes)?)?.chunks_exact(24) {
            const STT_NOTYPE: u8 = 0;
            const STT_FUNC: u8 = 2;
            let value = u64::from_le_bytes(symbol[8..16].try_into().ok()?);
            let section = u16::from_le_bytes([symbol[6], symbol[7]]);
            let kind = symbol[4] & 15;
            if !(kind == STT_FUNC || kind == STT_NOTYPE) || section == 0 || section >= 0xff00 || value < image {
                continue;
            }
            let Ok(value) = u32::try_from(value - image) else { continue };
            let name = strings.get(u32_at(symbol, 0)? as usize..)?;
            let end = name.iter().position(|b| *b == 0)?;
            let Ok(name) = core::str::from_utf8(&name[..end]) else { continue };
            // `$x` and the like say what lies there (ELF for the Arm and RISC-V architectures), not what it is called.
            if !name.is_empty() && !name.starts_with(".L") && !name.starts_with('$') {
                found.push((value, demangle(name)));
            }
        }
    }
    (!found.is_empty()).then(|| encode(found.iter().map(|(a, n)| (*a, n.as_ref()))))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{SymbolTable, encode, from_elf};

    #[test]
    fn finds_the_symbol_before() {
        let t = encode([(0x100, "b"), (0x10, "a"), (0x100, "again"), (0x200, "ü")]);
        let t = SymbolTable::parse(&t).expect("own table");
        assert_eq!(t.len(), 3);
        assert_eq!(t.lookup(0), None);
        assert_eq!(t.lookup(0x10), Some(("a", 0)));
        assert_eq!(t.lookup(0xff), Some(("a", 0xef)));
        assert_eq!(t.lookup(0x100), Some(("b", 0)));
        assert_eq!(t.lookup(u32::MAX), Some(("ü", u32::MAX - 0x200)));
    }

    #[test]
    fn damaged_tables_do_not_panic() {
        let t = encode([(1, "one"), (2, "two"), (3, "three")]);
        for cut in 0..t.len() {
            assert!(SymbolTable::parse(&t[..cut]).is_none());
        }
        for i in 0..t.len() {
            for bit in 0..8 {
                let mut d = t.clone();
                d[i] ^= 1 << bit;
                if let Some(d) = SymbolTable::parse(&d) {
                    for a in [0, 1, 2, 3, 1000, u32::MAX] {
                        let _ = d.lookup(a);
                    }
                }
            }
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn reads_this_test_program() {
        let elf = std::fs::read("/proc/self/exe").expect("own program");
        let table = from_elf(&elf, 0, |n| std::string::String::from(n)).expect("has symbols");
        let table = SymbolTable::parse(&table).expect("own table");
        assert!(table.len() > 100);
        let mut found = false;
        for a in (0..elf.len() as u32).step_by(16) {
            found |= table.lookup(a).is_some_and(|(n, _)| n.contains("reads_this_test_program"));
        }
        assert!(found);
        for cut in (0..elf.len()).step_by(elf.len() / 50) {
            let _ = from_elf(&elf[..cut], 0, |n| std::string::String::from(n));
        }
    }
}
