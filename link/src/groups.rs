//! Groups of one kernel: those it speaks to, those it listens to.
//!
//! A group is spoken to by one kernel and belongs to one family of messages. It opens, grows ([`Links::invite`]), shrinks ([`Links::dismiss`]) and closes at any time. A kernel
//! that is invited asks where the group is and gets a seat; what is said from then on is kept until it has heard it, or for [`PATIENCE`] if nothing else fits
//! meanwhile: then it loses its seat. It asks again by itself, and its service is told that it has missed something ([`crate::Handler::missed`]).
//!
//! What is said is in order, and in no order with what is sent to a kernel by itself. The memory of a group that is closed is given back when the last listener has
//! left or died.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use linux_abi::Errno;
use wire::{
    HEADER_SIZE, KernelId, Kind, Message, ObjectId,
    groups::{Dismiss, Invite, Join, Joined, Left},
};
use zerocopy::IntoBytes as _;

use crate::{
    error::{Error, Result},
    group::Lost,
    links::Links,
    lock::{LINK_QUEUE, LINK_RINGS, Lock},
    peer::Packed,
    service::{Guilt, Incoming},
    transport::{Listening, SendError, Speaking},
};

/// How long what is said waits for a listener, in nanoseconds, unless the group's speaker says otherwise.
pub const PATIENCE: u64 = 200_000_000;
/// How long a listener waits to be told where a group is, in nanoseconds.
const DEADLINE: u64 = 2_000_000_000;
/// The most messages that wait for room.
const MOST_WAITING: usize = 4096;

/// A group that this kernel speaks to.
struct Spoken {
    /// The carrier that its memory is of.
    carrier: &'static str,
    speaking: Box<dyn Speaking>,
    family: u16,
    /// Who may listen.
    invited: BTreeSet<KernelId>,
    /// Who was told where it is, and has not said that it does not look there any more.
    looking: BTreeSet<KernelId>,
    waiting: VecDeque<Packed>,
    /// Since when nothing fits, and how far the last ones were then.
    stuck: Option<(u64, u64)>,
    /// How long it waits for those, in nanoseconds.
    patience: u64,
    closing: bool,
}

/// A group that this kernel listens to.
struct Heard {
    from: KernelId,
    group: u32,
    listening: Box<dyn Listening>,
}

/// See the module.
pub(crate) struct Groups {
    spoken: Lock<BTreeMap<u32, Spoken>>,
    /// By speaker and group: the family of those that this kernel was invited to.
    invitations: Lock<BTreeMap<(KernelId, u32), u16>>,
    heard: Lock<Vec<Heard>>,
    /// Whether there is any in `heard`: hardly ever, and it is asked all the time.
    any: AtomicBool,
    next: AtomicU32,
    said: AtomicU64,
    expelled: AtomicU64,
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            spoken: Lock::ranked(LINK_QUEUE, BTreeMap::new()),
            invitations: Lock::ranked(LINK_QUEUE, BTreeMap::new()),
            heard: Lock::ranked(LINK_RINGS, Vec::new()),
            any: AtomicBool::new(false),
            next: AtomicU32::new(0),
            said: AtomicU64::new(0),
            expelled: AtomicU64::new(0),
        }
    }
}

/// What groups have done on this kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GroupReport {
    /// Groups that it speaks to, those that are being closed too.
    pub spoken: usize,
    /// Groups that it listens to.
    pub heard: usize,
    /// Messages that it said.
    pub said: u64,
    /// Listeners that lost their seats because they were slow.
    pub expelled: u64,
    /// Messages that wait for room.
    pub waiting: usize,
}

/// What a look at a group led to; done when its lock is dropped.
#[derive(Default)]
struct Outcome {
    /// Kernels that may sleep over what was said, as bits.
    wake: u64,
    /// Kernels that broke the rules, as bits.
    liars: u64,
}

impl Spoken {
    /// When the patience with those who lag behind ends.
    fn due(&self) -> Option<u64> {
        self.stuck.map(|(since, _)| since.saturating_add(self.patience))
    }

