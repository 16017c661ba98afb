//! Message queues: msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

use alloc::{boxed::Box, collections::VecDeque};

use base::{Errno, Error, Ready, Result};
use hal::sync::{SpinLock, rank};

use super::{Keyed, Perm};
use crate::{
    cx::Cx,
    wait::{Interrupted, Timeout, WaitList},
};

/// Most queues (`MSGMNI`).
pub const QUEUES_MAX: usize = 32000;
/// The longest message in bytes (`MSGMAX`).
pub const MESSAGE_MAX: usize = 8192;
/// Bytes that a queue may hold at first (`MSGMNB`).
pub const BYTES: u64 = 16384;

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Its type, above 0.
    pub kind: i64,
    /// What it says.
    pub text: Box<[u8]>,
}

/// Which message is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// The first.
    Any,
    /// The first of this type.
    Kind(i64),
    /// The first of another type (`MSG_EXCEPT`).
    Except(i64),
    /// The first of the lowest type up to this one.
    UpTo(i64),
}

/// What is known about a queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// Who may do what.
    pub perm: Perm,
    /// Last msgsnd, s since 1970.
    pub sent: i64,
    /// Last msgrcv.
    pub received: i64,
    /// Last change.
    pub changed: i64,
    /// Bytes in it.
    pub bytes: u64,
    /// Bytes that it may hold.
    pub most: u64,
    /// Who sent last.
    pub sender: u32,
    /// Who received last.
    pub receiver: u32,
    /// The messages.
    pub messages: VecDeque<Message>,
    removed: bool,
}

/// A queue.
pub struct Queue {
    state: SpinLock<State>,
    waiters: WaitList,
}

impl Keyed for Queue {
    fn perm(&self) -> Perm {
        self.state.lock().perm
    }
}

impl State {
    fn find(&self, wanted: Wanted) -> Option<usize> {
        let first = |f: &dyn Fn(i64) -> bool| self.messages.iter().position(|m| f(m.kind));
        match wanted {
            Wanted::Any => first(&|_| true),
            Wanted::Kind(kind) => first(&|k| k == kind),
            Wanted::Except(kind) => first(&|k| k != kind),
            Wanted::UpTo(most) => {
                let lowest = self.messages.iter().map(|m| m.kind).filter(|k| *k <= most).min()?;
                first(&|k| k == lowest)
            }
        }
    }
}

impl Queue {
    /// Empty.
    pub fn new(perm: Perm, now: i64) -> Self {
        let state = State {
            perm,
            sent: 0,
            received: 0,
            changed: now,
            bytes: 0,
            most: BYTES,
            sender: 0,
            receiver: 0,
            messages: VecDeque::new(),
            removed: false,
        };
        Self { state: SpinLock::new(rank::SESSION, state), waiters: WaitList::new() }
    }

    /// As it is now.
    pub fn look<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&self.state.lock())
    }

    /// Changes who may do what, and how many bytes it may hold.
    pub fn set(&self, uid: u32, gid: u32, mode: u32, most: u64, now: i64) {
        {
            let mut state = self.state.lock();
            (state.perm.uid, state.perm.gid, state.perm.mode) = (uid, gid, mode & 0o777);
            (state.most, state.changed) = (most, now);
        }
        self.waiters.wake(Ready::OUT);
    }

    /// It is removed: who waits learns it.
    pub fn removed(&self) {
        self.state.lock().removed = true;
        self.waiters.wake(Ready::IN | Ready::OUT);
    }
}

const fn wait(now: bool) -> Timeout {
    if now { Timeout::Now } else { Timeout::Never }
}

impl Cx {
    /// msgsnd(2).
    ///
    /// # Errors
    /// `EAGAIN` if it would wait and may not, `EINTR`, `EIDRM`.
    pub fn send_message(&self, queue: &Queue, message: Message, now: bool) -> Result<()> {
        let mut message = Some(message);
        let attempt = || {
            let mut state = queue.state.lock();
            if state.removed {
                return Some(Err(Error::from(Errno::EIDRM)));
            }
            let size = message.as_ref().map_or(0, |m| m.text.len()) as u64;
            if state.bytes + size > state.most || state.messages.len() as u64 >= state.most {
                return None;
            }
            state.bytes += size;
            (state.sender, state.sent) = (self.process().pid().0, self.kernel().clocks.realtime() / 1_000_000_000);
            state.messages.extend(message.take());
            Some(Ok(()))
        };
        self.message_wait(queue, Ready::OUT, attempt, now)?;
        queue.waiters.wake(Ready::IN);
        Ok(())
    }

    /// msgrcv(2): a message of at most `room` bytes, or the start of a longer one with `cut`.
    ///
    /// # Errors
    /// `EAGAIN` if there is none and it may not wait, `E2BIG` if it is longer, `EINTR`, `EIDRM`.
    pub fn receive_message(&self, queue: &Queue, wanted: Wanted, room: usize, cut: bool, now: bool) -> Result<Message> {
        let attempt = || {
            let mut state = queue.state.lock();
            if state.removed {
                return Some(Err(Error::from(Errno::EIDRM)));
            }
            let at = state.find(wanted)?;
            if state.messages.get(at).is_some_and(|m| m.text.len() > room) && !cut {
                return Some(Err(Errno::E2BIG.into()));
            }
            let message = state.messages.remove(at)?;
            state.bytes = state.bytes.saturating_sub(message.text.len() as u64);
            (state.receiver, state.received) =
                (self.process().pid().0, self.kernel().clocks.realtime() / 1_000_000_000);
            Some(Ok(message))
        };
        let message = self.message_wait(queue, Ready::IN, attempt, now)?;
        queue.waiters.wake(Ready::OUT);
        Ok(message)
    }

    fn message_wait<T>(
        &self,
        queue: &Queue,
        what: Ready,
        attempt: impl FnMut() -> Option<Result<T>>,
        now: bool,
    ) -> Result<T> {
        let _waiter = queue.waiters.add(what, self.waker());
        match self.wait_until(attempt, wait(now), Interrupted::Never) {
            Ok(result) => result,
            Err(error) if error == Errno::ETIMEDOUT => Err(crate::wait::AGAIN),
            Err(error) => Err(error),
        }
    }
}
