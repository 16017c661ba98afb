//! A person at the console of a machine whose first kernel dies: the next kernel has the console then, and the person a new shell.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{Winsize, tcsetwinsize};

use super::Report;
use super::terminal::{Reaper, open_terminal};
use crate::build;
use crate::root::Root;

/// How long the machine may take for one step; it is the end of a test that hangs, not a verdict.
const PATIENCE: Duration = Duration::from_secs(90);

/// Runs it.
pub fn all(root: &Root, report: &mut Report) {
    let name = "console/the-first-kernel-dies";
    if !report.wants(name) {
        return;
    }
    // The waiting below is not for a compiler.
    if let Err(error) = build::everything(root, true) {
        return report.record(name, Err(format!("{error:#}")), Duration::ZERO);
    }
    report.run(name, || session(root).map_err(|error| format!("{error:#}")));
}

/// What the person sees and types.
struct Person {
    near: OwnedFd,
    /// What came and was not looked at.
    seen: Vec<u8>,
    /// Numbers the commands.
    count: u32,
}

impl Person {
    /// Looks on until this text comes.
    fn see(&mut self, text: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.windows(text.len()).position(|part| part == text.as_bytes()) {
                self.seen.drain(..at + text.len());
                return Ok(());
            }
            let shown = || String::from_utf8_lossy(&self.seen).into_owned();
            ensure!(Instant::now() < deadline, "{text:?} does not come; the console shows {:?}", shown());
            let mut fds = [PollFd::from_borrowed_fd(self.near.as_fd(), PollFlags::IN)];
            let soon = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            if poll(&mut fds, Some(&soon)).is_ok_and(|n| n > 0) {
                let mut piece = [0; 4096];
                let n = rustix::io::read(&self.near, &mut piece)
                    .with_context(|| format!("the console ends before {text:?}: {:?}", shown()))?;
                self.seen.extend_from_slice(piece.get(..n).unwrap_or_default());
            }
        }
    }

    fn keys(&self, keys: &[u8]) -> Result<()> {
        Ok(File::from(self.near.try_clone()?).write_all(keys)?)
    }

    /// Types a command and looks at its exit status. The number is added up by the shell, so that the echo of the keys is not taken for it.
    fn command(&mut self, line: &str, status: u8) -> Result<()> {
        self.count += 1;
        self.keys(format!("{line}; echo \"={}$?=\"\r", format_args!("$(({} + 1000)):", self.count)).as_bytes())?;
        self.see(&format!("={}:", self.count + 1000)).with_context(|| format!("after {line:?}"))?;
        self.see(&format!("{status}=")).with_context(|| format!("{line:?} does not end with {status}"))
    }
}

fn session(root: &Root) -> Result<()> {
    let (near, far) = open_terminal()?;
    tcsetwinsize(&far, Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 })?;
    let child = Command::new(std::env::current_exe()?)
        .args(["run", "--checked", "-m", "octo"])
        .env("COB_ROOT", root.path())
        .stdin(far.try_clone()?)
        .stdout(far.try_clone()?)
        .stderr(far.try_clone()?)
        .spawn()
        .context("starting cob run")?;
    let mut child = Reaper(child);
    drop(far);
    let mut person = Person { near, seen: Vec::new(), count: 0 };
    let size = "while [ \"$(stty size)\" != '33 77' ]; do sleep 0.1; done";
    person.see("built-in shell")?;
    person.command("grep -q 'CobKernel:.0' /proc/self/status", 0)?;
    person.command(size, 0)?;
    person.command("while [ \"$(kctl kernels --json | grep -c '\"up\"')\" != 8 ]; do sleep 0.1; done", 0)?;
    // On the terminal, and in a pipe with a process of a kernel that survives.
    person.keys(b"kctl run -k 3 /bin/cat /dev/zero | cat >/dev/null & kctl crash 0 --yes\r")?;
    // Nobody types that: it is what a shell says when it begins.
    person.see("built-in shell")?;
    person.command("grep -q 'CobKernel:.1' /proc/self/status", 0)?;
    person.command("ls / >/dev/null && ps >/dev/null", 0)?;
    person
        .command("[ \"$(kctl kernels --json | grep -c '\"up\"')\" = 7 ] && grep -q 'com1 1 ' /proc/cob/resources", 0)?;
    person.command(size, 0)?;
    person.command("kctl run -k 5 /bin/sh -c 'exit 6'", 6)?;
    person.command("kctl boot 0 && kctl run -k 0 uname && kctl run -k 0 grep -q CobKernel:.0 /proc/self/status", 0)?;
    // Job control works on the terminal that was taken over.
    person.keys(b"echo \"=$((1 + 1)):\"; sleep 1000\r")?;
    person.see("=2:")?;
    person.keys(b"\x03")?;
    person.command("[ $? = 130 ]", 0)?;
    person.keys(b"poweroff\r")?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.0.try_wait()? {
            ensure!(status.success(), "cob run ends with {status}");
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the machine does not switch off");
        // Nobody waits for a terminal that is not read; after its end there is nothing to read.
        let mut fds = [PollFd::from_borrowed_fd(person.near.as_fd(), PollFlags::IN)];
        let soon = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        if poll(&mut fds, Some(&soon)).is_ok_and(|n| n > 0) {
            let _ = rustix::io::read(&person.near, &mut [0; 4096]);
        }
    }
}
