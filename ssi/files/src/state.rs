//! What this kernel lends and holds, as a state machine without I/O: references, subscriptions, requests under way, deaths.
//!
//! # Invariants
//! * References are conserved: what a home counts for a holder is what the holder has received plus what is on its way. When all is quiet the two are equal.
//! * A wake-up is never lost: what happens at the home after [`Note::Arm`] was handled reaches the waker, once for one or more such events. A READY is sent
//!   per arming; what happens until the holder arms again is remembered and sent then. It is never sent twice, so edges stay edges.
//! * A READY of an old generation, or of a subscription that ended, wakes nobody.
//! * A request that takes its time ends once: by its result, or because it was cancelled or its asker died; in that case what it made is undone.
//! * Nothing of a dead kernel is answered, and nothing is lent to it.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use base::{KernelId, ObjectId, Ready};
use objects::{Exports, Imports, Lent, Receipt, Refusal};

/// What kernels tell each other about objects, besides operations on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Note {
    /// Tell me when the object is ready for something of `mask`; answered by [`Event::Armed`].
    Arm {
        /// What is watched.
        object: ObjectId,
        /// Names the subscription at its holder.
        token: u64,
        /// Counts the armings of the token.
        generation: u32,
        /// For what.
        mask: Ready,
    },
    /// The READY of the generation before has come: tell me what happened since, or happens.
    Again {
        /// The subscription.
        token: u64,
        /// The new generation.
        generation: u32,
    },
    /// Forget the subscription.
    Disarm {
        /// Which.
        token: u64,
    },
    /// Something happened.
    Ready {
        /// The subscription.
        token: u64,
        /// The arming that this is for.
        generation: u32,
        /// What.
        ready: Ready,
    },
    /// References are given back.
    Release {
        /// To what.
        object: ObjectId,
        /// How many.
        count: u32,
    },
    /// A reference that `via` passed on came.
    Received {
        /// To what.
        object: ObjectId,
        /// Who passed it on.
        via: KernelId,
    },
    /// A reference for `holder` that the sender had asked for was not sent.
    Unsent {
        /// To what.
        object: ObjectId,
        /// Who was to have it.
        holder: KernelId,
    },
    /// This kernel is dead. Say when all that it passed on to you has been told about.
    Question {
        /// The dead kernel.
        via: KernelId,
    },
    /// All that came through the dead kernel has been told about.
    Settled {
        /// The dead kernel.
        via: KernelId,
    },
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A peer says something.
    Told {
        /// Who.
        from: KernelId,
        /// What.
        note: Note,
    },
    /// Somebody here wants to know when an object of a peer is ready.
    Subscribe {
        /// A new number.
        token: u64,
        /// The object.
        object: ObjectId,
        /// For what.
        mask: Ready,
    },
    /// He does not want to know any more.
    Unsubscribe {
        /// The number.
        token: u64,
    },
    /// The home answered [`Note::Arm`]; or it cannot be armed, for good.
    Armed {
        /// Who answered.
        from: KernelId,
        /// The subscription.
        token: u64,
        /// The arming.
        generation: u32,
        /// Whether it is watched now.
        done: bool,
    },
    /// An object of this kernel that a peer watches became ready.
    Happened {
        /// The peer.
        peer: KernelId,
        /// Its subscription.
        token: u64,
        /// For what.
        ready: Ready,
    },
    /// The last user of a peer's object is gone.
    Dropped {
        /// The object.
        object: ObjectId,
    },
    /// A peer abandons a request.
    Cancelled {
        /// The peer.
        peer: KernelId,
        /// Its number there.
        request: u64,
    },
    /// A kernel died.
    Down {
        /// Which.
        dead: KernelId,
    },
}

