//! What a message type is, and the macro that declares one.

use crate::{
    field::Field,
    header::{FLAG_REPLY, FLAG_REQUEST, Header},
};

/// The priority class of a message. A lane waits only for a lane above it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Lane {
    /// Membership, probes, revocations.
    Control = 0,
    /// Answers, READY, signals: what somebody waits for and what needs no worker.
    Reply = 1,
    /// What asks a peer to do something.
    Request = 2,
    /// Data.
    Bulk = 3,
}

/// How many lanes a link has.
pub const LANES: usize = 4;

impl Lane {
    /// All lanes, the most urgent first.
    pub const ALL: [Self; LANES] = [Self::Control, Self::Reply, Self::Request, Self::Bulk];

    /// The name in `/proc/cob/lanes`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Reply => "reply",
            Self::Request => "request",
            Self::Bulk => "bulk",
        }
    }
}

/// Whether the sender of a message gets an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nobody answers.
    Event,
    /// One answer, or the death of the peer, or the deadline.
    Request,
    /// The answer.
    Reply,
}

/// Why bytes are not the message they say they are. The receiver blames the sender and goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Fewer bytes than a header.
    NoHeader,
    /// The lengths in the header contradict each other, the type or the bytes that came.
    Length,
    /// A request or a reply without a request id.
    NoRequest,
    /// The body ends inside a field, or before the fields that every version has.
    Short,
    /// More payload than the type allows.
    TooLong,
    /// The type is another one than asked for.
    OtherType,
    /// The flags contradict the type.
    Flags,
    /// A version older than this kernel reads, or 0.
    Version,
}

impl Malformed {
    /// In words.
    pub const fn why(self) -> &'static str {
        match self {
            Self::NoHeader => "shorter than a header",
            Self::Length => "lengths contradict each other",
            Self::NoRequest => "request or reply without an id",
            Self::Short => "body ends inside a field",
            Self::TooLong => "payload longer than the type allows",
            Self::OtherType => "not the type expected",
            Self::Flags => "flags contradict the type",
            Self::Version => "version that is not read any more",
        }
    }
}

/// What is known of a message type without its Rust type: for tables, checks and tests.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The type number.
    pub number: u16,
    /// The name.
    pub name: &'static str,
    /// The lane.
    pub lane: Lane,
    /// Whether it is answered.
    pub kind: Kind,
    /// The oldest version that is read.
    pub min: u8,
    /// The version that is written.
    pub max: u8,
    /// The layout hash of every version from 1.
    pub hashes: &'static [u32],
    /// Bytes of the fixed part of the newest version.
    pub fixed: usize,
    /// The most payload bytes that may follow the fixed part.
    pub payload: usize,
    /// Whether a body decodes.
    pub check: fn(&Header, &[u8]) -> Result<(), Malformed>,
    /// Writes a sample body and says its length.
    pub sample: fn(&mut [u8]) -> usize,
}

/// A message type; [`crate::messages!`] writes this.
pub trait Message: Sized + Copy {
    /// What is known of the type.
    const SPEC: Spec;
    /// Writes the fixed part to the front of `out`, which has at least [`Spec::fixed`] bytes, and says its length.
    fn encode(&self, out: &mut [u8]) -> usize;
    /// Reads the fixed part: a longer one is cut, missing fields of later versions take their defaults.
    ///
    /// # Errors
    /// [`Malformed`] if a field is cut or a field of version 1 is missing.
    fn decode(fixed: &[u8]) -> Result<Self, Malformed>;
    /// A value whose every byte is set, for golden files and tests.
    fn sample() -> Self;

    /// Reads the message that `header` announces: the fixed part and the payload.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong with it; the sender is to blame.
    fn read<'a>(header: &Header, body: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let spec = Self::SPEC;
        if header.kind != spec.number {
            return Err(Malformed::OtherType);
        }
        if header.version < spec.min {
            return Err(Malformed::Version);
        }
        let flags = match spec.kind {
            Kind::Event => 0,
            Kind::Request => FLAG_REQUEST,
            Kind::Reply => FLAG_REPLY,
        };
        if header.flags & (FLAG_REQUEST | FLAG_REPLY) != flags {
            return Err(Malformed::Flags);
        }
        let (fixed, payload) = body.split_at_checked(usize::from(header.fixed)).ok_or(Malformed::Length)?;
        if payload.len() > spec.payload {
            return Err(Malformed::TooLong);
        }
        Ok((Self::decode(fixed)?, payload))
    }
}

/// A message that is answered.
pub trait Request: Message {
    /// What answers it (besides [`crate::generic::Failed`], [`crate::generic::Moved`] and [`crate::generic::Stale`], which may answer every request).
    type Reply: Message;
}

/// Reads a field and moves on.
#[doc(hidden)]
pub fn take<F: Field>(bytes: &mut &[u8]) -> Result<F, Malformed> {
    let value = F::get(bytes).ok_or(Malformed::Short)?;
    *bytes = bytes.get(F::SIZE..).ok_or(Malformed::Short)?;
    Ok(value)
}

/// Reads a field of a later version: missing altogether, it is `default`.
#[doc(hidden)]
pub fn take_or<F: Field>(bytes: &mut &[u8], default: F) -> Result<F, Malformed> {
    if bytes.is_empty() { Ok(default) } else { take(bytes) }
}

/// FNV-1a, for layout hashes.
#[doc(hidden)]
pub const fn hash(mut h: u32, text: &str) -> u32 {
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        h = (h ^ bytes[i] as u32).wrapping_mul(0x0100_0193);
        i += 1;
    }
    // A separator, so that ("ab", "c") and ("a", "bc") differ.
    (h ^ 0xff).wrapping_mul(0x0100_0193)
}

