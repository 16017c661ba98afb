//! What a plan says, once it was found to be consistent.

use alloc::string::String;
use alloc::vec::Vec;

use crate::{BOOT_BLOCK_OFFSET, BOOT_BLOCK_SIZE, IMAGE_OFFSET, Isa, Model};

/// A piece of a board's physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    /// The first address.
    pub start: u64,
    /// How many bytes.
    pub size: u64,
}

impl Range {
    /// `size` bytes from `start`.
    pub const fn new(start: u64, size: u64) -> Self {
        Self { start, size }
    }

    /// The first address behind it.
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }

    /// Whether the address is in it.
    pub const fn contains(&self, address: u64) -> bool {
        address >= self.start && address < self.end()
    }

    /// Whether all of `other` is in it.
    pub const fn covers(&self, other: &Self) -> bool {
        other.start >= self.start && other.end() <= self.end()
    }

    /// Whether they have an address in common.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }
}

/// A CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cpu {
    /// Its number in the machine: programs see this one.
    pub global: u32,
    /// What its board's interrupt controller calls it (APIC id, MPIDR, hart id).
    pub hardware: u32,
}

/// A device that a board has once and one kernel owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Device {
    /// The first serial port: the console `ttyS0`.
    Com1,
    /// The 8254 timer.
    Pit,
    /// The battery-backed clock.
    Rtc,
    /// The high-precision event timer.
    Hpet,
    /// The I/O APIC: routes the interrupt lines of devices.
    IoApic,
    /// The PCI host bridge: configuration space and what is found behind it.
    Pci,
    /// The virtio-serial port that `cob exec` speaks through.
    Agent,
    /// The port that ends the emulator.
    Exit,
}

impl Device {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Com1, Self::Pit, Self::Rtc, Self::Hpet, Self::IoApic, Self::Pci, Self::Agent, Self::Exit];

    /// The name in a plan.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Com1 => "com1",
            Self::Pit => "pit",
            Self::Rtc => "rtc",
            Self::Hpet => "hpet",
            Self::IoApic => "ioapic",
            Self::Pci => "pci",
            Self::Agent => "agent",
            Self::Exit => "exit",
        }
    }

    /// The device with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|device| device.name() == name)
    }
}

/// How a kernel is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boot {
    /// By the board's firmware.
    Firmware,
    /// By another kernel, as soon as that one runs.
    Auto {
        /// The kernel that does it.
        by: u16,
    },
    /// When somebody says `kctl boot`.
    Manual,
}

/// A board: CPUs of one ISA and their memory. In emulation one QEMU process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// What it is and what it has.
    pub model: &'static Model,
    /// All its RAM, in bytes.
    pub memory: u64,
    /// The end of its low RAM that belongs to no kernel: firmware puts the archive there.
    pub archive: Range,
    /// How many CPUs it has; their hardware ids are below this.
    pub cpus: u32,
}

impl Board {
    /// The pieces of its RAM, below and above the hole; the second may be empty.
    pub fn ram(&self) -> [Range; 2] {
        self.model.ram(self.memory)
    }

    /// How far an address is from the begin of its RAM: where it is in a window that shows this board's RAM. `None` if it is none, or behind the hole.
    pub fn ram_offset(&self, address: u64) -> Option<u64> {
        let [low, _] = self.ram();
        low.contains(address).then(|| address - low.start)
    }
}

/// What belongs to one kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its number in the machine, from 0.
    pub index: u16,
    /// The number of its board.
    pub board: usize,
    /// The instruction set of its CPUs.
    pub isa: Isa,
    /// Its CPUs; the first starts the kernel.
    pub cpus: Vec<Cpu>,
    /// Its memory; the first piece begins with porch, boot block and image. Sorted but for the first.
    pub memory: Vec<Range>,
    /// How it is started.
    pub boot: Boot,
    /// Devices that it owns from its boot.
    pub devices: Vec<Device>,
    /// The physical page below 1 MiB for its trampoline and parking stub, where the ISA needs one.
    pub low_page: Option<u64>,
    /// The I/O port that takes its log, where the board has such ports.
    pub log_port: Option<u16>,
}

