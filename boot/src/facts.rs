//! Who this kernel is: from the plan in the archive for the kernel that firmware started, from the boot block for the others.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use bootblock::BootBlock;
use hal::boot::{BootInfo, CpuDesc, MAX_RANGES, PhysRange, RawBoot};
use linux_abi::Isa;
use plan::Plan;

/// The plan in the archive.
pub const PLAN: &str = "boot/machine.toml";
/// The instruction set of this kernel.
pub const ISA: Isa = match hal::cpu::ELF_MACHINE {
    62 => Isa::X86_64,
    183 => Isa::Aarch64,
    _ => Isa::Riscv64,
};
const _: () = assert!(ISA.elf_machine() == hal::cpu::ELF_MACHINE);

/// The image that starts peers of an ISA.
pub const fn image(isa: Isa) -> &'static str {
    match isa {
        Isa::X86_64 => "boot/cob-x86_64",
        Isa::Aarch64 => "boot/cob-aarch64",
        Isa::Riscv64 => "boot/cob-riscv64",
    }
}

/// Names for the addresses in it.
pub const fn symbols(isa: Isa) -> &'static str {
    match isa {
        Isa::X86_64 => "boot/cob-x86_64.sym",
        Isa::Aarch64 => "boot/cob-aarch64.sym",
        Isa::Riscv64 => "boot/cob-riscv64.sym",
    }
}

/// From the begin of a kernel's memory to the end of what its starter leaves there: porch, boot block, first page tables (ARCHITECTURE.md C5).
const HAND_OVER_END: u64 = 0x3_0000;

/// All that is known before hardware is touched.
#[derive(Debug)]
pub struct Facts {
    /// The machine.
    pub plan: Plan,
    /// Its text, for those that this kernel starts.
    pub text: String,
    /// What hal needs.
    pub info: BootInfo,
    /// Seconds since 1970 at time 0, if the starter knew.
    pub epoch: Option<u64>,
    /// The kernel that this one asks to be let in: the one that started it, or, on a board that starts by itself, the first of the machine. None for that one.
    pub starter: Option<u16>,
    /// Options.
    pub command_line: String,
}

impl Facts {
    /// The slots of the network cards of this board that carry messages between kernels, each with the kernel whose it is.
    pub fn cards(&self) -> Vec<(u8, u16)> {
        let board = self.plan.kernel(self.info.index).map_or(0, |kernel| kernel.board);
        let kernels = self.plan.on_board(board).filter(|_| self.plan.is_apart());
        kernels.filter_map(|kernel| Some((self.plan.card_slot(kernel.index)?, kernel.index))).collect()
    }
}

/// A file of the archive.
pub fn file<'a>(archive: &'a [u8], path: &str) -> Option<&'a [u8]> {
    cpio::find(archive, path)
}

/// Reads them. `early` gives physical memory that the loader or the starter left.
///
/// # Errors
/// A sentence about what is missing.
pub fn read(raw: &RawBoot, early: fn(PhysRange) -> Option<&'static [u8]>) -> Result<Facts, String> {
    if let Some(at) = raw.boot_block {
        let bytes = early(at).ok_or("the boot block cannot be read")?;
        let block = BootBlock::decode(bytes).ok_or("the boot block is damaged")?;
        // A starter on another board does not know where this one's loader put the archive.
        let told = Some(PhysRange::new(block.archive.0, block.archive.1)).filter(|told| told.len > 0);
        let archive = told.or(raw.archive).ok_or("no archive: start the board with one")?;
        let who = Who { index: block.index, incarnation: block.incarnation, starter: Some(block.starter) };
        return facts(raw, parse(block.plan)?, who, block.plan, archive, Some(block.epoch), block.command_line);
    }
    let range = raw.archive.ok_or("no archive: start the machine with one (-initrd)")?;
    let archive = early(range).ok_or("the archive cannot be read")?;
    let text = file(archive, PLAN).ok_or("the archive has no boot/machine.toml")?;
    let text = core::str::from_utf8(text).map_err(|_| "the plan is not UTF-8")?;
    let plan = parse(text)?;
    let who = Who::by_firmware(&plan, raw.command_line)?;
    facts(raw, plan, who, text, range, None, raw.command_line)
}

fn parse(text: &str) -> Result<Plan, String> {
    plan::parse(text).map_err(|errors| errors.first().map_or_else(String::new, ToString::to_string))
}

/// Which kernel this is.
struct Who {
    index: u16,
    incarnation: u32,
    starter: Option<u16>,
}

impl Who {
    /// The kernel that firmware starts: the command line says on which board of several (`cob.board=`), and in which life of the board
    /// (`cob.incarnation=`, each higher than the one before; else the first), and who lets it in (`cob.starter=`; else the first kernel of the machine).
    fn by_firmware(plan: &Plan, command_line: &str) -> Result<Self, String> {
        let number = |key: &str, default: u32| {
            let mut words = command_line.split_whitespace().filter_map(|word| word.strip_prefix(key));
            words.next().map_or(Ok(default), |value| value.parse().map_err(|_| format!("{key}{value} is no number")))
        };
        let board = number("cob.board=", 0)? as usize;
        let primary = |board| plan.primary(board).map(|kernel| kernel.index);
        let index = primary(board).ok_or("the plan has no kernel that the firmware of this board starts")?;
        let incarnation = number("cob.incarnation=", 1)?.max(1);
        let starter = match (primary(0), board) {
            (Some(first), 1..) => u16::try_from(number("cob.starter=", first.into())?).ok(),
            _ => None,
        };
        Ok(Self { index, incarnation, starter })
    }
}

fn facts(
    raw: &RawBoot,
    plan: Plan,
    who: Who,
    text: &str,
    archive: PhysRange,
    epoch: Option<u64>,
    command_line: &str,
) -> Result<Facts, String> {
    let kernel = plan.kernel(who.index).ok_or("the plan does not know this kernel")?;
    let mut info = BootInfo::new(who.index, who.incarnation);
    info.archive = archive;
    for (i, r) in kernel.memory.iter().take(MAX_RANGES).enumerate() {
        info.owned[i] = PhysRange::new(r.start, r.size);
        // The first piece begins with porch, boot block and image.
        let start = if i == 0 { raw.image.end().page_up().0 } else { r.start };
        info.free[i] = PhysRange::new(start, r.end().saturating_sub(start));
        info.n_owned = i + 1;
    }
    info.n_free = info.n_owned;
    // Between what the starter left in front of the image and the image. The last of the pieces, for it is small.
    if let Some(slot) = info.free.get_mut(info.n_free) {
        *slot = PhysRange::new(kernel.base() + HAND_OVER_END, plan::IMAGE_OFFSET - HAND_OVER_END);
        info.n_free += 1;
    }
    for (i, c) in kernel.cpus.iter().take(info.cpus.len()).enumerate() {
        info.cpus[i] = CpuDesc { global: c.global, hardware: c.hardware };
        info.n_cpus = i + 1;
    }
    if kernel.base() + plan::IMAGE_OFFSET != raw.image.start.0 {
        return Err("the plan puts this kernel elsewhere than it was loaded".to_string());
    }
    let (text, command_line) = (text.to_string(), command_line.to_string());
    Ok(Facts { plan, text, info, epoch, starter: who.starter, command_line })
}
