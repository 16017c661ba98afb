//! Where the sessions have their homes, as a state machine without I/O: one per kernel.
//!
//! A session is born where its leader calls setsid(2), and its home moves to the kernel of the terminal that it takes. All that changes it is
//! serialised at the home, so nothing may overtake anything on the way to a home that moves:
//!
//! * The old home lets everybody else stand still ([`Actions::freeze`]): a kernel that does so parks what it has for the session and says so on the
//!   lane of what it sent before. When all have said so, everything sent is there, and the state goes to the new home.
//! * The new home says that it is the home; what was parked goes there.
//! * If a home dies, everybody tells the kernel that the registrar of the session's number would be what members it has (a census), and then that
//!   it has told everything (as the names do). From this that kernel makes the session anew, without a terminal: that was with the dead.
//!
//! * If a kernel dies, its members are missed only when all have told everything: one may have moved away just before, and who has it says so first.
//!
//! # Invariants
//! * At most one kernel that runs serves a session.
//! * What one kernel has for a session is served in the order in which it was submitted, each at most once, and none is lost while no kernel dies.
//! * A move that is refused, or whose new home dies before the state left, leaves the session where it was.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};

use base::{Errno, KernelId, ObjectId};
use task::{ids::Pid, session::Member};

/// The link layer's handle for the answer to a peer's request.
pub type PeerRequest = u64;

/// A session as the messages name it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key {
    /// Its name in the machine.
    pub object: ObjectId,
    /// Its number.
    pub sid: Pid,
}

/// A home and how often it moved before it was there: what counts more is newer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Home {
    /// How often the home moved.
    pub moves: u32,
    /// The kernel.
    pub kernel: KernelId,
}

/// What happened. `T` is an operation (a request with who waits for it, or a notice).
#[derive(Debug)]
pub enum Event<T> {
    /// Somebody on this kernel has an operation for a session; `home` is where it thought that it is.
    Submit {
        /// The session.
        key: Key,
        /// As it came with the task.
        home: Home,
        /// What it wants.
        op: T,
    },
    /// An operation could not be delivered: the kernel where it went died.
    Returned {
        /// The session.
        key: Key,
        /// The operation.
        op: T,
    },
    /// A peer sent an operation here. `here`: this kernel has the session.
    Received {
        /// The peer.
        from: KernelId,
        /// The session.
        key: Key,
        /// Whether the session is here as far as the kernel knows.
        here: bool,
        /// The operation.
        op: T,
    },
    /// A peer wants to be the home, for its terminal.
    Fetch {
        /// The peer.
        from: KernelId,
        /// The session.
        key: Key,
        /// Whether the session is here as far as the kernel knows.
        here: bool,
        /// For the answer.
        request: PeerRequest,
    },
    /// The home wants this kernel to stand still: the session goes to `to`.
    Freeze {
        /// The home.
        from: KernelId,
        /// The session.
        key: Key,
        /// How often the home moved.
        moves: u32,
    },
    /// A peer stands still.
    Frozen {
        /// The peer.
        from: KernelId,
        /// The session.
        key: Key,
    },
    /// The answer to [`Actions::hand_over`]: the state is on its way.
    Left {
        /// The session.
        key: Key,
    },
    /// The answer to [`Actions::hand_over`]: it took a terminal here meanwhile, or ended.
    Stays {
        /// The session.
        key: Key,
    },
    /// The state came: this kernel is the home.
    Came {
        /// The session.
        key: Key,
        /// How often the home moved.
        moves: u32,
        /// Where its members run, as far as the old home knew.
        places: BTreeSet<KernelId>,
    },
    /// A peer says that it is the home.
    HomeIs {
        /// The peer.
        from: KernelId,
        /// The session.
        key: Key,
        /// How often the home moved.
        moves: u32,
        /// It was made anew: a kernel that did not tell its members tells them now.
        rebuilt: bool,
        /// The session ended.
        over: bool,
    },
    /// The session has no members any more; its home was this kernel.
    Over {
        /// The session.
        key: Key,
    },
    /// Nobody on this kernel uses the session any more.
    Release {
        /// The session.
        key: Key,
    },
    /// A kernel is dead and its link closed.
    Down {
        /// The kernel.
        dead: KernelId,
    },
    /// The membership has a new view.
    View {
        /// Its number; grows.
        epoch: u32,
        /// Its members, this kernel among them.
        members: Vec<KernelId>,
    },
    /// A kernel (perhaps this one) tells what members it has of a session whose home died.
    Census {
        /// The kernel.
        from: KernelId,
        /// The session.
        key: Key,
        /// How often the home had moved, as far as that kernel knows.
        moves: u32,
        /// The epoch of that kernel's view.
        epoch: u32,
        /// The members.
        members: Vec<(Pid, Member)>,
    },
    /// A peer has told all under the view of this epoch.
    Settled {
        /// The peer.
        from: KernelId,
        /// The epoch.
        epoch: u32,
    },
}

