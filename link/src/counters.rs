//! What a link has done, for `/proc/cob/links` and `/proc/cob/lanes`.

use core::sync::atomic::{AtomicU64, Ordering};

use wire::{LANES, Lane};

use crate::latency::Latency;

/// Counts of one direction of one lane.
#[derive(Debug, Default)]
pub struct Count {
    /// Messages.
    pub messages: AtomicU64,
    /// Bytes, headers included.
    pub bytes: AtomicU64,
}

/// Counts of a pair.
#[derive(Debug, Default)]
pub struct Counters {
    sent: [Count; LANES],
    received: [Count; LANES],
    /// By the lane of the request.
    answers: [Latency; LANES],
    /// Bells rung.
    pub doorbells: AtomicU64,
    /// Times a peer's pending byte was found set.
    pub polls: AtomicU64,
    /// Messages that had to wait at the sender.
    pub delayed: AtomicU64,
    /// Messages dropped because they came from an incarnation that is not the peer.
    pub strangers: AtomicU64,
    /// Answers that nobody waited for any more.
    pub orphans: AtomicU64,
}

impl Counters {
    pub(crate) fn sent(&self, lane: Lane, bytes: usize) {
        bump(&self.sent[lane as usize], bytes);
    }

    pub(crate) fn received(&self, lane: Lane, bytes: usize) {
        bump(&self.received[lane as usize], bytes);
    }

    /// A request of this lane was answered after so many nanoseconds.
    pub(crate) fn answered(&self, lane: Lane, ns: u64) {
        self.answers[lane as usize].count(ns);
    }

    /// How long answers took to the requests of a lane.
    pub const fn answers(&self, lane: Lane) -> &Latency {
        &self.answers[lane as usize]
    }

    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// One counts at a time: whoever has the peer's queue (sent) or drains the rings (received).
fn bump(count: &Count, bytes: usize) {
    count.messages.store(count.messages.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    count.bytes.store(count.bytes.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
}

/// A copy of the counts of one lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LaneReport {
    /// Messages sent.
    pub sent: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Messages received.
    pub received: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes in the peer's ring, as far as known.
    pub depth: u64,
    /// Messages that wait for room here.
    pub waiting: u64,
}

impl Counters {
    /// A copy of the counts of a lane; `depth` and `waiting` are the caller's.
    pub fn lane(&self, lane: Lane) -> LaneReport {
        let (sent, received) = (&self.sent[lane as usize], &self.received[lane as usize]);
        LaneReport {
            sent: sent.messages.load(Ordering::Relaxed),
            sent_bytes: sent.bytes.load(Ordering::Relaxed),
            received: received.messages.load(Ordering::Relaxed),
            received_bytes: received.bytes.load(Ordering::Relaxed),
            depth: 0,
            waiting: 0,
        }
    }
}
