//! `cob bench micro`: the same static program on Cob and on Debian's Linux.
//!
//! With counted instructions the figures repeat, so that they are a gate of `cob test`. With `--wall` the clock on the wall counts: interleaved
//! pairs of runs, judged only on an idle host.

use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use plan::Isa;

use super::linux::on_linux;
use super::{Judged, Rows, idle, medians, on_cob};
use crate::Boot;
use crate::build::{self, Bench};
use crate::exec::with_mode;
use crate::machine::Machine;
use crate::root::Root;

/// What a set of rows must reach.
#[derive(Clone, Copy)]
struct Bars {
    /// Each row.
    each: f64,
    /// The geometric mean, if there is a bar for it.
    mean: Option<f64>,
}

/// Counted instructions.
const COUNTED: Bars = Bars { each: 1.0, mean: Some(0.6) };
/// The wall clock, on one CPU.
const WALL: Bars = Bars { each: 1.1, mean: Some(0.6) };
/// The wall clock, two CPUs of one kernel.
const WALL_CROSS: Bars = Bars { each: 1.0, mean: None };

/// A row that both have, and how they compare.
struct Line {
    name: String,
    cob: f64,
    linux: f64,
}

impl Line {
    fn ratio(&self) -> f64 {
        self.cob / self.linux
    }
}

/// Measures, prints a table, fails if a bar is missed. `wall`: how many pairs by the wall clock.
pub fn micro(root: &Root, isa: Isa, wall: Option<usize>, wanted: &[String]) -> Result<ExitCode> {
    let Some(pairs) = wall else {
        let lines = counted(root, isa, wanted)?;
        print(&lines, COUNTED);
        return Ok(Judged::new(true, verdicts(&lines, COUNTED, wanted).iter().all(|(_, v)| v.is_ok())).end());
    };
    Ok(by_the_wall(root, isa, pairs, wanted)?.end())
}

/// The gate of `cob test`: a verdict per row and one for the mean.
pub fn gate(root: &Root, isa: Isa) -> Result<Vec<(String, Result<(), String>)>> {
    Ok(verdicts(&counted(root, isa, &[])?, COUNTED, &[]))
}

/// The machine with one kernel and one CPU.
fn uni(isa: Isa) -> String {
    match isa {
        Isa::X86_64 => String::from("uni"),
        isa => format!("uni-{}", isa.name()),
    }
}

/// Single-CPU rows on `uni`, cross-CPU rows on `solo`, which is x86-64's, against Linux with as many CPUs.
pub fn by_the_wall(root: &Root, isa: Isa, pairs: usize, wanted: &[String]) -> Result<Judged> {
    let mut all = Judged::Good;
    let mut sets = vec![(uni(isa), "", WALL)];
    if isa == Isa::X86_64 {
        sets.push((String::from("solo"), "--cross ", WALL_CROSS));
    }
    for (machine, option, bars) in sets {
        let (machine, bench) = prepare(root, &machine, false)?;
        let words = format!("{option}{}", wanted.join(" "));
        let (mut cob, mut linux, mut quiet) = (Vec::new(), Vec::new(), true);
        for pair in 1..=pairs {
            quiet &= idle(pair, pairs)?;
            let theirs = on_linux(root, &machine, &bench, &words);
            let ours = on_cob(root, &machine, &program(&words))?;
            if ours.is_empty() && !wanted.is_empty() {
                // The rows that are wanted are of the other set.
                break;
            }
            linux.push(theirs?);
            cob.push(ours);
        }
        if cob.is_empty() {
            continue;
        }
        println!("{}", machine.describe());
        let lines = pair_up(&medians(&cob), &medians(&linux))?;
        print(&lines, bars);
        let judged = Judged::new(quiet, verdicts(&lines, bars, wanted).iter().all(|(_, v)| v.is_ok()));
        all = match (all, judged) {
            (Judged::Bad, _) | (_, Judged::Bad) => Judged::Bad,
            (Judged::Busy, _) | (_, Judged::Busy) => Judged::Busy,
            _ => Judged::Good,
        };
    }
    Ok(all)
}

