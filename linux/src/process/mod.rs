//! Processes: how they come and go, who they are, what they may use.

mod caps;
mod control;
mod exec;
mod groups;
mod ids;
mod life;
mod limits;
mod pidfd;
mod wait;

pub use caps::{capget, capset};
pub use control::{arch_prctl, personality, prctl};
pub use exec::{execve, execveat};
pub use groups::{getpgid, getpgrp, getppid, getsid, setpgid, setsid};
pub use ids::{
    getegid, geteuid, getgid, getgroups, getresgid, getresuid, getuid, setfsgid, setfsuid, setgid, setgroups, setregid,
    setresgid, setresuid, setreuid, setuid,
};
pub use life::{
    clone, clone3, exit, exit_group, fork, get_robust_list, getpid, gettid, rseq, set_robust_list, set_tid_address,
    thread, unshare, vfork,
};
pub use limits::{getrlimit, getrusage, prlimit64, setrlimit, times};
pub use pidfd::{pidfd_getfd, pidfd_open, pidfd_send_signal};
pub use wait::{wait4, waitid};
