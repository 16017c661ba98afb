//! The glue of both sides.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};
use core::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use base::{
    Errno, Error, KernelId, ObjectId, TryResult,
    wait::{Op, Try, done},
};
use hal::{
    addr::PAGE_SIZE,
    frame::{Frame, MapFrame},
};
use link::{AnswerTo, Incoming, Links, lock::Lock};
use mm::{Lender, MappedPage, MemoryObject};
use objects::{Completer, call, from_wire, object_from_wire, object_to_wire, to_wire, when_done};
use task::time::Expire;
use wire::memory::{MemoryFetch, MemoryFetched, MemoryGaveBack, MemoryRecall, MemoryRecalled, MemoryRevoke};

use super::{Act, Answer, Borrowed, Copies, Place, Want, Wish};
use crate::{proxy::Proxy, service::MemoryService};

/// Whoever has waited for a page has it at least so long, in ns: else kernels that want the same one could pass it round without any of them using it.
const HOLD: u64 = 1_000_000;

/// Who waits for a page here.
enum Waiter {
    Peer(AnswerTo),
    Home(Place, bool, Completer<()>),
}

/// What the home's side keeps beside its state.
#[derive(Default)]
pub(crate) struct Shelf {
    copies: Copies,
    /// Objects of which anything is lent or wanted: what comes back finds them, whoever has closed them since.
    objects: BTreeMap<ObjectId, Arc<dyn MemoryObject>>,
    waiting: BTreeMap<(Option<KernelId>, Wish), Waiter>,
    /// The last wish of the home's own.
    wish: Wish,
    /// Pages that the home may use although others want them: for writing, and until when.
    leases: BTreeMap<Place, (bool, u64)>,
    /// Pages of which the home lets go when their time has come.
    held: Vec<(Place, u64)>,
    /// What was found with locks held.
    later: VecDeque<Act>,
}

/// A copy of a page of another kernel, or one that is on its way.
#[derive(Default)]
struct Loan {
    borrowed: Borrowed,
    frame: Option<Frame>,
    since: u64,
    waiting: Vec<Completer<MappedPage>>,
    /// It is to be given back: which copy, whether it is read on, and who waits for that.
    recall: Option<(Wish, bool, AnswerTo)>,
}

/// What both sides keep.
pub(crate) struct Exchange {
    shelf: Lock<Shelf>,
    loans: Lock<BTreeMap<Place, Loan>>,
    /// The last wish of this kernel for another one's page.
    wish: AtomicU64,
}

impl Default for Exchange {
    fn default() -> Self {
        Self { shelf: Lock::new(Shelf::default()), loans: Lock::new(BTreeMap::new()), wish: AtomicU64::new(0) }
    }
}

impl Lender for MemoryService {
    fn is_free(&self, object: ObjectId, index: u64, write: bool) -> bool {
        let shelf = self.exchange.shelf.lock();
        let place = (object, index);
        shelf.copies.is_free(place, write)
            || shelf.leases.get(&place).is_some_and(|(writes, until)| (*writes || !write) && self.links.now() < *until)
    }

    fn claim(&self, object: ObjectId, index: u64, write: bool) -> Box<dyn Op<()>> {
        let (call, completer) = call();
        {
            let mut shelf = self.exchange.shelf.lock();
            let place = (object, index);
            shelf.wish += 1;
            let wish = shelf.wish;
            shelf.waiting.insert((None, wish), Waiter::Home(place, write, completer));
            let mut acts = Vec::new();
            shelf.copies.want(place, Want { peer: None, wish, write }, &mut acts);
            shelf.later.extend(acts);
        }
        // The caller holds locks of the object.
        self.look_at(self.links.now());
        Box::new(call)
    }
}

impl Shelf {
    /// The object, if nothing of it is lent or wanted any more: to be dropped where no lock is held.
    fn forget(&mut self, object: ObjectId) -> Option<Arc<dyn MemoryObject>> {
        if self.copies.has(object) { None } else { self.objects.remove(&object) }
    }
}

impl Expire for MemoryService {
    fn expire(self: Arc<Self>) {
        self.work();
    }
}

