//! `cob bench boot`: how soon a shell asks for a command, and how soon eight kernels are one machine, against Linux with eight CPUs.
//!
//! All times are of the guest's time stamp counter, which begins when the machine is switched on: kernels stamp their logs with it, and the
//! program that Linux starts first reads it. How fast that counter runs beside the guest's instructions is the host's affair; the prompt has a bar in
//! seconds, so it is judged by counted instructions, one a nanosecond, and shown by the clock beside that.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::linux::on_linux;
use super::{Judged, Rows, idle, medians, rows};
use crate::Boot;
use crate::build;
use crate::exec::{OFF_TIME, with_mode};
use crate::machine::{Machine, Put, Session, Vm};
use crate::root::Root;

/// From the entry of the first kernel to the prompt, in seconds.
const PROMPT: f64 = 0.5;
/// All kernels of octo joined, in parts of Linux' time to its first program.
const JOINED: f64 = 0.8;
/// The same for machines with more kernels than octo.
const MANY_JOINED: f64 = 0.5;
/// How long one boot may take here.
const TIME: Duration = Duration::from_secs(120);

/// Measures, prints, fails if a bar is missed.
pub fn boot(root: &Root, pairs: usize) -> Result<ExitCode> {
    Ok(measure(root, pairs)?.end())
}

/// The same for `cob test`.
pub fn measure(root: &Root, pairs: usize) -> Result<Judged> {
    let machine = |name: &str| Boot { machine: Some(name.to_owned()), ..Boot::default() };
    let profile = profile(root)?;
    let told = Boot { put: vec![profile], ..machine("duo") };
    let duo = Machine::prepare(root, &told)?;
    let counted = Machine::prepare(root, &Boot { icount: true, ..told })?;
    let octo = Machine::prepare(root, &with_mode(&machine("octo")))?;
    let bench = build::bench(root, plan::Isa::X86_64, "bench-micro")?;
    let counted = prompt(root, &counted)?.get("prompt").map_or(f64::INFINITY, |ns| ns / 1e9);
    let (mut all, mut quiet) = (Vec::new(), true);
    for pair in 1..=pairs {
        quiet &= idle(pair, pairs)?;
        let mut run = prompt(root, &duo)?;
        let linux = on_linux(root, &octo, &bench, "--boot")?;
        run.insert("linux".to_owned(), *linux.get("boot").context("Linux did not say when it was up")?);
        run.insert("joined".to_owned(), joined(root, &octo)?);
        all.push(run);
    }
    let rows = medians(&all);
    let value = |name: &str| rows.get(name).map_or(f64::INFINITY, |ns| ns / 1e9);
    println!("seconds of guest time, medians of {pairs}; {}", duo.accel.describe());
    println!(
        "duo   {counted:>7.3} from the entry of the first kernel to the shell's prompt, by counted instructions; bar {PROMPT}"
    );
    println!("      {:>7.3} the same by the clock", value("prompt"));
    println!("      {:>7.3} from power on to that entry", value("entry"));
    println!("octo  {:>7.3} from power on until all eight kernels have joined", value("joined"));
    println!("Linux {:>7.3} from power on to its first program, eight CPUs", value("linux"));
    let ratio = value("joined") / value("linux");
    println!("octo / Linux {ratio:.2}; bar {JOINED}");
    Ok(Judged::new(quiet, counted <= PROMPT && ratio <= JOINED))
}

/// How soon the kernels of another machine are one, against Linux with as many CPUs.
pub fn joining(root: &Root, name: &str, pairs: usize) -> Result<ExitCode> {
    Ok(measure_joining(root, name, pairs)?.end())
}

/// The same for `cob test`.
pub fn measure_joining(root: &Root, name: &str, pairs: usize) -> Result<Judged> {
    let told = Boot { machine: Some(name.to_owned()), ..Boot::default() };
    let machine = Machine::prepare(root, &with_mode(&told))?;
    let isa = machine.plan.boards.first().context("a plan without boards")?.model.isa;
    ensure!(machine.plan.boards.len() == 1, "{name} has several boards: there is no Linux to compare it with");
    let bench = build::bench(root, isa, "bench-micro")?;
    let (mut all, mut quiet) = (Vec::new(), true);
    for pair in 1..=pairs {
        quiet &= idle(pair, pairs)?;
        let linux = on_linux(root, &machine, &bench, "--boot")?;
        let mut run =
            Rows::from([("linux".to_owned(), *linux.get("boot").context("Linux did not say when it was up")?)]);
        run.insert("joined".to_owned(), joined(root, &machine)?);
        all.push(run);
    }
    let rows = medians(&all);
    let value = |name: &str| rows.get(name).map_or(f64::INFINITY, |ns| ns / 1e9);
    let (kernels, cpus) = (machine.plan.kernels.len(), machine.plan.boards.first().map_or(0, |board| board.cpus));
    let bar = if kernels > 8 { MANY_JOINED } else { JOINED };
    println!("seconds of guest time, medians of {pairs}; {}", machine.accel.describe());
    println!("{name} {:>7.3} from power on until all {kernels} kernels have joined", value("joined"));
    println!("Linux {:>7.3} from power on to its first program, {cpus} CPUs", value("linux"));
    let ratio = value("joined") / value("linux");
    println!("{name} / Linux {ratio:.2}; bar {bar}");
    Ok(Judged::new(quiet, ratio <= bar))
}

