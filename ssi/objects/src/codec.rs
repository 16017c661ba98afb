//! Structures in the payload of messages: little-endian, checked, and open to later fields.
//!
//! A structure is a *record*: its length, then its fields in order. A reader cuts a longer record; fields that a later version added and an
//! older sender did not write take their defaults. Nothing here trusts a length: what does not fit is [`Short`].

use alloc::{string::String, vec::Vec};

use base::{KernelId, ObjectId};

/// The bytes end inside a value, or a value is none of its type. The sender is to blame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Short;

/// Writes values.
#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

/// Reads values.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

/// A value with an encoding.
pub trait Coded: Sized {
    /// Writes it.
    fn put(&self, to: &mut Writer);
    /// Reads it.
    ///
    /// # Errors
    /// [`Short`].
    fn get(from: &mut Reader<'_>) -> Result<Self, Short>;

    /// As bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        self.put(&mut writer);
        writer.0
    }

    /// From bytes, of which there may be more than needed.
    ///
    /// # Errors
    /// [`Short`].
    fn from_bytes(bytes: &[u8]) -> Result<Self, Short> {
        Self::get(&mut Reader(bytes))
    }
}

impl<'a> Reader<'a> {
    /// The next `n` bytes.
    ///
    /// # Errors
    /// [`Short`] if there are fewer.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Short> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(Short)?;
        self.0 = tail;
        Ok(head)
    }

    /// A record: a reader of just its bytes.
    ///
    /// # Errors
    /// [`Short`].
    pub fn record(&mut self) -> Result<Reader<'a>, Short> {
        let len = u32::get(self)? as usize;
        self.take(len).map(Reader)
    }

    /// A field of a later version: its default if the record ends before it.
    ///
    /// # Errors
    /// [`Short`] if the record ends inside it.
    pub fn later<T: Coded>(&mut self, default: T) -> Result<T, Short> {
        if self.0.is_empty() { Ok(default) } else { T::get(self) }
    }
}

impl Writer {
    /// Writes a record: whatever `fill` writes, with its length before it.
    pub fn record(&mut self, fill: impl FnOnce(&mut Self)) {
        let at = self.0.len();
        self.0.extend_from_slice(&[0; 4]);
        fill(self);
        let len = (self.0.len() - at - 4) as u32;
        if let Some(place) = self.0.get_mut(at..at + 4) {
            place.copy_from_slice(&len.to_le_bytes());
        }
    }
}

macro_rules! integers {
    ($($t:ty)*) => {$(
        impl Coded for $t {
            fn put(&self, to: &mut Writer) {
                to.0.extend_from_slice(&self.to_le_bytes());
            }

            fn get(from: &mut Reader<'_>) -> Result<Self, Short> {
                let bytes = from.take(size_of::<$t>())?;
                Ok(Self::from_le_bytes(bytes.try_into().map_err(|_| Short)?))
            }
        }
    )*};
}

integers! { u8 u16 u32 u64 i8 i32 i64 }

