//! One kernel speaks to many: groups that open, grow, shrink and close, slow listeners, dead ones, liars.
mod common;

use std::sync::{Arc, Mutex, atomic::Ordering};

use common::{Machine, Node, boot_with, settle};
use link::{Guilt, Handler, Incoming, Links, groups::PATIENCE, memory::Memory as _};
use linux_abi::Errno;
use wire::{KernelId, ObjectId, test::Said};

/// More than a listener may lag behind, in nanoseconds.
const LONG: u64 = 500_000_000;

/// What a kernel heard, and how often it missed something.
#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<u64>>,
    missed: Mutex<u32>,
}

impl Ear {
    fn heard(&self) -> Vec<u64> {
        self.heard.lock().unwrap().clone()
    }
}

impl Handler for Ear {
    fn handle(&self, _: &Links, message: &Incoming<'_>) -> link::Result<()> {
        let (said, payload) = message.read::<Said>()?;
        assert!(payload.iter().all(|byte| u64::from(*byte) == said.number % 251), "it is whole");
        self.heard.lock().unwrap().push(said.number);
        Ok(())
    }

    fn missed(&self, _: &Links, _: KernelId) {
        *self.missed.lock().unwrap() += 1;
    }
}

struct Town {
    machine: Arc<Machine>,
    nodes: Vec<Node>,
    ears: Vec<Arc<Ear>>,
}

impl Town {
    fn new(kernels: usize) -> Self {
        let machine = Machine::new(kernels);
        let ears: Vec<Arc<Ear>> = (0..kernels).map(|_| Arc::default()).collect();
        let id = |index| KernelId::new(index as u16, 1);
        let nodes = (0..kernels).map(|index| boot_with(&machine, id(index), 7, ears[index].clone())).collect();
        Self { machine, nodes, ears }
    }

    fn settle(&self) {
        settle(&self.machine, &self.nodes.iter().collect::<Vec<_>>());
    }

    /// All but these listen.
    fn settle_without(&self, deaf: &[usize]) {
        let nodes: Vec<&Node> =
            self.nodes.iter().enumerate().filter(|(i, _)| !deaf.contains(i)).map(|(_, node)| node).collect();
        settle(&self.machine, &nodes);
    }

    fn invite(&self, group: u32, kernels: impl IntoIterator<Item = usize>) {
        for kernel in kernels {
            self.nodes[0].links.invite(group, self.nodes[kernel].id).unwrap();
        }
        self.settle();
    }

    fn say(&self, group: u32, number: u64) {
        let payload = vec![(number % 251) as u8; (number % 300) as usize];
        self.nodes[0].links.say(group, ObjectId::NONE, &Said { number }, &payload).unwrap();
    }
}

#[test]
fn all_hear_all_in_order() {
    for kernels in [2, 3, 9, 33] {
        let town = Town::new(kernels);
        let group = town.nodes[0].links.open_group("test", PATIENCE).unwrap();
        town.invite(group, 1..kernels);
        assert_eq!(town.nodes[0].links.listeners(group) as usize, kernels - 1);
        let before = town.nodes[0].links.peer(town.nodes[1].id).unwrap().report(wire::Lane::Request).sent;
        for number in 0..500 {
            town.say(group, number);
            if number % 40 == 0 {
                town.settle();
            }
        }
        town.settle();
        let all: Vec<u64> = (0..500).collect();
        for ear in &town.ears[1..] {
            assert_eq!(ear.heard(), all);
        }
        assert!(town.ears[0].heard().is_empty(), "who speaks does not hear itself");
        let after = town.nodes[0].links.peer(town.nodes[1].id).unwrap().report(wire::Lane::Request).sent;
        assert_eq!(before, after, "nothing was sent to anybody by itself");
        let report = town.nodes[0].links.groups();
        assert_eq!((report.said, report.waiting, report.expelled), (500, 0, 0));
    }
}

#[test]
fn a_group_grows_and_shrinks_and_closes() {
    let town = Town::new(4);
    let links = &town.nodes[0].links;
    let group = links.open_group("test", PATIENCE).unwrap();
    town.invite(group, [1]);
    town.say(group, 0);
    town.settle();
    // Who listens is not disturbed.
    town.invite(group, [1]);
    town.invite(group, [2]);
    town.say(group, 1);
    town.settle();
    links.dismiss(group, town.nodes[1].id);
    town.say(group, 2);
    town.settle();
    town.invite(group, [1, 3]);
    town.say(group, 3);
    town.settle();
    assert_eq!(town.ears[1].heard(), [0, 1, 3]);
    assert_eq!(town.ears[2].heard(), [1, 2, 3]);
    assert_eq!(town.ears[3].heard(), [3]);
    links.close_group(group);
    let error = links.say(group, ObjectId::NONE, &Said { number: 4 }, b"").unwrap_err();
    assert_eq!(error.errno, Errno::ENOENT);
    assert_eq!(links.groups().spoken, 1, "somebody may still look at its memory");
    town.settle();
    assert_eq!(links.groups().spoken, 0);
    assert!(town.nodes.iter().all(|node| node.links.groups().heard == 0));
    assert_eq!(links.invite(group, town.nodes[1].id).unwrap_err().errno, Errno::ENOENT);
}

