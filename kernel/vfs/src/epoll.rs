//! epoll(7): a set of open files and a list of those that may be ready, so that a wait costs what is ready and not what is watched.

use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
    vec::Vec,
};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use base::{
    Errno, Error, Ready, Result, Subscription, Try, TryResult, Wake,
    io::{Sink, Source},
};
use hal::sync::{SpinLock, rank};

use crate::{
    Caller, LocalFile, OpenFile, OpenFlags, Status, Vfs, Waiters, anon,
    local::{FileOps, Wrote},
};

bitflags::bitflags! {
    /// How a file is watched.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Watch: u32 {
        /// Told once per change (EPOLLET).
        const EDGE = 1;
        /// Told once, then only after it was set again (EPOLLONESHOT).
        const ONCE = 2;
        /// Of many epoll instances one is woken (EPOLLEXCLUSIVE).
        const EXCLUSIVE = 4;
    }
}

/// One file that is watched.
struct Item {
    me: Weak<Self>,
    epoll: Weak<Epoll>,
    key: Key,
    file: Weak<dyn OpenFile>,
    /// What is told: with ERR and HUP, which nobody has to ask for; nothing after EPOLLONESHOT has told once.
    mask: AtomicU32,
    watch: AtomicU32,
    data: AtomicU64,
    /// It is in the list of those that may be ready.
    listed: AtomicBool,
    subscription: SpinLock<Option<Subscription>>,
}

/// A watched file is named by its descriptor and what that stood for.
type Key = (u32, usize);

/// See the module.
pub struct Epoll {
    me: Weak<Self>,
    items: SpinLock<BTreeMap<Key, Arc<Item>>>,
    ready: SpinLock<VecDeque<Arc<Item>>>,
    waiters: Waiters,
}

/// An event to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// What.
    pub ready: Ready,
    /// What the program said when it added the file.
    pub data: u64,
}

/// A change of the set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interest {
    /// What to watch for.
    pub mask: Ready,
    /// How.
    pub watch: Watch,
    /// For the program.
    pub data: u64,
}

/// How deep epoll instances may watch each other.
const MAX_DEPTH: usize = 5;

impl Wake for Item {
    fn wake(&self, _: Ready) {
        if let Some(epoll) = self.epoll.upgrade() {
            epoll.list(self);
        }
    }
}

