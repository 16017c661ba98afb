//! What an ELF file asks for: pure parsing of its first page and program headers.
//!
//! Source: System V ABI, chapters 4 and 5; error numbers as `elf(5)` programs see them from `execve(2)`.

use alloc::vec::Vec;

use base::{Errno, Error, Result};
use elf::{
    abi,
    endian::LittleEndian,
    file::{Class, FileHeader, parse_ident},
    segment::{ProgramHeader, SegmentTable},
};
use linux_abi::Isa;
use mm::Prot;

const PAGE: u64 = hal::addr::PAGE_SIZE as u64;
/// Most bytes of program headers, as Linux.
const HEADERS_MAX: usize = 65536;
/// Bytes of a program header.
pub const HEADER_SIZE: usize = 56;
/// Longest path of an interpreter.
const PATH_MAX: u64 = 4096;

/// The instruction set with this ELF machine number.
fn isa(machine: u16) -> Option<Isa> {
    Isa::ALL.into_iter().find(|isa| isa.elf_machine() == machine)
}

/// The fixed header, checked: what is needed to read the program headers.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Whose instructions these are.
    pub isa: Isa,
    /// It can be put anywhere (PIE, shared object).
    pub movable: bool,
    /// Where it starts, relative to its own addresses.
    pub entry: u64,
    /// Where in the file the program headers are.
    pub headers_at: u64,
    /// How many there are.
    pub headers: u16,
}

impl Head {
    /// How many bytes the program headers have.
    pub const fn headers_len(&self) -> usize {
        self.headers as usize * HEADER_SIZE
    }
}

/// A piece of the file that is mapped. Page-aligned in the sense that `at` and `offset` agree modulo the page size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// Its address in the file's own terms.
    pub at: u64,
    /// Where its bytes are in the file.
    pub offset: u64,
    /// How many bytes come from the file.
    pub file_len: u64,
    /// How many it has in memory; the rest are zeros.
    pub len: u64,
    /// What is allowed.
    pub prot: Prot,
}

/// Everything that a loader must know.
#[derive(Clone, Debug)]
pub struct Image {
    /// The fixed part.
    pub head: Head,
    /// `PT_LOAD`, ascending.
    pub segments: Vec<Segment>,
    /// Where the path of the interpreter is in the file: offset, length with its NUL.
    pub interp: Option<(u64, usize)>,
    /// Whether the stack must be executable (`PT_GNU_STACK` with `PF_X`).
    pub exec_stack: bool,
    /// Largest alignment that a segment asks for.
    pub align: u64,
    /// The address of the program headers in the file's own terms, if they are in a segment (`AT_PHDR`).
    pub headers_va: Option<u64>,
}

const fn refuse(why: &'static str) -> Error {
    Error::new(Errno::ENOEXEC, why)
}

/// Looks at the first bytes of a file (at least 64, if it has them).
///
/// # Errors
/// `ENOEXEC`: not an ELF program that any kernel of this system could run.
pub fn head(bytes: &[u8]) -> Result<Head> {
    let ident_bytes = bytes.get(..abi::EI_NIDENT).ok_or(refuse("shorter than an ELF header"))?;
    let ident = parse_ident::<LittleEndian>(ident_bytes).map_err(|_| refuse("not ELF"))?;
    if ident.1 != Class::ELF64 {
        return Err(refuse("not a 64-bit program"));
    }
    let tail = bytes.get(abi::EI_NIDENT..64).ok_or(refuse("shorter than an ELF header"))?;
    let header = FileHeader::parse_tail(ident, tail).map_err(|_| refuse("bad ELF header"))?;
    let movable = match header.e_type {
        abi::ET_EXEC => false,
        abi::ET_DYN => true,
        _ => return Err(refuse("neither a program nor a shared object")),
    };
    let isa = isa(header.e_machine).ok_or(refuse("unknown machine"))?;
    let len = usize::from(header.e_phnum) * HEADER_SIZE;
    if usize::from(header.e_phentsize) != HEADER_SIZE || header.e_phnum == 0 || len > HEADERS_MAX {
        return Err(refuse("bad program header table"));
    }
    Ok(Head { isa, movable, entry: header.e_entry, headers_at: header.e_phoff, headers: header.e_phnum })
}

