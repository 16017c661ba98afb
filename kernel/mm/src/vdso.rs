//! The vDSO: a shared object that the kernel gives to every program, with the clock calls that need no kernel, and the page they read.

use alloc::vec::Vec;

use base::Result;
use hal::{addr::PAGE_SIZE, frame::StaticFrame};

use crate::{
    space::Space,
    vma::{Label, Prot},
};

/// Its frames, made once at boot and mapped into every program.
#[derive(Debug, Default)]
pub struct Vdso {
    /// The data pages that hal keeps up to date; mapped just below the image, where the image looks for them.
    pub data: Vec<StaticFrame>,
    /// The image, a small ELF shared object.
    pub image: Vec<StaticFrame>,
}

impl Vdso {
    /// Maps it into a new program; the address of the image (`AT_SYSINFO_EHDR`).
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn map(&self, space: &Space) -> Result<u64> {
        let start = space.map_static(&[
            (&self.data, Prot::READ, Label::Vvar),
            (&self.image, Prot::READ.union(Prot::EXEC), Label::Vdso),
        ])?;
        Ok(start + (self.data.len() * PAGE_SIZE) as u64)
    }
}
