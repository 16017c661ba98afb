//! `cob bench link`: what a message between two kernels costs, against a line of memory that goes to and fro between the same two CPUs.
//!
//! The kernels measure (`/proc/cob/measure`); this boots them, prints and judges.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use super::{Judged, Rows, idle, report, said_on_cob};
use crate::Boot;
use crate::exec::with_mode;
use crate::machine::Machine;
use crate::root::Root;

/// A message and its answer, both sides polling, in round trips of a line.
const ECHO: f64 = 3.0;
/// Bells per message under load.
const BELLS: f64 = 0.05;
/// A message and its answer between CPUs that sleep, in round trips of a line and two bells.
const ASLEEP: f64 = 1.3;
/// The speed of a copy from a peer's memory, of one within the own.
const COPIED: f64 = 0.7;

/// What is printed of the rows, and which other row each is compared with.
const SHOWN: [(&str, &str, Option<&str>); 7] = [
    ("line", "a line of memory to and fro, both polling", None),
    ("echo", "a message and its answer, both polling", Some("line")),
    ("echo_4k", "the same with 4 KiB each way", Some("line")),
    ("call", "the same by a task that sleeps until the answer wakes it", Some("line")),
    ("load", "a request and its answer, 32 under way at once", Some("line")),
    ("bell", "a line to and fro, both halted, a bell for each", None),
    ("echo_asleep", "a message and its answer, both halted", Some("bell")),
];

/// Kernel 1 may be on another board and come later than the shell.
const MEASURE: &str = "until kctl kernels --json | grep -c '\"up\"' | grep -q '[2-9]'; do sleep 0.1; done
    awk 'NR > 1 && $2 == 1 { print \"transport\", $3 }' /proc/cob/links
    echo 1 > /proc/cob/measure && cat /proc/cob/measure && echo 1 spread > /proc/cob/measure && cat /proc/cob/measure";

/// Measures, prints a table, fails if a bar is missed.
pub fn link(root: &Root, machine: &str, runs: usize) -> Result<ExitCode> {
    Ok(measure(root, machine, runs)?.end())
}

/// The same for `cob test`.
pub fn measure(root: &Root, machine: &str, runs: usize) -> Result<Judged> {
    let machine = Machine::prepare(root, &with_mode(&Boot { machine: Some(machine.to_owned()), ..Boot::default() }))?;
    let (mut all, mut quiet) = (Vec::new(), true);
    for run in 1..=runs {
        quiet &= idle(run, runs)?;
        all.push(said_on_cob(root, &machine, MEASURE)?);
    }
    let figures = report::figures(&machine.plan.name, &machine.describe(), &all);
    let page = report::write(&root.target().join("bench/link"), &figures)?;
    let rows = &figures.rows;
    println!("{}", machine.describe());
    println!("{:<12} {:>10} {:>7}", "row", "ns", "ratio");
    let value = |name: &str| rows.get(name).copied().with_context(|| format!("no figure for {name}"));
    for (name, what, under) in SHOWN {
        // Kernels of boards that share nothing have no line to compare with.
        let Some(ns) = rows.get(name).copied() else {
            ensure!(machine.plan.is_apart(), "no figure for {name}");
            continue;
        };
        let under = under.and_then(|under| rows.get(under));
        let ratio = under.map_or_else(String::new, |under| format!("{:.2}", ns / under));
        println!("{name:<12} {ns:>10.1} {ratio:>7}  {what}");
    }
    println!("bells per message under load {:.4}", value("doorbells")?);
    println!("the clocks differ by {:.0} ns, measured to {:.0} ns", value("skew")?, value("skew_error")?);
    if machine.plan.is_apart() {
        println!("spread of times, throughput: {}", page.display());
        println!("no bars: there is no memory that both kernels see, to compare with");
        return Ok(Judged::new(quiet, true));
    }
    let copied = report::copied(rows).context("no figures of payloads")?;
    println!("a payload of 256 KiB is copied from a peer with {copied:.2} of the speed within one memory");
    println!("spread of times, throughput, payloads: {}", page.display());
    println!(
        "bars: echo at most {ECHO} of line, at most {BELLS} bells per message, echo_asleep at most {ASLEEP} of bell, \
         a copy at least {COPIED}"
    );
    Ok(Judged::new(quiet, good(rows) && copied >= COPIED))
}

fn good(rows: &Rows) -> bool {
    let value = |name: &str| rows.get(name).copied().unwrap_or(f64::INFINITY);
    value("echo") <= ECHO * value("line")
        && value("doorbells") <= BELLS
        && value("echo_asleep") <= ASLEEP * value("bell")
}
