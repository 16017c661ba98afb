//! Blocking, written once: what a task does while an object says `WouldBlock` or `Started`.

use alloc::{boxed::Box, sync::Arc};
use core::sync::atomic::{AtomicBool, Ordering};

use base::{Errno, Error, Ready, Result, Subscription, Try, TryResult, Wake, wait::Op};

use crate::{cx::Cx, task::State};

/// When a wait ends by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timeout {
    /// Never.
    Never,
    /// At once: `O_NONBLOCK`, or a time-out of 0.
    Now,
    /// At a time of `hal::time::now`, ns.
    At(u64),
}

impl Timeout {
    /// After `ns` from now.
    pub fn after(ns: u64) -> Self {
        if ns == 0 { Self::Now } else { Self::At(hal::time::now().saturating_add(ns)) }
    }
}

/// Which signals end a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupted {
    /// Any that would be delivered: `EINTR`, and the call starts again if the action says SA_RESTART.
    Restart,
    /// Any: `EINTR`, whatever the action says (epoll_wait and others in signal(7)).
    Never,
    /// Any with a handler: `EINTR`; without one the call starts again (poll, pause, nanosleep).
    NoHandler,
    /// Only SIGKILL.
    Killed,
    /// None, not even SIGKILL: what ends the wait is sure to come.
    Nothing,
}

/// `WouldBlock` at a wait that must not.
pub const AGAIN: Error = Error::new(Errno::EAGAIN, "would block");
/// The wait took too long.
pub const TIMED_OUT: Error = Error::new(Errno::ETIMEDOUT, "timed out");
/// A signal came.
pub const INTERRUPTED: Error = Error::new(Errno::EINTR, "interrupted");

impl Cx {
    /// Does `attempt` until it is done: waits in between as `subscribe` and `timeout` say.
    ///
    /// `subscribe` is called when an attempt would block; a second time if it turns out that attempts are waits themselves. No lock may be held.
    ///
    /// # Errors
    /// What `attempt` says; `EAGAIN` if it would block and the time-out is `Now`; `ETIMEDOUT`; `EINTR`.
    pub fn block_on<T>(
        &self,
        mut attempt: impl FnMut() -> TryResult<T>,
        mut subscribe: impl FnMut(Arc<dyn Wake>) -> Result<Subscription>,
        timeout: Timeout,
        interrupted: Interrupted,
    ) -> Result<T> {
        // Most calls end here, without a subscription.
        let elsewhere = match attempt()? {
            Try::Done(value) => return Ok(value),
            Try::Started(op) => {
                if let Some(value) = self.finish_op(op, timeout, interrupted)? {
                    return Ok(value);
                }
                true
            }
            Try::WouldBlock => false,
        };
        if timeout == Timeout::Now {
            return Err(AGAIN);
        }
        if !elsewhere {
            let _subscription = subscribe(self.waker())?;
            let mut sleep = self.sleep(timeout, interrupted);
            loop {
                sleep.begin();
                match attempt()? {
                    Try::Done(value) => return Ok(value),
                    Try::Started(op) => {
                        // A peer's answer may be there before anybody waits for it: then an attempt looks as if it were none.
                        if let Some(value) = self.finish_op(op, timeout, interrupted)? {
                            return Ok(value);
                        }
                        break;
                    }
                    Try::WouldBlock => sleep.once()?,
                }
            }
        }
        self.block_elsewhere(attempt, subscribe, timeout, interrupted)
    }

    /// [`Cx::block_on`] for an object whose attempts are waits themselves.
    fn block_elsewhere<T>(
        &self,
        mut attempt: impl FnMut() -> TryResult<T>,
        mut subscribe: impl FnMut(Arc<dyn Wake>) -> Result<Subscription>,
        timeout: Timeout,
        interrupted: Interrupted,
    ) -> Result<T> {
        let bell = self.bell();
        let _subscription = subscribe(bell.clone())?;
        let mut sleep = self.sleep(timeout, interrupted);
        loop {
            bell.clear();
            match attempt()? {
                Try::Done(value) => return Ok(value),
                Try::Started(op) => {
                    if let Some(value) = self.finish_op(op, timeout, interrupted)? {
                        return Ok(value);
                    }
                }
                Try::WouldBlock => {}
            }
            sleep.until(&bell)?;
        }
    }

    /// A bell for this task.
    pub fn bell(&self) -> Arc<Bell> {
        Arc::new(Bell { rung: AtomicBool::new(false), task: self.waker() })
    }

    /// Waits until `ready` says so. Whoever makes it so wakes this task.
    ///
    /// # Errors
    /// `ETIMEDOUT`, `EINTR`.
    pub fn wait_until<T>(
        &self,
        mut ready: impl FnMut() -> Option<T>,
        timeout: Timeout,
        interrupted: Interrupted,
    ) -> Result<T> {
        let mut sleep = self.sleep(timeout, interrupted);
        loop {
            sleep.begin();
            if let Some(value) = ready() {
                return Ok(value);
            }
            sleep.once()?;
        }
    }

