//! The stages that need no machine: rules, unit tests, simulators.

use std::path::Path;
use std::process::Command;

use super::{Depth, Report, Verdict};
use crate::build::{Toolchain, host_cargo};
use crate::lint;
use crate::root::Root;

/// Packages that are only for bare metal: the host's cargo leaves them out.
const BARE: [&str; 5] = ["boot", "hal_aarch64", "hal_riscv64", "hal_x86_64", "stub"];

/// Runs cargo; what it said is the reason if it fails.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(said(&output.stdout));
    }
    let (out, all) = (said(&output.stdout), format!("{}{}", said(&output.stdout), said(&output.stderr)));
    let failures = failures(&out);
    let lines: Vec<&str> = if failures.is_empty() { all.lines().collect() } else { failures };
    let tail = lines.get(lines.len().saturating_sub(60)..).unwrap_or(&lines).join("\n");
    Err(format!("cargo ended with {}\n{tail}", output.status))
}

/// What the harness of Rust's tests says of those that failed: from each `failures:` to the result. Among a hundred test programs,
/// the end of all that is said is seldom about them.
fn failures(said: &str) -> Vec<&str> {
    let mut inside = false;
    let about = |line: &&str| {
        inside |= *line == "failures:";
        let taken = inside;
        inside &= !line.starts_with("test result:");
        taken && !line.is_empty()
    };
    said.lines().filter(about).collect()
}

/// It ends with this process, and so does a simulator, which `cargo run` becomes and which would go on for minutes.
pub fn cargo(root: &Root, args: &[&str]) -> Command {
    let mut cargo = Command::new("setpriv");
    cargo.args(["--pdeathsig", "KILL"]).arg(host_cargo()).args(args);
    cargo.current_dir(root.path()).env_remove("CARGO").env_remove("RUSTFLAGS");
    cargo
}

fn workspace(root: &Root, args: &[&str]) -> Command {
    let mut cargo = cargo(root, args);
    cargo.args(["--locked", "--workspace"]);
    for package in BARE {
        cargo.args(["--exclude", package]);
    }
    cargo
}

/// Format, lints of the compiler and of the house.
pub fn statics(root: &Root, report: &mut Report) {
    report.run("fmt", || run(&mut cargo(root, &["fmt", "--all", "--check"])).map(drop));
    report.run("clippy-host", || {
        run(workspace(root, &["clippy", "-q", "--all-targets"]).args(["--", "-D", "warnings"])).map(drop)
    });
    report.run("clippy-kernel", || kernel_clippy(root, plan::Isa::X86_64));
    report.run("clippy-kernel-aarch64", || kernel_clippy(root, plan::Isa::Aarch64));
    report.run("clippy-kernel-riscv64", || kernel_clippy(root, plan::Isa::Riscv64));
    report.run("house", || {
        let findings = lint::findings(root).map_err(|error| format!("{error:#}"))?;
        let line = |f: &lint::Finding| format!("{}:{}: {}", f.file.display(), f.line, f.what);
        if findings.is_empty() { Ok(()) } else { Err(findings.iter().map(line).collect::<Vec<_>>().join("\n")) }
    });
    report.run("machines", || machines(root));
}

fn kernel_clippy(root: &Root, isa: plan::Isa) -> Verdict {
    let toolchain = Toolchain::find(isa).ok_or("no Rust for bare metal; `./cob doctor` says what to install")?;
    if toolchain == Toolchain::Debian && !Path::new("/usr/bin/cargo-clippy").exists() {
        return Err("clippy of the kernel's Rust is missing: install rust-web-clippy".into());
    }
    let mut clippy = toolchain.cargo(root, isa, "clippy", &root.target().join("kernel"));
    // The first clippy on the path may be of another Rust.
    clippy.env("PATH", format!("/usr/bin:{}", std::env::var("PATH").unwrap_or_default()));
    run(clippy.args(["-q", "-p", "boot", "-p", "stub", "--profile", "checked", "--", "-D", "warnings"])).map(drop)
}

