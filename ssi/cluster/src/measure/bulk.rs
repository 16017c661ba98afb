//! A large payload that lies in the memory of who sends it: what it takes to read it there, and to copy it, against the same within one memory.

use alloc::vec;
use core::sync::atomic::Ordering;

use hal::time::now;
use hal::window::SharedWindow;
use wire::test::Gathered;

/// The most bytes of a payload.
pub const MOST: usize = 1 << 20;
/// The most rounds that are made for one question.
pub const ROUNDS: u32 = 1000;
/// Copies begin where pages do, as the payload does: a copy is quick or slow by that.
const ALIGN: usize = 4096;

/// Tells what was lost, changed or mixed up: two sums, of the words and of the sums before.
fn sum(words: impl Iterator<Item = u64>) -> u64 {
    let (mut plain, mut placed) = (0_u64, 0_u64);
    for word in words {
        plain = plain.wrapping_add(word);
        placed = placed.wrapping_add(plain);
    }
    plain.rotate_left(32) ^ placed
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word))
}

/// The checksum of some bytes of a window.
pub fn sum_in_place(window: &SharedWindow, offset: usize, len: usize) -> u64 {
    sum(window.atomic_words(offset, len / 8).iter().map(|word| word.load(Ordering::Relaxed)))
}

/// A buffer of so many bytes that begins where a page does.
struct Buffer {
    bytes: vec::Vec<u8>,
    start: usize,
    len: usize,
}

impl Buffer {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN);
        Self { bytes, start, len }
    }

    fn get(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..).and_then(|rest| rest.get_mut(..self.len)).unwrap_or_default()
    }
}

/// Gathers what is in a window, each way in turns. What was read is checked each time; that is timed for itself.
pub fn gather(window: &SharedWindow, offset: usize, len: usize, rounds: u32) -> Gathered {
    let (mut to, mut from) = (Buffer::new(len), Buffer::new(len));
    window.read(offset, from.get());
    let (to, from) = (to.get(), from.get());
    let expected = sum(words(from));
    let mut good = true;
    let [mut in_place, mut copied, mut own_copied, mut own_summed] = [0; 4];
    let mut timed = |total: &mut u64, what: &mut dyn FnMut() -> Option<u64>| {
        let start = now();
        let sum = what();
        *total += now() - start;
        good &= sum.is_none_or(|sum| sum == expected);
    };
    for _ in 0..rounds {
        timed(&mut in_place, &mut || Some(sum_in_place(window, offset, len)));
        timed(&mut copied, &mut || {
            window.read(offset, to);
            None
        });
        timed(&mut own_summed, &mut || Some(sum(words(to))));
        timed(&mut own_copied, &mut || {
            core::hint::black_box(&mut *to).copy_from_slice(core::hint::black_box(from));
            None
        });
        hal::cpu::breathe();
    }
    let each = |total: u64| total / u64::from(rounds.max(1));
    Gathered {
        sum: if good { expected } else { !expected },
        in_place: each(in_place),
        copied: each(copied),
        own_copied: each(own_copied),
        own_summed: each(own_summed),
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffer, sum, words};

    #[test]
    fn a_sum_tells_what_was_changed_or_mixed_up() {
        let good = sum([1, 2, 3, 4].into_iter());
        for bad in [[1, 2, 3, 5], [2, 1, 3, 4], [0, 3, 3, 4], [1, 2, 3, 0]] {
            assert_ne!(sum(bad.into_iter()), good, "{bad:?}");
        }
    }

    #[test]
    fn a_buffer_begins_with_a_page() {
        let mut buffer = Buffer::new(10_000);
        let bytes = buffer.get();
        assert_eq!((bytes.len(), bytes.as_ptr() as usize % 4096), (10_000, 0));
        assert_eq!(words(bytes).count(), 1250);
    }
}
