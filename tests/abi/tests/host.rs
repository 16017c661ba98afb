//! The cases on the Linux that this is built on: what they claim about Linux must be true.

use std::process::Command;

/// Runs `abi` and gives its standard output.
fn abi(words: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_abi")).args(words).output().expect("abi runs");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn every_case_passes_on_linux() {
    let (ok, report) = abi(&["run-all"]);
    let failed: Vec<&str> = report.lines().filter(|line| line.starts_with("not ok")).collect();
    assert!(ok && failed.is_empty(), "{}", failed.join("\n"));
    let passed = report.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(report.lines().next(), Some(format!("1..{passed}").as_str()), "a complete plan of results");
}

#[test]
fn names_are_unique_and_calls_exist() {
    let (_, names) = abi(&["list"]);
    let mut names: Vec<&str> = names.lines().collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    // `unknown_call` tests a call that does not exist; on ISAs without the old calls their names are still the manual's.
    let known = |call: &str| linux_abi::call::ROWS.iter().any(|row| row.name == call);
    let aliases = ["nosys", "fstat", "statfs", "fstatfs", "sendfile", "fallocate", "sync"];
    let (_, calls) = abi(&["list", "--calls"]);
    for line in calls.lines() {
        let call = line.split(':').next().unwrap_or_default();
        assert!(known(call) || aliases.contains(&call), "no system call {call}");
    }
}

#[test]
fn tests_of_the_table_exist() {
    let (_, names) = abi(&["list"]);
    for row in linux_abi::call::ROWS {
        for test in row.tests {
            assert!(names.lines().any(|name| name == *test), "{} names the case {test}, which is not there", row.name);
        }
    }
}

#[test]
fn reports_are_machine_readable() {
    let (ok, json) = abi(&["run", "pipe_end_of_file", "dup*", "--json"]);
    assert!(ok && json.trim_start().starts_with('[') && json.trim_end().ends_with(']'));
    assert!(json.lines().filter(|line| line.contains("\"ok\": true")).count() >= 3);
    assert!(!abi(&["run", "no_such_case"]).0);
}
