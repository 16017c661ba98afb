//! Links on real memory: `hal`'s windows as [`Memory`], frames of this kernel for its rings, doorbells.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};
use core::sync::atomic::{Ordering, fence};

use hal::{
    addr::PhysAddr,
    boot::PhysRange,
    cpuref::CpuRef,
    frame::FrameRun,
    window::{SharedWindow, WindowToken},
};

use crate::{
    lock::{LINK_WINDOWS, Lock},
    memory::Memory,
    porch::BLOCK_SIZE,
    shm::Windows,
};

const PAGE: u64 = 4096;

/// A piece of a window.
#[derive(Clone, Debug)]
pub struct Window {
    window: SharedWindow,
    start: usize,
    len: usize,
}

impl Window {
    /// The piece from `start`, `len` bytes. `None` if it is not inside or not aligned to words.
    pub fn new(window: SharedWindow, start: usize, len: usize) -> Option<Self> {
        let end = start.checked_add(len)?;
        (end <= window.len() && start.is_multiple_of(8)).then_some(Self { window, start, len })
    }

    fn inside(&self, at: usize, len: usize) -> Option<usize> {
        at.checked_add(len).filter(|end| *end <= self.len).map(|_| self.start + at)
    }
}

impl Memory for Window {
    fn size(&self) -> usize {
        self.len
    }

    #[inline]
    fn load8(&self, at: usize) -> u8 {
        self.inside(at, 1).map_or(0, |at| self.window.atomic_u8(at).load(Ordering::Acquire))
    }

    #[inline]
    fn store8(&self, at: usize, value: u8) {
        if let Some(at) = self.inside(at, 1) {
            self.window.atomic_u8(at).store(value, Ordering::Release);
        }
    }

    #[inline(always)]
    fn load64(&self, at: usize) -> u64 {
        self.inside(at, 8).map_or(0, |at| self.window.atomic_u64(at).load(Ordering::Acquire))
    }

    #[inline]
    fn store64(&self, at: usize, value: u64) {
        if let Some(at) = self.inside(at, 8) {
            self.window.atomic_u64(at).store(value, Ordering::Release);
        }
    }

    #[inline]
    fn load_words(&self, at: usize, out: &mut [u64]) {
        let words = self.inside(at, 8 * out.len()).map(|at| self.window.atomic_words(at, out.len()));
        for (out, word) in out.iter_mut().zip(words.unwrap_or_default()) {
            *out = word.load(Ordering::Acquire);
        }
    }

    #[inline]
    fn write_words(&self, at: usize, words: &[u64]) {
        let slots = self.inside(at, 8 * words.len()).map(|at| self.window.atomic_words(at, words.len()));
        for (word, slot) in words.iter().zip(slots.unwrap_or_default()) {
            slot.store(*word, Ordering::Relaxed);
        }
    }

    #[inline]
    fn read_words(&self, at: usize, out: &mut [u64]) {
        let words = self.inside(at, 8 * out.len()).map(|at| self.window.atomic_words(at, out.len()));
        for (out, word) in out.iter_mut().zip(words.unwrap_or_default()) {
            *out = word.load(Ordering::Relaxed);
        }
    }

    fn swap64(&self, at: usize, old: u64, new: u64) -> u64 {
        self.inside(at, 8).map_or(0, |at| {
            let word = self.window.atomic_u64(at);
            match word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(was) | Err(was) => was,
            }
        })
    }

    #[inline]
    fn read(&self, at: usize, out: &mut [u8]) {
        match self.inside(at, out.len()) {
            Some(at) => self.window.read(at, out),
            None => out.fill(0),
        }
    }

    #[inline]
    fn write(&self, at: usize, bytes: &[u8]) {
        if let Some(at) = self.inside(at, bytes.len()) {
            self.window.write(at, bytes);
        }
    }

    #[inline]
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    #[inline]
    fn publish(&self, at: usize, len: usize) {
        if SharedWindow::COHERENT {
            return fence(Ordering::Release);
        }
        if let Some(at) = self.inside(at, len) {
            self.window.publish(at, len);
        }
    }

    #[inline]
    fn refresh(&self, at: usize, len: usize) {
        if SharedWindow::COHERENT {
            return fence(Ordering::Acquire);
        }
        if let Some(at) = self.inside(at, len) {
            self.window.refresh(at, len);
        }
    }
}

/// How another kernel is told to look at what it was sent: a plugin for each kind of bell.
pub trait Ring: Send + Sync {
    /// Rings; does not wait.
    fn ring(&self);
}

/// The interrupt of a CPU of this board.
impl Ring for CpuRef {
    fn ring(&self) {
        self.doorbell();
    }
}

/// What the plan says of a kernel: where its memory is, at this kernel's addresses, and what takes its doorbells.
#[derive(Clone)]
pub struct Reach {
    /// Its index.
    pub index: u16,
    /// Its memory; the porch is at the beginning of the first piece.
    pub memory: Vec<PhysRange>,
    /// What rings it; none for this kernel itself.
    pub bell: Option<Arc<dyn Ring>>,
    /// Whether programs may execute what lies there. If not they execute a copy in this kernel's own memory.
    pub executable: bool,
}