impl Kernel {
    /// Where its memory begins, and the porch lies.
    pub fn base(&self) -> u64 {
        self.memory.first().map_or(0, |range| range.start)
    }

    /// The room for its boot block.
    pub fn boot_block(&self) -> Range {
        Range::new(self.base() + BOOT_BLOCK_OFFSET, BOOT_BLOCK_SIZE)
    }

    /// Where its image is loaded.
    pub fn image_base(&self) -> u64 {
        self.base() + IMAGE_OFFSET
    }

    /// All its memory, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.iter().map(|range| range.size).sum()
    }

    /// The CPU that starts it.
    pub fn boot_cpu(&self) -> Option<Cpu> {
        self.cpus.first().copied()
    }

    /// Whether the device is its own.
    pub fn has(&self, device: Device) -> bool {
        self.devices.contains(&device)
    }
}

/// Two kernels and how far they are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernels, the lower index first.
    pub between: (u16, u16),
    /// The distance as in `/sys/devices/system/node/node*/distance`: 10 is local.
    pub distance: u8,
}

/// When a silent kernel counts as dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The time between two probes, in milliseconds.
    pub probe_ms: u32,
    /// How many probes in a row must stay unanswered.
    pub probes: u32,
    /// How long it must have been silent, in milliseconds of the observer's own running time.
    pub dead_after_ms: u32,
}

impl Default for Membership {
    fn default() -> Self {
        Self { probe_ms: 250, probes: 3, dead_after_ms: 2000 }
    }
}

/// To whom an address belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// To the kernel with this index.
    Kernel(u16),
    /// It is the low page of this kernel.
    LowPage(u16),
    /// To nobody: the archive lies there, read-only for all.
    Archive,
    /// To nobody.
    Nobody,
}

/// What boards have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Joined {
    /// They see each other's memory and ring each other's bells; the first board's kernel starts those of the others.
    #[default]
    Memory,
    /// A network and nothing else. Each board starts by itself.
    Ethernet,
}

impl Joined {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Memory, Self::Ethernet];

    /// The name in a plan.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Ethernet => "ethernet",
        }
    }

    /// What has this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|joined| joined.name() == name)
    }
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// What it is for, in a sentence; may be empty.
    pub about: String,
    /// What its boards have in common, if there is more than one.
    pub joined: Joined,
    /// Its boards.
    pub boards: Vec<Board>,
    /// Its kernels, by index.
    pub kernels: Vec<Kernel>,
    /// Pairs whose distance is not the default.
    pub links: Vec<Link>,
    /// When a silent kernel counts as dead.
    pub membership: Membership,
    /// The kernels that may own the console, in this order.
    pub console: Vec<u16>,
}

impl Plan {
    /// The distance of a kernel to itself.
    pub const LOCAL_DISTANCE: u8 = 10;
    /// The distance of two kernels of one board that the plan says nothing about.
    pub const NEAR_DISTANCE: u8 = 20;
    /// The distance of two kernels of different boards that the plan says nothing about.
    pub const FAR_DISTANCE: u8 = 40;

    /// The kernel with this index.
    pub fn kernel(&self, index: u16) -> Option<&Kernel> {
        self.kernels.get(usize::from(index))
    }

    /// The memory of a kernel; nothing for an unknown one.
    pub fn owned_ranges(&self, index: u16) -> &[Range] {
        self.kernel(index).map_or(&[], |kernel| &kernel.memory)
    }

    /// The board of a kernel.
    pub fn board_of(&self, index: u16) -> Option<&Board> {
        self.boards.get(self.kernel(index)?.board)
    }

    /// The kernels of a board.
    pub fn on_board(&self, board: usize) -> impl Iterator<Item = &Kernel> {
        self.kernels.iter().filter(move |kernel| kernel.board == board)
    }

    /// How many CPUs the machine has; their global numbers are below this.
    pub fn cpu_count(&self) -> u32 {
        self.boards.iter().map(|board| board.cpus).sum()
    }

