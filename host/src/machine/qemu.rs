//! QEMU's command line for a board. Paths of sockets and logs are relative: QEMU starts in the run's folder.

use std::path::Path;
use std::process::{Command, Stdio};

use plan::{Board, Isa, Plan};

use super::Machine;
use super::boards::{Memory, bells_socket, control_socket};
use super::network::{card_address, card_socket, port_socket};

/// What the emulator's exit status is after a clean power-off: what comes of 0x10 written to `isa-debug-exit`, and what kernels of other
/// ISAs exit with (contract C6).
pub const CLEAN: i32 = 0x10 << 1 | 1;

/// The memory of a board.
pub struct Ram<'a> {
    /// More than the plan says, for the archive.
    pub extra: u64,
    /// In a mixed machine: that of all boards.
    pub shared: &'a [Memory],
}

/// The command for a board of the machine, ready to be spawned.
pub fn command(machine: &Machine, number: usize, board: &Board, folder: &Path, ram: &Ram<'_>) -> Command {
    let program = match board.model.isa {
        Isa::X86_64 => "qemu-system-x86_64",
        Isa::Aarch64 => "qemu-system-aarch64",
        Isa::Riscv64 => "qemu-system-riscv64",
    };
    // The emulator ends with the thread that started it, whatever happens to that.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", program, "-name", &machine.plan.name]);
    qemu.args(machine.accel.qemu_args());
    let size = board.memory + ram.extra;
    qemu.args(["-smp", &smp(machine, board), "-m", &format!("{}M", size >> 20)]);
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    let mut words = vec![format!("cob.machine={}", machine.plan.name)];
    if machine.plan.is_apart() {
        // The same archive starts every board: this says which one it is.
        words.push(format!("cob.board={number}"));
    }
    words.extend(machine.kernel_args.iter().cloned());
    let own = if machine.plan.is_mixed() { ",memory-backend=ram" } else { "" };
    match board.model.isa {
        Isa::X86_64 => pc(&mut qemu, machine, number, own),
        Isa::Aarch64 => words.push(virt(&mut qemu, board, folder, &format!("virt{own}"), "max,pauth-impdef=on")),
        Isa::Riscv64 => words.push(virt(&mut qemu, board, folder, &format!("virt,aia=aplic-imsic{own}"), "rv64")),
    }
    qemu.args(["-append", &words.join(" ")]);
    if machine.plan.is_mixed() {
        share(&mut qemu, number, size, ram.shared);
    }
    if machine.plan.is_apart() {
        cards(&mut qemu, machine, number);
    }
    if number > 0 && !machine.plan.is_apart() {
        // Off until another kernel starts it. It may be reset: by the controller.
        qemu.arg("-kernel").arg(&machine.stubs[&board.model.isa]).arg("-S");
    } else {
        qemu.arg("-no-reboot").arg("-kernel").arg(&machine.images[&board.model.isa]);
    }
    let debugger = if number == 0 { String::from("gdb.sock") } else { format!("gdb{number}.sock") };
    qemu.args(["-chardev", &format!("socket,id=gdb,path={debugger},server=on,wait=off"), "-gdb", "chardev:gdb"]);
    if number == 0 {
        talk(&mut qemu);
        qemu.args(&machine.qemu_args);
    }
    qemu.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
    qemu
}

/// What people and tests speak to the machine through, on its first board: the console, the channel of `cob exec`, and the emulator's monitor.
fn talk(qemu: &mut Command) {
    qemu.args(["-chardev", "socket,id=console,path=console.sock", "-serial", "chardev:console"]);
    // Not port 0: that is a console, which loses what the host does not read at once.
    qemu.args(["-device", "virtio-serial-pci,disable-legacy=on,max_ports=2,vectors=6"]);
    qemu.args(["-chardev", "socket,id=agent,path=agent.sock"]);
    qemu.args(["-device", "virtserialport,nr=1,chardev=agent,name=org.cob.agent"]);
    qemu.args(["-chardev", "socket,id=qmp,path=qmp.sock,server=on,wait=off", "-mon", "chardev=qmp,mode=control"]);
}

/// A PC: firmware loads the archive, every kernel logs to a port of its own.
fn pc(qemu: &mut Command, machine: &Machine, number: usize, more: &str) {
    let model = machine.plan.boards.get(number).map_or("q35", |board| board.model.name);
    qemu.args(["-M", &format!("{model}{more}"), "-cpu", "max", "-vga", "none", "-initrd", "initrd"]);
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    for kernel in machine.plan.on_board(number) {
        if let Some(port) = kernel.log_port {
            let index = kernel.index;
            qemu.args(["-chardev", &format!("file,id=k{index},path=k{index}.log,append=on")]);
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

/// What a board of a mixed machine has in common with the others: its RAM in memory that they address too, windows to theirs, bells, a controller.
fn share(qemu: &mut Command, number: usize, size: u64, memory: &[Memory]) {
    let mut file = |id: &str, size: u64, path: &str| {
        qemu.args(["-object", &format!("memory-backend-file,id={id},size={size},mem-path={path},share=on")]);
    };
    for (board, memory) in memory.iter().enumerate() {
        if board == number {
            file("ram", size, &memory.path());
        } else {
            file(&format!("board{board}"), memory.window, &memory.path());
        }
    }
    for board in (0..memory.len()).filter(|board| *board != number) {
        let slot = Plan::window_slot(board);
        qemu.args(["-device", &format!("ivshmem-plain,memdev=board{board},addr={slot:#x}")]);
    }
    // The controller connects when the board asks for its bells, so the socket for that comes first.
    let control = control_socket(number);
    qemu.args(["-chardev", &format!("socket,id=control,path={control},server=on,wait=off")]);
    qemu.args(["-mon", "chardev=control,mode=control"]);
    let vectors = boardctl::VECTORS;
    qemu.args(["-chardev", &format!("socket,id=bells,path={}", bells_socket(number))]);
    qemu.args(["-device", &format!("ivshmem-doorbell,vectors={vectors},chardev=bells,addr={:#x}", Plan::BELL_SLOT)]);
}

/// The network cards of a board whose machine shares nothing else: one for each of its kernels.
fn cards(qemu: &mut Command, machine: &Machine, number: usize) {
    for kernel in machine.plan.on_board(number) {
        let index = kernel.index;
        let Some(slot) = machine.plan.card_slot(index) else { continue };
        let (card, port, address) = (card_socket(index), port_socket(index), card_address(index));
        let ends = format!("local.type=unix,local.path={card},remote.type=unix,remote.path={port}");
        qemu.args(["-netdev", &format!("dgram,id=wire{index},{ends}")]);
        let device = format!("virtio-net-pci,disable-legacy=on,netdev=wire{index},mac={address},addr={slot:#x}");
        qemu.args(["-device", &device]);
    }
}

/// With one CPU the translator leaves out what makes atomic operations work between emulators; a second possible one keeps it.
fn smp(machine: &Machine, board: &Board) -> String {
    match board.cpus {
        1 if machine.plan.is_mixed() => String::from("1,maxcpus=2"),
        cpus => cpus.to_string(),
    }
}
