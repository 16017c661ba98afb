//! The protocol simulator: the state machines of all services, as they run in the kernel, under a seeded scheduler. See `docs/simulator.md`.
#![forbid(unsafe_code)]

mod effects;
pub mod plan;
pub mod rng;
pub mod service;
pub mod sessions;
pub mod suites;
pub mod world;

pub use service::{Body, Context, Parts, SimService, Suite};
pub use world::{Report, World};

/// Runs one seed.
///
/// # Errors
/// The invariant that does not hold.
pub fn run(seed: u64, trace: bool, kernels: Option<u16>) -> Result<Report, String> {
    World::new(seed, suites::all(), trace, kernels).run()
}
