//! A few kernels with one service each, and everything that can happen to them next.
//!
//! Messages from one kernel to another keep their order; besides that every order is tried. A kernel may die at any time: what is on its way to it is lost, what it
//! sent may still come until the receiver has noticed. When all who live have noticed, there is a view without it, which each of them enters when it
//! likes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::hash::Hash;

use base::KernelId;
use stateright::{Model, Property};

/// The service of one kernel, and what is asked of it.
pub trait Part: Clone + Debug + Eq + Hash + Send + Sync + 'static {
    /// What kernels say to each other.
    type Message: Clone + Debug + Eq + Hash + Send + Sync;
    /// What somebody on a kernel wants.
    type Operation: Clone + Debug + Eq + Hash + Send + Sync;
    /// What must be so, as somebody knows who sees all kernels.
    type Truth: Clone + Debug + Eq + Hash + Default + Send + Sync;

    /// Somebody wants something.
    fn operate(&mut self, operation: &Self::Operation, out: &mut Out<'_, Self>);
    /// A message came.
    fn receive(&mut self, from: KernelId, message: Self::Message, out: &mut Out<'_, Self>);
    /// A kernel is dead.
    fn down(&mut self, dead: KernelId, out: &mut Out<'_, Self>);
    /// There is a new view.
    fn view(&mut self, epoch: u32, members: &[KernelId], out: &mut Out<'_, Self>);
    /// Whether something is under way here that ends by itself.
    fn is_busy(&self) -> bool {
        false
    }
    /// It ends.
    fn finish(&mut self, out: &mut Out<'_, Self>) {
        let _ = out;
    }
    /// A kernel died, whether anybody knows or not.
    fn died(truth: &mut Self::Truth, kernel: KernelId) {
        let _ = (truth, kernel);
    }
    /// What is wrong with a state.
    fn wrong(state: &State<Self>) -> Option<String>;
    /// What is missing in a state in which nothing happens any more.
    fn missing(state: &State<Self>) -> Option<String>;
}

/// What a step of a part leads to.
pub struct Out<'a, P: Part> {
    /// Who makes the step.
    pub me: KernelId,
    /// What is so.
    pub truth: &'a mut P::Truth,
    sent: Vec<(KernelId, P::Message)>,
}

impl<P: Part> Out<'_, P> {
    /// Sends a message.
    pub fn send(&mut self, to: KernelId, message: P::Message) {
        self.sent.push((to, message));
    }
}

/// Where a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State<P: Part> {
    /// Those who live.
    pub parts: BTreeMap<KernelId, P>,
    /// What is so.
    pub truth: P::Truth,
    lanes: BTreeMap<(KernelId, KernelId), VecDeque<P::Message>>,
    wanted: BTreeMap<KernelId, VecDeque<P::Operation>>,
    crashes: u32,
    noticed: BTreeSet<(KernelId, KernelId)>,
    dead: BTreeSet<KernelId>,
    views: Vec<Vec<KernelId>>,
    epochs: BTreeMap<KernelId, u32>,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The next message of a lane comes.
    Deliver(KernelId, KernelId),
    /// The next wish of somebody on a kernel.
    Operate(KernelId),
    /// What is under way at a kernel ends.
    Finish(KernelId),
    /// A kernel dies.
    Crash(KernelId),
    /// The first notices that the second is dead.
    Notice(KernelId, KernelId),
    /// There is a view without the dead.
    Agree,
    /// A kernel enters the next view.
    Enter(KernelId),
}

/// A machine to be checked.
pub struct Machine<P: Part> {
    /// The services of its kernels before anything has happened; all of them are in the first view.
    pub parts: BTreeMap<KernelId, P>,
    /// What is wanted, in the order of each kernel.
    pub wanted: BTreeMap<KernelId, VecDeque<P::Operation>>,
    /// How many kernels may die.
    pub crashes: u32,
}

impl<P: Part> State<P> {
    /// Whether a kernel lives.
    pub fn lives(&self, kernel: KernelId) -> bool {
        self.parts.contains_key(&kernel)
    }

