//! Boards of a mixed machine in emulation: each shows the memory of the others behind a PCI device, and rings them by another one.
//!
//! Source: QEMU, docs/specs/ivshmem-spec.rst. BAR 2 is the memory, BAR 0 the registers, BAR 1 the MSI-X table. A bell carries no data and rings that come
//! close together are one: whoever hears it looks at what is shared.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use boardctl::Order;
use hal::{
    boot::PhysRange,
    io::{Mmio, Msi, Refused},
    sync::{SpinLock, rank},
    window::{SharedWindow, WindowToken},
};
use hal_virtio::pci::{self, DeviceFunction, Ecam, Msix};
use link::window::Ring;

/// Vendor and device (Red Hat's, for inter-VM shared memory).
const IDS: (u16, u16) = (0x1af4, 0x1110);
/// The BARs.
const REGISTERS: u8 = 0;
const MEMORY: u8 = 2;
/// Which peer this is.
const POSITION: usize = 8;
/// Rings: the peer in the upper half, the vector in the lower.
const DOORBELL: usize = 12;
/// The bell that the kernel of a board hears.
const BELL: u16 = 0;
/// How long the controller may take, in ns: it stops an emulator, or starts one.
const PATIENCE: u64 = 5_000_000_000;

fn device(ecam: &Ecam, slot: u8) -> Result<DeviceFunction, Refused> {
    let at = DeviceFunction { bus: 0, device: slot, function: 0 };
    if ecam.ids(at) == Some(IDS) { Ok(at) } else { Err(Refused("the device that shows it is not there")) }
}

/// Where this board sees the memory that a device shows.
///
/// # Errors
/// A sentence if there is no such device.
pub fn window(ecam: &Ecam, slot: u8) -> Result<PhysRange, Refused> {
    let at = device(ecam, slot)?;
    pci::let_memory(ecam, at);
    pci::memory_bar(ecam, at, MEMORY)
}

/// The bells of this board, and the page that all boards share.
pub struct Bells {
    registers: Mmio,
    msi: Msi,
    /// Its table is used for as long as the bells are.
    _msix: SpinLock<Msix>,
    page: SharedWindow,
}

impl Bells {
    /// Of the device in a slot. This kernel's first CPU hears them, as the interrupt [`Bells::line`].
    ///
    /// # Errors
    /// A sentence if there is no such device or no interrupt is free.
    pub fn new(ecam: &Ecam, slot: u8) -> Result<Arc<Self>, Refused> {
        let at = device(ecam, slot)?;
        let mut msix = Msix::find(ecam, at)?.ok_or(Refused("bells that no interrupt tells of"))?;
        let registers = Mmio::map(pci::memory_bar(ecam, at, REGISTERS)?)?;
        let page = SharedWindow::open(WindowToken::new(pci::memory_bar(ecam, at, MEMORY)?)?)?;
        let msi = Msi::new(0, pci::requester(at))?;
        msix.set(BELL, msi.address, msi.data)?;
        msix.enable();
        Ok(Arc::new(Self { registers, msi, _msix: SpinLock::new(rank::DRIVER, msix), page }))
    }

    /// The interrupt of this board's bell.
    pub fn line(&self) -> u32 {
        self.msi.line()
    }

    /// Which peer this board is.
    pub fn position(&self) -> u32 {
        self.registers.read32(POSITION)
    }

    fn ring(&self, peer: u16) {
        self.registers.write32(DOORBELL, u32::from(peer) << 16 | u32::from(BELL));
    }

    /// The bell of another board.
    pub fn of(self: &Arc<Self>, board: u16) -> Arc<dyn Ring> {
        Arc::new(Bell { bells: self.clone(), peer: board })
    }

    /// Asks the controller, who is the peer behind all boards, for something, and waits until it is done.
    ///
    /// # Errors
    /// A sentence if it cannot be done or the controller does not answer.
    pub fn order(&self, board: usize, boards: u16, order: Order) -> Result<(), Refused> {
        if boardctl::answer(board) + 8 > self.page.len() {
            return Err(Refused("there is no such board"));
        }
        let request = self.page.atomic_u64(boardctl::request(board));
        let mut before = request.load(Ordering::Acquire);
        let mine = loop {
            let next = boardctl::next(before, order);
            match request.compare_exchange(before, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break next,
                Err(other) => before = other,
            }
        };
        self.ring(boards);
        let mut turn = 0;
        let until = hal::time::now().saturating_add(PATIENCE);
        loop {
            let answer = self.page.atomic_u64(boardctl::answer(board)).load(Ordering::Acquire);
            match boardctl::answered(answer, mine) {
                Some(true) => return Ok(()),
                Some(false) => return Err(Refused("the board controller could not do it")),
                None if hal::time::now() > until => return Err(Refused("the board controller does not answer")),
                None => hal::cpu::relax(&mut turn),
            }
        }
    }
}

/// The bell of another board.
struct Bell {
    bells: Arc<Bells>,
    peer: u16,
}

impl Ring for Bell {
    fn ring(&self) {
        self.bells.ring(self.peer);
    }
}
