//! Links of several kernels over shared memory, step by step.
mod common;

use std::sync::{
    Arc, Mutex, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use common::{Machine, Node, boot, settle};
use link::{ANSWERS, AnswerTo, Guilt, Handler, Incoming, Links, memory::Memory as _, polling::IdleCpu};
use linux_abi::Errno;
use wire::{
    KernelId, Lane, MAX_KERNELS, Message as _, ObjectId, Request,
    generic::{Arm, Armed, Ready},
    test::{Echo, EchoReply, Said},
};

const A: KernelId = KernelId::new(0, 1);
const B: KernelId = KernelId::new(1, 1);
const FAR: u64 = u64::MAX;

type Results = Arc<Mutex<Vec<Result<(u64, usize), Errno>>>>;

fn echo(node: &Node, to: KernelId, value: u64, payload: &[u8], results: &Results) -> u64 {
    let results = results.clone();
    let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
        let result = answer.map_err(|e| e.errno).map(|m| {
            let (reply, payload) = m.read::<EchoReply>().expect("is an EchoReply");
            (reply.value, payload.len())
        });
        results.lock().unwrap().push(result);
    });
    node.links.request(to, ObjectId::NONE, &Echo { value }, payload, FAR, then)
}

#[test]
fn two_kernels_say_hello_and_echo() {
    let machine = Machine::new(2);
    let (a, b) = (boot(&machine, A, 7), boot(&machine, B, 7));
    let results = Results::default();
    echo(&a, B, 42, b"abc", &results);
    machine.clock.fetch_add(10_000, Ordering::Relaxed);
    settle(&machine, &[&a, &b]);
    assert_eq!(*results.lock().unwrap(), [Ok((42, 3))]);
    assert_eq!(a.hooks.hellos.lock().unwrap().iter().filter(|(k, _)| *k == B).count(), 2, "it said and answered");
    assert_eq!(b.hooks.hellos.lock().unwrap()[0].0, A);
    assert!(a.hooks.guilty.lock().unwrap().is_empty() && b.hooks.guilty.lock().unwrap().is_empty());
    let peer = a.links.peer(B).unwrap();
    assert_eq!(peer.report(Lane::Request).sent, 1);
    assert_eq!(peer.report(Lane::Reply).received, 2, "the echo and the HelloReply");
    assert_eq!(peer.counters.answers(Lane::Request).answered(), 1);
    let took = peer.counters.answers(Lane::Request).within([500]);
    assert!(took.is_some_and(|[ns]| (10_000..12_600).contains(&ns)), "{took:?}");
    assert_eq!(b.links.peer(A).unwrap().counters.answers(Lane::Request).answered(), 0, "it asked nothing");
}

#[test]
fn who_watches_is_not_rung_and_misses_nothing() {
    let machine = Machine::new(2);
    let (a, b) = (boot(&machine, A, 7), boot(&machine, B, 7));
    let results = Results::default();
    echo(&a, B, 0, b"", &results);
    settle(&machine, &[&a, &b]);
    let rung = || machine.kernels[0].rung.load(Ordering::Relaxed);
    let before = rung();
    let mut asked = 1;
    let watched = a.links.watch(|_| {
        if results.lock().unwrap().len() == asked && asked < 50 {
            echo(&a, B, asked as u64, b"", &results);
            asked += 1;
        }
        while b.links.receive(16) {}
        // The last one is asked for and not waited for.
        asked < 50
    });
    assert!(watched);
    assert_eq!(rung(), before, "it watches");
    settle(&machine, &[&a, &b]);
    assert_eq!(results.lock().unwrap().len(), 50, "what came when it stopped is not lost");
    echo(&b, A, 1, b"", &Results::default());
    assert_eq!(rung(), before + 1, "it sleeps again");
}

