//! Tasks, scheduling, processes, signals, waiting, exec.
#![no_std]
#![forbid(unsafe_code)]
