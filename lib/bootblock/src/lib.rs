//! The boot block: what a starting kernel tells the kernel that it starts (ARCHITECTURE.md C5).
//!
//! It lies behind the porch of the started kernel and says who that kernel is; what it owns follows from the plan of the machine,
//! whose text is in the block, so that both read the same words. All numbers are little-endian:
//!
//! ```text
//!  0  magic "COBBOOT1"
//!  8  total bytes u32, checksum u32 (of everything behind it: sum of bytes times position, modulo 2^32)
//! 16  index u16, starter u16, incarnation u32
//! 24  archive: start u64, bytes u64
//! 40  seconds since 1970 when the machine's clock was 0: u64
//! 48  plan bytes u32, command line bytes u32
//! 56  plan, command line
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

const MAGIC: &[u8; 8] = b"COBBOOT1";
const HEADER: usize = 56;
/// Behind magic, length and checksum.
const SUMMED: usize = 16;

/// What the block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootBlock<'a> {
    /// The started kernel's number in the plan.
    pub index: u16,
    /// The kernel that starts it.
    pub starter: u16,
    /// Counts the starts of this index, from 1.
    pub incarnation: u32,
    /// Physical address and bytes of the archive.
    pub archive: (u64, u64),
    /// Seconds since 1970 at time 0 of the machine's clock.
    pub epoch: u64,
    /// The text of the plan.
    pub plan: &'a str,
    /// Options, as given to the first kernel.
    pub command_line: &'a str,
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.iter().enumerate().fold(0, |s: u32, (i, b)| s.wrapping_add(u32::from(*b).wrapping_mul(i as u32 + 1)))
}

impl<'a> BootBlock<'a> {
    /// The bytes of the block.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.plan.len() + self.command_line.len());
        out.extend_from_slice(MAGIC);
        let total = HEADER + self.plan.len() + self.command_line.len();
        out.extend_from_slice(&(total as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&self.starter.to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.archive.0.to_le_bytes());
        out.extend_from_slice(&self.archive.1.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&(self.plan.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.command_line.len() as u32).to_le_bytes());
        out.extend_from_slice(self.plan.as_bytes());
        out.extend_from_slice(self.command_line.as_bytes());
        let checksum = sum(&out[SUMMED..]);
        out[12..16].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads a block from the memory in which it lies. `None` if there is none, or a damaged one.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let array = |at: usize| -> Option<[u8; 8]> { bytes.get(at..at + 8)?.try_into().ok() };
        let u64_at = |at: usize| array(at).map(u64::from_le_bytes);
        let u32_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        if bytes.get(..8)? != MAGIC {
            return None;
        }
        let total = u32_at(8)? as usize;
        if sum(bytes.get(SUMMED..total)?) != u32_at(12)? {
            return None;
        }
        let (plan, line) = (u32_at(48)? as usize, u32_at(52)? as usize);
        let who = u64_at(16)?;
        let plan_end = HEADER.checked_add(plan)?;
        let end = plan_end.checked_add(line)?;
        if end != total {
            return None;
        }
        Some(Self {
            index: who as u16,
            starter: (who >> 16) as u16,
            incarnation: (who >> 32) as u32,
            archive: (u64_at(24)?, u64_at(32)?),
            epoch: u64_at(40)?,
            plan: core::str::from_utf8(bytes.get(HEADER..plan_end)?).ok()?,
            command_line: core::str::from_utf8(bytes.get(plan_end..end)?).ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::BootBlock;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn comes_back(index in any::<u16>(), incarnation in any::<u32>(), epoch in any::<u64>(), plan in ".{0,200}", line in ".{0,80}") {
            let block =
                BootBlock { index, starter: !index, incarnation, archive: (epoch, !epoch), epoch, plan: &plan, command_line: &line };
            let mut bytes = block.encode();
            bytes.resize(bytes.len() + 100, 0xaa);
            prop_assert_eq!(BootBlock::decode(&bytes), Some(block));
        }

        #[test]
        fn a_changed_byte_is_noticed(at in 0usize..70, change in 1u8..=255) {
            let block = BootBlock {
                index: 3, starter: 0, incarnation: 2, archive: (1, 2), epoch: 3, plan: "name = 'x'", command_line: "quiet",
            };
            let mut bytes = block.encode();
            let at = at % bytes.len();
            bytes[at] ^= change;
            prop_assert!(BootBlock::decode(&bytes) != Some(block));
        }

        #[test]
        fn anything_is_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            let _ = BootBlock::decode(&bytes);
            if bytes.len() > 8 {
                bytes[..8].copy_from_slice(b"COBBOOT1");
            }
            let _ = BootBlock::decode(&bytes);
        }
    }
}
