//! Process 1 of a Cob system, an ordinary Linux program: it mounts what is not mounted, keeps a shell on the console, reaps
//! orphans, and serves the agent protocol on a virtio port, by which `cob exec` runs commands.
//!
//! * Kernel argument `cob.mode=exec`: no shell on the console.
//! * Signals: `SIGUSR1` and `SIGUSR2` power off, `SIGTERM` reboots, as busybox's `halt`, `poweroff` and `reboot` send them.
//! * Under any other pid than 1 it only serves the agent, on the descriptor named by `COB_AGENT_FD`, until that is closed, and
//!   powers off nothing; that is for tests.

mod agent;
mod buffer;
mod command;
mod console;
mod signals;
mod system;

use std::os::fd::FromRawFd;
use std::process::ExitCode;
use std::time::Instant;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};

use crate::agent::{Agent, Request};
use crate::console::Console;
use crate::signals::{PollSet, Woken};
use crate::system::Ending;

/// Says something on the standard error, which is the console.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {
        eprintln!("init: {}", format_args!($($arg)*))
    };
}

fn main() -> ExitCode {
    signals::install();
    if rustix::process::getpid() != Pid::INIT {
        return under_test();
    }
    system::open_standard_streams();
    system::mount_all();
    system::set_hostname();
    let console = (!system::kernel_argument("cob.mode", "exec")).then(Console::new);
    let ending = run(console, Agent::on_device("/dev/vport0p1"));
    system::end(ending)
}

/// Serves the agent on an inherited descriptor.
fn under_test() -> ExitCode {
    let Some(fd) = std::env::var("COB_AGENT_FD").ok().and_then(|fd| fd.parse().ok()) else {
        say!("I am process 1 of a Cob system and do nothing else");
        return ExitCode::FAILURE;
    };
    // SAFETY: the descriptor was passed to us by that name and nothing else in this process uses it.
    let file = unsafe { std::fs::File::from_raw_fd(fd) };
    match Agent::on_file(file) {
        Ok(agent) => {
            run(None, agent);
            ExitCode::SUCCESS
        }
        Err(error) => {
            say!("COB_AGENT_FD={fd}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for children, signals and the host, for ever.
fn run(mut console: Option<Console>, mut agent: Agent) -> Ending {
    loop {
        let now = Instant::now();
        if let Some(console) = &mut console {
            console.start_if_due(now);
        }
        match agent.serve(now) {
            Some(Request::Poweroff) => return Ending::Poweroff,
            Some(Request::Gone) => return Ending::Exit,
            None => {}
        }
        let mut set = PollSet::new();
        agent.arm(&mut set);
        let due = [agent.due(), console.as_ref().and_then(Console::due)].into_iter().flatten().min();
        let woken = signals::wait(&mut set, due.map(|due| due.saturating_duration_since(Instant::now())));
        if woken.contains(Woken::REBOOT) {
            return Ending::Reboot;
        }
        if woken.contains(Woken::POWEROFF) {
            return Ending::Poweroff;
        }
        if woken.contains(Woken::CHILD) {
            reap(&mut console, &mut agent);
        }
    }
}

/// Collects every dead child, ours and adopted.
fn reap(console: &mut Option<Console>, agent: &mut Agent) {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                if let Some(console) = console {
                    console.ended(pid, Instant::now());
                }
                agent.ended(pid, status.as_raw());
            }
            Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return,
            Err(error) => {
                say!("wait: {error}");
                return;
            }
        }
    }
}
