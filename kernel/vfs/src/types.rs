//! Attributes and flags of files, as kernel types: what a program sees is encoded in crate `linux`.

/// A moment, in nanoseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Time(pub i64);

/// What a file is; the `S_IFMT` bits of inode(7) shifted down by 12, which `d_type` of readdir(3) uses too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FileKind {
    /// FIFO.
    Fifo = 1,
    /// Character device.
    Char = 2,
    /// Directory.
    Directory = 4,
    /// Block device.
    Block = 6,
    /// Regular file.
    Regular = 8,
    /// Symbolic link.
    Symlink = 10,
    /// Socket.
    Socket = 12,
}

/// A device number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash, PartialOrd, Ord)]
pub struct Device {
    /// Driver.
    pub major: u32,
    /// Instance.
    pub minor: u32,
}

/// Attributes, stat(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// The file system.
    pub device: Device,
    /// The file in it.
    pub inode: u64,
    /// What it is.
    pub kind: FileKind,
    /// Permission and set-id bits (`07777`).
    pub mode: u32,
    /// Hard links.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The device that a device node stands for.
    pub rdev: Device,
    /// Bytes.
    pub size: u64,
    /// Bytes per efficient access.
    pub block_size: u32,
    /// Units of 512 bytes in use.
    pub blocks: u64,
    /// Last access.
    pub accessed: Time,
    /// Last change of the content.
    pub modified: Time,
    /// Last change of the attributes.
    pub changed: Time,
    /// Creation.
    pub born: Time,
}

/// Attributes to change; `None` stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// Permission and set-id bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Access time.
    pub accessed: Option<Time>,
    /// Modification time.
    pub modified: Option<Time>,
    /// The times are "now" (writers may set those), not of the caller's choice (owners only).
    pub times_are_now: bool,
    /// Size: truncate(2).
    pub size: Option<u64>,
}

impl SetAttr {
    /// What those who watch the file are told: inotify(7).
    pub fn event(&self) -> crate::inotify::Mask {
        use crate::inotify::Mask;
        let mut what = Mask::empty();
        what.set(Mask::MODIFY, self.size.is_some());
        what.set(Mask::ATTRIB, self.mode.is_some() || self.uid.is_some() || self.gid.is_some());
        match (self.accessed, self.modified) {
            (Some(_), Some(_)) => what |= Mask::ATTRIB,
            (Some(_), None) => what |= Mask::ACCESS,
            (None, Some(_)) => what |= Mask::MODIFY,
            (None, None) => {}
        }
        what
    }
}

/// A file system, statfs(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StatFs {
    /// Its magic number, `linux/magic.h`.
    pub magic: u64,
    /// Bytes per block.
    pub block_size: u64,
    /// Blocks.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Files.
    pub files: u64,
    /// Free files.
    pub free_files: u64,
    /// Longest name in bytes.
    pub name_max: u64,
    /// `ST_*` mount flags.
    pub flags: u64,
}

bitflags::bitflags! {
    /// What access(2) asks and what an operation needs.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Access: u8 {
        /// Execute or search.
        const EXECUTE = 1;
        /// Write.
        const WRITE = 2;
        /// Read.
        const READ = 4;
    }
}

bitflags::bitflags! {
    /// How a file is opened, open(2). Kernel bits: the numbers of `O_*` differ between ISAs.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct OpenFlags: u32 {
        /// Reading is allowed.
        const READ = 1 << 0;
        /// Writing is allowed.
        const WRITE = 1 << 1;
        /// Make it if it is not there.
        const CREATE = 1 << 2;
        /// Fail if it is there.
        const EXCLUSIVE = 1 << 3;
        /// Do not make a terminal the controlling one.
        const NO_CTTY = 1 << 4;
        /// Cut it to nothing.
        const TRUNCATE = 1 << 5;
        /// Fail if it is no directory.
        const DIRECTORY = 1 << 6;
        /// Fail if it is a symbolic link.
        const NO_FOLLOW = 1 << 7;
        /// Only a place in the tree.
        const PATH = 1 << 8;
        /// A file without a name in this directory.
        const TMPFILE = 1 << 9;
        /// Large files are allowed (always, here); kept for `F_GETFL`.
        const LARGE = 1 << 10;
        /// The file was made by this very open: its permission bits do not count.
        const CREATED = 1 << 11;
        /// For execve(2): execute permission, and nobody may have it open for writing.
        const EXECUTE = 1 << 12;
    }
}

