//! Local APIC and I/O APIC.
//!
//! Every interrupt that this kernel sends has a physical destination and one target; there is no code here that could send
//! anything else. The local APIC is used through its registers in memory, or through MSRs if the CPU has an x2APIC (SDM vol. 3A, ch. 11).

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use hal_api::{PhysRange, Refused, WindowAttr};
use x86_64::registers::model_specific::{ApicBase, ApicBaseFlags, Msr};

use crate::lock::Spin;
use crate::trap::{LINE, LINES, MSI, MSI_END, SPURIOUS, TIMER};
use crate::{acpi, paging, percpu};

const LOCAL: u64 = 0xfee0_0000;
const ID: u32 = 0x20;
const TASK_PRIORITY: u32 = 0x80;
const EOI: u32 = 0xb0;
const SPURIOUS_VECTOR: u32 = 0xf0;
const COMMAND: u32 = 0x300;
const COMMAND_HIGH: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const LVT_ERROR: u32 = 0x370;
const INITIAL_COUNT: u32 = 0x380;
const CURRENT_COUNT: u32 = 0x390;
const DIVIDE: u32 = 0x3e0;

const MASKED: u32 = 1 << 16;
const ASSERT: u32 = 1 << 14;
const PENDING: u32 = 1 << 12;
const DELIVER_NMI: u32 = 4 << 8;
const DELIVER_INIT: u32 = 5 << 8;
const DELIVER_STARTUP: u32 = 6 << 8;

/// Added to a message-signalled vector to get its line number for `Upcalls::irq`.
pub const MSI_LINE: u32 = 0x100;

static X2: AtomicBool = AtomicBool::new(false);

fn read(register: u32) -> u32 {
    if X2.load(Ordering::Relaxed) {
        // SAFETY: in x2APIC mode the registers are MSRs from 0x800.
        unsafe { Msr::new(0x800 + (register >> 4)).read() as u32 }
    } else {
        // SAFETY: `init` has mapped the registers.
        unsafe { ((paging::WINDOW + LOCAL + u64::from(register)) as *const u32).read_volatile() }
    }
}

fn write(register: u32, value: u32) {
    if X2.load(Ordering::Relaxed) {
        // SAFETY: as `read`; the callers write what the manual allows.
        unsafe { Msr::new(0x800 + (register >> 4)).write(u64::from(value)) };
    } else {
        // SAFETY: as `read`.
        unsafe { ((paging::WINDOW + LOCAL + u64::from(register)) as *mut u32).write_volatile(value) };
    }
}

/// Maps the registers. Once, on the boot CPU.
pub fn init() -> Result<(), Refused> {
    if crate::cpu::has_x2apic() {
        X2.store(true, Ordering::Relaxed);
    } else {
        paging::map_window(PhysRange::new(LOCAL, 0x1000), WindowAttr::Device)?;
    }
    Ok(())
}

/// Switches this CPU's APIC on, everything but the timer masked.
pub fn init_cpu() {
    let (frame, flags) = ApicBase::read();
    let mut flags = flags | ApicBaseFlags::LAPIC_ENABLE;
    flags.set(ApicBaseFlags::X2APIC_ENABLE, X2.load(Ordering::Relaxed));
    // SAFETY: keeps the address, switches the APIC on in the mode that `read` and `write` use.
    unsafe { ApicBase::write(frame, flags) };
    write(TASK_PRIORITY, 0);
    for lvt in [LVT_LINT0, LVT_LINT1, LVT_ERROR] {
        write(lvt, MASKED);
    }
    write(DIVIDE, 0b1011); // by 1
    write(LVT_TIMER, u32::from(TIMER)); // one-shot
    write(INITIAL_COUNT, 0);
    write(SPURIOUS_VECTOR, 0x100 | u32::from(SPURIOUS));
    percpu::this().apic_id.store(u64::from(id()), Ordering::Relaxed);
}

/// The hardware id of this CPU.
pub fn id() -> u32 {
    if X2.load(Ordering::Relaxed) { read(ID) } else { read(ID) >> 24 }
}

/// Tells the APIC that the interrupt is handled.
#[inline]
pub fn eoi() {
    write(EOI, 0);
}

/// Starts the timer: an interrupt after `ticks`, or never for 0.
pub fn set_timer(ticks: u32) {
    write(INITIAL_COUNT, ticks);
}

/// What the timer still has to count.
pub fn timer() -> u32 {
    read(CURRENT_COUNT)
}

/// Physical destination, no shorthand: the only way to write the command register.
fn command(target: u32, what: u32) {
    if X2.load(Ordering::Relaxed) {
        // SAFETY: the ICR of an x2APIC is one MSR.
        unsafe { Msr::new(0x830).write(u64::from(target) << 32 | u64::from(what | ASSERT)) };
        return;
    }
    while read(COMMAND) & PENDING != 0 {
        crate::relax();
    }
    write(COMMAND_HIGH, target << 24);
    write(COMMAND, what | ASSERT);
}

