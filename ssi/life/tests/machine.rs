//! Lives of kernels on machines that are played: messages arrive in any order between lanes of different pairs, kernels die between any two steps, and a
//! membership that is right by construction says who is there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{Errno, KernelId};
use life::{Actions, Config, Event, Life, Message, Phase, Seat, What};
use proptest::prelude::{any, prop_assert, proptest};

const fn id(index: u16, incarnation: u32) -> KernelId {
    KernelId { index, incarnation }
}

const PATIENCE: u64 = 1000;

#[derive(Default)]
struct Hands {
    sent: Vec<(KernelId, Message)>,
    loads: Vec<KernelId>,
    aborts: Vec<KernelId>,
    winds: bool,
    done: Vec<(u64, Result<(), Errno>)>,
    written: BTreeMap<u16, u32>,
    barred: Vec<KernelId>,
}

impl Actions for Hands {
    fn send(&mut self, to: KernelId, message: Message) {
        self.sent.push((to, message));
    }
    fn load(&mut self, kernel: KernelId) {
        self.loads.push(kernel);
    }
    fn abort(&mut self, kernel: KernelId) {
        self.aborts.push(kernel);
    }
    fn wind_down(&mut self) {
        self.winds = true;
    }
    fn done(&mut self, ticket: u64, result: Result<(), Errno>) {
        self.done.push((ticket, result));
    }
    fn bar(&mut self, kernel: KernelId) {
        self.barred.push(kernel);
    }
    fn written(&mut self, index: u16) -> u32 {
        self.written.get(&index).copied().unwrap_or(0)
    }
}

/// The machine: who runs, what is on its way, what was ordered.
struct World {
    seats: Vec<Seat>,
    now: u64,
    nodes: BTreeMap<KernelId, Life>,
    epoch: u32,
    /// The members of the newest view.
    members: BTreeSet<KernelId>,
    lanes: BTreeMap<(KernelId, KernelId), VecDeque<Message>>,
    /// Loads that were begun: who loads whom.
    loading: Vec<(KernelId, KernelId)>,
    /// Who stops in good order.
    winding: BTreeSet<KernelId>,
    /// Every incarnation that ever was started.
    started: BTreeSet<KernelId>,
    /// The CPUs of an index run this.
    running: BTreeMap<u16, KernelId>,
    ended: BTreeMap<u64, Result<(), Errno>>,
    /// Who is about to let no earlier incarnation in.
    barring: Vec<(KernelId, KernelId)>,
    /// The least incarnation of an index that a kernel lets in.
    barred: BTreeMap<(KernelId, u16), u32>,
    wrong: Option<String>,
}

impl World {
    fn new(boards: &[u16], up: &[u16]) -> Self {
        Self::with_switches(boards, &[], up)
    }

    /// A machine whose boards begin anew with those that are `switched`.
    fn with_switches(boards: &[u16], switched: &[u16], up: &[u16]) -> Self {
        let seat = |(index, board): (usize, &u16)| Seat { board: *board, switched: switched.contains(&(index as u16)) };
        let mut world = Self {
            seats: boards.iter().enumerate().map(seat).collect(),
            now: 0,
            nodes: BTreeMap::new(),
            epoch: 0,
            members: BTreeSet::new(),
            lanes: BTreeMap::new(),
            loading: Vec::new(),
            winding: BTreeSet::new(),
            started: BTreeSet::new(),
            running: BTreeMap::new(),
            ended: BTreeMap::new(),
            barring: Vec::new(),
            barred: BTreeMap::new(),
            wrong: None,
        };
        for index in up {
            world.born(id(*index, 1));
        }
        world.members = world.nodes.keys().copied().collect();
        world.view();
        world
    }

    fn born(&mut self, kernel: KernelId) {
        self.nodes.insert(kernel, Life::new(kernel, self.seats.clone(), Config { patience: PATIENCE }));
        self.started.insert(kernel);
        self.running.insert(kernel.index, kernel);
    }

