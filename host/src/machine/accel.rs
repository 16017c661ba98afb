//! How QEMU executes guest code: KVM where it really works, else its translator.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::root::Root;

/// An accelerator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// The host's virtualisation.
    Kvm,
    /// QEMU's translator, a host thread per CPU.
    Tcg,
    /// QEMU's translator with a clock that counts instructions.
    Counted,
}

/// How long the probe may take; it needs a few milliseconds.
const PROBE_TIME: Duration = Duration::from_secs(3);

impl Accel {
    /// The faster one that works here: KVM, if it can boot a tiny kernel and then `try_kvm` succeeds. The answer is kept until the
    /// host boots again.
    pub fn find(root: &Root, try_kvm: impl FnOnce() -> Result<()>) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let cache = root.target().join("accel");
        if let Ok(text) = fs::read_to_string(&cache)
            && let Some(word) = text.strip_prefix(boot.as_str())
        {
            return if word == "kvm" { Self::Kvm } else { Self::Tcg };
        }
        let found = if probe(&root.target()).and_then(|()| try_kvm()).is_ok() { Self::Kvm } else { Self::Tcg };
        let word = if found == Self::Kvm { "kvm" } else { "tcg" };
        // Without the cache the next run only probes again.
        let _ = fs::write(cache, format!("{boot}{word}"));
        found
    }

    /// Forgets what was found, so that the next run tries again.
    pub fn forget(root: &Root) {
        // It may not be there.
        let _ = fs::remove_file(root.target().join("accel"));
    }

    /// For `-accel` and what goes with it.
    pub fn qemu_args(self) -> &'static [&'static str] {
        match self {
            Self::Kvm => &["-accel", "kvm"],
            Self::Tcg => &["-accel", "tcg,thread=multi"],
            Self::Counted => &["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"],
        }
    }

    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Tcg => "TCG (KVM cannot boot a kernel here)",
            Self::Counted => "TCG with the instruction clock",
        }
    }
}

/// Boots a kernel of a few bytes under KVM: a `/dev/kvm` that opens may still be unable to.
fn probe(folder: &Path) -> Result<()> {
    fs::File::options().read(true).write(true).open("/dev/kvm")?;
    let image = folder.join("kvm-probe");
    fs::write(&image, probe_image())?;
    let mut qemu = Command::new("qemu-system-x86_64")
        .args(["-M", "q35", "-accel", "kvm", "-cpu", "max", "-m", "64", "-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel"])
        .arg(&image)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let start = Instant::now();
    loop {
        if let Some(status) = qemu.try_wait()? {
            ensure!(status.code() == Some(33), "the probe ended with {status}");
            return Ok(());
        }
        if start.elapsed() > PROBE_TIME {
            qemu.kill()?;
            qemu.wait()?;
            anyhow::bail!("the probe hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A kernel for PVH (the `XEN_ELFNOTE_PHYS32_ENTRY` note names its 32-bit entry) that writes 0x10 to port 0xf4 at once.
fn probe_image() -> Vec<u8> {
    const BASE: u32 = 0x20_0000;
    const CODE: [u8; 11] = [
        0x66, 0xba, 0xf4, 0x00, // mov dx, 0xf4
        0xb0, 0x10, // mov al, 0x10
        0xee, // out dx, al
        0xfa, 0xf4, // cli; hlt
        0xeb, 0xfc, // jmp to the cli
    ];
    // ELF-32: header (52 bytes), two program headers (32 each), the note, the code.
    let note_at: u32 = 52 + 2 * 32;
    let code_at = note_at + 20;
    let mut out = Vec::new();
    let half = |out: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
    let word = |out: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes()));
    out.extend_from_slice(b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0");
    half(&mut out, &[2, 3]); // executable, 80386
    word(&mut out, &[1, BASE + code_at, 52, 0, 0]); // version, entry, program headers, no sections, flags
    half(&mut out, &[52, 32, 2, 40, 0, 0]);
    let size = code_at + CODE.len() as u32;
    word(&mut out, &[1, 0, BASE, BASE, size, size, 5, 0x1000]); // PT_LOAD: all of the file
    word(&mut out, &[4, note_at, BASE + note_at, BASE + note_at, 20, 20, 4, 4]); // PT_NOTE
    word(&mut out, &[4, 4, 18]); // name's size, value's size, PHYS32_ENTRY
    out.extend_from_slice(b"Xen\0");
    word(&mut out, &[BASE + code_at]);
    out.extend_from_slice(&CODE);
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_probe_runs_under_tcg() {
        let folder = std::env::temp_dir().join(format!("cob-probe-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let image = folder.join("probe");
        std::fs::write(&image, super::probe_image()).expect("the image");
        let status = std::process::Command::new("qemu-system-x86_64")
            .args(["-M", "q35", "-accel", "tcg", "-m", "64", "-nodefaults", "-no-reboot", "-display", "none"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel"])
            .arg(&image)
            .status()
            .expect("qemu");
        std::fs::remove_dir_all(folder).expect("the folder");
        assert_eq!(status.code(), Some(33));
    }
}
