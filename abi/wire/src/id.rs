//! Names of kernels and objects as they cross a link. `base::id` has the kernel's own; the fields are the same.

/// One run of one kernel: a restarted kernel is a different peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct KernelId {
    /// The kernel's place in the plan.
    pub index: u16,
    /// Counts the starts of this index since the machine was switched on, from 1. 0 names no kernel.
    pub incarnation: u32,
}

impl KernelId {
    /// No kernel: what a field says that names none.
    pub const NONE: Self = Self { index: 0, incarnation: 0 };

    /// The kernel with this index in this run.
    pub const fn new(index: u16, incarnation: u32) -> Self {
        Self { index, incarnation }
    }

    /// Whether it names a kernel.
    pub const fn is_some(self) -> bool {
        self.incarnation != 0
    }
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

/// Names an object in the whole machine, for ever. It does not say where the object is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ObjectId {
    /// The kernel that made the object.
    pub birth: KernelId,
    /// Counts the objects made by that kernel in that incarnation, from 1.
    pub serial: u64,
}

impl ObjectId {
    /// No object: a message to a service of the kernel itself.
    pub const NONE: Self = Self { birth: KernelId::NONE, serial: 0 };

    /// Whether it names an object.
    pub const fn is_some(self) -> bool {
        self.serial != 0
    }
}

impl core::fmt::Debug for ObjectId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}#{}", self.birth, self.serial)
    }
}
