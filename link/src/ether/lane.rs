//! A lane over a wire that loses, repeats, reorders and damages frames: a stream of bytes, cut into numbered pieces. No I/O.
//!
//! The receiver says which piece it misses first and for how many it has room; the sender keeps each piece until it is not missed any more and sends the
//! first one again when that takes too long, or when it hears that later ones came before it. What is sent while there is no room waits.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use wire::{HEADER_SIZE, MAX_BODY};

use crate::{ring::Corrupt, transport::SendError};

use super::frame::PIECE;

/// Bytes of the longest message.
pub const LONGEST_MESSAGE: usize = HEADER_SIZE + MAX_BODY;
/// Bytes in front of each message: its length.
const PREFIX: usize = 4;
/// So many pieces of a lane a receiver has room for.
pub const ROOM: u16 = 24;
/// So many bytes wait to be cut into pieces; then senders are told to wait.
const QUEUE: usize = 16 << 10;
/// A receiver that says that it has more room than that is not believed.
const MOST_ROOM: u64 = 1024;

const _: () = assert!((ROOM as usize) * PIECE > 2 * LONGEST_MESSAGE && QUEUE > LONGEST_MESSAGE + PREFIX);

/// A piece that was sent and is not known to have come.
#[derive(Debug)]
struct Flying {
    piece: Vec<u8>,
    sent: u64,
    tries: u32,
}

/// The sender's end.
#[derive(Debug)]
pub struct Outgoing {
    queued: VecDeque<u8>,
    flying: VecDeque<Flying>,
    /// The number of the first that flies, or of the next piece.
    base: u64,
    /// The number of the first piece for which there is no room.
    limit: u64,
    /// Somebody was told to wait.
    refused: bool,
    /// When it was asked last whether there is room now, and how often since there was.
    asked: (u64, u32),
}

/// What an acknowledgement brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Acked {
    /// How long a piece took to be acknowledged that was sent once.
    pub took: Option<u64>,
    /// Who was told to wait may try again.
    pub room: bool,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self {
            queued: VecDeque::new(),
            flying: VecDeque::new(),
            base: 0,
            limit: ROOM.into(),
            refused: false,
            asked: (0, 0),
        }
    }
}

impl Outgoing {
    /// Takes a message.
    ///
    /// # Errors
    /// [`SendError::Later`], [`SendError::TooLong`].
    pub fn say(&mut self, head: &[u8], parts: &[&[u8]]) -> Result<(), SendError> {
        let len = parts.iter().fold(head.len(), |n, part| n.saturating_add(part.len()));
        if len > LONGEST_MESSAGE {
            return Err(SendError::TooLong);
        }
        if self.queued.len() + PREFIX + len > QUEUE {
            self.refused = true;
            return Err(SendError::Later);
        }
        self.queued.extend((len as u32).to_le_bytes());
        self.queued.extend(head);
        for part in parts {
            self.queued.extend(*part);
        }
        Ok(())
    }

    /// The next piece that was never sent, and its number; `None` if there is none or no room for it.
    pub fn next(&mut self, now: u64) -> Option<(u64, &[u8])> {
        let number = self.base + self.flying.len() as u64;
        if self.queued.is_empty() {
            return None;
        }
        if number >= self.limit {
            if self.flying.is_empty() && self.asked.1 == 0 {
                // From now on it is asked whether there is room.
                self.asked = (now, 1);
            }
            return None;
        }
        self.asked = (0, 0);
        let piece = self.queued.drain(..self.queued.len().min(PIECE)).collect();
        self.flying.push_back(Flying { piece, sent: now, tries: 0 });
        self.flying.back().map(|flying| (number, flying.piece.as_slice()))
    }

    /// The first piece that flies, if it is to be sent again: nobody acknowledged it in `patience`, which doubles each time.
    pub fn late(&mut self, now: u64, patience: u64) -> Option<(u64, &[u8])> {
        let first = self.flying.front_mut()?;
        if now < first.due(patience) {
            return None;
        }
        first.tries += 1;
        first.sent = now;
        Some((self.base, &first.piece))
    }

    /// The first piece that flies, if it is to be sent again because later ones came: once for each `patience`.
    pub fn missed(&mut self, now: u64, patience: u64) -> Option<(u64, &[u8])> {
        let first = self.flying.front_mut()?;
        if first.tries > 0 && now < first.sent.saturating_add(patience) {
            return None;
        }
        first.tries += 1;
        first.sent = now;
        Some((self.base, &first.piece))
    }

    /// Whether to ask the receiver if there is room now: what it said of that may be lost.
    pub fn asks(&mut self, now: u64, patience: u64) -> bool {
        let due = self.asks_at(patience).is_some_and(|at| now >= at);
        if due {
            self.asked = (now, self.asked.1 + 1);
        }
        due
    }

    fn asks_at(&self, patience: u64) -> Option<u64> {
        let (at, times) = self.asked;
        (times > 0).then(|| at.saturating_add(doubled(patience, times - 1)))
    }