#[test]
fn flow_control_drops_nothing() {
    let machine = Machine::new(2);
    let (a, b) = (boot(&machine, A, 7), boot(&machine, B, 7));
    let results = Results::default();
    let payload = vec![5; 4000];
    for value in 0..500 {
        echo(&a, B, value, &payload, &results);
    }
    assert!(a.links.peer(B).unwrap().report(Lane::Request).waiting > 400);
    settle(&machine, &[&a, &b]);
    let results = results.lock().unwrap();
    assert_eq!(results.len(), 500);
    assert!(results.iter().enumerate().all(|(i, r)| *r == Ok((i as u64, 4000))), "in order");
    let rung: u64 = machine.kernels.iter().map(|k| k.rung.load(Ordering::Relaxed)).sum();
    assert!(rung < 300, "{rung} bells for 1000 messages of 4 KiB, seven to a ring");
}

#[test]
fn who_waits_until_all_is_answered_is_told_then() {
    let machine = Machine::new(2);
    let (a, b) = (boot(&machine, A, 7), boot(&machine, B, 7));
    let told = Arc::new(Mutex::new(0));
    let tell = || {
        let told = told.clone();
        a.links.when_quiet(move || *told.lock().unwrap() += 1);
    };
    assert_eq!(a.links.under_way(), 0);
    tell();
    assert_eq!(*told.lock().unwrap(), 1, "nothing is under way");
    echo(&a, B, 1, b"", &Results::default());
    // The hello is one too.
    let under_way = a.links.under_way();
    assert!(under_way >= 1);
    tell();
    assert_eq!(*told.lock().unwrap(), 1);
    settle(&machine, &[&a, &b]);
    assert_eq!((*told.lock().unwrap(), a.links.under_way()), (2, 0));
}

/// A CPU of kernel A with nothing to do. Each breath takes 20 µs.
struct Idle<'a> {
    machine: &'a Machine,
    links: &'a Links,
    breaths: AtomicU64,
    sleeps: AtomicU64,
    work: AtomicBool,
    /// Done in the first breath, and in the first sleep.
    breathing: Mutex<Option<Box<dyn Fn() + Send + 'a>>>,
    sleeping: Mutex<Option<Box<dyn Fn() + Send + 'a>>>,
}

impl<'a> Idle<'a> {
    fn new(machine: &'a Machine, links: &'a Links) -> Self {
        let none = || Mutex::new(None);
        let zero = || AtomicU64::new(0);
        let work = AtomicBool::new(false);
        Self { machine, links, breaths: zero(), sleeps: zero(), work, breathing: none(), sleeping: none() }
    }

    /// How often it breathed and slept since this was asked.
    fn did(&self) -> (u64, u64) {
        (self.breaths.swap(0, Ordering::Relaxed), self.sleeps.swap(0, Ordering::Relaxed))
    }
}

impl IdleCpu for Idle<'_> {
    fn has_work(&self) -> bool {
        self.work.load(Ordering::Relaxed)
    }
    fn breathe(&self) {
        self.breaths.fetch_add(1, Ordering::Relaxed);
        self.machine.clock.fetch_add(20_000, Ordering::Relaxed);
        if let Some(what) = self.breathing.lock().unwrap().take() {
            what();
        }
    }
    fn sleep(&self) {
        self.sleeps.fetch_add(1, Ordering::Relaxed);
        self.machine.clock.fetch_add(50_000, Ordering::Relaxed);
        if let Some(what) = self.sleeping.lock().unwrap().take() {
            what();
        }
        // The interrupt is served before the CPU goes on.
        if self.machine.kernels[0].bell.swap(false, Ordering::SeqCst) {
            while self.links.receive(16) {}
        }
    }
}

