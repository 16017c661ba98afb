//! Everything that reads what others wrote, given nonsense: messages of peers, programs, archives, plans, device trees. Nothing may panic, whatever comes; what
//! is understood is used as far as it goes without a kernel.
//!
//! `cargo test -p cob-fuzz` mutates the inputs of `corpus/` without looking; `guided/` is the same for cargo-fuzz, which looks where the code goes. Inputs that
//! it finds are kept in `corpus/TARGET/`.
#![forbid(unsafe_code)]

mod targets;

pub use targets::TARGETS;

/// A target: its name, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

/// Gives an input to a target.
///
/// # Panics
/// If there is no such target, and when the target does: that is what is looked for.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    (target.unwrap_or_else(|| panic!("there is no target {name}")).1)(input);
}

/// A number that looks like chance (SplitMix64, Steele et al. 2014).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The same seed gives the same numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// An input that is like one of these, but not quite.
    pub fn mutate(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        /// Numbers at which code goes wrong.
        const EDGES: [u64; 10] =
            [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff];
        let pick = |chance: &mut Self| corpus.get(chance.below(corpus.len())).cloned().unwrap_or_default();
        let mut bytes = pick(self);
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len());
            match self.below(7) {
                0 => bytes.truncate(at),
                1 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
                2 => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = self.next() as u8;
                    }
                }
                3 => {
                    let number = EDGES[self.below(EDGES.len())].wrapping_add(self.below(3) as u64).to_le_bytes();
                    let number = if self.below(4) == 0 { u64::from_le_bytes(number).to_be_bytes() } else { number };
                    let len = [1, 2, 4, 8][self.below(4)].min(bytes.len() - at);
                    if let Some(place) = bytes.get_mut(at..at + len) {
                        place.copy_from_slice(&number[..len]);
                    }
                }
                4 => {
                    let piece: Vec<u8> = bytes.iter().skip(at).take(self.below(64)).copied().collect();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
                5 => {
                    let other = pick(self);
                    let from = self.below(other.len());
                    bytes.truncate(at);
                    bytes.extend(other.iter().skip(from));
                }
                _ => {
                    let more = self.below(32);
                    bytes.extend((0..more).map(|_| self.next() as u8));
                }
            }
        }
        bytes
    }
}