impl MemoryService {
    /// Whether this kernel sees the memory of another one.
    pub(crate) fn sees(&self, home: KernelId) -> bool {
        self.reaches.iter().any(|reach| reach.index == home.index)
    }

    /// [`Self::work`] is called then.
    fn look_at(&self, at: u64) {
        if let Ok(me) = self.this() {
            self.kernel.timers.set(at, me);
        }
    }

    /// What has waited for its time, or for a moment without locks.
    fn work(&self) {
        let now = self.links.now();
        let acts: Vec<Act> = {
            let mut shelf = self.exchange.shelf.lock();
            let shelf = &mut *shelf;
            let leases = &mut shelf.leases;
            leases.retain(|_, (_, until)| now < *until);
            let mut acts: Vec<Act> = shelf.later.drain(..).collect();
            shelf.held.retain(|(place, number)| {
                let still = leases.contains_key(place);
                if !still {
                    acts.push(Act::Unmap(*place, *number));
                }
                still
            });
            acts
        };
        self.run(acts);
        self.forget_objects();
        let due: Vec<Place> = {
            let loans = self.exchange.loans.lock();
            let due = |loan: &Loan| loan.recall.is_some() && loan.frame.is_some() && now >= loan.since + HOLD;
            loans.iter().filter(|(_, loan)| due(loan)).map(|(place, _)| *place).collect()
        };
        for place in due {
            self.give_back_recalled(place);
        }
    }

    // -- the home's side -------------------------------------------------------------------------------------------

    fn run(&self, acts: impl IntoIterator<Item = Act>) {
        for act in acts {
            self.act(act);
        }
    }

    fn lent_object(&self, object: ObjectId) -> Option<Arc<dyn MemoryObject>> {
        self.exchange.shelf.lock().objects.get(&object).cloned()
    }

    /// Objects of which nothing is lent any more need not be kept.
    fn forget_objects(&self) {
        let gone: Vec<_> = {
            let mut shelf = self.exchange.shelf.lock();
            let all: Vec<ObjectId> = shelf.objects.keys().copied().collect();
            all.into_iter().filter_map(|object| shelf.forget(object)).collect()
        };
        drop(gone);
    }

    fn act(&self, act: Act) {
        match act {
            Act::Recall { to, place, wish, keep } => self.recall(to, place, wish, keep),
            Act::Unmap(place, number) => self.withdraw(place, number),
            Act::Grant { to, wish, place, serial, write } => {
                let waiter = self.exchange.shelf.lock().waiting.remove(&(Some(to), wish));
                let Some(Waiter::Peer(answer)) = waiter else { return };
                self.send_copy(answer, (to, wish), place, serial, write);
            }
            Act::Let(wish) => {
                let completer = {
                    let mut shelf = self.exchange.shelf.lock();
                    let Some(Waiter::Home(place, write, completer)) = shelf.waiting.remove(&(None, wish)) else {
                        return;
                    };
                    shelf.leases.insert(place, (write, self.links.now() + HOLD));
                    completer
                };
                drop(completer.complete(done(())));
            }
            Act::Refuse(want) => {
                let waiter = self.exchange.shelf.lock().waiting.remove(&(want.peer, want.wish));
                match waiter {
                    // It is looked at anew.
                    Some(Waiter::Peer(answer)) => self.links.refuse(answer, Errno::EAGAIN),
                    Some(Waiter::Home(_, _, completer)) => drop(completer.complete(done(()))),
                    None => {}
                }
            }
        }
    }

