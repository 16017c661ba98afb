//! Membership with fence words: kernels join, die in the middle of anything, are stopped by who wins their word, and come again. Time stands still: who is silent is noticed at any moment, and what is said again
//! is said when nothing else can happen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::KernelId;
use membership::{Actions, Claim, Config, Event, Membership, Message, Outcome, Phase, View};
use stateright::{Model, Property};

use crate::pairs;

/// What a step leads to.
enum Effect {
    Send(KernelId, Message),
    Fence(KernelId),
    Down(KernelId),
    Prepare(u32),
    Install(View),
    Park,
}

struct Hands<'a> {
    words: &'a mut BTreeMap<KernelId, u64>,
    /// Whose words are out of reach.
    far: Vec<u16>,
    effects: Vec<Effect>,
}

impl Actions for Hands<'_> {
    fn send(&mut self, to: KernelId, message: Message) {
        self.effects.push(Effect::Send(to, message));
    }
    fn claim_fence(&mut self, victim: KernelId, expected: u64, claim: u64) -> Claim {
        if self.far.contains(&victim.index) {
            return Claim::Unreachable;
        }
        let word = self.words.entry(victim).or_default();
        let was = *word;
        if was == expected {
            *word = claim;
        }
        Claim::Was(was)
    }
    fn fence(&mut self, victim: KernelId) {
        self.effects.push(Effect::Fence(victim));
    }
    fn down(&mut self, victim: KernelId) {
        self.effects.push(Effect::Down(victim));
    }
    fn outlived(&mut self, _: KernelId) {}
    fn prepare(&mut self, view: &View, _: &[(KernelId, Outcome)]) {
        self.effects.push(Effect::Prepare(view.epoch));
    }
    fn install(&mut self, view: &View, _: &[(KernelId, Outcome)]) {
        self.effects.push(Effect::Install(view.clone()));
    }
    fn park(&mut self, _: &'static str) {
        self.effects.push(Effect::Park);
    }
    fn wake_at(&mut self, _: u64) {}
}

/// A kernel that runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kernel {
    membership: Membership,
    /// It has asked to be let in, or was the first.
    begun: bool,
    /// Views for which it lets go of something.
    preparing: BTreeSet<u32>,
    /// Whom it is stopping.
    fencing: BTreeSet<KernelId>,
}

/// Where a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    kernels: BTreeMap<KernelId, Kernel>,
    words: BTreeMap<KernelId, u64>,
    lanes: BTreeMap<(KernelId, KernelId), VecDeque<Message>>,
    dead: BTreeSet<KernelId>,
    /// Whose CPUs were stopped by somebody.
    stopped: BTreeSet<KernelId>,
    noticed: BTreeSet<(KernelId, KernelId)>,
    /// Who was in which view, as the first said that entered it.
    epochs: BTreeMap<u32, Vec<KernelId>>,
    /// The board of each kernel, if there are several.
    boards: Vec<usize>,
    crashes: u32,
    restarts: u32,
    wrong: Option<String>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A kernel asks to be let in.
    Enter(KernelId),
    /// The next message of a pair comes.
    Deliver(KernelId, KernelId),
    /// A kernel has let go of what a view excludes.
    Prepared(KernelId, u32),
    /// The first has stopped the second.
    Fenced(KernelId, KernelId),
    /// A kernel dies.
    Crash(KernelId),
    /// The first finds the second dead.
    Notice(KernelId, KernelId),
    /// A kernel that all have let go of is started again.
    Restart(KernelId),
    /// Nothing else can happen, and a kernel says again what it waits for.
    Tick(KernelId),
}

/// A machine to be checked.
pub struct Machine {
    /// How many kernels.
    pub kernels: u16,
    /// How many of them are members from the beginning.
    pub members: u16,
    /// How many may die.
    pub crashes: u32,
    /// How many of those may be started again.
    pub restarts: u32,
    /// Deaths are announced; else they are noticed by silence.
    pub announced: bool,
    /// The board of each kernel, which reaches the fence words of that board; empty: all are on one.
    pub boards: Vec<usize>,
}

