//! The porch: the first page of a kernel's memory, which its peers map.
//!
//! ```text
//! 0x000  magic u64 · layout u32, index u32 · incarnation u64 · state u64 · beat u64      written by the owner
//! 0x028  since u64: when it became a member · ended u64: when it began to die (0: not)    written by the owner, on the machine's clock
//! 0x040  polling u64 · watched u64: the peers whose rings the owner polls, as bits          written by the owner
//! 0x080  fence word u64                                                                   compare-exchange by whoever wants to fence the owner
//! 0x0c0  hold u64: a debugger stops the clock of suspicion while it is not 0              written by the owner (or a debugger)
//! 0x100  pending, a byte per peer: "I sent you something"                                 written by that peer (1) and the owner (0)
//! 0x140  wanted, a byte per peer: the lanes it wants to send on, as bits                  written by that peer
//! 0x180  reason, 128 bytes of text: why the owner died                                    written by the owner
//! 0x200  block, a u64 per peer: where in the owner's memory the pair's block is, 0 = none written by the owner
//! 0x400  the table of what the owner speaks: count u64, then entries of `wire::table`     written by the owner
//! ```
//! A pair's block (from peer A to owner B, in B's memory, 2 KiB) has who it is for and by whom (two `KernelId` words), a word per lane
//! (offset | length << 40) and the control lane's ring. The other lanes' rings are allocated when they are wanted. So an idle pair costs 4 KiB.

use alloc::string::String;

use wire::{KernelId, LANES, Lane, MAX_KERNELS};

use crate::{
    memory::Memory,
    signs::{Sign, Signs, State, printable},
};

/// `"CobPorch"`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"CobPorch");
/// The version of this layout. Kernels of different layouts do not talk.
pub const LAYOUT: u32 = 2;
/// Bytes of a porch.
pub const SIZE: usize = 4096;

const INDEX: usize = 0x08;
const INCARNATION: usize = 0x10;
const STATE: usize = 0x18;
const BEAT: usize = 0x20;
const SINCE: usize = 0x28;
const ENDED: usize = 0x30;
const POLLING: usize = 0x40;
const WATCHED: usize = 0x48;
const FENCE: usize = 0x80;
const HOLD: usize = 0xc0;
const PENDING: usize = 0x100;
const WANTED: usize = 0x140;
const REASON: usize = 0x180;
const REASON_LEN: usize = 128;
const BLOCK: usize = 0x200;
const TABLE: usize = 0x400;

/// A porch: the own one or, mapped, that of a peer. What a peer wrote is checked here.
#[derive(Clone, Copy, Debug)]
pub struct Porch<M>(pub M);

impl<M: Memory> Porch<M> {
    /// Fills the own porch in; the magic comes last. The fence word is left alone if a peer has used it in this incarnation.
    pub fn open(&self, me: KernelId) {
        let m = &self.0;
        m.store64(0, 0);
        m.store64(INDEX, u64::from(LAYOUT) | u64::from(me.index) << 32);
        m.store64(INCARNATION, u64::from(me.incarnation));
        m.store64(STATE, State::Starting.number());
        m.store64(BEAT, 0);
        m.store64(SINCE, 0);
        m.store64(ENDED, 0);
        m.store64(POLLING, 0);
        m.store64(WATCHED, 0);
        m.store64(HOLD, 0);
        m.write(REASON, &[0; REASON_LEN]);
        for peer in 0..MAX_KERNELS {
            m.store64(BLOCK + 8 * peer, 0);
        }
        let mut count = 0;
        let room = (SIZE - TABLE - 8) / wire::table::ENTRY_SIZE;
        for entry in wire::table::entries().take(room) {
            m.write(TABLE + 8 + count * wire::table::ENTRY_SIZE, &entry.to_bytes());
            count += 1;
        }
        m.store64(TABLE, count as u64);
        m.store64(0, MAGIC);
        m.publish(0, SIZE);
    }

    /// Whose porch it is: `None` while there is no magic or another layout.
    pub fn owner(&self) -> Option<KernelId> {
        let m = &self.0;
        m.refresh(0, 0x40);
        if m.load64(0) != MAGIC {
            return None;
        }
        let word = m.load64(INDEX);
        let incarnation = u32::try_from(m.load64(INCARNATION)).ok()?;
        (word as u32 == LAYOUT && incarnation != 0).then_some(KernelId { index: (word >> 32) as u16, incarnation })
    }

    /// What the owner says of itself.
    pub fn state(&self) -> Option<State> {
        self.0.refresh(STATE, 8);
        State::from_number(self.0.load64(STATE))
    }

    /// Says what the owner does.
    pub fn set_state(&self, state: State) {
        self.0.store64(STATE, state.number());
        self.0.publish(STATE, 8);
    }

