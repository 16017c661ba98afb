//! What may lie in the tree, and what no file may say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Finding;
use crate::root::Root;

/// What may lie in the top folder.
const TOP: [&str; 29] = [
    ".cargo",
    ".ci",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "abi",
    "bench",
    "boot",
    "clippy.toml",
    "cob",
    "docs",
    "drivers",
    "hal",
    "host",
    "kernel",
    "lib",
    "link",
    "linux",
    "machines",
    "rustfmt.toml",
    "ssi",
    "tests",
    "user",
];

/// A file of more lines is two files.
const MOST_LINES: usize = 800;

/// The files that git knows or would add, relative to the top.
pub fn files(root: &Root) -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root.path())
        .output()
        .context("starting git")?;
    ensure!(output.status.success(), "git ls-files failed");
    let names = String::from_utf8(output.stdout)?;
    let mut files: Vec<PathBuf> = names.split('\0').filter(|name| !name.is_empty()).map(PathBuf::from).collect();
    files.retain(|file| root.join(file).is_file());
    files.dedup();
    Ok(files)
}

/// Checks names, sizes and words.
pub fn check(root: &Root, files: &[PathBuf]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let places = places(root);
    for file in files {
        let top = file.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
        let top = top.unwrap_or_default();
        if !TOP.contains(&top.as_str()) {
            let what = format!("{top} does not belong in the top folder");
            findings.push(Finding { file: file.clone(), line: 0, what });
        }
        let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
        let lines = text.lines().count();
        if file.extension().is_some_and(|extension| extension == "rs") && lines > MOST_LINES {
            let what = format!("{lines} lines; {MOST_LINES} are the most: split it");
            findings.push(Finding { file: file.clone(), line: 0, what });
        }
        for (number, line) in text.lines().enumerate() {
            if let Some(place) = places.iter().find(|place| line.contains(place.as_str())) {
                let what = format!("names this host ({place:?})");
                findings.push(Finding { file: file.clone(), line: number + 1, what });
            }
        }
    }
    Ok(findings)
}

/// Words by which this host could be known: they are nobody else's business.
fn places(root: &Root) -> Vec<String> {
    let mut places = vec![format!("{}/", root.path().display())];
    // Folders that every Linux has stand in texts by right.
    let common = ["/", "/tmp", "/root", "/home", "/usr", "/var", "/var/tmp", "/mnt", "/srv", "/opt", "/dev/shm"];
    if let Some(parent) = root.path().parent().filter(|parent| !common.iter().any(|c| *parent == Path::new(c))) {
        places.push(format!("{}/", parent.display()));
    }
    if let Some(home) = std::env::home_dir().filter(|home| home.starts_with("/home")) {
        places.push(home.display().to_string());
    }
    let name = fs::read_to_string("/etc/hostname").unwrap_or_default().trim().to_owned();
    // Short or common names stand in texts by chance.
    if name.len() >= 6 && name.contains(|c: char| c.is_ascii_digit() || c == '-') {
        places.push(name);
    }
    places
}
