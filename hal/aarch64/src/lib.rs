//! aarch64.
#![no_std]
#![cfg(target_os = "none")]
