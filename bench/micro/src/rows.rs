//! What is timed.

use std::{ffi::CString, io};

use crate::counter;

/// Does so many operations.
pub type Operation = Box<dyn FnMut(u64) -> io::Result<()>>;

/// One line of the result.
pub struct Row {
    /// Its name in results and gates.
    pub name: &'static str,
    /// What one operation is.
    pub what: &'static str,
    /// Operations per batch.
    pub count: u64,
    /// Makes what the operation needs.
    pub setup: fn() -> io::Result<Operation>,
}

/// Rows that need one CPU.
pub const SINGLE: &[Row] = &[
    Row { name: "null_syscall", what: "getppid", count: 20_000, setup: null_syscall },
    Row { name: "read_zero", what: "read of 1 byte from /dev/zero", count: 10_000, setup: read_zero },
    Row { name: "stat", what: "stat of a file three levels deep", count: 5_000, setup: stat },
    Row { name: "open_close", what: "open and close of that file", count: 5_000, setup: open_close },
    Row { name: "page_fault", what: "first write to an anonymous page", count: 2_048, setup: page_fault },
    Row { name: "mmap_munmap", what: "mmap, one write, munmap of 64 KiB", count: 2_000, setup: mmap_munmap },
    Row { name: "pipe_round_trip", what: "1 byte to a child and back by pipes", count: 2_000, setup: pipe_round_trip },
    Row {
        name: "unix_round_trip",
        what: "1 byte to a child and back by a unix stream",
        count: 2_000,
        setup: unix_round_trip,
    },
    Row { name: "futex", what: "a wake and a wait on a futex shared with a child", count: 2_000, setup: futex },
    Row { name: "fork_exit_wait", what: "fork, exit of the child, wait", count: 200, setup: fork_exit_wait },
    Row { name: "fork_exec_wait", what: "fork, exec of this static program, wait", count: 100, setup: fork_exec_wait },
];

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Nanoseconds since the machine was switched on. The counter begins there (the emulator's does), whatever the kernel makes of it; its rate is measured
/// against the kernel's clock.
pub fn since_power_on() -> f64 {
    const WATCHED: u64 = 20_000_000;
    let (now, start) = (counter::ticks(), crate::now_ns());
    let mut end = start;
    while end < start + WATCHED {
        end = crate::now_ns();
    }
    now as f64 * (end - start) as f64 / (counter::ticks() - now) as f64
}

/// Switches the machine off; only pid 1 calls it.
pub fn power_off() -> ! {
    // SAFETY: sync and reboot have no memory effects.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
    loop {
        std::thread::park();
    }
}

/// A directory that can be written: the tree's root as pid 1 of an initramfs, else /tmp.
fn place() -> &'static str {
    if std::path::Path::new("/tmp").is_dir() { "/tmp" } else { "" }
}

fn null_syscall() -> io::Result<Operation> {
    Ok(Box::new(|n| {
        for _ in 0..n {
            // SAFETY: getppid has no arguments and no memory effects.
            unsafe { libc::syscall(libc::SYS_getppid) };
        }
        Ok(())
    }))
}

fn open(path: &CString, flags: i32) -> io::Result<i32> {
    // SAFETY: `path` is a NUL-terminated string.
    check(unsafe { libc::open(path.as_ptr(), flags, 0o644) }.into()).map(|fd| fd as i32)
}

fn read_zero() -> io::Result<Operation> {
    // SAFETY: makes a device node; fails harmlessly where it exists.
    unsafe {
        libc::mkdir(c"/dev".as_ptr(), 0o755);
        libc::mknod(c"/dev/zero".as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, 5));
    }
    let fd = open(&CString::from(c"/dev/zero"), libc::O_RDONLY)?;
    Ok(Box::new(move |n| {
        let mut byte = 0_u8;
        for _ in 0..n {
            // SAFETY: one byte fits.
            check(unsafe { libc::read(fd, (&raw mut byte).cast(), 1) } as libc::c_long)?;
        }
        Ok(())
    }))
}