#[test]
fn an_idle_cpu_sleeps_until_it_pays_to_poll() {
    let machine = Machine::new(2);
    let (a, b) = (boot(&machine, A, 7), boot(&machine, B, 7));
    echo(&b, A, 0, b"", &Results::default());
    settle(&machine, &[&a, &b]);
    let results = Results::default();
    let cpu = Idle::new(&machine, &a.links);
    let say = || Box::new(|| assert_ne!(echo(&b, A, 1, b"", &results), 0));
    assert!(a.links.idle(&cpu));
    assert_eq!(cpu.did(), (0, 1), "nobody spoke");
    // A message ends a sleep: perhaps there are more.
    *cpu.sleeping.lock().unwrap() = Some(say());
    assert!(a.links.idle(&cpu));
    assert_eq!(cpu.did(), (0, 1));
    let rung = || machine.kernels[0].rung.load(Ordering::Relaxed);
    let before = rung();
    // The next one comes while it polls, and rings nobody; it waits as long for another one.
    *cpu.breathing.lock().unwrap() = Some(say());
    assert!(a.links.idle(&cpu));
    let window = a.links.halt_poll() / 20_000;
    let (breaths, sleeps) = cpu.did();
    assert!((window..window + 3).contains(&(breaths - 1)), "{breaths} breaths of a window of {window}");
    assert_eq!((sleeps, rung()), (1, before));
    // What there is to do ends it at once.
    cpu.work.store(true, Ordering::Relaxed);
    a.links.expect(1_000_000);
    assert!(!a.links.idle(&cpu), "it did not sleep");
    assert_eq!(cpu.did(), (1, 0));
    cpu.work.store(false, Ordering::Relaxed);
    // Who says that nobody polls is obeyed.
    a.links.set_halt_poll(0);
    *cpu.sleeping.lock().unwrap() = Some(say());
    assert!(a.links.idle(&cpu) && a.links.idle(&cpu));
    assert_eq!(cpu.did(), (0, 2));
    settle(&machine, &[&a, &b]);
    assert_eq!(*results.lock().unwrap(), [Ok((1, 0)); 3]);
}

#[test]
fn what_is_too_long_for_a_lane_leaves_it_as_it_is() {
    let machine = Machine::new(2);
    let (a, b) = (boot(&machine, A, 7), boot(&machine, B, 7));
    settle(&machine, &[&a, &b]);
    let results = Results::default();
    let sink = results.clone();
    let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
        sink.lock().unwrap().push(answer.map(|_| (0, 0)).map_err(|e| e.errno));
    });
    // The control lane never grows, and a table of another kind is no answer here.
    let hello = wire::membership::Hello { kernel: A, epoch: 0, isa: 62, cpus: 1, memory: 0, plan: 7 };
    a.links.request(B, ObjectId::NONE, &hello, &[0; 4000], FAR, then);
    assert_eq!(*results.lock().unwrap(), [Err(Errno::EMSGSIZE)]);
    assert!(a.hooks.guilty.lock().unwrap().is_empty(), "the peer did nothing");
    a.links.request(B, ObjectId::NONE, &hello, &[0; 8], FAR, Box::new(|_, answer| assert!(answer.is_ok())));
    settle(&machine, &[&a, &b]);
    assert_eq!(a.links.under_way(), 0, "the lane goes on");
}

#[test]
fn a_ring_that_was_full_now_and_then_does_not_grow() {
    let machine = Machine::new(2);
    let (a, b) = (boot(&machine, A, 7), boot(&machine, B, 7));
    let results = Results::default();
    echo(&a, B, 0, b"", &results);
    settle(&machine, &[&a, &b]);
    for value in 1..=12 {
        echo(&a, B, value, b"", &results);
    }
    assert!(a.links.peer(B).unwrap().report(Lane::Request).waiting > 0, "it is full");
    settle(&machine, &[&a, &b]);
    assert_eq!((results.lock().unwrap().len(), allocated(&machine, 1)), (13, 2048));
}

#[test]
fn who_reads_no_answers_is_asked_nothing_more_of() {
    let machine = Machine::new(2);
    let (a, b) = (boot(&machine, A, 7), boot(&machine, B, 7));
    let results = Results::default();
    let payload = vec![5; 4000];
    // Lanes are open, and as large as they get.
    for value in 0..100 {
        echo(&a, B, value, &payload, &results);
    }
    a.links.send(B, ObjectId::NONE, &Ready { token: 0, generation: 0, ready: 1 }, b"").unwrap();
    settle(&machine, &[&a, &b]);
    results.lock().unwrap().clear();
    // The asker looks at no answer.
    for value in 0..1000 {
        echo(&a, B, value, &payload, &results);
        while b.links.receive(16) {}
    }
    let waiting = b.links.peer(A).unwrap().report(Lane::Reply).waiting;
    assert!((8..=ANSWERS as u64 / 4000).contains(&waiting), "{waiting} answers of 4000 bytes wait");
    assert!(a.links.peer(B).unwrap().report(Lane::Request).waiting > 500, "the rest waits where it comes from");
    // What asks for nothing comes through.
    let before = b.links.peer(A).unwrap().report(Lane::Reply).received;
    a.links.send(B, ObjectId::NONE, &Ready { token: 0, generation: 0, ready: 1 }, b"").unwrap();
    while b.links.receive(16) {}
    assert_eq!(b.links.peer(A).unwrap().report(Lane::Reply).received, before + 1);
    // As soon as it reads, all goes on, in order.
    settle(&machine, &[&a, &b]);
    let results = results.lock().unwrap();
    assert!(results.iter().enumerate().all(|(i, r)| *r == Ok((i as u64, 4000))), "in order");
    assert_eq!(results.len(), 1000);
}

