//! Which pids a kernel may hand out.

/// Keys per block.
pub const BLOCK: u64 = 256;
/// One more than the largest pid (`/proc/sys/kernel/pid_max`).
pub const PID_MAX: u64 = 4_194_304;

/// The kernel index whose block `key` lies in, in a plan of `kernels` kernels.
pub const fn block_owner(key: u64, kernels: u16) -> u16 {
    // A plan has at least one kernel; a zero would be a bug of the caller, not of a peer.
    let kernels = if kernels == 0 { 1 } else { kernels as u64 };
    (key / BLOCK % kernels) as u16
}

/// Walks the numbers of the blocks that belong to one kernel, round and round, skipping those in use.
#[derive(Debug)]
pub struct PidBlocks {
    index: u16,
    kernels: u16,
    next: u64,
}

impl PidBlocks {
    /// The blocks of kernel `index` in a plan of `kernels` kernels. Number 0 is nobody's, number 1 is left for init.
    pub const fn new(index: u16, kernels: u16) -> Self {
        let start = if index == 0 { 2 } else { index as u64 * BLOCK };
        Self { index, kernels, next: start }
    }

    /// The next number that `used` does not know; `None` if all are in use (`EAGAIN`).
    pub fn take(&mut self, mut used: impl FnMut(u64) -> bool) -> Option<u64> {
        let mut tried = 0;
        while tried <= PID_MAX {
            let candidate = self.next;
            self.next = self.after(candidate);
            if candidate > 1 && !used(candidate) {
                return Some(candidate);
            }
            tried += 1;
        }
        None
    }

    fn after(&self, key: u64) -> u64 {
        let next = key + 1;
        if next.is_multiple_of(BLOCK) {
            // Skip the blocks of the other kernels.
            let jumped = next + BLOCK * (u64::from(self.kernels).max(1) - 1);
            if jumped + BLOCK > PID_MAX { u64::from(self.index) * BLOCK } else { jumped }
        } else {
            next
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::{BLOCK, PidBlocks, block_owner};

    #[test]
    fn pids_come_from_own_blocks_and_never_twice() {
        for kernels in [1, 2, 3, 8, 48] {
            let mut seen = BTreeSet::new();
            for index in 0..kernels {
                let mut pids = PidBlocks::new(index, kernels);
                for _ in 0..(3 * BLOCK) {
                    let pid = pids.take(|_| false).unwrap();
                    assert_eq!(block_owner(pid, kernels), index);
                    assert!(pid > 1 && seen.insert(pid), "{pid} twice");
                }
            }
        }
    }

    #[test]
    fn numbers_wrap_and_skip_those_in_use() {
        let mut pids = PidBlocks::new(1, 2);
        let first = pids.take(|_| false).unwrap();
        let mut count = 1_u64;
        loop {
            let pid = pids.take(|_| false).unwrap();
            if pid == first {
                break;
            }
            count += 1;
        }
        assert_eq!(count, super::PID_MAX / 2);
        assert_eq!(pids.take(|pid| pid == first + 1), Some(first + 2));
        assert_eq!(PidBlocks::new(0, 1).take(|_| true), None);
    }
}
