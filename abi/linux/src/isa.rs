//! The instruction sets, as a field of a task: nothing here depends on the ISA that this code is compiled for.

/// The instruction set, and with it the Linux ABI, of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Isa {
    /// AMD64, 64-bit programs only.
    X86_64 = 0,
    /// Arm A64, little-endian.
    Aarch64 = 1,
    /// RV64GC.
    Riscv64 = 2,
}

impl Isa {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// All of them, in the order of [`Isa::index`].
    pub const ALL: [Self; Self::COUNT] = [Self::X86_64, Self::Aarch64, Self::Riscv64];

    /// The column of this ISA in tables.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name as `uname -m` prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
            Self::Riscv64 => "riscv64",
        }
    }

    /// The name in paths of Debian's multiarch, which `/usr/TRIPLET` has.
    pub const fn triplet(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu",
            Self::Aarch64 => "aarch64-linux-gnu",
            Self::Riscv64 => "riscv64-linux-gnu",
        }
    }

    /// The ISA with this [`Isa::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// The `e_machine` of ELF files (`elf.h`).
    pub const fn elf_machine(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Aarch64 => 183,
            Self::Riscv64 => 243,
        }
    }
}
