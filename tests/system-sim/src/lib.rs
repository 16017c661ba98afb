//! The system simulator: whole kernels with scripted programs under a seeded scheduler. See `docs/simulator.md`.
#![forbid(unsafe_code)]

mod archive;
mod calls;
mod check;
mod env;
mod machine;
mod minimise;
mod plan;
mod programs;
mod rng;
mod run;

pub use minimise::{Small, minimise};
pub use plan::{Calm, Case};
pub use programs::ALL as PROGRAMS;
pub use run::{Failure, Report, run};