    fn step(&mut self, me: KernelId, event: Event) {
        let Some(node) = self.nodes.get_mut(&me) else { return };
        let written = self.started.iter().map(|k| (k.index, k.incarnation)).collect();
        let mut hands = Hands { written, ..Hands::default() };
        node.step(self.now, event, &mut hands);
        for (to, message) in hands.sent {
            self.lanes.entry((me, to)).or_default().push_back(message);
        }
        for kernel in hands.barred {
            self.barring.push((me, kernel));
        }
        for kernel in hands.loads {
            self.loading.push((me, kernel));
        }
        for kernel in hands.aborts {
            self.running.retain(|_, runs| *runs != kernel);
        }
        if hands.winds {
            self.winding.insert(me);
        }
        for (ticket, result) in hands.done {
            if self.ended.insert(ticket, result).is_some() {
                self.wrong = Some(format!("order {ticket} ended twice"));
            }
        }
    }

    /// All members enter the next view.
    fn view(&mut self) {
        self.epoch += 1;
        let members: Vec<KernelId> = self.members.iter().copied().collect();
        for member in members.clone() {
            self.step(member, Event::View { epoch: self.epoch, members: members.clone() });
        }
    }

    fn die(&mut self, kernel: KernelId, orderly: bool) {
        self.end(kernel, orderly, false);
    }

    fn end(&mut self, kernel: KernelId, orderly: bool, lost: bool) {
        self.nodes.remove(&kernel);
        self.running.retain(|_, runs| *runs != kernel);
        self.lanes.retain(|(from, to), _| *from != kernel && *to != kernel);
        self.loading.retain(|(by, _)| *by != kernel);
        self.barring.retain(|(by, _)| *by != kernel);
        let was = self.members.remove(&kernel);
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.step(node, Event::Down { kernel, orderly, lost });
        }
        if was {
            self.view();
        }
    }

    /// The membership lets in who runs.
    fn join(&mut self, kernel: KernelId) {
        let lets = |member: &KernelId| {
            self.barred.get(&(*member, kernel.index)).is_none_or(|least| *least <= kernel.incarnation)
        };
        let taken = self.members.iter().any(|k| k.index == kernel.index);
        let may = !taken && self.members.iter().all(lets);
        if !may {
            // It is refused, and stops.
            self.die(kernel, false);
        } else if self.running.get(&kernel.index) == Some(&kernel) {
            self.members.insert(kernel);
            self.view();
        }
    }

    /// Does one of the things that can happen now; `false` if there is none.
    fn turn(&mut self, chance: usize) -> bool {
        let busy: Vec<_> = self.lanes.iter().filter(|(_, lane)| !lane.is_empty()).map(|(pair, _)| *pair).collect();
        let outside: Vec<KernelId> = self.running.values().copied().filter(|k| !self.members.contains(k)).collect();
        let winding: Vec<KernelId> = self.winding.iter().copied().collect();
        let all = busy.len() + self.barring.len() + self.loading.len() + outside.len() + winding.len();
        if all == 0 {
            return false;
        }
        let mut pick = chance % all;
        if pick < self.barring.len() {
            let (me, kernel) = self.barring.remove(pick);
            let barred = !self.members.iter().any(|k| k.index == kernel.index);
            if barred {
                self.barred.insert((me, kernel.index), kernel.incarnation);
            }
            self.step(me, Event::Barred { kernel, barred });
            return true;
        }
        pick -= self.barring.len();
        if let Some(&(from, to)) = busy.get(pick) {
            if let Some(message) = self.lanes.get_mut(&(from, to)).and_then(VecDeque::pop_front) {
                self.step(to, Event::Received { from, message });
            }
            return true;
        }
        pick -= busy.len();
        if pick < self.loading.len() {
            let (by, kernel) = self.loading.remove(pick);
            self.load(by, kernel);
            return true;
        }
        pick -= self.loading.len();
        if let Some(&kernel) = outside.get(pick) {
            self.join(kernel);
            return true;
        }
        let kernel = winding[pick - outside.len()];
        self.winding.remove(&kernel);
        self.die(kernel, true);
        true
    }

    /// The CPUs of the index are stopped, then this incarnation runs.
    fn load(&mut self, by: KernelId, kernel: KernelId) {
        let [from, to] = [by, kernel].map(|k| self.seats[usize::from(k.index)]);
        if from.board != to.board {
            if !to.switched {
                self.wrong = Some(format!("{by} starts {kernel}, which it does not reach"));
            }
            // All of its board go, whether or not they were let in while it was switched off.
            let gone = self.running.values().filter(|k| self.seats[usize::from(k.index)].board == to.board);
            for gone in gone.copied().collect::<Vec<_>>() {
                self.die(gone, false);
            }
        }
        if let Some(member) = self.members.iter().find(|k| k.index == kernel.index) {
            self.wrong = Some(format!("{by} starts {kernel} over {member}, a member"));
        }
        if self.loading.iter().any(|(_, other)| other.index == kernel.index) {
            self.wrong = Some(format!("two start index {}", kernel.index));
        }
        if self.started.iter().any(|k| k.index == kernel.index && k.incarnation >= kernel.incarnation) {
            self.wrong = Some(format!("{kernel} was started before"));
        }
        self.born(kernel);
        self.step(by, Event::Loaded { kernel, result: Ok(()) });
    }

    fn settle(&mut self, mut chance: impl FnMut() -> usize) {
        for _ in 0..100_000 {
            if !self.turn(chance()) {
                return;
            }
        }
        self.wrong = Some("it does not come to rest".into());
    }

    fn order(&mut self, at: KernelId, ticket: u64, index: u16, what: What) {
        self.step(at, Event::Order { ticket, index, what });
    }
}

