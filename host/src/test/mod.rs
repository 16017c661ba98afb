//! `cob test`: everything that must hold, in stages. The last line is `N passed, N failed`, and the exit status says the same.

mod abi;
mod apart;
mod bench;
mod breaks;
mod cases;
mod command;
mod console;
mod debugger;
mod jobs;
mod many;
mod person;
mod stages;
mod system;
mod terminal;

use std::io::{IsTerminal, Write, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::root::Root;

/// The stages; none is the beginning of another.
const STAGES: [&str; 6] = ["static", "unit", "sim", "abi-linux", "system", "bench"];

/// How much is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// In two minutes.
    Quick,
    /// What a change must pass.
    Normal,
    /// For a night.
    Long,
}

/// The verdicts so far.
pub struct Report {
    passed: usize,
    failed: Vec<String>,
    known: Known,
    expected: usize,
    filter: Option<String>,
    stage: &'static str,
    started: Instant,
    live: bool,
    /// Rows of the result page: stage or test, what it came to, how long it took.
    page: Vec<[String; 3]>,
}

/// The tests that are known to fail, each with its reason (`tests/xfail.txt`). They are run all the same.
#[derive(Default)]
struct Known(Vec<(String, String)>);

impl Known {
    fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.filter_map(|line| line.split_once(' ')).map(|(n, r)| (n.into(), r.trim().into())).collect())
    }

    /// Why a test fails. `NAME@*` in the list stands for all placements.
    fn reason(&self, full: &str) -> Option<&str> {
        let stem = full.split_once('@').map_or(full, |(stem, _)| stem);
        let hit = |name: &str| name == full || name.strip_suffix("@*") == Some(stem);
        self.0.iter().find(|(name, _)| hit(name)).map(|(_, reason)| reason.as_str())
    }
}

/// A test that takes longer has a row of its own on the result page.
const WORTH_A_ROW: Duration = Duration::from_secs(20);

/// A test that takes longer is always worth a line.
const SLOW: Duration = Duration::from_secs(2);

/// Why something failed, in lines.
pub type Verdict = Result<(), String>;

impl Report {
    fn new(filter: Option<String>, known: Known) -> Self {
        let live = stdout().is_terminal();
        let (failed, started) = (Vec::new(), Instant::now());
        Self { passed: 0, failed, known, expected: 0, filter, stage: "", started, live, page: Vec::new() }
    }

    fn stage(&mut self, name: &'static str) {
        self.end_stage();
        (self.stage, self.started) = (name, Instant::now());
    }

    fn end_stage(&mut self) {
        if !self.stage.is_empty() {
            self.progress("");
            println!("-- {} done in {}", self.stage, time(self.started.elapsed()));
            self.page.push([format!("stage `{}`", self.stage), String::new(), time(self.started.elapsed())]);
        }
        self.stage = "";
    }

