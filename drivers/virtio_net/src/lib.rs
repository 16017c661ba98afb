//! virtio-net: a network card. One queue each way, no offloads: a frame is what is on the wire.
//!
//! Source: VIRTIO 1.2, section 5.1.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

use alloc::{sync::Arc, vec::Vec};

use hal::{
    io::Msi,
    sync::{SpinLock, rank},
};
use hal_virtio::{
    Device, Error, ReceiveQueue, SendQueue,
    pci::{self, DeviceFunction, Ecam},
};
use link::ether::Nic;

/// PCI vendor of virtio devices.
const VENDOR: u16 = 0x1af4;
/// PCI device ids: a modern card, and a transitional one.
const DEVICES: [u16; 2] = [0x1041, 0x1000];
/// The device tells its address.
const MAC: u64 = 1 << 5;
/// Queues.
const RECEIVE: u16 = 0;
const SEND: u16 = 1;
/// Bytes in front of each frame (`struct virtio_net_hdr`): nothing is asked for, so all are zero.
const HEADER: usize = 12;

struct State {
    device: Device,
    receive: ReceiveQueue,
    send: SendQueue,
    frame: Vec<u8>,
}

/// A card.
pub struct Card {
    address: [u8; 6],
    // Frames are sent and taken while the lanes of a link are locked.
    state: SpinLock<State>,
    interrupt: Msi,
}

impl Card {
    /// Takes the card in a slot of the first bus over; its interrupts go to the first CPU of this kernel.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the device.
    pub fn new(ecam: &Ecam, slot: u8) -> Result<Arc<Self>, Error> {
        let at = DeviceFunction { bus: 0, device: slot, function: 0 };
        if !ecam.ids(at).is_some_and(|(vendor, device)| vendor == VENDOR && DEVICES.contains(&device)) {
            return Err(Error("there is no virtio network card in the slot that the plan gives this kernel"));
        }
        let mut device = Device::new(ecam, at, MAC)?;
        if device.features & MAC == 0 {
            return Err(Error("the network card does not tell its address"));
        }
        let interrupt = Msi::new(0, pci::requester(at))?;
        let mut receive = ReceiveQueue::new(&mut device, RECEIVE, Some((interrupt.address, interrupt.data)))?;
        let send = SendQueue::new(&mut device, SEND, None)?;
        let address = device.config_bytes()?;
        device.go();
        receive.start(&mut device);
        let state = State { device, receive, send, frame: Vec::new() };
        Ok(Arc::new(Self { address, state: SpinLock::new(rank::LINK_WINDOWS, state), interrupt }))
    }

    /// The line that [`hal::boot::Handlers::irq`] gets when frames came.
    pub const fn line(&self) -> u32 {
        self.interrupt.line()
    }
}

impl Nic for Card {
    fn address(&self) -> [u8; 6] {
        self.address
    }

    fn send(&self, frame: &[u8]) {
        // A dying kernel may be in the middle of sending; then this one is lost.
        let Some(mut state) = self.state.try_lock() else { return };
        let State { device, send, frame: whole, .. } = &mut *state;
        whole.clear();
        whole.extend_from_slice(&[0; HEADER]);
        whole.extend_from_slice(frame);
        // What the card has no room for is lost too.
        send.send(device, whole);
    }

    fn receive(&self, out: &mut Vec<u8>) -> bool {
        let mut state = self.state.lock();
        let State { device, receive, .. } = &mut *state;
        let mut came = false;
        receive.receive(device, |bytes| {
            if came {
                return 0;
            }
            came = true;
            out.clear();
            out.extend_from_slice(bytes.get(HEADER..).unwrap_or_default());
            bytes.len()
        });
        came
    }

    fn interrupts(&self, on: bool) -> bool {
        let mut state = self.state.lock();
        state.receive.interrupts(on)
    }
}
