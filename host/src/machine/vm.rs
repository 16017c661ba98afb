//! A running machine: the emulator process, its sockets, its folder.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::boards::{Boards, Memory, bells_socket};
use super::logs::{Logs, Severity};
use super::network::Network;
use super::power::Emulators;
use super::{Died, Machine, of_board, qemu};
use crate::build::cpio::Archive;
use crate::root::Root;

/// Marks a run that a failure names.
const NAMED: &str = "failed";
/// How many runs are kept, and as many that failures name.
const KEPT: usize = 20;
/// How long QEMU may take to connect its sockets: it does so before anything else.
const CONNECT_TIME: Duration = Duration::from_secs(30);
/// What firmware keeps at the end of low RAM, beside the archive (QEMU's `acpi_data_size`, rounded up, or a device tree).
const fn firmware_tables(isa: plan::Isa) -> u64 {
    match isa {
        plan::Isa::X86_64 => 0x3_0000,
        plan::Isa::Aarch64 | plan::Isa::Riscv64 => 0x40_0000,
    }
}

/// A running machine. Dropping it ends the emulators.
pub struct Vm {
    /// The first board.
    child: Child,
    /// The other boards; they end with the first.
    others: Emulators,
    /// What the boards share: the emulators open it by this process.
    _memory: Vec<Memory>,
    /// What joins boards that share nothing else.
    pub network: Option<Network>,
    exit: Option<ExitStatus>,
    pidfd: OwnedFd,
    folder: PathBuf,
    /// The serial console.
    pub console: UnixStream,
    /// The agent's channel.
    pub agent: UnixStream,
    logs: Logs,
    /// Which kernels panicked in the life they are in.
    dead: Vec<bool>,
    /// Per kernel the lines of its panics: it may be booted again and die again.
    pub panics: Vec<Vec<String>>,
    /// Lines of all kernels that are warnings.
    pub warnings: Vec<String>,
    /// All lines that were read and that nobody has taken yet.
    pub said: Vec<String>,
}

