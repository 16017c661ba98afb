//! A suite that cannot fail proves nothing: `tests/breaks/*.toml` breaks the protocols on purpose, and some seed must notice each time.
//!
//! All breaks are built into one copy of the tree, each behind a question that a number in the environment answers; so one build serves all. A break is a
//! piece of text that is there once, and what takes its place, in which `BROKEN` says whether this break is in force. One whose text is not there
//! any more is a failure: it has to follow the code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{Depth, Report, Verdict, stages};
use crate::root::Root;

/// What breaks are made of.
const BREAKS: &str = "tests/breaks";
/// The crate below all that is broken: it is asked which break is in force.
const BASE: &str = "abi/linux/src/lib.rs";
/// Most use it through this one.
const KERNEL: &str = "kernel/base/src/lib.rs";
/// Which break is in force, by its number from 1.
const CHOSEN: &str = "COB_BREAK";
/// Put behind the text of [`BASE`].
const QUESTION: &str = r#"
extern crate std;

/// Whether this break is in force.
pub fn is_broken(number: u32) -> bool {
    static CHOSEN: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let chosen = || std::env::var("COB_BREAK").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    *CHOSEN.get_or_init(chosen) == number
}
"#;

/// One file of breaks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "break")]
    breaks: Vec<Break>,
}

/// One break.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Break {
    name: String,
    /// What goes wrong.
    #[expect(dead_code, reason = "said for the reader of the file")]
    about: String,
    change: Vec<Change>,
    /// The rule that notices it first (`cob-sim --rules`), or `sessions`.
    caught: String,
    /// No other rule notices it; a long run makes sure of that.
    #[serde(default)]
    only: bool,
    /// Rules that notice it too, often earlier; the first is shown to notice it without them.
    #[serde(default)]
    without: Vec<String>,
    /// It takes thousands of seeds to notice it: only in a long run.
    #[serde(default)]
    rare: bool,
}

/// One text of a break and what takes its place.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Change {
    file: PathBuf,
    old: String,
    new: String,
}

/// All breaks, in the order of their numbers.
fn all_breaks(root: &Root) -> Result<Vec<Break>> {
    let mut files: Vec<PathBuf> = fs::read_dir(root.join(BREAKS))
        .with_context(|| format!("cannot read {BREAKS}"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    let mut all = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: File = toml::from_str(&text).with_context(|| format!("{} is no list of breaks", path.display()))?;
        all.extend(file.breaks);
    }
    Ok(all)
}

/// Writes a file if it says something else: what did not change is not built again.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// What a file of the copy says, with all breaks of it.
fn broken(text: &str, path: &Path, breaks: &[Break]) -> Result<String> {
    let mut text = text.to_owned();
    let changes = (1..).zip(breaks).flat_map(|(number, it): (u32, _)| it.change.iter().map(move |c| (number, it, c)));
    for (number, it, change) in changes.filter(|(_, _, change)| change.file == path) {
        let (old, name) = (change.old.trim_end(), &it.name);
        let there = text.matches(old).count();
        ensure!(
            there == 1,
            "break `{name}`: its text is {there} times in {} (once is wanted): let it follow the code",
            path.display()
        );
        ensure!(change.new.contains("BROKEN"), "break `{name}`: what it puts there does not ask BROKEN");
        let through = if path.starts_with("link") { "linux_abi" } else { "base" };
        let new = change.new.trim_end().replace("BROKEN", &format!("::{through}::is_broken({number})"));
        text = text.replacen(old, &new, 1);
    }
    if path == Path::new(BASE) {
        text += QUESTION;
    } else if path == Path::new(KERNEL) {
        text += "\npub use linux_abi::is_broken;\n";
    }
    Ok(text)
}

/// Takes out of a folder of the copy what the tree has no more: a module that moved would be there twice.
fn weed(here: &Path, there: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(there) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() == "target" || here.join(entry.file_name()).exists() {
            continue;
        }
        let path = entry.path();
        let gone = if entry.file_type()?.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        gone.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Brings a folder of the copy to what the tree has.
fn copy(root: &Root, folder: &Path, to: &Path, breaks: &[Break]) -> Result<()> {
    let here = root.join(folder);
    weed(&here, &to.join(folder))?;
    for entry in fs::read_dir(&here).with_context(|| format!("cannot read {}", here.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') || name == "target" {
            continue;
        }
        let path = folder.join(&name);
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(root, &path, to, breaks)?;
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).with_context(|| format!("cannot read {}", path.display()))?;
            let asked = [BASE, KERNEL].map(Path::new).contains(&path.as_path());
            let changed = asked || breaks.iter().flat_map(|it| &it.change).any(|c| c.file == path);
            let bytes = match String::from_utf8(bytes) {
                Ok(text) if changed => broken(&text, &path, breaks)?.into_bytes(),
                Ok(text) => text.into_bytes(),
                Err(other) => other.into_bytes(),
            };
            put(&to.join(&path), &bytes)?;
        }
    }
    Ok(())
}

