//! Tasks, scheduling, processes, signals, waiting, exec.
//!
//! * [`kernel`]: one kernel as a value; everything hangs off it.
//! * [`task`], [`process`], [`table`]: threads, processes, and their numbers; [`fork`], [`exit`], [`children`]: how they come and go.
//! * [`run`]: the life of a task; [`cx`]: the running task as system calls see it.
//! * [`wait`]: blocking, written once; [`time`]: deadlines; [`sched`]: who runs when; [`futex`].
//! * [`signal`], [`session`]: signals, groups, job control.
//! * [`cluster`]: where the other kernels are plugged in; [`image`]: a stopped task as data.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

pub mod children;
pub mod cluster;
pub mod creds;
pub mod cx;
mod env;
pub mod exec;
pub mod execve;
pub mod exit;
pub mod fork;
pub mod fs;
pub mod futex;
pub mod ids;
pub mod image;
pub mod init;
pub mod ipc;
pub mod kernel;
pub mod limits;
pub mod load;
pub mod moving;
mod oom;
pub mod pi;
pub mod pidfd;
pub mod process;
mod requests;
pub mod rseq;
pub mod run;
pub mod sched;
pub mod session;
pub mod signal;
mod stop;
pub mod table;
pub mod task;
pub mod time;
pub mod wait;
pub mod work;

pub use cluster::{Alone, Cluster, Placement, ProcessRef};
pub use creds::Creds;
pub use cx::Cx;
pub use fork::CloneArgs;
pub use ids::Pid;
pub use kernel::{Abi, Facts, Hooks, Kernel};
pub use process::Process;
pub use session::Session;
pub use signal::{SigInfo, SigSet, Signal};
pub use task::Task;
pub use wait::{Interrupted, Timeout};

/// A task's name for people.
pub fn fmt_name(name: &[u8; 16]) -> &str {
    let len = name.iter().position(|b| *b == 0).unwrap_or(name.len());
    name.get(..len).and_then(|n| core::str::from_utf8(n).ok()).unwrap_or("?")
}
