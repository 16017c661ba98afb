//! Cargo for the kernel's target, for programs of the guest, and for the host.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use plan::Isa;
use serde_json::Value;

use crate::root::Root;

/// The bare-metal target of kernels. None of them uses vector registers: those hold a program's values while the kernel runs.
pub const fn kernel_target(isa: Isa) -> &'static str {
    match isa {
        Isa::X86_64 => "x86_64-unknown-none",
        Isa::Aarch64 => "aarch64-unknown-none-softfloat",
        Isa::Riscv64 => "riscv64gc-unknown-none-elf",
    }
}

/// The target of programs for the guest.
const fn program_target(isa: Isa) -> &'static str {
    match isa {
        Isa::X86_64 => "x86_64-unknown-linux-gnu",
        Isa::Aarch64 => "aarch64-unknown-linux-gnu",
        Isa::Riscv64 => "riscv64gc-unknown-linux-gnu",
    }
}

/// Who links programs for the guest.
const fn linker(isa: Isa) -> &'static str {
    match isa {
        Isa::X86_64 => "cc",
        Isa::Aarch64 => "aarch64-linux-gnu-gcc",
        Isa::Riscv64 => "riscv64-linux-gnu-gcc",
    }
}

/// Who builds for the bare-metal target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// Debian's Rust with its sources: the core libraries are built too.
    Debian,
    /// rustup's Rust with a ready target.
    Rustup,
}

impl Toolchain {
    /// What this host has; Debian's first, for it has the same version everywhere.
    pub fn find(isa: Isa) -> Option<Self> {
        let debian = ["/usr/bin/cargo", "/usr/bin/rustc", "/usr/lib/rustlib/src/rust/library/core/Cargo.toml"];
        if debian.iter().all(|path| Path::new(path).exists()) {
            return Some(Self::Debian);
        }
        rustup_has(kernel_target(isa)).then_some(Self::Rustup)
    }

    /// `cargo COMMAND` for the bare-metal target, output below `target`.
    pub fn cargo(self, root: &Root, isa: Isa, command: &str, target: &Path) -> Command {
        let mut cargo = match self {
            Self::Debian => debian_cargo(
                command,
                &["-Zbuild-std=core,alloc,compiler_builtins", "-Zbuild-std-features=compiler-builtins-mem"],
            ),
            Self::Rustup => {
                let mut cargo = Command::new(host_cargo());
                cargo.arg(command);
                cargo
            }
        };
        // A cargo that runs this command leaves its own settings behind.
        cargo.env_remove("CARGO").env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTDOC");
        cargo
            .current_dir(root.path())
            .args(["--locked", "--target", kernel_target(isa)])
            .arg("--target-dir")
            .arg(target);
        cargo
    }
}

/// `cargo COMMAND` of Debian's Rust that builds libraries of Rust itself from their sources.
fn debian_cargo(command: &str, libraries: &[&str]) -> Command {
    let mut cargo = Command::new("/usr/bin/cargo");
    // Building these libraries is not a stable feature of cargo; the compiler itself is a stable one.
    cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1").env_remove("RUSTUP_TOOLCHAIN");
    cargo.arg(command).args(libraries);
    cargo
}

/// Whether the Rust on the path can build for a target; one of rustup's that is missing is added.
fn rustup_has(target: &str) -> bool {
    let there = || {
        let output = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output();
        let folder = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
        folder.is_some_and(|folder| Path::new(folder.trim()).is_dir())
    };
    if there() {
        return true;
    }
    let rustup = Command::new("rustup").args(["target", "add", target]).stdin(Stdio::null()).output();
    rustup.is_ok() && there()
}

/// The cargo for host programs: the first on the path.
pub fn host_cargo() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join("cargo")).find(|cargo| cargo.is_file()).unwrap_or("cargo".into())
}

/// The kernel image, with symbols.
pub fn kernel(root: &Root, isa: Isa, profile: &str) -> Result<PathBuf> {
    let Some(toolchain) = Toolchain::find(isa) else {
        bail!("no Rust that can build for {}; `./cob doctor` says what to install", kernel_target(isa));
    };
    let mut cargo = toolchain.cargo(root, isa, "build", &root.target().join("kernel"));
    cargo.args(["-p", "boot", "--bin", "cob", "--profile", profile]);
    let mut found = executables(cargo).context("building the kernel")?;
    found.pop().map(|program| program.path).context("cargo built no kernel")
}

