//! Kernels that share nothing but a wire, which loses, repeats, reorders, damages and delays frames. Each seed is another life of it.
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use link::{
    Carrier, Ether, Facts, Guilt, Hooks, Incoming, Links, Sign, State,
    ether::{Clock, Nic},
    transport::{SendError, Transport},
};
use wire::{
    HEADER_SIZE, KernelId, LANES, Lane, MAX_BODY, ObjectId,
    test::{Echo, EchoReply},
};

const MS: u64 = 1_000_000;
const MACHINE: u32 = 7;

/// xorshift64*: the same lives on every host.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % sides
    }
}

/// How a wire treats frames, in thousandths.
#[derive(Clone, Copy)]
struct Manners {
    lost: u64,
    twice: u64,
    damaged: u64,
    /// The longest time that a frame is under way: those that are sent together come in any order.
    delay: u64,
}

const KIND: Manners = Manners { lost: 0, twice: 0, damaged: 0, delay: 0 };
const ROUGH: Manners = Manners { lost: 100, twice: 50, damaged: 50, delay: 3 * MS };

struct Segment {
    now: AtomicU64,
    /// Frames under way: when they come, in which order they were sent, to which card.
    flying: Mutex<BTreeMap<(u64, u64), (usize, Vec<u8>)>>,
    cards: Mutex<Vec<Weak<CardState>>>,
    dice: Mutex<(Dice, Manners, u64)>,
}

struct CardState {
    at: usize,
    came: Mutex<VecDeque<Vec<u8>>>,
    interrupts: AtomicBool,
    rang: AtomicBool,
    off: AtomicBool,
}

struct Card(Arc<CardState>, Arc<Segment>);

fn address(at: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, at as u8]
}

