//! The name service as a state machine without I/O.
//!
//! # Invariants
//! * A name has at most one registrar per view; only it answers for the name.
//! * A registrar that is new in a view answers "not there" only after every member has told it again what it holds
//!   ([`Request::Settled`]); until then a lookup of an unknown name is held, never refused.
//! * Every local operation ends with exactly one [`Actions::complete`].

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use base::{Errno, KernelId, ObjectId};

use crate::pids::block_owner;

/// What sort of name it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// A process; the key is its pid.
    Process = 1,
    /// A process group; the key is its pgid, the object is the session that holds it.
    Group = 2,
    /// A session; the key is its sid.
    Session = 3,
    /// A machine-wide port (127/8 and `::1`); the key is protocol and number.
    Port = 4,
    /// An abstract unix socket name; the key is a hash, the object checks the full name.
    Abstract = 5,
    /// A System V IPC key.
    SystemV = 6,
}

impl Kind {
    /// The sort with this number on the wire.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Process,
            2 => Self::Group,
            3 => Self::Session,
            4 => Self::Port,
            5 => Self::Abstract,
            6 => Self::SystemV,
            _ => return None,
        })
    }
}

/// A name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name {
    /// Its sort.
    pub kind: Kind,
    /// Its key within the sort.
    pub key: u64,
}

impl Name {
    /// The index of the kernel that keeps this name while it is in the view.
    pub const fn first_registrar(self, kernels: u16) -> u16 {
        match self.kind {
            Kind::Process | Kind::Group | Kind::Session => block_owner(self.key, kernels),
            // Fibonacci hashing spreads consecutive keys over the buckets.
            Kind::Port | Kind::Abstract | Kind::SystemV => {
                let kernels = if kernels == 0 { 1 } else { kernels as u64 };
                ((self.key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % kernels) as u16
            }
        }
    }
}

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// The object.
    pub object: ObjectId,
    /// The kernel that is now the authority for it.
    pub home: KernelId,
}

/// What one kernel asks of the registrar.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Request {
    /// The name stands for the entry from now on. With `replace` only if it stood for the same object before (the object moved).
    Register {
        /// The name.
        name: Name,
        /// What it stands for.
        entry: Entry,
        /// The object moved; otherwise a name in use is refused with `EEXIST`.
        replace: bool,
    },
    /// The name is free again, if it still stands for this object.
    Unregister {
        /// The name.
        name: Name,
        /// The object it stood for.
        object: ObjectId,
    },
    /// What does the name stand for?
    Lookup {
        /// The name.
        name: Name,
    },
    /// The asker has told this registrar everything it holds under the view of this epoch. Needs no answer.
    Settled {
        /// The epoch of that view.
        epoch: u32,
    },
}

impl Request {
    /// The name it is about; a [`Request::Settled`] is about none.
    pub const fn name(&self) -> Option<Name> {
        match *self {
            Self::Register { name, .. } | Self::Unregister { name, .. } | Self::Lookup { name } => Some(name),
            Self::Settled { .. } => None,
        }
    }
}

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// Registered or unregistered.
    Done,
    /// What the name stands for.
    Found(Entry),
    /// `ESRCH` (no such name) or `EEXIST` (in use).
    Failed(Errno),
    /// Only between kernels: the asked one is not the registrar in its view, or not yet; ask again under this epoch or a later one.
    Stale {
        /// The epoch of the answerer's view.
        epoch: u32,
    },
}