/// Interrupts one CPU.
pub fn send(target: u32, vector: u8) {
    // Stores before this one are visible to the target's handler: an x2APIC write is not ordered by itself (SDM vol. 3A, 11.12.3).
    core::sync::atomic::fence(Ordering::SeqCst);
    command(target, u32::from(vector));
}

/// Puts one CPU into reset, waiting for [`send_startup`].
///
/// # Safety
/// The plan gives the CPU to a kernel that is meant to lose it, and the caller holds its token.
pub unsafe fn send_init(target: u32) {
    command(target, DELIVER_INIT);
}

/// Starts one CPU in real mode at `page`, below 1 MiB.
///
/// # Safety
/// As [`send_init`]; the page holds a trampoline.
pub unsafe fn send_startup(target: u32, page: u64) {
    command(target, DELIVER_STARTUP | (page >> 12) as u32 & 0xff);
}

/// Sends a non-maskable interrupt.
///
/// # Safety
/// As [`send_init`].
pub unsafe fn send_nmi(target: u32) {
    command(target, DELIVER_NMI);
}

// ---- I/O APIC: only in the kernel that owns it; its peers get no lines ----

/// Physical address of the I/O APIC's registers, 0 until this kernel uses it.
static IO: AtomicU64 = AtomicU64::new(0);
static IO_LOCK: Spin<()> = Spin::new(());

fn io_write(register: u32, value: u32) {
    let base = paging::WINDOW + IO.load(Ordering::Relaxed);
    // SAFETY: mapped by `take_io`; the lock is held.
    unsafe {
        (base as *mut u32).write_volatile(register);
        ((base + 0x10) as *mut u32).write_volatile(value);
    }
}

/// Masks all lines of the interrupt controllers of the PC/AT. Only in the kernel that firmware started.
pub fn mask_old_controllers() {
    for port in [0x21, 0xa1] {
        // SAFETY: the mask register of a controller that belongs to this kernel.
        unsafe { x86_64::instructions::port::Port::<u8>::new(port).write(0xff) };
    }
}

/// Takes the I/O APIC that ACPI names when its owner first uses it: maps it and masks all its lines, which an owner that died
/// may have left in any state.
fn take_io() -> Result<(), Refused> {
    let _held = IO_LOCK.lock();
    if IO.load(Ordering::Relaxed) != 0 {
        return Ok(());
    }
    let at = acpi::io_apic().ok_or(Refused("there is no I/O APIC"))?;
    paging::map_window(PhysRange::new(at, 0x1000), WindowAttr::Device)?;
    IO.store(at, Ordering::Relaxed);
    for line in 0..u32::from(LINES) {
        io_write(0x10 + 2 * line, MASKED);
    }
    Ok(())
}

/// Routes a line (below 16: an ISA interrupt) to the CPU that calls. Only for kernels that the plan lets do that.
pub fn enable_line(line: u32) -> Result<(), Refused> {
    take_io()?;
    let (pin, low, level) = acpi::line(line);
    if line >= u32::from(LINES) || pin >= u32::from(LINES) {
        return Err(Refused("no such interrupt line"));
    }
    let _held = IO_LOCK.lock();
    io_write(0x11 + 2 * pin, id() << 24);
    io_write(0x10 + 2 * pin, (u32::from(LINE) + line) | (u32::from(low) << 13) | u32::from(level) << 15);
    Ok(())
}

/// Masks a line.
pub fn disable_line(line: u32) {
    let (pin, ..) = acpi::line(line);
    if IO.load(Ordering::Relaxed) != 0 && pin < u32::from(LINES) {
        let _held = IO_LOCK.lock();
        io_write(0x10 + 2 * pin, MASKED);
    }
}

// ---- Message-signalled interrupts ----

static MSI_USED: [AtomicU32; 8] = [const { AtomicU32::new(0) }; 8];

/// A vector of its own for a device: (line, address, data) for the CPU of `slot`.
pub fn msi_alloc(slot: usize) -> Result<(u32, u64, u32), Refused> {
    let cpu = percpu::of(slot).ok_or(Refused("no such CPU"))?;
    for vector in MSI..MSI_END {
        let (word, bit) = (usize::from(vector / 32), 1 << (vector % 32));
        if MSI_USED[word].fetch_or(bit, Ordering::AcqRel) & bit == 0 {
            let target = cpu.apic_id.load(Ordering::Relaxed) & 0xff;
            return Ok((MSI_LINE + u32::from(vector), LOCAL | target << 12, u32::from(vector)));
        }
    }
    Err(Refused("no vector is free"))
}

/// Gives it back.
pub fn msi_free(line: u32) {
    let Some(vector) = line.checked_sub(MSI_LINE) else { return };
    if (u32::from(MSI)..u32::from(MSI_END)).contains(&vector) {
        MSI_USED[(vector / 32) as usize].fetch_and(!(1 << (vector % 32)), Ordering::AcqRel);
    }
}