impl Segment {
    fn new(seed: u64, manners: Manners) -> Arc<Self> {
        Arc::new(Self {
            now: AtomicU64::new(1),
            flying: Mutex::default(),
            cards: Mutex::default(),
            dice: Mutex::new((Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1), manners, 0)),
        })
    }

    fn card(self: &Arc<Self>) -> Card {
        let mut cards = self.cards.lock().unwrap();
        let state = Arc::new(CardState {
            at: cards.len(),
            came: Mutex::default(),
            interrupts: AtomicBool::new(true),
            rang: AtomicBool::new(false),
            off: AtomicBool::new(false),
        });
        cards.push(Arc::downgrade(&state));
        Card(state, self.clone())
    }

    fn set_manners(&self, manners: Manners) {
        self.dice.lock().unwrap().1 = manners;
    }

    fn carry(&self, from: usize, frame: &[u8]) {
        let cards = self.cards.lock().unwrap();
        let mut dice = self.dice.lock().unwrap();
        let (dice, manners, count) = &mut *dice;
        for to in (0..cards.len()).filter(|to| *to != from) {
            if frame[..6] != [0xff; 6] && frame[..6] != address(to) {
                continue;
            }
            if dice.roll(1000) < manners.lost {
                continue;
            }
            for _ in 0..=u64::from(dice.roll(1000) < manners.twice) {
                let mut frame = frame.to_vec();
                if dice.roll(1000) < manners.damaged {
                    let at = dice.roll(frame.len() as u64) as usize;
                    frame[at] ^= 1 << dice.roll(8);
                }
                *count += 1;
                let at = self.now.load(Ordering::Relaxed) + dice.roll(manners.delay + 1);
                self.flying.lock().unwrap().insert((at, *count), (to, frame));
            }
        }
    }

    /// Delivers what is due.
    fn deliver(&self) {
        let now = self.now.load(Ordering::Relaxed);
        loop {
            let mut flying = self.flying.lock().unwrap();
            let Some(first) = flying.first_entry().filter(|first| first.key().0 <= now) else { return };
            let (to, frame) = first.remove();
            drop(flying);
            let card = self.cards.lock().unwrap().get(to).and_then(Weak::upgrade);
            if let Some(card) = card.filter(|card| !card.off.load(Ordering::Relaxed)) {
                card.came.lock().unwrap().push_back(frame);
                if card.interrupts.load(Ordering::Relaxed) {
                    card.rang.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}

impl Nic for Card {
    fn address(&self) -> [u8; 6] {
        address(self.0.at)
    }
    fn send(&self, frame: &[u8]) {
        if !self.0.off.load(Ordering::Relaxed) {
            self.1.carry(self.0.at, frame);
        }
    }
    fn receive(&self, out: &mut Vec<u8>) -> bool {
        match self.0.came.lock().unwrap().pop_front() {
            Some(frame) => {
                *out = frame;
                true
            }
            None => false,
        }
    }
    fn interrupts(&self, on: bool) -> bool {
        self.0.interrupts.store(on, Ordering::Relaxed);
        self.0.came.lock().unwrap().is_empty()
    }
}

struct Time {
    segment: Arc<Segment>,
    alarm: AtomicU64,
}

impl Time {
    /// The alarm goes off.
    fn is_due(&self, now: u64) -> bool {
        let due = self.alarm.load(Ordering::Relaxed) <= now;
        if due {
            self.alarm.store(u64::MAX, Ordering::Relaxed);
        }
        due
    }
}

impl Clock for Time {
    fn now(&self) -> u64 {
        self.segment.now.load(Ordering::Relaxed)
    }
    fn set_alarm(&self, at: u64) {
        self.alarm.fetch_min(at, Ordering::Relaxed);
    }
}

struct TestHooks {
    time: Arc<Time>,
    guilty: Mutex<Vec<(KernelId, Guilt)>>,
    poked: Mutex<Vec<u16>>,
}

impl Hooks for TestHooks {
    fn now(&self) -> u64 {
        self.time.now()
    }
    fn facts(&self) -> Facts {
        Facts { isa: 62, cpus: 1, memory: 1 << 20, plan: 1, epoch: 0 }
    }
    fn admit(&self, _: KernelId) -> bool {
        true
    }
    fn hello(&self, _: KernelId, _: Facts) {}
    fn guilty(&self, peer: KernelId, guilt: Guilt) {
        self.guilty.lock().unwrap().push((peer, guilt));
    }
    fn poked(&self, index: u16) {
        self.poked.lock().unwrap().push(index);
    }
    fn set_alarm(&self, at: u64) {
        self.time.set_alarm(at);
    }
}

/// A kernel's end of the wire, without links.
struct End {
    ether: Ether<Card>,
    card: Arc<CardState>,
    time: Arc<Time>,
}

fn end(segment: &Arc<Segment>, id: KernelId) -> End {
    let card = segment.card();
    let state = card.0.clone();
    let time = Arc::new(Time { segment: segment.clone(), alarm: AtomicU64::new(u64::MAX) });
    End { ether: Ether::new(id, MACHINE, card, time.clone()), card: state, time }
}

/// Makes time pass: a millisecond at a time, with what is due.
fn step(segment: &Segment, ends: &[&End]) {
    let now = segment.now.fetch_add(MS, Ordering::Relaxed) + MS;
    segment.deliver();
    for end in ends {
        if end.time.is_due(now)
            && let Some(next) = end.ether.tick(now)
        {
            end.time.set_alarm(next);
        }
    }
}

const A: KernelId = KernelId::new(0, 1);
const B: KernelId = KernelId::new(1, 1);

/// What one end says to the other on one lane, and what of it came.
struct Talk {
    lane: Lane,
    said: u64,
    heard: u64,
}

/// The message number `n` of a lane: its length and its bytes follow from that.
fn message(lane: Lane, n: u64) -> ([u8; HEADER_SIZE], Vec<u8>) {
    let mut head = [lane as u8; HEADER_SIZE];
    head[..8].copy_from_slice(&n.to_le_bytes());
    let mut dice = Dice(n * 4 + lane as u64 + 1);
    let len = if dice.roll(4) == 0 { dice.roll(MAX_BODY as u64 + 1) } else { dice.roll(80) };
    (head, (0..len).map(|i| (i * 7 + n) as u8).collect())
}

impl Talk {
    fn say(&mut self, transport: &dyn Transport, count: u64) {
        while self.said < count {
            let (head, body) = message(self.lane, self.said);
            match transport.send(self.lane, &head, &[&body]) {
                Ok(()) => self.said += 1,
                Err(SendError::Later) => return,
                Err(other) => panic!("{other:?}"),
            }
        }
    }

    fn hear(&mut self, transport: &dyn Transport, most: u64) {
        let mut out = Vec::new();
        for _ in 0..most {
            if !transport.receive(self.lane, &mut out).expect("nobody breaks a rule") {
                return;
            }
            let (head, body) = message(self.lane, self.heard);
            assert!(
                out[..HEADER_SIZE] == head && out[HEADER_SIZE..] == body,
                "message {} of {:?}",
                self.heard,
                self.lane
            );
            self.heard += 1;
        }
    }
}

/// Both ends talk on all lanes at once; how many milliseconds it took, and how often a piece was sent again.
fn talk(seed: u64, manners: Manners, count: u64) -> (u64, u64) {
    let segment = Segment::new(seed, manners);
    let mut dice = Dice(seed + 1);
    let (a, b) = (end(&segment, A), end(&segment, B));
    let ends = [&a, &b];
    let mut rounds = 0;
    let wires: Vec<Box<dyn Transport>> = loop {
        step(&segment, &ends);
        rounds += 1;
        for end in ends {
            end.ether.show(Sign::Beat);
            end.ether.take_pending();
        }
        if let (Some(to_b), Some(to_a)) = (a.ether.connect(B), b.ether.connect(A)) {
            break vec![to_b, to_a];
        }
        assert!(rounds < 100_000, "seed {seed}: they do not find each other");
    };
    let talk = |lane| Talk { lane, said: 0, heard: 0 };
    let mut talks: Vec<Vec<Talk>> = (0..2).map(|_| Lane::ALL.map(talk).into_iter().collect()).collect();
    while talks.iter().flatten().any(|talk| talk.heard < count) {
        for from in 0..2 {
            for talk in &mut talks[from] {
                talk.say(&*wires[from], count);
            }
            wires[from].notify();
        }
        step(&segment, &ends);
        rounds += 1;
        for (to, end) in ends.iter().enumerate() {
            end.ether.take_pending();
            // Now and then it has something else to do.
            if dice.roll(4) > 0 {
                let most = dice.roll(30);
                for talk in &mut talks[1 - to] {
                    talk.hear(&*wires[to], most);
                }
                wires[to].rest();
            }
        }
        assert!(rounds < 1_000_000, "seed {seed}: it comes to nothing");
    }
    // What was heard is acknowledged, and then nothing is under way.
    while wires.iter().any(|wire| Lane::ALL.iter().any(|lane| wire.depth(*lane) > 0)) {
        step(&segment, &ends);
        ends.iter().for_each(|end| {
            end.ether.take_pending();
        });
        rounds += 1;
        assert!(rounds < 1_000_000, "seed {seed}: nobody acknowledges");
    }
    (rounds, a.ether.report().again + b.ether.report().again)
}

#[test]
fn messages_come_once_whole_and_in_order_whatever_the_wire_does() {
    assert_eq!(LANES, 4);
    let mut again = 0;
    for seed in 0..60 {
        again += talk(seed, ROUGH, 60).1;
    }
    assert!(again > 1000, "the wire was rough: {again}");
}

#[test]
fn on_a_kind_wire_nothing_is_sent_twice() {
    for seed in 0..5 {
        assert_eq!(talk(seed, KIND, 200).1, 0, "seed {seed}");
    }
}

#[test]
fn what_is_said_together_goes_together() {
    let segment = Segment::new(1, KIND);
    let (a, b) = (end(&segment, A), end(&segment, B));
    step(&segment, &[&a, &b]);
    a.ether.take_pending();
    b.ether.show(Sign::Beat);
    step(&segment, &[&a, &b]);
    a.ether.take_pending();
    let wire = a.ether.connect(B).expect("it showed itself");
    let before = a.ether.report().sent;
    for _ in 0..10 {
        wire.send(Lane::Request, &[1; HEADER_SIZE], &[b"short"]).unwrap();
    }
    wire.notify();
    assert_eq!(a.ether.report().sent - before, 1);
}

#[test]
fn a_closed_pair_hears_nothing_and_a_new_incarnation_begins_anew() {
    let segment = Segment::new(3, KIND);
    let (a, b) = (end(&segment, A), end(&segment, B));
    b.ether.show(Sign::Beat);
    step(&segment, &[&a, &b]);
    assert_eq!(a.ether.take_pending(), 1 << 1);
    step(&segment, &[&a, &b]);
    b.ether.take_pending();
    let (to_b, to_a) = (a.ether.connect(B).unwrap(), b.ether.connect(A).unwrap());
    to_a.send(Lane::Request, &[1; HEADER_SIZE], &[]).unwrap();
    to_a.notify();
    to_b.close();
    step(&segment, &[&a, &b]);
    a.ether.take_pending();
    assert!(!to_b.receive(Lane::Request, &mut Vec::new()).unwrap());
    assert_eq!(to_b.send(Lane::Request, &[1; HEADER_SIZE], &[]), Err(SendError::Closed));
    assert!(a.ether.connect(B).is_none(), "it is gone");
    b.card.off.store(true, Ordering::Relaxed);
    let next = KernelId::new(1, 2);
    let b2 = end(&segment, next);
    step(&segment, &[&a, &b2]);
    assert_eq!(a.ether.take_pending(), 1 << 1);
    assert_eq!(a.ether.present(1), Some(next));
    step(&segment, &[&a, &b2]);
    b2.ether.take_pending();
    let (to_b, to_a) = (a.ether.connect(next).unwrap(), b2.ether.connect(A).unwrap());
    to_a.send(Lane::Reply, &[2; HEADER_SIZE], &[]).unwrap();
    to_a.notify();
    step(&segment, &[&a, &b2]);
    a.ether.take_pending();
    let mut out = Vec::new();
    assert!(to_b.receive(Lane::Reply, &mut out).unwrap());
    assert_eq!(out, [2; HEADER_SIZE]);
}

#[test]
fn signs_reach_everybody() {
    let segment = Segment::new(4, KIND);
    let (a, b) = (end(&segment, A), end(&segment, B));
    b.ether.show(Sign::State(State::Running));
    b.ether.show(Sign::Since(5));
    b.ether.show(Sign::Ended(6));
    b.ether.show(Sign::Dying("out of luck"));
    b.ether.announce(2);
    step(&segment, &[&a, &b]);
    assert_eq!(a.ether.take_pending(), 1 << 1);
    let signs = a.ether.signs(1).unwrap();
    assert_eq!((signs.owner, signs.state, signs.since, signs.ended), (B, Some(State::Dying), 5, Some(6)));
    assert_eq!(a.ether.reason(1), "out of luck");
    assert_eq!(a.ether.signs(7), None);
    assert_eq!(a.ether.signs(0).unwrap().owner, A);
    assert!(a.ether.claim_fence(1, 0, 1).is_none());
    // An incarnation before it is an echo.
    let old = end(&segment, KernelId::new(1, 0));
    drop(old);
    step(&segment, &[&a]);
    assert_eq!((a.ether.take_pending(), a.ether.present(1)), (0, Some(B)));
}

/// A kernel with links.
struct Node {
    id: KernelId,
    links: Links,
    hooks: Arc<TestHooks>,
    card: Arc<CardState>,
}

fn node(segment: &Arc<Segment>, id: KernelId) -> Node {
    let card = segment.card();
    let state = card.0.clone();
    let time = Arc::new(Time { segment: segment.clone(), alarm: AtomicU64::new(u64::MAX) });
    let carriers: Vec<Arc<dyn Carrier>> = vec![Arc::new(Ether::new(id, MACHINE, card, time.clone()))];
    let hooks = Arc::new(TestHooks { time, guilty: Mutex::default(), poked: Mutex::default() });
    let links = Links::new(id, hooks.clone(), carriers);
    assert!(links.register("test", Arc::new(link::echo::EchoService)));
    Node { id, links, hooks, card: state }
}

/// A millisecond of kernels: interrupts and alarms.
fn live(segment: &Segment, nodes: &[&Node]) {
    let now = segment.now.fetch_add(MS, Ordering::Relaxed) + MS;
    segment.deliver();
    for node in nodes {
        if node.card.rang.swap(false, Ordering::Relaxed) {
            while node.links.receive(16) {}
        }
        if node.hooks.time.is_due(now) {
            node.links.carriers()[0].show(Sign::Beat);
            if let Some(next) = node.links.tick().next {
                node.hooks.time.set_alarm(next);
            }
        } else if (now / MS).is_multiple_of(200) {
            node.links.carriers()[0].show(Sign::Beat);
        }
    }
}

#[test]
fn every_request_is_answered_once() {
    for seed in 0..30 {
        let segment = Segment::new(seed, ROUGH);
        let nodes: Vec<Node> = (0..3).map(|index| node(&segment, KernelId::new(index, 1))).collect();
        let all: Vec<&Node> = nodes.iter().collect();
        let mut rounds = 0;
        while nodes.iter().any(|node| node.links.peers().len() < 2) {
            for from in &nodes {
                for to in nodes.iter().filter(|to| to.id != from.id) {
                    // Not before it showed itself.
                    let _ = from.links.connect(to.id);
                }
            }
            live(&segment, &all);
            rounds += 1;
            assert!(rounds < 10_000, "seed {seed}: they do not meet");
        }
        let answers: Arc<Mutex<BTreeMap<(u16, u64), u32>>> = Arc::default();
        for from in &nodes {
            for value in 0..50 {
                let to = KernelId::new((from.id.index + 1 + (value % 2) as u16) % 3, 1);
                let (answers, asker) = (answers.clone(), from.id.index);
                let payload = vec![value as u8; (value * 80) as usize];
                let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
                    let answer = answer.expect("nobody dies");
                    let (reply, payload) = answer.read::<EchoReply>().expect("is one");
                    assert!(
                        payload.len() as u64 == reply.value * 80 && payload.iter().all(|b| *b == reply.value as u8)
                    );
                    *answers.lock().unwrap().entry((asker, reply.value)).or_default() += 1;
                });
                from.links.request(to, ObjectId::NONE, &Echo { value }, &payload, u64::MAX, then);
            }
        }
        while nodes.iter().any(|node| node.links.unanswered() > 0) {
            live(&segment, &all);
            rounds += 1;
            assert!(rounds < 100_000, "seed {seed}: a request is lost");
        }
        let answers = answers.lock().unwrap();
        assert!(answers.len() == 150 && answers.values().all(|n| *n == 1), "seed {seed}");
        assert!(nodes.iter().all(|node| node.hooks.guilty.lock().unwrap().is_empty()), "seed {seed}");
    }
}

#[test]
fn who_dies_leaves_no_request_open_and_comes_again() {
    let segment = Segment::new(9, KIND);
    let (a, b) = (node(&segment, A), node(&segment, B));
    for _ in 0..3 {
        live(&segment, &[&a, &b]);
        b.links.carriers()[0].show(Sign::Beat);
    }
    a.links.connect(B).unwrap();
    for _ in 0..10 {
        live(&segment, &[&a, &b]);
    }
    b.card.off.store(true, Ordering::Relaxed);
    let ends: Arc<Mutex<Vec<Option<linux_abi::Errno>>>> = Arc::default();
    let ask = |to| {
        let ends = ends.clone();
        let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
            ends.lock().unwrap().push(answer.err().map(|error| error.errno));
        });
        a.links.request(to, ObjectId::NONE, &Echo { value: 1 }, &[], u64::MAX, then);
    };
    ask(B);
    let b2 = node(&segment, KernelId::new(1, 2));
    for _ in 0..50 {
        live(&segment, &[&a, &b2]);
    }
    assert!(a.hooks.poked.lock().unwrap().contains(&1), "somebody else is there");
    assert!(ends.lock().unwrap().is_empty(), "nobody said that it is dead");
    a.links.peer_down(B);
    assert_eq!(*ends.lock().unwrap(), [Some(linux_abi::Errno::EHOSTDOWN)]);
    ask(b2.id);
    for _ in 0..50 {
        live(&segment, &[&a, &b2]);
    }
    assert_eq!(*ends.lock().unwrap(), [Some(linux_abi::Errno::EHOSTDOWN), None]);
    segment.set_manners(ROUGH);
    (0..20).for_each(|_| ask(b2.id));
    for _ in 0..3000 {
        live(&segment, &[&a, &b2]);
    }
    assert_eq!(ends.lock().unwrap().len(), 22);
}
