//! Deadlines.

pub mod queue;
