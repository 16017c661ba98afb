//! Looking into runs and plans: `cob gdb`, `cob log`, `cob plan check`.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::root::Root;
use crate::{build, machine};

/// The run that is meant.
fn find(root: &Root, name: Option<&str>, good: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    match name {
        Some(name) => Some(root.runs().join(name)).filter(|path| good(path)),
        None => root.kept_runs().into_iter().rev().find(|path| good(path)),
    }
}

/// Becomes gdb, connected to a board of a running machine.
pub fn gdb(root: &Root, board: usize, name: Option<&str>, args: &[String]) -> Result<ExitCode> {
    let Some(run) = find(root, name, |run| run.join("gdb.sock").exists()) else {
        bail!("no machine is running; start one with `./cob run` in another terminal");
    };
    let socket = machine::of_board("gdb.sock", board);
    if !run.join(&socket).exists() {
        bail!("the machine has no board {board}; its plan is {}", run.join("machine.toml").display());
    }
    let symbols = fs::read_link(run.join(machine::of_board("kernel", board)));
    let symbols = symbols.context("the run does not say which kernel the board has")?;
    // One that knows all ISAs, if the kernel is not of this host's.
    let own = symbols.to_string_lossy().ends_with(std::env::consts::ARCH);
    let program = if own { "gdb" } else { "gdb-multiarch" };
    // The folder is the current one: sockets have short names.
    let error = Command::new(program)
        .current_dir(&run)
        .arg("-q")
        .arg(&symbols)
        .args(["-ex", "set confirm off", "-ex", &format!("target remote {socket}")])
        .args(args)
        .exec();
    if error.kind() == std::io::ErrorKind::NotFound {
        bail!("{program} is not there; install it (Debian's package of that name)");
    }
    Err(error).context("starting gdb")
}

/// Prints the logs of a run, merged by their time stamps.
pub fn log(root: &Root, name: Option<&str>, list: bool) -> Result<ExitCode> {
    if list {
        for run in root.kept_runs() {
            let state = if run.join("qmp.sock").exists() { "running" } else { "ended" };
            println!("{:<40} {state}", run.file_name().unwrap_or_default().to_string_lossy());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some(run) = find(root, name, Path::is_dir) else { bail!("no such run; `./cob log --list` names them") };
    let mut logs = Vec::new();
    for index in 0..plan::MAX_KERNELS {
        if let Ok(bytes) = fs::read(run.join(format!("k{index}.log"))) {
            logs.push(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    for line in merge(&logs) {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Lines by time; a line without a time stays behind the one before it.
fn merge(logs: &[String]) -> Vec<&str> {
    let mut lines = Vec::new();
    for log in logs {
        let mut time = 0;
        for line in log.lines() {
            time = stamp(line).unwrap_or(time);
            lines.push((time, line));
        }
    }
    lines.sort_by_key(|(time, _)| *time);
    lines.into_iter().map(|(_, line)| line).collect()
}

/// The microseconds of `[   12.345678] ...`.
fn stamp(line: &str) -> Option<u64> {
    let (seconds, micros) = line.strip_prefix('[')?.split_once(']')?.0.trim().split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?)
}

/// Says for every file whether it is a good plan.
pub fn check_plans(files: &[PathBuf]) -> Result<ExitCode> {
    let mut bad = 0;
    for file in files {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        match plan::parse(&text) {
            Ok(plan) => {
                let (kernels, cpus) = (plan.kernels.len(), plan.cpu_count());
                println!("{}: good: {}, kernels: {kernels}, CPUs: {cpus}", file.display(), plan.name);
            }
            Err(errors) => {
                bad += 1;
                eprintln!("{}", machine::explain(file, &errors));
            }
        }
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Becomes the protocol simulator.
pub fn sim(root: &Root, args: &[String]) -> Result<ExitCode> {
    let system = args.first().is_some_and(|arg| arg == "--system");
    let (package, args) = if system { ("system-sim", args.get(1..).unwrap_or_default()) } else { ("cob-sim", args) };
    let error = Command::new(build::host_cargo())
        .current_dir(root.path())
        .args(["run", "-q", "--locked", "--profile", "sim", "-p", package, "--"])
        .args(args)
        .exec();
    Err(error).context("starting cargo")
}

#[cfg(test)]
mod tests {
    #[test]
    fn logs_merge_by_time() {
        let logs = ["[    0.000002] k0.0 b\n  trace\n[    0.000009] k0.0 d".into(), "[    0.000001] k1.0 a".into()];
        assert_eq!(
            super::merge(&logs),
            ["[    0.000001] k1.0 a", "[    0.000002] k0.0 b", "  trace", "[    0.000009] k0.0 d"]
        );
    }
}
