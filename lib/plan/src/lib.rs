//! The description of a machine: parsed, validated, one truth for host and kernels.
#![no_std]
#![forbid(unsafe_code)]
