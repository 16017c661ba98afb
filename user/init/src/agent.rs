//! The guest's end of the agent protocol.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ::agent::{Decoder, MAX_PAYLOAD, Message, ToGuest, ToHost, VERSION};
use rustix::process::Pid;

use crate::buffer::{self, Buffer, Flow};
use crate::command::Command;
use crate::say;
use crate::signals::PollSet;

/// For so long after the start the device and the host are looked for often.
const EAGER: Duration = Duration::from_secs(5);
const EAGER_INTERVAL: Duration = Duration::from_millis(10);
/// Then a host that went away is looked for this often.
const PATIENT_INTERVAL: Duration = Duration::from_secs(2);

/// What the rest of process 1 has to do for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Switch the machine off.
    Poweroff,
    /// The channel is closed and cannot be opened again.
    Gone,
}

/// The channel and the command that runs.
#[derive(Debug)]
pub struct Agent {
    /// How to open the channel; none if it was inherited.
    path: Option<PathBuf>,
    device: Option<File>,
    started: Instant,
    /// When to look for the device or the host again.
    due: Option<Instant>,
    connected: bool,
    /// The host broke the protocol: nothing that it says can be understood any more.
    deaf: bool,
    decoder: Decoder,
    out: Buffer,
    command: Option<Command>,
}

impl Agent {
    /// On a device that is there now or soon.
    pub fn on_device(path: &str) -> Self {
        let now = Instant::now();
        Self {
            path: Some(path.into()),
            device: None,
            started: now,
            due: Some(now),
            connected: false,
            deaf: false,
            decoder: Decoder::new(),
            out: Buffer::default(),
            command: None,
        }
    }

