//! What kernels that share nothing send each other: Ethernet frames of the first local experimental EtherType (IEEE Std 802-2014, 9.2.4).
//!
//! ```text
//!  0  Ethernet: destination, source, 0x88b5
//! 14  version u8, kind u8, lane u8, flags u8 · machine u32
//! 22  from: index u16 · to: index u16, 0xffff = everybody · length u16 of what follows the head · gaps u8: lanes that miss a frame, as bits · 0 u8
//! 30  from: incarnation u32 · to: incarnation u32
//! 38  number u64 of this frame in its lane
//! 46  acks, a u64 per lane: the number of the next frame that is missing there
//! 78  rooms, a u16 per lane: so many frames from there on have room
//! 86  CRC-32C u32 of everything from 14 on, with this field 0
//! 90  what it carries
//! ```
//! All numbers are little-endian. The checksum finds what the wire damaged; it proves nobody's identity: this is for a network that is the machine's own.

use alloc::vec::Vec;

use crc::{CRC_32_ISCSI, Crc};
use wire::{KernelId, LANES};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use crate::signs::{Signs, State, printable};

/// The first local experimental EtherType.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Kernels that speak other versions are not heard.
const VERSION: u8 = 1;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of the head, with Ethernet's.
pub const HEAD: usize = 90;
/// The longest frame, without the check sequence of Ethernet.
pub const LONGEST: usize = 1514;
/// Bytes that a frame can carry.
pub const PIECE: usize = LONGEST - HEAD;
/// Everybody.
pub const BROADCAST: [u8; 6] = [0xff; 6];
/// The index that means everybody.
const EVERYBODY: u16 = 0xffff;
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// Where the checksum is, after the Ethernet header.
const CHECK: usize = 72;
/// The most bytes of a reason to die.
const REASON: usize = 128;

/// What a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The sender shows signs of itself.
    Signs,
    /// A piece of a lane.
    Data,
    /// What has come and how much may.
    Acks,
}

/// The receiver is asked to answer: with its signs, or with its acks.
pub const ASKS: u8 = 1;

/// A frame but for what it carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// What it is for.
    pub kind: Kind,
    /// The lane, of [`Kind::Data`].
    pub lane: u8,
    /// [`ASKS`].
    pub flags: u8,
    /// Kernels of other machines are not heard.
    pub machine: u32,
    /// Who sends it.
    pub from: KernelId,
    /// Who is to hear it; `None`: all.
    pub to: Option<KernelId>,
    /// Lanes on which something came after what is missing, as bits.
    pub gaps: u8,
    /// Its number in its lane.
    pub number: u64,
    /// The next frame that is missing, by lane.
    pub acks: [u64; LANES],
    /// So many frames from there on have room.
    pub rooms: [u16; LANES],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    destination: [u8; 6],
    source: [u8; 6],
    ethertype: [u8; 2],
    version: u8,
    kind: u8,
    lane: u8,
    flags: u8,
    machine: U32,
    from_index: U16,
    to_index: U16,
    length: U16,
    gaps: u8,
    zero: u8,
    from_incarnation: U32,
    to_incarnation: U32,
    number: U64,
    acks: [U64; LANES],
    rooms: [U16; LANES],
    check: U32,
}

const _: () = assert!(size_of::<Raw>() == HEAD && ETHERNET + CHECK == HEAD - 4);

/// Writes a frame into `out`, in place of what was there.
pub fn pack(out: &mut Vec<u8>, destination: [u8; 6], source: [u8; 6], head: &Head, carried: &[u8]) {
    let to = head.to.unwrap_or(KernelId::new(EVERYBODY, 0));
    let mut raw = Raw {
        destination,
        source,
        ethertype: ETHERTYPE,
        version: VERSION,
        kind: head.kind as u8,
        lane: head.lane,
        flags: head.flags,
        machine: head.machine.into(),
        from_index: head.from.index.into(),
        to_index: to.index.into(),
        length: (carried.len() as u16).into(),
        gaps: head.gaps,
        zero: 0,
        from_incarnation: head.from.incarnation.into(),
        to_incarnation: to.incarnation.into(),
        number: head.number.into(),
        acks: head.acks.map(U64::new),
        rooms: head.rooms.map(U16::new),
        check: U32::ZERO,
    };
    raw.check = check(raw.as_bytes(), carried).into();
    out.clear();
    out.extend_from_slice(raw.as_bytes());
    out.extend_from_slice(carried);
}

/// The checksum of a head, whose check field is 0, and what the frame carries.
fn check(head: &[u8], carried: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(head.get(ETHERNET..).unwrap_or_default());
    digest.update(carried);
    digest.finalize()
}

/// Why a frame is not heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unheard {
    /// It is of another protocol, version or machine.
    Foreign,
    /// It is not what was sent.
    Damaged,
}

