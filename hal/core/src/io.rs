//! Ports, device registers and interrupt lines. Which devices a kernel may touch is for the plan and the bus drivers to say.

use core::ptr::NonNull;

use hal_api::{PhysRange, Platform};

use crate::P;
pub use crate::cpuref::Refused;

/// A few I/O ports in a row (x86). Elsewhere reads give all ones and writes do nothing.
#[derive(Debug)]
pub struct Ports {
    base: u16,
    count: u16,
}

impl Ports {
    /// The ports `base..base + count`. Refused where a port could reach memory behind the kernel's back: there is none such among ISA devices, so
    /// only nonsense is refused.
    pub fn new(base: u16, count: u16) -> Result<Self, Refused> {
        if count == 0 || base.checked_add(count - 1).is_none() {
            return Err(Refused("no such ports"));
        }
        Ok(Self { base, count })
    }

    #[track_caller]
    fn port(&self, off: u16, size: u16) -> u16 {
        assert!(off + size <= self.count, "port beyond the device");
        self.base + off
    }

    /// Reads a byte.
    pub fn read8(&self, off: u16) -> u8 {
        // SAFETY: a port of a device that this kernel drives.
        unsafe { P::port_read(self.port(off, 1), 1) as u8 }
    }
    /// Reads 16 bits.
    pub fn read16(&self, off: u16) -> u16 {
        // SAFETY: as above.
        unsafe { P::port_read(self.port(off, 2), 2) as u16 }
    }
    /// Reads 32 bits.
    pub fn read32(&self, off: u16) -> u32 {
        // SAFETY: as above.
        unsafe { P::port_read(self.port(off, 4), 4) }
    }
    /// Writes a byte.
    pub fn write8(&self, off: u16, value: u8) {
        // SAFETY: as above.
        unsafe { P::port_write(self.port(off, 1), 1, u32::from(value)) }
    }
    /// Writes 16 bits.
    pub fn write16(&self, off: u16, value: u16) {
        // SAFETY: as above.
        unsafe { P::port_write(self.port(off, 2), 2, u32::from(value)) }
    }
    /// Writes 32 bits.
    pub fn write32(&self, off: u16, value: u32) {
        // SAFETY: as above.
        unsafe { P::port_write(self.port(off, 4), 4, value) }
    }
}

/// Registers of a device in memory. Never unmapped.
#[derive(Debug)]
pub struct Mmio {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: device registers may be used from any CPU; drivers order their accesses.
unsafe impl Send for Mmio {}
// SAFETY: the same.
unsafe impl Sync for Mmio {}

macro_rules! mmio {
    ($($read:ident $write:ident $t:ty;)*) => {$(
        /// Reads a register.
        ///
        /// # Panics
        /// If it is misaligned or beyond the device.
        pub fn $read(&self, off: usize) -> $t {
            // SAFETY: aligned and inside the mapped registers.
            unsafe { self.at::<$t>(off).read_volatile() }
        }
        /// Writes a register.
        ///
        /// # Panics
        /// If it is misaligned or beyond the device.
        pub fn $write(&self, off: usize, value: $t) {
            // SAFETY: aligned and inside the mapped registers.
            unsafe { self.at::<$t>(off).write_volatile(value) }
        }
    )*};
}

impl Mmio {
    /// Maps the registers of a device.
    pub fn map(range: PhysRange) -> Result<Self, Refused> {
        let len = usize::try_from(range.len).map_err(|_| Refused("too big"))?;
        Ok(Self { base: crate::cpuref::map_device(range)?, len })
    }

    /// Bytes of registers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[track_caller]
    fn at<T>(&self, off: usize) -> *mut T {
        let size = size_of::<T>();
        assert!(off.is_multiple_of(size) && off <= self.len && size <= self.len - off, "register beyond the device");
        self.base.as_ptr().wrapping_add(off).cast()
    }

    mmio! { read8 write8 u8; read16 write16 u16; read32 write32 u32; read64 write64 u64; }
}

/// A wired interrupt line of this kernel; masked when dropped. `Handlers::irq(line)` hears it.
#[derive(Debug)]
pub struct IrqLine(u32);

impl IrqLine {
    /// Routes and unmasks the line.
    pub fn enable(line: u32) -> Result<Self, Refused> {
        P::irq_enable(line).map(|()| Self(line))
    }
    /// Its number.
    pub const fn line(&self) -> u32 {
        self.0
    }
}

impl Drop for IrqLine {
    fn drop(&mut self) {
        P::irq_disable(self.0);
    }
}

/// A message-signalled interrupt to one CPU of this kernel.
#[derive(Debug)]
pub struct Msi {
    line: u32,
    /// Where the device writes.
    pub address: u64,
    /// What it writes.
    pub data: u32,
}

impl Msi {
    /// A vector to the CPU of `slot`, for the device that PCI calls `requester` (bus, device and function in 8, 5 and 3 bits).
    pub fn new(slot: usize, requester: u16) -> Result<Self, Refused> {
        let (line, address, data) = P::msi_alloc(slot, u32::from(requester))?;
        Ok(Self { line, address, data })
    }
    /// The number that `Handlers::irq` gets.
    pub const fn line(&self) -> u32 {
        self.line
    }
}

impl Drop for Msi {
    fn drop(&mut self) {
        P::msi_free(self.line);
    }
}
