//! The block that every CPU finds through its GS base, and the descriptor tables in it.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use hal_api::MAX_CPUS;
use x86_64::registers::model_specific::{Efer, EferFlags, GsBase, KernelGsBase, LStar, Msr, SFMask};
use x86_64::{VirtAddr, registers::rflags::RFlags};

/// Selector of kernel code; data is the next one. The layout is Linux' because signal frames and `ptrace` show selectors.
pub const KERNEL_CS: u16 = 0x10;
/// Selector of user data (stack), privilege 3.
pub const USER_SS: u16 = 0x2b;
/// Selector of 64-bit user code, privilege 3.
pub const USER_CS: u16 = 0x33;
const TSS: u16 = 0x38;
/// `sysret` takes CS from `base + 16` and SS from `base + 8`.
const SYSRET_BASE: u16 = 0x23;

/// Offsets that the entry code uses.
pub const OFF_KERNEL_RSP: usize = 0x10;
/// See [`OFF_KERNEL_RSP`].
pub const OFF_USER: usize = 0x18;
/// See [`OFF_KERNEL_RSP`].
pub const OFF_SCRATCH: usize = 0x20;
/// See [`OFF_KERNEL_RSP`]: `rsp0` in the task state segment.
pub const OFF_RSP0: usize = 0x44;

/// Bytes of each of the two stacks for faults that cannot trust the current one.
const IST_STACK: usize = 0x2000;

/// One CPU's block.
#[repr(C, align(64))]
pub struct PerCpu {
    this: *const PerCpu,
    slot: u64,
    kernel_rsp: u64,
    user: u64,
    scratch: u64,
    /// Which user thread's vector state lies in this CPU's registers ([`crate::fpu`]).
    pub fpu_owner: AtomicU64,
    /// When the timer is to call up, in TSC ticks; 0 for never.
    pub deadline: AtomicU64,
    pad: u64,
    tss: Tss,
    gdt: [u64; 9],
    /// The interrupt controller's name of this CPU.
    pub apic_id: AtomicU64,
    /// Where this CPU goes when it is started.
    pub entry: AtomicPtr<()>,
    /// It runs and can be asked to flush.
    pub online: AtomicBool,
    /// Somebody waits for this CPU to forget kernel translations.
    pub flush: AtomicBool,
    ist: [Stack; 2],
}

/// The CPU aligns the stack pointer, so the stack must be aligned too.
#[repr(align(16))]
struct Stack([u8; IST_STACK]);

#[repr(C, packed(4))]
struct Tss {
    reserved: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_map: u16,
}

const _: () = {
    assert!(core::mem::offset_of!(PerCpu, kernel_rsp) == OFF_KERNEL_RSP);
    assert!(core::mem::offset_of!(PerCpu, user) == OFF_USER);
    assert!(core::mem::offset_of!(PerCpu, scratch) == OFF_SCRATCH);
    assert!(core::mem::offset_of!(PerCpu, tss) + 4 == OFF_RSP0);
    assert!(core::mem::size_of::<Tss>() == 104);
};

// SAFETY: fields without interior mutability are written before the CPU runs, or by the entry code of that CPU only.
unsafe impl Sync for PerCpu {}

impl PerCpu {
    /// An empty block for the CPU of `slot`.
    pub const fn new(slot: u64) -> Self {
        Self {
            this: core::ptr::null(),
            slot,
            kernel_rsp: 0,
            user: 0,
            scratch: 0,
            fpu_owner: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            pad: 0,
            tss: Tss { reserved: 0, rsp: [0; 3], reserved1: 0, ist: [0; 7], reserved2: 0, reserved3: 0, io_map: 104 },
            gdt: [0; 9],
            apic_id: AtomicU64::new(0),
            entry: AtomicPtr::new(core::ptr::null_mut()),
            online: AtomicBool::new(false),
            flush: AtomicBool::new(false),
            ist: [const { Stack([0; IST_STACK]) }; 2],
        }
    }

    /// Its slot.
    pub fn slot(&self) -> usize {
        self.slot as usize
    }
}

struct BootCpu(UnsafeCell<PerCpu>);
// SAFETY: written only by `load` on the boot CPU before any other CPU runs.
unsafe impl Sync for BootCpu {}

static BOOT_CPU: BootCpu = BootCpu(UnsafeCell::new(PerCpu::new(0)));

/// The blocks of all CPUs that have one.
static CPUS: [AtomicPtr<PerCpu>; MAX_CPUS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];

/// The block of the boot CPU.
pub fn boot_cpu() -> *mut PerCpu {
    BOOT_CPU.0.get()
}

