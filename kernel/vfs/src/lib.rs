//! Files: traits, path walk, tmpfs, pipes, ttys, epoll.
//!
//! * [`file`]: an open file description, the thing that descriptors of processes (on any kernel) share; [`local`]: the local one.
//! * [`inode`]: a file, directory, link or device in a file system.
//! * [`place`]: where something is in the tree; [`walk`]: paths; [`mounts`]: one kernel's tree and what can be done with paths.
//! * [`tmpfs`]: files in memory, and the root with the archive's tree; [`devfs`]: `/dev`.
//! * [`pipe`], [`tty`], [`event`], [`epoll`]: what is not a file.
//! * [`caller`]: on whose behalf something is done, as plain data; [`env`]: what a kernel lends this crate.
//! * [`ioctl`]: what ioctl(2) asks, decoded; [`types`]: attributes and flags.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod anon;
pub mod caller;
pub mod devfs;
pub mod device;
pub mod env;
pub mod epoll;
pub mod event;
pub mod file;
pub mod inode;
pub mod inotify;
pub mod ioctl;
pub mod local;
pub mod lock;
pub mod mounts;
pub mod pipe;
pub mod place;
pub mod socket;
pub mod terminal;
#[cfg(test)]
mod testing;
pub mod tmpfs;
pub mod tty;
pub mod types;
pub mod unix;
pub mod waiters;
pub mod walk;
pub mod watches;

pub use caller::{Caller, WaitOps};
pub use env::{Alarm, AlarmId, Env};
pub use file::{OpenFile, ReadOut, SeekFrom};
pub use inode::{DirSink, Entry, Inode, NewNode, RenameFlags};
pub use ioctl::{Ioctl, IoctlReply};
pub use local::LocalFile;
pub use mounts::Vfs;
pub use place::{Mount, Node, Place};
pub use terminal::{JobControl, Terminal, TtySignal, TtyUse, Verdict};
pub use types::{Access, Device, FileKind, OpenFlags, SetAttr, Stat, StatFs, Status, Time};
pub use waiters::Waiters;
pub use walk::{Follow, Walk};
