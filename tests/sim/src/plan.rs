//! What a seed chooses before the run begins.

use crate::rng::Rng;

/// How messages travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    /// Shared memory: nothing is lost, lanes are in order, there are fence words, the dead can be fenced.
    Shared,
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
        let medium = if rng.one_in(6) { Medium::Lossy } else { Medium::Shared };
        let delay = [2_000, 50_000, 2_000_000, 40_000_000][rng.below(4) as usize];
        let busy = rng.between(2, 12) * 1_000_000_000;
        Self { kernels, medium, delay, operations: 200 + rng.below(100) as u32, faults: 2 + rng.below(5) as u32, busy }
    }
}