/// Identifies a local operation to its caller.
pub type OpId = u64;
/// Identifies a peer's request to the link layer, which sends the answer.
pub type PeerRequest = u64;

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The membership has a new view.
    View {
        /// Its number; grows.
        epoch: u32,
        /// Its members, this kernel among them.
        members: Vec<KernelId>,
    },
    /// Somebody on this kernel wants something.
    Local {
        /// Named in [`Actions::complete`].
        op: OpId,
        /// What it wants.
        request: Request,
    },
    /// A peer asks us as the registrar.
    Asked {
        /// The peer.
        from: KernelId,
        /// The link layer's handle for the answer.
        request_id: PeerRequest,
        /// The epoch of the view under which it asks (from the message header).
        epoch: u32,
        /// What it wants.
        request: Request,
    },
    /// Somebody on this kernel wants to know when all that it registers and unregisters now is done.
    Flush {
        /// Named in [`Actions::complete`], with [`Outcome::Done`].
        op: OpId,
    },
    /// The registrar answered our operation.
    Answered {
        /// Our operation.
        op: OpId,
        /// The answer.
        outcome: Outcome,
    },
    /// The object of a name moved to another kernel, which registers it: it is no longer ours to tell.
    MovedAway {
        /// The name.
        name: Name,
    },
    /// The object of a name is on its way to another kernel, which will register it: it is no longer ours to tell, but until it is registered
    /// ([`Event::Landed`]) this kernel has not told everything.
    Leaves {
        /// The name.
        name: Name,
    },
    /// The other kernel has registered it, or is dead.
    Landed {
        /// The name.
        name: Name,
    },
    /// The registrar died before it answered our operation.
    Lost {
        /// Our operation.
        op: OpId,
    },
}

/// What the state machine wants done. Everything is queued by the caller and done after its lock is dropped.
pub trait Actions {
    /// Ask a peer; the answer comes as [`Event::Answered`] or [`Event::Lost`] with this op, which is `None` for a
    /// [`Request::Settled`] and for registrations told again after a view change (nobody waits for those).
    fn ask(&mut self, to: KernelId, op: Option<OpId>, request: Request);
    /// Answer a peer's request.
    fn answer(&mut self, to: KernelId, request_id: PeerRequest, outcome: Outcome);
    /// A local operation ended.
    fn complete(&mut self, op: OpId, outcome: Outcome);
}

/// Who waits for an answer of this registrar.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Asker {
    Local(OpId),
    Peer(KernelId, PeerRequest),
}

/// The name service of one kernel.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Names {
    me: KernelId,
    kernels: u16,
    epoch: u32,
    members: Vec<KernelId>,
    /// As registrar: what the names stand for.
    table: BTreeMap<Name, Entry>,
    /// As registrar: members that have not yet told what they hold under this view.
    unsettled: BTreeSet<KernelId>,
    /// Members that settled for a view we have not seen yet.
    early: BTreeMap<KernelId, u32>,
    /// As registrar: lookups held until everybody has settled.
    held: Vec<(Asker, Name)>,
    /// Requests asked under a view that has not reached us yet.
    ahead: Vec<(KernelId, PeerRequest, u32, Request)>,
    /// What this kernel registered and has not unregistered: told again when the registrar changes.
    mine: BTreeMap<Name, Entry>,
    /// Local operations under way at a peer.
    pending: BTreeMap<OpId, Request>,
    /// Local operations to be asked again when a view of at least this epoch is there.
    waiting: BTreeMap<OpId, (u32, Request)>,
    /// Names whose objects are on their way from here to other kernels.
    flying: BTreeSet<Name>,
    /// The members have yet to be told that this kernel has settled under this view.
    owed: bool,
    /// Flushes, with what they wait for.
    flushes: Vec<(OpId, BTreeSet<OpId>)>,
}

impl Names {
    /// The service of kernel `me` in a plan of `kernels` kernels, alone in its first view.
    pub fn new(me: KernelId, kernels: u16) -> Self {
        Self {
            me,
            kernels,
            epoch: 0,
            members: alloc::vec![me],
            table: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            early: BTreeMap::new(),
            held: Vec::new(),
            ahead: Vec::new(),
            mine: BTreeMap::new(),
            pending: BTreeMap::new(),
            waiting: BTreeMap::new(),
            flying: BTreeSet::new(),
            owed: false,
            flushes: Vec::new(),
        }
    }

