//! The carrier over a network: for kernels that share no memory. Messages only; there is no fence word, and no group.
//!
//! * `frame.rs`: what goes over the wire.
//! * `lane.rs`: one lane: numbers, acknowledgements, room.
//! * `pair.rs`: the lanes with one peer, both ways; `rtt.rs`: how long to wait for it.
//!
//! Kernels find each other by the signs that they show to everybody: one that begins asks all to show theirs. Whoever shows a higher incarnation has been
//! started again, so the one before is gone.

pub mod frame;
pub mod lane;
pub mod pair;
mod rtt;

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};

use wire::{HEADER_SIZE, KernelId, Lane, MAX_KERNELS};

use self::{
    frame::{ASKS, BROADCAST, Head, Kind, LONGEST, Shown, pack, unpack},
    pair::{Outline, Pair},
};
use crate::{
    lock::{LINK_RINGS, Lock},
    ring::Corrupt,
    signs::{Sign, Signs, State},
    transport::{Carrier, SendError, Transport},
};

/// A network card. Frames are whole, but for the check sequence. No call waits.
pub trait Nic: Send + Sync + 'static {
    /// Its address.
    fn address(&self) -> [u8; 6];
    /// Sends a frame. It may be lost: always, and if there is no room for it.
    fn send(&self, frame: &[u8]);
    /// Takes the next frame that came into `out`; `false` if there is none.
    fn receive(&self, out: &mut Vec<u8>) -> bool;
    /// Whether it is to interrupt when a frame comes. `false`: it was to, but there are frames already, and perhaps no interrupt for them.
    fn interrupts(&self, on: bool) -> bool;
}

impl<N: Nic + ?Sized> Nic for Arc<N> {
    fn address(&self) -> [u8; 6] {
        (**self).address()
    }
    fn send(&self, frame: &[u8]) {
        (**self).send(frame);
    }
    fn receive(&self, out: &mut Vec<u8>) -> bool {
        (**self).receive(out)
    }
    fn interrupts(&self, on: bool) -> bool {
        (**self).interrupts(on)
    }
}

/// The kernel's clock, in ns.
pub trait Clock: Send + Sync + 'static {
    /// What it shows.
    fn now(&self) -> u64;
    /// [`Carrier::tick`] is to be called at this time at the latest.
    fn set_alarm(&self, at: u64);
}

/// A kernel that is no member asks all to show themselves no more often than this, in ns.
const SEEK: u64 = 200_000_000;
/// A member shows itself to all so often, for those that missed something. That it lives they hear when they ask: a beat that everybody hears would
/// wake everybody.
const SHOW: u64 = 5_000_000_000;

/// What the wire did to frames.
#[derive(Default, Debug)]
struct Counts {
    sent: AtomicU64,
    came: AtomicU64,
    damaged: AtomicU64,
}

/// What the wire did, for who looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WireReport {
    /// Frames that were sent.
    pub sent: u64,
    /// Frames of this machine that came.
    pub came: u64,
    /// Frames that were damaged.
    pub damaged: u64,
    /// Pieces that were sent again.
    pub again: u64,
}

/// What is known of whoever runs at an index.
#[derive(Default)]
struct Peer {
    shown: Option<Shown>,
    /// Where frames to it go.
    address: Option<[u8; 6]>,
    pair: Option<Box<Pair>>,
    /// The last incarnation with which there is nothing to share any more.
    closed: u32,
}

struct Peers {
    peers: Vec<Peer>,
    /// Of whom there is something to look at, as bits.
    pending: u64,
    /// Pieces that were sent again to those that are gone.
    again: u64,
    frame: Vec<u8>,
}

/// What this kernel shows.
struct Own {
    shown: Shown,
    /// When all were last told.
    told: u64,
    frame: Vec<u8>,
}

struct Inner<N> {
    me: KernelId,
    machine: u32,
    nic: N,
    clock: Arc<dyn Clock>,
    own: Lock<Own>,
    peers: Lock<Peers>,
    /// For the frames that come: taken out while one CPU is at it.
    incoming: Lock<Vec<u8>>,
    counts: Counts,
}

/// A network as a carrier of one kernel.
pub struct Ether<N: Nic>(Arc<Inner<N>>);

/// The way of a pair's frames.
struct Way<'a, N> {
    inner: &'a Inner<N>,
    peer: KernelId,
    address: [u8; 6],
    frame: &'a mut Vec<u8>,
}

