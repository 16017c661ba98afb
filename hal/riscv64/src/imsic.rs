//! Interrupts as messages ("RISC-V Advanced Interrupt Architecture" 1.0): every hart has a file of interrupt numbers (IMSIC), into which devices and other
//! harts write; wires are turned into such messages by one APLIC per machine.
//!
//! Several kernels share the APLIC. The kernel that firmware started sets it up; after that everybody writes only registers that belong to one wire.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use hal_api::{Ipi, PhysRange, Refused, WindowAttr};

use crate::{board, paging, percpu};

/// Between CPUs: look at your run queue.
const KICK: u32 = 1;
/// Between CPUs: serve TLB shootdowns.
const SHOOTDOWN: u32 = 2;
/// Between CPUs: stop for good.
const STOP: u32 = 3;
/// A peer kernel rang. The same in all kernels.
const DOORBELL: u32 = 4;
/// First of those that devices may have.
const MESSAGES: u32 = 16;
/// Wire `n` is interrupt `WIRES + n`.
const WIRES: u32 = 128;
/// One past the last number.
const END: u32 = 256;
/// How a message is called above, so that it is not taken for a wire.
const LINE_OF_MESSAGE: u32 = 1024;

/// Bytes of a hart's file.
const FILE: u64 = 0x1000;

// Registers behind `siselect`.
const DELIVERY: u64 = 0x70;
const THRESHOLD: u64 = 0x72;
const PENDING: u64 = 0x80;
const ENABLED: u64 = 0xc0;

// APLIC.
const DOMAIN_CONFIG: u64 = 0x0000;
const SOURCE_CONFIG: u64 = 0x0004;
const CLEAR_ENABLE: u64 = 0x1f00;
const SET_PENDING: u64 = 0x1cdc;
const INPUT: u64 = 0x1d00;
const SET_ENABLE: u64 = 0x1edc;
const CLEAR_ENABLE_NUMBER: u64 = 0x1fdc;
const TARGET: u64 = 0x3004;
/// Interrupts on, by messages.
const ON_BY_MESSAGE: u32 = 1 << 8 | 1 << 2;
/// The wire is active while it is high.
const LEVEL_HIGH: u32 = 6;
/// Wires that an APLIC may have, and those that have a number here.
const MAX_WIRES: u32 = END - WIRES;

fn read(at: u64) -> u32 {
    // SAFETY: `init` has mapped the registers.
    unsafe { ((paging::WINDOW + at) as *const u32).read_volatile() }
}

fn write(at: u64, value: u32) {
    // SAFETY: `init` has mapped the registers; the callers write what the specification allows.
    unsafe { ((paging::WINDOW + at) as *mut u32).write_volatile(value) };
}

/// Sets a register of this hart's file.
fn set(register: u64, value: u64) {
    // SAFETY: `siselect` and `sireg` of this hart; nobody comes in between, for interrupts are off.
    unsafe { asm!("csrw 0x150, {}", "csrw 0x151, {}", in(reg) register, in(reg) value, options(nostack)) };
}

fn aplic() -> Option<u64> {
    let range = board::found().aplic;
    (range.len > 0).then_some(range.start.0)
}

/// Maps the registers. Once, on the boot CPU.
pub fn init() -> Result<(), Refused> {
    let found = board::found();
    if found.imsic.len == 0 {
        return Err(Refused("the machine has no interrupt files (IMSIC)"));
    }
    for range in [found.imsic, found.aplic].into_iter().filter(|range: &PhysRange| range.len > 0) {
        paging::map_window(range, WindowAttr::Device)?;
    }
    Ok(())
}

/// Sets up what all kernels share: every wire off. In the kernel that firmware started.
pub fn init_shared() {
    let Some(aplic) = aplic() else { return };
    write(aplic + DOMAIN_CONFIG, 0);
    for word in 0..32 {
        write(aplic + CLEAR_ENABLE + word * 4, u32::MAX);
    }
    write(aplic + DOMAIN_CONFIG, ON_BY_MESSAGE);
}

/// Switches this hart's file on. Every number is open: who sends one has been given it.
pub fn init_cpu() {
    set(DELIVERY, 0);
    // Registers of 64 bits have even numbers.
    for word in (0..u64::from(END / 32)).step_by(2) {
        set(PENDING + word, 0);
        set(ENABLED + word, u64::MAX);
    }
    set(THRESHOLD, 0);
    set(DELIVERY, 1);
}

