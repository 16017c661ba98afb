//! Time: the time stamp counter for reading, the local APIC's timer for waking.

use core::arch::x86_64::_rdtsc;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::instructions::port::Port;

use crate::{apic, percpu};

/// Ticks of the time stamp counter per second.
static TSC_HZ: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds per tick, times 2^32.
static SCALE: AtomicU64 = AtomicU64::new(0);
/// Ticks of the APIC timer per nanosecond, times 2^32.
static TIMER_SCALE: AtomicU64 = AtomicU64::new(0);

const NS: u64 = 1_000_000_000;
const PIT_HZ: u64 = 1_193_182;
/// How long calibration takes, in ticks of the PIT: 8 ms.
const PIT_TICKS: u16 = 9545;
/// How often it is tried at most.
const ROUNDS: usize = 20;

/// The counter when this kernel got its first CPU.
static ENTERED: AtomicU64 = AtomicU64::new(0);

/// First thing in a kernel.
pub fn enter() {
    ENTERED.store(tsc(), Ordering::Relaxed);
}

/// When the loader or a peer handed this kernel its first CPU, on the clock of [`now`].
pub fn entered() -> u64 {
    to_ns(ENTERED.load(Ordering::Relaxed))
}

/// The time stamp counter.
#[inline]
pub fn tsc() -> u64 {
    // SAFETY: every x86-64 CPU has it.
    unsafe { _rdtsc() }
}

/// The counter that [`time_of`] understands.
#[inline]
pub fn ticks() -> u64 {
    tsc()
}

/// Its frequency in Hz.
pub fn tsc_hz() -> u64 {
    TSC_HZ.load(Ordering::Relaxed)
}

/// Nanoseconds per tick, times 2^32.
pub fn scale() -> u64 {
    SCALE.load(Ordering::Relaxed)
}

/// What a peer is told when it is started, so that all kernels of a machine count the same nanoseconds.
pub fn rates() -> (u64, u64) {
    (TSC_HZ.load(Ordering::Relaxed), TIMER_SCALE.load(Ordering::Relaxed))
}

/// Takes the rates from the kernel that started this one.
pub fn set_rates((tsc_hz, timer_scale): (u64, u64)) {
    TSC_HZ.store(tsc_hz, Ordering::Relaxed);
    SCALE.store(((u128::from(NS) << 32) / u128::from(tsc_hz.max(1))) as u64, Ordering::Relaxed);
    TIMER_SCALE.store(timer_scale, Ordering::Relaxed);
}

/// Measures both counters against the PIT's channel 2 (Intel 8254; gate and output at port 0x61). In the kernel that firmware
/// started, once; its peers are told.
pub fn calibrate() {
    let (mut gate, mut mode, mut count): (Port<u8>, Port<u8>, Port<u8>) =
        (Port::new(0x61), Port::new(0x43), Port::new(0x42));
    let mut best = (u64::MAX, 0, 0, 0);
    // An emulated CPU may lose its host's CPU between two instructions: then the counters ran longer, or shorter, than the PIT. The reads around both
    // ends tell how far they may be off; a measurement in which that is a thousandth is good, and the best of a few must do.
    for _ in 0..ROUNDS {
        // SAFETY: the PIT and the speaker gate belong to this kernel; channel 2 interrupts nobody.
        let measured = unsafe {
            let g = gate.read() & !3;
            gate.write(g);
            mode.write(0b1011_0000); // channel 2, low and high byte, mode 0: output rises at the end
            count.write((PIT_TICKS & 0xff) as u8);
            count.write((PIT_TICKS >> 8) as u8);
            apic::set_timer(u32::MAX);
            let early = tsc();
            gate.write(g | 1);
            let before = apic::timer();
            let t0 = tsc();
            let mut last = t0;
            while gate.read() & 0x20 == 0 {
                last = tsc();
            }
            let after = apic::timer();
            let t1 = tsc();
            apic::set_timer(0);
            gate.write(g);
            ((t0 - early) + (t1 - last), t0, t1, before.wrapping_sub(after))
        };
        if measured.0 < best.0 {
            best = measured;
        }
        if best.0 < (best.2 - best.1) / 1000 {
            break;
        }
    }
    let (_, t0, t1, counted) = best;
    let ns = u64::from(PIT_TICKS) * NS / PIT_HZ;
    let tsc_hz = (u128::from(t1 - t0) * u128::from(NS) / u128::from(ns)) as u64;
    let timer_scale = ((u128::from(counted) << 32) / u128::from(ns)) as u64;
    set_rates((tsc_hz, timer_scale));
}

/// The time at which the counter showed this, once its rate is known.
pub fn time_of(tsc: u64) -> u64 {
    ((u128::from(tsc) * u128::from(SCALE.load(Ordering::Relaxed))) >> 32) as u64
}

/// Nanoseconds since the counter was zero, i.e. since the machine was switched on.
#[inline]
pub fn now() -> u64 {
    to_ns(tsc())
}

#[inline]
fn to_ns(tsc: u64) -> u64 {
    ((u128::from(tsc) * u128::from(SCALE.load(Ordering::Relaxed))) >> 32) as u64
}

/// See `Platform::set_deadline`.
pub fn set_deadline(at: Option<u64>) {
    let Some(at) = at else {
        percpu::this().deadline.store(0, Ordering::Relaxed);
        return apic::set_timer(0);
    };
    percpu::this().deadline.store(at.max(1), Ordering::Relaxed);
    arm(at);
}

fn arm(at: u64) {
    let wait = at.saturating_sub(now());
    let ticks = (u128::from(wait) * u128::from(TIMER_SCALE.load(Ordering::Relaxed))) >> 32;
    apic::set_timer(ticks.clamp(1, u128::from(u32::MAX)) as u32);
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

/// Waits without interrupts, for hardware that needs a pause.
pub fn spin_for(ns: u64) {
    let end = now() + ns;
    while now() < end {
        crate::relax();
    }
}

/// Seconds since 1970 by the battery-backed clock (MC146818), which keeps UTC. Only in the kernel that owns it.
pub fn wall_clock() -> u64 {
    let read = |register: u8| -> u8 {
        // SAFETY: the index and data ports of a clock that belongs to this kernel; reading has no side effect but the index.
        unsafe {
            Port::<u8>::new(0x70).write(register);
            Port::<u8>::new(0x71).read()
        }
    };
    let take = || [0, 2, 4, 7, 8, 9, 0x32].map(read);
    let mut last = take();
    for _ in 0..1000 {
        if read(0xa) & 0x80 == 0 {
            let again = take();
            if again == last {
                break;
            }
            last = again;
        }
    }
    let status = read(0xb);
    let [s, m, h, day, month, year, century] = last.map(|v| {
        let v = u64::from(v);
        if status & 4 != 0 { v } else { (v >> 4) * 10 + (v & 15) }
    });
    let h = if status & 2 == 0 && last[2] & 0x80 != 0 { (h & 0x3f) % 12 + 12 } else { h };
    let year = if (19..=21).contains(&century) { century * 100 + year } else { 2000 + year };
    days(year, month, day) * 86400 + h * 3600 + m * 60 + s
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: u64, month: u64, day: u64) -> u64 {
    // March is the first month, so that the leap day comes last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468
}
