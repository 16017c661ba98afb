//! The interrupt controller: GICv2 (Arm IHI 0048) or GICv3 (IHI 0069), as the device tree says.
//!
//! Several kernels share one distributor. The kernel that firmware started sets it up; after that everybody writes only registers in which a bit
//! or byte belongs to one interrupt. All interrupts are in group 1 but [`PARK`], which is a fast interrupt (FIQ) and cannot be masked by the code
//! it is to stop.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

use hal_api::{Refused, WindowAttr};

use crate::percpu::PerCpu;
use crate::{board, cpu, its, paging, percpu};

/// Between CPUs: look at your run queue.
pub const KICK: u32 = 0;
/// Between CPUs: serve TLB shootdowns.
pub const SHOOTDOWN: u32 = 1;
/// Between CPUs: stop for good.
pub const STOP: u32 = 2;
/// A peer kernel rang. The same in all kernels.
pub const DOORBELL: u32 = 3;
/// A peer fences this CPU.
pub const PARK: u32 = 4;
/// The virtual timer.
pub const TIMER: u32 = 27;
/// First interrupt of a device.
pub const LINES: u32 = 32;
/// After the last that stands for an interrupt.
const END: u32 = 1020;

// Distributor.
const D_CTLR: u64 = 0x000;
const D_TYPER: u64 = 0x004;
const D_GROUP: u64 = 0x080;
const D_SET_ENABLE: u64 = 0x100;
const D_CLEAR_ENABLE: u64 = 0x180;
const D_CLEAR_PENDING: u64 = 0x280;
const D_PRIORITY: u64 = 0x400;
const D_TARGET: u64 = 0x800;
const D_CONFIG: u64 = 0xc00;
const D_SGI: u64 = 0xf00;
const D_ROUTER: u64 = 0x6000;
// CPU interface of a GICv2.
const C_CTLR: u64 = 0x00;
const C_MASK: u64 = 0x04;
const C_ACKNOWLEDGE: u64 = 0x0c;
const C_END: u64 = 0x10;
// Redistributor of a GICv3: two frames of 64 KiB per CPU.
const R_STRIDE: u64 = 0x2_0000;
const R_CTLR: u64 = 0x0;
const R_WAKER: u64 = 0x14;
const R_SGI: u64 = 0x1_0000;

const NORMAL: u32 = 0xa0a0_a0a0;

fn is_v3() -> bool {
    board::found().gic_version == 3
}

fn read(at: u64) -> u32 {
    // SAFETY: `init` has mapped the registers.
    unsafe { ((paging::WINDOW + at) as *const u32).read_volatile() }
}

fn write(at: u64, value: u32) {
    // SAFETY: as `read`; the callers write what the manual allows.
    unsafe { ((paging::WINDOW + at) as *mut u32).write_volatile(value) };
}

fn write_byte(at: u64, value: u8) {
    // SAFETY: as `read`; priorities and targets may be written by bytes.
    unsafe { ((paging::WINDOW + at) as *mut u8).write_volatile(value) };
}

fn distributor() -> u64 {
    board::found().gic.start.0
}

/// The registers for interrupts 0 to 31 of this CPU.
fn private() -> u64 {
    if is_v3() { redistributor() + R_SGI } else { distributor() }
}

fn redistributor() -> u64 {
    board::found().gic_cpu.start.0 + u64::from(cpu::hardware_id()) * R_STRIDE
}

/// The redistributor of another CPU of this kernel.
pub fn redistributor_of(cpu: &PerCpu) -> u64 {
    board::found().gic_cpu.start.0 + cpu.hardware.load(Ordering::Relaxed) * R_STRIDE
}

/// Ends message-signalled interrupts of a CPU, which may use tables in memory of the kernel that had it before.
pub fn forget_messages(redistributor: u64) -> Result<(), Refused> {
    let control = redistributor + R_CTLR;
    write(control, read(control) & !1);
    while read(control) & 1 << 3 != 0 {
        crate::relax();
    }
    if read(control) & 1 == 0 { Ok(()) } else { Err(Refused("the CPU keeps the interrupt tables of a former kernel")) }
}

