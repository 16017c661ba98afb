//! The transport over shared memory: rings in the receiver's memory, a porch per kernel, a bell.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};

use wire::{HEADER_SIZE, KernelId, LANES, Lane};

use crate::{
    group::{LINES, Listener, Lost, Speaker},
    lock::{LINK_RINGS, Lock},
    memory::Memory,
    porch::{BLOCK_SIZE, Block, FIRST_RINGS, Porch, grows, wants},
    ring::{Consumer, Corrupt, LINE, OVERHEAD, Producer, PushError},
    signs::{Sign, Signs, State},
    transport::{Carrier, Listening, SendError, Speaking, Transport},
};

/// Where shared memory comes from and how a bell is rung: what the kernel's memory service and `hal` give.
pub trait Windows: Send + Sync + 'static {
    /// A piece of memory that two kernels address.
    type M: Memory + Clone + 'static;
    /// The porch of a kernel; `None` if this kernel cannot reach it.
    fn porch(&self, index: u16) -> Option<Self::M>;
    /// Allocates zeroed memory of this kernel that peers may map, and says where it is in this kernel's memory. Does not wait.
    fn allocate(&self, len: usize) -> Option<(u64, Self::M)>;
    /// Frees what `allocate` gave; no peer maps it any more.
    fn free(&self, at: u64, len: usize);
    /// Maps a piece of a peer's memory. `at` and `len` are what the peer says: `None` if they are not inside its memory.
    fn map(&self, peer: u16, at: u64, len: usize) -> Option<Self::M>;
    /// Rings the bell of a peer.
    fn ring(&self, peer: u16);
}

/// Bytes of the large rings of the lanes. The control lane has none: it must not need memory when there is none.
const LANE_BYTES: [usize; LANES] = [0, 32 << 10, 32 << 10, 64 << 10];
/// So often a lane's first ring may be full before a larger one is asked for: a burst now and then is no reason.
const PATIENCE: u8 = 16;
/// Bytes of a group's memory.
const GROUP_BYTES: usize = 16 << 10;
/// A lane or a group larger than this is not believed.
const LONGEST_LANE: usize = 1 << 20;

/// Shared memory as a carrier of one kernel.
pub struct Shm<W: Windows> {
    me: KernelId,
    porch: Porch<W::M>,
    windows: Arc<W>,
}

impl<W: Windows> Shm<W> {
    /// Opens this kernel's own porch. `None` if there is none.
    pub fn new(me: KernelId, windows: W) -> Option<Self> {
        let porch = Porch(windows.porch(me.index)?);
        porch.open(me);
        Some(Self { me, porch, windows: Arc::new(windows) })
    }

    /// The own porch.
    pub const fn porch(&self) -> &Porch<W::M> {
        &self.porch
    }

    /// The porch of a peer.
    pub fn porch_of(&self, index: u16) -> Option<Porch<W::M>> {
        self.windows.porch(index).map(Porch)
    }
}