    /// When something is to be done about what flies or waits.
    pub fn due(&self, patience: u64) -> Option<u64> {
        self.flying.front().map(|first| first.due(patience)).into_iter().chain(self.asks_at(patience)).min()
    }

    /// The receiver misses nothing before `next` and has room for `room` pieces from there.
    ///
    /// # Errors
    /// It says that it has what was never sent, or more room than anybody has.
    pub fn acked(&mut self, now: u64, next: u64, room: u16) -> Result<Acked, Corrupt> {
        let Some(news) = next.checked_sub(self.base) else { return Ok(Acked::default()) };
        if news > self.flying.len() as u64 || u64::from(room) > MOST_ROOM {
            return Err(Corrupt);
        }
        let mut acked = Acked::default();
        for flying in self.flying.drain(..news as usize) {
            acked.took = (flying.tries == 0).then(|| now.saturating_sub(flying.sent));
        }
        self.base = next;
        let limit = next + u64::from(room);
        if limit > self.limit {
            self.limit = limit;
            self.asked = (0, 0);
        }
        Ok(acked)
    }

    /// Whether somebody was told to wait and need not any more.
    pub fn has_room_again(&mut self) -> bool {
        let room = self.refused && self.queued.len() + PREFIX + LONGEST_MESSAGE <= QUEUE;
        self.refused &= !room;
        room
    }

    /// Bytes that are not known to have come.
    pub fn depth(&self) -> u64 {
        (self.queued.len() + self.flying.iter().map(|flying| flying.piece.len()).sum::<usize>()) as u64
    }
}

/// `patience`, doubled so many times, as far as a second.
fn doubled(patience: u64, times: u32) -> u64 {
    const LONGEST: u64 = 1_000_000_000;
    patience.checked_shl(times.min(16)).map_or(LONGEST, |ns| ns.min(LONGEST.max(patience)))
}

impl Flying {
    fn due(&self, patience: u64) -> u64 {
        self.sent.saturating_add(doubled(patience, self.tries))
    }
}

/// The receiver's end.
#[derive(Debug)]
pub struct Arriving {
    /// The number of the first piece that is missing.
    expected: u64,
    /// The number of the first piece for which no room was promised.
    promised: u64,
    /// Pieces that came before it.
    ahead: BTreeMap<u64, Vec<u8>>,
    /// What came in order and was not taken.
    ready: VecDeque<u8>,
}

/// What became of a piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Came {
    /// It was the next one: there may be a message.
    Next,
    /// It waits for what is missing before it.
    Ahead,
    /// It was here before: its acknowledgement is lost, or late.
    Again,
}

impl Default for Arriving {
    fn default() -> Self {
        Self { expected: 0, promised: ROOM.into(), ahead: BTreeMap::new(), ready: VecDeque::new() }
    }
}

impl Arriving {
    /// A piece came.
    ///
    /// # Errors
    /// There was no room for it, or it is none.
    pub fn came(&mut self, number: u64, piece: &[u8]) -> Result<Came, Corrupt> {
        if number < self.expected {
            return Ok(Came::Again);
        }
        if number >= self.promised || piece.is_empty() || piece.len() > PIECE {
            return Err(Corrupt);
        }
        if number > self.expected {
            let new = self.ahead.insert(number, piece.to_vec()).is_none();
            return Ok(if new { Came::Ahead } else { Came::Again });
        }
        self.ready.extend(piece);
        self.expected += 1;
        while let Some(piece) = self.ahead.remove(&self.expected) {
            self.ready.extend(piece);
            self.expected += 1;
        }
        Ok(Came::Next)
    }

    /// Takes the next message into `out`; `false` if there is none.
    ///
    /// # Errors
    /// It cannot be one.
    pub fn take(&mut self, out: &mut Vec<u8>) -> Result<bool, Corrupt> {
        let mut prefix = [0; PREFIX];
        if self.ready.len() < PREFIX {
            return Ok(false);
        }
        for (to, from) in prefix.iter_mut().zip(&self.ready) {
            *to = *from;
        }
        let len = u32::from_le_bytes(prefix) as usize;
        if !(HEADER_SIZE..=LONGEST_MESSAGE).contains(&len) {
            return Err(Corrupt);
        }
        if self.ready.len() < PREFIX + len {
            return Ok(false);
        }
        out.clear();
        out.extend(self.ready.drain(..PREFIX + len).skip(PREFIX));
        Ok(true)
    }

