//! The shell on the console: a session of its own with the console as its controlling terminal, started again when it ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::say;

/// A shell that ends sooner than this, or cannot start, is started again only this much later.
const PAUSE: Duration = Duration::from_secs(1);

/// The shell, or when to start it.
#[derive(Debug)]
pub struct Console {
    shell: Option<Pid>,
    started: Instant,
    due: Option<Instant>,
}

impl Console {
    /// To be started at once.
    pub fn new() -> Self {
        let now = Instant::now();
        Self { shell: None, started: now, due: Some(now) }
    }

    /// When [`Console::start_if_due`] wants to be called.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Starts the shell if it is time to.
    pub fn start_if_due(&mut self, now: Instant) {
        if self.due.is_none_or(|due| now < due) {
            return;
        }
        self.started = now;
        match start_shell() {
            Ok(pid) => {
                self.shell = Some(pid);
                self.due = None;
            }
            Err(error) => {
                say!("cannot start a shell on the console: {error}");
                self.due = Some(now + PAUSE);
            }
        }
    }

    /// A child of process 1 ended: perhaps the shell.
    pub fn ended(&mut self, pid: Pid, now: Instant) {
        if self.shell == Some(pid) {
            self.shell = None;
            self.due = Some(now.max(self.started + PAUSE));
        }
    }
}

/// The terminal behind `/dev/console`: the last word of sysfs' list; `/dev/console` itself where there is no such list.
fn terminal() -> io::Result<File> {
    let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let open = |path: &str| File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(path);
    match active.split_whitespace().next_back() {
        Some(name) => open(&format!("/dev/{name}")).or_else(|_| open("/dev/console")),
        None => open("/dev/console"),
    }
}

fn start_shell() -> io::Result<Pid> {
    let tty = terminal()?;
    let mut shell = std::process::Command::new("/bin/sh");
    shell.arg("-l").stdin(Stdio::from(tty.try_clone()?)).stdout(Stdio::from(tty.try_clone()?)).stderr(Stdio::from(tty));
    crate::system::environment(&mut shell);
    // SAFETY: these are single system calls, on descriptor 0, which is the terminal by now; nothing is allocated.
    unsafe {
        shell.pre_exec(|| {
            crate::signals::unblock();
            rustix::process::setsid()?;
            rustix::process::ioctl_tiocsctty(std::os::fd::BorrowedFd::borrow_raw(0))?;
            Ok(())
        });
    }
    Ok(Pid::from_child(&shell.spawn()?))
}
