//! Starting and stopping CPUs, own ones and those of peers: by PSCI.
//!
//! A CPU is started at a physical address with its MMU off, so none needs a page of its own to start in. It is stopped by itself: a peer that
//! fences it sends it a fast interrupt, whose handler switches the CPU off; the firmware then says that it is.

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::sync::atomic::Ordering;

use hal_api::{BootInfo, Fenced, PhysAddr, PhysRange, Refused, WindowAttr};

use crate::lock::Spin;
use crate::percpu::PerCpu;
use crate::{board, clock, cpu, entry, exit, gic, page, paging, percpu, psci, trap};

/// What a starting kernel leaves for `hal` of the started one, behind the boot block.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HandOver {
    magic: u64,
    /// Index of the started kernel.
    pub index: u64,
    /// Where the devices are that the device tree told about.
    pub board: board::Found,
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

/// What `ap_entry` reads: tables of the lower and the upper half, stack, argument.
#[repr(C, align(64))]
struct Start(UnsafeCell<[u64; 4]>);
// SAFETY: written with `STARTING` held, while no CPU reads it.
unsafe impl Sync for Start {}

static START: Start = Start(UnsafeCell::new([0; 4]));
static STARTING: Spin<()> = Spin::new(());

unsafe extern "C" {
    fn ap_entry();
    static boot_tables: u8;
}

/// Remembers the other CPUs of this kernel. Once, on the boot CPU.
pub fn init(info: &BootInfo) {
    for (slot, c) in info.cpus().iter().enumerate().skip(1) {
        let block = Box::leak(Box::new(PerCpu::new(slot as u64)));
        block.hardware.store(u64::from(c.hardware), Ordering::Relaxed);
        percpu::register(block);
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
    let lower = paging::image_phys(&raw const boot_tables);
    let argument = core::ptr::from_ref(cpu) as u64;
    // SAFETY: the lock is held, and the CPU started last has read it. It reads with its caches off.
    unsafe {
        *START.0.get() = [lower, paging::root(), stack as u64, argument];
        page::clean(START.0.get() as u64, 64);
        page::clean(&raw const boot_tables as u64, 0x5000);
    }
    let code = paging::image_phys(ap_entry as *const u8);
    // SAFETY: the CPU is ours by the plan; `ap_entry` knows what to do.
    unsafe {
        psci::cpu_on(gic::mpidr(cpu.hardware.load(Ordering::Relaxed) as u32), code, paging::image_phys(START.0.get()))
    }?;
    while !cpu.online.load(Ordering::Acquire) {
        crate::relax();
    }
    Ok(())
}

/// Entered from `ap_entry`, on the CPU's own stack.
pub(crate) extern "C" fn ap_start(block: *mut PerCpu) -> ! {
    // SAFETY: this CPU's own block; others only use its atomics.
    unsafe { percpu::load(block) };
    trap::load_vectors();
    paging::activate(None);
    cpu::enable();
    gic::init_cpu();
    clock::init_cpu();
    cpu::listen();
    let cpu = percpu::this();
    cpu.online.store(true, Ordering::Release);
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
    let _one = STARTING.lock();
    // Its image may be a little larger than ours.
    let memory = PhysRange::new(base, entry::IMAGE_OFFSET + paging::image_len() * 2);
    paging::map_window(memory, WindowAttr::Memory)?;
    let at = paging::WINDOW + base;
    // SAFETY: the caller prepares this memory alone, and it is mapped. The peer begins with its caches off.
    unsafe {
        let index = u64::from(((at + BLOCK_INDEX) as *const u16).read());
        let h = HandOver { magic: HAND_OVER_MAGIC, index, board: *board::found() };
        ((at + HAND_OVER) as *mut HandOver).write(h);
        page::clean(at, memory.len);
    }
    paging::unmap_window(memory);
    // SAFETY: the caller may start this CPU; the image begins with the entry.
    unsafe { psci::cpu_on(gic::mpidr(hardware), image.0, base | 1) }
}

/// Stops a peer's CPU.
///
/// # Safety
/// As `Platform::fence_peer`.
pub unsafe fn fence_peer(hardware: u32) -> Fenced {
    let mpidr = gic::mpidr(hardware);
    if psci::is_off(mpidr) {
        return Fenced::Reset;
    }
    gic::send(hardware, gic::PARK);
    let end = clock::now() + 200_000_000;
    while clock::now() < end {
        if psci::is_off(mpidr) {
            return Fenced::Reset;
        }
        crate::relax();
    }
    Fenced::Lost
}

/// What a CPU does that is fenced; on its emergency stack.
pub(crate) extern "C" fn park() -> ! {
    gic::end_park();
    exit::halt()
}
