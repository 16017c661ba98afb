//! System calls: decode, check, call a kernel trait, encode.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod mem;
