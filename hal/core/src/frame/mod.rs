//! Frames: pages of physical memory of this kernel.
//!
//! A frame is *open* (bytes that programs, devices or peers may change at any time: only copied in and out, never referenced) or *typed* (page
//! tables: only hal sees them). It changes from one to the other only while nobody refers to it.

mod alloc;
mod foreign;
#[cfg(test)]
mod tests;

pub(crate) use alloc::{Frames, LocalFrames, Meta};
pub use foreign::{GrantToken, MapFrame, PeerFrame, StaticFrame};

use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use hal_api::{PAGE_SIZE, PhysAddr, Platform};

use crate::P;
use crate::instance::instance;

/// There is no free frame (or no run of the wanted size).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfFrames;

/// A reference to an open frame. Cloning counts one more reference; the frame is free again when the last one is dropped. A mapping in an
/// address space is a reference too.
pub struct Frame(PhysAddr);

impl Frame {
    /// A frame with one reference; zeroed, or with whatever was in it (the caller overwrites all of it before a program can see it).
    #[inline]
    pub fn alloc(zero: bool) -> Result<Self, OutOfFrames> {
        let frames = &instance().frames;
        let at = frames.take_open().ok_or(OutOfFrames)?;
        let meta = frames.meta(at);
        meta.refs.store(1, Ordering::Relaxed);
        meta.tag.store(0, Ordering::Relaxed);
        let frame = Self(at);
        if zero {
            frame.zero();
        }
        Ok(frame)
    }

    /// A frame that holds a copy of this one.
    pub fn duplicate(&self) -> Result<Self, OutOfFrames> {
        let new = Self::alloc(false)?;
        // SAFETY: both are whole pages of own memory; the new one is ours alone.
        unsafe { P::copy_page(new.base(), self.base()) };
        Ok(new)
    }

    /// Where it lies.
    #[inline]
    pub const fn phys(&self) -> PhysAddr {
        self.0
    }

    /// How many references there are. With 1, the caller's is the only one, and nobody else can make another.
    #[inline]
    pub fn ref_count(&self) -> u32 {
        self.meta().refs.load(Ordering::Acquire)
    }

    /// A number that the owner may keep with the frame; 0 after [`Frame::alloc`].
    pub fn tag(&self) -> u64 {
        self.meta().tag.load(Ordering::Relaxed)
    }

    /// Sets the number.
    pub fn set_tag(&self, tag: u64) {
        self.meta().tag.store(tag, Ordering::Relaxed);
    }

    /// Copies bytes out, from `off` in the page.
    ///
    /// # Panics
    /// If that goes beyond the page.
    #[inline]
    pub fn read(&self, off: usize, buf: &mut [u8]) {
        let from = self.part(off, buf.len());
        // SAFETY: in the page; programs may write it meanwhile, which can only give mixed bytes.
        unsafe { copy(buf.as_mut_ptr(), from, buf.len()) };
    }

    /// Copies bytes in, to `off` in the page.
    ///
    /// # Panics
    /// If that goes beyond the page.
    #[inline]
    pub fn write(&self, off: usize, bytes: &[u8]) {
        let to = self.part(off, bytes.len());
        // SAFETY: in the page, which nobody holds a Rust reference to.
        unsafe { copy(to, bytes.as_ptr(), bytes.len()) };
    }

    /// Sets `len` bytes from `off` to `byte`.
    ///
    /// # Panics
    /// If that goes beyond the page.
    pub fn fill(&self, off: usize, len: usize, byte: u8) {
        let to = self.part(off, len);
        // SAFETY: in the page, which nobody holds a Rust reference to.
        unsafe { to.write_bytes(byte, len) };
    }

    /// Zeroes the whole page.
    #[inline]
    pub fn zero(&self) {
        // SAFETY: a whole page of own memory that only programs see besides us.
        unsafe { P::zero_page(self.base()) };
    }

    /// Copies the whole of another frame.
    pub fn copy_from(&self, other: &Self) {
        // SAFETY: whole pages of own memory without Rust references.
        unsafe { P::copy_page(self.base(), other.base()) };
    }

    /// Copies from the page to user memory of the active address space: see [`crate::user`].
    ///
    /// # Panics
    /// If `off..off + len` goes beyond the page.
    pub fn copy_out(&self, off: usize, to: hal_api::UserAddr, len: usize) -> crate::user::CopyResult {
        let from = self.part(off, len);
        // SAFETY: `from` is readable for `len` bytes of own memory.
        unsafe { crate::user::copy_out_raw(from, to, len) }
    }

    /// Copies from user memory of the active address space into the page: see [`crate::user`].
    ///
    /// # Panics
    /// If `off..off + len` goes beyond the page.
    pub fn copy_in(&self, off: usize, from: hal_api::UserAddr, len: usize) -> crate::user::CopyResult {
        let to = self.part(off, len);
        // SAFETY: `to` is writable for `len` bytes of own memory.
        unsafe { crate::user::copy_in_raw(to, from, len) }
    }

    /// Makes instructions that were written to the page visible to all CPUs; before a program may execute it.
    pub fn sync_code(&self) {
        P::sync_code(self.base(), PAGE_SIZE);
    }

    /// An aligned word of the page, for atomic use by programs and kernel (robust futex lists, shared counters).
    ///
    /// # Panics
    /// If `off` is misaligned or beyond the page.
    pub fn atomic_u32(&self, off: usize) -> &core::sync::atomic::AtomicU32 {
        assert!(off.is_multiple_of(4), "misaligned word");
        // SAFETY: an aligned word in the page, only ever used atomically or copied; it lives as long as our reference.
        unsafe { &*self.part(off, 4).cast() }
    }

