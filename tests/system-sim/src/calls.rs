//! What scripts do: system calls as a C library offers them, through the real entry of the kernel they run on.

use std::sync::Arc;

use hal::host::UserCpu;

use crate::{archive::DATA, env::Env, rng::Rng};

/// System calls by their x86-64 numbers.
pub mod nr {
    pub const READ: u64 = 0;
    pub const WRITE: u64 = 1;
    pub const OPEN: u64 = 2;
    pub const CLOSE: u64 = 3;
    pub const POLL: u64 = 7;
    pub const LSEEK: u64 = 8;
    pub const MMAP: u64 = 9;
    pub const RT_SIGACTION: u64 = 13;
    pub const RT_SIGPROCMASK: u64 = 14;
    pub const IOCTL: u64 = 16;
    pub const PREAD: u64 = 17;
    pub const SCHED_YIELD: u64 = 24;
    pub const DUP2: u64 = 33;
    pub const PAUSE: u64 = 34;
    pub const NANOSLEEP: u64 = 35;
    pub const GETPID: u64 = 39;
    pub const SENDMSG: u64 = 46;
    pub const RECVMSG: u64 = 47;
    pub const SOCKETPAIR: u64 = 53;
    pub const FORK: u64 = 57;
    pub const EXECVE: u64 = 59;
    pub const WAIT4: u64 = 61;
    pub const KILL: u64 = 62;
    pub const RENAME: u64 = 82;
    pub const MKDIR: u64 = 83;
    pub const RMDIR: u64 = 84;
    pub const UNLINK: u64 = 87;
    pub const SETPGID: u64 = 109;
    pub const GETPPID: u64 = 110;
    pub const SETSID: u64 = 112;
    pub const GETPGID: u64 = 121;
    pub const GETSID: u64 = 124;
    pub const RT_SIGTIMEDWAIT: u64 = 128;
    pub const PRCTL: u64 = 157;
    pub const MOUNT: u64 = 165;
    pub const REBOOT: u64 = 169;
    pub const FUTEX: u64 = 202;
    pub const CLOCK_GETTIME: u64 = 228;
    pub const PIPE2: u64 = 293;

    /// The name of one, for the trace.
    pub fn name(nr: u64) -> &'static str {
        match nr {
            READ => "read",
            WRITE => "write",
            OPEN => "open",
            CLOSE => "close",
            POLL => "poll",
            LSEEK => "lseek",
            MMAP => "mmap",
            RT_SIGACTION => "rt_sigaction",
            RT_SIGPROCMASK => "rt_sigprocmask",
            IOCTL => "ioctl",
            PREAD => "pread64",
            SCHED_YIELD => "sched_yield",
            DUP2 => "dup2",
            PAUSE => "pause",
            NANOSLEEP => "nanosleep",
            GETPID => "getpid",
            SENDMSG => "sendmsg",
            RECVMSG => "recvmsg",
            SOCKETPAIR => "socketpair",
            FORK => "fork",
            EXECVE => "execve",
            WAIT4 => "wait4",
            KILL => "kill",
            RENAME => "rename",
            MKDIR => "mkdir",
            RMDIR => "rmdir",
            UNLINK => "unlink",
            SETPGID => "setpgid",
            GETPPID => "getppid",
            SETSID => "setsid",
            GETPGID => "getpgid",
            GETSID => "getsid",
            RT_SIGTIMEDWAIT => "rt_sigtimedwait",
            PRCTL => "prctl",
            MOUNT => "mount",
            REBOOT => "reboot",
            FUTEX => "futex",
            CLOCK_GETTIME => "clock_gettime",
            PIPE2 => "pipe2",
            _ => "?",
        }
    }
}

/// Error numbers that scripts know.
pub mod errno {
    pub const EINTR: i64 = 4;
    pub const ENXIO: i64 = 6;
    pub const ESRCH: i64 = 3;
    pub const EIO: i64 = 5;
    pub const ECHILD: i64 = 10;
    pub const EAGAIN: i64 = 11;
    pub const EEXIST: i64 = 17;
    pub const ENOENT: i64 = 2;
    pub const EPIPE: i64 = 32;
    pub const ETIMEDOUT: i64 = 110;
    pub const EHOSTDOWN: i64 = 112;
}

