//! What has to be flushed, on which CPUs, before frames may be used again.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use hal_api::{Ipi, PAGE_SIZE, PageFormat, Platform, UserAddr};

use super::{Format, Inner};
use crate::P;
use crate::instance::{instance, try_instance};

/// Frames kept back before the batch flushes by itself.
const HELD: usize = 64;
/// More pages than this are flushed all at once.
const FEW: u64 = 32;

/// Collects pages of one address space whose entries were changed, and the frames that were mapped there. Flushing (at the latest when it is
/// dropped) brings the TLBs of all CPUs that use the space up to date, then gives the frames up.
#[must_use]
pub struct TlbBatch<'s> {
    space: &'s Inner,
    /// Range of pages that changed; empty if `from >= to`.
    from: u64,
    to: u64,
    /// How many of them.
    pages: u64,
    held: [MaybeUninit<u64>; HELD],
    n_held: usize,
}

impl<'s> TlbBatch<'s> {
    #[inline]
    pub(super) fn new(space: &'s Inner) -> Self {
        Self { space, from: u64::MAX, to: 0, pages: 0, held: [const { MaybeUninit::uninit() }; HELD], n_held: 0 }
    }

    /// The page at `va` was changed.
    #[inline]
    pub(super) fn page(&mut self, va: UserAddr) {
        self.from = self.from.min(va.0);
        self.to = self.to.max(va.0 + PAGE_SIZE as u64);
        self.pages += 1;
    }

    /// `n` pages in `from..to` were changed.
    #[inline]
    pub(super) fn span(&mut self, from: u64, to: u64, n: u64) {
        self.from = self.from.min(from);
        self.to = self.to.max(to);
        self.pages += n;
    }

    /// Takes over the reference of an entry that was taken out.
    #[inline]
    pub(super) fn hold(&mut self, entry: u64) {
        if !Format::is_own(entry) {
            return;
        }
        if self.n_held == HELD {
            self.flush_full();
        }
        if let Some(slot) = self.held.get_mut(self.n_held) {
            slot.write(entry);
            self.n_held += 1;
        }
    }

    #[cold]
    #[inline(never)]
    fn flush_full(&mut self) {
        self.flush();
    }

    /// Flushes and gives the frames up. Other CPUs serve at their next breathing point, spin or return to user mode.
    pub fn flush(&mut self) {
        if self.pages > 0 {
            self.shoot();
        }
        let frames = &instance().frames;
        for slot in &self.held[..core::mem::take(&mut self.n_held)] {
            // SAFETY: the first `n_held` are written, by `hold`, which took the reference of the (counted) frame over. No TLB knows the page
            // any more.
            frames.release(Format::leaf_at(unsafe { slot.assume_init() }));
        }
    }

    fn shoot(&mut self) {
        let from = UserAddr(self.from);
        let span = (self.to - self.from) / PAGE_SIZE as u64;
        // Far apart pages cost more to flush one by one than all together.
        let pages = if span <= FEW { span as usize } else { 0 };
        (self.from, self.to, self.pages) = (u64::MAX, 0, 0);
        // Entries are written before we look who uses them; `activate` does it the other way round.
        fence(Ordering::SeqCst);
        let users = self.space.cpus.load(Ordering::SeqCst);
        let me = 1u64 << P::slot();
        if users & me != 0 || P::BROADCAST_TLBI {
            flush_here(from, pages);
        }
        let others = users & !me;
        if others != 0 && !P::BROADCAST_TLBI {
            flush_there(others, from, pages);
        }
    }
}

impl Drop for TlbBatch<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.pages > 0 || self.n_held > 0 {
            self.flush();
        }
    }
}

fn flush_here(from: UserAddr, pages: usize) {
    if pages == 0 {
        P::flush_all();
    } else {
        P::flush(from, pages);
    }
}

/// Interrupts every other CPU that may run a program of `space`, and waits until each has been in the kernel: what programs did before is
/// ordered on all of them (an interrupt and its return are full barriers and serialise instruction fetch on every ISA here).
pub(super) fn synchronize(space: &Inner) {
    fence(Ordering::SeqCst);
    let others = space.cpus.load(Ordering::SeqCst) & !(1u64 << P::slot());
    if others != 0 {
        flush_there(others, UserAddr(0), 1);
    }
    fence(Ordering::SeqCst);
}

/// What a CPU asks others to flush. Written by that CPU while `pending` is 0.
pub(crate) struct Request {
    from: AtomicU64,
    /// 0: everything.
    pages: AtomicU64,
    /// CPUs that have not served it yet.
    pending: AtomicU64,
}

impl Request {
    pub const fn new() -> Self {
        Self { from: AtomicU64::new(0), pages: AtomicU64::new(0), pending: AtomicU64::new(0) }
    }
}

#[cold]
fn flush_there(cpus: u64, from: UserAddr, pages: usize) {
    let instance = instance();
    let me = P::slot();
    let request = &instance.cpu(me).request;
    request.from.store(from.0, Ordering::Relaxed);
    request.pages.store(pages as u64, Ordering::Relaxed);
    request.pending.store(cpus, Ordering::Release);
    let mut left = cpus;
    while left != 0 {
        let slot = left.trailing_zeros() as usize;
        left &= left - 1;
        if instance
            .cpu(slot)
            .idle
            .compare_exchange(IDLE, STALE, Ordering::SeqCst, Ordering::SeqCst)
            .unwrap_or_else(|s| s)
            != AWAKE
        {
            // It flushes before it does anything with user memory.
            request.pending.fetch_and(!(1 << slot), Ordering::Relaxed);
            continue;
        }
        instance.cpu(slot).inbox.fetch_or(1 << me, Ordering::SeqCst);
        P::send_ipi(slot, Ipi::Shootdown);
    }
    while request.pending.load(Ordering::Acquire) != 0 {
        // Two CPUs may ask each other.
        serve();
        P::relax();
    }
}

/// In `CpuState::idle`: the CPU may use user memory at any time.
const AWAKE: u8 = 0;
/// It waits for interrupts, whose handlers do not touch user memory.
const IDLE: u8 = 1;
/// It waits, and has to flush when it wakes.
const STALE: u8 = 2;

/// Waits by `wait` without being woken for flushes. Page tables that this CPU may still walk are kept by its reference to the space.
pub(crate) fn idle(wait: fn()) {
    let cpu = instance().this_cpu();
    cpu.idle.store(IDLE, Ordering::SeqCst);
    wait();
    if cpu.idle.swap(AWAKE, Ordering::SeqCst) == STALE {
        P::flush_all();
    }
}

/// Flushes what other CPUs have asked this one to flush.
pub(crate) fn serve() {
    let Some(instance) = try_instance() else { return };
    let cpu = instance.this_cpu();
    if cpu.inbox.load(Ordering::Relaxed) == 0 {
        return;
    }
    let mut asked = cpu.inbox.swap(0, Ordering::SeqCst);
    while asked != 0 {
        let slot = asked.trailing_zeros() as usize;
        asked &= asked - 1;
        let request = &instance.cpu(slot).request;
        let pages = request.pages.load(Ordering::Relaxed) as usize;
        flush_here(UserAddr(request.from.load(Ordering::Relaxed)), pages);
        request.pending.fetch_and(!(1 << P::slot()), Ordering::Release);
    }
}