impl Coded for bool {
    fn put(&self, to: &mut Writer) {
        u8::from(*self).put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Short> {
        Ok(u8::get(from)? != 0)
    }
}

impl<const N: usize> Coded for [u8; N] {
    fn put(&self, to: &mut Writer) {
        to.0.extend_from_slice(self);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Short> {
        from.take(N)?.try_into().map_err(|_| Short)
    }
}

impl<T: Coded> Coded for Option<T> {
    fn put(&self, to: &mut Writer) {
        self.is_some().put(to);
        if let Some(value) = self {
            value.put(to);
        }
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Short> {
        if bool::get(from)? { T::get(from).map(Some) } else { Ok(None) }
    }
}

impl<T: Coded> Coded for Vec<T> {
    fn put(&self, to: &mut Writer) {
        (self.len() as u32).put(to);
        for value in self {
            value.put(to);
        }
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Short> {
        let count = u32::get(from)? as usize;
        // A value has at least a byte: a count beyond the bytes is a lie, and must not make us allocate for it.
        if count > from.0.len() {
            return Err(Short);
        }
        let mut values = Self::with_capacity(count.min(1024));
        for _ in 0..count {
            values.push(T::get(from)?);
        }
        Ok(values)
    }
}

impl Coded for String {
    fn put(&self, to: &mut Writer) {
        (self.len() as u32).put(to);
        to.0.extend_from_slice(self.as_bytes());
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Short> {
        let len = u32::get(from)? as usize;
        let bytes = from.take(len)?;
        core::str::from_utf8(bytes).map(Into::into).map_err(|_| Short)
    }
}

impl<A: Coded, B: Coded> Coded for (A, B) {
    fn put(&self, to: &mut Writer) {
        self.0.put(to);
        self.1.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Short> {
        Ok((A::get(from)?, B::get(from)?))
    }
}

impl Coded for KernelId {
    fn put(&self, to: &mut Writer) {
        self.index.put(to);
        self.incarnation.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Short> {
        Ok(Self { index: u16::get(from)?, incarnation: u32::get(from)? })
    }
}

impl Coded for ObjectId {
    fn put(&self, to: &mut Writer) {
        self.birth.put(to);
        self.serial.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Short> {
        Ok(Self { birth: KernelId::get(from)?, serial: u64::get(from)? })
    }
}

/// An encoding that another crate, which names itself with the type `By`, gives to a type of a third one: there the orphan rule wants something of
/// its own in the implementation.
pub trait Body<By>: Sized {
    /// Writes it.
    fn put(&self, to: &mut Writer);
    /// Reads it.
    ///
    /// # Errors
    /// [`Short`].
    fn get(from: &mut Reader<'_>) -> Result<Self, Short>;
}

impl<By, T: Body<By>> Body<By> for Option<T> {
    fn put(&self, to: &mut Writer) {
        self.is_some().put(to);
        if let Some(value) = self {
            value.put(to);
        }
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Short> {
        if bool::get(from)? { T::get(from).map(Some) } else { Ok(None) }
    }
}

impl<By, T: Body<By>> Body<By> for Vec<T> {
    fn put(&self, to: &mut Writer) {
        (self.len() as u32).put(to);
        for value in self {
            value.put(to);
        }
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Short> {
        let count = u32::get(from)? as usize;
        // Each has at least a byte: a larger count is a lie.
        if count > from.0.len() {
            return Err(Short);
        }
        (0..count).map(|_| T::get(from)).collect()
    }
}

/// A [`Body`] as a record, by a pair of blocks: `coded!(By: Type, |value, to| { … }, |from| { … })`. Later fields can follow.
#[macro_export]
macro_rules! coded {
    ($by:ty: $type:ty, |$value:ident, $to:ident| $put:block, |$from:ident| $get:block) => {
        impl $crate::codec::Body<$by> for $type {
            fn put(&self, to: &mut $crate::codec::Writer) {
                let $value = self;
                to.record(|$to| $put);
            }

            fn get(from: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::Short> {
                let mut record = from.record()?;
                let $from = &mut record;
                Ok($get)
            }
        }
    };
}

/// A structure as a record: `record!(Type { field, field, … })`, with the fields in an order that never changes. Fields that a later version
/// adds come last, as `field = default`.
#[macro_export]
macro_rules! record {
    ($type:ty { $($field:ident),* $(,)? $(; $($later:ident = $default:expr),* $(,)?)? }) => {
        impl $crate::codec::Coded for $type {
            fn put(&self, to: &mut $crate::codec::Writer) {
                to.record(|to| {
                    $( $crate::codec::Coded::put(&self.$field, to); )*
                    $( $( $crate::codec::Coded::put(&self.$later, to); )* )?
                });
            }

            fn get(from: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::Short> {
                let mut record = from.record()?;
                Ok(Self {
                    $( $field: $crate::codec::Coded::get(&mut record)?, )*
                    $( $( $later: record.later($default)?, )* )?
                })
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use alloc::{string::String, vec, vec::Vec};

    use super::{Coded, Reader, Short, Writer};

    #[derive(PartialEq, Eq, Debug, Clone)]
    struct Old {
        name: String,
        numbers: Vec<u32>,
    }
    record!(Old { name, numbers });

    #[derive(PartialEq, Eq, Debug, Clone)]
    struct New {
        name: String,
        numbers: Vec<u32>,
        extra: Option<u64>,
    }
    record!(New { name, numbers; extra = None });

    #[test]
    fn neighbouring_versions_read_each_other() {
        let old = Old { name: "a".into(), numbers: vec![1, 2, 3] };
        let new = New::from_bytes(&old.to_bytes()).unwrap();
        assert_eq!(new.extra, None);
        let newer = New { extra: Some(7), ..new };
        assert_eq!(Old::from_bytes(&newer.to_bytes()), Ok(old));
        assert_eq!(New::from_bytes(&newer.to_bytes()), Ok(newer));
    }

    #[test]
    fn no_bytes_make_it_panic_or_allocate_without_end() {
        let good = vec![Old { name: "name".into(), numbers: vec![9; 20] }; 3].to_bytes();
        for cut in 0..good.len() {
            assert_eq!(Vec::<Old>::from_bytes(&good[..cut]), Err(Short));
        }
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..3 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (seed >> 33) as usize % bytes.len();
                bytes[at] = (seed >> 25) as u8;
            }
            let _ = Vec::<Old>::from_bytes(&bytes);
        }
        let mut w = Writer::default();
        u32::MAX.put(&mut w);
        assert_eq!(Vec::<u8>::get(&mut Reader(&w.0)), Err(Short));
    }
}