impl Reach {
    /// Where its memory begins.
    pub fn base(&self) -> Option<u64> {
        Some(self.memory.first()?.start.0)
    }

    /// The addresses of a piece of its memory that it names by the distance from its base.
    pub fn locate(&self, at: u64, len: u64) -> Option<u64> {
        let start = self.base()?.checked_add(at)?;
        let end = start.checked_add(len)?;
        self.memory.iter().any(|r| start >= r.start.0 && end <= r.end().0).then_some(start)
    }
}

/// A kernel of the plan as this one reaches it.
struct Place {
    reach: Reach,
    porch: Option<Window>,
}

/// Memory for rings: whole pages, and halves of pages for the blocks of pairs.
#[derive(Default)]
struct Own {
    windows: BTreeMap<u64, SharedWindow>,
    halves: Vec<u64>,
}

/// Links over the memory and the bells of a machine.
pub struct HalWindows {
    me: u16,
    base: u64,
    places: Vec<Option<Place>>,
    own: Lock<Own>,
}

impl HalWindows {
    /// The windows of kernel `me`; the porches of all others are mapped now, so that a dying kernel needs nothing to announce itself.
    /// `None` if the plan does not know this kernel or its porch is not its own.
    pub fn new(me: u16, reaches: Vec<Reach>) -> Option<Self> {
        let base = reaches.iter().find(|r| r.index == me)?.base()?;
        let mut places: Vec<Option<Place>> = Vec::new();
        for reach in reaches {
            let at = usize::from(reach.index);
            if places.len() <= at {
                places.resize_with(at + 1, || None);
            }
            let range = PhysRange { start: PhysAddr(reach.base()?), len: PAGE };
            let window = if reach.index == me {
                SharedWindow::reserved(range).ok()
            } else {
                WindowToken::new(range).and_then(SharedWindow::open).ok()
            };
            let porch = window.and_then(|w| Window::new(w, 0, PAGE as usize));
            if let Some(slot) = places.get_mut(at) {
                *slot = Some(Place { reach, porch });
            }
        }
        let this = Self { me, base, places, own: Lock::ranked(LINK_WINDOWS, Own::default()) };
        this.porch(me)?;
        Some(this)
    }

    fn place(&self, index: u16) -> Option<&Place> {
        self.places.get(usize::from(index))?.as_ref()
    }

    fn pages(len: usize) -> usize {
        len.div_ceil(PAGE as usize).next_power_of_two()
    }

    fn allocate_pages(&self, own: &mut Own, len: usize) -> Option<u64> {
        let run = FrameRun::alloc(Self::pages(len).trailing_zeros() as usize).ok()?;
        let window = SharedWindow::offer(run);
        let at = window.phys().0.checked_sub(self.base)?;
        own.windows.insert(at, window);
        Some(at)
    }
}

impl Windows for HalWindows {
    type M = Window;

    fn porch(&self, index: u16) -> Option<Window> {
        self.place(index)?.porch.clone()
    }

    fn allocate(&self, len: usize) -> Option<(u64, Window)> {
        let at = {
            let mut own = self.own.lock();
            if len <= BLOCK_SIZE {
                match own.halves.pop() {
                    Some(at) => at,
                    None => {
                        let at = self.allocate_pages(&mut own, PAGE as usize)?;
                        own.halves.push(at + BLOCK_SIZE as u64);
                        at
                    }
                }
            } else {
                self.allocate_pages(&mut own, len)?
            }
        };
        let window = self.map(self.me, at, len)?;
        window.window.zero(window.start, len);
        Some((at, window))
    }

    fn free(&self, at: u64, len: usize) {
        let freed = {
            let mut own = self.own.lock();
            if len <= BLOCK_SIZE {
                own.halves.push(at);
                None
            } else {
                own.windows.remove(&at)
            }
        };
        drop(freed);
    }

    fn map(&self, peer: u16, at: u64, len: usize) -> Option<Window> {
        let start = self.place(peer)?.reach.locate(at, len as u64)?;
        if peer == self.me {
            let own = self.own.lock();
            let (first, window) = own.windows.range(..=at).next_back()?;
            let skip = usize::try_from(at - first).ok()?;
            return Window::new(window.clone(), skip, len);
        }
        let first = start / PAGE * PAGE;
        let range = PhysRange { start: PhysAddr(first), len: (start + len as u64).next_multiple_of(PAGE) - first };
        let window = WindowToken::new(range).and_then(SharedWindow::open).ok()?;
        Window::new(window, (start - first) as usize, len)
    }

    fn ring(&self, peer: u16) {
        if let Some(bell) = self.place(peer).and_then(|p| p.reach.bell.as_ref()) {
            bell.ring();
        }
    }
}
