//! `cob-sim [--seeds N] [--from S] [--kernels N]`: runs seeds; `cob-sim --seed N --trace`: replays one, or the part of it that `--operations` and
//! `--faults` keep. `docs/simulator.md` tells the options.
use std::{panic, process::ExitCode, time::Instant};

use cob_sim::{Options, coverage::Coverage, judge::Rule};

const USAGE: &str =
    "usage: cob-sim [--sessions] [--seeds N] [--from SEED] [--kernels N] [--until-failure] [--without RULES] [--coverage]
       cob-sim [--sessions] --seed N [--kernels N] [--operations LIST] [--faults LIST] [--trace]
       cob-sim --rules";

/// What was asked for.
#[derive(Debug)]
struct Asked {
    seeds: u64,
    from: u64,
    one: bool,
    sessions: bool,
    until_failure: bool,
    look: bool,
    options: Options,
}

/// Understands the command line; `None` if it is nonsense.
fn asked(args: impl Iterator<Item = String>) -> Option<Asked> {
    let mut asked = Asked {
        seeds: 1000,
        from: 1,
        one: false,
        sessions: false,
        until_failure: false,
        look: false,
        options: Options::default(),
    };
    let mut args = args;
    while let Some(arg) = args.next() {
        let options = &mut asked.options;
        match arg.as_str() {
            "--trace" => options.trace = true,
            "--sessions" => asked.sessions = true,
            "--until-failure" => asked.until_failure = true,
            "--coverage" => asked.look = true,
            _ => {
                let value = args.next()?;
                let numbers = || Some(value.split(',').filter_map(|n| n.parse().ok()).collect());
                match arg.as_str() {
                    "--seeds" => asked.seeds = value.parse().ok()?,
                    "--from" => asked.from = value.parse().ok()?,
                    "--seed" => (asked.from, asked.seeds, asked.one) = (value.parse().ok()?, 1, true),
                    "--kernels" => options.kernels = Some(value.parse::<u16>().ok()?.clamp(1, 64)),
                    "--operations" => options.only.operations = numbers(),
                    "--faults" => options.only.faults = numbers(),
                    "--without" => {
                        for name in value.split(',') {
                            options.judge.without.insert(*Rule::ALL.iter().find(|rule| rule.name() == name)?);
                        }
                    }
                    _ => return None,
                }
            }
        }
    }
    Some(asked)
}

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|arg| arg == "--rules") {
        for rule in Rule::ALL {
            println!("{:20} {}", rule.name(), rule.what());
        }
        return ExitCode::SUCCESS;
    }
    let Some(Asked { seeds, from, one, sessions, until_failure, look, options }) = asked(std::env::args().skip(1))
    else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if sessions {
        return interleavings(from, seeds, until_failure, options.trace);
    }
    let start = Instant::now();
    let mut total = cob_sim::Report::default();
    let mut coverage = Coverage::default();
    let (mut failed, mut ran) = (Vec::new(), 0);
    for seed in from..from + seeds {
        ran += 1;
        match attempt(seed, &options) {
            Ok((report, met)) => {
                coverage.add(&met);
                total.events += report.events;
                total.messages += report.messages;
                total.operations += report.operations;
                total.faults += report.faults;
                total.views += report.views;
                total.deaths += report.deaths;
            }
            Err(why) => {
                println!("seed {seed}: {why}\n  replay: cob-sim --seed {seed} --trace");
                failed.push(seed);
                if until_failure {
                    break;
                }
            }
        }
    }
    // The first is worth the time; the others are often the same.
    if let Some(seed) = failed.first().filter(|_| !one && !until_failure) {
        smaller(*seed, &options);
    }
    if look {
        for surprise in coverage.surprises() {
            println!("{surprise}");
        }
    }
    println!("{coverage}");
    println!(
        "{ran} seeds, {} events, {} messages, {} operations, {} faults, {} views, {} deaths, {} failed, {:.1} s",
        total.events,
        total.messages,
        total.operations,
        total.faults,
        total.views,
        total.deaths,
        failed.len(),
        start.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(!failed.is_empty()))
}

/// Interleavings of job control, against what Linux does.
fn interleavings(from: u64, seeds: u64, until_failure: bool, trace: bool) -> ExitCode {
    let start = Instant::now();
    let mut total = cob_sim::sessions::Report::default();
    let mut failed = 0;
    for seed in from..from + seeds {
        let result = panic::catch_unwind(|| cob_sim::sessions::run(seed, trace))
            .unwrap_or_else(|_| Err("[no-panic] a state machine panicked".into()));
        match result {
            Ok(report) => {
                total.calls += report.calls;
                total.messages += report.messages;
            }
            Err(why) => {
                println!("seed {seed}: {why}\n  replay: cob-sim --sessions --seed {seed} --trace");
                failed += 1;
                if until_failure {
                    break;
                }
            }
        }
    }
    println!(
        "{seeds} interleavings, {} calls, {} messages, {failed} failed, {:.1} s",
        total.calls,
        total.messages,
        start.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(failed > 0))
}

/// Runs a seed, or a part of it; a panic is a failure.
fn attempt(seed: u64, options: &Options) -> Result<(cob_sim::Report, Coverage), String> {
    panic::catch_unwind(|| cob_sim::run_and_look(seed, options))
        .unwrap_or_else(|_| Err("[no-panic] a state machine panicked".into()))
}

/// Prints what is left of a failing seed when all that does not matter is gone, and its schedule.
fn smaller(seed: u64, options: &Options) {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let part = |only: &cob_sim::Only, trace| Options { only: only.clone(), trace, ..options.clone() };
    // More than any seed has.
    let only = cob_sim::minimise::minimise(400, 16, |only| attempt(seed, &part(only, false)).is_err());
    panic::set_hook(hook);
    let words = |list: &Option<std::collections::BTreeSet<u32>>| {
        let list = list.iter().flatten().map(u32::to_string).collect::<Vec<_>>().join(",");
        if list.is_empty() { "-".to_owned() } else { list }
    };
    let (operations, faults) = (words(&only.operations), words(&only.faults));
    println!("seed {seed}, smaller:");
    let why = attempt(seed, &part(&only, true)).err().unwrap_or_default();
    println!("{why}\n  replay: cob-sim --seed {seed} --operations {operations} --faults {faults} --trace");
}
