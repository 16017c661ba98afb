//! What a field of a message can be, and how it looks as bytes: little-endian, packed, at a fixed offset.

use zerocopy::{
    FromBytes, IntoBytes, LE,
    byteorder::{I32, I64, U16, U32, U64},
};

use crate::id::{KernelId, ObjectId};

/// A type that may be a field of a message.
pub trait Field: Copy {
    /// Bytes on the wire.
    const SIZE: usize;
    /// The name that goes into the layout hash.
    const NAME: &'static str;
    /// Writes the field to the front of `out`; nothing if `out` is too short, which `encode` has excluded.
    fn put(self, out: &mut [u8]);
    /// Reads the field from the front of `bytes`.
    fn get(bytes: &[u8]) -> Option<Self>;
    /// A value that differs with `n`, for golden files and tests.
    fn sample(n: u8) -> Self;
}

macro_rules! integers {
    ($($t:ty as $wire:ty;)*) => {$(
        impl Field for $t {
            const SIZE: usize = size_of::<$t>();
            const NAME: &'static str = stringify!($t);

            fn put(self, out: &mut [u8]) {
                // The result only says whether `out` was long enough.
                let _ = <$wire>::new(self).write_to_prefix(out);
            }

            fn get(bytes: &[u8]) -> Option<Self> {
                Some(<$wire>::read_from_prefix(bytes).ok()?.0.get())
            }

            fn sample(n: u8) -> Self {
                let mut bytes = [0; size_of::<$t>()];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = n.wrapping_mul(16).wrapping_add(i as u8 + 1);
                }
                <$t>::from_le_bytes(bytes)
            }
        }
    )*};
}

integers! {
    u16 as U16<LE>;
    u32 as U32<LE>;
    u64 as U64<LE>;
    i32 as I32<LE>;
    i64 as I64<LE>;
}

impl Field for u8 {
    const SIZE: usize = 1;
    const NAME: &'static str = "u8";

    fn put(self, out: &mut [u8]) {
        if let Some(first) = out.first_mut() {
            *first = self;
        }
    }

    fn get(bytes: &[u8]) -> Option<Self> {
        bytes.first().copied()
    }

    fn sample(n: u8) -> Self {
        n.wrapping_mul(16).wrapping_add(1)
    }
}

impl<const N: usize> Field for [u8; N] {
    const SIZE: usize = N;
    // The length is part of the offset of what follows and of the total; the hash adds `SIZE` of every field.
    const NAME: &'static str = "bytes";

    fn put(self, out: &mut [u8]) {
        if let Some(front) = out.get_mut(..N) {
            front.copy_from_slice(&self);
        }
    }

    fn get(bytes: &[u8]) -> Option<Self> {
        bytes.get(..N)?.try_into().ok()
    }

    fn sample(n: u8) -> Self {
        core::array::from_fn(|i| n.wrapping_mul(16).wrapping_add(i as u8 + 1))
    }
}

impl Field for KernelId {
    const SIZE: usize = 8;
    const NAME: &'static str = "KernelId";

    fn put(self, out: &mut [u8]) {
        (u64::from(self.incarnation) | u64::from(self.index) << 32).put(out);
    }

    fn get(bytes: &[u8]) -> Option<Self> {
        let word = u64::get(bytes)?;
        Some(Self { index: (word >> 32) as u16, incarnation: word as u32 })
    }

    fn sample(n: u8) -> Self {
        Self { index: u16::from(n), incarnation: u32::sample(n) }
    }
}

impl Field for ObjectId {
    const SIZE: usize = 16;
    const NAME: &'static str = "ObjectId";

    fn put(self, out: &mut [u8]) {
        if let Some((serial, birth)) = out.split_at_mut_checked(8) {
            self.serial.put(serial);
            self.birth.put(birth);
        }
    }

    fn get(bytes: &[u8]) -> Option<Self> {
        let (serial, birth) = bytes.split_at_checked(8)?;
        Some(Self { serial: u64::get(serial)?, birth: KernelId::get(birth)? })
    }

    fn sample(n: u8) -> Self {
        Self { birth: KernelId::sample(n), serial: u64::sample(n) }
    }
}
