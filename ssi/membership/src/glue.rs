//! Membership on one kernel: the state machine between the links, the signs of kernels and the services. It holds no protocol state.

use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
    vec::Vec,
};

use base::{Errno, KernelId};
use hal::sync::Once;
use link::{
    Carrier, Facts, Guilt, Handler, Hooks, Incoming, Links, Sign, Signs, State as Shown,
    lock::{LINK, LINK_REQUESTS, Lock, ReadMostly},
};
use objects::{from_wire, to_wire};

use crate::{
    codec,
    config::Config,
    state::{Membership, Phase},
    types::{Actions, Claim, Event, Message, Outcome, View},
};

/// What membership asks of the kernel that it runs on. Called without locks, on the receive path or from a timer: nothing here waits.
pub trait Machine: Send + Sync {
    /// The kernel's clock in ns.
    fn now(&self) -> u64;
    /// A peer's message carried this time: step the clock forward if it is behind.
    fn step_forward(&self, clock: u64);
    /// Call [`MembershipService::tick`] at this time at the latest. The earliest request counts.
    fn set_alarm(&self, at: u64);
    /// What this kernel says of itself; the epoch is filled in.
    fn facts(&self) -> Facts;
    /// Stops the CPUs of a kernel, then its bus mastering; this kernel won its fence word.
    fn fence(&self, victim: KernelId) -> Outcome;
    /// A view is proposed without these: unmap what was theirs.
    fn let_go(&self, excluded: &[(KernelId, Outcome)]);
    /// All survivors have let go of these: what they had may be used again, unless they are lost.
    fn free(&self, excluded: &[(KernelId, Outcome)]);
    /// This kernel may not go on.
    fn park(&self, why: &'static str);
}

/// A service that depends on who is there. Called on the receive path or from a timer, without locks, in the order in which services were
/// added.
pub trait Service: Send + Sync {
    /// The kernel is dead and stopped; its link is closed, and requests to it were answered.
    fn peer_down(&self, dead: KernelId);
    /// A view is in force.
    fn view(&self, view: &View);
}

/// What is to be done after the state machine's lock is dropped, in order.
enum Effect {
    Send(KernelId, Message),
    Fence(KernelId),
    Down(KernelId),
    Outlived(KernelId),
    Prepare(View, Vec<(KernelId, Outcome)>),
    Install(View, Vec<(KernelId, Outcome)>),
    Park(&'static str),
    Wake(u64),
}

#[derive(Default)]
struct Queue {
    effects: VecDeque<Effect>,
    /// Somebody is at it, and does what is added too.
    busy: bool,
}

/// The signs of whoever runs at an index, by the best carrier that reaches it.
fn signs_at(links: &Links, index: u16) -> Option<Signs> {
    links.carriers().iter().find_map(|carrier| carrier.signs(index))
}

struct Hands<'a> {
    links: &'a Links,
    effects: &'a mut VecDeque<Effect>,
}

impl Actions for Hands<'_> {
    fn send(&mut self, to: KernelId, message: Message) {
        self.effects.push_back(Effect::Send(to, message));
    }
    fn claim_fence(&mut self, victim: KernelId, expected: u64, claim: u64) -> Claim {
        if signs_at(self.links, victim.index).is_some_and(|signs| signs.owner.incarnation > victim.incarnation) {
            // A later incarnation lives there: the victim is long stopped, and its word is not ours to touch.
            return Claim::Was(expected);
        }
        let mut carriers = self.links.carriers().iter();
        carriers
            .find_map(|carrier| carrier.claim_fence(victim.index, expected, claim))
            .map_or(Claim::Unreachable, Claim::Was)
    }
    fn fence(&mut self, victim: KernelId) {
        self.effects.push_back(Effect::Fence(victim));
    }
    fn down(&mut self, victim: KernelId) {
        self.effects.push_back(Effect::Down(victim));
    }
    fn outlived(&mut self, member: KernelId) {
        self.effects.push_back(Effect::Outlived(member));
    }
    fn prepare(&mut self, view: &View, excluded: &[(KernelId, Outcome)]) {
        self.effects.push_back(Effect::Prepare(view.clone(), excluded.to_vec()));
    }
    fn install(&mut self, view: &View, excluded: &[(KernelId, Outcome)]) {
        self.effects.push_back(Effect::Install(view.clone(), excluded.to_vec()));
    }
    fn park(&mut self, why: &'static str) {
        self.effects.push_back(Effect::Park(why));
    }
    fn wake_at(&mut self, at: u64) {
        self.effects.push_back(Effect::Wake(at));
    }
}