    /// Says what waits, as far as there is room; `now` for who lags behind.
    fn flush(&mut self, now: u64, outcome: &mut Outcome, groups: &Groups) {
        while let Some(packed) = self.waiting.front() {
            match self.speaking.say(&packed.head, &[&packed.body]) {
                Ok(()) => {
                    self.waiting.pop_front();
                    self.stuck = None;
                    groups.said.fetch_add(1, Ordering::Relaxed);
                    outcome.wake |= self.speaking.seated();
                }
                Err(SendError::Later) => {
                    let (last, least) = self.speaking.last();
                    match self.stuck {
                        Some((since, before)) if before == least && now.saturating_sub(since) >= self.patience => {
                            for index in (0..wire::MAX_KERNELS as u16).filter(|index| last & 1 << index != 0) {
                                self.speaking.unseat(index);
                                groups.expelled.fetch_add(1, Ordering::Relaxed);
                            }
                            self.stuck = None;
                            // They find out by themselves, when they look.
                            outcome.wake |= last;
                            continue;
                        }
                        Some((_, before)) if before == least => {}
                        _ => self.stuck = Some((now, least)),
                    }
                    break;
                }
                // It can never be said, and is refused before it comes here.
                Err(_) => {
                    self.waiting.pop_front();
                }
            }
        }
        outcome.liars |= self.speaking.take_liars();
    }
}

impl Links {
    /// Opens a group for a family of messages; its number. Nobody listens yet. A listener for which the others have to wait for `patience` nanoseconds
    /// ([`PATIENCE`] is enough where CPUs run when they can) is expelled.
    ///
    /// # Errors
    /// `ENOENT` if there is no such family, `ENOMEM`.
    pub fn open_group(&self, family: &'static str, patience: u64) -> Result<u32> {
        let known = wire::FAMILIES.iter().find(|f| f.name == family);
        let family = known.ok_or(Error::new(Errno::ENOENT, "there is no such family", self.me()))?.first;
        let speaking = self.carriers.iter().find_map(|carrier| Some((carrier.name(), carrier.speak()?)));
        let (carrier, speaking) = speaking.ok_or(Error::new(Errno::ENOMEM, "no memory for a group", self.me()))?;
        let number = self.groups.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (invited, looking) = (BTreeSet::new(), BTreeSet::new());
        let waiting = VecDeque::new();
        let spoken =
            Spoken { carrier, speaking, family, invited, looking, waiting, stuck: None, patience, closing: false };
        self.groups.spoken.lock().insert(number, spoken);
        Ok(number)
    }

    /// Lets a kernel listen to a group. It hears what is said after it has come. Nothing happens if it may already.
    ///
    /// # Errors
    /// `ENOENT` if there is no such group; `EOPNOTSUPP` if the kernel does not see this one's memory; those of [`Links::send`].
    pub fn invite(&self, group: u32, kernel: KernelId) -> Result<()> {
        let reached_by = self.connect(kernel)?.carrier;
        let family = {
            let mut spoken = self.groups.spoken.lock();
            let known = spoken.get_mut(&group).filter(|spoken| !spoken.closing);
            let known = known.ok_or(Error::new(Errno::ENOENT, "there is no such group", kernel))?;
            if reached_by != known.carrier {
                return Err(Error::new(Errno::EOPNOTSUPP, "it does not see the memory of groups", kernel));
            }
            // Who has a seat keeps it: another one would make its word of how far it is a lie.
            if !known.invited.insert(kernel) {
                return Ok(());
            }
            known.family
        };
        self.send(kernel, ObjectId::NONE, &Invite { group, family }, &[])
    }

    /// Lets a kernel listen no more.
    pub fn dismiss(&self, group: u32, kernel: KernelId) {
        let mut outcome = Outcome::default();
        let known = {
            let mut spoken = self.groups.spoken.lock();
            spoken.get_mut(&group).is_some_and(|spoken| {
                spoken.speaking.unseat(kernel.index);
                spoken.flush(self.now(), &mut outcome, &self.groups);
                spoken.invited.remove(&kernel)
            })
        };
        self.conclude(outcome);
        if known {
            // If it is down it does not listen.
            let _ = self.send(kernel, ObjectId::NONE, &Dismiss { group }, &[]);
        }
    }

