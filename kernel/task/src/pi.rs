//! Futexes with priority inheritance; futex(2), "Priority-inheritance futexes". The word holds the number of its owner's thread; who waits lends the owner
//! its priority, also over chains of owners that wait themselves.
//!
//! Nothing here writes to memory of another process: the owner hands the word over, and after its death the first who waits takes it.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use base::{Errno, Error, Result};
use hal::{
    addr::UserAddr,
    sync::{SpinLock, rank},
    usermode::Access,
};

use crate::{
    cx::{Cx, Restart},
    futex::{Key, robust},
    ids::Pid,
    task::Task,
    wait::{Interrupted, Timeout},
};

const DEADLOCK: Error = Error::new(Errno::EDEADLK, "it would wait for itself");

struct Waiter {
    task: Arc<Task>,
    /// The word is its own now, or its owner is dead: look again.
    told: AtomicBool,
}

/// A word that somebody waits for.
struct Contended {
    key: Key,
    /// `None`: the owner has died.
    owner: Option<Arc<Task>>,
    /// In the order in which they came.
    waiters: Vec<Arc<Waiter>>,
}

impl Contended {
    /// The most urgent; of equals the one that came first.
    fn first(&self) -> Option<&Arc<Waiter>> {
        let urgency = |w: &Arc<Waiter>| w.task.sched.urgency();
        let most = self.waiters.iter().map(urgency).max()?;
        self.waiters.iter().find(|w| urgency(w) == most)
    }
}

/// The words of a kernel that somebody waits for.
pub struct Inheritance(SpinLock<Vec<Contended>>);

/// What an attempt to take a word came to.
enum Attempt {
    /// It is the caller's.
    Taken,
    /// The caller waits for it.
    Waits,
    /// The page of the word is not there.
    Fault(UserAddr),
    /// Somebody else has it now.
    Again,
}

impl Inheritance {
    /// Nobody waits.
    pub fn new() -> Self {
        Self(SpinLock::new(rank::FUTEX, Vec::new()))
    }

    /// Lends owners what those have who wait for them, and forgets words that nobody waits for. Whose priority changed, and what was forgotten: both
    /// are for after the lock. One pass over a chain settles one of its links.
    fn settle(all: &mut Vec<Contended>) -> (Vec<Arc<Task>>, Vec<Contended>) {
        let (kept, gone): (Vec<_>, Vec<_>) = all.drain(..).partition(|c| !c.waiters.is_empty());
        *all = kept;
        let mut changed: Vec<Arc<Task>> = Vec::new();
        for _ in 0..=all.len() {
            let mut settled = true;
            for owner in all.iter().chain(&gone).filter_map(|c| c.owner.as_ref()) {
                let of_owner = |c: &&Contended| c.owner.as_ref().is_some_and(|o| Arc::ptr_eq(o, owner));
                let urgency = |c: &Contended| c.waiters.iter().map(|w| w.task.sched.urgency()).max();
                let lent = all.iter().filter(of_owner).filter_map(urgency).max().unwrap_or(0);
                if owner.sched.lend(lent) {
                    settled = false;
                    changed.push(owner.clone());
                }
            }
            if settled {
                break;
            }
        }
        (changed, gone)
    }

    /// Whether `owner` waits, over however many others, for something of `me`.
    fn waits_for(all: &[Contended], owner: &Arc<Task>, me: &Arc<Task>) -> bool {
        let mut at = owner.clone();
        for _ in 0..=all.len() {
            let next = all.iter().find(|c| c.waiters.iter().any(|w| Arc::ptr_eq(&w.task, &at)));
            match next.and_then(|c| c.owner.clone()) {
                Some(owner) if Arc::ptr_eq(&owner, me) => return true,
                Some(owner) => at = owner,
                None => return false,
            }
        }
        false
    }
}

impl Default for Inheritance {
    fn default() -> Self {
        Self::new()
    }
}

impl Cx {
    fn pi_key(&self, at: u64, private: bool) -> Result<Key> {
        let word = self.futex_word(at, private)?;
        word.here().ok_or(Error::new(Errno::ENOSYS, "the word is of another kernel"))
    }

    fn pi_changed(&self, changed: &[Arc<Task>]) {
        for task in changed {
            self.kernel().sched.changed(task);
        }
    }

    /// Who has the word at `at` now: the number, and the thread unless it has let go of everything.
    fn pi_owner(&self, at: u64) -> Result<(u32, Option<Arc<Task>>)> {
        let owner = self.user(|u| u.load_u32(at))? & robust::TID_MASK;
        let task = match owner {
            0 => None,
            owner => self.kernel().table.task(Pid(owner)).filter(|t| t.tid().0 == owner),
        };
        Ok((owner, task))
    }

