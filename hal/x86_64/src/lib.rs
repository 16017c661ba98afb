//! x86-64: entry, traps, APIC, paging, contexts.
//!
//! `hal` uses this through [`Machine`], its `hal_api::Platform`; only `boot` uses anything else here ([`entry!`], symbols).
#![no_std]
#![cfg(target_os = "none")]

extern crate alloc;

pub mod acpi;
mod apic;
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
mod lock;
mod page;
pub mod paging;
pub mod panic;
mod percpu;
mod platform;
#[cfg(debug_assertions)]
pub mod probe;
mod signal;
mod smp;
mod trap;
mod user;
mod vdso;

pub use hal_api::RawBoot;
pub use platform::Machine;
pub use smp::TRAMPOLINE;
pub use user::User;
pub use vdso::image as vdso_image;

/// One turn of a spin loop. Not `pause`: under emulation that leaves the CPU loop and costs microseconds.
#[inline]
pub(crate) fn relax() {
    paging::serve_flush();
    // SAFETY: does nothing.
    unsafe { core::arch::asm!("nop", options(nomem, nostack, preserves_flags)) };
}
