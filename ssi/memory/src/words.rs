//! Sleeping and waking at words whose memory is at home in another kernel.

use alloc::{boxed::Box, sync::Arc};

use base::{
    Errno, Error, KernelId, ObjectId, Result, TryResult, Wake,
    wait::{Op, Try},
};
use hal::{addr::PAGE_SIZE, frame::MapFrame, usermode::Access};
use link::{AnswerTo, Incoming, Links};
use mm::{Lender as _, MemoryObject as _, WordHome, WordSleep};
use objects::{Call, call, from_wire, object_to_wire, to_wire, when_done};
use task::futex::{Key, Sleeper};
use wire::memory::{FutexCount, FutexRequeue, FutexWait, FutexWake, FutexWoken};

use crate::{proxy::Proxy, service::MemoryService};

impl Proxy {
    fn home(&self) -> Result<(Arc<MemoryService>, KernelId)> {
        let service = self.service()?;
        let home = service.holder.lock().home(self.id());
        Ok((service, home.ok_or(Error::new(Errno::EHOSTDOWN, "the kernel that had the word is down"))?))
    }

    /// Asks for sleepers; how many were woken, and how many moved.
    fn count<M: wire::Request>(&self, message: &M) -> TryResult<(usize, usize)> {
        let (service, home) = self.home()?;
        let (call, completer) = call();
        let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
            let count = answer.and_then(|answer| {
                let (count, _) = answer.read::<FutexCount>()?;
                Ok(Try::Done((count.woken as usize, count.moved as usize)))
            });
            drop(completer.complete(count.map_err(objects::error)));
        });
        service.links.request(to_wire(home), object_to_wire(self.id()), message, &[], u64::MAX, then);
        call.into_try()
    }
}

impl WordHome for Proxy {
    fn sleep(&self, offset: u64, expected: u32, bits: u32) -> Result<Box<dyn WordSleep>> {
        let (service, home) = self.home()?;
        let (call, completer) = call();
        let object = object_to_wire(self.id());
        let then = Box::new(move |links: &Links, answer: link::Result<Incoming<'_>>| {
            let woken = answer.and_then(|answer| answer.read::<FutexWoken>().map(|_| Try::Done(())));
            if let Some(Ok(_)) = completer.complete(woken.map_err(objects::error)) {
                // Its task died before it heard of the wake-up: somebody else gets it. If the home died there is nobody.
                let message = FutexWake { offset, count: 1, bits };
                links.request(to_wire(home), object, &message, &[], u64::MAX, Box::new(|_, _| {}));
            }
        });
        let message = FutexWait { offset, expected, bits };
        // It lasts as long as nobody wakes it.
        let request = service.links.request(to_wire(home), object, &message, &[], u64::MAX, then);
        let links = service.links.clone();
        let call = call.long(true).on_abandon(move || links.cancel(request));
        Ok(Box::new(Sleep { call, links: service.links.clone(), request }))
    }

    fn wake(&self, offset: u64, count: u32, bits: u32) -> TryResult<usize> {
        Ok(self.count(&FutexWake { offset, count, bits })?.map(|(woken, _)| woken))
    }

    fn requeue(&self, offset: u64, target: ObjectId, to: u64, wake: u32, requeue: u32) -> TryResult<(usize, usize)> {
        self.count(&FutexRequeue { offset, target: object_to_wire(target), to, wake, requeue })
    }
}

/// A task of this kernel that sleeps at a word of another.
struct Sleep {
    call: Call<()>,
    links: Arc<Links>,
    request: u64,
}

impl Op<()> for Sleep {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        self.call.notify(waker);
    }

    fn take(&mut self) -> Option<TryResult<()>> {
        Op::take(&mut self.call)
    }
}

impl WordSleep for Sleep {
    fn cancel(&mut self) {
        self.links.cancel(self.request);
    }
}

/// A task of a peer that sleeps at a word of this kernel.
struct PeerSleeper {
    service: Arc<MemoryService>,
    to: AnswerTo,
}

