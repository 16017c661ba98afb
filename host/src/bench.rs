//! `cob bench micro`: the same static program on Cob and on Debian's Linux, in the same emulator with the same flags.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command as Process, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::Boot;
use crate::build::cpio::Archive;
use crate::build::{self, Bench};
use crate::exec::{OFF_TIME, with_mode};
use crate::machine::{Command, Ended, Input, Machine, Output, Session, Vm};
use crate::root::Root;

/// Row to nanoseconds per operation.
type Rows = BTreeMap<String, f64>;

/// How long one run may take.
const TIME: Duration = Duration::from_secs(300);
/// What counted instructions must reach: each row, and all together (geometric mean).
const GATE: (f64, f64) = (1.0, 0.6);
/// What the wall clock must reach.
const WALL_GATE: (f64, f64) = (1.1, 0.6);
/// The host may be busy to this part of its CPUs beside a run.
const IDLE: f64 = 0.05;

/// Measures, prints a table, fails if a bar is missed.
pub fn micro(root: &Root, machine: &str, wall: Option<usize>, wanted: &[String]) -> Result<ExitCode> {
    let boot = Boot { machine: Some(machine.to_owned()), icount: wall.is_none(), ..Boot::default() };
    let machine = Machine::prepare(root, &with_mode(&boot))?;
    let bench = build::bench(root, "bench-micro")?;
    let pairs = wall.unwrap_or(1);
    let (mut cob, mut linux) = (Vec::new(), Vec::new());
    for pair in 1..=pairs {
        if wall.is_some() {
            eprintln!("pair {pair} of {pairs}; the host is busy to {:.0} %", 100.0 * busy()?);
            ensure!(busy()? < IDLE, "the host does something else; a wall clock would measure that");
        }
        linux.push(on_linux(root, &machine, &bench, wanted)?);
        cob.push(on_cob(root, &machine, wanted)?);
    }
    let (cob, linux) = (medians(&cob), medians(&linux));
    let gate = if wall.is_some() { WALL_GATE } else { GATE };
    Ok(if compare(&cob, &linux, wanted, gate)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn on_cob(root: &Root, machine: &Machine, wanted: &[String]) -> Result<Rows> {
    let mut session = Session::new(Vm::start(root, machine)?)?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let ended = session.run(Command {
        line: &format!("exec /usr/lib/cob/bench/bench-micro {}", wanted.join(" ")),
        input: Input::Memory(&[]),
        stdout: Output::Memory(&mut stdout),
        stderr: Output::Memory(&mut stderr),
        deadline: Some(Instant::now() + TIME),
    })?;
    if ended != Ended::Status(0) {
        bail!("the benchmark on Cob: {ended:?}\n{}", String::from_utf8_lossy(&stderr));
    }
    session.power_off(OFF_TIME)?;
    Ok(rows(&String::from_utf8_lossy(&stdout)))
}

/// Boots Linux with the program as its first process; what it prints goes to the serial port.
fn on_linux(root: &Root, machine: &Machine, bench: &Bench, wanted: &[String]) -> Result<Rows> {
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
    let mut qemu = Process::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-M", board.model.name, "-cpu", "max"]);
    qemu.args(machine.accel.qemu_args()).args(["-smp", &board.cpus.to_string()]);
    qemu.args(["-m", &format!("{}M", board.memory >> 20), "-nodefaults", "-no-user-config", "-no-reboot"]);
    qemu.args(["-display", "none", "-vga", "none", "-kernel"]).arg(&bench.linux).arg("-initrd").arg(&initrd);
    let words = wanted.join(" ");
    qemu.args(["-append", &format!("console=ttyS0 quiet mitigations=off -- {words}")]);
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

/// `row NAME NANOSECONDS COUNT` per line.
fn rows(text: &str) -> Rows {
    text.lines()
        .filter_map(|line| {
            let mut words = line.trim().strip_prefix("row ")?.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .collect()
}

fn medians(runs: &[Rows]) -> Rows {
    let mut all: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
    for (name, ns) in runs.iter().flatten() {
        all.entry(name).or_default().push(*ns);
    }
    all.into_iter()
        .filter_map(|(name, mut values)| {
            values.sort_by(f64::total_cmp);
            Some((name.clone(), *values.get(values.len() / 2)?))
        })
        .collect()
}

/// Prints the table; whether all bars are met.
fn compare(cob: &Rows, linux: &Rows, wanted: &[String], (each, all): (f64, f64)) -> Result<bool> {
    println!("{:<20} {:>12} {:>12} {:>7}", "row", "Cob ns", "Linux ns", "ratio");
    let (mut good, mut sum, mut count) = (true, 0.0, 0);
    for (name, theirs) in linux.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name)) {
        let Some(ours) = cob.get(name) else {
            println!("{name:<20} {:>12} {theirs:>12.1}", "missing");
            good = false;
            continue;
        };
        let ratio = ours / theirs;
        let mark = if ratio > each { "  too slow" } else { "" };
        println!("{name:<20} {ours:>12.1} {theirs:>12.1} {ratio:>7.2}{mark}");
        good &= ratio <= each;
        sum += ratio.ln();
        count += 1;
    }
    ensure!(count > 0, "no row has two numbers");
    let mean = (sum / f64::from(count)).exp();
    println!("geometric mean {mean:.2}; bars: each at most {each}, the mean at most {all}");
    Ok(good && (mean <= all || !wanted.is_empty()))
}

/// The part of this host's CPU time that something used, over half a second.
fn busy() -> Result<f64> {
    let read = || -> Result<(f64, f64)> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("no line in /proc/stat")?;
        let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        // user, nice, system, idle, iowait, ...
        let idle = fields.iter().skip(3).take(2).sum();
        Ok((idle, fields.iter().take(8).sum()))
    };
    let before = read()?;
    std::thread::sleep(Duration::from_millis(500));
    let after = read()?;
    let all = (after.1 - before.1).max(1.0);
    Ok(1.0 - (after.0 - before.0) / all)
}

#[cfg(test)]
mod tests {
    use super::{medians, rows};

    #[test]
    fn rows_are_read_and_their_medians_taken() {
        let run = |ns: f64| rows(&format!("[ 0.1] noise\r\nrow null_syscall {ns} 20000\r\nrow bad x 1\n"));
        let all = medians(&[run(5.0), run(1.5), run(3.0)]);
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [("null_syscall".to_owned(), 3.0)]);
    }
}