impl<N: Nic> pair::Send for Way<'_, N> {
    fn send(&mut self, outline: Outline, carried: &[u8]) {
        let Outline { kind, lane, flags, number, gaps, acks, rooms } = outline;
        let (machine, from, to) = (self.inner.machine, self.inner.me, Some(self.peer));
        let head = Head { kind, lane, flags, machine, from, to, gaps, number, acks, rooms };
        self.inner.send(self.frame, self.address, &head, carried);
    }
}

impl<N: Nic> Inner<N> {
    fn send(&self, frame: &mut Vec<u8>, address: [u8; 6], head: &Head, carried: &[u8]) {
        pack(frame, address, self.nic.address(), head, carried);
        self.counts.sent.fetch_add(1, Ordering::Relaxed);
        self.nic.send(frame);
    }

    /// Shows signs to one, or to all. Without waiting for anything: a dying kernel may be in the middle of it.
    fn show_to(&self, to: Option<(KernelId, [u8; 6])>, flags: u8) {
        let Some(mut own) = self.own.try_lock() else { return };
        let head = Head {
            kind: Kind::Signs,
            lane: 0,
            flags,
            machine: self.machine,
            from: self.me,
            to: to.map(|(kernel, _)| kernel),
            gaps: 0,
            number: 0,
            acks: [0; 4],
            rooms: [0; 4],
        };
        let Own { shown, frame, .. } = &mut *own;
        self.send(frame, to.map_or(BROADCAST, |(_, address)| address), &head, &shown.to_bytes());
    }

