//! CPUs and memory of peers: ringing, starting, stopping, loading.

use hal_api::{PhysAddr, PhysRange, Platform, WindowAttr};

use crate::P;

pub use hal_api::{Fenced, Refused};

/// A CPU of a peer kernel. Only the plan makes one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuRef {
    hardware: u32,
}

/// The right to start the CPUs of one kernel: held by whoever won the boot of that kernel.
#[derive(Debug)]
pub struct BootToken(());

/// The right to stop the CPUs of one kernel: held by whoever won the fence word of that kernel.
#[derive(Debug)]
pub struct FenceToken(());

impl BootToken {
    /// Made by membership for the one kernel that boots the target.
    pub const fn for_boot() -> Self {
        Self(())
    }
}

impl FenceToken {
    /// Made by membership for the one kernel that fences the target.
    pub const fn for_fence() -> Self {
        Self(())
    }
}

impl CpuRef {
    /// The CPU that the interrupt controller calls `hardware`. Refused if it is one of this kernel's own.
    pub fn new(hardware: u32) -> Result<Self, Refused> {
        if crate::boot::info().cpus().iter().any(|c| c.hardware == hardware) {
            return Err(Refused("that CPU belongs to this kernel"));
        }
        Ok(Self { hardware })
    }

    /// What the interrupt controller calls it.
    pub const fn hardware(self) -> u32 {
        self.hardware
    }

    /// Rings: its kernel's `Handlers::doorbell` runs soon.
    #[inline]
    pub fn doorbell(self) {
        P::doorbell(self.hardware);
    }

    /// Starts it at the trampoline in `page`, which a [`BootLoan`] has filled.
    pub fn start(self, _token: &BootToken, page: PhysAddr, arg: u64) -> Result<(), Refused> {
        // SAFETY: the token says that the plan gives this CPU to the target and that we alone boot it.
        unsafe { P::start_peer(self.hardware, page, arg) }
    }

    /// Stops it and says how sure that is.
    pub fn fence(self, _token: &FenceToken) -> Fenced {
        // SAFETY: the token says that we alone fence it.
        unsafe { P::fence_peer(self.hardware) }
    }
}

/// A peer's memory, lent to load its image. The loan ends when it is dropped: the mapping is gone before anything else happens.
#[derive(Debug)]
pub struct BootLoan {
    window: crate::window::SharedWindow,
}

impl BootLoan {
    /// Borrows `range` of the target.
    pub fn new(_token: &BootToken, range: PhysRange) -> Result<Self, Refused> {
        let window = crate::window::SharedWindow::open(crate::window::WindowToken::new(range)?)?;
        Ok(Self { window })
    }

    /// Copies bytes to `off` in the range, as [`SharedWindow::update`](crate::window::SharedWindow::update) does; breathes, so no lock may be held. `false` if they do not fit (an image is not to be trusted).
    #[must_use]
    pub fn write(&self, off: u64, bytes: &[u8]) -> bool {
        let fits =
            usize::try_from(off).ok().filter(|&o| o <= self.window.len() && bytes.len() <= self.window.len() - o);
        if let Some(off) = fits {
            for (i, piece) in bytes.chunks(Self::PIECE).enumerate() {
                self.window.update(off + i * Self::PIECE, piece);
                crate::cpu::breathe();
            }
        }
        fits.is_some()
    }

    /// Zeroes `len` bytes at `off`; breathes. `false` if they do not fit.
    #[must_use]
    pub fn zero(&self, off: u64, len: u64) -> bool {
        let (Ok(off), Ok(len)) = (usize::try_from(off), usize::try_from(len)) else { return false };
        let fits = off <= self.window.len() && len <= self.window.len() - off;
        if fits {
            for done in (0..len).step_by(Self::PIECE) {
                self.window.zero(off + done, (len - done).min(Self::PIECE));
                crate::cpu::breathe();
            }
        }
        fits
    }

    /// How much is copied between two breaths.
    const PIECE: usize = 64 << 10;

    /// Where the range begins.
    pub fn phys(&self) -> PhysAddr {
        self.window.phys()
    }
}

/// Device memory, mapped uncached.
pub(crate) fn map_device(range: PhysRange) -> Result<core::ptr::NonNull<u8>, Refused> {
    let whole =
        PhysRange { start: range.start.page(), len: PhysAddr(range.start.offset() as u64 + range.len).page_up().0 };
    let touches = |r: &PhysRange| r.start < whole.end() && whole.start < r.end();
    if crate::boot::info().owned().iter().any(touches) {
        return Err(Refused("device registers cannot be in own memory"));
    }
    // SAFETY: not own memory; the plan and the resource mask decide which devices a kernel has.
    let base = unsafe { P::map_window(whole, WindowAttr::Device) }?;
    // SAFETY: inside what was mapped.
    Ok(unsafe { base.add(range.start.offset()) })
}

impl BootLoan {
    /// Loads an ELF-64 image `at` bytes into the range: the lowest physical address of its segments goes there. Bytes that the file does not
    /// give are zeroed. Returns where the image ends in the range.
    ///
    /// # Errors
    /// A sentence if it is not such an image or does not fit; the memory is then in an unknown state.
    pub fn load_image(&self, at: u64, elf: &[u8]) -> Result<u64, Refused> {
        const DAMAGED: Refused = Refused("the image is cut short");
        const PT_LOAD: u64 = 1;
        let number = |off: u64, size: usize| -> Option<u64> {
            let off = usize::try_from(off).ok()?;
            let mut le = [0; 8];
            le.get_mut(..size)?.copy_from_slice(elf.get(off..off.checked_add(size)?)?);
            Some(u64::from_le_bytes(le))
        };
        if elf.get(..6) != Some(b"\x7fELF\x02\x01") {
            return Err(Refused("not a 64-bit little-endian ELF image"));
        }
        let headers = number(0x20, 8).ok_or(DAMAGED)?;
        let (size, count) = (number(0x36, 2).ok_or(DAMAGED)?, number(0x38, 2).ok_or(DAMAGED)?);
        // (offset, physical address, bytes in the file, bytes in memory)
        let segment = |i: u64| -> Option<Option<(u64, u64, u64, u64)>> {
            let h = headers.checked_add(i * size)?;
            if number(h, 4)? != PT_LOAD {
                return Some(None);
            }
            Some(Some((number(h + 8, 8)?, number(h + 24, 8)?, number(h + 32, 8)?, number(h + 40, 8)?)))
        };
        let mut lowest = u64::MAX;
        for i in 0..count {
            if let Some((_, phys, _, _)) = segment(i).ok_or(DAMAGED)? {
                lowest = lowest.min(phys);
            }
        }
        let mut end = at;
        for i in 0..count {
            let Some((off, phys, in_file, in_memory)) = segment(i).ok_or(DAMAGED)? else { continue };
            let to = at.checked_add(phys - lowest).ok_or(DAMAGED)?;
            let bytes = usize::try_from(off).ok().zip(usize::try_from(in_file).ok());
            let bytes = bytes.and_then(|(o, n)| elf.get(o..o.checked_add(n)?)).ok_or(DAMAGED)?;
            let rest = in_memory.checked_sub(in_file).ok_or(DAMAGED)?;
            if !self.write(to, bytes) || !self.zero(to + in_file, rest) {
                return Err(Refused("the image does not fit the memory"));
            }
            end = end.max(to + in_memory);
        }
        Ok(end)
    }
}
