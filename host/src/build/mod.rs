//! From sources to what a machine boots: the kernel image and the archive.

mod cargo;
pub mod cpio;
pub mod debian;
mod elf;
mod fresh;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plan::Isa;

pub use cargo::{Program, Toolchain, host_cargo};

use crate::root::Root;

/// Where the image begins in virtual memory; symbols are relative to it (C5 in `ARCHITECTURE.md`).
const IMAGE: u64 = 0xffff_ffff_8000_0000;

/// What a machine boots.
pub struct Built {
    /// The kernel with its symbols and debug information.
    pub kernel: PathBuf,
    /// What the loader of the ISA's emulator takes.
    pub image: PathBuf,
    /// The base tree of every machine: records of a cpio without its trailer.
    pub archive: PathBuf,
}

/// Builds what changed. `checked`: the kernel with its assertions on.
pub fn everything(root: &Root, isa: Isa, checked: bool) -> Result<Built> {
    let profile = if checked { "checked" } else { "release" };
    let folder = if isa == Isa::X86_64 { profile.to_owned() } else { format!("{profile}-{}", isa.name()) };
    let out = root.target().join("image").join(folder);
    fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    let kernel = out.join(format!("cob-{}", isa.name()));
    // The loader of aarch64 wants Linux' flat image; the others take the ELF file.
    let image = if isa == Isa::Aarch64 { kernel.with_extension("flat") } else { kernel.clone() };
    let built = Built { kernel, image, archive: out.join("archive.cpio") };
    let inputs = fresh::fingerprint(root)?;
    let stamp = out.join("inputs");
    if fs::read_to_string(&stamp).is_ok_and(|old| old == inputs)
        && [&built.kernel, &built.image, &built.archive].iter().all(|file| file.exists())
    {
        return Ok(built);
    }
    let kernel = cargo::kernel(root, isa, profile)?;
    let programs = cargo::programs(root, isa)?;
    let busybox = debian::busybox(root, isa)?;
    let elf = fs::read(&kernel).with_context(|| format!("reading {}", kernel.display()))?;
    let symbols = symtab::from_elf(&elf, IMAGE, |name| format!("{:#}", rustc_demangle::demangle(name)));
    let stripped = if isa == Isa::X86_64 { cargo::strip(&kernel, &out)? } else { elf::loadable(&elf)? };
    // Links for busybox are named by the one that runs here.
    let applets = tree::applets(&debian::busybox(root, Isa::X86_64)?)?;
    let archive = tree::archive(root, &tree::Parts { isa, programs, busybox, applets, image: stripped, symbols })?;
    write_if_changed(&built.kernel, &elf)?;
    if built.image != built.kernel {
        write_if_changed(&built.image, &elf::flat(&elf)?)?;
    }
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
    let programs = cargo::programs(root, Isa::X86_64)?;
    let program = programs.into_iter().find(|program| program.folder.starts_with("bench") && program.name == name);
    let program = program.with_context(|| format!("no benchmark {name}"))?.path;
    Ok(Bench { program, linux: debian::linux(root)? })
}

/// The ABI test programs, which run on this host as well as in the guest.
pub fn guest_tests(root: &Root) -> Result<Vec<Program>> {
    let mut programs = cargo::programs(root, Isa::X86_64)?;
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
