//! Programs that test the Linux ABI: each case is run on this host's Linux first, and must pass there, then in the system in every
//! placement, unchanged.
//!
//! Such a program is a package `tests/NAME` with `guest = true` in `[package.metadata.cob]`. `PROGRAM list` prints its cases, one a
//! line; `PROGRAM run CASE` runs one and exits with 0 if the kernel did what Linux does.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cases::{Case, Placement, quote};
use super::{Report, Verdict};
use crate::build;
use crate::root::Root;

/// A case of a program.
pub struct Program {
    /// `PROGRAM/CASE`.
    pub name: String,
    program: String,
    case: String,
}

/// How long a case may take.
const TIME: f64 = 20.0;

impl Program {
    /// The command for the guest.
    pub fn case(&self) -> Case {
        Case {
            name: self.name.clone(),
            run: format!("exec /usr/lib/cob/tests/{} run {}", self.program, quote(&self.case)),
            stdin: String::new(),
            stdout: None,
            has: Vec::new(),
            stderr: None,
            status: 0,
            timeout: TIME,
            linux: false,
            placements: Placement::ALL.to_vec(),
            kills: Vec::new(),
            goes_on: false,
            lost: false,
            except: Vec::new(),
            warnings: Vec::new(),
            logs: Vec::new(),
            long: false,
            quick: false,
        }
    }
}

/// Runs all cases here. Returns those that Linux passes: only they say something about the system.
pub fn on_linux(root: &Root, report: &mut Report) -> Vec<Program> {
    if report.skips(&["abi-linux", "system"]) {
        return Vec::new();
    }
    match run(root, report) {
        Ok(programs) => programs,
        Err(error) => {
            report.record("programs", Err(format!("{error:#}")), Duration::ZERO);
            Vec::new()
        }
    }
}

fn run(root: &Root, report: &mut Report) -> Result<Vec<Program>> {
    let mut good = Vec::new();
    for program in build::guest_tests(root)? {
        for case in list(&program.path)? {
            let name = format!("{}/{case}", program.name);
            let here = report.wants(&name);
            let there = Placement::ALL
                .iter()
                .flat_map(|placement| {
                    ["abi", "aarch64-abi", "riscv64-abi", "pair-arm-abi", "pair-riscv-abi", "apart-abi"]
                        .map(|suite| format!("{suite}/{name}@{}", placement.name()))
                })
                .any(|there| report.wants_in("system", &there));
            if !here && !there {
                continue;
            }
            let start = Instant::now();
            report.progress(&name);
            let verdict = run_here(&program.path, &case);
            let passed = verdict.is_ok();
            // A verdict that nobody asked for only counts when it explains why there is no other.
            if here || !passed {
                report.record(&name, verdict, start.elapsed());
            }
            if passed {
                good.push(Program { name, program: program.name.clone(), case });
            }
        }
    }
    Ok(good)
}

/// Runs a case on this host's Linux.
fn run_here(program: &Path, case: &str) -> Verdict {
    let mut command = Command::new("timeout");
    command.arg(TIME.to_string()).arg(program).args(["run", case]).stdin(Stdio::null());
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("Linux: {}\n{}", output.status, String::from_utf8_lossy(&said)))
}

fn list(program: &Path) -> Result<Vec<String>> {
    let output = Command::new(program).arg("list").output().context("asking for the cases")?;
    ensure!(output.status.success(), "{} list failed", program.display());
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}
