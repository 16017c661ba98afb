//! The block that every CPU finds through `tp`.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use hal_api::MAX_CPUS;

/// Offset that the entry code uses: the end of the stack for faults that cannot trust the current one.
pub const OFF_EMERGENCY: usize = 0x10;
/// Bytes of that stack.
const EMERGENCY_STACK: usize = 0x2000;

/// One CPU's block.
#[repr(C, align(64))]
pub struct PerCpu {
    slot: u64,
    /// What the interrupt controller calls it.
    pub hardware: AtomicU64,
    emergency: u64,
    /// Which user thread's vector state lies in this CPU's registers ([`crate::fpu`]).
    pub fpu_owner: AtomicU64,
    /// When the timer is to call up, in ns; 0 for never.
    pub deadline: AtomicU64,
    /// Where this CPU goes when it is started.
    pub entry: AtomicPtr<()>,
    /// It runs.
    pub online: AtomicBool,
    stack: Stack,
}

#[repr(align(16))]
struct Stack(#[allow(dead_code, reason = "only its place is used")] [u8; EMERGENCY_STACK]);

const _: () = assert!(core::mem::offset_of!(PerCpu, emergency) == OFF_EMERGENCY);

// SAFETY: fields without interior mutability are written before the CPU runs.
unsafe impl Sync for PerCpu {}

impl PerCpu {
    /// An empty block for the CPU of `slot`.
    pub const fn new(slot: u64) -> Self {
        Self {
            slot,
            hardware: AtomicU64::new(0),
            emergency: 0,
            fpu_owner: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            entry: AtomicPtr::new(core::ptr::null_mut()),
            online: AtomicBool::new(false),
            stack: Stack([0; EMERGENCY_STACK]),
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
    // SAFETY: the register points to this CPU's block from the first Rust function on; it lives for ever. Not `pure`: a thread goes on elsewhere.
    unsafe {
        asm!("mv {}, tp", out(reg) p, options(nomem, nostack, preserves_flags));
        &*p
    }
}

/// This CPU's slot.
#[inline]
pub fn slot() -> usize {
    this().slot as usize
}

/// Makes `cpu` this CPU's block.
///
/// # Safety
/// `cpu` is this CPU's own block, lives for ever, and nobody else uses it yet but for its atomics.
pub unsafe fn load(cpu: *mut PerCpu) {
    // SAFETY: the caller gives us the block.
    unsafe {
        (&raw mut (*cpu).emergency).write((&raw const (*cpu).stack).add(1) as u64);
        asm!("mv tp, {}", in(reg) cpu, options(nostack, preserves_flags));
    }
}