/// Time, which stands still; what is said again may be said again at once.
const NOW: u64 = 1000;
const CONFIG: Config = Config { beat: 1 << 60, probe_gap: 1 << 60, probes: u32::MAX, silence: u64::MAX, again: 0 };

impl State {
    fn is_quiet(&self) -> bool {
        self.lanes.is_empty()
            && self.kernels.values().all(|k| k.begun && k.preparing.is_empty() && k.fencing.is_empty())
    }

    fn fail(&mut self, why: String) {
        self.wrong.get_or_insert(why);
    }

    fn step(&mut self, me: KernelId, event: Event) {
        let Some(kernel) = self.kernels.get_mut(&me) else { return };
        let own = self.boards.get(usize::from(me.index));
        let far =
            (0..self.boards.len()).filter(|index| self.boards.get(*index) != own).map(|index| index as u16).collect();
        let mut hands = Hands { words: &mut self.words, far, effects: Vec::new() };
        match &event {
            Event::Received { message, .. } => pairs::met("membership", kernel.membership.situation(), message),
            event => pairs::met("membership", kernel.membership.situation(), event),
        }
        kernel.membership.step(NOW, event, &mut hands);
        for effect in hands.effects {
            self.apply(me, effect);
        }
    }

    fn apply(&mut self, me: KernelId, effect: Effect) {
        match effect {
            Effect::Send(to, message) => {
                if self.kernels.contains_key(&to) {
                    self.lanes.entry((me, to)).or_default().push_back(message);
                }
            }
            Effect::Fence(victim) => {
                let other = self.kernels.iter().find(|(_, kernel)| kernel.fencing.contains(&victim));
                if let Some((other, _)) = other {
                    self.fail(format!("{me} and {other} both stop {victim}"));
                }
                if self.kernels.contains_key(&victim) {
                    self.fail(format!("{me} stops {victim}, which is well"));
                }
                if let Some(kernel) = self.kernels.get_mut(&me) {
                    kernel.fencing.insert(victim);
                }
            }
            Effect::Down(victim) => {
                // Of a board on which nobody lives it is enough that it said so.
                let outcome = self.kernels.get(&me).and_then(|kernel| kernel.membership.outcome(victim.index));
                if outcome == Some(Outcome::Fenced) && !self.stopped.contains(&victim) {
                    self.fail(format!("{me} holds {victim} for dead, which nobody has stopped"));
                }
            }
            Effect::Prepare(epoch) => {
                if let Some(kernel) = self.kernels.get_mut(&me) {
                    kernel.preparing.insert(epoch);
                }
            }
            Effect::Install(view) => {
                let known = self.epochs.entry(view.epoch).or_insert_with(|| view.members.clone());
                if *known != view.members {
                    let why = format!("view {} is {known:?} and {:?}", view.epoch, view.members);
                    self.fail(why);
                }
                if !view.contains(me) {
                    self.fail(format!("{me} enters {view}, which it is not in"));
                }
            }
            Effect::Park => self.fail(format!("{me} parks itself though there are fence words")),
        }
    }

