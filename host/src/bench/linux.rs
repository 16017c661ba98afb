//! Debian's Linux with a program of ours as its first process, in the same emulator with the same flags.

use std::fs;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use plan::Isa;

use super::{Rows, TIME, rows};
use crate::build::Bench;
use crate::build::cpio::Archive;
use crate::machine::Machine;
use crate::root::Root;

/// Boots Linux on a board like the machine's, with `words` for the program; what it prints goes to the serial port.
pub fn on_linux(root: &Root, machine: &Machine, bench: &Bench, words: &str) -> Result<Rows> {
    let board = machine.plan.boards.first().context("a plan without boards")?;
    let folder = root.target().join("bench");
    fs::create_dir_all(&folder)?;
    let mut archive = Archive::new();
    for (name, mode) in [("dev", 0o755), ("proc", 0o755), ("sys", 0o755), ("tmp", 0o1777)] {
        archive.directory(name, mode)?;
    }
    archive.file("init", 0o755, &fs::read(&bench.program)?)?;
    fs::write(folder.join("initrd"), archive.finish()?)?;
    let (initrd, serial) = (folder.join("initrd"), folder.join("serial"));
    // The controller for messages of a riscv64 board is newer than what Linux' driver wants of it; no row needs it.
    let (emulator, cpu, console) = match board.model.isa {
        Isa::X86_64 => ("qemu-system-x86_64", "max", "ttyS0"),
        Isa::Aarch64 => ("qemu-system-aarch64", "max,pauth-impdef=on", "ttyAMA0"),
        Isa::Riscv64 => ("qemu-system-riscv64", "rv64", "ttyS0"),
    };
    let mut qemu = Process::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", emulator, "-M", board.model.name, "-cpu", cpu]);
    qemu.args(machine.accel.qemu_args()).args(["-smp", &board.cpus.to_string()]);
    qemu.args(["-m", &format!("{}M", board.memory >> 20), "-nodefaults", "-no-user-config", "-no-reboot"]);
    qemu.args(["-display", "none", "-kernel"]).arg(&bench.linux).arg("-initrd").arg(&initrd);
    qemu.args(["-append", &format!("console={console} quiet mitigations=off -- {words}")]);
    qemu.args(["-chardev", &format!("file,id=serial,path={}", escaped(&serial)), "-serial", "chardev:serial"]);
    let mut child = qemu.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("starting QEMU")?;
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > TIME {
            child.kill()?;
            child.wait()?;
            bail!("Linux did not end; {} has what it said", serial.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = fs::read(&serial).with_context(|| format!("reading {}", serial.display()))?;
    let rows = rows(&String::from_utf8_lossy(&said));
    ensure!(!rows.is_empty(), "Linux measured nothing; {} has what it said", serial.display());
    Ok(rows)
}

/// A comma in a value of a QEMU option is written twice.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
