//! What comes from Debian as it is: busybox, the shell and tools of the guest, and the Linux that benchmarks compare with. apt
//! fetches it from wherever this host gets its packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use plan::Isa;

use crate::machine::Put;
use crate::root::Root;

/// busybox-static's program.
pub fn busybox(root: &Root, isa: Isa) -> Result<PathBuf> {
    let folder = unpacked(root, isa, "busybox-static")?;
    // Newer releases have everything below `usr`.
    let program = ["bin/busybox", "usr/bin/busybox"].map(|place| folder.join(place)).into_iter().find(|p| p.is_file());
    program.with_context(|| format!("no busybox in {}", folder.display()))
}

/// The kernel image of Debian's Linux, the one for clouds where there is one.
pub fn linux(root: &Root, isa: Isa) -> Result<PathBuf> {
    let all = folder(root, isa);
    // The version that was fetched first stays.
    let known = entries(&all).into_iter().find(|path| is_named(path, &["linux-image-"]) && path.join("boot").is_dir());
    let folder = match known {
        Some(folder) => folder,
        None => unpacked(root, isa, &linux_package(isa, &all)?)?,
    };
    let boot = folder.join("boot");
    let image = entries(&boot).into_iter().find(|path| is_named(path, &["vmlinuz-", "vmlinux-"]));
    image.with_context(|| format!("no kernel in {}", boot.display()))
}

/// Which package the newest Linux is in.
fn linux_package(isa: Isa, all: &Path) -> Result<String> {
    let meta = match isa {
        Isa::X86_64 => "linux-image-cloud-amd64",
        Isa::Aarch64 => "linux-image-cloud-arm64",
        Isa::Riscv64 => "linux-image-riscv64",
    };
    let options = if isa == Isa::X86_64 { Vec::new() } else { foreign(isa, all)? };
    let output = Command::new("apt-cache")
        .args(options)
        .args(["depends", "--important", meta])
        .output()
        .context("starting apt-cache")?;
    let text = String::from_utf8(output.stdout)?;
    let package = text.split_whitespace().find(|word| word.starts_with("linux-image-") && word.contains('.'));
    Ok(package.with_context(|| format!("apt knows no {meta} (try `apt-get update`)"))?.to_owned())
}

/// What is in a folder; nothing if it cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect()
}

fn is_named(path: &Path, begins: &[&str]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    begins.iter().any(|begin| name.starts_with(begin))
}

/// Unmodified programs for the tree: libraries go where Debian has them, programs to `/opt/debian/bin`, so that those of busybox stay what
/// they are. Documentation and the like stay out.
pub fn programs(root: &Root, packages: &[String]) -> Result<Vec<Put>> {
    const PLACES: [(&str, &str); 7] = [
        ("lib", "/lib"),
        ("lib64", "/lib64"),
        ("usr/lib", "/usr/lib"),
        ("bin", "/opt/debian/bin"),
        ("sbin", "/opt/debian/bin"),
        ("usr/bin", "/opt/debian/bin"),
        ("usr/sbin", "/opt/debian/bin"),
    ];
    let mut put = Vec::new();
    for package in packages {
        let folder = unpacked(root, Isa::X86_64, package)?;
        for (from, to) in PLACES {
            let from = folder.join(from);
            if from.is_dir() {
                put.push(Put { from, to: to.to_owned() });
            }
        }
    }
    Ok(put)
}

/// Where packages of an ISA are kept.
fn folder(root: &Root, isa: Isa) -> PathBuf {
    match isa {
        Isa::X86_64 => root.target().join("debian"),
        isa => root.target().join(format!("debian-{}", isa.name())),
    }
}

/// The folder with a package's files, fetched once.
fn unpacked(root: &Root, isa: Isa, package: &str) -> Result<PathBuf> {
    let all = folder(root, isa);
    let folder = all.join(package);
    if folder.is_dir() {
        return Ok(folder);
    }
    let fetch = all.join("fetch");
    fs::create_dir_all(&fetch)?;
    eprintln!("cob: fetching {package}");
    download(isa, package, &all, &fetch)?;
    let file = entries(&fetch).into_iter().find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let file = file.context("apt-get left no package")?;
    let new = all.join(format!("{package}.new"));
    let status = Command::new("dpkg-deb").arg("-x").arg(&file).arg(&new).status().context("starting dpkg-deb")?;
    ensure!(status.success(), "dpkg-deb cannot unpack {}", file.display());
    // The whole folder or none, also if this is interrupted.
    fs::rename(&new, &folder)?;
    fs::remove_dir_all(&fetch)?;
    Ok(folder)
}

fn download(isa: Isa, package: &str, all: &Path, to: &Path) -> Result<()> {
    let hint = format!("fetching {package} with apt-get (try `apt-get update`)");
    let (options, package) = match isa {
        Isa::X86_64 => (Vec::new(), format!("{package}:amd64")),
        isa => (foreign(isa, all)?, package.to_owned()),
    };
    // apt drops to another user to download; as root in a folder of root's it cannot write.
    let status = Command::new("apt-get")
        .args(["-q", "-o", "APT::Sandbox::User=root"])
        .args(options)
        .args(["download", &package])
        .current_dir(to)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| hint.clone())?;
    ensure!(status.success(), "{hint} failed");
    Ok(())
}

/// Options with which apt knows the packages of another architecture, in a folder of ours: the host's own lists stay as they are.
fn foreign(isa: Isa, all: &Path) -> Result<Vec<String>> {
    let architecture = match isa {
        Isa::X86_64 => "amd64",
        Isa::Aarch64 => "arm64",
        Isa::Riscv64 => "riscv64",
    };
    let apt = all.join("apt");
    fs::create_dir_all(apt.join("lists/partial"))?;
    fs::create_dir_all(apt.join("cache/archives/partial"))?;
    fs::write(apt.join("status"), "")?;
    let folder = apt.display();
    let mut options = vec![
        format!("APT::Architecture={architecture}"),
        format!("APT::Architectures={architecture}"),
        format!("Dir::State={folder}"),
        format!("Dir::State::lists={folder}/lists"),
        format!("Dir::State::status={folder}/status"),
        format!("Dir::Cache={folder}/cache"),
        String::from("Acquire::Languages=none"),
    ];
    if isa == Isa::Riscv64 {
        // Debian's releases before 13 have no riscv64: from the mirror that this host uses, the first that has.
        let list = apt.join("sources.list");
        let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
        fs::write(&list, format!("deb [signed-by={key}] {} trixie main\n", mirror()?))?;
        options.push(format!("Dir::Etc::sourcelist={}", list.display()));
        options.push(String::from("Dir::Etc::sourceparts=/dev/null"));
        options.push(String::from("Acquire::Check-Valid-Until=false"));
    }
    let options: Vec<String> = options.into_iter().flat_map(|option| [String::from("-o"), option]).collect();
    let status = Command::new("apt-get")
        .args(["-q", "-o", "APT::Sandbox::User=root"])
        .args(&options)
        .arg("update")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("starting apt-get")?;
    ensure!(status.success(), "apt-get cannot read the lists of {architecture}");
    Ok(options)
}

/// Where this host gets Debian's packages.
fn mirror() -> Result<String> {
    let output = Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    // Security updates have a place of their own.
    let place = text.lines().filter_map(|line| line.split_once(' ')).find(|(uri, _)| !uri.contains("security"));
    Ok(place.context("apt knows no mirror of Debian")?.0.to_owned())
}
