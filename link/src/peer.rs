//! One incarnation of one peer: its channel, what waits to be sent to it, what is not spoken with it.

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use wire::{HEADER_SIZE, KernelId, LANES, Lane, MAX_BODY};
use zerocopy::IntoBytes as _;

use crate::{
    counters::{Counters, LaneReport},
    lock::{LINK_QUEUE, Lock},
    transport::{SendError, Transport},
};

/// Bytes of answers that may wait until a peer has room for them. While so many wait nothing of it is taken that could ask for more: the room for an answer
/// is there before its request is taken. (Who sleeps at a peer asks for an answer far in the future; that one has a line here only when it comes.)
pub const ANSWERS: usize = 256 << 10;

/// A message as it goes over the wire.
pub(crate) struct Packed {
    pub head: [u8; HEADER_SIZE],
    pub body: Vec<u8>,
}

impl Packed {
    fn bytes(&self) -> usize {
        HEADER_SIZE + self.body.len()
    }
}

/// A link to a peer.
pub struct Peer {
    /// Who it is.
    pub id: KernelId,
    /// The kind of carrier that reaches it.
    pub carrier: &'static str,
    /// What it has done.
    pub counters: Counters,
    pub(crate) transport: Box<dyn Transport>,
    waiting: Lock<[VecDeque<Packed>; LANES]>,
    /// Bytes of answers that wait. Changed with the queues locked.
    answers: AtomicUsize,
    /// Types that are not spoken with it, sorted.
    refused: Lock<Vec<u16>>,
    refuses: AtomicBool,
    down: AtomicBool,
    /// Lanes whose rings are broken, as bits.
    broken: AtomicU64,
    heard: AtomicU64,
}

impl Peer {
    pub(crate) fn new(id: KernelId, carrier: &'static str, transport: Box<dyn Transport>) -> Self {
        Self {
            id,
            carrier,
            counters: Counters::default(),
            transport,
            waiting: Lock::ranked(LINK_QUEUE, [const { VecDeque::new() }; LANES]),
            answers: AtomicUsize::new(0),
            refused: Lock::ranked(LINK_QUEUE, Vec::new()),
            refuses: AtomicBool::new(false),
            down: AtomicBool::new(false),
            broken: AtomicU64::new(0),
            heard: AtomicU64::new(0),
        }
    }

    /// Counts the messages that came from it: a sign of life.
    pub fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Called by who drains the rings.
    pub(crate) fn hear(&self) {
        self.heard.store(self.heard.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// Nothing is sent to it or received from it any more.
    pub(crate) fn close(&self) {
        self.down.store(true, Ordering::Release);
        let mut waiting = self.waiting.lock();
        for (lane, queue) in Lane::ALL.into_iter().zip(waiting.iter_mut()) {
            self.left(lane, queue.drain(..));
        }
        drop(waiting);
        self.transport.close();
    }

    /// The last lane of which messages are taken just now: requests wait while there is no room for their answers. Who makes room pokes, and then they
    /// are looked for again.
    pub(crate) fn admitted(&self) -> Lane {
        if self.answers.load(Ordering::Relaxed) + HEADER_SIZE + MAX_BODY > ANSWERS { Lane::Reply } else { Lane::Bulk }
    }

    /// Notes that a lane cannot be read; `true` the first time.
    pub(crate) fn break_lane(&self, lane: Lane) -> bool {
        self.broken.fetch_or(1 << lane as u64, Ordering::AcqRel) & 1 << lane as u64 == 0
    }

    pub(crate) fn refuse_type(&self, kind: u16) {
        let mut refused = self.refused.lock();
        if let Err(at) = refused.binary_search(&kind) {
            refused.insert(at, kind);
        }
        self.refuses.store(true, Ordering::Release);
    }

    /// Whether a message type is not spoken with this peer.
    pub fn refuses(&self, kind: u16) -> bool {
        self.refuses.load(Ordering::Acquire) && self.refused.lock().binary_search(&kind).is_ok()
    }

    /// Sends, or keeps the message until there is room. The order within a lane is kept.
    pub(crate) fn send(&self, lane: Lane, raw: &wire::RawHeader, parts: &[&[u8]]) -> Result<(), SendError> {
        if self.is_down() {
            return Err(SendError::Closed);
        }
        let mut head = [0; HEADER_SIZE];
        head.copy_from_slice(raw.as_bytes());
        let bytes = parts.iter().fold(HEADER_SIZE, |n, part| n + part.len());
        if bytes > self.transport.longest(lane) {
            // Nobody would hear of it any more when its turn comes.
            return Err(SendError::TooLong);
        }
        let mut waiting = self.waiting.lock();
        let queue = &mut waiting[lane as usize];
        if queue.is_empty() {
            match self.transport.send(lane, &head, parts) {
                Ok(()) => {
                    self.counters.sent(lane, bytes);
                    drop(waiting);
                    self.notify();
                    return Ok(());
                }
                Err(SendError::Later) => {}
                Err(e) => return Err(e),
            }
        }
        Counters::add(&self.counters.delayed);
        if lane == Lane::Reply {
            self.answers.fetch_add(bytes, Ordering::Relaxed);
        }
        queue.push_back(Packed { head, body: parts.concat() });
        Ok(())
    }

    /// These wait no more.
    fn left(&self, lane: Lane, packed: impl IntoIterator<Item = Packed>) {
        let bytes = packed.into_iter().map(|packed| packed.bytes()).sum();
        if lane == Lane::Reply {
            self.answers.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    fn notify(&self) {
        if self.transport.notify() {
            Counters::add(&self.counters.doorbells);
        }
    }

    /// Sends what waits, the most urgent first, as far as there is room. A broken channel drops what waits for it: its
    /// requests end by the death of the peer.
    pub(crate) fn flush(&self) -> Result<(), Lane> {
        let mut sent = false;
        let mut broken = None;
        {
            let mut waiting = self.waiting.lock();
            for lane in Lane::ALL {
                let queue = &mut waiting[lane as usize];
                while let Some(packed) = queue.front() {
                    match self.transport.send(lane, &packed.head, &[&packed.body]) {
                        Ok(()) => {
                            self.counters.sent(lane, packed.bytes());
                            self.left(lane, queue.pop_front());
                            sent = true;
                        }
                        Err(SendError::Later) => break,
                        Err(SendError::TooLong) => self.left(lane, queue.pop_front()),
                        Err(SendError::Corrupt | SendError::Closed) => {
                            self.left(lane, queue.drain(..));
                            broken = Some(lane);
                        }
                    }
                }
            }
        }
        if sent {
            self.notify();
        }
        broken.map_or(Ok(()), Err)
    }

    /// The counts of a lane.
    pub fn report(&self, lane: Lane) -> LaneReport {
        LaneReport {
            depth: self.transport.depth(lane),
            waiting: self.waiting.lock()[lane as usize].len() as u64,
            ..self.counters.lane(lane)
        }
    }
}
