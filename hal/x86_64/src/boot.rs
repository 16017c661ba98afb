//! What the loader or the starting kernel tells us.

use core::cell::UnsafeCell;

use hal_api::{PhysAddr, PhysRange, RawBoot};

use crate::{acpi, apic, clock, console, cpu, entry, paging, percpu, smp, trap};

unsafe extern "Rust" {
    /// Defined by the image with [`entry!`](crate::entry!).
    safe fn cob_main(raw: &'static RawBoot) -> !;
}

/// Names the first safe function of an image: `fn(&'static RawBoot) -> !`, called on the boot CPU with interrupts off.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        /// The name by which hal finds the image's first function.
        #[unsafe(no_mangle)]
        pub fn cob_main(raw: &'static $crate::RawBoot) -> ! {
            $main(raw)
        }
    };
}

/// Xen's `hvm_start_info`, version 1 (xen/include/public/arch-x86/hvm/start_info.h).
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[repr(C)]
struct Module {
    address: u64,
    size: u64,
    command_line: u64,
    reserved: u64,
}

#[repr(C)]
struct MapEntry {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

const START_MAGIC: u32 = 0x336e_c578;
const RANGES: usize = 32;
const COMMAND_LINE: usize = 1024;
/// The boot block of a kernel that a peer starts: where, from the begin of its memory, and how long at most (ARCHITECTURE.md C5).
const BOOT_BLOCK: (u64, u64) = (0x1000, 0x10000);

struct Facts {
    raw: RawBoot,
    ram: [PhysRange; RANGES],
    command_line: [u8; COMMAND_LINE],
    /// The low 4 GiB are at their physical addresses until `init`.
    identity: bool,
    ready: bool,
}

struct Cell(UnsafeCell<Facts>);
// SAFETY: written by the boot CPU before anything else runs, then only read.
unsafe impl Sync for Cell {}

static FACTS: Cell = Cell(UnsafeCell::new(Facts {
    raw: RawBoot {
        ram: &[],
        archive: None,
        boot_block: None,
        command_line: "",
        rsdp: None,
        image: PhysRange::new(0, 0),
        boot_cpu: 0,
    },
    ram: [PhysRange::new(0, 0); RANGES],
    command_line: [0; COMMAND_LINE],
    identity: false,
    ready: false,
}));

/// Bytes in physical memory before the kernel has its own page tables: what firmware left below 4 GiB, or the first 2 MiB of this
/// kernel's memory. `None` for anything else.
pub fn early_bytes(range: PhysRange) -> Option<&'static [u8]> {
    // SAFETY: only read after the boot CPU has written it.
    let facts = unsafe { &*FACTS.0.get() };
    let len = usize::try_from(range.len).ok()?;
    let end = range.start.0.checked_add(range.len)?;
    if paging::root() != 0 || range.start.0 == 0 {
        return None;
    }
    let at = if facts.identity {
        (end <= 1 << 32).then_some(range.start.0)?
    } else {
        let base = facts.raw.image.start.0 - entry::IMAGE_OFFSET;
        let off = range.start.0.checked_sub(base)?;
        (end - base <= entry::IMAGE_OFFSET).then_some(entry::BOOT_WINDOW + off)?
    };
    // SAFETY: the boot tables map it; nothing writes it while the kernel boots.
    Some(unsafe { core::slice::from_raw_parts(at as *const u8, len) })
}

/// What both entries do first.
fn early(image_phys: u64) -> &'static mut Facts {
    paging::set_image(image_phys);
    trap::init_idt();
    // SAFETY: the boot CPU's own block, used by nobody yet.
    unsafe { percpu::load(percpu::boot_cpu()) };
    percpu::register(percpu::this());
    cpu::enable();
    // SAFETY: the only reference; the boot CPU runs alone.
    let facts = unsafe { &mut *FACTS.0.get() };
    facts.raw.image = PhysRange::new(image_phys, paging::image_len());
    facts.raw.boot_cpu = core::arch::x86_64::__cpuid(1).ebx >> 24;
    facts
}

/// Entered from `pvh_entry` on the boot stack, the low 4 GiB mapped at their physical addresses.
pub(crate) extern "C" fn pvh_start(start_info: u64, image_phys: u64) -> ! {
    clock::enter();
    let facts = early(image_phys);
    facts.identity = true;
    // SAFETY: the PVH ABI passes a start info below 4 GiB, which is mapped; nothing writes it.
    let si = unsafe { &*(start_info as *const StartInfo) };
    if si.magic == START_MAGIC && si.version >= 1 {
        facts.raw.rsdp = Some(PhysAddr(si.rsdp)).filter(|a| a.0 != 0);
        if si.modules > 0 {
            // SAFETY: the ABI says that there is a module list; it is below 4 GiB.
            let m = unsafe { &*(si.module_list as *const Module) };
            facts.raw.archive = Some(PhysRange::new(m.address, m.size));
        }
        if si.command_line != 0 {
            // SAFETY: a NUL-terminated string below 4 GiB (ABI).
            let c = unsafe { core::ffi::CStr::from_ptr(si.command_line as *const _) }.to_bytes();
            let n = c.len().min(COMMAND_LINE);
            facts.command_line[..n].copy_from_slice(&c[..n]);
            facts.raw.command_line = core::str::from_utf8(&facts.command_line[..n]).unwrap_or("");
        }
        let mut n = 0;
        for i in 0..si.memory_map_entries as usize {
            // SAFETY: within the table that the ABI describes.
            let e = unsafe { &*(si.memory_map as *const MapEntry).add(i) };
            if e.kind == 1 && n < RANGES {
                facts.ram[n] = PhysRange::new(e.address, e.size);
                n += 1;
            }
        }
        facts.raw.ram = &facts.ram[..n];
    }
    facts.ready = true;
    if let Some(rsdp) = facts.raw.rsdp {
        let _ = acpi::scan(rsdp.0, &|at, len| early_bytes(PhysRange::new(at, len as u64)));
    }
    cob_main(&facts.raw)
}

/// Entered from `peer_entry` on the boot stack; `base` is the physical begin of this kernel's memory.
pub(crate) extern "C" fn peer_start(base: u64) -> ! {
    clock::enter();
    let facts = early(base + entry::IMAGE_OFFSET);
    facts.raw.boot_block = Some(PhysRange::new(base + BOOT_BLOCK.0, BOOT_BLOCK.1));
    facts.ready = true;
    if let Some(h) = smp::hand_over() {
        console::set_index(h.index as u16);
        clock::set_rates((h.tsc_hz, h.timer_scale));
        acpi::set_found(&h.acpi);
    }
    cob_main(&facts.raw)
}

/// The rest of `Platform::init`.
pub(crate) fn init(info: &hal_api::BootInfo) -> Result<(), hal_api::Refused> {
    console::set_index(info.index);
    // SAFETY: once, on the boot CPU; `info` tells the truth (contract of `Platform::init`).
    unsafe { paging::init(info.owned())? };
    apic::init()?;
    apic::init_cpu();
    // SAFETY: only read after the boot CPU has written it.
    if unsafe { &*FACTS.0.get() }.identity {
        apic::mask_old_controllers();
        clock::calibrate();
    }
    smp::init(info);
    percpu::this().online.store(true, core::sync::atomic::Ordering::Release);
    Ok(())
}
