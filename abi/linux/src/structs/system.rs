//! The machine, its limits, and new tasks. The same on all 64-bit ISAs.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Timeval;

/// `struct new_utsname`: six strings, each ended by a zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Utsname {
    pub sysname: [u8; 65],
    pub nodename: [u8; 65],
    pub release: [u8; 65],
    pub version: [u8; 65],
    pub machine: [u8; 65],
    pub domainname: [u8; 65],
}

impl Utsname {
    /// A field with this text, cut to 64 bytes.
    pub fn field(text: &[u8]) -> [u8; 65] {
        let mut field = [0; 65];
        for (to, byte) in field.iter_mut().take(64).zip(text) {
            *to = *byte;
        }
        field
    }
}

/// `struct sysinfo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sysinfo {
    /// Seconds.
    pub uptime: i64,
    /// Load averages, times 65536.
    pub loads: [u64; 3],
    /// Sizes count in units of `mem_unit` bytes.
    pub totalram: u64,
    pub freeram: u64,
    pub sharedram: u64,
    pub bufferram: u64,
    pub totalswap: u64,
    pub freeswap: u64,
    pub procs: u16,
    pub pad: u16,
    pub pad2: u32,
    pub totalhigh: u64,
    pub freehigh: u64,
    pub mem_unit: u32,
    pub pad3: u32,
}

/// `struct rlimit64`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RLimit {
    pub cur: u64,
    pub max: u64,
}

impl RLimit {
    /// No limit.
    pub const INFINITY: u64 = u64::MAX;
}

/// `struct rusage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RUsage {
    pub utime: Timeval,
    pub stime: Timeval,
    /// KiB.
    pub maxrss: i64,
    pub ixrss: i64,
    pub idrss: i64,
    pub isrss: i64,
    pub minflt: i64,
    pub majflt: i64,
    pub nswap: i64,
    pub inblock: i64,
    pub oublock: i64,
    pub msgsnd: i64,
    pub msgrcv: i64,
    pub nsignals: i64,
    pub nvcsw: i64,
    pub nivcsw: i64,
}

/// `struct clone_args` of `clone3`, version 2. Programs may pass less (from 64 bytes on: the rest is zero) or more (then the rest must be
/// zero, else `E2BIG`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// `struct robust_list_head`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RobustListHead {
    /// Address of the first entry; the list ends where it comes back to the head.
    pub list: u64,
    /// From an entry to its futex word.
    pub futex_offset: i64,
    /// The entry that is just being locked or unlocked, or 0.
    pub list_op_pending: u64,
}
