//! What a kernel's membership wants done, and the invariants that are checked when it is done.

use std::collections::BTreeMap;

use base::KernelId;
use membership::{Actions, Claim, Message, Outcome, View};
use wire::Lane;

use crate::{
    judge::Rule,
    plan::Medium,
    world::{Item, MS, Payload, World},
};

/// One wish.
#[derive(Debug)]
pub(crate) enum Effect {
    Send(KernelId, Message),
    Fence(KernelId),
    Down(KernelId),
    Outlived(KernelId),
    Prepare(View, Vec<(KernelId, Outcome)>),
    Install(View, Vec<(KernelId, Outcome)>),
    Park(&'static str),
    Wake(u64),
}

/// Collects the wishes of one step; fence words are at hand at once.
pub(crate) struct Hands {
    pub words: BTreeMap<KernelId, u64>,
    /// Who is there; of boards, which may be started again before anybody notices.
    pub now_there: Vec<KernelId>,
    pub effects: Vec<Effect>,
}

impl Actions for Hands {
    fn send(&mut self, to: KernelId, message: Message) {
        self.effects.push(Effect::Send(to, message));
    }
    fn claim_fence(&mut self, victim: KernelId, expected: u64, claim: u64) -> Claim {
        if self.now_there.iter().any(|there| there.index == victim.index && there.incarnation > victim.incarnation) {
            return Claim::Was(expected);
        }
        self.words.get_mut(&victim).map_or(Claim::Unreachable, |word| {
            let was = *word;
            if was == expected {
                *word = claim;
            }
            Claim::Was(was)
        })
    }
    fn fence(&mut self, victim: KernelId) {
        self.effects.push(Effect::Fence(victim));
    }
    fn down(&mut self, victim: KernelId) {
        self.effects.push(Effect::Down(victim));
    }
    fn outlived(&mut self, member: KernelId) {
        self.effects.push(Effect::Outlived(member));
    }
    fn prepare(&mut self, view: &View, excluded: &[(KernelId, Outcome)]) {
        self.effects.push(Effect::Prepare(view.clone(), excluded.to_vec()));
    }
    fn install(&mut self, view: &View, excluded: &[(KernelId, Outcome)]) {
        self.effects.push(Effect::Install(view.clone(), excluded.to_vec()));
    }
    fn park(&mut self, why: &'static str) {
        self.effects.push(Effect::Park(why));
    }
    fn wake_at(&mut self, at: u64) {
        self.effects.push(Effect::Wake(at));
    }
}

impl World {
    pub(crate) fn apply(&mut self, me: KernelId, effect: Effect) -> Result<(), String> {
        match effect {
            Effect::Send(to, message) => {
                self.post(me, to, Lane::Control, Payload::Membership(message));
                Ok(())
            }
            Effect::Wake(at) => {
                self.wake(me, at);
                Ok(())
            }
            Effect::Fence(victim) => self.fence(me, victim),
            Effect::Down(victim) => self.down(me, victim),
            Effect::Outlived(member) => {
                self.note(|_| format!("{me} knows that {member} is not the first"));
                if let Some(at) = self.find(me) {
                    self.nodes[at].close_before(member);
                }
                Ok(())
            }
            Effect::Prepare(view, excluded) => {
                self.note(|_| format!("{me} prepares for view {} without {excluded:?}", view.epoch));
                // Mostly little is to be unmapped; sometimes so much that the proposer asks again.
                let most = if self.rng.one_in(8) { 600 } else { 3 };
                let done = self.now + self.rng.below(most * MS);
                let excluded = excluded.into_iter().map(|(gone, _)| gone).collect();
                self.schedule(done, Item::Prepared { node: me, epoch: view.epoch, excluded });
                Ok(())
            }
            Effect::Install(view, excluded) => self.install(me, &view, &excluded),
            Effect::Park(why) => {
                self.note(|_| format!("{me} parks itself: {why}"));
                if why == membership::IN_THE_WAY {
                    self.judge.broken(Rule::RoomForSuccessors, || format!("{me} is refused: {why}"))?;
                }
                if self.plan.medium == Medium::Shared {
                    self.judge.broken(Rule::NobodyParks, || {
                        format!("{me} parked itself ({why}) though there are fence words")
                    })?;
                }
                if let Some(at) = self.find(me) {
                    self.nodes[at].parked = true;
                    let node = &self.nodes[at];
                    for (suite, part) in self.suites.iter_mut().zip(&node.parts) {
                        suite.stopped(me, &**part);
                    }
                }
                Ok(())
            }
        }
    }

