//! Pseudo terminals.

/// The pseudo terminals of a kernel.
#[derive(Debug, Default)]
pub struct Ptys {}

impl Ptys {
    /// None.
    pub const fn new() -> Self {
        Self {}
    }
}
