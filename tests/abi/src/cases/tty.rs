//! Pseudo-terminals and the line discipline.

use super::job::pty;
use crate::case::Outcome;
use crate::sys;
use crate::sys::{close, get, get_all, ready, write};
use crate::{cases, check, refused, same};

/// The kernel's `struct termios`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Termios {
    iflag: u32,
    oflag: u32,
    cflag: u32,
    lflag: u32,
    line: u8,
    cc: [u8; 19],
}

fn attributes(fd: i32) -> sys::Sys<Termios> {
    let mut termios = Termios { iflag: 0, oflag: 0, cflag: 0, lflag: 0, line: 0, cc: [0; 19] };
    sys::ioctl(fd, libc::TCGETS as u64, &mut termios)?;
    Ok(termios)
}

fn set_attributes(fd: i32, termios: &Termios) -> sys::Sys {
    sys!(SYS_ioctl, fd, libc::TCSETS as u64, std::ptr::from_ref(termios))
}

/// A terminal with its master, slave and changed attributes.
fn terminal(change: impl FnOnce(&mut Termios)) -> sys::Sys<(i32, i32)> {
    let (master, path) = pty()?;
    let slave = sys::open(&path, libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK, 0)?;
    let mut termios = attributes(slave)?;
    change(&mut termios);
    set_attributes(slave, &termios)?;
    Ok((master, slave))
}

/// What a program reads after this was typed.
fn typed(master: i32, slave: i32, keys: &[u8]) -> Result<Vec<u8>, crate::case::Fail> {
    write(master, keys)?;
    Ok(get(slave, 4096)?)
}