fn quiet(world: &mut World) {
    world.settle(|| 0);
    assert_eq!(world.wrong, None);
}

/// Goes on until somebody loads an image.
fn load(world: &mut World) -> (KernelId, KernelId) {
    while world.loading.is_empty() {
        assert!(world.turn(0), "nobody loads");
    }
    world.loading.remove(0)
}

#[test]
fn a_kernel_is_booted_stopped_and_booted_again() {
    let mut world = World::new(&[0, 0, 0], &[0, 1]);
    let (a, b) = (id(0, 1), id(1, 1));
    world.order(b, 1, 2, What::Boot);
    quiet(&mut world);
    assert_eq!(world.ended.get(&1), Some(&Ok(())));
    assert!(world.members.contains(&id(2, 1)));
    world.order(a, 2, 2, What::Boot);
    assert_eq!(world.ended.get(&2), Some(&Err(Errno::EBUSY)), "it is up");
    world.order(a, 3, 2, What::Stop);
    quiet(&mut world);
    assert_eq!(world.ended.get(&3), Some(&Ok(())));
    assert_eq!(world.nodes[&b].row(2).map(|row| row.phase), Some(Phase::Off));
    world.order(b, 4, 2, What::Stop);
    assert_eq!(world.ended.get(&4), Some(&Err(Errno::EALREADY)));
    world.order(id(0, 1), 5, 2, What::Boot);
    quiet(&mut world);
    assert!(world.members.contains(&id(2, 2)), "a new incarnation");
}

#[test]
fn of_two_that_ask_one_starts_it() {
    for chances in [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [7, 1, 9, 3, 8, 2]] {
        let mut world = World::new(&[0, 0, 0], &[0, 1]);
        world.order(id(0, 1), 1, 2, What::Boot);
        world.order(id(1, 1), 2, 2, What::Boot);
        let mut chances = chances.into_iter().cycle();
        world.settle(|| chances.next().unwrap_or(0));
        assert_eq!(world.wrong, None);
        let mut ends: Vec<_> = world.ended.values().copied().collect();
        ends.sort_by_key(Result::is_err);
        assert_eq!(ends, [Ok(()), Err(Errno::EBUSY)]);
    }
}

#[test]
fn two_that_stop_each_other_do_not_both_go() {
    let mut world = World::new(&[0, 0], &[0, 1]);
    world.order(id(0, 1), 1, 1, What::Stop);
    world.order(id(1, 1), 2, 0, What::Stop);
    quiet(&mut world);
    assert_eq!(world.members.len(), 1);
    let mut world = World::new(&[0], &[0]);
    world.order(id(0, 1), 1, 0, What::Stop);
    assert_eq!(world.ended.get(&1), Some(&Err(Errno::EBUSY)), "the last one stays");
}

