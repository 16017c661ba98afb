//! `system-sim [--seeds N] [--from S] [--kernels K] [--jobs J] [--as-found]`: runs seeds. `--seed S` or `--case CASE` with `--trace`: replays one.
#![forbid(unsafe_code)]

use std::{
    io::Write as _,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use system_sim::{Case, minimise, run};

const USAGE: &str = "usage: system-sim [--seeds N] [--from SEED] [--kernels K] [--jobs N] [--as-found]
       system-sim --seed SEED [--kernels K] [--trace] [--minimise]
       system-sim --case CASE [--trace] [--minimise]";

/// Seeds of one process: what a dead kernel had is never given back, so a process does not live for ever.
const CHUNK: u64 = 10;

#[derive(Default)]
struct Args {
    seeds: Option<u64>,
    from: Option<u64>,
    seed: Option<u64>,
    case: Option<Case>,
    kernels: Option<u16>,
    jobs: Option<u64>,
    trace: bool,
    minimise: bool,
    /// Leaves failures as they are.
    as_found: bool,
    /// Runs its seeds itself and says what became of them: for the program's own use.
    worker: bool,
}

impl Args {
    fn parse() -> Result<Self, String> {
        let mut args = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text:?} is no number"));
            match word.as_str() {
                "--seeds" => args.seeds = Some(number(value()?)?),
                "--from" => args.from = Some(number(value()?)?),
                "--seed" => args.seed = Some(number(value()?)?),
                "--case" => args.case = Some(value()?.parse()?),
                "--kernels" => args.kernels = Some(number(value()?)?.clamp(1, 16) as u16),
                "--jobs" => args.jobs = Some(number(value()?)?.clamp(1, 64)),
                "--trace" => args.trace = true,
                "--minimise" => args.minimise = true,
                "--as-found" => args.as_found = true,
                "--worker" => args.worker = true,
                _ => return Err(format!("what is {word}?")),
            }
        }
        Ok(args)
    }
}

/// One case, for a person.
fn one(case: &Case, args: &Args) -> bool {
    println!("{case}: {}", case.words());
    let ended = run(case, args.trace);
    match &ended {
        Ok(report) => println!(
            "fine: trace {:016x}, {} decisions, {:.1} ms of the machine's time",
            report.trace,
            report.decisions,
            report.time as f64 / 1e6
        ),
        Err(failure) => println!("FAILED: {}", failure.why),
    }
    if args.minimise && ended.is_err() {
        smaller(case);
    }
    ended.is_ok()
}

/// Finds and prints what is left of a failure when all that does not matter is gone.
fn smaller(case: &Case) {
    match minimise(case) {
        Some(small) => println!(
            "  smaller, after {} runs: {}; {} decisions of the scheduler matter\n    {}\n    replay: ./cob sim --system --case {} --trace",
            small.runs,
            small.case.words(),
            small.wild,
            small.why,
            small.case
        ),
        None => println!("  it does not fail again: the simulator is not deterministic"),
    }
}

/// Runs seeds in this process, and says one line for each.
fn work(from: u64, seeds: u64, args: &Args) -> ExitCode {
    for seed in from..from + seeds {
        let case = Case::of(seed, args.kernels);
        let line = match run(&case, false) {
            Ok(report) => format!("ok {seed} {} {}", report.decisions, report.time),
            Err(failure) => format!("failed {seed} {}", failure.why.replace('\n', " ")),
        };
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// What became of a seed.
enum Seed {
    Fine { decisions: u64, time: u64 },
    Failed(String),
}

/// Runs a few seeds in a process of their own.
fn chunk(from: u64, seeds: u64, kernels: Option<u16>) -> Vec<(u64, Seed)> {
    let mut results = Vec::new();
    let mut next = from;
    while next < from + seeds {
        let left = from + seeds - next;
        let mut command = match std::env::current_exe() {
            Ok(exe) => Command::new(exe),
            Err(error) => return vec![(next, Seed::Failed(format!("this program cannot be found: {error}")))],
        };
        command.args(["--worker", "--from", &next.to_string(), "--seeds", &left.to_string()]);
        if let Some(kernels) = kernels {
            command.args(["--kernels", &kernels.to_string()]);
        }
        // Panics are part of the answers; as text they would only be in the way.
        let output = match command.stderr(Stdio::null()).output() {
            Ok(output) => output,
            Err(error) => return vec![(next, Seed::Failed(format!("a process for it: {error}")))],
        };
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(verdict), Some(Ok(seed))) = (words.next(), words.next().map(str::parse)) else { continue };
            let rest = words.next().unwrap_or_default();
            let mut numbers = rest.split(' ').map_while(|n| n.parse().ok());
            results.push(match verdict {
                "ok" => {
                    let (decisions, time) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
                    (seed, Seed::Fine { decisions, time })
                }
                _ => (seed, Seed::Failed(rest.to_owned())),
            });
            next = seed + 1;
        }
        if !output.status.success() {
            results.push((next, Seed::Failed(format!("the process ended with {}", output.status))));
            next += 1;
        }
    }
    results
}

fn many(args: &Args) -> ExitCode {
    let (from, seeds) = (args.from.unwrap_or(1), args.seeds.unwrap_or(100));
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get() as u64));
    let start = Instant::now();
    let next = std::sync::atomic::AtomicU64::new(from);
    let mut results: Vec<(u64, Seed)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs)
            .map(|_| {
                scope.spawn(|| {
                    let mut mine = Vec::new();
                    loop {
                        let at = next.fetch_add(CHUNK, std::sync::atomic::Ordering::SeqCst);
                        if at >= from + seeds {
                            return mine;
                        }
                        mine.extend(chunk(at, CHUNK.min(from + seeds - at), args.kernels));
                    }
                })
            })
            .collect();
        workers.into_iter().flat_map(|w| w.join().unwrap_or_default()).collect()
    });
    results.sort_by_key(|(seed, _)| *seed);
    let (mut failed, mut decisions, mut time) = (Vec::new(), 0, 0);
    for (seed, result) in &results {
        match result {
            Seed::Fine { decisions: d, time: t } => {
                decisions += d;
                time += t;
            }
            Seed::Failed(why) => {
                let case = Case::of(*seed, args.kernels);
                println!("seed {seed}: {why}\n  {}\n  replay: ./cob sim --system --seed {seed} --trace", case.words());
                failed.push(case);
            }
        }
    }
    // The first failure is worth the time; the others are often the same.
    if let Some(case) = failed.first().filter(|_| !args.as_found) {
        smaller(case);
    }
    let missing = seeds - (results.len() as u64).min(seeds);
    println!(
        "{seeds} seeds, {decisions} decisions, {:.1} s of machine time, {} failed, {missing} not run, {:.1} s",
        time as f64 / 1e9,
        failed.len(),
        start.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(!failed.is_empty() || missing > 0))
}

fn main() -> ExitCode {
    let args = match Args::parse() {
        Ok(args) => args,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if !args.trace {
        // What a kernel said when it panicked is the reason that is printed; where, is what `--trace` is for.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let case = args.case.clone().or_else(|| args.seed.map(|seed| Case::of(seed, args.kernels)));
    match case {
        Some(case) => ExitCode::from(u8::from(!one(&case, &args))),
        None if args.worker => work(args.from.unwrap_or(1), args.seeds.unwrap_or(1), &args),
        None => many(&args),
    }
}
