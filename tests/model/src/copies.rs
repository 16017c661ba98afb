//! A page between kernels that do not see each other's memory: whoever reads it reads what was written last, wherever that was.

use std::collections::{BTreeMap, VecDeque};

use base::{KernelId, ObjectId};
use memory::copies::{Act, Answer, Borrowed, Copies, Place, Want};
use stateright::{Model, Property};

const HOME: KernelId = KernelId { index: 0, incarnation: 1 };
const PAGE: Place = (ObjectId { birth: HOME, serial: 1 }, 0);

/// What kernels send each other. Wishes and recalls go on one lane, the rest on another: they overtake each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Message {
    Ask { write: bool },
    Recall { serial: u64, keep: bool },
    Grant { serial: u64, write: bool, value: u8 },
    Answered { serial: u64, value: Option<u8>, keeps: bool },
    GaveBack { serial: u64, value: Option<u8> },
}

impl Message {
    const fn lane(&self) -> u8 {
        matches!(self, Self::Ask { .. } | Self::Recall { .. }) as u8
    }
}

/// A kernel that has no frame of the page but what it is lent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Holder {
    borrowed: Borrowed,
    value: u8,
    /// An access waits for the page: whether it writes.
    waits: Option<bool>,
}

/// What the home's own page tables allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mapped {
    No,
    Read,
    Write,
}

/// Where a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    lender: Copies,
    frame: u8,
    mapped: Mapped,
    unmapping: bool,
    home_waits: Option<bool>,
    holders: BTreeMap<KernelId, Holder>,
    lanes: BTreeMap<(KernelId, KernelId, u8), VecDeque<Message>>,
    /// What each kernel is still going to do: whether it writes.
    wishes: BTreeMap<KernelId, VecDeque<bool>>,
    /// What was written last.
    truth: u8,
    releases: u32,
    crashes: u32,
    wrong: Option<String>,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A program on a kernel reads or writes.
    Touch(KernelId),
    /// The next message of a lane comes.
    Deliver(KernelId, KernelId, u8),
    /// The home's CPUs do not reach the page any more.
    Unmapped,
    /// The last mapping of a holder is gone.
    Release(KernelId),
    /// A holder dies, and everybody knows.
    Crash(KernelId),
}

/// A machine to be checked.
pub struct Machine {
    /// Holders, besides the home.
    pub holders: u16,
    /// What each kernel does, the home first: whether it writes.
    pub wishes: Vec<Vec<bool>>,
    /// How often somebody lets go by itself.
    pub releases: u32,
    /// How many holders may die.
    pub crashes: u32,
}

impl State {
    fn fail(&mut self, why: String) {
        self.wrong.get_or_insert(why);
    }

    fn send(&mut self, from: KernelId, to: KernelId, message: Message) {
        if to == HOME || self.holders.contains_key(&to) {
            self.lanes.entry((from, to, message.lane())).or_default().push_back(message);
        }
    }

    /// An access happens.
    fn access(&mut self, kernel: KernelId, write: bool) {
        let value = self.holders.get(&kernel).map_or(self.frame, |holder| holder.value);
        if value != self.truth {
            self.fail(format!("{kernel} sees {value}, but {} was written", self.truth));
        }
        if !write {
            return;
        }
        self.truth += 1;
        match self.holders.get_mut(&kernel) {
            Some(holder) => holder.value = self.truth,
            None => self.frame = self.truth,
        }
    }

    fn act(&mut self, acts: Vec<Act>) {
        for act in acts {
            match act {
                Act::Recall { to, serial, keep, .. } => self.send(HOME, to, Message::Recall { serial, keep }),
                Act::Unmap(_) => self.unmapping = true,
                Act::Grant { to, serial, write, .. } => {
                    self.send(HOME, to, Message::Grant { serial, write, value: self.frame });
                }
                Act::Let(_) => {
                    if let Some(write) = self.home_waits.take() {
                        self.mapped = if write { Mapped::Write } else { Mapped::Read };
                        self.access(HOME, write);
                    }
                }
                Act::Refuse(_) => self.fail("nothing was cut off".into()),
            }
        }
    }