/// What is to be done, in order, after the step.
pub trait Actions {
    /// Send this; in order per receiver. If it is dead nobody needs it.
    fn send(&mut self, to: KernelId, note: Note);
    /// Nobody holds a reference to this object of ours any more.
    fn free(&mut self, object: ObjectId);
    /// Wake who subscribed.
    fn wake(&mut self, token: u64, ready: Ready);
    /// Watch an object of ours for a peer: [`Event::Happened`].
    fn watch(&mut self, peer: KernelId, token: u64, object: ObjectId, mask: Ready);
    /// Watch it no more.
    fn unwatch(&mut self, peer: KernelId, token: u64);
    /// Undo a request under way; `answer`: and say that it is cancelled.
    fn abandon(&mut self, peer: KernelId, request: u64, answer: bool);
}

#[derive(Debug)]
struct Armed {
    object: ObjectId,
    mask: Ready,
    generation: u32,
}

#[derive(Debug)]
struct Watched {
    object: ObjectId,
    generation: u32,
    /// A READY was sent, and the holder has not armed again.
    told: bool,
    /// What happened since.
    since: Ready,
}

/// See the module.
#[derive(Debug)]
pub struct State {
    me: KernelId,
    /// What is lent.
    pub exports: Exports,
    /// What is held.
    pub imports: Imports,
    armed: BTreeMap<u64, Armed>,
    watched: BTreeMap<(KernelId, u64), Watched>,
    working: BTreeSet<(KernelId, u64)>,
    /// Who asks about whom, whose death is not known here yet.
    questions: BTreeSet<(KernelId, KernelId)>,
}

impl State {
    /// Nothing is lent or held by kernel `me`.
    pub const fn new(me: KernelId) -> Self {
        Self {
            me,
            exports: Exports::new(),
            imports: Imports::new(),
            armed: BTreeMap::new(),
            watched: BTreeMap::new(),
            working: BTreeSet::new(),
            questions: BTreeSet::new(),
        }
    }

    /// Takes one event.
    pub fn step(&mut self, event: Event, actions: &mut impl Actions) {
        match event {
            Event::Told { from, .. } if self.exports.is_dead(from) => {}
            Event::Told { from, note } => self.told(from, note, actions),
            Event::Subscribe { token, object, mask } => {
                self.armed.insert(token, Armed { object, mask, generation: 0 });
                self.arm(token, actions);
            }
            Event::Unsubscribe { token } => {
                if let Some(home) = self.armed.remove(&token).and_then(|armed| self.imports.home(armed.object)) {
                    actions.send(home, Note::Disarm { token });
                }
            }
            Event::Armed { from, token, generation, done } => match self.armed.get(&token) {
                // Whoever subscribed looks at the object himself after that: what it is ready for already is no event.
                Some(armed) if !done && armed.generation == generation => {
                    actions.wake(token, Ready::ERR | Ready::HUP);
                }
                Some(_) => {}
                // It ended before it began, perhaps at another home than it was ended at.
                None if done => actions.send(from, Note::Disarm { token }),
                None => {}
            },
            Event::Happened { peer, token, ready } => self.happened(peer, token, ready, actions),
            Event::Dropped { object } => {
                // Where the object is, is not known any more when those who subscribed let go: another reference may be on its way here.
                if let Some(home) = self.imports.home(object) {
                    for (token, _) in self.armed.iter().filter(|(_, armed)| armed.object == object) {
                        actions.send(home, Note::Disarm { token: *token });
                    }
                }
                if let Some(back) = self.imports.drop_proxy(object) {
                    actions.send(back.home, Note::Release { object, count: back.count });
                }
            }
            Event::Cancelled { peer, request } => {
                if self.working.remove(&(peer, request)) {
                    actions.abandon(peer, request, true);
                }
            }
            Event::Down { dead } => self.down(dead, actions),
        }
    }

