//! Resource limits, getrlimit(2). Numbers are the same on all ISAs here (`asm-generic/resource.h`).

use base::{Errno, Result};

/// No limit.
pub const INFINITY: u64 = u64::MAX;
/// How many resources there are.
pub const COUNT: usize = 16;

/// A limited resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Resource {
    /// CPU time in seconds.
    Cpu = 0,
    /// Size of files in bytes.
    FileSize = 1,
    /// Data segment in bytes.
    Data = 2,
    /// Stack in bytes.
    Stack = 3,
    /// Core file in bytes.
    Core = 4,
    /// Resident memory; without effect, as on Linux.
    Rss = 5,
    /// Processes of the user.
    Processes = 6,
    /// Descriptors.
    Files = 7,
    /// Locked memory in bytes.
    Memlock = 8,
    /// Address space in bytes.
    AddressSpace = 9,
    /// File locks; without effect, as on Linux.
    Locks = 10,
    /// Queued signals of the user.
    SigPending = 11,
    /// Bytes in POSIX message queues.
    MsgQueue = 12,
    /// 20 minus the lowest nice value that may be asked for.
    Nice = 13,
    /// Highest real-time priority that may be asked for.
    RtPriority = 14,
    /// Microseconds of real-time running without a wait.
    RtTime = 15,
}

impl Resource {
    const ALL: [Self; COUNT] = [
        Self::Cpu,
        Self::FileSize,
        Self::Data,
        Self::Stack,
        Self::Core,
        Self::Rss,
        Self::Processes,
        Self::Files,
        Self::Memlock,
        Self::AddressSpace,
        Self::Locks,
        Self::SigPending,
        Self::MsgQueue,
        Self::Nice,
        Self::RtPriority,
        Self::RtTime,
    ];

    /// The resource with this number.
    pub fn new(nr: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(nr).ok()?).copied()
    }
}

/// Soft and hard limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// In force.
    pub soft: u64,
    /// The most that `soft` may be set to.
    pub hard: u64,
}

/// The limits of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits(pub [Limit; COUNT]);

impl Limits {
    /// What the first process has, with `memory` bytes in this kernel.
    pub fn initial(memory: u64) -> Self {
        // As Linux: a thread needs about eight times its kernel memory, so that threads fill at most an eighth.
        let tasks = (memory / (8 * 32 * 1024)).clamp(128, 1 << 20);
        let mut it = Self([Limit { soft: INFINITY, hard: INFINITY }; COUNT]);
        let mut set = |r: Resource, soft, hard| it.0[r as usize] = Limit { soft, hard };
        set(Resource::Stack, 8 << 20, INFINITY);
        set(Resource::Core, 0, INFINITY);
        set(Resource::Processes, tasks, tasks);
        set(Resource::Files, 1024, 4096);
        set(Resource::Memlock, 8 << 20, 8 << 20);
        set(Resource::SigPending, tasks, tasks);
        set(Resource::MsgQueue, 819_200, 819_200);
        set(Resource::Nice, 0, 0);
        set(Resource::RtPriority, 0, 0);
        it
    }

    /// The limit of a resource.
    pub const fn get(&self, r: Resource) -> Limit {
        self.0[r as usize]
    }

    /// The limit in force.
    pub const fn soft(&self, r: Resource) -> u64 {
        self.0[r as usize].soft
    }

    /// Sets a limit; the old one.
    ///
    /// # Errors
    /// `EINVAL` if soft is above hard, `EPERM` if hard is raised without `privileged` (CAP_SYS_RESOURCE).
    pub fn set(&mut self, r: Resource, new: Limit, privileged: bool) -> Result<Limit> {
        if new.soft > new.hard {
            return Err(Errno::EINVAL.into());
        }
        let old = self.get(r);
        if new.hard > old.hard && !privileged {
            return Err(Errno::EPERM.into());
        }
        // Linux keeps descriptors below /proc/sys/fs/nr_open.
        if r == Resource::Files && new.hard > 1 << 20 {
            return Err(Errno::EPERM.into());
        }
        self.0[r as usize] = new;
        Ok(old)
    }
}
