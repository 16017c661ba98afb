//! x86-64: entry, traps, APIC, paging format, contexts.
//!
//! Everything here that `hal` needs goes through `hal_api::Platform`; only `boot` uses this crate directly.
#![no_std]
#![cfg_attr(not(target_os = "none"), allow(dead_code))]

#[cfg(target_os = "none")]
pub mod boot;
#[cfg(target_os = "none")]
pub mod console;
#[cfg(target_os = "none")]
mod entry;
#[cfg(target_os = "none")]
pub mod exit;
#[cfg(target_os = "none")]
pub mod panic;