impl Vm {
    /// Starts a machine in a folder of its own.
    pub fn start(root: &Root, machine: &Machine) -> Result<Self> {
        let boards = &machine.plan.boards;
        let folder = new_folder(root, &machine.plan.name)?;
        let archive = initrd(machine)?;
        let length = archive.len() as u64;
        let extra: Vec<u64> = boards.iter().map(|board| extra_memory(board, length)).collect::<Result<_>>()?;
        fs::write(folder.join("initrd"), archive)?;
        fs::write(folder.join("machine.toml"), &machine.text)?;
        let (console, agent) = (listen(&folder, "console.sock")?, listen(&folder, "agent.sock")?);
        let mut memory = Vec::new();
        if machine.plan.is_mixed() {
            let bytes: Vec<u64> = boards.iter().zip(&extra).map(|(board, extra)| board.memory + extra).collect();
            let bells = (0..boards.len()).map(|board| listen(&folder, &bells_socket(board)));
            memory = Boards::new(&bytes)?.serve(bells.collect::<Result<_>>()?, &folder)?;
        }
        let apart = machine.plan.is_apart();
        let others = Emulators::default();
        let controller = others.clone();
        let obey = Box::new(move |request: &_| controller.obey(request));
        let network = apart.then(|| Network::new(machine.plan.kernels.len() as u16, &folder, obey)).transpose()?;
        let mut first = None;
        for (number, (board, extra)) in boards.iter().zip(extra).enumerate() {
            let named = |name: &str| folder.join(of_board(name, number));
            let kernel = machine.kernels.get(&board.model.isa).context("a board without a kernel")?;
            symlink(kernel, named("kernel")).context("naming the kernel of a board")?;
            let mut command = qemu::command(machine, number, board, &folder, &qemu::Ram { extra, shared: &memory });
            let line: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
            fs::write(named("qemu.cmd"), line.join("\n") + "\n")?;
            if number > 0 {
                others.add(&command, named("qemu.log"))?;
                continue;
            }
            command.stderr(File::create(named("qemu.log"))?);
            first = Some(command.spawn().context("starting QEMU (through setpriv of util-linux)")?);
        }
        let mut child = first.context("a machine without a board")?;
        let connected = accept(&console, &mut child, &folder)
            .and_then(|console| Ok((console, accept(&agent, &mut child, &folder)?)));
        let (console, agent) = match connected {
            Ok(both) => both,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        let pid = Pid::from_raw(child.id() as i32).context("a process id")?;
        let kernels = machine.plan.kernels.len();
        Ok(Self {
            child,
            others,
            _memory: memory,
            network,
            exit: None,
            pidfd: pidfd_open(pid, PidfdFlags::empty()).context("watching QEMU")?,
            logs: Logs::new(&folder, kernels),
            folder,
            console,
            agent,
            dead: vec![false; kernels],
            panics: vec![Vec::new(); kernels],
            warnings: Vec::new(),
            said: Vec::new(),
        })
    }

    /// The run's folder, with the logs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Readable when the emulator has ended.
    pub fn end_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// How the emulator ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().context("waiting for QEMU")?;
        }
        Ok(self.exit)
    }

    /// Reads what the kernels logged since the last call.
    pub fn read_logs(&mut self) {
        for (kernel, line) in self.logs.read() {
            self.said.push(line.clone());
            let severity = Severity::of(&line);
            if let (Severity::Birth | Severity::Panic, Some(dead)) = (severity, self.dead.get_mut(kernel)) {
                *dead = severity == Severity::Panic;
            }
            match severity {
                Severity::Plain | Severity::Birth => {}
                Severity::Warning => self.warnings.push(line),
                Severity::Panic => {
                    if let Some(panics) = self.panics.get_mut(kernel) {
                        panics.push(line);
                    }
                }
            }
        }
    }

    /// Whether every kernel has panicked and none runs again.
    pub fn all_dead(&self) -> bool {
        self.dead.iter().all(|dead| *dead)
    }

    /// The CPU time that the emulators have taken, in seconds.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let mut ticks = 0;
        for id in std::iter::once(self.child.id()).chain(self.others.ids()) {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).context("the emulator's times")?;
            // Behind the name, which may have blanks: utime and stime are the 12th and 13th.
            let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
            ticks += fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        }
        Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// The death of the system as an error; a panic says more than `reason`.
    pub fn died(&mut self, reason: impl Into<String>) -> Died {
        self.read_logs();
        let reason = reason.into();
        let panics: Vec<&str> = self.panics.iter().flatten().map(String::as_str).collect();
        let reason = if panics.is_empty() { reason } else { format!("{reason}; {}", panics.join("; ")) };
        Died { reason, folder: self.folder.clone() }
    }

    /// Whether the host's virtualisation met code that it cannot execute; the emulator does not end then.
    pub fn is_stuck(&self) -> bool {
        let said = fs::read_to_string(self.folder.join("qemu.log")).unwrap_or_default();
        said.contains("KVM internal error") || said.contains("KVM: entry failed")
    }

    /// What an ended emulator means: nothing wrong after a clean power-off.
    pub fn verdict(&mut self, status: ExitStatus) -> Result<(), Died> {
        match status.code() {
            Some(qemu::CLEAN) => Ok(()),
            Some(code) => {
                let said = fs::read_to_string(self.folder.join("qemu.log")).unwrap_or_default();
                let said = said.lines().last().unwrap_or("no word from it");
                Err(self.died(format!("the emulator ended with status {code} ({said})")))
            }
            None => Err(self.died(format!("the emulator was killed ({status})"))),
        }
    }

    /// Somebody is told to look here: the run is kept while newer ones go.
    pub fn keep(&self) {
        // If that cannot be written it is kept as long as any other.
        let _ = fs::write(self.folder.join(NAMED), "");
    }

    /// Ends the emulator now.
    pub fn kill(&mut self) {
        if self.exit.is_none() {
            // It may have ended by itself meanwhile.
            let _ = self.child.kill();
            self.exit = self.child.wait().ok();
        }
        self.others.kill();
    }
}