    /// Waits for an operation that was started. It is abandoned (and its peer told) if the wait ends early.
    ///
    /// # Errors
    /// What the operation says; `EAGAIN` if it would block and may not; `ETIMEDOUT`; `EINTR`.
    pub fn wait_op<T>(&self, op: Box<dyn Op<T>>, interrupted: Interrupted) -> Result<T> {
        self.finish_op(op, Timeout::Never, interrupted)?.ok_or(AGAIN)
    }

    /// The value of a try that may take its time but cannot block for long (a request to a peer).
    ///
    /// # Errors
    /// As [`Cx::wait_op`].
    pub fn settle<T>(&self, attempt: TryResult<T>, interrupted: Interrupted) -> Result<T> {
        match attempt? {
            Try::Done(value) => Ok(value),
            Try::WouldBlock => Err(AGAIN),
            Try::Started(op) => self.wait_op(op, interrupted),
        }
    }

    /// `None`: it would block.
    fn finish_op<T>(&self, mut op: Box<dyn Op<T>>, timeout: Timeout, interrupted: Interrupted) -> Result<Option<T>> {
        // A request to a peer has a deadline of its own; not waiting for its answer would make it useless.
        let timeout = if timeout == Timeout::Now { Timeout::Never } else { timeout };
        let interrupted = if op.soon() { Interrupted::Killed } else { interrupted };
        let mut sleep = self.sleep(timeout, interrupted);
        op.notify(self.waker());
        loop {
            sleep.begin();
            match op.take() {
                Some(result) => match result? {
                    Try::Done(value) => return Ok(Some(value)),
                    Try::WouldBlock => return Ok(None),
                    Try::Started(next) => {
                        op = next;
                        op.notify(self.waker());
                    }
                },
                None => sleep.once()?,
            }
        }
    }

    /// A wait in steps, for those who look at many things at once (poll, epoll, select).
    pub fn sleep(&self, timeout: Timeout, interrupted: Interrupted) -> Sleep<'_> {
        Sleep { cx: self, timeout, interrupted, timer: None, slept: false }
    }
}

/// A wait in steps: `begin`, look, and if there is nothing, `once`; again.
pub struct Sleep<'a> {
    cx: &'a Cx,
    timeout: Timeout,
    interrupted: Interrupted,
    timer: Option<crate::time::Timer>,
    slept: bool,
}

/// Remembers that it was rung, so that a wait that contains other waits (the attempt is a request to a peer) does not miss it.
pub struct Bell {
    rung: AtomicBool,
    task: Arc<dyn Wake>,
}

impl Bell {
    /// Before each look.
    pub fn clear(&self) {
        self.rung.store(false, Ordering::SeqCst);
    }
}

impl Wake for Bell {
    fn wake(&self, ready: Ready) {
        self.rung.store(true, Ordering::SeqCst);
        self.task.wake(ready);
    }
}

impl Sleep<'_> {
    /// Sleeps until the bell was rung since it was cleared.
    ///
    /// # Errors
    /// As [`Sleep::once`].
    pub fn until(&mut self, bell: &Bell) -> Result<()> {
        loop {
            self.begin();
            if bell.rung.load(Ordering::SeqCst) {
                return Ok(());
            }
            self.once()?;
        }
    }

    /// Before each look.
    pub fn begin(&mut self) {
        self.cx.task().begin_wait();
    }

    /// Sleeps until something may have happened since `begin`.
    ///
    /// # Errors
    /// `ETIMEDOUT` if the time is over, `EINTR` if a signal ends the wait.
    pub fn once(&mut self) -> Result<()> {
        let task = self.cx.task();
        if task.is_dying() && self.interrupted != Interrupted::Nothing {
            return Err(INTERRUPTED);
        }
        let by_signals = !matches!(self.interrupted, Interrupted::Killed | Interrupted::Nothing);
        if by_signals && task.is_interrupted() {
            self.cx.note_interrupted(self.interrupted);
            return Err(INTERRUPTED);
        }
        match self.timeout {
            Timeout::Never => {}
            Timeout::Now => return Err(TIMED_OUT),
            Timeout::At(deadline) => {
                if hal::time::now() >= deadline {
                    return Err(TIMED_OUT);
                }
                if self.timer.is_none() {
                    self.timer = Some(self.cx.kernel().timers.set(deadline, task.clone()));
                }
            }
        }
        task.set_state(if by_signals { State::Sleeping } else { State::Waiting });
        self.slept = true;
        self.cx.park();
        task.set_state(State::Running);
        Ok(())
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            self.cx.kernel().timers.cancel(timer);
        }
        // A wait inside another one may have eaten its wake-up: let the outer one look again.
        if self.slept {
            self.cx.task().wake_up();
        }
    }
}