/// What the links ask, passed on to the service once it is there.
struct Bridge {
    machine: Arc<dyn Machine>,
    service: Once<Weak<MembershipService>>,
}

impl Bridge {
    fn service(&self) -> Option<Arc<MembershipService>> {
        self.service.get()?.upgrade()
    }
}

impl Hooks for Bridge {
    fn now(&self) -> u64 {
        self.machine.now()
    }
    fn step_forward(&self, clock: u64) {
        self.machine.step_forward(clock);
    }
    fn facts(&self) -> Facts {
        let epoch = self.service().map_or(0, |s| s.state.lock().view().epoch);
        Facts { epoch, ..self.machine.facts() }
    }
    fn admit(&self, peer: wire::KernelId) -> bool {
        let known = |s: Arc<MembershipService>| peer.index < s.kernels && !s.state.lock().is_dead(from_wire(peer));
        self.service().is_some_and(known)
    }
    fn hello(&self, peer: wire::KernelId, facts: Facts) {
        if let Some(service) = self.service() {
            let new = service.peers.lock().insert(from_wire(peer), facts).is_none();
            if new {
                // Of many kernels that is a line from each about each, of what the plan says anyway.
                let level = if service.kernels > 8 { log::Level::Debug } else { log::Level::Info };
                log::log!(level, "hello, kernel {peer}: {} CPUs, {} MiB", facts.cpus, facts.memory >> 20);
            }
        }
    }
    fn guilty(&self, peer: wire::KernelId, guilt: Guilt) {
        log::error!("kernel {peer} broke the rules: {guilt:?}");
        // Another version or plan is spoken with as far as that goes, or not at all; it is not broken.
        if matches!(guilt, Guilt::Message(_) | Guilt::Lane(_) | Guilt::Group)
            && let Some(service) = self.service()
        {
            // Whoever found it may hold locks.
            service.guilty.lock().push(from_wire(peer));
            self.machine.set_alarm(self.machine.now());
        }
    }
    fn poked(&self, index: u16) {
        if let Some(service) = self.service() {
            service.look(index);
        }
    }
    fn set_alarm(&self, at: u64) {
        self.machine.set_alarm(at);
    }
}

/// Membership of one kernel.
pub struct MembershipService {
    me: KernelId,
    kernels: u16,
    links: Arc<Links>,
    machine: Arc<dyn Machine>,
    state: Lock<Membership>,
    queue: Lock<Queue>,
    services: ReadMostly<Vec<Arc<dyn Service>>>,
    /// What peers said of themselves.
    peers: Lock<BTreeMap<KernelId, Facts>>,
    /// The last deaths, oldest first.
    deaths: Lock<VecDeque<Death>>,
    /// Who broke the rules since the last tick.
    guilty: Lock<Vec<KernelId>>,
    /// Who said goodbye, by index: a sign that says so may be lost where there is no porch.
    goodbyes: Lock<BTreeMap<u16, KernelId>>,
}

/// A death, as one survivor saw it. Times in ns of the machine's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Death {
    /// Who.
    pub kernel: KernelId,
    /// It had said goodbye.
    pub orderly: bool,
    /// How it was stopped.
    pub outcome: Outcome,
    /// When it began to die, if it could say so.
    pub ended: Option<u64>,
    /// When the last service here had been told.
    pub told: u64,
}

/// How many deaths are remembered.
const DEATHS: usize = 256;

