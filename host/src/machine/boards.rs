//! What the boards of a mixed machine have in common: memory that all of them address, bells, and the controller that stops and starts them.
//!
//! Memory is anonymous and the bells are event counters: nothing is left of them when this process ends, however it does. The server of the bells speaks
//! the protocol of QEMU's `ivshmem` specification: eight bytes a message, little-endian, descriptors beside them. A board's number is its peer number;
//! the one behind the last board is the controller's.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use boardctl::{Order, VECTORS};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

/// The version of the bells' protocol.
const VERSION: i64 = 0;
/// Announces the memory that all share.
const MEMORY: i64 = -1;
/// How long an emulator may take to answer its controller.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// The memory of one board.
pub struct Memory {
    file: OwnedFd,
    /// Bytes that the window of another board shows: a power of two, for that is what a BAR has.
    pub window: u64,
}

impl Memory {
    /// Memory for a board with `bytes` of RAM.
    pub fn new(board: usize, bytes: u64) -> Result<Self> {
        let file = memfd_create(format!("cob-board{board}"), MemfdFlags::CLOEXEC).context("memory for a board")?;
        let window = bytes.next_power_of_two();
        ftruncate(&file, window).context("memory for a board")?;
        Ok(Self { file, window })
    }

    /// A path by which the emulator opens it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

/// What the boards of one machine share.
pub struct Boards {
    /// Per board.
    pub memory: Vec<Memory>,
    common: Common,
}

/// The page and the bells.
struct Common {
    page: OwnedFd,
    /// Per peer, the controller last.
    bells: Vec<OwnedFd>,
}

/// The socket at which a board's emulator finds its bells.
pub fn bells_socket(board: usize) -> String {
    format!("bells{board}.sock")
}

/// The socket at which a board's emulator takes the controller's orders.
pub fn control_socket(board: usize) -> String {
    format!("control{board}.sock")
}

impl Boards {
    /// For boards with so many bytes of RAM.
    pub fn new(bytes: &[u64]) -> Result<Self> {
        let memory =
            bytes.iter().enumerate().map(|(board, bytes)| Memory::new(board, *bytes)).collect::<Result<_>>()?;
        let page = memfd_create("cob-boards", MemfdFlags::CLOEXEC).context("memory for all boards")?;
        ftruncate(&page, boardctl::PAGE as u64).context("memory for all boards")?;
        let bell = |_| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context("a bell");
        let bells = (0..=bytes.len()).map(bell).collect::<Result<_>>()?;
        Ok(Self { memory, common: Common { page, bells } })
    }

    /// Begins to serve the bells, before the emulators start. `listeners`: the sockets of the boards, in order.
    pub fn serve(self, listeners: Vec<UnixListener>, folder: &Path) -> Result<Vec<Memory>> {
        let folder = File::open(folder).context("the run's folder")?;
        let common = self.common;
        // It ends with this process, or when all emulators are gone.
        thread::Builder::new()
            .name("boards".into())
            .spawn(move || {
                if let Err(error) = common.run(listeners, &folder) {
                    eprintln!("cob: the board controller: {error:#}");
                }
            })
            .context("starting the board controller")?;
        Ok(self.memory)
    }
}

impl Common {
    fn run(&self, listeners: Vec<UnixListener>, folder: &File) -> Result<()> {
        let mut waiting: Vec<Option<UnixListener>> = listeners.into_iter().map(Some).collect();
        let mut peers: Vec<Option<UnixStream>> = waiting.iter().map(|_| None).collect();
        let mut done = vec![0; peers.len()];
        let mut monitors = Monitors(peers.iter().map(|_| None).collect());
        let controller = self.bells.last().context("the controller has a bell")?;
        loop {
            if waiting.iter().all(Option::is_none) && peers.iter().all(Option::is_none) {
                return Ok(());
            }
            let mut fds = vec![PollFd::new(controller, PollFlags::IN)];
            let mut what = vec![(0, Who::Kernel)];
            for board in 0..peers.len() {
                let mut watch = |fd, who| {
                    fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
                    what.push((board, who));
                };
                if let Some(listener) = &waiting[board] {
                    watch(listener.as_fd(), Who::New);
                }
                if let Some(peer) = &peers[board] {
                    watch(peer.as_fd(), Who::Bells);
                }
                if let Some(monitor) = &monitors.0[board] {
                    watch(monitor.stream.as_fd(), Who::Monitor);
                }
            }
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let came: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            for ((board, who), _) in what.into_iter().zip(came).filter(|(_, came)| *came) {
                match who {
                    Who::Kernel => {
                        let _ = rustix::io::read(controller, &mut [0; 8]);
                        self.obey(&mut done, &mut monitors)?;
                    }
                    Who::New => {
                        let Some(listener) = waiting[board].take() else { continue };
                        let (stream, _) = listener.accept().context("an emulator connects to its bells")?;
                        self.welcome(board, &stream, &peers)?;
                        peers[board] = Some(stream);
                        monitors.0[board] = Some(Monitor::connect(folder, board)?);
                    }
                    Who::Bells => {
                        // An emulator says nothing here: it has ended.
                        peers[board] = None;
                        for other in peers.iter().flatten() {
                            // That one may have ended too.
                            let _ = say(other, board as i64, None);
                        }
                    }
                    Who::Monitor => monitors.hear(board),
                }
            }
        }
    }

