//! Who starts and stops which kernel, without I/O.
//!
//! * **Leave.** The coordinator (the lowest live member of the view) gives one kernel at a time leave to start another, and names the incarnation. It
//!   says yes only when nobody of the target's last incarnation is in its view: then all members have let go of what that one had. A new coordinator
//!   first hears from every member of its view what it knows, so that no leave is given twice.
//! * **Knowledge** is a table that only grows ([`Rows`]); its pieces may come in any order.
//! * **Starting** is done by the kernel that asked, or by one that reaches the target, when all members have heard which incarnation it will be; if the
//!   starter dies, or the target does not join in time, the incarnation is used up. Who starts a kernel stops its CPUs first, so nothing of an
//!   earlier try goes on.
//! * **Stopping** is leave too (never for the last kernel); then the target ends its processes and says goodbye to the membership.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use base::{Errno, KernelId};

use crate::{
    rows::{Phase, Row, Rows},
    types::{Actions, Config, Event, Message, Seat, Ticket, What},
};

/// Who waits for an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum For {
    Program(Ticket),
    Peer(KernelId, Ticket),
    Nobody,
}

/// How far an order is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The coordinator was asked.
    Asked,
    /// A kernel that reaches the target does it.
    Helping(KernelId),
    /// The others are told.
    Telling(KernelId),
    /// Its image is loaded.
    Loading(KernelId),
    /// Its CPU runs since then.
    Joining(KernelId, u64),
    /// It was told to stop.
    Stopping,
}

#[derive(Clone, Copy, Debug)]
struct Order {
    what: What,
    index: u16,
    /// Who is to stop.
    target: Option<KernelId>,
    who: For,
    stage: Stage,
}

/// The lives of kernels as one kernel knows them.
#[derive(Debug)]
pub struct Life {
    me: KernelId,
    /// Of each index.
    seats: Vec<Seat>,
    config: Config,
    epoch: u32,
    members: Vec<KernelId>,
    down: BTreeSet<KernelId>,
    rows: Rows,
    /// Who has told all it knows, and for which epoch.
    reports: BTreeMap<KernelId, u32>,
    /// The last epoch in which this kernel was the coordinator and told all members what it knows.
    taught: u32,
    /// Who was told to stop by this kernel.
    stopping: BTreeSet<KernelId>,
    /// What the coordinator was asked, by whom in which epoch.
    asks: BTreeMap<(KernelId, u16, What), u32>,
    orders: BTreeMap<u64, Order>,
    /// Who has not yet heard of a start that this kernel has leave for.
    unheard: BTreeMap<KernelId, BTreeSet<KernelId>>,
    /// Who waits until this kernel has heard of a start.
    asked: BTreeMap<KernelId, KernelId>,
    serial: u64,
    /// Nothing that ever was is unknown here: it was there from the beginning, or heard from one that knows.
    knows: bool,
    winding: bool,
}

impl Life {
    /// Kernel `me` of a plan in which kernel `i` has `seats[i]`.
    pub const fn new(me: KernelId, seats: Vec<Seat>, config: Config) -> Self {
        Self {
            me,
            seats,
            config,
            epoch: 0,
            members: Vec::new(),
            down: BTreeSet::new(),
            rows: Rows::new(),
            reports: BTreeMap::new(),
            taught: 0,
            stopping: BTreeSet::new(),
            asks: BTreeMap::new(),
            orders: BTreeMap::new(),
            unheard: BTreeMap::new(),
            asked: BTreeMap::new(),
            serial: 0,
            knows: false,
            winding: false,
        }
    }

    /// What is known of an index.
    pub fn row(&self, index: u16) -> Option<Row> {
        self.rows.get(index)
    }

    /// All that is known.
    pub const fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Whether this kernel was told to stop.
    pub const fn is_stopping(&self) -> bool {
        self.winding
    }

    /// How many orders are under way here.
    pub fn orders(&self) -> usize {
        self.orders.len()
    }

