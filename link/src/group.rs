//! A ring that many read: one kernel speaks, the others listen.
//!
//! The memory is the speaker's: a line for each kernel of the machine, then a ring ([`crate::ring`]). What is said is written once, however many listen.
//! A listener says in its line how far it has read; the speaker takes the least of these for what its ring's one consumer would have said. In the same line the
//! speaker says that the listener has a *seat*: a number that it gives once. A listener that lags behind loses it, and what it has not read may be
//! overwritten; so it looks at its seat after it has copied a record, and before it believes it.

use alloc::vec::Vec;

use wire::MAX_KERNELS;

use crate::{
    memory::Memory,
    ring::{Consumer, Corrupt, LINE, Producer, PushError},
};

/// Bytes before the ring.
pub const LINES: usize = LINE * MAX_KERNELS;

const SEAT: usize = 0;
const READ: usize = 8;

const fn line(index: u16) -> usize {
    LINE * index as usize
}

/// Why nothing more is heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// The speaker took the seat away: what was said since is lost to this listener.
    Seat,
    /// The speaker wrote nonsense.
    Corrupt,
}

#[derive(Clone, Copy, Debug)]
struct Seat {
    index: u16,
    read: u64,
}

/// The speaking end.
#[derive(Debug)]
pub struct Speaker<M> {
    lines: M,
    ring: Producer<M>,
    seats: Vec<Seat>,
    given: u32,
    liars: u64,
}

impl<M: Memory> Speaker<M> {
    /// Nobody listens. `lines` and `ring` are fresh (zeroed) memory, `lines` of [`LINES`] bytes.
    pub fn new(lines: M, ring: M) -> Option<Self> {
        let ring = Producer::new(ring).filter(|_| lines.size() >= LINES)?;
        Some(Self { lines, ring, seats: Vec::new(), given: 0, liars: 0 })
    }

    /// Gives a kernel a new seat: its number, and where it begins to listen.
    pub fn seat(&mut self, index: u16) -> (u32, u64) {
        self.unseat(index);
        self.given += 1;
        let start = self.ring.written();
        let at = line(index);
        self.lines.store64(at + READ, start);
        self.lines.store64(at + SEAT, u64::from(self.given));
        self.lines.publish(at, LINE);
        self.seats.push(Seat { index, read: start });
        (self.given, start)
    }

    /// Takes a seat away. From then on what the listener has not read may be overwritten.
    pub fn unseat(&mut self, index: u16) {
        let before = self.seats.len();
        self.seats.retain(|seat| seat.index != index);
        if self.seats.len() < before {
            self.lines.store64(line(index) + SEAT, 0);
            self.lines.publish(line(index), LINE);
            // Before anything is overwritten.
            self.lines.fence();
        }
    }

    /// Who has a seat.
    pub fn listeners(&self) -> impl Iterator<Item = u16> + '_ {
        self.seats.iter().map(|seat| seat.index)
    }

    /// Those that have read least, as bits by index, and how far they are.
    pub fn last(&self) -> (u64, u64) {
        let least = self.seats.iter().map(|seat| seat.read).min().unwrap_or(self.ring.written());
        let last = self.seats.iter().filter(|seat| seat.read == least);
        (last.fold(0, |bits, seat| bits | 1 << seat.index), least)
    }

    /// Kernels that wrote nonsense into their lines since this was asked, as bits; they have no seats any more.
    pub const fn take_liars(&mut self) -> u64 {
        core::mem::replace(&mut self.liars, 0)
    }

    /// Looks how far all are.
    fn look(&mut self) {
        for seat in &mut self.seats {
            let at = line(seat.index) + READ;
            self.lines.refresh(at, 8);
            let read = self.lines.load64(at);
            if read < seat.read || read > self.ring.written() || !read.is_multiple_of(LINE as u64) {
                self.liars |= 1 << seat.index;
            } else {
                seat.read = read;
            }
        }
        let liars = self.liars;
        for index in (0..MAX_KERNELS as u16).filter(|index| liars & 1 << index != 0) {
            self.unseat(index);
        }
        self.ring.heard(self.last().1);
    }

    /// Says something to all who listen.
    ///
    /// # Errors
    /// [`PushError::Full`]: the last ones have not read enough. They will poke when they have, if they ever do. [`PushError::TooLong`].
    pub fn push(&mut self, head: &[u8; LINE], parts: &[&[u8]]) -> Result<(), PushError> {
        match self.ring.push(head, parts) {
            // From the first look on the listeners know that somebody waits for room. (What stands where a single consumer would say how far it is, is this
            // kernel's own word; a listener that writes there harms nobody.)
            Err(PushError::Full | PushError::Corrupt) => {
                self.look();
                self.ring.push(head, parts).map_err(|why| if why == PushError::Corrupt { PushError::Full } else { why })
            }
            done => done,
        }
    }
}

