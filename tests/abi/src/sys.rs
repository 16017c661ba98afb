//! System calls without a library between: numbers in, numbers or an error out.
//!
//! Descriptors and process ids are plain numbers, because tests use closed and wrong ones too; all are gone with the case's process.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering::SeqCst};

use linux_abi::Errno;

use crate::case::{Fail, Outcome, wrong};

/// What a system call gives.
pub type Sys<T = i64> = Result<T, Errno>;

/// Splits what a call of the C library returned.
pub fn result(ret: i64) -> Sys {
    if ret != -1 {
        return Ok(ret);
    }
    let nr = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    Err(u16::try_from(nr).ok().and_then(Errno::from_number).unwrap_or(Errno::EIO))
}

/// An argument of a system call.
pub trait Word {
    /// What goes into the register.
    fn word(self) -> usize;
}

macro_rules! words {
    ($($number:ty)*) => {
        $(impl Word for $number {
            fn word(self) -> usize {
                self as usize
            }
        })*
    };
}

words!(i32 u32 i64 u64 usize);

impl<T> Word for *const T {
    fn word(self) -> usize {
        self as usize
    }
}

impl<T> Word for *mut T {
    fn word(self) -> usize {
        self as usize
    }
}

/// Calls the kernel; see [`sys!`].
pub fn call(number: libc::c_long, args: &[usize]) -> Sys {
    let arg = |at: usize| args.get(at).copied().unwrap_or(0);
    // SAFETY: cases pass addresses of memory that lives through the call, or of none, which the kernel must refuse.
    result(unsafe { libc::syscall(number, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) })
}

/// Calls the kernel: `sys!(SYS_close, fd)`.
#[macro_export]
macro_rules! sys {
    ($name:ident $(, $arg:expr)* $(,)?) => {
        $crate::sys::call(::libc::$name, &[$($crate::sys::Word::word($arg)),*])
    };
}

/// A C string from a literal or a path.
pub fn c(text: &str) -> std::ffi::CString {
    std::ffi::CString::new(text).unwrap_or_default()
}

/// `pipe2`: the end to read and the end to write.
pub fn pipe2(flags: i32) -> Sys<(i32, i32)> {
    let mut fds = [0i32; 2];
    sys!(SYS_pipe2, fds.as_mut_ptr(), flags)?;
    Ok((fds[0], fds[1]))
}

/// `pipe2` without flags.
pub fn pipe() -> Sys<(i32, i32)> {
    pipe2(0)
}

/// `read`.
pub fn read(fd: i32, into: &mut [u8]) -> Sys<usize> {
    Ok(sys!(SYS_read, fd, into.as_mut_ptr(), into.len())? as usize)
}

/// `read` of at most `n` bytes, as a vector.
pub fn get(fd: i32, n: usize) -> Sys<Vec<u8>> {
    let mut bytes = vec![0; n];
    let got = read(fd, &mut bytes)?;
    bytes.truncate(got);
    Ok(bytes)
}