#[test]
fn a_dead_peer_is_an_answer() {
    let machine = Machine::new(2);
    let (a, b) = (boot(&machine, A, 7), boot(&machine, B, 7));
    let results = Results::default();
    echo(&a, B, 1, b"", &results);
    a.links.peer_down(B);
    assert_eq!(*results.lock().unwrap(), [Err(Errno::EHOSTDOWN)]);
    a.hooks.dead.lock().unwrap().push(B);
    echo(&a, B, 2, b"", &results);
    assert_eq!(results.lock().unwrap().len(), 2);
    settle(&machine, &[&a, &b]);
    assert_eq!(results.lock().unwrap().len(), 2, "an answer of the dead goes to nobody");
    // It comes back as another incarnation.
    drop(b);
    let b2 = KernelId::new(1, 2);
    let b = boot(&machine, b2, 7);
    echo(&a, b2, 3, b"", &results);
    settle(&machine, &[&a, &b]);
    assert_eq!(results.lock().unwrap()[2], Ok((3, 0)));
    echo(&b, A, 4, b"", &results);
    settle(&machine, &[&a, &b]);
    assert_eq!(results.lock().unwrap()[3], Ok((4, 0)));
}

#[test]
fn deadlines_end_requests_and_name_the_silent() {
    let machine = Machine::new(2);
    let (a, _b) = (boot(&machine, A, 7), boot(&machine, B, 7));
    let results = Results::default();
    let sink = results.clone();
    let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
        sink.lock().unwrap().push(answer.map(|_| (0, 0)).map_err(|e| e.errno));
    });
    a.links.request(B, ObjectId::NONE, &Echo { value: 1 }, b"", 1000, then);
    assert_eq!(a.links.tick().next, Some(1000));
    machine.clock.store(1000, Ordering::Relaxed);
    assert_eq!(a.links.tick().overdue, [B]);
    assert_eq!(*results.lock().unwrap(), [Err(Errno::ETIMEDOUT)]);
}

#[test]
fn another_plan_is_named() {
    let machine = Machine::new(2);
    let (a, b) = (boot(&machine, A, 7), boot(&machine, B, 8));
    let results = Results::default();
    echo(&a, B, 1, b"", &results);
    settle(&machine, &[&a, &b]);
    assert!(b.hooks.guilty.lock().unwrap().contains(&(A, Guilt::OtherPlan)));
    assert!(a.hooks.guilty.lock().unwrap().contains(&(B, Guilt::OtherPlan)));
}

/// Answers `Arm` only when told to; counts what it was asked.
#[derive(Default)]
struct Slow {
    held: Mutex<Vec<AnswerTo>>,
    order: Mutex<Vec<(Lane, u64)>>,
    undone: Mutex<u32>,
    home: Mutex<Option<KernelId>>,
    stale_below: Mutex<u32>,
}

impl Handler for Slow {
    fn handle(&self, links: &Links, message: &Incoming<'_>) -> link::Result<()> {
        if message.header.kind == Ready::SPEC.number {
            self.order.lock().unwrap().push((message.lane, message.read::<Ready>()?.0.token));
            return Ok(());
        }
        let (arm, _) = message.read::<Arm>()?;
        self.order.lock().unwrap().push((message.lane, arm.token));
        let home = *self.home.lock().unwrap();
        if let Some(home) = home {
            links.moved(message.answer_to(), home, 1);
        } else if message.header.epoch < *self.stale_below.lock().unwrap() {
            links.stale(message.answer_to());
        } else if arm.mask == 0 {
            self.held.lock().unwrap().push(message.answer_to());
        } else {
            links.answer(message.answer_to(), &Armed { ready: arm.mask }, &[])?;
        }
        Ok(())
    }

