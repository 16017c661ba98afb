//! Exceptions and interrupts.
//!
//! While a program runs, `sscratch` points to the thread's [`Registers`], so entries save straight into them, then go on in the kernel where
//! [`crate::user`] left: entering user mode looks like a function call that returns why it ended. In the kernel `sscratch` is 0; there they are saved
//! on the stack and [`kernel_trap`] or [`kernel_irq`] is called.
//!
//! The kernel runs with interrupts enabled (`sstatus.SIE`) outside the first instructions of an entry, but only the urgent one is open (`sie`): it is how
//! a peer that fences this kernel stops a CPU, whatever it does.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use hal_api::Upcalls;

use crate::cpu::{ALL, FS, SUM, URGENT};
use crate::imsic::{self, Event};
use crate::paging::STACK_SIZE;
use crate::percpu::OFF_EMERGENCY;

/// The state of an interrupted program, as the entries store it.
#[derive(Clone, Debug, Default)]
#[repr(C, align(16))]
pub struct Registers {
    /// Program counter.
    pub pc: u64,
    /// x1 to x31.
    pub x: [u64; 31],
    /// `sstatus`.
    pub status: u64,
    /// What happened (`scause`).
    pub cause: u64,
    /// The address of a fault (`stval`).
    pub value: u64,
    /// The kernel's stack while the program runs.
    pub kernel_sp: u64,
    /// This CPU's block while the program runs.
    pub kernel_tp: u64,
}

const _: () = assert!(
    core::mem::offset_of!(Registers, status) == 256
        && core::mem::offset_of!(Registers, value) == 272
        && core::mem::offset_of!(Registers, kernel_tp) == 288
);

/// In `scause`: an interrupt.
pub const INTERRUPT: u64 = 1 << 63;
/// Interrupts: a peer's fence, the timer, a message.
const SOFTWARE: u64 = INTERRUPT | 1;
const TIMER: u64 = INTERRUPT | 5;
const EXTERNAL: u64 = INTERRUPT | 9;
/// Exceptions (privileged architecture, "scause").
pub const ILLEGAL: u64 = 2;
pub const BREAKPOINT: u64 = 3;
pub const ECALL: u64 = 8;
pub const FETCH_PAGE: u64 = 12;
pub const LOAD_PAGE: u64 = 13;
pub const STORE_PAGE: u64 = 15;

/// What interrupted code in the kernel needs back: what a call may change.
#[derive(Debug)]
#[repr(C)]
pub struct KernelFrame {
    /// ra, t0 to t6, a0 to a7.
    x: [u64; 16],
    /// Where it goes on.
    pub pc: u64,
    status: u64,
    /// Frame pointer.
    pub fp: u64,
    pad: u64,
}

const _: () = assert!(core::mem::size_of::<KernelFrame>() == 160);

