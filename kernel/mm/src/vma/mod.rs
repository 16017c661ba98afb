//! What is mapped where: the versioned table of a space's mappings. Pure data; the page tables follow it.

mod map;
#[cfg(test)]
mod tests;

use alloc::{sync::Arc, vec::Vec};

pub use hal::space::Prot;
pub use map::{Totals, VmaMap};

use crate::object::{Attachment, MemoryObject};

bitflags::bitflags! {
    /// What else is true for a mapping.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct VmaFlags: u16 {
        /// Stores go to the object and are seen by all who map it (`MAP_SHARED`).
        const SHARED = 1;
        /// Grows down when the page below is touched (`MAP_GROWSDOWN`, the main stack).
        const GROWS_DOWN = 1 << 1;
        /// Resident as long as it is mapped (`mlock`).
        const LOCKED = 1 << 2;
        /// Not counted as committed memory (`MAP_NORESERVE`).
        const NO_RESERVE = 1 << 3;
        /// Not inherited by `fork` (`MADV_DONTFORK`).
        const DONT_FORK = 1 << 4;
        /// Zeros in the child of `fork` (`MADV_WIPEONFORK`).
        const WIPE_ON_FORK = 1 << 5;
        /// Not part of a core dump (`MADV_DONTDUMP`).
        const DONT_DUMP = 1 << 6;
        /// `MADV_SEQUENTIAL`.
        const SEQUENTIAL = 1 << 7;
        /// `MADV_RANDOM`: no fault-around.
        const RANDOM = 1 << 8;
        /// The kernel's own (vDSO): not to be protected or moved by accident, not counted.
        const SPECIAL = 1 << 9;
        /// System V segment: `shmdt` looks for it.
        const SYSV = 1 << 10;
    }
}

/// The file behind a mapping, as `/proc/PID/maps` names it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileLabel {
    /// Its path when it was mapped.
    pub path: Vec<u8>,
    /// `st_dev`: major number in the upper half, minor in the lower.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
}

/// What `/proc/PID/maps` calls a mapping.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Label {
    /// Nothing.
    #[default]
    None,
    /// `[heap]`.
    Heap,
    /// `[stack]`.
    Stack,
    /// `[vdso]`.
    Vdso,
    /// `[vvar]`.
    Vvar,
    /// A file.
    File(Arc<FileLabel>),
}

/// Where the pages of a mapping come from.
#[derive(Clone)]
pub enum Content {
    /// Zero-filled and this space's own. The directory of such memory is the page table itself, as long as one kernel holds it.
    Anonymous,
    /// Pages of an object; a private mapping breaks off its own copy at the first store.
    Object {
        /// The hold on the object.
        hold: Arc<Attachment>,
        /// Which byte of it the start of the mapping shows; a multiple of the page size.
        offset: u64,
    },
}

impl core::fmt::Debug for Content {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Object { hold, offset } => write!(f, "{:?}+{offset:#x}", hold.object().id()),
        }
    }
}

/// One mapping: a range of addresses with one protection and one content.
///
/// # Invariants
/// `start < end`, both page-aligned, inside the user half. Ranges of one space do not overlap.
#[derive(Clone, Debug)]
pub struct Vma {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// What is allowed now.
    pub prot: Prot,
    /// What `mprotect` may allow at most (a shared mapping of a file that was opened read-only can never become writable).
    pub max: Prot,
    /// The rest.
    pub flags: VmaFlags,
    /// Where pages come from.
    pub content: Content,
    /// What it is called.
    pub label: Label,
}

impl Vma {
    /// Bytes.
    pub const fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Never: a mapping has at least a page.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The lowest address that must stay free for it, with `gap` bytes below what grows down.
    const fn floor(&self, gap: u64) -> u64 {
        if self.flags.contains(VmaFlags::GROWS_DOWN) { self.start.saturating_sub(gap) } else { self.start }
    }

    /// Whether stores are this space's own business.
    pub const fn is_private(&self) -> bool {
        !self.flags.contains(VmaFlags::SHARED)
    }

    /// The object and the index of its page at `addr`, if pages come from an object.
    pub fn object_page(&self, addr: u64) -> Option<(&Arc<dyn MemoryObject>, u64)> {
        match &self.content {
            Content::Anonymous => None,
            Content::Object { hold, offset } => {
                Some((hold.object(), (offset + (addr - self.start)) >> hal::addr::PAGE_SHIFT))
            }
        }
    }

    /// What its page-table entries allow at most: whatever can be written or executed can be read, on every ISA here.
    pub const fn hard_prot(&self) -> Prot {
        self.prot.normal()
    }

    /// Whether its pages count as committed: private and writable, so each may need a frame of its own.
    pub const fn is_committed(&self) -> bool {
        self.is_private()
            && self.prot.contains(Prot::WRITE)
            && !self.flags.contains(VmaFlags::NO_RESERVE)
            && !self.flags.contains(VmaFlags::SPECIAL)
    }

    /// The content as seen from `addr`, which lies inside.
    fn content_at(&self, addr: u64) -> Content {
        match &self.content {
            Content::Anonymous => Content::Anonymous,
            Content::Object { hold, offset } => {
                Content::Object { hold: hold.clone(), offset: offset + (addr - self.start) }
            }
        }
    }

    /// Whether `next` continues this mapping in everything.
    fn continues(&self, next: &Self) -> bool {
        self.end == next.start
            && self.prot == next.prot
            && self.max == next.max
            && self.flags == next.flags
            && match (&self.content, &next.content) {
                (Content::Anonymous, Content::Anonymous) => true,
                (Content::Object { hold: a, offset: x }, Content::Object { hold: b, offset: y }) => {
                    Arc::ptr_eq(a.object(), b.object()) && x + self.len() == *y
                }
                _ => false,
            }
            && self.label == next.label
    }
}
