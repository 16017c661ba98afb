//! Starting and stopping CPUs, own ones and those of peers: by the firmware (SBI specification, "Hart State Management" and "IPI").
//!
//! A hart is started at a physical address with paging off, so none needs a page of its own to start in. It is stopped by itself: a peer that
//! fences it sends it a software interrupt, which kernels never mask and use for nothing else; its handler gives the hart back to the firmware, which
//! then says that it is stopped.

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use hal_api::{BootInfo, Fenced, PhysAddr, PhysRange, Refused, WindowAttr};
use sbi_rt::HartMask;

use crate::lock::Spin;
use crate::percpu::PerCpu;
use crate::{board, clock, cpu, entry, exit, imsic, paging, percpu, trap};

/// What a starting kernel leaves for `hal` of the started one, behind the boot block.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HandOver {
    magic: u64,
    /// Index of the started kernel.
    pub index: u64,
    /// The hart that it is started on.
    pub hart: u64,
    /// Where the devices are that the device tree told about.
    pub board: board::Found,
    /// Not 0: page tables are to have three levels, though the CPU may have more.
    pub three_levels: u64,
}

const HAND_OVER_MAGIC: u64 = u64::from_le_bytes(*b"COBSTART");
/// From the begin of a kernel's memory to its [`HandOver`].
const HAND_OVER: u64 = 0x2_2000;
/// From the begin of a kernel's memory to its boot block, and where in that its index is (`lib/bootblock`).
const BLOCK_INDEX: u64 = 0x1000 + 16;

/// Reads what the starter left, through the boot window.
pub fn hand_over() -> Option<HandOver> {
    // SAFETY: the boot tables map the first 2 MiB of our memory there.
    let h = unsafe { ((entry::BOOT_WINDOW + HAND_OVER) as *const HandOver).read_volatile() };
    (h.magic == HAND_OVER_MAGIC).then_some(h)
}

/// What `ap_entry` reads: `satp` for the boot tables, `satp`, stack, argument.
#[repr(C, align(64))]
struct Start(UnsafeCell<[u64; 4]>);
// SAFETY: written with `STARTING` held, while no CPU reads it.
unsafe impl Sync for Start {}

static START: Start = Start(UnsafeCell::new([0; 4]));
static STARTING: Spin<()> = Spin::new(());
/// The harts of this kernel that run. Their numbers are below 64: a board has at most 8.
static ONLINE: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    fn ap_entry();
    static boot_tables: u8;
}

fn mask(hart: u64) -> HartMask {
    HartMask::from_mask_base(1 << (hart % 64), (hart / 64 * 64) as usize)
}

/// The harts of this kernel that run, but for this one; `None` if there are none.
pub fn others() -> Option<HartMask> {
    let all = ONLINE.load(Ordering::Acquire) & !(1 << (percpu::this().hardware.load(Ordering::Relaxed) % 64));
    (all != 0).then(|| HartMask::from_mask_base(all as usize, 0))
}

/// This CPU runs.
pub fn online() {
    let cpu = percpu::this();
    ONLINE.fetch_or(1 << (cpu.hardware.load(Ordering::Relaxed) % 64), Ordering::AcqRel);
    cpu.online.store(true, Ordering::Release);
}

/// Remembers the other CPUs of this kernel. Once, on the boot CPU.
pub fn init(info: &BootInfo) {
    for (slot, c) in info.cpus().iter().enumerate().skip(1) {
        let block = Box::leak(Box::new(PerCpu::new(slot as u64)));
        block.hardware.store(u64::from(c.hardware), Ordering::Relaxed);
        percpu::register(block);
    }
}

/// # Safety
/// The hart is the caller's to start, and `code` knows what to do.
unsafe fn start(hart: u64, code: u64, argument: u64) -> Result<(), Refused> {
    match sbi_rt::hart_start(hart as usize, code as usize, argument as usize).into_result() {
        Ok(_) => Ok(()),
        Err(_) => Err(Refused("the firmware does not start the CPU")),
    }
}