/// Maps the registers. Once, on the boot CPU.
pub fn init() -> Result<(), Refused> {
    let found = board::found();
    if found.gic_version == 0 {
        return Err(Refused("no interrupt controller is known"));
    }
    for range in [found.gic, found.gic_cpu, found.msi] {
        if range.len > 0 {
            paging::map_window(range, WindowAttr::Device)?;
        }
    }
    Ok(())
}

/// Sets up what all kernels share: everything off, in group 1. In the kernel that firmware started.
pub fn init_shared() {
    let d = distributor();
    write(d + D_CTLR, 0);
    let words = u64::from(read(d + D_TYPER) & 31) + 1;
    for word in 1..words {
        write(d + D_CLEAR_ENABLE + word * 4, u32::MAX);
        write(d + D_CLEAR_PENDING + word * 4, u32::MAX);
        write(d + D_GROUP + word * 4, u32::MAX);
        for quarter in 0..8 {
            write(d + D_PRIORITY + word * 32 + quarter * 4, NORMAL);
        }
    }
    // Both groups; with affinity routing on a GICv3.
    write(d + D_CTLR, if is_v3() { 0b1_0011 } else { 0b11 });
}

macro_rules! system {
    ($register:literal = $value:expr) => {
        // SAFETY: a register of this CPU's interface.
        unsafe { asm!(concat!("msr ", $register, ", {}"), "isb", in(reg) u64::from($value), options(nostack)) }
    };
    ($register:literal) => {{
        let value: u64;
        // SAFETY: a register of this CPU's interface.
        unsafe { asm!(concat!("mrs {}, ", $register), "dsb sy", out(reg) value, options(nostack)) };
        value
    }};
}

/// Switches this CPU's interface on: interrupts between CPUs and the timer.
pub fn init_cpu() {
    if is_v3() {
        let waker = redistributor() + R_WAKER;
        write(waker, read(waker) & !2);
        while read(waker) & 4 != 0 {
            crate::relax();
        }
        // If it keeps them, that is said when somebody wants an interrupt.
        let _ = forget_messages(redistributor());
    }
    let p = private();
    write(p + D_CLEAR_ENABLE, u32::MAX);
    write(p + D_CLEAR_PENDING, u32::MAX);
    write(p + D_GROUP, !(1 << PARK));
    for quarter in 0..8 {
        write(p + D_PRIORITY + quarter * 4, NORMAL);
    }
    write_byte(p + D_PRIORITY + u64::from(PARK), 0);
    write(p + D_SET_ENABLE, 0xffff | 1 << TIMER);
    if is_v3() {
        system!("S3_0_C12_C12_5" = 7u32); // ICC_SRE: by system registers
        system!("S3_0_C4_C6_0" = 0xffu32); // ICC_PMR
        system!("S3_0_C12_C12_4" = 0u32); // ICC_CTLR: the end of an interrupt is one step
        system!("S3_0_C12_C12_6" = 1u32); // ICC_IGRPEN0
        system!("S3_0_C12_C12_7" = 1u32); // ICC_IGRPEN1
    } else {
        let c = board::found().gic_cpu.start.0;
        write(c + C_MASK, 0xff);
        // Both groups, acknowledged in one register; group 0 is a fast interrupt.
        write(c + C_CTLR, 0b1111);
    }
    percpu::this().hardware.store(u64::from(cpu::hardware_id()), Ordering::Relaxed);
}

/// Takes the most urgent interrupt: its number, and the word that ends it (of an interrupt between CPUs it names the sender too).
pub fn acknowledge() -> Option<(u32, u32)> {
    let word = if is_v3() {
        system!("S3_0_C12_C12_0") as u32 & 0xff_ffff
    } else {
        read(board::found().gic_cpu.start.0 + C_ACKNOWLEDGE)
    };
    let id = if is_v3() { word } else { word & 0x3ff };
    // What lies between stands for no interrupt.
    (!(END..its::FIRST).contains(&id)).then_some((id, word))
}

/// Says that it is handled.
pub fn end(word: u32) {
    if is_v3() {
        system!("S3_0_C12_C12_1" = word);
    } else {
        write(board::found().gic_cpu.start.0 + C_END, word);
    }
}

