//! `cob-sim [--seeds N] [--from S] [--kernels N]`: runs seeds; `cob-sim --seed N --trace`: replays one, or the part of it that `--operations` and
//! `--faults` keep.
use std::{panic, process::ExitCode, time::Instant};

fn main() -> ExitCode {
    let mut seeds = 1000;
    let mut from = 1;
    let mut one = None;
    let mut trace = false;
    let mut sessions = false;
    let mut kernels = None;
    let mut only = cob_sim::Only::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if let list @ ("--operations" | "--faults") = arg.as_str() {
            let words = args.next().unwrap_or_default();
            let numbers = Some(words.split(',').filter_map(|n| n.parse().ok()).collect());
            if list == "--faults" {
                only.faults = numbers
            } else {
                only.operations = numbers
            }
            continue;
        }
        let mut number = || args.next().and_then(|n| n.parse::<u64>().ok());
        match arg.as_str() {
            "--seeds" => seeds = number().unwrap_or(seeds),
            "--from" => from = number().unwrap_or(from),
            "--seed" => one = number(),
            "--kernels" => kernels = number().map(|n| n.clamp(1, 64) as u16),
            "--trace" => trace = true,
            "--sessions" => sessions = true,
            _ => {
                eprintln!(
                    "usage: cob-sim [--sessions] [--seeds N] [--from SEED] [--kernels N] | --seed N [--operations LIST] [--faults LIST] [--trace]"
                );
                return ExitCode::from(2);
            }
        }
    }
    if let Some(seed) = one {
        (from, seeds) = (seed, 1);
    }
    if sessions {
        return interleavings(from, seeds, trace);
    }
    let start = Instant::now();
    let mut total = cob_sim::Report::default();
    let mut failed = Vec::new();
    for seed in from..from + seeds {
        match attempt(seed, trace, kernels, &only) {
            Ok(report) => {
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
            }
        }
    }
    // The first is worth the time; the others are often the same.
    if let Some(seed) = failed.first().filter(|_| one.is_none()) {
        smaller(*seed, kernels);
    }
    println!(
        "{seeds} seeds, {} events, {} messages, {} operations, {} faults, {} views, {} deaths, {} failed, {:.1} s",
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
fn interleavings(from: u64, seeds: u64, trace: bool) -> ExitCode {
    let start = Instant::now();
    let mut total = cob_sim::sessions::Report::default();
    let mut failed = 0;
    for seed in from..from + seeds {
        let result = panic::catch_unwind(|| cob_sim::sessions::run(seed, trace))
            .unwrap_or_else(|_| Err("a state machine panicked".into()));
        match result {
            Ok(report) => {
                total.calls += report.calls;
                total.messages += report.messages;
            }
            Err(why) => {
                println!("seed {seed}: {why}\n  replay: cob-sim --sessions --seed {seed} --trace");
                failed += 1;
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

/// Runs a part of a seed; a panic is a failure.
fn attempt(seed: u64, trace: bool, kernels: Option<u16>, only: &cob_sim::Only) -> Result<cob_sim::Report, String> {
    panic::catch_unwind(|| cob_sim::run_only(seed, trace, kernels, only))
        .unwrap_or_else(|_| Err("a state machine panicked".into()))
}

/// Prints what is left of a failing seed when all that does not matter is gone, and its schedule.
fn smaller(seed: u64, kernels: Option<u16>) {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    // More than any seed has.
    let only = cob_sim::minimise::minimise(400, 16, |only| attempt(seed, false, kernels, only).is_err());
    panic::set_hook(hook);
    let words = |list: &Option<std::collections::BTreeSet<u32>>| {
        let list = list.iter().flatten().map(u32::to_string).collect::<Vec<_>>().join(",");
        if list.is_empty() { "-".to_owned() } else { list }
    };
    let (operations, faults) = (words(&only.operations), words(&only.faults));
    println!("seed {seed}, smaller:");
    let why = attempt(seed, true, kernels, &only).err().unwrap_or_default();
    println!("{why}\n  replay: cob-sim --seed {seed} --operations {operations} --faults {faults} --trace");
}
