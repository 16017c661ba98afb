//! Sets of semaphores: semget(2), semop(2), semctl(2).

use alloc::{collections::BTreeMap, vec::Vec};

use base::{Errno, Error, Ready, Result};
use hal::sync::{SpinLock, rank};

use super::{Keyed, Perm};
use crate::{
    cx::Cx,
    ids::Pid,
    kernel::Kernel,
    wait::{Interrupted, Timeout, WaitList},
};

/// Most sets (`SEMMNI`).
pub const SETS_MAX: usize = 32000;
/// Most semaphores of a set (`SEMMSL`).
pub const SET_SIZE_MAX: usize = 32000;
/// Most operations of a call (`SEMOPM`).
pub const OPERATIONS_MAX: usize = 500;
/// The largest value (`SEMVMX`).
pub const VALUE_MAX: i32 = 32767;

/// One operation; `struct sembuf`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    /// The semaphore.
    pub number: u16,
    /// What is added; 0 waits for 0.
    pub change: i16,
    /// `IPC_NOWAIT`.
    pub now: bool,
    /// `SEM_UNDO`.
    pub undo: bool,
}

/// A semaphore.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Semaphore {
    /// Its value.
    pub value: i32,
    /// Who changed it last.
    pub pid: u32,
    /// How many wait for it to grow.
    pub growing: u32,
    /// How many wait for it to be 0.
    pub zero: u32,
}

/// What is known about a set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// Who may do what.
    pub perm: Perm,
    /// Last operation, s since 1970.
    pub operated: i64,
    /// Last change of the set.
    pub changed: i64,
    /// The semaphores.
    pub all: Vec<Semaphore>,
    /// What is added when a process ends.
    undo: BTreeMap<Pid, Vec<i32>>,
    removed: bool,
}

/// A set.
pub struct Set {
    state: SpinLock<State>,
    waiters: WaitList,
}

impl Keyed for Set {
    fn perm(&self) -> Perm {
        self.state.lock().perm
    }
}

/// Why operations wait: for which semaphore, and whether for 0.
type Blocked = (usize, bool);

impl State {
    /// Does all operations or none.
    fn attempt(&mut self, operations: &[Operation], pid: Pid, now: i64) -> Result<Option<Blocked>> {
        if self.removed {
            return Err(Errno::EIDRM.into());
        }
        let mut values: Vec<i32> = self.all.iter().map(|s| s.value).collect();
        for op in operations {
            let at = usize::from(op.number);
            let value = values.get_mut(at).ok_or(Error::new(Errno::EFBIG, "no such semaphore"))?;
            let new = *value + i32::from(op.change);
            if (op.change == 0 && *value != 0) || new < 0 {
                let blocked = Some((at, op.change == 0));
                return if op.now { Err(Errno::EAGAIN.into()) } else { Ok(blocked) };
            }
            if new > VALUE_MAX {
                return Err(Errno::ERANGE.into());
            }
            *value = new;
        }
        if operations.iter().any(|op| op.undo && op.change != 0) {
            let size = self.all.len();
            let undo = self.undo.entry(pid).or_insert_with(|| alloc::vec![0; size]);
            for op in operations.iter().filter(|op| op.undo) {
                if let Some(sum) = undo.get_mut(usize::from(op.number)) {
                    *sum = sum.saturating_sub(op.change.into());
                }
            }
        }
        for (semaphore, value) in self.all.iter_mut().zip(values) {
            semaphore.value = value;
        }
        for op in operations {
            if let Some(semaphore) = self.all.get_mut(usize::from(op.number)) {
                semaphore.pid = pid.0;
            }
        }
        self.operated = now;
        Ok(None)
    }

    fn count(&mut self, (at, zero): Blocked, change: i32) {
        if let Some(semaphore) = self.all.get_mut(at) {
            let count = if zero { &mut semaphore.zero } else { &mut semaphore.growing };
            *count = count.saturating_add_signed(change);
        }
    }
}

impl Set {
    /// `size` semaphores at 0.
    pub fn new(perm: Perm, size: usize, now: i64) -> Self {
        let all = alloc::vec![Semaphore::default(); size];
        let state = State { perm, operated: 0, changed: now, all, undo: BTreeMap::new(), removed: false };
        Self { state: SpinLock::new(rank::SESSION, state), waiters: WaitList::new() }
    }

