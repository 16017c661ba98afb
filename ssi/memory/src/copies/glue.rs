//! The glue of both sides.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};
use core::ops::Range;

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

use super::{Act, Answer, Borrowed, Copies, Place, Want, lender::Ticket};
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
    waiting: BTreeMap<Ticket, Waiter>,
    next: Ticket,
    /// Pages that the home may use although others want them: for writing, and until when.
    leases: BTreeMap<Place, (bool, u64)>,
    /// Pages of which the home lets go when their time has come.
    held: Vec<Place>,
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
    /// It is to be given back: the number, whether it is read on, and who waits for that.
    recall: Option<(u64, bool, AnswerTo)>,
    /// Copies up to this number were cut off their object.
    void: u64,
}

/// What both sides keep.
pub(crate) struct Exchange {
    shelf: Lock<Shelf>,
    loans: Lock<BTreeMap<Place, Loan>>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self { shelf: Lock::new(Shelf::default()), loans: Lock::new(BTreeMap::new()) }
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
            let ticket = shelf.ticket(Waiter::Home(place, write, completer));
            let mut acts = Vec::new();
            shelf.copies.want(place, Want { peer: None, ticket, write }, &mut acts);
            shelf.later.extend(acts);
        }
        // The caller holds locks of the object.
        self.look_at(self.links.now());
        Box::new(call)
    }
}