impl MembershipService {
    /// The links and the membership of kernel `me` in a plan of `kernels` kernels; the first carrier that reaches another one is used for it; `boards` as
    /// [`Membership::new`] has it. Nothing happens before [`Self::found`] or [`Self::enter`].
    pub fn new(
        me: KernelId,
        kernels: u16,
        carriers: Vec<Arc<dyn Carrier>>,
        machine: Arc<dyn Machine>,
        config: Config,
        boards: Vec<usize>,
    ) -> Arc<Self> {
        let bridge = Arc::new(Bridge { machine: machine.clone(), service: Once::new() });
        let links = Arc::new(Links::new(to_wire(me), bridge.clone(), carriers));
        let service = Arc::new(Self {
            me,
            kernels,
            links: links.clone(),
            machine,
            state: Lock::new(Membership::new(me, config, boards)),
            queue: Lock::ranked(LINK, Queue::default()),
            services: ReadMostly::new(Vec::new()),
            peers: Lock::new(BTreeMap::new()),
            deaths: Lock::new(VecDeque::new()),
            guilty: Lock::ranked(LINK_REQUESTS, Vec::new()),
            goodbyes: Lock::new(BTreeMap::new()),
        });
        // Neither can be there already: both were made a moment ago.
        let _ = bridge.service.set(Arc::downgrade(&service));
        let _ = links.register("membership", service.clone());
        service
    }

    /// The links, for the other services.
    pub const fn links(&self) -> &Arc<Links> {
        &self.links
    }

    /// Adds a service; before this kernel enters a view.
    pub fn add(&self, service: Arc<dyn Service>) {
        self.services.write().push(service);
    }

    fn services(&self) -> Vec<Arc<dyn Service>> {
        self.services.read().clone()
    }

    /// The view in force.
    pub fn view(&self) -> View {
        self.state.lock().view().clone()
    }

    /// What this kernel is.
    pub fn phase(&self) -> Phase {
        self.state.lock().phase()
    }

    /// Whether a kernel is known to be dead.
    pub fn is_dead(&self, kernel: KernelId) -> bool {
        self.state.lock().is_dead(kernel)
    }

    /// How the last dead incarnation of an index ended.
    pub fn outcome(&self, index: u16) -> Option<Outcome> {
        self.state.lock().outcome(index)
    }

    /// Whether a kernel is silent and being probed.
    pub fn is_suspect(&self, kernel: KernelId) -> bool {
        self.state.lock().is_suspect(kernel)
    }

    /// Whether this incarnation said goodbye, by its word or by its signs.
    pub fn is_orderly(&self, kernel: KernelId) -> bool {
        self.goodbyes.lock().get(&kernel.index) == Some(&kernel)
            || self.signs_of(kernel).is_some_and(|signs| signs.state == Some(Shown::Stopped))
    }

    /// Since when a kernel is a member, by its own word, in ns of the machine's clock.
    pub fn since(&self, kernel: KernelId) -> Option<u64> {
        Some(self.signs_of(kernel)?.since).filter(|at| *at != 0)
    }

    /// The last deaths that this kernel saw, oldest first.
    pub fn deaths(&self) -> Vec<Death> {
        self.deaths.lock().iter().copied().collect()
    }

    /// The signs of this very incarnation.
    fn signs_of(&self, kernel: KernelId) -> Option<Signs> {
        signs_at(&self.links, kernel.index).filter(|signs| signs.owner == to_wire(kernel))
    }

    /// Gives a sign by all carriers: whoever sees one of them sees it.
    fn show(&self, sign: Sign<'_>) {
        self.links.carriers().iter().for_each(|carrier| carrier.show(sign));
    }

    fn announce(&self) {
        self.links.carriers().iter().for_each(|carrier| carrier.announce(self.kernels));
    }

    /// What a peer said of itself in Hello.
    pub fn facts_of(&self, kernel: KernelId) -> Option<Facts> {
        self.peers.lock().get(&kernel).copied()
    }

    /// This kernel is the first of the machine.
    pub fn found(&self) {
        self.show(Sign::State(Shown::Running));
        self.step(Event::Found);
    }

    /// This kernel was started by `starter`.
    pub fn enter(&self, starter: u16) {
        self.show(Sign::State(Shown::Running));
        let mut contacts = self.present();
        contacts.sort_by_key(|k| (k.index != starter, k.index));
        self.step(Event::Enter { contacts });
        // What was sent before this kernel could listen is looked at now.
        self.doorbell();
    }