    /// Closes a group. What waits to be said is lost.
    pub fn close_group(&self, group: u32) {
        let (listeners, gone) = {
            let mut spoken = self.groups.spoken.lock();
            let Some(known) = spoken.get_mut(&group) else { return };
            known.closing = true;
            known.waiting.clear();
            let listeners = core::mem::take(&mut known.invited);
            for kernel in &listeners {
                known.speaking.unseat(kernel.index);
            }
            let gone = known.looking.is_empty().then(|| spoken.remove(&group)).flatten();
            (listeners, gone)
        };
        drop(gone);
        for kernel in listeners {
            let _ = self.send(kernel, ObjectId::NONE, &Dismiss { group }, &[]);
        }
    }

    /// Says an event to all who listen to a group: written once, however many they are. Returns at once.
    ///
    /// # Errors
    /// `ENOENT` if there is no such group or the event is of another family, `EMSGSIZE`, `ENOBUFS` if too much waits for a slow listener.
    pub fn say<M: Message>(&self, group: u32, object: ObjectId, message: &M, payload: &[u8]) -> Result<()> {
        debug_assert!(M::SPEC.kind == Kind::Event);
        let spec = M::SPEC;
        let error = |errno, why| Error::new(errno, why, self.me()).about(spec.number);
        if payload.len() > spec.payload {
            return Err(error(Errno::EMSGSIZE, "longer than the type allows"));
        }
        let mut body = alloc::vec![0; spec.fixed];
        let fixed = message.encode(&mut body);
        body.extend_from_slice(payload);
        let mut head = [0; HEADER_SIZE];
        head.copy_from_slice(self.event_header::<M>(object, fixed, payload.len()).to_raw().as_bytes());
        let mut outcome = Outcome::default();
        let due = {
            let mut spoken = self.groups.spoken.lock();
            let known = spoken.get_mut(&group).filter(|spoken| !spoken.closing);
            let known = known.filter(|spoken| spoken.family >> 8 == spec.number >> 8);
            let known = known.ok_or(error(Errno::ENOENT, "there is no such group"))?;
            if known.waiting.len() >= MOST_WAITING {
                return Err(error(Errno::ENOBUFS, "a listener is too slow"));
            }
            known.waiting.push_back(Packed { head, body });
            known.flush(self.now(), &mut outcome, &self.groups);
            known.due()
        };
        self.conclude(outcome);
        if let Some(due) = due {
            self.hooks().set_alarm(due);
        }
        Ok(())
    }

    /// What groups have done here.
    pub fn groups(&self) -> GroupReport {
        let spoken = self.groups.spoken.lock();
        let (groups, waiting) = (spoken.len(), spoken.values().map(|spoken| spoken.waiting.len()).sum());
        drop(spoken);
        GroupReport {
            spoken: groups,
            heard: self.groups.heard.lock().len(),
            said: self.groups.said.load(Ordering::Relaxed),
            expelled: self.groups.expelled.load(Ordering::Relaxed),
            waiting,
        }
    }

    /// How many kernels have a seat in a group of this kernel.
    pub fn listeners(&self, group: u32) -> u32 {
        self.groups.spoken.lock().get(&group).map_or(0, |spoken| spoken.speaking.seated().count_ones())
    }

    fn conclude(&self, outcome: Outcome) {
        let mut wake = outcome.wake;
        while wake != 0 {
            let index = wake.trailing_zeros() as u16;
            wake &= wake - 1;
            if self.carriers.iter().any(|carrier| carrier.wake(index))
                && let Some(peer) = self.peer_at(index)
            {
                crate::counters::Counters::add(&peer.counters.doorbells);
            }
        }
        for index in (0..wire::MAX_KERNELS as u16).filter(|index| outcome.liars & 1 << index != 0) {
            if let Some(peer) = self.peer_at(index) {
                self.hooks().guilty(peer.id, Guilt::Group);
            }
        }
    }

    // -- messages about groups -------------------------------------------------------------------------------------

