//! Starting and stopping CPUs, own ones and those of peers.
//!
//! Every kernel has two low pages (ARCHITECTURE.md C5): the trampoline, where its CPUs enter in real mode, and a page table.
//! That one page serves as all four levels for the low addresses: its first entry points to itself and entry `n` maps the
//! trampoline, which is page `n`. Its upper half is that of the kernel to be entered, so the trampoline goes straight from real mode
//! to the fixed virtual address of the image, wherever that lies in physical memory.

use alloc::boxed::Box;
use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hal_api::{BootInfo, Fenced, PhysAddr, PhysRange, Refused, WindowAttr};

use crate::lock::Spin;
use crate::percpu::PerCpu;
use crate::{acpi, apic, clock, cpu, entry, paging, percpu};

/// First trampoline page; kernel `i` has the `i`th.
pub const TRAMPOLINE: u64 = 0x8000;
/// From a trampoline to its page table.
const TABLE: u64 = 0x4_0000;
/// Where trampolines end: 64 kernels.
const TRAMPOLINE_END: u64 = 0x4_8000;

/// What the trampoline reads, in its own page.
#[repr(C, packed(2))]
struct Parameters {
    /// Set by the first instructions.
    arrived: u64,
    entry: u64,
    stack: u64,
    argument: u64,
    cr3: u64,
    gdt: [u64; 2],
    gdt_limit: u16,
    gdt_base: u32,
    pad: u16,
    far: u32,
    far_selector: u16,
}

const PARAMETERS: u64 = 0xf00;

global_asm!(
    r#"
    .section .rodata
    .balign 16
    .global trampoline, trampoline_long, trampoline_park, trampoline_end
trampoline:
    .code16
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    movb $1, {p}
    mov {p} + 32, %eax
    mov %eax, %cr3
    mov $0x20, %eax                     # PAE
    mov %eax, %cr4
    mov $0xc0000080, %ecx
    rdmsr
    or $0x900, %eax                     # long mode, no-execute
    wrmsr
    lgdtl {p} + 56
    mov $0x80010011, %eax               # paging, write protect, protected mode
    mov %eax, %cr0
    ljmpl *({p} + 64)
    .code64
trampoline_long:
    xor %eax, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov trampoline + {p} + 16(%rip), %rsp
    mov trampoline + {p} + 24(%rip), %rdi
    xor %ebp, %ebp
    jmp *trampoline + {p} + 8(%rip)

    # Parked: what a boot CPU that a peer stops executes for ever.
    .code16
trampoline_park:
    mov %cs, %ax
    mov %ax, %ds
    movb $2, {p}
1:  cli
    hlt
    jmp 1b
trampoline_end:
    .code64

    .text
    .balign 16
    .global ap_entry
ap_entry:
    call {ap_start}
    ud2
    "#,
    p = const PARAMETERS,
    ap_start = sym ap_start,
    options(att_syntax),
);

unsafe extern "C" {
    static trampoline: u8;
    static trampoline_long: u8;
    static trampoline_park: u8;
    static trampoline_end: u8;
    fn ap_entry();
    fn peer_entry();
}

const _: () = {
    assert!(core::mem::offset_of!(Parameters, cr3) == 32);
    assert!(core::mem::offset_of!(Parameters, gdt_limit) == 56);
    assert!(core::mem::offset_of!(Parameters, far) == 64);
};

/// What a starting kernel leaves for `hal` of the started one, behind the boot tables.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HandOver {
    magic: u64,
    /// Index of the started kernel.
    pub index: u64,
    /// See [`clock::rates`].
    pub tsc_hz: u64,
    /// See [`clock::rates`].
    pub timer_scale: u64,
    /// Bytes from the begin of the image that are mapped.
    pub mapped: u64,
    /// Where the devices are that ACPI tells about.
    pub acpi: acpi::Found,
}

const HAND_OVER_MAGIC: u64 = u64::from_le_bytes(*b"COBSTART");
/// From the begin of a kernel's memory to its [`HandOver`].
const HAND_OVER: u64 = 0x2_2000;

/// Reads what the starter left, through the boot window.
pub fn hand_over() -> Option<HandOver> {
    // SAFETY: the starter's tables map the first 2 MiB of our memory there.
    let h = unsafe { ((entry::BOOT_WINDOW + HAND_OVER) as *const HandOver).read_volatile() };
    (h.magic == HAND_OVER_MAGIC).then_some(h)
}

static OWN_PAGE: AtomicU64 = AtomicU64::new(0);
/// The CPU that firmware started: INIT sends it to the firmware, not to sleep.
static BOOT_APIC: AtomicU64 = AtomicU64::new(0);
static STARTING: Spin<()> = Spin::new(());
/// A CPU of this kernel is between the trampoline and its own stack.
static ON_TRAMPOLINE: AtomicBool = AtomicBool::new(false);

