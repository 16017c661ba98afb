//! The same over Ethernet: a frame asks, a frame answers. Both may be lost, so who asks does it again until it hears; the number tells that it is the same
//! request.
//!
//! The two addresses and the type of the frame are followed by `Cob!`, then little-endian: the request's number (8 bytes), the board (2), the kernel to be let in
//! by (2), the incarnation (4), what is asked (1; 0 in an answer) and the answer (1; 1: done, 2: it could not be done).

use crate::Order;

/// The controller's address: a locally administered one.
pub const CONTROLLER: [u8; 6] = [0x02, 0x43, 0x6f, 0x62, 0xff, 0xff];
/// The type of its frames: the second of those for local experiments (IEEE 802).
pub const TYPE: u16 = 0x88b6;
/// Bytes of a frame: the fewest that Ethernet has, without check sequence.
pub const BYTES: usize = 60;

const MAGIC: [u8; 4] = *b"Cob!";
const HEADER: usize = 14;
const DONE: u8 = 1;
const REFUSED: u8 = 2;

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

/// A frame between two addresses, before what is asked or answered is in it.
fn frame(to: [u8; 6], from: [u8; 6], number: u64) -> [u8; BYTES] {
    let mut frame = [0; BYTES];
    let head = to.into_iter().chain(from).chain(TYPE.to_be_bytes()).chain(MAGIC).chain(number.to_le_bytes());
    frame.iter_mut().zip(head).for_each(|(byte, value)| *byte = value);
    frame
}

/// `N` bytes of a frame, behind the header.
fn field<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(HEADER + at..)?.first_chunk().copied()
}

/// Whether a frame is one between kernels and the controller.
pub fn is_ours(frame: &[u8]) -> bool {
    frame.get(12..HEADER) == Some(&TYPE.to_be_bytes()) && field(frame, 0) == Some(MAGIC)
}

/// The frame of a request by the card at this address.
pub fn ask(from: [u8; 6], request: &Request) -> [u8; BYTES] {
    let mut frame = frame(CONTROLLER, from, request.number);
    let (board, starter) = (request.board.to_le_bytes(), request.starter.to_le_bytes());
    let rest = board.into_iter().chain(starter).chain(request.incarnation.to_le_bytes()).chain([request.order as u8]);
    frame.iter_mut().skip(HEADER + 12).zip(rest).for_each(|(byte, value)| *byte = value);
    frame
}

/// The request in a frame, and the address of the card that asks.
pub fn asked(frame: &[u8]) -> Option<([u8; 6], Request)> {
    if !is_ours(frame) || frame.first_chunk() != Some(&CONTROLLER) {
        return None;
    }
    let [order] = field(frame, 20)?;
    let request = Request {
        number: u64::from_le_bytes(field(frame, 4)?),
        board: u16::from_le_bytes(field(frame, 12)?),
        starter: u16::from_le_bytes(field(frame, 14)?),
        incarnation: u32::from_le_bytes(field(frame, 16)?),
        order: Order::of(order)?,
    };
    Some((frame.get(6..)?.first_chunk().copied()?, request))
}

/// The answer to a request by the card at this address.
pub fn answer(to: [u8; 6], number: u64, done: bool) -> [u8; BYTES] {
    let mut frame = frame(to, CONTROLLER, number);
    if let Some(byte) = frame.get_mut(HEADER + 21) {
        *byte = if done { DONE } else { REFUSED };
    }
    frame
}

/// The answer in a frame: to which request, and whether it is done.
pub fn answered(frame: &[u8]) -> Option<(u64, bool)> {
    let [order, answer] = field(frame, 20)?;
    if !is_ours(frame) || order != 0 || !(DONE..=REFUSED).contains(&answer) {
        return None;
    }
    Some((u64::from_le_bytes(field(frame, 4)?), answer == DONE))
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
            // What is behind the fields fills the frame.
            assert_eq!(asked(&good[..length]).is_some(), length >= 35, "{length}");
            assert_eq!(is_ours(&good[..length]), length >= 18, "{length}");
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
