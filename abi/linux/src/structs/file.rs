//! Directories, file systems, locks, scattered buffers. The same on all 64-bit ISAs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Writes `struct linux_dirent64` entries one after the other.
#[derive(Debug)]
pub struct Dirent<'a> {
    pub ino: u64,
    /// Where the next entry is: what `lseek` takes.
    pub next: i64,
    /// `DT_*`.
    pub kind: u8,
    pub name: &'a [u8],
}

impl Dirent<'_> {
    /// Where the name starts.
    const NAME: usize = 19;

    /// The bytes that the entry takes, with its padding.
    pub const fn length(&self) -> usize {
        (Self::NAME + self.name.len() + 1).next_multiple_of(8)
    }

    /// Writes the entry to the front of `out`; none if it does not fit.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let length = self.length();
        let (head, name) = out.get_mut(..length)?.split_at_mut_checked(Self::NAME)?;
        let (ino, rest) = head.split_first_chunk_mut::<8>()?;
        let (next, rest) = rest.split_first_chunk_mut::<8>()?;
        let (reclen, kind) = rest.split_first_chunk_mut::<2>()?;
        *ino = self.ino.to_le_bytes();
        *next = self.next.to_le_bytes();
        *reclen = u16::try_from(length).ok()?.to_le_bytes();
        kind.fill(self.kind);
        name.fill(0);
        name.get_mut(..self.name.len())?.copy_from_slice(self.name);
        Some(length)
    }
}

/// `struct iovec`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IoVec {
    pub base: u64,
    /// Bytes.
    pub len: u64,
}

/// `struct statfs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Statfs {
    /// A number of `linux/magic.h`.
    pub kind: i64,
    /// Bytes of a block.
    pub bsize: i64,
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub fsid: [i32; 2],
    pub namelen: i64,
    pub frsize: i64,
    /// `ST_*`.
    pub flags: i64,
    pub spare: [i64; 4],
}

/// `struct flock`, of `fcntl`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FileLock {
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub kind: i16,
    /// `SEEK_*`.
    pub whence: i16,
    pub pad: u32,
    pub start: i64,
    pub len: i64,
    pub pid: i32,
    pub pad2: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_entries() {
        let entry = Dirent { ino: 0x0102, next: -1, kind: 8, name: b"name" };
        let mut out = [0xaa; 40];
        assert_eq!(entry.encode(&mut out), Some(24));
        assert_eq!(out[..8], 0x0102u64.to_le_bytes());
        assert_eq!((&out[8..16], &out[16..19], &out[19..24]), (&[0xff; 8][..], &[24, 0, 8][..], &b"name\0"[..]));
        assert_eq!(out[24], 0xaa);
        assert_eq!(entry.encode(&mut out[..23]), None);
        assert_eq!(Dirent { name: b"names", ..entry }.length(), 32);
    }
}
