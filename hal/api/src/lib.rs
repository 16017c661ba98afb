//! What an ISA (or the host) provides to hal.
#![no_std]