    /// This kernel stops: tells the others. The caller stops its CPUs some time after.
    pub fn leave(&self) {
        self.show(Sign::Ended(self.machine.now()));
        // First this: who hears the goodbye may stop this CPU at once, and then looks here whether it was in good order.
        self.show(Sign::State(Shown::Stopped));
        self.step(Event::Leave);
        self.announce();
    }

    /// This kernel dies since `began`. Takes no lock; may be called from anywhere.
    pub fn dying(&self, reason: &str, began: u64) {
        self.show(Sign::Ended(began));
        self.show(Sign::Dying(reason));
        self.announce();
    }

    /// This kernel is about to stand still without a word: notes when, for those who measure how long it takes to be noticed.
    pub fn falls_silent(&self) {
        self.show(Sign::Ended(self.machine.now()));
    }

    /// The doorbell rang, or it is time to poll.
    pub fn doorbell(&self) {
        while self.links.receive(64) {}
    }

    /// Time passed. Says when to call again at the latest.
    pub fn tick(&self) {
        self.show(Sign::Beat);
        let ticked = self.links.tick();
        for peer in ticked.overdue {
            self.step(Event::Overdue { peer: from_wire(peer) });
        }
        if let Some(next) = ticked.next {
            self.machine.set_alarm(next);
        }
        let (watched, outside) = {
            let state = self.state.lock();
            (state.watched(), state.phase() == Phase::Outside)
        };
        let held = (0..self.kernels).filter_map(|index| signs_at(&self.links, index)).any(|signs| signs.held);
        let mut events = alloc::vec![Event::Hold(held)];
        if let Some(peer) = watched {
            self.look(peer.index);
            if let Some(signs) = self.signs_of(peer) {
                let heard = self.links.peer(to_wire(peer)).map_or(0, |p| p.heard());
                events.push(Event::Beat { peer, count: signs.beats.wrapping_add(heard) });
            }
        }
        if outside {
            events.push(Event::Enter { contacts: self.present() });
        }
        let guilty = core::mem::take(&mut *self.guilty.lock());
        events.extend(guilty.into_iter().map(|peer| Event::Guilty { peer }));
        events.push(Event::Tick);
        self.steps(events);
    }

    /// A request to this kernel is overdue.
    pub fn suspect(&self, peer: KernelId) {
        self.step(Event::Overdue { peer });
    }

    /// Lets no incarnation before this one in any more: see [`Membership::bar`].
    pub fn bar(&self, next: KernelId) -> bool {
        self.state.lock().bar(next)
    }

    /// Who shows itself at an index, alive or not.
    pub fn present_at(&self, index: u16) -> Option<KernelId> {
        self.links.carriers().iter().find_map(|carrier| carrier.present(index)).map(from_wire)
    }

    /// The kernels that show themselves.
    fn present(&self) -> Vec<KernelId> {
        let others = (0..self.kernels).filter(|i| *i != self.me.index);
        others.filter_map(|index| self.present_at(index)).collect()
    }

    /// Looks whether a kernel shows that it dies or stops, or that its board has been started again.
    fn look(&self, index: u16) {
        let Some(signs) = signs_at(&self.links, index) else { return };
        let shows = from_wire(signs.owner);
        let ends = signs.state.is_some_and(Shown::is_end);
        let peer = {
            let state = self.state.lock();
            let before = state.view().at(index).filter(|old| old.incarnation < shows.incarnation);
            before.or(ends.then_some(shows)).filter(|peer| !state.is_dead(*peer))
        };
        let Some(peer) = peer else { return };
        if peer == shows && signs.state == Some(Shown::Dying) {
            let mut reasons = self.links.carriers().iter().map(|carrier| carrier.reason(index));
            log::error!("kernel {peer} panicked: {}", reasons.find(|why| !why.is_empty()).unwrap_or_default());
        }
        self.step(Event::Dying { peer });
    }

    fn step(&self, event: Event) {
        self.steps([event]);
    }

    /// Several events as one: only when to wake after the last of them counts. Before the tick it would be at once, for the tick.
    fn steps(&self, events: impl IntoIterator<Item = Event>) {
        let now = self.machine.now();
        {
            // The effects of a step are queued before the next step can be made.
            let mut state = self.state.lock();
            let mut effects = VecDeque::new();
            for event in events {
                effects.retain(|effect| !matches!(effect, Effect::Wake(_)));
                state.step(now, event, &mut Hands { links: &self.links, effects: &mut effects });
            }
            self.queue.lock().effects.append(&mut effects);
        }
        self.work();
    }