/// Builds the simulator with all breaks in it.
fn build(root: &Root, breaks: &[Break]) -> Result<PathBuf> {
    for (it, change) in breaks.iter().flat_map(|it| it.change.iter().map(move |change| (it, change))) {
        ensure!(root.join(&change.file).is_file(), "break `{}`: there is no {}", it.name, change.file.display());
    }
    let home = root.target().join("breaks");
    let tree = home.join("tree");
    copy(root, Path::new(""), &tree, breaks)?;
    let mut cargo = stages::cargo(root, &["build", "-q", "--locked", "--profile", "sim", "-p", "cob-sim"]);
    // A break may leave something unused.
    cargo.current_dir(&tree).arg("--target-dir").arg(home.join("build")).env("RUSTFLAGS", "--cap-lints allow");
    stages::run(&mut cargo).map_err(|why| anyhow::anyhow!("the tree with breaks: {why}"))?;
    Ok(home.join("build/sim/cob-sim"))
}

/// What a simulator that stops at the first failing seed said.
fn simulate(simulator: &Path, number: u32, options: &[&str], seeds: u32) -> Result<Option<String>> {
    let output = Command::new("setpriv")
        .args(["--pdeathsig", "KILL"])
        .arg(simulator)
        .args(["--until-failure", "--seeds", &seeds.to_string()])
        .args(options)
        .env(CHOSEN, number.to_string())
        .output()
        .context("starting the simulator")?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match said.lines().find(|line| line.starts_with("seed ")) {
        Some(line) => Ok(Some(line.to_owned())),
        None => bail!("the simulator ended with {}: {said}", output.status),
    }
}

/// Whether a break is noticed, and by whom.
fn verdict(simulator: &Path, number: u32, it: &Break, depth: Depth) -> Result<Verdict> {
    let sessions = it.caught == "sessions";
    let without = it.without.join(",");
    let mut options = if sessions { vec!["--sessions"] } else { Vec::new() };
    if !without.is_empty() {
        options.extend(["--without", &without]);
    }
    let seeds = if it.rare { 30_000 } else { 1000 } * if sessions { 10 } else { 1 };
    let Some(line) = simulate(simulator, number, &options, seeds)? else {
        return Ok(Err(format!("nobody noticed it in {seeds} seeds")));
    };
    if !sessions && !line.contains(&format!("[{}]", it.caught)) {
        return Ok(Err(format!("`{}` was to notice it first, but {line}", it.caught)));
    }
    if it.only && depth == Depth::Long {
        let other = simulate(simulator, number, &["--without", &it.caught], seeds)?;
        if let Some(line) = other {
            return Ok(Err(format!("only `{}` was to notice it, but {line}", it.caught)));
        }
    }
    Ok(Ok(()))
}

/// All breaks, as many side by side as there are CPUs.
pub fn all(root: &Root, report: &mut Report, depth: Depth) {
    let breaks = match all_breaks(root) {
        Ok(breaks) => breaks,
        Err(error) => return report.record("breaks", Err(format!("{error:#}")), Duration::ZERO),
    };
    let wants = |it: &Break| report.wants(&format!("breaks/{}", it.name)) && (depth == Depth::Long || !it.rare);
    let wanted: Vec<(u32, &Break)> = (1..).zip(&breaks).filter(|(_, it)| wants(it)).collect();
    if wanted.is_empty() {
        return;
    }
    let simulator = match build(root, &breaks) {
        Ok(simulator) => simulator,
        Err(error) => return report.record("breaks", Err(format!("{error:#}")), Duration::ZERO),
    };
    // The copy is good as long as nothing is broken in it.
    report.run("breaks/none", || match simulate(&simulator, 0, &[], 50) {
        Ok(None) => Ok(()),
        Ok(Some(line)) => Err(line),
        Err(error) => Err(format!("{error:#}")),
    });
    let next = AtomicUsize::new(0);
    let (done, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let (done, next, wanted, simulator) = (done.clone(), &next, &wanted, &simulator);
            scope.spawn(move || {
                while let Some((number, it)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let verdict = verdict(simulator, *number, it, depth).unwrap_or_else(|e| Err(format!("{e:#}")));
                    // Who listens goes on until the last one is done.
                    let _ = done.send((it.name.clone(), verdict, start.elapsed()));
                }
            });
        }
        drop(done);
        for (name, verdict, took) in results {
            report.record(&format!("breaks/{name}"), verdict, took);
        }
    });
    let mut by: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, it) in &wanted {
        *by.entry(&it.caught).or_default() += 1;
    }
    if !report.is_filtered() {
        report.note("breaks", &format!("{} breaks, noticed by {} rules", wanted.len(), by.len()));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Break, Change, broken};

    fn a_break(old: &str) -> Break {
        Break {
            name: "x".into(),
            about: String::new(),
            change: vec![Change { file: "a.rs".into(), old: old.into(), new: "if BROKEN || b {".into() }],
            caught: "quiet".into(),
            only: false,
            without: Vec::new(),
            rare: false,
        }
    }

    #[test]
    fn a_break_asks_whether_it_is_in_force() {
        let text = broken("if b {\n}\n", Path::new("a.rs"), &[a_break("if b {")]).unwrap();
        assert_eq!(text, "if ::base::is_broken(1) || b {\n}\n");
        let other = broken("if b {\n}\n", Path::new("b.rs"), &[a_break("if b {")]).unwrap();
        assert_eq!(other, "if b {\n}\n");
    }

    #[test]
    fn a_break_that_does_not_fit_is_told() {
        let error = broken("if c {\n}\n", Path::new("a.rs"), &[a_break("if b {")]).unwrap_err();
        assert!(format!("{error}").contains("0 times"), "{error}");
        assert!(broken("if b {} if b {}", Path::new("a.rs"), &[a_break("if b {")]).is_err());
    }
}
