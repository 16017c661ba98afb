//! `abi child between STEP…`: sockets, locks and FIFOs, one step after the other, for tests in which the processes at both ends run wherever the test
//! wants them. Prints what steps say, one a line; the exit status is 0, or 1 and the step that failed.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, RawFd},
        linux::net::SocketAddrExt,
        unix::fs::OpenOptionsExt,
        unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
    },
    process::ExitCode,
};

/// What the steps go by.
#[derive(Default)]
struct Ends {
    listener: Option<UnixListener>,
    stream: Option<UnixStream>,
    datagrams: Option<UnixDatagram>,
    files: BTreeMap<String, File>,
    got: Vec<File>,
}

type Done = Result<(), String>;

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// Does what the words say.
pub fn run(words: &[&str]) -> ExitCode {
    let mut ends = Ends::default();
    for word in words {
        if let Err(why) = ends.step(word) {
            eprintln!("{word}: {why}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// `@NAME` is abstract.
fn address(name: &str) -> Result<SocketAddr, String> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).map_err(text),
        None => SocketAddr::from_pathname(name).map_err(text),
    }
}

fn shown(address: &SocketAddr) -> String {
    match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => path.display().to_string(),
        (_, Some(name)) => format!("@{}", String::from_utf8_lossy(name)),
        _ => "-".into(),
    }
}

fn pattern(at: usize) -> u8 {
    (at * 7 + at / 251) as u8
}

impl Ends {
    fn stream(&mut self) -> Result<&mut UnixStream, String> {
        self.stream.as_mut().ok_or("no connection".into())
    }

    fn datagrams(&self) -> Result<&UnixDatagram, String> {
        self.datagrams.as_ref().ok_or("no socket for datagrams".into())
    }

    fn file(&mut self, path: &str) -> Result<&File, String> {
        if !self.files.contains_key(path) {
            let file = OpenOptions::new().read(true).write(true).open(path).map_err(text)?;
            self.files.insert(path.into(), file);
        }
        self.files.get(path).ok_or("gone".into())
    }

    /// A lock on bytes `a:b` (start, length) of a file.
    fn lock(&mut self, command: i32, kind: i32, rest: &str) -> Result<libc::flock, std::io::Error> {
        let other = |why: String| std::io::Error::other(why);
        let mut words = rest.split(':');
        let path = words.next().unwrap_or_default();
        let mut number = || words.next().and_then(|n| n.parse::<i64>().ok()).unwrap_or(0);
        let fd = self.file(path).map_err(other)?.as_raw_fd();
        // SAFETY: all zeroes is a valid struct of numbers.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = kind as i16;
        (lock.l_start, lock.l_len) = (number(), number());
        // SAFETY: the struct lives until the call returns.
        if unsafe { libc::fcntl(fd, command, &raw mut lock) } < 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(lock)
    }

