//! aarch64: entry, exceptions, GIC, paging, contexts.
//!
//! `hal` uses this through [`Machine`], its `hal_api::Platform`; only `boot` uses anything else here ([`entry!`], symbols, what the board has).
#![no_std]
#![cfg(target_os = "none")]

extern crate alloc;

pub mod board;
pub mod boot;
pub mod clock;
pub mod console;
mod context;
mod copy;
mod cpu;
mod entry;
pub mod exit;
mod fpu;
mod gic;
mod its;
mod lock;
mod page;
pub mod paging;
pub mod panic;
mod percpu;
mod platform;
#[cfg(debug_assertions)]
pub mod probe;
mod psci;
mod signal;
mod smp;
mod trap;
mod user;
mod vdso;

pub use hal_api::RawBoot;
pub use platform::Machine;
pub use user::User;

/// One turn of a spin loop.
#[inline]
pub(crate) fn relax() {
    core::hint::spin_loop();
}
