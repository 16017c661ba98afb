//! QEMU's command line for a board. Paths of sockets and logs are relative: QEMU starts in the run's folder.

use std::path::Path;
use std::process::{Command, Stdio};

use plan::{Board, Isa};

use super::Machine;

/// What the emulator's exit status is after a clean power-off: what comes of 0x10 written to `isa-debug-exit`, and what kernels of other
/// ISAs exit with (contract C6).
pub const CLEAN: i32 = 0x10 << 1 | 1;

/// The command for the machine's only board, ready to be spawned.
pub fn command(machine: &Machine, board: &Board, folder: &Path, extra_memory: u64) -> Command {
    let program = match board.model.isa {
        Isa::X86_64 => "qemu-system-x86_64",
        Isa::Aarch64 => "qemu-system-aarch64",
        Isa::Riscv64 => "qemu-system-riscv64",
    };
    // The emulator ends with the thread that started it, whatever happens to that.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", program, "-name", &machine.plan.name]);
    qemu.args(machine.accel.qemu_args());
    qemu.args(["-smp", &smp(machine, board), "-m", &format!("{}M", (board.memory + extra_memory) >> 20)]);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    qemu.arg("-kernel").arg(&machine.image);
    let mut words = vec![format!("cob.machine={}", machine.plan.name)];
    words.extend(machine.kernel_args.iter().cloned());
    match board.model.isa {
        Isa::X86_64 => pc(&mut qemu, machine, board),
        Isa::Aarch64 => words.push(virt(&mut qemu, board, folder, "virt", "max,pauth-impdef=on")),
        Isa::Riscv64 => words.push(virt(&mut qemu, board, folder, "virt,aia=aplic-imsic", "rv64")),
    }
    qemu.args(["-append", &words.join(" ")]);
    qemu.args(["-chardev", "socket,id=console,path=console.sock", "-serial", "chardev:console"]);
    // Not port 0: that is a console, which loses what the host does not read at once.
    qemu.args(["-device", "virtio-serial-pci,disable-legacy=on,max_ports=2,vectors=6"]);
    qemu.args(["-chardev", "socket,id=agent,path=agent.sock"]);
    qemu.args(["-device", "virtserialport,nr=1,chardev=agent,name=org.cob.agent"]);
    qemu.args(["-chardev", "socket,id=gdb,path=gdb.sock,server=on,wait=off", "-gdb", "chardev:gdb"]);
    qemu.args(["-chardev", "socket,id=qmp,path=qmp.sock,server=on,wait=off", "-mon", "chardev=qmp,mode=control"]);
    qemu.args(&machine.qemu_args);
    qemu.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    qemu
}

/// A PC: firmware loads the archive, every kernel logs to a port of its own.
fn pc(qemu: &mut Command, machine: &Machine, board: &Board) {
    qemu.args(["-M", board.model.name, "-cpu", "max", "-vga", "none", "-initrd", "initrd"]);
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    for kernel in &machine.plan.kernels {
        if let Some(port) = kernel.log_port {
            let index = kernel.index;
            qemu.args(["-chardev", &format!("file,id=k{index},path=k{index}.log")]);
            qemu.args(["-device", &format!("isa-debugcon,iobase={port:#x},chardev=k{index}")]);
        }
    }
}

/// A `virt` board: the archive is put where the plan has its reserve, and kernels open their logs themselves. The word for the command line.
fn virt(qemu: &mut Command, board: &Board, folder: &Path, model: &str, cpu: &str) -> String {
    let size = std::fs::metadata(folder.join("initrd")).map_or(0, |meta| meta.len());
    let start = board.archive.start;
    qemu.args(["-M", model, "-cpu", cpu, "-semihosting-config", "enable=on,target=native"]);
    qemu.args(["-device", &format!("loader,file=initrd,addr={start:#x},force-raw=on")]);
    format!("cob.archive={start:#x}+{size:#x}")
}

/// With one CPU the translator leaves out what makes atomic operations work between emulators; a second possible one keeps it.
fn smp(machine: &Machine, board: &Board) -> String {
    match board.cpus {
        1 if machine.plan.boards.len() > 1 => String::from("1,maxcpus=2"),
        cpus => cpus.to_string(),
    }
}
