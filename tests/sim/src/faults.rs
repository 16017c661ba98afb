//! What goes wrong: kernels that panic, hang, pause, leave, are held by a debugger; parts of the machine that are cut off; and who comes again.

use base::KernelId;
use membership::{Event, Outcome, Phase};

use crate::{
    plan::Medium,
    world::{Item, MS, Node, World},
};

impl World {
    pub(crate) fn fault(&mut self) {
        self.faults += 1;
        self.next_fault = self.report.events + 1 + self.rng.below(200);
        let number = self.faults - 1;
        if self.only.faults.as_ref().is_some_and(|list| !list.contains(&number)) {
            return;
        }
        let running: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].runs()).collect();
        // Half of the time somebody who is in the middle of something.
        let busy: Vec<usize> = running.iter().copied().filter(|at| self.nodes[*at].membership.is_busy()).collect();
        let from = if self.rng.one_in(2) && !busy.is_empty() { &busy } else { &running };
        let Some(at) = self.rng.pick(from) else { return };
        let id = self.nodes[at].id;
        let members = |w: &Self| {
            let well =
                |n: &&Node| n.runs() && n.pause == 0 && n.torn.is_none() && n.membership.phase() == Phase::Member;
            w.nodes.iter().filter(well).count()
        };
        self.report.faults += 1;
        // Somebody must be left who can let the others in.
        // Where nobody can be fenced that is a majority, which a cut must not take from them either.
        let lossy = self.plan.medium != Medium::Shared;
        let all = self.nodes[at].membership.view().members.len();
        let few = lossy && (members(self).saturating_sub(1) * 2 <= all || !self.cut.is_empty());
        let whole = members(self) == all;
        let last = (members(self) <= 1 || few) && self.nodes[at].membership.phase() == Phase::Member;
        let kind = match self.rng.below(8) {
            _ if last => 3,
            6 if lossy && !whole => 3,
            kind => kind,
        };
        match kind {
            0 | 1 if self.rng.one_in(2) => self.nodes[at].torn = Some(self.rng.below(4) as usize),
            0 | 1 => self.panic(id),
            2 => {
                self.note(|_| format!("{id} hangs"));
                self.nodes[at].hung = true;
            }
            3..=5 => {
                let long = !last && self.rng.one_in(4);
                let pause = if long { self.rng.between(2500, 6000) } else { self.rng.between(1, 700) } * MS;
                self.note(|_| format!("{id} pauses for {} ms", pause / MS));
                let node = &mut self.nodes[at];
                if node.paused_until <= self.now {
                    node.paused_from = self.now;
                }
                node.paused_until = node.paused_until.max(self.now + pause);
                node.pause = node.pause.max(node.paused_until - node.paused_from);
            }
            6 if lossy => {
                let some: Vec<u16> = self.nodes.iter().map(|n| n.id.index).filter(|_| self.rng.one_in(3)).collect();
                // With a kernel its whole board is cut off.
                let all = self.nodes.iter().map(|n| n.id.index);
                self.cut = all.filter(|index| some.iter().any(|cut| self.plan.near(*cut, *index))).collect();
                self.was_cut = true;
                self.note(|w| format!("{:?} are cut off", w.cut));
                let heal = self.now + self.rng.between(100, 8000) * MS;
                self.schedule(heal, Item::Heal);
            }
            _ => {
                // It says goodbye; the CPUs stop a little later.
                self.note(|_| format!("{id} leaves"));
                // A step of a running kernel that only sends.
                if self.membership(id, Event::Leave).is_ok() {
                    let at = self.now + self.rng.below(5 * MS);
                    self.schedule(at, Item::Stop { victim: id });
                }
            }
        }
        let index = id.index;
        let at = self.now + self.rng.between(10, 9000) * MS;
        self.schedule(at, Item::Restart { index });
    }

    /// Somebody looks at a kernel with a debugger. The others are told, and silence means nothing until it goes on.
    pub(crate) fn hold(&mut self, index: u16, ns: u64) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(usize::from(index)).filter(|n| n.runs() && n.pause == 0) else { return };
        let id = node.id;
        node.paused_until = node.paused_until.max(now + ns);
        self.report.faults += 1;
        self.note(|_| format!("a debugger holds {id} for {} ms", ns / MS));
        let others: Vec<KernelId> = self.nodes.iter().map(|n| n.id).collect();
        for node in others {
            let begin = now + self.madness.below(self.plan.delay);
            let end = now + ns + 1 + self.madness.below(self.plan.delay);
            self.schedule(begin, Item::Held { node, held: true });
            self.schedule(end, Item::Held { node, held: false });
        }
    }

    pub(crate) fn panic(&mut self, id: KernelId) {
        self.note(|_| format!("{id} panics"));
        self.stop(id);
        let others: Vec<KernelId> = self.nodes.iter().map(|n| n.id).filter(|k| *k != id).collect();
        for node in others {
            // The last words may get lost where messages do.
            if self.plan.near(node.index, id.index) || !self.rng.one_in(3) {
                let at = self.now + 1 + self.rng.below(self.plan.delay);
                self.schedule(at, Item::Notice { node, dying: id });
            }
        }
    }

    pub(crate) fn stop(&mut self, id: KernelId) {
        let Some(at) = self.find(id).filter(|at| !self.nodes[*at].stopped) else { return };
        self.note(|_| format!("{id} is stopped"));
        self.nodes[at].stopped = true;
        let node = &self.nodes[at];
        for (suite, part) in self.suites.iter_mut().zip(&node.parts) {
            suite.stopped(id, &**part);
        }
    }

    pub(crate) fn restart(&mut self, index: u16) -> Result<(), String> {
        let slot = usize::from(index);
        let old = self.nodes[slot].id;
        if !self.nodes[slot].stopped {
            return Ok(());
        }
        if self.plan.medium == Medium::Boards && self.now < self.plan.busy && self.rng.one_in(3) {
            // Its board starts it by itself, whether anybody has noticed or not.
            let id = KernelId { index, incarnation: old.incarnation + 1 };
            self.note(|_| format!("{id} starts by itself"));
            self.nodes[slot] = self.node(id);
            let contacts = self.nodes.iter().map(|n| n.id).filter(|k| *k != id).collect();
            return self.membership(id, Event::Enter { contacts });
        }
        // Only when somebody knows that all have let go of the old one. What was lost comes again when its whole board begins anew.
        let anew = self.plan.medium == Medium::Boards
            && !self.nodes.iter().any(|n| n.runs() && self.plan.near(n.id.index, index));
        let booter = self.nodes.iter().find(|n| {
            n.runs()
                && n.membership.phase() == Phase::Member
                && n.membership.is_dead(old)
                && (anew || n.membership.outcome(index) != Some(Outcome::Lost))
                && !n.membership.view().contains(old)
        });
        let Some(booter) = booter.map(|n| n.id) else {
            if self.now < self.plan.busy {
                self.schedule(self.now + 500 * MS, Item::Restart { index });
            }
            return Ok(());
        };
        let id = KernelId { index, incarnation: old.incarnation + 1 };
        self.note(|_| format!("{booter} starts {id}"));
        self.nodes[slot] = self.node(id);
        let mut contacts = vec![booter];
        contacts.extend(self.nodes.iter().map(|n| n.id).filter(|k| *k != id && *k != booter));
        self.membership(id, Event::Enter { contacts })
    }
}