#[test]
fn one_that_does_not_come_up_is_stopped_and_may_be_booted_again() {
    let mut world = World::new(&[0, 0], &[0]);
    let a = id(0, 1);
    world.order(a, 1, 1, What::Boot);
    let (by, kernel) = load(&mut world);
    world.load(by, kernel);
    world.now = PATIENCE + 1;
    world.step(a, Event::Tick);
    assert_eq!(world.ended.get(&1), Some(&Err(Errno::ETIMEDOUT)));
    assert!(!world.running.contains_key(&1), "its CPUs were stopped");
    world.order(a, 2, 1, What::Boot);
    quiet(&mut world);
    assert_eq!(world.ended.get(&2), Some(&Ok(())));
    assert!(world.members.contains(&id(1, 2)));
    // One that panics before it joined.
    world.order(a, 3, 1, What::Stop);
    quiet(&mut world);
    world.order(a, 4, 1, What::Boot);
    let (by, kernel) = load(&mut world);
    world.load(by, kernel);
    world.die(kernel, false);
    assert_eq!(world.ended.get(&4), Some(&Err(Errno::ETIMEDOUT)));
}

#[test]
fn who_cannot_reach_it_asks_somebody_who_can() {
    let mut world = World::new(&[0, 1, 1], &[0, 1]);
    world.order(id(0, 1), 1, 2, What::Boot);
    quiet(&mut world);
    assert_eq!(world.ended.get(&1), Some(&Ok(())));
    assert!(world.members.contains(&id(2, 1)));
    let mut world = World::new(&[0, 0, 1], &[0, 1]);
    world.order(id(0, 1), 1, 2, What::Boot);
    assert_eq!(world.ended.get(&1), Some(&Err(Errno::ENODEV)));
}

#[test]
fn a_board_begins_anew_when_nobody_lives_there() {
    let (a, b, c) = (id(0, 1), id(1, 1), id(2, 1));
    let mut world = World::with_switches(&[0, 1, 1], &[1], &[0, 1, 2]);
    world.die(b, false);
    // Another one of its board starts it, which goes on.
    world.order(a, 1, 1, What::Boot);
    quiet(&mut world);
    assert_eq!(world.ended.get(&1), Some(&Ok(())));
    assert!(world.members.contains(&id(1, 2)) && world.members.contains(&c));
    world.die(id(1, 2), false);
    world.die(c, false);
    world.order(a, 2, 2, What::Boot);
    assert_eq!(world.ended.get(&2), Some(&Err(Errno::ENODEV)), "firmware does not start that one");
    world.order(a, 3, 1, What::Boot);
    world.order(a, 4, 2, What::Boot);
    quiet(&mut world);
    assert!(world.members.contains(&id(1, 3)), "the board begins with that one");
    world.order(a, 5, 2, What::Boot);
    quiet(&mut world);
    assert!(world.members.contains(&id(2, 2)), "and that starts the other");
    // One that nobody could stop stands still when its board begins anew.
    let mut world = World::with_switches(&[0, 1, 1], &[1], &[0, 1, 2]);
    world.end(b, false, true);
    world.end(c, false, true);
    world.order(a, 1, 2, What::Boot);
    assert_eq!(world.ended.get(&1), Some(&Err(Errno::EBUSY)), "it may be at work");
    world.order(a, 2, 1, What::Boot);
    quiet(&mut world);
    world.order(a, 3, 2, What::Boot);
    quiet(&mut world);
    assert!(world.members.contains(&id(1, 2)) && world.members.contains(&id(2, 2)));
    // One that comes up while the board is about to be switched on is not taken along.
    let mut world = World::with_switches(&[0, 1, 1], &[1], &[0]);
    world.order(a, 1, 1, What::Boot);
    world.born(id(2, 1));
    world.members.insert(id(2, 1));
    world.view();
    quiet(&mut world);
    assert!(world.members.contains(&id(2, 1)), "it lives");
}

#[test]
fn a_plan_is_a_tree_of_starts_and_a_dead_starter_leaves_nobody_waiting() {
    let mut world = World::new(&[0, 0, 0, 0], &[]);
    let plan = [(id(1, 1), id(0, 1)), (id(2, 1), id(1, 1)), (id(3, 1), id(2, 1))];
    let begin = |world: &mut World, me: KernelId| {
        for (kernel, by) in plan {
            world.step(me, Event::Planned { kernel, by });
        }
    };
    world.born(id(0, 1));
    world.members.insert(id(0, 1));
    world.view();
    begin(&mut world, id(0, 1));
    assert_eq!(world.nodes[&id(0, 1)].row(3).map(|row| row.phase), Some(Phase::Booting), "its starter is on its way");
    let (by, kernel) = world.loading.pop().expect("it loads");
    world.load(by, kernel);
    begin(&mut world, kernel);
    world.join(kernel);
    assert_eq!(world.loading, [(id(1, 1), id(2, 1))]);
    world.die(id(1, 1), false);
    for index in [2, 3] {
        assert_eq!(world.nodes[&id(0, 1)].row(index).map(|row| row.phase), Some(Phase::Failed));
    }
    world.order(id(0, 1), 1, 2, What::Boot);
    quiet(&mut world);
    assert!(world.members.contains(&id(2, 2)), "the first incarnation is used up");
    assert_eq!(world.nodes[&id(0, 1)].next(), None, "nothing is left that would wake an idle kernel");
}