    /// Tells a new peer who it is and who is there, and those that are there of it.
    fn welcome(&self, board: usize, stream: &UnixStream, peers: &[Option<UnixStream>]) -> Result<()> {
        say(stream, VERSION, None)?;
        say(stream, board as i64, None)?;
        say(stream, MEMORY, Some(self.page.as_fd()))?;
        let there = peers.iter().enumerate().filter(|(_, peer)| peer.is_some()).map(|(other, _)| other);
        for other in there.chain([peers.len(), board]) {
            for _ in 0..VECTORS {
                say(stream, other as i64, Some(self.bells[other].as_fd()))?;
            }
        }
        for other in peers.iter().flatten() {
            for _ in 0..VECTORS {
                // That one may have ended.
                let _ = say(other, board as i64, Some(self.bells[board].as_fd()));
            }
        }
        Ok(())
    }

    /// Does what the kernels ask for in the page.
    fn obey(&self, done: &mut [u64], monitors: &mut Monitors) -> Result<()> {
        let page = File::from(self.page.try_clone()?);
        for (board, (done, monitor)) in done.iter_mut().zip(&mut monitors.0).enumerate() {
            let mut word = [0; 8];
            page.read_exact_at(&mut word, boardctl::request(board) as u64)?;
            let request = u64::from_le_bytes(word);
            if request == *done {
                continue;
            }
            *done = request;
            let Some(order) = boardctl::order(request) else { continue };
            let result = monitor.as_mut().context("the emulator has ended").and_then(|monitor| monitor.obey(order));
            let answer = match result {
                Ok(()) => request,
                Err(error) => {
                    eprintln!("cob: board {board}: {order:?}: {error:#}");
                    request | boardctl::FAILED
                }
            };
            page.write_all_at(&answer.to_le_bytes(), boardctl::answer(board) as u64)?;
        }
        Ok(())
    }
}

/// Sends one message of the bells' protocol.
fn say(to: &UnixStream, what: i64, with: Option<BorrowedFd<'_>>) -> Result<()> {
    let bytes = what.to_le_bytes();
    let fds: Vec<BorrowedFd<'_>> = with.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ensure!(beside.push(SendAncillaryMessage::ScmRights(&fds)), "no room for a descriptor");
    }
    let sent = sendmsg(to, &[std::io::IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL).context("the bells")?;
    ensure!(sent == bytes.len(), "a message of the bells was cut");
    Ok(())
}

/// Who says something to the controller.
#[derive(Clone, Copy)]
enum Who {
    /// A kernel, by the controller's bell.
    Kernel,
    /// An emulator that connects to its bells.
    New,
    /// One that has.
    Bells,
    /// An emulator's monitor.
    Monitor,
}

/// The monitors of all boards that have one.
struct Monitors(Vec<Option<Monitor>>);

impl Monitors {
    /// Reads what a monitor says, and has all boards stand still while a debugger holds one of them.
    fn hear(&mut self, board: usize) {
        let Some(monitor) = &mut self.0[board] else { return };
        if monitor.hear().is_err() {
            // The emulator has ended.
            self.0[board] = None;
        }
        let held = self.0.iter().flatten().any(|monitor| monitor.runs && !monitor.waits && !monitor.running);
        for (board, monitor) in self.0.iter_mut().enumerate().filter_map(|(board, m)| Some((board, m.as_mut()?))) {
            let turn = if held && monitor.runs && monitor.running {
                "stop"
            } else if !held && monitor.waits {
                "cont"
            } else {
                continue;
            };
            monitor.waits = held;
            if let Err(error) = monitor.ask(turn) {
                eprintln!("cob: board {board}: {error:#}");
            }
        }
    }
}

/// The monitor of an emulator (QMP).
struct Monitor {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
    /// The number of the next command.
    next: u64,
    /// The board is executing.
    running: bool,
    /// It should be: kernels have it switched on. If it is not, a debugger holds it, or
    runs: bool,
    /// it waits, because a debugger holds another.
    waits: bool,
}

impl Monitor {
    /// Connects to an emulator that may still be setting its board up: what it says is read later.
    fn connect(folder: &File, board: usize) -> Result<Self> {
        // The folder's descriptor is a short name for it.
        let path = format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), control_socket(board));
        let stream = UnixStream::connect(path).with_context(|| format!("the emulator of board {board}"))?;
        stream.set_read_timeout(Some(ANSWER_TIME))?;
        let lines = BufReader::new(stream.try_clone()?);
        // The first board begins by itself.
        let mut monitor = Self { lines, stream, next: 0, running: false, runs: board == 0, waits: false };
        monitor.send("qmp_capabilities")?;
        monitor.send("query-status")?;
        Ok(monitor)
    }

    /// The next thing that it says, noted if it is of interest here.
    fn read(&mut self) -> Result<Value> {
        let mut line = String::new();
        ensure!(self.lines.read_line(&mut line)? > 0, "the emulator has ended");
        let said: Value = serde_json::from_str(&line)?;
        match said.get("event").and_then(Value::as_str) {
            Some("STOP") => self.running = false,
            Some("RESUME") => self.running = true,
            _ => {}
        }
        if let Some(running) = said.pointer("/return/running").and_then(Value::as_bool) {
            self.running = running;
        }
        Ok(said)
    }

    /// Reads all that is there.
    fn hear(&mut self) -> Result<()> {
        self.read()?;
        while self.lines.buffer().contains(&b'\n') {
            self.read()?;
        }
        Ok(())
    }

    /// Tells it to do something; what it answers has this number.
    fn send(&mut self, command: &str) -> Result<u64> {
        self.next += 1;
        writeln!(self.stream, "{}", json!({ "execute": command, "id": self.next })).context("telling the emulator")?;
        Ok(self.next)
    }

    /// Tells it to do something and waits until it is done and `event`, if there is one, has come.
    fn wait(&mut self, command: &str, event: Option<&str>) -> Result<()> {
        let number = self.send(command)?;
        let (mut returned, mut came) = (false, event.is_none());
        while !returned || !came {
            let said = self.read()?;
            came |= event.is_some() && said.get("event").and_then(Value::as_str) == event;
            if said.get("id").and_then(Value::as_u64) == Some(number) {
                if let Some(error) = said.get("error") {
                    bail!("{command}: {error}");
                }
                returned = true;
            }
        }
        Ok(())
    }

    fn ask(&mut self, command: &str) -> Result<()> {
        self.wait(command, None)
    }

    fn obey(&mut self, order: Order) -> Result<()> {
        self.runs = false;
        self.ask("stop")?;
        if order == Order::Start {
            // It is done when the event says so, before or after the command has returned.
            self.wait("system_reset", Some("RESET"))?;
            self.ask("cont")?;
            self.runs = true;
        }
        Ok(())
    }
}
