//! The tree that every machine starts with, the same bytes for the same inputs.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use plan::Isa;

use super::cargo::Program;
use super::cpio::Archive;
use crate::root::Root;

/// Folders that are there even if nothing is in them.
const FOLDERS: [(&str, u32); 28] = [
    ("bin", 0o755),
    ("boot", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("lib", 0o755),
    ("lib64", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/lib", 0o755),
    ("usr/lib/cob", 0o755),
    ("usr/lib/cob/bench", 0o755),
    ("usr/lib/cob/tests", 0o755),
    ("usr/sbin", 0o755),
    ("usr/share", 0o755),
    ("var", 0o755),
    ("var/log", 0o755),
    ("var/run", 0o755),
    ("var/tmp", 0o1777),
];

/// What was built for the tree.
pub struct Parts {
    /// The ISA of the kernel and of all programs.
    pub isa: Isa,
    /// Programs of ours.
    pub programs: Vec<Program>,
    /// Debian's busybox.
    pub busybox: PathBuf,
    /// Where it wants its links.
    pub applets: Vec<String>,
    /// The kernel image without symbols: secondaries are started from it.
    pub image: Vec<u8>,
    /// Its symbol table, for backtraces.
    pub symbols: Option<Vec<u8>>,
}

/// Makes the records of the tree; what belongs to one machine comes behind them.
pub fn archive(root: &Root, parts: &Parts) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for (path, mode) in FOLDERS {
        archive.directory(path, mode)?;
    }
    archive.put_tree(&root.join("host/tree"))?;
    let image = format!("boot/cob-{}", parts.isa.name());
    archive.file(&image, 0o755, &parts.image)?;
    if let Some(symbols) = &parts.symbols {
        archive.file(&format!("{image}.sym"), 0o644, symbols)?;
    }
    let mut ours = BTreeMap::new();
    for program in &parts.programs {
        let place = match program.folder.components().next().map(|part| part.as_os_str()) {
            Some(top) if top == "bench" => "usr/lib/cob/bench",
            Some(top) if top == "tests" => "usr/lib/cob/tests",
            _ if program.name == "init" => "sbin",
            _ => "bin",
        };
        ours.insert(format!("{place}/{}", program.name), &program.path);
    }
    for (path, from) in &ours {
        archive.file(path, 0o755, &fs::read(from).with_context(|| format!("reading {}", from.display()))?)?;
    }
    archive.file("bin/busybox", 0o755, &fs::read(&parts.busybox)?)?;
    for applet in &parts.applets {
        if applet != "bin/busybox" && applet != "linuxrc" && !ours.contains_key(applet) {
            archive.link(applet, "/bin/busybox")?;
        }
    }
    Ok(archive.records())
}

/// Where busybox wants its links, by its own word.
pub fn applets(busybox: &PathBuf) -> Result<Vec<String>> {
    let output = Command::new(busybox).arg("--list-full").output().context("asking busybox for its applets")?;
    ensure!(output.status.success(), "busybox --list-full failed");
    let mut applets: Vec<String> = String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect();
    applets.sort();
    applets.dedup();
    Ok(applets)
}
