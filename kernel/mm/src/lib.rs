//! Memory: frames, vmas, memory objects, faults.
#![no_std]
#![forbid(unsafe_code)]
