//! QEMU's command line for a board. Paths of sockets and logs are relative: QEMU starts in the run's folder.

use std::path::Path;
use std::process::{Command, Stdio};

use plan::{Board, Isa};

use super::Machine;

/// What the emulator's exit status is after a clean power-off: 0x10 written to `isa-debug-exit`.
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
    qemu.args(["--pdeathsig", "KILL", program, "-name", &machine.plan.name, "-M", board.model.name, "-cpu", "max"]);
    qemu.args(machine.accel.qemu_args());
    qemu.args(["-smp", &smp(machine, board), "-m", &format!("{}M", (board.memory + extra_memory) >> 20)]);
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-vga", "none"]);
    qemu.arg("-kernel").arg(&machine.kernel).args(["-initrd", "initrd"]);
    let mut words = vec![format!("cob.machine={}", machine.plan.name)];
    words.extend(machine.kernel_args.iter().cloned());
    qemu.args(["-append", &words.join(" ")]);
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    qemu.args(["-chardev", "socket,id=console,path=console.sock", "-serial", "chardev:console"]);
    for kernel in &machine.plan.kernels {
        if let Some(port) = kernel.log_port {
            let index = kernel.index;
            qemu.args(["-chardev", &format!("file,id=k{index},path=k{index}.log")]);
            qemu.args(["-device", &format!("isa-debugcon,iobase={port:#x},chardev=k{index}")]);
        }
    }
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

/// With one CPU the translator leaves out what makes atomic operations work between emulators; a second possible one keeps it.
fn smp(machine: &Machine, board: &Board) -> String {
    match board.cpus {
        1 if machine.plan.boards.len() > 1 => String::from("1,maxcpus=2"),
        cpus => cpus.to_string(),
    }
}
