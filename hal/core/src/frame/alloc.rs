//! Where frames come from: a buddy allocator per range of memory, and a few single frames kept by each CPU.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use buddy::{Buddy, Link};
use hal_api::{MAX_RANGES, PAGE_SHIFT, PAGE_SIZE, PhysAddr, PhysRange, Platform};

use crate::P;
use crate::instance::instance;
use crate::sync::{SpinLock, rank};

/// What is kept for each frame.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Meta {
    /// References to an open frame; 0 while it is free or typed.
    pub refs: AtomicU32,
    /// Typed frames: how many entries of the page table are in use.
    pub used: AtomicU32,
    /// Open frames: the owner's number. Page tables: bit `i` is set if one of the entries `8 * i ..` may be in use.
    pub tag: AtomicU64,
}

/// Pieces: one for each range of memory, and what is set aside of the first.
const PIECES: usize = MAX_RANGES + 1;
/// The most frames that are set aside.
const ASIDE_MAX: u64 = 512;

/// A piece of memory with its metadata.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Number of its first frame.
    first: u64,
    frames: u64,
    metas: *const Meta,
}

const NOTHING: Piece = Piece { first: 0, frames: 0, metas: core::ptr::null() };

/// The frames of a kernel.
#[derive(Debug)]
pub(crate) struct Frames {
    pieces: [Piece; PIECES],
    count: usize,
    pool: SpinLock<Pool>,
    total: usize,
    /// Frames that programs do not get, so that the kernel can still work when they have taken the rest.
    reserve: usize,
    /// The piece that only the kernel gets, and only when there is nothing else: a long list needs frames that lie together, and what programs leave
    /// does not.
    aside: usize,
}