    fn happen(&mut self, action: Action, announced: bool) {
        match action {
            Action::Enter(kernel) => {
                if let Some(kernel) = self.kernels.get_mut(&kernel) {
                    kernel.begun = true;
                }
                let contacts = self.kernels.keys().copied().filter(|other| *other != kernel).collect();
                self.step(kernel, Event::Enter { contacts });
            }
            Action::Deliver(from, to) => {
                let message = self.lanes.get_mut(&(from, to)).and_then(VecDeque::pop_front);
                self.lanes.retain(|_, lane| !lane.is_empty());
                if let Some(message) = message {
                    self.step(to, Event::Received { from, message });
                }
            }
            Action::Prepared(kernel, epoch) => {
                if let Some(kernel) = self.kernels.get_mut(&kernel) {
                    kernel.preparing.remove(&epoch);
                }
                self.step(kernel, Event::Prepared { epoch });
            }
            Action::Fenced(kernel, victim) => {
                if let Some(kernel) = self.kernels.get_mut(&kernel) {
                    kernel.fencing.remove(&victim);
                }
                self.stopped.insert(victim);
                self.step(kernel, Event::Fenced { victim, outcome: Outcome::Fenced });
            }
            Action::Crash(kernel) => {
                self.crashes -= 1;
                self.kernels.remove(&kernel);
                self.dead.insert(kernel);
                self.lanes.retain(|(_, to), _| *to != kernel);
                self.noticed.retain(|(who, _)| *who != kernel);
            }
            Action::Notice(kernel, dead) => {
                self.noticed.insert((kernel, dead));
                self.step(kernel, if announced { Event::Dying { peer: dead } } else { Event::Guilty { peer: dead } });
            }
            Action::Restart(old) => {
                self.restarts -= 1;
                let next = KernelId { index: old.index, incarnation: old.incarnation + 1 };
                let kernel = Kernel::new(next, self.boards.clone());
                self.kernels.insert(next, kernel);
            }
            Action::Tick(kernel) => self.step(kernel, Event::Tick),
        }
    }

    fn next(&self, actions: &mut Vec<Action>) {
        for (id, kernel) in &self.kernels {
            if !kernel.begun {
                actions.push(Action::Enter(*id));
            }
            actions.extend(kernel.preparing.iter().map(|epoch| Action::Prepared(*id, *epoch)));
            actions.extend(kernel.fencing.iter().map(|victim| Action::Fenced(*id, *victim)));
            // Who is in no view tells nobody, and is told what to know when it is let in.
            if kernel.membership.phase() == Phase::Member {
                let news = self
                    .dead
                    .iter()
                    .filter(|dead| !self.noticed.contains(&(*id, **dead)) && !kernel.membership.is_dead(**dead));
                actions.extend(news.map(|dead| Action::Notice(*id, *dead)));
            }
        }
        actions.extend(self.lanes.keys().map(|(from, to)| Action::Deliver(*from, *to)));
        if self.crashes > 0 && self.kernels.len() > 1 {
            // Somebody must be left who can let the others in.
            let members = self.kernels.values().filter(|k| k.membership.phase() == Phase::Member).count();
            let last = |kernel: &Kernel| members == 1 && kernel.membership.phase() == Phase::Member;
            actions.extend(self.kernels.iter().filter(|(_, kernel)| !last(kernel)).map(|(id, _)| Action::Crash(*id)));
        }
        if self.restarts > 0 {
            let let_go = |old: &KernelId| {
                self.kernels.values().any(|kernel| {
                    let membership = &kernel.membership;
                    membership.phase() == Phase::Member && membership.is_dead(*old) && !membership.view().contains(*old)
                })
            };
            let gone = self.dead.iter().filter(|old| {
                !self.kernels.keys().chain(&self.dead).any(|k| k.index == old.index && k.incarnation > old.incarnation)
            });
            actions.extend(gone.filter(|old| let_go(old)).map(|old| Action::Restart(*old)));
        }
        if self.is_quiet() {
            let ticked = |id: &KernelId| {
                let mut next = self.clone();
                next.step(*id, Event::Tick);
                next != *self
            };
            actions.extend(self.kernels.keys().filter(|id| ticked(id)).map(|id| Action::Tick(*id)));
        }
    }

    fn missing(&self) -> Option<String> {
        let all: Vec<KernelId> = self.kernels.keys().copied().collect();
        self.kernels.iter().find_map(|(id, kernel)| {
            let view = kernel.membership.view();
            (view.members != all).then(|| format!("{id} is in view {view}, but {all:?} live"))
        })
    }
}