impl Shelf {
    fn ticket(&mut self, waiter: Waiter) -> Ticket {
        self.next += 1;
        self.waiting.insert(self.next, waiter);
        self.next
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
            shelf.held.retain(|place| {
                let still = leases.contains_key(place);
                if !still {
                    acts.push(Act::Unmap(*place));
                }
                still
            });
            acts
        };
        self.run(acts);
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
        self.lent.lock().get(&object).map(|lent| lent.object.clone())
    }

    fn act(&self, act: Act) {
        match act {
            Act::Recall { to, place, serial, keep } => self.recall(to, place, serial, keep),
            Act::Unmap(place) => self.withdraw(place),
            Act::Grant { to, ticket, place, serial, write } => {
                let waiter = self.exchange.shelf.lock().waiting.remove(&ticket);
                let Some(Waiter::Peer(answer)) = waiter else { return };
                self.send_copy(answer, to, place, serial, write);
            }
            Act::Let(ticket) => {
                let completer = {
                    let mut shelf = self.exchange.shelf.lock();
                    let Some(Waiter::Home(place, write, completer)) = shelf.waiting.remove(&ticket) else { return };
                    shelf.leases.insert(place, (write, self.links.now() + HOLD));
                    completer
                };
                drop(completer.complete(done(())));
            }
            Act::Refuse(want) => {
                let waiter = self.exchange.shelf.lock().waiting.remove(&want.ticket);
                match waiter {
                    // It is looked at anew.
                    Some(Waiter::Peer(answer)) => self.links.refuse(answer, Errno::EAGAIN),
                    Some(Waiter::Home(_, _, completer)) => drop(completer.complete(done(()))),
                    None => {}
                }
            }
        }
    }

    fn recall(&self, to: KernelId, place: Place, serial: u64, keep: bool) {
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
            service.store(place, to, serial, &bytes);
            let mut acts = Vec::new();
            service.exchange.shelf.lock().copies.returned(place, to, serial, keeps, &mut acts);
            service.run(acts);
        });
        let message = MemoryRecall { index: place.1, serial, keep: u8::from(keep) };
        self.links.request(to_wire(to), object_to_wire(place.0), &message, &[], u64::MAX, then);
    }

    /// What a holder wrote goes into the home's frame, if it is the one who could.
    fn store(&self, place: Place, from: KernelId, serial: u64, bytes: &[u8]) {
        if bytes.len() != PAGE_SIZE || !self.exchange.shelf.lock().copies.is_writer(place, from, serial) {
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
    fn withdraw(&self, place: Place) {
        let due = {
            let mut shelf = self.exchange.shelf.lock();
            let due = shelf.leases.get(&place).map(|(_, until)| *until).filter(|until| self.links.now() < *until);
            if due.is_some() {
                shelf.held.push(place);
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
            service.exchange.shelf.lock().copies.unmapped(place, &mut acts);
            service.run(acts);
        });
    }

    fn send_copy(&self, answer: AnswerTo, to: KernelId, place: Place, serial: u64, write: bool) {
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
                    service.exchange.shelf.lock().copies.gave_back(place, to, serial);
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
            let ticket = shelf.ticket(Waiter::Peer(to));
            let want = Want { peer: Some(peer), ticket, write: fetch.write != 0 };
            shelf.copies.want((object, fetch.index), want, &mut acts);
        }
        self.run(acts);
        Ok(())
    }

    /// A holder gives a copy back by itself.
    pub(crate) fn gave_back(&self, object: ObjectId, from: KernelId, back: &MemoryGaveBack, bytes: &[u8]) {
        let place = (object, back.index);
        self.store(place, from, back.serial, bytes);
        self.exchange.shelf.lock().copies.gave_back(place, from, back.serial);
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
            loan.borrowed.ask()
        };
        if ask {
            let service = self.me.clone();
            let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
                if let Some(service) = service.upgrade() {
                    service.take_copy(home, place, answer);
                }
            });
            let message = MemoryFetch { index: place.1, write: u8::from(write) };
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
        let (waiting, result) = {
            let mut loans = self.exchange.loans.lock();
            let loan = loans.entry(place).or_default();
            let waiting = core::mem::take(&mut loan.waiting);
            let result = match taken {
                Ok((serial, ..)) if serial <= loan.void => {
                    loan.borrowed.refused();
                    Ok(())
                }
                Ok((serial, write, Ok(frame), _)) => {
                    loan.borrowed.granted(serial, write);
                    (loan.frame, loan.since) = (Some(frame), self.links.now());
                    if !mapped {
                        back = loan.take_back();
                    } else if loan.recall.is_some() {
                        self.look_at(loan.since + HOLD);
                    }
                    Ok(())
                }
                // No frame for it.
                Ok((serial, write, Err(error), bytes)) => {
                    loan.borrowed.granted(serial, write);
                    let _ = loan.borrowed.give_back();
                    back = Some((serial, if write { bytes } else { Vec::new() }));
                    Err(error)
                }
                Err(error) => {
                    loan.borrowed.refused();
                    // The page was cut off, or comes from elsewhere just now.
                    if error == Errno::EAGAIN { Ok(()) } else { Err(error) }
                }
            };
            if loan.borrowed.is_nothing() && loan.recall.is_none() {
                loans.remove(&place);
            }
            (waiting, result)
        };
        if let Some((serial, bytes)) = back {
            self.send_back(home, place, serial, &bytes);
        }
        for completer in waiting {
            drop(completer.complete(result.map(|()| Try::WouldBlock)));
        }
    }

    fn send_back(&self, home: KernelId, place: Place, serial: u64, bytes: &[u8]) {
        // If its home is dead there is nothing to give back to.
        let _ =
            self.links.send(to_wire(home), object_to_wire(place.0), &MemoryGaveBack { index: place.1, serial }, bytes);
    }

    /// The home wants a copy back.
    pub(crate) fn recalled(&self, to: AnswerTo, place: Place, recall: &MemoryRecall) {
        let due = {
            let mut loans = self.exchange.loans.lock();
            let Some(loan) = loans.get_mut(&place) else {
                drop(loans);
                let _ = self.links.answer(to, &MemoryRecalled { keeps: 0 }, &[]);
                return;
            };
            loan.recall = Some((recall.serial, recall.keep != 0, to));
            loan.due(recall.serial)
        };
        match due {
            Some(due) if due > self.links.now() => self.look_at(due),
            Some(_) => self.give_back_recalled(place),
            None => {}
        }
    }

    /// Gives back what is recalled: nobody here reaches it any more when it is answered.
    fn give_back_recalled(&self, place: Place) {
        let (to, answer, frame) = {
            let mut loans = self.exchange.loans.lock();
            let Some(loan) = loans.get_mut(&place) else { return };
            let Some((serial, keep, to)) = loan.recall.take() else { return };
            let answer = loan.borrowed.recalled(serial, keep);
            if answer == Answer::Later {
                loan.recall = Some((serial, keep, to));
                return;
            }
            (to, answer, loan.frame.clone())
        };
        let Answer::Back { written, keeps, .. } = answer else { return };
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
        let mut answers = Vec::new();
        {
            let mut loans = self.exchange.loans.lock();
            for (_, loan) in loans.range_mut((object, pages.start)..(object, pages.end.max(pages.start))) {
                loan.void = loan.void.max(serial);
                if loan.borrowed.is_good(false) {
                    let _ = loan.borrowed.give_back();
                    loan.frame = None;
                }
                answers.extend(loan.recall.take().map(|(_, _, to)| to));
            }
            loans.retain(|(of, _), loan| *of != object || !loan.borrowed.is_nothing());
        }
        for to in answers {
            let _ = self.links.answer(to, &MemoryRecalled { keeps: 0 }, &[]);
        }
    }

    /// The last mapping of an object is gone: all copies go back.
    pub(crate) fn give_back_copies(&self, home: KernelId, object: ObjectId) {
        let back: Vec<(Place, u64, Vec<u8>)> = {
            let mut loans = self.exchange.loans.lock();
            let of = loans.range_mut((object, 0)..=(object, u64::MAX));
            let back = of
                .filter_map(|(place, loan)| loan.take_back().map(|(serial, bytes)| (*place, serial, bytes)))
                .collect();
            loans.retain(|(of, _), loan| *of != object || !loan.borrowed.is_nothing() || loan.recall.is_some());
            back
        };
        for (place, serial, bytes) in back {
            self.send_back(home, place, serial, &bytes);
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
    /// When what is recalled by this number is given back; `None`: when it has come.
    fn due(&self, serial: u64) -> Option<u64> {
        let mut borrowed = self.borrowed;
        if borrowed.recalled(serial, false) == Answer::Later { None } else { Some(self.since + HOLD) }
    }

    /// The copy goes: its number, and its bytes if it could be written.
    fn take_back(&mut self) -> Option<(u64, Vec<u8>)> {
        let (serial, written) = self.borrowed.give_back()?;
        let frame = self.frame.take()?;
        let mut bytes = Vec::new();
        if written {
            bytes.resize(PAGE_SIZE, 0);
            frame.read(0, &mut bytes);
        }
        Some((serial, bytes))
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
