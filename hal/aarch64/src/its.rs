//! Message-signalled interrupts of a GICv3: its Interrupt Translation Service (Arm IHI 0069, chapters 5 and 6, registers in 12.19).
//!
//! A device writes a number, its *event*; the service turns device and event into an interrupt (*LPI*) of a CPU, by tables that it keeps in memory
//! which it is given. It belongs to one kernel at a time, the one that has the board's PCI devices. A kernel that needs its first interrupt sets the
//! service up anew with memory of its own, so that nothing of a kernel before it is used any more.
//!
//! A device is named as on PCI (bus, device, function): boards whose `msi-map` says otherwise are not known.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::arch::asm;

use hal_api::Refused;
use zerocopy::FromZeros;

use crate::lock::Spin;
use crate::percpu::PerCpu;
use crate::{board, gic, paging};

/// The first interrupt that is a message.
pub const FIRST: u32 = 8192;
/// How many are used, of those that there are.
const INTERRUPTS: u32 = 256;
/// Bits of an interrupt's number: with the fewest that a controller has, there are 8,192 messages.
const ID_BITS: u64 = 14;
/// Events of a device.
const EVENTS: usize = 32;

// Registers.
const CTLR: u64 = 0x0;
const TYPER: u64 = 0x8;
const CBASER: u64 = 0x80;
const CWRITER: u64 = 0x88;
const CREADR: u64 = 0x90;
const BASER: u64 = 0x100;
const TRANSLATER: u64 = 0x1_0040;
const ENABLED: u64 = 1;
const QUIESCENT: u32 = 1 << 31;
const VALID: u64 = 1 << 63;
/// Memory is as the CPUs have it: write-back, inner shareable. For the tables and for the queue of commands, whose fields lie alike.
const CACHED: u64 = 0b111 << 59 | 0b01 << 10;
const SHAREABLE: u64 = 0b11 << 10;
/// What tables are for, in `BASER`.
const DEVICES: u64 = 1;
const COLLECTIONS: u64 = 4;

// Redistributor, first frame.
const R_CTLR: u64 = 0x0;
const R_TYPER: u64 = 0x8;
const R_PROPBASER: u64 = 0x70;
const R_PENDBASER: u64 = 0x78;
/// Memory as the CPUs have it: write-back, inner shareable.
const R_CACHED: u64 = 0b111 << 7 | 0b01 << 10;
/// The pending table is all zeros.
const R_ZERO: u64 = 1 << 62;

// Commands.
const SYNC: u64 = 0x05;
const MAPD: u64 = 0x08;
const MAPC: u64 = 0x09;
const MAPTI: u64 = 0x0a;
const INV: u64 = 0x0c;
const DISCARD: u64 = 0x0f;

/// In an interrupt's byte of the table of all: its priority (as of other devices) and that it is let through.
const ON: u8 = 0xa1;
const OFF: u8 = 0xa0;

const PAGE: usize = 4096;
/// What a pending table is aligned to.
const BLOCK: usize = 0x1_0000;

#[derive(FromZeros)]
#[repr(C, align(4096))]
struct Page([u8; PAGE]);
/// A bit for each interrupt; the alignment is the architecture's.
#[derive(FromZeros)]
#[repr(C, align(65536))]
struct Pending([u8; BLOCK]);
/// A byte for each message.
#[derive(FromZeros)]
#[repr(C, align(4096))]
struct Properties([u8; 1 << (ID_BITS - 1)]);

/// A device that has interrupts.
struct Device {
    name: u32,
    /// Which interrupt each event is.
    events: [Option<u32>; EVENTS],
}

struct Service {
    queue: &'static mut Page,
    /// Where the next command goes, in bytes.
    next: usize,
    properties: &'static mut Properties,
    devices: Vec<Device>,
    /// CPUs that can be interrupted, by slot.
    cpus: Vec<usize>,
}

static SERVICE: Spin<Option<Service>> = Spin::new(None);

fn register(offset: u64) -> *mut u64 {
    (paging::WINDOW + board::found().msi.start.0 + offset) as *mut u64
}

fn read(offset: u64) -> u64 {
    // SAFETY: mapped by `gic::init`; an aligned register of 64 bits.
    unsafe { register(offset).read_volatile() }
}

fn write(offset: u64, value: u64) {
    // SAFETY: as `read`; the callers write what the manual allows, with memory that is never given back.
    unsafe { register(offset).write_volatile(value) }
}

/// Stores before this are seen by the service.
fn publish() {
    // SAFETY: a barrier.
    unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) };
}

/// Zeros in memory, which the service keeps.
fn keep<T: FromZeros>() -> Result<&'static mut T, Refused> {
    T::new_box_zeroed().map(Box::leak).map_err(|_| Refused("no memory for interrupt tables"))
}

fn physical<T>(at: &T) -> u64 {
    core::ptr::from_ref(at) as u64 - paging::LINEAR
}