/// Starts the CPU of `slot` of this kernel.
pub fn start_own(slot: usize, main: fn(usize) -> !) -> Result<(), Refused> {
    if slot == 0 {
        return Err(Refused("the boot CPU runs already"));
    }
    let cpu = percpu::of(slot).ok_or(Refused("no such CPU"))?;
    let _one = STARTING.lock();
    if cpu.online.load(Ordering::Acquire) {
        return Err(Refused("the CPU runs already"));
    }
    let stack = paging::stack_alloc().ok_or(Refused("no memory for a stack"))?;
    cpu.entry.store(main as *mut (), Ordering::Release);
    let lower = paging::boot_satp(paging::image_phys(&raw const boot_tables));
    let argument = core::ptr::from_ref(cpu) as u64;
    // SAFETY: the lock is held, and the CPU started last has read it.
    unsafe { *START.0.get() = [lower, paging::satp(), stack as u64, argument] };
    core::sync::atomic::fence(Ordering::SeqCst);
    let code = paging::image_phys(ap_entry as *const u8);
    // SAFETY: the CPU is ours by the plan; `ap_entry` knows what to do.
    unsafe { start(cpu.hardware.load(Ordering::Relaxed), code, paging::image_phys(START.0.get())) }?;
    while !cpu.online.load(Ordering::Acquire) {
        crate::relax();
    }
    Ok(())
}

/// Entered from `ap_entry`, on the CPU's own stack.
pub(crate) extern "C" fn ap_start(block: *mut PerCpu) -> ! {
    // SAFETY: this CPU's own block; others only use its atomics.
    unsafe { percpu::load(block) };
    trap::load_vector();
    cpu::enable();
    imsic::init_cpu();
    clock::init_cpu();
    cpu::listen();
    online();
    let cpu = percpu::this();
    let main = cpu.entry.load(Ordering::Acquire);
    // SAFETY: `start_own` stored a function of this type.
    let main: fn(usize) -> ! = unsafe { core::mem::transmute(main) };
    main(cpu.slot())
}

/// Starts a peer's CPU: see `Platform::start_peer`. Its image begins at `image` and its memory at `base`; image and boot block are there.
///
/// # Safety
/// As `Platform::start_peer`.
pub unsafe fn start_peer(hardware: u32, image: PhysAddr, base: u64) -> Result<(), Refused> {
    if !base.is_multiple_of(0x20_0000) || image.0 != base + entry::IMAGE_OFFSET {
        return Err(Refused("a kernel's memory begins at a multiple of 2 MiB"));
    }
    let memory = PhysRange::new(base, entry::IMAGE_OFFSET);
    paging::map_window(memory, WindowAttr::Memory)?;
    let at = paging::WINDOW + base;
    // SAFETY: the caller prepares this memory alone, and it is mapped.
    unsafe {
        let index = u64::from(((at + BLOCK_INDEX) as *const u16).read());
        let h = HandOver {
            magic: HAND_OVER_MAGIC,
            index,
            hart: u64::from(hardware),
            board: *board::found(),
            three_levels: u64::from(paging::levels() == 3),
        };
        ((at + HAND_OVER) as *mut HandOver).write(h);
    }
    core::sync::atomic::fence(Ordering::SeqCst);
    paging::unmap_window(memory);
    // SAFETY: the caller may start this CPU; the image begins with the entry.
    unsafe { start(u64::from(hardware), image.0, base | 1) }
}

/// A state of a hart.
const STOPPED: usize = 1;

/// Whether a hart executes nothing: the firmware has it.
fn is_stopped(hart: u32) -> bool {
    sbi_rt::hart_get_status(hart as usize).into_result() == Ok(STOPPED)
}

/// Stops a peer's CPU.
///
/// # Safety
/// As `Platform::fence_peer`.
pub unsafe fn fence_peer(hardware: u32) -> Fenced {
    if is_stopped(hardware) {
        return Fenced::Reset;
    }
    // A hart that the firmware does not know is found to be lost below.
    let _ = sbi_rt::send_ipi(mask(u64::from(hardware)));
    let end = clock::now() + 200_000_000;
    while clock::now() < end {
        if is_stopped(hardware) {
            return Fenced::Reset;
        }
        crate::relax();
    }
    Fenced::Lost
}

/// What a CPU does that is fenced.
pub fn park() -> ! {
    // SAFETY: the interrupt that made it park is not to come back when it is started again.
    unsafe { core::arch::asm!("csrc sip, {}", in(reg) cpu::URGENT, options(nostack)) };
    exit::halt()
}