    fn step(&mut self, me: KernelId, step: impl FnOnce(&mut P, &mut Out<'_, P>)) {
        let Some(part) = self.parts.get_mut(&me) else { return };
        let mut out = Out { me, truth: &mut self.truth, sent: Vec::new() };
        step(part, &mut out);
        for (to, message) in out.sent {
            if self.parts.contains_key(&to) && !self.noticed.contains(&(me, to)) {
                self.lanes.entry((me, to)).or_default().push_back(message);
            }
        }
    }

    fn all_have_noticed(&self) -> bool {
        self.dead.iter().all(|dead| self.parts.keys().all(|k| self.noticed.contains(&(*k, *dead))))
    }

    fn newest(&self) -> &[KernelId] {
        self.views.last().map_or(&[], Vec::as_slice)
    }

    fn happen(&mut self, action: &Action) {
        match *action {
            Action::Deliver(from, to) => {
                let lane = self.lanes.get_mut(&(from, to));
                let Some(message) = lane.and_then(VecDeque::pop_front) else { return };
                self.lanes.retain(|_, lane| !lane.is_empty());
                self.step(to, |part, out| part.receive(from, message, out));
            }
            Action::Operate(kernel) => {
                let wish = self.wanted.get_mut(&kernel).and_then(VecDeque::pop_front);
                self.wanted.retain(|_, wishes| !wishes.is_empty());
                if let Some(wish) = wish {
                    self.step(kernel, |part, out| part.operate(&wish, out));
                }
            }
            Action::Finish(kernel) => self.step(kernel, P::finish),
            Action::Crash(kernel) => {
                self.crashes -= 1;
                self.parts.remove(&kernel);
                self.wanted.remove(&kernel);
                self.epochs.remove(&kernel);
                self.dead.insert(kernel);
                self.noticed.retain(|(who, _)| *who != kernel);
                self.lanes.retain(|(_, to), _| *to != kernel);
                P::died(&mut self.truth, kernel);
            }
            Action::Notice(kernel, dead) => {
                self.noticed.insert((kernel, dead));
                self.lanes.remove(&(dead, kernel));
                self.step(kernel, |part, out| part.down(dead, out));
            }
            Action::Agree => self.views.push(self.parts.keys().copied().collect()),
            Action::Enter(kernel) => {
                let epoch = self.epochs.get(&kernel).copied().unwrap_or(0) + 1;
                self.epochs.insert(kernel, epoch);
                let members = self.views.get(epoch as usize - 1).cloned().unwrap_or_default();
                self.step(kernel, |part, out| part.view(epoch, &members, out));
            }
        }
    }

    fn next(&self, actions: &mut Vec<Action>) {
        actions.extend(self.lanes.keys().map(|(from, to)| Action::Deliver(*from, *to)));
        actions.extend(self.wanted.keys().map(|kernel| Action::Operate(*kernel)));
        actions.extend(self.parts.iter().filter(|(_, part)| part.is_busy()).map(|(kernel, _)| Action::Finish(*kernel)));
        if self.crashes > 0 && self.parts.len() > 1 {
            actions.extend(self.parts.keys().map(|kernel| Action::Crash(*kernel)));
        }
        for kernel in self.parts.keys() {
            let unnoticed = self.dead.iter().filter(|dead| !self.noticed.contains(&(*kernel, **dead)));
            actions.extend(unnoticed.map(|dead| Action::Notice(*kernel, *dead)));
            if self.epochs.get(kernel).is_some_and(|epoch| (*epoch as usize) < self.views.len()) {
                actions.push(Action::Enter(*kernel));
            }
        }
        if self.newest().iter().any(|k| self.dead.contains(k)) && self.all_have_noticed() {
            actions.push(Action::Agree);
        }
    }
}

impl<P: Part> Model for Machine<P> {
    type State = State<P>;
    type Action = Action;

    fn init_states(&self) -> Vec<State<P>> {
        let mut state = State {
            parts: self.parts.clone(),
            truth: P::Truth::default(),
            lanes: BTreeMap::new(),
            wanted: BTreeMap::new(),
            crashes: self.crashes,
            noticed: BTreeSet::new(),
            dead: BTreeSet::new(),
            views: vec![self.parts.keys().copied().collect()],
            epochs: self.parts.keys().map(|kernel| (*kernel, 0)).collect(),
        };
        // The machine has come up before anybody wants anything.
        for kernel in self.parts.keys() {
            state.happen(&Action::Enter(*kernel));
        }
        while let Some((from, to)) = state.lanes.keys().next().copied() {
            state.happen(&Action::Deliver(from, to));
        }
        state.wanted = self.wanted.clone();
        vec![state]
    }

    fn actions(&self, state: &State<P>, actions: &mut Vec<Action>) {
        state.next(actions);
    }

    fn next_state(&self, state: &State<P>, action: Action) -> Option<State<P>> {
        let mut next = state.clone();
        next.happen(&action);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing is wrong", |_: &Self, state: &State<P>| P::wrong(state).is_none()),
            Property::always("nothing is missing in the end", |_: &Self, state: &State<P>| {
                let mut actions = Vec::new();
                state.next(&mut actions);
                // That a kernel may still die is no duty.
                actions.retain(|action| !matches!(action, Action::Crash(_)));
                !actions.is_empty() || P::missing(state).is_none()
            }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base::KernelId;
    use stateright::{Checker, Model};

    use super::{Machine, Out, Part, State};

    /// Wants to hold what kernel 0 held, in a wrong way.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    enum Wrong {
        /// Takes it as soon as it notices the death.
        Greedy(bool),
        /// Never takes it.
        Lazy,
    }

    impl Part for Wrong {
        type Message = ();
        type Operation = ();
        type Truth = ();

        fn operate(&mut self, (): &(), _: &mut Out<'_, Self>) {}
        fn receive(&mut self, _: KernelId, (): (), _: &mut Out<'_, Self>) {}
        fn down(&mut self, dead: KernelId, _: &mut Out<'_, Self>) {
            if let Self::Greedy(holds) = self {
                *holds |= dead.index == 0;
            }
        }
        fn view(&mut self, _: u32, _: &[KernelId], _: &mut Out<'_, Self>) {}
        fn wrong(state: &State<Self>) -> Option<String> {
            let holders = state.parts.values().filter(|part| **part == Self::Greedy(true)).count();
            (holders > 1).then(|| "two hold it".into())
        }
        fn missing(state: &State<Self>) -> Option<String> {
            let held = state.parts.iter().any(|(k, part)| k.index == 0 || *part == Self::Greedy(true));
            (!held).then(|| "nobody holds it".into())
        }
    }

    fn found(part: &Wrong) -> Vec<&'static str> {
        let parts: BTreeMap<_, _> = (0..3).map(|index| (KernelId { index, incarnation: 1 }, part.clone())).collect();
        let machine = Machine { parts, wanted: BTreeMap::new(), crashes: 1 };
        machine.checker().spawn_bfs().join().discoveries().into_keys().collect()
    }

    #[test]
    fn what_is_wrong_is_found() {
        assert_eq!(found(&Wrong::Greedy(false)), ["nothing is wrong"]);
        assert_eq!(found(&Wrong::Lazy), ["nothing is missing in the end"]);
    }
}