impl<W: Windows> Carrier for Shm<W> {
    fn name(&self) -> &'static str {
        "shm"
    }

    fn signs(&self, index: u16) -> Option<Signs> {
        if index == self.me.index {
            return self.porch.signs();
        }
        self.porch_of(index)?.signs().filter(|signs| signs.owner.index == index)
    }

    fn present(&self, index: u16) -> Option<KernelId> {
        let owner = self.porch_of(index)?.owner()?;
        (owner.index == index).then_some(owner)
    }

    fn reason(&self, index: u16) -> String {
        self.porch_of(index).map_or_else(String::new, |porch| porch.reason())
    }

    fn show(&self, sign: Sign<'_>) {
        self.porch.show(sign);
    }

    /// Takes no lock but what [`Windows`] takes for a porch.
    fn announce(&self, kernels: u16) {
        for index in (0..kernels).filter(|i| *i != self.me.index) {
            if let Some(porch) = self.porch_of(index).filter(|p| p.owner().is_some()) {
                porch.poke(self.me.index);
                self.windows.ring(index);
            }
        }
    }

    fn claim_fence(&self, index: u16, expected: u64, claim: u64) -> Option<u64> {
        Some(self.porch_of(index)?.claim_fence(expected, claim))
    }

    fn connect(&self, peer: KernelId) -> Option<Box<dyn Transport>> {
        if self.present(peer.index)? != peer || peer.index == self.me.index {
            return None;
        }
        Some(Box::new(Pair::<W> {
            me: self.me,
            peer,
            porch: self.porch.clone(),
            theirs: self.porch_of(peer.index)?,
            windows: self.windows.clone(),
            tx: Lock::ranked(LINK_RINGS, Tx { wanted: 0, block: None, lanes: [const { None }; LANES], closed: false }),
            rx: Lock::ranked(LINK_RINGS, Rx { block: None, lanes: [const { None }; LANES], closed: false }),
        }))
    }

    fn speak(&self) -> Option<Box<dyn Speaking>> {
        let (at, _) = self.windows.allocate(GROUP_BYTES)?;
        let lines = self.windows.map(self.me.index, at, LINES);
        let ring = self.windows.map(self.me.index, at + LINES as u64, GROUP_BYTES - LINES);
        let speaker = lines.zip(ring).and_then(|(lines, ring)| Speaker::new(lines, ring));
        if speaker.is_none() {
            self.windows.free(at, GROUP_BYTES);
        }
        Some(Box::new(Spoken { speaker: Some(speaker?), at, windows: self.windows.clone() }))
    }

    fn listen(&self, peer: KernelId, place: (u64, u32), seat: (u32, u64)) -> Option<Box<dyn Listening>> {
        let (at, bytes) = place;
        let bytes = usize::try_from(bytes).ok().filter(|bytes| (LINES..=LONGEST_LANE).contains(bytes))?;
        let lines = self.windows.map(peer.index, at, LINES)?;
        let ring = self.windows.map(peer.index, at.checked_add(LINES as u64)?, bytes - LINES)?;
        Some(Box::new(Listener::new(lines, ring, self.me.index, seat)?))
    }

    fn wake(&self, index: u16) -> bool {
        let asleep = self.porch_of(index).is_some_and(|porch| porch.sleeps());
        if asleep {
            self.windows.ring(index);
        }
        asleep
    }

    fn poke(&self, index: u16) {
        if self.porch_of(index).is_some_and(|porch| porch.poke(self.me.index)) {
            self.windows.ring(index);
        }
    }

    fn begin(&self) {
        self.porch.begin_polling();
    }

    fn watch(&self, peers: u64) {
        self.porch.watch(peers);
    }

    fn take_pending(&self) -> u64 {
        self.porch.take_pending()
    }

    fn end(&self) -> bool {
        self.porch.end_polling()
    }
}

/// A group that this kernel speaks to.
struct Spoken<W: Windows> {
    /// Gone when it is dropped.
    speaker: Option<Speaker<W::M>>,
    at: u64,
    windows: Arc<W>,
}

impl<W: Windows> Speaking for Spoken<W> {
    fn place(&self) -> (u64, u32) {
        (self.at, GROUP_BYTES as u32)
    }

    fn seat(&mut self, index: u16) -> (u32, u64) {
        self.speaker.as_mut().map_or((0, 0), |speaker| speaker.seat(index))
    }

    fn unseat(&mut self, index: u16) {
        if let Some(speaker) = &mut self.speaker {
            speaker.unseat(index);
        }
    }

    fn seated(&self) -> u64 {
        self.speaker.iter().flat_map(Speaker::listeners).fold(0, |bits, index| bits | 1 << index)
    }

    fn last(&self) -> (u64, u64) {
        self.speaker.as_ref().map_or((0, 0), Speaker::last)
    }

    fn take_liars(&mut self) -> u64 {
        self.speaker.as_mut().map_or(0, Speaker::take_liars)
    }