    /// One look at the word, with the table locked. `waiter`: the caller waits already.
    fn pi_attempt(
        &self,
        all: &mut Vec<Contended>,
        at: u64,
        key: Key,
        (owner, task): (u32, Option<Arc<Task>>),
        waiter: Option<&Arc<Waiter>>,
        only_try: bool,
    ) -> Result<Attempt> {
        let (me, address) = (self.task(), UserAddr(at));
        let tid = me.tid().0;
        let slot = all.iter().position(|c| c.key == key);
        // Under the lock: who has not let go yet will find those who wait when it does.
        let task = task.filter(|t| !t.let_go.load(Relaxed));
        loop {
            let word = match hal::user::load_u32(address) {
                Ok(word) => word,
                Err(fault) => return Ok(Attempt::Fault(fault)),
            };
            if word & robust::TID_MASK != owner {
                return Ok(Attempt::Again);
            }
            if owner == tid {
                return Err(DEADLOCK);
            }
            let others = slot
                .and_then(|s| all.get(s))
                .map_or(0, |c| c.waiters.iter().filter(|w| waiter.is_none_or(|mine| !Arc::ptr_eq(mine, w))).count());
            let orphan = slot.and_then(|s| all.get(s)).is_some_and(|c| c.owner.is_none());
            if owner == 0 || (task.is_none() && orphan) {
                let died = if owner == 0 { word & robust::OWNER_DIED } else { robust::OWNER_DIED };
                let new = tid | died | if others > 0 { robust::WAITERS } else { 0 };
                match hal::user::compare_exchange_u32(address, word, new) {
                    Ok(found) if found != word => continue,
                    Ok(_) => {}
                    Err(fault) => return Ok(Attempt::Fault(fault)),
                }
                if let Some(contended) = slot.and_then(|s| all.get_mut(s)) {
                    contended.owner = Some(me.clone());
                    contended.waiters.retain(|w| waiter.is_none_or(|mine| !Arc::ptr_eq(mine, w)));
                }
                return Ok(Attempt::Taken);
            }
            let Some(task) = task.clone() else { return Err(Error::new(Errno::ESRCH, "the owner is nobody")) };
            if only_try {
                return Err(crate::wait::AGAIN);
            }
            if waiter.is_none() && Inheritance::waits_for(all, &task, me) {
                return Err(DEADLOCK);
            }
            match hal::user::compare_exchange_u32(address, word, word | robust::WAITERS) {
                Ok(found) if found != word => continue,
                Ok(_) => {}
                Err(fault) => return Ok(Attempt::Fault(fault)),
            }
            match slot.and_then(|s| all.get_mut(s)) {
                Some(contended) => contended.owner = Some(task),
                None => all.push(Contended { key, owner: Some(task), waiters: Vec::new() }),
            }
            return Ok(Attempt::Waits);
        }
    }

    /// FUTEX_LOCK_PI, FUTEX_TRYLOCK_PI: takes the word, waiting for its owner unless `only_try`.
    ///
    /// # Errors
    /// `EDEADLK` if the caller has it, or its owner waits for the caller; `ESRCH` if its owner is nobody; `EAGAIN` with `only_try`; `ETIMEDOUT`, `EFAULT`;
    /// `ENOSYS` if the word is of another kernel.
    pub fn futex_lock_pi(&self, at: u64, private: bool, timeout: Timeout, only_try: bool) -> Result<()> {
        let key = self.pi_key(at, private)?;
        let table = &self.kernel().inheritance;
        let mine = Arc::new(Waiter { task: self.task().clone(), told: AtomicBool::new(false) });
        let mut waits = false;
        loop {
            let owner = self.pi_owner(at)?;
            let (attempt, changed, gone) = {
                let mut all = table.0.lock();
                // Handed over by the owner while it waited.
                if waits && !all.iter().any(|c| c.key == key && c.waiters.iter().any(|w| Arc::ptr_eq(w, &mine))) {
                    return Ok(());
                }
                mine.told.store(false, Relaxed);
                let attempt = self.pi_attempt(&mut all, at, key, owner, waits.then_some(&mine), only_try);
                match (&attempt, all.iter_mut().find(|c| c.key == key)) {
                    (Ok(Attempt::Waits), Some(contended)) if !waits => contended.waiters.push(mine.clone()),
                    (Err(_), Some(contended)) => contended.waiters.retain(|w| !Arc::ptr_eq(w, &mine)),
                    _ => {}
                }
                let (changed, gone) = Inheritance::settle(&mut all);
                (attempt, changed, gone)
            };
            drop(gone);
            self.pi_changed(&changed);
            match attempt? {
                Attempt::Taken => return Ok(()),
                Attempt::Again => {}
                Attempt::Fault(fault) => self.user(|u| u.resolve(fault, Access::Write))?,
                Attempt::Waits => {
                    waits = true;
                    let told = || mine.told.load(Relaxed).then_some(());
                    if let Err(error) = self.wait_until(told, timeout, Interrupted::Restart) {
                        return self.pi_leave(key, &mine, error);
                    }
                }
            }
        }
    }

