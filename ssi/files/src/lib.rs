//! Files of all kernels as one: remote open files and inodes, and what serves them.
//!
//! * `service.rs`: what this kernel lends and holds (the counting is in crate `objects`), and how it asks.
//! * `remote.rs`: implements `vfs::OpenFile` and `vfs::Inode` over messages.
//! * `memory.rs`: the content of a remote file for private mappings and for executing it.
//! * `handler.rs`: serves the peers' messages.
//! * `handles.rs`: how descriptors and directories go with a task that moves.
//! * `codec.rs`: the types of crate `vfs` as bytes.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod codec;
pub mod handler;
pub mod handles;
pub mod memory;
pub mod remote;
pub mod service;

pub use handler::FileHandler;
pub use remote::{Opened, RemoteFile, RemoteInode};
pub use service::FileService;