    fn cancel(&self, links: &Links, request: AnswerTo) {
        let mut held = self.held.lock().unwrap();
        if let Some(at) = held.iter().position(|h| h.peer == request.peer && h.request == request.request) {
            held.remove(at);
            links.cancelled(request);
        }
    }

    fn undo(&self, _: &Links, _: &Incoming<'_>) {
        *self.undone.lock().unwrap() += 1;
    }
}

fn ask<R: Request>(node: &Node, to: KernelId, object: ObjectId, message: &R, results: &Results) -> u64 {
    let results = results.clone();
    let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
        let result = answer.map_err(|e| e.errno).map(|m| (u64::from(m.read::<Armed>().unwrap().0.ready), 0));
        results.lock().unwrap().push(result);
    });
    node.links.request(to, object, message, b"", FAR, then)
}

fn with_slow(machine: &Arc<Machine>, id: KernelId) -> (Node, Arc<Slow>) {
    let node = boot(machine, id, 7);
    let slow = Arc::new(Slow::default());
    assert!(node.links.register("generic", slow.clone()));
    assert!(!node.links.register("generic", slow.clone()), "it has its service");
    (node, slow)
}

#[test]
fn requests_are_cancelled_forgotten_and_refused() {
    let machine = Machine::new(2);
    let ((a, at_a), (b, at_b)) = (with_slow(&machine, A), with_slow(&machine, B));
    let results = Results::default();
    let first = ask(&a, B, ObjectId::NONE, &Arm { token: 1, generation: 0, mask: 0 }, &results);
    settle(&machine, &[&a, &b]);
    a.links.cancel(first);
    settle(&machine, &[&a, &b]);
    assert_eq!(*results.lock().unwrap(), [Err(Errno::ECANCELED)]);
    let second = ask(&a, B, ObjectId::NONE, &Arm { token: 2, generation: 0, mask: 0 }, &results);
    settle(&machine, &[&a, &b]);
    let held = at_b.held.lock().unwrap().remove(0);
    b.links.answer(held, &Armed { ready: 1 }, &[]).unwrap();
    a.links.forget(second);
    settle(&machine, &[&a, &b]);
    assert_eq!(results.lock().unwrap().len(), 1);
    assert_eq!(*at_a.undone.lock().unwrap(), 1, "the answer came for nobody");
    // Nobody handles files here.
    drop(results.lock().unwrap().drain(..));
    ask(&a, B, ObjectId::NONE, &wire::generic::Locate {}, &results);
    settle(&machine, &[&a, &b]);
    assert_eq!(*results.lock().unwrap(), [Err(Errno::EBADMSG)], "the service cannot read a Locate as an Arm");
    assert_eq!(b.hooks.guilty.lock().unwrap().len(), 1);
}

#[test]
fn a_request_follows_its_object() {
    let machine = Machine::new(3);
    let c_id = KernelId::new(2, 1);
    let ((a, _), (b, at_b), (c, _)) = (with_slow(&machine, A), with_slow(&machine, B), with_slow(&machine, c_id));
    *at_b.home.lock().unwrap() = Some(c_id);
    let results = Results::default();
    let object = ObjectId { birth: B, serial: 9 };
    ask(&a, B, object, &Arm { token: 1, generation: 0, mask: 4 }, &results);
    settle(&machine, &[&a, &b, &c]);
    assert_eq!(*results.lock().unwrap(), [Ok((4, 0))]);
    // Two kernels that each say it is at the other.
    *at_b.home.lock().unwrap() = Some(A);
    ask(&a, B, object, &Arm { token: 1, generation: 0, mask: 4 }, &results);
    settle(&machine, &[&a, &b, &c]);
    assert_eq!(results.lock().unwrap()[1], Err(Errno::EREMCHG), "it came home");
    *at_b.home.lock().unwrap() = Some(B);
    ask(&a, B, object, &Arm { token: 1, generation: 0, mask: 4 }, &results);
    settle(&machine, &[&a, &b, &c]);
    assert_eq!(results.lock().unwrap()[2], Err(Errno::ELOOP));
}

