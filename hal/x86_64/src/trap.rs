//! Exceptions and interrupts.
//!
//! From user mode the CPU and the stubs save the registers straight into the thread's [`Registers`] (`rsp0` points to their end), then go
//! on in the kernel where [`crate::user`] left: entering user mode looks like a function call that returns why it ended. From kernel
//! mode they are saved on the stack and [`kernel_trap`] is called.

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

use hal_api::{Ipi, Upcalls};
use x86_64::registers::control::Cr2;

use crate::percpu::{self, KERNEL_CS, OFF_KERNEL_RSP, OFF_RSP0, OFF_SCRATCH, OFF_USER, Pointer};

/// The integer state of interrupted code, in the order in which it is pushed.
#[derive(Clone, Debug, Default)]
#[repr(C, align(16))]
#[allow(missing_docs)]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// What happened: an exception or interrupt vector, or [`SYSCALL`].
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// Where [`Registers`] end: what the CPU gets as `rsp0`.
const END: usize = 0xb0;
const _: () = assert!(core::mem::size_of::<Registers>() == END);

/// In [`Registers::vector`]: the thread came by `syscall` and may go back by `sysret`, which destroys rcx and r11.
pub const SYSCALL: u64 = 0x100;

/// First vector of the wired lines: line `n` is vector `LINE + n`.
pub const LINE: u8 = 0x30;
/// Number of wired lines.
pub const LINES: u8 = 0x18;
/// First message-signalled vector.
pub const MSI: u8 = 0x50;
/// After the last message-signalled vector.
pub const MSI_END: u8 = 0xe0;
/// IPI: look at your run queue.
pub const KICK: u8 = 0xf0;
/// IPI: serve TLB shootdowns.
pub const SHOOTDOWN: u8 = 0xf1;
/// IPI: stop for good.
pub const STOP: u8 = 0xf2;
/// A peer kernel rang. The same vector in all kernels.
pub const DOORBELL: u8 = 0xf3;
/// The local timer.
pub const TIMER: u8 = 0xf4;
/// IPI: forget kernel translations.
pub const FLUSH: u8 = 0xf5;
/// The local APIC had nothing to say after all.
pub const SPURIOUS: u8 = 0xff;