impl Sleeper for PeerSleeper {
    fn woken(&self) {
        let known = self.service.sleeping.lock().remove(&(from_wire(self.to.peer), self.to.request));
        drop(known);
        // If the peer died the sleeper died with it.
        let _ = self.service.links.answer(self.to, &FutexWoken {}, &[]);
    }
}

impl MemoryService {
    /// A task of a peer wants to sleep at a word of an object of this kernel.
    pub(crate) fn put_to_sleep(&self, to: AnswerTo, object: ObjectId, wait: FutexWait) -> Result<()> {
        if !wait.offset.is_multiple_of(4) || wait.bits == 0 {
            return Err(Error::new(Errno::EINVAL, "not a word"));
        }
        let memory = self.lent(object, from_wire(to.peer))?;
        let service = self.this()?;
        let index = wait.offset / PAGE_SIZE as u64;
        loop {
            let page = match memory.page(index, Access::Read) {
                Ok(Try::Done(page)) => page,
                Err(error) => return Err(error),
                other => {
                    when_done(other, move |page| match page {
                        // It is here now.
                        Ok(_) => service.sleep_or_refuse(to, object, wait),
                        Err(error) if error == Errno::EAGAIN => service.sleep_or_refuse(to, object, wait),
                        Err(error) => service.links.refuse(to, error.errno()),
                    });
                    return Ok(());
                }
            };
            let MapFrame::Own(frame) = page.frame else {
                return Err(Error::new(Errno::EOPNOTSUPP, "the word is in memory that never changes"));
            };
            let within = wait.offset as usize % PAGE_SIZE;
            let sleeper = Arc::new(PeerSleeper { service: service.clone(), to });
            let still = || frame.atomic_u32(within).load(core::sync::atomic::Ordering::SeqCst) == wait.expected;
            let armed = self.kernel.futexes.arm(Key::Shared(object, wait.offset), wait.bits, sleeper, still);
            let armed = armed.ok_or(Error::new(Errno::EAGAIN, "the word changed"))?;
            if !service.is_free(object, index, false) && self.kernel.futexes.disarm(&armed) {
                // Somebody got the page to write it between the look and now, and may have woken who slept before that: look again.
                continue;
            }
            let key = (from_wire(to.peer), to.request);
            let mut sleeping = self.sleeping.lock();
            // Woken meanwhile, it has been answered and is not found any more.
            if !armed.is_woken() {
                sleeping.insert(key, armed);
            }
            return Ok(());
        }
    }

    fn sleep_or_refuse(&self, to: AnswerTo, object: ObjectId, wait: FutexWait) {
        if let Err(error) = self.put_to_sleep(to, object, wait) {
            self.links.refuse(to, error.errno());
        }
    }

    /// Whoever sleeps for this request leaves. Answered, unless it was woken before, and then that was the answer.
    pub(crate) fn get_up(&self, request: AnswerTo) {
        let armed = self.sleeping.lock().remove(&(from_wire(request.peer), request.request));
        if let Some(armed) = armed
            && self.kernel.futexes.disarm(&armed)
        {
            self.links.cancelled(request);
        }
    }

    /// Wakes sleepers for a peer.
    pub(crate) fn wake(&self, object: ObjectId, wake: &FutexWake) -> FutexCount {
        let woken = self.kernel.futexes.wake(Key::Shared(object, wake.offset), wake.count as usize, wake.bits);
        FutexCount { woken: woken as u32, moved: 0 }
    }

    /// Wakes and moves sleepers for a peer.
    pub(crate) fn requeue(&self, object: ObjectId, requeue: &FutexRequeue) -> FutexCount {
        let from = Key::Shared(object, requeue.offset);
        let target = objects::object_from_wire(requeue.target);
        let (wake, most) = (requeue.wake as usize, requeue.requeue as usize);
        let here = target == object || self.lent.lock().contains_key(&target);
        let (woken, moved) = if here {
            self.kernel.futexes.requeue(from, Key::Shared(target, requeue.to), wake, most)
        } else {
            let woken = self.kernel.futexes.wake(from, wake.saturating_add(most), task::futex::ANY);
            (woken.min(wake), woken.saturating_sub(wake))
        };
        FutexCount { woken: woken as u32, moved: moved as u32 }
    }
}