#[test]
fn a_stale_request_waits_for_the_view() {
    let machine = Machine::new(2);
    let ((a, _), (b, at_b)) = (with_slow(&machine, A), with_slow(&machine, B));
    *at_b.stale_below.lock().unwrap() = 3;
    b.links.set_epoch(3);
    let results = Results::default();
    ask(&a, B, ObjectId::NONE, &Arm { token: 1, generation: 0, mask: 4 }, &results);
    settle(&machine, &[&a, &b]);
    // The very moment at which it may be asked again.
    machine.clock.fetch_add(1_000_000, Ordering::Relaxed);
    a.links.tick();
    settle(&machine, &[&a, &b]);
    assert!(results.lock().unwrap().is_empty());
    let sent = || a.links.peer(B).unwrap().report(Lane::Request).sent;
    let before = sent();
    a.links.set_epoch(3);
    a.links.tick();
    a.links.tick();
    assert_eq!(sent(), before + 1, "it is asked once more, and only once");
    settle(&machine, &[&a, &b]);
    assert_eq!(*results.lock().unwrap(), [Ok((4, 0))]);
}

#[test]
fn the_urgent_overtakes() {
    let machine = Machine::new(2);
    let ((a, _), (b, at_b)) = (with_slow(&machine, A), with_slow(&machine, B));
    let results = Results::default();
    // Open the lanes.
    ask(&a, B, ObjectId::NONE, &Arm { token: 0, generation: 0, mask: 1 }, &results);
    a.links.send(B, ObjectId::NONE, &Ready { token: 0, generation: 0, ready: 1 }, b"").unwrap();
    settle(&machine, &[&a, &b]);
    at_b.order.lock().unwrap().clear();
    for token in 1..=20 {
        ask(&a, B, ObjectId::NONE, &Arm { token, generation: 0, mask: 1 }, &results);
    }
    a.links.send(B, ObjectId::NONE, &Ready { token: 99, generation: 0, ready: 1 }, b"").unwrap();
    settle(&machine, &[&a, &b]);
    let order = at_b.order.lock().unwrap();
    assert_eq!(order[0], (Lane::Reply, 99));
    assert_eq!(order[20], (Lane::Request, 20));
}

/// Handles long messages, and in the middle of some of them another kernel says something urgent. Counts what is handled between the two.
#[derive(Default)]
struct Busy {
    speaker: OnceLock<Arc<Node>>,
    /// How many messages were handled when the urgent one was sent; how many came between, per urgent one.
    handled: Mutex<u64>,
    said: Mutex<Vec<u64>>,
    between: Mutex<Vec<u64>>,
}

impl Handler for Busy {
    fn handle(&self, _: &Links, message: &Incoming<'_>) -> link::Result<()> {
        let handled = {
            let mut handled = self.handled.lock().unwrap();
            *handled += 1;
            *handled
        };
        if message.header.kind == Ready::SPEC.number {
            let said = self.said.lock().unwrap().remove(0);
            self.between.lock().unwrap().push(handled - said - 1);
        } else if handled.is_multiple_of(7)
            && let Some(speaker) = self.speaker.get()
        {
            self.said.lock().unwrap().push(handled);
            speaker.links.send(B, ObjectId::NONE, &Ready { token: 1, generation: 0, ready: 1 }, b"").unwrap();
        }
        Ok(())
    }
}