#[cfg(test)]
impl Vm {
    /// A machine that is played: any process for the emulator.
    pub fn around(child: Child, console: UnixStream, agent: UnixStream) -> Self {
        let pid = Pid::from_raw(child.id() as i32).expect("a process id");
        let folder = std::env::temp_dir().join(format!("cob-played-{}", child.id()));
        Self {
            pidfd: pidfd_open(pid, PidfdFlags::empty()).expect("a process"),
            child,
            others: Emulators::default(),
            _memory: Vec::new(),
            network: None,
            exit: None,
            logs: Logs::new(&folder, 1),
            folder,
            console,
            agent,
            dead: vec![false],
            panics: vec![Vec::new()],
            warnings: Vec::new(),
            said: Vec::new(),
        }
    }

    /// The pipe to the process.
    pub fn emulator_stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.kill();
        for socket in ["console.sock", "agent.sock", "gdb.sock", "qmp.sock", "initrd"] {
            // Some are gone already.
            let _ = fs::remove_file(self.folder.join(socket));
        }
    }
}

/// `target/runs/TIME-MACHINE-PID`, known as `latest`; the oldest runs go.
fn new_folder(root: &Root, machine: &str) -> Result<PathBuf> {
    // A run that a failure names stays longer than those that came after it.
    let (named, others): (Vec<PathBuf>, Vec<PathBuf>) =
        root.kept_runs().into_iter().partition(|old| old.join(NAMED).exists());
    for kept in [named, others] {
        for old in kept.iter().take((kept.len() + 1).saturating_sub(KEPT)) {
            // One that runs still has its sockets.
            if !old.join("qmp.sock").exists() {
                let _ = fs::remove_dir_all(old);
            }
        }
    }
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = format!("{:010}.{:03}-{machine}-{}", time.as_secs(), time.subsec_millis(), std::process::id());
    let folder = root.runs().join(&name);
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let latest = root.target().join("latest-run");
    let new = root.target().join(format!("latest-run.{}", std::process::id()));
    let _ = fs::remove_file(&new);
    symlink(&folder, &new).and_then(|()| fs::rename(&new, &latest)).context("naming the latest run")?;
    Ok(folder)
}

/// The base tree, this machine's description, and what the user puts.
fn initrd(machine: &Machine) -> Result<Vec<u8>> {
    let base = fs::read(&machine.archive).with_context(|| format!("reading {}", machine.archive.display()))?;
    let mut more = Archive::after(base);
    more.file("boot/machine.toml", 0o644, machine.text.as_bytes())?;
    for put in &machine.put {
        more.put(&put.from, &put.to)?;
    }
    more.finish()
}

/// How much more memory the board needs than the plan says for the archive to fit. It grows at the end, so nothing moves.
fn extra_memory(board: &plan::Board, archive: u64) -> Result<u64> {
    let needed = archive + firmware_tables(board.model.isa);
    let extra = needed.saturating_sub(board.archive.size).next_multiple_of(plan::GRAIN);
    if extra > 0 && board.memory + extra >= board.model.one_piece() {
        bail!(
            "the archive has {} MiB but the board reserves {} MiB; write `archive = \"{} MiB\"` and make room for it",
            archive >> 20,
            board.archive.size >> 20,
            needed.next_multiple_of(plan::GRAIN) >> 20
        );
    }
    Ok(extra)
}

/// A listening socket in the folder. The name of a socket may have 107 bytes, a folder more: the folder's descriptor is short.
fn listen(folder: &Path, name: &str) -> Result<UnixListener> {
    let open = File::open(folder)?;
    let short = format!("/proc/self/fd/{}/{name}", std::os::fd::AsRawFd::as_raw_fd(&open));
    let listener = UnixListener::bind(short).with_context(|| format!("listening on {name} in {}", folder.display()))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn accept(listener: &UnixListener, child: &mut Child, folder: &Path) -> Result<UnixStream> {
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(status) = child.try_wait()? {
            let said = fs::read_to_string(folder.join("qemu.log")).unwrap_or_default();
            bail!("QEMU does not start ({status}): {}", said.trim());
        }
        if start.elapsed() > CONNECT_TIME {
            bail!("QEMU does not connect its sockets");
        }
        let mut fds = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
        let time = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        match rustix::event::poll(&mut fds, Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
