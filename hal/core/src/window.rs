//! Memory that more than one kernel can address.
//!
//! A window is only ever accessed by atomics and copies, because peers change it at any time. Offsets are the kernel's own (never a peer's
//! word), so one beyond the window is a bug and panics; what is *read* from a window is a peer's word.

use alloc::sync::Arc;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use hal_api::{PAGE_SIZE, PhysAddr, PhysRange, Platform, WindowAttr};

use crate::P;
use crate::cpuref::Refused;
use crate::frame::{FrameRun, GrantToken};
use crate::instance::instance;

/// Says that the plan or a grant lets this kernel reach a range of a peer's memory (porch, ring, granted pages).
#[derive(Debug)]
pub struct WindowToken(PhysRange);

impl WindowToken {
    /// The right to reach `range`, at the address at which this kernel sees it. Refused if it touches this kernel's own memory or is not whole
    /// pages. Whoever makes one answers for the peer's consent: the plan (porches) or a message from the owner (everything else).
    pub fn new(range: PhysRange) -> Result<Self, Refused> {
        GrantToken::new(range).map(|g| Self(g.range()))
    }

    /// The same range as a grant.
    pub fn of_grant(grant: &GrantToken) -> Self {
        Self(grant.range())
    }
}

/// Windows over peers' memory that this kernel has now.
pub fn count() -> usize {
    P::windows()
}

enum Backing {
    /// Own frames, offered to peers.
    Own(#[allow(dead_code, reason = "keeps the frames")] FrameRun),
    /// Own memory outside the frame allocator (the porch).
    Reserved,
    /// Mapped memory of a peer.
    Peer(PhysRange),
}

/// A window over physical memory. Cloning shares it.
#[derive(Clone)]
pub struct SharedWindow(Arc<Inner>);

struct Inner {
    base: NonNull<u8>,
    phys: PhysAddr,
    len: usize,
    backing: Backing,
}

// SAFETY: the memory is only accessed atomically or by copies that allow for concurrent change.
unsafe impl Send for Inner {}
// SAFETY: the same.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Backing::Peer(range) = self.backing {
            // SAFETY: the last user of the window ends here.
            unsafe { P::unmap_window(range) };
        }
    }
}

impl SharedWindow {
    /// All windows are coherent: [`SharedWindow::publish`] and [`SharedWindow::refresh`] only order.
    pub const COHERENT: bool = P::COHERENT;

    /// A window over own frames, to be offered to peers. The frames stay until the last clone is dropped; whoever offered them must have
    /// taken them back from all peers by then.
    pub fn offer(run: FrameRun) -> Self {
        let (base, phys, len) = (run.base(), run.phys(), run.bytes());
        Self::make(base, phys, len, Backing::Own(run))
    }

    /// A window over own memory that never was in the frame allocator: the porch. Refused if it is not whole pages of own memory or overlaps what
    /// frames come from.
    pub fn reserved(range: PhysRange) -> Result<Self, Refused> {
        let info = &instance().info;
        let within = |r: &PhysRange| range.start >= r.start && range.end() <= r.end();
        let overlaps = |r: &PhysRange| range.start < r.end() && r.start < range.end();
        if !range.start.is_aligned() || range.len == 0 || !info.owned().iter().any(within) {
            return Err(Refused("not memory of this kernel"));
        }
        if info.free().iter().any(overlaps) {
            return Err(Refused("frames come from there"));
        }
        Ok(Self::make(P::linear(range.start), range.start, range.len as usize, Backing::Reserved))
    }

    /// A window over a peer's memory.
    pub fn open(token: WindowToken) -> Result<Self, Refused> {
        // SAFETY: the token says that the range is ours to reach, and that it is not own memory.
        let base = unsafe { P::map_window(token.0, WindowAttr::Memory) }?;
        Ok(Self::make(base, token.0.start, token.0.len as usize, Backing::Peer(token.0)))
    }

    fn make(base: NonNull<u8>, phys: PhysAddr, len: usize, backing: Backing) -> Self {
        Self(Arc::new(Inner { base, phys, len, backing }))
    }

    /// Bytes in the window.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Never: a window has at least a page.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Where this kernel sees it in physical memory.
    pub fn phys(&self) -> PhysAddr {
        self.0.phys
    }

    /// Whether it is this kernel's own memory.
    pub fn is_own(&self) -> bool {
        !matches!(self.0.backing, Backing::Peer(_))
    }

