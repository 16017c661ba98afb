//! The base tree of a simulated machine: a cpio archive with the directories that programs expect, and executables whose entry points are scripts.

/// Memory of a script that is zero when it starts.
pub const DATA: u64 = 0x20_0000;
/// How much of it.
pub const DATA_LEN: u64 = 0x2_0000;
const TEXT: u64 = 0x40_0000;
const PAGE: usize = 4096;

/// An executable that "starts" at `entry`: a page of text, and [`DATA`].
fn executable(entry: u64) -> Vec<u8> {
    const EXECUTE_READ: u32 = 5;
    const READ_WRITE: u32 = 6;
    let mut elf = Vec::new();
    elf.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_EXEC, EM_X86_64, version 1.
    elf.extend_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [entry, 64, 0] {
        elf.extend_from_slice(&u64::to_le_bytes(word));
    }
    elf.extend_from_slice(&[0; 4]);
    // Sizes of the headers: file, program (two of them), section (none).
    for half in [64_u16, 56, 2, 0, 0, 0] {
        elf.extend_from_slice(&half.to_le_bytes());
    }
    for (flags, at, in_file, in_memory) in
        [(READ_WRITE, DATA, 0, DATA_LEN), (EXECUTE_READ, TEXT, PAGE as u64, PAGE as u64)]
    {
        elf.extend_from_slice(&1_u32.to_le_bytes());
        elf.extend_from_slice(&flags.to_le_bytes());
        for word in [0, at, at, in_file, in_memory, PAGE as u64] {
            elf.extend_from_slice(&u64::to_le_bytes(word));
        }
    }
    elf.resize(PAGE, 0x90);
    elf
}

fn record(archive: &mut Vec<u8>, inode: u32, path: &str, mode: u32, content: &[u8]) {
    let pad = |archive: &mut Vec<u8>| archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(b"070701");
    let size = content.len() as u32;
    for field in [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, path.len() as u32 + 1, 0] {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(path.as_bytes());
    archive.push(0);
    pad(archive);
    archive.extend_from_slice(content);
    pad(archive);
}

/// The archive with these executables, by path and entry point.
pub fn build(programs: &[(&str, u64)]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut inode = 0;
    let mut add = |path: &str, mode: u32, content: &[u8]| {
        inode += 1;
        record(&mut archive, inode, path, mode, content);
    };
    for (path, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("proc", 0o555),
        ("sbin", 0o755),
        ("sys", 0o555),
        ("tmp", 0o1777),
    ] {
        add(path, 0o040_000 | mode, &[]);
    }
    for (path, entry) in programs {
        add(path, 0o100_755, &executable(*entry));
    }
    record(&mut archive, 0, "TRAILER!!!", 0, &[]);
    archive
}
