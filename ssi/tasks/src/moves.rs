//! Moves that come here: the pieces of an image, then the process that was prepared from it, until the source commits or aborts.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use base::KernelId;
use task::ids::Pid;

use crate::service::Prepared;

/// The most bytes of an image: 2 MiB of arguments (execve(2)), descriptors and the rest.
const IMAGE_MAX: usize = 4 << 20;
/// The most moves under way from one kernel: more than it has CPUs in any machine we know.
const UNDER_WAY: usize = 256;

enum State {
    Coming(Vec<u8>),
    Ready(Box<dyn Prepared>),
}

/// See the module.
#[derive(Default)]
pub struct Moves {
    serial: u64,
    coming: BTreeMap<(KernelId, u64), State>,
    /// Processes that were told to run elsewhere, until that is confirmed.
    leaving: BTreeSet<Pid>,
}

/// A peer sent pieces that do not fit together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfOrder;

impl Moves {
    /// How many are under way.
    pub fn count(&self) -> usize {
        self.coming.len()
    }

    /// Names a move that starts here.
    pub fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// A process is told to run elsewhere.
    pub fn leaves(&mut self, pid: Pid) {
        self.leaving.insert(pid);
    }

    /// It does, or it died there.
    pub fn left(&mut self, pid: Pid) {
        self.leaving.remove(&pid);
    }

    /// Whether a process may run elsewhere already.
    pub fn is_leaving(&self, pid: Pid) -> bool {
        self.leaving.contains(&pid)
    }

    /// A piece came. Pieces come in order on one lane.
    ///
    /// # Errors
    /// [`OutOfOrder`]: the peer broke the protocol; what it sent is dropped.
    pub fn part(&mut self, from: KernelId, serial: u64, offset: u32, bytes: &[u8]) -> Result<(), OutOfOrder> {
        let open = self.coming.range((from, 0)..=(from, u64::MAX)).count();
        if offset == 0 && open < UNDER_WAY {
            self.coming.entry((from, serial)).or_insert_with(|| State::Coming(Vec::new()));
        }
        match self.coming.get_mut(&(from, serial)) {
            Some(State::Coming(image)) if image.len() == offset as usize && image.len() + bytes.len() <= IMAGE_MAX => {
                image.extend_from_slice(bytes);
                Ok(())
            }
            _ => {
                self.coming.remove(&(from, serial));
                Err(OutOfOrder)
            }
        }
    }

    /// All pieces are there: the image, if it has `total` bytes.
    pub fn assembled(&mut self, from: KernelId, serial: u64, total: u32) -> Option<Vec<u8>> {
        match self.coming.remove(&(from, serial))? {
            State::Coming(image) if image.len() == total as usize => Some(image),
            _ => None,
        }
    }

    /// The process is prepared.
    pub fn ready(&mut self, from: KernelId, serial: u64, prepared: Box<dyn Prepared>) {
        self.coming.insert((from, serial), State::Ready(prepared));
    }

    /// The source commits.
    pub fn take_prepared(&mut self, from: KernelId, serial: u64) -> Option<Box<dyn Prepared>> {
        match self.coming.remove(&(from, serial))? {
            State::Ready(prepared) => Some(prepared),
            State::Coming(_) => None,
        }
    }

    /// The source aborts. What is returned is to be dropped without the lock.
    pub fn forget(&mut self, from: KernelId, serial: u64) -> Option<Box<dyn Prepared>> {
        self.take_prepared(from, serial)
    }

    /// A kernel died. What is returned is to be dropped without the lock.
    pub fn peer_down(&mut self, dead: KernelId) -> Vec<Box<dyn Prepared>> {
        let keys: Vec<_> = self.coming.range((dead, 0)..=(dead, u64::MAX)).map(|(key, _)| *key).collect();
        keys.into_iter().filter_map(|(from, serial)| self.take_prepared(from, serial)).collect()
    }
}

#[cfg(test)]
mod tests {
    use base::KernelId;

    use super::{Moves, OutOfOrder};

    const A: KernelId = KernelId { index: 0, incarnation: 1 };

    #[test]
    fn pieces_are_put_together_in_order() {
        let mut moves = Moves::default();
        moves.part(A, 1, 0, b"ab").unwrap();
        moves.part(A, 2, 0, b"xy").unwrap();
        moves.part(A, 1, 2, b"cd").unwrap();
        assert_eq!(moves.assembled(A, 1, 4).as_deref(), Some(&b"abcd"[..]));
        assert_eq!(moves.assembled(A, 1, 4), None);
        assert_eq!(moves.assembled(A, 2, 9), None, "shorter than announced");
    }

    #[test]
    fn a_peer_that_skips_or_floods_is_refused() {
        let mut moves = Moves::default();
        assert_eq!(moves.part(A, 1, 5, b"ab"), Err(OutOfOrder));
        moves.part(A, 1, 0, b"ab").unwrap();
        assert_eq!(moves.part(A, 1, 3, b"ab"), Err(OutOfOrder));
        let chunk = [0; 4096];
        for n in 0..1024 {
            moves.part(A, 7, n * 4096, &chunk).unwrap();
        }
        assert_eq!(moves.part(A, 7, 4096 * 1024, &chunk), Err(OutOfOrder));
        for serial in 0..256 {
            moves.part(A, 100 + serial, 0, b"a").unwrap();
        }
        assert_eq!(moves.part(A, 999, 0, b"a"), Err(OutOfOrder));
        assert!(moves.peer_down(A).is_empty());
        moves.part(A, 999, 0, b"a").unwrap();
    }
}
