//! The registry of one kernel between links, membership and the one who takes things over. It holds no protocol state.

use alloc::{collections::VecDeque, sync::Arc, vec::Vec};

use base::{Errno, KernelId};
use link::{Handler, Incoming, Links, lock::Lock};
use objects::{from_wire, to_wire};
use wire::{
    Message as _, ObjectId,
    devices::{Busy, Claim, Grant, Is, Yield, standing},
};

use crate::state::{Actions, Event, Message, Plan, Record, Registry, Set, Standing};

/// Who does what the registry decides. Called without locks, on the receive path: nothing here waits.
pub trait Taker: Send + Sync {
    /// These are this kernel's from now on. Call [`ResourceService::taken`] when it has them.
    fn take(&self, set: Set);
    /// Another kernel has these now, or nobody has.
    fn changed(&self, set: Set);
}

/// What is to be done after the state's lock is dropped, in order.
enum Effect {
    Send(KernelId, Message),
    Take(Set),
    Changed(Set),
}

struct Inner {
    registry: Registry,
    effects: VecDeque<Effect>,
    /// Somebody is at the effects, and does what is added too.
    busy: bool,
}

struct Queue<'a>(&'a mut VecDeque<Effect>);

impl Actions for Queue<'_> {
    fn send(&mut self, to: KernelId, message: Message) {
        self.0.push_back(Effect::Send(to, message));
    }
    fn take(&mut self, set: Set) {
        self.0.push_back(Effect::Take(set));
    }
    fn changed(&mut self, set: Set) {
        self.0.push_back(Effect::Changed(set));
    }
}

/// See the module.
pub struct ResourceService {
    links: Arc<Links>,
    inner: Lock<Inner>,
    taker: Arc<dyn Taker>,
}

impl ResourceService {
    /// The registry of the kernel whose links these are. Register a [`ResourceHandler`] for the family `devices`.
    pub fn new(links: Arc<Links>, plans: Vec<Plan>, taker: Arc<dyn Taker>) -> Arc<Self> {
        let registry = Registry::new(from_wire(links.me()), plans);
        let inner = Inner { registry, effects: VecDeque::new(), busy: false };
        Arc::new(Self { links, inner: Lock::new(inner), taker })
    }

    /// The membership has a new view.
    pub fn view(&self, epoch: u32, members: Vec<KernelId>) {
        self.step(Event::View { epoch, members });
    }

    /// A kernel is dead; `lost`: it could not be stopped.
    pub fn peer_down(&self, kernel: KernelId, lost: bool) {
        self.step(Event::Down { kernel, lost });
    }

    /// This kernel has taken over what it was given.
    pub fn taken(&self, set: Set) {
        self.step(Event::Taken { set });
    }

    /// The kernel that has a resource, as far as is known.
    pub fn owner(&self, number: usize) -> Option<KernelId> {
        self.inner.lock().registry.owner(number)
    }

    /// What is known of a resource.
    pub fn record(&self, number: usize) -> Option<Record> {
        self.inner.lock().registry.record(number)
    }

    /// What a kernel has, as far as is known.
    pub fn owned_by(&self, kernel: KernelId) -> Set {
        self.inner.lock().registry.owned_by(kernel)
    }

    fn step(&self, event: Event) {
        {
            let mut inner = self.inner.lock();
            let inner = &mut *inner;
            inner.registry.step(event, &mut Queue(&mut inner.effects));
        }
        loop {
            let effect = {
                let mut inner = self.inner.lock();
                if inner.busy {
                    return;
                }
                let Some(effect) = inner.effects.pop_front() else { return };
                inner.busy = true;
                effect
            };
            match effect {
                Effect::Send(to, message) => self.send(to, message),
                Effect::Take(set) => self.taker.take(set),
                Effect::Changed(set) => self.taker.changed(set),
            }
            self.inner.lock().busy = false;
        }
    }

    fn send(&self, to: KernelId, message: Message) {
        let (to, none) = (to_wire(to), ObjectId::NONE);
        let sent = match message {
            Message::Claim { epoch, term, set } => self.links.send(to, none, &Claim { epoch, term, set: set.0 }, &[]),
            Message::Grant { term, known, set } => self.links.send(to, none, &Grant { term, known, set: set.0 }, &[]),
            Message::Busy { term, set } => self.links.send(to, none, &Busy { term, set: set.0 }, &[]),
            Message::Yield { set } => self.links.send(to, none, &Yield { set: set.0 }, &[]),
            Message::Is { record, set } => {
                let (standing, owner) = match record.standing {
                    Standing::Held(owner) => (standing::HELD, to_wire(owner)),
                    Standing::Free => (standing::FREE, wire::KernelId::NONE),
                    Standing::Lost => (standing::LOST, wire::KernelId::NONE),
                };
                self.links.send(to, none, &Is { term: record.term, standing, owner, set: set.0 }, &[])
            }
        };
        if let Err(error) = sent {
            // It is dead, or about to be: its death answers.
            log::debug!("resources: {error}");
        }
    }
}

/// What [`Links`] calls for the family `devices`.
pub struct ResourceHandler(pub Arc<ResourceService>);

impl Handler for ResourceHandler {
    fn handle(&self, _: &Links, message: &Incoming<'_>) -> link::Result<()> {
        let what = match message.header.kind {
            kind if kind == Claim::SPEC.number => {
                let (m, _) = message.read::<Claim>()?;
                Message::Claim { epoch: m.epoch, term: m.term, set: Set(m.set) }
            }
            kind if kind == Grant::SPEC.number => {
                let (m, _) = message.read::<Grant>()?;
                Message::Grant { term: m.term, known: m.known, set: Set(m.set) }
            }
            kind if kind == Busy::SPEC.number => {
                let (m, _) = message.read::<Busy>()?;
                Message::Busy { term: m.term, set: Set(m.set) }
            }
            kind if kind == Yield::SPEC.number => {
                let (m, _) = message.read::<Yield>()?;
                Message::Yield { set: Set(m.set) }
            }
            kind if kind == Is::SPEC.number => {
                let (m, _) = message.read::<Is>()?;
                let standing = match m.standing {
                    standing::HELD => Standing::Held(from_wire(m.owner)),
                    standing::FREE => Standing::Free,
                    standing::LOST => Standing::Lost,
                    _ => return Err(link::Error::new(Errno::EBADMSG, "no such standing", message.from)),
                };
                Message::Is { record: Record { term: m.term, standing }, set: Set(m.set) }
            }
            _ => {
                return Err(link::Error::new(
                    Errno::ENOSYS,
                    "the registry of resources does not know it",
                    message.from,
                ));
            }
        };
        self.0.step(Event::Received { from: from_wire(message.from), message: what });
        Ok(())
    }
}
