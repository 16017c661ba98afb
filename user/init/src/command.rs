//! One command that runs for the host: a process group of its own and three pipes.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Stdio};

use ::agent::{MAX_PAYLOAD, Message, ToHost};
use rustix::process::{Pid, Signal};

use crate::buffer::{self, Buffer, Flow};
use crate::signals::PollSet;

/// Frames for the host wait here at most about this long before the pipes are left alone.
const OUTPUT_LIMIT: usize = 4 * MAX_PAYLOAD;
/// Input for the command waits here at most about this long before the host is left alone.
const INPUT_LIMIT: usize = 2 * MAX_PAYLOAD;
/// After the command's end at most this much is taken from each pipe, which is the most that a pipe holds: processes that it left
/// behind may write for ever.
const REST_LIMIT: usize = 1 << 20;

/// A running command, or what is left of one until its output is on the way.
#[derive(Debug)]
pub struct Command {
    pid: Pid,
    status: Option<i32>,
    stdin: Option<ChildStdin>,
    input: Buffer,
    input_ends: bool,
    stdout: Output<ChildStdout>,
    stderr: Output<ChildStderr>,
}

impl Command {
    /// Starts `sh -c line` in its own session.
    pub fn start(line: &[u8]) -> io::Result<Self> {
        let mut shell = std::process::Command::new("/bin/sh");
        shell.arg("-c").arg(OsStr::from_bytes(line));
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        crate::system::environment(&mut shell);
        // SAFETY: both are single system calls; nothing is allocated.
        unsafe {
            shell.pre_exec(|| {
                crate::signals::unblock();
                rustix::process::setsid()?;
                Ok(())
            });
        }
        let mut child = shell.spawn()?;
        let pid = Pid::from_child(&child);
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let pipes =
            [stdin.as_ref().map(AsFd::as_fd), stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
        for pipe in pipes.into_iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Self {
            pid,
            status: None,
            stdin,
            input: Buffer::default(),
            input_ends: false,
            stdout: Output::new(stdout),
            stderr: Output::new(stderr),
        })
    }

    /// Takes bytes for the standard input; they are lost if nobody reads it any more, as in a pipe.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.stdin.is_some() {
            self.input.tail().extend_from_slice(bytes);
        }
    }

    /// No more input will come.
    pub fn end_input(&mut self) {
        self.input_ends = true;
    }

    /// Whether the host may send more input.
    pub fn wants_input(&self) -> bool {
        self.input.len() < INPUT_LIMIT
    }

    /// Sends a signal to the process group.
    pub fn kill(&self, signal: u8) {
        if self.status.is_none()
            && let Some(signal) = Signal::from_named_raw(signal.into())
            && let Err(error) = rustix::process::kill_process_group(self.pid, signal)
        {
            crate::say!("cannot signal the command: {error}");
        }
    }

    /// A child of process 1 ended: perhaps this one.
    pub fn ended(&mut self, pid: Pid, status: i32) {
        if pid == self.pid {
            self.status = Some(status);
        }
    }

    /// Moves bytes both ways. Returns whether any moved, and the wait status once all is said.
    pub fn pump(&mut self, out: &mut Buffer) -> (bool, Option<i32>) {
        let mut moved = self.pump_input();
        moved |= self.stdout.pump(out, self.status.is_some(), |bytes| ToHost::Stdout(bytes));
        moved |= self.stderr.pump(out, self.status.is_some(), |bytes| ToHost::Stderr(bytes));
        let done = self.stdout.pipe.is_none() && self.stderr.pipe.is_none();
        (moved, self.status.filter(|_| done))
    }

    fn pump_input(&mut self) -> bool {
        let Some(stdin) = &mut self.stdin else {
            return false;
        };
        let flow = self.input.write_to(stdin);
        if flow == Flow::Ended || self.status.is_some() || (self.input_ends && self.input.len() == 0) {
            self.stdin = None;
            self.input.clear();
        }
        matches!(flow, Flow::Moved(_))
    }

    /// Says what to wait for.
    pub fn arm<'a>(&'a self, set: &mut PollSet<'a>, out: &Buffer) {
        if let Some(stdin) = &self.stdin {
            set.add(stdin.as_fd(), false, self.input.len() > 0);
        }
        let room = out.len() < OUTPUT_LIMIT;
        if let Some(pipe) = &self.stdout.pipe {
            set.add(pipe.as_fd(), room, false);
        }
        if let Some(pipe) = &self.stderr.pipe {
            set.add(pipe.as_fd(), room, false);
        }
    }
}

/// A pipe from the command.
#[derive(Debug)]
struct Output<P> {
    /// None when it has ended, or when the command has and the rest was taken.
    pipe: Option<P>,
    taken_after_end: usize,
}

impl<P: Read> Output<P> {
    fn new(pipe: Option<P>) -> Self {
        Self { pipe, taken_after_end: 0 }
    }

    /// Takes what is there, as frames.
    fn pump(&mut self, out: &mut Buffer, command_ended: bool, frame: fn(&[u8]) -> ToHost<'_>) -> bool {
        let mut bytes = [0; MAX_PAYLOAD];
        let Some(pipe) = &mut self.pipe else {
            return false;
        };
        if out.len() >= OUTPUT_LIMIT {
            return false;
        }
        match buffer::read(pipe, &mut bytes) {
            Flow::Moved(n) => {
                frame(bytes.get(..n).unwrap_or_default()).encode(out.tail());
                if command_ended {
                    self.taken_after_end += n;
                    if self.taken_after_end >= REST_LIMIT {
                        self.pipe = None;
                    }
                }
                true
            }
            Flow::Blocked => {
                if command_ended {
                    self.pipe = None;
                }
                false
            }
            Flow::Ended => {
                self.pipe = None;
                false
            }
        }
    }
}
