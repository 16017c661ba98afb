//! A page that a device may read or write.

use hal::frame::FrameRun;

/// One page of DMA memory. While the device has it, nobody calls [`Buffer::bytes`]: the queues see to that.
pub(crate) struct Buffer {
    run: FrameRun,
}

/// Bytes of a buffer.
pub(crate) const SIZE: usize = 4096;

impl Buffer {
    pub fn new() -> Option<Self> {
        FrameRun::alloc(0).ok().map(|run| Self { run })
    }

    /// The buffer's memory.
    ///
    /// # Safety
    /// The device does not have the buffer, or only the ring code uses the slice and does not touch the bytes.
    pub unsafe fn bytes(&mut self) -> &'static mut [u8] {
        let start = hal::raw::base(&self.run);
        // SAFETY: the page belongs to `run`, which outlives every use by the queue; the caller excludes other users.
        unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), SIZE) }
    }
}
