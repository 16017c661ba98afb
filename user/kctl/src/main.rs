//! `kctl`: shows and commands the kernels of a system. It only reads and writes the files of `docs/proc-cob.md`.
#![forbid(unsafe_code)]

mod args;
mod multiarch;
mod show;
mod system;
mod table;
mod top;

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::args::{Args, Command};

/// Where procfs is; tests put something else there.
fn proc(file: &str) -> PathBuf {
    Path::new(&std::env::var_os("KCTL_PROC").unwrap_or_else(|| "/proc".into())).join(file)
}

/// Reads a file of procfs and what it says.
fn read<T>(file: &str, parse: fn(&str) -> Result<T, String>) -> Result<T, String> {
    let path = proc(file);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    parse(&text).map_err(|e| format!("{}: {e}", path.display()))
}

/// Prints a value for programs or for people.
fn print(json: bool, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), String> {
    let text = if json { serde_json::to_string_pretty(value).map_err(|e| e.to_string())? + "\n" } else { text() };
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| format!("standard output: {e}"))
}

/// Writes one command in one `write(2)`.
fn write(file: &str, text: &str, doing: &str) -> Result<(), String> {
    let path = proc(file);
    let mut out = std::fs::File::options().write(true).open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    // Not write_all: a second write would be a second command.
    match out.write(text.as_bytes()) {
        Ok(n) if n == text.len() => Ok(()),
        Ok(n) => Err(format!("{doing}: only {n} of {} bytes were taken", text.len())),
        Err(error) => Err(format!("{doing}: {}", explain(doing, &error))),
    }
}

/// What an error of a command means here, before the words of the system.
fn explain(doing: &str, error: &std::io::Error) -> String {
    let booting = doing.starts_with("boot");
    let meaning = match error.raw_os_error() {
        Some(1) => "only root may do that",
        Some(2) if booting => "there is no image for it in /boot",
        Some(6) => "the plan has no such kernel",
        Some(16) if booting => "it is up, on its way, or lost",
        Some(16) => "it is the last kernel, or still on its way up",
        Some(19) => {
            "no kernel that is up can start it; if its board is off, boot the kernel first that the board begins with"
        }
        Some(110) if booting => "it does not come up",
        Some(110) => "it does not answer",
        Some(112) => "it is not up",
        Some(114) => "it is off already",
        _ => return error.to_string(),
    };
    format!("{meaning} ({error})")
}

#[derive(Serialize)]
struct Topo<'a> {
    kernels: &'a [system::Kernel],
    links: &'a [system::Link],
}

/// Checks a plan. The error is for people; JSON goes to standard output in both cases.
fn check_plan(file: &Path, json: bool) -> Result<(), String> {
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    match plan::parse(&text) {
        Ok(plan) => {
            let cpus: usize = plan.kernels.iter().map(|k| k.cpus.len()).sum();
            let report =
                serde_json::json!({ "ok": true, "name": plan.name, "kernels": plan.kernels.len(), "cpus": cpus });
            print(json, &report, || {
                format!("{}: good: {}, kernels: {}, CPUs: {cpus}\n", file.display(), plan.name, plan.kernels.len())
            })
        }
        Err(errors) => {
            let list: Vec<_> =
                errors.iter().map(|e| serde_json::json!({ "line": e.line, "what": e.what, "hint": e.hint })).collect();
            if json {
                print(true, &serde_json::json!({ "ok": false, "errors": list }), String::new)?;
            }
            let lines: Vec<String> = errors.iter().map(|e| format!("{}: {e}", file.display())).collect();
            Err(lines.join("\n"))
        }
    }
}

/// Goes on as the command, on another kernel. Returns only if that fails.
fn run(kernel: u16, line: &[OsString]) -> ExitCode {
    if let Err(error) = write("self/cob/placement", &format!("{kernel}\n"), &format!("kernel {kernel}")) {
        eprintln!("kctl: {error}");
        return ExitCode::from(126);
    }
    let Some((program, words)) = line.split_first() else {
        return ExitCode::from(127);
    };
    let mut command = std::process::Command::new(program);
    if multiarch::is_mixed()
        && let Ok(kernels) = read("cob/kernels", system::kernels)
        && let Some(there) = kernels.iter().find(|row| row.id == u64::from(kernel))
    {
        if let Some(twin) = multiarch::twin(&there.isa, program, |path| path.exists()) {
            command = std::process::Command::new(twin);
        }
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
        command.env("PATH", multiarch::search_path(&there.isa, &path));
    }
    let error = command.args(words).exec();
    eprintln!("kctl: {}: {error}", program.to_string_lossy());
    ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}

fn obey(args: Args) -> Result<ExitCode, String> {
    let json = args.json;
    match args.command {
        Command::Help(text) => {
            std::io::stdout().write_all(text.as_bytes()).map_err(|e| format!("standard output: {e}"))?;
        }
        Command::Kernels => {
            let kernels = read("cob/kernels", system::kernels)?;
            print(json, &kernels, || show::kernels(&kernels))?;
        }
        Command::Links { lanes } => {
            let mut links = read("cob/links", system::links)?;
            if lanes || json {
                system::join(&mut links, &read("cob/lanes", system::lanes)?);
            }
            print(json, &links, || if lanes { show::lanes(&links) } else { show::links(&links) })?;
        }
        Command::Resources => {
            let resources = read("cob/resources", system::resources)?;
            print(json, &resources, || show::resources(&resources))?;
        }
        Command::Services => {
            let services = read("cob/services", system::services)?;
            print(json, &services, || show::services(&services))?;
        }
        Command::Top { pause, once: true } => top::once(pause, json)?,
        Command::Top { pause, once: false } => top::live(pause)?,
        Command::Topo => {
            let (kernels, links) = (read("cob/kernels", system::kernels)?, read("cob/links", system::links)?);
            print(json, &Topo { kernels: &kernels, links: &links }, || show::topo(&kernels, &links))?;
        }
        Command::Control(verb, kernel) => {
            write("cob/control", &format!("{verb} {kernel}\n"), &format!("{verb} {kernel}"))?;
        }
        Command::PlanCheck(file) => check_plan(&file, json)?,
        Command::Run(kernel, line) => return Ok(run(kernel, &line)),
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let args = match args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("kctl: {error}");
            return ExitCode::from(2);
        }
    };
    obey(args).unwrap_or_else(|error| {
        for line in error.lines() {
            eprintln!("kctl: {line}");
        }
        ExitCode::FAILURE
    })
}
