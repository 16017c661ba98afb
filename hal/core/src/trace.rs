//! What a kernel does, noted while somebody wants to know: a ring of records per CPU, which a CPU writes without a lock. Off, it costs a load and a branch.
//!
//! Here because every layer notes something, and a CPU finds its ring as it finds its frames. `lib/trace` has the records.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use trace::{Record, SIZE, WORDS};

pub use trace::Kind;

use crate::instance::{instance, try_instance};
use crate::sync::Once;

/// The records of one CPU.
struct Ring {
    /// A power of two of records.
    words: Vec<AtomicU64>,
    /// How many were ever noted. Only the CPU itself counts.
    noted: AtomicU64,
}

/// The rings of a kernel.
pub(crate) struct Trace {
    on: AtomicBool,
    rings: Once<Vec<Ring>>,
}

/// There is no memory for the rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoMemory;

/// Interrupts are let in after so many records are copied or made.
const BREATH: usize = 2048;

impl Ring {
    /// `pause` is called between parts of the work.
    fn new(records: usize, pause: fn()) -> Result<Self, NoMemory> {
        let mut words = Vec::new();
        words.try_reserve_exact(records * WORDS).map_err(|_| NoMemory)?;
        while words.len() < records * WORDS {
            words.resize_with((words.len() + BREATH * WORDS).min(records * WORDS), || AtomicU64::new(0));
            pause();
        }
        Ok(Self { words, noted: AtomicU64::new(0) })
    }

    fn records(&self) -> u64 {
        (self.words.len() / WORDS) as u64
    }

    fn slot(&self, number: u64) -> &[AtomicU64] {
        let at = (number & (self.records() - 1)) as usize * WORDS;
        self.words.get(at..at + WORDS).unwrap_or_default()
    }

    fn note(&self, record: &Record) {
        let number = self.noted.load(Relaxed);
        for (slot, word) in self.slot(number).iter().zip(record.words()) {
            slot.store(word, Relaxed);
        }
        self.noted.store(number + 1, Relaxed);
    }
}

impl Trace {
    pub const fn new() -> Self {
        Self { on: AtomicBool::new(false), rings: Once::new() }
    }
}

/// Whether somebody wants to know.
#[inline]
pub fn is_on() -> bool {
    try_instance().is_some_and(|i| i.trace.on.load(Relaxed))
}

/// Notes what happened on this CPU, if somebody wants to know. What the words mean is said at [`Kind`].
#[inline]
pub fn note(kind: Kind, arg: u32, a: u64, b: u64) {
    if is_on() {
        note_now(kind, arg, a, b);
    }
}

#[cold]
#[inline(never)]
fn note_now(kind: Kind, arg: u32, a: u64, b: u64) {
    let record = Record { at: crate::time::now(), kind, arg, a, b };
    if let Some(ring) = instance().trace.rings.get().and_then(|rings| rings.get(crate::cpu::slot())) {
        ring.note(&record);
    }
}

/// Notes the name of a task.
pub fn note_name(task: u32, name: &[u8]) {
    let (a, b) = Record::name_words(name);
    note(Kind::Name, task, a, b);
}

/// Begins anew. The rings stay once they are made: the first time says how many records (rounded up to a power of two) each CPU has.
///
/// # Errors
/// [`NoMemory`].
pub fn start(records: usize) -> Result<(), NoMemory> {
    let trace = &instance().trace;
    trace.on.store(false, Relaxed);
    if trace.rings.get().is_none() {
        let records = records.next_power_of_two();
        let rings =
            (0..crate::cpu::count()).map(|_| Ring::new(records, crate::cpu::breathe)).collect::<Result<Vec<_>, _>>()?;
        // Whoever was quicker has made as good ones.
        drop(trace.rings.set(rings));
    }
    for ring in trace.rings.get().into_iter().flatten() {
        ring.noted.store(0, Relaxed);
    }
    trace.on.store(true, Relaxed);
    Ok(())
}

/// Nothing is noted any more; what was noted stays.
pub fn stop() {
    instance().trace.on.store(false, Relaxed);
}

/// All that was noted, as `lib/trace` says. Records that are noted meanwhile may come in pieces: stop before.
pub fn dump() -> Vec<u8> {
    let rings = instance().trace.rings.get().map_or(&[][..], Vec::as_slice);
    let mut bytes = Vec::new();
    for (slot, ring) in rings.iter().enumerate() {
        let noted = ring.noted.load(Relaxed);
        let lost = noted.saturating_sub(ring.records());
        let kept = (noted - lost) as usize;
        if bytes.try_reserve((kept + 1) * SIZE).is_err() {
            break;
        }
        let head = Record { at: 0, kind: Kind::Cpu, arg: crate::cpu::global_id(slot), a: lost, b: 0 };
        bytes.extend(head.words().iter().flat_map(|word| word.to_le_bytes()));
        for number in lost..noted {
            if ((number - lost) as usize).is_multiple_of(BREATH) {
                crate::cpu::breathe();
            }
            bytes.extend(ring.slot(number).iter().flat_map(|word| word.load(Relaxed).to_le_bytes()));
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Kind, Record, Ring};

    #[test]
    fn a_ring_keeps_the_newest() {
        let ring = Ring::new(4, || ()).expect("memory");
        for at in 0..6 {
            ring.note(&Record { at, kind: Kind::Switch, arg: 1, a: 2, b: 3 });
        }
        let at = |number| ring.slot(number)[0].load(super::Relaxed);
        assert_eq!([at(2), at(3), at(4), at(5)], [2, 3, 4, 5]);
    }
}