global_asm!(
    r#"
    .text
    .balign 4
    .global trap_entry
trap_entry:
    csrrw sp, sscratch, sp
    beqz sp, from_kernel
    sd ra, 8(sp)
    sd gp, 24(sp)
    sd tp, 32(sp)
    sd t0, 40(sp)
    sd t1, 48(sp)
    sd t2, 56(sp)
    sd s0, 64(sp)
    sd s1, 72(sp)
    sd a0, 80(sp)
    sd a1, 88(sp)
    sd a2, 96(sp)
    sd a3, 104(sp)
    sd a4, 112(sp)
    sd a5, 120(sp)
    sd a6, 128(sp)
    sd a7, 136(sp)
    sd s2, 144(sp)
    sd s3, 152(sp)
    sd s4, 160(sp)
    sd s5, 168(sp)
    sd s6, 176(sp)
    sd s7, 184(sp)
    sd s8, 192(sp)
    sd s9, 200(sp)
    sd s10, 208(sp)
    sd s11, 216(sp)
    sd t3, 224(sp)
    sd t4, 232(sp)
    sd t5, 240(sp)
    sd t6, 248(sp)
    csrr t0, sepc
    csrrw t1, sscratch, zero
    sd t0, 0(sp)
    sd t1, 16(sp)
    csrr t0, sstatus
    csrr t1, scause
    csrr t2, stval
    sd t0, 256(sp)
    sd t1, 264(sp)
    sd t2, 272(sp)
    ld tp, 288(sp)
    ld sp, 280(sp)
    li t0, {urgent}
    csrw sie, t0
    li t0, {fs}
    csrc sstatus, t0
    csrsi sstatus, 2
    ld ra, 0(sp)
    ld s0, 8(sp)
    ld s1, 16(sp)
    ld s2, 24(sp)
    ld s3, 32(sp)
    ld s4, 40(sp)
    ld s5, 48(sp)
    ld s6, 56(sp)
    ld s7, 64(sp)
    ld s8, 72(sp)
    ld s9, 80(sp)
    ld s10, 88(sp)
    ld s11, 96(sp)
    addi sp, sp, 112
    ret

from_kernel:
    csrrw sp, sscratch, sp
    addi sp, sp, -160
    // A stack is the upper half of a piece of twice its size: with this bit clear it has overflowed.
    csrw sscratch, t0
    srli t0, sp, {stack_bit}
    andi t0, t0, 1
    beqz t0, stack_overflow
    csrrw t0, sscratch, zero
    sd ra, 0(sp)
    sd t0, 8(sp)
    sd t1, 16(sp)
    sd t2, 24(sp)
    sd t3, 32(sp)
    sd t4, 40(sp)
    sd t5, 48(sp)
    sd t6, 56(sp)
    sd a0, 64(sp)
    sd a1, 72(sp)
    sd a2, 80(sp)
    sd a3, 88(sp)
    sd a4, 96(sp)
    sd a5, 104(sp)
    sd a6, 112(sp)
    sd a7, 120(sp)
    csrr t0, sepc
    csrr t1, sstatus
    sd t0, 128(sp)
    sd t1, 136(sp)
    sd s0, 144(sp)
    csrr a1, scause
    csrr a2, stval
    mv a0, sp
    bltz a1, 1f
    csrsi sstatus, 2
    call {kernel_trap}
    csrci sstatus, 2
    j kernel_return
1:  li t0, {urgent}
    csrw sie, t0
    // The urgent one itself is pending until it is served: let in now, it would come again and again until the stack is used up.
    slli t1, a1, 1
    li t2, {urgent_cause}
    beq t1, t2, 2f
    csrsi sstatus, 2
2:  call {kernel_irq}
    csrci sstatus, 2
    // They came in where the kernel lets them.
    li t0, {all}
    csrw sie, t0
kernel_return:
    ld t0, 128(sp)
    ld t1, 136(sp)
    csrw sepc, t0
    csrw sstatus, t1
    ld ra, 0(sp)
    ld t0, 8(sp)
    ld t1, 16(sp)
    ld t2, 24(sp)
    ld t3, 32(sp)
    ld t4, 40(sp)
    ld t5, 48(sp)
    ld t6, 56(sp)
    ld a0, 64(sp)
    ld a1, 72(sp)
    ld a2, 80(sp)
    ld a3, 88(sp)
    ld a4, 96(sp)
    ld a5, 104(sp)
    ld a6, 112(sp)
    ld a7, 120(sp)
    addi sp, sp, 160
    sret

stack_overflow:
    csrw sscratch, zero
    ld sp, {emergency}(tp)
    csrr a0, stval
    csrr a1, sepc
    mv a2, s0
    tail {overflow}

    // enter_user(a0 = Registers): returns when the program is back in the kernel.
    .balign 16
    .global enter_user
enter_user:
    addi sp, sp, -112
    sd ra, 0(sp)
    sd s0, 8(sp)
    sd s1, 16(sp)
    sd s2, 24(sp)
    sd s3, 32(sp)
    sd s4, 40(sp)
    sd s5, 48(sp)
    sd s6, 56(sp)
    sd s7, 64(sp)
    sd s8, 72(sp)
    sd s9, 80(sp)
    sd s10, 88(sp)
    sd s11, 96(sp)
    sd sp, 280(a0)
    sd tp, 288(a0)
    csrci sstatus, 2
    ld t0, 0(a0)
    ld t1, 256(a0)
    csrw sepc, t0
    csrw sstatus, t1
    li t0, {all}
    csrw sie, t0
    csrw sscratch, a0
    ld ra, 8(a0)
    ld sp, 16(a0)
    ld gp, 24(a0)
    ld tp, 32(a0)
    ld t0, 40(a0)
    ld t1, 48(a0)
    ld t2, 56(a0)
    ld s0, 64(a0)
    ld s1, 72(a0)
    ld a1, 88(a0)
    ld a2, 96(a0)
    ld a3, 104(a0)
    ld a4, 112(a0)
    ld a5, 120(a0)
    ld a6, 128(a0)
    ld a7, 136(a0)
    ld s2, 144(a0)
    ld s3, 152(a0)
    ld s4, 160(a0)
    ld s5, 168(a0)
    ld s6, 176(a0)
    ld s7, 184(a0)
    ld s8, 192(a0)
    ld s9, 200(a0)
    ld s10, 208(a0)
    ld s11, 216(a0)
    ld t3, 224(a0)
    ld t4, 232(a0)
    ld t5, 240(a0)
    ld t6, 248(a0)
    ld a0, 80(a0)
    sret
    "#,
    urgent = const URGENT,
    urgent_cause = const SOFTWARE << 1,
    all = const ALL,
    fs = const FS,
    emergency = const OFF_EMERGENCY,
    stack_bit = const STACK_SIZE.trailing_zeros(),
    kernel_trap = sym kernel_trap,
    kernel_irq = sym kernel_irq,
    overflow = sym overflow,
);

