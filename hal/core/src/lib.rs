//! The safe hardware layer that the rest of Cob uses.
//!
//! What runs below is chosen at compile time: the crate of the ISA on bare metal, `hal/host` (a kernel as a value inside a process) elsewhere.
//! Free functions find their kernel and CPU themselves; see `ARCHITECTURE.md`, contracts C1 to C3.
#![no_std]

extern crate alloc;
#[cfg(any(test, not(target_os = "none")))]
extern crate std;

#[cfg(all(target_os = "none", target_arch = "aarch64"))]
pub(crate) use hal_aarch64::Machine as P;
#[cfg(not(target_os = "none"))]
pub(crate) use hal_host::Host as P;
#[cfg(all(target_os = "none", target_arch = "riscv64"))]
pub(crate) use hal_riscv64::Machine as P;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub(crate) use hal_x86_64::Machine as P;

#[cfg(not(target_os = "none"))]
pub use hal_host as host;

pub mod addr;
pub mod boot;
pub mod console;
pub mod cpu;
pub mod cpuref;
pub mod frame;
pub mod heap;
mod instance;
pub mod io;
pub mod raw;
pub mod space;
pub mod sync;
#[cfg(not(target_os = "none"))]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod thread;
pub mod time;
pub mod trace;
pub mod user;
pub mod usermode;
pub mod vdso;
pub mod window;
