//! What one kernel has with another over a wire: their lanes, both ways. No I/O but through [`Send`].

use wire::{KernelId, LANES, Lane};

use crate::{ring::Corrupt, transport::SendError};

use super::{
    frame::{ASKS, Head, Kind},
    lane::{Arriving, Came, Outgoing},
    rtt::Rtt,
};

/// So many frames may come before they are acknowledged by a frame of its own.
const OWED: u32 = 8;
/// So long an acknowledgement waits for a frame that takes it along, in ns.
const COMPANY: u64 = 4_000_000;

/// Sends a frame of a pair: its kind, lane, flags and number, what the pair has to say with every frame, what it carries.
pub trait Send {
    /// Does it. A frame that could not be sent is as good as one that was lost.
    fn send(&mut self, frame: Outline, carried: &[u8]);
}

/// What a pair knows of a frame that it sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outline {
    /// What it is for.
    pub kind: Kind,
    /// Its lane.
    pub lane: u8,
    /// [`ASKS`].
    pub flags: u8,
    /// Its number in the lane.
    pub number: u64,
    /// See [`Head`].
    pub gaps: u8,
    /// See [`Head`].
    pub acks: [u64; LANES],
    /// See [`Head`].
    pub rooms: [u16; LANES],
}

/// See the module.
#[derive(Debug)]
pub struct Pair {
    /// With whom.
    pub peer: KernelId,
    out: [Outgoing; LANES],
    arriving: [Arriving; LANES],
    rtt: Rtt,
    /// Frames that came since an acknowledgement went.
    owed: u32,
    /// When it is to go at the latest.
    owed_at: Option<u64>,
    /// It is to go with the next opportunity: something was lost, or asked.
    at_once: bool,
    /// Lanes on which the peer broke the rules, as bits.
    broken: u8,
    /// How often a piece was sent again.
    pub again: u64,
}

impl Pair {
    /// Nothing was sent.
    pub fn new(peer: KernelId) -> Self {
        Self {
            peer,
            out: Default::default(),
            arriving: Default::default(),
            rtt: Rtt::default(),
            owed: 0,
            owed_at: None,
            at_once: false,
            broken: 0,
            again: 0,
        }
    }

    /// Takes a message to be sent.
    ///
    /// # Errors
    /// As [`crate::Transport::send`].
    pub fn say(&mut self, lane: Lane, head: &[u8], parts: &[&[u8]]) -> Result<(), SendError> {
        if self.is_broken(lane) {
            return Err(SendError::Corrupt);
        }
        self.out[lane as usize].say(head, parts)
    }

    /// Takes the next message that came on a lane.
    ///
    /// # Errors
    /// The peer broke the rules.
    pub fn take(&mut self, lane: Lane, out: &mut alloc::vec::Vec<u8>) -> Result<bool, Corrupt> {
        if self.is_broken(lane) {
            return Err(Corrupt);
        }
        let taken = self.arriving[lane as usize].take(out);
        if taken.is_err() {
            self.broken |= 1 << lane as u8;
        }
        taken
    }

    const fn is_broken(&self, lane: Lane) -> bool {
        self.broken & 1 << lane as u8 != 0
    }

    /// A frame of the peer came. `true`: there is something to look at.
    pub fn came(&mut self, now: u64, head: &Head, carried: &[u8], to: &mut impl Send) -> bool {
        let mut news = self.acked(now, head);
        if head.kind == Kind::Data
            && let Some(lane) = Lane::ALL.get(usize::from(head.lane)).copied()
            && !self.is_broken(lane)
        {
            match self.arriving[lane as usize].came(head.number, carried) {
                Ok(came) => {
                    self.owe(now);
                    // Who repeats itself has not heard from us; who leaves something out must hear that.
                    self.at_once |= came != Came::Next;
                    news |= came == Came::Next;
                }
                Err(Corrupt) => {
                    self.broken |= 1 << lane as u8;
                    news = true;
                }
            }
        }
        self.at_once |= head.kind == Kind::Acks && head.flags & ASKS != 0;
        self.repeat(now, head.gaps, to);
        self.pump(now, to);
        if self.at_once || self.owed >= OWED {
            self.acknowledge(0, to);
        }
        news
    }

    fn acked(&mut self, now: u64, head: &Head) -> bool {
        let mut news = false;
        for (i, out) in self.out.iter_mut().enumerate() {
            let (Some(&next), Some(&room)) = (head.acks.get(i), head.rooms.get(i)) else { continue };
            match out.acked(now, next, room) {
                Ok(acked) => {
                    if let Some(took) = acked.took {
                        self.rtt.took(took);
                    }
                }
                Err(Corrupt) => {
                    news |= self.broken & 1 << i == 0;
                    self.broken |= 1 << i;
                }
            }
        }
        news
    }

    /// Sends again what the peer says that it misses.
    fn repeat(&mut self, now: u64, gaps: u8, to: &mut impl Send) {
        for lane in Lane::ALL.into_iter().filter(|lane| gaps & 1 << *lane as u8 != 0) {
            self.again(lane, to, |out, patience| out.missed(now, patience));
        }
    }

    fn again(
        &mut self,
        lane: Lane,
        to: &mut impl Send,
        which: impl FnOnce(&mut Outgoing, u64) -> Option<(u64, &[u8])>,
    ) {
        let outline = self.outline(Kind::Data, lane as u8, 0);
        if let Some((number, piece)) = which(&mut self.out[lane as usize], self.rtt.patience()) {
            to.send(Outline { number, ..outline }, piece);
            self.again += 1;
        }
    }

