//! CPU features: what there is, what is switched on.

use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

/// The kernel cannot touch user memory by mistake.
pub static PAN: AtomicBool = AtomicBool::new(false);

macro_rules! register {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reads a register that every CPU has.
        unsafe { core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags)) };
        value
    }};
}
pub(crate) use register;

/// A field of four bits.
const fn field(register: u64, at: u32) -> u64 {
    register >> at & 15
}

/// What the interrupt controller and the plan call this CPU: its place in the board. QEMU counts CPUs in clusters of 8 (GICv2) or 16.
pub fn hardware_id() -> u32 {
    let mpidr = register!("mpidr_el1");
    let cluster = if crate::board::found().gic_version == 3 { 16 } else { 8 };
    (mpidr & 0xff) as u32 + (mpidr >> 8 & 0xff) as u32 * cluster
}

/// Switches on everything that a kernel wants on this CPU: no access to user memory by mistake, vector registers and the counter for programs.
pub fn enable() {
    let pan = field(register!("id_aa64mmfr1_el1"), 20) != 0;
    PAN.store(pan, Ordering::Relaxed);
    // SAFETY: CPACR: no traps of vector instructions, traps of SVE and SME. CNTKCTL: the virtual counter. MDSCR: no debug exceptions. PAN is set on
    // entries by SCTLR (SPAN is 0), and here for the first time.
    unsafe {
        asm!("msr cpacr_el1, {}", "msr cntkctl_el1, {}", "msr mdscr_el1, xzr", "isb",
            in(reg) 3u64 << 20, in(reg) 1u64 << 1, options(nostack, preserves_flags));
        if pan {
            asm!(".inst 0xd500419f", options(nostack));
        }
    }
}

/// Lets fast interrupts in, for good: a peer that fences this kernel sends one.
pub fn listen() {
    // SAFETY: the handler never returns.
    unsafe { asm!("msr daifclr, #1", options(nostack)) };
}

/// 64 bits from the best source there is. Without RNDR: the jitter of the counter, folded.
pub fn entropy() -> u64 {
    if field(register!("id_aa64isar0_el1"), 60) != 0 {
        for _ in 0..64 {
            let (value, failed): (u64, u64);
            // SAFETY: the CPU has RNDR.
            unsafe {
                asm!("mrs {}, s3_3_c2_c4_0", "cset {}, eq", out(reg) value, out(reg) failed, options(nomem, nostack))
            };
            if failed == 0 {
                return value;
            }
        }
    }
    let mut pool = crate::clock::ticks();
    for i in 0..256u32 {
        // Each turn takes a time that depends on caches, interrupts of the host and the emulator's state.
        for _ in 0..(pool >> 7 & 31) + 1 {
            core::hint::black_box(&mut pool);
        }
        pool = (pool ^ crate::clock::ticks()).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(i % 63 + 1);
    }
    pool
}

/// Features as `AT_HWCAP` has them (uapi/asm/hwcap.h): bit, name, the register and field that tell, and its least value. Features whose state this
/// kernel does not keep (SVE, SME, MTE), and the emulated reads of `HWCAP_CPUID`, are not among them.
const FEATURES: [(u32, &str, u8, u32, u64); 14] = [
    (3, "aes", 0, 4, 1),
    (4, "pmull", 0, 4, 2),
    (5, "sha1", 0, 8, 1),
    (6, "sha2", 0, 12, 1),
    (7, "crc32", 0, 16, 1),
    (8, "atomics", 0, 20, 2),
    (12, "asimdrdm", 0, 28, 1),
    (13, "jscvt", 1, 12, 1),
    (14, "fcma", 1, 16, 1),
    (15, "lrcpc", 1, 20, 1),
    (16, "dcpop", 1, 0, 1),
    (17, "sha3", 0, 32, 1),
    (20, "asimddp", 0, 44, 1),
    (27, "flagm", 0, 52, 1),
];

fn features() -> impl Iterator<Item = (u32, &'static str)> {
    let registers = [register!("id_aa64isar0_el1"), register!("id_aa64isar1_el1")];
    let basic = [(0, "fp"), (1, "asimd")].into_iter();
    basic.chain(FEATURES.into_iter().filter_map(move |(bit, name, which, at, least)| {
        let value = registers.get(usize::from(which)).map_or(0, |register| field(*register, at));
        (value >= least).then_some((bit, name))
    }))
}

/// `AT_HWCAP`.
pub fn hwcap() -> u64 {
    features().fold(0, |all, (bit, _)| all | 1 << bit)
}

/// The lines of `/proc/cpuinfo`, in the style of Arm's.
pub fn describe(out: &mut dyn core::fmt::Write) -> core::fmt::Result {
    let midr = register!("midr_el1");
    let hz = crate::clock::hz();
    write!(out, "BogoMIPS\t: {}.{:02}\nFeatures\t:", hz / 500_000, hz / 5000 % 100)?;
    for (_, name) in features() {
        write!(out, " {name}")?;
    }
    writeln!(out, "\nCPU implementer\t: {:#04x}\nCPU architecture: 8", midr >> 24 & 0xff)?;
    writeln!(
        out,
        "CPU variant\t: {:#x}\nCPU part\t: {:#05x}\nCPU revision\t: {}",
        midr >> 20 & 15,
        midr >> 4 & 0xfff,
        midr & 15
    )
}
