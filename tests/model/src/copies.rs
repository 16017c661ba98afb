//! A page between kernels that do not see each other's memory: whoever reads it reads what was written last, wherever that was.

use std::collections::{BTreeMap, VecDeque};

use base::{KernelId, ObjectId};
use memory::copies::{Act, Answer, Borrowed, Copies, Place, Want, Wish};
use stateright::{Model, Property};

const HOME: KernelId = KernelId { index: 0, incarnation: 1 };
const PAGE: Place = (ObjectId { birth: HOME, serial: 1 }, 0);

/// What kernels send each other. Wishes and recalls go on one lane, the rest on another: they overtake each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Message {
    Ask { wish: Wish, write: bool },
    Recall { wish: Wish, keep: bool },
    Revoke { serial: u64 },
    Grant { serial: u64, write: bool, value: u8 },
    Answered { wish: Wish, value: Option<u8>, keeps: bool },
    GaveBack { wish: Wish, value: Option<u8> },
}

impl Message {
    const fn lane(&self) -> u8 {
        matches!(self, Self::Ask { .. } | Self::Recall { .. } | Self::Revoke { .. }) as u8
    }
}

/// A kernel that has no frame of the page but what it is lent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Holder {
    /// Forgotten when it is nothing.
    borrowed: Borrowed,
    value: u8,
    /// The last wish.
    wish: Wish,
    /// A recall that came before the copy.
    recall: Option<(Wish, bool)>,
    /// An access waits for the page: whether it writes.
    waits: Option<bool>,
    /// It has not heard yet that the page was cut off, with what it had by then: what it does with that is nobody's.
    cut: Option<u64>,
}

