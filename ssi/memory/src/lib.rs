//! Memory of all kernels as one.
//!
//! A memory object has a home: the kernel that has its pages. Kernels whose programs map it are its *holders*. Between kernels that see each other's
//! memory coherently a page is mapped where it lies: the home grants its frame, the holder maps it, and no byte is copied. Any number of holders may
//! write; the home keeps a directory of who was granted what, and keeps each frame until nobody maps it any more:
//!
//! * a holder that unmaps its last mapping releases all it was granted;
//! * the home revokes what is cut off an object: the holder unmaps it on all its CPUs and answers;
//! * what a dead kernel was granted is free once it is stopped, and what it had is unmapped here before that is acknowledged.
//!
//! Between kernels that do not see each other's memory pages go as copies: many readers or one writer (`copies`).
//!
//! Futexes are homed with their memory: a word is compared and its sleepers are kept at the home.
//!
//! * `home.rs`, `holder.rs`: the two sides as state, without I/O; the simulator runs them.
//! * `service.rs`: the glue of both, and the death of kernels.
//! * `proxy.rs`: a memory object of another kernel, as this kernel's spaces map it.
//! * `words.rs`: sleeping and waking at words of another kernel, and serving that.
//! * `handler.rs`: the peers' messages.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod copies;
pub mod handler;
pub mod holder;
pub mod home;
pub mod proxy;
pub mod service;
pub mod words;

pub use handler::MemoryHandler;
pub use holder::{Holder, Release};
pub use home::Home;
pub use service::{Finder, MemoryService};
