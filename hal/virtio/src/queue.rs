//! Queues of bytes to and from a device. No call waits: what does not fit now is refused and an interrupt tells when to try again.

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};

use virtio_drivers::{queue::VirtQueue, transport::Transport as _};

use crate::{
    buffer::{Buffer, SIZE},
    dma::Queue,
    transport::{Device, Error},
};

/// Buffers of a queue that moves bytes: 64 pages are 256 KiB under way, enough to keep a device busy between two interrupts.
pub const DEPTH: usize = 64;

fn new_queue<const N: usize>(device: &mut Device, index: u16, message: Option<(u64, u32)>) -> Result<Queue<N>, Error> {
    let queue = VirtQueue::new(&mut device.transport, index, false, false)
        .map_err(|_| Error("the queue cannot be set up (no such queue, too short, or no memory)"))?;
    device.set_vector(index, message)?;
    Ok(Box::new(queue))
}

fn buffers(count: usize) -> Result<Vec<Buffer>, Error> {
    (0..count).map(|_| Buffer::new().ok_or(Error("no memory for buffers"))).collect()
}

/// Bytes to the device, in `N` pages (a power of two, at most what the device's queue holds).
pub struct SendQueue<const N: usize = DEPTH> {
    index: u16,
    queue: Queue<N>,
    idle: Vec<Buffer>,
    /// What the device has, in the order in which it was given: descriptor, buffer, bytes.
    busy: VecDeque<(u16, Buffer, usize)>,
}

impl<const N: usize> core::fmt::Debug for SendQueue<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SendQueue").field("idle", &self.idle.len()).field("busy", &self.busy.len()).finish()
    }
}

impl<const N: usize> SendQueue<N> {
    /// Sets up queue `index`; its interrupts (buffers are free again) go to the message, if one is given.
    pub fn new(device: &mut Device, index: u16, message: Option<(u64, u32)>) -> Result<Self, Error> {
        Ok(Self { index, queue: new_queue(device, index, message)?, idle: buffers(N)?, busy: VecDeque::new() })
    }

    /// Hands bytes to the device; how many it took.
    pub fn send(&mut self, device: &mut Device, bytes: &[u8]) -> usize {
        self.reap();
        let mut sent = 0;
        for chunk in bytes.chunks(SIZE) {
            let Some(mut buffer) = self.idle.pop() else {
                break;
            };
            // SAFETY: the buffer was idle: the device does not have it.
            let memory = unsafe { buffer.bytes() };
            memory[..chunk.len()].copy_from_slice(chunk);
            // SAFETY: the buffer stays in `busy` until `reap` has popped its descriptor.
            match unsafe { self.queue.add(&[&memory[..chunk.len()]], &mut []) } {
                Ok(token) => self.busy.push_back((token, buffer, chunk.len())),
                Err(_) => {
                    self.idle.push(buffer);
                    break;
                }
            }
            sent += chunk.len();
        }
        if sent > 0 && self.queue.should_notify() {
            device.transport.notify(self.index);
        }
        sent
    }

    /// How many bytes [`SendQueue::send`] would take now.
    pub fn room(&mut self) -> usize {
        self.reap();
        self.idle.len() * SIZE
    }

    /// Takes back what the device has consumed.
    fn reap(&mut self) {
        while let Some(token) = self.queue.peek_used() {
            // A device may finish in any order, though consoles do not.
            let Some(at) = self.busy.iter().position(|(t, ..)| *t == token) else {
                log::warn!("virtio: the device returned descriptor {token}, which it does not have");
                return;
            };
            let Some((_, mut buffer, len)) = self.busy.remove(at) else {
                return;
            };
            // SAFETY: the ring code only compares the slice with the descriptor; it is the buffer given with this token.
            let memory = unsafe { buffer.bytes() };
            // SAFETY: same token, same slice as in `add`.
            if unsafe { self.queue.pop_used(token, &[&memory[..len]], &mut []) }.is_err() {
                log::warn!("virtio: descriptor {token} cannot be taken back");
            }
            self.idle.push(buffer);
        }
    }
}