global_asm!(
    r#"
    .text
    .balign 16
    .global trap_stubs
trap_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
    .else
    pushq $0                            # keep the frame uniform where the CPU gives no error code
    .endif
    pushq $vector
    .if vector == 2 || vector == 8 || vector == 18
    jmp trap_ist
    .else
    jmp trap_common
    .endif
    .set vector, vector + 1
    .endr

    .balign 16
trap_common:
    testb $3, 24(%rsp)
    jz 1f
    swapgs
    push %rdi
    push %rsi
    push %rdx
    push %rcx
    push %rax
    push %r8
    push %r9
    push %r10
    push %r11
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    jmp leave_user

1:  push %rdi
    push %rsi
    push %rdx
    push %rcx
    push %rax
    push %r8
    push %r9
    push %r10
    push %r11
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    call {kernel_trap}
trap_return:
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rax
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    add $16, %rsp
    iretq

    # NMI, double fault, machine check: on a stack of their own, anywhere, even where GS is still the program's.
    .balign 16
trap_ist:
    push %rdi
    push %rsi
    push %rdx
    push %rcx
    push %rax
    push %r8
    push %r9
    push %r10
    push %r11
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov $0xc0000101, %ecx               # GS base: keep the old one, take the one on top of this stack
    rdmsr
    mov %eax, %r12d
    mov %edx, %r13d
    mov {end}(%rsp), %rax
    mov %rax, %rdx
    shr $32, %rdx
    wrmsr
    mov %rsp, %rdi
    call {ist_trap}
    mov $0xc0000101, %ecx
    mov %r12d, %eax
    mov %r13d, %edx
    wrmsr
    jmp trap_return

    .balign 16
    .global syscall_entry
syscall_entry:
    swapgs
    mov %rsp, %gs:{scratch}
    mov %gs:{user}, %rsp
    mov %r15, 0x00(%rsp)
    mov %r14, 0x08(%rsp)
    mov %r13, 0x10(%rsp)
    mov %r12, 0x18(%rsp)
    mov %rbp, 0x20(%rsp)
    mov %rbx, 0x28(%rsp)
    mov %r10, 0x38(%rsp)
    mov %r9, 0x40(%rsp)
    mov %r8, 0x48(%rsp)
    mov %rax, 0x50(%rsp)
    mov %rdx, 0x60(%rsp)
    mov %rsi, 0x68(%rsp)
    mov %rdi, 0x70(%rsp)
    movq ${syscall}, 0x78(%rsp)
    mov %rcx, 0x88(%rsp)
    mov %r11, 0x98(%rsp)
    mov %gs:{scratch}, %rcx
    mov %rcx, 0xa0(%rsp)
leave_user:
    mov %gs:{kernel_rsp}, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

    # enter_user(rdi = Registers): returns when the program is back in the kernel.
    .balign 16
    .global enter_user
enter_user:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, %gs:{kernel_rsp}
    mov %rdi, %gs:{user}
    lea {end}(%rdi), %rax
    mov %rax, %gs:{rsp0}
    cmpl ${syscall}, 0x78(%rdi)
    jne 2f
    mov 0x00(%rdi), %r15
    mov 0x08(%rdi), %r14
    mov 0x10(%rdi), %r13
    mov 0x18(%rdi), %r12
    mov 0x20(%rdi), %rbp
    mov 0x28(%rdi), %rbx
    mov 0x38(%rdi), %r10
    mov 0x40(%rdi), %r9
    mov 0x48(%rdi), %r8
    mov 0x50(%rdi), %rax
    mov 0x60(%rdi), %rdx
    mov 0x68(%rdi), %rsi
    mov 0x88(%rdi), %rcx
    mov 0x98(%rdi), %r11
    mov 0xa0(%rdi), %rsp
    mov 0x70(%rdi), %rdi
    swapgs
    sysretq
2:  mov %rdi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rax
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    add $16, %rsp
    swapgs
    iretq
    "#,
    kernel_trap = sym kernel_trap,
    ist_trap = sym ist_trap,
    end = const END,
    syscall = const SYSCALL,
    scratch = const OFF_SCRATCH,
    user = const OFF_USER,
    kernel_rsp = const OFF_KERNEL_RSP,
    rsp0 = const OFF_RSP0,
    options(att_syntax),
);

unsafe extern "C" {
    static trap_stubs: [u8; 256 * 16];
    static __extable_start: [u64; 2];
    static __extable_end: [u64; 2];
    /// Runs the program; its registers are in `regs` again when this returns.
    pub fn enter_user(regs: *mut Registers);
}

struct Idt(UnsafeCell<[[u64; 2]; 256]>);
// SAFETY: written once by the boot CPU before any other CPU runs.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; 256]));

/// Fills the interrupt descriptor table. Once, on the boot CPU.
pub fn init_idt() {
    // SAFETY: nobody else uses the table yet.
    let idt = unsafe { &mut *IDT.0.get() };
    for (vector, gate) in idt.iter_mut().enumerate() {
        let at = (&raw const trap_stubs) as u64 + vector as u64 * 16;
        let ist = match vector {
            8 => 1,
            2 | 18 => 2,
            _ => 0,
        };
        // int3 and into may be used by programs.
        let privilege = if matches!(vector, 3 | 4) { 3 } else { 0 };
        gate[0] = (at & 0xffff)
            | u64::from(KERNEL_CS) << 16
            | ist << 32
            | (0x8e | privilege << 5) << 40
            | (at >> 16 & 0xffff) << 48;
        gate[1] = at >> 32;
    }
}