/// Remembers what this kernel is. Once, on the boot CPU.
pub fn init(info: &BootInfo) {
    OWN_PAGE.store(TRAMPOLINE + u64::from(info.index) * 0x1000, Ordering::Relaxed);
    for (slot, c) in info.cpus().iter().enumerate().skip(1) {
        let block = Box::leak(Box::new(PerCpu::new(slot as u64)));
        block.apic_id.store(u64::from(c.hardware), Ordering::Relaxed);
        percpu::register(block);
    }
}

/// Low memory while it is written.
struct Low(PhysRange);

impl Low {
    fn map(at: u64, len: u64) -> Result<Self, Refused> {
        let range = PhysRange::new(at, len);
        paging::map_window(range, WindowAttr::Memory)?;
        Ok(Self(range))
    }
    fn at<T>(&self, off: u64) -> *mut T {
        (paging::WINDOW + self.0.start.0 + off) as *mut T
    }
}

impl Drop for Low {
    fn drop(&mut self) {
        paging::unmap_window(self.0);
    }
}

/// Fills the trampoline in `page`. `upper` gives the upper half of the root table.
fn prepare(page: u64, upper: impl Fn(usize) -> u64, to: u64, stack: u64, argument: u64) -> Result<Low, Refused> {
    if !(TRAMPOLINE..TRAMPOLINE_END).contains(&page) || !page.is_multiple_of(0x1000) {
        return Err(Refused("not a trampoline page"));
    }
    let low = Low::map(page, 0x1000)?;
    let root = Low::map(page + TABLE, 0x1000)?;
    let code = (&raw const trampoline_end) as usize - (&raw const trampoline) as usize;
    let long = page + (&raw const trampoline_long) as u64 - (&raw const trampoline) as u64;
    let p = Parameters {
        arrived: 0,
        entry: to,
        stack,
        argument,
        cr3: page + TABLE,
        gdt: [0, 0x00af_9b00_0000_ffff],
        gdt_limit: 15,
        gdt_base: (page + PARAMETERS + 40) as u32,
        pad: 0,
        far: long as u32,
        far_selector: 8,
    };
    // SAFETY: both pages belong to the kernel that is started, its starter alone writes them; they are mapped and a page long.
    unsafe {
        let table = &mut *root.at::<[u64; 512]>(0);
        table.fill(0);
        table[0] = (page + TABLE) | 3;
        table[(page >> 12) as usize] = page | 3;
        for (i, e) in table.iter_mut().enumerate().skip(256) {
            *e = upper(i);
        }
        core::ptr::copy_nonoverlapping(&raw const trampoline, low.at::<u8>(0), code);
        low.at::<Parameters>(PARAMETERS).write(p);
    }
    Ok(low)
}

/// Sends INIT and start-up, until the CPU has arrived.
///
/// # Safety
/// The CPU belongs to the kernel whose trampoline this is, and the caller may start it.
unsafe fn wake(hardware: u32, page: u64, low: &Low) -> Result<(), Refused> {
    let arrived = low.at::<u64>(PARAMETERS);
    // SAFETY: the page is mapped.
    let there = || unsafe { arrived.cast::<u8>().read_volatile() } != 0;
    let boot = u64::from(hardware) == BOOT_APIC.load(Ordering::Relaxed);
    if boot {
        warm_reset(page, 0);
    }
    // SAFETY: the caller may.
    unsafe { reset(hardware, boot) };
    // A virtual CPU may have to wait long for its turn on the host; but this one hears nobody meanwhile.
    for _ in 0..25 {
        if !boot {
            // SAFETY: the caller may; the trampoline is complete.
            unsafe { apic::send_startup(hardware, page) };
        }
        let end = clock::now() + 20_000_000;
        while clock::now() < end {
            if there() {
                return Ok(());
            }
            crate::relax();
        }
    }
    Err(Refused("the CPU does not answer"))
}

/// Puts a CPU into reset.
///
/// # Safety
/// The caller may stop this CPU; for the boot CPU the warm-reset vector is set.
unsafe fn reset(hardware: u32, boot: bool) {
    // SAFETY: the caller may.
    unsafe { apic::send_init(hardware) };
    clock::spin_for(200_000);
    if boot {
        // QEMU leaves a CPU that halts with interrupts off in its sleep when INIT comes; woken by an NMI it takes the INIT first.
        // SAFETY: a running kernel would park, which is what the caller wants.
        unsafe { apic::send_nmi(hardware) };
    }
}