fn deep_file() -> io::Result<CString> {
    let directory = format!("{}/bench-micro/a", place());
    std::fs::create_dir_all(&directory)?;
    let path = format!("{directory}/file");
    std::fs::write(&path, "x")?;
    Ok(CString::new(path)?)
}

fn stat() -> io::Result<Operation> {
    let path = deep_file()?;
    Ok(Box::new(move |n| {
        // SAFETY: all zero is a valid stat.
        let mut st: libc::stat = unsafe { std::mem::zeroed() };
        for _ in 0..n {
            // SAFETY: path and buffer are valid.
            check(unsafe { libc::stat(path.as_ptr(), &mut st) }.into())?;
        }
        Ok(())
    }))
}

fn open_close() -> io::Result<Operation> {
    let path = deep_file()?;
    Ok(Box::new(move |n| {
        for _ in 0..n {
            let fd = open(&path, libc::O_RDONLY)?;
            // SAFETY: `fd` is ours.
            unsafe { libc::close(fd) };
        }
        Ok(())
    }))
}

fn map(length: usize, flags: i32) -> io::Result<*mut u8> {
    // SAFETY: a new anonymous mapping.
    let at = unsafe {
        libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags | libc::MAP_ANONYMOUS, -1, 0)
    };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast()) }
}

fn unmap(at: *mut u8, length: usize) {
    // SAFETY: the range was mapped by `map` and nobody uses it any more.
    unsafe { libc::munmap(at.cast(), length) };
}

/// First writes to so many pages.
pub fn page_fault() -> io::Result<Operation> {
    Ok(Box::new(|n| {
        let length = n as usize * 4096;
        let at = map(length, libc::MAP_PRIVATE)?;
        for page in 0..n as usize {
            // SAFETY: inside the mapping.
            unsafe { at.add(page * 4096).write_volatile(1) };
        }
        unmap(at, length);
        Ok(())
    }))
}

fn mmap_munmap() -> io::Result<Operation> {
    Ok(Box::new(|n| {
        for _ in 0..n {
            let at = map(65_536, libc::MAP_PRIVATE)?;
            // SAFETY: inside the mapping.
            unsafe { at.write_volatile(1) };
            unmap(at, 65_536);
        }
        Ok(())
    }))
}

/// Forks; the child runs `child` and never returns.
pub fn fork(child: impl FnOnce()) -> io::Result<i32> {
    // SAFETY: this program has one thread.
    let pid = check(unsafe { libc::fork() }.into())? as i32;
    if pid == 0 {
        child();
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(0) };
    }
    Ok(pid)
}

/// Binds this process to a CPU.
pub fn pin(cpu: Option<usize>) {
    if let Some(cpu) = cpu {
        // SAFETY: `set` is a valid CPU set.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(cpu, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
        }
    }
}

/// Writes or reads one byte.
pub fn one_byte(fd: i32, write: bool) -> io::Result<()> {
    let mut byte = 1_u8;
    // SAFETY: one byte is valid for both.
    let done = unsafe {
        if write { libc::write(fd, (&raw const byte).cast(), 1) } else { libc::read(fd, (&raw mut byte).cast(), 1) }
    };
    if done == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Echoes until the other end closes.
fn echo(from: i32, to: i32) {
    while one_byte(from, false).is_ok() && one_byte(to, true).is_ok() {}
}

/// Round trips between this process and a child, on these CPUs.
pub fn round_trip(to_child: [i32; 2], to_parent: [i32; 2], cpus: [Option<usize>; 2]) -> io::Result<Operation> {
    fork(|| {
        pin(cpus[1]);
        // SAFETY: the child's copies of the parent's ends; with one socket pair there is only one to close.
        unsafe {
            libc::close(to_child[1]);
            if to_parent[0] != to_child[1] {
                libc::close(to_parent[0]);
            }
        }
        echo(to_child[0], to_parent[1]);
    })?;
    pin(cpus[0]);
    // SAFETY: the parent's copies of the child's ends.
    unsafe {
        libc::close(to_child[0]);
        if to_parent[1] != to_child[0] {
            libc::close(to_parent[1]);
        }
    }
    Ok(Box::new(move |n| {
        for _ in 0..n {
            one_byte(to_child[1], true)?;
            one_byte(to_parent[0], false)?;
        }
        Ok(())
    }))
}

/// The two ends of a new pipe.
pub fn pipe() -> io::Result<[i32; 2]> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::pipe(ends.as_mut_ptr()) }.into())?;
    Ok(ends)
}

