//! All cases, by theme.

mod clone;
mod cpu;
mod epoll;
mod event;
mod exec;
mod fd;
mod file;
mod futex;
mod ids;
mod inotify;
mod ipc;
mod job;
mod memory;
mod misc;
mod more;
mod old;
pub mod pi;
mod pidfd;
mod pipe;
mod poll;
mod process;
mod procfs;
pub mod rseq;
mod signal;
mod socket;
mod time;
mod tree;
mod tty;

use crate::case::Case;

/// Every case, grouped by theme.
pub fn all() -> Vec<Case> {
    let themes = [
        process::CASES,
        exec::CASES,
        clone::CASES,
        pipe::CASES,
        fd::CASES,
        signal::CASES,
        job::CASES,
        tty::CASES,
        futex::CASES,
        poll::CASES,
        epoll::CASES,
        event::CASES,
        file::CASES,
        tree::CASES,
        memory::CASES,
        cpu::CASES,
        time::CASES,
        procfs::CASES,
        socket::CASES,
        misc::CASES,
        old::CASES,
        more::CASES,
        inotify::CASES,
        ipc::CASES,
        pi::CASES,
        rseq::CASES,
        ids::CASES,
        pidfd::CASES,
    ];
    themes.into_iter().flatten().copied().collect()
}