impl Service {
    /// Takes the service over from whoever had it.
    fn new() -> Result<Self, Refused> {
        // SAFETY: as `read`; the control register has 32 bits.
        let control = unsafe { &*register(CTLR).cast::<core::sync::atomic::AtomicU32>() };
        control.store(0, core::sync::atomic::Ordering::Relaxed);
        while control.load(core::sync::atomic::Ordering::Relaxed) & QUIESCENT == 0 {
            crate::relax();
        }
        for n in 0..8 {
            let at = BASER + n * 8;
            let about = read(at);
            if matches!(about >> 56 & 7, DEVICES | COLLECTIONS) {
                // A page: of devices it names 512, of collections as many, and bus 0 has 256 functions.
                let table: &Page = keep()?;
                write(at, VALID | CACHED | physical(table));
                if read(at) & SHAREABLE == 0 {
                    return Err(Refused("the interrupt controller does not see what is in the CPUs' caches"));
                }
            }
        }
        let queue: &'static mut Page = keep()?;
        write(CBASER, VALID | CACHED | physical(queue));
        write(CWRITER, 0);
        publish();
        control.store(ENABLED as u32, core::sync::atomic::Ordering::Relaxed);
        Ok(Self { queue, next: 0, properties: keep()?, devices: Vec::new(), cpus: Vec::new() })
    }

    /// Has a command done.
    fn command(&mut self, words: [u64; 3]) {
        for (i, word) in words.into_iter().enumerate() {
            self.queue.0[self.next + i * 8..][..8].copy_from_slice(&word.to_le_bytes());
        }
        self.next = (self.next + 32) % PAGE;
        publish();
        write(CWRITER, self.next as u64);
        while read(CREADR) & 0xf_ffe0 != self.next as u64 {
            crate::relax();
        }
    }

    /// Lets a CPU have such interrupts, and says what commands call it.
    fn cpu(&mut self, slot: usize, cpu: &PerCpu) -> Result<u64, Refused> {
        let at = gic::redistributor_of(cpu);
        // SAFETY: `gic::init` has mapped the registers of all CPUs.
        let about = unsafe { ((paging::WINDOW + at + R_TYPER) as *const u64).read_volatile() };
        let name = if read(TYPER) >> 19 & 1 == 1 { at } else { (about >> 8 & 0xffff) << 16 };
        if self.cpus.contains(&slot) {
            return Ok(name);
        }
        if about & 1 == 0 {
            return Err(Refused("the CPU has no message-signalled interrupts"));
        }
        gic::forget_messages(at)?;
        let pending: &Pending = keep()?;
        publish();
        // SAFETY: as above; the memory is never given back.
        unsafe {
            let properties = physical(self.properties) | R_CACHED | (ID_BITS - 1);
            ((paging::WINDOW + at + R_PROPBASER) as *mut u64).write_volatile(properties);
            ((paging::WINDOW + at + R_PENDBASER) as *mut u64).write_volatile(physical(pending) | R_CACHED | R_ZERO);
            ((paging::WINDOW + at + R_CTLR) as *mut u32).write_volatile(1);
        }
        self.command([MAPC, 0, VALID | name | slot as u64]);
        self.command([SYNC, 0, name]);
        self.cpus.push(slot);
        Ok(name)
    }

    /// The place of a device among those that are known.
    fn device(&mut self, name: u32) -> Result<usize, Refused> {
        if let Some(known) = self.devices.iter().position(|device| device.name == name) {
            return Ok(known);
        }
        // Entries are of at most 16 bytes (`TYPER`): a page has room for all events.
        let table: &Page = keep()?;
        publish();
        let bits = u64::from(EVENTS.ilog2());
        self.command([u64::from(name) << 32 | MAPD, bits - 1, VALID | physical(table)]);
        self.devices.push(Device { name, events: [None; EVENTS] });
        Ok(self.devices.len() - 1)
    }

    /// An interrupt that no event is.
    fn unused(&self) -> Option<u32> {
        let used = |n: &u32| self.devices.iter().any(|device| device.events.contains(&Some(FIRST + n)));
        (0..INTERRUPTS).find(|n| !used(n)).map(|n| FIRST + n)
    }

    fn set(&mut self, interrupt: u32, byte: u8) {
        self.properties.0[(interrupt - FIRST) as usize] = byte;
        publish();
    }
}

/// An interrupt for a device, to the CPU of `slot`: its number, where the device writes, and what.
pub fn alloc(slot: usize, cpu: &PerCpu, device: u32) -> Result<(u32, u64, u32), Refused> {
    let mut service = SERVICE.lock();
    if service.is_none() {
        *service = Some(Service::new()?);
    }
    let service = service.as_mut().ok_or(Refused("no interrupt controller is known"))?;
    let name = service.cpu(slot, cpu)?;
    let known = service.device(device)?;
    let event = service.devices[known].events.iter().position(Option::is_none);
    let (Some(event), Some(interrupt)) = (event, service.unused()) else {
        return Err(Refused("no interrupt is free"));
    };
    service.devices[known].events[event] = Some(interrupt);
    service.set(interrupt, ON);
    service.command([u64::from(device) << 32 | MAPTI, u64::from(interrupt) << 32 | event as u64, slot as u64]);
    service.command([u64::from(device) << 32 | INV, event as u64, 0]);
    service.command([SYNC, 0, name]);
    Ok((interrupt, board::found().msi.start.0 + TRANSLATER, event as u32))
}

/// Gives it back.
pub fn free(interrupt: u32) {
    let mut service = SERVICE.lock();
    let Some(service) = service.as_mut() else { return };
    let of = |device: &Device| device.events.iter().position(|event| *event == Some(interrupt));
    let found = service.devices.iter().enumerate().find_map(|(i, device)| Some((i, device.name, of(device)?)));
    let Some((known, name, event)) = found else { return };
    service.set(interrupt, OFF);
    service.command([u64::from(name) << 32 | DISCARD, event as u64, 0]);
    service.devices[known].events[event] = None;
}
