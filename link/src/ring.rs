//! A single-producer single-consumer ring of records, of loads, stores and fences only.
//!
//! The ring lies in the consumer's memory. Its first line is the consumer's (how far it has read), its second the producer's ("I am
//! waiting for room"), then come the data lines. A record starts at a line; its first word is published last, by one store, and carries the
//! record's length and a stamp: the number of its line counted from the beginning of time. Before a record is published, the word after it
//! is made zero, so the consumer never takes old payload for a record: what programs send cannot forge one.
//!
//! The word is the frame word of a message header: a message without a body costs one line.
//!
//! A producer that needs more room than the ring has may go on in another one: it *retires* this one, and the consumer, when it has read all that is here,
//! follows it.

use alloc::vec::Vec;

use crate::memory::Memory;

/// Bytes of a cache line, as the rings see it; a larger line of the hardware only costs speed.
pub const LINE: usize = 64;
/// Bytes before the data.
pub const OVERHEAD: usize = 2 * LINE;

const READ: usize = 0;
const STARVED: usize = LINE;
const RETIRED: usize = LINE + 8;

/// Why a record could not be pushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PushError {
    /// No room now; the consumer will say when it has read ([`Consumer::take_starved`]).
    Full,
    /// The ring will never have room for it.
    TooLong,
    /// The consumer wrote nonsense where it says how far it has read.
    Corrupt,
}

/// The producer wrote nonsense; the ring cannot be read any further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Corrupt;

fn word_of(position: u64, len: usize) -> u64 {
    // The stamp is never 0 while the length is not.
    len as u64 | u64::from((position / LINE as u64) as u32) << 32
}

/// How many data bytes a ring over `len` bytes of memory has.
const fn capacity(len: usize) -> u64 {
    (len.saturating_sub(OVERHEAD) / LINE * LINE) as u64
}

/// The place `by` bytes after `at`, at most once around. Kept beside positions: a division costs as much as the rest of a look.
const fn ahead(at: usize, by: usize, capacity: u64) -> usize {
    let next = at + by;
    if next >= OVERHEAD + capacity as usize { next - capacity as usize } else { next }
}

/// The sending end.
#[derive(Debug)]
pub struct Producer<M> {
    memory: M,
    capacity: u64,
    written: u64,
    /// Where the next record begins.
    at: usize,
    /// What the consumer said last.
    read: u64,
    /// We said that we wait for room.
    starved: bool,
}

impl<M: Memory> Producer<M> {
    /// The sending end of a fresh (zeroed) ring. `None` if the memory is too small for three lines of data.
    pub fn new(memory: M) -> Option<Self> {
        let capacity = capacity(memory.size());
        (capacity >= 3 * LINE as u64).then_some(Self {
            memory,
            capacity,
            written: 0,
            at: OVERHEAD,
            read: 0,
            starved: false,
        })
    }

    /// The longest record that fits.
    pub fn longest(&self) -> usize {
        self.capacity as usize - LINE
    }

    /// Bytes that were ever pushed.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// The producer has found out itself how far all of its consumers have read.
    pub fn heard(&self, read: u64) {
        self.memory.store64(READ, read);
    }

    /// Bytes that the consumer has not read, as far as known.
    pub fn depth(&self) -> u64 {
        self.written - self.read
    }

    fn look(&mut self) -> Result<(), PushError> {
        self.memory.refresh(READ, LINE);
        let read = self.memory.load64(READ);
        if read < self.read || read > self.written || !read.is_multiple_of(LINE as u64) {
            return Err(PushError::Corrupt);
        }
        self.read = read;
        Ok(())
    }

    fn room(&self) -> u64 {
        // One line stays free for the zero word after the last record.
        self.capacity - (self.written - self.read) - LINE as u64
    }