/// Takes the most urgent interrupt. What was sent for it before is visible now.
fn claim() -> Option<u32> {
    let top: u64;
    // SAFETY: `stopei` of this hart: reads the number and makes it not pending.
    unsafe { asm!("csrrw {}, 0x15c, zero", "fence rw, rw", out(reg) top, options(nostack)) };
    let id = (top >> 16) as u32;
    (id != 0).then_some(id)
}

/// What an interrupt is.
pub enum Event {
    /// Between the CPUs of this kernel.
    Ipi(Ipi),
    /// A peer rang.
    Doorbell,
    /// A device: its line.
    Line(u32),
    /// Nobody should have sent that.
    Unknown(u32),
}

/// Takes what is pending, one after the other.
pub fn next() -> Option<Event> {
    Some(match claim()? {
        KICK => Event::Ipi(Ipi::Kick),
        SHOOTDOWN => Event::Ipi(Ipi::Shootdown),
        STOP => Event::Ipi(Ipi::Stop),
        DOORBELL => Event::Doorbell,
        id @ MESSAGES..WIRES => Event::Line(id + LINE_OF_MESSAGE),
        id @ WIRES..END => Event::Line(id - WIRES),
        id => Event::Unknown(id),
    })
}

/// A line has been served. A wire that is still high is one more interrupt: its message was sent when it rose, and only then.
pub fn served(line: u32) {
    let Some(aplic) = aplic().filter(|_| line < MAX_WIRES) else { return };
    if read(aplic + INPUT + u64::from(line / 32) * 4) & 1 << (line % 32) != 0 {
        write(aplic + SET_PENDING, line);
    }
}

/// Where messages to a hart go.
fn file(hart: u32) -> u64 {
    board::found().imsic.start.0 + u64::from(hart) * FILE
}

fn send(hart: u32, id: u32) {
    if (u64::from(hart) + 1) * FILE > board::found().imsic.len {
        return;
    }
    // Stores before this one are visible to the target's handler.
    // SAFETY: a barrier between memory and devices.
    unsafe { asm!("fence w, o", options(nostack, preserves_flags)) };
    write(file(hart), id);
}

/// Interrupts another CPU of this kernel.
pub fn ipi(hart: u32, kind: Ipi) {
    send(
        hart,
        match kind {
            Ipi::Kick => KICK,
            Ipi::Shootdown => SHOOTDOWN,
            Ipi::Stop => STOP,
        },
    );
}

/// Rings a peer's CPU.
pub fn doorbell(hart: u32) {
    send(hart, DOORBELL);
}

/// Routes a wire to the CPU that calls. Only for kernels that the plan lets do that.
pub fn enable_line(line: u32) -> Result<(), Refused> {
    let aplic = aplic().filter(|_| (1..MAX_WIRES).contains(&line)).ok_or(Refused("no such interrupt line"))?;
    let hart = percpu::this().hardware.load(Ordering::Relaxed) as u32;
    let at = u64::from(line - 1) * 4;
    write(aplic + SOURCE_CONFIG + at, LEVEL_HIGH);
    write(aplic + TARGET + at, hart << 18 | (WIRES + line));
    write(aplic + SET_ENABLE, line);
    // It may have risen before.
    served(line);
    Ok(())
}

/// Masks one.
pub fn disable_line(line: u32) {
    if let Some(aplic) = aplic().filter(|_| (1..MAX_WIRES).contains(&line)) {
        write(aplic + CLEAR_ENABLE_NUMBER, line);
    }
}

/// Numbers of messages that are taken, on whatever CPU of this kernel.
static USED: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// An interrupt of its own for a device: (line, address, data) for the CPU of `slot`.
pub fn msi_alloc(slot: usize) -> Result<(u32, u64, u32), Refused> {
    let cpu = percpu::of(slot).ok_or(Refused("no such CPU"))?;
    for id in MESSAGES..WIRES {
        let (word, bit) = (&USED[(id / 64) as usize], 1u64 << (id % 64));
        if word.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            return Ok((id + LINE_OF_MESSAGE, file(cpu.hardware.load(Ordering::Relaxed) as u32), id));
        }
    }
    Err(Refused("no interrupt is free"))
}

/// Gives it back.
pub fn msi_free(line: u32) {
    if let Some(id) = line.checked_sub(LINE_OF_MESSAGE).filter(|id| (MESSAGES..WIRES).contains(id)) {
        USED[(id / 64) as usize].fetch_and(!(1 << (id % 64)), Ordering::AcqRel);
    }
}