/// The block of the CPU in `slot`, once it has one.
pub fn of(slot: usize) -> Option<&'static PerCpu> {
    let p = CPUS.get(slot)?.load(Ordering::Acquire);
    // SAFETY: only pointers to blocks that live for ever are stored.
    unsafe { p.as_ref() }
}

/// Makes a block known under its slot.
pub fn register(cpu: &'static PerCpu) {
    if let Some(c) = CPUS.get(cpu.slot()) {
        c.store(core::ptr::from_ref(cpu).cast_mut(), Ordering::Release);
    }
}

/// This CPU's block.
#[inline]
pub fn this() -> &'static PerCpu {
    let p: *const PerCpu;
    // SAFETY: GS points to this CPU's block from the first Rust instruction on; it lives for ever.
    unsafe {
        asm!("mov {}, gs:[0]", out(reg) p, options(pure, readonly, nostack, preserves_flags));
        &*p
    }
}

/// This CPU's slot.
#[inline]
pub fn slot() -> usize {
    let s: usize;
    // SAFETY: as `this`.
    unsafe { asm!("mov {}, gs:[8]", out(reg) s, options(pure, readonly, nostack, preserves_flags)) };
    s
}

unsafe extern "C" {
    fn syscall_entry();
}

/// Loads descriptor tables, GS base and the system-call entry of this CPU.
///
/// # Safety
/// `cpu` is this CPU's own block, lives for ever, and nobody else uses it yet.
pub unsafe fn load(cpu: *mut PerCpu) {
    // SAFETY: the caller gives us the block.
    let c = unsafe { &mut *cpu };
    c.this = cpu;
    for (i, stack) in c.ist.iter_mut().enumerate() {
        // The block's address lies on top of each stack, for handlers that cannot trust GS.
        let at = IST_STACK - 16;
        stack.0[at..at + 8].copy_from_slice(&(cpu as u64).to_le_bytes());
        c.tss.ist[i] = stack.0.as_ptr() as u64 + at as u64;
    }
    let base = core::ptr::addr_of!(c.tss) as u64;
    let limit = (core::mem::size_of::<Tss>() - 1) as u64;
    c.gdt = [
        0,
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0,
        0x00cf_f300_0000_ffff,
        0x00af_fb00_0000_ffff,
        limit | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56,
        base >> 32,
    ];
    let gdtr = Pointer { limit: (core::mem::size_of_val(&c.gdt) - 1) as u16, base: c.gdt.as_ptr() as u64 };
    // SAFETY: the tables are complete; the far return goes to the next instruction in the same flat segment. GS is loaded with
    // a null selector first because that clears its base.
    unsafe {
        asm!(
            "lgdt [{gdtr}]",
            "mov ss, {ds:e}",
            "push {cs}",
            "lea {t}, [rip + 2f]",
            "push {t}",
            "retfq",
            "2:",
            "xor {t:e}, {t:e}",
            "mov ds, {t:e}",
            "mov es, {t:e}",
            "mov fs, {t:e}",
            "mov gs, {t:e}",
            "ltr {tss:x}",
            gdtr = in(reg) &gdtr,
            ds = in(reg) u64::from(KERNEL_CS + 8),
            cs = in(reg) u64::from(KERNEL_CS),
            tss = in(reg) u64::from(TSS),
            t = out(reg) _,
        );
    }
    GsBase::write(VirtAddr::new(cpu as u64));
    KernelGsBase::write(VirtAddr::new(0));
    LStar::write(VirtAddr::new(syscall_entry as *const () as u64));
    SFMask::write(
        RFlags::INTERRUPT_FLAG
            | RFlags::DIRECTION_FLAG
            | RFlags::TRAP_FLAG
            | RFlags::ALIGNMENT_CHECK
            | RFlags::NESTED_TASK
            | RFlags::IOPL_LOW
            | RFlags::IOPL_HIGH,
    );
    // SAFETY: STAR (0xc0000081) names our selectors; EFER keeps long mode and adds `syscall`.
    unsafe {
        Msr::new(0xc000_0081).write(u64::from(SYSRET_BASE) << 48 | u64::from(KERNEL_CS) << 32);
        Efer::update(|e| *e |= EferFlags::SYSTEM_CALL_EXTENSIONS | EferFlags::NO_EXECUTE_ENABLE);
    }
    crate::trap::load_idt();
}

/// What `lgdt` and `lidt` want.
#[repr(C, packed(2))]
pub struct Pointer {
    /// Last byte of the table.
    pub limit: u16,
    /// Its address.
    pub base: u64,
}
