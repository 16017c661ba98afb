//! The lives of kernels on one kernel: the state machine between the links, the membership and the hands of `boot`. It holds no protocol state.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};

use base::{Errno, Error, KernelId, TryResult, wait::done};
use link::{
    Handler, Incoming, Links,
    lock::{LINK, Lock},
};
use membership::{Service, View};
use objects::{Completer, call, from_wire, to_wire};
use wire::{
    Message as _, ObjectId,
    resources::{Drain, Drained, Order, OrderDone, order},
};

use crate::{
    codec,
    rows::{Phase, Row},
    state::Life,
    types::{Actions, Config, Event, Message, Seat, Ticket, What},
};

/// How long a kernel has to answer an order, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;
/// How long peers may take to handle the last messages of a kernel that stops, in nanoseconds.
const DRAIN: u64 = 5_000_000_000;

/// What is asked of the kernel that this runs on. Called without locks, on the receive path or from a timer: nothing here waits.
pub trait Machine: Send + Sync {
    /// The kernel's clock in ns.
    fn now(&self) -> u64;
    /// Stops the CPUs of an index, loads its image and starts it, in a thread; then [`LifeService::loaded`] is called.
    fn load(&self, kernel: KernelId);
    /// Stops the CPUs of a kernel that did not come up.
    fn abort(&self, kernel: KernelId);
    /// This kernel is to end its processes and say goodbye.
    fn wind_down(&self);
    /// A peer ordered this (`wire::resources::order`); may not return.
    fn obey(&self, order: u8);
    /// How a dead kernel ended: whether it had said goodbye, whether it could not be stopped.
    fn ended(&self, kernel: KernelId) -> (bool, bool);
    /// Lets no earlier incarnation of the index into a view any more. `false` if one is in, or on its way in.
    fn bar(&self, kernel: KernelId) -> bool;
    /// The incarnation that the porch of an index names; 0 for none.
    fn written(&self, index: u16) -> u32;
    /// Call [`LifeService::tick`] at this time; `None`: not at all. The last word counts.
    fn set_alarm(&self, at: Option<u64>);
}

/// What is to be done after the state machine's lock is dropped, in order.
enum Effect {
    Send(KernelId, Message),
    Bar(KernelId),
    Load(KernelId),
    Abort(KernelId),
    WindDown,
    Done(Ticket, Result<(), Errno>),
    Alarm(Option<u64>),
}

#[derive(Default)]
struct Queue {
    effects: VecDeque<Effect>,
    /// Somebody is at it, and does what is added too.
    busy: bool,
}

struct Hands<'a>(&'a mut VecDeque<Effect>, &'a dyn Machine);

impl Actions for Hands<'_> {
    fn send(&mut self, to: KernelId, message: Message) {
        self.0.push_back(Effect::Send(to, message));
    }
    fn load(&mut self, kernel: KernelId) {
        self.0.push_back(Effect::Load(kernel));
    }
    fn abort(&mut self, kernel: KernelId) {
        self.0.push_back(Effect::Abort(kernel));
    }
    fn wind_down(&mut self) {
        self.0.push_back(Effect::WindDown);
    }
    fn done(&mut self, ticket: Ticket, result: Result<(), Errno>) {
        self.0.push_back(Effect::Done(ticket, result));
    }
    fn bar(&mut self, kernel: KernelId) {
        self.0.push_back(Effect::Bar(kernel));
    }
    fn written(&mut self, index: u16) -> u32 {
        self.1.written(index)
    }
}

struct Waiting {
    next: Ticket,
    /// Programs that wait for an order.
    orders: BTreeMap<Ticket, Completer<()>>,
    /// Programs that wait for a death.
    deaths: Vec<(KernelId, Completer<()>)>,
}

/// See the module.
pub struct LifeService {
    links: Arc<Links>,
    machine: Arc<dyn Machine>,
    state: Lock<Life>,
    queue: Lock<Queue>,
    waiting: Lock<Waiting>,
}

