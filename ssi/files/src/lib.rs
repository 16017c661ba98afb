//! Files of all kernels as one: remote open files and inodes, and what serves them.
//!
//! * `state.rs`: what is lent and held, who is told what is ready, what dies with a kernel: decisions, without I/O.
//! * `service.rs`: does what follows, and asks. `references.rs`: how objects are lent and received. `pieces.rs`: payloads that are longer than a message.
//! * `remote.rs`: implements `vfs::OpenFile` and `vfs::Inode` over messages.
//! * `memory.rs`: the content of a remote file for private mappings and for executing it.
//! * `sockets.rs`: the same for `vfs::socket`; `abstracts.rs`: abstract names of the machine.
//! * `handler.rs`, `serve_sockets.rs`: serve the peers' messages.
//! * `handles.rs`: how descriptors and directories go with a task that moves.
//! * `codec.rs`: the types of crate `vfs` as bytes.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod abstracts;
pub mod codec;
pub mod handler;
pub mod handles;
pub mod memory;
pub mod pieces;
pub mod references;
pub mod remote;
mod serve_sockets;
pub mod service;
pub mod sockets;
pub mod state;
mod watches;

pub use handler::FileHandler;
pub use remote::{Opened, RemoteFile, RemoteInode};
pub use service::FileService;
