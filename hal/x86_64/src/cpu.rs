//! CPU features: what there is, what is switched on.

use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

/// Supervisor accesses to user pages need AC set.
pub static SMAP: AtomicBool = AtomicBool::new(false);
/// `rdfsbase` and its kin work, also for programs.
pub static FSGSBASE: AtomicBool = AtomicBool::new(false);
/// The state components that are switched on; 0 without XSAVE.
pub static XCR0: AtomicU64 = AtomicU64::new(0);

/// Largest CPUID leaf.
fn max_leaf() -> u32 {
    __cpuid(0).eax
}

/// CPUID leaf 7, all zero where there is none: (ebx, ecx).
fn leaf7() -> (u32, u32) {
    if max_leaf() < 7 {
        return (0, 0);
    }
    let l = __cpuid_count(7, 0);
    (l.ebx, l.ecx)
}

/// Whether the CPU has 1 GiB pages.
pub fn has_huge_pages() -> bool {
    __cpuid(0x8000_0001).edx & 1 << 26 != 0
}

/// Whether the local APIC has register access by MSR.
pub fn has_x2apic() -> bool {
    __cpuid(1).ecx & 1 << 21 != 0
}

/// (RDRAND, RDSEED).
pub fn has_random() -> (bool, bool) {
    (__cpuid(1).ecx & 1 << 30 != 0, leaf7().0 & 1 << 18 != 0)
}

/// Switches on everything that a kernel wants on this CPU: write protection, no user execution or access by mistake, global
/// pages, vector state.
pub fn enable() {
    let one = __cpuid(1);
    let (seven_b, seven_c) = leaf7();
    let xsave = one.ecx & 1 << 26 != 0;
    let mut cr4 =
        Cr4Flags::PHYSICAL_ADDRESS_EXTENSION | Cr4Flags::PAGE_GLOBAL | Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE;
    cr4.set(Cr4Flags::OSXSAVE, xsave);
    cr4.set(Cr4Flags::FSGSBASE, seven_b & 1 != 0);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, seven_b & 1 << 7 != 0);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, seven_b & 1 << 20 != 0);
    cr4.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, seven_c & 1 << 2 != 0);
    // SAFETY: long mode stays on, the image's pages allow what the code does with them, and no vector code runs in the kernel.
    unsafe {
        Cr0::write(
            Cr0Flags::PROTECTED_MODE_ENABLE
                | Cr0Flags::MONITOR_COPROCESSOR
                | Cr0Flags::EXTENSION_TYPE
                | Cr0Flags::NUMERIC_ERROR
                | Cr0Flags::WRITE_PROTECT
                | Cr0Flags::ALIGNMENT_MASK
                | Cr0Flags::PAGING,
        );
        Cr4::write(cr4);
    }
    SMAP.store(cr4.contains(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION), Ordering::Relaxed);
    FSGSBASE.store(cr4.contains(Cr4Flags::FSGSBASE), Ordering::Relaxed);
    if xsave {
        let mut x = XCr0Flags::X87 | XCr0Flags::SSE;
        x.set(XCr0Flags::AVX, one.ecx & 1 << 28 != 0);
        // SAFETY: the CPU has these components (x87 and SSE always, AVX by CPUID).
        unsafe { XCr0::write(x) };
        XCR0.store(x.bits(), Ordering::Relaxed);
    }
}

/// 64 bits from the best source there is. Without RDSEED or RDRAND: the jitter of the time stamp counter, folded.
pub fn entropy() -> u64 {
    let (rand, seed) = has_random();
    for _ in 0..64 {
        let (mut value, mut ok): (u64, u8) = (0, 0);
        // SAFETY: only executed where CPUID says the instruction exists.
        unsafe {
            if seed {
                core::arch::asm!("rdseed {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack));
            }
            if ok == 0 && rand {
                core::arch::asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack));
            }
        }
        if ok != 0 {
            return value;
        }
        if !rand && !seed {
            break;
        }
    }
    let mut pool = crate::clock::tsc();
    for i in 0..256u32 {
        // Each turn takes a time that depends on caches, interrupts of the host and the emulator's state.
        let spin = (pool >> 7 & 31) + 1;
        for _ in 0..spin {
            core::hint::black_box(&mut pool);
        }
        pool = (pool ^ crate::clock::tsc()).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(i % 63 + 1);
    }
    pool
}

