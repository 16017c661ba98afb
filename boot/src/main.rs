//! The kernel image. It only puts things together: see `hal` for what happens before, `kernel` for what happens after.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

// The ISA that this image is for; all of them offer the same to `boot`.
#[cfg(all(target_os = "none", target_arch = "aarch64"))]
extern crate hal_aarch64 as machine;
#[cfg(all(target_os = "none", target_arch = "riscv64"))]
extern crate hal_riscv64 as machine;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
extern crate hal_x86_64 as machine;

#[cfg(target_os = "none")]
mod cobfiles;
#[cfg(target_os = "none")]
mod devices;
#[cfg(target_os = "none")]
mod facts;
#[cfg(target_os = "none")]
mod far;
#[cfg(target_os = "none")]
mod image;
#[cfg(target_os = "none")]
mod kernel;
#[cfg(target_os = "none")]
mod managed;
#[cfg(target_os = "none")]
mod member;
#[cfg(target_os = "none")]
mod peers;
#[cfg(all(target_os = "none", debug_assertions))]
mod selftest;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is the image of a kernel: build it with --target and a bare-metal target");
    std::process::exit(2);
}
