//! Every interleaving and every allowed reordering of the rings and of the sleep handshake:
//! `RUSTFLAGS="--cfg loom" cargo test -p link --release loom_`
#![cfg(loom)]

use std::collections::BTreeMap;

use link::{
    memory::Memory,
    porch::Porch,
    ring::{Consumer, LINE, OVERHEAD, Producer, PushError},
};
use loom::{
    cell::UnsafeCell,
    model::Builder,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    thread,
};

/// Words that are used as words are atomics; what is only copied is a cell per line, where the checker reports any race.
#[derive(Clone)]
struct Checked {
    len: usize,
    words: Arc<BTreeMap<usize, AtomicU64>>,
    lines: Arc<Vec<UnsafeCell<[u8; LINE]>>>,
}

// SAFETY: all access to the cells goes through loom, which reports what would be a data race.
unsafe impl Sync for Checked {}
// SAFETY: as above.
unsafe impl Send for Checked {}

impl Checked {
    fn new(len: usize, words: impl IntoIterator<Item = usize>) -> Self {
        Self {
            len,
            words: Arc::new(words.into_iter().map(|at| (at, AtomicU64::new(0))).collect()),
            lines: Arc::new((0..len.div_ceil(LINE)).map(|_| UnsafeCell::new([0; LINE])).collect()),
        }
    }

    fn ring(lines: usize) -> Self {
        Self::new(OVERHEAD + lines * LINE, (0..2 + lines).map(|line| line * LINE))
    }

    fn each_line(at: usize, len: usize, mut f: impl FnMut(usize, usize, core::ops::Range<usize>)) {
        let (mut at, mut done) = (at, 0);
        while done < len {
            let n = (len - done).min(LINE - at % LINE);
            f(at, done, at % LINE..at % LINE + n);
            at += n;
            done += n;
        }
    }
}

