//! Vector state and segment bases of programs. The kernel itself is compiled without vector registers, so they keep the
//! program's values until another thread runs on the CPU.
//!
//! Whose state a CPU holds is known on both sides: the CPU names the thread's id ([`PerCpu::fpu_owner`](crate::percpu::PerCpu)), the
//! thread names the CPU. Only if both agree is the state "in the CPU". A thread that runs again where it ran last loads nothing.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::registers::model_specific::{FsBase, KernelGsBase};

use crate::{cpu, percpu};

/// Bytes of x87, SSE and AVX state in XSAVE's standard format (SDM vol. 1, 13.4). Larger components stay switched off.
pub const AREA: usize = 832;
/// Where the XSAVE header begins: its first word says which components are not in their initial state.
pub const HEADER: usize = 512;
const MXCSR: usize = 24;
const MXCSR_DEFAULT: u32 = 0x1f80;
/// Bits of MXCSR that exist on every CPU with SSE2.
const MXCSR_VALID: u32 = 0xffff;
const NOWHERE: u32 = u32::MAX;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Everything of a thread that stays in the CPU while the kernel runs.
#[repr(C, align(64))]
pub struct Vector {
    area: [u8; AREA],
    fs: u64,
    gs: u64,
    id: u64,
    /// The slot of the CPU that loaded it last.
    cpu: u32,
    /// `area` and bases are what the CPU holds: nothing ran since the last save.
    saved: bool,
}

impl Clone for Vector {
    fn clone(&self) -> Self {
        Self {
            area: self.area,
            fs: self.fs_base(),
            gs: self.gs_base(),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            cpu: NOWHERE,
            saved: true,
        }
    }
}