/// Every machine that comes with the system has a good plan.
fn machines(root: &Root) -> Verdict {
    for name in crate::machine::names(root) {
        crate::machine::load(root, &name).map_err(|error| format!("{error:#}"))?;
    }
    Ok(())
}

/// The tests of all crates on the host, loom's too.
pub fn unit(root: &Root, report: &mut Report, depth: Depth) {
    let cases = match depth {
        Depth::Quick => "64",
        Depth::Normal => "256",
        Depth::Long => "2048",
    };
    let mut passed = 0;
    report.run("workspace", || {
        let mut cargo = workspace(root, &["test", "--no-fail-fast"]);
        let said = run(cargo.env("PROPTEST_CASES", cases).env("COB_ROOT", root.path()))?;
        passed = said.lines().filter_map(passed_in).sum();
        Ok(())
    });
    report.count(passed);
    if depth != Depth::Quick && root.join("link/tests/loom.rs").is_file() {
        report.run("loom", || {
            let mut cargo = cargo(root, &["test", "--locked", "--release", "-p", "link", "--test", "loom"]);
            let target = root.target().join("loom");
            cargo.env("RUSTFLAGS", "--cfg loom").env("LOOM_MAX_PREEMPTIONS", "3").arg("--target-dir").arg(target);
            run(&mut cargo).map(drop)
        });
    }
}

/// The number in `test result: ok. 12 passed; ...`.
fn passed_in(line: &str) -> Option<usize> {
    line.strip_prefix("test result: ok. ")?.split_once(" passed")?.0.parse().ok()
}

/// A program of `tests/`, with all checks on, to be given its own arguments.
fn simulator(root: &Root, package: &str) -> Command {
    let mut cargo = cargo(root, &["run", "-q", "--locked", "--profile", "sim", "-p", package, "--"]);
    cargo.stdin(std::process::Stdio::null());
    cargo
}

/// The model checker, and the simulators, which take `--seeds N`; that of the protocols also runs interleavings of job control.
pub fn simulators(root: &Root, report: &mut Report, depth: Depth) {
    let seeds = match depth {
        Depth::Quick => ["200", "1000", "20"],
        Depth::Normal => ["1000", "10000", "500"],
        Depth::Long => ["20000", "500000", "6000"],
    };
    // All that can happen in small machines; larger ones in a long run.
    report.run("model", || {
        let mut cargo = simulator(root, "model");
        run(cargo.args((depth == Depth::Long).then_some("--large"))).map(|said| print!("{said}"))
    });
    let runs: [(&str, &str, &[&str]); 3] =
        [("sim", "cob-sim", &[]), ("sessions", "cob-sim", &["--sessions"]), ("system-sim", "system-sim", &[])];
    for ((name, package, options), seeds) in runs.into_iter().zip(seeds) {
        let mut said = String::new();
        report.run(name, || {
            said = run(simulator(root, package).args(options).args(["--seeds", seeds]))?;
            Ok(())
        });
        if let Some(last) = said.lines().rfind(|line| !line.trim().is_empty()) {
            report.note(name, last.trim());
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn of_many_tests_those_that_failed_are_told() {
        let said = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nit panicked\n\n\
            failures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed\n\nrunning 1 test\ntest c ... ok\n";
        let told = super::failures(said);
        let wanted = ["failures:", "---- b stdout ----", "it panicked", "failures:", "    b"];
        assert_eq!(told.get(..5), Some(&wanted[..]));
        assert_eq!(told.len(), 6, "{told:?}");
        assert!(super::failures("test result: ok. 12 passed").is_empty());
    }

    #[test]
    fn results_are_counted() {
        assert_eq!(super::passed_in("test result: ok. 12 passed; 0 failed; 1 ignored"), Some(12));
        assert_eq!(super::passed_in("test result: FAILED. 12 passed; 3 failed"), None);
    }
}