    /// When the owner became a member, in ns of the machine's clock; 0 if it did not yet.
    pub fn since(&self) -> u64 {
        self.0.refresh(SINCE, 8);
        self.0.load64(SINCE)
    }

    /// The owner is a member since `now`.
    pub fn set_since(&self, now: u64) {
        self.0.store64(SINCE, now);
        self.0.publish(SINCE, 8);
    }

    /// When the owner began to die, by its own word: so that others can tell how long it took them to notice. Nothing is decided by it.
    pub fn ended(&self) -> Option<u64> {
        self.0.refresh(ENDED, 8);
        Some(self.0.load64(ENDED)).filter(|at| *at != 0)
    }

    /// The owner dies now.
    pub fn set_ended(&self, now: u64) {
        self.0.store64(ENDED, now);
        self.0.publish(ENDED, 8);
    }

    /// Announces death: the reason, then the state. The caller rings everybody's bell.
    pub fn set_dying(&self, reason: &str) {
        let bytes = reason.as_bytes();
        let bytes = bytes.get(..REASON_LEN).unwrap_or(bytes);
        self.0.write(REASON, bytes);
        self.0.publish(REASON, REASON_LEN);
        self.set_state(State::Dying);
    }

    /// Why the owner died, as it says; what is not printable is replaced.
    pub fn reason(&self) -> String {
        let mut bytes = [0; REASON_LEN];
        self.0.refresh(REASON, REASON_LEN);
        self.0.read(REASON, &mut bytes);
        printable(&bytes)
    }

    /// The owner is alive: called now and then, at most once a second when idle.
    pub fn beat(&self) {
        self.0.store64(BEAT, self.0.load64(BEAT).wrapping_add(1));
        self.0.publish(BEAT, 8);
    }

    /// How often the owner has beaten.
    pub fn beats(&self) -> u64 {
        self.0.refresh(BEAT, 8);
        self.0.load64(BEAT)
    }

    /// Whether a debugger holds the owner (or the owner holds the clock of suspicion).
    pub fn is_held(&self) -> bool {
        self.0.refresh(HOLD, 8);
        self.0.load64(HOLD) != 0
    }

    /// Holds the clock of suspicion, or lets it go.
    pub fn set_held(&self, held: bool) {
        self.0.store64(HOLD, u64::from(held));
        self.0.publish(HOLD, 8);
    }

    /// Puts `claim` into the fence word if it is `expected`; answers what it was.
    pub fn claim_fence(&self, expected: u64, claim: u64) -> u64 {
        self.0.swap64(FENCE, expected, claim)
    }

    /// Clears the fence word; only for who boots the owner again.
    pub fn clear_fence(&self) {
        self.0.store64(FENCE, 0);
        self.0.publish(FENCE, 8);
    }

    /// All that the owner shows of itself; `None` if nobody lives there.
    pub fn signs(&self) -> Option<Signs> {
        Some(Signs {
            owner: self.owner()?,
            state: self.state(),
            beats: self.beats(),
            since: self.since(),
            ended: self.ended(),
            held: self.is_held(),
        })
    }

    /// The owner gives a sign.
    pub fn show(&self, sign: Sign<'_>) {
        match sign {
            Sign::State(state) => self.set_state(state),
            Sign::Beat => self.beat(),
            Sign::Since(at) => self.set_since(at),
            Sign::Ended(at) => self.set_ended(at),
            Sign::Dying(reason) => self.set_dying(reason),
        }
    }

    // -- notification ----------------------------------------------------------------------------------------------

    /// A sender says "I sent you something"; `true` if the owner sleeps and its bell must be rung.
    ///
    /// What was sent is published before. Either the pending byte is still set, and the owner will clear it before it looks, or we set it
    /// and the owner, before it sleeps, sees it; or it sleeps already, and we ring.
    pub fn poke(&self, sender: u16) -> bool {
        let Some(at) = slot(PENDING, sender) else { return false };
        let m = &self.0;
        m.fence();
        m.refresh(at, 1);
        if m.load8(at) != 0 {
            return false;
        }
        m.store8(at, 1);
        m.publish(at, 1);
        m.fence();
        m.refresh(POLLING, 8);
        m.load64(POLLING) == 0
    }

    /// Whether the owner sleeps: it looks at nothing before its bell rings. Asked after something was published that it looks at by itself.
    pub fn sleeps(&self) -> bool {
        self.0.fence();
        self.0.refresh(POLLING, 8);
        self.0.load64(POLLING) == 0
    }

    /// A sender has pushed a message into an open lane; `true` if the owner sleeps and its bell must be rung. If the owner polls the rings of this
    /// sender it needs no pending byte: either it sees the message, or we see that it has stopped.
    pub fn announce(&self, sender: u16) -> bool {
        self.0.fence();
        self.0.refresh(WATCHED, 8);
        if usize::from(sender) < MAX_KERNELS && self.0.load64(WATCHED) & 1 << sender != 0 {
            return false;
        }
        self.poke(sender)
    }