/// What the state machine wants done, in this order.
pub trait Actions<T> {
    /// The session is here: do it.
    fn serve(&mut self, key: Key, op: T);
    /// Send it to the home. If that dies first it comes back as [`Event::Returned`].
    fn send(&mut self, to: KernelId, key: Key, op: T);
    /// A peer's operation for a session that is elsewhere: a request is to be sent there by the peer, a notice by this kernel.
    fn elsewhere(&mut self, key: Key, op: T, home: Home);
    /// There is no such session any more.
    fn lost(&mut self, key: Key, op: T);
    /// Ask a peer to stand still.
    fn freeze(&mut self, to: KernelId, key: Key, moves: u32);
    /// Tell the home that this kernel stands still, behind all that was sent to it before.
    fn frozen(&mut self, to: KernelId, key: Key);
    /// Everybody stands still: take the state out and send it as the answer to the request, or refuse. Answered by [`Event::Left`] or [`Event::Stays`].
    fn hand_over(&mut self, key: Key, to: KernelId, request: PeerRequest, moves: u32);
    /// A request to become the home is refused.
    fn refuse(&mut self, request: PeerRequest, errno: Errno);
    /// A request to become the home is to be made elsewhere.
    fn moved(&mut self, request: PeerRequest, home: Home);
    /// Tell a peer that this kernel is the home.
    fn tell_home(&mut self, to: KernelId, key: Key, moves: u32, rebuilt: bool, over: bool);
    /// Tell `to` (perhaps this kernel) the members that this kernel has: [`Event::Census`].
    fn census(&mut self, to: KernelId, key: Key, moves: u32);
    /// Tell a peer that all is told under this epoch.
    fn settled(&mut self, to: KernelId, epoch: u32);
    /// Make the session anew, here.
    fn rebuild(&mut self, key: Key, members: Vec<(Pid, Member)>);
    /// What the sessions here have for members on a kernel is gone with it.
    fn bury(&mut self, dead: KernelId);
    /// Members of another kernel that the session here may not know.
    fn merge(&mut self, key: Key, members: Vec<(Pid, Member)>);
}

/// A session that is about to leave.
#[derive(Debug)]
struct Leaving {
    to: KernelId,
    request: PeerRequest,
    /// Who does not stand still yet.
    waiting: BTreeSet<KernelId>,
}

/// A session that is made anew.
#[derive(Debug)]
struct Gathering<T> {
    /// The newest view in which somebody told something.
    epoch: u32,
    /// This kernel has yet to count its own.
    own: bool,
    /// Who told its members.
    heard: BTreeSet<KernelId>,
    /// Who was asked to.
    asked: BTreeSet<KernelId>,
    /// How much waited here when this kernel counted its own because nobody had any.
    waited: usize,
    members: BTreeMap<Pid, Member>,
    /// Operations of peers.
    early: Vec<T>,
}

impl<T> Gathering<T> {
    const fn new(epoch: u32) -> Self {
        Self {
            epoch,
            own: true,
            heard: BTreeSet::new(),
            asked: BTreeSet::new(),
            waited: 0,
            members: BTreeMap::new(),
            early: Vec::new(),
        }
    }
}

