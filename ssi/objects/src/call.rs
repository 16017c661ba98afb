//! A request to a peer as an operation that a task can wait for.

use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
};

use base::{
    Errno, Error, Result, Wake,
    wait::{Op, Ready, Try, TryResult},
};
use hal::sync::rank;
use link::lock::Lock;

struct Slot<T> {
    result: Option<TryResult<T>>,
    waker: Option<Arc<dyn Wake>>,
    /// The caller is gone: a result is dropped (and what it granted is undone by whoever completes).
    abandoned: bool,
}

/// The caller's end.
pub struct Call<T> {
    slot: Arc<Lock<Slot<T>>>,
    long: bool,
    abandon: Option<Box<dyn FnOnce() + Send>>,
}

/// The other end: whoever hears the answer completes it, once.
pub struct Completer<T>(Arc<Lock<Slot<T>>>);

/// Both ends of an operation.
pub fn call<T>() -> (Call<T>, Completer<T>) {
    let slot = Arc::new(Lock::ranked(rank::CALL, Slot { result: None, waker: None, abandoned: false }));
    (Call { slot: slot.clone(), long: false, abandon: None }, Completer(slot))
}

impl<T: Send + 'static> Call<T> {
    /// Runs when the caller goes away before the result came (CANCEL goes out here).
    #[must_use]
    pub fn on_abandon(mut self, f: impl FnOnce() + Send + 'static) -> Self {
        self.abandon = Some(Box::new(f));
        self
    }

    /// It may take as long as somebody pleases (the open of a FIFO): signals end a wait for it.
    #[must_use]
    pub const fn long(mut self, long: bool) -> Self {
        self.long = long;
        self
    }

    /// As a try operation: done at once if the answer is there already, else started.
    pub fn into_try(mut self) -> TryResult<T> {
        match Op::take(&mut self) {
            Some(result) => result,
            None => Ok(Try::Started(Box::new(self))),
        }
    }
}

impl<T> Completer<T> {
    /// The result is there. Gives it back if nobody waits any more, so that what it grants can be undone.
    pub fn complete(self, result: TryResult<T>) -> Option<TryResult<T>> {
        let mut slot = self.0.lock();
        if slot.abandoned {
            return Some(result);
        }
        slot.result = Some(result);
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake(Ready::all());
        }
        None
    }
}

impl<T: Send> Op<T> for Call<T> {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        let mut slot = self.slot.lock();
        if slot.result.is_some() {
            drop(slot);
            waker.wake(Ready::all());
        } else {
            slot.waker = Some(waker);
        }
    }

    fn soon(&self) -> bool {
        !self.long
    }

    fn take(&mut self) -> Option<TryResult<T>> {
        let result = self.slot.lock().result.take();
        if result.is_some() {
            self.abandon = None;
        }
        result
    }
}

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        let mut slot = self.slot.lock();
        slot.abandoned = true;
        slot.waker = None;
        let unheard = slot.result.take();
        drop(slot);
        drop(unheard);
        if let Some(abandon) = self.abandon.take() {
            abandon();
        }
    }
}

/// An operation that somebody may undo before it ends.
pub trait Abandon: Send + Sync {
    /// Drops the operation and what was to follow.
    fn abandon(&self);
}

/// Calls `then` with the result of an operation: at once if it is done, else when it ends. Nobody sleeps, and the operation is not abandoned.
pub fn when_done<T: 'static>(tried: TryResult<T>, then: impl FnOnce(Result<T>) + Send + 'static) {
    drop(unless_abandoned(tried, then));
}

/// As [`when_done`]. If the operation has not ended yet the answer can abandon it.
pub fn unless_abandoned<T: 'static>(
    tried: TryResult<T>,
    then: impl FnOnce(Result<T>) + Send + 'static,
) -> Option<Arc<dyn Abandon>> {
    match tried {
        Ok(Try::Started(mut op)) => {
            let pending = Arc::new_cyclic(|me| Pending {
                me: me.clone(),
                state: Lock::new((None, false)),
                then: Lock::new(Some(then)),
            });
            // The op keeps the waker and the waker the op, until the result is taken.
            op.notify(pending.clone());
            pending.state.lock().0 = Some(op);
            // The result may have come between the two lines.
            pending.wake(Ready::empty());
            let waits = pending.then.lock().is_some();
            waits.then_some(pending as Arc<dyn Abandon>)
        }
        ended => {
            then(settled(ended));
            None
        }
    }
}

/// The value of an operation that did not start anything.
///
/// # Errors
/// Its own, or `EAGAIN` if it would block.
pub fn settled<T>(ended: TryResult<T>) -> Result<T> {
    match ended? {
        Try::Done(value) => Ok(value),
        Try::WouldBlock | Try::Started(_) => Err(Error::new(Errno::EAGAIN, "would block")),
    }
}

/// The same operation with another error, if it fails now or later.
///
/// # Errors
/// What `f` makes of the operation's.
pub fn map_error<T: 'static>(tried: TryResult<T>, f: impl FnOnce(Error) -> Error + Send + 'static) -> TryResult<T> {
    match tried {
        Ok(Try::Started(op)) => Ok(Try::Started(Box::new(Changed { op, f: Some(f) }))),
        Ok(ended) => Ok(ended),
        Err(error) => Err(f(error)),
    }
}

struct Changed<T, F> {
    op: Box<dyn Op<T>>,
    f: Option<F>,
}