/// Reads until there are `n` bytes or an end.
pub fn get_all(fd: i32, n: usize) -> Sys<Vec<u8>> {
    let mut all = Vec::new();
    while all.len() < n {
        match get(fd, n - all.len()) {
            Ok(part) if part.is_empty() => break,
            Ok(part) => all.extend(part),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(all)
}

/// `write`.
pub fn write(fd: i32, bytes: &[u8]) -> Sys<usize> {
    Ok(sys!(SYS_write, fd, bytes.as_ptr(), bytes.len())? as usize)
}

/// `close`.
pub fn close(fd: i32) -> Sys {
    sys!(SYS_close, fd)
}

/// `openat` in the working directory.
pub fn open(path: &str, flags: i32, mode: u32) -> Sys<i32> {
    Ok(sys!(SYS_openat, libc::AT_FDCWD, c(path).as_ptr(), flags, mode)? as i32)
}

/// A new file with this content, open for reading and writing at its start.
pub fn file(path: &str, content: &[u8]) -> Sys<i32> {
    let fd = open(path, libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC, 0o644)?;
    let mut rest = content;
    while !rest.is_empty() {
        rest = rest.get(write(fd, rest)?..).unwrap_or_default();
    }
    seek(fd, 0, libc::SEEK_SET)?;
    Ok(fd)
}

/// `lseek`.
pub fn seek(fd: i32, to: i64, whence: i32) -> Sys {
    sys!(SYS_lseek, fd, to, whence)
}

/// `fstat`.
pub fn stat_of(fd: i32) -> Sys<libc::stat> {
    stat_at(fd, "", libc::AT_EMPTY_PATH)
}

/// `newfstatat`.
pub fn stat_at(dir: i32, path: &str, flags: i32) -> Sys<libc::stat> {
    // SAFETY: all zeroes is a valid struct of numbers.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the pointers are to live values. Through the C library, whose struct is not the kernel's on every ISA.
    result(unsafe { libc::fstatat(dir, c(path).as_ptr(), &mut stat, flags) }.into())?;
    Ok(stat)
}

/// `newfstatat` in the working directory, following links.
pub fn stat(path: &str) -> Sys<libc::stat> {
    stat_at(libc::AT_FDCWD, path, 0)
}

/// `fcntl` with a number.
pub fn fcntl(fd: i32, command: i32, arg: i64) -> Sys {
    sys!(SYS_fcntl, fd, command, arg)
}

/// `ioctl` with something that is read or written.
pub fn ioctl<T>(fd: i32, request: u64, value: &mut T) -> Sys {
    sys!(SYS_ioctl, fd, request, std::ptr::from_mut(value))
}

/// `getpid`.
pub fn pid() -> i32 {
    std::process::id() as i32
}

/// Where a child says why it failed, if anywhere.
pub static REASON: AtomicI32 = AtomicI32::new(-1);

/// Ends this process at once.
pub fn exit(code: i32) -> ! {
    // SAFETY: ends the process; nothing is left to be broken.
    unsafe { libc::_exit(code) }
}

/// Starts a child that ends with 0 if the closure is content, else says why and ends with 1.
pub fn child(run: impl FnOnce() -> Outcome) -> Sys<i32> {
    // SAFETY: cases fork only while they have one thread.
    match result(unsafe { libc::fork() }.into())? {
        0 => {
            let code = match run() {
                Ok(()) => 0,
                Err(Fail::Wrong(text) | Fail::Skip(text)) => {
                    let _ = write(REASON.load(SeqCst), format!("in a child: {text}; ").as_bytes());
                    1
                }
            };
            exit(code)
        }
        pid => Ok(pid as i32),
    }
}

/// A wait status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Exited(i32),
    Killed(i32),
    Stopped(i32),
    Continued,
}

/// `wait4` for one process with these options; none with `WNOHANG` and nothing to tell.
pub fn wait_with(pid: i32, options: i32) -> Sys<Option<(i32, Status)>> {
    let mut status = 0i32;
    let got = sys!(SYS_wait4, pid, &raw mut status, options, 0usize)? as i32;
    let what = if libc::WIFEXITED(status) {
        Status::Exited(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Status::Killed(libc::WTERMSIG(status))
    } else if libc::WIFCONTINUED(status) {
        Status::Continued
    } else {
        Status::Stopped(libc::WSTOPSIG(status))
    };
    Ok((got != 0).then_some((got, what)))
}

/// Waits until this child has ended, or stopped with `WUNTRACED`.
pub fn wait(pid: i32, options: i32) -> Sys<Status> {
    loop {
        match wait_with(pid, options) {
            Ok(Some((_, status))) => return Ok(status),
            Ok(None) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Waits for a child that must end with 0.
#[track_caller]
pub fn good(pid: i32) -> Outcome {
    match wait(pid, 0) {
        Ok(Status::Exited(0)) => Ok(()),
        other => Err(wrong(format!("a child ended with {other:?}"))),
    }
}

/// `kill`.
pub fn kill(pid: i32, signal: i32) -> Sys {
    sys!(SYS_kill, pid, signal)
}

/// How often each signal came to [`count`].
pub static CAME: [AtomicU32; 65] = [const { AtomicU32::new(0) }; 65];
/// Numbers that a case and its handlers tell each other.
pub static SPARE: [AtomicU32; 4] = [const { AtomicU32::new(0) }; 4];
/// `si_code`, `si_pid` and `si_value` of the last signal.
pub static LAST: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];
/// The signals in the order in which they came, with their value: `signal << 32 | value`.
pub static ORDER: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];
/// How many there are in [`ORDER`].
pub static ORDERED: AtomicUsize = AtomicUsize::new(0);

/// The handler that counts.
pub extern "C" fn count(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a siginfo, as SA_SIGINFO asks for it; all fields are numbers.
    let (code, pid, value) = unsafe { ((*info).si_code, (*info).si_pid(), (*info).si_value().sival_ptr as u64) };
    LAST[0].store(code as u64, SeqCst);
    LAST[1].store(pid as u64, SeqCst);
    LAST[2].store(value, SeqCst);
    let at = ORDERED.fetch_add(1, SeqCst);
    if let Some(entry) = ORDER.get(at) {
        entry.store((signal as u64) << 32 | (value & 0xffff_ffff), SeqCst);
    }
    if let Some(count) = CAME.get(signal as usize) {
        count.fetch_add(1, SeqCst);
    }
}

/// How often this signal came.
pub fn came(signal: i32) -> u32 {
    CAME.get(signal as usize).map_or(0, |count| count.load(SeqCst))
}

/// What happens with a signal.
#[derive(Clone, Copy, Debug)]
pub enum Do {
    Default,
    Ignore,
    Count,
    Call(extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void)),
}

/// `sigaction`.
pub fn on(signal: i32, what: Do, flags: i32) -> Sys<libc::sigaction> {
    on_masked(signal, what, flags, &[])
}

/// `sigaction` with signals that are blocked in the handler.
pub fn on_masked(signal: i32, what: Do, flags: i32, blocked: &[i32]) -> Sys<libc::sigaction> {
    // SAFETY: all zeroes is a valid struct of numbers.
    let (mut action, mut old): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
    action.sa_sigaction = match what {
        Do::Default => libc::SIG_DFL,
        Do::Ignore => libc::SIG_IGN,
        Do::Count => count as extern "C" fn(_, _, _) as usize,
        Do::Call(handler) => handler as usize,
    };
    action.sa_mask = set(blocked);
    action.sa_flags = flags | libc::SA_SIGINFO;
    // SAFETY: live structs, and handlers that only touch atomics. Through the C library, which provides the restorer.
    result(unsafe { libc::sigaction(signal, &action, &mut old) }.into())?;
    Ok(old)
}

/// A set of signals.
pub fn set(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: the set is on the stack.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        set
    }
}

/// The set as the kernel has it: signal `n` is bit `n - 1`.
pub fn bits(signals: &[i32]) -> u64 {
    signals.iter().fold(0, |all, signal| all | 1 << (signal - 1))
}

/// `rt_sigprocmask`; gives the old mask.
pub fn mask(how: i32, signals: &[i32]) -> Sys<u64> {
    let (new, mut old) = (bits(signals), 0u64);
    sys!(SYS_rt_sigprocmask, how, &raw const new, &raw mut old, 8usize)?;
    Ok(old)
}

/// `rt_sigpending`.
pub fn pending() -> Sys<u64> {
    let mut pending = 0u64;
    sys!(SYS_rt_sigpending, &raw mut pending, 8usize)?;
    Ok(pending)
}

/// A `timespec` of milliseconds.
pub fn ms(ms: i64) -> libc::timespec {
    libc::timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 }
}

