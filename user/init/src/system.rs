//! The machine around process 1: mounts, names, the environment of programs, and its end.

use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::system::RebootCommand;

use crate::say;

/// How it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Poweroff,
    Reboot,
    /// Process 1 itself is not wanted any more; only under test.
    Exit,
}

/// File system type, mount point, flags, data.
const MOUNTS: [(&str, &str, MountFlags, Option<&std::ffi::CStr>); 7] = [
    ("devtmpfs", "/dev", MountFlags::NOSUID, Some(c"mode=755")),
    ("proc", "/proc", MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC), None),
    ("sysfs", "/sys", MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC), None),
    ("devpts", "/dev/pts", MountFlags::NOSUID.union(MountFlags::NOEXEC), Some(c"mode=620,ptmxmode=666")),
    ("tmpfs", "/dev/shm", MountFlags::NOSUID.union(MountFlags::NODEV), Some(c"mode=1777")),
    ("tmpfs", "/tmp", MountFlags::NOSUID.union(MountFlags::NODEV), Some(c"mode=1777")),
    ("tmpfs", "/run", MountFlags::NOSUID.union(MountFlags::NODEV), Some(c"mode=755")),
];

/// Magic numbers of file systems in memory (`linux/magic.h`): on them a `tmpfs` of its own gains nothing.
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

/// Makes descriptors 0, 1 and 2 the console if the kernel has not.
pub fn open_standard_streams() {
    // SAFETY: fcntl on numbers; whether they are open is the question.
    let closed = |fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0;
    for fd in 0..3 {
        if closed(fd) {
            // SAFETY: a C string and flags. The lowest free number is `fd`, as those below are open.
            unsafe { libc::open(c"/dev/console".as_ptr(), libc::O_RDWR | libc::O_NOCTTY) };
        }
    }
}

/// Whether something is mounted here already.
fn is_mount_point(path: &str) -> bool {
    match (rustix::fs::stat(path), rustix::fs::stat(format!("{path}/.."))) {
        (Ok(here), Ok(above)) => here.st_dev != above.st_dev || here.st_ino == above.st_ino,
        _ => false,
    }
}

/// Mounts what is not mounted.
pub fn mount_all() {
    for (kind, path, flags, data) in MOUNTS {
        if is_mount_point(path) {
            continue;
        }
        if !Path::new(path).exists()
            && let Err(error) = rustix::fs::mkdir(path, Mode::from_raw_mode(0o755))
        {
            say!("mkdir {path}: {error}");
            continue;
        }
        let in_memory = |fs: rustix::fs::StatFs| matches!(fs.f_type as u64, TMPFS | RAMFS);
        if kind == "tmpfs" && rustix::fs::statfs(path).is_ok_and(in_memory) {
            continue;
        }
        match rustix::mount::mount(kind, path, kind, flags, data) {
            Ok(()) | Err(Errno::BUSY) => {}
            Err(Errno::NOSYS) => {
                say!("the kernel cannot mount and has not mounted {path}");
                return;
            }
            Err(error) => say!("mount {kind} on {path}: {error}"),
        }
    }
}

/// Names the machine after `/etc/hostname`.
pub fn set_hostname() {
    let name = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let name = name.split_whitespace().next().unwrap_or("cob");
    if let Err(error) = rustix::system::sethostname(name.as_bytes()) {
        say!("sethostname {name}: {error}");
    }
}

/// Whether the kernel was given `key=value`.
pub fn kernel_argument(key: &str, value: &str) -> bool {
    match std::fs::read_to_string("/proc/cmdline") {
        Ok(line) => line.split_whitespace().any(|word| word.split_once('=') == Some((key, value))),
        Err(error) => {
            say!("/proc/cmdline: {error}");
            false
        }
    }
}

/// The kernel of the machine that this process runs on; 0 elsewhere.
pub fn kernel_index() -> u16 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CobKernel:"));
    line.and_then(|index| index.trim().parse().ok()).unwrap_or(0)
}

/// What programs find in their environment and as their directory.
pub fn environment(command: &mut Command) {
    let home = if Path::new("/root").is_dir() { "/root" } else { "/" };
    command.env_clear().current_dir(home).env("HOME", home).env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin");
    command.env("USER", "root").env("LOGNAME", "root").env("SHELL", "/bin/sh");
    command.env("TERM", std::env::var_os("TERM").unwrap_or_else(|| "vt100".into()));
}

/// Ends the machine.
pub fn end(ending: Ending) -> ExitCode {
    let command = match ending {
        Ending::Poweroff => RebootCommand::PowerOff,
        Ending::Reboot => RebootCommand::Restart,
        Ending::Exit => return ExitCode::SUCCESS,
    };
    rustix::fs::sync();
    if let Err(error) = rustix::system::reboot(command) {
        say!("reboot: {error}");
    }
    // Only if the kernel refused: a process 1 that returns takes the kernel down with it, which is what was asked for.
    ExitCode::FAILURE
}