    fn recall(&self, to: KernelId, place: Place, wish: Wish, keep: bool) {
        let service = self.me.clone();
        let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
            let Some(service) = service.upgrade() else { return };
            let (keeps, bytes) = match answer.and_then(|answer| {
                let (recalled, bytes) = answer.read::<MemoryRecalled>()?;
                Ok((recalled.keeps != 0, Vec::from(bytes)))
            }) {
                Ok(answer) => answer,
                // Its death takes the copy from it.
                Err(error) if error.errno == Errno::EHOSTDOWN => return,
                Err(error) => {
                    log::error!("memory: kernel {to} does not give a copy back: {error}");
                    return;
                }
            };
            service.store(place, to, wish, &bytes);
            let mut acts = Vec::new();
            let gone = {
                let mut shelf = service.exchange.shelf.lock();
                shelf.copies.returned(place, to, wish, keeps, &mut acts);
                shelf.forget(place.0)
            };
            drop(gone);
            service.run(acts);
        });
        let message = MemoryRecall { index: place.1, wish, keep: u8::from(keep) };
        self.links.request(to_wire(to), object_to_wire(place.0), &message, &[], u64::MAX, then);
    }

    /// What a holder wrote goes into the home's frame, if it is the one who could.
    fn store(&self, place: Place, from: KernelId, wish: Wish, bytes: &[u8]) {
        if bytes.len() != PAGE_SIZE || !self.exchange.shelf.lock().copies.is_writer(place, from, wish) {
            return;
        }
        // The page was there when it was lent, and nothing drops what is dirty.
        if let Some(object) = self.lent_object(place.0)
            && let Ok(Try::Done(frame)) = object.lent_frame(place.1, true)
        {
            frame.write(0, bytes);
        }
    }

    /// The home's own spaces, and kernels that map its frames, let go of a page.
    fn withdraw(&self, place: Place, number: u64) {
        let due = {
            let mut shelf = self.exchange.shelf.lock();
            let due = shelf.leases.get(&place).map(|(_, until)| *until).filter(|until| self.links.now() < *until);
            if due.is_some() {
                shelf.held.push((place, number));
            } else {
                shelf.leases.remove(&place);
            }
            due
        };
        if let Some(due) = due {
            return self.look_at(due);
        }
        let gone = self.lent_object(place.0).map_or_else(|| done(()), |object| object.withdraw(place.1));
        let service = self.me.clone();
        when_done(gone, move |_| {
            let Some(service) = service.upgrade() else { return };
            let mut acts = Vec::new();
            service.exchange.shelf.lock().copies.unmapped(place, number, &mut acts);
            service.run(acts);
        });
    }

    fn send_copy(&self, answer: AnswerTo, copy: (KernelId, Wish), place: Place, serial: u64, write: bool) {
        let frame = match self.lent_object(place.0) {
            Some(object) => object.lent_frame(place.1, write),
            None => Err(Error::new(Errno::ESTALE, "not open")),
        };
        let service = self.me.clone();
        when_done(frame, move |frame| {
            let Some(service) = service.upgrade() else { return };
            match frame {
                Ok(frame) => {
                    let mut bytes = alloc::vec![0; PAGE_SIZE];
                    frame.read(0, &mut bytes);
                    let message = MemoryFetched { serial, write: u8::from(write) };
                    // If it died its death takes the copy back.
                    let _ = service.links.answer(answer, &message, &bytes);
                }
                // From the source now; it is asked for again.
                Err(error) => {
                    let gone = {
                        let mut shelf = service.exchange.shelf.lock();
                        shelf.copies.gave_back(place, copy.0, copy.1);
                        shelf.forget(place.0)
                    };
                    drop(gone);
                    service.links.refuse(answer, error.errno());
                }
            }
        });
    }

    /// A peer wants a copy.
    pub(crate) fn fetch(&self, to: AnswerTo, object: ObjectId, fetch: &MemoryFetch) -> base::Result<()> {
        let peer = from_wire(to.peer);
        let memory = self.lent(object, peer)?;
        let me = self.this()?;
        let lender: Arc<dyn Lender> = me;
        if !memory.set_lender(&Arc::downgrade(&lender)) {
            return Err(Error::new(Errno::ENODEV, "no copies of it are lent"));
        }
        if fetch.index >= memory.size().div_ceil(PAGE_SIZE as u64) {
            return Err(Error::new(Errno::EFAULT, "beyond the end of the object"));
        }
        let mut acts = Vec::new();
        {
            let mut shelf = self.exchange.shelf.lock();
            shelf.objects.insert(object, memory);
            shelf.waiting.insert((Some(peer), fetch.wish), Waiter::Peer(to));
            let want = Want { peer: Some(peer), wish: fetch.wish, write: fetch.write != 0 };
            shelf.copies.want((object, fetch.index), want, &mut acts);
        }
        self.run(acts);
        Ok(())
    }

    /// A holder gives a copy back by itself.
    pub(crate) fn gave_back(&self, object: ObjectId, from: KernelId, back: &MemoryGaveBack, bytes: &[u8]) {
        let place = (object, back.index);
        self.store(place, from, back.wish, bytes);
        let gone = {
            let mut shelf = self.exchange.shelf.lock();
            shelf.copies.gave_back(place, from, back.wish);
            shelf.forget(object)
        };
        drop(gone);
    }

    /// Pages are cut off their object: copies of them are too. The operation ends when nobody maps one any more.
    pub(crate) fn cut_copies(&self, object: ObjectId, pages: Range<u64>) -> Vec<Box<dyn Op<()>>> {
        let mut acts = Vec::new();
        let (holders, serial) = {
            let mut shelf = self.exchange.shelf.lock();
            if !shelf.copies.has(object) {
                return Vec::new();
            }
            let holders = shelf.copies.holders(object, pages.clone());
            shelf.copies.cut(object, pages.clone(), &mut acts);
            shelf.later.extend(acts);
            (holders, shelf.copies.serial())
        };
        self.look_at(self.links.now());
        let message = MemoryRevoke { first: pages.start, end: pages.end, serial };
        let ask = |holder: KernelId| {
            let (call, completer) = call::<()>();
            // Its death is as good as its answer.
            let then = Box::new(move |_: &Links, _: link::Result<Incoming<'_>>| drop(completer.complete(done(()))));
            self.links.request(to_wire(holder), object_to_wire(object), &message, &[], u64::MAX, then);
            Box::new(call) as Box<dyn Op<()>>
        };
        holders.into_iter().map(ask).collect()
    }

    /// A kernel is dead: what it had copies of is the home's again.
    pub(crate) fn take_from(&self, dead: KernelId) {
        let mut acts = Vec::new();
        let lost = {
            let mut shelf = self.exchange.shelf.lock();
            shelf.waiting.retain(|_, waiter| !matches!(waiter, Waiter::Peer(to) if from_wire(to.peer) == dead));
            shelf.copies.down(dead, &mut acts)
        };
        if !lost.is_empty() {
            log::warn!(
                "memory: what kernel {dead} wrote to {} shared pages is lost: they are as it got them",
                lost.len()
            );
        }
        self.run(acts);
        self.forget_objects();
    }

    // -- the holder's side -----------------------------------------------------------------------------------------

    /// A page of an object whose memory this kernel does not see.
    pub(crate) fn borrow(&self, home: KernelId, place: Place, write: bool) -> TryResult<MappedPage> {
        let (call, completer) = call();
        let ask = {
            let mut loans = self.exchange.loans.lock();
            let loan = loans.entry(place).or_default();
            if loan.borrowed.is_good(write)
                && let Some(frame) = &loan.frame
            {
                let writable = loan.borrowed.is_good(true);
                return done(MappedPage { frame: MapFrame::Own(frame.clone()), writable });
            }
            loan.waiting.push(completer);
            let wish = self.exchange.wish.fetch_add(1, Ordering::Relaxed) + 1;
            loan.borrowed.ask(wish).then_some(wish)
        };
        if let Some(wish) = ask {
            let service = self.me.clone();
            let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
                if let Some(service) = service.upgrade() {
                    service.take_copy(home, place, answer);
                }
            });
            let message = MemoryFetch { index: place.1, wish, write: u8::from(write) };
            self.links.request(to_wire(home), object_to_wire(place.0), &message, &[], u64::MAX, then);
        }
        call.into_try()
    }

    fn take_copy(&self, home: KernelId, place: Place, answer: link::Result<Incoming<'_>>) {
        let taken = answer.map_err(objects::error).and_then(|answer| {
            let (fetched, bytes) = answer.read::<MemoryFetched>().map_err(objects::error)?;
            let frame = self.kernel.memory.frame(true);
            if let Ok(frame) = &frame {
                frame.write(0, bytes.get(..PAGE_SIZE).unwrap_or(bytes));
            }
            Ok((fetched.serial, fetched.write != 0, frame, Vec::from(bytes)))
        });
        let mapped = self.holder.lock().mapped(place.0) > 0;
        let mut back = None;
        let (waiting, result, recalled) = {
            let mut loans = self.exchange.loans.lock();
            let loan = loans.entry(place).or_default();
            let waiting = core::mem::take(&mut loan.waiting);
            let result = match taken {
                Ok((serial, write, frame, bytes)) if loan.borrowed.granted(serial, write) => match frame {
                    Ok(frame) => {
                        (loan.frame, loan.since) = (Some(frame), self.links.now());
                        if !mapped {
                            back = loan.take_back();
                        }
                        Ok(())
                    }
                    Err(error) => {
                        let copy = loan.borrowed.give_back();
                        back = copy.map(|(wish, written)| (wish, if written { bytes } else { Vec::new() }));
                        Err(error)
                    }
                },
                // It was cut off.
                Ok(_) => Ok(()),
                Err(error) => {
                    loan.borrowed.refused();
                    // The page was cut off, or comes from elsewhere just now.
                    if error == Errno::EAGAIN { Ok(()) } else { Err(error) }
                }
            };
            let recalled = loan.recall.is_some().then_some(loan.since + HOLD).filter(|_| loan.frame.is_some());
            let answer = loan.recall.is_some() && recalled.is_none();
            if loan.borrowed.is_nothing() && loan.recall.is_none() {
                loans.remove(&place);
            }
            (waiting, result, recalled.or(answer.then_some(0)))
        };
        if let Some((wish, bytes)) = back {
            self.send_back(home, place, wish, &bytes);
        }
        match recalled {
            // Nothing is here that could be used a little longer.
            Some(0) => self.give_back_recalled(place),
            Some(due) => self.look_at(due),
            None => {}
        }
        for completer in waiting {
            drop(completer.complete(result.map(|()| Try::WouldBlock)));
        }
    }

    fn send_back(&self, home: KernelId, place: Place, wish: Wish, bytes: &[u8]) {
        // If its home is dead there is nothing to give back to.
        let _ =
            self.links.send(to_wire(home), object_to_wire(place.0), &MemoryGaveBack { index: place.1, wish }, bytes);
    }

    /// The home wants a copy back.
    pub(crate) fn recalled(&self, to: AnswerTo, place: Place, recall: &MemoryRecall) {
        let due = {
            let mut loans = self.exchange.loans.lock();
            loans.get_mut(&place).map(|loan| {
                let before = loan.recall.replace((recall.wish, recall.keep != 0, to));
                (before, loan.frame.is_some().then_some(loan.since + HOLD))
            })
        };
        let gone = |to| {
            // Whose home died needs no answer.
            let _ = self.links.answer(to, &MemoryRecalled { keeps: 0 }, &[]);
        };
        let Some((before, due)) = due else { return gone(to) };
        if let Some((_, _, before)) = before {
            // Of what has been cut off since.
            gone(before);
        }
        match due.filter(|due| *due > self.links.now()) {
            Some(due) => self.look_at(due),
            None => self.give_back_recalled(place),
        }
    }

    /// Gives back what is recalled: nobody here reaches it any more when it is answered.
    fn give_back_recalled(&self, place: Place) {
        let (to, answer, frame) = {
            let mut loans = self.exchange.loans.lock();
            let Some(loan) = loans.get_mut(&place) else { return };
            let Some((wish, keep, to)) = loan.recall.take() else { return };
            let answer = loan.borrowed.recalled(wish, keep);
            if answer == Answer::Later {
                loan.recall = Some((wish, keep, to));
                return;
            }
            (to, answer, loan.frame.clone())
        };
        let Answer::Back { written, keeps } = answer else { return };
        if let Some(proxy) = self.proxy(place.0) {
            for mapper in proxy.mappers() {
                if mapper.take_page(place.0, place.1) {
                    proxy.note_writer(&mapper);
                }
            }
        }
        let mut bytes = Vec::new();
        if let Some(frame) = frame.filter(|_| written) {
            bytes.resize(PAGE_SIZE, 0);
            frame.read(0, &mut bytes);
        }
        let _ = self.links.answer(to, &MemoryRecalled { keeps: u8::from(keeps) }, &bytes);
        let mut loans = self.exchange.loans.lock();
        if let Some(loan) = loans.get_mut(&place)
            && !loan.borrowed.is_good(false)
        {
            loan.frame = None;
            if loan.borrowed.is_nothing() && loan.recall.is_none() {
                loans.remove(&place);
            }
        }
    }

    /// Pages were cut off: copies up to a number are nothing any more. They are not handed out from now on; the caller unmaps them.
    pub(crate) fn void_copies(&self, object: ObjectId, pages: Range<u64>, serial: u64) {
        let recalled: Vec<Place> = {
            let mut loans = self.exchange.loans.lock();
            for (_, loan) in loans.range_mut((object, pages.start)..(object, pages.end.max(pages.start))) {
                if loan.borrowed.cut(serial) {
                    loan.frame = None;
                }
            }
            loans.retain(|(of, _), loan| *of != object || loan.recall.is_some() || !loan.borrowed.is_nothing());
            loans.iter().filter(|((of, _), loan)| *of == object && loan.frame.is_none()).map(|(p, _)| *p).collect()
        };
        for place in recalled {
            self.give_back_recalled(place);
        }
    }

    /// The last mapping of an object is gone: all copies go back.
    pub(crate) fn give_back_copies(&self, home: KernelId, object: ObjectId) {
        let back: Vec<(Place, Wish, Vec<u8>)> = {
            let mut loans = self.exchange.loans.lock();
            let of = loans.range_mut((object, 0)..=(object, u64::MAX));
            let back =
                of.filter_map(|(place, loan)| loan.take_back().map(|(wish, bytes)| (*place, wish, bytes))).collect();
            loans.retain(|(of, _), loan| *of != object || !loan.borrowed.is_nothing() || loan.recall.is_some());
            back
        };
        for (place, wish, bytes) in back {
            self.send_back(home, place, wish, &bytes);
            // Who recalled it meanwhile is answered behind that.
            self.give_back_recalled(place);
        }
    }

    /// The home of objects is dead: their copies are nothing any more.
    pub(crate) fn forget_copies(&self, object: ObjectId) {
        let waiting: Vec<Completer<MappedPage>> = {
            let mut loans = self.exchange.loans.lock();
            let mut gone = loans.split_off(&(object, 0));
            loans.append(&mut gone.split_off(&(object, u64::MAX)));
            gone.into_values().flat_map(|loan| loan.waiting).collect()
        };
        for completer in waiting {
            drop(completer.complete(Err(Error::new(Errno::EHOSTDOWN, "the kernel that had the page is down"))));
        }
    }
}

