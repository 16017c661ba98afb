//! Pages between kernels that do not see each other's memory: many readers or one writer. The home's side, without I/O.
//!
//! The home has a frame of every page, and lends copies. While anybody has a copy to read, nobody writes, the home neither; while one has the copy to
//! write, the home's frame is old and nobody else has one. Whoever wants a page waits in its queue; one wish at a time is fulfilled:
//!
//! * *Recall*: who has a copy in the way gives it back, or keeps it for reading only. A writer sends what it has written with its answer.
//! * *Unmap*: the home's own spaces let go of the page; they ask again.
//! * *Grant*: the bytes go to a peer. *Let*: the home goes on itself.
//!
//! A copy is recalled by the name that its holder gave to the wish it came of. So the holder always knows whether it has the copy, has given it back before, or will get it: then
//! it answers when it has come. What it gives back by itself comes before its answer to a recall of that. So it does not matter how recalls and grants overtake each other.
//! What is cut off an object is named by the home's number of the grant, since it is not of one wish.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};
use core::ops::Range;

use base::{KernelId, ObjectId};

/// What somebody calls its wish for a page, and the copy that comes of it; never used again.
pub type Wish = u64;

/// A page of an object.
pub type Place = (ObjectId, u64);

/// Who wants a page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Want {
    /// A peer; none: the home itself.
    pub peer: Option<KernelId>,
    /// What it calls it.
    pub wish: Wish,
    /// To write it.
    pub write: bool,
}

/// What is to be done, in order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Act {
    /// Tell a holder to give the copy of a wish back; [`Copies::returned`] when it has answered. `keep`: it may go on reading it.
    Recall {
        /// Whom.
        to: KernelId,
        /// Which page.
        place: Place,
        /// Which copy.
        wish: Wish,
        /// As a copy to read.
        keep: bool,
    },
    /// Take the page out of the home's own page tables; then [`Copies::unmapped`] with this number.
    Unmap(Place, u64),
    /// Send the bytes of the page, as they are now.
    Grant {
        /// To whom.
        to: KernelId,
        /// Which wish that answers.
        wish: Wish,
        /// Which page.
        place: Place,
        /// The number of the grant.
        serial: u64,
        /// It may be written.
        write: bool,
    },
    /// The home may do what it wanted.
    Let(Wish),
    /// The page is not there any more: the wish is refused.
    Refuse(Want),
}

