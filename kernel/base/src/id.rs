//! Names of kernels and objects. They are never reused and do not say where a thing is.

/// One run of one kernel: a restarted kernel is a different peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelId {
    /// The kernel's place in the plan.
    pub index: u16,
    /// Counts the starts of this index since the machine was switched on, from 1.
    pub incarnation: u32,
}

impl core::fmt::Display for KernelId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.index, self.incarnation)
    }
}

impl core::fmt::Debug for KernelId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// Names an object (file, pipe, process, session, memory object) in the whole machine, for ever. The home of the object may
/// change; the name does not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// The kernel that made the object.
    pub birth: KernelId,
    /// Counts the objects made by that kernel in that incarnation, from 1.
    pub serial: u64,
}

impl core::fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}#{}", self.birth, self.serial)
    }
}

/// Hands out object ids of one kernel.
#[derive(Debug)]
pub struct ObjectIds {
    birth: KernelId,
    next: core::sync::atomic::AtomicU64,
}

impl ObjectIds {
    /// The ids of this run of this kernel.
    pub const fn new(birth: KernelId) -> Self {
        Self { birth, next: core::sync::atomic::AtomicU64::new(1) }
    }

    /// An id that was never handed out before.
    pub fn next(&self) -> ObjectId {
        ObjectId { birth: self.birth, serial: self.next.fetch_add(1, core::sync::atomic::Ordering::Relaxed) }
    }
}