    /// Whether something is missing before what came.
    pub fn has_gap(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// The number of the first piece that is missing, and for how many from there on there is room now. What was promised is kept.
    pub fn acks(&mut self) -> (u64, u16) {
        self.promised = self.limit();
        (self.expected, (self.promised - self.expected) as u16)
    }

    /// What it could promise.
    fn limit(&self) -> u64 {
        let room = usize::from(ROOM).saturating_sub(self.ready.len().div_ceil(PIECE));
        self.promised.max(self.expected + room as u64)
    }

    /// Whether so much room came that the sender should know: it may stand still.
    pub fn has_news(&self) -> bool {
        self.limit() - self.promised >= u64::from(ROOM / 2)
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use super::{Arriving, Came, LONGEST_MESSAGE, Outgoing, PIECE, QUEUE, ROOM};
    use crate::{ring::Corrupt, transport::SendError};

    const HEAD: [u8; 64] = [1; 64];

    /// Sends all that can be sent.
    fn fly(out: &mut Outgoing, now: u64) -> Vec<(u64, Vec<u8>)> {
        let mut sent = Vec::new();
        while let Some((number, piece)) = out.next(now) {
            sent.push((number, piece.to_vec()));
        }
        sent
    }

    #[test]
    fn messages_come_whole_whatever_the_order() {
        let (mut out, mut arriving) = (Outgoing::default(), Arriving::default());
        out.say(&HEAD, &[&[7; 4000], b"end"]).unwrap();
        out.say(&HEAD, &[]).unwrap();
        let mut pieces = fly(&mut out, 0);
        assert_eq!(pieces.len(), 3);
        pieces.reverse();
        let came: Vec<Came> = pieces.iter().map(|(number, piece)| arriving.came(*number, piece).unwrap()).collect();
        assert_eq!(came, [Came::Ahead, Came::Ahead, Came::Next]);
        assert_eq!(arriving.came(1, &[0]), Ok(Came::Again));
        let mut message = vec![9];
        assert!(arriving.take(&mut message).unwrap());
        assert_eq!((message.len(), &message[4064..]), (4067, &b"end"[..]));
        assert!(arriving.take(&mut message).unwrap());
        assert_eq!(message, HEAD);
        assert!(!arriving.take(&mut message).unwrap());
        let (next, room) = arriving.acks();
        assert_eq!((next, room), (3, ROOM));
        let acked = out.acked(5, next, room).unwrap();
        assert_eq!((acked.took, out.depth()), (Some(5), 0));
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_ever_more_slowly() {
        let mut out = Outgoing::default();
        out.say(&HEAD, &[]).unwrap();
        assert_eq!(fly(&mut out, 100).len(), 1);
        assert_eq!(out.due(10), Some(110));
        assert!(out.late(109, 10).is_none());
        assert_eq!(out.late(110, 10).unwrap().0, 0);
        assert_eq!(out.due(10), Some(130));
        assert!(out.missed(119, 10).is_none(), "it is on its way");
        assert!(out.missed(120, 10).is_some());
        assert_eq!(out.acked(121, 1, ROOM).unwrap().took, None, "nobody knows which of them came");
        assert_eq!(out.due(10), None);
    }

    #[test]
    fn who_has_no_room_is_waited_for_and_asked() {
        let (mut out, mut arriving) = (Outgoing::default(), Arriving::default());
        let mut said = 0_u64;
        let mut came = 0;
        // Until the receiver is full and the sender's queue too.
        loop {
            match out.say(&HEAD, &[&[3; 4096]]) {
                Ok(()) => said += 1,
                Err(why) => {
                    assert_eq!(why, SendError::Later);
                    break;
                }
            }
            for (number, piece) in fly(&mut out, 0) {
                came += 1;
                arriving.came(number, &piece).unwrap();
                let (next, room) = arriving.acks();
                out.acked(0, next, room).unwrap();
            }
        }
        assert!(came <= ROOM && !out.has_room_again());
        assert_eq!(out.due(10), Some(10), "what it said of room may be lost");
        assert!(!out.asks(9, 10) && out.asks(10, 10) && !out.asks(29, 10) && out.asks(30, 10));
        assert!(!arriving.has_news());
        let (mut message, mut taken) = (Vec::new(), 0);
        while taken < said {
            while arriving.take(&mut message).unwrap() {
                taken += 1;
            }
            assert!(arriving.has_news() || taken == said, "{taken}");
            let (next, room) = arriving.acks();
            out.acked(30, next, room).unwrap();
            for (number, piece) in fly(&mut out, 30) {
                arriving.came(number, &piece).unwrap();
            }
        }
        assert!(out.has_room_again() && !out.has_room_again());
    }

    #[test]
    fn a_peer_that_breaks_the_rules_is_found_out() {
        let mut out = Outgoing::default();
        assert_eq!(out.acked(0, 1, ROOM), Err(Corrupt), "it has what was not sent");
        assert_eq!(out.acked(0, 0, u16::MAX), Err(Corrupt));
        assert_eq!(out.say(&HEAD, &[&[0; LONGEST_MESSAGE]]), Err(SendError::TooLong));
        let mut arriving = Arriving::default();
        assert_eq!(arriving.came(u64::from(ROOM), &[0]), Err(Corrupt), "there is no room for it");
        assert_eq!(arriving.came(0, &[]), Err(Corrupt));
        assert_eq!(arriving.came(0, &[0; PIECE + 1]), Err(Corrupt));
        arriving.came(0, &1_u32.to_le_bytes()).unwrap();
        assert_eq!(arriving.take(&mut Vec::new()), Err(Corrupt), "shorter than a header");
        assert!(QUEUE < u32::MAX as usize);
    }
}
