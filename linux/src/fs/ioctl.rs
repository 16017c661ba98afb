//! ioctl(2): numbers and structs of the program to kernel types and back.

use base::{Errno, Error, Ready, Result};
use linux_abi::structs::{Termios as AbiTermios, Termios2, Winsize};
use task::{Cx, Interrupted, Timeout};
use vfs::{
    Ioctl, IoctlReply, OpenFlags, Status,
    ioctl::{Queues, Termios, When, WindowSize},
};

use super::{file, install, invalid, open, restart, settle};

/// Where the answer goes.
#[derive(Clone, Copy)]
enum Answer {
    /// Nowhere.
    None,
    /// An `int` at the argument.
    Int,
    /// A `struct termios` or `termios2` at the argument.
    Termios,
    Termios2,
    /// A `struct winsize`.
    Window,
    /// A new descriptor.
    Descriptor,
}

fn encode(t: &Termios) -> AbiTermios {
    AbiTermios { iflag: t.input, oflag: t.output, cflag: t.control, lflag: t.local, line: t.line, cc: t.chars }
}

fn decode(t: &AbiTermios, speeds: (u32, u32)) -> Termios {
    Termios {
        input: t.iflag,
        output: t.oflag,
        control: t.cflag,
        local: t.lflag,
        line: t.line,
        chars: t.cc,
        input_speed: speeds.0,
        output_speed: speeds.1,
    }
}

/// The speed that the `CBAUD` bits of the control modes stand for (`asm-generic/termbits.h`).
fn speed(control: u32) -> u32 {
    const LOW: [u32; 16] = [0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400];
    const HIGH: [u32; 16] = [
        0, 57600, 115_200, 230_400, 460_800, 500_000, 576_000, 921_600, 1_000_000, 1_152_000, 1_500_000, 2_000_000,
        2_500_000, 3_000_000, 3_500_000, 4_000_000,
    ];
    let table = if control & 0o10000 != 0 { HIGH } else { LOW };
    table.get((control & 0o17) as usize).copied().unwrap_or(38400)
}

fn when(offset: u64) -> When {
    match offset {
        0 => When::Now,
        1 => When::Drain,
        _ => When::Flush,
    }
}

