//! Memory objects: pages that are granted, revoked and released (`memory::{Home, Holder}`), and sleepers at their words (`task::futex::Futexes`).
//!
//! What two CPUs of a kernel can do at once happens here in two steps with others between them: the pages of a grant are collected, and later recorded
//! and checked; pages are taken out of the holder's table, and later unmapped and acknowledged; a message is sent after one that was made later.

use std::{
    any::Any,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    rc::Rc,
    sync::{Arc, Mutex},
};

use base::{KernelId, ObjectId};
use membership::Outcome;
use memory::{Holder, Home, Release, holder::Have};
use task::futex::{ANY, Armed, Futexes, Key, Sleeper};
use wire::Lane;

use crate::{
    judge::{Judge, Rule},
    service::{Body, Context, Parts, SimService, Suite},
    world::MS,
};

/// Pages of an object at most.
const PAGES: u64 = 12;
/// Objects of a kernel at most: few, so that many meet at each.
const OBJECTS: u64 = 2;
/// Operations at a time, on average.
const OPERATIONS: u64 = 10;
/// Spaces of a kernel.
const SPACES: usize = 2;

/// The frames of a kernel that are not free. Numbers are not used twice, so a frame that was freed is known as such for ever.
#[derive(Debug, Default)]
struct Pool {
    live: BTreeSet<u64>,
    next: u64,
}

/// A counted frame.
#[derive(Debug)]
struct Owned(u64, Rc<RefCell<Pool>>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.1.borrow_mut().live.remove(&self.0);
    }
}

#[derive(Clone, Debug)]
struct Frame(Rc<Owned>);

impl Frame {
    fn new(pool: &Rc<RefCell<Pool>>) -> Self {
        let mut inner = pool.borrow_mut();
        inner.next += 1;
        let id = inner.next;
        inner.live.insert(id);
        Self(Rc::new(Owned(id, pool.clone())))
    }

