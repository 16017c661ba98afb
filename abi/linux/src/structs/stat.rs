//! What a file is: `stat`, which differs, and `statx`, which does not.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Encoded, Timespec};
use crate::Isa;

/// `struct stat` as a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// As `makedev` makes it.
    pub dev: u64,
    pub ino: u64,
    /// Type and permissions.
    pub mode: u32,
    pub nlink: u64,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    /// Bytes.
    pub size: i64,
    /// Bytes of a good piece of I/O.
    pub blksize: u32,
    /// Units of 512 bytes.
    pub blocks: i64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
}

/// `arch/x86/include/uapi/asm/stat.h`.
#[derive(Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct StatX86_64 {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) nlink: u64,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pad: u32,
    pub(super) rdev: u64,
    pub(super) size: i64,
    pub(super) blksize: i64,
    pub(super) blocks: i64,
    pub(super) times: [Timespec; 3],
    pub(super) unused: [u64; 3],
}

/// `include/uapi/asm-generic/stat.h`.
#[derive(Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct StatGeneric {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) mode: u32,
    pub(super) nlink: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) rdev: u64,
    pub(super) pad1: u64,
    pub(super) size: i64,
    pub(super) blksize: i32,
    pub(super) pad2: i32,
    pub(super) blocks: i64,
    pub(super) times: [Timespec; 3],
    pub(super) unused: [u32; 2],
}

impl Stat {
    /// The longest of all ISAs.
    pub const MAX: usize = size_of::<StatX86_64>();

    /// As a program of this ISA reads it.
    pub fn encode(&self, isa: Isa) -> Encoded<{ Self::MAX }> {
        let times = [self.atime, self.mtime, self.ctime];
        match isa {
            Isa::X86_64 => Encoded::new(
                StatX86_64 {
                    dev: self.dev,
                    ino: self.ino,
                    nlink: self.nlink,
                    mode: self.mode,
                    uid: self.uid,
                    gid: self.gid,
                    pad: 0,
                    rdev: self.rdev,
                    size: self.size,
                    blksize: self.blksize.into(),
                    blocks: self.blocks,
                    times,
                    unused: [0; 3],
                }
                .as_bytes(),
            ),
            Isa::Aarch64 | Isa::Riscv64 => Encoded::new(
                StatGeneric {
                    dev: self.dev,
                    ino: self.ino,
                    mode: self.mode,
                    nlink: u32::try_from(self.nlink).unwrap_or(u32::MAX),
                    uid: self.uid,
                    gid: self.gid,
                    rdev: self.rdev,
                    pad1: 0,
                    size: self.size,
                    blksize: i32::try_from(self.blksize).unwrap_or(i32::MAX),
                    pad2: 0,
                    blocks: self.blocks,
                    times,
                    unused: [0; 2],
                }
                .as_bytes(),
            ),
        }
    }

    /// The same as `statx` says it: all basic fields, no birth time.
    pub fn to_statx(&self) -> Statx {
        let time = |t: Timespec| StatxTimestamp { sec: t.sec, nsec: t.nsec as u32, reserved: 0 };
        Statx {
            mask: linux_raw_sys::general::STATX_BASIC_STATS,
            blksize: self.blksize,
            nlink: u32::try_from(self.nlink).unwrap_or(u32::MAX),
            uid: self.uid,
            gid: self.gid,
            mode: self.mode as u16,
            ino: self.ino,
            size: self.size as u64,
            blocks: self.blocks as u64,
            atime: time(self.atime),
            ctime: time(self.ctime),
            mtime: time(self.mtime),
            rdev_major: major(self.rdev),
            rdev_minor: minor(self.rdev),
            dev_major: major(self.dev),
            dev_minor: minor(self.dev),
            ..Statx::default()
        }
    }
}

/// The major number of a device number (`makedev(3)`).
pub const fn major(dev: u64) -> u32 {
    (dev >> 8 & 0xfff | dev >> 32 & 0xffff_f000) as u32
}

/// The minor number of a device number (`makedev(3)`).
pub const fn minor(dev: u64) -> u32 {
    (dev & 0xff | dev >> 12 & 0xffff_ff00) as u32
}

/// `struct statx_timestamp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StatxTimestamp {
    pub sec: i64,
    pub nsec: u32,
    pub reserved: i32,
}

/// `struct statx`. The same on all ISAs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Statx {
    /// `STATX_*`: which fields are valid.
    pub mask: u32,
    pub blksize: u32,
    pub attributes: u64,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub mode: u16,
    pub spare0: u16,
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub attributes_mask: u64,
    pub atime: StatxTimestamp,
    pub btime: StatxTimestamp,
    pub ctime: StatxTimestamp,
    pub mtime: StatxTimestamp,
    pub rdev_major: u32,
    pub rdev_minor: u32,
    pub dev_major: u32,
    pub dev_minor: u32,
    pub mnt_id: u64,
    pub dio_mem_align: u32,
    pub dio_offset_align: u32,
    /// Fields of later Linux versions, zero.
    pub later: [u64; 12],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_on_each_isa() {
        let stat = Stat {
            dev: 1,
            ino: 2,
            mode: 0o100_644,
            nlink: 3,
            uid: 4,
            gid: 5,
            rdev: 6,
            size: 7,
            blksize: 4096,
            blocks: 8,
            atime: Timespec { sec: 9, nsec: 10 },
            mtime: Timespec { sec: 11, nsec: 12 },
            ctime: Timespec { sec: 13, nsec: 14 },
        };
        let (x86, arm) = (stat.encode(Isa::X86_64), stat.encode(Isa::Aarch64));
        assert_eq!((x86.len(), arm.len()), (144, 128));
        assert_eq!((x86[16], arm[20]), (3, 3), "nlink");
        let mode = 0o100_644u32.to_le_bytes();
        assert!(x86[24..28] == mode && arm[16..20] == mode);
        assert_eq!((x86[48], arm[48]), (7, 7), "size");
        assert_eq!((x86[112], arm[112]), (14, 14), "nanoseconds of the change");
        assert_eq!(stat.encode(Isa::Riscv64), arm);
        let statx = stat.to_statx();
        assert_eq!((statx.mtime.sec, statx.mtime.nsec, statx.dev_minor), (11, 12, 1));
    }

    #[test]
    fn device_numbers() {
        let dev = 0x0123_4567_89ab_cdef;
        assert_eq!((major(dev), minor(dev)), (0x0123_4bcd, 0x5678_9aef));
        assert_eq!((major(0x0501), minor(0x0501)), (5, 1));
    }
}