    #[inline]
    fn base(&self) -> NonNull<u8> {
        P::linear(self.0)
    }

    #[inline]
    #[track_caller]
    fn part(&self, off: usize, len: usize) -> *mut u8 {
        assert!(off <= PAGE_SIZE && len <= PAGE_SIZE - off, "beyond the frame");
        self.base().as_ptr().wrapping_add(off)
    }

    #[inline]
    fn meta(&self) -> &'static Meta {
        instance().frames.meta(self.0)
    }

    /// Turns the reference into an address; [`Frame::from_raw`] is the way back.
    #[inline]
    pub(crate) fn into_raw(self) -> PhysAddr {
        ManuallyDrop::new(self).0
    }

    /// The reference that [`Frame::into_raw`] made an address.
    ///
    /// # Safety
    /// Each `into_raw` is undone once.
    #[inline]
    pub(crate) unsafe fn from_raw(at: PhysAddr) -> Self {
        Self(at)
    }

    /// One more reference to a frame whose reference is kept as a raw address.
    ///
    /// # Safety
    /// `at` came from `into_raw` and stays so during the call.
    #[inline]
    pub(crate) unsafe fn clone_raw(at: PhysAddr) -> Self {
        instance().frames.meta(at).refs.fetch_add(1, Ordering::Relaxed);
        Self(at)
    }
}

/// Copies between open memory and the kernel's own.
///
/// # Safety
/// Both are valid for `len` bytes and do not overlap.
#[inline]
pub(crate) unsafe fn copy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: by the contract.
    unsafe { core::ptr::copy_nonoverlapping(from, to, len) };
}

impl Clone for Frame {
    #[inline]
    fn clone(&self) -> Self {
        // SAFETY: we hold a reference.
        unsafe { Self::clone_raw(self.0) }
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        instance().frames.release(self.0);
    }
}

impl PartialEq for Frame {
    /// Whether both are the same frame (not whether their bytes are equal).
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Frame {}

impl core::fmt::Debug for Frame {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Frame({:#x} x{})", self.0.0, self.ref_count())
    }
}

/// `2^order` frames that lie together, each with one reference: memory for rings, DMA and images.
#[derive(Debug)]
pub struct FrameRun {
    at: PhysAddr,
    order: usize,
}

/// The largest order of a [`FrameRun`].
pub const MAX_RUN_ORDER: usize = buddy::ORDERS - 1;

impl FrameRun {
    /// Takes a zeroed run.
    pub fn alloc(order: usize) -> Result<Self, OutOfFrames> {
        let frames = &instance().frames;
        let at = frames.take_run(order).ok_or(OutOfFrames)?;
        let run = Self { at, order };
        for i in 0..run.pages() {
            let at = at + (i * PAGE_SIZE) as u64;
            frames.meta(at).refs.store(1, Ordering::Relaxed);
            frames.meta(at).tag.store(0, Ordering::Relaxed);
            // SAFETY: a whole page that is ours alone.
            unsafe { P::zero_page(P::linear(at)) };
        }
        Ok(run)
    }

    /// Where it begins.
    pub const fn phys(&self) -> PhysAddr {
        self.at
    }

    /// How many frames.
    pub const fn pages(&self) -> usize {
        1 << self.order
    }

    /// How many bytes.
    pub const fn bytes(&self) -> usize {
        PAGE_SIZE << self.order
    }

    /// Copies bytes out.
    ///
    /// # Panics
    /// If that goes beyond the run.
    pub fn read(&self, off: usize, buf: &mut [u8]) {
        assert!(off <= self.bytes() && buf.len() <= self.bytes() - off, "beyond the run");
        // SAFETY: in the run; only mixed bytes can come of a concurrent writer.
        unsafe { copy(buf.as_mut_ptr(), self.base().as_ptr().add(off), buf.len()) };
    }

    /// Copies bytes in.
    ///
    /// # Panics
    /// If that goes beyond the run.
    pub fn write(&self, off: usize, bytes: &[u8]) {
        assert!(off <= self.bytes() && bytes.len() <= self.bytes() - off, "beyond the run");
        // SAFETY: in the run, which nobody holds a Rust reference to.
        unsafe { copy(self.base().as_ptr().add(off), bytes.as_ptr(), bytes.len()) };
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        P::linear(self.at)
    }

    /// # Safety
    /// The references of that run are the caller's to give back.
    pub(crate) unsafe fn from_raw(at: PhysAddr, order: usize) -> Self {
        Self { at, order }
    }

    /// The frames one by one.
    pub fn into_frames(self) -> impl Iterator<Item = Frame> {
        let (at, n) = (self.at, self.pages());
        core::mem::forget(self);
        // A plain iterator would leak what is not taken; collecting costs one allocation and is what callers do anyway.
        // SAFETY: each frame of the run has one reference, which was ours.
        (0..n)
            .map(|i| unsafe { Frame::from_raw(at + (i * PAGE_SIZE) as u64) })
            .collect::<::alloc::vec::Vec<_>>()
            .into_iter()
    }
}

impl Drop for FrameRun {
    fn drop(&mut self) {
        for i in 0..self.pages() {
            // SAFETY: the references that `alloc` made; others may have come through windows, so each is dropped by itself.
            drop(unsafe { Frame::from_raw(self.at + (i * PAGE_SIZE) as u64) });
        }
    }
}

/// How much memory there is, in frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stats {
    /// Frames that can be handed out at all.
    pub total: usize,
    /// Frames that are free now (approximate while other CPUs work).
    pub free: usize,
}

/// The frames of this kernel.
pub fn stats() -> Stats {
    instance().frames.stats()
}