fn pipe_round_trip() -> io::Result<Operation> {
    round_trip(pipe()?, pipe()?, [None, None])
}

fn unix_round_trip() -> io::Result<Operation> {
    unix_pair([None, None])
}

/// Round trips by a pair of unix sockets, its users on these CPUs.
pub fn unix_pair(cpus: [Option<usize>; 2]) -> io::Result<Operation> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ends.as_mut_ptr()) }.into())?;
    round_trip(ends, [ends[1], ends[0]], cpus)
}

fn futex_call(word: *mut u32, operation: i32, value: u32) {
    // SAFETY: `word` lies in a shared mapping that lives as long as both processes.
    unsafe { libc::syscall(libc::SYS_futex, word, operation, value, std::ptr::null::<libc::timespec>(), 0, 0) };
}

/// Passes the token from `mine` to the other side and waits until it is back.
fn pass(word: *mut u32, mine: u32, other: u32) {
    use std::sync::atomic::{AtomicU32, Ordering};
    // SAFETY: an aligned word of the shared mapping.
    let token = unsafe { AtomicU32::from_ptr(word) };
    loop {
        let seen = token.load(Ordering::Acquire);
        if seen == mine {
            token.store(other, Ordering::Release);
            futex_call(word, libc::FUTEX_WAKE, 1);
            return;
        }
        futex_call(word, libc::FUTEX_WAIT, seen);
    }
}

/// Passes of a token by a futex between this process and a child, on these CPUs.
pub fn futex_pair(cpus: [Option<usize>; 2]) -> io::Result<Operation> {
    let word = map(4096, libc::MAP_SHARED)?.cast::<u32>();
    let parent = std::process::id() as i32;
    fork(|| {
        pin(cpus[1]);
        // SAFETY: asks to die with the parent; a parent that died before is seen by getppid.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            if libc::getppid() != parent {
                return;
            }
        }
        loop {
            pass(word, 1, 0);
        }
    })?;
    pin(cpus[0]);
    Ok(Box::new(move |n| {
        for _ in 0..n {
            pass(word, 0, 1);
        }
        Ok(())
    }))
}

fn futex() -> io::Result<Operation> {
    futex_pair([None, None])
}

fn wait_for(pid: i32) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: `status` is valid.
    check(unsafe { libc::waitpid(pid, &mut status, 0) }.into())?;
    if status == 0 { Ok(()) } else { Err(io::Error::other(format!("the child ended with {status:#x}"))) }
}

/// Forks, and waits for the child, which exits at once.
pub fn fork_exit_wait() -> io::Result<Operation> {
    Ok(Box::new(|n| {
        for _ in 0..n {
            wait_for(fork(|| ())?)?;
        }
        Ok(())
    }))
}

fn fork_exec_wait() -> io::Result<Operation> {
    let me = std::env::args_os().next().and_then(|a| CString::new(a.into_encoded_bytes()).ok());
    let me = me.ok_or_else(|| io::Error::other("this program was started without a name"))?;
    let path = if std::process::id() == 1 { CString::from(c"/init") } else { me };
    Ok(Box::new(move |n| {
        let argv = [path.as_ptr(), c"--exit".as_ptr(), std::ptr::null()];
        for _ in 0..n {
            wait_for(fork(|| {
                // SAFETY: NUL-terminated strings, null-terminated list.
                unsafe {
                    libc::execv(path.as_ptr(), argv.as_ptr());
                    libc::_exit(127);
                }
            })?)?;
        }
        Ok(())
    }))
}