    fn told(&mut self, from: KernelId, note: Note, actions: &mut impl Actions) {
        match note {
            Note::Arm { object, token, generation, mask } => {
                if self.exports.granted(object, from) == 0 {
                    return;
                }
                let watched = Watched { object, generation, told: false, since: Ready::empty() };
                if self.watched.insert((from, token), watched).is_some() {
                    actions.unwatch(from, token);
                }
                actions.watch(from, token, object, mask);
            }
            Note::Again { token, generation } => {
                let Some(watched) = self.watched.get_mut(&(from, token)) else { return };
                watched.generation = generation;
                watched.told = !watched.since.is_empty();
                if watched.told {
                    let ready = core::mem::take(&mut watched.since);
                    actions.send(from, Note::Ready { token, generation, ready });
                }
            }
            Note::Disarm { token } => {
                if self.watched.remove(&(from, token)).is_some() {
                    actions.unwatch(from, token);
                }
            }
            Note::Ready { token, generation, ready } => {
                let Some(armed) = self.armed.get_mut(&token).filter(|armed| armed.generation == generation) else {
                    return;
                };
                armed.generation += 1;
                let generation = armed.generation;
                actions.wake(token, ready);
                actions.send(from, Note::Again { token, generation });
            }
            Note::Release { object, count } => {
                if self.exports.give_back(object, from, count) == Ok(Lent::Nobody) {
                    actions.free(object);
                }
                self.unwatch_unheld(from, actions);
            }
            Note::Received { object, via } => self.exports.received(object, via, from),
            Note::Unsent { object, holder } => {
                if self.exports.unsent(object, from, holder) == Ok(Lent::Nobody) {
                    actions.free(object);
                }
                self.unwatch_unheld(holder, actions);
            }
            Note::Question { via } => {
                if self.exports.is_dead(via) {
                    actions.send(from, Note::Settled { via });
                } else {
                    // Something of it may still come.
                    self.questions.insert((via, from));
                }
            }
            Note::Settled { via } => {
                for object in self.exports.settled(via, from) {
                    actions.free(object);
                }
                self.unwatch_unheld(from, actions);
            }
        }
    }

    /// Who has no reference to an object watches it no more: his subscriptions have ended, or will.
    fn unwatch_unheld(&mut self, peer: KernelId, actions: &mut impl Actions) {
        let range = self.watched.range((peer, 0)..=(peer, u64::MAX));
        let unheld = range.filter(|(_, w)| self.exports.granted(w.object, peer) == 0);
        let ended: Vec<u64> = unheld.map(|((_, token), _)| *token).collect();
        for token in ended {
            self.watched.remove(&(peer, token));
            actions.unwatch(peer, token);
        }
    }

    /// Arms at the home.
    fn arm(&mut self, token: u64, actions: &mut impl Actions) {
        let Some(armed) = self.armed.get_mut(&token) else { return };
        armed.generation += 1;
        let (object, generation, mask) = (armed.object, armed.generation, armed.mask);
        match self.imports.home(object) {
            Some(home) => actions.send(home, Note::Arm { object, token, generation, mask }),
            None => actions.wake(token, Ready::ERR | Ready::HUP),
        }
    }

    fn happened(&mut self, peer: KernelId, token: u64, ready: Ready, actions: &mut impl Actions) {
        let Some(watched) = self.watched.get_mut(&(peer, token)) else { return };
        if core::mem::replace(&mut watched.told, true) {
            watched.since |= ready;
        } else {
            let generation = watched.generation;
            actions.send(peer, Note::Ready { token, generation, ready });
        }
    }

    fn down(&mut self, dead: KernelId, actions: &mut impl Actions) {
        let fallout = self.exports.peer_down(dead);
        for object in fallout.free {
            actions.free(object);
        }
        for holder in fallout.doubtful {
            if holder == self.me {
                // All that came of it was handled before its death was.
                for object in self.exports.settled(dead, holder) {
                    actions.free(object);
                }
            } else {
                actions.send(holder, Note::Question { via: dead });
            }
        }
        let gone: BTreeSet<ObjectId> = self.imports.peer_down(dead).into_iter().collect();
        for (token, _) in self.armed.iter().filter(|(_, armed)| gone.contains(&armed.object)) {
            actions.wake(*token, Ready::ERR | Ready::HUP);
        }
        let range = (dead, 0)..=(dead, u64::MAX);
        let watched: Vec<_> = self.watched.range(range.clone()).map(|(key, _)| *key).collect();
        for (peer, token) in watched {
            self.watched.remove(&(peer, token));
            actions.unwatch(peer, token);
        }
        let working: Vec<_> = self.working.range(range).copied().collect();
        for (peer, request) in working {
            self.working.remove(&(peer, request));
            actions.abandon(peer, request, false);
        }
        let asked: Vec<_> =
            self.questions.iter().copied().filter(|(via, from)| *via == dead || *from == dead).collect();
        for (via, from) in asked {
            self.questions.remove(&(via, from));
            if from != dead {
                actions.send(from, Note::Settled { via });
            }
        }
    }

