//! A kernel as a value inside a host process.
#![no_std]