/// Bytes from the device, in `N` pages (a power of two, at most what the device's queue holds).
pub struct ReceiveQueue<const N: usize = DEPTH> {
    index: u16,
    queue: Queue<N>,
    /// What the device has.
    busy: VecDeque<(u16, Buffer)>,
    /// What it has filled, with how many bytes, and how many of them were taken.
    filled: VecDeque<(Buffer, usize, usize)>,
}

impl<const N: usize> core::fmt::Debug for ReceiveQueue<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ReceiveQueue").field("filled", &self.filled.len()).finish_non_exhaustive()
    }
}

impl<const N: usize> ReceiveQueue<N> {
    /// Sets up queue `index`; its interrupts (bytes came) go to the message.
    pub fn new(device: &mut Device, index: u16, message: Option<(u64, u32)>) -> Result<Self, Error> {
        let queue = new_queue(device, index, message)?;
        let mut this = Self { index, queue, busy: VecDeque::new(), filled: VecDeque::new() };
        for buffer in buffers(N)? {
            this.post(buffer);
        }
        Ok(this)
    }

    /// Tells the device that buffers are there; after [`Device::go`].
    pub fn start(&mut self, device: &mut Device) {
        device.transport.notify(self.index);
    }

    /// Hands what has come to `take` (which says how much it took) until it takes no more; the number of bytes taken. What the device wrote into
    /// one buffer is handed over in one piece.
    pub fn receive(&mut self, device: &mut Device, mut take: impl FnMut(&[u8]) -> usize) -> usize {
        self.reap();
        let mut total = 0;
        let mut returned = false;
        while let Some((buffer, len, at)) = self.filled.front_mut() {
            // SAFETY: the device has given the buffer back.
            let memory = unsafe { buffer.bytes() };
            let taken = take(&memory[*at..*len]).min(*len - *at);
            *at += taken;
            total += taken;
            if at < len {
                break;
            }
            if let Some((buffer, ..)) = self.filled.pop_front() {
                self.post(buffer);
                returned = true;
            }
        }
        if returned && self.queue.should_notify() {
            device.transport.notify(self.index);
        }
        total
    }

    /// Whether bytes are waiting to be taken.
    pub fn has_data(&mut self) -> bool {
        self.reap();
        !self.filled.is_empty()
    }

    /// Whether the device is to interrupt when bytes come. `false`: there are some already, and perhaps no interrupt for them.
    pub fn interrupts(&mut self, on: bool) -> bool {
        self.queue.set_dev_notify(on);
        // What came before the device saw that it is to interrupt is seen here.
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        !self.has_data()
    }

    fn post(&mut self, mut buffer: Buffer) {
        // SAFETY: the device does not have the buffer; from here on it stays in `busy` until `reap` pops its descriptor.
        let memory = unsafe { buffer.bytes() };
        // SAFETY: as above.
        match unsafe { self.queue.add(&[], &mut [memory]) } {
            Ok(token) => self.busy.push_back((token, buffer)),
            Err(_) => log::warn!("virtio: a receive buffer does not fit into the ring"),
        }
    }

    fn reap(&mut self) {
        while let Some(token) = self.queue.peek_used() {
            let Some(at) = self.busy.iter().position(|(t, _)| *t == token) else {
                log::warn!("virtio: the device returned descriptor {token}, which it does not have");
                return;
            };
            let Some((_, mut buffer)) = self.busy.remove(at) else {
                return;
            };
            // SAFETY: as in `SendQueue::reap`.
            let memory = unsafe { buffer.bytes() };
            // SAFETY: same token, same slice as in `add`.
            match unsafe { self.queue.pop_used(token, &[], &mut [memory]) } {
                Ok(len) if len > 0 => self.filled.push_back((buffer, (len as usize).min(SIZE), 0)),
                _ => self.post(buffer),
            }
        }
    }
}
