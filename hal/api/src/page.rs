//! Page-table entry formats of all ISAs, as pure functions on `u64`, so that they are all tested on the host.
//!
//! Every format has 4 KiB pages and tables of 512 entries of 8 bytes. Only the user half is made with these; what they say about kernel
//! entries is that some slots of the root are shared.
//!
//! Sources: Intel SDM vol. 3A ch. 4.5; Arm ARM DDI 0487 D8.3 (VMSAv8-64, 4 KiB granule); RISC-V privileged spec 4.4 and 4.5.

use crate::addr::PhysAddr;

bitflags::bitflags! {
    /// What a program may do with a page. Nothing set: the page is kept but any access faults (`PROT_NONE`). Every ISA here lets
    /// a writable or executable page be read, so anything set implies `READ`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Prot: u8 {
        /// Loads.
        const READ = 1;
        /// Stores.
        const WRITE = 2;
        /// Instruction fetches.
        const EXEC = 4;
    }
}

impl Prot {
    /// The same with what is implied.
    #[must_use]
    pub const fn normal(self) -> Self {
        if self.is_empty() { self } else { self.union(Self::READ) }
    }
}

/// Whose memory a page is: decides what happens when it is unmapped. Kept in software bits of the entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum LeafKind {
    /// A counted frame of this kernel.
    Own = 1,
    /// Memory that is never freed (archive, vDSO).
    Static = 2,
    /// A frame of another kernel, held by a grant.
    Peer = 3,
}

impl LeafKind {
    const fn from_bits(bits: u64) -> Option<Self> {
        match bits & 3 {
            1 => Some(Self::Own),
            2 => Some(Self::Static),
            3 => Some(Self::Peer),
            _ => None,
        }
    }
}

/// A page-table entry that maps a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// The frame.
    pub at: PhysAddr,
    /// What programs may do.
    pub prot: Prot,
    /// Whose memory it is.
    pub kind: LeafKind,
    /// It was used since this was last cleared.
    pub accessed: bool,
    /// It was written since this was last cleared.
    pub dirty: bool,
}

/// One format of page tables. `level` counts from 0 (the tables whose entries map 4 KiB pages) upwards.
pub trait PageFormat: 'static {
    /// The first root entry that belongs to the kernel half; 512 if the kernel half has its own root register.
    const USER_ROOT_ENTRIES: usize;
    /// Whether the CPU itself sets accessed and dirty. Where not, a cleared bit makes the access fault and [`PageFormat::leaf`] should be
    /// given what the fault would set.
    const HARDWARE_AD: bool;

    /// Number of table levels; the same as long as a kernel runs.
    fn levels() -> u32;
    /// One past the highest address of the user half (Linux' `TASK_SIZE`); the same as long as a kernel runs.
    fn user_top() -> u64;
    /// An entry that points to a lower table.
    fn table(at: PhysAddr) -> u64;
    /// The lower table, if the entry points to one.
    fn as_table(entry: u64) -> Option<PhysAddr>;
    /// A level-0 entry for a user page.
    fn leaf(leaf: Leaf) -> u64;
    /// What a level-0 entry maps; `None` for a free one.
    fn as_leaf(entry: u64) -> Option<Leaf>;
    /// The frame's address in an occupied level-0 entry.
    fn leaf_at(entry: u64) -> PhysAddr;
    /// An occupied level-0 entry with writing taken away, everything else kept (copy-on-write).
    fn without_write(entry: u64) -> u64;
    /// Whether an occupied level-0 entry maps a counted frame.
    fn is_own(entry: u64) -> bool;
    /// Whether the hardware will let a program do `need` with this entry without a fault.
    fn allows(entry: u64, need: Prot) -> bool;
}

const fn bit(cond: bool, mask: u64) -> u64 {
    if cond { mask } else { 0 }
}

/// x86-64, 4 levels.
#[derive(Debug)]
pub struct X86_64;

impl X86_64 {
    const PRESENT: u64 = 1;
    const WRITE: u64 = 1 << 1;
    const USER: u64 = 1 << 2;
    const ACCESSED: u64 = 1 << 5;
    const DIRTY: u64 = 1 << 6;
    const LARGE: u64 = 1 << 7;
    const KIND: u32 = 9;
    const NO_EXEC: u64 = 1 << 63;
    const ADDR: u64 = 0x000f_ffff_ffff_f000;
}

impl PageFormat for X86_64 {
    const USER_ROOT_ENTRIES: usize = 256;
    const HARDWARE_AD: bool = true;

    #[inline]
    fn levels() -> u32 {
        4
    }

    #[inline]
    fn user_top() -> u64 {
        0x7fff_ffff_f000
    }

    fn table(at: PhysAddr) -> u64 {
        at.0 | Self::PRESENT | Self::WRITE | Self::USER | Self::ACCESSED
    }