/// `cob bench trace`: what it costs that a kernel notes what it does, by counted instructions.
pub fn traced(root: &Root) -> Result<ExitCode> {
    /// A script of many programs: what people trace. The clock that it reads counts hundredths of a second.
    const SCRIPT: &str =
        "script() { i=0; while [ $i -lt $1 ]; do ls /bin | sort | head -n 3 >/dev/null; i=$((i+1)); done; }";
    const ROUNDS: u32 = 1000;
    /// More than this on top of a script is too much.
    const BAR: f64 = 1.05;
    let (machine, _) = prepare(root, &uni(Isa::X86_64), true)?;
    let run = |start: &str| {
        let line = format!(
            "{start}/usr/lib/cob/bench/bench-micro
            {SCRIPT}; script 20; read from rest </proc/uptime; script {ROUNDS}; read to rest </proc/uptime
            echo row script $(awk \"BEGIN {{ print ($to - $from) * 1000000000 / {ROUNDS} }}\") {ROUNDS}"
        );
        on_cob(root, &machine, &line)
    };
    let (off, on) = (run("")?, run("echo on >/proc/cob/trace; ")?);
    println!("{:<20} {:>12} {:>12} {:>7}", "row", "not traced", "traced", "ratio");
    let lines = pair_up(&on, &off)?;
    for line in &lines {
        println!("{:<20} {:>12.1} {:>12.1} {:>7.2}", line.name, line.linux, line.cob, line.ratio());
    }
    let script = lines.iter().find(|line| line.name == "script").context("the script printed no row")?;
    println!("bar: the script at most {BAR}");
    Ok(Judged::new(true, script.ratio() <= BAR).end())
}

fn counted(root: &Root, isa: Isa, wanted: &[String]) -> Result<Vec<Line>> {
    let (machine, bench) = prepare(root, &uni(isa), true)?;
    let words = wanted.join(" ");
    let linux = on_linux(root, &machine, &bench, &words)?;
    pair_up(&on_cob(root, &machine, &program(&words))?, &linux)
}

fn prepare(root: &Root, machine: &str, icount: bool) -> Result<(Machine, Bench)> {
    let boot = Boot { machine: Some(machine.to_owned()), icount, ..Boot::default() };
    let machine = Machine::prepare(root, &with_mode(&boot))?;
    let isa = machine.plan.boards.first().context("a plan without boards")?.model.isa;
    Ok((machine, build::bench(root, isa, "bench-micro")?))
}

fn program(words: &str) -> String {
    format!("exec /usr/lib/cob/bench/bench-micro {words}")
}

fn pair_up(cob: &Rows, linux: &Rows) -> Result<Vec<Line>> {
    ensure!(!linux.is_empty(), "no row was measured");
    let line = |(name, linux): (&String, &f64)| {
        // A row that is missing here is infinitely slow.
        Line { name: name.clone(), cob: cob.get(name).copied().unwrap_or(f64::INFINITY), linux: *linux }
    };
    Ok(linux.iter().map(line).collect())
}

fn mean(lines: &[Line]) -> f64 {
    let sum: f64 = lines.iter().map(|line| line.ratio().ln()).sum();
    (sum / lines.len() as f64).exp()
}

fn print(lines: &[Line], bars: Bars) {
    println!("{:<20} {:>12} {:>12} {:>7}", "row", "Cob ns", "Linux ns", "ratio");
    for line in lines {
        let mark = if line.ratio() > bars.each { "  too slow" } else { "" };
        println!("{:<20} {:>12.1} {:>12.1} {:>7.2}{mark}", line.name, line.cob, line.linux, line.ratio());
    }
    let bar = bars.mean.map_or(String::new(), |bar| format!(", bar {bar}"));
    println!("each row at most {}; geometric mean {:.2}{bar}", bars.each, mean(lines));
}

/// One verdict per row, and one for the mean if all rows were measured.
fn verdicts(lines: &[Line], bars: Bars, wanted: &[String]) -> Vec<(String, Result<(), String>)> {
    let judge = |name: &str, value: f64, bar: f64, of: String| {
        let good = value <= bar;
        (name.to_owned(), if good { Ok(()) } else { Err(format!("{value:.3} of Linux', more than {bar}{of}")) })
    };
    let row = |line: &Line| {
        judge(&line.name, line.ratio(), bars.each, format!(" ({:.1} ns, Linux {:.1} ns)", line.cob, line.linux))
    };
    let mut all: Vec<_> = lines.iter().map(row).collect();
    if let Some(bar) = bars.mean.filter(|_| wanted.is_empty()) {
        all.push(judge("mean", mean(lines), bar, String::new()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{COUNTED, Rows, pair_up, verdicts};

    #[test]
    fn a_slow_row_and_a_missing_one_fail_by_name() {
        let rows = |rows: &[(&str, f64)]| rows.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect::<Rows>();
        let lines = pair_up(&rows(&[("a", 0.1), ("b", 1.2)]), &rows(&[("a", 1.0), ("b", 1.0), ("c", 1.0)]));
        let verdicts = verdicts(&lines.expect("lines"), COUNTED, &[]);
        let bad: Vec<&str> = verdicts.iter().filter(|(_, v)| v.is_err()).map(|(n, _)| n.as_str()).collect();
        assert_eq!(bad, ["b", "c", "mean"]);
        assert!(pair_up(&Rows::new(), &Rows::new()).is_err());
    }
}