#[derive(Debug)]
struct Route<T> {
    home: Home,
    /// What this kernel has for the session waits until somebody says that it is the home.
    waits: bool,
    /// It told its members to the kernel that makes the session anew.
    counted: bool,
    /// It told them once more when it heard that the session had ended.
    insisted: bool,
    parked: VecDeque<T>,
    /// So many of them came back from a home that died: they are older than what was parked since.
    returned: usize,
    leaving: Option<Leaving>,
    gathering: Option<Gathering<T>>,
}

impl<T> Route<T> {
    const fn new(home: Home) -> Self {
        Self {
            home,
            waits: false,
            counted: false,
            insisted: false,
            parked: VecDeque::new(),
            returned: 0,
            leaving: None,
            gathering: None,
        }
    }

    /// Everybody stands still, or is about to be told where the state went.
    fn is_handed_over(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| leaving.waiting.is_empty())
    }
}

/// The homes of all sessions that this kernel has to do with.
#[derive(Debug)]
pub struct Homes<T> {
    me: KernelId,
    kernels: u16,
    epoch: u32,
    members: Vec<KernelId>,
    /// Kernels whose links are closed and that are in the view.
    dead: BTreeSet<KernelId>,
    /// The newest incarnations that were in a view, by index.
    seen: BTreeMap<u16, u32>,
    /// Kernels that left the view and whose members are not missed yet.
    unburied: BTreeSet<KernelId>,
    /// Sessions that are here and never had to do with another kernel have no route.
    routes: BTreeMap<Key, Route<T>>,
    /// Members that have not told all under this view.
    unsettled: BTreeSet<KernelId>,
    /// Members that settled for a view that this kernel has not entered.
    early: BTreeMap<KernelId, u32>,
}

impl<T> Homes<T> {
    /// Of kernel `me` in a plan of `kernels` kernels, alone in its first view.
    pub fn new(me: KernelId, kernels: u16) -> Self {
        Self {
            me,
            kernels,
            epoch: 0,
            members: alloc::vec![me],
            dead: BTreeSet::new(),
            seen: [(me.index, me.incarnation)].into(),
            unburied: BTreeSet::new(),
            routes: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            early: BTreeMap::new(),
        }
    }

    /// Where a session is, as far as this kernel knows; `None`: here, or nothing is known.
    pub fn home(&self, key: Key) -> Option<Home> {
        self.routes.get(&key).map(|route| route.home)
    }

