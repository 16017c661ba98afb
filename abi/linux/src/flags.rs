//! Flags as types. Those that differ between ISAs have one value here and are translated where a program passes them; the rest have the
//! numbers of `asm-generic`, which these three ISAs share. Constants that are no flags: [`crate::common`].

use bitflags::bitflags;
use linux_raw_sys::general as raw;

use crate::Isa;

bitflags! {
    /// The flags of `open`, without the access mode ([`OpenFlags::access`]). The numbers are those of x86-64 and riscv64.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OpenFlags: u32 {
        /// With [`OpenFlags::RDWR`] the two bits of the access mode; neither of them is "read only".
        const WRONLY = 0o1;
        const RDWR = 0o2;
        const CREAT = 0o100;
        const EXCL = 0o200;
        const NOCTTY = 0o400;
        const TRUNC = 0o1000;
        const APPEND = 0o2000;
        const NONBLOCK = 0o4000;
        const DSYNC = 0o10000;
        const ASYNC = 0o20000;
        const DIRECT = 0o40000;
        const LARGEFILE = 0o100_000;
        const DIRECTORY = 0o200_000;
        const NOFOLLOW = 0o400_000;
        const NOATIME = 0o1_000_000;
        const CLOEXEC = 0o2_000_000;
        /// The bit that makes `O_SYNC` out of `O_DSYNC`.
        const SYNC_BIT = 0o4_000_000;
        const SYNC = 0o4_010_000;
        const PATH = 0o10_000_000;
        /// The bit that makes `O_TMPFILE` out of `O_DIRECTORY`.
        const TMPFILE_BIT = 0o20_000_000;
        const TMPFILE = 0o20_200_000;
    }
}

/// The flags whose numbers differ: here, on aarch64 (`arch/arm64/include/uapi/asm/fcntl.h`).
const OPEN_DIFFERS: [(OpenFlags, u32); 4] = [
    (OpenFlags::DIRECTORY, 0o40000),
    (OpenFlags::NOFOLLOW, 0o100_000),
    (OpenFlags::DIRECT, 0o200_000),
    (OpenFlags::LARGEFILE, 0o400_000),
];

impl OpenFlags {
    /// From what a program of this ISA passed. Bits that mean nothing are kept, as Linux ignores them in `open`.
    pub fn from_program(isa: Isa, bits: u32) -> Self {
        match isa {
            Isa::X86_64 | Isa::Riscv64 => Self::from_bits_retain(bits),
            Isa::Aarch64 => {
                let mixed = OPEN_DIFFERS.iter().fold(0, |mixed, (_, there)| mixed | there);
                let moved = OPEN_DIFFERS.iter().filter(|(_, there)| bits & there != 0).map(|(here, _)| here.bits());
                Self::from_bits_retain(moved.fold(bits & !mixed, |all, here| all | here))
            }
        }
    }

    /// To what a program of this ISA is told, by `fcntl(F_GETFL)` and `/proc/PID/fdinfo`.
    pub fn to_program(self, isa: Isa) -> u32 {
        match isa {
            Isa::X86_64 | Isa::Riscv64 => self.bits(),
            Isa::Aarch64 => {
                let mixed = OPEN_DIFFERS.iter().fold(0, |mixed, (here, _)| mixed | here.bits());
                let moved = OPEN_DIFFERS.iter().filter(|(here, _)| self.contains(*here)).map(|(_, there)| there);
                moved.fold(self.bits() & !mixed, |all, there| all | there)
            }
        }
    }

    /// `O_RDONLY` (0), `O_WRONLY` (1) or `O_RDWR` (2); 3 is Linux' "neither, but ioctl".
    pub const fn access(self) -> u32 {
        self.bits() & 0o3
    }

    /// Whether reads are allowed.
    pub const fn readable(self) -> bool {
        matches!(self.access(), 0 | 2)
    }

    /// Whether writes are allowed.
    pub const fn writable(self) -> bool {
        matches!(self.access(), 1 | 2)
    }
}

