//! `cob mutants`: changes the code of links and of the state machines in one place after another, and looks whether a test notices (`cargo mutants`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::root::Root;

/// The version whose words are read here.
const VERSION: &str = "27.1.0";

/// What is changed: a crate, which of its files, and the crates whose tests are to notice.
struct Target {
    package: &'static str,
    files: &'static [&'static str],
    tests: &'static [&'static str],
}

const TARGETS: [Target; 8] = [
    Target { package: "link", files: &["link/src/**"], tests: &["link"] },
    Target { package: "membership", files: &["ssi/membership/src/state/**"], tests: &["membership", "cob-sim"] },
    Target { package: "life", files: &["ssi/life/src/state.rs", "ssi/life/src/rows.rs"], tests: &["life"] },
    Target { package: "resources", files: &["ssi/resources/src/state.rs"], tests: &["resources", "cob-sim"] },
    Target { package: "names", files: &["ssi/names/src/state.rs"], tests: &["names", "cob-sim"] },
    Target { package: "files", files: &["ssi/files/src/state.rs"], tests: &["files", "cob-sim"] },
    Target {
        package: "memory",
        files: &["ssi/memory/src/home.rs", "ssi/memory/src/holder.rs", "ssi/memory/src/copies/[lb]*er.rs"],
        tests: &["memory", "cob-sim", "model"],
    },
    Target { package: "tasks", files: &["ssi/tasks/src/homes/**"], tests: &["tasks", "cob-sim"] },
];

/// Not looked at: how something is shown to who debugs, and windows over memory of the hardware, which only machines have.
const LEFT_OUT: [&str; 2] = ["Debug for", "link/src/window.rs"];

/// What became of the mutants of a crate.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    caught: usize,
    /// A test did not end any more.
    endless: usize,
    /// Not Rust any more.
    unviable: usize,
    missed: Vec<String>,
}

impl Count {
    fn noticed(&self) -> usize {
        self.caught + self.endless
    }

    fn judged(&self) -> usize {
        self.noticed() + self.missed.len()
    }
}

#[derive(Deserialize)]
struct Outcomes {
    outcomes: Vec<Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    scenario: serde_json::Value,
    summary: String,
}

/// Reads what `cargo mutants` wrote.
fn count(text: &str) -> Result<Count> {
    let outcomes: Outcomes = serde_json::from_str(text).context("outcomes.json")?;
    let mut count = Count::default();
    for outcome in outcomes.outcomes {
        match outcome.summary.as_str() {
            "CaughtMutant" => count.caught += 1,
            "Timeout" => count.endless += 1,
            "Unviable" => count.unviable += 1,
            "MissedMutant" => {
                let name = outcome.scenario.get("Mutant").and_then(|mutant| mutant.get("name")?.as_str());
                count.missed.push(name.context("a mutant without a name")?.to_owned());
            }
            _ => {}
        }
    }
    Ok(count)
}

/// The page: a table, and what was missed.
fn page(all: &BTreeMap<&str, Count>, how: &str) -> String {
    let mut page = format!(
        "# Mutants\n\nWritten by `./cob mutants{how}`: each mutant changes one place of the code (cargo-mutants {VERSION}), and some test must fail, or not end any more. \
         What does not compile is not judged, and not looked at is how something is shown to who debugs, and `link/src/window.rs`, whose memory only machines have.\n\n| crate | mutants | noticed | missed | noticed |\n|---|---|---|---|---|\n"
    );
    let (mut judged, mut noticed) = (0, 0);
    // Writing to a string cannot fail.
    let mut row = |name: &str, judged: usize, noticed: usize| {
        let part = 100.0 * noticed as f64 / judged.max(1) as f64;
        let _ = writeln!(page, "| {name} | {judged} | {noticed} | {} | {part:.1} % |", judged - noticed);
    };
    for (name, count) in all {
        row(name, count.judged(), count.noticed());
        judged += count.judged();
        noticed += count.noticed();
    }
    row("all", judged, noticed);
    page.push_str("\n## Missed\n\n");
    for name in all.values().flat_map(|count| &count.missed) {
        let _ = writeln!(page, "* `{name}`");
    }
    page
}