impl Kernel {
    fn new(id: KernelId, boards: Vec<usize>) -> Self {
        Self {
            membership: Membership::new(id, CONFIG, boards),
            begun: false,
            preparing: BTreeSet::new(),
            fencing: BTreeSet::new(),
        }
    }
}

impl Model for Machine {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let ids = (0..self.kernels).map(|index| KernelId { index, incarnation: 1 });
        let mut state = State {
            kernels: ids.map(|id| (id, Kernel::new(id, self.boards.clone()))).collect(),
            words: BTreeMap::new(),
            lanes: BTreeMap::new(),
            dead: BTreeSet::new(),
            stopped: BTreeSet::new(),
            noticed: BTreeSet::new(),
            epochs: BTreeMap::new(),
            boards: self.boards.clone(),
            crashes: 0,
            restarts: 0,
            wrong: None,
        };
        let first = KernelId { index: 0, incarnation: 1 };
        if let Some(kernel) = state.kernels.get_mut(&first) {
            kernel.begun = true;
        }
        state.step(first, Event::Found);
        // Those that are members from the beginning come in one after the other.
        for index in 1..self.members {
            state.happen(Action::Enter(KernelId { index, incarnation: 1 }), true);
            let mut actions = Vec::new();
            loop {
                actions.clear();
                state.next(&mut actions);
                let begun = |action: &&Action| !matches!(action, Action::Enter(_) | Action::Tick(_));
                let Some(action) = actions.iter().find(begun).copied() else { break };
                state.happen(action, true);
            }
        }
        (state.crashes, state.restarts) = (self.crashes, self.restarts);
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong.is_none() {
            state.next(actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        next.happen(action, self.announced);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing is wrong", |_: &Self, state: &State| state.wrong.is_none()),
            Property::always("in the end all who live are in one view", |_: &Self, state: &State| {
                let mut actions = Vec::new();
                state.next(&mut actions);
                // That a kernel may still die, or be started again, is no duty.
                actions.retain(|action| !matches!(action, Action::Crash(_) | Action::Restart(_)));
                !actions.is_empty() || state.missing().is_none()
            }),
        ]
    }
}

/// What is wrong with the last state of a way that was found.
pub fn why(state: &State) -> String {
    state.wrong.clone().or_else(|| state.missing()).unwrap_or_default()
}

/// The machines of a change, or of a long run.
pub fn machines(large: bool) -> Vec<(String, Machine)> {
    type Shape = (u16, u16, u32, u32, &'static [usize]);
    // Kernels, members, deaths, those that are started again, boards.
    const SMALL: [Shape; 7] = [
        (3, 1, 1, 0, &[]),
        (3, 2, 1, 0, &[]),
        (3, 3, 1, 1, &[]),
        (3, 3, 2, 0, &[]),
        (3, 3, 2, 1, &[]),
        (3, 1, 1, 1, &[]),
        (4, 4, 1, 0, &[0, 1, 0, 1]),
    ];
    // A whole board dies: that it was silent would be for a majority to say.
    const BOARD: Shape = (3, 3, 2, 0, &[0, 1, 1]);
    const LARGE: [Shape; 2] = [(4, 4, 1, 0, &[]), (4, 4, 2, 0, &[])];
    let mut all = Vec::new();
    for announced in [true, false] {
        let shapes = SMALL.into_iter().chain(announced.then_some(BOARD)).chain(LARGE.into_iter().filter(|_| large));
        for (kernels, members, crashes, restarts, boards) in shapes {
            let how = if announced { "announced" } else { "silent" };
            let place = if boards.is_empty() { String::new() } else { format!(" on boards {boards:?}") };
            let what =
                format!("{kernels} kernels{place}, {members} in, {crashes} {how} deaths, {restarts} of them again");
            let boards = boards.to_vec();
            all.push((what, Machine { kernels, members, crashes, restarts, announced, boards }));
        }
    }
    all
}