    fn say(&mut self, head: &[u8; HEADER_SIZE], parts: &[&[u8]]) -> Result<(), SendError> {
        self.speaker.as_mut().ok_or(SendError::Closed)?.push(head, parts).map_err(refused)
    }
}

impl<W: Windows> Drop for Spoken<W> {
    fn drop(&mut self) {
        // First what is mapped, then what it maps.
        drop(self.speaker.take());
        self.windows.free(self.at, GROUP_BYTES);
    }
}

impl<M: Memory> Listening for Listener<M> {
    fn is_ready(&self) -> bool {
        Self::is_ready(self)
    }

    fn hear(&mut self, out: &mut Vec<u8>) -> Result<bool, Lost> {
        self.pop(out)
    }

    fn rest(&mut self) -> bool {
        Self::rest(self)
    }
}

/// The sending half of a pair: rings in the peer's memory.
struct Tx<M> {
    wanted: u8,
    block: Option<Block<M>>,
    lanes: [Option<Way<M>>; LANES],
    closed: bool,
}

/// A lane as its sender has it.
struct Way<M> {
    ring: Producer<M>,
    /// Where the ring is in the peer's memory.
    at: u64,
    /// It is the lane's first ring, and there is a larger one to be had.
    first: bool,
    /// How often it was full.
    full: u8,
}

/// The receiving half: rings in own memory.
struct Rx<M> {
    block: Option<(u64, Block<M>)>,
    lanes: [Option<Open<M>>; LANES],
    closed: bool,
}

/// A lane as its receiver has it.
struct Open<M> {
    ring: Consumer<M>,
    /// What to free; nothing for a first ring, which is in the block.
    at: Option<(u64, usize)>,
    /// The larger ring to which the sender goes, or has gone.
    next: Option<Box<Self>>,
}

impl<M: Memory> Open<M> {
    #[inline(always)]
    fn pop(&mut self, out: &mut Vec<u8>) -> Result<bool, Corrupt> {
        if self.ring.pop(out)? {
            return Ok(true);
        }
        if self.next.is_some() { self.follow(out) } else { Ok(false) }
    }

    /// Goes to the larger ring, if the sender has and nothing is left here.
    #[cold]
    fn follow(&mut self, out: &mut Vec<u8>) -> Result<bool, Corrupt> {
        if !self.ring.is_retired() {
            return Ok(false);
        }
        // What it pushed last came before it went, and is seen now.
        if self.ring.pop(out)? {
            return Ok(true);
        }
        let Some(next) = self.next.take() else { return Ok(false) };
        *self = *next;
        self.ring.pop(out)
    }
}

struct Pair<W: Windows> {
    me: KernelId,
    peer: KernelId,
    porch: Porch<W::M>,
    theirs: Porch<W::M>,
    windows: Arc<W>,
    tx: Lock<Tx<W::M>>,
    rx: Lock<Rx<W::M>>,
}

impl<W: Windows> Pair<W> {
    /// Takes up the peer's offer of a lane; asks for it if there is none.
    fn open_lane(&self, tx: &mut Tx<W::M>, lane: Lane) -> Result<(), SendError> {
        if tx.block.is_none()
            && let Some(at) = self.theirs.offered(self.me.index)
            && let Some(memory) = self.windows.map(self.peer.index, at, BLOCK_SIZE)
        {
            let block = Block(memory);
            if block.is_between(self.me, self.peer) {
                tx.block = Some(block);
            }
        }
        if let Some(block) = &tx.block
            && let Some((at, len)) = block.lane(lane)
        {
            tx.lanes[lane as usize] = Some(self.way(lane, at, len)?);
            return Ok(());
        }
        self.ask(tx, wants(lane))
    }