    fn touch(&mut self, kernel: KernelId) {
        let wish = self.wishes.get_mut(&kernel).and_then(VecDeque::pop_front);
        self.wishes.retain(|_, wishes| !wishes.is_empty());
        let Some(write) = wish else { return };
        if kernel == HOME {
            let good = self.mapped == Mapped::Write || self.mapped == Mapped::Read && !write;
            if good || self.lender.is_free(PAGE, write) {
                // A page that nobody has may be written from now on without a word.
                if !good {
                    self.mapped = if self.lender.is_free(PAGE, true) { Mapped::Write } else { Mapped::Read };
                }
                return self.access(HOME, write);
            }
            self.home_waits = Some(write);
            let mut acts = Vec::new();
            self.lender.want(PAGE, Want { peer: None, ticket: 1, write }, &mut acts);
            return self.act(acts);
        }
        let Some(holder) = self.holders.get_mut(&kernel) else { return };
        if holder.borrowed.is_good(write) {
            return self.access(kernel, write);
        }
        holder.waits = Some(write);
        if holder.borrowed.ask() {
            self.send(kernel, HOME, Message::Ask { write });
        }
    }

    fn answer(&mut self, kernel: KernelId, answer: Answer) {
        let Answer::Back { serial, written, keeps } = answer else { return };
        let value = self.holders.get(&kernel).filter(|_| written).map(|holder| holder.value);
        self.send(kernel, HOME, Message::Answered { serial, value, keeps });
    }

    fn receive(&mut self, from: KernelId, to: KernelId, message: Message) {
        let mut acts = Vec::new();
        match message {
            Message::Ask { write } => {
                self.lender.want(PAGE, Want { peer: Some(from), ticket: 1, write }, &mut acts);
            }
            Message::Answered { serial, value, keeps } => {
                if let Some(value) = value.filter(|_| self.lender.is_writer(PAGE, from, serial)) {
                    self.frame = value;
                }
                self.lender.returned(PAGE, from, serial, keeps, &mut acts);
            }
            Message::GaveBack { serial, value } => {
                if let Some(value) = value.filter(|_| self.lender.is_writer(PAGE, from, serial)) {
                    self.frame = value;
                }
                self.lender.gave_back(PAGE, from, serial);
            }
            Message::Grant { serial, write, value } => {
                let Some(holder) = self.holders.get_mut(&to) else { return };
                holder.borrowed.granted(serial, write);
                holder.value = value;
                if let Some(wants) = holder.waits.take() {
                    self.access(to, wants);
                }
                let answer = self.holders.get_mut(&to).and_then(|holder| holder.borrowed.used());
                if let Some(answer) = answer {
                    self.answer(to, answer);
                }
            }
            Message::Recall { serial, keep } => {
                let answer = self.holders.get_mut(&to).map(|holder| holder.borrowed.recalled(serial, keep));
                if let Some(answer) = answer {
                    self.answer(to, answer);
                }
            }
        }
        self.act(acts);
    }

    fn happen(&mut self, action: Action) {
        match action {
            Action::Touch(kernel) => self.touch(kernel),
            Action::Deliver(from, to, lane) => {
                let message = self.lanes.get_mut(&(from, to, lane)).and_then(VecDeque::pop_front);
                self.lanes.retain(|_, lane| !lane.is_empty());
                if let Some(message) = message {
                    self.receive(from, to, message);
                }
            }
            Action::Unmapped => {
                (self.unmapping, self.mapped) = (false, Mapped::No);
                let mut acts = Vec::new();
                self.lender.unmapped(PAGE, &mut acts);
                self.act(acts);
            }
            Action::Release(kernel) => {
                self.releases -= 1;
                let Some(holder) = self.holders.get_mut(&kernel) else { return };
                let value = holder.value;
                if let Some((serial, written)) = holder.borrowed.give_back() {
                    self.send(kernel, HOME, Message::GaveBack { serial, value: written.then_some(value) });
                }
            }
            Action::Crash(kernel) => {
                self.crashes -= 1;
                self.holders.remove(&kernel);
                self.wishes.remove(&kernel);
                self.lanes.retain(|(from, to, _), _| *from != kernel && *to != kernel);
                let mut acts = Vec::new();
                if !self.lender.down(kernel, &mut acts).is_empty() {
                    // What it wrote is lost: the page is as it was lent.
                    self.truth = self.frame;
                }
                self.act(acts);
            }
        }
        self.look();
    }