/// What the first wish of a queue waits for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Busy {
    No,
    /// For holders: their copies.
    Recalled(BTreeMap<KernelId, Wish>),
    /// For this unmapping; one for what has been cut off since is not meant.
    Unmapping(u64),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Page {
    /// Who has a copy to read, and which.
    readers: BTreeMap<KernelId, Wish>,
    writer: Option<(KernelId, Wish)>,
    /// The home's spaces may map it (for reading, if there are readers).
    mapped: bool,
    busy: Busy,
    queue: VecDeque<Want>,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Copies {
    pages: BTreeMap<Place, Page>,
    /// Counts grants and unmappings.
    serial: u64,
}

impl Page {
    fn new() -> Self {
        Self { readers: BTreeMap::new(), writer: None, mapped: true, busy: Busy::No, queue: VecDeque::new() }
    }

    /// Nobody has a copy and nobody wants one: as if it had never been lent.
    fn is_home(&self) -> bool {
        self.readers.is_empty() && self.writer.is_none() && self.queue.is_empty() && self.busy == Busy::No
    }

    /// Whose copies must be given back before a wish can be fulfilled.
    fn in_the_way(&self, want: &Want) -> BTreeMap<KernelId, Wish> {
        let mut others: BTreeMap<KernelId, Wish> = self.writer.into_iter().collect();
        if want.write {
            // Who reads and is going to write is given the bytes anew; it need not give back what it has.
            others.extend(self.readers.iter().filter(|(reader, _)| want.peer != Some(**reader)));
        }
        others
    }
}

impl Copies {
    /// Whether the home may use a page as it is, without a wish.
    pub fn is_free(&self, place: Place, write: bool) -> bool {
        self.pages
            .get(&place)
            .is_none_or(|page| !write && page.writer.is_none() && page.busy == Busy::No && page.queue.is_empty())
    }

    /// Whether a holder has the newest content of a page, by this copy: what it sends goes into the home's frame.
    pub fn is_writer(&self, place: Place, kernel: KernelId, wish: Wish) -> bool {
        self.pages.get(&place).is_some_and(|page| page.writer == Some((kernel, wish)))
    }

    /// Whether anything of an object is lent or wanted.
    pub fn has(&self, object: ObjectId) -> bool {
        self.pages.range((object, 0)..=(object, u64::MAX)).next().is_some()
    }

    /// The number of the newest grant or unmapping.
    pub const fn serial(&self) -> u64 {
        self.serial
    }

    /// Who has copies of pages.
    pub fn holders(&self, object: ObjectId, pages: Range<u64>) -> BTreeSet<KernelId> {
        let lent = self.pages.range((object, pages.start)..(object, pages.end.max(pages.start)));
        lent.flat_map(|(_, page)| page.readers.keys().copied().chain(page.writer.map(|(writer, _)| writer))).collect()
    }

    /// Somebody wants a page.
    pub fn want(&mut self, place: Place, want: Want, out: &mut Vec<Act>) {
        let page = self.pages.entry(place).or_insert_with(Page::new);
        page.queue.push_back(want);
        self.run(place, out);
    }

    /// The home's spaces have let go of a page, as they were told by this number.
    pub fn unmapped(&mut self, place: Place, number: u64, out: &mut Vec<Act>) {
        if let Some(page) = self.pages.get_mut(&place).filter(|page| page.busy == Busy::Unmapping(number)) {
            (page.busy, page.mapped) = (Busy::No, false);
            self.run(place, out);
        }
    }

    /// A holder has answered a recall, and what it had written is in the home's frame. `keeps`: it goes on reading.
    pub fn returned(&mut self, place: Place, from: KernelId, wish: Wish, keeps: bool, out: &mut Vec<Act>) {
        let Some(page) = self.pages.get_mut(&place) else { return };
        let Busy::Recalled(waiting) = &mut page.busy else { return };
        if waiting.get(&from) != Some(&wish) {
            return;
        }
        waiting.remove(&from);
        let done = waiting.is_empty();
        page.readers.remove(&from);
        if page.writer == Some((from, wish)) {
            page.writer = None;
        }
        if keeps {
            page.readers.insert(from, wish);
        }
        if done {
            page.busy = Busy::No;
            self.run(place, out);
        }
    }

    /// A holder gives a copy back by itself, and what it had written is in the home's frame. If it is being recalled the answer still comes.
    pub fn gave_back(&mut self, place: Place, from: KernelId, wish: Wish) {
        let Some(page) = self.pages.get_mut(&place) else { return };
        if page.readers.get(&from) == Some(&wish) {
            page.readers.remove(&from);
        }
        if page.writer == Some((from, wish)) {
            // The frame is what it was when it was lent, or newer: the home may have it again.
            (page.writer, page.mapped) = (None, true);
        }
        if page.is_home() {
            self.pages.remove(&place);
        }
    }

    /// A kernel is dead and stopped, or cannot be heard any more. The pages whose newest content it had: what it wrote is lost.
    pub fn down(&mut self, dead: KernelId, out: &mut Vec<Act>) -> Vec<Place> {
        let mut lost = Vec::new();
        let places: Vec<Place> = self.pages.keys().copied().collect();
        for place in places {
            let Some(page) = self.pages.get_mut(&place) else { continue };
            page.readers.remove(&dead);
            if page.writer.is_some_and(|(writer, _)| writer == dead) {
                page.writer = None;
                lost.push(place);
            }
            // The first wish is looked at anew if it was the dead kernel's, or waited for it.
            let first = page.queue.front().copied();
            page.queue.retain(|want| want.peer != Some(dead));
            let gone = page.queue.front().copied() != first;
            if let Busy::Recalled(waiting) = &mut page.busy {
                waiting.remove(&dead);
                if waiting.is_empty() {
                    page.busy = Busy::No;
                }
            }
            if gone && matches!(page.busy, Busy::Unmapping(_)) {
                // It ends by itself, and the next wish needs it too or does no harm.
                continue;
            }
            self.run(place, out);
        }
        lost
    }

    /// Pages are cut off their object: nobody gets them any more.
    pub fn cut(&mut self, object: ObjectId, pages: Range<u64>, out: &mut Vec<Act>) {
        let mut gone = self.pages.split_off(&(object, pages.start));
        self.pages.append(&mut gone.split_off(&(object, pages.end.max(pages.start))));
        out.extend(gone.into_values().flat_map(|page| page.queue).map(Act::Refuse));
    }

    /// Fulfils wishes as far as that goes.
    fn run(&mut self, place: Place, out: &mut Vec<Act>) {
        let Some(page) = self.pages.get_mut(&place) else { return };
        while page.busy == Busy::No
            && let Some(want) = page.queue.front().copied()
        {
            let others = page.in_the_way(&want);
            if !others.is_empty() {
                for (to, wish) in &others {
                    // Only a writer's copy is in the way of who wants to read.
                    let keep = !want.write && want.peer != Some(*to);
                    out.push(Act::Recall { to: *to, place, wish: *wish, keep });
                }
                page.busy = Busy::Recalled(others);
                return;
            }
            let fresh = page.readers.is_empty();
            if want.peer.is_some() && page.mapped && (want.write || fresh) {
                self.serial += 1;
                out.push(Act::Unmap(place, self.serial));
                page.busy = Busy::Unmapping(self.serial);
                return;
            }
            page.queue.pop_front();
            let Some(to) = want.peer else {
                page.mapped = true;
                out.push(Act::Let(want.wish));
                continue;
            };
            self.serial += 1;
            let serial = self.serial;
            page.readers.remove(&to);
            if want.write {
                page.writer = Some((to, want.wish));
            } else {
                page.readers.insert(to, want.wish);
            }
            // While others only read, the home reads too.
            page.mapped = !want.write;
            out.push(Act::Grant { to, wish: want.wish, place, serial, write: want.write });
        }
        if page.busy == Busy::No && page.queue.is_empty() && page.writer.is_none() {
            // Nobody is waited for and nobody writes: the home may read, without a word.
            page.mapped = true;
        }
        if page.is_home() {
            self.pages.remove(&place);
        }
    }
}
