//! `cob doctor`: what this host has.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::Boot;
use crate::build::{Toolchain, host_cargo};
use crate::machine::{Accel, Machine};
use crate::root::Root;

/// A program, the arguments that make it say its version, and the Debian package that has it.
const PROGRAMS: [(&str, &[&str], &str); 11] = [
    ("qemu-system-x86_64", &["--version"], "qemu-system-x86"),
    ("qemu-system-aarch64", &["--version"], "qemu-system-arm"),
    ("qemu-system-riscv64", &["--version"], "qemu-system-misc"),
    ("aarch64-linux-gnu-gcc", &["--version"], "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"),
    ("riscv64-linux-gnu-gcc", &["--version"], "gcc-riscv64-linux-gnu libc6-dev-riscv64-cross"),
    ("ld.lld", &["--version"], "lld"),
    ("cc", &["--version"], "gcc libc6-dev"),
    ("strip", &["--version"], "binutils"),
    ("setpriv", &["--version"], "util-linux"),
    ("apt-get", &["--version"], "apt"),
    ("gdb", &["--version"], "gdb (only for ./cob gdb)"),
];

/// Shows what was found; fails if something that every command needs is missing.
pub fn doctor(root: &Root) -> Result<ExitCode> {
    let mut missing = 0;
    let cargo = host_cargo();
    show("cargo", version(&cargo.to_string_lossy(), &["--version"]), "cargo");
    match Toolchain::find(plan::Isa::X86_64) {
        Some(Toolchain::Debian) => show("kernel Rust", version("/usr/bin/rustc", &["--version"]), ""),
        Some(Toolchain::Rustup) => show("kernel Rust", version("rustc", &["--version"]), ""),
        None => {
            missing += 1;
            show("kernel Rust", None, "rustc-web cargo-web rust-web-src, or `rustup target add x86_64-unknown-none`");
        }
    }
    for (program, args, package) in PROGRAMS {
        let found = version(program, args);
        if found.is_none() && program != "gdb" {
            missing += 1;
        }
        show(program, found, package);
    }
    Accel::forget(root);
    let boot = Boot { machine: Some(String::from("uni")), ..Boot::default() };
    let machine = Machine::prepare(root, &boot).map(|machine| machine.accel.describe().to_owned());
    show("execution", Some(machine.unwrap_or_else(|error| format!("unknown: {error:#}"))), "");
    let busybox = root.target().join("debian/busybox-static/bin/busybox");
    let state = if busybox.is_file() { "there" } else { "will be fetched by apt-get when the first build needs it" };
    show("busybox", Some(state.to_owned()), "");
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(what: &str, found: Option<String>, package: &str) {
    match found {
        Some(found) => println!("{what:<20} {found}"),
        None => println!("{what:<20} MISSING: install {package}"),
    }
}

/// The first line of what a program says about itself.
fn version(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next().unwrap_or("there").to_owned())
}
