//! The protocol simulator: the state machines of all services, as they run in the kernel, under a seeded scheduler. See `docs/simulator.md`.
#![forbid(unsafe_code)]

pub mod coverage;
mod effects;
mod faults;
pub mod judge;
pub mod minimise;
pub mod plan;
pub mod rng;
pub mod service;
pub mod sessions;
pub mod suites;
pub mod world;

pub use service::{Body, Context, Parts, SimService, Suite};
pub use world::{Only, Report, World};

/// How a seed is run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Every message is printed.
    pub trace: bool,
    /// So many kernels instead of the seed's number.
    pub kernels: Option<u16>,
    /// The part of the seed that is kept.
    pub only: Only,
    /// What must hold.
    pub judge: judge::Judge,
}

/// Runs one seed.
///
/// # Errors
/// The rule that does not hold.
pub fn run(seed: u64, options: &Options) -> Result<Report, String> {
    run_and_look(seed, options).map(|(report, _)| report)
}

/// The same, and what met what.
///
/// # Errors
/// The rule that does not hold.
pub fn run_and_look(seed: u64, options: &Options) -> Result<(Report, coverage::Coverage), String> {
    let mut world = World::new(seed, suites::all(), options);
    let report = world.run()?;
    Ok((report, world.coverage))
}
