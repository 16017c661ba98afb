//! Tests of the Linux ABI. `abi list` names the cases, `abi run NAME…` and `abi run-all` run them and print TAP, or JSON with `--json`.
//!
//! Every case passes on Linux; on Cob the same program must pass unchanged. A case runs in a process and session of its own, in an
//! empty directory; an alarm in the runner ends one that hangs.

// The C libraries disagree about the types of constants, so a cast that is needed with one is not with another.
#![allow(clippy::unnecessary_cast)]

mod between;
mod case;
mod cases;
mod children;
mod mapped;
mod runner;
mod stamps;
mod sys;

use std::process::ExitCode;

const HELP: &str = "\
abi list [--calls]      the names of all cases, or call by call the cases that test it
abi run NAME… [--json]  run these cases (a name ending in * stands for all that start so)
abi run-all [--json]    run all
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (options, words): (Vec<String>, Vec<String>) = match words.first().map(String::as_str) {
        Some("child") => return children::run(words.get(1..).unwrap_or_default()),
        _ => words.into_iter().partition(|word| word.starts_with("--")),
    };
    let has = |option: &str| options.iter().any(|o| o == option);
    match words.split_first() {
        Some((verb, [])) if verb == "list" => {
            runner::list(has("--calls"));
            ExitCode::SUCCESS
        }
        Some((verb, names)) if verb == "run" && !names.is_empty() => match runner::select(names) {
            Ok(cases) => runner::run(&cases, has("--json")),
            Err(error) => {
                eprintln!("abi: {error}");
                ExitCode::from(2)
            }
        },
        Some((verb, [])) if verb == "run-all" => runner::run(&cases::all(), has("--json")),
        _ => {
            eprint!("{HELP}");
            ExitCode::from(2)
        }
    }
}