impl Vector {
    /// The initial state of a program.
    pub fn new() -> Self {
        let mut area = [0; AREA];
        area[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
        area[MXCSR..MXCSR + 4].copy_from_slice(&MXCSR_DEFAULT.to_le_bytes());
        Self { area, fs: 0, gs: 0, id: NEXT_ID.fetch_add(1, Ordering::Relaxed), cpu: NOWHERE, saved: true }
    }

    #[inline]
    fn here(&self) -> bool {
        let cpu = percpu::this();
        cpu.fpu_owner.load(Ordering::Relaxed) == self.id && self.cpu == cpu.slot() as u32
    }

    /// Brings the state into this CPU; `run` will change it there.
    #[inline]
    pub fn load(&mut self) {
        if !self.here() {
            self.load_slow();
        }
        self.saved = false;
    }

    #[cold]
    fn load_slow(&mut self) {
        let cpu = percpu::this();
        let mask = cpu::XCR0.load(Ordering::Relaxed);
        // SAFETY: the area is 64-byte aligned and clean: reserved MXCSR bits and header bits were refused in `set_area`.
        unsafe {
            if mask != 0 {
                asm!("xrstor64 [{}]", in(reg) &self.area, in("eax") mask as u32, in("edx") 0, options(nostack));
            } else {
                asm!("fxrstor64 [{}]", in(reg) &self.area, options(nostack));
            }
        }
        self.write_bases();
        self.cpu = cpu.slot() as u32;
        cpu.fpu_owner.store(self.id, Ordering::Relaxed);
    }

    fn write_bases(&self) {
        if cpu::FSGSBASE.load(Ordering::Relaxed) {
            // SAFETY: CR4.FSGSBASE is set; a canonical base was made sure of by `set_fs_base`.
            unsafe { asm!("wrfsbase {}", in(reg) self.fs, options(nomem, nostack, preserves_flags)) };
        } else {
            FsBase::write(VirtAddr::new_truncate(self.fs));
        }
        // While the kernel runs the program's GS base waits behind `swapgs`.
        KernelGsBase::write(VirtAddr::new_truncate(self.gs));
    }

    /// Brings the state from this CPU into memory, if it is there and newer.
    pub fn save(&mut self) {
        if self.saved || !self.here() {
            return;
        }
        let mask = cpu::XCR0.load(Ordering::Relaxed);
        // SAFETY: the area has room for all components that are switched on and is 64-byte aligned.
        unsafe {
            if mask != 0 {
                asm!("xsave64 [{}]", in(reg) &mut self.area, in("eax") mask as u32, in("edx") 0, options(nostack));
            } else {
                asm!("fxsave64 [{}]", in(reg) &mut self.area, options(nostack));
            }
        }
        self.fs = self.fs_base();
        self.gs = self.gs_base();
        self.saved = true;
    }

    /// The program's FS base.
    pub fn fs_base(&self) -> u64 {
        if !self.saved && self.here() && cpu::FSGSBASE.load(Ordering::Relaxed) {
            let base: u64;
            // SAFETY: CR4.FSGSBASE is set.
            unsafe { asm!("rdfsbase {}", out(reg) base, options(nomem, nostack, preserves_flags)) };
            return base;
        }
        self.fs
    }

    /// The program's GS base.
    pub fn gs_base(&self) -> u64 {
        if !self.saved && self.here() && cpu::FSGSBASE.load(Ordering::Relaxed) {
            return KernelGsBase::read().as_u64();
        }
        self.gs
    }

    /// Sets the FS base (non-canonical addresses are made canonical; the caller refuses them before).
    pub fn set_fs_base(&mut self, value: u64) {
        let gs = self.gs_base();
        self.fs = VirtAddr::new_truncate(value).as_u64();
        self.gs = gs;
        if self.here() {
            self.write_bases();
        }
    }

    /// Sets the GS base.
    pub fn set_gs_base(&mut self, value: u64) {
        let fs = self.fs_base();
        self.gs = VirtAddr::new_truncate(value).as_u64();
        self.fs = fs;
        if self.here() {
            self.write_bases();
        }
    }

    /// The saved state in XSAVE's format. Call [`Vector::save`] first.
    pub fn area(&self) -> &[u8; AREA] {
        &self.area
    }

    /// The number of bytes that mean something, and the components in them (`xstate_bv`'s largest value).
    pub fn format() -> (usize, u64) {
        match cpu::XCR0.load(Ordering::Relaxed) {
            0 => (512, 0),
            x if x & 4 != 0 => (AREA, x),
            x => (576, x),
        }
    }

    /// Takes a state from a program. `None` keeps nothing but the initial state (a frame without vector state). Returns
    /// `false` and changes nothing if the CPU would refuse it.
    #[must_use]
    pub fn set_area(&mut self, from: Option<&[u8]>) -> bool {
        let mut area = Self::new().area;
        if let Some(from) = from {
            let n = from.len().min(AREA);
            area[..n].copy_from_slice(&from[..n]);
            if n < HEADER + 64 {
                // An FXSAVE image: x87 and SSE are all there is.
                area[HEADER..].fill(0);
                area[HEADER] = 3;
            }
            let (_, all) = Self::format();
            let bv = area[HEADER..HEADER + 8].try_into().map_or(u64::MAX, u64::from_le_bytes);
            let mxcsr = area[MXCSR..MXCSR + 4].try_into().map_or(u32::MAX, u32::from_le_bytes);
            if (all != 0 && bv & !all != 0)
                || area[HEADER + 8..HEADER + 64].iter().any(|b| *b != 0)
                || mxcsr & !MXCSR_VALID != 0
            {
                return false;
            }
        }
        self.save();
        self.area = area;
        self.saved = true;
        self.cpu = NOWHERE;
        true
    }
}

/// The x87 status word of the program that has just faulted.
pub fn x87_status() -> u32 {
    let mut s: u16 = 0;
    // SAFETY: writes two bytes; `fnstsw` does not wait for pending exceptions.
    unsafe { asm!("fnstsw [{}]", in(reg) &mut s, options(nostack, preserves_flags)) };
    u32::from(s)
}

/// The MXCSR of the program that has just faulted.
pub fn mxcsr() -> u32 {
    let mut s: u32 = 0;
    // SAFETY: writes four bytes.
    unsafe { asm!("stmxcsr [{}]", in(reg) &mut s, options(nostack, preserves_flags)) };
    s
}
