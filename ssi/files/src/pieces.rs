//! Payloads that are too long for one message: their beginning goes ahead in pieces, on the same lane, and the message names them.

use alloc::{collections::BTreeMap, vec::Vec};

use base::KernelId;
use link::{Links, lock::Lock};
use objects::to_wire;
use wire::files::{Piece, PieceBack};

use crate::service::CHUNK;

/// The longest payload: the largest packet of a socket with the most descriptors.
const LONGEST: usize = 512 << 10;
/// The most payloads of one kernel that may be incomplete here: one per task that is sending.
const OPEN: usize = 1024;

/// What came of payloads that are not complete, by who sends them and what he calls them.
pub struct Pieces(Lock<BTreeMap<(KernelId, u64), Vec<u8>>>);

impl Pieces {
    pub(crate) const fn new() -> Self {
        Self(Lock::new(BTreeMap::new()))
    }

    /// A piece came. What is too much is dropped: then the payload will not decode, and its sender is to blame.
    pub(crate) fn add(&self, from: KernelId, token: u64, bytes: &[u8]) {
        let mut open = self.0.lock();
        if open.range((from, 0)..=(from, u64::MAX)).count() >= OPEN {
            return;
        }
        let whole = open.entry((from, token)).or_default();
        if whole.len() + bytes.len() <= LONGEST {
            whole.extend_from_slice(bytes);
        }
    }

    /// The whole payload that ends with `end`.
    pub(crate) fn whole(&self, from: KernelId, token: u64, end: &[u8]) -> Vec<u8> {
        let begun = if token == 0 { None } else { self.0.lock().remove(&(from, token)) };
        let mut whole = begun.unwrap_or_default();
        whole.extend_from_slice(end);
        whole
    }

    /// A kernel died.
    pub(crate) fn peer_down(&self, dead: KernelId) {
        let gone = {
            let mut open = self.0.lock();
            let kept = open.split_off(&(dead, 0));
            let (gone, kept): (BTreeMap<_, _>, BTreeMap<_, _>) = kept.into_iter().partition(|(key, _)| key.0 == dead);
            open.extend(kept);
            gone
        };
        drop(gone);
    }
}

/// Sends the beginning of `payload` to `to` so that the rest fits a message beside `room` other bytes. What to name the pieces, and the rest.
pub(crate) fn send_ahead<'a>(
    links: &Links,
    to: KernelId,
    token: u64,
    payload: &'a [u8],
    back: bool,
) -> link::Result<(u64, &'a [u8])> {
    if payload.len() <= CHUNK {
        return Ok((0, payload));
    }
    let ahead = (payload.len() - 1) / CHUNK * CHUNK;
    let (begin, end) = payload.split_at_checked(ahead).unwrap_or((payload, &[]));
    for piece in begin.chunks(CHUNK) {
        let (to, none) = (to_wire(to), wire::ObjectId::NONE);
        if back {
            links.send(to, none, &PieceBack { token }, piece)?;
        } else {
            links.send(to, none, &Piece { token }, piece)?;
        }
    }
    Ok((token, end))
}
