//! The records of a trace, as `/proc/cob/trace` gives them: 32 bytes each, little-endian. A [`Kind::Cpu`] record begins what one CPU noted, oldest first.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

/// Words of a record.
pub const WORDS: usize = 4;
/// Bytes of a record.
pub const SIZE: usize = WORDS * 8;

macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident = $number:literal),* $(,)?) => {
        /// What happened.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u8)]
        pub enum Kind {
            $($(#[$meta])* $name = $number,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

kinds! {
    /// The records of CPU `arg` (global id) follow; `a` older ones are lost.
    Cpu = 1,
    /// Task `arg` of process `a` runs on this CPU now; 0: it idles.
    Switch = 2,
    /// Task `arg` is named so: the bytes of `a` and `b`, padded with zeros.
    Name = 3,
    /// The running task entered system call `arg`, whose first arguments are `a` and `b`.
    Enter = 4,
    /// System call `arg` returned `a`.
    Exit = 5,
    /// The running task touched address `a`, which had no page for that.
    Fault = 6,
    /// What the fault needed is done.
    Faulted = 7,
    /// A message was sent: `arg` is its type and `lane << 16`, `a` the receiver, `b` its number among those of the sender.
    Send = 8,
    /// A message came and is handled now: the same, `a` is the sender.
    Receive = 9,
    /// It is handled.
    Handled = 10,
    /// Process `arg` goes on at kernel `a`.
    Leave = 11,
    /// Process `arg` came from kernel `a` and goes on here.
    Arrive = 12,
}

impl Kind {
    /// From its number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| *kind as u8 == number)
    }
}

/// One thing that happened on a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// When, in ns of the machine's clock.
    pub at: u64,
    /// What.
    pub kind: Kind,
    /// See [`Kind`].
    pub arg: u32,
    /// See [`Kind`].
    pub a: u64,
    /// See [`Kind`].
    pub b: u64,
}

impl Record {
    /// As words.
    pub const fn words(&self) -> [u64; WORDS] {
        [self.at, self.kind as u64 | (self.arg as u64) << 32, self.a, self.b]
    }

    /// From words; none if there is no such kind.
    pub fn from_words([at, what, a, b]: [u64; WORDS]) -> Option<Self> {
        Some(Self { at, kind: Kind::from_number(what as u8)?, arg: (what >> 32) as u32, a, b })
    }

    /// From bytes; none if there is no such kind.
    pub fn from_bytes(bytes: &[u8; SIZE]) -> Option<Self> {
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().ok()?);
        }
        Self::from_words(words)
    }

    /// A name as the two words of a [`Kind::Name`].
    pub fn name_words(name: &[u8]) -> (u64, u64) {
        let mut all = [0; 16];
        for (to, from) in all.iter_mut().zip(name) {
            *to = *from;
        }
        let all = u128::from_le_bytes(all);
        (all as u64, (all >> 64) as u64)
    }

    /// The name that a [`Kind::Name`] gives: 16 bytes, padded with zeros.
    pub const fn name(&self) -> [u8; 16] {
        (self.a as u128 | (self.b as u128) << 64).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{Kind, Record, SIZE};

    #[test]
    fn records_go_both_ways() {
        for kind in Kind::ALL {
            let record = Record { at: 1 << 60 | 7, kind: *kind, arg: u32::MAX - 3, a: 5, b: u64::MAX };
            let bytes: Vec<u8> = record.words().iter().flat_map(|word| word.to_le_bytes()).collect();
            assert_eq!(Record::from_bytes(bytes.as_slice().try_into().expect("its size")), Some(record));
        }
        assert_eq!(Record::from_bytes(&[0; SIZE]), None);
    }

    #[test]
    fn names_are_cut_and_padded() {
        let (a, b) = Record::name_words(b"a-long-name-of-a-task");
        let record = Record { at: 0, kind: Kind::Name, arg: 1, a, b };
        assert_eq!(&record.name(), b"a-long-name-of-a");
        let (a, b) = Record::name_words(b"sh");
        assert_eq!(Record { a, b, ..record }.name()[..3], *b"sh\0");
    }
}