    /// Handles a message about groups.
    pub(crate) fn about_groups(&self, message: &Incoming<'_>) -> Result<()> {
        let from = message.from;
        match message.header.kind {
            kind if kind == Invite::SPEC.number => {
                let (invite, _) = message.read::<Invite>()?;
                if self.groups.invitations.lock().insert((from, invite.group), invite.family).is_none() {
                    self.join(from, invite.group, false);
                }
                Ok(())
            }
            kind if kind == Join::SPEC.number => {
                let (join, _) = message.read::<Join>()?;
                let seat = {
                    let mut spoken = self.groups.spoken.lock();
                    spoken.get_mut(&join.group).filter(|spoken| spoken.invited.contains(&from)).map(|spoken| {
                        spoken.looking.insert(from);
                        (spoken.speaking.place(), spoken.speaking.seat(from.index))
                    })
                };
                let ((at, bytes), (seat, start)) =
                    seat.ok_or(Error::new(Errno::ENOENT, "it is not of the group", from))?;
                self.answer(message.answer_to(), &Joined { at, bytes, seat, start }, &[])
            }
            kind if kind == Dismiss::SPEC.number => {
                let (dismiss, _) = message.read::<Dismiss>()?;
                self.groups.invitations.lock().remove(&(from, dismiss.group));
                self.stop_listening(|heard| heard.from == from && heard.group == dismiss.group);
                // Also if it never looked: the speaker may wait for it.
                self.send(from, ObjectId::NONE, &Left { group: dismiss.group }, &[])
            }
            kind if kind == Left::SPEC.number => {
                let (left, _) = message.read::<Left>()?;
                let gone = {
                    let mut spoken = self.groups.spoken.lock();
                    let over = spoken.get_mut(&left.group).is_some_and(|spoken| {
                        spoken.looking.remove(&from);
                        spoken.closing && spoken.looking.is_empty()
                    });
                    over.then(|| spoken.remove(&left.group)).flatten()
                };
                drop(gone);
                Ok(())
            }
            _ => Err(Error::new(Errno::ENOSYS, "no such message about groups", from)),
        }
    }