#[test]
fn an_urgent_message_waits_for_the_one_in_progress_and_no_other() {
    let machine = Machine::new(4);
    let at_b = Arc::new(Busy::default());
    let b = common::boot_with(&machine, B, 7, at_b.clone());
    assert!(b.links.register("generic", at_b.clone()));
    let others: Vec<Arc<Node>> =
        [0, 2, 3].map(|index| Arc::new(boot(&machine, KernelId::new(index, 1), 7))).into_iter().collect();
    let all: Vec<&Node> = others.iter().map(|node| &**node).chain([&b]).collect();
    // Lanes are open, and as large as they get, before anything is counted.
    let flood = |count: u64| {
        for node in &others {
            for number in 0..count {
                node.links.send(B, ObjectId::NONE, &Said { number }, &[7; 4096]).unwrap();
            }
        }
    };
    for node in &others {
        node.links.send(B, ObjectId::NONE, &Ready { token: 0, generation: 0, ready: 1 }, b"").unwrap();
        at_b.said.lock().unwrap().push(0);
    }
    flood(40);
    settle(&machine, &all);
    at_b.between.lock().unwrap().clear();
    assert!(at_b.speaker.set(others[1].clone()).is_ok());
    flood(60);
    settle(&machine, &all);
    let between = at_b.between.lock().unwrap();
    assert!(between.len() >= 20 && between.iter().all(|count| *count == 0), "{between:?}");
}

/// Random bytes all over what a peer can write: no panic, and the victim's other links go on.
#[test]
fn garbage_in_the_rings_is_an_error_that_names_the_peer() {
    let mut named = 0;
    for seed in 0..300_u64 {
        let machine = Machine::new(3);
        let c_id = KernelId::new(2, 1);
        let (a, b, c) = (boot(&machine, A, 7), boot(&machine, B, 7), boot(&machine, c_id, 7));
        let results = Results::default();
        for value in 0..4 {
            echo(&a, B, value, &[3; 900], &results);
        }
        settle(&machine, &[&a, &b, &c]);
        for value in 0..4 {
            echo(&a, B, value, &[3; 900], &results);
        }
        // A is hostile: what it may write in B's memory is everything but the first lines of the porch.
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        };
        let memory = &machine.kernels[1].memory;
        for _ in 0..1 + random() % 64 {
            // The pair's block, and the beginnings of the rings after it.
            let start = [8192, 10240, 10240 + 0x8000][random() as usize % 3];
            let at = start + (random() % 6000) as usize / 8 * 8;
            let value = if random() % 3 == 0 { random() } else { random() % 5000 };
            memory.store64(at, value);
        }
        // And in its own: where B writes, what it offers B.
        for _ in 0..random() % 8 {
            let at = 0x100 + (random() % 0x12000) as usize / 8 * 8;
            machine.kernels[0].memory.store64(at, random());
        }
        machine.kernels[1].bell.store(true, Ordering::SeqCst);
        for _ in 0..50 {
            while b.links.receive(16) {}
            echo(&b, A, 1, &[1; 2000], &results);
        }
        let guilty = b.hooks.guilty.lock().unwrap().clone();
        named += usize::from(!guilty.is_empty());
        assert!(guilty.iter().all(|(k, _)| *k == A), "seed {seed}: {guilty:?}");
        b.links.peer_down(A);
        let good = Results::default();
        echo(&c, B, 8, b"ok", &good);
        settle(&machine, &[&b, &c]);
        assert_eq!(*good.lock().unwrap(), [Ok((8, 2))], "seed {seed}");
    }
    assert!(named > 20, "only {named} of 300 corruptions were noticed");
    assert_eq!(MAX_KERNELS, 64);
}

/// What a kernel has allocated for rings, in bytes.
fn allocated(machine: &Machine, kernel: usize) -> u64 {
    machine.kernels[kernel].allocated()
}

#[test]
fn a_pair_that_says_little_costs_a_page() {
    let machine = Machine::new(2);
    let (a, b) = (boot(&machine, A, 7), boot(&machine, B, 7));
    let results = Results::default();
    for value in 0..100 {
        echo(&a, B, value, b"short", &results);
        echo(&b, A, value, b"", &results);
        settle(&machine, &[&a, &b]);
    }
    assert_eq!(results.lock().unwrap().len(), 200);
    assert_eq!(allocated(&machine, 0) + allocated(&machine, 1), 4096);
    assert_eq!(a.links.peer(B).unwrap().report(Lane::Request).waiting, 0);
}