impl Loan {
    /// The copy goes: which, and its bytes if it could be written.
    fn take_back(&mut self) -> Option<(Wish, Vec<u8>)> {
        let (wish, written) = self.borrowed.give_back()?;
        let frame = self.frame.take()?;
        let mut bytes = Vec::new();
        if written {
            bytes.resize(PAGE_SIZE, 0);
            frame.read(0, &mut bytes);
        }
        Some((wish, bytes))
    }
}

/// What a peer says about copies. `false`: it is about something else.
pub(crate) fn handle(service: &Arc<MemoryService>, message: &Incoming<'_>) -> link::Result<bool> {
    use wire::Message as _;
    let (from, to) = (message.from, message.answer_to());
    let object = object_from_wire(message.header.object);
    if message.header.kind == MemoryFetch::SPEC.number {
        let (fetch, _) = message.read::<MemoryFetch>()?;
        let fetched = service.fetch(to, object, &fetch);
        fetched.map_err(|error| link::Error::new(error.errno(), error.why(), from))?;
    } else if message.header.kind == MemoryRecall::SPEC.number {
        let (recall, _) = message.read::<MemoryRecall>()?;
        service.recalled(to, (object, recall.index), &recall);
    } else if message.header.kind == MemoryGaveBack::SPEC.number {
        let (back, bytes) = message.read::<MemoryGaveBack>()?;
        service.gave_back(object, from_wire(from), &back, bytes);
    } else {
        return Ok(false);
    }
    Ok(true)
}

impl Proxy {
    /// The page as a copy.
    pub(crate) fn copy(&self, service: &Arc<MemoryService>, index: u64, write: bool) -> TryResult<MappedPage> {
        let home = service.holder.lock().home(self.id());
        let home = home.ok_or(Error::new(Errno::EHOSTDOWN, "the kernel that had the page is down"))?;
        service.borrow(home, (self.id(), index), write)
    }
}