    fn live(&self) -> impl Iterator<Item = KernelId> + '_ {
        self.members.iter().copied().filter(|k| !self.down.contains(k))
    }

    fn live_at(&self, index: u16) -> Option<KernelId> {
        self.live().find(|k| k.index == index)
    }

    /// Whether somebody of this index is in the view, alive or not.
    fn is_member(&self, index: u16) -> bool {
        self.members.iter().any(|k| k.index == index)
    }

    fn coordinator(&self) -> Option<KernelId> {
        self.live().min_by_key(|k| k.index)
    }

    /// Whether a kernel can start another one: it is on its board, or can have the board begin anew, which nobody does who would take a kernel that
    /// lives with it.
    fn reaches(&self, from: u16, to: u16) -> bool {
        let seat = |index: u16| self.seats.get(usize::from(index));
        let (Some(from), Some(to)) = (seat(from), seat(to)) else { return false };
        let on_board = |kernel: KernelId| seat(kernel.index).is_some_and(|seat| seat.board == to.board);
        from.board == to.board || to.switched && !self.live().any(on_board)
    }

    /// One step.
    pub fn step(&mut self, now: u64, event: Event, actions: &mut impl Actions) {
        match event {
            Event::Order { ticket, index, what } => self.order(For::Program(ticket), index, what, actions),
            Event::Forget(ticket) => {
                for order in self.orders.values_mut().filter(|o| o.who == For::Program(ticket)) {
                    order.who = For::Nobody;
                }
            }
            Event::Planned { kernel, by } => {
                let news = Row { incarnation: kernel.incarnation, phase: Phase::Booting, by: Some(by) };
                self.rows.merge(kernel.index, news);
                // Peers have the same plan, and may have told of it before: that it is known does not mean that it was done.
                let open = self.rows.get(kernel.index) == Some(news);
                if by == self.me && open && !self.orders.values().any(|o| o.index == kernel.index) {
                    self.begin(For::Nobody, kernel.index, What::Boot, Stage::Loading(kernel));
                    actions.load(kernel);
                }
            }
            Event::Received { from, message } => {
                if !self.down.contains(&from) {
                    self.received(from, message, actions);
                }
            }
            Event::View { epoch, members } => self.view(epoch, members, actions),
            Event::Down { kernel, orderly, lost } => self.gone(kernel, orderly, lost, actions),
            Event::Barred { kernel, barred } => self.barred(kernel, barred, actions),
            Event::Loaded { kernel, result } => self.loaded(now, kernel, result, actions),
            Event::Tick => {}
        }
        self.expire(now, actions);
        self.serve(actions);
        self.go(actions);
    }

    // -- orders of this kernel -------------------------------------------------------------------------------------

    fn begin(&mut self, who: For, index: u16, what: What, stage: Stage) {
        self.serial += 1;
        let target = self.live_at(index);
        self.orders.insert(self.serial, Order { what, index, target, who, stage });
    }

    fn order(&mut self, who: For, index: u16, what: What, actions: &mut impl Actions) {
        match self.admit(index, what) {
            Err(errno) => self.answer(who, Err(errno), actions),
            Ok(stage) => {
                self.begin(who, index, what, stage);
                match stage {
                    Stage::Helping(helper) => {
                        actions.send(helper, Message::Help { ticket: self.serial, index });
                    }
                    _ => self.ask(index, what, actions),
                }
            }
        }
    }

    /// Whether an order can be begun at all, and how; the coordinator decides.
    fn admit(&self, index: u16, what: What) -> Result<Stage, Errno> {
        let alive = self.live_at(index).is_some();
        let booting = self.is_booting(index) || self.orders.values().any(|o| o.index == index && o.what == What::Boot);
        match what {
            What::Boot if alive || booting || self.is_lost(index) => Err(Errno::EBUSY),
            What::Boot => self.way(index).ok_or(Errno::ENODEV),
            What::Stop if alive && self.live().count() == 1 => Err(Errno::EBUSY),
            What::Stop if alive => Ok(Stage::Asked),
            What::Stop if booting => Err(Errno::EBUSY),
            What::Stop => Err(Errno::EALREADY),
        }
    }

    /// Who starts it: this kernel if it can, else the lowest that can.
    fn way(&self, index: u16) -> Option<Stage> {
        if self.reaches(self.me.index, index) {
            return Some(Stage::Asked);
        }
        self.live().find(|k| self.reaches(k.index, index)).map(Stage::Helping)
    }

    fn is_booting(&self, index: u16) -> bool {
        self.rows.get(index).is_some_and(|row| row.phase == Phase::Booting && row.by.is_some_and(|by| self.is_live(by)))
    }

    /// Whether a kernel is there, or on its way: the plan's starters may themselves be starting.
    fn is_live(&self, kernel: KernelId) -> bool {
        let coming = || {
            let row = self.rows.get(kernel.index);
            row.is_none_or(|row| (row.incarnation, row.phase) <= (kernel.incarnation, Phase::Booting))
        };
        !self.down.contains(&kernel)
            && (kernel == self.me || self.members.is_empty() || self.members.contains(&kernel) || coming())
    }

    /// Whether nobody can be sure that the CPUs of an index stand still. Who is started by a kernel of its own board, which begins with one that firmware
    /// starts, or with its whole board, stands still before: a start is given up where that cannot be brought about.
    fn is_lost(&self, index: u16) -> bool {
        let Some(seat) = self.seats.get(usize::from(index)) else { return false };
        let first = |kernel: KernelId| {
            self.seats.get(usize::from(kernel.index)).is_some_and(|first| first.switched && first.board == seat.board)
        };
        let anew = seat.switched || self.live().any(first);
        !anew && self.rows.get(index).is_some_and(|row| row.phase == Phase::Lost)
    }

    fn ask(&mut self, index: u16, what: What, actions: &mut impl Actions) {
        let epoch = self.epoch;
        match self.coordinator() {
            Some(coordinator) if coordinator == self.me => {
                self.asks.insert((self.me, index, what), epoch);
            }
            Some(coordinator) => actions.send(coordinator, Message::Ask { epoch, index, what }),
            // The next view has one.
            None => {}
        }
    }

    fn answer(&mut self, who: For, result: Result<(), Errno>, actions: &mut impl Actions) {
        match who {
            For::Program(ticket) => actions.done(ticket, result),
            For::Peer(peer, ticket) => actions.send(peer, Message::Helped { ticket, result }),
            For::Nobody => {}
        }
    }

    /// Ends the orders that `ends` gives a result.
    fn settle(&mut self, ends: impl Fn(&Self, u64, &Order) -> Option<Result<(), Errno>>, actions: &mut impl Actions) {
        let ended: Vec<_> =
            self.orders.iter().filter_map(|(n, order)| Some((*n, order.who, ends(self, *n, order)?))).collect();
        for (n, who, result) in ended {
            self.orders.remove(&n);
            self.answer(who, result, actions);
        }
    }

    /// The image is there and the CPU runs, or not.
    fn loaded(&mut self, now: u64, kernel: KernelId, result: Result<(), Errno>, actions: &mut impl Actions) {
        match result {
            Ok(()) => {
                for order in self.orders.values_mut().filter(|o| o.stage == Stage::Loading(kernel)) {
                    order.stage = Stage::Joining(kernel, now);
                }
            }
            Err(errno) => self.failed(kernel, errno, actions),
        }
    }

    /// A start came to nothing.
    fn failed(&mut self, kernel: KernelId, errno: Errno, actions: &mut impl Actions) {
        self.learn(kernel, Phase::Failed, actions);
        self.settle(
            |_, _, o| matches!(o.stage, Stage::Loading(k) | Stage::Joining(k, _) if k == kernel).then_some(Err(errno)),
            actions,
        );
    }

    /// Who is given up when, in the order of the orders.
    fn patience(&self) -> impl Iterator<Item = (KernelId, u64)> {
        self.orders.values().filter_map(|order| match order.stage {
            Stage::Joining(kernel, since) => Some((kernel, since.saturating_add(self.config.patience))),
            _ => None,
        })
    }

    /// When an [`Event::Tick`] is due at the latest, on the clock of [`Self::step`]; `None`: nothing waits for time to pass.
    pub fn next(&self) -> Option<u64> {
        self.patience().map(|(_, due)| due).min()
    }

    fn expire(&mut self, now: u64, actions: &mut impl Actions) {
        let late: Vec<_> = self.patience().filter(|(_, due)| *due <= now).map(|(kernel, _)| kernel).collect();
        for kernel in late {
            actions.abort(kernel);
            self.failed(kernel, Errno::ETIMEDOUT, actions);
        }
    }

    // -- what is known ---------------------------------------------------------------------------------------------

    /// Learns something by itself, and tells the others.
    fn learn(&mut self, kernel: KernelId, phase: Phase, actions: &mut impl Actions) {
        if self.rows.reach(kernel, phase) {
            self.tell(kernel.index, actions);
        }
    }

    fn tell(&self, index: u16, actions: &mut impl Actions) {
        let rows: Vec<_> = self.rows.get(index).map(|row| (index, row)).into_iter().collect();
        for peer in self.live().filter(|k| *k != self.me) {
            actions.send(peer, Message::Table { epoch: None, whole: false, rows: rows.clone() });
        }
    }

    fn all(&self) -> Vec<(u16, Row)> {
        self.rows.iter().collect()
    }

    /// Rows are new: perhaps they are what an order waited for.
    fn heed(&mut self, actions: &mut impl Actions) {
        let mut leaves = Vec::new();
        for order in self.orders.values_mut().filter(|o| o.stage == Stage::Asked) {
            let Some(row) = self.rows.get(order.index) else { continue };
            match (order.what, row.phase) {
                (What::Boot, Phase::Booting) if row.by == Some(self.me) => {
                    let kernel = KernelId { index: order.index, incarnation: row.incarnation };
                    order.stage = Stage::Telling(kernel);
                    leaves.push(kernel);
                }
                (What::Stop, Phase::Stopping) => order.stage = Stage::Stopping,
                _ => {}
            }
        }
        for kernel in leaves {
            let told = self.live().chain([self.me]).collect();
            self.unheard.insert(kernel, told);
            actions.bar(kernel);
            for other in self.live().filter(|k| *k != self.me) {
                actions.send(other, Message::Tell(kernel));
            }
        }
        let told = self.rows.get(self.me.index);
        if told.is_some_and(|r| r.incarnation == self.me.incarnation && r.phase == Phase::Stopping) {
            self.stop(actions);
        }
    }

    fn stop(&mut self, actions: &mut impl Actions) {
        if !core::mem::replace(&mut self.winding, true) {
            actions.wind_down();
        }
    }

    /// Starts the kernels of which everybody has heard. Who joined since heard of it from the others.
    fn go(&mut self, actions: &mut impl Actions) {
        let down = &self.down;
        let mut known = Vec::new();
        self.unheard.retain(|kernel, others| {
            others.retain(|k| !down.contains(k));
            if others.is_empty() {
                known.push(*kernel);
            }
            !others.is_empty()
        });
        for kernel in known {
            if !self.reaches(self.me.index, kernel.index) {
                // Another one of its board has come up meanwhile, and is the one to start it.
                self.learn(kernel, Phase::Failed, actions);
                self.settle(|_, _, o| (o.stage == Stage::Telling(kernel)).then_some(Err(Errno::EBUSY)), actions);
                continue;
            }
            for order in self.orders.values_mut().filter(|o| o.stage == Stage::Telling(kernel)) {
                order.stage = Stage::Loading(kernel);
                actions.load(kernel);
            }
        }
    }

    fn view(&mut self, epoch: u32, members: Vec<KernelId>, actions: &mut impl Actions) {
        // The first of the machine: nobody was before it.
        self.knows |= epoch == 1;
        let before = core::mem::replace(&mut self.members, members);
        self.epoch = epoch;
        for member in self.members.clone() {
            self.rows.reach(member, Phase::Up);
        }
        // Who is not in the view and was in the one before is gone, whatever was heard of it.
        for gone in before.iter().filter(|k| !self.members.contains(k)) {
            self.rows.reach(*gone, Phase::Dead);
        }
        self.widows();
        // Epochs are entered one by one, but not every kernel enters all: who asked in this epoch or an earlier one asks again.
        let (me, coordinator) = (self.me, self.coordinator());
        if coordinator != Some(me) {
            self.asks.retain(|_, asked| *asked > epoch);
        }
        let members = self.members.clone();
        self.asks.retain(|(asker, ..), asked| *asked > epoch || members.contains(asker));
        self.reports.retain(|_, reported| *reported >= epoch);
        if let Some(coordinator) = coordinator.filter(|k| *k != me) {
            actions.send(coordinator, Message::Table { epoch: Some(epoch), whole: self.knows, rows: self.all() });
        }
        for new in self.live().filter(|k| *k != me && !before.contains(k) && Some(*k) != coordinator) {
            actions.send(new, Message::Table { epoch: None, whole: self.knows, rows: self.all() });
        }
        self.settle(
            |life, _, order| match (order.what, order.stage) {
                (What::Boot, Stage::Loading(kernel) | Stage::Joining(kernel, _)) => {
                    life.members.contains(&kernel).then_some(Ok(()))
                }
                (What::Boot, Stage::Helping(_) | Stage::Telling(_)) => None,
                (What::Boot, _) => life.live_at(order.index).map(|_| Err(Errno::EBUSY)),
                (What::Stop, _) => order.target.is_none_or(|k| !life.members.contains(&k)).then_some(Ok(())),
            },
            actions,
        );
        self.again(actions);
        self.heed(actions);
    }

    /// Starts by kernels that are gone come to nothing, and those of kernels that they were to start.
    fn widows(&mut self) {
        loop {
            let mut some = false;
            for (index, row) in self.all() {
                if row.phase == Phase::Booting && row.by.is_some_and(|by| !self.is_live(by)) {
                    some |= self.rows.reach(KernelId { index, incarnation: row.incarnation }, Phase::Failed);
                }
            }
            if !some {
                return;
            }
        }
    }

    /// The coordinator or a helper may be another one now: asks again.
    fn again(&mut self, actions: &mut impl Actions) {
        let open: Vec<(u64, Order)> = self.orders.iter().map(|(n, o)| (*n, *o)).collect();
        for (n, order) in open {
            match order.stage {
                Stage::Asked => self.ask(order.index, order.what, actions),
                Stage::Helping(helper) if !self.is_live(helper) => match self.way(order.index) {
                    Some(stage @ Stage::Helping(helper)) => {
                        if let Some(order) = self.orders.get_mut(&n) {
                            order.stage = stage;
                        }
                        actions.send(helper, Message::Help { ticket: n, index: order.index });
                    }
                    _ => {
                        self.orders.remove(&n);
                        self.answer(order.who, Err(Errno::ENODEV), actions);
                    }
                },
                _ => {}
            }
        }
    }

    fn gone(&mut self, kernel: KernelId, orderly: bool, lost: bool, actions: &mut impl Actions) {
        self.down.retain(|k| k.index != kernel.index || k.incarnation > kernel.incarnation);
        self.down.insert(kernel);
        self.asks.retain(|(asker, ..), _| *asker != kernel);
        self.reports.remove(&kernel);
        self.asked.retain(|_, starter| *starter != kernel);
        self.stopping.remove(&kernel);
        let phase = match (lost, orderly) {
            (true, _) => Phase::Lost,
            (_, true) => Phase::Off,
            _ => Phase::Dead,
        };
        // All members hear of it by themselves; those who come later hear all there is.
        self.rows.reach(kernel, phase);
        self.widows();
        self.settle(
            |_, _, order| match order.stage {
                Stage::Loading(k) | Stage::Joining(k, _) if k == kernel => Some(Err(Errno::ETIMEDOUT)),
                _ => None,
            },
            actions,
        );
        for order in self.orders.values_mut().filter(|o| matches!(o.who, For::Peer(peer, _) if peer == kernel)) {
            order.who = For::Nobody;
        }
        self.again(actions);
    }

    // -- messages --------------------------------------------------------------------------------------------------

    fn received(&mut self, from: KernelId, message: Message, actions: &mut impl Actions) {
        match message {
            Message::Ask { epoch, index, what } => {
                if epoch > self.epoch || self.coordinator() == Some(self.me) {
                    self.asks.insert((from, index, what), epoch);
                }
            }
            Message::Denied { index, what, errno } => self.denied(index, what, errno, actions),
            Message::Table { epoch, whole, rows } => {
                self.knows |= whole;
                for (index, row) in rows {
                    self.rows.merge(index, row);
                }
                if let Some(epoch) = epoch.filter(|epoch| *epoch >= self.epoch) {
                    self.reports.insert(from, epoch);
                }
                self.heed(actions);
            }
            Message::Tell(kernel) => {
                let row = Row { incarnation: kernel.incarnation, phase: Phase::Booting, by: Some(from) };
                self.rows.merge(kernel.index, row);
                self.asked.insert(kernel, from);
                actions.bar(kernel);
            }
            Message::Heard(kernel) => {
                if let Some(others) = self.unheard.get_mut(&kernel) {
                    others.remove(&from);
                }
            }
            Message::Stop(kernel) => {
                if kernel == self.me {
                    self.stop(actions);
                }
            }
            Message::Help { ticket, index } => {
                if self.reaches(self.me.index, index) {
                    self.order(For::Peer(from, ticket), index, What::Boot, actions);
                } else {
                    actions.send(from, Message::Helped { ticket, result: Err(Errno::ENODEV) });
                }
            }
            Message::Helped { ticket, result } => {
                self.settle(|_, n, o| (n == ticket && o.stage == Stage::Helping(from)).then_some(result), actions);
            }
        }
    }

    /// No earlier incarnation comes in here any more, or one does: whose starter died may join after all.
    fn barred(&mut self, kernel: KernelId, barred: bool, actions: &mut impl Actions) {
        let (index, what, errno) = (kernel.index, What::Boot, Errno::EBUSY);
        if let Some(others) = self.unheard.get_mut(&kernel) {
            others.remove(&self.me);
            if !barred {
                self.denied(index, what, errno, actions);
            }
        }
        if let Some(starter) = self.asked.remove(&kernel) {
            let answer = if barred { Message::Heard(kernel) } else { Message::Denied { index, what, errno } };
            actions.send(starter, answer);
        }
    }

    fn denied(&mut self, index: u16, what: What, errno: Errno, actions: &mut impl Actions) {
        let told = self.unheard.keys().copied().find(|k| k.index == index).filter(|_| what == What::Boot);
        if let Some(kernel) = told {
            self.unheard.remove(&kernel);
            self.learn(kernel, Phase::Failed, actions);
        }
        self.settle(
            |_, _, order| {
                let asked = order.stage == Stage::Asked || told.is_some_and(|k| order.stage == Stage::Telling(k));
                (order.index == index && order.what == what && asked).then_some(Err(errno))
            },
            actions,
        );
    }

    // -- the coordinator -------------------------------------------------------------------------------------------

    /// Gives leave, if this kernel is the coordinator and knows what all members know.
    fn serve(&mut self, actions: &mut impl Actions) {
        if self.epoch == 0 || self.coordinator() != Some(self.me) {
            return;
        }
        let heard = |k: &KernelId| self.reports.get(k).is_some_and(|epoch| *epoch == self.epoch);
        if !self.live().filter(|k| *k != self.me).all(|k| heard(&k)) {
            return;
        }
        if self.taught < self.epoch {
            // What the coordinator before gave leave for, some have heard and some have not.
            self.taught = self.epoch;
            let (whole, rows) = (self.knows, self.all());
            for peer in self.live().filter(|k| *k != self.me) {
                actions.send(peer, Message::Table { epoch: None, whole, rows: rows.clone() });
            }
        }
        for (asker, index, what) in self.asks.keys().copied().collect::<Vec<_>>() {
            let verdict = match what {
                What::Boot => self.may_boot(asker, index, actions),
                What::Stop => self.may_stop(index),
            };
            let Some(verdict) = verdict else { continue };
            self.asks.remove(&(asker, index, what));
            match verdict {
                Ok(row) => {
                    self.rows.merge(index, row);
                    self.tell(index, actions);
                    let target = KernelId { index, incarnation: row.incarnation };
                    if what == What::Stop {
                        self.stopping.insert(target);
                        // Not only the row: a start that was called off may have used up a later incarnation.
                        if target == self.me {
                            self.stop(actions);
                        } else {
                            actions.send(target, Message::Stop(target));
                        }
                    }
                }
                Err(errno) if asker == self.me => self.received(asker, Message::Denied { index, what, errno }, actions),
                Err(errno) => actions.send(asker, Message::Denied { index, what, errno }),
            }
        }
        self.heed(actions);
    }

    /// The row that gives leave; `None`: not yet.
    fn may_boot(&self, asker: KernelId, index: u16, actions: &mut impl Actions) -> Option<Result<Row, Errno>> {
        let row = self.rows.get(index);
        if self.live_at(index).is_some() || self.is_lost(index) {
            return Some(Err(Errno::EBUSY));
        }
        if self.is_member(index) {
            // It is dead, but not everybody has let go of it.
            return None;
        }
        if !self.reaches(asker.index, index) {
            return Some(Err(Errno::ENODEV));
        }
        if self.is_booting(index) {
            // The asker heard of its leave while it asked again: it is told once more.
            return Some(row.filter(|row| row.by == Some(asker)).ok_or(Errno::EBUSY));
        }
        let known = row.map_or(0, |row| row.incarnation);
        // Everybody who knew may have died before this kernel heard of it.
        let written = if self.knows { 0 } else { actions.written(index) };
        let incarnation = known.max(written).checked_add(1);
        let row = incarnation.map(|incarnation| Row { incarnation, phase: Phase::Booting, by: Some(asker) });
        Some(row.ok_or(Errno::EOVERFLOW))
    }

    fn may_stop(&self, index: u16) -> Option<Result<Row, Errno>> {
        let Some(kernel) = self.live_at(index) else {
            // Dead, but still in the view: the next view ends the order.
            return if self.is_member(index) { None } else { Some(Err(Errno::EALREADY)) };
        };
        let stays = |k: KernelId| {
            let row = self.rows.get(k.index).filter(|row| row.incarnation == k.incarnation);
            k != kernel && !self.stopping.contains(&k) && row.is_none_or(|row| row.phase < Phase::Stopping)
        };
        if !self.live().any(stays) {
            return Some(Err(Errno::EBUSY));
        }
        Some(Ok(Row { incarnation: kernel.incarnation, phase: Phase::Stopping, by: None }))
    }
}