type Pool = [Option<Buddy<&'static mut [Link]>>; PIECES];

// SAFETY: `metas` points to memory that is never freed and only holds atomics.
unsafe impl Sync for Frames {}
// SAFETY: the same.
unsafe impl Send for Frames {}

/// Single frames kept by one CPU, as frame numbers.
#[derive(Debug)]
pub(crate) struct LocalFrames {
    n: usize,
    frames: [u32; Self::ROOM],
}

impl LocalFrames {
    const ROOM: usize = 64;
    const BATCH: usize = 32;
    const BATCH_ORDER: usize = 5;

    pub const fn new() -> Self {
        Self { n: 0, frames: [0; Self::ROOM] }
    }
}

impl Frames {
    /// Takes over the ranges: metadata at the start of each, the rest is free.
    ///
    /// # Safety
    /// The ranges are owned by this kernel, reachable by the linear map and hold nothing; called once for them.
    pub unsafe fn new(ranges: &[PhysRange]) -> Option<Self> {
        let mut pieces = [NOTHING; PIECES];
        let mut pool: Pool = [const { None }; PIECES];
        let (mut count, mut total, mut aside) = (0, 0, usize::MAX);
        let mut parts = [PhysRange::new(0, 0); PIECES];
        let mut n = 0;
        for range in ranges.iter().take(MAX_RANGES) {
            parts[n] = *range;
            n += 1;
        }
        // A 64th of the first range, from its end.
        let first = &mut parts[0];
        let set_aside = (first.len >> PAGE_SHIFT >> 6).min(ASIDE_MAX) << PAGE_SHIFT;
        if set_aside > 0 {
            let end = PhysAddr(first.end().0 & !(PAGE_SIZE as u64 - 1));
            *first = PhysRange { start: first.start, len: (end.0 - set_aside).saturating_sub(first.start.0) };
            parts[n] = PhysRange { start: PhysAddr(end.0 - set_aside), len: set_aside };
            n += 1;
        }
        for (at, range) in parts[..n].iter().enumerate() {
            let start = range.start.page_up();
            let frames = (range.end().page().0.saturating_sub(start.0) >> PAGE_SHIFT) as usize;
            let links_at = frames * size_of::<Meta>();
            let own = (links_at + frames * size_of::<Link>()).div_ceil(PAGE_SIZE);
            // A frame number has to fit in the caches of CPUs.
            if frames <= own || (start.0 >> PAGE_SHIFT) + frames as u64 > u64::from(u32::MAX) {
                continue;
            }
            let base = P::linear(start).as_ptr();
            // SAFETY: the first `own` pages of the range are ours and unused, and big enough for both arrays; `Meta` is all zeros when empty; page
            // alignment is enough for both.
            let (metas, links) = unsafe {
                base.write_bytes(0, links_at);
                let links = base.add(links_at).cast::<Link>();
                for i in 0..frames {
                    links.add(i).write(Link::TAKEN);
                }
                (base.cast::<Meta>().cast_const(), core::slice::from_raw_parts_mut(links, frames))
            };
            let mut buddy = Buddy::new(links);
            // Cannot fail: everything is taken in a new one.
            let _ = buddy.add(own as u32, frames as u32);
            total += buddy.free_units();
            pieces[count] = Piece { first: start.0 >> PAGE_SHIFT, frames: frames as u64, metas };
            pool[count] = Some(buddy);
            if set_aside > 0 && at == n - 1 {
                aside = count;
            }
            count += 1;
        }
        (count > 0).then(|| Self {
            pieces,
            count,
            pool: SpinLock::new(rank::FRAMES, pool),
            total,
            reserve: (total / 64).clamp(16, 512),
            aside,
        })
    }

    /// The metadata of a frame.
    #[inline]
    pub fn meta(&self, at: PhysAddr) -> &'static Meta {
        let number = at.0 >> PAGE_SHIFT;
        let first = &self.pieces[0];
        let index = number.wrapping_sub(first.first);
        if index < first.frames {
            // SAFETY: `metas` has `frames` elements, which live as long as the kernel.
            return unsafe { &*first.metas.add(index as usize) };
        }
        self.meta_elsewhere(number)
    }

    #[cold]
    #[inline(never)]
    fn meta_elsewhere(&self, number: u64) -> &'static Meta {
        let (piece, index) = self.find(number);
        // SAFETY: as above.
        unsafe { &*self.pieces[piece].metas.add(index as usize) }
    }

    fn find(&self, number: u64) -> (usize, u64) {
        for (i, p) in self.pieces[..self.count].iter().enumerate() {
            let index = number.wrapping_sub(p.first);
            if index < p.frames {
                return (i, index);
            }
        }
        panic!("{:#x} is not a frame of this kernel", number << PAGE_SHIFT)
    }

    /// A single frame for programs and the page cache, contents unknown: not from the last ones, which are kept for the kernel itself.
    #[inline]
    pub fn take_open(&self) -> Option<PhysAddr> {
        self.take_above(self.reserve)
    }

    /// A single frame, contents unknown.
    #[inline]
    pub fn take(&self) -> Option<PhysAddr> {
        self.take_above(0)
    }

    #[inline]
    fn take_above(&self, reserve: usize) -> Option<PhysAddr> {
        let got = instance().local_frames(|l| {
            l.n = l.n.checked_sub(1)?;
            Some(l.frames[l.n])
        });
        match got {
            Some(number) => Some(PhysAddr(u64::from(number) << PAGE_SHIFT)),
            None => self.refill(reserve),
        }
    }

    #[cold]
    fn refill(&self, reserve: usize) -> Option<PhysAddr> {
        let mut block = [0u32; LocalFrames::BATCH];
        let mut n = 0;
        {
            let mut pool = self.pool.lock();
            let common = |i: &usize| *i != self.aside;
            let free = pool.iter().enumerate().filter(|(i, _)| common(i)).filter_map(|(_, b)| b.as_ref());
            if free.map(Buddy::free_units).sum::<usize>() <= reserve {
                // The kernel gets what is set aside, one by one: nothing of it is kept where programs could get it.
                let last = pool.get_mut(self.aside).filter(|_| reserve == 0)?.as_mut()?;
                let number = self.pieces.get(self.aside)?.first + u64::from(last.take(0)?);
                return Some(PhysAddr(number << PAGE_SHIFT));
            }
            'all: for (i, (piece, buddy)) in self.pieces.iter().zip(pool.iter_mut()).enumerate() {
                let Some(buddy) = buddy else { break };
                if !common(&i) {
                    continue;
                }
                if let Some(at) = buddy.take(LocalFrames::BATCH_ORDER) {
                    for (i, slot) in block.iter_mut().enumerate() {
                        *slot = piece.first as u32 + at + i as u32;
                    }
                    n = block.len();
                    break;
                }
                while let Some(at) = buddy.take(0) {
                    block[n] = piece.first as u32 + at;
                    n += 1;
                    if n == block.len() {
                        break 'all;
                    }
                }
            }
        }
        // Handed out from the end, so that the lowest address comes first.
        block[..n].reverse();
        let last = *block[..n].last()?;
        instance().local_frames(|l| {
            l.frames[..n - 1].copy_from_slice(&block[..n - 1]);
            l.n = n - 1;
        });
        Some(PhysAddr(u64::from(last) << PAGE_SHIFT))
    }

    /// Gives up one reference to an open frame.
    #[inline]
    pub fn release(&self, at: PhysAddr) {
        let refs = &self.meta(at).refs;
        // The only owner need not ask: nobody else can make another reference.
        if refs.load(Ordering::Acquire) == 1 {
            refs.store(0, Ordering::Relaxed);
        } else if refs.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        self.give(at);
    }

    /// Takes back a single frame that nobody refers to.
    #[inline]
    pub fn give(&self, at: PhysAddr) {
        let number = (at.0 >> PAGE_SHIFT) as u32;
        if self.is_aside(number) {
            return self.put_back(&mut self.pool.lock(), number, 0);
        }
        let full = instance().local_frames(|l| {
            if let Some(slot) = l.frames.get_mut(l.n) {
                *slot = number;
                l.n += 1;
                false
            } else {
                true
            }
        });
        if full {
            self.spill(number);
        }
    }

    /// Whether a frame is one of those that are set aside.
    #[inline]
    fn is_aside(&self, number: u32) -> bool {
        self.pieces.get(self.aside).is_some_and(|piece| u64::from(number).wrapping_sub(piece.first) < piece.frames)
    }

    #[cold]
    fn spill(&self, number: u32) {
        // The older half goes back, the newer (warmer) half stays.
        let mut old = [0u32; LocalFrames::BATCH];
        instance().local_frames(|l| {
            old.copy_from_slice(&l.frames[..LocalFrames::BATCH]);
            l.frames.copy_within(LocalFrames::BATCH.., 0);
            l.n = LocalFrames::ROOM - LocalFrames::BATCH + 1;
            l.frames[l.n - 1] = number;
        });
        let mut pool = self.pool.lock();
        for number in old {
            self.put_back(&mut pool, number, 0);
        }
    }

    fn put_back(&self, pool: &mut Pool, number: u32, order: usize) {
        let (piece, index) = self.find(u64::from(number));
        let given = pool[piece].as_mut().map(|b| b.give(index as u32, order));
        assert_eq!(given, Some(Ok(())), "frame {number:#x} was freed twice");
    }

    /// `2^order` frames that lie together, contents unknown.
    pub fn take_run(&self, order: usize) -> Option<PhysAddr> {
        let mut pool = self.pool.lock();
        for (piece, buddy) in self.pieces.iter().zip(pool.iter_mut()) {
            let Some(buddy) = buddy else { break };
            if let Some(at) = buddy.take(order) {
                return Some(PhysAddr((piece.first + u64::from(at)) << PAGE_SHIFT));
            }
        }
        None
    }

    /// Takes back a run that nobody refers to.
    pub fn give_run(&self, at: PhysAddr, order: usize) {
        self.put_back(&mut self.pool.lock(), (at.0 >> PAGE_SHIFT) as u32, order);
    }

    /// A *typed* frame, zeroed: for hal's or the platform's own tables, never mapped to anybody, freed explicitly.
    pub fn take_typed(&self) -> Option<PhysAddr> {
        let at = self.take()?;
        let meta = self.meta(at);
        meta.used.store(0, Ordering::Relaxed);
        meta.tag.store(0, Ordering::Relaxed);
        // SAFETY: a whole page that is ours alone.
        unsafe { P::zero_page(P::linear(at)) };
        Some(at)
    }

    /// Takes back a frame from `take_typed`.
    pub fn give_typed(&self, at: PhysAddr) {
        debug_assert_eq!(self.meta(at).refs.load(Ordering::Relaxed), 0, "typed frames are not counted");
        self.give(at);
    }

    pub fn stats(&self) -> super::Stats {
        let in_pool: usize = self.pool.lock().iter().flatten().map(Buddy::free_units).sum();
        let cached: usize = (0..instance().info.n_cpus).map(|s| instance().cached_frames(s)).sum();
        super::Stats { total: self.total, free: in_pool + cached }
    }
}

impl LocalFrames {
    /// How many frames are kept here; another CPU may ask, the answer is then approximate.
    pub fn len(this: *const Self) -> usize {
        // SAFETY: `this` points into the instance; a racing read of a word gives an old or a new value.
        unsafe { core::ptr::addr_of!((*this).n).read_volatile() }
    }
}