/// Makes this CPU use the table.
pub fn load_idt() {
    let p = Pointer { limit: 256 * 16 - 1, base: IDT.0.get() as u64 };
    // SAFETY: the table is complete and lives for ever.
    unsafe { asm!("lidt [{}]", in(reg) &p, options(readonly, nostack, preserves_flags)) };
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

/// Handles an interrupt vector. Interrupts are off and this CPU holds no lock (C1).
pub fn interrupt(vector: u8) {
    if vector == SPURIOUS {
        return;
    }
    crate::apic::eoi();
    let Some(up) = upcalls() else { return };
    match vector {
        TIMER => {
            if crate::clock::deadline_passed() {
                up.timer();
            }
        }
        KICK => up.ipi(Ipi::Kick),
        SHOOTDOWN => up.ipi(Ipi::Shootdown),
        STOP => up.ipi(Ipi::Stop),
        DOORBELL => up.doorbell(),
        FLUSH => crate::paging::serve_flush(),
        LINE..0x48 => up.irq(u32::from(vector - LINE)),
        MSI..MSI_END => up.irq(crate::apic::MSI_LINE + u32::from(vector)),
        _ => crate::println!("kernel {}: interrupt {vector:#x} that nobody asked for", crate::console::index()),
    }
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

const NAMES: [&str; 22] = [
    "division error",
    "debug exception",
    "non-maskable interrupt",
    "breakpoint",
    "overflow",
    "bound range",
    "invalid opcode",
    "device not available",
    "double fault",
    "coprocessor overrun",
    "invalid TSS",
    "segment not present",
    "stack fault",
    "general protection",
    "page fault",
    "reserved",
    "x87 error",
    "alignment check",
    "machine check",
    "SIMD error",
    "virtualisation exception",
    "control protection",
];

extern "C" fn kernel_trap(r: &mut Registers) {
    let vector = r.vector as u8;
    if vector >= 0x20 {
        return interrupt(vector);
    }
    if matches!(vector, 13 | 14)
        && let Some(to) = fixup(r.rip)
    {
        r.rip = to;
        return;
    }
    die(r)
}

static DYING: AtomicBool = AtomicBool::new(false);

fn die(r: &Registers) -> ! {
    let name = NAMES.get(r.vector as usize).copied().unwrap_or("exception");
    if DYING.swap(true, Ordering::AcqRel) {
        crate::println!("kernel {}: {name} at {:#x} while it died", crate::console::index(), r.rip);
        crate::exit::halt();
    }
    let report = |what: core::fmt::Arguments<'_>| -> ! {
        match upcalls() {
            Some(up) => up.kernel_fault(what, r.rip, r.rbp),
            None => {
                crate::println!("kernel {}: {what}", crate::console::index());
                crate::panic::backtrace(Some(r.rip), r.rbp);
                crate::exit::exit(0x11)
            }
        }
    };
    if r.vector == 14 {
        let at = Cr2::read_raw();
        let how = match (r.error & 1 << 4 != 0, r.error & 2 != 0) {
            (true, _) => "executed",
            (_, true) => "wrote",
            _ => "read",
        };
        if let Some((phys, kernel)) = crate::paging::peer_at(at) {
            let k = crate::console::index();
            report(format_args!("kernel {k} touched private memory of kernel {kernel} at {phys:#x} ({how})"));
        }
        if crate::paging::is_stack_guard(at) {
            report(format_args!("kernel stack overflow at {at:#x}"));
        }
        report(format_args!("page fault in the kernel: {how} {at:#x}, error {:#x}", r.error));
    }
    if r.vector == 8 && crate::paging::is_stack_guard(Cr2::read_raw()) {
        report(format_args!("kernel stack overflow at {:#x}", Cr2::read_raw()));
    }
    report(format_args!("{name} in the kernel, error {:#x}", r.error))
}

extern "C" fn ist_trap(r: &mut Registers) {
    if r.vector == 2 {
        // Sent by a peer that fences us, or by nobody. Either way this CPU stops: NMIs have no other use here.
        crate::println!(
            "kernel {}: CPU {} parked by a non-maskable interrupt at {:#x}",
            crate::console::index(),
            percpu::slot(),
            r.rip
        );
        crate::exit::halt();
    }
    die(r)
}