    /// Does what is queued. One CPU at a time, in order; whoever comes meanwhile leaves its part to that one.
    fn work(&self) {
        loop {
            let effect = {
                let mut queue = self.queue.lock();
                if queue.busy {
                    return;
                }
                match queue.effects.pop_front() {
                    Some(effect) => {
                        queue.busy = true;
                        effect
                    }
                    None => return,
                }
            };
            self.apply(effect);
            self.queue.lock().busy = false;
        }
    }

    fn apply(&self, effect: Effect) {
        match effect {
            Effect::Send(to, message) => {
                // A peer that cannot be reached is dead or about to be noticed; the protocol repeats what matters.
                if let Err(error) = codec::send(&self.links, to, &message, |dead| self.is_orderly(dead))
                    && error.errno != Errno::EHOSTDOWN
                {
                    log::warn!("membership: {error}");
                }
            }
            Effect::Wake(at) => self.machine.set_alarm(at),
            Effect::Fence(victim) => {
                let newer = self.present_at(victim.index).is_some_and(|k| k.incarnation > victim.incarnation);
                let outcome = if newer { Outcome::Fenced } else { self.machine.fence(victim) };
                if self.is_orderly(victim) && outcome != Outcome::Lost {
                    log::info!("kernel {victim} is stopped: {outcome:?}");
                } else {
                    log::warn!("kernel {victim} is stopped: {outcome:?}");
                }
                self.step(Event::Fenced { victim, outcome });
            }
            Effect::Down(victim) => {
                let orderly = self.is_orderly(victim);
                if orderly {
                    log::info!("kernel {victim} is off");
                } else {
                    log::warn!("kernel {victim} is dead");
                }
                let ended = self.signs_of(victim).and_then(|signs| signs.ended);
                self.links.peer_down(to_wire(victim));
                self.peers.lock().remove(&victim);
                for service in self.services() {
                    service.peer_down(victim);
                }
                let outcome = self.outcome(victim.index).unwrap_or(Outcome::Lost);
                let death = Death { kernel: victim, orderly, outcome, ended, told: self.machine.now() };
                let mut deaths = self.deaths.lock();
                if deaths.len() == DEATHS {
                    deaths.pop_front();
                }
                deaths.push_back(death);
            }
            Effect::Outlived(member) => {
                let old = |k: KernelId| k.index == member.index && k.incarnation < member.incarnation;
                for peer in self.links.peers().iter().filter(|peer| old(from_wire(peer.id))) {
                    self.links.peer_down(peer.id);
                }
                self.peers.lock().retain(|peer, _| !old(*peer));
            }
            Effect::Prepare(view, excluded) => {
                self.machine.let_go(&excluded);
                self.step(Event::Prepared { epoch: view.epoch });
            }
            Effect::Install(view, excluded) => {
                log::info!("view {view}");
                if self.since(self.me).is_none() {
                    self.show(Sign::Since(self.machine.now()));
                }
                self.links.set_epoch(view.epoch);
                self.machine.free(&excluded);
                for service in self.services() {
                    service.view(&view);
                }
            }
            Effect::Park(why) => {
                self.show(Sign::State(Shown::Parked));
                self.machine.park(why);
            }
        }
    }
}

impl Handler for MembershipService {
    fn handle(&self, _: &Links, incoming: &Incoming<'_>) -> link::Result<()> {
        let from = from_wire(incoming.from);
        match codec::read(incoming)? {
            Some((message, goodbye)) => {
                if let Some(gone) = goodbye {
                    let mut goodbyes = self.goodbyes.lock();
                    let last = goodbyes.entry(gone.index).or_insert(gone);
                    // Of an earlier life nobody asks any more.
                    last.incarnation = last.incarnation.max(gone.incarnation);
                }
                self.step(Event::Received { from, message });
            }
            None => return Err(link::Error::new(Errno::EBADMSG, "no message of membership", incoming.from)),
        }
        Ok(())
    }
}
