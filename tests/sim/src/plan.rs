//! What a seed chooses before the run begins.

use crate::rng::Rng;

/// How messages travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    /// Shared memory: nothing is lost, lanes are in order, there are fence words, the dead can be fenced.
    Shared,
    /// Boards with shared memory each, and between them as `Lossy`: who can be fenced is by who is on its board.
    Boards,
    /// Messages only: membership messages may be lost, doubled and reordered; groups of kernels may be cut off; nobody can be fenced.
    Lossy,
}

/// The shape of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many kernels.
    pub kernels: u16,
    /// The medium.
    pub medium: Medium,
    /// Over how many boards they are spread; only of [`Medium::Boards`].
    pub boards: u16,
    /// The longest delay of a message, in nanoseconds.
    pub delay: u64,
    /// Operations that programs start.
    pub operations: u32,
    /// Faults that happen.
    pub faults: u32,
    /// How long programs run, in nanoseconds.
    pub busy: u64,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(rng: &mut Rng) -> Self {
        let kernels = if rng.one_in(4) { rng.between(9, 17) } else { rng.between(2, 9) } as u16;
        let medium = match rng.below(12) {
            0 | 1 => Medium::Lossy,
            2 | 3 if kernels > 2 => Medium::Boards,
            _ => Medium::Shared,
        };
        let boards = if medium == Medium::Boards { rng.between(2, u64::from(kernels.min(5))) as u16 } else { 1 };
        let delay = [2_000, 50_000, 2_000_000, 40_000_000][rng.below(4) as usize];
        let busy = rng.between(2, 12) * 1_000_000_000;
        let (operations, faults) = (200 + rng.below(100) as u32, 2 + rng.below(5) as u32);
        Self { kernels, medium, boards, delay, operations, faults, busy }
    }

    /// The board of each kernel, as membership has it.
    pub fn boards(&self) -> Vec<usize> {
        if self.medium != Medium::Boards {
            return Vec::new();
        }
        (0..self.kernels).map(|index| usize::from(index * self.boards / self.kernels)).collect()
    }

    /// Whether two kernels share memory.
    pub fn near(&self, a: u16, b: u16) -> bool {
        let board = |index: u16| index * self.boards / self.kernels;
        match self.medium {
            Medium::Shared => true,
            Medium::Lossy => a == b,
            Medium::Boards => board(a) == board(b),
        }
    }
}
