//! virtio-console: a byte stream to the host. `cob` talks to the agent in `/sbin/init` over it.
//!
//! One port (without `VIRTIO_CONSOLE_F_MULTIPORT`): queue 0 receives, queue 1 sends. Source: VIRTIO 1.2, section 5.3.
#![no_std]
#![forbid(unsafe_code)]

use hal::io::Msi;
use hal_virtio::{
    Device, Error, ReceiveQueue, SendQueue,
    pci::{DeviceFunction, Ecam},
};

/// PCI vendor of virtio devices.
pub const VENDOR: u16 = 0x1af4;
/// PCI device ids: a modern console, and a transitional one.
pub const DEVICES: [u16; 2] = [0x1043, 0x1003];

const RECEIVE: u16 = 0;
const SEND: u16 = 1;

/// One console device.
#[derive(Debug)]
pub struct Console {
    device: Device,
    receive: ReceiveQueue,
    send: SendQueue,
    /// One vector for both queues: what an interrupt means is found by looking.
    interrupt: Msi,
}

impl Console {
    /// Takes the device over; its interrupts go to the CPU in `slot` of this kernel.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the device.
    pub fn new(ecam: &Ecam, function: DeviceFunction, slot: usize) -> Result<Self, Error> {
        let mut device = Device::new(ecam, function, 0)?;
        let interrupt = Msi::new(slot)?;
        let message = Some((interrupt.address, interrupt.data));
        let mut receive = ReceiveQueue::new(&mut device, RECEIVE, message)?;
        let send = SendQueue::new(&mut device, SEND, message)?;
        device.go();
        receive.start(&mut device);
        Ok(Self { device, receive, send, interrupt })
    }

    /// The line that [`hal::boot::Handlers::irq`] gets for this device.
    pub const fn line(&self) -> u32 {
        self.interrupt.line()
    }

    /// Hands bytes to the host; how many were taken. Less than offered: try again after the next interrupt.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.send.send(&mut self.device, bytes)
    }

    /// How many bytes [`Console::write`] would take now.
    pub fn room(&mut self) -> usize {
        self.send.room()
    }

    /// Hands what the host sent to `take`, which says how much it took.
    pub fn read(&mut self, take: impl FnMut(&[u8]) -> usize) -> usize {
        self.receive.receive(&mut self.device, take)
    }

    /// Whether a read would give something.
    pub fn readable(&mut self) -> bool {
        self.receive.has_data()
    }

    /// Whether a write would take something.
    pub fn writable(&mut self) -> bool {
        self.send.room() > 0
    }
}