    /// As it is now.
    pub fn look<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&self.state.lock())
    }

    /// How many semaphores it has.
    pub fn size(&self) -> usize {
        self.state.lock().all.len()
    }

    /// Changes who may do what.
    pub fn set_perm(&self, uid: u32, gid: u32, mode: u32, now: i64) {
        let mut state = self.state.lock();
        (state.perm.uid, state.perm.gid, state.perm.mode, state.changed) = (uid, gid, mode & 0o777, now);
    }

    /// Sets values, from semaphore `first` on; what processes would undo of them is forgotten.
    ///
    /// # Errors
    /// `ERANGE` for a value that no semaphore has, `EINVAL` for a semaphore that is not there, `EIDRM`.
    pub fn set_values(&self, first: usize, values: &[i32], pid: Pid, now: i64) -> Result<()> {
        {
            let mut state = self.state.lock();
            if state.removed {
                return Err(Errno::EIDRM.into());
            }
            if values.iter().any(|v| !(0..=VALUE_MAX).contains(v)) {
                return Err(Errno::ERANGE.into());
            }
            if first + values.len() > state.all.len() {
                return Err(Error::new(Errno::EINVAL, "no such semaphore"));
            }
            for (semaphore, value) in state.all.iter_mut().skip(first).zip(values) {
                (semaphore.value, semaphore.pid) = (*value, pid.0);
            }
            for undo in state.undo.values_mut() {
                undo.iter_mut().skip(first).take(values.len()).for_each(|sum| *sum = 0);
            }
            state.changed = now;
        }
        self.waiters.wake(Ready::IN);
        Ok(())
    }

    /// It is removed: who waits learns it.
    pub fn removed(&self) {
        self.state.lock().removed = true;
        self.waiters.wake(Ready::IN);
    }

    /// A process ends.
    fn process_ended(&self, pid: Pid) {
        {
            let mut state = self.state.lock();
            let Some(undo) = state.undo.remove(&pid) else { return };
            for (semaphore, sum) in state.all.iter_mut().zip(undo).filter(|(_, sum)| *sum != 0) {
                semaphore.value = semaphore.value.saturating_add(sum).clamp(0, VALUE_MAX);
                semaphore.pid = pid.0;
            }
        }
        self.waiters.wake(Ready::IN);
    }
}

impl Kernel {
    /// Undoes what a process that ends did to semaphores with `SEM_UNDO`.
    pub(crate) fn undo_semaphores(&self, pid: Pid) {
        for (_, set) in self.ipc.semaphores.list() {
            set.process_ended(pid);
        }
    }
}

impl Cx {
    /// semtimedop(2).
    ///
    /// # Errors
    /// `EAGAIN` if it would wait and may not, or if the time is over; `EINTR`, `EIDRM`, `EFBIG`, `ERANGE`.
    pub fn semaphore_operations(&self, set: &Set, operations: &[Operation], timeout: Timeout) -> Result<()> {
        let (pid, clocks) = (self.process().pid(), &self.kernel().clocks);
        let mut counted: Option<Blocked> = None;
        let mut attempt = |end: bool| {
            let mut state = set.state.lock();
            if let Some(blocked) = counted.take() {
                state.count(blocked, -1);
            }
            if end {
                return Ok(None);
            }
            let blocked = state.attempt(operations, pid, clocks.realtime() / 1_000_000_000)?;
            if let Some(blocked) = blocked {
                state.count(blocked, 1);
                counted = Some(blocked);
            }
            Ok::<_, Error>(blocked)
        };
        let _waiter = set.waiters.add(Ready::IN, self.waker());
        let ready = || match attempt(false) {
            Ok(Some(_)) => None,
            Ok(None) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        };
        let result = self.wait_until(ready, timeout, Interrupted::Never);
        // Whatever ended the wait, it is not counted any more.
        let _ = attempt(true);
        match result {
            Ok(done) => {
                done?;
                set.waiters.wake(Ready::IN);
                Ok(())
            }
            Err(error) if error == Errno::ETIMEDOUT => Err(Errno::EAGAIN.into()),
            Err(error) => Err(error),
        }
    }
}