/// Reads the program headers.
///
/// # Errors
/// `ENOEXEC` or `EINVAL`, as Linux would have it.
pub fn image(head: Head, headers: &[u8]) -> Result<Image> {
    // Without PT_GNU_STACK the stack of a 64-bit program is not executable, as on current Linux.
    let mut image =
        Image { head, segments: Vec::new(), interp: None, exec_stack: false, align: PAGE, headers_va: None };
    for header in SegmentTable::new(LittleEndian, Class::ELF64, headers).iter() {
        match header.p_type {
            abi::PT_LOAD if header.p_memsz > 0 => image.add(&header)?,
            abi::PT_INTERP if image.interp.is_none() => {
                if header.p_filesz < 2 || header.p_filesz > PATH_MAX {
                    return Err(refuse("bad PT_INTERP"));
                }
                image.interp = Some((header.p_offset, header.p_filesz as usize));
            }
            abi::PT_GNU_STACK => image.exec_stack = header.p_flags & abi::PF_X != 0,
            _ => {}
        }
    }
    if image.segments.is_empty() {
        return Err(refuse("nothing to load"));
    }
    let table = head.headers_at..head.headers_at.saturating_add(head.headers_len() as u64);
    if let Some(segment) = image.segments.iter().find(|s| s.offset <= table.start && table.end <= s.offset + s.file_len)
    {
        image.headers_va = Some(segment.at + (table.start - segment.offset));
    }
    Ok(image)
}

impl Image {
    fn add(&mut self, header: &ProgramHeader) -> Result<()> {
        let end = header.p_vaddr.checked_add(header.p_memsz).ok_or(refuse("segment wraps around"))?;
        let file_end = header.p_offset.checked_add(header.p_filesz).ok_or(refuse("segment wraps around"))?;
        if header.p_filesz > header.p_memsz
            || end > hal::addr::user_top()
            || file_end > i64::MAX as u64
            || header.p_vaddr % PAGE != header.p_offset % PAGE
        {
            return Err(Error::new(Errno::EINVAL, "segment cannot be mapped"));
        }
        let floor = header.p_vaddr & !(PAGE - 1);
        if self.segments.last().is_some_and(|last| floor < (last.at + last.len).next_multiple_of(PAGE)) {
            // Linux maps the later one over the earlier; no linker makes that.
            return Err(refuse("segments overlap or are not ascending"));
        }
        let mut prot = Prot::empty();
        prot.set(Prot::READ, header.p_flags & abi::PF_R != 0);
        prot.set(Prot::WRITE, header.p_flags & abi::PF_W != 0);
        prot.set(Prot::EXEC, header.p_flags & abi::PF_X != 0);
        if header.p_align.is_power_of_two() && header.p_align <= 1 << 30 {
            self.align = self.align.max(header.p_align);
        }
        self.segments.push(Segment {
            at: header.p_vaddr,
            offset: header.p_offset,
            file_len: header.p_filesz,
            len: header.p_memsz,
            prot,
        });
        Ok(())
    }

    /// The addresses it covers in its own terms, page-aligned.
    pub fn span(&self) -> core::ops::Range<u64> {
        let start = self.segments.first().map_or(0, |s| s.at & !(PAGE - 1));
        let end = self.segments.last().map_or(0, |s| (s.at + s.len).next_multiple_of(PAGE));
        start..end
    }