unsafe extern "C" {
    static trap_entry: u8;
    static __extable_start: [u64; 2];
    static __extable_end: [u64; 2];
    /// Runs the program; its registers are in `regs` again when this returns.
    pub fn enter_user(regs: *mut Registers);
}

/// Makes this CPU come here.
pub fn load_vector() {
    // SAFETY: the entry lives for ever and is a multiple of 4: it handles everything itself.
    unsafe {
        asm!("csrw sscratch, zero", "csrw stvec, {}", in(reg) &raw const trap_entry, options(nostack, preserves_flags));
    }
}

struct Up(UnsafeCell<Option<&'static dyn Upcalls>>);
// SAFETY: written once before other CPUs run and before interrupts are let in.
unsafe impl Sync for Up {}

static UP: Up = Up(UnsafeCell::new(None));

/// Sets whom interrupts are told.
///
/// # Safety
/// Once, before other CPUs run and before interrupts are let in.
pub unsafe fn set_upcalls(up: &'static dyn Upcalls) {
    // SAFETY: see above.
    unsafe { *UP.0.get() = Some(up) };
}

/// Whom interrupts are told.
pub fn upcalls() -> Option<&'static dyn Upcalls> {
    // SAFETY: written before it is read.
    unsafe { *UP.0.get() }
}

/// Serves the interrupt of `cause`. This CPU holds no lock (C1), unless it is to stop for good.
pub fn interrupt(cause: u64) {
    match cause {
        SOFTWARE => crate::smp::park(),
        TIMER => {
            crate::clock::silence();
            if crate::clock::deadline_passed()
                && let Some(up) = upcalls()
            {
                up.timer();
            }
        }
        EXTERNAL => messages(),
        other => crate::println!("kernel {}: interrupt {other:#x} that nobody asked for", crate::console::index()),
    }
}

fn messages() {
    while let Some(event) = imsic::next() {
        let Some(up) = upcalls() else { continue };
        match event {
            Event::Ipi(kind) => up.ipi(kind),
            Event::Doorbell => up.doorbell(),
            Event::Line(line) => {
                up.irq(line);
                imsic::served(line);
            }
            Event::Unknown(id) => {
                crate::println!("kernel {}: message {id} that nobody asked for", crate::console::index());
            }
        }
    }
}

extern "C" fn kernel_irq(_: &mut KernelFrame, cause: u64) {
    interrupt(cause);
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

/// Whether user memory was open: the fault is that of a copy.
const fn in_copy(frame: &KernelFrame) -> bool {
    frame.status & SUM != 0
}

extern "C" fn kernel_trap(frame: &mut KernelFrame, cause: u64, value: u64) {
    if cause > BREAKPOINT
        && in_copy(frame)
        && let Some(to) = fixup(frame.pc)
    {
        frame.pc = to;
        return;
    }
    let (pc, fp) = (frame.pc, frame.fp);
    let how = match cause {
        FETCH_PAGE => "executed",
        LOAD_PAGE => "read",
        STORE_PAGE => "wrote",
        _ => die(format_args!("exception in the kernel, cause {cause}, value {value:#x}"), pc, fp),
    };
    if let Some((phys, kernel)) = crate::paging::peer_at(value) {
        let k = crate::console::index();
        die(format_args!("kernel {k} touched private memory of kernel {kernel} at {phys:#x} ({how})"), pc, fp);
    }
    if crate::paging::is_stack_guard(value) {
        die(format_args!("kernel stack overflow at {value:#x}"), pc, fp);
    }
    die(format_args!("page fault in the kernel: {how} {value:#x}"), pc, fp)
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

extern "C" fn overflow(value: u64, ip: u64, fp: u64) -> ! {
    die(format_args!("kernel stack overflow at {value:#x}"), ip, fp)
}