    /// Sends what there is room for, the most urgent first.
    pub fn pump(&mut self, now: u64, to: &mut impl Send) {
        for lane in Lane::ALL {
            let outline = self.outline(Kind::Data, lane as u8, 0);
            let mut sent = false;
            while let Some((number, piece)) = self.out[lane as usize].next(now) {
                to.send(Outline { number, ..outline }, piece);
                sent = true;
            }
            if sent {
                self.acknowledged();
            }
        }
    }

    /// Whether somebody was told to wait and need not any more.
    pub fn has_room_again(&mut self) -> bool {
        self.out.iter_mut().fold(false, |any, out| any | out.has_room_again())
    }

    fn owe(&mut self, now: u64) {
        self.owed += 1;
        self.owed_at.get_or_insert(now.saturating_add(COMPANY));
    }

    /// A frame goes that says what came.
    fn acknowledged(&mut self) {
        (self.owed, self.owed_at, self.at_once) = (0, None, false);
    }

    fn acknowledge(&mut self, flags: u8, to: &mut impl Send) {
        let outline = self.outline(Kind::Acks, 0, flags);
        self.acknowledged();
        to.send(outline, &[]);
    }

    /// What goes with every frame.
    fn outline(&mut self, kind: Kind, lane: u8, flags: u8) -> Outline {
        let (mut gaps, mut acks, mut rooms) = (0, [0; LANES], [0; LANES]);
        for (i, arriving) in self.arriving.iter_mut().enumerate() {
            gaps |= u8::from(arriving.has_gap()) << i;
            (acks[i], rooms[i]) = arriving.acks();
        }
        Outline { kind, lane, flags, number: 0, gaps, acks, rooms }
    }

    /// What came was handled: says so, if the peer may wait for that.
    pub fn rest(&mut self, to: &mut impl Send) {
        if self.arriving.iter().any(Arriving::has_news) {
            self.acknowledge(0, to);
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: u64, to: &mut impl Send) {
        let patience = self.rtt.patience();
        for lane in Lane::ALL {
            self.again(lane, to, |out, patience| out.late(now, patience));
        }
        self.pump(now, to);
        let asks = self.out.iter_mut().fold(false, |any, out| any | out.asks(now, patience));
        if asks {
            self.acknowledge(ASKS, to);
        } else if self.owed_at.is_some_and(|at| now >= at) {
            self.acknowledge(0, to);
        }
    }

    /// When [`Self::tick`] has something to do.
    pub fn due(&self) -> Option<u64> {
        let patience = self.rtt.patience();
        self.out.iter().filter_map(|out| out.due(patience)).chain(self.owed_at).min()
    }

    /// Bytes of a lane that are not known to have come.
    pub fn depth(&self, lane: Lane) -> u64 {
        self.out[lane as usize].depth()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use wire::{HEADER_SIZE, KernelId, Lane};

    use super::{COMPANY, OWED, Outline, Pair, Send};
    use crate::ether::frame::{Head, Kind};

    const A: KernelId = KernelId::new(0, 1);
    const B: KernelId = KernelId::new(1, 1);

    /// Frames that were sent.
    #[derive(Default)]
    struct Sent(Vec<(Outline, Vec<u8>)>);

    impl Send for Sent {
        fn send(&mut self, frame: Outline, carried: &[u8]) {
            self.0.push((frame, carried.to_vec()));
        }
    }

    fn head(of: Outline) -> Head {
        let Outline { kind, lane, flags, number, gaps, acks, rooms } = of;
        Head { kind, lane, flags, machine: 7, from: A, to: Some(B), gaps, number, acks, rooms }
    }

    /// What the pair of A says with so many messages.
    fn frames(count: u64) -> Vec<(Outline, Vec<u8>)> {
        let (mut pair, mut sent) = (Pair::new(B), Sent::default());
        for _ in 0..count {
            // Each in a frame of its own.
            pair.say(Lane::Request, &[1; HEADER_SIZE], &[b"short"]).expect("there is room");
            pair.pump(0, &mut sent);
        }
        sent.0
    }

    #[test]
    fn what_comes_as_expected_is_acknowledged_with_company_or_after_a_while() {
        let frames = frames(u64::from(OWED));
        let (mut pair, mut sent) = (Pair::new(A), Sent::default());
        for (outline, carried) in frames.iter().take(OWED as usize - 1) {
            assert!(pair.came(10, &head(*outline), carried, &mut sent), "it is news");
        }
        assert!(sent.0.is_empty(), "it waits for company");
        assert_eq!(pair.due(), Some(10 + COMPANY));
        let (last, carried) = &frames[OWED as usize - 1];
        pair.came(11, &head(*last), carried, &mut sent);
        let kinds: Vec<_> = sent.0.iter().map(|(outline, _)| (outline.kind, outline.acks)).collect();
        assert_eq!(kinds, [(Kind::Acks, [0, 0, u64::from(OWED), 0])], "so many are enough");
    }

    #[test]
    fn who_repeats_itself_or_leaves_something_out_hears_at_once() {
        let frames = frames(3);
        for (order, acked) in [([0, 0], 1), ([0, 2], 1)] {
            let (mut pair, mut sent) = (Pair::new(A), Sent::default());
            for at in order {
                assert!(sent.0.is_empty());
                let (outline, carried) = &frames[at];
                pair.came(10, &head(*outline), carried, &mut sent);
            }
            let acks: Vec<_> = sent.0.iter().map(|(outline, _)| outline.acks[Lane::Request as usize]).collect();
            assert_eq!(acks, [acked], "frames {order:?}");
            assert_eq!(sent.0[0].0.gaps != 0, order[1] == 2, "frame 1 is missing");
        }
    }
}