    /// The owner polls the rings of these peers from now on. Whoever is no longer among them is looked at once more after this.
    pub fn watch(&self, peers: u64) {
        self.0.store64(WATCHED, peers);
        self.0.publish(WATCHED, 8);
        self.0.fence();
    }

    /// The owner is about to drain its rings: nobody needs to ring.
    pub fn begin_polling(&self) {
        // Only the owner writes it; a store for nothing would take the line away from senders.
        if self.0.load64(POLLING) == 0 {
            self.0.store64(POLLING, 1);
            self.0.publish(POLLING, 8);
        }
    }

    /// The owner has drained its rings and wants to sleep. `false`: something came, it polls again.
    pub fn end_polling(&self) -> bool {
        self.0.store64(POLLING, 0);
        self.0.publish(POLLING, 8);
        self.0.fence();
        if self.has_pending() {
            self.begin_polling();
            return false;
        }
        true
    }

    fn pending(&self) -> [u64; MAX_KERNELS / 8] {
        let mut words = [0; MAX_KERNELS / 8];
        self.0.refresh(PENDING, MAX_KERNELS);
        self.0.load_words(PENDING, &mut words);
        words
    }

    /// Whether somebody sent something that was not looked at.
    pub fn has_pending(&self) -> bool {
        self.pending().iter().any(|word| *word != 0)
    }

    /// Clears the pending bytes and says whose were set, as bits. What those peers sent is looked at afterwards.
    pub fn take_pending(&self) -> u64 {
        let mut set = 0;
        for (word, bytes) in self.pending().into_iter().enumerate().filter(|(_, bytes)| *bytes != 0) {
            let bytes = bytes.to_le_bytes();
            for (i, _) in bytes.iter().enumerate().filter(|(_, b)| **b != 0) {
                let peer = word * 8 + i;
                self.0.store8(PENDING + peer, 0);
                self.0.publish(PENDING + peer, 1);
                set |= 1 << peer;
            }
        }
        if set != 0 {
            self.0.fence();
        }
        set
    }

    // -- offers ----------------------------------------------------------------------------------------------------

    /// A sender says on which lanes it wants to send: a bit per lane ([`wants`]), and one above those for a larger ring ([`grows`]).
    pub fn want(&self, sender: u16, lanes: u8) {
        if let Some(at) = slot(WANTED, sender) {
            self.0.store8(at, lanes);
            self.0.publish(at, 1);
        }
    }

    /// The lanes that a peer wants to send on, and, above them, those of which it wants larger rings.
    pub fn wanted(&self, sender: u16) -> u8 {
        slot(WANTED, sender).map_or(0, |at| {
            self.0.refresh(at, 1);
            self.0.load8(at)
        })
    }

    /// The owner says where the pair's block is; 0 takes it back.
    pub fn offer(&self, sender: u16, block: u64) {
        if usize::from(sender) < MAX_KERNELS {
            let at = BLOCK + 8 * usize::from(sender);
            self.0.store64(at, block);
            self.0.publish(at, 8);
        }
    }

    /// Where the block for `sender` is in the owner's memory.
    pub fn offered(&self, sender: u16) -> Option<u64> {
        let at = (usize::from(sender) < MAX_KERNELS).then_some(BLOCK + 8 * usize::from(sender))?;
        self.0.refresh(at, 8);
        Some(self.0.load64(at)).filter(|&block| block != 0)
    }
}

fn slot(base: usize, peer: u16) -> Option<usize> {
    (usize::from(peer) < MAX_KERNELS).then_some(base + usize::from(peer))
}

/// The bit of a lane in what a sender wants.
pub const fn wants(lane: Lane) -> u8 {
    1 << lane as u8
}

/// The bit that says that the lane's first ring is too small.
pub const fn grows(lane: Lane) -> u8 {
    wants(lane) << LANES
}

const _: () = assert!(2 * LANES <= 8, "a byte says what a sender wants");

/// Bytes of a pair's block.
pub const BLOCK_SIZE: usize = 2048;
/// The first rings of the lanes, in the block: where they begin, and bytes. A pair that has little to say needs no others. Control messages about
/// the largest view fit; a lane without one begins with a large ring.
pub const FIRST_RINGS: [(usize, usize); LANES] = [(64, 960), (1024, 512), (1536, 512), (0, 0)];

/// A pair's block: who it is between, where the rings of the lanes are, and the first rings.
#[derive(Clone, Copy, Debug)]
pub struct Block<M>(pub M);

const FOR: usize = 0;
const BY: usize = 8;
const LANE_WORDS: usize = 16;

fn kernel_word(kernel: KernelId) -> u64 {
    u64::from(kernel.incarnation) | u64::from(kernel.index) << 32
}