    /// Pushes one record: `head`, whose first word is the ring's, and the parts after it.
    ///
    /// # Errors
    /// [`PushError::Full`] asks for a notice: the consumer's side will poke when there is room.
    pub fn push(&mut self, head: &[u8; LINE], parts: &[&[u8]]) -> Result<(), PushError> {
        let len = parts.iter().fold(LINE, |n, part| n.saturating_add(part.len()));
        if len > self.longest() {
            return Err(PushError::TooLong);
        }
        let total = len.next_multiple_of(LINE) as u64;
        if self.room() < total {
            self.look()?;
        }
        if self.room() < total {
            // Say that we wait, then look once more: either we see the room or the consumer sees that we wait.
            self.say_starved(true);
            self.memory.fence();
            self.look()?;
            if self.room() < total {
                return Err(PushError::Full);
            }
        }
        if self.starved {
            self.say_starved(false);
        }
        let word_at = self.at;
        let after = ahead(word_at, total as usize, self.capacity);
        self.memory.store64(after, 0);
        self.memory.publish(after, 8);
        let mut words = [0; LINE / 8];
        for (word, bytes) in words.iter_mut().zip(head.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        self.memory.write_words(word_at + 8, &words[1..]);
        let mut at = ahead(word_at, LINE, self.capacity);
        for part in parts {
            self.copy_in(at, part);
            at = ahead(at, part.len(), self.capacity);
        }
        self.publish_data(word_at, len);
        self.memory.store64(word_at, word_of(self.written + LINE as u64, len));
        self.memory.publish(word_at, 8);
        self.written += total;
        self.at = after;
        Ok(())
    }

    /// Nothing is pushed here any more: the next record is in another ring.
    pub fn retire(self) {
        self.memory.store64(RETIRED, 1);
        self.memory.publish(RETIRED, 8);
    }

    fn say_starved(&mut self, starved: bool) {
        self.memory.store64(STARVED, u64::from(starved));
        self.memory.publish(STARVED, LINE);
        self.starved = starved;
    }

    fn copy_in(&self, at: usize, bytes: &[u8]) {
        let to_end = OVERHEAD + self.capacity as usize - at;
        let (first, second) = bytes.split_at(bytes.len().min(to_end));
        self.memory.write(at, first);
        if !second.is_empty() {
            self.memory.write(OVERHEAD, second);
        }
    }

    fn publish_data(&self, at: usize, len: usize) {
        let to_end = OVERHEAD + self.capacity as usize - at;
        let first = len.min(to_end);
        self.memory.publish(at, first);
        if len > first {
            self.memory.publish(OVERHEAD, len - first);
        }
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Consumer<M> {
    memory: M,
    /// Where it says how far it has read, if that is not in the ring's first line: one of several consumers.
    line: Option<(M, usize)>,
    capacity: u64,
    read: u64,
    /// Where the next record begins.
    at: usize,
    /// What the producer was told.
    told: u64,
    /// Something was read since it was looked whether the producer waits for room.
    unrested: bool,
    corrupt: bool,
}

impl<M: Memory> Consumer<M> {
    /// The receiving end of a fresh (zeroed) ring. `None` if the memory is too small for three lines of data.
    pub fn new(memory: M) -> Option<Self> {
        let capacity = capacity(memory.size());
        (capacity >= 3 * LINE as u64).then_some(Self {
            memory,
            line: None,
            capacity,
            read: 0,
            at: OVERHEAD,
            told: 0,
            unrested: false,
            corrupt: false,
        })
    }

    /// One of several receiving ends: begins where the producer has said it is, and says in `line` how far it has read.
    pub fn one_of_many(memory: M, start: u64, line: (M, usize)) -> Option<Self> {
        let this = Self::new(memory)?;
        let at = OVERHEAD + (start % this.capacity) as usize;
        start.is_multiple_of(LINE as u64).then_some(Self { line: Some(line), read: start, at, told: start, ..this })
    }

    /// Whether a record is there.
    pub fn is_ready(&self) -> bool {
        self.memory.refresh(self.at, 8);
        !self.corrupt && self.memory.load64(self.at) != 0
    }

    /// Takes the next record into `out`, whose first word is then zero; `false` if there is none.
    ///
    /// # Errors
    /// [`Corrupt`], for ever: where the next record begins is not known.
    // Called for every lane in every round of polling.
    #[inline(always)]
    pub fn pop(&mut self, out: &mut Vec<u8>) -> Result<bool, Corrupt> {
        if self.corrupt {
            return Err(Corrupt);
        }
        self.memory.refresh(self.at, 8);
        match self.memory.load64(self.at) {
            0 => Ok(false),
            word => self.take(word, out),
        }
    }

    /// The record that `word` begins.
    fn take(&mut self, word: u64, out: &mut Vec<u8>) -> Result<bool, Corrupt> {
        let at = self.at;
        let len = word as u32 as usize;
        if len < LINE || len > self.capacity as usize - LINE || word != word_of(self.read + LINE as u64, len) {
            self.corrupt = true;
            return Err(Corrupt);
        }
        // What is in the buffer is overwritten: only what is new in it is zeroed.
        out.resize(len, 0);
        let to_end = OVERHEAD + self.capacity as usize - at;
        let (first, second) = out.split_at_mut(len.min(to_end));
        self.memory.refresh(at, first.len());
        // A record begins with a whole line.
        if let Some((head, rest)) = first.split_first_chunk_mut::<LINE>() {
            let mut words = [0; LINE / 8];
            self.memory.read_words(at + 8, &mut words[1..]);
            for (bytes, word) in head.chunks_exact_mut(8).zip(words) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            if !rest.is_empty() {
                self.memory.read(at + LINE, rest);
            }
        }
        if !second.is_empty() {
            self.memory.refresh(OVERHEAD, second.len());
            self.memory.read(OVERHEAD, second);
        }
        self.unrested = true;
        self.read += len.next_multiple_of(LINE) as u64;
        self.at = ahead(at, len.next_multiple_of(LINE), self.capacity);
        if self.read - self.told >= self.capacity / 4 {
            self.tell();
        }
        Ok(true)
    }

    /// Whether the producer has gone to another ring. What it pushed here before is here.
    pub fn is_retired(&self) -> bool {
        self.memory.refresh(RETIRED, 8);
        self.memory.load64(RETIRED) != 0
    }

    fn tell(&mut self) {
        let (memory, at) = self.line.as_ref().map_or((&self.memory, READ), |(memory, at)| (memory, *at));
        memory.store64(at, self.read);
        memory.publish(at, 8);
        self.told = self.read;
    }

    /// Called when the ring was found empty or a batch ends: tells the producer how far we are. `true` if it waits for room: poke it.
    pub fn take_starved(&mut self) -> bool {
        if !core::mem::take(&mut self.unrested) {
            // It saw as much room as there is, or was told so.
            return false;
        }
        if self.told != self.read {
            self.tell();
        }
        self.memory.fence();
        self.memory.refresh(STARVED, LINE);
        self.memory.load64(STARVED) != 0
    }
}
