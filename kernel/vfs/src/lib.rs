//! Files: traits, path walk, tmpfs, pipes, ttys, epoll.
//!
//! * [`file`]: an open file description, the thing that descriptors of processes (on any kernel) share.
//! * [`inode`]: a file, directory, link or device in a file system.
//! * [`caller`]: on whose behalf something is done, as plain data.
//! * [`ioctl`]: what ioctl(2) asks, decoded.
//! * [`types`]: attributes and flags.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod caller;
pub mod file;
pub mod inode;
pub mod ioctl;
pub mod types;

pub use caller::{Caller, WaitOps};
pub use file::{OpenFile, ReadOut, SeekFrom};
pub use inode::{DirSink, Entry, Inode, NewNode, RenameFlags};
pub use ioctl::{Ioctl, IoctlReply};
pub use types::{Access, Device, FileKind, OpenFlags, SetAttr, Stat, StatFs, Status, Time};
