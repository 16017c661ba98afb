//! Waiting without waiting: *try* operations and subscriptions.
//!
//! No operation of an object waits. It answers [`Try::Done`], [`Try::WouldBlock`] (subscribe and try again), or [`Try::Started`]
//! (an operation is on its way, typically at a peer: wait for the op). The task layer builds blocking, time-outs, EINTR, poll and epoll on it.

use alloc::{boxed::Box, sync::Arc};

use crate::error::Result;

bitflags::bitflags! {
    /// What an object is ready for; the bits of `poll(2)`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Ready: u32 {
        /// There is data to read, or end of file.
        const IN = 0x001;
        /// There is urgent data to read.
        const PRI = 0x002;
        /// A write of some bytes would not block.
        const OUT = 0x004;
        /// An error is pending; always reported.
        const ERR = 0x008;
        /// The other side hung up; always reported.
        const HUP = 0x010;
        /// The other side shut down its writing half.
        const RDHUP = 0x2000;
    }
}

/// Told when what it subscribed to may have become ready.
///
/// `wake` is called from any context, also from interrupt handlers: it must not sleep and must not call back into the object.
pub trait Wake: Send + Sync {
    /// Something of `ready` happened. May be called more than once and for nothing: try again to know.
    fn wake(&self, ready: Ready);
}

/// A subscription; dropping it cancels it.
#[must_use = "dropping a subscription cancels it"]
pub struct Subscription(Option<Box<dyn Cancel>>);

/// What a subscription does when it is dropped.
pub trait Cancel: Send + Sync {
    /// Called once. After it returned, the waker may still be in the middle of a last call.
    fn cancel(&mut self);
}

impl Subscription {
    /// A subscription that `cancel` ends.
    pub fn new(cancel: impl Cancel + 'static) -> Self {
        Self(Some(Box::new(cancel)))
    }

    /// For objects that never change their readiness (a regular file, `/dev/null`).
    pub const fn never() -> Self {
        Self(None)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(mut cancel) = self.0.take() {
            cancel.cancel();
        }
    }
}

impl core::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Subscription")
    }
}

/// The answer of an operation that does not wait.
pub enum Try<T> {
    /// It is done.
    Done(T),
    /// Not now: subscribe, try again, then sleep.
    WouldBlock,
    /// It was started and will end by itself (I/O, a request to a peer).
    Started(Box<dyn Op<T>>),
}

/// What every try operation returns.
pub type TryResult<T> = Result<Try<T>>;

/// An operation under way. Dropping it abandons it: the peer is told CANCEL, and a result that comes for nobody is undone.
pub trait Op<T>: Send {
    /// Names who is told when there is a result. At most one waker; it is called at once if the result is there already.
    fn notify(&mut self, waker: Arc<dyn Wake>);
    /// Whether it ends by itself soon (an answer that a peer gives at once): then only SIGKILL ends a wait for it, as for a local look-up.
    fn soon(&self) -> bool {
        false
    }
    /// The result, once. `None` while it is not there. `Some(Ok(Try::WouldBlock))` means "tried, would block".
    fn take(&mut self) -> Option<TryResult<T>>;
}

impl<T> Try<T> {
    /// Changes the value, now or when it comes.
    pub fn map<U>(self, f: impl FnOnce(T) -> U + Send + 'static) -> Try<U>
    where
        T: 'static,
        U: 'static,
    {
        match self {
            Self::Done(value) => Try::Done(f(value)),
            Self::WouldBlock => Try::WouldBlock,
            Self::Started(op) => Try::Started(Box::new(Mapped { op, f: Some(f) })),
        }
    }

    /// Goes on with what `f` makes of the value, now or when it comes.
    ///
    /// # Errors
    /// That of `f`, if the value is there.
    pub fn and_then<U>(self, f: impl FnOnce(T) -> TryResult<U> + Send + 'static) -> TryResult<U>
    where
        T: 'static,
        U: 'static,
    {
        match self {
            Self::Done(value) => f(value),
            Self::WouldBlock => Ok(Try::WouldBlock),
            Self::Started(op) => Ok(Try::Started(Box::new(Chained { op, f: Some(f) }))),
        }
    }
}

impl<T> Try<Result<T>> {
    /// The outcome of `tried` as a value, so that an error is no end.
    pub fn settled(tried: TryResult<T>) -> Self
    where
        T: 'static,
    {
        match tried {
            Ok(Try::Done(value)) => Self::Done(Ok(value)),
            Ok(Try::WouldBlock) => Self::WouldBlock,
            Ok(Try::Started(op)) => Self::Started(Box::new(Settled(op))),
            Err(error) => Self::Done(Err(error)),
        }
    }
}

struct Settled<T>(Box<dyn Op<T>>);

impl<T: 'static> Op<Result<T>> for Settled<T> {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        self.0.notify(waker);
    }

    fn soon(&self) -> bool {
        self.0.soon()
    }

    fn take(&mut self) -> Option<TryResult<Result<T>>> {
        self.0.take().map(|tried| Ok(Try::settled(tried)))
    }
}

impl<T: core::fmt::Debug> core::fmt::Debug for Try<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Done(value) => f.debug_tuple("Done").field(value).finish(),
            Self::WouldBlock => f.write_str("WouldBlock"),
            Self::Started(_) => f.write_str("Started"),
        }
    }
}

/// `Ok(Try::Done(value))`.
pub const fn done<T>(value: T) -> TryResult<T> {
    Ok(Try::Done(value))
}

struct Mapped<T, F> {
    op: Box<dyn Op<T>>,
    f: Option<F>,
}

impl<T: 'static, U: 'static, F: FnOnce(T) -> U + Send + 'static> Op<U> for Mapped<T, F> {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        self.op.notify(waker);
    }

    fn soon(&self) -> bool {
        self.op.soon()
    }

    fn take(&mut self) -> Option<TryResult<U>> {
        let result = self.op.take()?;
        let f = self.f.take()?;
        Some(result.map(|t| t.map(f)))
    }
}

struct Chained<T, F> {
    op: Box<dyn Op<T>>,
    f: Option<F>,
}

impl<T: 'static, U: 'static, F: FnOnce(T) -> TryResult<U> + Send + 'static> Op<U> for Chained<T, F> {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        self.op.notify(waker);
    }

    fn soon(&self) -> bool {
        self.op.soon()
    }

    fn take(&mut self) -> Option<TryResult<U>> {
        let result = self.op.take()?;
        let f = self.f.take()?;
        // What `f` started is the result: who takes it waits for that.
        Some(result.and_then(|t| t.and_then(f)))
    }
}
