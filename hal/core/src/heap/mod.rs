//! The kernel heap on bare metal (the host has the process's): lists of free objects by size class, per CPU, over whole frames.
//!
//! A general-purpose heap behind a lock costs a few hundred instructions per call; system calls that allocate would pay that each time. Here the
//! usual allocation pops a list of this CPU. `GlobalAlloc` tells the size when freeing, so objects have no headers. Frames that were cut
//! into objects stay with their class.

#[cfg(test)]
mod tests;

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use hal_api::{MAX_CPUS, PAGE_SHIFT, PAGE_SIZE, PhysAddr, Platform};

use crate::P;
use crate::instance::try_instance;
use crate::sync::{SpinLock, rank};

/// Object sizes. Powers of two are aligned to themselves, all to 16.
const SIZES: [u16; 15] = [16, 32, 48, 64, 80, 96, 128, 192, 256, 320, 512, 672, 1024, 1360, 2048];
const CLASSES: usize = SIZES.len();
const LARGEST: usize = 2048;
/// Memory for before there are frames: enough to read the plan of the largest machine. What is not used becomes frames.
const EARLY: usize = if cfg!(target_os = "none") { 2 << 20 } else { 64 << 10 };
/// What is kept of it for what is made before there are frames, once its rest was given away.
#[cfg(target_os = "none")]
const EARLY_KEPT: usize = 128 << 10;

/// The class of a size, by 16-byte steps.
const CLASS_OF: [u8; LARGEST / 16 + 1] = {
    let mut table = [0; LARGEST / 16 + 1];
    let mut i = 0;
    while i < table.len() {
        let mut class = 0;
        while (SIZES[class] as usize) < i * 16 {
            class += 1;
        }
        table[i] = class as u8;
        i += 1;
    }
    table
};

/// How many objects a CPU keeps of a class before half of them go to the depot.
const KEEP: [u8; CLASSES] = {
    let mut keep = [128; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let n = (16 << 10) >> SIZES[class].ilog2();
        if n < 128 {
            keep[class] = n as u8;
        }
        class += 1;
    }
    keep
};

/// A free object: it holds the address of the next one.
struct Free {
    next: *mut Free,
}

/// A list of free objects of one class.
struct List {
    head: *mut Free,
    n: usize,
}

// SAFETY: the objects of a list belong to whoever has the list.
unsafe impl Send for List {}

impl List {
    const fn new() -> Self {
        Self { head: core::ptr::null_mut(), n: 0 }
    }

    #[inline]
    fn pop(&mut self) -> *mut u8 {
        let head = self.head;
        if !head.is_null() {
            // SAFETY: objects in the list are free and hold the next address.
            self.head = unsafe { (*head).next };
            self.n -= 1;
        }
        head.cast()
    }

    /// # Safety
    /// `object` is of the list's class, and nobody uses it.
    #[inline]
    unsafe fn push(&mut self, object: *mut u8) {
        let object = object.cast::<Free>();
        // SAFETY: by the contract; objects have at least 16 bytes, aligned to 16.
        unsafe { (*object).next = self.head };
        self.head = object;
        self.n += 1;
    }

    /// Takes up to `n` objects off.
    fn split(&mut self, n: usize) -> Self {
        let mut taken = Self::new();
        while taken.n < n {
            let object = self.pop();
            if object.is_null() {
                break;
            }
            // SAFETY: just popped from a list of the same class.
            unsafe { taken.push(object) };
        }
        taken
    }
}

#[repr(align(64))]
struct Local(UnsafeCell<[List; CLASSES]>);

// SAFETY: only the CPU of a slot touches its lists, with interrupts off (C1), for the length of one call.
unsafe impl Sync for Local {}

/// The heap.
pub struct Heap {
    locals: [Local; MAX_CPUS],
    depot: [SpinLock<List>; CLASSES],
    early: Early,
    /// Pages taken, for people.
    pages: AtomicUsize,
}

