//! The vDSO: a shared object that the kernel gives to every program, with the clock calls that need no kernel, and the page they read.

use alloc::vec::Vec;

use hal::frame::StaticFrame;

/// Its frames, made once at boot and mapped into every program.
#[derive(Debug, Default)]
pub struct Vdso {
    /// The data page that hal keeps up to date; mapped just below the code.
    pub data: Option<StaticFrame>,
    /// The image.
    pub image: Vec<StaticFrame>,
}
