//! The registry of what the machine has once: two who live never hold the same, and what a dead kernel held is held again.

use std::collections::BTreeMap;

use base::KernelId;
use resources::state::{Actions, Event, Message, Plan, Registry, Set};

use crate::pairs;
use crate::world::{Machine, Out, Part, State};

/// The registry of a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RegistryOfKernel {
    registry: Registry,
    /// What is being taken over.
    taking: Vec<Set>,
}

#[derive(Default)]
struct Wanted {
    sent: Vec<(KernelId, Message)>,
    taken: Vec<Set>,
}

impl Actions for Wanted {
    fn send(&mut self, to: KernelId, message: Message) {
        self.sent.push((to, message));
    }
    fn take(&mut self, set: Set) {
        self.taken.push(set);
    }
    fn changed(&mut self, _: Set) {}
}

impl RegistryOfKernel {
    fn event(&mut self, event: Event, out: &mut Out<'_, Self>) {
        let mut wanted = Wanted::default();
        match &event {
            Event::Received { message, .. } => pairs::met("resources", self.registry.situation(), message),
            event => pairs::met("resources", self.registry.situation(), event),
        }
        self.registry.step(event, &mut wanted);
        for (to, message) in wanted.sent {
            out.send(to, message);
        }
        self.taking.extend(wanted.taken);
    }
}

impl Part for RegistryOfKernel {
    type Message = Message;
    type Operation = ();
    type Truth = ();

    fn operate(&mut self, (): &(), _: &mut Out<'_, Self>) {}

    fn receive(&mut self, from: KernelId, message: Message, out: &mut Out<'_, Self>) {
        self.event(Event::Received { from, message }, out);
    }

    fn down(&mut self, dead: KernelId, out: &mut Out<'_, Self>) {
        self.event(Event::Down { kernel: dead, lost: false }, out);
    }

    fn view(&mut self, epoch: u32, members: &[KernelId], out: &mut Out<'_, Self>) {
        self.event(Event::View { epoch, members: members.to_vec() }, out);
    }

    fn is_busy(&self) -> bool {
        !self.taking.is_empty()
    }

    fn finish(&mut self, out: &mut Out<'_, Self>) {
        let set = self.taking.remove(0);
        self.event(Event::Taken { set }, out);
    }

    fn wrong(state: &State<Self>) -> Option<String> {
        let holders: Vec<_> =
            state.parts.iter().filter(|(_, part)| part.registry.mine().has(0)).map(|(k, _)| *k).collect();
        (holders.len() > 1).then(|| format!("{holders:?} hold it"))
    }

    fn missing(state: &State<Self>) -> Option<String> {
        let holder = state.parts.iter().find(|(_, part)| part.registry.mine().has(0)).map(|(kernel, _)| *kernel);
        let Some(holder) = holder else { return Some("nobody holds it".into()) };
        let unsure = state.parts.iter().find(|(_, part)| part.registry.owner(0) != Some(holder));
        unsure.map(|(kernel, part)| format!("{kernel} thinks that {:?} holds it, not {holder}", part.registry.owner(0)))
    }
}

/// One resource that all may own, and kernels that die.
pub fn machines(kernels: u16, crashes: u32) -> Vec<(String, Machine<RegistryOfKernel>)> {
    let part = |index| {
        let me = KernelId { index, incarnation: 1 };
        let plan = Plan { owner: 0, order: (0..kernels).collect() };
        (me, RegistryOfKernel { registry: Registry::new(me, vec![plan]), taking: Vec::new() })
    };
    let parts = (0..kernels).map(part).collect::<BTreeMap<_, _>>();
    vec![(format!("{kernels} kernels, {crashes} deaths"), Machine { parts, wanted: BTreeMap::new(), crashes })]
}