pub const SIGINT: u64 = 2;
pub const SIGKILL: u64 = 9;
pub const SIGUSR1: u64 = 10;
pub const SIGPIPE: u64 = 13;
pub const SIGTERM: u64 = 15;

pub const O_RDWR: u64 = 2;
pub const O_WRONLY: u64 = 1;
pub const O_CREAT: u64 = 0o100;
pub const O_EXCL: u64 = 0o200;
pub const O_NOCTTY: u64 = 0o400;
pub const O_APPEND: u64 = 0o2000;

pub const POLLIN: u16 = 1;

/// Where arguments are put, in the data of the script.
const ARGS: u64 = DATA;
/// Where bytes are read to and written from.
const BUFFER: u64 = DATA + 0x8000;
/// How many at once.
pub const BUFFER_LEN: usize = 0x1_0000;
/// Where strings are put.
const STRINGS: u64 = DATA + 0x4000;
/// A page for the scripts' own words.
pub const WORDS: u64 = DATA + 0x6000;

/// What a call came to: its value, or an error number.
pub type Got = Result<i64, i64>;

/// A script ends early, because a kernel died and took something that it needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Excused;

/// What a process does; the value is its exit status.
pub type Body = Arc<dyn Fn(&mut Cpu<'_>) -> i32 + Send + Sync>;

/// A process as its script sees it.
pub struct Cpu<'a> {
    user: &'a mut UserCpu,
    /// The run.
    pub env: Arc<Env>,
    /// Its numbers.
    pub rng: Rng,
    /// What it is called in the trace.
    pub name: String,
}

/// Pads a message's control data as `CMSG_ALIGN` does.
const CMSG_HEADER: usize = 16;

impl<'a> Cpu<'a> {
    /// A process.
    pub fn new(user: &'a mut UserCpu, env: Arc<Env>, rng: Rng, name: String) -> Self {
        Self { user, env, rng, name }
    }

    /// The kernel it runs on.
    pub fn kernel(&self) -> u16 {
        self.user.kernel() as u16
    }

    /// Writes a line into the trace.
    pub fn note(&self, what: std::fmt::Arguments<'_>) {
        self.user.note(format_args!("[{}] {what}", self.name));
    }

    /// Makes a system call.
    pub fn call(&mut self, nr: u64, args: &[u64]) -> Got {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        self.note(format_args!("{}({args:x?})", nr::name(nr)));
        let result = self.user.syscall(nr, all);
        self.note(format_args!("{} = {result}", nr::name(nr)));
        if (-4095..0).contains(&result) { Err(-result) } else { Ok(result) }
    }

    /// The call must have worked, unless the death of a kernel explains that it did not.
    #[track_caller]
    pub fn must(&self, got: Got) -> Result<i64, Excused> {
        const OF_DEATHS: [i64; 5] = [errno::EHOSTDOWN, errno::EPIPE, errno::EIO, errno::ESRCH, errno::ENXIO];
        match got {
            Ok(value) => Ok(value),
            Err(error) if self.env.has_trouble() && OF_DEATHS.contains(&error) => Err(Excused),
            Err(error) => panic!("[{}] on kernel {}: error {error}", self.name, self.kernel()),
        }
    }

    /// What should be so, unless a kernel died.
    #[track_caller]
    pub fn expect(&self, holds: bool, what: impl FnOnce() -> String) -> Result<(), Excused> {
        match holds {
            true => Ok(()),
            false if self.env.has_trouble() => Err(Excused),
            false => panic!("[{}] on kernel {}: {}", self.name, self.kernel(), what()),
        }
    }

    // ---- memory ----

    fn put(&mut self, at: u64, bytes: &[u8]) {
        self.user.store(at, bytes);
    }

    fn words(&mut self, at: u64, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.put(at, &bytes);
    }

    /// A word of its memory.
    pub fn word(&mut self, at: u64) -> u32 {
        let mut b = [0; 4];
        self.user.load(at, &mut b);
        u32::from_le_bytes(b)
    }