impl<M: Memory> Block<M> {
    /// Fills a fresh (zeroed) block in.
    pub fn open(&self, sender: KernelId, owner: KernelId) {
        self.0.store64(FOR, kernel_word(sender));
        self.0.store64(BY, kernel_word(owner));
        self.0.publish(0, 64);
    }

    /// Whether the block is for this sender by this owner: an old incarnation's block is not.
    pub fn is_between(&self, sender: KernelId, owner: KernelId) -> bool {
        self.0.refresh(0, 64);
        self.0.load64(FOR) == kernel_word(sender) && self.0.load64(BY) == kernel_word(owner)
    }

    /// Says where the ring of a lane is.
    pub fn set_lane(&self, lane: Lane, at: u64, len: usize) {
        self.0.store64(LANE_WORDS + 8 * lane as usize, at | (len as u64) << 40);
        self.0.publish(0, 64);
    }

    /// Where the ring of a lane is: offset in the owner's memory and length.
    pub fn lane(&self, lane: Lane) -> Option<(u64, usize)> {
        self.0.refresh(0, 64);
        let word = self.0.load64(LANE_WORDS + 8 * lane as usize);
        (word != 0).then_some((word & ((1 << 40) - 1), (word >> 40) as usize))
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use wire::{KernelId, Lane, MAX_KERNELS};

    use super::{Block, Porch, SIZE};
    use crate::{
        memory::{HeapMemory, Memory as _},
        signs::State,
    };

    const B: KernelId = KernelId::new(3, 2);

    #[test]
    fn a_porch_says_who_lives_there() {
        let porch = Porch(HeapMemory::new(SIZE));
        assert_eq!(porch.owner(), None);
        porch.open(B);
        assert_eq!(porch.owner(), Some(B));
        assert_eq!(porch.state(), Some(State::Starting));
        porch.set_dying("out of luck\n");
        assert_eq!(porch.state(), Some(State::Dying));
        assert_eq!(porch.reason(), "out of luck.");
    }

    #[test]
    fn nothing_of_who_lived_there_before_is_left() {
        let memory = HeapMemory::new(SIZE);
        memory.write(0, &[0xa5; SIZE]);
        let porch = Porch(memory);
        porch.open(B);
        assert_eq!((porch.beats(), porch.reason()), (0, String::new()));
        for peer in 0..MAX_KERNELS {
            assert_eq!(porch.0.load64(super::BLOCK + 8 * peer), 0, "the block of peer {peer}");
        }
        assert_eq!(porch.0.load64(super::TABLE), wire::table::entries().count() as u64);
        for beats in 1..4 {
            porch.beat();
            assert_eq!(porch.beats(), beats);
        }
    }

    #[test]
    fn the_bell_is_rung_only_for_a_sleeper_and_once() {
        let porch = Porch(HeapMemory::new(SIZE));
        porch.open(B);
        assert!(porch.poke(1), "it sleeps");
        assert!(!porch.poke(1), "it was told already");
        assert!(porch.poke(7), "another sender rings too: the first may not have got to the bell");
        porch.begin_polling();
        assert_eq!(porch.take_pending(), 1 << 1 | 1 << 7);
        assert!(!porch.poke(1), "it polls");
        assert!(!porch.end_polling(), "something came");
        assert_eq!(porch.take_pending(), 1 << 1);
        assert!(porch.end_polling());
        assert!(!porch.poke(200), "there is no such kernel");
    }

    #[test]
    fn who_is_watched_need_not_poke() {
        let porch = Porch(HeapMemory::new(SIZE));
        porch.open(B);
        porch.begin_polling();
        porch.watch(1 << 1);
        assert!(!porch.announce(1) && !porch.announce(2));
        assert_eq!(porch.take_pending(), 1 << 2, "its rings are polled anyway");
        porch.watch(0);
        assert!(!porch.announce(1));
        assert!(!porch.end_polling(), "it poked");
    }

    #[test]
    fn offers_are_for_one_incarnation() {
        let porch = Porch(HeapMemory::new(SIZE));
        porch.open(B);
        porch.want(1, 0xff);
        assert_eq!(porch.wanted(1), 0xff);
        assert_eq!(porch.offered(1), None);
        porch.offer(1, 8192);
        assert_eq!(porch.offered(1), Some(8192));
        let block = Block(HeapMemory::new(super::BLOCK_SIZE));
        block.open(KernelId::new(1, 1), B);
        assert!(block.is_between(KernelId::new(1, 1), B));
        assert!(!block.is_between(KernelId::new(1, 2), B));
        block.set_lane(Lane::Bulk, 0x12_3456_7000, 65536);
        assert_eq!(block.lane(Lane::Bulk), Some((0x12_3456_7000, 65536)));
        assert_eq!(block.lane(Lane::Reply), None);
    }
}
