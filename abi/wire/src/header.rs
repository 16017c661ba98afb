//! The header of every message: one cache line.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, LE, Unaligned,
    byteorder::{U16, U32, U64},
};

use crate::{
    Malformed,
    field::Field as _,
    id::{KernelId, ObjectId},
};

/// The header as bytes. The first word belongs to the transport, so that a ring can publish a short message by one store
/// into the line that carries it.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    /// The transport's own word (length and stamp in a ring; zero elsewhere).
    pub frame: U64<LE>,
    kind: U16<LE>,
    version: u8,
    flags: u8,
    length: U32<LE>,
    incarnation: U32<LE>,
    epoch: U32<LE>,
    request: U64<LE>,
    object: [u8; 16],
    clock: U64<LE>,
    trace: U32<LE>,
    fixed: U16<LE>,
    sender: U16<LE>,
}

/// Bytes of a header.
pub const HEADER_SIZE: usize = 64;
const _: () = assert!(size_of::<RawHeader>() == HEADER_SIZE);

/// This message answers the request named in `request`.
pub const FLAG_REPLY: u8 = 1 << 0;
/// This message wants an answer, under the id in `request`.
pub const FLAG_REQUEST: u8 = 1 << 1;

/// The header of a message, in native types.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// The message type: see [`crate::FAMILIES`].
    pub kind: u16,
    /// The version of the type that the sender wrote.
    pub version: u8,
    /// `FLAG_*`.
    pub flags: u8,
    /// Bytes of the body: the fixed part and the payload.
    pub length: u32,
    /// Bytes of the fixed part; the payload is the rest of the body.
    pub fixed: u16,
    /// Who sent it. A message of an incarnation that is not the member is dropped.
    pub sender: KernelId,
    /// The epoch of the view in which the sender acted.
    pub epoch: u32,
    /// The request that is made or answered; 0 for an event. Unique per sender and incarnation.
    pub request: u64,
    /// The object that the message is for.
    pub object: ObjectId,
    /// The sender's clock in nanoseconds: a receiver that is behind steps forward before it handles the message.
    pub clock: u64,
    /// Names the causal trace that the message belongs to; 0 for none.
    pub trace: u32,
}

impl Header {
    /// The header as bytes, with an empty frame word.
    pub fn to_raw(&self) -> RawHeader {
        let mut object = [0; 16];
        self.object.put(&mut object);
        RawHeader {
            frame: U64::new(0),
            kind: U16::new(self.kind),
            version: self.version,
            flags: self.flags,
            length: U32::new(self.length),
            incarnation: U32::new(self.sender.incarnation),
            epoch: U32::new(self.epoch),
            request: U64::new(self.request),
            object,
            clock: U64::new(self.clock),
            trace: U32::new(self.trace),
            fixed: U16::new(self.fixed),
            sender: U16::new(self.sender.index),
        }
    }

    /// Reads a message: the header and the body that follows it. The transport may have padded the end.
    ///
    /// # Errors
    /// [`Malformed`] if the bytes cannot be a message.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let (raw, rest) = RawHeader::read_from_prefix(bytes).map_err(|_| Malformed::NoHeader)?;
        let header = Self {
            kind: raw.kind.get(),
            version: raw.version,
            flags: raw.flags,
            length: raw.length.get(),
            fixed: raw.fixed.get(),
            sender: KernelId { index: raw.sender.get(), incarnation: raw.incarnation.get() },
            epoch: raw.epoch.get(),
            request: raw.request.get(),
            object: ObjectId::get(&raw.object).ok_or(Malformed::NoHeader)?,
            clock: raw.clock.get(),
            trace: raw.trace.get(),
        };
        let body = rest.get(..header.length as usize).ok_or(Malformed::Length)?;
        if usize::from(header.fixed) > body.len() {
            return Err(Malformed::Length);
        }
        if header.flags & (FLAG_REPLY | FLAG_REQUEST) != 0 && header.request == 0 {
            return Err(Malformed::NoRequest);
        }
        Ok((header, body))
    }
}
