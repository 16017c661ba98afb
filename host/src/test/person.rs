//! A person at a terminal: what is typed is looked for in what the terminal shows, and nothing else is waited for.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{Winsize, tcsetwinsize};

use super::terminal::{Reaper, open_terminal};
use crate::root::Root;

/// How long the machine may take for one step; it is the end of a test that hangs, not a verdict.
const PATIENCE: Duration = Duration::from_secs(90);

/// Rows and columns of the terminal, as stty(1) says them.
pub const SIZE: &str = "33 77";

/// What the person sees and types, and the program on the terminal.
pub struct Person {
    near: OwnedFd,
    child: Reaper,
    /// What came and was not looked at.
    seen: Vec<u8>,
    /// Numbers the commands.
    count: u32,
}

impl Person {
    /// At a terminal with this program on it.
    pub fn with(program: &mut Command) -> Result<Self> {
        let (near, far) = open_terminal()?;
        tcsetwinsize(&far, Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 })?;
        program.stdin(Stdio::from(far.try_clone()?)).stdout(Stdio::from(far.try_clone()?)).stderr(Stdio::from(far));
        let child = program.spawn().with_context(|| format!("starting {program:?}"));
        // The program's end of the terminal is to be open in the program only.
        program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { near, child: Reaper(child?), seen: Vec::new(), count: 0 })
    }

    /// At the console of a machine.
    pub fn at(root: &Root, machine: &str) -> Result<Self> {
        let mut run = Command::new(std::env::current_exe()?);
        Self::with(run.args(["run", "--checked", "-m", machine]).env("COB_ROOT", root.path()))
    }

    /// Looks on until this text comes.
    pub fn see(&mut self, text: &str) -> Result<()> {
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

    pub fn keys(&self, keys: &[u8]) -> Result<()> {
        Ok(File::from(self.near.try_clone()?).write_all(keys)?)
    }

    /// Types a command and looks at its exit status. The number is added up by the shell, so that the echo of the keys is not taken for it.
    pub fn command(&mut self, line: &str, status: u8) -> Result<()> {
        self.count += 1;
        self.keys(format!("{line}; echo \"={}$?=\"\r", format_args!("$(({} + 1000)):", self.count)).as_bytes())?;
        self.see(&format!("={}:", self.count + 1000)).with_context(|| format!("after {line:?}"))?;
        self.see(&format!("{status}=")).with_context(|| format!("{line:?} does not end with {status}"))
    }

    /// Looks on until the program ends, which it does well.
    pub fn see_the_end(mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.0.try_wait()? {
                ensure!(status.success(), "the program on the terminal ends with {status}");
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the program on the terminal does not end");
            // Nobody waits for a terminal that is not read; after its end there is nothing to read.
            let mut fds = [PollFd::from_borrowed_fd(self.near.as_fd(), PollFlags::IN)];
            let soon = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            if poll(&mut fds, Some(&soon)).is_ok_and(|n| n > 0) {
                let _ = rustix::io::read(&self.near, &mut [0; 4096]);
            }
        }
    }
}