    /// Whether this is to be run at all.
    pub fn wants(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| self.full(name).contains(filter.as_str()))
    }

    /// Whether a test below this name is to be run: the filter names it or is a part of its name.
    pub fn wants_part(&self, name: &str) -> bool {
        let full = self.full(name);
        self.filter.as_ref().is_none_or(|filter| full.contains(filter.as_str()) || filter.starts_with(&full))
    }

    /// Whether only some tests are wanted, by name.
    pub const fn is_filtered(&self) -> bool {
        self.filter.is_some()
    }

    /// The same for a test of another stage.
    pub fn wants_in(&self, stage: &str, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| format!("{stage}/{name}").contains(filter.as_str()))
    }

    /// Whether the filter names another stage, so that this one has nothing to do.
    pub fn skips(&self, stages: &[&str]) -> bool {
        let named = self.filter.as_deref().and_then(|filter| STAGES.iter().find(|stage| filter.starts_with(**stage)));
        named.is_some_and(|named| !stages.contains(named))
    }

    fn full(&self, name: &str) -> String {
        format!("{}/{name}", self.stage)
    }

    /// Shows what is being done, where a person looks on.
    pub fn progress(&self, what: &str) {
        if self.live {
            print!("\r\x1b[K{what}");
            // Nothing depends on it.
            let _ = stdout().flush();
        }
    }

    /// Runs one test, if it is wanted.
    pub fn run(&mut self, name: &str, test: impl FnOnce() -> Verdict) {
        if !self.wants(name) {
            return;
        }
        self.progress(&format!("{} ...", self.full(name)));
        let start = Instant::now();
        let verdict = test();
        self.record(name, verdict, start.elapsed());
    }

    /// Notes a verdict.
    pub fn record(&mut self, name: &str, verdict: Verdict, took: Duration) {
        let full = self.full(name);
        self.progress("");
        match verdict {
            Ok(()) => {
                self.passed += 1;
                if took >= WORTH_A_ROW {
                    self.page.push([format!("`{full}`"), "passed".into(), time(took)]);
                }
                if self.known.reason(&full).is_some() {
                    println!("note  {full} passes: take it off tests/xfail.txt");
                }
                // Hundreds of quick ones need no line each where nobody asked for them.
                if !full.contains("/abi/") && !full.starts_with("abi-") || self.filter.is_some() || took > SLOW {
                    println!("ok    {full} ({})", time(took));
                }
            }
            Err(why) => {
                if let Some(reason) = self.known.reason(&full) {
                    println!("known {full}: {reason}");
                    self.expected += 1;
                    return;
                }
                println!("FAIL  {full} ({})", time(took));
                for line in why.lines() {
                    println!("      {line}");
                }
                self.page.push([format!("`{full}`"), "**failed**".into(), time(took)]);
                self.failed.push(full);
            }
        }
    }

    /// What a test says about itself, for the result page.
    pub fn note(&mut self, name: &str, said: &str) {
        println!("note  {}: {said}", self.full(name));
        self.page.push([format!("`{}`", self.full(name)), said.to_owned(), String::new()]);
    }

    /// The result page: what ran for long, and what it came to.
    fn page(&self, took: Duration) -> String {
        let mut page =
            String::from("# The long run\n\n`./cob test --long` wrote this page as `target/long-run.md`.\n\n");
        page += &format!(
            "{} passed, {} failed, {} known failures (`tests/xfail.txt`), in {}.\n\n",
            self.passed,
            self.failed.len(),
            self.expected,
            time(took)
        );
        page += "| what | result | time |\n|---|---|---|\n";
        for [what, result, time] in &self.page {
            page += &format!("| {what} | {result} | {time} |\n");
        }
        page
    }

    /// Counts tests that another program ran.
    pub fn count(&mut self, passed: usize) {
        self.passed += passed;
    }
}

fn time(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Runs the stages.
pub fn test(root: &Root, depth: Depth, filter: Option<String>) -> Result<ExitCode> {
    let started = Instant::now();
    let list = root.path().join("tests/xfail.txt");
    let list = std::fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let mut report = Report::new(filter, Known::parse(&list));
    report.stage("static");
    stages::statics(root, &mut report);
    report.stage("unit");
    stages::unit(root, &mut report, depth);
    report.stage("sim");
    stages::simulators(root, &mut report, depth);
    breaks::all(root, &mut report, depth);
    report.stage("abi-linux");
    let programs = abi::on_linux(root, &mut report);
    report.stage("system");
    system::all(root, &mut report, depth, &programs);
    command::all(root, &mut report);
    terminal::all(root, &mut report);
    console::all(root, &mut report);
    debugger::all(root, &mut report);
    jobs::all(root, &mut report);
    if depth > Depth::Quick {
        apart::all(root, &mut report);
        many::all(root, &mut report);
    }
    report.stage("bench");
    bench::all(root, &mut report, depth);
    report.end_stage();
    println!("all stages took {}", time(started.elapsed()));
    if depth == Depth::Long && !report.is_filtered() {
        let page = root.target().join("long-run.md");
        std::fs::write(&page, report.page(started.elapsed()))
            .with_context(|| format!("cannot write {}", page.display()))?;
    }
    for name in &report.failed {
        println!("failed: {name}");
    }
    if report.expected > 0 {
        println!("{} known failures, listed with their reasons in tests/xfail.txt", report.expected);
    }
    println!("{} passed, {} failed", report.passed, report.failed.len());
    // Nothing that ran is no success.
    let good = report.failed.is_empty() && report.passed > 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::Known;

    #[test]
    fn known_failures_are_found_by_name_and_placement() {
        let known = Known::parse("# why\n\nsystem/a@remote no such thing\nsystem/b@* nowhere\n");
        assert_eq!(known.reason("system/a@remote"), Some("no such thing"));
        assert_eq!(known.reason("system/a@local"), None);
        assert_eq!(known.reason("system/b@crossed"), Some("nowhere"));
        assert_eq!(known.reason("system/bb@crossed"), None);
    }
}