    /// The ring that the peer offers for a lane.
    fn way(&self, lane: Lane, at: u64, len: usize) -> Result<Way<W::M>, SendError> {
        if len > LONGEST_LANE {
            return Err(SendError::Corrupt);
        }
        let memory = self.windows.map(self.peer.index, at, len).ok_or(SendError::Corrupt)?;
        let ring = Producer::new(memory).ok_or(SendError::Corrupt)?;
        Ok(Way { ring, at, first: len < LANE_BYTES[lane as usize], full: 0 })
    }

    /// Asks the peer for something, once.
    fn ask(&self, tx: &mut Tx<W::M>, bit: u8) -> Result<(), SendError> {
        if tx.wanted & bit == 0 {
            tx.wanted |= bit;
            self.theirs.want(self.me.index, tx.wanted);
            self.poke();
            // The peer may have offered it in between; if not, its poke brings us here again.
        }
        Err(SendError::Later)
    }

    /// Takes up the peer's offer of a larger ring for a lane; asks for it if there is none.
    #[cold]
    fn grow(&self, tx: &mut Tx<W::M>, lane: Lane) -> Result<(), SendError> {
        let offered = tx.block.as_ref().and_then(|block| block.lane(lane));
        let slot = &mut tx.lanes[lane as usize];
        match offered {
            Some((at, len)) if slot.as_ref().is_some_and(|way| way.at != at) => {
                let way = self.way(lane, at, len)?;
                if let Some(old) = slot.replace(way) {
                    old.ring.retire();
                }
                Ok(())
            }
            _ => self.ask(tx, grows(lane)),
        }
    }

    fn poke(&self) -> bool {
        let ring = self.theirs.poke(self.me.index);
        if ring {
            self.windows.ring(self.peer.index);
        }
        ring
    }

    /// Opens the lanes that the peer wants. `true` if there is something new for it.
    fn serve_wants(&self, rx: &mut Rx<W::M>) -> bool {
        let wanted = self.porch.wanted(self.peer.index);
        if wanted == 0 || rx.closed {
            return false;
        }
        let mut new = false;
        if rx.block.is_none() {
            let Some((at, memory)) = self.windows.allocate(BLOCK_SIZE) else { return false };
            let block = Block(memory);
            block.open(self.peer, self.me);
            rx.block = Some((at, block));
            self.porch.offer(self.peer.index, at);
            new = true;
        }
        let Some((block_at, block)) = &rx.block else { return new };
        for lane in Lane::ALL {
            let slot = &mut rx.lanes[lane as usize];
            let (first_at, first_len) = FIRST_RINGS[lane as usize];
            let (at, len, freed) = match slot {
                None if wanted & wants(lane) == 0 => continue,
                None if first_len > 0 => (block_at + first_at as u64, first_len, None),
                // The last one that there is.
                Some(open) if wanted & grows(lane) == 0 || open.at.is_some() || open.next.is_some() => continue,
                _ => {
                    let len = LANE_BYTES[lane as usize];
                    let Some((at, _)) = (len > 0).then(|| self.windows.allocate(len)).flatten() else { continue };
                    (at, len, Some((at, len)))
                }
            };
            let ring = self.windows.map(self.me.index, at, len).and_then(Consumer::new);
            if let Some(ring) = ring {
                let open = Open { ring, at: freed, next: None };
                match slot {
                    Some(first) => first.next = Some(Box::new(open)),
                    None => *slot = Some(open),
                }
                block.set_lane(lane, at, len);
                new = true;
            } else if let Some((at, len)) = freed {
                self.windows.free(at, len);
            }
        }
        new
    }
}

const fn refused(why: PushError) -> SendError {
    match why {
        PushError::Full => SendError::Later,
        PushError::TooLong => SendError::TooLong,
        PushError::Corrupt => SendError::Corrupt,
    }
}

impl<W: Windows> Transport for Pair<W> {
    fn longest(&self, lane: Lane) -> usize {
        // Of the largest ring that the lane gets.
        LANE_BYTES[lane as usize].max(FIRST_RINGS[lane as usize].1) - OVERHEAD - LINE
    }

