//! virtio-serial: a byte stream to the host. `cob` talks to the agent in `/sbin/init` over it.
//!
//! The stream is port 1 of a device with several ports (`VIRTIO_CONSOLE_F_MULTIPORT`). Port 0 is kept for consoles by the emulator, and a console
//! loses what the host does not take at once; the other ports wait. Control messages say when either side opens or closes the port.
//! Source: VIRTIO 1.2, section 5.3.
#![no_std]
#![forbid(unsafe_code)]

mod control;

use hal::io::Msi;
use hal_virtio::{
    Device, Error, ReceiveQueue, SendQueue,
    pci::{self, DeviceFunction, Ecam},
};

use control::{Act, Control, Message};

/// PCI vendor of virtio devices.
pub const VENDOR: u16 = 0x1af4;
/// PCI device ids: a modern console, and a transitional one.
pub const DEVICES: [u16; 2] = [0x1043, 0x1003];

/// Several ports and control queues.
const MULTIPORT: u64 = 1 << 1;
/// The port that is used.
const PORT: u32 = 1;
/// Queues: control messages, and those of the port. Port 0 has 0 and 1, port `n` has `2 + 2n` and `3 + 2n`.
const CONTROL_RECEIVE: u16 = 2;
const CONTROL_SEND: u16 = 3;
const RECEIVE: u16 = 2 + 2 * PORT as u16;
const SEND: u16 = RECEIVE + 1;
/// Pages for control messages, one message each: a handful is sent when the device starts, then one per change.
const CONTROL_DEPTH: usize = 16;

/// One port of a device.
#[derive(Debug)]
pub struct Console {
    device: Device,
    control_receive: ReceiveQueue<CONTROL_DEPTH>,
    control_send: SendQueue<CONTROL_DEPTH>,
    receive: ReceiveQueue,
    send: SendQueue,
    control: Control,
    /// One message for all queues: what an interrupt means is found by looking.
    interrupt: Msi,
}

impl Console {
    /// Takes the device over; its interrupts go to the CPU in `slot` of this kernel.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the device.
    pub fn new(ecam: &Ecam, function: DeviceFunction, slot: usize) -> Result<Self, Error> {
        let mut device = Device::new(ecam, function, MULTIPORT)?;
        if device.features & MULTIPORT == 0 {
            return Err(Error(
                "the device has one port only; start it with `max_ports=2,vectors=6` and the agent as port 1",
            ));
        }
        let interrupt = Msi::new(slot, pci::requester(function))?;
        let message = Some((interrupt.address, interrupt.data));
        let mut control_receive = ReceiveQueue::new(&mut device, CONTROL_RECEIVE, message)?;
        let control_send = SendQueue::new(&mut device, CONTROL_SEND, message)?;
        let mut receive = ReceiveQueue::new(&mut device, RECEIVE, message)?;
        let send = SendQueue::new(&mut device, SEND, message)?;
        device.go();
        control_receive.start(&mut device);
        receive.start(&mut device);
        let control = Control::new(PORT);
        let mut this = Self { device, control_receive, control_send, receive, send, control, interrupt };
        this.say(Control::HELLO);
        Ok(this)
    }

    /// The line that [`hal::boot::Handlers::irq`] gets for this device.
    pub const fn line(&self) -> u32 {
        self.interrupt.line()
    }

    /// Serves an interrupt, as far as it is not about bytes: what the host says about the port.
    pub fn interrupt(&mut self) {
        let mut acts = [None; CONTROL_DEPTH];
        let mut free = acts.iter_mut();
        let control = &mut self.control;
        self.control_receive.receive(&mut self.device, |bytes| {
            // More than there are places stays in the queue; there are as many buffers as places.
            let Some(place) = free.next() else { return 0 };
            *place = Message::decode(bytes).and_then(|message| control.step(message));
            bytes.len()
        });
        for Act(message) in acts.into_iter().flatten() {
            self.say(message);
        }
    }

    /// A program opens the port; the host is told of the first.
    pub fn open(&mut self) {
        if let Some(Act(message)) = self.control.open() {
            self.say(message);
        }
    }

    /// A program closes it; the host is told of the last.
    pub fn close(&mut self) {
        if let Some(Act(message)) = self.control.close() {
            self.say(message);
        }
    }

    /// Whether the host holds its end open. What is written otherwise goes nowhere.
    pub const fn is_connected(&self) -> bool {
        self.control.is_connected()
    }

    /// Hands bytes to the host; how many were taken. Less than offered: try again after the next interrupt.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        if self.is_connected() { self.send.send(&mut self.device, bytes) } else { 0 }
    }

    /// How many bytes [`Console::write`] would take now.
    pub fn room(&mut self) -> usize {
        if self.is_connected() { self.send.room() } else { 0 }
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
        self.room() > 0
    }

    fn say(&mut self, message: Message) {
        let bytes = message.encode();
        if self.control_send.send(&mut self.device, &bytes) < bytes.len() {
            // The device takes these at once: a full queue is a device that stopped.
            log::warn!("virtio-console: the device does not take control messages");
        }
    }
}