/// `clock_gettime` in nanoseconds, by the system call and not the vDSO.
pub fn clock(id: i32) -> Sys {
    let mut time = ms(0);
    sys!(SYS_clock_gettime, id, &raw mut time)?;
    Ok(time.tv_sec * 1_000_000_000 + time.tv_nsec)
}

/// `setitimer(ITIMER_REAL)` that fires again and again: whoever waits is disturbed sooner or later, without a race.
pub fn pester(every_ms: i64) -> Sys {
    let time = libc::timeval { tv_sec: 0, tv_usec: every_ms * 1000 };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    sys!(SYS_setitimer, libc::ITIMER_REAL, &raw const timer, 0usize)
}

/// `ppoll` of one descriptor: what holds of it, at once or after `timeout_ms` (-1 is for ever).
pub fn ready(fd: i32, events: i16, timeout_ms: i64) -> Sys<i16> {
    let mut poll = libc::pollfd { fd, events, revents: 0 };
    let timeout = ms(timeout_ms.max(0));
    let pointer = if timeout_ms < 0 { std::ptr::null() } else { &raw const timeout };
    sys!(SYS_ppoll, &raw mut poll, 1u64, pointer, 0usize, 8usize)?;
    Ok(poll.revents)
}

/// `mmap`.
pub fn mmap(addr: usize, length: usize, prot: i32, flags: i32, fd: i32, offset: i64) -> Sys<usize> {
    Ok(sys!(SYS_mmap, addr, length, prot, flags, fd, offset)? as usize)
}

