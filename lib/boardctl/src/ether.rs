//! The same over Ethernet: a frame asks, a frame answers. Both may be lost, so who asks does it again until it hears; the number tells that it is the same
//! request.
//!
//! The two addresses and the type of the frame are followed by `Cob!`, then little-endian: the request's number (8 bytes), the board (2), the kernel to be let in
//! by (2), the incarnation (4), what is asked (1; 0 in an answer) and the answer (1; 1: done, 2: it could not be done).

use zerocopy::{
    FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

use crate::Order;

/// The controller's address: a locally administered one.
pub const CONTROLLER: [u8; 6] = [0x02, 0x43, 0x6f, 0x62, 0xff, 0xff];
/// The type of its frames: the second of those for local experiments (IEEE 802).
pub const TYPE: u16 = 0x88b6;
/// Bytes of a frame: the fewest that Ethernet has, without check sequence.
pub const BYTES: usize = 60;

const MAGIC: [u8; 4] = *b"Cob!";
const DONE: u8 = 1;
const REFUSED: u8 = 2;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    to: [u8; 6],
    from: [u8; 6],
    kind: [u8; 2],
    magic: [u8; 4],
    number: U64,
    board: U16,
    starter: U16,
    incarnation: U32,
    order: u8,
    answer: u8,
    filling: [u8; 24],
}

const _: () = assert!(size_of::<Raw>() == BYTES);

impl Raw {
    fn new(to: [u8; 6], from: [u8; 6], number: u64) -> Self {
        let kind = TYPE.to_be_bytes();
        Self { to, from, kind, magic: MAGIC, number: number.into(), ..Self::new_zeroed() }
    }

    /// The frame, if it is one between kernels and the controller.
    fn read(frame: &[u8]) -> Option<Self> {
        let (raw, _) = Self::read_from_prefix(frame).ok()?;
        (raw.kind == TYPE.to_be_bytes() && raw.magic == MAGIC).then_some(raw)
    }
}

/// What a kernel asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Grows with every request of one card's.
    pub number: u64,
    /// The board.
    pub board: u16,
    /// What is to become of it.
    pub order: Order,
    /// The kernel that its first one asks to be let in.
    pub starter: u16,
    /// Of its first kernel.
    pub incarnation: u32,
}

/// Whether a frame is one between kernels and the controller.
pub fn is_ours(frame: &[u8]) -> bool {
    Raw::read(frame).is_some()
}

/// The frame of a request by the card at this address.
pub fn ask(from: [u8; 6], request: &Request) -> [u8; BYTES] {
    zerocopy::transmute!(Raw {
        board: request.board.into(),
        starter: request.starter.into(),
        incarnation: request.incarnation.into(),
        order: request.order as u8,
        ..Raw::new(CONTROLLER, from, request.number)
    })
}

/// The request in a frame, and the address of the card that asks.
pub fn asked(frame: &[u8]) -> Option<([u8; 6], Request)> {
    let raw = Raw::read(frame).filter(|raw| raw.to == CONTROLLER)?;
    let request = Request {
        number: raw.number.get(),
        board: raw.board.get(),
        starter: raw.starter.get(),
        incarnation: raw.incarnation.get(),
        order: Order::of(raw.order)?,
    };
    Some((raw.from, request))
}

/// The answer to a request by the card at this address.
pub fn answer(to: [u8; 6], number: u64, done: bool) -> [u8; BYTES] {
    let answer = if done { DONE } else { REFUSED };
    zerocopy::transmute!(Raw { answer, ..Raw::new(to, CONTROLLER, number) })
}

/// The answer in a frame: to which request, and whether it is done.
pub fn answered(frame: &[u8]) -> Option<(u64, bool)> {
    let raw = Raw::read(frame).filter(|raw| raw.order == 0 && (DONE..=REFUSED).contains(&raw.answer))?;
    Some((raw.number.get(), raw.answer == DONE))
}

#[cfg(test)]
mod tests {
    use super::{Request, answer, answered, ask, asked, is_ours};
    use crate::Order;

    const CARD: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn what_is_asked_and_answered_is_read() {
        for order in [Order::Stop, Order::Start] {
            let request = Request { number: 1 << 40 | 5, board: 2, order, starter: 63, incarnation: 0xdead_beef };
            let frame = ask(CARD, &request);
            assert_eq!((asked(&frame), answered(&frame)), (Some((CARD, request)), None));
        }
        for done in [true, false] {
            let frame = answer(CARD, 9, done);
            assert_eq!((answered(&frame), asked(&frame)), (Some((9, done)), None));
            assert_eq!(frame[..6], CARD);
        }
    }

    #[test]
    fn what_is_short_or_of_others_is_nothing() {
        let request = Request { number: 1, board: 1, order: Order::Stop, starter: 0, incarnation: 1 };
        let good = ask(CARD, &request);
        for length in 0..good.len() {
            assert!(asked(&good[..length]).is_none() && !is_ours(&good[..length]), "{length}");
        }
        for at in [0, 12, 13, 14, 17, 34] {
            let mut bad = good;
            bad[at] ^= 0x40;
            assert_eq!(asked(&bad), None, "byte {at}");
        }
        let mut strange = answer(CARD, 1, true);
        strange[35] = 3;
        assert_eq!(answered(&strange), None);
    }
}