/// Takes and ends what made this CPU park, so that it does not when it is started again.
pub fn end_park() {
    if is_v3() {
        let id = system!("S3_0_C12_C8_0");
        system!("S3_0_C12_C8_1" = id);
    } else {
        let c = board::found().gic_cpu.start.0;
        write(c + C_END, read(c + C_ACKNOWLEDGE));
    }
}

/// Interrupts one CPU, own or a peer's.
pub fn send(hardware: u32, id: u32) {
    // Stores before this one are visible to the target's handler.
    // SAFETY: a barrier.
    unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) };
    if is_v3() {
        let to = u64::from(id) << 24 | u64::from(hardware / 16) << 16 | 1 << (hardware % 16);
        if id == PARK {
            system!("S3_0_C12_C11_7" = to); // ICC_SGI0R
        } else {
            system!("S3_0_C12_C11_5" = to); // ICC_SGI1R
        }
    } else if hardware < 8 {
        let group = if id == PARK { 0 } else { 1 << 15 };
        write(distributor() + D_SGI, 1 << (16 + hardware) | group | id);
    }
}

/// The firmware's name of a CPU.
pub fn mpidr(hardware: u32) -> u64 {
    let cluster = if is_v3() { 16 } else { 8 };
    u64::from(hardware % cluster) | u64::from(hardware / cluster) << 8
}

fn route(id: u32, hardware: u32) {
    let d = distributor();
    if is_v3() {
        let at = (paging::WINDOW + d + D_ROUTER + u64::from(id) * 8) as *mut u64;
        // SAFETY: mapped by `init`; the interrupt is this kernel's.
        unsafe { at.write_volatile(mpidr(hardware)) };
    } else {
        write_byte(d + D_TARGET + u64::from(id), 1 << (hardware & 7));
    }
    write(d + D_SET_ENABLE + u64::from(id / 32) * 4, 1 << (id % 32));
}

/// Routes a device's interrupt to the CPU that calls. Only for kernels that the plan lets do that.
pub fn enable_line(id: u32) -> Result<(), Refused> {
    if !(LINES..END).contains(&id) {
        return Err(Refused("no such interrupt line"));
    }
    route(id, cpu::hardware_id());
    Ok(())
}

/// Masks one.
pub fn disable_line(id: u32) {
    if (LINES..END).contains(&id) {
        write(distributor() + D_CLEAR_ENABLE + u64::from(id / 32) * 4, 1 << (id % 32));
    }
}

/// The message frame of a GICv2 (`v2m`): which interrupts it has, and where a device writes their number.
const M_TYPER: u64 = 0x08;
const M_SET: u64 = 0x40;

static MSI_USED: [AtomicU32; 8] = [const { AtomicU32::new(0) }; 8];

/// An interrupt of its own for a device: (line, address, data) for the CPU of `slot`.
pub fn msi_alloc(slot: usize, device: u32) -> Result<(u32, u64, u32), Refused> {
    let cpu = percpu::of(slot).ok_or(Refused("no such CPU"))?;
    let frame = board::found().msi;
    if frame.len == 0 {
        return Err(Refused("there are no message-signalled interrupts"));
    }
    if is_v3() {
        return its::alloc(slot, cpu, device);
    }
    let about = read(frame.start.0 + M_TYPER);
    let (first, count) = (about >> 16 & 0x3ff, about & 0x3ff);
    for n in 0..count.min(256) {
        let (word, bit) = ((n / 32) as usize, 1 << (n % 32));
        if MSI_USED[word].fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            let id = first + n;
            let config = distributor() + D_CONFIG + u64::from(id / 16) * 4;
            // A message is an edge.
            write(config, read(config) | 2 << (id % 16 * 2));
            route(id, cpu.hardware.load(Ordering::Relaxed) as u32);
            return Ok((id, frame.start.0 + M_SET, id));
        }
    }
    Err(Refused("no interrupt is free"))
}

/// Gives it back.
pub fn msi_free(line: u32) {
    if is_v3() {
        return its::free(line);
    }
    disable_line(line);
    let frame = board::found().msi;
    if frame.len > 0 {
        let first = read(frame.start.0 + M_TYPER) >> 16 & 0x3ff;
        if let Some(word) = line.checked_sub(first).and_then(|n| MSI_USED.get((n / 32) as usize)) {
            word.fetch_and(!(1 << ((line - first) % 32)), Ordering::AcqRel);
        }
    }
}
