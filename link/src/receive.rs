//! Who drains the rings: from the doorbell interrupt, or by polling before a CPU sleeps.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{Ordering, fence};

use wire::Lane;

use crate::{counters::Counters, links::Links, peer::Peer, polling::IdleCpu, service::Guilt, transport::Carrier};

/// What only who drains the rings uses.
#[derive(Default)]
pub(crate) struct Receiver {
    buffer: Vec<u8>,
    /// Peers whose rings may have something, and the same as bits.
    active: Vec<Arc<Peer>>,
    bits: u64,
    /// Where the next round begins, so that no peer starves another.
    turn: usize,
    /// Something was read since the producers were told.
    read: bool,
    /// Groups come first this time.
    to_many: bool,
}

impl Receiver {
    fn add(&mut self, peer: Arc<Peer>) {
        let bit = 1 << peer.id.index;
        if self.bits & bit != 0 {
            // Another incarnation, maybe.
            self.active.retain(|p| p.id.index != peer.id.index);
        }
        self.bits |= bit;
        self.active.push(peer);
    }

    fn forget_dead(&mut self) {
        self.active.retain(|p| !p.is_down());
        self.bits = self.active.iter().fold(0, |bits, p| bits | 1 << p.id.index);
    }
}

impl Links {
    /// Polls until `go_on` says that it is enough; `go_on` is told whether a message was just handled. Meanwhile peers need not say that they sent
    /// something. `false` without polling if another CPU drains the rings.
    pub fn watch(&self, mut go_on: impl FnMut(bool) -> bool) -> bool {
        /// Peers whose rings are not polled are looked for after so many rounds.
        const ROUNDS: u32 = 8;
        let taken = self.receiving.lock().take();
        let Some(mut receiver) = taken else { return false };
        self.carriers.iter().for_each(|carrier| carrier.begin());
        let (mut round, mut watched) = (0_u32, 0);
        loop {
            if round.is_multiple_of(ROUNDS) {
                self.look_for_pending(&mut receiver);
                if receiver.bits != watched {
                    watched = receiver.bits;
                    self.carriers.iter().for_each(|carrier| carrier.watch(watched));
                }
            }
            round = round.wrapping_add(1);
            let heard = self.receive_one(&mut receiver);
            if !heard && receiver.read {
                self.rest(&mut receiver);
            }
            if !go_on(heard) {
                break;
            }
        }
        // From here on they say so. What they sent before they could see that is drained now, because their bits are still set.
        self.carriers.iter().for_each(|carrier| carrier.watch(0));
        while self.drain(&mut receiver, 64) {}
        *self.receiving.lock() = Some(receiver);
        // Somebody may have left something to us.
        while self.receive(64) {}
        true
    }

    /// The CPU has nothing to do: polls for as long as the traffic makes it likely to pay, then sleeps until an interrupt. Returns with no bell
    /// held back; says whether it slept.
    pub fn idle(&self, cpu: &dyn IdleCpu) -> bool {
        /// Rounds between looks at the clock and at what else there is.
        const ROUNDS: u32 = 8;
        // Since when nothing has come, and how much had come by then.
        let (mut silent, mut seen) = (self.hooks().now(), self.taken.load(Ordering::Relaxed));
        let window = self.polling.enter();
        if window > 0 {
            let mut round = 0_u32;
            let (mut fresh, mut any) = (false, false);
            self.watch(|heard| {
                fresh |= heard;
                any |= heard;
                round = round.wrapping_add(1);
                if heard || !round.is_multiple_of(ROUNDS) {
                    // What was heard may have made something runnable.
                    return !heard || !cpu.has_work();
                }
                let now = self.hooks().now();
                if core::mem::take(&mut fresh) {
                    silent = now;
                }
                cpu.breathe();
                !cpu.has_work() && now < silent + window
            });
            self.polling.leave();
            if any {
                self.polling.heard();
            }
            let taken = self.taken.load(Ordering::Relaxed);
            if cpu.has_work() {
                return false;
            }
            self.polling.silent();
            seen = taken;
        }
        cpu.sleep();
        if self.taken.load(Ordering::Relaxed) != seen {
            self.polling.woke(self.hooks().now().saturating_sub(silent));
        }
        true
    }

    /// How long a CPU polls before it sleeps, in nanoseconds ([`crate::polling`]).
    pub fn halt_poll(&self) -> u64 {
        self.polling.length()
    }

    /// Says how long from now on; at most [`crate::polling::LONGEST`].
    pub fn set_halt_poll(&self, ns: u64) {
        self.polling.set_length(ns);
    }

    /// More will come within so many nanoseconds: a CPU with nothing to do polls that long.
    pub fn expect(&self, within: u64) {
        self.polling.expect(within);
    }