/// Makes the firmware jump to `page:offset` when the boot CPU comes out of its next reset (shutdown code 0x0a, IBM PC/AT).
fn warm_reset(page: u64, offset: u16) {
    use x86_64::instructions::port::Port;
    let Ok(bios) = Low::map(0, 0x1000) else { return };
    // SAFETY: the BIOS data area's reset vector and the CMOS shutdown byte exist for this; the caller holds the CPU's token.
    unsafe {
        bios.at::<u16>(0x467).write_unaligned(offset);
        bios.at::<u16>(0x469).write_unaligned((page >> 4) as u16);
        Port::<u8>::new(0x70).write(0xf);
        Port::<u8>::new(0x71).write(0xa);
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
    let page = OWN_PAGE.load(Ordering::Relaxed);
    let root = paging::root_entries();
    let low = prepare(page, |i| root[i], ap_entry as *const () as u64, stack as u64, core::ptr::from_ref(cpu) as u64)?;
    ON_TRAMPOLINE.store(true, Ordering::Release);
    // SAFETY: the CPU is ours by the plan.
    unsafe { wake(cpu.apic_id.load(Ordering::Relaxed) as u32, page, &low) }?;
    // The next CPU needs the page: wait until this one is off it. It has arrived, so this is a few microseconds.
    while ON_TRAMPOLINE.load(Ordering::Acquire) {
        crate::relax();
    }
    Ok(())
}

extern "C" fn ap_start(block: *mut PerCpu) -> ! {
    paging::activate(None);
    cpu::enable();
    // SAFETY: this CPU's own block; others only use its atomics.
    unsafe { percpu::load(block) };
    ON_TRAMPOLINE.store(false, Ordering::Release);
    apic::init_cpu();
    let cpu = percpu::this();
    cpu.online.store(true, Ordering::Release);
    let main = cpu.entry.load(Ordering::Acquire);
    // SAFETY: `start_own` stored a function of this type.
    let main: fn(usize) -> ! = unsafe { core::mem::transmute(main) };
    main(cpu.slot())
}

/// Starts a peer's CPU: see `Platform::start_peer`. `base` is where the peer's memory begins; its image and boot block are there.
///
/// # Safety
/// As `Platform::start_peer`.
pub unsafe fn start_peer(hardware: u32, page: PhysAddr, base: u64) -> Result<(), Refused> {
    if !base.is_multiple_of(0x20_0000) {
        return Err(Refused("a kernel's memory begins at a multiple of 2 MiB"));
    }
    let _one = STARTING.lock();
    let low = {
        let _memory = Low::map(base + paging::PEER_TABLES.0, paging::PEER_TABLES.1 + 0x1000)?;
        // SAFETY: the caller prepares this memory alone, and it is mapped.
        let (top, mapped) = unsafe { paging::peer_tables(base) };
        let (tsc_hz, timer_scale) = clock::rates();
        let index = (page.0 - TRAMPOLINE) >> 12;
        let h = HandOver { magic: HAND_OVER_MAGIC, index, tsc_hz, timer_scale, mapped, acpi: acpi::found() };
        // SAFETY: as above.
        unsafe { ((paging::WINDOW + base + HAND_OVER) as *mut HandOver).write(h) };
        let upper = |i| if i == 511 { top } else { 0 };
        prepare(page.0, upper, peer_entry as *const () as u64, 0, base)?
    };
    // SAFETY: the caller may start this CPU.
    unsafe { wake(hardware, page.0, &low) }
}

/// Stops a peer's CPU. INIT leaves it waiting for a start-up message; the one CPU that firmware started is sent to the parking
/// stub in `page` of its kernel instead, and must say so.
///
/// # Safety
/// As `Platform::fence_peer`.
pub unsafe fn fence_peer(hardware: u32) -> Fenced {
    if u64::from(hardware) != BOOT_APIC.load(Ordering::Relaxed) {
        // SAFETY: the caller holds the fence token.
        unsafe { reset(hardware, false) };
        return Fenced::Reset;
    }
    // Kernel 0 is the one that firmware started; its trampoline page has the stub.
    let Ok(low) = prepare(TRAMPOLINE, |_| 0, 0, 0, 0) else { return Fenced::Lost };
    let park = (&raw const trampoline_park) as u64 - (&raw const trampoline) as u64;
    warm_reset(TRAMPOLINE, park as u16);
    // SAFETY: as above.
    unsafe { reset(hardware, true) };
    let end = clock::now() + 200_000_000;
    while clock::now() < end {
        // SAFETY: the page is mapped.
        if unsafe { low.at::<u8>(PARAMETERS).read_volatile() } == 2 {
            return Fenced::Parked;
        }
        crate::relax();
    }
    Fenced::Lost
}
