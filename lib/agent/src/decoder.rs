//! Frames out of a byte stream that arrives in pieces.

use alloc::vec::Vec;

use crate::{Error, HEADER, MAX_PAYLOAD};

/// One direction of the protocol.
pub trait Message<'a>: Sized {
    /// Appends the message as one frame.
    fn encode(&self, out: &mut Vec<u8>);

    /// The message of a frame.
    fn parse(kind: u8, payload: &'a [u8]) -> Result<Self, Error>;
}

/// Collects bytes and yields whole frames.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// How many of `bytes` were yielded already.
    taken: usize,
}

impl Decoder {
    /// With no bytes.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), taken: 0 }
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

    /// The next whole frame, if there is one. After an error the stream is of no use.
    pub fn next<'a, M: Message<'a>>(&'a mut self) -> Result<Option<M>, Error> {
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        let Some(([kind, length @ ..], body)) = rest.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length);
        if length as usize > MAX_PAYLOAD {
            return Err(Error::TooLong(length));
        }
        let Some(payload) = body.get(..length as usize) else {
            return Ok(None);
        };
        self.taken += HEADER + payload.len();
        M::parse(*kind, payload).map(Some)
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
        for message in &sent {
            message.encode(&mut bytes);
        }
        for piece in [1, 3, 5, 4096, bytes.len()] {
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
        let sent =
            [ToHost::Ready(1), ToHost::Stdout(b"\0\xff"), ToHost::Stderr(b""), ToHost::Exit(-1), ToHost::Error(b"no")];
        let mut decoder = Decoder::new();
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
            let mut decoder = Decoder::new();
            decoder.push(bytes);
            decoder.next::<ToGuest>().expect_err("nonsense")
        };
        assert_eq!(refuse(&[9, 0, 0, 0, 0]), Error::UnknownType(9));
        assert_eq!(refuse(&[2, 1, 128, 0, 0]), Error::TooLong(0x8001));
        assert_eq!(refuse(&[5, 2, 0, 0, 0, 1, 1]), Error::BadPayload(5));
        assert_eq!(refuse(&[3, 1, 0, 0, 0, 1]), Error::BadPayload(3));
    }
}