bitflags! {
    /// `PROT_*` of `mmap` and `mprotect`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Prot: u32 {
        const READ = raw::PROT_READ;
        const WRITE = raw::PROT_WRITE;
        const EXEC = raw::PROT_EXEC;
        const GROWSDOWN = raw::PROT_GROWSDOWN;
        const GROWSUP = raw::PROT_GROWSUP;
    }

    /// `MAP_*` of `mmap`. The low four bits are the type: 1 shared, 2 private, 3 shared and validated.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Map: u32 {
        const SHARED = raw::MAP_SHARED;
        const PRIVATE = raw::MAP_PRIVATE;
        const FIXED = raw::MAP_FIXED;
        const ANONYMOUS = raw::MAP_ANONYMOUS;
        const GROWSDOWN = raw::MAP_GROWSDOWN;
        const DENYWRITE = raw::MAP_DENYWRITE;
        const EXECUTABLE = raw::MAP_EXECUTABLE;
        const LOCKED = raw::MAP_LOCKED;
        const NORESERVE = raw::MAP_NORESERVE;
        const POPULATE = raw::MAP_POPULATE;
        const NONBLOCK = raw::MAP_NONBLOCK;
        const STACK = raw::MAP_STACK;
        const HUGETLB = raw::MAP_HUGETLB;
        const SYNC = raw::MAP_SYNC;
        const FIXED_NOREPLACE = raw::MAP_FIXED_NOREPLACE;
    }

    /// `CLONE_*`, with the low byte of `clone` (the exit signal) taken off.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct CloneFlags: u64 {
        const VM = raw::CLONE_VM as u64;
        const FS = raw::CLONE_FS as u64;
        const FILES = raw::CLONE_FILES as u64;
        const SIGHAND = raw::CLONE_SIGHAND as u64;
        const PIDFD = raw::CLONE_PIDFD as u64;
        const PTRACE = raw::CLONE_PTRACE as u64;
        const VFORK = raw::CLONE_VFORK as u64;
        const PARENT = raw::CLONE_PARENT as u64;
        const THREAD = raw::CLONE_THREAD as u64;
        const NEWNS = raw::CLONE_NEWNS as u64;
        const SYSVSEM = raw::CLONE_SYSVSEM as u64;
        const SETTLS = raw::CLONE_SETTLS as u64;
        const PARENT_SETTID = raw::CLONE_PARENT_SETTID as u64;
        const CHILD_CLEARTID = raw::CLONE_CHILD_CLEARTID as u64;
        const DETACHED = raw::CLONE_DETACHED as u64;
        const UNTRACED = raw::CLONE_UNTRACED as u64;
        const CHILD_SETTID = raw::CLONE_CHILD_SETTID as u64;
        const NEWCGROUP = raw::CLONE_NEWCGROUP as u64;
        const NEWUTS = raw::CLONE_NEWUTS as u64;
        const NEWIPC = raw::CLONE_NEWIPC as u64;
        const NEWUSER = raw::CLONE_NEWUSER as u64;
        const NEWPID = raw::CLONE_NEWPID as u64;
        const NEWNET = raw::CLONE_NEWNET as u64;
        const IO = raw::CLONE_IO as u64;
        const CLEAR_SIGHAND = raw::CLONE_CLEAR_SIGHAND;
        const INTO_CGROUP = raw::CLONE_INTO_CGROUP;
    }

    /// `SA_*` of `sigaction`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SaFlags: u64 {
        const NOCLDSTOP = 1;
        const NOCLDWAIT = 2;
        const SIGINFO = 4;
        const UNSUPPORTED = 0x400;
        const EXPOSE_TAGBITS = 0x800;
        /// Not on riscv64, where the bit means nothing.
        const RESTORER = 0x0400_0000;
        const ONSTACK = 0x0800_0000;
        const RESTART = 0x1000_0000;
        const NODEFER = 0x4000_0000;
        const RESETHAND = 0x8000_0000;
    }

    /// `AT_*` of the calls that take a directory and a path. Some bits mean different things to different calls.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct AtFlags: u32 {
        const SYMLINK_NOFOLLOW = raw::AT_SYMLINK_NOFOLLOW;
        /// `faccessat2`; the same bit is `AT_REMOVEDIR` of `unlinkat`.
        const EACCESS = raw::AT_EACCESS;
        const SYMLINK_FOLLOW = raw::AT_SYMLINK_FOLLOW;
        const NO_AUTOMOUNT = raw::AT_NO_AUTOMOUNT;
        const EMPTY_PATH = raw::AT_EMPTY_PATH;
        const STATX_FORCE_SYNC = raw::AT_STATX_FORCE_SYNC;
        const STATX_DONT_SYNC = raw::AT_STATX_DONT_SYNC;
    }

    /// `POLL*` and `EPOLL*`: the same bits.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Poll: u32 {
        const IN = 0x1;
        const PRI = 0x2;
        const OUT = 0x4;
        const ERR = 0x8;
        const HUP = 0x10;
        const NVAL = 0x20;
        const RDNORM = 0x40;
        const RDBAND = 0x80;
        const WRNORM = 0x100;
        const WRBAND = 0x200;
        const MSG = 0x400;
        const RDHUP = 0x2000;
        /// Only of epoll, as the rest from here.
        const EXCLUSIVE = 1 << 28;
        const WAKEUP = 1 << 29;
        const ONESHOT = 1 << 30;
        const ET = 1 << 31;
    }

    /// `W*` options of `wait4` and `waitid`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct WaitOptions: u32 {
        const NOHANG = raw::WNOHANG;
        const UNTRACED = raw::WUNTRACED;
        const EXITED = raw::WEXITED;
        const CONTINUED = raw::WCONTINUED;
        const NOWAIT = raw::WNOWAIT;
        const NOTHREAD = raw::__WNOTHREAD;
        const ALL = raw::__WALL;
        const CLONE = raw::__WCLONE;
    }
}

