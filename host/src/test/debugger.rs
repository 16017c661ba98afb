//! A debugger holds the machine for longer than any kernel waits for a sign of life: afterwards nobody counts as dead.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Report;
use crate::build;
use crate::machine::{Asked, of_board};
use crate::root::Root;

/// How long the machine may take for one step; it is the end of a test that hangs, not a verdict.
const TIME: Duration = Duration::from_secs(60);
/// Twice as long as a kernel may be silent.
const HELD: Duration = Duration::from_secs(6);

/// Runs it: on a board with two kernels, and on one of two boards.
pub fn all(root: &Root, report: &mut Report) {
    use plan::Isa::{Aarch64, X86_64};

    for (name, machine, isas, board) in [
        ("debugger/nobody-dies-while-it-holds", "duo", &[X86_64][..], 0),
        ("debugger/nobody-dies-while-it-holds-another-board", "pair-arm", &[X86_64, Aarch64], 1),
    ] {
        if !report.wants(name) {
            continue;
        }
        if let Err(error) = build::everything(root, isas, true) {
            report.record(name, Err(format!("{error:#}")), Duration::ZERO);
            continue;
        }
        report.run(name, || held(root, machine, board).map_err(|error| format!("{error:#}")));
    }
}

/// What gdb's remote protocol says next, up to the end of a packet.
fn packet(gdb: &mut UnixStream) -> Result<String> {
    let mut said = Vec::new();
    let mut byte = [0];
    while said.len() < 3 || said[said.len() - 3] != b'#' {
        gdb.read_exact(&mut byte).context("the emulator's debugger stub says no more")?;
        said.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn held(root: &Root, machine: &str, board: usize) -> Result<()> {
    let mut duo = Asked::boot(root, machine, true)?;
    duo.ask("until kctl run -k 1 true 2>/dev/null; do sleep 0.05; done")?;
    let folder = File::open(duo.0.vm.folder())?;
    let socket = of_board("gdb.sock", board);
    let mut gdb = UnixStream::connect(format!("/proc/self/fd/{}/{socket}", folder.as_raw_fd()))?;
    gdb.set_read_timeout(Some(TIME))?;
    // Who connects stops the machine; it says why when it is asked.
    gdb.write_all(b"$?#3f")?;
    let stopped = packet(&mut gdb)?;
    ensure!(stopped.contains('T') || stopped.contains('S'), "it does not stop: {stopped}");
    std::thread::sleep(HELD);
    // Acknowledged, and "detach": it runs on.
    gdb.write_all(b"+$D#44")?;
    // It may have said more than once that it stopped.
    while !packet(&mut gdb)?.contains("OK") {}
    let alive =
        "kctl run -k 1 true && kctl kernels --json | grep -c '\"state\": \"up\"'; tail -n +2 /proc/cob/deaths | wc -l";
    let said = duo.ask(alive)?;
    ensure!(said == "2\n0\n", "kernels that are up, and deaths: {said:?}");
    duo.0.power_off(TIME)
}
