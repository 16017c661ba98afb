//! Memory that two kernels can address: what rings and porches are made of.
//!
//! Only loads, stores and fences between kernels (the fence word is the one exception: see [`Memory::swap64`]), so that the same code runs
//! over hardware windows, over atomics of the host in tests, and under a model checker. A window may be non-coherent: whoever wrote says
//! `publish`, whoever is about to read says `refresh`; both do nothing on coherent memory.

use alloc::{boxed::Box, sync::Arc};
use core::sync::atomic::{AtomicU64, Ordering, fence};

/// A piece of shared memory, addressed by byte offsets from its start.
///
/// No call panics: an offset outside loads zeros, and stores to it are lost (offsets come from this kernel's own arithmetic; what a peer says is
/// checked before it gets here). Words are naturally aligned.
pub trait Memory: Send + Sync {
    /// Bytes.
    fn size(&self) -> usize;
    /// Loads a byte, acquire.
    fn load8(&self, at: usize) -> u8;
    /// Stores a byte, release.
    fn store8(&self, at: usize, value: u8);
    /// Loads a word, acquire.
    fn load64(&self, at: usize) -> u64;
    /// Stores a word, release.
    fn store64(&self, at: usize, value: u64);
    /// Stores `new` if the word is `old`; answers what it was. Only for the fence word, and only on coherent memory.
    fn swap64(&self, at: usize, old: u64, new: u64) -> u64;
    /// Loads words, each acquire.
    fn load_words(&self, at: usize, out: &mut [u64]) {
        for (i, word) in out.iter_mut().enumerate() {
            *word = self.load64(at + 8 * i);
        }
    }
    /// Copies words in, in no order.
    fn write_words(&self, at: usize, words: &[u64]) {
        for (i, word) in words.iter().enumerate() {
            self.write(at + 8 * i, &word.to_le_bytes());
        }
    }
    /// Copies words out, in no order.
    fn read_words(&self, at: usize, out: &mut [u64]) {
        for (i, word) in out.iter_mut().enumerate() {
            let mut bytes = [0; 8];
            self.read(at + 8 * i, &mut bytes);
            *word = u64::from_le_bytes(bytes);
        }
    }
    /// Copies bytes out, in no order.
    fn read(&self, at: usize, out: &mut [u8]);
    /// Copies bytes in, in no order.
    fn write(&self, at: usize, bytes: &[u8]);
    /// A full fence: what was stored before it is seen by whoever stored before its own fence and loads after it.
    fn fence(&self);
    /// Makes what was written visible to the other side.
    fn publish(&self, at: usize, len: usize) {
        let _ = (at, len);
    }
    /// Makes visible what the other side published.
    fn refresh(&self, at: usize, len: usize) {
        let _ = (at, len);
    }
}

/// Memory of this process that kernels in it share; for tests, the simulators and `hal/host`. Clones are the same memory.
#[derive(Clone, Debug)]
pub struct HeapMemory {
    words: Arc<[AtomicU64]>,
    start: usize,
    len: usize,
}

impl HeapMemory {
    /// `len` zero bytes; rounded up to whole words.
    pub fn new(len: usize) -> Self {
        let words: Box<[AtomicU64]> = (0..len.div_ceil(8)).map(|_| AtomicU64::new(0)).collect();
        Self { words: words.into(), start: 0, len: len.div_ceil(8) * 8 }
    }

    /// The part from `at`, `len` bytes; nothing if that is not inside or not aligned to words.
    pub fn part(&self, at: usize, len: usize) -> Option<Self> {
        let end = at.checked_add(len)?;
        (end <= self.len && at.is_multiple_of(8)).then(|| Self {
            words: self.words.clone(),
            start: self.start + at,
            len,
        })
    }

    fn word(&self, at: usize) -> Option<&AtomicU64> {
        (at < self.len).then(|| self.words.get((self.start + at) / 8)).flatten()
    }
}

impl Memory for HeapMemory {
    fn size(&self) -> usize {
        self.len
    }

    fn load8(&self, at: usize) -> u8 {
        self.word(at).map_or(0, |w| w.load(Ordering::Acquire).to_le_bytes()[at % 8])
    }

    fn store8(&self, at: usize, value: u8) {
        // Hardware stores a byte; here the word around it is replaced until nobody interferes.
        if let Some(word) = self.word(at) {
            let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
                let mut bytes = old.to_le_bytes();
                bytes[at % 8] = value;
                Some(u64::from_le_bytes(bytes))
            });
        }
    }

    fn load64(&self, at: usize) -> u64 {
        self.word(at).map_or(0, |w| w.load(Ordering::Acquire))
    }

    fn store64(&self, at: usize, value: u64) {
        if let Some(word) = self.word(at) {
            word.store(value, Ordering::Release);
        }
    }

    fn swap64(&self, at: usize, old: u64, new: u64) -> u64 {
        self.word(at).map_or(0, |w| match w.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(was) | Err(was) => was,
        })
    }

    fn read(&self, at: usize, out: &mut [u8]) {
        let mut at = at;
        let mut rest = out;
        while !rest.is_empty() {
            let within = at % 8;
            let n = rest.len().min(8 - within);
            let bytes = self.word(at).map_or(0, |w| w.load(Ordering::Relaxed)).to_le_bytes();
            let (head, tail) = rest.split_at_mut(n);
            head.copy_from_slice(&bytes[within..within + n]);
            rest = tail;
            at += n;
        }
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        let mut at = at;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = at % 8;
            let n = rest.len().min(8 - within);
            let (head, tail) = rest.split_at(n);
            if let Some(word) = self.word(at) {
                let mut new = word.load(Ordering::Relaxed).to_le_bytes();
                new[within..within + n].copy_from_slice(head);
                word.store(u64::from_le_bytes(new), Ordering::Relaxed);
            }
            rest = tail;
            at += n;
        }
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}
