//! A person's terminal is as it was after `cob run`, however that ends, and neither an emulator of its boards stays behind nor their memory.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};

use super::Report;
use crate::root::Root;
use crate::{build, machine};

/// How a run is ended.
enum End {
    Keys(&'static [u8]),
    Signal(Signal),
}

/// Three boards, each with an emulator of its own.
const MACHINE: &str = "trio";

/// Runs the ways to leave.
pub fn all(root: &Root, report: &mut Report) {
    let ways = [
        ("terminal/escape", End::Keys(b"\x01x")),
        ("terminal/terminated", End::Signal(Signal::TERM)),
        ("terminal/hung-up", End::Signal(Signal::HUP)),
        ("terminal/killed", End::Signal(Signal::KILL)),
    ];
    if !ways.iter().any(|(name, _)| report.wants(name)) {
        return;
    }
    // The waiting below is not for a compiler.
    let built = machine::load(root, MACHINE).and_then(|(plan, _)| {
        build::everything(root, &machine::isas(&plan), true)?;
        Ok(plan.boards.len())
    });
    let boards = match built {
        Ok(boards) => boards,
        Err(error) => return report.record("terminal", Err(format!("{error:#}")), Duration::ZERO),
    };
    for (name, end) in ways {
        report.run(name, || one(root, &end, boards).map_err(|error| format!("{error:#}")));
    }
}

/// A pseudo terminal: the person's end and the program's.
pub(super) fn open_terminal() -> Result<(OwnedFd, File)> {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("a terminal")?;
    grantpt(&near)?;
    unlockpt(&near)?;
    let name = ptsname(&near, Vec::new())?.into_string()?;
    let far = File::options().read(true).write(true).open(name)?;
    Ok((near, far))
}

fn one(root: &Root, end: &End, boards: usize) -> Result<()> {
    let (near, far) = open_terminal()?;
    let before = tcgetattr(&far)?;
    // Stopped at its first instruction, the guest cannot end by itself.
    let child = Command::new(std::env::current_exe()?)
        .args(["run", "--checked", "-m", MACHINE, "--qemu-arg=-S"])
        .env("COB_ROOT", root.path())
        .stdin(far.try_clone()?)
        .stdout(far.try_clone()?)
        .stderr(far.try_clone()?)
        .spawn()
        .context("starting cob run")?;
    let mut child = Reaper(child);
    wait_for(&near, "a raw terminal", || Ok(is_raw(&tcgetattr(&far)?)))?;
    wait_for(&near, "an emulator per board", || Ok(emulators(child.0.id()).len() == boards))?;
    let emulators = emulators(child.0.id());
    // What has no name goes with its last user.
    let maps = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/maps"));
    wait_for(&near, "shared memory in each", || {
        Ok(emulators.iter().map(maps).collect::<Result<Vec<_>, _>>()?.iter().all(|maps| maps.contains("/memfd:")))
    })?;
    for emulator in &emulators {
        ensure!(!maps(emulator)?.contains("/dev/shm/"), "the memory of a board has a name");
    }
    match end {
        End::Keys(keys) => File::from(near.try_clone()?).write_all(keys)?,
        End::Signal(signal) => kill_process(Pid::from_child(&child.0), *signal)?,
    }
    wait_for(&near, "its end", || Ok(child.0.try_wait()?.is_some()))?;
    wait_for(&near, "the terminal as it was", || Ok(same(&tcgetattr(&far)?, &before)))?;
    wait_for(&near, "the emulators' ends", || Ok(!emulators.iter().any(|pid| is_emulator(*pid))))
}

/// Ends the process with the test.
pub(super) struct Reaper(pub Child);

impl Drop for Reaper {
    fn drop(&mut self) {
        // Mostly it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_raw(settings: &Termios) -> bool {
    !settings.local_modes.contains(LocalModes::ICANON)
}

fn same(a: &Termios, b: &Termios) -> bool {
    (a.input_modes, a.output_modes, a.control_modes, a.local_modes)
        == (b.input_modes, b.output_modes, b.control_modes, b.local_modes)
}

/// Waits, and reads the terminal meanwhile so that nobody waits for it.
fn wait_for(near: &OwnedFd, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done()? {
        ensure!(Instant::now() < deadline, "waited in vain for {what}");
        let mut fds = [PollFd::from_borrowed_fd(near.as_fd(), PollFlags::IN)];
        let soon = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        if poll(&mut fds, Some(&soon)).is_ok_and(|n| n > 0) {
            // A hung-up terminal has nothing to read; the time passes anyway.
            let _ = rustix::io::read(near, &mut [0; 4096]);
        }
    }
    Ok(())
}

/// The processes of QEMU under a process.
fn emulators(parent: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter(|pid| is_emulator(*pid)).collect()
}

fn is_emulator(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("qemu-system"))
}