    /// The wait ended early; unless the word was handed over meanwhile.
    fn pi_leave(&self, key: Key, mine: &Arc<Waiter>, error: Error) -> Result<()> {
        let (left, changed, gone) = {
            let mut all = self.kernel().inheritance.0.lock();
            let mut left = false;
            if let Some(contended) = all.iter_mut().find(|c| c.key == key) {
                let before = contended.waiters.len();
                contended.waiters.retain(|w| !Arc::ptr_eq(w, mine));
                left = contended.waiters.len() < before;
            }
            let (changed, gone) = Inheritance::settle(&mut all);
            (left, changed, gone)
        };
        drop(gone);
        self.pi_changed(&changed);
        if !left {
            return Ok(());
        }
        if error == Errno::EINTR {
            // The deadline is a time of a clock, so that the call starts again as it was.
            self.set_restart(Restart::Always);
        }
        Err(error)
    }

    /// FUTEX_UNLOCK_PI: gives the word to the most urgent of those who wait.
    ///
    /// # Errors
    /// `EPERM` if the caller does not have it, `EFAULT`, `ENOSYS`.
    pub fn futex_unlock_pi(&self, at: u64, private: bool) -> Result<()> {
        let key = self.pi_key(at, private)?;
        let (tid, address) = (self.task().tid().0, UserAddr(at));
        loop {
            let (outcome, told, changed, gone) = {
                let mut all = self.kernel().inheritance.0.lock();
                let (outcome, told) = Self::pi_hand_over(&mut all, key, address, tid);
                let (mut changed, gone) = Inheritance::settle(&mut all);
                let mine = all.iter().any(|c| c.owner.as_ref().is_some_and(|o| Arc::ptr_eq(o, self.task())));
                if !mine && self.task().sched.lend(0) {
                    changed.push(self.task().clone());
                }
                (outcome, told, changed, gone)
            };
            drop(gone);
            self.pi_changed(&changed);
            if let Some(waiter) = told {
                waiter.task.wake_up();
            }
            match outcome? {
                None => return Ok(()),
                Some(fault) => self.user(|u| u.resolve(fault, Access::Write))?,
            }
        }
    }

    fn pi_hand_over(
        all: &mut [Contended],
        key: Key,
        address: UserAddr,
        tid: u32,
    ) -> (Result<Option<UserAddr>>, Option<Arc<Waiter>>) {
        let mut contended = all.iter_mut().find(|c| c.key == key);
        loop {
            let word = match hal::user::load_u32(address) {
                Ok(word) => word,
                Err(fault) => return (Ok(Some(fault)), None),
            };
            if word & robust::TID_MASK != tid {
                return (Err(Error::new(Errno::EPERM, "not the owner")), None);
            }
            let next = contended.as_ref().and_then(|c| c.first().cloned());
            let more = contended.as_ref().is_some_and(|c| c.waiters.len() > 1);
            let new = match &next {
                Some(next) => next.task.tid().0 | if more { robust::WAITERS } else { 0 },
                None => 0,
            };
            match hal::user::compare_exchange_u32(address, word, new) {
                Ok(found) if found != word => continue,
                Ok(_) => {}
                Err(fault) => return (Ok(Some(fault)), None),
            }
            if let (Some(next), Some(contended)) = (&next, contended.as_mut()) {
                contended.owner = Some(next.task.clone());
                contended.waiters.retain(|w| !Arc::ptr_eq(w, next));
                next.told.store(true, Relaxed);
            }
            return (Ok(None), next);
        }
    }

    /// At the end of a thread: the first of those who wait for its words takes each.
    pub(crate) fn release_pi(&self) {
        let me = self.task();
        let mut told = Vec::new();
        {
            let mut all = self.kernel().inheritance.0.lock();
            me.let_go.store(true, Relaxed);
            for contended in all.iter_mut().filter(|c| c.owner.as_ref().is_some_and(|o| Arc::ptr_eq(o, me))) {
                contended.owner = None;
                if let Some(first) = contended.first().cloned() {
                    first.told.store(true, Relaxed);
                    told.push(first);
                }
            }
        }
        for waiter in told {
            waiter.task.wake_up();
        }
    }
}