    /// Does something with the pair of an incarnation, if there is one.
    fn with_pair<R>(&self, peer: KernelId, what: impl FnOnce(&mut Pair, &mut Way<'_, N>) -> R) -> Option<R> {
        let mut peers = self.peers.lock();
        let Peers { peers, frame, .. } = &mut *peers;
        let entry = peers.get_mut(usize::from(peer.index))?;
        let address = entry.address?;
        let pair = entry.pair.as_mut().filter(|pair| pair.peer == peer)?;
        Some(what(pair, &mut Way { inner: self, peer, address, frame }))
    }

    /// The same, with frames that may have to be sent again: sees to it that time passes. Nothing is locked by who calls it.
    fn send_of_pair(&self, peer: KernelId, what: impl FnOnce(&mut Pair, &mut Way<'_, N>)) {
        let due = self.with_pair(peer, |pair, way| {
            what(pair, way);
            pair.due()
        });
        if let Some(due) = due.flatten() {
            self.clock.set_alarm(due);
        }
    }

    /// Takes all frames that came.
    fn pump_in(&self) {
        // Not in the state, which is locked for each frame alone.
        let mut bytes = core::mem::take(&mut *self.incoming.lock());
        let mut alarm = u64::MAX;
        while self.nic.receive(&mut bytes) {
            match unpack(&bytes, self.machine) {
                Ok((address, head, carried)) => {
                    self.counts.came.fetch_add(1, Ordering::Relaxed);
                    alarm = alarm.min(self.came(address, &head, carried).unwrap_or(u64::MAX));
                }
                Err(frame::Unheard::Damaged) => {
                    self.counts.damaged.fetch_add(1, Ordering::Relaxed);
                }
                Err(frame::Unheard::Foreign) => {}
            }
        }
        *self.incoming.lock() = bytes;
        if alarm != u64::MAX {
            self.clock.set_alarm(alarm);
        }
    }

    /// A frame came. When something is to be done for its sender.
    fn came(&self, address: [u8; 6], head: &Head, carried: &[u8]) -> Option<u64> {
        let from = head.from;
        if from.index == self.me.index || !from.is_some() || head.to.is_some_and(|to| to.index != self.me.index) {
            return None;
        }
        let mut show = false;
        let due = {
            let mut peers = self.peers.lock();
            let Peers { peers, frame, pending, again } = &mut *peers;
            let entry = peers.get_mut(usize::from(from.index))?;
            let known = entry.shown.map_or(0, |shown| shown.signs.owner.incarnation);
            if from.incarnation < known {
                // An echo of the dead.
                return None;
            }
            entry.address = Some(address);
            if head.kind == Kind::Signs {
                let shown = Shown::from_bytes(from, carried)?;
                let new = entry.shown.is_none_or(|old| {
                    old.signs.owner != from
                        || old.signs.state != shown.signs.state
                        || old.signs.held != shown.signs.held
                });
                entry.shown = Some(shown);
                if new {
                    *pending |= 1 << from.index;
                }
                show = head.flags & ASKS != 0;
                None
            } else if head.to != Some(self.me) {
                // It means one that was here before.
                show = true;
                None
            } else if from.incarnation <= entry.closed {
                None
            } else {
                // Who sends is there, whatever became of its signs.
                if known < from.incarnation {
                    let mut shown = Shown::new(from);
                    shown.signs.state = Some(State::Running);
                    entry.shown = Some(shown);
                    *pending |= 1 << from.index;
                }
                if let Some(old) = entry.pair.take_if(|pair| pair.peer != from) {
                    *again += old.again;
                }
                let pair = entry.pair.get_or_insert_with(|| Box::new(Pair::new(from)));
                let way = &mut Way { inner: self, peer: from, address, frame };
                let news = pair.came(self.clock.now(), head, carried, way);
                if news | pair.has_room_again() {
                    *pending |= 1 << from.index;
                }
                pair.due()
            }
        };
        if show {
            self.show_to(Some((from, address)), 0);
        }
        due
    }
}

impl<N: Nic> Ether<N> {
    /// The carrier of kernel `me` over a network card; kernels of other machines, told by a number, are not heard. Asks all to show themselves.
    pub fn new(me: KernelId, machine: u32, nic: N, clock: Arc<dyn Clock>) -> Self {
        let own = Own { shown: Shown::new(me), told: 0, frame: Vec::with_capacity(LONGEST) };
        let peers = Peers {
            peers: core::iter::repeat_with(Peer::default).take(MAX_KERNELS).collect(),
            pending: 0,
            again: 0,
            frame: Vec::with_capacity(LONGEST),
        };
        let inner = Inner {
            me,
            machine,
            nic,
            clock,
            own: Lock::ranked(LINK_RINGS, own),
            peers: Lock::ranked(LINK_RINGS, peers),
            incoming: Lock::ranked(LINK_RINGS, Vec::new()),
            counts: Counts::default(),
        };
        inner.show_to(None, ASKS);
        Self(Arc::new(inner))
    }

    /// What the wire did.
    pub fn report(&self) -> WireReport {
        let peers = self.0.peers.lock();
        let again = peers.peers.iter().filter_map(|peer| peer.pair.as_ref()).map(|pair| pair.again).sum::<u64>();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counts { sent, came, damaged } = &self.0.counts;
        WireReport { sent: count(sent), came: count(came), damaged: count(damaged), again: again + peers.again }
    }

    fn shown(&self, index: u16) -> Option<Shown> {
        if index == self.0.me.index {
            return Some(self.0.own.lock().shown);
        }
        self.0.peers.lock().peers.get(usize::from(index))?.shown
    }
}

impl<N: Nic> Carrier for Ether<N> {
    fn name(&self) -> &'static str {
        "ether"
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        let WireReport { sent, came, damaged, again } = self.report();
        alloc::vec![
            ("frames_sent", sent),
            ("frames_received", came),
            ("frames_damaged", damaged),
            ("pieces_resent", again)
        ]
    }

    fn signs(&self, index: u16) -> Option<Signs> {
        Some(self.shown(index)?.signs)
    }

    fn reason(&self, index: u16) -> String {
        self.shown(index).map_or_else(String::new, |shown| shown.reason())
    }

    fn show(&self, sign: Sign<'_>) {
        let tell = {
            // A dying kernel may be in the middle of it.
            let Some(mut own) = self.0.own.try_lock() else { return };
            let signs = &mut own.shown.signs;
            match sign {
                Sign::State(state) => {
                    signs.state = Some(state);
                    Some(0)
                }
                Sign::Since(at) => {
                    signs.since = at;
                    Some(0)
                }
                Sign::Beat => {
                    signs.beats += 1;
                    let (pause, flags) = if signs.since == 0 { (SEEK, ASKS) } else { (SHOW, 0) };
                    let now = self.0.clock.now();
                    let due = now >= own.told.saturating_add(pause);
                    if due {
                        own.told = now;
                    }
                    due.then_some(flags)
                }
                Sign::Ended(at) => {
                    signs.ended = Some(at);
                    None
                }
                Sign::Dying(reason) => {
                    signs.state = Some(State::Dying);
                    own.shown.set_reason(reason);
                    None
                }
            }
        };
        if let Some(flags) = tell {
            self.0.show_to(None, flags);
        }
    }

    fn announce(&self, _: u16) {
        self.0.show_to(None, 0);
    }

    fn claim_fence(&self, _: u16, _: u64, _: u64) -> Option<u64> {
        None
    }

    fn tick(&self, now: u64) -> Option<u64> {
        let mut peers = self.0.peers.lock();
        let Peers { peers, frame, .. } = &mut *peers;
        let mut next: Option<u64> = None;
        for entry in peers.iter_mut() {
            let (Some(pair), Some(address)) = (&mut entry.pair, entry.address) else { continue };
            if pair.due().is_some_and(|at| now >= at) {
                let peer = pair.peer;
                pair.tick(now, &mut Way { inner: &self.0, peer, address, frame });
            }
            next = next.into_iter().chain(pair.due()).min();
        }
        next
    }

    fn connect(&self, peer: KernelId) -> Option<Box<dyn Transport>> {
        let mut peers = self.0.peers.lock();
        let entry = peers.peers.get_mut(usize::from(peer.index))?;
        let there = entry.shown.is_some_and(|shown| shown.signs.owner == peer) && peer.incarnation > entry.closed;
        if !there || peer.index == self.0.me.index {
            return None;
        }
        // What it sent before this kernel knew it is in the pair that is there.
        entry.pair.take_if(|pair| pair.peer != peer);
        entry.pair.get_or_insert_with(|| Box::new(Pair::new(peer)));
        Some(Box::new(Wire { inner: self.0.clone(), peer }))
    }

    fn begin(&self) {
        self.0.nic.interrupts(false);
    }

    fn take_pending(&self) -> u64 {
        self.0.pump_in();
        core::mem::take(&mut self.0.peers.lock().pending)
    }

    fn watch(&self, _: u64) {
        // Whoever polls looks for pending frames now and then.
    }

    fn end(&self) -> bool {
        let quiet = self.0.nic.interrupts(true) && self.0.peers.lock().pending == 0;
        if !quiet {
            self.0.nic.interrupts(false);
        }
        quiet
    }
}

/// The channel to one incarnation of a peer.
struct Wire<N> {
    inner: Arc<Inner<N>>,
    peer: KernelId,
}

impl<N: Nic> Transport for Wire<N> {
    fn longest(&self, _: Lane) -> usize {
        lane::LONGEST_MESSAGE
    }