/// Adds a field to a layout hash.
#[doc(hidden)]
pub const fn hash_field(h: u32, name: &str, kind: &str, size: usize) -> u32 {
    (hash(hash(h, name), kind) ^ size as u32).wrapping_mul(0x0100_0193)
}

/// Declares the messages of a family: one struct, its checked decoding and its layout hashes per message, and `SPECS`.
///
/// ```text
/// messages! {
///     /// What it is for.
///     0x0301 Lookup (Request, request -> LookupReply, payload 255) {
///         v1 {
///             /// What the field says, with its unit.
///             kind: u16,
///             key: u64,
///         }
///         v2 { hint: u32 = 0 }
///     }
/// }
/// ```
///
/// The parts: type number, name, lane, `event` | `reply` | `request -> Reply`, most payload bytes (0 if left out), versions.
/// Fields are `u8 u16 u32 u64 i32 i64 [u8; N] KernelId ObjectId`. A published version is never changed: add `v2`, `v3`, … whose
/// fields have the defaults that a message of an older sender means.
#[macro_export]
macro_rules! messages {
    ($(
        $(#[$meta:meta])*
        $number:literal $name:ident ( $lane:ident, $kind:ident $(-> $reply:ident)? $(, payload $payload:literal)? ) {
            v1 { $( $(#[$fmeta:meta])* $field:ident : $type:ty ),* $(,)? }
            $( $later:ident { $( $(#[$lmeta:meta])* $lfield:ident : $ltype:ty = $default:expr ),* $(,)? } )*
        }
    )*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, PartialEq, Eq, Debug)]
            pub struct $name {
                $( $(#[$fmeta])* pub $field: $type, )*
                $( $( $(#[$lmeta])* pub $lfield: $ltype, )* )*
            }

            impl $name {
                const FIXED: usize = 0
                    $( + <$type as $crate::field::Field>::SIZE )*
                    $( $( + <$ltype as $crate::field::Field>::SIZE )* )*;
                const VERSIONS: usize = 1 $( + { let _ = stringify!($later); 1 } )*;
                const HASHES: [u32; Self::VERSIONS] = {
                    use $crate::message::hash;
                    let mut table = [0; Self::VERSIONS];
                    #[allow(unused_mut, reason = "there may be one version only, and messages without fields")]
                    let mut h = hash(hash(hash(0x811c_9dc5, stringify!($name)), stringify!($lane)), stringify!($kind));
                    $( h = $crate::message::hash_field(h, stringify!($field), <$type as $crate::field::Field>::NAME, <$type as $crate::field::Field>::SIZE); )*
                    #[allow(unused_mut, unused_assignments, reason = "there may be one version only")]
                    let mut i = 0;
                    table[i] = h;
                    $(
                        $( h = $crate::message::hash_field(h, stringify!($lfield), <$ltype as $crate::field::Field>::NAME, <$ltype as $crate::field::Field>::SIZE); )*
                        i += 1;
                        table[i] = h;
                    )*
                    table
                };
            }

            impl $crate::message::Message for $name {
                const SPEC: $crate::message::Spec = $crate::message::Spec {
                    number: $number,
                    name: stringify!($name),
                    lane: $crate::message::Lane::$lane,
                    kind: $crate::messages!(@kind $kind),
                    min: 1,
                    max: Self::VERSIONS as u8,
                    hashes: &Self::HASHES,
                    fixed: Self::FIXED,
                    payload: 0 $( + $payload )?,
                    check: |header, body| <Self as $crate::message::Message>::read(header, body).map(|_| ()),
                    sample: |out| <Self as $crate::message::Message>::encode(&<Self as $crate::message::Message>::sample(), out),
                };

                #[allow(unused_assignments, unused_mut, unused_variables, reason = "there are messages without fields")]
                fn encode(&self, out: &mut [u8]) -> usize {
                    let mut at = 0;
                    $( $crate::field::Field::put(self.$field, out.get_mut(at..).unwrap_or_default());
                       at += <$type as $crate::field::Field>::SIZE; )*
                    $( $( $crate::field::Field::put(self.$lfield, out.get_mut(at..).unwrap_or_default());
                          at += <$ltype as $crate::field::Field>::SIZE; )* )*
                    Self::FIXED
                }

                #[allow(unused_mut, unused_variables, reason = "there are messages without fields")]
                fn decode(fixed: &[u8]) -> Result<Self, $crate::message::Malformed> {
                    let mut rest = fixed;
                    Ok(Self {
                        $( $field: $crate::message::take(&mut rest)?, )*
                        $( $( $lfield: $crate::message::take_or(&mut rest, $default)?, )* )*
                    })
                }

                #[allow(unused_mut, unused_variables, unused_assignments, reason = "there are messages without fields")]
                fn sample() -> Self {
                    let mut n = 0;
                    Self {
                        $( $field: { n += 1; $crate::field::Field::sample(n) }, )*
                        $( $( $lfield: { n += 1; $crate::field::Field::sample(n) }, )* )*
                    }
                }
            }

            $( impl $crate::message::Request for $name { type Reply = $reply; } )?
        )*

        /// The messages of this family.
        pub const SPECS: &[$crate::message::Spec] = &[ $( <$name as $crate::message::Message>::SPEC, )* ];
    };
    (@kind event) => { $crate::message::Kind::Event };
    (@kind request) => { $crate::message::Kind::Request };
    (@kind reply) => { $crate::message::Kind::Reply };
}
