//! From sources to what a machine boots: the kernel image and the archive.

mod cargo;
pub mod cpio;
pub mod debian;
mod elf;
mod fresh;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use plan::Isa;

pub use cargo::{Program, Toolchain, host_cargo};

use crate::root::Root;

/// Where the image begins in virtual memory; symbols are relative to it (C5 in `ARCHITECTURE.md`).
const IMAGE: u64 = 0xffff_ffff_8000_0000;

/// What a machine boots.
pub struct Built {
    /// The kernel of each ISA with its symbols and debug information.
    pub kernels: BTreeMap<Isa, PathBuf>,
    /// What the loader of each ISA's emulator takes.
    pub images: BTreeMap<Isa, PathBuf>,
    /// What boards behind the first wait with, per ISA that has such a stub.
    pub stubs: BTreeMap<Isa, PathBuf>,
    /// The base tree of every machine: records of a cpio without its trailer.
    pub archive: PathBuf,
}

/// Builds what changed, for machines whose boards are of these ISAs, the first board's first. `checked`: kernels with their assertions on.
pub fn everything(root: &Root, isas: &[Isa], checked: bool) -> Result<Built> {
    ensure!(!isas.is_empty(), "a machine without boards");
    let profile = if checked { "checked" } else { "release" };
    let names: Vec<&str> = isas.iter().map(|isa| isa.name()).collect();
    let folder = if isas == [Isa::X86_64] { profile.to_owned() } else { format!("{profile}-{}", names.join("+")) };
    let out = root.target().join("image").join(folder);
    fs::create_dir_all(&out).with_context(|| format!("creating {}", out.display()))?;
    let named = |isa: &Isa| out.join(format!("cob-{}", isa.name()));
    let kernels: BTreeMap<_, _> = isas.iter().map(|isa| (*isa, named(isa))).collect();
    // The loader of aarch64 wants Linux' flat image; the others take the ELF file.
    let loaded = |isa: &Isa| if *isa == Isa::Aarch64 { named(isa).with_extension("flat") } else { named(isa) };
    let images: BTreeMap<_, _> = isas.iter().map(|isa| (*isa, loaded(isa))).collect();
    // Also of the first board's ISA: another board may have it too.
    let waiting = isas.iter().filter(|isa| **isa != Isa::X86_64);
    let stubs = waiting.map(|isa| (*isa, out.join(format!("stub-{}", isa.name())))).collect();
    let built = Built { kernels, images, stubs, archive: out.join("archive.cpio") };
    let inputs = fresh::fingerprint(root)?;
    let stamp = out.join("inputs");
    if fs::read_to_string(&stamp).is_ok_and(|old| old == inputs)
        && [&built.archive]
            .into_iter()
            .chain(built.kernels.values())
            .chain(built.images.values())
            .chain(built.stubs.values())
            .all(|file| file.exists())
    {
        return Ok(built);
    }
    // Links for busybox are named by the one that runs here.
    let applets = tree::applets(&debian::busybox(root, Isa::X86_64)?)?;
    let mut parts = Vec::new();
    for of in isas {
        let kernel = cargo::kernel(root, *of, profile)?;
        let programs = cargo::programs(root, *of)?;
        let busybox = debian::busybox(root, *of)?;
        let elf = fs::read(&kernel).with_context(|| format!("reading {}", kernel.display()))?;
        let symbols = symtab::from_elf(&elf, IMAGE, |name| format!("{:#}", rustc_demangle::demangle(name)));
        let image = if *of == Isa::X86_64 { cargo::strip(&kernel, &out)? } else { elf::loadable(&elf)? };
        let place = named(of);
        write_if_changed(&place, &elf)?;
        if let Some(flat) = built.images.get(of).filter(|image| **image != place) {
            write_if_changed(flat, &elf::flat(&elf)?)?;
        }
        if let Some(path) = built.stubs.get(of) {
            let stub = cargo::stub(root, *of)?;
            let stub = fs::read(&stub).with_context(|| format!("reading {}", stub.display()))?;
            write_if_changed(path, &if *of == Isa::Aarch64 { elf::flat(&stub)? } else { elf::loadable(&stub)? })?;
        }
        parts.push(tree::Parts { isa: *of, programs, busybox, image, symbols });
    }
    write_if_changed(&built.archive, &tree::archive(root, &parts, &applets)?)?;
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

/// A program of `bench/` and Debian's Linux, for an ISA.
pub fn bench(root: &Root, isa: Isa, name: &str) -> Result<Bench> {
    let programs = cargo::programs(root, isa)?;
    let program = programs.into_iter().find(|program| program.folder.starts_with("bench") && program.name == name);
    let program = program.with_context(|| format!("no benchmark {name}"))?.path;
    Ok(Bench { program, linux: debian::linux(root, isa)? })
}

/// The ABI test programs, which run on this host as well as in the guest.
pub fn guest_tests(root: &Root) -> Result<Vec<Program>> {
    let mut programs = cargo::programs(root, Isa::X86_64)?;
    programs.retain(|program| program.folder.starts_with("tests/abi"));
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