impl Memory for Checked {
    fn size(&self) -> usize {
        self.len
    }
    fn load8(&self, at: usize) -> u8 {
        self.load64(at / 8 * 8).to_le_bytes()[at % 8]
    }
    fn store8(&self, at: usize, value: u8) {
        // One sender only: the other bytes of the word are zero.
        self.store64(at / 8 * 8, u64::from(value) << (at % 8 * 8));
    }
    fn load64(&self, at: usize) -> u64 {
        self.words.get(&at).map_or(0, |w| w.load(Ordering::Acquire))
    }
    fn store64(&self, at: usize, value: u64) {
        if let Some(word) = self.words.get(&at) {
            word.store(value, Ordering::Release);
        }
    }
    fn swap64(&self, at: usize, old: u64, new: u64) -> u64 {
        self.words
            .get(&at)
            .map_or(0, |w| w.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).unwrap_or_else(|was| was))
    }
    fn read(&self, at: usize, out: &mut [u8]) {
        let len = out.len();
        Self::each_line(at, len, |at, done, range| {
            let mut line = [0; LINE];
            // SAFETY: loom checks that nobody writes the cell meanwhile.
            self.lines[at / LINE].with(|cell| line = unsafe { *cell });
            out[done..done + range.len()].copy_from_slice(&line[range]);
        });
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        Self::each_line(at, bytes.len(), |at, done, range| {
            self.lines[at / LINE].with_mut(|cell| {
                // SAFETY: loom checks that nobody uses the cell meanwhile.
                unsafe { (&mut *cell)[range.clone()].copy_from_slice(&bytes[done..done + range.len()]) };
            });
        });
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

fn head(value: u8) -> [u8; LINE] {
    [value; LINE]
}

#[test]
fn loom_ring_hands_over_what_was_pushed() {
    model(|| {
        let memory = Checked::ring(4);
        let (mut producer, mut consumer) = (Producer::new(memory.clone()).unwrap(), Consumer::new(memory).unwrap());
        let sender = thread::spawn(move || {
            for (value, body) in [(1, 100), (2, 0), (3, 64)] {
                while producer.push(&head(value), &[&[value; 100][..body]]) == Err(PushError::Full) {
                    thread::yield_now();
                }
            }
        });
        let mut out = Vec::new();
        for (value, body) in [(1, 100), (2, 0), (3, 64)] {
            while !consumer.pop(&mut out).expect("nobody corrupts it") {
                consumer.take_starved();
                thread::yield_now();
            }
            assert_eq!(out.len(), LINE + body);
            assert!(out[8..].iter().all(|b| *b == value));
        }
        sender.join().unwrap();
    });
}

#[test]
fn loom_sleeper_is_woken_or_has_seen_it() {
    model(|| {
        let ring = Checked::ring(4);
        // The words of a porch that the handshake uses: polling and the first pending bytes.
        let porch = Porch(Checked::new(4096, [0x40, 0x100]));
        let bell = Arc::new(AtomicBool::new(false));
        let (mut producer, mut consumer) = (Producer::new(ring.clone()).unwrap(), Consumer::new(ring).unwrap());
        let sender = thread::spawn({
            let (porch, bell) = (Porch(porch.0.clone()), bell.clone());
            move || {
                for value in [1, 2] {
                    producer.push(&head(value), &[]).expect("there is room");
                    if porch.poke(1) {
                        bell.store(true, Ordering::Release);
                    }
                }
            }
        });
        let mut out = Vec::new();
        let mut received = 0;
        // The doorbell interrupt or the first look after start, then sleep.
        porch.begin_polling();
        loop {
            if porch.take_pending() != 0 {
                while consumer.pop(&mut out).expect("nobody corrupts it") {
                    received += 1;
                }
            }
            if porch.end_polling() {
                break;
            }
        }
        sender.join().unwrap();
        assert!(received == 2 || bell.load(Ordering::Acquire), "it sleeps and nobody rings");
    });
}

#[test]
fn loom_watcher_that_stops_is_told_or_has_seen_it() {
    model(|| {
        let ring = Checked::ring(4);
        // The words of a porch that the handshake uses: polling, watched and the first pending bytes.
        let porch = Porch(Checked::new(4096, [0x40, 0x48, 0x100]));
        let bell = Arc::new(AtomicBool::new(false));
        let (mut producer, mut consumer) = (Producer::new(ring.clone()).unwrap(), Consumer::new(ring).unwrap());
        porch.begin_polling();
        porch.watch(1 << 1);
        let sender = thread::spawn({
            let (porch, bell) = (Porch(porch.0.clone()), bell.clone());
            move || {
                for value in [1, 2] {
                    producer.push(&head(value), &[]).expect("there is room");
                    if porch.announce(1) {
                        bell.store(true, Ordering::Release);
                    }
                }
            }
        });
        let mut out = Vec::new();
        let mut received = 0;
        let mut drain = |received: &mut i32| {
            while consumer.pop(&mut out).expect("nobody corrupts it") {
                *received += 1;
            }
        };
        // A round of polling without a look at the pending bytes, then the end of it: the rings that were watched are drained once more, and
        // what was announced since is in the pending bytes.
        drain(&mut received);
        porch.watch(0);
        drain(&mut received);
        while !porch.end_polling() {
            if porch.take_pending() != 0 {
                drain(&mut received);
            }
        }
        sender.join().unwrap();
        assert!(received == 2 || bell.load(Ordering::Acquire), "it sleeps and nobody rings");
    });
}

#[test]
fn loom_starved_sender_sees_room_or_is_poked() {
    model(|| {
        let memory = Checked::ring(3);
        let (mut producer, mut consumer) = (Producer::new(memory.clone()).unwrap(), Consumer::new(memory).unwrap());
        producer.push(&head(1), &[&[1; 64]]).expect("there is room");
        let sender = thread::spawn(move || producer.push(&head(2), &[]).is_ok());
        let mut out = Vec::new();
        assert!(consumer.pop(&mut out).expect("nobody corrupts it"));
        let poked = consumer.take_starved();
        let sent = sender.join().unwrap();
        assert!(sent || poked, "it waits and nobody pokes");
    });
}

#[test]
fn loom_a_ring_that_is_left_for_another_loses_nothing() {
    model(|| {
        // The word that says that a ring is retired, too.
        let words = (0..2 + 3).map(|line| line * LINE).chain([LINE + 8]);
        let (small, large) = (Checked::new(OVERHEAD + 3 * LINE, words), Checked::ring(3));
        let (mut first, mut second) = (Producer::new(small.clone()).unwrap(), Producer::new(large.clone()).unwrap());
        let (mut old, mut new) = (Consumer::new(small).unwrap(), Consumer::new(large).unwrap());
        let sender = thread::spawn(move || {
            first.push(&head(1), &[]).expect("there is room");
            first.push(&head(2), &[]).expect("there is room");
            first.retire();
            second.push(&head(3), &[]).expect("there is room");
        });
        let mut out = Vec::new();
        let mut moved = false;
        let mut got = Vec::new();
        while got.len() < 3 {
            let retired = !moved && old.is_retired();
            let ring = if moved { &mut new } else { &mut old };
            if ring.pop(&mut out).expect("nobody corrupts it") {
                got.push(out[8]);
            } else if retired {
                // Only if it was retired before it was found empty.
                moved = true;
            } else {
                thread::yield_now();
            }
        }
        assert_eq!(got, [1, 2, 3]);
        sender.join().unwrap();
    });
}

#[test]
fn loom_who_listens_to_a_group_is_woken_or_has_heard_it() {
    model(|| {
        let ring = Checked::ring(4);
        // The words of a porch that the handshake uses: polling and the first pending bytes, which nobody sets here.
        let porch = Porch(Checked::new(4096, [0x40, 0x100]));
        let bell = Arc::new(AtomicBool::new(false));
        let (mut producer, mut consumer) = (Producer::new(ring.clone()).unwrap(), Consumer::new(ring).unwrap());
        let speaker = thread::spawn({
            let (porch, bell) = (Porch(porch.0.clone()), bell.clone());
            move || {
                for value in [1, 2] {
                    producer.push(&head(value), &[]).expect("there is room");
                    if porch.sleeps() {
                        bell.store(true, Ordering::Release);
                    }
                }
            }
        });
        let mut out = Vec::new();
        let mut heard = 0;
        porch.begin_polling();
        loop {
            while consumer.pop(&mut out).expect("nobody corrupts it") {
                heard += 1;
            }
            // Says that it sleeps, and looks once more before it does.
            if porch.end_polling() {
                if !consumer.is_ready() {
                    break;
                }
                porch.begin_polling();
            }
        }
        speaker.join().unwrap();
        assert!(heard == 2 || bell.load(Ordering::Acquire), "it sleeps and nobody rings");
    });
}