#[test]
fn who_is_slow_is_expelled_and_comes_back() {
    let town = Town::new(4);
    let links = &town.nodes[0].links;
    let group = links.open_group("test", PATIENCE).unwrap();
    town.invite(group, 1..4);
    for number in 0..400 {
        town.say(group, number);
        town.settle_without(&[3]);
        town.machine.clock.fetch_add(1_000_000, Ordering::Relaxed);
        links.tick();
    }
    town.machine.clock.fetch_add(LONG, Ordering::Relaxed);
    links.tick();
    town.settle_without(&[3]);
    assert_eq!(links.groups().expelled, 1);
    let all: Vec<u64> = (0..400).collect();
    assert_eq!((town.ears[1].heard(), town.ears[2].heard()), (all.clone(), all), "the others missed nothing");
    // It looks again: it has missed something, and hears what is said from now on.
    town.settle();
    assert_eq!(*town.ears[3].missed.lock().unwrap(), 1);
    let heard = town.ears[3].heard().len();
    assert!(heard < 400);
    for number in 400..450 {
        town.say(group, number);
        town.settle();
    }
    assert_eq!(town.ears[3].heard()[heard..], (400..450).collect::<Vec<u64>>()[..]);
    assert_eq!(links.listeners(group), 3);
}

#[test]
fn too_much_for_a_slow_listener_is_said_so() {
    let town = Town::new(2);
    let links = &town.nodes[0].links;
    let group = links.open_group("test", PATIENCE).unwrap();
    town.invite(group, [1]);
    let result = (0..10_000).find_map(|number| links.say(group, ObjectId::NONE, &Said { number }, b"").err());
    assert_eq!(result.map(|error| error.errno), Some(Errno::ENOBUFS));
    town.settle();
    let heard = town.ears[1].heard();
    assert!(heard.len() > 4000 && heard.iter().enumerate().all(|(i, number)| i as u64 == *number));
}

#[test]
fn the_dead_listen_to_nothing_and_say_nothing() {
    let town = Town::new(4);
    let links = &town.nodes[0].links;
    let group = links.open_group("test", PATIENCE).unwrap();
    town.invite(group, 1..4);
    // One dies while everybody waits for it.
    for number in 0..300 {
        town.say(group, number);
        town.settle_without(&[2]);
    }
    assert!(links.groups().waiting > 0);
    links.peer_down(town.nodes[2].id);
    town.settle_without(&[2]);
    assert_eq!((links.groups().waiting, links.groups().expelled), (0, 0));
    assert_eq!(town.ears[1].heard().len(), 300);
    // One dies while it is waited for to leave.
    links.close_group(group);
    town.settle_without(&[2, 3]);
    assert_eq!(links.groups().spoken, 1);
    links.peer_down(town.nodes[3].id);
    assert_eq!(links.groups().spoken, 0);
    // And the speaker.
    let group = links.open_group("test", PATIENCE).unwrap();
    town.invite(group, [1]);
    assert_eq!(town.nodes[1].links.groups().heard, 1);
    town.nodes[1].links.peer_down(town.nodes[0].id);
    assert_eq!(town.nodes[1].links.groups().heard, 0);
}

#[test]
fn liars_are_named() {
    for seed in 0..60_u64 {
        let town = Town::new(3);
        let group = town.nodes[0].links.open_group("test", PATIENCE).unwrap();
        town.invite(group, 1..3);
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        };
        // Kernel 1 writes where it likes in the group's memory; which is the first that kernel 0 allocated.
        let memory = &town.machine.kernels[0].memory;
        for number in 0..300 {
            town.nodes[0].links.say(group, ObjectId::NONE, &Said { number }, b"").unwrap();
            if random() % 50 == 0 {
                let at = 8192 + (random() % 0x4000) as usize / 8 * 8;
                memory.store64(at, random());
            }
            town.settle();
        }
        town.machine.clock.fetch_add(LONG, Ordering::Relaxed);
        town.nodes[0].links.tick();
        town.settle();
        // Nobody panics; what kernel 2 heard was said, in order; and it is not blamed for what it did not do.
        let heard = town.ears[2].heard();
        assert!(heard.is_sorted() && heard.iter().all(|number| *number < 300), "seed {seed}: {heard:?}");
        let blamed = town.nodes[0].hooks.guilty.lock().unwrap();
        assert!(blamed.iter().all(|(_, guilt)| *guilt == Guilt::Group), "seed {seed}: {blamed:?}");
    }
}
