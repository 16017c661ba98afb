//! Facts from the boot: what the loader said ([`RawBoot`]) and what this kernel was told to be ([`BootInfo`]).

use crate::addr::{PhysAddr, PhysRange};

/// Most CPUs of one kernel: a CPU mask is a `u64`.
pub const MAX_CPUS: usize = 64;
/// Most pieces of memory that a kernel owns at boot.
pub const MAX_RANGES: usize = 16;

/// What firmware or the kernel that started this one left behind, before anybody has looked at the plan.
#[derive(Clone, Copy, Debug)]
pub struct RawBoot {
    /// RAM by the firmware's map; empty for a secondary (its boot block says what it owns).
    pub ram: &'static [PhysRange],
    /// The archive (a cpio in RAM that belongs to no kernel).
    pub archive: Option<PhysRange>,
    /// The boot block, for a kernel that was started by a peer.
    pub boot_block: Option<PhysRange>,
    /// The kernel's command line.
    pub command_line: &'static str,
    /// Where the ACPI root pointer lies, if the platform has one.
    pub rsdp: Option<PhysAddr>,
    /// Where the image lies in physical memory, `.bss` included.
    pub image: PhysRange,
    /// The hardware id of the CPU that runs this.
    pub boot_cpu: u32,
}

/// One CPU of this kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuDesc {
    /// Its number in the machine.
    pub global: u32,
    /// What the interrupt controller calls it (APIC id, MPIDR, hart id).
    pub hardware: u32,
}

/// What this kernel is: made by `boot` from the plan or from the boot block, handed to `hal::boot::init`.
#[derive(Clone, Copy, Debug)]
pub struct BootInfo {
    /// The kernel's place in the plan.
    pub index: u16,
    /// Counts the starts of this index, from 1.
    pub incarnation: u32,
    /// Memory that frames may come from: owned by this kernel, without porch, boot block, image and what the early heap took.
    pub free: [PhysRange; MAX_RANGES],
    /// How many entries of `free` count.
    pub n_free: usize,
    /// All memory of this kernel, for the linear map.
    pub owned: [PhysRange; MAX_RANGES],
    /// How many entries of `owned` count.
    pub n_owned: usize,
    /// CPUs by slot; slot 0 runs this.
    pub cpus: [CpuDesc; MAX_CPUS],
    /// How many CPUs this kernel has.
    pub n_cpus: usize,
    /// The archive, mapped read-only by every kernel.
    pub archive: PhysRange,
}

impl BootInfo {
    /// A kernel with nothing, to be filled in.
    pub const fn new(index: u16, incarnation: u32) -> Self {
        Self {
            index,
            incarnation,
            free: [PhysRange::new(0, 0); MAX_RANGES],
            n_free: 0,
            owned: [PhysRange::new(0, 0); MAX_RANGES],
            n_owned: 0,
            cpus: [CpuDesc { global: 0, hardware: 0 }; MAX_CPUS],
            n_cpus: 0,
            archive: PhysRange::new(0, 0),
        }
    }

    /// The memory that frames may come from.
    pub fn free(&self) -> &[PhysRange] {
        &self.free[..self.n_free]
    }

    /// All memory of this kernel.
    pub fn owned(&self) -> &[PhysRange] {
        &self.owned[..self.n_owned]
    }

    /// The CPUs by slot.
    pub fn cpus(&self) -> &[CpuDesc] {
        &self.cpus[..self.n_cpus]
    }
}

/// The serial port that is the console `ttyS0`: how its registers are reached, and the interrupt line that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SerialPort {
    /// A 16550 behind I/O ports.
    Ports16550 {
        /// The first port.
        base: u16,
        /// Its line.
        line: u32,
    },
    /// A 16550 in memory, a byte per register.
    Memory16550 {
        /// Its registers.
        registers: PhysRange,
        /// Its line.
        line: u32,
    },
    /// Arm's PL011.
    Pl011 {
        /// Its registers.
        registers: PhysRange,
        /// Its line.
        line: u32,
    },
}

/// The host bridge of PCI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciHost {
    /// Where configuration space is (1 MiB per bus).
    pub ecam: PhysAddr,
    /// Where BARs go, 32-bit ones and 64-bit ones, if no firmware has assigned them.
    pub unassigned: Option<(PhysRange, PhysRange)>,
}
