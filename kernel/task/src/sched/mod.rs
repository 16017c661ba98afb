//! Who runs where and when.

pub mod queue;
