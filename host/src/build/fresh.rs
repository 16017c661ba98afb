//! Whether a build has anything to do, without asking cargo.

use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{env, fs};

use anyhow::{Context, Result};

use crate::root::Root;

/// Names in the top folder that no build reads.
const NOT_INPUT: [&str; 7] = ["target", "out", ".git", "docs", "tests", ".ci", "machines"];

/// A text that changes when a source file, a tool or this command does.
pub fn fingerprint(root: &Root) -> Result<String> {
    let mut out = String::new();
    for program in [Path::new("/usr/bin/rustc"), &env::current_exe().context("this program")?] {
        line(&mut out, program)?;
    }
    let mut top: Vec<_> = fs::read_dir(root.path())?.collect::<Result<_, _>>()?;
    top.sort_by_key(fs::DirEntry::file_name);
    for entry in top {
        if !NOT_INPUT.iter().any(|name| entry.file_name() == *name) {
            walk(&mut out, &entry.path())?;
        }
    }
    Ok(out)
}

fn walk(out: &mut String, path: &Path) -> Result<()> {
    if !path.is_dir() || path.is_symlink() {
        return line(out, path);
    }
    let mut entries: Vec<_> = fs::read_dir(path)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    entries.iter().try_for_each(|entry| walk(out, &entry.path()))
}

fn line(out: &mut String, path: &Path) -> Result<()> {
    if let Ok(meta) = fs::symlink_metadata(path) {
        let time = (meta.mtime(), meta.mtime_nsec());
        writeln!(out, "{} {} {}.{:09} {:o}", path.display(), meta.size(), time.0, time.1, meta.mode())?;
    }
    Ok(())
}
