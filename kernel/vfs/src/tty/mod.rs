//! Terminals.
pub mod pty;