    /// Changes a word of its memory.
    pub fn set_word(&mut self, at: u64, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    fn long(&mut self, at: u64) -> u64 {
        let mut b = [0; 8];
        self.user.load(at, &mut b);
        u64::from_le_bytes(b)
    }

    fn string(&mut self, at: u64, text: &str) -> u64 {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.put(at, &bytes);
        at
    }

    /// An argument that the program was started with; right after it started only.
    pub fn argument(&mut self, index: u64) -> String {
        let sp = self.user.sp();
        let mut at = self.long(sp + 8 + 8 * index);
        let mut text = Vec::new();
        loop {
            let mut b = [0];
            self.user.load(at, &mut b);
            if b[0] == 0 {
                return String::from_utf8_lossy(&text).into_owned();
            }
            text.push(b[0]);
            at += 1;
        }
    }

    // ---- processes ----

    /// A child that runs `body`; its pid.
    pub fn fork(&mut self, name: &str, body: impl Fn(&mut Cpu<'_>) -> i32 + Send + Sync + 'static) -> Got {
        let (env, rng, name) = (self.env.clone(), self.rng.fork(), format!("{}/{name}", self.name));
        self.note(format_args!("fork {name}"));
        let child = move |user: &mut UserCpu| body(&mut Cpu::new(user, env.clone(), rng.clone(), name.clone()));
        let result = self.user.fork(nr::FORK, [0; 6], Arc::new(child));
        self.note(format_args!("fork = {result}"));
        if result < 0 { Err(-result) } else { Ok(result) }
    }

    /// Goes on as `body` on kernel `to`, by an execve. Returns only if that failed: the error number.
    pub fn go(&mut self, to: u16, body: impl Fn(&mut Cpu<'_>) -> i32 + Send + Sync + 'static) -> i64 {
        match self.place(to) {
            Ok(()) => {}
            Err(error) => return error,
        }
        let (name, rng) = (self.name.clone(), self.rng.fork());
        let id = self.env.keep(name, rng, Arc::new(body));
        let id = id.to_string();
        let run = self.string(STRINGS, "/bin/run");
        let id = self.string(STRINGS + 0x100, &id);
        self.words(ARGS, &[run, id, 0, 0]);
        match self.call(nr::EXECVE, &[run, ARGS, ARGS + 24]) {
            Ok(value) => panic!("execve returned {value}"),
            Err(error) => error,
        }
    }

    /// Where the next execve goes on.
    fn place(&mut self, to: u16) -> Result<(), i64> {
        let fd = self.open("/proc/self/cob/placement", O_WRONLY, 0)?;
        let wrote = self.write(fd, to.to_string().as_bytes());
        self.close(fd)?;
        wrote.map(drop)
    }

    /// wait4(2): the child and its status.
    pub fn wait(&mut self, pid: i64, options: u64) -> Result<(i64, i32), i64> {
        loop {
            match self.call(nr::WAIT4, &[pid as u64, ARGS, options, 0]) {
                Err(errno::EINTR) => {}
                got => return got.map(|pid| (pid, self.word(ARGS) as i32)),
            }
        }
    }

    /// Sends a signal.
    pub fn kill(&mut self, pid: i64, signal: u64) -> Got {
        self.call(nr::KILL, &[pid as u64, signal])
    }

    /// What to do about a signal: 0 the default, 1 nothing.
    pub fn signal(&mut self, signal: u64, what: u64) -> Got {
        self.words(ARGS, &[what, 0, 0, 0]);
        self.call(nr::RT_SIGACTION, &[signal, ARGS, 0, 8])
    }

    /// Counts a signal at `at`.
    pub fn count_signal(&mut self, signal: u64, at: u64) -> Got {
        let handler = self.user.function(Arc::new(move |user: &mut UserCpu| {
            let mut b = [0; 4];
            user.load(at, &mut b);
            let count = u32::from_le_bytes(b) + 1;
            user.store(at, &count.to_le_bytes());
            0
        }));
        self.words(ARGS, &[handler, 0x0400_0000, 0x1000, 0]);
        self.call(nr::RT_SIGACTION, &[signal, ARGS, 0, 8])
    }

    /// Blocks (0) or lets through (1) signals.
    pub fn mask(&mut self, how: u64, signals: &[u64]) -> Got {
        let set = signals.iter().fold(0, |set, s| set | 1 << (s - 1));
        self.words(ARGS, &[set]);
        self.call(nr::RT_SIGPROCMASK, &[how, ARGS, 0, 8])
    }

    /// Waits for one of these signals, which are blocked, for so many ns.
    pub fn wait_signal(&mut self, signals: &[u64], ns: u64) -> Got {
        let set = signals.iter().fold(0, |set, s| set | 1 << (s - 1));
        self.words(ARGS, &[set, ns / 1_000_000_000, ns % 1_000_000_000]);
        self.call(nr::RT_SIGTIMEDWAIT, &[ARGS, 0, ARGS + 8, 8])
    }

    /// Sleeps for so many ns; less if interrupted.
    pub fn sleep(&mut self, ns: u64) -> Got {
        self.words(ARGS, &[ns / 1_000_000_000, ns % 1_000_000_000]);
        self.call(nr::NANOSLEEP, &[ARGS, 0])
    }

    /// CLOCK_MONOTONIC, ns.
    pub fn now(&mut self) -> u64 {
        let got = self.call(nr::CLOCK_GETTIME, &[1, ARGS]);
        assert!(got.is_ok(), "clock_gettime: {got:?}");
        self.long(ARGS) * 1_000_000_000 + self.long(ARGS + 8)
    }

    // ---- files ----

    /// open(2).
    pub fn open(&mut self, path: &str, flags: u64, mode: u64) -> Got {
        let path = self.string(STRINGS, path);
        self.call(nr::OPEN, &[path, flags, mode])
    }

    /// A call with one path.
    pub fn path(&mut self, nr: u64, path: &str, more: u64) -> Got {
        self.note(format_args!("{} {path}", nr::name(nr)));
        let path = self.string(STRINGS, path);
        self.call(nr, &[path, more])
    }

    /// rename(2).
    pub fn rename(&mut self, from: &str, to: &str) -> Got {
        let from = self.string(STRINGS, from);
        let to = self.string(STRINGS + 0x200, to);
        self.call(nr::RENAME, &[from, to])
    }

    /// mount(2) of a file system without a device.
    pub fn mount(&mut self, kind: &str, at: &str) -> Got {
        let kind = self.string(STRINGS, kind);
        let at = self.string(STRINGS + 0x200, at);
        self.call(nr::MOUNT, &[kind, at, kind, 0, 0])
    }

    /// close(2).
    pub fn close(&mut self, fd: i64) -> Got {
        self.call(nr::CLOSE, &[fd as u64])
    }

    /// read(2): what was read.
    pub fn read(&mut self, fd: i64, most: usize) -> Result<Vec<u8>, i64> {
        let got = self.call(nr::READ, &[fd as u64, BUFFER, most.min(BUFFER_LEN) as u64])?;
        let mut bytes = vec![0; got as usize];
        self.user.load(BUFFER, &mut bytes);
        Ok(bytes)
    }

    /// pread(2).
    pub fn read_at(&mut self, fd: i64, most: usize, at: u64) -> Result<Vec<u8>, i64> {
        let got = self.call(nr::PREAD, &[fd as u64, BUFFER, most.min(BUFFER_LEN) as u64, at])?;
        let mut bytes = vec![0; got as usize];
        self.user.load(BUFFER, &mut bytes);
        Ok(bytes)
    }

    /// write(2): how much was written.
    pub fn write(&mut self, fd: i64, bytes: &[u8]) -> Got {
        self.put(BUFFER, bytes);
        self.call(nr::WRITE, &[fd as u64, BUFFER, bytes.len() as u64])
    }

    /// Writes all of it.
    pub fn write_all(&mut self, fd: i64, bytes: &[u8]) -> Result<(), i64> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write(fd, &bytes[done..]) {
                Ok(n) => done += n as usize,
                Err(errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads exactly so much, or what there is until the end.
    pub fn read_all(&mut self, fd: i64, most: usize) -> Result<Vec<u8>, i64> {
        let mut bytes = Vec::new();
        while bytes.len() < most {
            match self.read(fd, most - bytes.len()) {
                Ok(more) if more.is_empty() => break,
                Ok(more) => bytes.extend(more),
                Err(errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    /// pipe2(2): the end to read from and the end to write to.
    pub fn pipe(&mut self, flags: u64) -> Result<(i64, i64), i64> {
        self.call(nr::PIPE2, &[ARGS, flags])?;
        Ok((i64::from(self.word(ARGS)), i64::from(self.word(ARGS + 4))))
    }

    /// A pair of stream sockets.
    pub fn socket_pair(&mut self) -> Result<(i64, i64), i64> {
        self.call(nr::SOCKETPAIR, &[1, 1, 0, ARGS])?;
        Ok((i64::from(self.word(ARGS)), i64::from(self.word(ARGS + 4))))
    }

    /// Sends bytes with a descriptor.
    pub fn send_fd(&mut self, socket: i64, bytes: &[u8], fd: i64) -> Got {
        self.put(BUFFER, bytes);
        // A cmsghdr: length, SOL_SOCKET, SCM_RIGHTS, one descriptor.
        self.words(ARGS + 0x100, &[CMSG_HEADER as u64 + 4, 1 | 1 << 32, fd as u64]);
        self.words(ARGS + 0x80, &[BUFFER, bytes.len() as u64]);
        self.words(ARGS, &[0, 0, ARGS + 0x80, 1, ARGS + 0x100, 24, 0]);
        self.call(nr::SENDMSG, &[socket as u64, ARGS, 0])
    }

    /// Receives bytes, and the descriptor that came with them.
    pub fn receive_fd(&mut self, socket: i64, most: usize) -> Result<(Vec<u8>, Option<i64>), i64> {
        self.words(ARGS + 0x100, &[0; 8]);
        self.words(ARGS + 0x80, &[BUFFER, most as u64]);
        self.words(ARGS, &[0, 0, ARGS + 0x80, 1, ARGS + 0x100, 64, 0]);
        let n = self.call(nr::RECVMSG, &[socket as u64, ARGS, 0])?;
        let mut bytes = vec![0; n as usize];
        self.user.load(BUFFER, &mut bytes);
        let control = self.long(ARGS + 40);
        let fd = (control >= CMSG_HEADER as u64 + 4).then(|| i64::from(self.word(ARGS + 0x100 + CMSG_HEADER as u64)));
        Ok((bytes, fd))
    }

    /// poll(2): which of these are ready, for what.
    pub fn poll(&mut self, fds: &[(i64, u16)], timeout_ms: i64) -> Result<Vec<u16>, i64> {
        for (i, (fd, events)) in fds.iter().enumerate() {
            self.words(ARGS + 8 * i as u64, &[*fd as u64 & 0xffff_ffff | u64::from(*events) << 32]);
        }
        self.call(nr::POLL, &[ARGS, fds.len() as u64, timeout_ms as u64])?;
        Ok((0..fds.len()).map(|i| (self.long(ARGS + 8 * i as u64) >> 48) as u16).collect())
    }

    /// ioctl(2) whose argument is a number in memory.
    pub fn ioctl(&mut self, fd: i64, request: u64, value: u32) -> Result<u32, i64> {
        self.set_word(ARGS, value);
        self.call(nr::IOCTL, &[fd as u64, request, ARGS])?;
        Ok(self.word(ARGS))
    }

    /// ioctl(2) whose argument is a number.
    pub fn ioctl_value(&mut self, fd: i64, request: u64, value: u64) -> Got {
        self.call(nr::IOCTL, &[fd as u64, request, value])
    }

    /// A page that children share.
    pub fn shared_page(&mut self) -> Got {
        self.call(nr::MMAP, &[0, 4096, 3, 0x21, u64::MAX, 0])
    }

    /// futex(2): waits while the word is `value`, for so many ns.
    pub fn futex_wait(&mut self, at: u64, value: u32, ns: u64) -> Got {
        self.words(ARGS, &[ns / 1_000_000_000, ns % 1_000_000_000]);
        self.call(nr::FUTEX, &[at, 0, u64::from(value), ARGS])
    }

    /// futex(2): wakes so many.
    pub fn futex_wake(&mut self, at: u64, most: u32) -> Got {
        self.call(nr::FUTEX, &[at, 1, u64::from(most)])
    }
}