/// What a login shell does before it asks for the first command: says what time it is.
fn profile(root: &Root) -> Result<Put> {
    let folder = root.target().join("tmp");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let file = folder.join("profile");
    fs::write(&file, "/usr/lib/cob/bench/bench-micro --boot\n")
        .with_context(|| format!("writing {}", file.display()))?;
    Ok(Put { from: file, to: String::from("/root/.profile") })
}

/// When the first kernel was entered and how long after it the shell was about to ask for a command.
fn prompt(root: &Root, machine: &Machine) -> Result<Rows> {
    let mut vm = Vm::start(root, machine)?;
    let end = Instant::now() + TIME;
    let mut said = String::new();
    listen(&mut vm, &mut said, end, |said| said.contains("\nend "))?;
    let log = fs::read_to_string(vm.folder().join("k0.log"))?;
    let entry = entered(&log).context("kernel 0 did not say when it began")?;
    let up = *rows(&said).get("boot").with_context(|| format!("no time in {said:?}"))?;
    vm.kill();
    Ok(Rows::from([("entry".to_owned(), entry), ("prompt".to_owned(), up - entry)]))
}

/// Reads the console until `done`.
fn listen(vm: &mut Vm, said: &mut String, end: Instant, done: impl Fn(&str) -> bool) -> Result<()> {
    while !done(said) {
        if let Some(status) = vm.ended()? {
            bail!("the machine ended ({status}) and said {said:?}");
        }
        if Instant::now() > end {
            bail!("no answer on the console, which said {said:?}");
        }
        let time = Timespec { tv_sec: 1, tv_nsec: 0 };
        match poll(&mut [PollFd::new(&vm.console, PollFlags::IN)], Some(&time)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 4096];
        match vm.console.read(&mut bytes) {
            Ok(n) => said.push_str(&String::from_utf8_lossy(bytes.get(..n).unwrap_or_default())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// When the last of all kernels entered the view of all.
fn joined(root: &Root, machine: &Machine) -> Result<f64> {
    let mut session = Session::new(Vm::start(root, machine)?)?;
    session.wait_ready(TIME)?;
    let kernels = machine.plan.kernels.len();
    let end = Instant::now() + TIME;
    loop {
        let mut last = 0.0_f64;
        let mut count = 0;
        for index in 0..kernels {
            let log = session.vm.folder().join(format!("k{index}.log"));
            let full = |line: &str| members(line) == Some(kernels);
            if let Some(at) = stamped(&log, full)?.first() {
                count += 1;
                last = last.max(*at);
            }
        }
        if count == kernels {
            session.power_off(OFF_TIME)?;
            return Ok(last);
        }
        if Instant::now() > end {
            bail!("only {count} of {kernels} kernels joined; logs: {}", session.vm.folder().display());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How many members the view has of which a line of a log speaks: `... view 7: [0.1-3.1, 5.2]`.
fn members(line: &str) -> Option<usize> {
    let (_, list) = line.split_once(": view ")?.1.split_once(": [")?;
    let index = |kernel: &str| kernel.split_once('.')?.0.parse::<usize>().ok();
    let run = |run: &str| match run.split_once('-') {
        Some((first, last)) => Some((index(last)? + 1).checked_sub(index(first)?)?),
        None => index(run).map(|_| 1),
    };
    list.strip_suffix(']')?.split(", ").map(run).sum()
}

/// When the kernel got its first CPU, in ns: it says so in its first line.
fn entered(log: &str) -> Option<f64> {
    let (_, after) = log.split_once("entered at ")?;
    Some(after.split_once(" us")?.0.parse::<f64>().ok()? * 1000.0)
}

/// The times of the lines of a log that are `wanted`, in ns.
fn stamped(log: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<f64>> {
    let text = match fs::read(log) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("reading {}", log.display())),
    };
    let time = |line: &str| line.strip_prefix('[')?.split_once(']')?.0.trim().parse::<f64>().ok();
    Ok(text.lines().filter(|line| wanted(line)).filter_map(time).map(|seconds| seconds * 1e9).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn stamps_are_read() {
        let folder = std::env::temp_dir().join(format!("cob-stamps-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let log = folder.join("k0.log");
        let text = "[    0.250000] k0.0 boot: hello, entered at 123 us\nnoise\n[    1.5] k0.0 cluster: view 2\n";
        std::fs::write(&log, text).expect("a log");
        assert_eq!(super::stamped(&log, |_| true).expect("read"), [0.25e9, 1.5e9]);
        assert_eq!(super::stamped(&log, |line| line.contains("view")).expect("read"), [1.5e9]);
        assert!(super::stamped(&folder.join("none"), |_| true).expect("none").is_empty());
        assert_eq!(super::entered(text), Some(123_000.0));
        assert_eq!(super::members("[ 1.5] k0.0 membership::glue: view 2: [0.1, 1.1]"), Some(2));
        assert_eq!(super::members("[ 1.5] k0.0 membership::glue: view 9: [0.1-4.1, 5.2, 6.1-47.1]"), Some(48));
        assert_eq!(super::members("[ 1.5] k0.0 cluster::life: started kernel 2.1"), None);
        std::fs::remove_dir_all(folder).expect("the folder");
    }
}
