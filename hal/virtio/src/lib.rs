//! DMA and virtqueues.
#![no_std]