    // -- references ------------------------------------------------------------------------------------------------

    /// A reference is about to be sent to `holder`.
    ///
    /// # Errors
    /// [`Refusal`]: do not send it.
    pub fn lend(&mut self, object: ObjectId, holder: KernelId) -> Result<(), Refusal> {
        self.exports.grant(object, holder)
    }

    /// A reference is about to be sent to `holder`, who confirms it with [`Note::Received`].
    ///
    /// # Errors
    /// [`Refusal`]: do not send it.
    pub fn pass(&mut self, object: ObjectId, holder: KernelId) -> Result<(), Refusal> {
        self.exports.pass(object, self.me, holder)
    }

    /// A reference from [`State::pass`], or from the home by [`Exports::grant_for`], was perhaps not sent after all.
    pub fn unsent(&mut self, object: ObjectId, home: KernelId, holder: KernelId, actions: &mut impl Actions) {
        if home != self.me {
            actions.send(home, Note::Unsent { object, holder });
        } else if self.exports.unsent(object, self.me, holder) == Ok(Lent::Nobody) {
            actions.free(object);
        }
    }

    /// A reference was not sent after all.
    pub fn not_lent(&mut self, object: ObjectId, holder: KernelId, actions: &mut impl Actions) {
        if self.exports.give_back(object, holder, 1) == Ok(Lent::Nobody) {
            actions.free(object);
        }
    }

    /// A reference came with a message of `via`. If this kernel is the home it ends here, and the object is the real one. `passed`: it is one that is
    /// confirmed.
    ///
    /// # Errors
    /// [`Refusal::Dead`] if `via` is dead: its home was or will be told that nothing more comes through it.
    pub fn receive(
        &mut self,
        object: ObjectId,
        home: KernelId,
        via: KernelId,
        passed: bool,
        actions: &mut impl Actions,
    ) -> Result<Receipt, Refusal> {
        if self.exports.is_dead(via) {
            return Err(Refusal::Dead);
        }
        if home == self.me {
            self.exports.received(object, via, home);
            if self.exports.give_back(object, home, 1) == Ok(Lent::Nobody) {
                actions.free(object);
            }
            return Ok(Receipt::Home);
        }
        let receipt = if self.exports.is_dead(home) {
            self.imports.receive_dead(object, home)
        } else {
            self.imports.receive(object, home)
        };
        if passed {
            actions.send(home, Note::Received { object, via });
        }
        Ok(receipt)
    }

    // -- requests that take their time -----------------------------------------------------------------------------

    /// A request of a peer begins.
    pub fn begin(&mut self, peer: KernelId, request: u64) {
        self.working.insert((peer, request));
    }

    /// Whether that request is under way.
    pub fn is_working(&self, peer: KernelId, request: u64) -> bool {
        self.working.contains(&(peer, request))
    }

    /// Whether a peer has that subscription here.
    pub fn is_watched(&self, peer: KernelId, token: u64) -> bool {
        self.watched.contains_key(&(peer, token))
    }

    /// It has a result. `false`: it was abandoned meanwhile, the result is to be undone.
    pub fn end(&mut self, peer: KernelId, request: u64) -> bool {
        self.working.remove(&(peer, request))
    }

    // -- for checks ------------------------------------------------------------------------------------------------

    /// Subscriptions of this kernel, subscriptions of peers here, requests of peers under way, questions without an answer.
    pub fn open(&self) -> [usize; 4] {
        [self.armed.len(), self.watched.len(), self.working.len(), self.questions.len()]
    }
}