/// Reads a frame of `machine`: from which address it came, its head, and what it carries.
///
/// # Errors
/// [`Unheard`].
pub fn unpack(bytes: &[u8], machine: u32) -> Result<([u8; 6], Head, &[u8]), Unheard> {
    let (raw, rest) = Raw::read_from_prefix(bytes).map_err(|_| Unheard::Foreign)?;
    if raw.ethertype != ETHERTYPE || raw.version != VERSION {
        return Err(Unheard::Foreign);
    }
    // Short frames are padded on the wire.
    let carried = rest.get(..usize::from(raw.length.get())).ok_or(Unheard::Damaged)?;
    let told = raw.check.get();
    let raw = Raw { check: U32::ZERO, ..raw };
    if check(raw.as_bytes(), carried) != told {
        return Err(Unheard::Damaged);
    }
    if raw.machine.get() != machine {
        return Err(Unheard::Foreign);
    }
    let kind = match raw.kind {
        0 => Kind::Signs,
        1 => Kind::Data,
        2 => Kind::Acks,
        _ => return Err(Unheard::Foreign),
    };
    let to = KernelId::new(raw.to_index.get(), raw.to_incarnation.get());
    let head = Head {
        kind,
        lane: raw.lane,
        flags: raw.flags,
        machine,
        from: KernelId::new(raw.from_index.get(), raw.from_incarnation.get()),
        to: (to.index != EVERYBODY).then_some(to),
        gaps: raw.gaps,
        number: raw.number.get(),
        acks: raw.acks.map(U64::get),
        rooms: raw.rooms.map(U16::get),
    };
    Ok((raw.source, head, carried))
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSigns {
    beats: U64,
    since: U64,
    ended: U64,
    state: u8,
    held: u8,
    reason: [u8; REASON],
}

/// What a kernel shows of itself, and of what it dies: as much of that as fits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shown {
    /// The signs.
    pub signs: Signs,
    reason: [u8; REASON],
}

impl Shown {
    /// A kernel that begins.
    pub const fn new(owner: KernelId) -> Self {
        let signs = Signs { owner, state: Some(State::Starting), beats: 0, since: 0, ended: None, held: false };
        Self { signs, reason: [0; REASON] }
    }

    /// Of what it dies.
    pub fn reason(&self) -> alloc::string::String {
        printable(&self.reason)
    }

    /// Says of what it dies.
    pub fn set_reason(&mut self, reason: &str) {
        self.reason = [0; REASON];
        for (to, from) in self.reason.iter_mut().zip(reason.bytes()) {
            *to = from;
        }
    }

    /// As a frame carries it.
    pub fn to_bytes(self) -> [u8; size_of::<RawSigns>()] {
        let signs = self.signs;
        let raw = RawSigns {
            beats: signs.beats.into(),
            since: signs.since.into(),
            ended: signs.ended.unwrap_or(0).into(),
            state: signs.state.map_or(0, State::number) as u8,
            held: u8::from(signs.held),
            reason: self.reason,
        };
        zerocopy::transmute!(raw)
    }

    /// What a frame from `owner` carries.
    pub fn from_bytes(owner: KernelId, bytes: &[u8]) -> Option<Self> {
        let (raw, _) = RawSigns::read_from_prefix(bytes).ok()?;
        let signs = Signs {
            owner,
            state: State::from_number(raw.state.into()),
            beats: raw.beats.get(),
            since: raw.since.get(),
            ended: Some(raw.ended.get()).filter(|at| *at != 0),
            held: raw.held != 0,
        };
        Some(Self { signs, reason: raw.reason })
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use proptest::prelude::*;
    use wire::KernelId;

    use super::{BROADCAST, HEAD, Head, Kind, PIECE, Shown, Unheard, pack, unpack};
    use crate::signs::State;

    const HERE: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn head() -> Head {
        Head {
            kind: Kind::Data,
            lane: 3,
            flags: 0,
            machine: 77,
            from: KernelId::new(1, 2),
            to: Some(KernelId::new(0, 9)),
            gaps: 5,
            number: u64::MAX - 1,
            acks: [1, 2, 3, u64::MAX],
            rooms: [7, 8, 9, 10],
        }
    }

    #[test]
    fn a_frame_is_what_was_sent_or_is_not_heard() {
        let mut frame = Vec::new();
        pack(&mut frame, BROADCAST, HERE, &head(), &[9; PIECE]);
        assert_eq!(frame.len(), super::LONGEST);
        assert_eq!(unpack(&frame, 77).unwrap(), (HERE, head(), &[9; PIECE][..]));
        assert_eq!(unpack(&frame, 78).unwrap_err(), Unheard::Foreign);
        for at in 14..frame.len() {
            let mut damaged = frame.clone();
            damaged[at] ^= 0x10;
            assert!(unpack(&damaged, 77).is_err(), "byte {at}");
        }
        pack(&mut frame, BROADCAST, HERE, &Head { to: None, ..head() }, &[1]);
        frame.resize(HEAD + 60, 0);
        let (_, head, carried) = unpack(&frame, 77).unwrap();
        assert_eq!((head.to, carried), (None, &[1][..]), "padding is no part of it");
    }

    #[test]
    fn signs_are_what_was_shown() {
        let mut shown = Shown::new(KernelId::new(3, 4));
        shown.signs.state = Some(State::Dying);
        shown.signs.ended = Some(12);
        shown.set_reason("out of luck\n");
        let bytes = shown.to_bytes();
        let heard = Shown::from_bytes(KernelId::new(3, 4), &bytes).unwrap();
        assert_eq!(heard, shown);
        assert_eq!(heard.reason(), "out of luck.");
        assert_eq!(Shown::from_bytes(KernelId::new(3, 4), &bytes[1..]), None);
        shown.set_reason(&"x".repeat(1000));
        assert_eq!(shown.reason().len(), super::REASON);
    }

    proptest! {
        #[test]
        fn nonsense_is_not_heard(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 14_usize..90) {
            prop_assert!(unpack(&bytes, 77).is_err());
            let mut frame = Vec::new();
            pack(&mut frame, BROADCAST, HERE, &head(), &bytes);
            frame.truncate(at);
            prop_assert!(unpack(&frame, 77).is_err());
            let mut signs = vec![0; bytes.len()];
            signs.copy_from_slice(&bytes);
            let _ = Shown::from_bytes(KernelId::new(3, 4), &signs);
        }
    }
}