cases! {
    fn tty_defaults [ioctl] {
        let (_master, slave) = terminal(|_| {})?;
        let termios = attributes(slave)?;
        same!(termios.iflag, libc::ICRNL | libc::IXON);
        same!(termios.oflag, libc::OPOST | libc::ONLCR);
        let local = libc::ISIG | libc::ICANON | libc::ECHO | libc::ECHOE | libc::ECHOK | libc::ECHOCTL | libc::ECHOKE | libc::IEXTEN;
        same!(termios.lflag, local);
        same!((termios.cc[libc::VINTR], termios.cc[libc::VEOF], termios.cc[libc::VERASE], termios.cc[libc::VMIN]), (3, 4, 127, 1));
        Ok(())
    }

    fn tty_lines_are_whole [read, write] {
        let (master, slave) = terminal(|_| {})?;
        write(master, b"hel")?;
        refused!(get(slave, 100), EAGAIN);
        same!(ready(slave, libc::POLLIN, 0)?, 0);
        same!(typed(master, slave, b"lo\nnext\n")?, b"hello\n");
        same!(get(slave, 2)?, b"ne");
        same!(get(slave, 100)?, b"xt\n");
        Ok(())
    }

    fn tty_editing [read, write] {
        let (master, slave) = terminal(|_| {})?;
        same!(typed(master, slave, b"abx\x7fc\n")?, b"abc\n");
        same!(typed(master, slave, b"all wrong\x15right\n")?, b"right\n");
        same!(typed(master, slave, b"two words\x17done\n")?, b"two done\n");
        same!(typed(master, slave, b"\x7f\x7fx\n")?, b"x\n");
        same!(typed(master, slave, b"\x16\x03\n")?, b"\x03\n");
        Ok(())
    }

    fn tty_end_of_file_key [read] {
        let (master, slave) = terminal(|_| {})?;
        same!(typed(master, slave, b"\x04")?, b"");
        same!(typed(master, slave, b"part\x04")?, b"part");
        refused!(get(slave, 10), EAGAIN);
        Ok(())
    }

    fn tty_echo [write, read] {
        let (master, slave) = terminal(|_| {})?;
        typed(master, slave, b"a\x01b\n")?;
        same!(get_all(master, 6)?, b"a^Ab\r\n");
        write(master, b"x\x7f")?;
        same!(get_all(master, 4)?, b"x\x08 \x08");
        let mut termios = attributes(slave)?;
        termios.lflag &= !libc::ECHO;
        set_attributes(slave, &termios)?;
        typed(master, slave, b"secret\n")?;
        write(slave, b"!")?;
        same!(get(master, 100)?, b"!");
        Ok(())
    }

    fn tty_output_processing [write, ioctl] {
        let (master, slave) = terminal(|_| {})?;
        same!(write(slave, b"a\nb\n")?, 4);
        same!(get_all(master, 6)?, b"a\r\nb\r\n");
        let mut termios = attributes(slave)?;
        termios.oflag &= !libc::OPOST;
        set_attributes(slave, &termios)?;
        write(slave, b"a\nb")?;
        same!(get_all(master, 3)?, b"a\nb");
        Ok(())
    }

    fn tty_input_mapping [ioctl, read] {
        let (master, slave) = terminal(|_| {})?;
        same!(typed(master, slave, b"x\r")?, b"x\n");
        let mut termios = attributes(slave)?;
        termios.iflag = libc::INLCR;
        termios.lflag &= !libc::ICANON;
        set_attributes(slave, &termios)?;
        same!(typed(master, slave, b"a\nb\r")?, b"a\rb\r");
        termios.iflag = libc::IGNCR | libc::ISTRIP;
        set_attributes(slave, &termios)?;
        same!(typed(master, slave, b"a\r\xc1")?, b"aA");
        Ok(())
    }

    fn tty_raw_bytes_at_once [read, ioctl] {
        let (master, slave) = terminal(|t| {
            t.lflag = 0;
            t.iflag = 0;
        })?;
        same!(typed(master, slave, b"\x03\x04\x7f\x15")?, b"\x03\x04\x7f\x15");
        same!(ready(slave, libc::POLLIN, 0)?, 0);
        Ok(())
    }

    fn tty_vmin_vtime [read, ioctl, fcntl] {
        let (master, slave) = terminal(|t| {
            t.lflag = 0;
            t.cc[libc::VMIN] = 0;
            t.cc[libc::VTIME] = 1;
        })?;
        sys::fcntl(slave, libc::F_SETFL, 0)?;
        // A tenth of a second without input is an empty read.
        let start = sys::clock(libc::CLOCK_MONOTONIC)?;
        same!(get(slave, 10)?, b"");
        check!(sys::clock(libc::CLOCK_MONOTONIC)? - start >= 90_000_000);
        let mut termios = attributes(slave)?;
        termios.cc[libc::VMIN] = 3;
        termios.cc[libc::VTIME] = 0;
        set_attributes(slave, &termios)?;
        let pid = sys::child(|| {
            write(master, b"a")?;
            write(master, b"b")?;
            write(master, b"c")?;
            Ok(())
        })?;
        same!(get(slave, 10)?, b"abc");
        sys::good(pid)
    }

    fn tty_window_size [ioctl] {
        let (master, slave) = terminal(|_| {})?;
        let mut size = [24u16, 80, 0, 0];
        sys::ioctl(master, libc::TIOCSWINSZ as u64, &mut size)?;
        let mut seen = [0u16; 4];
        sys::ioctl(slave, libc::TIOCGWINSZ as u64, &mut seen)?;
        same!(seen, [24, 80, 0, 0]);
        Ok(())
    }

    fn tty_window_change_signals [ioctl] {
        let (master, path) = pty()?;
        let (told, tell) = sys::pipe()?;
        let leader = sys::child(|| {
            sys::on(libc::SIGWINCH, sys::Do::Count, 0)?;
            sys!(SYS_setsid)?;
            sys::open(&path, libc::O_RDWR, 0)?;
            write(tell, b"x")?;
            sys::until(|| sys::came(libc::SIGWINCH) == 1);
            Ok(())
        })?;
        get(told, 1)?;
        let mut size = [30u16, 100, 0, 0];
        sys::ioctl(master, libc::TIOCSWINSZ as u64, &mut size)?;
        sys::good(leader)
    }

    fn tty_flush [ioctl] {
        let (master, slave) = terminal(|_| {})?;
        write(master, b"line\n")?;
        same!(ready(slave, libc::POLLIN, -1)?, libc::POLLIN);
        sys!(SYS_ioctl, slave, libc::TCFLSH as u64, libc::TCIFLUSH as usize)?;
        refused!(get(slave, 10), EAGAIN);
        Ok(())
    }

    fn tty_bytes_waiting [ioctl] {
        let (master, slave) = terminal(|_| {})?;
        let mut waiting = -1i32;
        write(master, b"abc\n")?;
        same!(ready(slave, libc::POLLIN, -1)?, libc::POLLIN);
        sys::ioctl(slave, libc::FIONREAD as u64, &mut waiting)?;
        same!(waiting, 4);
        Ok(())
    }

    fn pty_ends [close, read, write, ppoll] {
        let (master, slave) = terminal(|_| {})?;
        same!(ready(master, libc::POLLIN | libc::POLLOUT, 0)?, libc::POLLOUT);
        close(slave)?;
        refused!(get(master, 10), EIO);
        same!(ready(master, libc::POLLIN, 0)? & libc::POLLHUP, libc::POLLHUP);
        let (master, path) = pty()?;
        let slave = sys::open(&path, libc::O_RDWR | libc::O_NOCTTY, 0)?;
        write(slave, b"rest")?;
        close(slave)?;
        same!(get(master, 10)?, b"rest");
        refused!(get(master, 10), EIO);
        close(master)?;
        refused!(sys::open(&path, libc::O_RDWR | libc::O_NOCTTY, 0), ENOENT);
        Ok(())
    }

    fn pty_is_locked_first [openat, ioctl] {
        let master = sys::open("/dev/ptmx", libc::O_RDWR | libc::O_NOCTTY, 0)?;
        let mut number = 0i32;
        sys::ioctl(master, libc::TIOCGPTN as u64, &mut number)?;
        let path = format!("/dev/pts/{number}");
        refused!(sys::open(&path, libc::O_RDWR | libc::O_NOCTTY, 0), EIO);
        let stat = sys::stat(&path)?;
        same!(stat.st_mode & libc::S_IFMT, libc::S_IFCHR);
        Ok(())
    }

    fn not_a_terminal [ioctl] {
        let fd = sys::file("f", b"")?;
        let (reader, _writer) = sys::pipe()?;
        for fd in [fd, reader] {
            refused!(attributes(fd), ENOTTY);
        }
        let (_master, slave) = terminal(|_| {})?;
        refused!(sys!(SYS_ioctl, slave, 0x1234_5678u64, 0usize), ENOTTY);
        refused!(sys!(SYS_ioctl, slave, libc::TCGETS as u64, 8usize), EFAULT);
        Ok(())
    }

    fn tty_large_transfer_is_whole [read, write] {
        let (master, slave) = terminal(|t| {
            t.lflag = 0;
            t.iflag = 0;
            t.oflag = 0;
        })?;
        sys::fcntl(slave, libc::F_SETFL, 0)?;
        let bytes: Vec<u8> = (0..200_000u32).map(|n| (n % 251) as u8).collect();
        let pid = sys::child(|| -> Outcome {
            let got = sys::get_all(slave, 200_000)?;
            let at = got.iter().zip(&bytes).position(|(a, b)| a != b);
            same!((got.len(), at), (200_000, None));
            Ok(())
        })?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            rest = rest.get(write(master, rest)?..).unwrap_or_default();
        }
        sys::good(pid)
    }
}
