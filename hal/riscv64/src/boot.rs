//! What the loader or the starting kernel tells us.

use core::cell::UnsafeCell;

use devicetree::Tree;
use hal_api::{PhysRange, RawBoot};

use crate::{board, clock, console, cpu, entry, imsic, paging, percpu, smp, trap};

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

const RANGES: usize = 8;
const COMMAND_LINE: usize = 1024;
/// The boot block of a kernel that a peer starts: where, from the begin of its memory, and how long at most (ARCHITECTURE.md C5).
const BOOT_BLOCK: (u64, u64) = (0x1000, 0x10000);
/// A word of the command line, as Linux has it: page tables of three levels on CPUs that have more (Linux, "kernel-parameters").
const THREE_LEVELS: &str = "no4lvl";
/// The most that a device tree may have.
const TREE_MAX: usize = 2 << 20;

struct Facts {
    raw: RawBoot,
    ram: [PhysRange; RANGES],
    command_line: [u8; COMMAND_LINE],
    /// Early RAM is at its physical addresses until `init`.
    identity: bool,
    /// Page tables are to have three levels, though the CPU may have more.
    three_levels: bool,
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
    three_levels: false,
}));

/// Bytes in physical memory before the kernel has its own page tables: what the loader left in early RAM, or the first 2 MiB of this
/// kernel's memory. `None` for anything else.
pub fn early_bytes(range: PhysRange) -> Option<&'static [u8]> {
    // SAFETY: only read after the boot CPU has written it.
    let facts = unsafe { &*FACTS.0.get() };
    let len = usize::try_from(range.len).ok()?;
    let end = range.start.0.checked_add(range.len)?;
    if paging::root() != 0 {
        return None;
    }
    let at = if facts.identity {
        let ram = entry::EARLY_RAM.0..entry::EARLY_RAM.0 + (entry::EARLY_RAM.1 << 30);
        (ram.contains(&range.start.0) && end <= ram.end).then_some(range.start.0)?
    } else {
        let base = facts.raw.image.start.0 - entry::IMAGE_OFFSET;
        let off = range.start.0.checked_sub(base)?;
        (end - base <= entry::IMAGE_OFFSET).then_some(entry::BOOT_WINDOW + off)?
    };
    // SAFETY: the boot tables map it; nothing writes it while the kernel boots.
    Some(unsafe { core::slice::from_raw_parts(at as *const u8, len) })
}

/// Entered on the boot stack; see [`entry`] for `argument`.
pub(crate) extern "C" fn start(argument: u64, image_phys: u64) -> ! {
    clock::enter();
    paging::set_image(image_phys);
    // SAFETY: the boot CPU's own block, used by nobody yet.
    unsafe { percpu::load(percpu::boot_cpu()) };
    percpu::register(percpu::this());
    trap::load_vector();
    cpu::enable();
    // SAFETY: the only reference; the boot CPU runs alone.
    let facts = unsafe { &mut *FACTS.0.get() };
    facts.raw.image = PhysRange::new(image_phys, paging::image_len());
    if argument & 1 != 0 {
        facts.raw.boot_block = Some(PhysRange::new(argument - 1 + BOOT_BLOCK.0, BOOT_BLOCK.1));
        if let Some(h) = smp::hand_over() {
            console::set_index(h.index as u16);
            board::set_found(&h.board);
            facts.raw.boot_cpu = h.hart as u32;
            facts.three_levels = h.three_levels != 0;
        }
    } else {
        facts.identity = true;
        if argument & 2 != 0 {
            let base = image_phys - entry::IMAGE_OFFSET;
            facts.raw.boot_block = Some(PhysRange::new(base + BOOT_BLOCK.0, BOOT_BLOCK.1));
            // Whose log this is, before the block is read: bytes 16 and 17 of it (`lib/bootblock`).
            let index = early_bytes(PhysRange::new(base + BOOT_BLOCK.0 + 16, 2));
            console::set_index(index.map_or(0, |le| u16::from_le_bytes([le[0], le[1]])));
        }
        facts.raw.boot_cpu = entry::FIRST_HART as u32;
        read_tree(argument & !7);
    }
    clock::set_rate();
    // SAFETY: as above; what other references there were is gone.
    let facts = unsafe { &mut *FACTS.0.get() };
    percpu::this().hardware.store(u64::from(facts.raw.boot_cpu), core::sync::atomic::Ordering::Relaxed);
    cob_main(&facts.raw)
}

/// Takes what is of use from the device tree, which is gone later.
fn read_tree(at: u64) {
    // SAFETY: the boot CPU runs alone; `early_bytes` only looks at what is not written here.
    let facts: &'static mut Facts = unsafe { &mut *FACTS.0.get() };
    let head = early_bytes(PhysRange::new(at, 8)).and_then(devicetree::length);
    let bytes = head.filter(|len| *len <= TREE_MAX).and_then(|len| early_bytes(PhysRange::new(at, len as u64)));
    let Some(tree) = bytes.and_then(Tree::new) else { return };
    let line = tree.command_line().as_bytes();
    let n = line.len().min(COMMAND_LINE);
    facts.command_line[..n].copy_from_slice(&line[..n]);
    facts.raw.command_line = core::str::from_utf8(&facts.command_line[..n]).unwrap_or("");
    facts.three_levels = facts.raw.command_line.split_whitespace().any(|word| word == THREE_LEVELS);
    facts.raw.archive = facts.raw.command_line.split_whitespace().find_map(archive);
    let mut n = 0;
    tree.memory(|range| {
        if let Some(slot) = facts.ram.get_mut(n) {
            *slot = PhysRange::new(range.start, range.size);
            n += 1;
        }
    });
    facts.raw.ram = &facts.ram[..n];
    board::read(&tree);
}

/// `cob.archive=START+BYTES`, both in hexadecimal.
fn archive(word: &str) -> Option<PhysRange> {
    let (start, len) = word.strip_prefix("cob.archive=")?.split_once('+')?;
    let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    Some(PhysRange::new(number(start)?, number(len)?))
}

/// The rest of `Platform::init`.
pub(crate) fn init(info: &hal_api::BootInfo) -> Result<(), hal_api::Refused> {
    console::set_index(info.index);
    // SAFETY: only read after the boot CPU has written it.
    let facts = unsafe { &*FACTS.0.get() };
    // SAFETY: once, on the boot CPU; `info` tells the truth (contract of `Platform::init`).
    unsafe { paging::init(info.owned(), facts.three_levels)? };
    imsic::init()?;
    if facts.identity {
        imsic::init_shared();
    }
    imsic::init_cpu();
    clock::init_cpu();
    smp::init(info);
    smp::online();
    cpu::listen();
    Ok(())
}