    fn fence(&mut self, me: KernelId, victim: KernelId) -> Result<(), String> {
        self.note(|_| format!("{me} fences {victim}"));
        let Some(target) = self.nodes.iter().find(|n| n.id == victim) else {
            if self.plan.medium == Medium::Boards {
                let fenced = Item::Fenced { fencer: me, victim, outcome: Outcome::Fenced };
                self.schedule(self.now + 1, fenced);
                return Ok(());
            }
            self.judge
                .broken(Rule::FencesTheSick, || format!("{me} fences {victim}, whose index has another incarnation"))?;
            return Ok(());
        };
        // Two at work on one victim could stop its successor.
        if let Some(other) =
            self.nodes.iter().find(|n| n.is_live() && !n.hung && n.id != me && n.fencing.contains(&victim))
        {
            self.judge.broken(Rule::OneFencer, || format!("{me} and {} both fence {victim}", other.id))?;
        }
        let announced = target.stopped || target.parked || target.membership.phase() == membership::Phase::Leaving;
        if !announced && !target.hung && !target.mad && target.pause < 1000 * MS {
            self.judge.broken(Rule::FencesTheSick, || {
                format!("{me} fences {victim}, which is well (longest pause {} ms)", target.pause / MS)
            })?;
        }
        if let Some(at) = self.find(me) {
            self.nodes[at].fencing.insert(victim);
        }
        let stop = self.now + self.rng.below(5 * MS);
        let done = stop + 1 + self.rng.below(5 * MS);
        self.schedule(stop, Item::Stop { victim });
        self.schedule(done, Item::Fenced { fencer: me, victim, outcome: Outcome::Fenced });
        Ok(())
    }

    fn down(&mut self, me: KernelId, victim: KernelId) -> Result<(), String> {
        self.note(|_| format!("{me} holds {victim} for dead"));
        let first = self.deaths.insert(victim);
        if first {
            self.report.deaths += 1;
        }
        let outcome = self.find(me).and_then(|at| self.nodes[at].membership.outcome(victim.index));
        let stopped = match self.plan.medium {
            Medium::Shared => true,
            Medium::Boards => outcome == Some(Outcome::Fenced),
            Medium::Lossy => false,
        };
        if stopped && self.nodes.iter().any(|n| n.id == victim && !n.stopped) {
            self.judge
                .broken(Rule::DeadAreStopped, || format!("{me} holds {victim} for dead, but it is not stopped"))?;
        }
        let mate = self.nodes.iter().find(|n| {
            let well = n.runs() && !n.hung && n.pause < 1000 * MS && n.membership.view().contains(n.id);
            well && n.id != victim && self.plan.near(n.id.index, victim.index) && !n.closed.contains(&victim)
        });
        if self.plan.medium == Medium::Boards
            && outcome == Some(Outcome::Lost)
            // The others are told.
            && first
            && !self.was_cut
            && let Some(mate) =
                mate.filter(|mate| self.find(me).is_some_and(|at| self.nodes[at].membership.view().contains(mate.id)))
        {
            self.judge
                .broken(Rule::LostAreAlone, || format!("{me} gives {victim} up, which {} could stop", mate.id))?;
        }
        let Some(at) = self.find(me) else { return Ok(()) };
        self.nodes[at].closed.insert(victim);
        self.nodes[at].close_before(KernelId { incarnation: victim.incarnation + 1, ..victim });
        for service in 0..self.suites.len() {
            self.service(at, service, |part, context| part.down(victim, context))?;
        }
        Ok(())
    }

    fn install(&mut self, me: KernelId, view: &View, excluded: &[(KernelId, Outcome)]) -> Result<(), String> {
        self.note(|_| format!("{me} enters view {} {:?}", view.epoch, view.members));
        if !view.contains(me) {
            self.judge.broken(Rule::ViewsWithMe, || format!("{me} enters {view:?}, which it is not in"))?;
        }
        match self.epochs.get(&view.epoch) {
            Some(members) if *members != view.members => {
                self.judge.broken(Rule::OneViewAnEpoch, || {
                    format!("epoch {} is {members:?} and {:?}", view.epoch, view.members)
                })?;
            }
            Some(_) => {}
            None => {
                self.epochs.insert(view.epoch, view.members.clone());
                self.report.views += 1;
            }
        }
        let Some(at) = self.find(me) else { return Ok(()) };
        if self.nodes[at].entered >= view.epoch {
            self.judge.broken(Rule::EpochsGrow, || {
                format!("{me} goes from epoch {} to {}", self.nodes[at].entered, view.epoch)
            })?;
        }
        if self.nodes[at].entered == 0 {
            self.nodes[at].member_since = self.now;
        }
        self.nodes[at].entered = view.epoch;
        for (gone, outcome) in excluded {
            // From here on its memory may be used again.
            if *outcome != Outcome::Lost
                && self.plan.medium == Medium::Shared
                && let Some(holder) = self.nodes.iter().find(|n| n.is_live() && n.mapped.contains(gone))
            {
                self.judge.broken(Rule::FreedUnmapped, || {
                    format!("{me} frees what {gone} had, but {} still maps it", holder.id)
                })?;
            }
        }
        let node = &mut self.nodes[at];
        if let Some(member) = view.members.iter().find(|k| node.open.get(&k.index).is_some_and(|i| *i < k.incarnation))
        {
            self.judge.broken(Rule::LinksOfNow, || {
                format!("{me} is in a view with {member}, but its link is still that of an earlier one")
            })?;
        }
        node.mapped.extend(view.members.iter().filter(|k| **k != me && !node.closed.contains(k)));
        for service in 0..self.suites.len() {
            self.service(at, service, |part, context| part.view(context))?;
        }
        Ok(())
    }
}