#[repr(align(4096))]
struct Memory(#[expect(dead_code, reason = "reached by its address")] [u8; EARLY]);

struct Early {
    memory: UnsafeCell<Memory>,
    used: AtomicUsize,
    /// Bytes of its end that were given away. (Everything is zero at first: a heap with a number in it would be data of the image, not `.bss`.)
    given: AtomicUsize,
}

// SAFETY: pieces are handed out once, by an atomic counter.
unsafe impl Sync for Early {}

impl Heap {
    /// An empty heap.
    #[allow(clippy::new_without_default, reason = "a static, big")]
    pub const fn new() -> Self {
        Self {
            locals: [const { Local(UnsafeCell::new([const { List::new() }; CLASSES])) }; MAX_CPUS],
            depot: [const { SpinLock::new(rank::HEAP, List::new()) }; CLASSES],
            early: Early {
                memory: UnsafeCell::new(Memory([0; EARLY])),
                used: AtomicUsize::new(0),
                given: AtomicUsize::new(0),
            },
            pages: AtomicUsize::new(0),
        }
    }

    /// How many pages the heap has.
    pub fn pages(&self) -> usize {
        self.pages.load(Ordering::Relaxed)
    }

    /// How many bytes of its pages are not free: what is handed out, and the ends of pages that no object fits into. Other CPUs allocate meanwhile.
    pub fn used(&self) -> usize {
        let mut free = 0;
        for (class, size) in SIZES.iter().enumerate() {
            let depot = self.depot[class].lock().n;
            // SAFETY: a read of a word that its CPU may be changing: an old or a new value.
            let n = |local: &Local| unsafe { (&raw const (*local.0.get())[class].n).read_volatile() };
            free += usize::from(*size) * self.locals.iter().map(n).fold(depot, usize::wrapping_add);
        }
        (self.pages() * PAGE_SIZE).saturating_sub(free)
    }

    #[inline]
    fn local(&self) -> *mut [List; CLASSES] {
        self.locals[P::slot() % MAX_CPUS].0.get()
    }

    #[inline]
    fn class(layout: Layout) -> Option<usize> {
        let size =
            if layout.align() > 16 { layout.size().max(layout.align()).next_power_of_two() } else { layout.size() };
        (size <= LARGEST).then(|| CLASS_OF[size.div_ceil(16)] as usize)
    }

    #[cold]
    fn refill(&self, class: usize) -> *mut u8 {
        let mut got = self.depot[class].lock().split(KEEP[class] as usize / 2);
        if got.n == 0 {
            let Some(page) = self.take_pages(0) else { return core::ptr::null_mut() };
            let size = SIZES[class] as usize;
            // From the end, so that the first object is handed out first.
            for i in (0..PAGE_SIZE / size).rev() {
                // SAFETY: inside the page, which is ours; pieces do not overlap.
                unsafe { got.push(page.as_ptr().add(i * size)) };
            }
        }
        let first = got.pop();
        // SAFETY: this CPU's list, for the length of this statement. It is empty, or became longer meanwhile only by what `take_pages` freed (nothing).
        unsafe { (*self.local())[class] = got };
        first
    }

    #[cold]
    fn spill(&self, class: usize) {
        // SAFETY: this CPU's list, for the length of this statement.
        let mut half = unsafe { (*self.local())[class].split(KEEP[class] as usize / 2) };
        let mut depot = self.depot[class].lock();
        loop {
            let object = half.pop();
            if object.is_null() {
                break;
            }
            // SAFETY: of the same class, free.
            unsafe { depot.push(object) };
        }
    }

    /// `2^order` pages.
    fn take_pages(&self, order: usize) -> Option<NonNull<u8>> {
        let pages = match try_instance() {
            Some(i) if order == 0 => i.frames.take().map(P::linear),
            Some(i) => i.frames.take_run(order).map(P::linear),
            None => self.early.take(order),
        };
        if pages.is_some() {
            self.pages.fetch_add(1 << order, Ordering::Relaxed);
        }
        pages
    }

    fn give_pages(&self, at: *mut u8, order: usize) {
        let off = (at as usize).wrapping_sub(self.early.memory.get() as usize);
        // What was taken before there were frames is not given back.
        if off >= EARLY
            && let Some(i) = try_instance()
        {
            self.pages.fetch_sub(1 << order, Ordering::Relaxed);
            let at = phys(at);
            if order == 0 { i.frames.give(at) } else { i.frames.give_run(at, order) }
        }
    }
}

/// The inverse of the linear map, which only adds a number.
fn phys(at: *mut u8) -> PhysAddr {
    let first = crate::instance::instance().info.owned()[0].start;
    PhysAddr(first.0.wrapping_add((at as u64).wrapping_sub(P::linear(first).as_ptr() as u64)))
}

impl Early {
    /// Gives the end of it away, which nobody has: where it begins, and bytes.
    #[cfg(target_os = "none")]
    fn split(&self) -> (*const u8, usize) {
        let end = (self.used.load(Ordering::Relaxed) + EARLY_KEPT).min(EARLY);
        self.given.store(EARLY - end, Ordering::Relaxed);
        (self.memory.get().cast::<u8>().cast_const().wrapping_add(end), EARLY - end)
    }

    fn take(&self, order: usize) -> Option<NonNull<u8>> {
        let size = PAGE_SIZE << order;
        let at = self.used.fetch_add(size, Ordering::Relaxed);
        if at + size > EARLY - self.given.load(Ordering::Relaxed) {
            self.used.fetch_sub(size, Ordering::Relaxed);
            return None;
        }
        // SAFETY: inside the array; each piece is handed out once.
        NonNull::new(unsafe { self.memory.get().cast::<u8>().add(at) })
    }
}

/// The order of a size that no class has.
fn order(layout: Layout) -> Option<usize> {
    let pages = layout.size().max(layout.align()).div_ceil(PAGE_SIZE);
    let order = pages.next_power_of_two().ilog2() as usize;
    (order < buddy::ORDERS && layout.align() <= PAGE_SIZE << order).then_some(order)
}

// SAFETY: an object is in one list or handed out, never both; classes are big and aligned enough (`class`); pages likewise.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match Self::class(layout) {
            Some(class) => {
                // SAFETY: this CPU's list, for the length of this statement.
                let object = unsafe { (*self.local())[class].pop() };
                if object.is_null() { self.refill(class) } else { object }
            }
            None => order(layout).and_then(|o| self.take_pages(o)).map_or(core::ptr::null_mut(), NonNull::as_ptr),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        match Self::class(layout) {
            Some(class) => {
                // SAFETY: this CPU's list, for the length of this block; the object is of this class, as its layout says.
                let n = unsafe {
                    let list = &mut (*self.local())[class];
                    list.push(at);
                    list.n
                };
                if n > KEEP[class] as usize {
                    self.spill(class);
                }
            }
            None => {
                if let Some(order) = order(layout) {
                    self.give_pages(at, order);
                }
            }
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else { return core::ptr::null_mut() };
        let same = match (Self::class(layout), Self::class(new)) {
            (Some(a), Some(b)) => a == b,
            (None, None) => order(layout) == order(new),
            _ => false,
        };
        if same {
            return at;
        }
        // SAFETY: `new` is not empty (a contract of `realloc`); both are valid for the smaller of the sizes; `at` is given up.
        unsafe {
            let to = self.alloc(new);
            if !to.is_null() {
                to.copy_from_nonoverlapping(at, layout.size().min(new_size));
                self.dealloc(at, layout);
            }
            to
        }
    }
}

/// The heap of this image.
#[cfg(target_os = "none")]
#[global_allocator]
static HEAP: Heap = Heap::new();

/// The memory that the heap had for before there are frames and does not need, as frames; nothing on the host. Called once, on the boot CPU, before there
/// are frames.
pub(crate) fn unused() -> Option<hal_api::PhysRange> {
    #[cfg(target_os = "none")]
    {
        let (at, len) = HEAP.early.split();
        Some(hal_api::PhysRange { start: P::image_address(at)?, len: len as u64 }).filter(|range| range.len > 0)
    }
    #[cfg(not(target_os = "none"))]
    None
}

/// How many pages the kernel heap has; 0 on the host, where the process has one.
pub fn pages() -> usize {
    #[cfg(target_os = "none")]
    return HEAP.pages();
    #[cfg(not(target_os = "none"))]
    0
}

/// How many bytes of those pages are in use; 0 on the host.
pub fn used() -> usize {
    #[cfg(target_os = "none")]
    return HEAP.used();
    #[cfg(not(target_os = "none"))]
    0
}

const _: () = assert!(1 << PAGE_SHIFT == PAGE_SIZE && SIZES[CLASSES - 1] as usize == LARGEST);
