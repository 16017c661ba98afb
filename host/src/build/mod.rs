//! From sources to what a machine boots: the kernel image and the archive.

mod cargo;
pub mod cpio;
pub mod debian;
mod fresh;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub use cargo::{Program, Toolchain, host_cargo};

use crate::root::Root;

/// Where the image begins in virtual memory; symbols are relative to it (C5 in `ARCHITECTURE.md`).
const IMAGE: u64 = 0xffff_ffff_8000_0000;

/// What a machine boots.
pub struct Built {
    /// The kernel with its symbols and debug information.
    pub kernel: PathBuf,
    /// The base tree of every machine: records of a cpio without its trailer.
    pub archive: PathBuf,
}

/// Builds what changed. `checked`: the kernel with its assertions on.
pub fn everything(root: &Root, checked: bool) -> Result<Built> {
    let profile = if checked { "checked" } else { "release" };
    let out = root.target().join("image").join(profile);
    fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    let built = Built { kernel: out.join("cob-x86_64"), archive: out.join("archive.cpio") };
    let inputs = fresh::fingerprint(root)?;
    let stamp = out.join("inputs");
    if fs::read_to_string(&stamp).is_ok_and(|old| old == inputs) && built.kernel.exists() && built.archive.exists() {
        return Ok(built);
    }
    let kernel = cargo::kernel(root, profile)?;
    let programs = cargo::programs(root)?;
    let busybox = debian::busybox(root)?;
    let elf = fs::read(&kernel).with_context(|| format!("reading {}", kernel.display()))?;
    let symbols = symtab::from_elf(&elf, IMAGE, |name| format!("{:#}", rustc_demangle::demangle(name)));
    let stripped = cargo::strip(&kernel, &out)?;
    let archive = tree::archive(root, &tree::Parts { programs, busybox, image: stripped, symbols })?;
    write_if_changed(&built.kernel, &elf)?;
    write_if_changed(&built.archive, &archive)?;
    fs::write(&stamp, inputs).with_context(|| format!("writing {}", stamp.display()))?;
    Ok(built)
}

/// What benchmarks run and compare with.
pub struct Bench {
    /// The program, static: the same on Cob and on Linux.
    pub program: PathBuf,
    /// Debian's Linux.
    pub linux: PathBuf,
}

/// A program of `bench/` and Debian's Linux.
pub fn bench(root: &Root, name: &str) -> Result<Bench> {
    let programs = cargo::programs(root)?;
    let program = programs.into_iter().find(|program| program.folder.starts_with("bench") && program.name == name);
    let program = program.with_context(|| format!("no benchmark {name}"))?.path;
    Ok(Bench { program, linux: debian::linux(root)? })
}

/// The ABI test programs, which run on this host as well as in the guest.
pub fn guest_tests(root: &Root) -> Result<Vec<Program>> {
    let mut programs = cargo::programs(root)?;
    programs.retain(|program| program.folder.starts_with("tests"));
    Ok(programs)
}

/// Leaves a file that has these bytes alone, so that its time tells when it changed.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    // A whole file or none, also if this is interrupted.
    let new = path.with_extension("new");
    fs::write(&new, bytes).with_context(|| format!("writing {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("writing {}", path.display()))
}