    /// Whether `at` (in its own terms) lies in something executable.
    pub fn can_start(&self, at: u64) -> bool {
        self.segments.iter().any(|s| s.at <= at && at - s.at < s.len && s.prot.contains(Prot::EXEC))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use alloc::vec::Vec;

    use super::{HEADER_SIZE, head, image};
    use base::Errno;
    use linux_abi::Isa;

    pub(crate) fn program(kind: u16, machine: u16, segments: &[(u32, u32, u64, u64, u64, u64)]) -> Vec<u8> {
        let mut out = Vec::from([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        out.extend(kind.to_le_bytes());
        out.extend(machine.to_le_bytes());
        out.extend(1_u32.to_le_bytes());
        out.extend(0x40_1000_u64.to_le_bytes());
        out.extend(64_u64.to_le_bytes());
        out.extend(0_u64.to_le_bytes());
        out.extend(0_u32.to_le_bytes());
        for word in [64, HEADER_SIZE as u16, segments.len() as u16, 0, 0, 0] {
            out.extend(word.to_le_bytes());
        }
        for &(kind, flags, offset, at, file_len, len) in segments {
            out.extend(kind.to_le_bytes());
            out.extend(flags.to_le_bytes());
            for word in [offset, at, at, file_len, len, 0x1000] {
                out.extend(word.to_le_bytes());
            }
        }
        out
    }

    #[test]
    fn reads_a_plain_program() {
        let bytes = program(
            2,
            62,
            &[
                (1, 5, 0, 0x40_0000, 0x2000, 0x2000),
                (1, 6, 0x2010, 0x40_2010, 0x20, 0x3000),
                (0x6474_e551, 6, 0, 0, 0, 0),
            ],
        );
        let h = head(&bytes).unwrap();
        assert_eq!((h.isa, h.movable, h.headers), (Isa::X86_64, false, 3));
        let image = image(h, &bytes[64..]).unwrap();
        assert_eq!(image.span(), 0x40_0000..0x40_6000);
        assert_eq!(image.headers_va, Some(0x40_0040));
        assert!(!image.exec_stack);
        assert!(image.can_start(0x40_1000) && !image.can_start(0x40_2010) && !image.can_start(0x40_5fff));
    }

    #[test]
    fn refuses_what_linux_refuses() {
        let load = (1, 5, 0, 0x40_0000, 0x2000, 0x2000);
        let errno = |bytes: &[u8]| match head(bytes) {
            Err(e) => e.errno(),
            Ok(h) => image(h, &bytes[64..]).unwrap_err().errno(),
        };
        assert_eq!(errno(b"\x7fELF"), Errno::ENOEXEC);
        assert_eq!(errno(&program(1, 62, &[load])), Errno::ENOEXEC);
        assert_eq!(errno(&program(2, 3, &[load])), Errno::ENOEXEC);
        assert_eq!(errno(&program(2, 62, &[])), Errno::ENOEXEC);
        assert_eq!(errno(&program(2, 62, &[(6, 4, 0, 0, 0, 0)])), Errno::ENOEXEC);
        assert_eq!(errno(&program(2, 62, &[(1, 5, 8, 0x40_0000, 1, 1)])), Errno::EINVAL);
        assert_eq!(errno(&program(2, 62, &[(1, 5, 0, 0x40_0000, 2, 1)])), Errno::EINVAL);
        assert_eq!(errno(&program(2, 62, &[(1, 5, 0, u64::MAX - 0xfff, 1, 0x1000)])), Errno::ENOEXEC);
        assert_eq!(errno(&program(2, 62, &[load, (3, 4, 0, 0, 1, 1)])), Errno::ENOEXEC);
    }

    #[test]
    fn never_panics() {
        // Any damage of one byte of the headers is either accepted or an error.
        let good = program(3, 183, &[(1, 5, 0, 0, 0x2000, 0x2000), (3, 4, 0x200, 0x200, 0x20, 0x20)]);
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                if let Ok(h) = head(&bytes) {
                    let len = h.headers_len().min(bytes.len() - 64);
                    let _ = image(h, &bytes[64..64 + len]);
                }
            }
        }
    }
}
