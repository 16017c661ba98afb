//! The messages between kernels, byte for byte.
#![no_std]
#![forbid(unsafe_code)]
