//! Addresses that cannot be mixed up.

/// Bytes in a page; the same on every ISA that Cob runs on (aarch64 uses the 4 KiB granule).
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The start of the page that holds this address.
            #[must_use]
            pub const fn page(self) -> Self {
                Self(self.0 & !(PAGE_SIZE as u64 - 1))
            }
            /// The next page border at or above (saturating at the last page of the address space).
            #[must_use]
            pub const fn page_up(self) -> Self {
                Self(self.0.saturating_add(PAGE_SIZE as u64 - 1)).page()
            }
            /// The offset in the page.
            pub const fn offset(self) -> usize {
                (self.0 & (PAGE_SIZE as u64 - 1)) as usize
            }
            /// Whether it is a page border.
            pub const fn is_aligned(self) -> bool {
                self.offset() == 0
            }
            /// `self + bytes`, or nothing on overflow.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(a) => Some(Self(a)),
                    None => None,
                }
            }
        }

        impl core::ops::Add<u64> for $name {
            type Output = Self;
            fn add(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }
        }

        impl core::ops::Sub<$name> for $name {
            type Output = u64;
            fn sub(self, other: Self) -> u64 {
                self.0.wrapping_sub(other.0)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl core::fmt::LowerHex for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address!(
    /// A physical address as this kernel's CPUs see it.
    PhysAddr
);
address!(
    /// A virtual address in the user half; any `u64` that a program named, so not checked by its type.
    UserAddr
);

/// A piece of physical memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PhysRange {
    /// First byte.
    pub start: PhysAddr,
    /// Bytes.
    pub len: u64,
}

impl PhysRange {
    /// `len` bytes from `start`.
    pub const fn new(start: u64, len: u64) -> Self {
        Self { start: PhysAddr(start), len }
    }
    /// One past the last byte.
    pub const fn end(&self) -> PhysAddr {
        PhysAddr(self.start.0 + self.len)
    }
    /// Whether `at` lies inside.
    pub const fn contains(&self, at: PhysAddr) -> bool {
        at.0 >= self.start.0 && at.0 - self.start.0 < self.len
    }
}