bitflags::bitflags! {
    /// What `F_SETFL` can change.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Status: u32 {
        /// Every write goes to the end.
        const APPEND = 1 << 0;
        /// Do not wait.
        const NONBLOCK = 1 << 1;
        /// Signal-driven I/O.
        const ASYNC = 1 << 2;
        /// No cache.
        const DIRECT = 1 << 3;
        /// Do not change the access time.
        const NO_ATIME = 1 << 4;
        /// Writes are on the medium when they return.
        const SYNC = 1 << 5;
    }
}

impl Device {
    /// A device number.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// As `st_dev` and `st_rdev` hold it (`makedev(3)`).
    pub const fn raw(self) -> u64 {
        let (major, minor) = (self.major as u64, self.minor as u64);
        (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12) | ((major & !0xfff) << 32)
    }

    /// From a `dev_t`.
    pub const fn from_raw(raw: u64) -> Self {
        Self {
            major: (((raw >> 8) & 0xfff) | ((raw >> 32) & !0xfff)) as u32,
            minor: ((raw & 0xff) | ((raw >> 12) & !0xff)) as u32,
        }
    }
}

impl FileKind {
    /// The `S_IFMT` bits of `st_mode`.
    pub const fn mode_bits(self) -> u32 {
        (self as u32) << 12
    }

    /// The kind that the `S_IFMT` bits of a mode name.
    pub const fn from_mode(mode: u32) -> Option<Self> {
        match (mode >> 12) & 15 {
            1 => Some(Self::Fifo),
            2 => Some(Self::Char),
            4 => Some(Self::Directory),
            6 => Some(Self::Block),
            8 => Some(Self::Regular),
            10 => Some(Self::Symlink),
            12 => Some(Self::Socket),
            _ => None,
        }
    }
}

impl Stat {
    /// As [`Stat::permits`], as a result.
    ///
    /// # Errors
    /// `EACCES`.
    #[inline]
    pub fn check(&self, caller: &crate::Caller, access: Access) -> base::Result<()> {
        if self.permits(caller, access) {
            Ok(())
        } else {
            Err(base::Error::new(base::Errno::EACCES, "permission denied"))
        }
    }

    /// Whether the caller may take a name of `self` out of `dir`, whose write permission was checked: the sticky bit.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn check_sticky(&self, dir: &Self, caller: &crate::Caller) -> base::Result<()> {
        if dir.mode & 0o1000 != 0 && caller.uid != dir.uid && !caller.owns(self) {
            return Err(base::Error::new(base::Errno::EPERM, "sticky directory"));
        }
        Ok(())
    }

    /// Whether the caller may access the file so, by permission bits and capabilities (path_resolution(7)).
    pub fn permits(&self, caller: &crate::Caller, access: Access) -> bool {
        use crate::caller::cap;
        let shift = if caller.uid == self.uid {
            6
        } else if caller.in_group(self.gid) {
            3
        } else {
            0
        };
        let granted = Access::from_bits_truncate((self.mode >> shift) as u8 & 7);
        if granted.contains(access) {
            return true;
        }
        let directory = self.kind == FileKind::Directory;
        if caller.can(cap::DAC_OVERRIDE) && (directory || !access.contains(Access::EXECUTE) || self.mode & 0o111 != 0) {
            return true;
        }
        let reading = Access::READ | if directory { Access::EXECUTE } else { Access::empty() };
        caller.can(cap::DAC_READ_SEARCH) && reading.contains(access)
    }
}

#[cfg(test)]
mod tests {
    use super::Device;

    #[test]
    fn device_numbers_go_both_ways() {
        assert_eq!(Device::new(5, 1).raw(), 0x501);
        for (major, minor) in [(0, 0), (1, 3), (136, 700), (0xfff, 0xfffff), (0x12345, 0x1234567)] {
            let d = Device::new(major, minor);
            assert_eq!(Device::from_raw(d.raw()), d);
        }
    }
}
