//! The page that programs read the clock from, and the code that reads it (`vdso(7)`).

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use hal_api::{PAGE_SIZE, Platform};

use crate::P;
use crate::frame::{Frame, OutOfFrames, StaticFrame};
use crate::instance::instance;
use crate::sync::{SpinLock, rank};

/// Byte offsets in the page; the code of each ISA knows them.
mod at {
    pub const SEQUENCE: usize = 0;
    pub const SCALE: usize = 8;
    pub const AHEAD: usize = 16;
    pub const WALL: usize = 24;
}

/// The kernel's side of the page.
#[derive(Debug)]
pub(crate) struct Clock {
    page: SpinLock<Option<Frame>>,
    wall: AtomicU64,
}

impl Clock {
    pub const fn new() -> Self {
        Self { page: SpinLock::new(rank::KERNEL_SPACE, None), wall: AtomicU64::new(0) }
    }

    /// Writes what the clock is now.
    pub fn update(&self, ahead: i64) {
        let page = self.page.lock();
        let Some(page) = &*page else { return };
        let sequence = page.atomic_u32(at::SEQUENCE);
        sequence.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        page.write(at::SCALE, &P::counter_scale().to_le_bytes());
        page.write(at::AHEAD, &ahead.to_le_bytes());
        page.write(at::WALL, &self.wall.load(Ordering::Relaxed).to_le_bytes());
        sequence.fetch_add(1, Ordering::Release);
    }
}

/// The frames of the vDSO: the data page and the image, which is mapped right behind it. Once per kernel; `None` where there is no image.
pub fn make() -> Result<Option<(StaticFrame, Vec<StaticFrame>)>, OutOfFrames> {
    let image = P::vdso_image();
    if image.is_empty() {
        return Ok(None);
    }
    let mut frames = Vec::new();
    for part in image.chunks(PAGE_SIZE) {
        let frame = Frame::alloc(true)?;
        frame.write(0, part);
        frame.sync_code();
        frames.push(StaticFrame::leak(frame));
    }
    let data = Frame::alloc(true)?;
    let clock = &instance().clock;
    *clock.page.lock() = Some(data.clone());
    clock.update(crate::time::skew());
    Ok(Some((StaticFrame::leak(data), frames)))
}

/// Tells programs that the kernel's clock was 0 at `ns` nanoseconds after the begin of 1970 (settimeofday).
pub fn set_wall(ns: u64) {
    let i = instance();
    i.clock.wall.store(ns, Ordering::Relaxed);
    i.clock.update(crate::time::skew());
}

/// From the begin of the image to the code that signal handlers of programs without a restorer return to, where the ISA has such.
pub fn sigreturn() -> Option<u64> {
    P::vdso_sigreturn()
}
