//! Which kernels are members, and what happens when one dies.
#![no_std]
#![forbid(unsafe_code)]
