//! `cob bench`: measurements against Debian's Linux in the same emulator, and against what the hardware under a mechanism can do.
//! `docs/bench.md` says what each row is.

pub mod boot;
pub mod life;
pub mod link;
mod linux;
pub mod micro;
mod report;

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::exec::OFF_TIME;
use crate::machine::{Command, Ended, Input, Machine, Output, Session, Vm};
use crate::root::Root;

/// Row to nanoseconds per operation (or what the row says).
pub type Rows = BTreeMap<String, f64>;

/// How long one run may take.
const TIME: Duration = Duration::from_secs(600);
/// Interleaved pairs of runs that a wall clock takes for a verdict.
pub const PAIRS: usize = 7;
/// The host may be busy to this part of its CPUs before a run.
const IDLE: f64 = 0.05;
/// The exit status of a measurement that was not judged, as test harnesses have it for what they skip.
pub const NOT_JUDGED: u8 = 77;

/// What a measurement with bars came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// All bars are met.
    Good,
    /// At least one is not.
    Bad,
    /// The host did something else: the figures say nothing.
    Busy,
}

impl Judged {
    /// Bars are met or not, unless the host was busy.
    pub fn new(idle: bool, good: bool) -> Self {
        match (idle, good) {
            (false, _) => Self::Busy,
            (true, true) => Self::Good,
            (true, false) => Self::Bad,
        }
    }

    /// Says it, and the exit status.
    pub fn end(self) -> ExitCode {
        match self {
            Self::Good => ExitCode::SUCCESS,
            Self::Bad => {
                println!("missed");
                ExitCode::FAILURE
            }
            Self::Busy => {
                println!("host busy: not judged");
                ExitCode::from(NOT_JUDGED)
            }
        }
    }
}

/// Boots a machine of ours, runs a command that prints rows.
fn on_cob(root: &Root, machine: &Machine, line: &str) -> Result<Rows> {
    Ok(rows(&said_on_cob(root, machine, line)?))
}

/// Boots a machine of ours, runs a command; what it says.
fn said_on_cob(root: &Root, machine: &Machine, line: &str) -> Result<String> {
    let mut session = Session::new(Vm::start(root, machine)?)?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let ended = session.run(Command {
        line,
        input: Input::Memory(&[]),
        stdout: Output::Memory(&mut stdout),
        stderr: Output::Memory(&mut stderr),
        deadline: Some(Instant::now() + TIME),
    })?;
    if ended != Ended::Status(0) {
        let said = [stdout, stderr].concat();
        bail!("the benchmark on Cob: {ended:?}\n{}", String::from_utf8_lossy(&said));
    }
    session.power_off(OFF_TIME)?;
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// `row NAME NANOSECONDS COUNT` per line.
fn rows(text: &str) -> Rows {
    text.lines()
        .filter_map(|line| {
            let mut words = line.trim().strip_prefix("row ")?.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .collect()
}

/// The median of each row over the runs.
fn medians(runs: &[Rows]) -> Rows {
    let mut all: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
    for (name, value) in runs.iter().flatten() {
        all.entry(name).or_default().push(*value);
    }
    all.into_iter()
        .filter_map(|(name, mut values)| {
            values.sort_by(f64::total_cmp);
            Some((name.clone(), *values.get(values.len() / 2)?))
        })
        .collect()
}

/// Whether the host is idle; says how busy it is.
fn idle(pair: usize, pairs: usize) -> Result<bool> {
    let busy = busy()?;
    eprintln!("pair {pair} of {pairs}; the host is busy to {:.0} %", 100.0 * busy);
    Ok(busy < IDLE)
}

/// The part of this host's CPU time that something used, over half a second.
fn busy() -> Result<f64> {
    let read = || -> Result<(f64, f64)> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().context("no line in /proc/stat")?;
        let fields: Vec<f64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        // user, nice, system, idle, iowait, ...
        let idle = fields.iter().skip(3).take(2).sum();
        Ok((idle, fields.iter().take(8).sum()))
    };
    let before = read()?;
    std::thread::sleep(Duration::from_millis(500));
    let after = read()?;
    let all = (after.1 - before.1).max(1.0);
    Ok(1.0 - (after.0 - before.0) / all)
}

#[cfg(test)]
mod tests {
    use super::{Judged, medians, rows};

    #[test]
    fn rows_are_read_and_their_medians_taken() {
        let run = |ns: f64| rows(&format!("[ 0.1] noise\r\nrow null_syscall {ns} 20000\r\nrow bad x 1\n"));
        let all = medians(&[run(5.0), run(1.5), run(3.0)]);
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [("null_syscall".to_owned(), 3.0)]);
    }

    #[test]
    fn a_busy_host_judges_nothing() {
        assert_eq!(Judged::new(false, false), Judged::Busy);
        assert_eq!(Judged::new(true, false), Judged::Bad);
    }
}