#[test]
fn a_lane_grows_and_keeps_its_order() {
    for seed in 0..200_u64 {
        let machine = Machine::new(2);
        let (a, b) = (boot(&machine, A, 7), boot(&machine, B, 7));
        let results = Results::default();
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        };
        let mut wanted = Vec::new();
        for value in 0..200 {
            // Long ones are not even offered room in a first ring; short ones fill it.
            let len = if random() % 20 == 0 { 200 + random() as usize % 3000 } else { random() as usize % 100 };
            echo(&a, B, value, &vec![9; len], &results);
            wanted.push(Ok((value, len)));
            // One of them looks now and then, each at its own pace.
            for node in [&a, &b] {
                if random() % 4 == 0 {
                    node.links.receive(1 + random() as usize % 3);
                }
            }
        }
        settle(&machine, &[&a, &b]);
        while a.links.receive(16) | b.links.receive(16) {}
        assert_eq!(*results.lock().unwrap(), wanted, "seed {seed}");
        // The block and the large rings, each once.
        assert!((2048..=2048 + (64 << 10)).contains(&allocated(&machine, 1)), "seed {seed}");
        assert!(a.hooks.guilty.lock().unwrap().is_empty() && b.hooks.guilty.lock().unwrap().is_empty());
    }
}

#[test]
fn what_is_too_long_for_any_ring_is_refused_at_once() {
    let machine = Machine::new(2);
    let (a, b) = (boot(&machine, A, 7), boot(&machine, B, 7));
    settle(&machine, &[&a, &b]);
    let results = Results::default();
    echo(&a, B, 1, b"", &results);
    settle(&machine, &[&a, &b]);
    echo(&a, B, 2, &vec![0; 40_000], &results);
    assert_eq!(results.lock().unwrap().len(), 2, "it does not wait for a larger ring");
    assert_eq!(results.lock().unwrap()[1], Err(Errno::EMSGSIZE));
}

/// What B answers to a hello whose sender says that it speaks this; and whether that made it guilty.
fn hello(spoken: &[u8]) -> (usize, Vec<Guilt>) {
    let machine = Machine::new(2);
    let (a, b) = (boot(&machine, A, 7), boot(&machine, B, 7));
    settle(&machine, &[&a, &b]);
    let answered = Arc::new(Mutex::new(0));
    let sink = answered.clone();
    let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
        let (_, payload) = answer.unwrap().read::<wire::membership::HelloReply>().map(|(r, p)| (r, p.len())).unwrap();
        *sink.lock().unwrap() = payload;
    });
    let message = wire::membership::Hello { kernel: A, epoch: 0, isa: 62, cpus: 1, memory: 0, plan: 7 };
    a.links.request(B, ObjectId::NONE, &message, spoken, FAR, then);
    settle(&machine, &[&a, &b]);
    let guilty = b.hooks.guilty.lock().unwrap().iter().map(|(_, guilt)| *guilt).collect();
    (*answered.lock().unwrap(), guilty)
}

#[test]
fn who_speaks_something_else_hears_all_that_is_spoken() {
    let table: Vec<u8> = wire::table::entries().flat_map(wire::table::Entry::to_bytes).collect();
    assert_eq!(hello(&[0; 8]), (table.len(), vec![]), "another digest is answered with the table");
    // A kernel that knows no digests says what it speaks at once; these are two types of it.
    let mut other = table[..16].to_vec();
    assert_eq!(hello(&other), (table.len(), vec![]));
    // The hash of the layout of the first type.
    other[4] ^= 1;
    let (_, guilty) = hello(&other);
    assert!(matches!(guilty[..], [Guilt::OtherLayout { name: "Hello", .. }]), "{guilty:?}");
}

#[test]
fn control_messages_fit_the_lane_that_never_grows() {
    let (_, bytes) = link::porch::FIRST_RINGS[Lane::Control as usize];
    let longest = bytes - link::ring::OVERHEAD - link::ring::LINE;
    let control = wire::FAMILIES.iter().flat_map(|family| family.specs).filter(|spec| spec.lane == Lane::Control);
    // Hello carries a digest between kernels that share memory; the table that it may carry is the answer's.
    let long = control.filter(|spec| wire::HEADER_SIZE + spec.fixed + spec.payload > longest).map(|spec| spec.name);
    assert_eq!(long.collect::<Vec<_>>(), ["Hello"]);
}
