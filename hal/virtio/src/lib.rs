//! DMA, PCI functions with MSI-X, and virtqueues as a safe interface for drivers.
//!
//! The rings and the transport are those of the `virtio-drivers` crate; what it leaves open is here: interrupts by MSI-X, buffers that are owned
//! by the queue as long as the device may write them, and no call that waits for the device.
#![no_std]
extern crate alloc;

mod buffer;
mod dma;
pub mod pci;
pub mod queue;
mod transport;

pub use queue::{ReceiveQueue, SendQueue};
pub use transport::{Device, Error};
