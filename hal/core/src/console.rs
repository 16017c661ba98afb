//! The kernel's log and its last words.

use core::fmt::Write;
use core::sync::atomic::{AtomicBool, Ordering};

use hal_api::Platform;

use crate::P;
use crate::instance::try_instance;
use crate::sync::{Once, SpinLock, rank};

/// Finds the name of a function by address: `(name, offset in it)`. Set by `boot` when it has the symbol table.
pub type Symbols = fn(u64) -> Option<(&'static str, u64)>;

static SYMBOLS: Once<Symbols> = Once::new();
static DEATH: Once<fn() -> !> = Once::new();
static ANNOUNCE: Once<fn(core::fmt::Arguments<'_>, u64)> = Once::new();
static LOGGER: Logger = Logger { line: SpinLock::new(rank::LOG, ()) };

struct Logger {
    line: SpinLock<()>,
}

/// How many bytes are handed over at once. On the host a line is one piece, because the kernels of a process have no lock in common.
const PIECE: usize = if cfg!(target_os = "none") { 256 } else { 4096 };

/// Collects a line and hands it over in pieces.
struct Sink {
    buf: [u8; PIECE],
    n: usize,
}

impl Sink {
    const fn new() -> Self {
        Self { buf: [0; PIECE], n: 0 }
    }
    fn flush(&mut self) {
        P::log_write(&self.buf[..self.n]);
        self.n = 0;
    }
}

impl Write for Sink {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        for &b in s.as_bytes() {
            if self.n == self.buf.len() {
                self.flush();
            }
            self.buf[self.n] = b;
            self.n += 1;
        }
        Ok(())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.flush();
    }
}

/// `[   12.345678] k1.2:` — seconds since the machine was switched on, kernel, CPU slot.
fn stamp(out: &mut Sink) {
    let now = crate::time::now() / 1000;
    let (index, slot) = try_instance().map_or((0, 0), |i| (i.info.index, P::slot()));
    let _ = write!(out, "[{:5}.{:06}] k{index}.{slot} ", now / 1_000_000, now % 1_000_000);
}

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // On the host the logger is that of many kernels: one that dies in the middle of a line must not keep the others from theirs.
        let _line = cfg!(target_os = "none").then(|| self.line.lock());
        let mut out = Sink::new();
        stamp(&mut out);
        let level = match record.level() {
            log::Level::Error => "ERROR ",
            log::Level::Warn => "WARN  ",
            log::Level::Info => "",
            log::Level::Debug => "debug ",
            log::Level::Trace => "trace ",
        };
        let _ = writeln!(out, "{level}{}: {}", record.target(), record.args());
    }

    fn flush(&self) {}
}

/// Makes `log`'s macros write to this kernel's log. Callable before `boot::init`; more than once does nothing.
pub fn start_log(level: log::LevelFilter) {
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level);
}

/// Gives backtraces names.
pub fn set_symbols(find: Symbols) {
    let _ = SYMBOLS.set(find);
}

/// What a dying kernel does after its last words: tell its peers, end the machine if it was the only one. Set by `boot`.
pub fn set_death(then: fn() -> !) {
    let _ = DEATH.set(then);
}

/// Who is told that this kernel dies, of what, and since when, after its last words: peers stop its CPUs as soon as they know. Set by `boot`; allocates
/// nothing and takes no lock.
pub fn set_announcer(tell: fn(core::fmt::Arguments<'_>, u64)) {
    let _ = ANNOUNCE.set(tell);
}

/// Ends this kernel, after its last words.
pub fn die() -> ! {
    match DEATH.get() {
        Some(then) => then(),
        None => P::halt(),
    }
}

/// Writes the last words of this kernel: what happened, and where. For the panic handler.
pub fn last_words(what: core::fmt::Arguments<'_>, frame_pointer: u64) {
    static ONCE: AtomicBool = AtomicBool::new(false);
    let (first, began) = (!ONCE.swap(true, Ordering::AcqRel), crate::time::now());
    LOGGER.line.force_unlock();
    let mut out = Sink::new();
    stamp(&mut out);
    let _ = writeln!(out, "PANIC {what}");
    if first {
        backtrace(frame_pointer, &mut |ip| {
            let _ = match SYMBOLS.get().and_then(|find| find(ip)) {
                Some((name, off)) => writeln!(out, "  {ip:#018x} {name}+{off:#x}"),
                None => writeln!(out, "  {ip:#018x}"),
            };
        });
    }
    drop(out);
    if let Some(tell) = ANNOUNCE.get().filter(|_| first) {
        tell(what, began);
    }
}

/// A fault in kernel mode.
pub(crate) fn fault(what: core::fmt::Arguments<'_>, ip: u64, frame_pointer: u64) -> ! {
    last_words(format_args!("{what} at {ip:#x}"), frame_pointer);
    die()
}

/// Calls `f` with the return addresses on the stack, from frame pointer to frame pointer.
#[cfg(target_os = "none")]
fn backtrace(mut frame: u64, f: &mut dyn FnMut(u64)) {
    for _ in 0..32 {
        // Frames are 8-aligned, in the kernel half, and go up.
        if !frame.is_multiple_of(8) || frame < (1 << 63) {
            return;
        }
        let record = frame - P::FRAME_RECORD as u64;
        // SAFETY: a frame pointer of kernel code leads to the saved frame pointer and the return address; built with frame pointers.
        let (next, ip) = unsafe { ((record as *const u64).read(), ((record + 8) as *const u64).read()) };
        if ip == 0 {
            return;
        }
        f(ip);
        if next <= frame {
            return;
        }
        frame = next;
    }
}

/// The host has backtraces of its own.
#[cfg(not(target_os = "none"))]
fn backtrace(_frame: u64, _f: &mut dyn FnMut(u64)) {}