    /// On a channel that is open.
    pub fn on_file(file: File) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&file, true)?;
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Self { path: None, device: Some(file), ..Self::on_device("") })
    }

    /// When [`Agent::serve`] wants to be called although nothing is ready.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Says what to wait for.
    pub fn arm<'a>(&'a self, set: &mut PollSet<'a>) {
        if self.connected
            && let Some(device) = &self.device
        {
            set.add(device.as_fd(), self.listens(), self.out.len() > 0);
            if let Some(command) = &self.command {
                command.arm(set, &self.out);
            }
        }
    }

    /// A child of process 1 ended.
    pub fn ended(&mut self, pid: Pid, status: i32) {
        if let Some(command) = &mut self.command {
            command.ended(pid, status);
        }
    }

    /// Does all that can be done now without waiting.
    pub fn serve(&mut self, now: Instant) -> Option<Request> {
        if !self.connected && self.due.is_none_or(|due| now < due) {
            return None;
        }
        self.open(now)?;
        let mut request = None;
        while request.is_none() {
            let mut moved = false;
            match self.hear() {
                Ok(Heard::Nothing) => {}
                Ok(Heard::Something) => moved = true,
                Ok(Heard::Request(asked)) => request = Some(asked),
                Err(HostGone) => return self.lost(now),
            }
            moved |= self.pump();
            if let Some(device) = &mut self.device {
                match self.out.write_to(device) {
                    Flow::Moved(_) => moved = true,
                    Flow::Blocked => {}
                    Flow::Ended => return self.lost(now),
                }
            }
            if !moved {
                break;
            }
        }
        request
    }

    /// Opens the device if it is not open. None if it cannot be had now.
    fn open(&mut self, now: Instant) -> Option<()> {
        if self.device.is_some() {
            return Some(());
        }
        let path = self.path.as_ref()?;
        match File::options().read(true).write(true).open(path).and_then(|f| rustix_nonblocking(&f).map(|()| f)) {
            Ok(file) => {
                self.device = Some(file);
                Some(())
            }
            Err(error) => {
                let eager = now.duration_since(self.started) < EAGER;
                self.due = eager.then(|| now + EAGER_INTERVAL);
                // A system without an agent port is as good as any.
                if !eager && error.kind() != io::ErrorKind::NotFound {
                    say!("{}: {error}", path.display());
                }
                None
            }
        }
    }

    /// The host closed its end: its command makes no sense any more.
    fn lost(&mut self, now: Instant) -> Option<Request> {
        if let Some(command) = self.command.take() {
            command.kill(libc::SIGHUP as u8);
        }
        self.connected = false;
        self.deaf = false;
        self.decoder = Decoder::new();
        self.out.clear();
        let eager = now.duration_since(self.started) < EAGER;
        self.due = Some(now + if eager { EAGER_INTERVAL } else { PATIENT_INTERVAL });
        self.path.is_none().then_some(Request::Gone)
    }

    /// Whether there is room for what the host may say.
    fn listens(&self) -> bool {
        self.command.as_ref().is_none_or(Command::wants_input)
    }

    /// Reads from the host once and does what it says.
    fn hear(&mut self) -> Result<Heard, HostGone> {
        let mut bytes = [0; MAX_PAYLOAD];
        if self.connected && !self.listens() {
            return Ok(Heard::Nothing);
        }
        let Some(device) = &mut self.device else {
            return Ok(Heard::Nothing);
        };
        let flow = buffer::read(device, &mut bytes);
        if flow == Flow::Ended {
            return Err(HostGone);
        }
        if !self.connected {
            self.connected = true;
            self.due = None;
            // The host may have heard half of what an agent before this one said.
            ::agent::sync(self.out.tail());
            let kernel = crate::system::kernel_index();
            ToHost::Ready { version: VERSION, kernel }.encode(self.out.tail());
        }
        let Flow::Moved(n) = flow else {
            return Ok(Heard::Nothing);
        };
        if self.deaf {
            return Ok(Heard::Something);
        }
        self.decoder.push(bytes.get(..n).unwrap_or_default());
        loop {
            match self.decoder.next() {
                Ok(Some(ToGuest::Poweroff)) => return Ok(Heard::Request(Request::Poweroff)),
                Ok(Some(message)) => obey(&mut self.command, message, &mut self.out),
                Ok(None) => return Ok(Heard::Something),
                Err(error) => {
                    self.deaf = true;
                    complain(&mut self.out, &format!("protocol: {error}"));
                    return Ok(Heard::Something);
                }
            }
        }
    }

    /// Moves the command's bytes; says EXIT after the last of them.
    fn pump(&mut self) -> bool {
        let Some(command) = &mut self.command else {
            return false;
        };
        let (moved, status) = command.pump(&mut self.out);
        if let Some(status) = status {
            self.command = None;
            ToHost::Exit(status).encode(self.out.tail());
        }
        moved || status.is_some()
    }
}

/// The other end of the channel is closed.
struct HostGone;

/// What came of listening.
enum Heard {
    Nothing,
    Something,
    Request(Request),
}

fn rustix_nonblocking(file: &File) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(file, true)?)
}

/// Tells the host, and whoever looks at the console.
fn complain(out: &mut Buffer, text: &str) {
    say!("agent: {text}");
    ToHost::Error(text.as_bytes()).encode(out.tail());
}

/// Does what a frame says.
fn obey(command: &mut Option<Command>, message: ToGuest<'_>, out: &mut Buffer) {
    match (message, command) {
        (ToGuest::Exec(line), slot @ None) => match Command::start(line) {
            Ok(started) => *slot = Some(started),
            Err(error) => complain(out, &format!("cannot run /bin/sh: {error}")),
        },
        (ToGuest::Exec(_), Some(_)) => complain(out, "a command is running already"),
        (ToGuest::Stdin(bytes), Some(command)) => command.feed(bytes),
        (ToGuest::StdinEof, Some(command)) => command.end_input(),
        (ToGuest::Kill(signal), Some(command)) => command.kill(signal),
        // The command ended while these were on their way.
        (ToGuest::Stdin(_) | ToGuest::StdinEof | ToGuest::Kill(_), None) | (ToGuest::Poweroff, _) => {}
    }
}