    fn send(&self, lane: Lane, head: &[u8; HEADER_SIZE], parts: &[&[u8]]) -> Result<(), SendError> {
        let mut tx = self.tx.lock();
        if tx.closed {
            return Err(SendError::Closed);
        }
        if tx.lanes[lane as usize].is_none() {
            self.open_lane(&mut tx, lane)?;
        }
        let Some(way) = &mut tx.lanes[lane as usize] else { return Err(SendError::Later) };
        let pushed = way.ring.push(head, parts);
        if !way.first {
            return pushed.map_err(refused);
        }
        match pushed {
            Ok(()) => return Ok(()),
            Err(PushError::Corrupt) => return Err(SendError::Corrupt),
            // It fits in the larger one.
            Err(PushError::TooLong) => {}
            Err(PushError::Full) => {
                way.full = way.full.saturating_add(1);
                if way.full < PATIENCE {
                    return Err(SendError::Later);
                }
            }
        }
        self.grow(&mut tx, lane)?;
        let Some(way) = &mut tx.lanes[lane as usize] else { return Err(SendError::Later) };
        way.ring.push(head, parts).map_err(refused)
    }

    fn notify(&self) -> bool {
        let ring = self.theirs.announce(self.me.index);
        if ring {
            self.windows.ring(self.peer.index);
        }
        ring
    }

    fn receive(&self, lane: Lane, out: &mut Vec<u8>) -> Result<bool, Corrupt> {
        match &mut self.rx.lock().lanes[lane as usize] {
            Some(open) => open.pop(out),
            None => Ok(false),
        }
    }

    fn receive_urgent(&self, last: Lane, out: &mut Vec<u8>) -> Result<Option<Lane>, Lane> {
        let mut broken = None;
        let mut rx = self.rx.lock();
        for (lane, open) in Lane::ALL.into_iter().zip(rx.lanes.iter_mut()).take_while(|(lane, _)| *lane <= last) {
            match open.as_mut().map_or(Ok(false), |open| open.pop(out)) {
                Ok(true) => return Ok(Some(lane)),
                Ok(false) => {}
                Err(Corrupt) => broken = Some(lane),
            }
        }
        broken.map_or(Ok(None), Err)
    }

    fn attend(&self) -> bool {
        let new = self.serve_wants(&mut self.rx.lock());
        if new {
            self.poke();
        }
        self.theirs.state().is_some_and(State::is_end)
    }

    fn rest(&self) -> bool {
        let mut starved = false;
        for open in self.rx.lock().lanes.iter_mut().flatten() {
            starved |= open.ring.take_starved();
        }
        if starved {
            self.poke();
        }
        starved
    }

    fn depth(&self, lane: Lane) -> u64 {
        self.tx.lock().lanes[lane as usize].as_ref().map_or(0, |way| way.ring.depth())
    }

    fn close(&self) {
        // Windows are given back outside the locks: that makes other CPUs flush, which may wait for these locks.
        let sending = {
            let mut tx = self.tx.lock();
            tx.closed = true;
            (tx.block.take(), core::mem::replace(&mut tx.lanes, [const { None }; LANES]))
        };
        drop(sending);
        let (block, lanes) = {
            let mut rx = self.rx.lock();
            rx.closed = true;
            self.porch.offer(self.peer.index, 0);
            // The next incarnation says itself what it wants; this one is stopped.
            self.porch.want(self.peer.index, 0);
            (rx.block.take(), core::mem::replace(&mut rx.lanes, [const { None }; LANES]))
        };
        for lane in lanes.into_iter().flatten() {
            let mut ring = Some(Box::new(lane));
            while let Some(open) = ring {
                let at = open.at;
                ring = open.next;
                drop(open.ring);
                if let Some((at, len)) = at {
                    self.windows.free(at, len);
                }
            }
        }
        if let Some((at, block)) = block {
            drop(block);
            self.windows.free(at, BLOCK_SIZE);
        }
    }
}
