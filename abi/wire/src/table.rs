//! The table of what a kernel speaks: `(type, min, max, hash)`, exchanged by Hello and kept in the porch.

use crate::{FAMILIES, Family, field::Field as _, message::Spec, spec_of};

/// Bytes of an entry.
pub const ENTRY_SIZE: usize = 8;

/// What a kernel says of one message type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The type.
    pub number: u16,
    /// The oldest version it reads.
    pub min: u8,
    /// The version it writes.
    pub max: u8,
    /// The layout hash of version `max`.
    pub hash: u32,
}

impl Entry {
    /// What this kernel says of `spec`.
    pub fn of(spec: &Spec) -> Self {
        Self { number: spec.number, min: spec.min, max: spec.max, hash: spec.hashes.last().copied().unwrap_or(0) }
    }

    /// The entry as bytes.
    pub fn to_bytes(self) -> [u8; ENTRY_SIZE] {
        let mut out = [0; ENTRY_SIZE];
        let [a, b, min, max, tail @ ..] = &mut out;
        [*a, *b] = self.number.to_le_bytes();
        *min = self.min;
        *max = self.max;
        self.hash.put(tail);
        out
    }

    /// The entry from bytes.
    pub fn from_bytes(bytes: [u8; ENTRY_SIZE]) -> Self {
        let [a, b, min, max, h @ ..] = bytes;
        Self { number: u16::from_le_bytes([a, b]), min, max, hash: u32::from_le_bytes(h) }
    }
}

/// All types that this kernel speaks.
pub fn entries() -> impl Iterator<Item = Entry> {
    FAMILIES.iter().flat_map(|f: &Family| f.specs).map(Entry::of)
}

/// Reads a table that a peer sent.
pub fn parse(bytes: &[u8]) -> impl Iterator<Item = Entry> + '_ {
    bytes.as_chunks::<ENTRY_SIZE>().0.iter().map(|chunk| Entry::from_bytes(*chunk))
}

/// What comparing a peer's entry with ours says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Both speak it.
    Speak,
    /// One of us does not know the type, or the version ranges are disjoint: services that need it are refused, the others run.
    Without,
    /// The same version has two layouts: one of the kernels was built from changed sources. Refused by name.
    OtherLayout {
        /// The type.
        name: &'static str,
        /// The version.
        version: u8,
    },
}

/// Compares what a peer says of a type with what we know of it.
pub fn compare(theirs: Entry) -> Verdict {
    spec_of(theirs.number).map_or(Verdict::Without, |ours| compare_with(ours, theirs))
}

/// Compares what a peer says of a type with our `spec`.
pub fn compare_with(ours: &Spec, theirs: Entry) -> Verdict {
    let common = ours.max.min(theirs.max);
    if common < ours.min || common < theirs.min || theirs.min > theirs.max || theirs.min == 0 {
        return Verdict::Without;
    }
    // If they are older, their hash is that of the common version; if we are older, only they know the hash of it, and
    // they compare it with ours.
    if theirs.max == common {
        let hash = ours.hashes.get(usize::from(common) - 1).copied();
        if hash != Some(theirs.hash) {
            return Verdict::OtherLayout { name: ours.name, version: common };
        }
    }
    Verdict::Speak
}
