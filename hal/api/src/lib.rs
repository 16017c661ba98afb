//! What an ISA (or the host) provides to `hal`, and the few types both sides speak of.
//!
//! `hal/x86_64` and `hal/host` implement [`Platform`]; `hal/core` builds everything safe on top. Nobody else uses this crate.
//! A platform has no state that `hal` does not ask for and never calls up except through [`Upcalls`].
#![no_std]

mod addr;
mod boot;
mod page;
mod platform;
mod user;

pub use addr::{PAGE_SHIFT, PAGE_SIZE, PhysAddr, PhysRange, UserAddr};
pub use boot::{BootInfo, CpuDesc, MAX_CPUS, MAX_RANGES, PciHost, RawBoot, SerialPort};
pub use page::{Aarch64, Leaf, LeafKind, PageFormat, Prot, Sv39, Sv48, X86_64};
pub use platform::{Fenced, Ipi, NotMapped, Platform, Refused, Upcalls, WindowAttr};
pub use user::{Access, Exit, Fault, FaultKind, SignalFrame, UserRegs};
