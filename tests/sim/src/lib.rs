//! The protocol simulator: the state machines of all services, as they run in the kernel, under a seeded scheduler. See `docs/simulator.md`.
#![forbid(unsafe_code)]

mod effects;
pub mod minimise;
pub mod plan;
pub mod rng;
pub mod service;
pub mod sessions;
pub mod suites;
pub mod world;

pub use service::{Body, Context, Parts, SimService, Suite};
pub use world::{Only, Report, World};

/// Runs one seed.
///
/// # Errors
/// The invariant that does not hold.
pub fn run(seed: u64, trace: bool, kernels: Option<u16>) -> Result<Report, String> {
    World::new(seed, suites::all(), trace, kernels).run()
}

/// Runs a part of a seed.
///
/// # Errors
/// The invariant that does not hold.
pub fn run_only(seed: u64, trace: bool, kernels: Option<u16>, only: &Only) -> Result<Report, String> {
    let mut world = World::new(seed, suites::all(), trace, kernels);
    world.only = only.clone();
    world.run()
}
