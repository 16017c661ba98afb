//! System calls as data: names, numbers on every ISA, and how far each is implemented.

mod declare;
pub mod page;
mod rows;

pub use rows::{Call, ROWS};

use crate::Isa;

/// How far a call is implemented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Every documented behaviour that applies here, proved by the tests of the row.
    Full,
    /// What the note does not exclude, proved by the tests of the row.
    Partial,
    /// Not at all: `ENOSYS`.
    None,
}

impl Level {
    /// The word used in the rows and in `docs/syscalls.md`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::None => "none",
        }
    }
}

/// What is known about one call.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which call.
    pub call: Call,
    /// The name as in section 2 of the manual.
    pub name: &'static str,
    /// The number on each ISA, by [`Isa::index`].
    pub numbers: [Option<u16>; Isa::COUNT],
    /// How far it is implemented.
    pub level: Level,
    /// What is missing, if the level is partial.
    pub note: &'static str,
    /// The cases of `tests/abi` that prove the level.
    pub tests: &'static [&'static str],
}

/// One more than the highest number that any ISA uses.
const NUMBERS: usize = 512;

/// For each ISA, the call of each number.
static BY_NUMBER: [[Option<Call>; NUMBERS]; Isa::COUNT] = invert();

const fn invert() -> [[Option<Call>; NUMBERS]; Isa::COUNT] {
    let mut table = [[None; NUMBERS]; Isa::COUNT];
    let mut row = 0;
    while row < ROWS.len() {
        let mut isa = 0;
        while isa < Isa::COUNT {
            if let Some(nr) = ROWS[row].numbers[isa] {
                assert!(table[isa][nr as usize].is_none(), "two calls with one number");
                table[isa][nr as usize] = Some(ROWS[row].call);
            }
            isa += 1;
        }
        row += 1;
    }
    table
}

impl Call {
    /// The call that a program of this ISA means by `nr`, if there is one. One table look-up.
    #[inline]
    pub fn from_number(isa: Isa, nr: usize) -> Option<Self> {
        BY_NUMBER[isa.index()].get(nr).copied().flatten()
    }

    /// The row of this call.
    pub const fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// The name as in section 2 of the manual, for example `"openat"`.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// The number on this ISA, if the ISA has the call.
    pub const fn number(self, isa: Isa) -> Option<u16> {
        self.row().numbers[isa.index()]
    }
}

impl core::fmt::Debug for Call {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl core::fmt::Display for Call {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}