impl LifeService {
    /// The service of the kernel whose links these are; kernel `i` of the plan has `seats[i]`. Register it for the family `resources`, and add
    /// it to the membership.
    pub fn new(links: Arc<Links>, seats: Vec<Seat>, machine: Arc<dyn Machine>, config: Config) -> Arc<Self> {
        let life = Life::new(from_wire(links.me()), seats, config);
        Arc::new(Self {
            links,
            machine,
            state: Lock::new(life),
            queue: Lock::ranked(LINK, Queue::default()),
            waiting: Lock::new(Waiting { next: 1, orders: BTreeMap::new(), deaths: Vec::new() }),
        })
    }

    /// What is known of an index.
    pub fn row(&self, index: u16) -> Option<Row> {
        self.state.lock().row(index)
    }

    /// Whether this kernel was told to stop: nobody new is let in.
    pub fn is_stopping(&self) -> bool {
        self.state.lock().is_stopping()
    }

    /// The plan says that kernel `by` starts this one when the machine comes up.
    pub fn planned(&self, kernel: KernelId, by: KernelId) {
        self.step(Event::Planned { kernel, by });
    }

    /// What [`Machine::load`] came to.
    pub fn loaded(&self, kernel: KernelId, result: Result<(), Errno>) {
        self.step(Event::Loaded { kernel, result });
    }

    /// Time passed.
    pub fn tick(&self) {
        self.step(Event::Tick);
    }

    /// Starts or stops a kernel; done when it is up, or off.
    ///
    /// # Errors
    /// Those of `boot K` and `stop K` in `docs/proc-cob.md`.
    pub fn order(self: &Arc<Self>, index: u16, what: What) -> TryResult<()> {
        let (call, completer) = call();
        let ticket = {
            let mut waiting = self.waiting.lock();
            let ticket = waiting.next;
            waiting.next += 1;
            waiting.orders.insert(ticket, completer);
            ticket
        };
        self.step(Event::Order { ticket, index, what });
        let me = self.clone();
        // It may take as long as the other kernel needs, so signals end the wait; the order itself goes on.
        let call = call.long(true).on_abandon(move || {
            let gone = me.waiting.lock().orders.remove(&ticket);
            drop(gone);
            me.step(Event::Forget(ticket));
        });
        call.into_try()
    }

