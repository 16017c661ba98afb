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

    /// Copies bytes to `off` in the range. `false` if they do not fit (an image is not to be trusted).
    #[must_use]
    pub fn write(&self, off: u64, bytes: &[u8]) -> bool {
        let fits =
            usize::try_from(off).ok().filter(|&o| o <= self.window.len() && bytes.len() <= self.window.len() - o);
        if let Some(off) = fits {
            self.window.write(off, bytes);
        }
        fits.is_some()
    }

    /// Zeroes `len` bytes at `off`. `false` if they do not fit.
    #[must_use]
    pub fn zero(&self, off: u64, len: u64) -> bool {
        let (Ok(off), Ok(len)) = (usize::try_from(off), usize::try_from(len)) else { return false };
        let fits = off <= self.window.len() && len <= self.window.len() - off;
        if fits {
            self.window.zero(off, len);
        }
        fits
    }

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
