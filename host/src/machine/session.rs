//! Commands in a running machine, through the agent's channel (C7 in `ARCHITECTURE.md`).
//!
//! One `poll` waits for everything: the agent, the command's streams here, the console, the emulator's end, signals. Who cannot
//! take more is not written to, and then what feeds it is not read: back-pressure reaches from `cob exec … | less` to the guest's
//! pipe.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use agent::{Decoder, Message, ToGuest, ToHost};
use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Died, Vm};
use crate::signals::Signals;

/// How long a machine may take until its agent speaks.
const BOOT_TIME: Duration = Duration::from_secs(60);
/// How often logs are looked at while nothing else happens.
const LOG_TIME: Duration = Duration::from_millis(100);
/// How long the others may take to have an agent again when the kernel that has it panicked. It takes them a fraction of a second.
const RESCUE: Duration = Duration::from_secs(30);
/// Input is read until so much waits for the agent.
const AHEAD: usize = 128 * 1024;
/// What a pipe takes for certain when it is writable (`PIPE_BUF`).
const PIPE: usize = 4096;

/// Where a command's output goes.
pub enum Output<'a> {
    /// To a descriptor, as fast as it takes it.
    Fd(BorrowedFd<'a>),
    /// Into memory.
    Memory(&'a mut Vec<u8>),
}

/// Where a command's input comes from.
pub enum Input<'a> {
    /// Bytes.
    Memory(&'a [u8]),
    /// What is here first and then what a descriptor gives.
    Fd(Vec<u8>, BorrowedFd<'a>),
}

/// A command for the guest's shell.
pub struct Command<'a> {
    /// For `sh -c`.
    pub line: &'a str,
    /// Its standard input.
    pub input: Input<'a>,
    /// Its standard output.
    pub stdout: Output<'a>,
    /// Its standard error.
    pub stderr: Output<'a>,
    /// When to give up.
    pub deadline: Option<Instant>,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this status, as a shell gives it (128 + signal).
    Status(u8),
    /// It did not, in time.
    TimedOut,
    /// The machine was switched off, cleanly.
    PoweredOff,
    /// The kernel that had the agent died, and the command with it or out of sight. Another kernel has an agent: the next command can be run.
    Lost,
    /// This process was asked to end by a signal.
    Interrupted(i32),
}

/// A machine and its agent.
pub struct Session {
    /// The machine.
    pub vm: Vm,
    signals: Signals,
    decoder: Decoder,
    /// For the agent.
    outgoing: Vec<u8>,
    ready: bool,
    started: Instant,
    /// The kernel that has the agent.
    agent_at: usize,
    /// Since when it is known to have panicked.
    panicked: Option<Instant>,
}

/// Bytes on their way to a sink.
struct Sink<'a, 'b> {
    output: &'b mut Output<'a>,
    pending: Vec<u8>,
    closed: bool,
}

impl Sink<'_, '_> {
    fn push(&mut self, bytes: &[u8]) {
        match self.output {
            Output::Memory(memory) => memory.extend_from_slice(bytes),
            Output::Fd(_) if self.closed => {}
            Output::Fd(_) => self.pending.extend_from_slice(bytes),
        }
    }

    /// Writes what the descriptor takes without waiting: it is known to be writable.
    fn flush(&mut self) -> Result<()> {
        let Output::Fd(fd) = self.output else { return Ok(()) };
        let piece = self.pending.get(..PIPE).unwrap_or(&self.pending);
        match rustix::io::write(fd, piece) {
            Ok(n) => {
                self.pending.drain(..n);
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            // Nobody reads any more, as in `cob exec ... | head`.
            Err(Errno::PIPE) => {
                self.closed = true;
                self.pending.clear();
            }
            Err(error) => return Err(error).context("writing the command's output"),
        }
        Ok(())
    }
}

impl Session {
    /// Takes over a machine that was just started.
    pub fn new(vm: Vm) -> Result<Self> {
        Ok(Self {
            vm,
            signals: Signals::catch()?,
            decoder: Decoder::new(),
            outgoing: Vec::new(),
            ready: false,
            started: Instant::now(),
            agent_at: 0,
            panicked: None,
        })
    }

    /// Runs a command to its end, after the ones before. The system's death is an error ([`Died`]).
    pub fn run(&mut self, command: Command<'_>) -> Result<Ended> {
        let Command { line, input, mut stdout, mut stderr, deadline } = command;
        let mut stdout = Sink { output: &mut stdout, pending: Vec::new(), closed: false };
        let mut stderr = Sink { output: &mut stderr, pending: Vec::new(), closed: false };
        let (first, source) = match &input {
            Input::Memory(bytes) => (*bytes, None),
            Input::Fd(first, fd) => (first.as_slice(), Some(*fd)),
        };
        let (mut first, mut source, mut sent_end) = (first, source, false);
        let mut asked = false;
        let mut result = None;
        loop {
            if self.ready && !asked {
                ToGuest::Exec(line.as_bytes()).encode(&mut self.outgoing);
                asked = true;
            }
            if asked && !sent_end && result.is_none() {
                while !first.is_empty() && self.outgoing.len() < AHEAD {
                    let (piece, rest) = first.split_at(first.len().min(agent::MAX_PAYLOAD));
                    ToGuest::Stdin(piece).encode(&mut self.outgoing);
                    first = rest;
                }
                if first.is_empty() && source.is_none() {
                    ToGuest::StdinEof.encode(&mut self.outgoing);
                    sent_end = true;
                }
            }
            let draining = !stdout.pending.is_empty() || !stderr.pending.is_empty();
            if let Some(ended) = result
                && !draining
            {
                return Ok(ended);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(Ended::TimedOut);
            }
            let wants_input = asked && !sent_end && first.is_empty() && self.outgoing.len() < AHEAD && result.is_none();
            let woken = self.wait(Wait {
                agent: !draining && result.is_none(),
                input: source.filter(|_| wants_input),
                outputs: [fd_of(&stdout), fd_of(&stderr)],
                deadline,
            })?;
            for (sink, writable) in [&mut stdout, &mut stderr].into_iter().zip(woken.outputs) {
                if writable {
                    sink.flush()?;
                }
            }
            if let Some(signal) = self.signals.take().end {
                return Ok(Ended::Interrupted(signal));
            }
            if woken.input
                && let Some(fd) = source
            {
                let mut piece = vec![0; agent::MAX_PAYLOAD];
                match rustix::io::read(fd, &mut piece) {
                    Ok(0) | Err(Errno::BADF) => source = None,
                    Ok(n) => ToGuest::Stdin(piece.get(..n).unwrap_or_default()).encode(&mut self.outgoing),
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    Err(error) => return Err(error).context("reading the command's input"),
                }
            }
            if woken.agent && result.is_none() {
                result = self.listen(asked, &mut stdout, &mut stderr)?;
            }
            if result.is_none()
                && let Some(ended) = self.check(asked)?
            {
                result = Some(ended);
            }
        }
    }

    /// Waits until the agent speaks.
    pub fn wait_ready(&mut self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (mut out, mut err) = (Output::Memory(&mut out), Output::Memory(&mut err));
        let mut stdout = Sink { output: &mut out, pending: Vec::new(), closed: false };
        let mut stderr = Sink { output: &mut err, pending: Vec::new(), closed: false };
        while !self.ready {
            if Instant::now() >= deadline {
                return Err(self.vm.died(format!("its agent did not answer within {} s", time.as_secs())).into());
            }
            let woken =
                self.wait(Wait { agent: true, input: None, outputs: [None, None], deadline: Some(deadline) })?;
            if woken.agent {
                self.listen(false, &mut stdout, &mut stderr)?;
            }
            if self.check(false)?.is_some() {
                return Err(self.vm.died("it switched itself off").into());
            }
        }
        Ok(())
    }

    /// Reads from the agent and does what it says, until it has nothing more or the command has ended.
    fn listen(&mut self, asked: bool, stdout: &mut Sink<'_, '_>, stderr: &mut Sink<'_, '_>) -> Result<Option<Ended>> {
        let mut bytes = [0; 64 * 1024];
        match self.vm.agent.read(&mut bytes) {
            Ok(n) => self.decoder.push(bytes.get(..n).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            // The emulator has ended; its status says more.
            Err(_) => return Ok(None),
        }
        loop {
            let message = match self.decoder.next::<ToHost<'_>>() {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(None),
                Err(error) => {
                    let reason = format!("the agent does not speak its protocol: {error}");
                    return Err(self.vm.died(reason).into());
                }
            };
            match message {
                ToHost::Ready { version: agent::VERSION, kernel } => {
                    (self.ready, self.agent_at, self.panicked) = (true, usize::from(kernel), None);
                    // What was for another one is of no use to this one.
                    self.outgoing.clear();
                    agent::sync(&mut self.outgoing);
                    if asked {
                        return Ok(Some(Ended::Lost));
                    }
                }
                ToHost::Ready { version, .. } => bail!("the agent speaks version {version}, not {}", agent::VERSION),
                ToHost::Stdout(bytes) => stdout.push(bytes),
                ToHost::Stderr(bytes) => stderr.push(bytes),
                ToHost::Exit(status) => return Ok(Some(Ended::Status(shell_status(status)))),
                ToHost::Error(text) => {
                    let text = String::from_utf8_lossy(text).into_owned();
                    return Err(anyhow::anyhow!("the agent: {text}"));
                }
            }
        }
    }

    /// Whether the system still lives.
    fn check(&mut self, asked: bool) -> Result<Option<Ended>> {
        if let Some(status) = self.vm.ended()? {
            self.vm.read_logs();
            self.vm.verdict(status)?;
            if !asked {
                return Err(self.vm.died("it switched itself off before its agent spoke").into());
            }
            return Ok(Some(Ended::PoweredOff));
        }
        if self.vm.is_stuck() {
            return Err(self.vm.died("KVM cannot execute the kernel's code").into());
        }
        self.vm.read_logs();
        // The others go on when one dies; if it has the agent, another one gets that and says so.
        if self.panicked.is_none() && self.vm.panics.get(self.agent_at).is_some_and(|panics| !panics.is_empty()) {
            self.panicked = Some(Instant::now());
        }
        if self.vm.all_dead() || self.panicked.is_some_and(|since| since.elapsed() > RESCUE) {
            return Err(self.vm.died("a kernel panicked").into());
        }
        if !self.ready && !asked && self.started.elapsed() > BOOT_TIME {
            let reason = format!("its agent did not answer within {} s", BOOT_TIME.as_secs());
            return Err(self.vm.died(reason).into());
        }
        Ok(None)
    }

    /// Sleeps until something is to be done.
    fn wait(&mut self, wait: Wait<'_>) -> Result<Woken> {
        let mut woken = Woken::default();
        {
            let mut fds = Vec::new();
            let mut agent = PollFlags::empty();
            agent.set(PollFlags::IN, wait.agent);
            agent.set(PollFlags::OUT, !self.outgoing.is_empty());
            fds.push(PollFd::new(&self.vm.agent, agent));
            fds.push(PollFd::new(&self.vm.console, PollFlags::IN));
            let signals: Vec<BorrowedFd<'_>> = self.signals.fds().collect();
            fds.extend(signals.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
            let end = self.vm.end_fd();
            fds.push(PollFd::new(&end, PollFlags::IN));
            let input = wait.input.map(|fd| {
                fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
                fds.len() - 1
            });
            let outputs = wait.outputs.map(|output| {
                output.map(|fd| {
                    fds.push(PollFd::from_borrowed_fd(fd, PollFlags::OUT));
                    fds.len() - 1
                })
            });
            let left = wait.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let time = Timespec::try_from(left.unwrap_or(LOG_TIME).min(LOG_TIME))?;
            match poll(&mut fds, Some(&time)) {
                Ok(_) => {}
                Err(Errno::INTR) => return Ok(woken),
                Err(error) => return Err(error.into()),
            }
            // Errors and hang-ups show at the next read or write.
            let came = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
            woken.agent = wait.agent && came(0);
            woken.agent_out = came(0);
            woken.console = came(1);
            woken.input = input.is_some_and(came);
            woken.outputs = outputs.map(|at| at.is_some_and(came));
        }
        if woken.agent_out && !self.outgoing.is_empty() {
            match self.vm.agent.write(&self.outgoing) {
                Ok(n) => {
                    self.outgoing.drain(..n);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                // The emulator is ending; its status says more.
                Err(_) => self.outgoing.clear(),
            }
        }
        if woken.console {
            self.drain_console()?;
        }
        Ok(woken)
    }

    /// Keeps what the console says in the run's folder; nobody looks at it now.
    fn drain_console(&mut self) -> Result<()> {
        let mut bytes = [0; 4096];
        match self.vm.console.read(&mut bytes) {
            Ok(n) if n > 0 => {
                let mut file =
                    std::fs::File::options().create(true).append(true).open(self.vm.folder().join("console.log"))?;
                file.write_all(bytes.get(..n).unwrap_or_default())?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Kills what still runs of a command that took too long; `false` if the agent does not answer.
    pub fn abandon(&mut self, time: Duration) -> Result<bool> {
        const SIGKILL: u8 = 9;
        ToGuest::Kill(SIGKILL).encode(&mut self.outgoing);
        let deadline = Instant::now() + time;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let (mut out, mut err) = (Output::Memory(&mut out), Output::Memory(&mut err));
        let mut stdout = Sink { output: &mut out, pending: Vec::new(), closed: false };
        let mut stderr = Sink { output: &mut err, pending: Vec::new(), closed: false };
        while Instant::now() < deadline {
            let woken =
                self.wait(Wait { agent: true, input: None, outputs: [None, None], deadline: Some(deadline) })?;
            if woken.agent && self.listen(true, &mut stdout, &mut stderr)?.is_some() {
                return Ok(true);
            }
            if self.check(true)?.is_some() {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Switches the machine off and waits for it. An error if it does not go cleanly.
    pub fn power_off(&mut self, time: Duration) -> Result<()> {
        ToGuest::Poweroff.encode(&mut self.outgoing);
        let deadline = Instant::now() + time;
        loop {
            if let Some(status) = self.vm.ended()? {
                self.vm.read_logs();
                return Ok(self.vm.verdict(status)?);
            }
            if Instant::now() >= deadline {
                let died: Died = self.vm.died("it does not switch off");
                return Err(died.into());
            }
            self.wait(Wait { agent: false, input: None, outputs: [None, None], deadline: Some(deadline) })?;
        }
    }
}

fn fd_of<'a>(sink: &Sink<'a, '_>) -> Option<BorrowedFd<'a>> {
    match &*sink.output {
        Output::Fd(fd) if !sink.pending.is_empty() => Some(*fd),
        _ => None,
    }
}

struct Wait<'a> {
    agent: bool,
    input: Option<BorrowedFd<'a>>,
    outputs: [Option<BorrowedFd<'a>>; 2],
    deadline: Option<Instant>,
}

#[derive(Default)]
struct Woken {
    agent: bool,
    agent_out: bool,
    console: bool,
    input: bool,
    outputs: [bool; 2],
}

/// A wait status as a shell shows it.
fn shell_status(status: i32) -> u8 {
    match status & 0x7f {
        0 => (status >> 8 & 0xff) as u8,
        signal => 128 + signal as u8,
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