impl<T: 'static, F: FnOnce(Error) -> Error + Send + 'static> Op<T> for Changed<T, F> {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        self.op.notify(waker);
    }

    fn soon(&self) -> bool {
        self.op.soon()
    }

    fn take(&mut self) -> Option<TryResult<T>> {
        let result = self.op.take()?;
        let f = self.f.take()?;
        Some(map_error(result, f))
    }
}

struct Pending<T, F> {
    me: Weak<Self>,
    /// The operation, while nobody looks at it, and whether to look again.
    state: Lock<(Option<Box<dyn Op<T>>>, bool)>,
    then: Lock<Option<F>>,
}

impl<T: 'static, F: FnOnce(Result<T>) + Send + 'static> Wake for Pending<T, F> {
    fn wake(&self, _: Ready) {
        let result = loop {
            let op = {
                let mut state = self.state.lock();
                match state.0.take() {
                    Some(op) => op,
                    None => {
                        // Somebody looks at it just now, or it has ended: whoever looks does so once more.
                        state.1 = true;
                        return;
                    }
                }
            };
            // The operation may take locks of its own: not with ours held.
            let mut op = op;
            if let Some(result) = op.take() {
                break result;
            }
            let abandoned = self.then.lock().is_none();
            let mut state = self.state.lock();
            if !abandoned {
                state.0 = Some(op);
                if !core::mem::take(&mut state.1) {
                    drop(state);
                    // Abandoned while it was being looked at?
                    if self.then.lock().is_none() {
                        self.abandon();
                    }
                    return;
                }
                continue;
            }
            drop(state);
            return drop(op);
        };
        match result {
            // It ended in another operation: go on with that one.
            Ok(Try::Started(mut next)) => {
                let Some(me) = self.me.upgrade() else { return };
                next.notify(me);
                self.state.lock().0 = Some(next);
                self.wake(Ready::empty());
            }
            ended => {
                let then = self.then.lock().take();
                if let Some(then) = then {
                    then(settled(ended));
                }
            }
        }
    }
}

impl<T: 'static, F: FnOnce(Result<T>) + Send + 'static> Abandon for Pending<T, F> {
    fn abandon(&self) {
        let then = self.then.lock().take();
        let op = self.state.lock().0.take();
        // Both may let go of much.
        drop((then, op));
    }
}

impl<T> core::fmt::Debug for Call<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Call")
    }
}

impl<T> core::fmt::Debug for Completer<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Completer")
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use core::sync::atomic::{AtomicU32, Ordering};

    use base::wait::{Op, Ready, Try, Wake, done};

    use super::call;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(&self, _: Ready) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_result_that_is_there_needs_no_wait() {
        let (call, completer) = call();
        assert!(completer.complete(done(7)).is_none());
        assert!(matches!(call.into_try(), Ok(Try::Done(7))));
    }

    #[test]
    fn the_waker_is_called_once_and_also_when_it_comes_late() {
        let count = Arc::new(Count::default());
        let (mut early, completer) = call::<u32>();
        early.notify(count.clone());
        assert!(early.take().is_none());
        assert!(completer.complete(done(1)).is_none());
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(matches!(early.take(), Some(Ok(Try::Done(1)))));
        let (mut late, completer) = call::<u32>();
        assert!(completer.complete(done(2)).is_none());
        late.notify(count.clone());
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_follows_runs_once_now_or_later() {
        use super::when_done;
        let count = Arc::new(Count::default());
        let seen = count.clone();
        when_done(done(5), move |r| seen.0.store(r.unwrap(), Ordering::Relaxed));
        assert_eq!(count.0.load(Ordering::Relaxed), 5);
        let (call, completer) = call::<u32>();
        let seen = count.clone();
        when_done(call.into_try(), move |r| seen.0.store(r.unwrap(), Ordering::Relaxed));
        assert_eq!(count.0.load(Ordering::Relaxed), 5);
        assert!(completer.complete(done(6)).is_none());
        assert_eq!(count.0.load(Ordering::Relaxed), 6);
    }

    #[test]
    fn what_is_abandoned_is_dropped_and_nothing_follows() {
        use super::unless_abandoned;
        let (call, completer) = call::<u32>();
        let told = Arc::new(Count::default());
        let (cancelled, followed) = (told.clone(), told.clone());
        let call = call.on_abandon(move || cancelled.wake(Ready::IN));
        let handle = unless_abandoned(call.into_try(), move |_| followed.wake(Ready::IN)).expect("it has not ended");
        handle.abandon();
        assert_eq!(told.0.load(Ordering::Relaxed), 1, "the operation was told, and only that");
        assert!(completer.complete(done(3)).is_some());
        handle.abandon();
        assert_eq!(told.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_operation_that_ends_in_another_goes_on() {
        use super::unless_abandoned;
        let (first, one) = call::<u32>();
        let (second, two) = call::<u32>();
        let count = Arc::new(Count::default());
        let seen = count.clone();
        let handle = unless_abandoned(first.into_try(), move |r| seen.0.store(r.unwrap(), Ordering::Relaxed));
        assert!(handle.is_some());
        assert!(one.complete(second.into_try()).is_none());
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        assert!(two.complete(done(8)).is_none());
        assert_eq!(count.0.load(Ordering::Relaxed), 8);
    }

    #[test]
    fn a_result_for_nobody_comes_back() {
        let abandoned = Arc::new(Count::default());
        let seen = abandoned.clone();
        let (call, completer) = call::<u32>();
        drop(call.on_abandon(move || seen.wake(Ready::IN)));
        assert_eq!(abandoned.0.load(Ordering::Relaxed), 1);
        assert!(matches!(completer.complete(done(3)), Some(Ok(Try::Done(3)))));
    }
}