    fn send(&self, lane: Lane, head: &[u8; HEADER_SIZE], parts: &[&[u8]]) -> Result<(), SendError> {
        // What is said together goes together: it is sent when the peer is to notice.
        self.inner.with_pair(self.peer, |pair, _| pair.say(lane, head, parts)).unwrap_or(Err(SendError::Closed))
    }

    fn notify(&self) -> bool {
        let now = self.inner.clock.now();
        self.inner.send_of_pair(self.peer, |pair, way| pair.pump(now, way));
        // The wire has no bell to be rung or spared.
        false
    }

    fn receive(&self, lane: Lane, out: &mut Vec<u8>) -> Result<bool, Corrupt> {
        self.inner.with_pair(self.peer, |pair, _| pair.take(lane, out)).unwrap_or(Ok(false))
    }

    fn attend(&self) -> bool {
        let peers = self.inner.peers.lock();
        let shown = peers.peers.get(usize::from(self.peer.index)).and_then(|peer| peer.shown);
        // Another one in its place says that it is gone.
        shown.is_some_and(|shown| shown.signs.owner != self.peer || shown.signs.state.is_some_and(State::is_end))
    }

    fn rest(&self) -> bool {
        self.inner.send_of_pair(self.peer, |pair, way| pair.rest(way));
        false
    }

    fn depth(&self, lane: Lane) -> u64 {
        self.inner.with_pair(self.peer, |pair, _| pair.depth(lane)).unwrap_or(0)
    }

    fn close(&self) {
        let mut peers = self.inner.peers.lock();
        let Peers { peers, again, .. } = &mut *peers;
        let Some(entry) = peers.get_mut(usize::from(self.peer.index)) else { return };
        entry.closed = entry.closed.max(self.peer.incarnation);
        if let Some(pair) = entry.pair.take_if(|pair| pair.peer.incarnation <= self.peer.incarnation) {
            *again += pair.again;
        }
    }
}