/// Anonymous private memory, readable and writable.
pub fn anon(length: usize) -> Sys<usize> {
    mmap(0, length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
}

/// Anonymous memory that children share.
pub fn shared(length: usize) -> Sys<usize> {
    mmap(0, length, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0)
}

/// The byte at an address that the case mapped. Faults if it is not.
pub fn peek(addr: usize) -> u8 {
    // SAFETY: cases give addresses that they mapped themselves, or want the fault.
    unsafe { (addr as *const u8).read_volatile() }
}

/// Sets the byte at an address that the case mapped. Faults if it is not.
pub fn poke(addr: usize, value: u8) {
    // SAFETY: cases give addresses that they mapped themselves and where no Rust object lies, or want the fault.
    unsafe { (addr as *mut u8).write_volatile(value) }
}

/// A word in shared memory, as an atomic.
pub fn word(addr: usize) -> &'static AtomicU32 {
    // SAFETY: cases give aligned addresses of memory that stays mapped until they end.
    unsafe { AtomicU32::from_ptr(addr as *mut u32) }
}

/// The path of this program, absolute.
pub fn me() -> String {
    std::env::var("ABI_SELF").unwrap_or_default()
}

/// `execve` of this program as `abi child WORDS…`.
pub fn exec_me(words: &[&str]) -> Sys {
    let path = c(&me());
    let owned: Vec<_> = ["abi", "child"].iter().chain(words).map(|word| c(word)).collect();
    let argv: Vec<_> = owned.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
    let name = c(&format!("ABI_SELF={}", me()));
    let envp = [name.as_ptr(), std::ptr::null()];
    sys!(SYS_execve, path.as_ptr(), argv.as_ptr(), envp.as_ptr())
}

/// `execve` of any program.
pub fn exec(path: &str, argv: &[&str], envp: &[&str]) -> Sys {
    let owned: Vec<_> = argv.iter().map(|word| c(word)).collect();
    let argv: Vec<_> = owned.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
    let owned_env: Vec<_> = envp.iter().map(|word| c(word)).collect();
    let envp: Vec<_> = owned_env.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
    sys!(SYS_execve, c(path).as_ptr(), argv.as_ptr(), envp.as_ptr())
}

/// The fields of `/proc/PID/stat` after the name: state, ppid, pgrp, session, tty, foreground group, ...
pub fn proc_stat(pid: i32) -> Result<Vec<String>, Fail> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = text.rsplit_once(')').ok_or_else(|| wrong("no ) in /proc/PID/stat"))?;
    Ok(rest.split_whitespace().map(String::from).collect())
}

/// Gives the CPU away until the condition holds. For conditions that only another process' progress can make true.
pub fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

/// A call by its name, for those that only some ISAs have; none where this one does not.
pub fn named(call: linux_abi::Call, args: &[usize]) -> Option<Sys> {
    let isa = linux_abi::Isa::ALL.into_iter().find(|isa| isa.name() == std::env::consts::ARCH)?;
    let number = call.number(isa)?;
    Some(self::call(number.into(), args))
}

/// Calls the kernel by the name of a call that only some ISAs have: `old!(Open, path, flags)`. Skips the case where this one does not.
#[macro_export]
macro_rules! old {
    ($name:ident $(, $arg:expr)* $(,)?) => {
        match $crate::sys::named(linux_abi::Call::$name, &[$($crate::sys::Word::word($arg)),*]) {
            Some(result) => result,
            None => return Err($crate::case::Fail::Skip(concat!(stringify!($name), " is not a call of this ISA").into())),
        }
    };
}

/// The next program that this process executes runs on another kernel, where there is one. Linux has no such file.
pub fn elsewhere() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(here) = status.lines().find_map(|line| line.strip_prefix("CobKernel:")) {
        let other = if here.trim() == "0" { "1\n" } else { "0\n" };
        // A machine of one kernel refuses; then the program stays.
        let _: std::io::Result<()> = std::fs::write("/proc/self/cob/placement", other);
    }
}
