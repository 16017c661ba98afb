//! Waiting for descriptors and signals at once, without a race: the signals are blocked except inside `ppoll(2)`.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Which signals came since the last wait.
#[derive(Clone, Copy, Debug)]
pub struct Woken(u8);

impl Woken {
    /// A child changed its state.
    pub const CHILD: u8 = 1;
    /// Somebody wants the machine off.
    pub const POWEROFF: u8 = 2;
    /// Somebody wants the machine to start again.
    pub const REBOOT: u8 = 4;

    /// Whether this one came.
    pub fn contains(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

/// Signals and the bit that each sets.
const SIGNALS: [(libc::c_int, u8); 4] = [
    (libc::SIGCHLD, Woken::CHILD),
    (libc::SIGUSR1, Woken::POWEROFF),
    (libc::SIGUSR2, Woken::POWEROFF),
    (libc::SIGTERM, Woken::REBOOT),
];

static CAME: AtomicU8 = AtomicU8::new(0);

extern "C" fn note(signal: libc::c_int) {
    for (number, bit) in SIGNALS {
        if number == signal {
            CAME.fetch_or(bit, Ordering::Relaxed);
        }
    }
}

/// Blocks nothing. For a new process between `fork` and `exec`, which inherits what [`install`] blocked. Async-signal-safe.
pub fn unblock() {
    // SAFETY: the mask is plain data on the stack.
    unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut mask);
        libc::sigprocmask(libc::SIG_SETMASK, &mask, std::ptr::null_mut());
    }
}

/// Catches and blocks the signals of [`Woken`].
pub fn install() {
    // SAFETY: `note` only touches an atomic; the structs are plain data for which all zeroes is a valid value.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_flags = libc::SA_NOCLDSTOP;
        action.sa_sigaction = note as extern "C" fn(libc::c_int) as libc::sighandler_t;
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut mask);
        for (signal, _) in SIGNALS {
            libc::sigaction(signal, &action, std::ptr::null_mut());
            libc::sigaddset(&mut mask, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &mask, std::ptr::null_mut());
    }
}

/// The descriptors to wait for.
#[derive(Debug)]
pub struct PollSet<'a> {
    entries: Vec<libc::pollfd>,
    /// Keeps the descriptors open while they are in the set.
    borrow: std::marker::PhantomData<BorrowedFd<'a>>,
}

impl<'a> PollSet<'a> {
    /// With nothing in it.
    pub fn new() -> Self {
        Self { entries: Vec::new(), borrow: std::marker::PhantomData }
    }

    /// Adds a descriptor; nothing happens if neither is wanted.
    pub fn add(&mut self, fd: BorrowedFd<'a>, readable: bool, writable: bool) {
        let events = if readable { libc::POLLIN } else { 0 } | if writable { libc::POLLOUT } else { 0 };
        if events != 0 {
            self.entries.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
        }
    }
}

/// Waits until a descriptor of the set is ready, a signal comes, or the time is over. Which descriptor it was is not told:
/// everything is non-blocking, so the caller tries them all.
pub fn wait(set: &mut PollSet<'_>, timeout: Option<Duration>) -> Woken {
    let timeout = timeout.map(|t| libc::timespec { tv_sec: t.as_secs() as _, tv_nsec: t.subsec_nanos().into() });
    // SAFETY: the pointers are to live values of the right length; a null timeout means for ever.
    unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut mask);
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        libc::ppoll(set.entries.as_mut_ptr(), set.entries.len() as libc::nfds_t, timeout, &mask);
    }
    Woken(CAME.swap(0, Ordering::Relaxed))
}