#[test]
fn what_peers_tell_of_the_plan_does_not_stop_its_starter() {
    let mut world = World::new(&[0, 0, 0], &[]);
    let plan = [(id(1, 1), id(0, 1)), (id(2, 1), id(1, 1))];
    world.born(id(0, 1));
    world.members.insert(id(0, 1));
    world.view();
    for (kernel, by) in plan {
        world.step(id(0, 1), Event::Planned { kernel, by });
    }
    let (by, kernel) = world.loading.pop().expect("it loads");
    world.load(by, kernel);
    // It is a member, and hears of the plan, before it reads its own.
    world.join(kernel);
    quiet(&mut world);
    assert_eq!(world.nodes[&kernel].row(2).map(|row| row.by), Some(Some(kernel)), "it has heard");
    for _ in 0..2 {
        for (kernel, by) in plan {
            world.step(id(1, 1), Event::Planned { kernel, by });
        }
        assert_eq!(world.loading, [(id(1, 1), id(2, 1))], "it is started once");
    }
}

proptest! {
    /// Whatever is ordered and whoever dies: nobody is started over a member, no incarnation twice, never two at one index, and every order of a
    /// kernel that lives ends.
    #[test]
    fn nobody_is_started_twice(
        two_boards in any::<bool>(),
        switched in any::<bool>(),
        acts in proptest::collection::vec((0u8..12, any::<u16>(), any::<u16>(), any::<usize>()), 1..120),
    ) {
        let boards: &[u16] = if two_boards { &[0, 0, 0, 1, 1] } else { &[0; 5] };
        let mut world = World::with_switches(boards, if switched { &[3] } else { &[] }, &[0, 1, 3]);
        let mut asked: BTreeMap<u64, KernelId> = BTreeMap::new();
        let mut chance = 0usize;
        for (n, (act, who, whom, luck)) in acts.iter().enumerate() {
            let nodes: Vec<KernelId> = world.nodes.keys().copied().filter(|k| world.members.contains(k)).collect();
            // One dies while the last other one stops.
            let Some(at) = nodes.get(usize::from(*who) % nodes.len().max(1)).copied() else { break };
            match act {
                0 | 1 => {
                    asked.insert(n as u64, at);
                    world.order(at, n as u64, whom % 5, What::Boot);
                }
                2 => {
                    asked.insert(n as u64, at);
                    world.order(at, n as u64, whom % 5, What::Stop);
                }
                3 if nodes.len() > 1 => {
                    asked.retain(|_, k| *k != at);
                    world.die(at, false);
                }
                4 => {
                    // Somebody who was not let in yet.
                    let outside = world.nodes.keys().copied().find(|k| !world.members.contains(k));
                    if let Some(kernel) = outside {
                        world.die(kernel, false);
                    }
                }
                5 => {
                    world.now += PATIENCE / 2;
                    for node in nodes {
                        world.step(node, Event::Tick);
                    }
                }
                _ => {
                    world.turn(*luck);
                }
            }
            chance = chance.wrapping_mul(31).wrapping_add(*luck);
            prop_assert!(world.wrong.is_none(), "{:?}", world.wrong);
        }
        for _ in 0..4 {
            world.settle(|| {
                chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                chance >> 33
            });
            world.now += PATIENCE + 1;
            for node in world.nodes.keys().copied().collect::<Vec<_>>() {
                world.step(node, Event::Tick);
            }
        }
        prop_assert!(world.wrong.is_none(), "{:?}", world.wrong);
        for (ticket, at) in asked {
            let alive = world.nodes.contains_key(&at);
            prop_assert!(!alive || world.ended.contains_key(&ticket), "order {ticket} of {at} hangs: {:?}", world.nodes.get(&at));
        }
    }
}