/// A listening end.
#[derive(Debug)]
pub struct Listener<M> {
    lines: M,
    me: u16,
    seat: u32,
    ring: Consumer<M>,
}

impl<M: Memory + Clone> Listener<M> {
    /// Takes the seat that the speaker gave. `None` if what it said cannot be.
    pub fn new(lines: M, ring: M, me: u16, (seat, start): (u32, u64)) -> Option<Self> {
        if lines.size() < LINES || usize::from(me) >= MAX_KERNELS || seat == 0 {
            return None;
        }
        let ring = Consumer::one_of_many(ring, start, (lines.clone(), line(me) + READ))?;
        Some(Self { lines, me, seat, ring })
    }
}

impl<M: Memory> Listener<M> {
    fn is_seated(&self) -> bool {
        let at = line(self.me) + SEAT;
        self.lines.refresh(at, 8);
        self.lines.load64(at) == u64::from(self.seat)
    }

    /// Whether there is something to hear, be it that the seat is lost.
    pub fn is_ready(&self) -> bool {
        self.ring.is_ready() || !self.is_seated()
    }

    /// Takes the next record into `out`; `false` if there is none.
    ///
    /// # Errors
    /// [`Lost`], for ever.
    pub fn pop(&mut self, out: &mut Vec<u8>) -> Result<bool, Lost> {
        let popped = self.ring.pop(out);
        // What was copied was said to this listener only if it still had its seat then.
        self.lines.fence();
        match popped {
            _ if !self.is_seated() => Err(Lost::Seat),
            Ok(heard) => Ok(heard),
            Err(Corrupt) => Err(Lost::Corrupt),
        }
    }