    fn id(&self) -> u64 {
        self.0.0
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

/// The word at the start of each object, which its holders reach without a message: its value and who stored it last.
type Words = Rc<RefCell<BTreeMap<ObjectId, (u32, Option<KernelId>)>>>;

#[derive(Clone, Debug)]
enum Note {
    Open { request: u64, pick: u64 },
    Opened { request: u64, object: ObjectId },
    Map { request: u64, object: ObjectId, index: u64 },
    Mapped { request: u64, object: ObjectId, serial: u64, pages: Vec<(u64, u64)> },
    Refused { request: u64 },
    Revoke { object: ObjectId, range: Range<u64>, serial: u64 },
    Done { serial: u64 },
    Release { object: ObjectId, serial: u64, opens: u32 },
    Wait { request: u64, object: ObjectId, expected: u32 },
    Woken { request: u64 },
    Cancel { request: u64 },
    Cancelled { request: u64 },
    Wake { object: ObjectId },
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Open,
    Map { object: ObjectId },
    Sleep { object: ObjectId, expected: u32, leaving: bool },
}

/// What a CPU is in the middle of.
#[derive(Debug)]
enum Half {
    /// Pages were collected for a grant.
    Grant { to: KernelId, request: u64, object: ObjectId, index: u64, pages: Vec<(u64, Frame)> },
    /// Pages are being unmapped.
    Unmap { to: KernelId, object: ObjectId, range: Range<u64>, serial: u64 },
    /// A message is about to be sent.
    Send { to: KernelId, lane: Lane, note: Note },
}

/// A task of a peer that sleeps here: whom to answer.
struct Peer(KernelId, u64, Arc<Mutex<Vec<(KernelId, u64)>>>);

impl Sleeper for Peer {
    fn woken(&self) {
        if let Ok(mut woken) = self.2.lock() {
            woken.push((self.0, self.1));
        }
    }
}

/// The memory of one kernel.
pub struct Part {
    me: KernelId,
    pool: Rc<RefCell<Pool>>,
    words: Words,
    serial: u64,
    home: Home<Frame>,
    objects: BTreeMap<ObjectId, BTreeMap<u64, Frame>>,
    /// Cuts that wait for holders: by the revocation.
    cutting: BTreeSet<u64>,
    holder: Holder<u64>,
    homes: BTreeMap<ObjectId, KernelId>,
    spaces: [BTreeMap<ObjectId, BTreeMap<u64, u64>>; SPACES],
    asked: BTreeMap<u64, (KernelId, Asked)>,
    requests: u64,
    ended: u64,
    halves: Vec<Half>,
    downs: BTreeSet<KernelId>,
    futexes: Futexes,
    sleeping: BTreeMap<(KernelId, u64), Armed>,
    woken: Arc<Mutex<Vec<(KernelId, u64)>>>,
}

impl Part {
    fn ask(&mut self, to: KernelId, asked: Asked, note: impl FnOnce(u64) -> Note, context: &mut Context<'_>) {
        self.requests += 1;
        let request = self.requests;
        if context.closed.contains(&to) {
            self.ended += 1;
            if let Asked::Map { object } = asked {
                self.holder.refused(object);
            }
            return;
        }
        self.asked.insert(request, (to, asked));
        context.send(to, Lane::Request, note(request));
    }

    fn answered(&mut self, from: KernelId, request: u64) -> Option<Asked> {
        let (to, asked) = *self.asked.get(&request)?;
        if to != from {
            return None;
        }
        self.asked.remove(&request);
        self.ended += 1;
        Some(asked)
    }

    /// Sends now, or after what other CPUs do meanwhile.
    fn send(&mut self, to: KernelId, lane: Lane, note: Note, context: &mut Context<'_>) {
        if context.rng.one_in(6) {
            self.halves.push(Half::Send { to, lane, note });
        } else {
            context.send(to, lane, note);
        }
    }

    fn give_back(&mut self, object: ObjectId, release: Option<Release>, context: &mut Context<'_>) {
        if let Some(Release { home, serial, opens }) = release {
            context.send(home, Lane::Request, Note::Release { object, serial, opens });
        }
    }

    // -- home ------------------------------------------------------------------------------------------------------

    fn open(&mut self, from: KernelId, request: u64, pick: u64, context: &mut Context<'_>) {
        if self.objects.is_empty() || (pick.is_multiple_of(5) && (self.objects.len() as u64) < OBJECTS) {
            self.serial += 1;
            let object = ObjectId { birth: self.me, serial: self.serial };
            self.objects.insert(object, BTreeMap::from([(0, Frame::new(&self.pool))]));
            self.words.borrow_mut().insert(object, (0, None));
        }
        let at = pick as usize % self.objects.len();
        let Some(object) = self.objects.keys().nth(at).copied() else { return };
        self.home.open(object, from);
        context.send(from, Lane::Reply, Note::Opened { request, object });
    }

    fn collect(&mut self, to: KernelId, request: u64, object: ObjectId, index: u64, context: &mut Context<'_>) {
        let here = self.home.is_open(object, to) && index < PAGES;
        let Some(pages) = self.objects.get_mut(&object).filter(|_| here) else {
            return context.send(to, Lane::Reply, Note::Refused { request });
        };
        let pool = &self.pool;
        let frame = pages.entry(index).or_insert_with(|| Frame::new(pool)).clone();
        let mut collected = vec![(index, frame)];
        let around = pages.range(index & !3..(index & !3) + 4).filter(|(i, _)| **i != index);
        collected.extend(around.map(|(i, f)| (*i, f.clone())));
        self.halves.push(Half::Grant { to, request, object, index, pages: collected });
        if context.rng.one_in(2) {
            self.go_on(self.halves.len() - 1, context);
        }
    }

    /// The second half of something.
    fn go_on(&mut self, at: usize, context: &mut Context<'_>) {
        match self.halves.remove(at) {
            Half::Send { to, lane, note } => context.send(to, lane, note),
            Half::Unmap { to, object, range, serial } => {
                for space in &mut self.spaces {
                    if let Some(pages) = space.get_mut(&object) {
                        pages.retain(|index, _| !range.contains(index));
                    }
                }
                self.send(to, Lane::Reply, Note::Done { serial }, context);
            }
            Half::Grant { to, request, object, index, pages } => {
                let Some((serial, spare)) = self.home.grant(object, to, pages.clone()) else {
                    return context.send(to, Lane::Reply, Note::Refused { request });
                };
                drop(spare);
                let now = self.objects.get(&object);
                let same = |(i, f): &&(u64, Frame)| now.and_then(|pages| pages.get(i)) == Some(f);
                let told: Vec<(u64, u64)> = pages.iter().filter(same).map(|(i, f)| (*i, f.id())).collect();
                if told.first().is_none_or(|(first, _)| *first != index) {
                    return self.collect(to, request, object, index, context);
                }
                self.send(to, Lane::Reply, Note::Mapped { request, object, serial, pages: told }, context);
            }
        }
    }

    /// Cuts pages off an object; never the first, where the word is.
    fn cut(&mut self, object: ObjectId, range: Range<u64>, context: &mut Context<'_>) {
        if let Some(pages) = self.objects.get_mut(&object) {
            pages.retain(|index, _| !range.contains(index));
        }
        if let Some(revoke) = self.home.revoke(object, range.clone()) {
            self.cutting.insert(revoke.id);
            for holder in revoke.ask {
                let note = Note::Revoke { object, range: range.clone(), serial: revoke.serial };
                self.send(holder, Lane::Reply, note, context);
            }
        }
    }

    fn wait(&mut self, from: KernelId, request: u64, object: ObjectId, expected: u32, context: &mut Context<'_>) {
        if !self.home.is_open(object, from) {
            return context.send(from, Lane::Reply, Note::Refused { request });
        }
        let now = self.words.borrow().get(&object).map_or(0, |(value, _)| *value);
        let sleeper = Arc::new(Peer(from, request, self.woken.clone()));
        match self.futexes.arm(Key::Shared(object, 0), ANY, sleeper, || now == expected) {
            Some(armed) => drop(self.sleeping.insert((from, request), armed)),
            None => context.send(from, Lane::Reply, Note::Refused { request }),
        }
    }

    fn wake(&mut self, object: ObjectId, context: &mut Context<'_>) {
        self.futexes.wake(Key::Shared(object, 0), usize::MAX, ANY);
        let woken = self.woken.lock().map(|mut list| std::mem::take(&mut *list)).unwrap_or_default();
        for (peer, request) in woken {
            self.sleeping.remove(&(peer, request));
            self.send(peer, Lane::Reply, Note::Woken { request }, context);
        }
    }

    // -- holder ----------------------------------------------------------------------------------------------------

    /// A program touches a page.
    fn touch(&mut self, space: usize, object: ObjectId, index: u64, context: &mut Context<'_>) {
        match self.holder.page(object, index, true) {
            Have::Here { place, .. } => {
                if let Some(pages) = self.spaces[space].get_mut(&object) {
                    pages.insert(index, place);
                }
            }
            Have::Ask(home) => {
                self.ask(home, Asked::Map { object }, |request| Note::Map { request, object, index }, context);
            }
            Have::Dead => {}
        }
    }

    fn unmap(&mut self, space: usize, object: ObjectId, context: &mut Context<'_>) {
        if self.spaces[space].remove(&object).is_none() {
            return;
        }
        let back = self.holder.detach(object);
        self.give_back(object, back, context);
        if self.spaces.iter().all(|space| !space.contains_key(&object)) {
            let back = self.holder.close(object, u32::MAX);
            self.give_back(object, back, context);
            self.homes.remove(&object);
        }
    }

    /// The other CPUs go on some time.
    fn wake_for_halves(&self, context: &mut Context<'_>) {
        if !self.halves.is_empty() {
            let at = context.now + 1 + context.rng.below(MS);
            context.wake_at(at);
        }
    }

    /// Whether this kernel sees the word of an object just now.
    fn sees_word(&self, object: ObjectId) -> bool {
        self.spaces.iter().any(|space| space.get(&object).is_some_and(|pages| pages.contains_key(&0)))
    }
}

impl SimService for Part {
    fn message(&mut self, from: KernelId, body: &dyn Body, context: &mut Context<'_>) {
        let Some(note) = body.as_any().downcast_ref::<Note>() else { return };
        if !self.halves.is_empty() && context.rng.one_in(2) {
            let at = context.rng.below(self.halves.len() as u64) as usize;
            self.go_on(at, context);
        }
        match note.clone() {
            Note::Open { request, pick } => self.open(from, request, pick, context),
            Note::Opened { request, object } => {
                if self.answered(from, request).is_some() {
                    self.holder.opened(object, from);
                    self.homes.insert(object, from);
                    let space = context.rng.below(SPACES as u64) as usize;
                    if !self.spaces[space].contains_key(&object) {
                        self.holder.attach(object);
                        self.spaces[space].insert(object, BTreeMap::new());
                    }
                }
            }
            Note::Map { request, object, index } => self.collect(from, request, object, index, context),
            Note::Mapped { request, object, serial, pages } => {
                if self.answered(from, request).is_some() {
                    let pages = pages.into_iter().map(|(index, frame)| (index, frame, true));
                    let back = self.holder.granted(object, from, serial, pages);
                    self.give_back(object, back, context);
                }
            }
            Note::Refused { request } => {
                if let Some(Asked::Map { object }) = self.answered(from, request) {
                    self.holder.refused(object);
                }
            }
            Note::Revoke { object, range, serial } => {
                self.holder.revoked(object, range.clone(), serial);
                self.halves.push(Half::Unmap { to: from, object, range, serial });
                if context.rng.one_in(2) {
                    self.go_on(self.halves.len() - 1, context);
                }
            }
            Note::Done { serial } => {
                if self.home.acknowledged(serial, from).is_some() {
                    self.cutting.remove(&serial);
                }
            }
            Note::Release { object, serial, opens } => {
                let released = self.home.release(object, from, serial, opens);
                drop(released.frames);
            }
            Note::Wait { request, object, expected } => self.wait(from, request, object, expected, context),
            Note::Woken { request } | Note::Cancelled { request } => drop(self.answered(from, request)),
            Note::Cancel { request } => {
                if let Some(armed) = self.sleeping.remove(&(from, request))
                    && self.futexes.disarm(&armed)
                {
                    self.send(from, Lane::Reply, Note::Cancelled { request }, context);
                }
            }
            Note::Wake { object } => self.wake(object, context),
        }
        self.wake_for_halves(context);
    }

    fn down(&mut self, dead: KernelId, context: &mut Context<'_>) {
        self.downs.insert(dead);
        let theirs: Vec<u64> = self.asked.iter().filter(|(_, (to, _))| *to == dead).map(|(r, _)| *r).collect();
        for request in theirs {
            if let Some(Asked::Map { object }) = self.answered(dead, request) {
                self.holder.refused(object);
            }
        }
        for object in self.holder.home_down(dead) {
            for space in &mut self.spaces {
                if let Some(pages) = space.get_mut(&object) {
                    pages.clear();
                }
            }
        }
        let lost = context.membership.outcome(dead.index).is_none_or(|outcome| outcome == Outcome::Lost);
        let down = self.home.down(dead, lost);
        for id in down.ended {
            self.cutting.remove(&id);
        }
        drop(down.frames);
        let gone: Vec<(KernelId, u64)> = self.sleeping.keys().filter(|(peer, _)| *peer == dead).copied().collect();
        for key in gone {
            if let Some(armed) = self.sleeping.remove(&key) {
                self.futexes.disarm(&armed);
            }
        }
    }

    fn view(&mut self, _: &mut Context<'_>) {}

    fn operate(&mut self, context: &mut Context<'_>) {
        // Programs touch memory far more often than they do anything else.
        for _ in 0..=context.rng.below(2 * OPERATIONS) {
            self.operate_once(context);
        }
        self.wake_for_halves(context);
    }

    fn timer(&mut self, context: &mut Context<'_>) {
        if !self.halves.is_empty() {
            let at = context.rng.below(self.halves.len() as u64) as usize;
            self.go_on(at, context);
        }
        self.wake_for_halves(context);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Part {
    /// Stores another value and wakes everybody.
    fn store(&mut self, object: ObjectId, home: KernelId, context: &mut Context<'_>) {
        if let Some(word) = self.words.borrow_mut().get_mut(&object) {
            *word = (word.0 + 1, Some(self.me));
        }
        context.send(home, Lane::Request, Note::Wake { object });
    }

    /// One thing that a program does.
    fn operate_once(&mut self, context: &mut Context<'_>) {
        let peers = context.peers();
        let Some(peer) = context.rng.pick(&peers) else { return };
        let space = context.rng.below(SPACES as u64) as usize;
        let mapped: Vec<ObjectId> = self.spaces[space].keys().copied().collect();
        let object = context.rng.pick(&mapped);
        match context.rng.below(16) {
            0..=1 => {
                let pick = context.rng.below(20);
                self.ask(peer, Asked::Open, |request| Note::Open { request, pick }, context);
            }
            2..=7 => {
                if let Some(object) = object {
                    for _ in 0..3 {
                        let index = context.rng.below(PAGES + 1);
                        self.touch(space, object, index, context);
                    }
                    self.touch(space, object, 0, context);
                }
            }
            8 => {
                if let Some(object) = object {
                    self.unmap(space, object, context);
                }
            }
            // A child that maps the same: nothing of a peer is copied into its page tables.
            9 => {
                let other = (space + 1) % SPACES;
                if let Some(object) = object.filter(|object| !self.spaces[other].contains_key(object)) {
                    self.holder.attach(object);
                    self.spaces[other].insert(object, BTreeMap::new());
                }
            }
            10..=11 => {
                let own: Vec<ObjectId> = self.objects.keys().copied().collect();
                if let Some(object) = context.rng.pick(&own) {
                    let first = 1 + context.rng.below(PAGES - 1);
                    self.cut(object, first..first + 1 + context.rng.below(PAGES), context);
                }
            }
            12 => {
                if let Some(object) = object.filter(|object| self.sees_word(*object))
                    && let Some(home) = self.holder.home(object)
                {
                    let expected = self.words.borrow().get(&object).map_or(0, |(value, _)| *value);
                    // Another CPU of this kernel may be faster.
                    if context.rng.one_in(4) {
                        self.store(object, home, context);
                    }
                    let asked = Asked::Sleep { object, expected, leaving: false };
                    self.ask(home, asked, |request| Note::Wait { request, object, expected }, context);
                }
            }
            13..=14 => {
                if let Some(object) = object.filter(|object| self.sees_word(*object))
                    && let Some(home) = self.holder.home(object)
                {
                    self.store(object, home, context);
                }
            }
            _ => {
                let asleep = |(r, (to, asked)): (&u64, &(KernelId, Asked))| match asked {
                    Asked::Sleep { leaving: false, .. } => Some((*r, *to)),
                    _ => None,
                };
                let sleepers: Vec<(u64, KernelId)> = self.asked.iter().filter_map(asleep).collect();
                if let Some((request, to)) = context.rng.pick(&sleepers) {
                    if let Some((_, Asked::Sleep { leaving, .. })) = self.asked.get_mut(&request) {
                        *leaving = true;
                    }
                    context.send(to, Lane::Request, Note::Cancel { request });
                }
            }
        }
    }
}

/// What must hold for memory.
#[derive(Default)]
pub struct Memories {
    words: Words,
}

fn part(service: &dyn SimService) -> Option<&Part> {
    service.as_any().downcast_ref()
}

/// The invariants of what one kernel maps.
fn check_maps(k: KernelId, p: &Part, all: &[(KernelId, &Part)], judge: &Judge) -> Result<(), String> {
    for (object, pages) in p.spaces.iter().flatten() {
        if !p.holder.objects().any(|held| held == *object) {
            judge.broken(Rule::HomeRemembered, || format!("{k} maps {object:?}, whose home it forgot"))?;
        }
        let Some(home) = p.homes.get(object) else { continue };
        if p.downs.contains(home) && !pages.is_empty() {
            judge.broken(Rule::DeadUnmapped, || format!("{k} maps pages of {home}, which it was told is dead"))?;
        }
        let Some((_, h)) = all.iter().find(|(h, _)| h == home) else { continue };
        for (index, frame) in pages {
            if !h.pool.borrow().live.contains(frame) {
                judge.broken(Rule::MappedNotFree, || {
                    format!("{k} maps page {index} of {object:?}: frame {frame} of {home} is free")
                })?;
            }
            let known = h.home.frames().find(|f| f.id() == *frame);
            if !h.downs.contains(&k) && !known.is_some_and(|f| h.home.keeps(k, f)) {
                judge.broken(Rule::MappedKnown, || {
                    format!("{k} maps page {index} of {object:?}: {home} does not know (frame {frame})")
                })?;
            }
        }
    }
    Ok(())
}

impl Suite for Memories {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn start(&self, me: KernelId, _: u16) -> Box<dyn SimService> {
        Box::new(Part {
            me,
            pool: Rc::default(),
            words: self.words.clone(),
            serial: 0,
            home: Home::new(),
            objects: BTreeMap::new(),
            cutting: BTreeSet::new(),
            holder: Holder::new(),
            homes: BTreeMap::new(),
            spaces: [const { BTreeMap::new() }; SPACES],
            asked: BTreeMap::new(),
            requests: 0,
            ended: 0,
            halves: Vec::new(),
            downs: BTreeSet::new(),
            futexes: Futexes::new(),
            sleeping: BTreeMap::new(),
            woken: Arc::default(),
        })
    }

    fn check(&mut self, changed: KernelId, parts: &Parts<'_>, judge: &Judge) -> Result<(), String> {
        let parts: Vec<(KernelId, &Part)> = parts.iter().filter_map(|(k, p)| Some((*k, part(*p)?))).collect();
        let Some((_, this)) = parts.iter().find(|(k, _)| *k == changed) else { return Ok(()) };
        if this.requests != this.ended + this.asked.len() as u64 {
            judge.broken(Rule::RequestsKept, || {
                format!("{changed} lost a request: {} begun, {} ended", this.requests, this.ended)
            })?;
        }
        // Frames are neither lost nor invented: each that is not free is in an object, in the directory, or in the hands of a CPU.
        let mut known: BTreeSet<u64> = this.objects.values().flat_map(|pages| pages.values().map(Frame::id)).collect();
        known.extend(this.home.frames().map(Frame::id));
        known.extend(this.halves.iter().flat_map(|half| match half {
            Half::Grant { pages, .. } => pages.iter().map(|(_, f)| f.id()).collect(),
            _ => Vec::new(),
        }));
        if known != this.pool.borrow().live {
            judge.broken(Rule::FramesConserved, || {
                format!("{changed} has frames {:?}, but knows of {known:?}", this.pool.borrow().live)
            })?;
        }
        for (k, p) in &parts {
            if *k == changed || p.homes.values().any(|home| *home == changed) {
                check_maps(*k, p, &parts, judge)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, parts: &Parts<'_>, judge: &Judge) -> Result<(), String> {
        let parts: Vec<(KernelId, &Part)> = parts.iter().filter_map(|(k, p)| Some((*k, part(*p)?))).collect();
        let words = self.words.borrow();
        for (k, p) in &parts {
            if !p.halves.is_empty() || p.holder.asking() > 0 || p.home.revoking() > 0 || !p.cutting.is_empty() {
                judge.broken(Rule::Quiet, || {
                    format!(
                        "{k} is in the middle of {:?}, asks for {}, revokes {}, cuts {:?} when all is quiet",
                        p.halves,
                        p.holder.asking(),
                        p.home.revoking(),
                        p.cutting
                    )
                })?;
            }
            for (request, (to, asked)) in &p.asked {
                let Asked::Sleep { object, expected, leaving } = *asked else {
                    judge
                        .broken(Rule::AsksEnd, || format!("request {request} of {k} to {to} never ended: {asked:?}"))?;
                    continue;
                };
                let (value, writer) = words.get(&object).copied().unwrap_or_default();
                if leaving {
                    judge.broken(Rule::AsksEnd, || format!("{k} wanted to leave {object:?} and was not answered"))?;
                }
                // Who stored and died before its wake-up went out wakes nobody, as on one kernel.
                let writer_lives = writer.is_none_or(|writer| parts.iter().any(|(k, _)| *k == writer));
                if value != expected && writer_lives {
                    judge.broken(Rule::NoLostWakeup, || {
                        format!("{k} sleeps at {object:?} for {expected}, which is {value}: a wake-up was lost")
                    })?;
                }
            }
            for (sleeper, request) in p.sleeping.keys() {
                let there = parts.iter().find(|(k, _)| k == sleeper);
                if there.is_some_and(|(_, s)| !s.asked.contains_key(request)) {
                    judge
                        .broken(Rule::QueuesTrue, || format!("{k} keeps a sleeper of {sleeper} that is not asleep"))?;
                }
            }
            for (object, pages) in p.spaces.iter().flatten() {
                let home = parts.iter().find(|(h, _)| p.homes.get(object) == Some(h));
                let Some((h, now)) = home.and_then(|(h, part)| Some((h, part.objects.get(object)?))) else { continue };
                if let Some((index, _)) =
                    pages.iter().find(|(index, frame)| now.get(index).map(Frame::id) != Some(**frame))
                {
                    judge.broken(Rule::MapsAreNow, || {
                        format!("{k} maps page {index} of {object:?} as it once was at {h}")
                    })?;
                }
            }
            // Who was woken or has left is in no queue.
            let queued: usize = p.objects.keys().map(|o| p.futexes.wake(Key::Shared(*o, 0), usize::MAX, ANY)).sum();
            if queued != p.sleeping.len() {
                judge.broken(Rule::QueuesTrue, || {
                    format!("{k} has {queued} sleepers in its queues, but knows of {}", p.sleeping.len())
                })?;
            }
            for object in p.objects.keys() {
                for (holder, h) in parts.iter().filter(|(holder, _)| holder != k) {
                    let open = p.home.is_open(*object, *holder);
                    if open != (h.homes.get(object) == Some(k)) && !p.downs.contains(holder) && !h.downs.contains(k) {
                        judge.broken(Rule::OpensAgree, || {
                            format!("{k} thinks that {holder} has {object:?} open: {open}")
                        })?;
                    }
                }
            }
        }
        Ok(())
    }
}