/// Tries the mutants of some crates (of all that are looked at, if none is named), or only of the part `K/N` of each; writes the page.
pub fn mutants(root: &Root, only: &[String], shard: Option<&str>, to: &Path) -> Result<ExitCode> {
    if let Some(strange) = only.iter().find(|name| TARGETS.iter().all(|target| target.package != **name)) {
        let known: Vec<&str> = TARGETS.iter().map(|target| target.package).collect();
        bail!("mutants of {strange} are not looked at, but of {}", known.join(", "));
    }
    tool()?;
    let mut all = BTreeMap::new();
    for target in TARGETS.iter().filter(|target| only.is_empty() || only.iter().any(|name| name == target.package)) {
        all.insert(target.package, run(root, target, shard)?);
        let how = only.iter().fold(String::new(), |how, name| how + " " + name);
        let how = shard.map_or(how.clone(), |shard| format!("{how} --shard {shard}"));
        // What there is stays if the next one is cut off.
        fs::write(to, page(&all, &how)).with_context(|| to.display().to_string())?;
    }
    let (judged, noticed) = all.values().fold((0, 0), |(j, n), count| (j + count.judged(), n + count.noticed()));
    println!("{noticed} of {judged} mutants were noticed: {}", to.display());
    Ok(if noticed * 100 >= judged * 95 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sees to it that the tool is there.
fn tool() -> Result<()> {
    let there = Command::new("cargo").args(["mutants", "--version"]).output();
    if there.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(VERSION)) {
        return Ok(());
    }
    eprintln!("cob: building cargo-mutants {VERSION}");
    let built = Command::new("cargo").args(["install", "--locked", "cargo-mutants", "--version", VERSION]).status();
    ensure!(built.context("cargo")?.success(), "cargo-mutants cannot be built; its messages are above");
    Ok(())
}

fn run(root: &Root, target: &Target, shard: Option<&str>) -> Result<Count> {
    let out: PathBuf = root.target().join("mutants").join(target.package);
    fs::create_dir_all(&out)?;
    let mut command = Command::new("cargo");
    command.arg("mutants").args([
        "--package",
        target.package,
        "--profile",
        "sim",
        "--no-shuffle",
        "--sharding",
        "round-robin",
    ]);
    command.args(["--minimum-test-timeout", "60", "--output"]).arg(&out).current_dir(root.path());
    for file in target.files {
        command.args(["--file", file]);
    }
    for test in target.tests {
        command.args(["--test-package", test]);
    }
    for expression in LEFT_OUT {
        command.args(["--exclude-re", expression]);
    }
    if let Some(shard) = shard {
        command.args(["--shard", shard]);
    }
    // 2: some were missed; 3: some did not end. Those are counted here.
    let status = command.status().context("cargo mutants")?;
    ensure!(matches!(status.code(), Some(0 | 2 | 3)), "cargo mutants failed for {}: {status}", target.package);
    let outcomes = out.join("mutants.out/outcomes.json");
    count(&fs::read_to_string(&outcomes).with_context(|| outcomes.display().to_string())?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Count, count, page};

    #[test]
    fn outcomes_are_counted_and_written() {
        let text = r#"{ "outcomes": [
            { "scenario": "Baseline", "summary": "Success" },
            { "scenario": { "Mutant": { "name": "a.rs:1:1: replace f -> 0" } }, "summary": "CaughtMutant" },
            { "scenario": { "Mutant": { "name": "a.rs:2:1: replace g -> 1" } }, "summary": "MissedMutant" },
            { "scenario": { "Mutant": { "name": "a.rs:3:1: replace h -> 2" } }, "summary": "Timeout" },
            { "scenario": { "Mutant": { "name": "a.rs:4:1: replace i -> 3" } }, "summary": "Unviable" }
        ], "total_mutants": 4 }"#;
        let counted = count(text).unwrap();
        let missed = vec!["a.rs:2:1: replace g -> 1".to_owned()];
        assert_eq!(counted, Count { caught: 1, endless: 1, unviable: 1, missed });
        let page = page(&BTreeMap::from([("link", counted)]), " link");
        for part in ["`./cob mutants link`", "| link | 3 | 2 | 1 | 66.7 % |", "| all | 3 | 2 | 1 |", "* `a.rs:2:1:"] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert!(count("{}").is_err());
    }
}
