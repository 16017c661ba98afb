//! What comes from Debian as it is: busybox, the shell and tools of the guest, and the Linux that benchmarks compare with. apt
//! fetches it from wherever this host gets its packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::machine::Put;
use crate::root::Root;

/// busybox-static's program.
pub fn busybox(root: &Root) -> Result<PathBuf> {
    let folder = unpacked(root, "busybox-static")?;
    let program = folder.join("bin/busybox");
    ensure!(program.is_file(), "no busybox in {}", folder.display());
    Ok(program)
}

/// The kernel image of Debian's Linux for clouds.
pub fn linux(root: &Root) -> Result<PathBuf> {
    let output = Command::new("apt-cache")
        .args(["depends", "--important", "linux-image-cloud-amd64"])
        .output()
        .context("starting apt-cache")?;
    let text = String::from_utf8(output.stdout)?;
    let package = text
        .split_whitespace()
        .find(|word| word.starts_with("linux-image-") && word.ends_with("-cloud-amd64") && word.contains('.'))
        .context("apt knows no linux-image-cloud-amd64 (try `apt-get update`)")?;
    let folder = unpacked(root, package)?;
    let boot = folder.join("boot");
    let entries = fs::read_dir(&boot).with_context(|| format!("reading {}", boot.display()))?;
    let images = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let is_image = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz"));
    images.into_iter().find(is_image).with_context(|| format!("no kernel in {}", boot.display()))
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
        let folder = unpacked(root, package)?;
        for (from, to) in PLACES {
            let from = folder.join(from);
            if from.is_dir() {
                put.push(Put { from, to: to.to_owned() });
            }
        }
    }
    Ok(put)
}

/// The folder with a package's files, fetched once.
fn unpacked(root: &Root, package: &str) -> Result<PathBuf> {
    let all = root.target().join("debian");
    let folder = all.join(package);
    if folder.is_dir() {
        return Ok(folder);
    }
    let fetch = all.join("fetch");
    fs::create_dir_all(&fetch)?;
    eprintln!("cob: fetching {package}");
    download(package, &fetch)?;
    let file = fs::read_dir(&fetch)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get left no package")?;
    let new = all.join(format!("{package}.new"));
    let status = Command::new("dpkg-deb").arg("-x").arg(&file).arg(&new).status().context("starting dpkg-deb")?;
    ensure!(status.success(), "dpkg-deb cannot unpack {}", file.display());
    // The whole folder or none, also if this is interrupted.
    fs::rename(&new, &folder)?;
    fs::remove_dir_all(&fetch)?;
    Ok(folder)
}

fn download(package: &str, to: &Path) -> Result<()> {
    let hint = format!("fetching {package} with apt-get (try `apt-get update`)");
    // apt drops to another user to download; as root in a folder of root's it cannot write.
    let status = Command::new("apt-get")
        .args(["-q", "-o", "APT::Sandbox::User=root", "download", &format!("{package}:amd64")])
        .current_dir(to)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| hint.clone())?;
    ensure!(status.success(), "{hint} failed");
    Ok(())
}