/// The line "flags" of `/proc/cpuinfo` and the model name, as far as programs look at them.
pub fn describe(out: &mut dyn core::fmt::Write) -> core::fmt::Result {
    let vendor = __cpuid(0);
    let one = __cpuid(1);
    let name = |r: u32, out: &mut dyn core::fmt::Write| -> core::fmt::Result {
        for b in r.to_le_bytes() {
            if (0x20..0x7f).contains(&b) {
                out.write_char(b as char)?;
            }
        }
        Ok(())
    };
    write!(out, "vendor_id\t: ")?;
    for r in [vendor.ebx, vendor.edx, vendor.ecx] {
        name(r, out)?;
    }
    let (base, ext) = (one.eax >> 8 & 15, one.eax >> 20 & 255);
    let family = if base == 15 { base + ext } else { base };
    let model = if base == 6 || base == 15 { (one.eax >> 4 & 15) | (one.eax >> 12 & 0xf0) } else { one.eax >> 4 & 15 };
    write!(out, "\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: ")?;
    if __cpuid(0x8000_0000).eax >= 0x8000_0004 {
        for leaf in 0x8000_0002..=0x8000_0004u32 {
            let l = __cpuid(leaf);
            for r in [l.eax, l.ebx, l.ecx, l.edx] {
                name(r, out)?;
            }
        }
    }
    write!(out, "\nstepping\t: {}\ncpu MHz\t\t: {}", one.eax & 15, crate::clock::tsc_hz() / 1_000_000)?;
    write!(out, ".000\nflags\t\t:")?;
    let (seven_b, seven_c) = leaf7();
    let ext = __cpuid(0x8000_0001);
    // Names and bits as in Linux' cpufeatures.h.
    let tables: [(u32, &[(u8, &str)]); 6] = [
        (
            one.edx,
            &[
                (0, "fpu"),
                (4, "tsc"),
                (5, "msr"),
                (6, "pae"),
                (8, "cx8"),
                (9, "apic"),
                (13, "pge"),
                (15, "cmov"),
                (16, "pat"),
                (19, "clflush"),
                (23, "mmx"),
                (24, "fxsr"),
                (25, "sse"),
                (26, "sse2"),
            ],
        ),
        (ext.edx, &[(11, "syscall"), (20, "nx"), (26, "pdpe1gb"), (27, "rdtscp"), (29, "lm")]),
        (
            one.ecx,
            &[
                (0, "pni"),
                (1, "pclmulqdq"),
                (9, "ssse3"),
                (12, "fma"),
                (13, "cx16"),
                (19, "sse4_1"),
                (20, "sse4_2"),
                (21, "x2apic"),
                (22, "movbe"),
                (23, "popcnt"),
                (25, "aes"),
                (26, "xsave"),
                (28, "avx"),
                (29, "f16c"),
                (30, "rdrand"),
                (31, "hypervisor"),
            ],
        ),
        (ext.ecx, &[(0, "lahf_lm"), (5, "abm"), (6, "sse4a"), (8, "3dnowprefetch")]),
        (
            seven_b,
            &[
                (0, "fsgsbase"),
                (3, "bmi1"),
                (5, "avx2"),
                (7, "smep"),
                (8, "bmi2"),
                (9, "erms"),
                (18, "rdseed"),
                (19, "adx"),
                (20, "smap"),
                (23, "clflushopt"),
                (29, "sha_ni"),
            ],
        ),
        (seven_c, &[(2, "umip"), (3, "pku"), (22, "rdpid")]),
    ];
    for (word, names) in tables {
        for (bit, n) in names {
            if word & 1 << bit != 0 {
                write!(out, " {n}")?;
            }
        }
    }
    writeln!(out)
}