/// ioctl(2).
pub fn ioctl(cx: &Cx, [fd, request, arg, ..]: [u64; 6]) -> Result<u64> {
    let file = file(cx, fd)?;
    if file.flags().contains(OpenFlags::PATH) {
        return Err(Error::new(Errno::EBADF, "only a place in the tree"));
    }
    let int = || cx.user(|u| u.read_struct::<i32>(arg));
    let request = request as u32;
    // These are about the descriptor, whatever it stands for.
    match request {
        0x5450 | 0x5451 => {
            cx.task().files().set_close_on_exec(fd, request == 0x5451)?;
            return Ok(0);
        }
        0x5421 | 0x5452 => {
            let bit = if request == 0x5421 { Status::NONBLOCK } else { Status::ASYNC };
            let on = int()? != 0;
            if bit == Status::ASYNC && on {
                // As Linux for a file that cannot send SIGIO.
                return Err(Error::new(Errno::ENOTTY, "no signal-driven I/O"));
            }
            let mut status = file.status();
            status.set(bit, on);
            return settle(cx, file.set_status(status)).map(|()| 0);
        }
        _ => {}
    }
    let (asked, answer) = match request {
        0x5401 => (Ioctl::GetTermios, Answer::Termios),
        0x5402..=0x5404 => {
            let t: AbiTermios = cx.user(|u| u.read_struct(arg))?;
            let baud = speed(t.cflag);
            (Ioctl::SetTermios(when(u64::from(request - 0x5402)), decode(&t, (baud, baud))), Answer::None)
        }
        0x802c_542a => (Ioctl::GetTermios, Answer::Termios2),
        0x402c_542b..=0x402c_542d => {
            let t: Termios2 = cx.user(|u| u.read_struct(arg))?;
            let modes = decode(&t.basic, (t.ispeed, t.ospeed));
            (Ioctl::SetTermios(when(u64::from(request - 0x402c_542b)), modes), Answer::None)
        }
        0x5409 if arg == 0 => (Ioctl::Break, Answer::None),
        0x5409 => (Ioctl::Drain, Answer::None),
        0x5425 => (Ioctl::Break, Answer::None),
        0x540a => {
            let asked = match arg {
                0 => Ioctl::Suspend(true),
                1 => Ioctl::Suspend(false),
                2 => Ioctl::SuspendInput(true),
                3 => Ioctl::SuspendInput(false),
                _ => return Err(invalid("unknown flow")),
            };
            (asked, Answer::None)
        }
        0x540b => {
            let queues = match arg {
                0 => Queues::Input,
                1 => Queues::Output,
                2 => Queues::Both,
                _ => return Err(invalid("unknown queue")),
            };
            (Ioctl::FlushQueues(queues), Answer::None)
        }
        0x540c => (Ioctl::Exclusive(true), Answer::None),
        0x540d => (Ioctl::Exclusive(false), Answer::None),
        0x540e => (Ioctl::TakeTerminal(arg == 1), Answer::None),
        0x540f => (Ioctl::GetForeground, Answer::Int),
        0x5410 => {
            let pgid = u32::try_from(int()?).map_err(|_| invalid("negative group"))?;
            (Ioctl::SetForeground(pgid), Answer::None)
        }
        0x5411 => (Ioctl::BytesUnsent, Answer::Int),
        0x5412 => (Ioctl::Insert(cx.user(|u| u.read_struct(arg))?), Answer::None),
        0x5413 => (Ioctl::GetWindow, Answer::Window),
        0x5414 => {
            let w: Winsize = cx.user(|u| u.read_struct(arg))?;
            let window = WindowSize { rows: w.row, columns: w.col, width: w.xpixel, height: w.ypixel };
            (Ioctl::SetWindow(window), Answer::None)
        }
        0x541b => (Ioctl::BytesReadable, Answer::Int),
        0x5420 => (Ioctl::PacketMode(int()? != 0), Answer::None),
        0x5422 => (Ioctl::DropTerminal, Answer::None),
        0x5429 => (Ioctl::GetSession, Answer::Int),
        0x8004_5430 => (Ioctl::PtyNumber, Answer::Int),
        0x4004_5431 => (Ioctl::PtyLock(int()? != 0), Answer::None),
        0x8004_5439 => (Ioctl::PtyLocked, Answer::Int),
        0x5441 => {
            let (flags, status, _) = open::decode(cx, arg);
            (Ioctl::PtyPeer(flags, status), Answer::Descriptor)
        }
        0x5437 => (Ioctl::HangUp, Answer::None),
        other => (Ioctl::Other(other), Answer::None),
    };
    let caller = cx.caller();
    let reply = cx.block_on(
        || file.ioctl(&caller, asked),
        |waker| Ok(file.subscribe(Ready::OUT, waker)),
        Timeout::Never,
        Interrupted::Restart,
    );
    match (reply.map_err(|e| restart(cx, e))?, answer) {
        (IoctlReply::Done, _) | (_, Answer::None) => Ok(0),
        (IoctlReply::Number(n), Answer::Int) => cx.user(|u| u.write_struct(arg, &(n as i32))).map(|()| 0),
        (IoctlReply::Termios(t), Answer::Termios) => cx.user(|u| u.write_struct(arg, &encode(&t))).map(|()| 0),
        (IoctlReply::Termios(t), Answer::Termios2) => {
            let both = Termios2 { basic: encode(&t), ispeed: t.input_speed, ospeed: t.output_speed };
            cx.user(|u| u.write_struct(arg, &both)).map(|()| 0)
        }
        (IoctlReply::Window(w), Answer::Window) => {
            let w = Winsize { row: w.rows, col: w.columns, xpixel: w.width, ypixel: w.height };
            cx.user(|u| u.write_struct(arg, &w)).map(|()| 0)
        }
        (IoctlReply::File(new), Answer::Descriptor) => {
            let (_, _, close_on_exec) = open::decode(cx, arg);
            install(cx, new, close_on_exec)
        }
        _ => Err(Error::new(Errno::ENOTTY, "an answer of another kind")),
    }
}