    #[inline]
    fn as_table(entry: u64) -> Option<PhysAddr> {
        (entry & (Self::PRESENT | Self::LARGE) == Self::PRESENT).then_some(PhysAddr(entry & Self::ADDR))
    }

    #[inline]
    fn leaf(l: Leaf) -> u64 {
        let p = l.prot.normal();
        l.at.0
            | ((l.kind as u64) << Self::KIND)
            | Self::USER
            | bit(!p.is_empty(), Self::PRESENT)
            | bit(p.contains(Prot::WRITE), Self::WRITE)
            | bit(!p.contains(Prot::EXEC), Self::NO_EXEC)
            | bit(l.accessed, Self::ACCESSED)
            | bit(l.dirty, Self::DIRTY)
    }

    #[inline]
    fn as_leaf(entry: u64) -> Option<Leaf> {
        let kind = LeafKind::from_bits(entry >> Self::KIND)?;
        let mut prot = Prot::empty();
        if entry & Self::PRESENT != 0 {
            prot |= Prot::READ;
            prot.set(Prot::WRITE, entry & Self::WRITE != 0);
            prot.set(Prot::EXEC, entry & Self::NO_EXEC == 0);
        }
        Some(Leaf {
            at: Self::leaf_at(entry),
            prot,
            kind,
            accessed: entry & Self::ACCESSED != 0,
            dirty: entry & Self::DIRTY != 0,
        })
    }

    fn leaf_at(entry: u64) -> PhysAddr {
        PhysAddr(entry & Self::ADDR)
    }

    #[inline]
    fn without_write(entry: u64) -> u64 {
        entry & !Self::WRITE
    }

    #[inline]
    fn is_own(entry: u64) -> bool {
        (entry >> Self::KIND) & 3 == LeafKind::Own as u64
    }

    #[inline]
    fn allows(entry: u64, need: Prot) -> bool {
        entry & Self::PRESENT != 0
            && (!need.contains(Prot::WRITE) || entry & Self::WRITE != 0)
            && (!need.contains(Prot::EXEC) || entry & Self::NO_EXEC == 0)
    }
}

/// aarch64, 4 levels, 4 KiB granule, TTBR0 with 48 bits.
///
/// A writable page that is not dirty is read-only with DBM set, so that it works with and without hardware management of dirty
/// state (FEAT_HAFDBS).
#[derive(Debug)]
pub struct Aarch64;

impl Aarch64 {
    const VALID: u64 = 1;
    const TABLE_OR_PAGE: u64 = 1 << 1;
    const EL0: u64 = 1 << 6;
    const READ_ONLY: u64 = 1 << 7;
    const INNER_SHAREABLE: u64 = 3 << 8;
    const ACCESSED: u64 = 1 << 10;
    const NOT_GLOBAL: u64 = 1 << 11;
    const DBM: u64 = 1 << 51;
    const PXN: u64 = 1 << 53;
    const UXN: u64 = 1 << 54;
    const KIND: u32 = 55;
    /// Software: a page that was dirty when writing was taken away.
    const DIRTY_READ_ONLY: u64 = 1 << 58;
    const ADDR: u64 = 0x0000_ffff_ffff_f000;
}

impl PageFormat for Aarch64 {
    const USER_ROOT_ENTRIES: usize = 512;
    const HARDWARE_AD: bool = false;

    #[inline]
    fn levels() -> u32 {
        4
    }

    #[inline]
    fn user_top() -> u64 {
        0xffff_ffff_f000
    }

    fn table(at: PhysAddr) -> u64 {
        at.0 | Self::VALID | Self::TABLE_OR_PAGE
    }

    fn as_table(entry: u64) -> Option<PhysAddr> {
        (entry & 3 == 3).then_some(PhysAddr(entry & Self::ADDR))
    }

    fn leaf(l: Leaf) -> u64 {
        let p = l.prot.normal();
        let write = p.contains(Prot::WRITE);
        l.at.0
            | ((l.kind as u64) << Self::KIND)
            | Self::TABLE_OR_PAGE
            | Self::EL0
            | Self::INNER_SHAREABLE
            | Self::NOT_GLOBAL
            | Self::PXN
            | bit(!p.is_empty(), Self::VALID)
            | bit(write, Self::DBM)
            | bit(!write || !l.dirty, Self::READ_ONLY)
            | bit(!write && l.dirty, Self::DIRTY_READ_ONLY)
            | bit(!p.contains(Prot::EXEC), Self::UXN)
            | bit(l.accessed, Self::ACCESSED)
    }