    /// Handles what came, from the doorbell interrupt. At most `budget` messages; `true` if there may be more (call again soon: nobody
    /// rings for those). If another CPU is at it, that one goes on for us.
    pub fn receive(&self, budget: usize) -> bool {
        loop {
            // Taken out while it is used: handlers run without any lock held.
            let taken = self.receiving.lock().take();
            let Some(mut receiver) = taken else {
                self.again.store(true, Ordering::Relaxed);
                fence(Ordering::SeqCst);
                // The other may have finished before it saw the flag.
                if self.receiving.lock().is_none() {
                    return false;
                }
                continue;
            };
            self.again.store(false, Ordering::Relaxed);
            self.carriers.iter().for_each(|carrier| carrier.begin());
            let more = self.drain(&mut receiver, budget);
            *self.receiving.lock() = Some(receiver);
            fence(Ordering::SeqCst);
            if more || !self.again.load(Ordering::Relaxed) {
                return more;
            }
        }
    }

    /// Handles at most `budget` messages; `false` if there are no more, and peers ring from now on.
    fn drain(&self, receiver: &mut Receiver, budget: usize) -> bool {
        let mut left = budget;
        loop {
            self.look_for_pending(receiver);
            if left == 0 {
                return true;
            }
            if self.receive_one(receiver) {
                left -= 1;
                continue;
            }
            // Nothing in any active ring: tell the producers, and sleep unless something came.
            self.rest(receiver);
            receiver.active.clear();
            receiver.bits = 0;
            if self.carriers.iter().all(|carrier| carrier.end()) {
                // Who says something to many sees that this kernel sleeps, or it is seen here.
                if !self.is_spoken_to() {
                    return false;
                }
                self.carriers.iter().for_each(|carrier| carrier.begin());
            }
        }
    }

    fn look_for_pending(&self, receiver: &mut Receiver) {
        for carrier in &self.carriers {
            let mut pending = carrier.take_pending();
            while pending != 0 {
                let index = pending.trailing_zeros();
                pending &= pending - 1;
                if let Some(peer) = self.attend(&**carrier, index as u16) {
                    Counters::add(&peer.counters.polls);
                    receiver.add(peer);
                }
            }
        }
    }

    /// The peer poked: open the link if it is new, serve its wants, send what waited for room.
    fn attend(&self, carrier: &dyn Carrier, index: u16) -> Option<Arc<Peer>> {
        let open = self.peers.read().get(usize::from(index))?.clone().filter(|p| !p.is_down());
        let peer = match open {
            Some(peer) => {
                if peer.transport.attend() {
                    self.hooks().poked(index);
                }
                peer
            }
            None => {
                self.hooks().poked(index);
                self.connect(carrier.present(index)?).ok()?
            }
        };
        if let Err(lane) = peer.flush()
            && peer.break_lane(lane)
        {
            self.hooks().guilty(peer.id, Guilt::Lane(lane));
        }
        self.flush_groups();
        Some(peer)
    }

    /// Handles one message: of a group, or of the most urgent lane that has one, whoever sent it.
    fn receive_one(&self, receiver: &mut Receiver) -> bool {
        // In turns: who is spoken to without end still hears who speaks to it alone.
        receiver.to_many = !receiver.to_many;
        if receiver.to_many && self.hear_one(&mut receiver.buffer) {
            receiver.read = true;
            return true;
        }
        if self.receive_from_peers(receiver) {
            return true;
        }
        let heard = !receiver.to_many && self.hear_one(&mut receiver.buffer);
        receiver.read |= heard;
        heard
    }

    fn receive_from_peers(&self, receiver: &mut Receiver) -> bool {
        if let [only] = receiver.active.as_slice()
            && !only.is_down()
        {
            return match only.transport.receive_urgent(only.admitted(), &mut receiver.buffer) {
                Ok(Some(lane)) => {
                    receiver.read = true;
                    self.take(only, lane, &receiver.buffer);
                    true
                }
                Ok(None) => false,
                Err(lane) => self.broken(only, lane),
            };
        }
        receiver.forget_dead();
        for lane in Lane::ALL {
            let n = receiver.active.len();
            for i in 0..n {
                // Peers after the one that was served last come first.
                let at = (receiver.turn + i) % n;
                let Some(peer) = receiver.active.get(at).filter(|peer| lane <= peer.admitted()) else { continue };
                match peer.transport.receive(lane, &mut receiver.buffer) {
                    Ok(true) => {
                        (receiver.turn, receiver.read) = (at + 1, true);
                        self.take(peer, lane, &receiver.buffer);
                        return true;
                    }
                    Ok(false) => {}
                    Err(crate::ring::Corrupt) => {
                        self.broken(peer, lane);
                    }
                }
            }
        }
        false
    }

    /// A lane cannot be read any more. Nothing was received.
    fn broken(&self, peer: &Peer, lane: Lane) -> bool {
        if peer.break_lane(lane) {
            self.hooks().guilty(peer.id, Guilt::Lane(lane));
        }
        false
    }

    /// Tells the producers how far we are.
    fn rest(&self, receiver: &mut Receiver) {
        if core::mem::take(&mut receiver.read) {
            for peer in receiver.active.iter().filter(|p| !p.is_down()) {
                if peer.transport.rest() {
                    Counters::add(&peer.counters.doorbells);
                }
            }
            self.rest_groups();
        }
    }
}
