//! Exceptions and interrupts.
//!
//! While a program runs, the kernel's stack pointer points to the thread's [`Registers`], so entries save straight into them, then go on in the
//! kernel where [`crate::user`] left: entering user mode looks like a function call that returns why it ended. From kernel mode they are saved on
//! the stack and [`kernel_trap`] or [`kernel_irq`] is called.
//!
//! The kernel runs with interrupts (I) masked; fast interrupts (F) are open outside the first instructions of an entry: they are how a peer that
//! fences this kernel stops a CPU, whatever it does.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use hal_api::{Ipi, Upcalls};

use crate::gic;
use crate::paging::STACK_SIZE;
use crate::percpu::{self, OFF_EMERGENCY};

/// The state of an interrupted program, as the entries store it.
#[derive(Clone, Debug, Default)]
#[repr(C, align(16))]
pub struct Registers {
    /// x0 to x30.
    pub x: [u64; 31],
    /// Stack pointer.
    pub sp: u64,
    /// Program counter.
    pub pc: u64,
    /// Flags and state (SPSR_EL1).
    pub pstate: u64,
    /// What happened: [`SYNC`] or [`IRQ`].
    pub kind: u64,
    /// The syndrome (ESR_EL1).
    pub esr: u64,
    /// The address of a fault (FAR_EL1).
    pub far: u64,
    /// The kernel's stack while the program runs.
    pub kernel_sp: u64,
}

const _: () = assert!(core::mem::size_of::<Registers>() == 304 && core::mem::offset_of!(Registers, kernel_sp) == 296);

/// In [`Registers::kind`]: an exception or a system call.
pub const SYNC: u64 = 0;
/// In [`Registers::kind`]: an interrupt.
pub const IRQ: u64 = 1;

/// What interrupted code in the kernel needs back.
#[derive(Debug)]
#[repr(C)]
pub struct KernelFrame {
    /// x0 to x18.
    pub x: [u64; 19],
    pad: u64,
    /// Frame pointer and link register.
    pub fp: u64,
    lr: u64,
    /// Where it goes on.
    pub elr: u64,
    spsr: u64,
}

const _: () = assert!(core::mem::size_of::<KernelFrame>() == 192);

