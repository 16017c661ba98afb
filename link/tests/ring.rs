//! Rings against a queue, and against rubbish.
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use link::{
    memory::{HeapMemory, Memory},
    ring::{Consumer, LINE, OVERHEAD, Producer, PushError},
};
use proptest::{collection::vec, prelude::*, test_runner::TestCaseResult};

#[derive(Clone, Debug)]
enum Step {
    Push { head: u8, parts: Vec<usize> },
    Pop,
    Rest,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<u8>(), vec(0_usize..150, 0..3)).prop_map(|(head, parts)| Step::Push { head, parts }),
        4 => Just(Step::Pop),
        1 => Just(Step::Rest),
    ]
}

/// One side of memory that is not coherent: it sees what it wrote and what it has refreshed, and the other side what it has published and nothing else.
struct Lagging {
    shared: Arc<Mutex<Vec<u8>>>,
    seen: Mutex<Vec<u8>>,
}

impl Lagging {
    /// Both sides of so many bytes.
    fn pair(size: usize) -> (Self, Self) {
        let shared = Arc::new(Mutex::new(vec![0; size]));
        let side = || Self { shared: shared.clone(), seen: Mutex::new(vec![0; size]) };
        (side(), side())
    }
}

impl Memory for Lagging {
    fn size(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
    fn load8(&self, at: usize) -> u8 {
        self.seen.lock().unwrap()[at]
    }
    fn store8(&self, at: usize, value: u8) {
        self.seen.lock().unwrap()[at] = value;
    }
    fn load64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.seen.lock().unwrap()[at..at + 8].try_into().unwrap())
    }
    fn store64(&self, at: usize, value: u64) {
        self.write(at, &value.to_le_bytes());
    }
    fn swap64(&self, _: usize, _: u64, _: u64) -> u64 {
        panic!("only on coherent memory")
    }
    fn read(&self, at: usize, out: &mut [u8]) {
        out.copy_from_slice(&self.seen.lock().unwrap()[at..at + out.len()]);
    }
    fn write(&self, at: usize, bytes: &[u8]) {
        self.seen.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
    }
    fn fence(&self) {}
    fn publish(&self, at: usize, len: usize) {
        self.shared.lock().unwrap()[at..at + len].copy_from_slice(&self.seen.lock().unwrap()[at..at + len]);
    }
    fn refresh(&self, at: usize, len: usize) {
        self.seen.lock().unwrap()[at..at + len].copy_from_slice(&self.shared.lock().unwrap()[at..at + len]);
    }
}

/// A ring beside a queue. The two ends are of the same memory.
fn walk<M: Memory>(here: M, there: M, lines: usize, steps: Vec<Step>) -> TestCaseResult {
    let mut producer = Producer::new(here).expect("large enough");
    let mut consumer = Consumer::new(there).expect("large enough");
    let mut model: VecDeque<Vec<u8>> = VecDeque::new();
    let (mut waits, mut popped) = (false, false);
    let mut out = Vec::new();
    for step in steps {
        match step {
            Step::Push { head, parts } => {
                let parts: Vec<Vec<u8>> =
                    parts.iter().enumerate().map(|(i, n)| vec![head ^ i as u8 ^ 0x5a; *n]).collect();
                let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                let mut bytes = vec![head; LINE];
                bytes.extend(parts.concat());
                match producer.push(&[head; LINE], &slices) {
                    Ok(()) => {
                        bytes[..8].fill(0);
                        model.push_back(bytes);
                        waits = false;
                    }
                    Err(PushError::TooLong) => prop_assert!(bytes.len() > (lines - 1) * LINE),
                    Err(PushError::Full) => {
                        let fits = bytes.len() + LINE <= lines * LINE;
                        prop_assert!(!model.is_empty() || !fits || !consumer.is_ready());
                        waits = true;
                    }
                    Err(PushError::Corrupt) => prop_assert!(false, "nobody corrupts it"),
                }
            }
            Step::Pop => {
                prop_assert_eq!(consumer.is_ready(), !model.is_empty());
                let got = consumer.pop(&mut out).expect("nobody corrupts it");
                popped |= got;
                prop_assert_eq!(got.then(|| out.clone()), model.pop_front());
            }
            Step::Rest => {
                // If nothing was read there is no new room.
                prop_assert_eq!(consumer.take_starved(), waits && popped);
                popped = false;
            }
        }
    }
    // An empty ring takes what fits in it.
    while consumer.pop(&mut out).expect("nobody corrupts it") {}
    consumer.take_starved();
    let longest = vec![1; producer.longest() - LINE];
    prop_assert_eq!(producer.push(&[9; LINE], &[&longest]), Ok(()));
    prop_assert!(consumer.pop(&mut out).expect("nobody corrupts it"));
    producer.retire();
    prop_assert!(consumer.is_retired());
    Ok(())
}