    /// One writer, or readers.
    fn look(&mut self) {
        let writes = self.holders.values().filter(|holder| holder.borrowed.is_good(true)).count();
        let reads = self.holders.values().filter(|holder| holder.borrowed.is_good(false)).count();
        let alone = match self.mapped {
            Mapped::No => writes == 0 || reads == 1,
            Mapped::Read => writes == 0,
            Mapped::Write => reads == 0,
        };
        if !alone {
            self.fail(format!("{writes} may write and {reads} may read, the home {:?}", self.mapped));
        }
    }

    fn next(&self, actions: &mut Vec<Action>) {
        let waits = |kernel: &KernelId| match self.holders.get(kernel) {
            Some(holder) => holder.waits.is_some(),
            None => self.home_waits.is_some(),
        };
        actions.extend(self.wishes.keys().filter(|kernel| !waits(kernel)).map(|kernel| Action::Touch(*kernel)));
        actions.extend(self.lanes.keys().map(|(from, to, lane)| Action::Deliver(*from, *to, *lane)));
        if self.unmapping {
            actions.push(Action::Unmapped);
        }
        if self.releases > 0 {
            let idle = self.holders.iter().filter(|(_, h)| h.waits.is_none() && h.borrowed.is_good(false));
            actions.extend(idle.map(|(kernel, _)| Action::Release(*kernel)));
        }
        if self.crashes > 0 {
            actions.extend(self.holders.keys().map(|kernel| Action::Crash(*kernel)));
        }
    }

    fn missing(&self) -> Option<String> {
        let waits = self.holders.iter().find(|(_, holder)| holder.waits.is_some()).map(|(kernel, _)| *kernel);
        waits.or(self.home_waits.map(|_| HOME)).map(|kernel| format!("{kernel} waits for ever"))
    }
}

impl Model for Machine {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let kernel = |index: usize| KernelId { index: index as u16, incarnation: 1 };
        let holder = |index| (kernel(index), Holder { borrowed: Borrowed::default(), value: 0, waits: None });
        vec![State {
            lender: Copies::default(),
            frame: 0,
            mapped: Mapped::Write,
            unmapping: false,
            home_waits: None,
            holders: (1..=usize::from(self.holders)).map(holder).collect(),
            lanes: BTreeMap::new(),
            wishes: self
                .wishes
                .iter()
                .enumerate()
                .map(|(index, wishes)| (kernel(index), wishes.iter().copied().collect()))
                .collect(),
            truth: 0,
            releases: self.releases,
            crashes: self.crashes,
            wrong: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.wrong.is_none() {
            state.next(actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        next.happen(action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing is wrong", |_: &Self, state: &State| state.wrong.is_none()),
            Property::always("everybody gets the page", |_: &Self, state: &State| {
                let mut actions = Vec::new();
                state.next(&mut actions);
                actions.retain(|action| !matches!(action, Action::Crash(_) | Action::Release(_)));
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
    const R: bool = false;
    const W: bool = true;
    let all: &[(u16, &[&[bool]], u32, u32)] = &[
        (1, &[&[W, R, W], &[R, W, R]], 1, 0),
        (2, &[&[W, R], &[W, R], &[R, W]], 0, 1),
        (2, &[&[W], &[R, W], &[W, R]], 2, 0),
        (2, &[&[], &[W, W], &[W, W]], 1, 1),
        (2, &[&[R, W], &[R, W], &[W, W]], 1, 1),
        (3, &[&[W], &[W], &[R, W], &[R]], 1, 1),
        (2, &[&[W, R, W], &[W, R, W], &[R, W, R]], 1, 1),
    ];
    let shapes = all.iter().take(if large { all.len() } else { 5 });
    let machine = |(holders, wishes, releases, crashes): &(u16, &[&[bool]], u32, u32)| {
        let what = format!(
            "a home and {holders} holders, {} accesses, {releases} let go, {crashes} die",
            wishes.iter().map(|w| w.len()).sum::<usize>()
        );
        let wishes = wishes.iter().map(|wishes| wishes.to_vec()).collect();
        (what, Machine { holders: *holders, wishes, releases: *releases, crashes: *crashes })
    };
    shapes.map(machine).collect()
}
