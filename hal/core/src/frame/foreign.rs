//! Frames that are not counted here: of peers, and those that are never freed.

use hal_api::{PAGE_SIZE, PhysAddr, PhysRange};

use super::Frame;
use crate::cpuref::Refused;
use crate::instance::instance;
use crate::window::{SharedWindow, WindowToken};

/// Says that a peer granted a range of its memory to this kernel. Only the memory service makes one, from a grant record.
#[derive(Debug)]
pub struct GrantToken(PhysRange);

impl GrantToken {
    /// A grant of `range`, at the address at which this kernel sees it. Refused if it is not whole pages or touches this kernel's own memory or
    /// the archive.
    pub fn new(range: PhysRange) -> Result<Self, Refused> {
        let whole = range.start.is_aligned() && range.len.is_multiple_of(PAGE_SIZE as u64) && range.len > 0;
        if !whole || range.start.0.checked_add(range.len).is_none() {
            return Err(Refused("a grant is whole pages"));
        }
        let info = &instance().info;
        let touches = |r: &PhysRange| r.start < range.end() && range.start < r.end();
        if info.owned().iter().any(touches) || touches(&info.archive) {
            return Err(Refused("a grant cannot be of this kernel's own memory"));
        }
        Ok(Self(range))
    }

    /// What was granted.
    pub const fn range(&self) -> PhysRange {
        self.0
    }
}

/// A frame of a peer. The peer counts its holders; here it is only an address that a grant allows to map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerFrame(PhysAddr);

impl PeerFrame {
    /// The page `index` of a grant.
    pub fn new(grant: &GrantToken, index: usize) -> Option<Self> {
        let off = (index as u64).checked_mul(PAGE_SIZE as u64)?;
        (off < grant.0.len).then_some(Self(grant.0.start + off))
    }

    /// Where this kernel sees it.
    pub const fn phys(self) -> PhysAddr {
        self.0
    }

    /// Copies bytes out, from `off` in the page, through a window that is opened for it: for debuggers, not for data. The caller makes sure that
    /// the grant is in force meanwhile, by holding what whoever takes it back waits for.
    ///
    /// # Errors
    /// No room for the window.
    ///
    /// # Panics
    /// If that goes beyond the page.
    pub fn read(self, off: usize, buf: &mut [u8]) -> Result<(), Refused> {
        self.window()?.read(off, buf);
        Ok(())
    }

    /// Copies bytes in, to `off` in the page; otherwise as [`PeerFrame::read`].
    ///
    /// # Errors
    /// No room for the window.
    ///
    /// # Panics
    /// If that goes beyond the page.
    pub fn write(self, off: usize, bytes: &[u8]) -> Result<(), Refused> {
        self.window()?.write(off, bytes);
        Ok(())
    }

    fn window(self) -> Result<SharedWindow, Refused> {
        SharedWindow::open(WindowToken::of_grant(&GrantToken(PhysRange { start: self.0, len: PAGE_SIZE as u64 })))
    }
}

/// A frame that is never freed: of the archive (mapped read-only) or leaked by this kernel (vDSO).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StaticFrame {
    at: PhysAddr,
}

impl StaticFrame {
    /// The page of the archive that begins at byte `off` of the page in which the archive begins.
    pub fn archive(off: u64) -> Option<Self> {
        let range = instance().info.archive;
        let at = range.start.page().checked_add(off)?;
        (at.is_aligned() && at < range.end()).then_some(Self { at })
    }

    /// Makes a frame one that is never freed.
    pub fn leak(frame: Frame) -> Self {
        Self { at: frame.into_raw() }
    }

    /// Where it lies.
    pub const fn phys(self) -> PhysAddr {
        self.at
    }
}

/// What can be mapped into an address space.
#[derive(Debug, PartialEq, Eq)]
pub enum MapFrame {
    /// A frame of this kernel; the mapping holds the reference.
    Own(Frame),
    /// A frame that is never freed.
    Static(StaticFrame),
    /// A frame of a peer.
    Peer(PeerFrame),
}

impl MapFrame {
    /// Where it lies.
    pub fn phys(&self) -> PhysAddr {
        match self {
            Self::Own(f) => f.phys(),
            Self::Static(f) => f.phys(),
            Self::Peer(f) => f.phys(),
        }
    }

    /// One more reference to an entry's frame.
    ///
    /// # Safety
    /// The entry was made by [`MapFrame::into_entry`] and stays during the call.
    pub(crate) unsafe fn clone_entry(kind: hal_api::LeafKind, at: PhysAddr) -> Self {
        match kind {
            // SAFETY: by the contract.
            hal_api::LeafKind::Own => Self::Own(unsafe { Frame::clone_raw(at) }),
            hal_api::LeafKind::Static => Self::Static(StaticFrame { at }),
            hal_api::LeafKind::Peer => Self::Peer(PeerFrame(at)),
        }
    }

    /// Hands the reference over to an entry.
    #[inline]
    pub(crate) fn into_entry(self) -> (hal_api::LeafKind, PhysAddr) {
        match self {
            Self::Own(f) => (hal_api::LeafKind::Own, f.into_raw()),
            Self::Static(f) => (hal_api::LeafKind::Static, f.at),
            Self::Peer(f) => (hal_api::LeafKind::Peer, f.0),
        }
    }
}

impl From<Frame> for MapFrame {
    fn from(frame: Frame) -> Self {
        Self::Own(frame)
    }
}