    /// Asks for a seat; `again`: one was lost.
    fn join(&self, speaker: KernelId, group: u32, again: bool) {
        let then = Box::new(move |links: &Self, answer: Result<Incoming<'_>>| {
            // A speaker that is down or has closed the group says no more.
            if let Ok(message) = answer
                && let Ok((joined, _)) = message.read::<Joined>()
            {
                links.joined(speaker, group, &joined, again);
            }
        });
        self.request(speaker, ObjectId::NONE, &Join { group }, &[], self.now() + DEADLINE, then);
    }

    fn joined(&self, speaker: KernelId, group: u32, joined: &Joined, again: bool) {
        // Dismissed meanwhile: it was said that nobody looks there.
        let Some(family) = self.groups.invitations.lock().get(&(speaker, group)).copied() else { return };
        let (place, seat) = ((joined.at, joined.bytes), (joined.seat, joined.start));
        let Some(listening) = self.carriers.iter().find_map(|carrier| carrier.listen(speaker, place, seat)) else {
            return self.hooks().guilty(speaker, Guilt::Group);
        };
        let old = {
            let mut heard = self.groups.heard.lock();
            let old = heard.iter().position(|h| h.from == speaker && h.group == group).map(|at| heard.swap_remove(at));
            heard.push(Heard { from: speaker, group, listening });
            self.groups.any.store(true, Ordering::Release);
            old
        };
        drop(old);
        if again && let Some(handler) = self.handler(family) {
            handler.missed(self, speaker);
        }
    }

    fn stop_listening(&self, which: impl Fn(&Heard) -> bool) {
        let gone: Vec<Heard> = {
            let mut heard = self.groups.heard.lock();
            let (gone, rest) = core::mem::take(&mut *heard).into_iter().partition(which);
            *heard = rest;
            self.groups.any.store(!heard.is_empty(), Ordering::Release);
            gone
        };
        // Windows are given back outside of locks.
        drop(gone);
    }

    // -- the receive path ------------------------------------------------------------------------------------------

    /// Whether there is something to hear in a group.
    pub(crate) fn is_spoken_to(&self) -> bool {
        self.groups.any.load(Ordering::Acquire) && self.groups.heard.lock().iter().any(|h| h.listening.is_ready())
    }

    /// Handles one message of a group; `false` if there is none.
    #[inline]
    pub(crate) fn hear_one(&self, buffer: &mut Vec<u8>) -> bool {
        self.groups.any.load(Ordering::Acquire) && self.hear_any(buffer)
    }

    #[cold]
    fn hear_any(&self, buffer: &mut Vec<u8>) -> bool {
        let (mut found, mut lost) = (None, None);
        {
            let mut heard = self.groups.heard.lock();
            for at in 0..heard.len() {
                let Some(h) = heard.get_mut(at) else { break };
                match h.listening.hear(buffer) {
                    Ok(false) => {}
                    Ok(true) => {
                        found = Some(h.from);
                        // Another one comes first next time.
                        heard.rotate_left(at + 1);
                        break;
                    }
                    Err(why) => {
                        lost = Some((heard.swap_remove(at), why));
                        break;
                    }
                }
            }
            if lost.is_some() {
                self.groups.any.store(!heard.is_empty(), Ordering::Release);
            }
        }
        if let Some((gone, why)) = lost {
            let (from, group) = (gone.from, gone.group);
            drop(gone);
            match why {
                Lost::Seat => {
                    if self.groups.invitations.lock().contains_key(&(from, group)) {
                        self.join(from, group, true);
                    }
                }
                Lost::Corrupt => self.hooks().guilty(from, Guilt::Group),
            }
            return true;
        }
        let Some(from) = found else { return false };
        if let Some(peer) = self.peer(from) {
            let lane = buffer.get(..HEADER_SIZE).and_then(|_| wire::Header::parse(buffer).ok());
            let lane = lane.and_then(|(header, _)| Some(wire::spec_of(header.kind)?.lane));
            self.take(&peer, lane.unwrap_or(wire::Lane::Request), buffer);
        }
        true
    }

    /// Tells speakers that wait for room how far this kernel is.
    pub(crate) fn rest_groups(&self) {
        if !self.groups.any.load(Ordering::Acquire) {
            return;
        }
        let mut poke = 0_u64;
        for heard in self.groups.heard.lock().iter_mut() {
            if heard.listening.rest() {
                poke |= 1 << heard.from.index;
            }
        }
        for index in (0..wire::MAX_KERNELS as u16).filter(|index| poke & 1 << index != 0) {
            self.carriers.iter().for_each(|carrier| carrier.poke(index));
        }
    }

    /// Says what waits, where there is room now. When to look again at the latest, for who lags behind.
    pub(crate) fn flush_groups(&self) -> Option<u64> {
        let mut outcome = Outcome::default();
        let mut next = None;
        {
            let mut spoken = self.groups.spoken.lock();
            if spoken.is_empty() {
                return None;
            }
            let now = self.now();
            for spoken in spoken.values_mut().filter(|spoken| !spoken.waiting.is_empty()) {
                spoken.flush(now, &mut outcome, &self.groups);
                next = next.into_iter().chain(spoken.due()).min();
            }
        }
        self.conclude(outcome);
        next
    }

    /// A kernel is dead: it listens to nothing, and says nothing.
    pub(crate) fn forget_in_groups(&self, dead: KernelId) {
        let mut outcome = Outcome::default();
        let mut gone = Vec::new();
        {
            let mut spoken = self.groups.spoken.lock();
            let now = self.now();
            for spoken in spoken.values_mut() {
                if spoken.invited.remove(&dead) | spoken.looking.remove(&dead) {
                    spoken.speaking.unseat(dead.index);
                    spoken.flush(now, &mut outcome, &self.groups);
                }
            }
            let over: Vec<u32> =
                spoken.iter().filter(|(_, s)| s.closing && s.looking.is_empty()).map(|(number, _)| *number).collect();
            gone.extend(over.into_iter().filter_map(|number| spoken.remove(&number)));
        }
        drop(gone);
        self.groups.invitations.lock().retain(|(from, _), _| *from != dead);
        self.stop_listening(|heard| heard.from == dead);
        self.conclude(outcome);
    }
}