    /// The sessions that this kernel serves though other kernels have to do with them, for the simulator's invariants.
    pub fn served(&self) -> impl Iterator<Item = Key> + '_ {
        self.routes.iter().filter(|(_, r)| r.home.kernel == self.me && r.gathering.is_none()).map(|(key, _)| *key)
    }

    /// Operations that wait, for the simulator's invariants.
    pub fn waiting(&self) -> usize {
        self.routes.values().map(|r| r.parked.len() + r.gathering.as_ref().map_or(0, |g| g.early.len())).sum()
    }

    /// How many sessions are known, for the simulator's invariants.
    pub fn known(&self) -> usize {
        self.routes.len()
    }

    /// Takes one event.
    pub fn step(&mut self, event: Event<T>, actions: &mut impl Actions<T>) {
        match event {
            Event::Submit { key, home, op } => self.submit(key, home, op, actions),
            Event::Returned { key, op } => self.returned(key, op, actions),
            Event::Received { from: _, key, here, op } => self.received(key, here, op, actions),
            Event::Fetch { from, key, here, request } => self.fetch(from, key, here, request, actions),
            Event::Freeze { from, key, moves } => self.freeze(from, key, moves, actions),
            Event::Frozen { from, key } => {
                if let Some(leaving) = self.routes.get_mut(&key).and_then(|r| r.leaving.as_mut())
                    && leaving.waiting.remove(&from)
                {
                    self.maybe_hand_over(key, actions);
                }
            }
            Event::Left { key } => self.left(key, actions),
            Event::Stays { key } => self.stays(key, actions),
            Event::Came { key, moves, places } => {
                let me = self.me;
                // Who was buried here while the state was on its way.
                for place in places {
                    if self.has_left(place) && !self.unburied.contains(&place) {
                        actions.bury(place);
                    }
                }
                let route = self.routes.entry(key).or_insert(Route::new(Home { moves, kernel: me }));
                route.home = Home { moves, kernel: me };
                route.gathering = None;
                self.open(key, false, actions);
            }
            Event::HomeIs { from, key, moves, rebuilt, over } => {
                self.home_is(key, Home { moves, kernel: from }, rebuilt, over, actions);
            }
            Event::Over { key } => self.over(key, actions),
            Event::Release { key } => {
                // A home that moved is remembered until the session ends: a task that arrives may know an older one.
                let idle =
                    |r: &Route<T>| r.home.moves == 0 && r.home.kernel != self.me && !r.waits && r.parked.is_empty();
                if self.routes.get(&key).is_some_and(idle) {
                    self.routes.remove(&key);
                }
            }
            Event::Down { dead } => self.down(dead, actions),
            Event::View { epoch, members } => self.view(epoch, members, actions),
            Event::Census { from, key, moves, epoch, members } => {
                self.census(from, key, moves, epoch, members, actions);
            }
            Event::Settled { from, epoch } => {
                if epoch >= self.epoch {
                    let seen = self.early.entry(from).or_insert(epoch);
                    *seen = epoch.max(*seen);
                    self.unsettled.remove(&from);
                    self.finish(actions);
                }
            }
        }
    }

    fn peers(&self) -> Vec<KernelId> {
        self.members.iter().copied().filter(|k| *k != self.me && !self.dead.contains(k)).collect()
    }

    fn is_gone(&self, kernel: KernelId) -> bool {
        kernel != self.me && (self.dead.contains(&kernel) || !self.members.contains(&kernel))
    }

    /// Whether a kernel was in a view and is in none any more; one that nobody here has heard of is new.
    fn has_left(&self, kernel: KernelId) -> bool {
        let seen = self.seen.get(&kernel.index).is_some_and(|newest| kernel.incarnation <= *newest);
        seen && !self.members.contains(&kernel)
    }

    /// The kernel that makes a session anew whose home died: what the names would have as the registrar of its number.
    fn heir(&self, sid: Pid) -> KernelId {
        let first = names::pids::block_owner(u64::from(sid.0), self.kernels);
        let at_or_after = self.members.iter().find(|k| k.index >= first);
        at_or_after.or_else(|| self.members.first()).copied().unwrap_or(self.me)
    }

    fn submit(&mut self, key: Key, home: Home, op: T, actions: &mut impl Actions<T>) {
        let me = self.me;
        let known = self.routes.get(&key).map_or(home, |route| route.home);
        // It died before this kernel had to do with the session: the view that says so has been here, or comes.
        let gone = self.is_gone(known.kernel);
        let new = !self.routes.contains_key(&key);
        let route = self.routes.entry(key).or_insert_with(|| Route { waits: gone, ..Route::new(home) });
        if route.waits || route.is_handed_over() || !route.parked.is_empty() {
            route.parked.push_back(op);
        } else if route.home.kernel == me {
            actions.serve(key, op);
        } else {
            let to = route.home.kernel;
            actions.send(to, key, op);
        }
        if new && gone && !self.dead.contains(&home.kernel) {
            self.bereave(key, actions);
        }
    }

    fn returned(&mut self, key: Key, op: T, actions: &mut impl Actions<T>) {
        let Some(route) = self.routes.get_mut(&key) else { return actions.lost(key, op) };
        if !route.waits && route.home.kernel != self.me && !self.dead.contains(&route.home.kernel) {
            let to = route.home.kernel;
            return actions.send(to, key, op);
        }
        if !route.waits && route.home.kernel == self.me {
            return actions.serve(key, op);
        }
        route.parked.insert(route.returned, op);
        route.returned += 1;
    }

    fn received(&mut self, key: Key, here: bool, op: T, actions: &mut impl Actions<T>) {
        match self.routes.get_mut(&key) {
            Some(route) if route.home.kernel == self.me => {
                if route.is_handed_over() {
                    route.parked.push_back(op);
                } else if let Some(gathering) = &mut route.gathering {
                    gathering.early.push(op);
                } else {
                    actions.serve(key, op);
                }
            }
            Some(route) => {
                let home = route.home;
                actions.elsewhere(key, op, home);
            }
            None if here => actions.serve(key, op),
            None => actions.lost(key, op),
        }
    }

    fn fetch(&mut self, from: KernelId, key: Key, here: bool, request: PeerRequest, actions: &mut impl Actions<T>) {
        let me = self.me;
        if here {
            self.routes.entry(key).or_insert(Route::new(Home { moves: 0, kernel: me }));
        }
        let peers = self.peers();
        let Some(route) = self.routes.get_mut(&key) else { return actions.refuse(request, Errno::ESRCH) };
        if route.home.kernel != me {
            let home = route.home;
            return actions.moved(request, home);
        }
        if route.leaving.is_some() || route.gathering.is_some() || !peers.contains(&from) {
            return actions.refuse(request, Errno::EBUSY);
        }
        for peer in &peers {
            actions.freeze(*peer, key, route.home.moves);
        }
        route.leaving = Some(Leaving { to: from, request, waiting: peers.into_iter().collect() });
    }

    fn freeze(&mut self, from: KernelId, key: Key, moves: u32, actions: &mut impl Actions<T>) {
        let home = Home { moves, kernel: from };
        let route = self.routes.entry(key).or_insert(Route::new(home));
        if route.home.moves > moves {
            return;
        }
        route.home = home;
        route.waits = true;
        actions.frozen(from, key);
    }

    fn maybe_hand_over(&mut self, key: Key, actions: &mut impl Actions<T>) {
        let Some(route) = self.routes.get(&key).filter(|r| r.is_handed_over()) else { return };
        if let Some(leaving) = &route.leaving {
            actions.hand_over(key, leaving.to, leaving.request, route.home.moves + 1);
        }
    }

    fn left(&mut self, key: Key, actions: &mut impl Actions<T>) {
        if let Some(route) = self.routes.get_mut(&key)
            && let Some(leaving) = route.leaving.take()
        {
            route.home = Home { moves: route.home.moves + 1, kernel: leaving.to };
            route.waits = true;
            if !self.members.contains(&leaving.to) {
                self.bereave(key, actions);
            }
        }
    }

    fn stays(&mut self, key: Key, actions: &mut impl Actions<T>) {
        if let Some(route) = self.routes.get_mut(&key) {
            route.leaving = None;
            self.open(key, false, actions);
        }
    }

    /// This kernel is the home: all may go on.
    fn open(&mut self, key: Key, rebuilt: bool, actions: &mut impl Actions<T>) {
        let Some(route) = self.routes.get_mut(&key) else { return };
        route.waits = false;
        route.counted = false;
        route.insisted = false;
        route.returned = 0;
        for op in core::mem::take(&mut route.parked) {
            actions.serve(key, op);
        }
        let moves = route.home.moves;
        for peer in self.peers() {
            actions.tell_home(peer, key, moves, rebuilt, false);
        }
    }

    fn home_is(&mut self, key: Key, home: Home, rebuilt: bool, over: bool, actions: &mut impl Actions<T>) {
        if over {
            let Some(route) = self.routes.get_mut(&key) else { return };
            if home.moves < route.home.moves || route.home.kernel == self.me {
                return;
            }
            if route.parked.is_empty() || route.insisted {
                return self.forget(key, actions);
            }
            // Who waits here may be a member that arrived when this kernel had counted, and had left when the other one did.
            route.insisted = true;
            route.home = home;
            route.waits = true;
            return actions.census(home.kernel, key, home.moves);
        }
        let route = self.routes.entry(key).or_insert(Route::new(home));
        if home.moves < route.home.moves {
            return;
        }
        if rebuilt && !route.counted {
            actions.census(home.kernel, key, home.moves);
        }
        if let Some(gathering) = route.gathering.take() {
            for op in gathering.early {
                actions.elsewhere(key, op, home);
            }
        }
        route.home = home;
        route.waits = false;
        route.counted = false;
        route.insisted = false;
        route.returned = 0;
        for op in core::mem::take(&mut route.parked) {
            actions.send(home.kernel, key, op);
        }
    }

    fn forget(&mut self, key: Key, actions: &mut impl Actions<T>) {
        let Some(route) = self.routes.remove(&key) else { return };
        for op in route.parked {
            actions.lost(key, op);
        }
        if let Some(gathering) = route.gathering {
            for op in gathering.early {
                actions.lost(key, op);
            }
        }
        if let Some(leaving) = route.leaving {
            actions.refuse(leaving.request, Errno::ESRCH);
        }
    }

    fn over(&mut self, key: Key, actions: &mut impl Actions<T>) {
        let Some(route) = self.routes.get(&key).filter(|r| r.home.kernel == self.me) else { return };
        let moves = route.home.moves;
        // Others remember a session whose home moved, or that was about to.
        if moves > 0 || route.leaving.is_some() {
            for peer in self.peers() {
                actions.tell_home(peer, key, moves, false, true);
            }
        }
        self.forget(key, actions);
    }

    fn down(&mut self, dead: KernelId, actions: &mut impl Actions<T>) {
        self.dead.insert(dead);
        let keys: Vec<Key> = self.routes.keys().copied().collect();
        for key in keys {
            let Some(route) = self.routes.get_mut(&key) else { continue };
            if route.home.kernel == dead {
                // The next view says who makes it anew.
                route.waits = true;
            }
            let Some(leaving) = &mut route.leaving else { continue };
            let was_handed_over = leaving.waiting.is_empty();
            leaving.waiting.remove(&dead);
            if leaving.to == dead && !was_handed_over {
                actions.refuse(leaving.request, Errno::EHOSTDOWN);
                self.stays(key, actions);
            } else if !was_handed_over {
                self.maybe_hand_over(key, actions);
            }
        }
    }

    fn view(&mut self, epoch: u32, mut members: Vec<KernelId>, actions: &mut impl Actions<T>) {
        if epoch <= self.epoch {
            return;
        }
        members.sort_unstable();
        self.unburied.extend(self.members.iter().filter(|k| !members.contains(k)));
        for kernel in &members {
            let newest = self.seen.entry(kernel.index).or_insert(kernel.incarnation);
            *newest = kernel.incarnation.max(*newest);
        }
        self.members = members;
        self.epoch = epoch;
        let now = &self.members;
        self.dead.retain(|k| now.contains(k));
        self.early.retain(|k, _| now.contains(k));
        self.unsettled = now.iter().copied().filter(|k| *k != self.me).collect();
        for (peer, _) in self.early.iter().filter(|(_, e)| **e >= epoch) {
            self.unsettled.remove(peer);
        }
        let peers = self.peers();
        let keys: Vec<Key> = self.routes.keys().copied().collect();
        for key in keys {
            let Some(route) = self.routes.get(&key) else { continue };
            let home = route.home;
            if home.kernel != self.me {
                if !self.members.contains(&home.kernel) {
                    self.bereave(key, actions);
                }
            } else if route.gathering.is_none() && home.moves > 0 {
                // Somebody may have heard of it from a kernel that died in the middle of the move.
                for peer in &peers {
                    actions.tell_home(*peer, key, home.moves, false, false);
                }
            }
        }
        for peer in peers {
            actions.settled(peer, epoch);
        }
        self.finish(actions);
    }

    /// The home died: this kernel's members are told to who makes the session anew.
    fn bereave(&mut self, key: Key, actions: &mut impl Actions<T>) {
        let heir = self.heir(key.sid);
        let (me, epoch) = (self.me, self.epoch);
        let Some(route) = self.routes.get_mut(&key) else { return };
        let moves = route.home.moves;
        route.home.kernel = heir;
        route.waits = true;
        route.counted = true;
        if heir == me {
            route.gathering.get_or_insert(Gathering::new(epoch)).own = true;
        }
        actions.census(heir, key, moves);
    }

    fn census(
        &mut self,
        from: KernelId,
        key: Key,
        moves: u32,
        epoch: u32,
        members: Vec<(Pid, Member)>,
        actions: &mut impl Actions<T>,
    ) {
        let me = self.me;
        match self.routes.get_mut(&key) {
            // Late, or after it was made anew.
            Some(route) if route.home.kernel == me && route.gathering.is_none() => {
                let moves = route.home.moves;
                actions.merge(key, members);
                return actions.tell_home(from, key, moves, false, false);
            }
            // It was told twice who makes it anew; this kernel knows better who has it.
            Some(route) if route.gathering.is_none() && !route.waits && route.home.moves > moves => return,
            _ => {}
        }
        let route = self.routes.entry(key).or_insert(Route::new(Home { moves, kernel: me }));
        let new = route.gathering.is_none();
        route.waits = true;
        route.home = Home { moves: route.home.moves.max(moves), kernel: me };
        let gathering = route.gathering.get_or_insert_with(|| Gathering::new(epoch));
        gathering.epoch = gathering.epoch.max(epoch);
        gathering.members.extend(members);
        gathering.own &= from != me;
        gathering.heard.insert(from);
        if new && from != me {
            let moves = route.home.moves;
            actions.census(me, key, moves);
        }
        self.finish(actions);
    }

    /// All have told all: who is still on a kernel that died is gone, and the sessions are made anew whose members were told.
    fn finish(&mut self, actions: &mut impl Actions<T>) {
        if !self.unsettled.is_empty() {
            return;
        }
        while let Some(dead) = self.unburied.pop_first() {
            actions.bury(dead);
        }
        let ready = |r: &Route<T>| r.gathering.as_ref().is_some_and(|g| g.epoch <= self.epoch && !g.own);
        let keys: Vec<Key> = self.routes.iter().filter(|(_, r)| ready(r)).map(|(key, _)| *key).collect();
        let peers = self.peers();
        for key in keys {
            let Some(route) = self.routes.get_mut(&key) else { continue };
            let Some(mut gathering) = route.gathering.take() else { continue };
            let mut left = core::mem::take(&mut gathering.members);
            let now = &self.members;
            left.retain(|_, member| now.contains(&member.place));
            let nobody = left.is_empty();
            // A member may have arrived when this kernel had counted, and waits here.
            if nobody && route.parked.len() > gathering.waited {
                gathering.waited = route.parked.len();
                gathering.own = true;
                actions.census(self.me, key, route.home.moves);
                route.gathering = Some(gathering);
                continue;
            }
            // Who stands still for a home that lives does not know that the state was lost on its way to one that died, and has told nothing.
            let unheard: Vec<_> = peers.iter().copied().filter(|k| !gathering.heard.contains(k)).collect();
            if nobody && !unheard.is_empty() {
                for peer in unheard {
                    if gathering.asked.insert(peer) {
                        actions.tell_home(peer, key, route.home.moves, true, false);
                    }
                }
                route.gathering = Some(gathering);
                continue;
            }
            route.home = Home { moves: route.home.moves + 1, kernel: self.me };
            if nobody {
                for op in gathering.early {
                    actions.lost(key, op);
                }
                self.over(key, actions);
                continue;
            }
            actions.rebuild(key, left.into_iter().collect());
            // What this kernel parked is older than what came from others only by chance; each kernel's own order is what counts.
            for op in gathering.early {
                actions.serve(key, op);
            }
            self.open(key, true, actions);
        }
    }
}