    /// A batch is handled: tells the speaker how far this listener is. `true` if the speaker waits for room: poke it.
    pub fn rest(&mut self) -> bool {
        self.is_seated() && self.ring.take_starved()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::{sync::Arc, vec, vec::Vec};
    use core::sync::atomic::{AtomicU64, Ordering};

    use super::{LINES, Listener, Lost, Speaker};
    use crate::{
        memory::{HeapMemory, Memory},
        ring::{LINE, PushError},
    };

    /// Memory that counts what is written into it.
    #[derive(Clone)]
    struct Counted(HeapMemory, Arc<AtomicU64>);

    impl Counted {
        fn count(&self, bytes: usize) {
            self.1.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    impl Memory for Counted {
        fn size(&self) -> usize {
            self.0.size()
        }
        fn load8(&self, at: usize) -> u8 {
            self.0.load8(at)
        }
        fn store8(&self, at: usize, value: u8) {
            self.count(1);
            self.0.store8(at, value);
        }
        fn load64(&self, at: usize) -> u64 {
            self.0.load64(at)
        }
        fn store64(&self, at: usize, value: u64) {
            self.count(8);
            self.0.store64(at, value);
        }
        fn swap64(&self, at: usize, old: u64, new: u64) -> u64 {
            self.0.swap64(at, old, new)
        }
        fn read(&self, at: usize, out: &mut [u8]) {
            self.0.read(at, out);
        }
        fn write(&self, at: usize, bytes: &[u8]) {
            self.count(bytes.len());
            self.0.write(at, bytes);
        }
        fn fence(&self) {
            self.0.fence();
        }
    }

    const RING: usize = 4096;

    /// A group with listeners 1 to `n`, and what the speaker has written.
    fn group(n: u16) -> (Speaker<Counted>, Vec<Listener<HeapMemory>>, Arc<AtomicU64>) {
        let written = Arc::new(AtomicU64::new(0));
        let (lines, ring) = (HeapMemory::new(LINES), HeapMemory::new(RING));
        let counted = |memory: &HeapMemory| Counted(memory.clone(), written.clone());
        let mut speaker = Speaker::new(counted(&lines), counted(&ring)).unwrap();
        let listener = |me| Listener::new(lines.clone(), ring.clone(), me, speaker.seat(me)).unwrap();
        let listeners = (1..=n).map(listener).collect();
        written.store(0, Ordering::Relaxed);
        (speaker, listeners, written)
    }

    fn say(speaker: &mut Speaker<Counted>, value: u8) -> Result<(), PushError> {
        speaker.push(&[value; LINE], &[&[value; 40]])
    }

    #[test]
    fn what_is_written_does_not_depend_on_who_listens() {
        let mut counts = Vec::new();
        for n in [2, 3, 8, 32] {
            let (mut speaker, mut listeners, written) = group(n);
            let mut out = Vec::new();
            for value in 0..200 {
                say(&mut speaker, value).unwrap();
                // They are not equally far, but none is far behind.
                for (i, listener) in listeners.iter_mut().enumerate() {
                    if (usize::from(value) + i).is_multiple_of(7) {
                        while listener.pop(&mut out).unwrap() {}
                        listener.rest();
                    }
                }
            }
            counts.push(written.load(Ordering::Relaxed));
        }
        let per_message = counts[0] / 200;
        assert!(counts.iter().all(|count| count.abs_diff(counts[0]) <= 16 * 200), "{counts:?}");
        assert!((104..=140).contains(&per_message), "{per_message} bytes a message of 104");
    }

    #[test]
    fn all_hear_all_in_order() {
        let (mut speaker, mut listeners, _) = group(5);
        let mut heard = vec![0_u8; 5];
        let mut out = Vec::new();
        for value in 0..250 {
            while say(&mut speaker, value).is_err() {
                for (listener, next) in listeners.iter_mut().zip(&mut heard) {
                    while listener.pop(&mut out).unwrap() {
                        assert_eq!((out.len(), out[8], out[LINE]), (LINE + 40, *next, *next));
                        *next += 1;
                    }
                    listener.rest();
                }
            }
        }
        for (listener, next) in listeners.iter_mut().zip(&mut heard) {
            while listener.pop(&mut out).unwrap() {
                assert_eq!(out[8], *next);
                *next += 1;
            }
            assert_eq!(*next, 250);
        }
    }

    #[test]
    fn who_lags_behind_loses_its_seat_and_gets_another() {
        let (mut speaker, mut listeners, _) = group(2);
        let mut out = Vec::new();
        let mut value = 0;
        while say(&mut speaker, value).is_ok() {
            while listeners[0].pop(&mut out).unwrap() {}
            listeners[0].rest();
            value += 1;
        }
        assert_eq!(speaker.last().0, 1 << 2, "the second does not listen");
        speaker.unseat(2);
        say(&mut speaker, value).unwrap();
        assert_eq!(listeners[1].pop(&mut out), Err(Lost::Seat), "though there is a record that looks whole");
        assert!(listeners[1].is_ready() && !listeners[1].rest());
        // Again, from here on.
        let (seat, start) = speaker.seat(2);
        assert!(seat > 2 && start.is_multiple_of(LINE as u64));
        assert_eq!(listeners[1].pop(&mut out), Err(Lost::Seat), "the old seat stays lost");
        while listeners[0].pop(&mut out).unwrap() {}
        say(&mut speaker, 77).unwrap();
        assert!(listeners[0].pop(&mut out).unwrap());
        assert_eq!(out[8], 77);
    }

    #[test]
    fn a_word_that_is_the_speakers_own_is_not_believed() {
        let (lines, ring) = (HeapMemory::new(LINES), HeapMemory::new(RING));
        let mut speaker = Speaker::new(lines.clone(), ring.clone()).unwrap();
        let mut listener = Listener::new(lines, ring.clone(), 1, speaker.seat(1)).unwrap();
        let mut out = Vec::new();
        for value in 0..250_u8 {
            // Where the one consumer of a ring would say how far it is.
            ring.store64(0, 12_345);
            if speaker.push(&[value; LINE], &[]).is_err() {
                while listener.pop(&mut out).unwrap() {}
                listener.rest();
                assert_eq!(speaker.push(&[value; LINE], &[]), Ok(()));
            }
        }
        while listener.pop(&mut out).unwrap() {}
        assert_eq!(out[8], 249);
    }

    #[test]
    fn who_lies_about_how_far_it_is_loses_its_seat() {
        let (mut speaker, mut listeners, _) = group(2);
        listeners[1].lines.store64(super::line(2) + super::READ, 1 << 40);
        let mut out = Vec::new();
        for value in 0..200 {
            if say(&mut speaker, value).is_err() {
                while listeners[0].pop(&mut out).unwrap() {}
                listeners[0].rest();
                say(&mut speaker, value).unwrap();
            }
        }
        assert_eq!((speaker.take_liars(), speaker.take_liars()), (1 << 2, 0));
        assert_eq!(speaker.listeners().collect::<Vec<_>>(), [1]);
    }
}
