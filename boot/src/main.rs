//! The kernel image. It only puts things together: see `hal` for what happens before, `kernel` for what happens after.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod cobfiles;
#[cfg(target_os = "none")]
mod devices;
#[cfg(target_os = "none")]
mod facts;
#[cfg(target_os = "none")]
mod image;
#[cfg(target_os = "none")]
mod kernel;
#[cfg(target_os = "none")]
mod member;
#[cfg(target_os = "none")]
mod peers;
#[cfg(all(target_os = "none", debug_assertions))]
mod selftest;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("this is the image of a kernel: build it with --target x86_64-unknown-none");
    std::process::exit(2);
}