    fn as_leaf(entry: u64) -> Option<Leaf> {
        let kind = LeafKind::from_bits(entry >> Self::KIND)?;
        let write = entry & Self::DBM != 0;
        let mut prot = Prot::empty();
        if entry & Self::VALID != 0 {
            prot |= Prot::READ;
            prot.set(Prot::WRITE, write);
            prot.set(Prot::EXEC, entry & Self::UXN == 0);
        }
        Some(Leaf {
            at: Self::leaf_at(entry),
            prot,
            kind,
            accessed: entry & Self::ACCESSED != 0,
            dirty: if write { entry & Self::READ_ONLY == 0 } else { entry & Self::DIRTY_READ_ONLY != 0 },
        })
    }

    fn leaf_at(entry: u64) -> PhysAddr {
        PhysAddr(entry & Self::ADDR)
    }

    fn without_write(entry: u64) -> u64 {
        if entry & Self::DBM == 0 {
            return entry;
        }
        let dirty = entry & Self::READ_ONLY == 0;
        (entry & !Self::DBM) | Self::READ_ONLY | bit(dirty, Self::DIRTY_READ_ONLY)
    }

    fn is_own(entry: u64) -> bool {
        (entry >> Self::KIND) & 3 == LeafKind::Own as u64
    }

    fn allows(entry: u64, need: Prot) -> bool {
        entry & Self::VALID != 0
            && entry & Self::ACCESSED != 0
            && (!need.contains(Prot::WRITE) || entry & Self::READ_ONLY == 0)
            && (!need.contains(Prot::EXEC) || entry & Self::UXN == 0)
    }
}

mod riscv {
    pub(super) const V: u64 = 1;
    pub(super) const R: u64 = 1 << 1;
    pub(super) const W: u64 = 1 << 2;
    pub(super) const X: u64 = 1 << 3;
    pub(super) const U: u64 = 1 << 4;
    pub(super) const A: u64 = 1 << 6;
    pub(super) const D: u64 = 1 << 7;
    pub(super) const KIND: u32 = 8;
    pub(super) const PPN: u64 = 0x003f_ffff_ffff_fc00;
}

macro_rules! riscv_format {
    ($(#[$doc:meta])* $name:ident, $levels:literal, $top:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;

        impl PageFormat for $name {
            const USER_ROOT_ENTRIES: usize = 256;
            const HARDWARE_AD: bool = false;

            #[inline]
            fn levels() -> u32 {
                $levels
            }

            #[inline]
            fn user_top() -> u64 {
                $top
            }

            fn table(at: PhysAddr) -> u64 {
                (at.0 >> 2) | riscv::V
            }

            fn as_table(entry: u64) -> Option<PhysAddr> {
                (entry & (riscv::V | riscv::R | riscv::W | riscv::X) == riscv::V).then_some(Self::leaf_at(entry))
            }

            fn leaf(l: Leaf) -> u64 {
                let p = l.prot.normal();
                (l.at.0 >> 2)
                    | ((l.kind as u64) << riscv::KIND)
                    | riscv::U
                    | bit(!p.is_empty(), riscv::V | riscv::R)
                    | bit(p.contains(Prot::WRITE), riscv::W)
                    | bit(p.contains(Prot::EXEC), riscv::X)
                    | bit(l.accessed, riscv::A)
                    | bit(l.dirty, riscv::D)
            }

            fn as_leaf(entry: u64) -> Option<Leaf> {
                let kind = LeafKind::from_bits(entry >> riscv::KIND)?;
                let mut prot = Prot::empty();
                prot.set(Prot::READ, entry & riscv::R != 0);
                prot.set(Prot::WRITE, entry & riscv::W != 0);
                prot.set(Prot::EXEC, entry & riscv::X != 0);
                Some(Leaf {
                    at: Self::leaf_at(entry),
                    prot,
                    kind,
                    accessed: entry & riscv::A != 0,
                    dirty: entry & riscv::D != 0,
                })
            }

            fn leaf_at(entry: u64) -> PhysAddr {
                PhysAddr((entry & riscv::PPN) << 2)
            }

            fn without_write(entry: u64) -> u64 {
                entry & !riscv::W
            }

            fn is_own(entry: u64) -> bool {
                (entry >> riscv::KIND) & 3 == LeafKind::Own as u64
            }

            fn allows(entry: u64, need: Prot) -> bool {
                entry & (riscv::V | riscv::R | riscv::A) == riscv::V | riscv::R | riscv::A
                    && (!need.contains(Prot::WRITE) || entry & (riscv::W | riscv::D) == riscv::W | riscv::D)
                    && (!need.contains(Prot::EXEC) || entry & riscv::X != 0)
            }
        }
    };
}

riscv_format!(
    /// riscv64, 3 levels.
    Sv39,
    3,
    0x3f_ffff_f000
);
riscv_format!(
    /// riscv64, 4 levels.
    Sv48,
    4,
    0x7fff_ffff_f000
);
