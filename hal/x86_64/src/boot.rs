//! What the loader or the starting kernel tells us.

use crate::{console, entry};

/// What a range of the firmware's memory map is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Free RAM.
    Ram,
    /// ACPI tables: readable, not to be used.
    Acpi,
    /// Not RAM, or in use by the firmware.
    Reserved,
}

/// A range of physical addresses.
#[derive(Clone, Copy, Debug)]
pub struct MemoryRange {
    /// First byte.
    pub start: u64,
    /// Byte after the last.
    pub end: u64,
    /// What it is.
    pub kind: MemoryKind,
}

const RANGES: usize = 64;

/// What is known before anything is set up.
#[derive(Debug)]
pub struct BootInfo {
    /// Index of this kernel in the plan.
    pub index: u16,
    /// Physical address of the image, 2 MiB-aligned. This kernel's memory begins 2 MiB before.
    pub image_phys: u64,
    /// Physical address and bytes of the archive (initrd); 0 if there is none.
    pub archive: (u64, u64),
    /// Physical address of the ACPI RSDP, 0 if unknown.
    pub rsdp: u64,
    /// The kernel command line.
    pub command_line: &'static str,
    ranges: [MemoryRange; RANGES],
    count: usize,
}

impl BootInfo {
    /// The firmware's memory map. Empty for a kernel started by a peer: it owns what its boot block says.
    pub fn memory_map(&self) -> &[MemoryRange] {
        &self.ranges[..self.count]
    }
}

unsafe extern "Rust" {
    /// Defined by the image with [`entry!`](crate::entry!).
    safe fn cob_main(info: &BootInfo) -> !;
}

/// Names the first safe function of an image.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        /// The name by which hal finds the image's first function.
        #[unsafe(no_mangle)]
        pub fn cob_main(info: &$crate::boot::BootInfo) -> ! {
            $main(info)
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

const EMPTY: MemoryRange = MemoryRange { start: 0, end: 0, kind: MemoryKind::Reserved };

/// Entered from `pvh_entry` on the boot stack, the low 4 GiB mapped at their physical addresses.
pub(crate) extern "C" fn pvh_start(start_info: u64, image_phys: u64) -> ! {
    let mut info = BootInfo {
        index: 0,
        image_phys,
        archive: (0, 0),
        rsdp: 0,
        command_line: "",
        ranges: [EMPTY; RANGES],
        count: 0,
    };
    // SAFETY: the PVH ABI passes a start info below 4 GiB, which is mapped; nothing writes it.
    let si = unsafe { &*(start_info as *const StartInfo) };
    if si.magic == START_MAGIC && si.version >= 1 {
        info.rsdp = si.rsdp;
        if si.modules > 0 {
            // SAFETY: the ABI says that there is a module list; it is below 4 GiB.
            let m = unsafe { &*(si.module_list as *const Module) };
            info.archive = (m.address, m.size);
        }
        if si.command_line != 0 {
            // SAFETY: a NUL-terminated string below 4 GiB (ABI); it stays untouched until `boot` has parsed it.
            let c = unsafe { core::ffi::CStr::from_ptr(si.command_line as *const _) };
            info.command_line = c.to_str().unwrap_or("");
        }
        for i in 0..(si.memory_map_entries as usize).min(RANGES) {
            // SAFETY: within the table that the ABI describes.
            let e = unsafe { &*(si.memory_map as *const MapEntry).add(i) };
            let kind = match e.kind {
                1 => MemoryKind::Ram,
                3 | 4 => MemoryKind::Acpi,
                _ => MemoryKind::Reserved,
            };
            info.ranges[info.count] = MemoryRange { start: e.address, end: e.address.saturating_add(e.size), kind };
            info.count += 1;
        }
    }
    cob_main(&info)
}

/// Entered from `peer_entry` on the boot stack; `base` is the physical begin of this kernel's memory.
pub(crate) extern "C" fn peer_start(base: u64) -> ! {
    let _ = (base, entry::BOOT_WINDOW);
    console::set_index(1);
    crate::exit::halt()
}