    fn step(&mut self, word: &str) -> Done {
        let (verb, rest) = word.split_once(':').unwrap_or((word, ""));
        match verb {
            "listen" => self.listener = Some(UnixListener::bind_addr(&address(rest)?).map_err(text)?),
            "accept" => {
                let listener = self.listener.as_ref().ok_or("no listener")?;
                self.stream = Some(listener.accept().map_err(text)?.0);
            }
            "connect" => self.stream = Some(UnixStream::connect_addr(&address(rest)?).map_err(text)?),
            "refused" => match UnixStream::connect_addr(&address(rest)?) {
                Err(e) if e.raw_os_error() == Some(libc::ECONNREFUSED) => println!("refused"),
                other => return Err(format!("{other:?}")),
            },
            "taken" => match UnixListener::bind_addr(&address(rest)?) {
                Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE) => println!("taken"),
                other => return Err(format!("{other:?}")),
            },
            "put" => self.stream()?.write_all(rest.as_bytes()).map_err(text)?,
            "get" => {
                let mut bytes = vec![0; rest.parse().map_err(text)?];
                self.stream()?.read_exact(&mut bytes).map_err(text)?;
                println!("{}", String::from_utf8_lossy(&bytes));
            }
            "bulk" => {
                let bytes: Vec<u8> = (0..rest.parse().map_err(text)?).map(pattern).collect();
                self.stream()?.write_all(&bytes).map_err(text)?;
            }
            "sink" => {
                let mut bytes = vec![0; rest.parse().map_err(text)?];
                self.stream()?.read_exact(&mut bytes).map_err(text)?;
                println!("{}", bytes.iter().enumerate().all(|(at, byte)| *byte == pattern(at)));
            }
            "end" => {
                let n = self.stream()?.read(&mut [0; 16]).map_err(text)?;
                println!("{n}");
            }
            "close" => *self = Self::default(),
            "peer" => println!("{}", peer(self.stream()?.as_raw_fd())?),
            "bind" => self.datagrams = Some(UnixDatagram::bind_addr(&address(rest)?).map_err(text)?),
            "send" => {
                let (to, what) = rest.split_once(':').ok_or("to whom")?;
                let bytes: Vec<u8> = match what.parse() {
                    Ok(length) => (0..length).map(pattern).collect(),
                    Err(_) => what.as_bytes().to_vec(),
                };
                self.datagrams()?.send_to_addr(&bytes, &address(to)?).map_err(text)?;
            }
            "receive" => {
                let mut bytes = vec![0; 300_000];
                let (n, from) = self.datagrams()?.recv_from(&mut bytes).map_err(text)?;
                let right = bytes.iter().take(n).enumerate().all(|(at, byte)| *byte == pattern(at));
                match bytes.get(..n).unwrap_or_default() {
                    long if n > 100 => println!("{} {right} from {}", long.len(), shown(&from)),
                    short => println!("{} from {}", String::from_utf8_lossy(short), shown(&from)),
                }
            }
            "give" => {
                let fd = self.file(rest)?.as_raw_fd();
                send_fd(self.stream()?.as_raw_fd(), fd)?;
            }
            "take" => {
                let fd = receive_fd(self.stream()?.as_raw_fd())?;
                // SAFETY: it was received a moment ago: nobody else closes it.
                self.got.push(unsafe { File::from_raw_fd(fd) });
            }
            "read" => {
                let mut text_ = String::new();
                self.got.last().ok_or("nothing was taken")?.read_to_string(&mut text_).map_err(text)?;
                println!("{}", text_.trim_end());
            }
            "write" => self.got.last().ok_or("nothing was taken")?.write_all(rest.as_bytes()).map_err(text)?,
            "lock" => drop(self.lock(libc::F_SETLKW, libc::F_WRLCK, rest).map_err(text)?),
            "unlock" => drop(self.lock(libc::F_SETLK, libc::F_UNLCK, rest).map_err(text)?),
            "try" => match self.lock(libc::F_SETLK, libc::F_WRLCK, rest) {
                Ok(_) => println!("got"),
                Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => println!("not now"),
                Err(e) => return Err(text(e)),
            },
            // Whether somebody has it, and that he is a process.
            "who" => {
                let lock = self.lock(libc::F_GETLK, libc::F_WRLCK, rest).map_err(text)?;
                let there = std::path::Path::new(&format!("/proc/{}", lock.l_pid)).exists();
                println!(
                    "{}",
                    if i32::from(lock.l_type) == libc::F_UNLCK {
                        "nobody"
                    } else if there {
                        "a process"
                    } else {
                        "a ghost"
                    }
                );
            }
            // Two that wait for each other: one of them is told.
            "circle-or-lock" => match self.lock(libc::F_SETLKW, libc::F_WRLCK, rest) {
                Ok(_) => println!("got it"),
                Err(e) if e.raw_os_error() == Some(libc::EDEADLK) => println!("a circle"),
                Err(e) => return Err(text(e)),
            },
            // Through a FIFO, so that one waits for the other.
            "tell" => File::create(rest).and_then(|mut fifo| fifo.write_all(b".")).map_err(text)?,
            "hear" => drop(File::open(rest).and_then(|mut fifo| fifo.read(&mut [0])).map_err(text)?),
            // Whether a FIFO has a reader: the open of one without fails at once.
            "readers" => {
                let open = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(rest);
                println!("{}", if open.is_ok() { "somebody reads" } else { "nobody reads" });
            }
            "say" => println!("{rest}"),
            "hold" => loop {
                std::thread::park();
            },
            _ => return Err("no such step".into()),
        }
        Ok(())
    }
}

fn peer(fd: RawFd) -> Result<String, String> {
    // SAFETY: all zeroes is a valid struct of numbers.
    let mut who: libc::ucred = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: both live until the call returns.
    let result =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut who).cast(), &raw mut length) };
    if result < 0 {
        return Err(text(std::io::Error::last_os_error()));
    }
    let there = std::path::Path::new(&format!("/proc/{}", who.pid)).exists();
    Ok(format!("{} {} {there}", who.uid, who.gid))
}

/// Room for one descriptor, aligned as a `cmsghdr` wants it.
#[repr(align(8))]
struct Control([u8; 24]);

fn message<'a>(part: &'a mut libc::iovec, control: &'a mut Control) -> libc::msghdr {
    // SAFETY: all zeroes is a valid struct of numbers and null pointers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    message
}

fn send_fd(socket: RawFd, fd: RawFd) -> Done {
    let mut byte = *b"f";
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = Control([0; 24]);
    control.0[..8].copy_from_slice(&20_u64.to_le_bytes());
    control.0[8..12].copy_from_slice(&libc::SOL_SOCKET.to_le_bytes());
    control.0[12..16].copy_from_slice(&libc::SCM_RIGHTS.to_le_bytes());
    control.0[16..20].copy_from_slice(&fd.to_le_bytes());
    let message = message(&mut part, &mut control);
    // SAFETY: what the message points to lives until the call returns.
    if unsafe { libc::sendmsg(socket, &raw const message, 0) } == 1 {
        Ok(())
    } else {
        Err(text(std::io::Error::last_os_error()))
    }
}

fn receive_fd(socket: RawFd) -> Result<RawFd, String> {
    let mut byte = [0; 1];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = Control([0; 24]);
    let mut message = message(&mut part, &mut control);
    // SAFETY: what the message points to lives until the call returns.
    if unsafe { libc::recvmsg(socket, &raw mut message, 0) } != 1 {
        return Err(text(std::io::Error::last_os_error()));
    }
    let bytes = control.0.get(16..20).and_then(|b| b.try_into().ok()).filter(|_| message.msg_controllen as usize >= 20);
    bytes.map(RawFd::from_le_bytes).ok_or("no descriptor came".into())
}
