//! The description of a machine: which boards it has, which kernels live on them, and what each kernel owns.
//!
//! A plan is a TOML text (`machines/*.toml`; written down in `docs/machines.md`). [`parse`] reads and checks it; what it returns is
//! consistent: no CPU, byte of memory, low page, port or device has two owners, and every kernel can be started. The host
//! command, the kernels and `kctl plan check` all use this crate, so they agree on every answer.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod check;
mod layout;
mod model;
mod read;
mod stage;
mod units;

pub use layout::{
    BOOT_BLOCK_OFFSET, BOOT_BLOCK_SIZE, GRAIN, MAX_BOARDS, MAX_CPUS_PER_KERNEL, MAX_KERNELS, MAX_RANGES, MIB,
    MIN_ARCHIVE, MIN_KERNEL_MEMORY, MODELS, Model,
};
pub use linux_abi::Isa;
pub use model::{Board, Boot, Cpu, Device, Joined, Kernel, Link, Membership, Owner, Plan, Range};
pub use stage::{IMAGE_OFFSET, STAGE_MAGIC, STAGE_OFFSET, STUB_OFFSET};
pub use units::{parse_size, show_size};

use alloc::string::String;
use alloc::vec::Vec;

/// Why a plan is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// The line of the text, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
    /// What to change.
    pub hint: String,
}

impl core::fmt::Display for PlanError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "line {}: {}; {}", self.line, self.what, self.hint)
    }
}

impl core::error::Error for PlanError {}

/// Reads and checks a plan. The errors come in the order of their lines and are never empty.
pub fn parse(text: &str) -> Result<Plan, Vec<PlanError>> {
    let mut reader = read::Reader::new(text);
    let raw = reader.read();
    let mut errors = reader.errors;
    let plan = raw.and_then(|raw| check::check(&raw, &mut errors));
    errors.sort_by_key(|error| error.line);
    match plan {
        Some(plan) if errors.is_empty() => Ok(plan),
        _ => Err(errors),
    }
}