// The numbers that are written out above, on the target that this is compiled for.
const _: () = {
    assert!(raw::O_CLOEXEC == OpenFlags::CLOEXEC.bits() && raw::O_PATH == OpenFlags::PATH.bits());
    assert!(raw::O_SYNC == OpenFlags::SYNC.bits() && raw::O_NOATIME == OpenFlags::NOATIME.bits());
    assert!(raw::O_APPEND == OpenFlags::APPEND.bits() && raw::O_NONBLOCK == OpenFlags::NONBLOCK.bits());
    assert!(raw::O_CREAT == OpenFlags::CREAT.bits() && raw::O_TRUNC == OpenFlags::TRUNC.bits());
    assert!(matches!(
        (raw::O_DIRECTORY, raw::O_NOFOLLOW, raw::O_DIRECT, raw::O_LARGEFILE),
        (0o200_000, 0o400_000, 0o40000, 0o100_000) | (0o40000, 0o100_000, 0o200_000, 0o400_000)
    ));
    assert!(raw::SA_RESTART as u64 == SaFlags::RESTART.bits() && raw::SA_SIGINFO as u64 == SaFlags::SIGINFO.bits());
    assert!(raw::SA_ONSTACK as u64 == SaFlags::ONSTACK.bits() && raw::SA_NODEFER as u64 == SaFlags::NODEFER.bits());
    assert!(raw::SA_RESETHAND as u64 == SaFlags::RESETHAND.bits());
    assert!(
        raw::POLLRDHUP == Poll::RDHUP.bits() && raw::POLLHUP == Poll::HUP.bits() && raw::POLLOUT == Poll::OUT.bits()
    );
    assert!(raw::EPOLLET == Poll::ET.bits() && raw::EPOLLONESHOT == Poll::ONESHOT.bits());
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_flags_round_trip_on_each_isa() {
        for isa in Isa::ALL {
            for flag in OpenFlags::all().iter() {
                let both = flag | OpenFlags::CREAT | OpenFlags::RDWR;
                assert_eq!(OpenFlags::from_program(isa, both.to_program(isa)), both, "{flag:?} on {isa:?}");
            }
        }
        assert_eq!(OpenFlags::from_program(Isa::Aarch64, 0o40000), OpenFlags::DIRECTORY);
        assert_eq!(OpenFlags::from_program(Isa::Riscv64, 0o40000), OpenFlags::DIRECT);
        assert_eq!((OpenFlags::DIRECTORY | OpenFlags::DIRECT).to_program(Isa::Aarch64), 0o240_000);
    }

    #[test]
    fn access_modes() {
        let modes = [0, 1, 2, 3].map(OpenFlags::from_bits_retain);
        assert_eq!(modes.map(OpenFlags::readable), [true, false, true, false]);
        assert_eq!(modes.map(OpenFlags::writable), [false, true, true, false]);
    }
}
