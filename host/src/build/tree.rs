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

/// What was built of one ISA for the tree.
pub struct Parts {
    /// The ISA of the kernel and of all programs.
    pub isa: Isa,
    /// Programs of ours.
    pub programs: Vec<Program>,
    /// Debian's busybox.
    pub busybox: PathBuf,
    /// The kernel image without symbols: secondaries are started from it.
    pub image: Vec<u8>,
    /// Its symbol table, for backtraces.
    pub symbols: Option<Vec<u8>>,
}

/// Makes the records of the tree; what belongs to one machine comes behind them. The programs of the first ISA have the plain names, those of each ISA
/// are found in `/usr/TRIPLET`. `applets`: where busybox wants its links.
pub fn archive(root: &Root, parts: &[Parts], applets: &[String]) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for (path, mode) in FOLDERS {
        archive.directory(path, mode)?;
    }
    archive.put_tree(&root.join("host/tree"))?;
    for (number, part) in parts.iter().enumerate() {
        let image = format!("boot/cob-{}", part.isa.name());
        archive.file(&image, 0o755, &part.image)?;
        if let Some(symbols) = &part.symbols {
            archive.file(&format!("{image}.sym"), 0o644, symbols)?;
        }
        let own = format!("usr/{}", part.isa.triplet());
        archive.directory(&own, 0o755)?;
        if number == 0 {
            programs(&mut archive, part, applets, "")?;
            archive.link(&format!("{own}/bin"), "/bin")?;
            archive.link(&format!("{own}/sbin"), "/sbin")?;
            archive.link(&format!("{own}/lib"), "/usr/lib")?;
        } else {
            for folder in ["bin", "sbin", "lib", "lib/cob", "lib/cob/bench", "lib/cob/tests"] {
                archive.directory(&format!("{own}/{folder}"), 0o755)?;
            }
            programs(&mut archive, part, applets, &format!("{own}/"))?;
        }
    }
    Ok(archive.records())
}

/// Puts the programs of an ISA below `top`, which is empty for the root or ends with a slash.
fn programs(archive: &mut Archive, part: &Parts, applets: &[String], top: &str) -> Result<()> {
    // The root has the folders of a Linux system; elsewhere one for programs is enough.
    let (usr, plain) = if top.is_empty() { ("usr/", true) } else { ("", false) };
    let mut ours = BTreeMap::new();
    for program in &part.programs {
        let place = match program.folder.components().next().map(|part| part.as_os_str()) {
            Some(folder) if folder == "bench" => format!("{top}{usr}lib/cob/bench"),
            Some(folder) if folder == "tests" => format!("{top}{usr}lib/cob/tests"),
            _ if program.name == "init" => format!("{top}sbin"),
            _ => format!("{top}bin"),
        };
        ours.insert(format!("{place}/{}", program.name), &program.path);
    }
    for (path, from) in &ours {
        archive.file(path, 0o755, &fs::read(from).with_context(|| format!("reading {}", from.display()))?)?;
    }
    let busybox = format!("{top}bin/busybox");
    archive.file(&busybox, 0o755, &fs::read(&part.busybox)?)?;
    for applet in applets {
        let name = applet.rsplit('/').next().unwrap_or(applet);
        let path = if plain { applet.clone() } else { format!("{top}bin/{name}") };
        if path != busybox && applet != "linuxrc" && !ours.contains_key(&path) {
            archive.link(&path, &format!("/{busybox}"))?;
        }
    }
    Ok(())
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
