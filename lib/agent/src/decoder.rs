//! Frames out of a byte stream that arrives in pieces.

use alloc::vec::Vec;

use crate::{END, Error, HEADER, MAX_PAYLOAD, SYNC};

/// One direction of the protocol.
pub trait Message<'a>: Sized {
    /// Appends the message as one frame.
    fn encode(&self, out: &mut Vec<u8>);

    /// The message of a frame.
    fn parse(kind: u8, payload: &'a [u8]) -> Result<Self, Error>;
}

/// Collects bytes and yields whole frames, from the first [`crate::sync`] on.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// How many of `bytes` were yielded already.
    taken: usize,
    /// Whether frames are to be expected; otherwise how many zeros came last.
    state: State,
}

#[derive(Debug)]
enum State {
    /// Everything is ignored up to a [`crate::sync`]; so many zeros of it came.
    Lost(usize),
    /// Frames follow each other.
    Frames,
}

impl Default for State {
    fn default() -> Self {
        Self::Lost(0)
    }
}

impl Decoder {
    /// With no bytes.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), taken: 0, state: State::Lost(0) }
    }

    /// Adds what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
        } else if self.taken >= MAX_PAYLOAD {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Looks for the end of a sync.
    fn find(&mut self) {
        let State::Lost(zeros) = &mut self.state else { return };
        for &byte in self.bytes.get(self.taken..).unwrap_or_default() {
            if byte != 0 && *zeros >= SYNC {
                self.state = State::Frames;
                return;
            }
            *zeros = if byte == 0 { *zeros + 1 } else { 0 };
            self.taken += 1;
        }
    }

    /// The next whole frame, if there is one. After an error the stream is of no use.
    pub fn next<'a, M: Message<'a>>(&'a mut self) -> Result<Option<M>, Error> {
        let (kind, start, end) = loop {
            self.find();
            let rest = self.bytes.get(self.taken..).unwrap_or_default();
            if let [0, ..] = rest {
                // No frame begins so: the other side begins anew.
                self.state = State::Lost(0);
                continue;
            }
            let Some(([kind, length @ ..], body)) = rest.split_first_chunk::<HEADER>() else {
                return Ok(None);
            };
            let length = u32::from_le_bytes(*length);
            if length as usize > MAX_PAYLOAD {
                return Err(Error::TooLong(length));
            }
            match body.get(length as usize) {
                None => return Ok(None),
                Some(&END) => {
                    let start = self.taken + HEADER;
                    break (*kind, start, start + length as usize);
                }
                // Cut, and completed by the zeros of a sync.
                Some(0) => self.state = State::Lost(0),
                Some(_) => return Err(Error::NoEnd(*kind)),
            }
        };
        self.taken = end + 1;
        M::parse(kind, self.bytes.get(start..end).unwrap_or_default()).map(Some)
    }

    /// How many bytes wait for the rest of their frame, or to be asked for.
    pub fn pending(&self) -> usize {
        self.bytes.len() - self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ToGuest, ToHost};
    use alloc::vec;

    fn synced() -> Decoder {
        let mut bytes = Vec::new();
        crate::sync(&mut bytes);
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        decoder
    }

    /// Wherever an agent is cut off, its successor is understood, and nothing of what was cut is heard.
    #[test]
    fn a_stream_that_is_cut_begins_anew() {
        let zeros = vec![0; MAX_PAYLOAD];
        let old = [ToHost::Stdout(&zeros), ToHost::Stderr(b"x"), ToHost::Exit(0)];
        let mut bytes = Vec::new();
        for message in &old {
            message.encode(&mut bytes);
        }
        let near = |n: usize| (n.saturating_sub(3)..n + 8).collect::<Vec<_>>();
        let cuts = [near(0), vec![1000], near(MAX_PAYLOAD), near(bytes.len() - 8)].concat();
        for cut in cuts.into_iter().filter(|cut| *cut <= bytes.len()) {
            let mut decoder = synced();
            decoder.push(&bytes[..cut]);
            let mut heard = 0;
            while let Some(message) = decoder.next::<ToHost>().expect("own frames") {
                assert_eq!(message, old[heard]);
                heard += 1;
            }
            let mut more = Vec::new();
            crate::sync(&mut more);
            let ready = ToHost::Ready { version: 2, kernel: 1 };
            ready.encode(&mut more);
            for piece in more.chunks(1000) {
                decoder.push(piece);
                if let Some(message) = decoder.next::<ToHost>().expect("a new beginning") {
                    assert_eq!(message, ready, "cut at {cut}");
                    heard = usize::MAX;
                }
            }
            assert_eq!(heard, usize::MAX, "cut at {cut}");
        }
        // Who comes in the middle hears nothing before the sync.
        let mut decoder = Decoder::new();
        decoder.push(&bytes[7..]);
        assert_eq!(decoder.next::<ToHost>(), Ok(None));
    }

    #[test]
    fn frames_survive_any_split() {
        let big = vec![7u8; MAX_PAYLOAD];
        let sent = [
            ToGuest::Exec(b"echo hi"),
            ToGuest::Stdin(&big),
            ToGuest::Stdin(b""),
            ToGuest::StdinEof,
            ToGuest::Kill(15),
            ToGuest::Poweroff,
        ];
        let mut bytes = Vec::new();
        crate::sync(&mut bytes);
        for message in &sent {
            message.encode(&mut bytes);
        }
        for piece in [1, 3, 4096, bytes.len()] {
            let mut decoder = Decoder::new();
            let mut at = 0;
            for part in bytes.chunks(piece) {
                decoder.push(part);
                while let Some(message) = decoder.next::<ToGuest>().expect("own frames") {
                    assert_eq!(message, sent[at]);
                    at += 1;
                }
            }
            assert_eq!((at, decoder.pending()), (sent.len(), 0));
        }
    }

    #[test]
    fn answers_survive() {
        let ready = ToHost::Ready { version: 2, kernel: 7 };
        let sent = [ready, ToHost::Stdout(b"\0\xff"), ToHost::Stderr(b""), ToHost::Exit(-1), ToHost::Error(b"no")];
        let mut decoder = synced();
        for message in sent {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            decoder.push(&bytes);
            assert_eq!(decoder.next(), Ok(Some(message)));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let refuse = |bytes: &[u8]| {
            let mut decoder = synced();
            decoder.push(bytes);
            decoder.next::<ToGuest>().expect_err("nonsense")
        };
        assert_eq!(refuse(&[9, 0, 0, 0, 0, END]), Error::UnknownType(9));
        assert_eq!(refuse(&[2, 1, 128, 0, 0]), Error::TooLong(0x8001));
        assert_eq!(refuse(&[5, 2, 0, 0, 0, 1, 1, END]), Error::BadPayload(5));
        assert_eq!(refuse(&[3, 1, 0, 0, 0, 1, END]), Error::BadPayload(3));
        assert_eq!(refuse(&[3, 0, 0, 0, 0, 7]), Error::NoEnd(3));
    }
}
