//! What /proc and /sys show.
#![no_std]
#![forbid(unsafe_code)]