#[test]
fn who_finds_room_does_not_say_that_it_waits() {
    let memory = HeapMemory::new(OVERHEAD + 8 * LINE);
    let mut producer = Producer::new(memory.clone()).expect("large enough");
    let mut consumer = Consumer::new(memory).expect("large enough");
    let mut out = Vec::new();
    for _ in 0..7 {
        producer.push(&[1; LINE], &[]).expect("there is room");
    }
    while consumer.pop(&mut out).expect("right") {}
    assert!(!consumer.take_starved());
    // There is room that it has not seen yet.
    producer.push(&[1; LINE], &[]).expect("there is room");
    consumer.pop(&mut out).expect("right");
    assert!(!consumer.take_starved(), "nobody waits");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_ring_is_a_queue(lines in 3_usize..20, steps in vec(step(), 1..400)) {
        let memory = HeapMemory::new(OVERHEAD + lines * LINE);
        walk(memory.clone(), memory, lines, steps)?;
    }

    #[test]
    fn a_ring_needs_no_more_than_what_is_published(lines in 3_usize..20, steps in vec(step(), 1..400)) {
        let (here, there) = Lagging::pair(OVERHEAD + lines * LINE);
        walk(here, there, lines, steps)?;
    }

    #[test]
    fn rubbish_is_an_error_and_never_a_panic(
        lines in 3_usize..12,
        words in vec((0_usize..1000, any::<u64>(), 0_u8..3), 0..40),
        steps in vec(step(), 1..60),
    ) {
        let memory = HeapMemory::new(OVERHEAD + lines * LINE);
        let mut producer = Producer::new(memory.clone()).expect("large enough");
        let mut consumer = Consumer::new(memory.clone()).expect("large enough");
        let mut words = words.into_iter();
        let mut out = Vec::new();
        for step in steps {
            if let Some((at, value, kind)) = words.next() {
                let value = match kind { 0 => value, 1 => value % 4096, _ => (value << 32) | (value % 256) };
                memory.store64(at * 8 % (OVERHEAD + lines * LINE), value);
            }
            match step {
                Step::Push { head, parts } => {
                    let parts: Vec<Vec<u8>> = parts.iter().map(|n| vec![1; *n]).collect();
                    let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
                    let _ = producer.push(&[head; LINE], &slices);
                    prop_assert!(producer.depth() <= (lines * LINE) as u64);
                }
                Step::Pop => {
                    if let Ok(true) = consumer.pop(&mut out) {
                        prop_assert!(out.len() <= lines * LINE);
                        if let Ok((header, body)) = wire::Header::parse(&out)
                            && let Some(spec) = wire::spec_of(header.kind)
                        {
                            let _ = (spec.check)(&header, body);
                        }
                    }
                }
                Step::Rest => { consumer.take_starved(); }
            }
        }
    }

    #[test]
    fn what_programs_send_forges_no_record(words in vec(any::<u32>(), 16..64), lines in 4_usize..8) {
        // Payload that looks like records at every line, lap after lap: the reader never takes it for one.
        let memory = HeapMemory::new(OVERHEAD + lines * LINE);
        let mut producer = Producer::new(memory.clone()).expect("large enough");
        let mut consumer = Consumer::new(memory).expect("large enough");
        let mut out = Vec::new();
        for (lap, &n) in words.iter().enumerate() {
            let mut payload = vec![0; (n as usize % (lines - 2)) * LINE];
            for (i, line) in payload.chunks_mut(LINE).enumerate() {
                let forged = 64 | u64::from(lap as u32 * (lines as u32) + i as u32) << 32;
                line[..8].copy_from_slice(&forged.to_le_bytes());
            }
            prop_assert_eq!(producer.push(&[1; LINE], &[&payload]), Ok(()));
            prop_assert!(consumer.pop(&mut out).expect("right"));
            prop_assert_eq!(out.len(), LINE + payload.len());
            prop_assert!(!consumer.pop(&mut out).expect("no forged record"));
            consumer.take_starved();
        }
    }
}