    /// The kernel that owns a CPU, and the CPU.
    pub fn cpu(&self, global: u32) -> Option<(&Kernel, Cpu)> {
        self.kernels
            .iter()
            .find_map(|kernel| kernel.cpus.iter().find(|cpu| cpu.global == global).map(|cpu| (kernel, *cpu)))
    }

    /// The kernel that owns the CPU with this hardware id, and the CPU.
    pub fn cpu_by_hardware(&self, board: usize, hardware: u32) -> Option<(&Kernel, Cpu)> {
        self.on_board(board)
            .find_map(|kernel| kernel.cpus.iter().find(|cpu| cpu.hardware == hardware).map(|cpu| (kernel, *cpu)))
    }

    /// To whom a physical address of a board belongs.
    pub fn owner(&self, board: usize, address: u64) -> Owner {
        for kernel in &self.kernels {
            // Low pages exist on boards of the kernel's own model only, but their numbers count through the machine.
            if kernel.board != board {
                continue;
            }
            if kernel.memory.iter().any(|range| range.contains(address)) {
                return Owner::Kernel(kernel.index);
            }
            if kernel.low_page.is_some_and(|page| page == address & !0xfff) {
                return Owner::LowPage(kernel.index);
            }
        }
        match self.boards.get(board) {
            Some(board) if board.archive.contains(address) => Owner::Archive,
            _ => Owner::Nobody,
        }
    }

    /// The kernel that the firmware of a board starts.
    pub fn primary(&self, board: usize) -> Option<&Kernel> {
        self.on_board(board).find(|kernel| kernel.boot == Boot::Firmware)
    }

    /// The kernels that this one starts as soon as it runs, by index.
    pub fn starts(&self, index: u16) -> impl Iterator<Item = &Kernel> {
        self.kernels.iter().filter(move |kernel| kernel.boot == Boot::Auto { by: index })
    }

    /// The kernel that owns a device of a board at boot.
    pub fn device_owner(&self, board: usize, device: Device) -> Option<&Kernel> {
        self.on_board(board).find(|kernel| kernel.has(device))
    }

    /// Whether kernels of different boards share memory and bells, between emulators or cards.
    pub fn is_mixed(&self) -> bool {
        self.boards.len() > 1 && self.joined == Joined::Memory
    }

    /// Whether boards are joined by a network only.
    pub fn is_apart(&self) -> bool {
        self.boards.len() > 1 && self.joined == Joined::Ethernet
    }

    /// Whether two kernels address each other's memory; `false` if one does not exist.
    pub fn share_memory(&self, a: u16, b: u16) -> bool {
        let board = |index| self.kernel(index).map(|kernel| kernel.board);
        matches!((board(a), board(b)), (Some(a), Some(b)) if a == b || self.joined == Joined::Memory)
    }

    /// Where a kernel of a machine whose boards are apart has its network card: the number of the device on the first PCI bus of its board. `None`: there
    /// are too many kernels on the board.
    pub fn card_slot(&self, index: u16) -> Option<u8> {
        let board = self.kernel(index)?.board;
        let place = self.on_board(board).position(|kernel| kernel.index == index)?;
        (place < Self::CARDS).then(|| Self::FIRST_CARD + place as u8)
    }

    /// Slots for network cards on a board.
    pub const CARDS: usize = 16;
    const FIRST_CARD: u8 = 8;

    /// Where a board of a mixed machine has the window to another one's RAM: the number of its device on the first PCI bus.
    pub const fn window_slot(board: usize) -> u8 {
        16 + board as u8
    }

    /// Where each board of a mixed machine has the device with the bells and the page that all share.
    pub const BELL_SLOT: u8 = 15;

    /// The distance of two kernels as in `/sys/devices/system/node`; `None` if one does not exist.
    pub fn distance(&self, a: u16, b: u16) -> Option<u8> {
        let (from, to) = (self.kernel(a)?, self.kernel(b)?);
        if a == b {
            return Some(Self::LOCAL_DISTANCE);
        }
        let pair = (a.min(b), a.max(b));
        let default = if from.board == to.board { Self::NEAR_DISTANCE } else { Self::FAR_DISTANCE };
        Some(self.links.iter().find(|link| link.between == pair).map_or(default, |link| link.distance))
    }
}