    #[inline]
    #[track_caller]
    fn at(&self, off: usize, len: usize, align: usize) -> *mut u8 {
        assert!(off <= self.0.len && len <= self.0.len - off && off.is_multiple_of(align), "outside the window");
        self.0.base.as_ptr().wrapping_add(off)
    }

    /// An aligned byte, for atomic use.
    #[inline]
    pub fn atomic_u8(&self, off: usize) -> &AtomicU8 {
        // SAFETY: in the window, which lives as long as `self` and is only used atomically or copied.
        unsafe { &*self.at(off, 1, 1).cast() }
    }

    /// An aligned word, for atomic use.
    #[inline]
    pub fn atomic_u32(&self, off: usize) -> &AtomicU32 {
        // SAFETY: as above, and aligned.
        unsafe { &*self.at(off, 4, 4).cast() }
    }

    /// An aligned double word, for atomic use.
    #[inline]
    pub fn atomic_u64(&self, off: usize) -> &AtomicU64 {
        // SAFETY: as above, and aligned.
        unsafe { &*self.at(off, 8, 8).cast() }
    }

    /// Aligned double words in a row, for atomic use.
    #[inline]
    pub fn atomic_words(&self, off: usize, n: usize) -> &[AtomicU64] {
        // SAFETY: in the window, which lives as long as `self` and is only used atomically or copied; aligned.
        unsafe { core::slice::from_raw_parts(self.at(off, 8 * n, 8).cast(), n) }
    }

    /// Copies bytes in. Ordered by the atomics around it; [`SharedWindow::publish`] before the flag that announces them.
    #[inline]
    pub fn write(&self, off: usize, bytes: &[u8]) {
        let to = self.at(off, bytes.len(), 1);
        // SAFETY: in the window, which nobody holds a Rust reference to but atomics.
        unsafe { crate::frame::copy(to, bytes.as_ptr(), bytes.len()) };
    }

    /// Copies bytes in, but leaves alone what is there already: whoever watches stores into code (an emulator that has translated it, a
    /// processor that has it in its caches) keeps what it made of it.
    pub fn update(&self, off: usize, bytes: &[u8]) {
        let mut there = [0; 1024];
        for (i, piece) in bytes.chunks(there.len()).enumerate() {
            let at = off + i * there.len();
            let there = &mut there[..piece.len()];
            self.read(at, there);
            if there != piece {
                self.write(at, piece);
            }
        }
    }

    /// Copies bytes out. A peer may change them meanwhile: check the copy, not the window.
    #[inline]
    pub fn read(&self, off: usize, buf: &mut [u8]) {
        let from = self.at(off, buf.len(), 1);
        // SAFETY: in the window; a concurrent writer can only give mixed bytes.
        unsafe { crate::frame::copy(buf.as_mut_ptr(), from, buf.len()) };
    }

    /// Sets bytes to 0.
    pub fn zero(&self, off: usize, len: usize) {
        let to = self.at(off, len, 1);
        // SAFETY: in the window, which nobody holds a Rust reference to but atomics.
        unsafe { to.write_bytes(0, len) };
    }

    /// Makes what was written to `off..off + len` visible to peers before anything written later.
    #[inline]
    pub fn publish(&self, off: usize, len: usize) {
        let _ = self.at(off, len, 1);
        fence(Ordering::Release);
    }

    /// Makes sure that later reads of `off..off + len` see what peers published before the flag that was read.
    #[inline]
    pub fn refresh(&self, off: usize, len: usize) {
        let _ = self.at(off, len, 1);
        fence(Ordering::Acquire);
    }
}

impl core::fmt::Debug for SharedWindow {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SharedWindow({:#x} + {:#x})", self.0.phys.0, self.0.len)
    }
}

/// The archive: memory that belongs to no kernel and that nobody writes. Empty if the machine has none.
pub fn archive() -> Result<&'static [u8], Refused> {
    let range = instance().info.archive;
    if range.len == 0 {
        return Ok(&[]);
    }
    let start = range.start.page();
    let skip = range.start.offset();
    let len = (skip as u64 + range.len).next_multiple_of(PAGE_SIZE as u64);
    // SAFETY: every kernel may read the archive, and nobody writes it or takes the mapping back.
    let base = unsafe { P::map_window(PhysRange { start, len }, WindowAttr::ReadOnly) }?;
    // SAFETY: mapped, `range.len` bytes long, never written, never unmapped.
    Ok(unsafe { core::slice::from_raw_parts(base.as_ptr().add(skip), range.len as usize) })
}
