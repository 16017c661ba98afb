//! What a board model gives: where its RAM is, what is fixed in it, which devices it has. One table, so that the host command,
//! the kernels and the checks cannot disagree.

use linux_abi::Isa;

use crate::{Device, Range};

/// One mebibyte.
pub const MIB: u64 = 1 << 20;
/// Kernel memory, the board's memory and the archive reserve come in units of this: one large page.
pub const GRAIN: u64 = 2 * MIB;
/// Most kernels of a machine.
pub const MAX_KERNELS: usize = 64;
/// Most boards of a machine: each has a PCI device for the window to every other.
pub const MAX_BOARDS: usize = 8;
/// Most CPUs of one kernel: a CPU mask is a `u64`.
pub const MAX_CPUS_PER_KERNEL: usize = 64;
/// Most pieces of memory of one kernel.
pub const MAX_RANGES: usize = 16;
/// The least that a kernel can live in; its first piece must have it, for the image lies there.
pub const MIN_KERNEL_MEMORY: u64 = 32 * MIB;
/// The least reserve for the archive and what firmware keeps beside it.
pub const MIN_ARCHIVE: u64 = 8 * MIB;
/// The boot block's offset from a kernel's base; the porch is at the base itself.
pub const BOOT_BLOCK_OFFSET: u64 = 0x1000;
/// The most bytes of a boot block.
pub const BOOT_BLOCK_SIZE: u64 = 0x1_0000;

/// A kind of board that a plan can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// The name in the plan and for `qemu-system-* -M`.
    pub name: &'static str,
    /// The instruction set of its CPUs.
    pub isa: Isa,
    /// Its devices.
    pub devices: &'static [Device],
    /// Where the kernel that firmware starts has its base.
    pub primary_base: u64,
    /// The low pages begin here, one per kernel of the machine (`None`: starting a CPU needs none).
    pub low_pages: Option<u64>,
    /// The log ports begin here, one I/O port per kernel of the machine (`None`: logs go elsewhere).
    pub log_ports: Option<u16>,
    /// Where its RAM begins.
    pub ram_base: u64,
    /// The most CPUs that its interrupt controller can name.
    pub max_cpus: usize,
    /// The hardware id of the CPU that firmware starts.
    pub boot_cpu: u32,
    /// Whether it has a stub (`hal/stub`), so that it can be a board that waits for a kernel of another one.
    pub waits: bool,
    /// The least RAM that does not lie in one piece.
    low_most: u64,
    /// RAM in the first piece, if there are two: what is over goes to `high_base`.
    low_if_more: u64,
    /// Where RAM goes on.
    high_base: u64,
}

/// QEMU's `q35` (`pc_q35_init` in `hw/i386/pc_q35.c`): up to 0xb000_0000 bytes of RAM lie below the PCI hole in one piece; more is
/// split at 2 GiB and goes on at 4 GiB. COM1, the log ports and low pages are contracts C5 and C6 of `ARCHITECTURE.md`.
const Q35: Model = Model {
    name: "q35",
    isa: Isa::X86_64,
    devices: &[
        Device::Com1,
        Device::Pit,
        Device::Rtc,
        Device::Hpet,
        Device::IoApic,
        Device::Pci,
        Device::Agent,
        Device::Exit,
    ],
    primary_base: 0x20_0000,
    low_pages: Some(0x8000),
    log_ports: Some(0x1e00),
    ram_base: 0,
    max_cpus: 255,
    boot_cpu: 0,
    waits: false,
    low_most: 0xb000_0000,
    low_if_more: 0x8000_0000,
    high_base: 0x1_0000_0000,
};

/// QEMU's `virt` for aarch64 (`hw/arm/virt.c`): RAM in one piece from 1 GiB. With a GICv2 it can have 8 CPUs.
const VIRT_AARCH64: Model = Model {
    name: "virt",
    isa: Isa::Aarch64,
    devices: &[Device::Com1, Device::Rtc, Device::Pci, Device::Agent, Device::Exit],
    primary_base: 0x4000_0000,
    low_pages: None,
    log_ports: None,
    ram_base: 0x4000_0000,
    max_cpus: 8,
    boot_cpu: 0,
    waits: true,
    low_most: 255 << 30,
    low_if_more: 255 << 30,
    high_base: 1 << 39,
};

/// QEMU's `virt` for riscv64 (`hw/riscv/virt.c`): RAM in one piece from 2 GiB, whose begin is the SBI firmware's.
const VIRT_RISCV64: Model = Model {
    name: "virt",
    isa: Isa::Riscv64,
    devices: &[Device::Com1, Device::Rtc, Device::Pci, Device::Agent, Device::Exit],
    primary_base: 0x8020_0000,
    low_pages: None,
    log_ports: None,
    ram_base: 0x8000_0000,
    max_cpus: 8,
    boot_cpu: 0,
    waits: true,
    low_most: 14 << 30,
    low_if_more: 14 << 30,
    high_base: 1 << 39,
};

/// All models. A name may stand for a board of each ISA.
pub const MODELS: &[Model] = &[Q35, VIRT_AARCH64, VIRT_RISCV64];

impl Model {
    /// The model with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        MODELS.iter().find(|model| model.name == name)
    }

    /// The board of the same name with CPUs of `isa`.
    pub fn with_isa(&self, isa: Isa) -> Option<&'static Self> {
        MODELS.iter().find(|model| model.name == self.name && model.isa == isa)
    }

    /// The RAM that a board with `memory` bytes has below the hole and above it (which may be empty).
    pub fn ram(&self, memory: u64) -> [Range; 2] {
        let low = if memory >= self.low_most { self.low_if_more } else { memory };
        [Range::new(self.ram_base, low), Range::new(self.high_base, memory.saturating_sub(low))]
    }

    /// The most memory that lies in one piece; a board with no more than this can be enlarged without moving anything.
    pub const fn one_piece(&self) -> u64 {
        self.low_most
    }
}
