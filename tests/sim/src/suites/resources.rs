//! Devices and the file tree: who owns them, and who takes them over (`ssi/resources`). A take-over takes its time, so that kernels die in the
//! middle of one.

use std::{any::Any, collections::BTreeSet};

use ::resources::{
    Plan, Registry, Set, Standing,
    state::{Actions, Event, Message},
};
use base::KernelId;
use membership::Outcome;
use wire::Lane;

use crate::{
    judge::{Judge, Rule},
    service::{Body, Context, Parts, SimService, Suite},
    world::MS,
};

/// The registry of one kernel.
pub struct Part {
    registry: Registry,
    /// What is taken over just now, and when that is done.
    taking: Vec<(u64, Set)>,
    /// What others wanted of this kernel although it does not have it.
    wrong: Option<(KernelId, usize)>,
}

/// A program uses a device of another kernel.
#[derive(Debug)]
struct Use(usize);

/// It did.
#[derive(Debug)]
struct Used;

/// What a step wants done, in order.
#[derive(Default)]
struct Effects {
    sent: Vec<(KernelId, Message)>,
    taken: Set,
}

impl Actions for Effects {
    fn send(&mut self, to: KernelId, message: Message) {
        self.sent.push((to, message));
    }
    fn take(&mut self, set: Set) {
        self.taken = self.taken.and(set);
    }
    fn changed(&mut self, _: Set) {}
}

impl Part {
    fn step(&mut self, event: Event, context: &mut Context<'_>) {
        let mut effects = Effects::default();
        match &event {
            Event::Received { message, .. } => context.coverage.met("resources", self.registry.situation(), message),
            event => context.coverage.met("resources", self.registry.situation(), event),
        }
        self.registry.step(event, &mut effects);
        for (to, message) in effects.sent {
            context.send(to, Lane::Request, message);
        }
        if !effects.taken.is_empty() {
            let done = context.now + 1 + context.rng.below(30 * MS);
            self.taking.push((done, effects.taken));
        }
        if let Some(next) = self.taking.iter().map(|(done, _)| *done).min() {
            context.wake_at(next);
        }
    }
}

impl SimService for Part {
    fn message(&mut self, from: KernelId, body: &dyn Body, context: &mut Context<'_>) {
        if let Some(message) = body.as_any().downcast_ref::<Message>() {
            self.step(Event::Received { from, message: *message }, context);
        } else if let Some(Use(number)) = body.as_any().downcast_ref() {
            if !self.registry.mine().has(*number) {
                self.wrong = Some((from, *number));
            }
            context.send(from, Lane::Reply, Used);
        }
    }

    fn down(&mut self, dead: KernelId, context: &mut Context<'_>) {
        let lost = context.membership.outcome(dead.index) == Some(Outcome::Lost);
        self.step(Event::Down { kernel: dead, lost }, context);
    }

    fn view(&mut self, context: &mut Context<'_>) {
        let (epoch, members) = (context.view.epoch, context.view.members.clone());
        self.step(Event::View { epoch, members }, context);
    }

    fn operate(&mut self, context: &mut Context<'_>) {
        let me = context.me;
        let others = |number: &usize| self.registry.owner(*number).is_some_and(|owner| owner != me);
        let reachable: Vec<usize> = (0..self.registry.len()).filter(others).collect();
        if let Some(number) = context.rng.pick(&reachable)
            && let Some(owner) = self.registry.owner(number)
        {
            context.send(owner, Lane::Request, Use(number));
        }
    }

    fn timer(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        let done = self.taking.iter().filter(|(at, _)| *at <= now).fold(Set(0), |all, (_, set)| all.and(*set));
        self.taking.retain(|(at, _)| *at > now);
        self.step(Event::Taken { set: done }, context);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What must hold for resources.
#[derive(Default)]
pub struct Resources {
    /// Kernels that were in a view. Who stops or hangs before that is noticed by nobody, and what the plan gives it waits for its next life.
    entered: BTreeSet<KernelId>,
}

fn part(service: &dyn SimService) -> Option<&Part> {
    service.as_any().downcast_ref()
}

/// Three resources: as in every machine so far the first kernel has what the others take over, in order or with another first choice; and one that
/// is the last kernel's.
fn plans(kernels: u16) -> Vec<Plan> {
    let last = kernels.saturating_sub(1);
    let all: Vec<u16> = (0..kernels).collect();
    vec![
        Plan { owner: 0, order: all.clone() },
        Plan {
            owner: 0,
            order: std::iter::once(0).chain(all.iter().rev().copied().filter(|index| *index != 0)).collect(),
        },
        Plan { owner: last, order: all },
    ]
}

impl Suite for Resources {
    fn name(&self) -> &'static str {
        "resources"
    }

    fn start(&self, me: KernelId, kernels: u16) -> Box<dyn SimService> {
        Box::new(Part { registry: Registry::new(me, plans(kernels)), taking: Vec::new(), wrong: None })
    }

    fn check(&mut self, changed: KernelId, parts: &Parts<'_>, judge: &Judge) -> Result<(), String> {
        let Some(this) = parts.iter().find(|(k, _)| *k == changed).and_then(|(_, p)| part(*p)) else { return Ok(()) };
        if let Some((user, number)) = this.wrong {
            judge.broken(Rule::ToldTheOwner, || format!("{user} was told that {changed} has resource {number}"))?;
        }
        if this.registry.epoch() > 0 {
            self.entered.insert(changed);
        }
        for (other, p) in parts.iter().filter(|(k, _)| *k != changed).filter_map(|(k, p)| Some((*k, part(*p)?))) {
            let both = Set(this.registry.mine().0 & p.registry.mine().0);
            if let Some(number) = both.iter().next() {
                judge.broken(Rule::OneOwner, || format!("resource {number} is {changed}'s and {other}'s"))?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, parts: &Parts<'_>, judge: &Judge) -> Result<(), String> {
        let parts: Vec<(KernelId, &Part)> = parts.iter().filter_map(|(k, p)| Some((*k, part(*p)?))).collect();
        let Some((first, model)) = parts.first() else { return Ok(()) };
        for number in 0..model.registry.len() {
            let record = model.registry.record(number);
            let mut owners = parts.iter().filter_map(|(_, p)| p.registry.owner(number));
            if owners.any(|owner| !self.entered.contains(&owner)) {
                continue;
            }
            for (k, p) in &parts {
                if p.registry.is_busy() {
                    judge.broken(Rule::Quiet, || format!("{k} is still busy with a claim when all is quiet"))?;
                }
                let other = p.registry.record(number);
                if other.map(|r| r.standing) != record.map(|r| r.standing) {
                    judge.broken(Rule::OwnersAgree, || {
                        format!("resource {number}: {record:?} to {first}, {other:?} to {k}")
                    })?;
                }
            }
            match record.map(|r| r.standing) {
                Some(Standing::Held(owner)) => {
                    let has = parts.iter().any(|(k, p)| *k == owner && p.registry.mine().has(number));
                    if !has {
                        judge.broken(Rule::OwnerHasIt, || {
                            format!("resource {number} is held by {owner}, which does not have it")
                        })?;
                    }
                }
                Some(Standing::Lost) => {}
                Some(Standing::Free) | None => {
                    judge.broken(Rule::SomebodyOwns, || format!("resource {number} is nobody's"))?
                }
            }
        }
        Ok(())
    }
}