    /// Makes a peer do something to itself (`wire::resources::order`). A crash is done when the kernel is dead, a hang when it has begun.
    ///
    /// # Errors
    /// What the peer says; `ETIMEDOUT`.
    pub fn command(self: &Arc<Self>, target: KernelId, what: u8) -> TryResult<()> {
        let (call, completer) = call();
        let me = self.clone();
        let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
            match answer {
                Ok(_) if what == order::CRASH => me.when_dead(target, completer),
                // It was up when the order went out: its death is what was ordered, and may overtake the answer.
                Err(why) if why.errno == Errno::EHOSTDOWN => drop(completer.complete(done(()))),
                Ok(_) => drop(completer.complete(done(()))),
                Err(why) => drop(completer.complete(Err(why.errno.into()))),
            };
        });
        let deadline = self.machine.now().saturating_add(PATIENCE);
        self.links.request(to_wire(target), ObjectId::NONE, &Order { what }, &[], deadline, then);
        call.long(true).into_try()
    }

    fn when_dead(&self, kernel: KernelId, completer: Completer<()>) {
        let dead = |row: Row| {
            let later = row.incarnation > kernel.incarnation;
            later || row.incarnation == kernel.incarnation && row.phase >= Phase::Dead
        };
        self.waiting.lock().deaths.push((kernel, completer));
        // It may have died before anybody waited.
        if self.row(kernel.index).is_some_and(dead) {
            self.mourn(kernel);
        }
    }

    /// Tells those who waited for this death.
    fn mourn(&self, dead: KernelId) {
        let told = {
            let mut waiting = self.waiting.lock();
            let (told, rest) =
                core::mem::take(&mut waiting.deaths).into_iter().partition(|(kernel, _)| *kernel == dead);
            waiting.deaths = rest;
            told
        };
        for (_, completer) in told {
            drop(completer.complete(done(())));
        }
    }

    /// For a kernel that stops: `then` is called when the members have handled all that this one sent before, or are gone, or take too long.
    pub fn drain(&self, members: &[KernelId], then: impl FnOnce() + Send + 'static) {
        struct Last<F: FnOnce()>(Option<F>);
        impl<F: FnOnce()> Drop for Last<F> {
            fn drop(&mut self) {
                if let Some(then) = self.0.take() {
                    then();
                }
            }
        }
        // Called when the last request ends.
        let last = Arc::new(Lock::new(Last(Some(then))));
        let deadline = self.machine.now().saturating_add(DRAIN);
        for member in members.iter().filter(|k| to_wire(**k) != self.links.me()) {
            let last = last.clone();
            let ended = Box::new(move |_: &Links, _: link::Result<Incoming<'_>>| drop(last));
            self.links.request(to_wire(*member), ObjectId::NONE, &Drain {}, &[], deadline, ended);
        }
    }

    fn step(&self, event: Event) {
        let now = self.machine.now();
        {
            // The effects of a step are queued before the next step can be made.
            let mut state = self.state.lock();
            let mut effects = VecDeque::new();
            state.step(now, event, &mut Hands(&mut effects, &*self.machine));
            effects.push_back(Effect::Alarm(state.next()));
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
                // A peer that cannot be reached is dead or about to be noticed; then it is asked again, or somebody else.
                if let Err(error) = codec::send(&self.links, to, &message)
                    && error.errno != Errno::EHOSTDOWN
                {
                    log::warn!("life: {error}");
                }
            }
            Effect::Bar(kernel) => {
                let barred = self.machine.bar(kernel);
                self.step(Event::Barred { kernel, barred });
            }
            Effect::Load(kernel) => self.machine.load(kernel),
            Effect::Abort(kernel) => {
                log::error!("kernel {kernel} did not come up");
                self.machine.abort(kernel);
            }
            Effect::WindDown => self.machine.wind_down(),
            Effect::Done(ticket, result) => {
                let completer = self.waiting.lock().orders.remove(&ticket);
                if let Some(completer) = completer {
                    let result = result.map_err(|errno| Error::new(errno, "the order ended"));
                    // Nobody waits any more: there is nothing to undo.
                    drop(completer.complete(result.map(base::Try::Done)));
                }
            }
            Effect::Alarm(at) => self.machine.set_alarm(at),
        }
    }
}

impl Service for LifeService {
    fn peer_down(&self, dead: KernelId) {
        let (orderly, lost) = self.machine.ended(dead);
        self.step(Event::Down { kernel: dead, orderly, lost });
        self.mourn(dead);
    }

    fn view(&self, view: &View) {
        self.step(Event::View { epoch: view.epoch, members: view.members.clone() });
    }
}

/// What [`Links`] calls: the service behind an [`Arc`].
pub struct LifeHandler(pub Arc<LifeService>);

impl Handler for LifeHandler {
    fn handle(&self, links: &Links, incoming: &Incoming<'_>) -> link::Result<()> {
        let kind = incoming.header.kind;
        if kind == Order::SPEC.number {
            let what = incoming.read::<Order>()?.0.what;
            if !matches!(what, order::CRASH | order::HANG) {
                return Err(link::Error::new(Errno::EINVAL, "there is no such order", incoming.from));
            }
            links.answer(incoming.answer_to(), &OrderDone { what }, &[])?;
            self.0.machine.obey(what);
            return Ok(());
        }
        if kind == Drain::SPEC.number {
            return links.answer(incoming.answer_to(), &Drained {}, &[]);
        }
        match codec::read(incoming)? {
            Some(message) => self.0.step(Event::Received { from: from_wire(incoming.from), message }),
            None => return Err(link::Error::new(Errno::EBADMSG, "no message of this service", incoming.from)),
        }
        Ok(())
    }
}