global_asm!(
    r#"
    .text
    .macro from_user kind
    .balign 128
    stp x0, x1, [sp]
    mov x0, #\kind
    b user_entry
    .endm
    .macro fenced
    .balign 128
    mrs x0, tpidr_el1
    ldr x0, [x0, #{emergency}]
    mov sp, x0
    b {park}
    .endm
    .macro no_way
    .balign 128
    mrs x0, tpidr_el1
    ldr x0, [x0, #{emergency}]
    mov sp, x0
    mrs x0, elr_el1
    mov x1, x29
    b {lost}
    .endm
    .macro save_frame
    stp x0, x1, [sp]
    stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    stp x16, x17, [sp, #128]
    str x18, [sp, #144]
    stp x29, x30, [sp, #160]
    mrs x0, elr_el1
    mrs x1, spsr_el1
    stp x0, x1, [sp, #176]
    mov x0, sp
    .endm

    .balign 2048
    .global vectors
vectors:
    no_way
    no_way
    fenced
    no_way

    .balign 128
    sub sp, sp, #192
    // A stack is the upper half of a piece of twice its size: with this bit clear it has overflowed.
    msr tpidrro_el0, x0
    mov x0, sp
    tbz x0, #{stack_bit}, stack_overflow
    mrs x0, tpidrro_el0
    msr tpidrro_el0, xzr
    b kernel_sync_entry
    .balign 128
    sub sp, sp, #192
    b kernel_irq_entry
    fenced
    no_way

    from_user 0
    from_user 1
    fenced
    from_user 2
    no_way
    no_way
    no_way
    no_way

    .balign 128
kernel_sync_entry:
    save_frame
    msr daifclr, #1
    bl {kernel_trap}
    b kernel_return
kernel_irq_entry:
    save_frame
    msr daifclr, #1
    bl {kernel_irq}
kernel_return:
    ldp x0, x1, [sp, #176]
    msr elr_el1, x0
    msr spsr_el1, x1
    ldp x29, x30, [sp, #160]
    ldr x18, [sp, #144]
    ldp x16, x17, [sp, #128]
    ldp x14, x15, [sp, #112]
    ldp x12, x13, [sp, #96]
    ldp x10, x11, [sp, #80]
    ldp x8, x9, [sp, #64]
    ldp x6, x7, [sp, #48]
    ldp x4, x5, [sp, #32]
    ldp x2, x3, [sp, #16]
    ldp x0, x1, [sp]
    add sp, sp, #192
    eret

stack_overflow:
    mrs x1, elr_el1
    mrs x2, far_el1
    mov x3, x29
    mrs x0, tpidr_el1
    ldr x0, [x0, #{emergency}]
    mov sp, x0
    mov x0, x2
    mov x2, x3
    b {overflow}

user_entry:
    stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    stp x16, x17, [sp, #128]
    stp x18, x19, [sp, #144]
    stp x20, x21, [sp, #160]
    stp x22, x23, [sp, #176]
    stp x24, x25, [sp, #192]
    stp x26, x27, [sp, #208]
    stp x28, x29, [sp, #224]
    mrs x1, sp_el0
    stp x30, x1, [sp, #240]
    mrs x1, elr_el1
    mrs x2, spsr_el1
    stp x1, x2, [sp, #256]
    mrs x1, esr_el1
    stp x0, x1, [sp, #272]
    mrs x1, far_el1
    str x1, [sp, #288]
    ldr x1, [sp, #296]
    mov sp, x1
    msr daifclr, #1
    ldp x19, x20, [sp, #16]
    ldp x21, x22, [sp, #32]
    ldp x23, x24, [sp, #48]
    ldp x25, x26, [sp, #64]
    ldp x27, x28, [sp, #80]
    ldp x29, x30, [sp], #96
    ret

    // enter_user(x0 = Registers): returns when the program is back in the kernel.
    .balign 16
    .global enter_user
enter_user:
    stp x29, x30, [sp, #-96]!
    stp x19, x20, [sp, #16]
    stp x21, x22, [sp, #32]
    stp x23, x24, [sp, #48]
    stp x25, x26, [sp, #64]
    stp x27, x28, [sp, #80]
    mov x9, sp
    str x9, [x0, #296]
    ldp x1, x2, [x0, #256]
    msr elr_el1, x1
    msr spsr_el1, x2
    mov sp, x0
    ldp x30, x1, [sp, #240]
    msr sp_el0, x1
    ldp x28, x29, [sp, #224]
    ldp x26, x27, [sp, #208]
    ldp x24, x25, [sp, #192]
    ldp x22, x23, [sp, #176]
    ldp x20, x21, [sp, #160]
    ldp x18, x19, [sp, #144]
    ldp x16, x17, [sp, #128]
    ldp x14, x15, [sp, #112]
    ldp x12, x13, [sp, #96]
    ldp x10, x11, [sp, #80]
    ldp x8, x9, [sp, #64]
    ldp x6, x7, [sp, #48]
    ldp x4, x5, [sp, #32]
    ldp x2, x3, [sp, #16]
    ldp x0, x1, [sp]
    eret
    "#,
    emergency = const OFF_EMERGENCY,
    stack_bit = const STACK_SIZE.trailing_zeros(),
    kernel_trap = sym kernel_trap,
    kernel_irq = sym kernel_irq,
    park = sym crate::smp::park,
    lost = sym lost,
    overflow = sym overflow,
);

unsafe extern "C" {
    static vectors: u8;
    static __extable_start: [u64; 2];
    static __extable_end: [u64; 2];
    /// Runs the program; its registers are in `regs` again when this returns.
    pub fn enter_user(regs: *mut Registers);
}

/// Makes this CPU use the vectors.
pub fn load_vectors() {
    // SAFETY: the table is complete and lives for ever.
    unsafe { asm!("msr vbar_el1, {}", "isb", in(reg) &raw const vectors, options(nostack, preserves_flags)) };
}

struct Up(UnsafeCell<Option<&'static dyn Upcalls>>);
// SAFETY: written once before other CPUs run and before interrupts are let in.
unsafe impl Sync for Up {}

static UP: Up = Up(UnsafeCell::new(None));

/// Sets whom to call up.
///
/// # Safety
/// Once, before other CPUs run and interrupts are let in.
pub unsafe fn set_upcalls(up: &'static dyn Upcalls) {
    // SAFETY: see above.
    unsafe { *UP.0.get() = Some(up) };
}

/// Whom to call up.
pub fn upcalls() -> Option<&'static dyn Upcalls> {
    // SAFETY: not written any more once it can be read by others.
    unsafe { *UP.0.get() }
}

/// Handles the interrupts that are pending. Interrupts are off and this CPU holds no lock (C1).
pub fn interrupts() {
    while let Some((id, word)) = gic::acknowledge() {
        if id == gic::TIMER {
            crate::clock::silence();
        }
        gic::end(word);
        let Some(up) = upcalls() else { continue };
        match id {
            gic::TIMER => {
                if crate::clock::deadline_passed() {
                    up.timer();
                }
            }
            gic::KICK => up.ipi(Ipi::Kick),
            gic::SHOOTDOWN => up.ipi(Ipi::Shootdown),
            gic::STOP => up.ipi(Ipi::Stop),
            gic::DOORBELL => up.doorbell(),
            line if line >= gic::LINES => up.irq(line),
            id => crate::println!("kernel {}: interrupt {id} that nobody asked for", crate::console::index()),
        }
    }
}

extern "C" fn kernel_irq(_: &mut KernelFrame) {
    interrupts();
}

/// Where to go on after a fault at `ip`, if that instruction is allowed to fault.
fn fixup(ip: u64) -> Option<u64> {
    let mut at = &raw const __extable_start;
    let end = &raw const __extable_end;
    while at < end {
        // SAFETY: between the linker's symbols lie pairs.
        let [insn, to] = unsafe { *at };
        if insn == ip {
            return Some(to);
        }
        // SAFETY: at most one past the end.
        at = unsafe { at.add(1) };
    }
    None
}

/// Exception classes of aborts without a change of level (Arm ARM, ESR_ELx.EC).
const INSTRUCTION_ABORT: u64 = 0x21;
const DATA_ABORT: u64 = 0x25;

fn syndrome() -> (u64, u64) {
    let (esr, far): (u64, u64);
    // SAFETY: reads registers.
    unsafe { asm!("mrs {}, esr_el1", "mrs {}, far_el1", out(reg) esr, out(reg) far, options(nomem, nostack)) };
    (esr, far)
}

extern "C" fn kernel_trap(frame: &mut KernelFrame) {
    let (esr, far) = syndrome();
    let class = esr >> 26;
    if class == DATA_ABORT {
        if let Some(to) = fixup(frame.elr) {
            frame.elr = to;
            return;
        }
        if crate::paging::is_back(far) {
            return;
        }
    }
    let (elr, fp) = (frame.elr, frame.fp);
    if matches!(class, DATA_ABORT | INSTRUCTION_ABORT) {
        let how = match (class == INSTRUCTION_ABORT, esr & 1 << 6 != 0) {
            (true, _) => "executed",
            (_, true) => "wrote",
            _ => "read",
        };
        if let Some((phys, kernel)) = crate::paging::peer_at(far) {
            let k = crate::console::index();
            let what = format_args!("kernel {k} touched private memory of kernel {kernel} at {phys:#x} ({how})");
            die(what, elr, fp);
        }
        die(format_args!("page fault in the kernel: {how} {far:#x}, syndrome {esr:#x}"), elr, fp);
    }
    die(format_args!("exception in the kernel, syndrome {esr:#x}"), elr, fp)
}

static DYING: AtomicBool = AtomicBool::new(false);

fn die(what: core::fmt::Arguments<'_>, ip: u64, fp: u64) -> ! {
    if DYING.swap(true, Ordering::AcqRel) {
        crate::println!("kernel {}: {what} at {ip:#x} while it died", crate::console::index());
        crate::exit::halt();
    }
    match upcalls() {
        Some(up) => up.kernel_fault(what, ip, fp),
        None => {
            crate::println!("kernel {}: {what}", crate::console::index());
            crate::panic::backtrace(Some(ip), fp);
            crate::exit::exit(1)
        }
    }
}

extern "C" fn overflow(far: u64, ip: u64, fp: u64) -> ! {
    die(format_args!("kernel stack overflow at {far:#x}"), ip, fp)
}

/// An exception that cannot be: with the user's stack pointer, of 32-bit code, or an error of the memory system.
extern "C" fn lost(ip: u64, fp: u64) -> ! {
    let (esr, far) = syndrome();
    die(format_args!("impossible exception on CPU {}: syndrome {esr:#x}, address {far:#x}", percpu::slot()), ip, fp)
}