/// What a board runs that waits for another kernel.
pub fn stub(root: &Root, isa: Isa) -> Result<PathBuf> {
    let Some(toolchain) = Toolchain::find(isa) else {
        bail!("no Rust that can build for {}; `./cob doctor` says what to install", kernel_target(isa));
    };
    let mut cargo = toolchain.cargo(root, isa, "build", &root.target().join("kernel"));
    cargo.args(["-p", "stub", "--bin", "stub", "--profile", "release"]);
    let mut found = executables(cargo).context("building the stub of a board")?;
    found.pop().map(|program| program.path).context("cargo built no stub")
}

/// A program that was built.
pub struct Program {
    /// Its package's folder, relative to the top.
    pub folder: PathBuf,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// The static programs for the guest: everything in `user/` and `bench/`, and what in `tests/` says that it is for the guest.
pub fn programs(root: &Root, isa: Isa) -> Result<Vec<Program>> {
    let target = program_target(isa);
    let mut cargo = if rustup_has(target) {
        let mut cargo = Command::new(host_cargo());
        cargo.arg("build");
        cargo
    } else if Toolchain::find(isa) == Some(Toolchain::Debian) {
        // Debian has the standard library of its own ISA only: that of another one is built from its sources.
        debian_cargo("build", &["-Zbuild-std=std,panic_abort"])
    } else {
        bail!("no Rust that can build for {target}; `./cob doctor` says what to install");
    };
    cargo.env_remove("CARGO").env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").current_dir(root.path());
    // Static at a fixed address: the guest needs no C library in its tree.
    let variable = format!("CARGO_TARGET_{}", target.to_uppercase().replace('-', "_"));
    cargo.env(format!("{variable}_RUSTFLAGS"), "-Ctarget-feature=+crt-static -Crelocation-model=static");
    if isa != Isa::X86_64 {
        cargo.env(format!("{variable}_LINKER"), linker(isa));
    }
    cargo.args(["--locked", "--bins", "--profile", "user", "--target", target, "--target-dir"]);
    cargo.arg(root.target().join("programs"));
    let mut some = false;
    for folder in ["user", "bench", "tests"] {
        let Ok(entries) = fs::read_dir(root.join(folder)) else { continue };
        for entry in entries {
            let manifest = entry?.path().join("Cargo.toml");
            let Ok(text) = fs::read_to_string(&manifest) else { continue };
            if folder == "tests" && !text.contains("\nguest = true") {
                continue;
            }
            let name = text.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
            cargo.arg("-p").arg(name.with_context(|| format!("no name in {}", manifest.display()))?);
            some = true;
        }
    }
    if !some {
        return Ok(Vec::new());
    }
    let mut programs = executables(cargo).context("building the programs for the guest")?;
    for program in &mut programs {
        if let Ok(folder) = program.folder.strip_prefix(root.path().canonicalize()?) {
            program.folder = folder.to_owned();
        }
    }
    programs.sort_by(|a, b| (&a.folder, &a.name).cmp(&(&b.folder, &b.name)));
    Ok(programs)
}

/// Runs a cargo build and collects the executables that it made or found fresh.
fn executables(mut cargo: Command) -> Result<Vec<Program>> {
    cargo.arg("--message-format=json-render-diagnostics").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = cargo.spawn().with_context(|| format!("starting {}", cargo.get_program().display()))?;
    let mut found = Vec::new();
    for line in BufReader::new(child.stdout.take().context("cargo's output")?).lines() {
        let message: Value = serde_json::from_str(&line?).unwrap_or_default();
        let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
        if let (Some(path), Some(name), Some(manifest)) =
            (text("/executable"), text("/target/name"), text("/manifest_path"))
        {
            let folder = Path::new(manifest).parent().unwrap_or(Path::new("")).to_owned();
            found.push(Program { folder, name: name.to_owned(), path: path.into() });
        }
    }
    ensure!(child.wait()?.success(), "cargo failed; its messages are above");
    Ok(found)
}

/// The image without symbols and debug information.
pub fn strip(kernel: &Path, folder: &Path) -> Result<Vec<u8>> {
    let out = folder.join("stripped");
    let status = Command::new("strip").arg("-o").arg(&out).arg(kernel).status().context("starting strip (binutils)")?;
    ensure!(status.success(), "strip failed on {}", kernel.display());
    fs::read(&out).with_context(|| format!("reading {}", out.display()))
}