    /// The registrar of a name under the current view: its first registrar, or the next live one after it.
    pub fn registrar(&self, name: Name) -> KernelId {
        Self::registrar_in(&self.members, name.first_registrar(self.kernels), self.me)
    }

    /// How many of all shares of the names each member has as their registrar.
    pub fn shares(&self) -> Vec<(KernelId, u16)> {
        let registrars: Vec<KernelId> =
            (0..self.kernels).map(|first| Self::registrar_in(&self.members, first, self.me)).collect();
        let of = |member| registrars.iter().filter(|registrar| **registrar == member).count() as u16;
        self.members.iter().map(|member| (*member, of(*member))).collect()
    }

    fn registrar_in(members: &[KernelId], first: u16, me: KernelId) -> KernelId {
        // The members are sorted by index; the next one at or after `first`, else the lowest.
        members.iter().find(|m| m.index >= first).or_else(|| members.first()).copied().unwrap_or(me)
    }

    /// What this kernel holds as registrar, for `/proc/cob` and the simulator's invariants.
    pub fn registered(&self) -> impl Iterator<Item = (Name, Entry)> + '_ {
        self.table.iter().map(|(name, entry)| (*name, *entry))
    }

    /// Operations that have not ended, for the simulator's invariants.
    pub fn open_operations(&self) -> usize {
        self.pending.len()
            + self.waiting.len()
            + self.held.iter().filter(|(asker, _)| matches!(asker, Asker::Local(_))).count()
    }

    /// Takes one event.
    pub fn step(&mut self, event: Event, actions: &mut impl Actions) {
        match event {
            Event::View { epoch, members } => self.new_view(epoch, members, actions),
            Event::Local { op, request } => self.local(op, request, actions),
            Event::Asked { from, request_id, epoch, request } => self.asked(from, request_id, epoch, request, actions),
            Event::Flush { op } => {
                let changes = |r: &Request| matches!(r, Request::Register { .. } | Request::Unregister { .. });
                let pending = self.pending.iter().filter(|(_, r)| changes(r)).map(|(op, _)| *op);
                let waiting = self.waiting.iter().filter(|(_, (_, r))| changes(r)).map(|(op, _)| *op);
                self.flushes.push((op, pending.chain(waiting).collect()));
                self.flushed(actions);
            }
            Event::MovedAway { name } => {
                self.mine.remove(&name);
            }
            Event::Leaves { name } => {
                self.mine.remove(&name);
                self.flying.insert(name);
            }
            Event::Landed { name } => {
                self.flying.remove(&name);
                self.settle(actions);
            }
            Event::Answered { op, outcome } => self.answered(op, outcome, actions),
            Event::Lost { op } => {
                // The death shows up as a new view; ask again then.
                if let Some(request) = self.pending.remove(&op) {
                    self.waiting.insert(op, (self.epoch + 1, request));
                }
            }
        }
    }

    fn new_view(&mut self, epoch: u32, mut members: Vec<KernelId>, actions: &mut impl Actions) {
        if epoch <= self.epoch {
            return;
        }
        members.sort_unstable();
        let old = core::mem::replace(&mut self.members, members);
        self.epoch = epoch;
        // Names homed on the dead are gone; so is what I hold for a kernel that is the registrar now.
        let (me, kernels, now) = (self.me, self.kernels, self.members.clone());
        let registrar = |name: Name| Self::registrar_in(&now, name.first_registrar(kernels), me);
        self.table.retain(|name, entry| now.contains(&entry.home) && registrar(*name) == me);
        self.mine.retain(|_, entry| now.contains(&entry.home));
        // Everybody tells the (new) registrars of its names what it holds, then that it is settled.
        for (name, entry) in &self.mine {
            let to = registrar(*name);
            if to == me {
                self.table.insert(*name, *entry);
            } else if Self::registrar_in(&old, name.first_registrar(kernels), me) != to {
                actions.ask(to, None, Request::Register { name: *name, entry: *entry, replace: true });
            }
        }
        self.owed = true;
        self.settle(actions);
        // Those who settled before this view came here told what they hold in requests that are still ahead: those first, and no lookup is refused until
        // they are done.
        self.unsettled = now.iter().copied().filter(|&peer| peer != me).collect();
        self.ahead.retain(|(from, ..)| now.contains(from));
        for (from, id, asked_at, request) in core::mem::take(&mut self.ahead) {
            self.asked(from, id, asked_at, request, actions);
        }
        // Those whom a dead registrar left waiting ask again; those who asked me for what is not mine any more are told so.
        for (asker, name) in core::mem::take(&mut self.held) {
            if registrar(name) == me {
                self.held.push((asker, name));
                continue;
            }
            match asker {
                Asker::Local(op) => self.local(op, Request::Lookup { name }, actions),
                Asker::Peer(peer, id) => actions.answer(peer, id, Outcome::Stale { epoch }),
            }
        }
        let ready: Vec<_> = self.waiting.iter().filter(|&(_, &(at, _))| at <= epoch).map(|(&op, _)| op).collect();
        for op in ready {
            if let Some((_, request)) = self.waiting.remove(&op) {
                self.local(op, request, actions);
            }
        }
        let early: Vec<_> = self.early.iter().filter(|&(_, &e)| e >= epoch).map(|(&peer, _)| peer).collect();
        for peer in early {
            self.unsettled.remove(&peer);
        }
        self.early.retain(|peer, _| now.contains(peer));
        self.release_held(actions);
    }

    /// Tells that this kernel has told everything, if it has: a name that is on its way is told by nobody until it lands.
    fn settle(&mut self, actions: &mut impl Actions) {
        if !self.owed || !self.flying.is_empty() {
            return;
        }
        self.owed = false;
        for &peer in self.members.iter().filter(|&&peer| peer != self.me) {
            actions.ask(peer, None, Request::Settled { epoch: self.epoch });
        }
    }

    fn local(&mut self, op: OpId, request: Request, actions: &mut impl Actions) {
        let Some(name) = request.name() else {
            return actions.complete(op, Outcome::Failed(Errno::EINVAL));
        };
        let registrar = self.registrar(name);
        if registrar == self.me {
            if let Some(outcome) = self.serve(Asker::Local(op), request) {
                self.note_mine(&request, outcome);
                actions.complete(op, outcome);
                self.ended(op, actions);
            }
        } else {
            self.pending.insert(op, request);
            actions.ask(registrar, Some(op), request);
        }
    }

    fn asked(&mut self, from: KernelId, id: PeerRequest, epoch: u32, request: Request, actions: &mut impl Actions) {
        let Some(name) = request.name() else {
            if let Request::Settled { epoch } = request {
                if epoch >= self.epoch {
                    let seen = self.early.entry(from).or_insert(epoch);
                    *seen = epoch.max(*seen);
                }
                if epoch >= self.epoch && self.unsettled.remove(&from) {
                    self.release_held(actions);
                }
            }
            return;
        };
        if epoch > self.epoch {
            // Under the asker's view I may be the registrar; I shall know when that view is here.
            self.ahead.push((from, id, epoch, request));
            return;
        }
        if self.registrar(name) != self.me {
            return actions.answer(from, id, Outcome::Stale { epoch: self.epoch });
        }
        if let Some(outcome) = self.serve(Asker::Peer(from, id), request) {
            actions.answer(from, id, outcome);
        }
        self.release_held(actions);
    }

    /// Serves a request as registrar; `None` if the answer has to wait.
    fn serve(&mut self, asker: Asker, request: Request) -> Option<Outcome> {
        match request {
            Request::Register { name, entry, replace } => {
                let outcome = match self.table.get(&name) {
                    Some(old) if old.object != entry.object => Outcome::Failed(Errno::EEXIST),
                    Some(_) if !replace => Outcome::Failed(Errno::EEXIST),
                    _ => Outcome::Done,
                };
                if outcome == Outcome::Done {
                    self.table.insert(name, entry);
                }
                Some(outcome)
            }
            Request::Unregister { name, object } => {
                if self.table.get(&name).is_some_and(|entry| entry.object == object) {
                    self.table.remove(&name);
                }
                Some(Outcome::Done)
            }
            Request::Lookup { name } => match self.table.get(&name) {
                Some(entry) => Some(Outcome::Found(*entry)),
                None if self.unsettled.is_empty() => Some(Outcome::Failed(Errno::ESRCH)),
                None => {
                    self.held.push((asker, name));
                    None
                }
            },
            Request::Settled { .. } => Some(Outcome::Done),
        }
    }

    /// Answers held lookups that can be answered now.
    fn release_held(&mut self, actions: &mut impl Actions) {
        let settled = self.unsettled.is_empty();
        let mut still = Vec::new();
        for (asker, name) in core::mem::take(&mut self.held) {
            let outcome = match self.table.get(&name) {
                Some(entry) => Outcome::Found(*entry),
                None if settled => Outcome::Failed(Errno::ESRCH),
                None => {
                    still.push((asker, name));
                    continue;
                }
            };
            match asker {
                Asker::Local(op) => actions.complete(op, outcome),
                Asker::Peer(peer, id) => actions.answer(peer, id, outcome),
            }
        }
        self.held = still;
    }

    fn answered(&mut self, op: OpId, outcome: Outcome, actions: &mut impl Actions) {
        let Some(request) = self.pending.remove(&op) else {
            return;
        };
        if let Outcome::Stale { epoch } = outcome {
            if epoch <= self.epoch {
                // Answered under a view that we have by now: the registrar is another one.
                return self.local(op, request, actions);
            }
            self.waiting.insert(op, (epoch, request));
            return;
        }
        self.note_mine(&request, outcome);
        actions.complete(op, outcome);
        self.ended(op, actions);
    }

    /// Flushes may have waited for this operation.
    fn ended(&mut self, op: OpId, actions: &mut impl Actions) {
        for (_, open) in &mut self.flushes {
            open.remove(&op);
        }
        self.flushed(actions);
    }

    fn flushed(&mut self, actions: &mut impl Actions) {
        for (op, _) in self.flushes.extract_if(.., |(_, open)| open.is_empty()) {
            actions.complete(op, Outcome::Done);
        }
    }

    /// Remembers what this kernel has registered, so that it can tell a new registrar.
    fn note_mine(&mut self, request: &Request, outcome: Outcome) {
        match (*request, outcome) {
            (Request::Register { name, entry, .. }, Outcome::Done) => {
                self.mine.insert(name, entry);
            }
            (Request::Unregister { name, .. }, Outcome::Done) => {
                self.mine.remove(&name);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{vec, vec::Vec};

    use base::{Errno, KernelId, ObjectId};

    use super::{Actions, Entry, Event, Kind, Name, Names, OpId, Outcome, PeerRequest, Request};

    #[derive(Default, Debug)]
    struct Done {
        asked: Vec<(KernelId, Option<OpId>, Request)>,
        answered: Vec<(KernelId, PeerRequest, Outcome)>,
        completed: Vec<(OpId, Outcome)>,
    }

    impl Actions for Done {
        fn ask(&mut self, to: KernelId, op: Option<OpId>, request: Request) {
            self.asked.push((to, op, request));
        }

        fn answer(&mut self, to: KernelId, id: PeerRequest, outcome: Outcome) {
            self.answered.push((to, id, outcome));
        }

        fn complete(&mut self, op: OpId, outcome: Outcome) {
            self.completed.push((op, outcome));
        }
    }

    fn kernel(index: u16) -> KernelId {
        KernelId { index, incarnation: 1 }
    }

    fn pid(key: u64) -> Name {
        Name { kind: Kind::Process, key }
    }

    fn entry(home: u16, serial: u64) -> Entry {
        Entry { object: ObjectId { birth: kernel(home), serial }, home: kernel(home) }
    }

    fn step(names: &mut Names, event: Event) -> Done {
        let mut done = Done::default();
        names.step(event, &mut done);
        done
    }

    fn in_view(me: u16, epoch: u32, members: &[u16]) -> Names {
        let mut names = Names::new(kernel(me), 3);
        let members: Vec<_> = members.iter().map(|&i| kernel(i)).collect();
        step(&mut names, Event::View { epoch, members: members.clone() });
        for peer in members {
            let request = Request::Settled { epoch };
            step(&mut names, Event::Asked { from: peer, request_id: 0, epoch, request });
        }
        names
    }

    #[test]
    fn own_names_need_no_message() {
        let mut names = in_view(1, 1, &[0, 1, 2]);
        let register = Request::Register { name: pid(300), entry: entry(1, 1), replace: false };
        let done = step(&mut names, Event::Local { op: 1, request: register });
        assert!(done.asked.is_empty());
        assert_eq!(done.completed, vec![(1, Outcome::Done)]);
        let done = step(&mut names, Event::Local { op: 2, request: Request::Lookup { name: pid(300) } });
        assert_eq!(done.completed, vec![(2, Outcome::Found(entry(1, 1)))]);
        let done = step(&mut names, Event::Local { op: 3, request: register });
        assert_eq!(done.completed, vec![(3, Outcome::Failed(Errno::EEXIST))]);
    }

    #[test]
    fn the_next_live_kernel_stands_in_and_learns_before_it_denies() {
        let mut names = in_view(2, 1, &[0, 1, 2]);
        // Kernel 1, the registrar of pid 300, dies. Kernel 2 stands in.
        let done = step(&mut names, Event::View { epoch: 2, members: vec![kernel(0), kernel(2)] });
        assert_eq!(done.asked, vec![(kernel(0), None, Request::Settled { epoch: 2 })]);
        let lookup = Request::Lookup { name: pid(300) };
        let done = step(&mut names, Event::Local { op: 1, request: lookup });
        assert!(done.completed.is_empty(), "denied before kernel 0 told what it holds");
        let told = Request::Register { name: pid(300), entry: entry(0, 9), replace: true };
        let done = step(&mut names, Event::Asked { from: kernel(0), request_id: 7, epoch: 2, request: told });
        assert_eq!(done.completed, vec![(1, Outcome::Found(entry(0, 9)))]);
        let done = step(&mut names, Event::Local { op: 2, request: Request::Lookup { name: pid(301) } });
        assert!(done.completed.is_empty());
        let settled = Request::Settled { epoch: 2 };
        let done = step(&mut names, Event::Asked { from: kernel(0), request_id: 8, epoch: 2, request: settled });
        assert_eq!(done.completed, vec![(2, Outcome::Failed(Errno::ESRCH))]);
    }

    #[test]
    fn an_operation_whose_registrar_dies_is_asked_again_in_the_next_view() {
        let mut names = in_view(0, 1, &[0, 1, 2]);
        let lookup = Request::Lookup { name: pid(300) };
        let done = step(&mut names, Event::Local { op: 1, request: lookup });
        assert_eq!(done.asked, vec![(kernel(1), Some(1), lookup)]);
        assert!(step(&mut names, Event::Lost { op: 1 }).completed.is_empty());
        let done = step(&mut names, Event::View { epoch: 2, members: vec![kernel(0), kernel(2)] });
        assert!(done.asked.contains(&(kernel(2), Some(1), lookup)));
        let done = step(&mut names, Event::Answered { op: 1, outcome: Outcome::Failed(Errno::ESRCH) });
        assert_eq!(done.completed, vec![(1, Outcome::Failed(Errno::ESRCH))]);
        assert_eq!(names.open_operations(), 0);
    }

    #[test]
    fn a_request_from_a_later_view_waits_for_it() {
        let mut names = in_view(2, 1, &[0, 1, 2]);
        let lookup = Request::Lookup { name: pid(300) };
        let done = step(&mut names, Event::Asked { from: kernel(0), request_id: 5, epoch: 2, request: lookup });
        assert!(done.answered.is_empty());
        let settled = Request::Settled { epoch: 2 };
        step(&mut names, Event::Asked { from: kernel(0), request_id: 6, epoch: 2, request: settled });
        let done = step(&mut names, Event::View { epoch: 2, members: vec![kernel(0), kernel(2)] });
        assert_eq!(done.answered, vec![(kernel(0), 5, Outcome::Failed(Errno::ESRCH))]);
    }

    #[test]
    fn a_flush_ends_with_what_was_registered_before_it() {
        let mut names = in_view(0, 1, &[0, 1]);
        assert_eq!(step(&mut names, Event::Flush { op: 1 }).completed, vec![(1, Outcome::Done)]);
        let register = |op| Event::Local {
            op,
            request: Request::Register { name: pid(300 + op), entry: entry(0, op), replace: true },
        };
        step(&mut names, register(2));
        assert!(step(&mut names, Event::Flush { op: 3 }).completed.is_empty());
        step(&mut names, register(4));
        step(&mut names, Event::Lost { op: 2 });
        let done = step(&mut names, Event::Answered { op: 4, outcome: Outcome::Done });
        assert_eq!(done.completed, vec![(4, Outcome::Done)]);
        // Its registrar died: this kernel is the next.
        let done = step(&mut names, Event::View { epoch: 2, members: vec![kernel(0)] });
        assert_eq!(done.completed, vec![(2, Outcome::Done), (3, Outcome::Done)]);
    }

    #[test]
    fn what_was_told_before_a_view_came_here_is_known_when_it_is_entered() {
        let mut names = in_view(0, 1, &[0, 1, 2]);
        let lookup = Request::Lookup { name: pid(512) };
        let asked = step(&mut names, Event::Local { op: 1, request: lookup }).asked;
        assert_eq!(asked, vec![(kernel(2), Some(1), lookup)]);
        step(&mut names, Event::Lost { op: 1 });
        // Kernel 1 is in the view already: it tells its names, and that these are all.
        let told = Request::Register { name: pid(512), entry: entry(1, 7), replace: true };
        for request in [told, Request::Settled { epoch: 2 }] {
            step(&mut names, Event::Asked { from: kernel(1), request_id: 0, epoch: 2, request });
        }
        let done = step(&mut names, Event::View { epoch: 2, members: vec![kernel(0), kernel(1)] });
        assert_eq!(done.completed, vec![(1, Outcome::Found(entry(1, 7)))]);
    }

    #[test]
    fn who_has_a_name_on_its_way_has_not_told_everything() {
        let mut names = in_view(0, 1, &[0, 1, 2]);
        step(&mut names, Event::Leaves { name: pid(300) });
        let done = step(&mut names, Event::View { epoch: 2, members: vec![kernel(0), kernel(2)] });
        assert_eq!(done.asked, vec![]);
        let done = step(&mut names, Event::Landed { name: pid(300) });
        assert_eq!(done.asked, vec![(kernel(2), None, Request::Settled { epoch: 2 })]);
    }

    #[test]
    fn names_of_the_dead_are_free() {
        let mut names = in_view(0, 1, &[0, 1]);
        let register = Request::Register { name: pid(5), entry: entry(1, 4), replace: false };
        step(&mut names, Event::Asked { from: kernel(1), request_id: 1, epoch: 1, request: register });
        assert_eq!(names.registered().count(), 1);
        step(&mut names, Event::View { epoch: 2, members: vec![kernel(0)] });
        assert_eq!(names.registered().count(), 0);
    }
}
