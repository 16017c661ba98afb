//! Debian's unmodified busybox: the shell and tools of the guest.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::root::Root;

/// busybox-static, fetched once by apt from wherever this host gets its packages.
pub fn busybox(root: &Root) -> Result<PathBuf> {
    let folder = root.target().join("debian");
    let program = folder.join("busybox-static/bin/busybox");
    if program.is_file() {
        return Ok(program);
    }
    fs::create_dir_all(&folder)?;
    eprintln!("cob: fetching busybox-static");
    let hint = "fetching busybox-static with apt-get (try `apt-get update`)";
    // apt drops to another user to download; as root in a folder of root's it cannot write.
    let status = Command::new("apt-get")
        .args(["-q", "-o", "APT::Sandbox::User=root", "download", "busybox-static:amd64"])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context(hint)?;
    ensure!(status.success(), "{hint} failed");
    let package = fs::read_dir(&folder)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get left no package")?;
    let status = Command::new("dpkg-deb")
        .arg("-x")
        .arg(&package)
        .arg(folder.join("busybox-static"))
        .status()
        .context("starting dpkg-deb")?;
    ensure!(status.success() && program.is_file(), "no busybox in {}", package.display());
    Ok(program)
}