impl Holder {
    /// What it has is of the page before it was cut off.
    fn is_stale(&self) -> bool {
        matches!((self.cut, self.borrowed.serial()), (Some(cut), Some(serial)) if serial <= cut)
    }
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
    unmapping: Vec<u64>,
    home_wish: Wish,
    home_waits: Option<bool>,
    holders: BTreeMap<KernelId, Holder>,
    lanes: BTreeMap<(KernelId, KernelId, u8), VecDeque<Message>>,
    /// What each kernel is still going to do: whether it writes.
    wishes: BTreeMap<KernelId, VecDeque<bool>>,
    /// What was written last.
    truth: u8,
    releases: u32,
    crashes: u32,
    cuts: u32,
    /// The home's number when the page was last cut off.
    cut: u64,
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
    Unmapped(u64),
    /// The page is cut off the object, which is made longer again: it is zeros.
    Cut,
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
    /// How often the page is cut off.
    pub cuts: u32,
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
        if self.holders.get(&kernel).is_some_and(Holder::is_stale) {
            return;
        }
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
                Act::Recall { to, wish, keep, .. } => self.send(HOME, to, Message::Recall { wish, keep }),
                Act::Unmap(_, number) => self.unmapping.push(number),
                Act::Grant { to, serial, write, .. } => {
                    self.send(HOME, to, Message::Grant { serial, write, value: self.frame });
                }
                Act::Let(_) => {
                    if let Some(write) = self.home_waits.take() {
                        self.mapped = if write { Mapped::Write } else { Mapped::Read };
                        self.access(HOME, write);
                    }
                }
                // Whoever is refused tries again; here it does without.
                Act::Refuse(Want { peer: None, .. }) => self.home_waits = None,
                Act::Refuse(Want { peer: Some(peer), .. }) => {
                    if let Some(holder) = self.holders.get_mut(&peer) {
                        holder.borrowed.refused();
                        holder.waits = None;
                    }
                }
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
            self.home_wish += 1;
            self.lender.want(PAGE, Want { peer: None, wish: self.home_wish, write }, &mut acts);
            return self.act(acts);
        }
        let Some(holder) = self.holders.get_mut(&kernel) else { return };
        if holder.borrowed.is_good(write) {
            return self.access(kernel, write);
        }
        holder.waits = Some(write);
        let wish = holder.wish + 1;
        if holder.borrowed.ask(wish) {
            holder.wish = wish;
            self.send(kernel, HOME, Message::Ask { wish, write });
        }
    }

    /// Gives back what is recalled, if it has come.
    fn give_back(&mut self, kernel: KernelId) {
        let Some(holder) = self.holders.get_mut(&kernel) else { return };
        let Some((wish, keep)) = holder.recall.take() else { return };
        match holder.borrowed.recalled(wish, keep) {
            Answer::Later => holder.recall = Some((wish, keep)),
            Answer::Back { written, keeps } => {
                let value = written.then_some(holder.value);
                self.send(kernel, HOME, Message::Answered { wish, value, keeps });
            }
        }
    }

    fn receive(&mut self, from: KernelId, to: KernelId, message: Message) {
        let mut acts = Vec::new();
        match message {
            Message::Ask { wish, write } => {
                self.lender.want(PAGE, Want { peer: Some(from), wish, write }, &mut acts);
            }
            Message::Answered { wish, value, keeps } => {
                if let Some(value) = value.filter(|_| self.lender.is_writer(PAGE, from, wish)) {
                    self.frame = value;
                }
                self.lender.returned(PAGE, from, wish, keeps, &mut acts);
            }
            Message::GaveBack { wish, value } => {
                if let Some(value) = value.filter(|_| self.lender.is_writer(PAGE, from, wish)) {
                    self.frame = value;
                }
                self.lender.gave_back(PAGE, from, wish);
            }
            Message::Revoke { serial } => {
                let Some(holder) = self.holders.get_mut(&to) else { return };
                holder.borrowed.cut(serial);
                holder.cut.take_if(|cut| *cut <= serial);
                self.give_back(to);
            }
            Message::Grant { serial, write, value } => {
                let Some(holder) = self.holders.get_mut(&to) else { return };
                let good = holder.borrowed.granted(serial, write);
                let wanted = holder.waits.take();
                if good {
                    holder.value = value;
                    if let Some(wants) = wanted {
                        self.access(to, wants);
                    }
                }
                self.give_back(to);
            }
            Message::Recall { wish, keep } => {
                let Some(holder) = self.holders.get_mut(&to) else { return };
                if let Some((wish, _)) = holder.recall.replace((wish, keep)) {
                    // Of what was cut off since.
                    self.send(to, HOME, Message::Answered { wish, value: None, keeps: false });
                }
                self.give_back(to);
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
            Action::Unmapped(number) => {
                self.unmapping.retain(|other| *other != number);
                // One that was begun before the page was cut off is about another frame.
                if number > self.cut {
                    self.mapped = Mapped::No;
                }
                let mut acts = Vec::new();
                self.lender.unmapped(PAGE, number, &mut acts);
                self.act(acts);
            }
            Action::Cut => {
                self.cuts -= 1;
                (self.frame, self.truth, self.mapped) = (0, 0, Mapped::No);
                let serial = self.lender.serial();
                self.cut = serial;
                let holders = self.lender.holders(PAGE.0, 0..1);
                let mut acts = Vec::new();
                self.lender.cut(PAGE.0, 0..1, &mut acts);
                for kernel in holders {
                    if let Some(holder) = self.holders.get_mut(&kernel) {
                        holder.cut = Some(serial);
                    }
                    self.send(HOME, kernel, Message::Revoke { serial });
                }
                self.act(acts);
            }
            Action::Release(kernel) => {
                self.releases -= 1;
                let Some(holder) = self.holders.get_mut(&kernel) else { return };
                let value = holder.value;
                if let Some((wish, written)) = holder.borrowed.give_back() {
                    self.send(kernel, HOME, Message::GaveBack { wish, value: written.then_some(value) });
                }
                self.give_back(kernel);
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
        for holder in self.holders.values_mut().filter(|h| h.borrowed.is_nothing() && h.recall.is_none()) {
            holder.borrowed = Borrowed::default();
        }
        self.look();
    }

    /// One writer, or readers.
    fn look(&mut self) {
        let now = || self.holders.values().filter(|holder| !holder.is_stale());
        let writes = now().filter(|holder| holder.borrowed.is_good(true)).count();
        let reads = now().filter(|holder| holder.borrowed.is_good(false)).count();
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
        actions.extend(self.unmapping.iter().map(|number| Action::Unmapped(*number)));
        if self.cuts > 0 {
            actions.push(Action::Cut);
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
        let holder = |index| {
            let borrowed = Borrowed::default();
            (kernel(index), Holder { borrowed, value: 0, wish: 0, recall: None, waits: None, cut: None })
        };
        vec![State {
            lender: Copies::default(),
            frame: 0,
            mapped: Mapped::Write,
            unmapping: Vec::new(),
            home_wish: 0,
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
            cuts: self.cuts,
            cut: 0,
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
                actions.retain(|action| !matches!(action, Action::Crash(_) | Action::Release(_) | Action::Cut));
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
    // Holders, what each kernel does, how many copies are given back, holders die, and times the page is cut off.
    type Shape = (u16, &'static [&'static [bool]], u32, u32, u32);
    const ALL: [Shape; 9] = [
        (1, &[&[W, R, W], &[R, W, R]], 2, 0, 0),
        (2, &[&[W, R], &[W, R], &[R, W]], 0, 1, 0),
        (2, &[&[W], &[R, W], &[W, R]], 2, 0, 0),
        (2, &[&[R, W], &[R, W], &[W, W]], 1, 1, 0),
        (2, &[&[W], &[W, R], &[R, W]], 0, 0, 1),
        (1, &[&[W, R], &[W, W, R]], 2, 0, 2),
        (3, &[&[W], &[W], &[R, W], &[R]], 1, 1, 0),
        (2, &[&[W, R], &[W, R], &[R, W]], 1, 1, 1),
        (2, &[&[W, R, W], &[W, R, W], &[R, W, R]], 1, 1, 0),
    ];
    let machine = |(holders, wishes, releases, crashes, cuts): Shape| {
        let accesses = wishes.iter().map(|wishes| wishes.len()).sum::<usize>();
        let what = format!(
            "a home and {holders} holders, {accesses} accesses, {releases} copies given back, {crashes} die, {cuts} cuts"
        );
        let wishes = wishes.iter().map(|wishes| wishes.to_vec()).collect();
        (what, Machine { holders, wishes, releases, crashes, cuts })
    };
    ALL.into_iter().take(if large { ALL.len() } else { 6 }).map(machine).collect()
}