impl Epoll {
    /// Opens an empty set.
    pub fn open(vfs: &Vfs, caller: &Caller) -> Arc<LocalFile> {
        let ops = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            items: SpinLock::new(rank::EPOLL, BTreeMap::new()),
            ready: SpinLock::new(rank::READY_LIST, VecDeque::new()),
            waiters: Waiters::of_epoll(),
        });
        anon::open(vfs, caller, ops, "anon_inode:[eventpoll]", OpenFlags::READ | OpenFlags::WRITE, Status::empty())
    }

    fn of(file: &dyn OpenFile) -> Option<&Self> {
        file.as_any().downcast_ref::<LocalFile>()?.ops().as_any().downcast_ref()
    }

    /// The set behind an open file.
    ///
    /// # Errors
    /// `EINVAL` if it is none.
    pub fn behind(file: &dyn OpenFile) -> Result<&Self> {
        Self::of(file).ok_or(Error::new(Errno::EINVAL, "not an epoll instance"))
    }

    fn list(&self, item: &Item) {
        if !item.listed.swap(true, Ordering::SeqCst)
            && let Some(item) = item.me.upgrade()
        {
            self.ready.lock().push_back(item);
        }
        self.waiters.wake(Ready::IN);
    }

    fn find(&self, key: Key) -> Option<Arc<Item>> {
        self.items.lock().get(&key).cloned()
    }

    fn key(fd: u32, file: &Arc<dyn OpenFile>) -> Key {
        (fd, Arc::as_ptr(file).cast::<()>() as usize)
    }

    /// How deep sets are nested below this one.
    fn depth(&self, left: usize, target: &Self) -> Result<usize> {
        if core::ptr::eq(self, target) || left == 0 {
            return Err(Error::new(Errno::ELOOP, "epoll instances in a circle or too deep"));
        }
        let inner: Vec<_> = self.items.lock().values().filter_map(|i| i.file.upgrade()).collect();
        let mut deepest = 0;
        for file in inner {
            if let Some(epoll) = Self::of(&*file) {
                deepest = deepest.max(epoll.depth(left - 1, target)?);
            }
        }
        Ok(deepest + 1)
    }

    /// EPOLL_CTL_ADD.
    ///
    /// # Errors
    /// `EEXIST`, `EPERM` for what cannot be watched, `ELOOP`.
    pub fn add(&self, caller: &Caller, fd: u32, file: &Arc<dyn OpenFile>, interest: Interest) -> Result<()> {
        if !file.can_epoll() {
            return Err(Error::new(Errno::EPERM, "this file is always ready"));
        }
        if let Some(inner) = Self::of(&**file) {
            inner.depth(MAX_DEPTH, self)?;
        }
        let key = Self::key(fd, file);
        let mask = interest.mask | Ready::ERR | Ready::HUP;
        let item = Arc::new_cyclic(|me| Item {
            me: me.clone(),
            epoll: self.me.clone(),
            key,
            file: Arc::downgrade(file),
            mask: AtomicU32::new(mask.bits()),
            watch: AtomicU32::new(interest.watch.bits()),
            data: AtomicU64::new(interest.data),
            listed: AtomicBool::new(false),
            subscription: SpinLock::new(rank::EVENT, None),
        });
        {
            let mut items = self.items.lock();
            items.retain(|_, i| i.file.strong_count() > 0);
            if items.contains_key(&key) {
                return Err(Error::new(Errno::EEXIST, "watched already"));
            }
            items.insert(key, item.clone());
        }
        let subscription = file.subscribe(mask, item.clone());
        *item.subscription.lock() = Some(subscription);
        self.look(caller, &item, file);
        Ok(())
    }

    /// EPOLL_CTL_MOD.
    ///
    /// # Errors
    /// `ENOENT`, `EINVAL` for exclusive ones.
    pub fn modify(&self, caller: &Caller, fd: u32, file: &Arc<dyn OpenFile>, interest: Interest) -> Result<()> {
        let item = self.find(Self::key(fd, file)).ok_or(Errno::ENOENT)?;
        let exclusive = Watch::from_bits_truncate(item.watch.load(Ordering::Relaxed)).contains(Watch::EXCLUSIVE);
        if exclusive || interest.watch.contains(Watch::EXCLUSIVE) {
            return Err(Errno::EINVAL.into());
        }
        let mask = interest.mask | Ready::ERR | Ready::HUP;
        item.mask.store(mask.bits(), Ordering::SeqCst);
        item.watch.store(interest.watch.bits(), Ordering::SeqCst);
        item.data.store(interest.data, Ordering::SeqCst);
        let subscription = file.subscribe(mask, item.clone());
        let old = item.subscription.lock().replace(subscription);
        drop(old);
        self.look(caller, &item, file);
        Ok(())
    }

    /// EPOLL_CTL_DEL.
    ///
    /// # Errors
    /// `ENOENT`.
    pub fn remove(&self, fd: u32, file: &Arc<dyn OpenFile>) -> Result<()> {
        let item = self.items.lock().remove(&Self::key(fd, file)).ok_or(Errno::ENOENT)?;
        let old = item.subscription.lock().take();
        drop(old);
        Ok(())
    }

    /// Lists an item that is ready now.
    fn look(&self, caller: &Caller, item: &Arc<Item>, file: &Arc<dyn OpenFile>) {
        let ready = match file.poll(caller) {
            Ok(Try::Done(ready)) => ready,
            // Not known at once: it is looked at again in the next wait.
            Ok(_) => Ready::all(),
            Err(_) => Ready::ERR,
        };
        if ready.intersects(Ready::from_bits_truncate(item.mask.load(Ordering::SeqCst))) {
            self.list(item);
        }
    }

    /// Up to `max` events that are there now. `poll` asks a file what it is ready for (it may take its time).
    pub fn collect(&self, max: usize, poll: &mut dyn FnMut(&Arc<dyn OpenFile>) -> Ready) -> Vec<Event> {
        let mut events = Vec::new();
        let mut again = Vec::new();
        let turns = self.ready.lock().len();
        for _ in 0..turns {
            if events.len() >= max {
                break;
            }
            let Some(item) = self.ready.lock().pop_front() else { break };
            // From here on a wake-up lists it again.
            item.listed.store(false, Ordering::SeqCst);
            let Some(file) = item.file.upgrade().filter(|_| self.find(item.key).is_some()) else { continue };
            let mask = Ready::from_bits_truncate(item.mask.load(Ordering::SeqCst));
            if mask.is_empty() {
                continue;
            }
            let ready = poll(&file) & mask;
            if ready.is_empty() {
                continue;
            }
            events.push(Event { ready, data: item.data.load(Ordering::SeqCst) });
            let watch = Watch::from_bits_truncate(item.watch.load(Ordering::SeqCst));
            if watch.contains(Watch::ONCE) {
                item.mask.store(0, Ordering::SeqCst);
            } else if !watch.contains(Watch::EDGE) {
                again.push(item);
            }
        }
        for item in again {
            if !item.listed.swap(true, Ordering::SeqCst) {
                self.ready.lock().push_back(item);
            }
        }
        events
    }

    /// Wakes when there may be an event.
    pub fn waiters(&self) -> &Waiters {
        &self.waiters
    }
}

impl FileOps for Epoll {
    fn is_seekable(&self) -> bool {
        false
    }

    fn read(&self, _: &LocalFile, _: &Caller, _: u64, _: &mut dyn Sink) -> TryResult<usize> {
        Err(Error::new(Errno::EINVAL, "epoll instances are not read"))
    }

    fn write(&self, _: &LocalFile, _: &Caller, _: u64, _: bool, _: &mut dyn Source) -> TryResult<Wrote> {
        Err(Error::new(Errno::EINVAL, "epoll instances are not written"))
    }

    fn poll(&self, _: &LocalFile) -> Ready {
        // What is listed may not be ready any more: look, as a wait would.
        let listed: Vec<_> = self.ready.lock().iter().cloned().collect();
        let caller = Caller::kernel();
        let ready = listed.iter().any(|item| {
            let mask = Ready::from_bits_truncate(item.mask.load(Ordering::SeqCst));
            let now = item.file.upgrade().map(|f| f.poll(&caller));
            !mask.is_empty()
                && match now {
                    Some(Ok(Try::Done(now))) => now.intersects(mask),
                    Some(_) => true,
                    None => false,
                }
        });
        if ready { Ready::IN } else { Ready::empty() }
    }

    fn subscribe(&self, _: &LocalFile, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        self.waiters.subscribe(mask, waker)
    }

    fn release(&self, _: &LocalFile) {
        let items = core::mem::take(&mut *self.items.lock());
        for item in items.values() {
            let old = item.subscription.lock().take();
            drop(old);
        }
        let ready = core::mem::take(&mut *self.ready.lock());
        drop((items, ready));
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
