//! Time: the counter for reading, its comparison register (Sstc) or the firmware's timer for waking. All harts of a machine see the same counter.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use hal_api::{PhysRange, WindowAttr};

use crate::{board, paging, percpu};

const NS: u64 = 1_000_000_000;

/// The counter when this kernel got its first CPU.
static ENTERED: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds per tick, times 2^32.
static SCALE: AtomicU64 = AtomicU64::new(0);

/// First thing in a kernel.
pub fn enter() {
    ENTERED.store(ticks(), Ordering::Relaxed);
}

/// The board is known, and with it how fast the counter goes.
pub(crate) fn set_rate() {
    SCALE.store(((u128::from(NS) << 32) / u128::from(board::found().hz.max(1))) as u64, Ordering::Relaxed);
}

/// When the loader or a peer handed this kernel its first CPU, on the clock of [`now`].
pub fn entered() -> u64 {
    time_of(ENTERED.load(Ordering::Relaxed))
}

/// The counter.
#[inline]
pub fn ticks() -> u64 {
    let value: u64;
    // SAFETY: reads the counter.
    unsafe { asm!("rdtime {}", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Nanoseconds per tick, times 2^32.
pub fn scale() -> u64 {
    SCALE.load(Ordering::Relaxed)
}

/// The time at which the counter showed this.
#[inline]
pub fn time_of(ticks: u64) -> u64 {
    ((u128::from(ticks) * u128::from(scale())) >> 32) as u64
}

/// Nanoseconds since the counter was zero, i.e. since the machine was switched on.
#[inline]
pub fn now() -> u64 {
    time_of(ticks())
}

/// Nothing is asked for on this CPU yet.
pub fn init_cpu() {
    silence();
}

/// The timer asks for nothing any more: it is pending as long as the counter is past what it compares with.
pub fn silence() {
    compare(u64::MAX);
}

fn compare(ticks: u64) {
    if board::found().features & board::SSTC != 0 {
        // SAFETY: this hart's timer (`stimecmp`), which it has.
        unsafe { asm!("csrw 0x14d, {}", in(reg) ticks, options(nostack, preserves_flags)) };
    } else {
        // Firmware without a timer is none: the kernel would have no time slices, but it would run.
        let _ = sbi_rt::set_timer(ticks);
    }
}

/// See `Platform::set_deadline`.
pub fn set_deadline(at: Option<u64>) {
    let Some(at) = at else {
        percpu::this().deadline.store(0, Ordering::Relaxed);
        return silence();
    };
    percpu::this().deadline.store(at.max(1), Ordering::Relaxed);
    arm(at);
}

fn arm(at: u64) {
    // One tick later than rounded down: then the deadline has passed.
    compare(((u128::from(at) << 32) / u128::from(scale().max(1))).min(u128::from(u64::MAX >> 1)) as u64 + 1);
}

/// The timer has fired: whether the deadline is reached (then it is gone). Too early, it is armed again.
pub fn deadline_passed() -> bool {
    let deadline = &percpu::this().deadline;
    match deadline.load(Ordering::Relaxed) {
        0 => false,
        at if now() >= at => {
            deadline.store(0, Ordering::Relaxed);
            true
        }
        at => {
            arm(at);
            false
        }
    }
}

/// Seconds since 1970 by the clock that goes on when the machine is off (Goldfish RTC: nanoseconds, the low half first). Only in the kernel that
/// owns it.
pub fn wall_clock() -> u64 {
    let rtc = board::found().rtc;
    let range = PhysRange { len: 0x1000, ..rtc };
    if rtc.len == 0 || paging::map_window(range, WindowAttr::Device).is_err() {
        return 0;
    }
    let registers = (paging::WINDOW + rtc.start.0) as *const u32;
    // SAFETY: two registers of a clock that belongs to this kernel, mapped just now.
    let (low, high) = unsafe { (registers.read_volatile(), registers.add(1).read_volatile()) };
    paging::unmap_window(range);
    (u64::from(high) << 32 | u64::from(low)) / NS
}
