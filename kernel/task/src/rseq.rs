//! Restartable sequences; rseq(2), `linux/rseq.h`: a thread finds the number of its CPU in its own memory, and short sequences of instructions that
//! are interrupted start again.

use core::sync::atomic::Ordering::Relaxed;

use base::{Errno, Error, Result};
use hal::addr::{UserAddr, user_top};

use crate::cx::Cx;

/// The size of `struct rseq` that is known, and its alignment, in bytes.
pub const SIZE: u64 = 32;
/// `RSEQ_CPU_ID_UNINITIALIZED`.
const UNINITIALIZED: u32 = u32::MAX;
/// Where `rseq_cs`, the running sequence, is.
const SEQUENCE: u64 = 8;
/// Where the number of the node is; behind it that of the CPU among those of the process.
const NODE: u64 = 20;

const BAD: Error = Error::new(Errno::EINVAL, "rseq");

impl Cx {
    /// Registers the `struct rseq` at `at`, whose abort handlers are marked with `signature`.
    ///
    /// # Errors
    /// `EINVAL` for a struct of another size, or if another one is registered; `EBUSY` and `EPERM` (another signature) if it is this one;
    /// `EFAULT`.
    pub fn rseq_register(&self, at: u64, len: u64, signature: u32) -> Result<()> {
        let task = self.task();
        match task.rseq.load(Relaxed) {
            0 => {}
            registered if registered != at || len != SIZE => return Err(BAD),
            _ if task.rseq_signature.load(Relaxed) != signature => return Err(Errno::EPERM.into()),
            _ => return Err(Errno::EBUSY.into()),
        }
        if len != SIZE || !at.is_multiple_of(SIZE) || at == 0 {
            return Err(BAD);
        }
        if !mm::user::user_range(at, SIZE) {
            return Err(Errno::EFAULT.into());
        }
        self.write_cpu(at)?;
        task.rseq_signature.store(signature, Relaxed);
        task.rseq.store(at, Relaxed);
        Ok(())
    }

    /// Forgets what was registered.
    ///
    /// # Errors
    /// `EINVAL` if something else was, `EPERM` with another signature, `EFAULT`.
    pub fn rseq_unregister(&self, at: u64, len: u64, signature: u32) -> Result<()> {
        let task = self.task();
        if task.rseq.load(Relaxed) != at || at == 0 || len != SIZE {
            return Err(BAD);
        }
        if task.rseq_signature.load(Relaxed) != signature {
            return Err(Errno::EPERM.into());
        }
        self.user(|u| {
            u.write_struct(at, &[0, UNINITIALIZED])?;
            u.write_struct(at + NODE, &[0_u32, 0])
        })?;
        task.rseq.store(0, Relaxed);
        Ok(())
    }

    fn write_cpu(&self, at: u64) -> Result<()> {
        let slot = hal::cpu::slot();
        let (cpu, node) = (hal::cpu::global_id(slot), u32::from(self.kernel().id().index));
        self.user(|u| {
            u.write_struct(at, &[cpu, cpu])?;
            u.write_struct(at + NODE, &[node, slot as u32])
        })?;
        self.task().rseq_slot.store(slot, Relaxed);
        Ok(())
    }

    /// The task was away from its CPU, or is about to enter a handler: a sequence that it was in starts again.
    #[cold]
    pub(crate) fn rseq_interrupted(&self) {
        let at = self.task().rseq.load(Relaxed);
        if at == 0 || self.ended.get() {
            return;
        }
        let mut result = self.abort_sequence(at);
        if self.task().rseq_slot.load(Relaxed) != hal::cpu::slot() {
            result = result.and_then(|()| self.write_cpu(at));
        }
        if result.is_err() {
            // A sequence that makes no sense cannot be left as it is: as on Linux the program is at fault.
            self.task().rseq.store(0, Relaxed);
            self.force_fault(true);
        }
    }

    fn abort_sequence(&self, at: u64) -> Result<()> {
        let sequence: u64 = self.user(|u| u.read_struct(at + SEQUENCE))?;
        if sequence == 0 {
            return Ok(());
        }
        // struct rseq_cs: version and flags, start, length, where it goes on when it is aborted.
        let [head, start, length, abort]: [u64; 4] = self.user(|u| u.read_struct(sequence))?;
        let ends = start.checked_add(length).is_some_and(|end| end <= user_top());
        if head as u32 != 0 || start >= user_top() || !ends || !(4..user_top()).contains(&abort) {
            return Err(BAD);
        }
        let mark: u32 = self.user(|u| u.read_struct(abort - 4))?;
        if mark != self.task().rseq_signature.load(Relaxed) {
            return Err(BAD);
        }
        let inside = self.regs().ip().0.wrapping_sub(start) < length;
        if inside && head >> 32 != 0 {
            return Err(BAD);
        }
        self.user(|u| u.write_struct(at + SEQUENCE, &0_u64))?;
        if inside {
            self.regs().set_ip(UserAddr(abort));
        }
        Ok(())
    }
}
