//! `/proc` and `/sys` as file systems, proc(5). What the files say is made by crate `proc` from plain facts; here are the names and the facts.
//!
//! * [`entry`]: a file of text that is made when it is read, and directories of them; others register theirs (`/proc/cob`).
//! * [`fs`]: such a tree as a file system; `file.rs`: open files of it.
//! * [`view`]: processes as plain data, so that those of other kernels can be shown too ([`ProcessView`]).
//! * [`local`]: the processes of this kernel; `facts.rs`: their facts; `pid.rs`: `/proc/PID`.
//! * [`system`]: the rest of `/proc`; `sys.rs`: `/sys`.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod entry;
mod facts;
mod file;
pub mod fs;
pub mod local;
mod pid;
mod sys;
pub mod system;
mod sysvipc;
#[cfg(test)]
mod tests;
pub mod view;

pub use entry::{Dir, Entry, Folder, Item, Link, Setting, Text, To};
pub use fs::{Proc, ProcFs};
pub use local::LocalView;
pub use system::{Trees, install};
pub use view::{Owner, ProcessView};
