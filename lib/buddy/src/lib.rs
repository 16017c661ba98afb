//! A buddy allocator over indices.
#![no_std]
#![forbid(unsafe_code)]
