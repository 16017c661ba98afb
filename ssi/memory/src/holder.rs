//! The holder's side: which pages of other kernels' objects this kernel was granted. No I/O.
//!
//! Grants, revocations and releases carry numbers of the home, so they mean the same in whatever order they are handled: a grant that is older than a
//! revocation or a release that was handled before it is dropped. What was handled is remembered while a grant can be on its way.

use alloc::{collections::BTreeMap, vec::Vec};
use core::ops::Range;

use base::{KernelId, ObjectId};

#[derive(Clone, Copy, Debug)]
struct Page<P> {
    place: P,
    writable: bool,
    serial: u64,
}

#[derive(Debug)]
struct Held<P> {
    home: KernelId,
    dead: bool,
    /// Opens that were answered and not given back.
    opens: u32,
    /// Mappings in spaces of this kernel.
    mapped: u32,
    pages: BTreeMap<u64, Page<P>>,
    /// Requests for pages that were not answered yet.
    asking: u32,
    /// The highest number that was seen.
    seen: u64,
    /// What was taken back or released while a grant may be on its way: pages, and up to which number.
    gone: Vec<(Range<u64>, u64)>,
}

/// What to give back to a home: a message, and nothing to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Release {
    /// Where.
    pub home: KernelId,
    /// Grants up to this number.
    pub serial: u64,
    /// Opens.
    pub opens: u32,
}

/// What this kernel has of a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Have<P> {
    /// It was granted.
    Here {
        /// Where it is.
        place: P,
        /// Whether it may be written.
        writable: bool,
    },
    /// Ask the home, and then say how that ended: [`Holder::granted`] or [`Holder::refused`].
    Ask(KernelId),
    /// The home died.
    Dead,
}

/// See the module.
#[derive(Debug)]
pub struct Holder<P> {
    objects: BTreeMap<ObjectId, Held<P>>,
}

impl<P> Default for Holder<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> Holder<P> {
    /// Nothing is held.
    pub const fn new() -> Self {
        Self { objects: BTreeMap::new() }
    }

    /// An open was answered.
    pub fn opened(&mut self, object: ObjectId, home: KernelId) {
        let held = self.objects.entry(object).or_insert_with(|| Held {
            home,
            dead: false,
            opens: 0,
            mapped: 0,
            pages: BTreeMap::new(),
            asking: 0,
            seen: 0,
            gone: Vec::new(),
        });
        held.opens = held.opens.saturating_add(1);
    }

    /// A space is going to map pages of the object.
    pub fn attach(&mut self, object: ObjectId) {
        if let Some(held) = self.objects.get_mut(&object) {
            held.mapped += 1;
        }
    }

    /// A mapping is gone. After the last one everything goes back that was granted; nothing of it is in a page table any more.
    pub fn detach(&mut self, object: ObjectId) -> Option<Release> {
        let held = self.objects.get_mut(&object)?;
        held.mapped = held.mapped.saturating_sub(1);
        (held.mapped == 0).then(|| held.release()).flatten()
    }

    /// Somebody who opened the object `opens` times is gone. Others may have opened it since.
    pub fn close(&mut self, object: ObjectId, opens: u32) -> Option<Release> {
        let held = self.objects.get_mut(&object)?;
        let opens = opens.min(held.opens);
        held.opens -= opens;
        let serial = if held.mapped == 0 { held.release().map_or(0, |release| release.serial) } else { 0 };
        let release = Release { home: held.home, serial, opens };
        let (dead, home) = (held.dead, held.home);
        self.tidy(object);
        (!dead && release.opens > 0).then_some(Release { home, ..release })
    }

    /// Where an object is at home; `None` if it is not held or its home is dead.
    pub fn home(&self, object: ObjectId) -> Option<KernelId> {
        self.objects.get(&object).filter(|held| !held.dead).map(|held| held.home)
    }

    /// What is had of a page for an access.
    pub fn page(&mut self, object: ObjectId, index: u64, write: bool) -> Have<P>
    where
        P: Copy,
    {
        let Some(held) = self.objects.get_mut(&object).filter(|held| !held.dead) else { return Have::Dead };
        match held.pages.get(&index) {
            Some(page) if page.writable || !write => Have::Here { place: page.place, writable: page.writable },
            _ => {
                held.asking += 1;
                Have::Ask(held.home)
            }
        }
    }

    /// The pages of a range that are here.
    pub fn resident(&self, object: ObjectId, range: Range<u64>, mut each: impl FnMut(u64, P, bool) -> bool)
    where
        P: Copy,
    {
        let Some(held) = self.objects.get(&object).filter(|_| range.start < range.end) else { return };
        for (index, page) in held.pages.range(range) {
            if !each(*index, page.place, page.writable) {
                return;
            }
        }
    }

    /// A grant came. What must go back at once, because nobody maps the object any more.
    pub fn granted(
        &mut self,
        object: ObjectId,
        home: KernelId,
        serial: u64,
        pages: impl IntoIterator<Item = (u64, P, bool)>,
    ) -> Option<Release> {
        let Some(held) = self.objects.get_mut(&object) else { return Some(Release { home, serial, opens: 0 }) };
        held.asking = held.asking.saturating_sub(1);
        held.seen = held.seen.max(serial);
        if !held.dead {
            for (index, place, writable) in pages {
                let gone = held.gone.iter().any(|(range, upto)| range.contains(&index) && serial <= *upto);
                let newer = held.pages.get(&index).is_some_and(|page| page.serial > serial);
                if !gone && !newer {
                    held.pages.insert(index, Page { place, writable, serial });
                }
            }
        }
        let back = if held.mapped == 0 { held.release() } else { None };
        self.tidy(object);
        back
    }

    /// A request for a page ended without a grant.
    pub fn refused(&mut self, object: ObjectId) {
        if let Some(held) = self.objects.get_mut(&object) {
            held.asking = held.asking.saturating_sub(1);
        }
        self.tidy(object);
    }

    /// The home takes pages back. They are not handed out from now on; the caller unmaps them, then answers.
    pub fn revoked(&mut self, object: ObjectId, range: Range<u64>, serial: u64) {
        let Some(held) = self.objects.get_mut(&object) else { return };
        held.pages.retain(|index, page| !range.contains(index) || page.serial > serial);
        held.seen = held.seen.max(serial);
        if held.asking > 0 {
            held.gone.push((range, serial));
        }
    }

    /// A kernel died: the objects that had their home there. Their pages are not handed out from now on; the caller unmaps them.
    pub fn home_down(&mut self, dead: KernelId) -> Vec<ObjectId> {
        let mut lost = Vec::new();
        for (object, held) in &mut self.objects {
            if held.home == dead && !held.dead {
                held.dead = true;
                held.pages.clear();
                lost.push(*object);
            }
        }
        lost
    }

    /// Objects that are known.
    pub fn objects(&self) -> impl Iterator<Item = ObjectId> + '_ {
        self.objects.keys().copied()
    }

    /// How many mappings of an object there are, for the simulator's checks.
    pub fn mapped(&self, object: ObjectId) -> u32 {
        self.objects.get(&object).map_or(0, |held| held.mapped)
    }

    /// How many pages are held, over all objects.
    pub fn pages(&self) -> usize {
        self.objects.values().map(|held| held.pages.len()).sum()
    }

    /// Requests that were not answered yet.
    pub fn asking(&self) -> usize {
        self.objects.values().map(|held| held.asking as usize).sum()
    }

    /// Forgets what is neither open nor on its way.
    fn tidy(&mut self, object: ObjectId) {
        if let Some(held) = self.objects.get_mut(&object) {
            if held.asking == 0 {
                held.gone.clear();
            }
            if held.asking == 0 && held.opens == 0 && held.mapped == 0 {
                self.objects.remove(&object);
            }
        }
    }
}

impl<P> Held<P> {
    /// Gives back all that was granted.
    fn release(&mut self) -> Option<Release> {
        if self.asking > 0 {
            self.gone.push((0..u64::MAX, self.seen));
        }
        let had = !core::mem::take(&mut self.pages).is_empty();
        (had && !self.dead).then_some(Release { home: self.home, serial: self.seen, opens: 0 })
    }
}

#[cfg(test)]
mod tests {
    use base::{KernelId, ObjectId};

    use super::{Have, Holder, Release};

    const HOME: KernelId = KernelId { index: 0, incarnation: 1 };
    const X: ObjectId = ObjectId { birth: HOME, serial: 7 };

    fn mapped() -> Holder<u64> {
        let mut holder = Holder::new();
        holder.opened(X, HOME);
        holder.attach(X);
        holder
    }

    #[test]
    fn a_page_is_asked_for_once_for_reading_and_once_for_writing() {
        let mut holder = mapped();
        assert_eq!(holder.page(X, 3, false), Have::Ask(HOME));
        assert_eq!(holder.granted(X, HOME, 1, [(3, 30, false)]), None);
        assert_eq!(holder.page(X, 3, false), Have::Here { place: 30, writable: false });
        assert_eq!(holder.page(X, 3, true), Have::Ask(HOME));
        assert_eq!(holder.granted(X, HOME, 2, [(3, 30, true)]), None);
        assert_eq!(holder.page(X, 3, true), Have::Here { place: 30, writable: true });
        assert_eq!(holder.detach(X), Some(Release { home: HOME, serial: 2, opens: 0 }));
        assert_eq!(holder.close(X, 1).map(|release| release.opens), Some(1));
        assert_eq!(holder.objects().count(), 0);
    }

    #[test]
    fn who_opens_anew_keeps_what_is_mapped() {
        let mut holder = mapped();
        holder.opened(X, HOME);
        assert_eq!(holder.page(X, 3, false), Have::Ask(HOME));
        assert_eq!(holder.granted(X, HOME, 1, [(3, 30, false)]), None);
        assert_eq!(holder.close(X, 1), Some(Release { home: HOME, serial: 0, opens: 1 }));
        assert_eq!(holder.page(X, 3, false), Have::Here { place: 30, writable: false });
    }

    #[test]
    fn a_grant_that_was_overtaken_is_dropped() {
        let mut holder = mapped();
        assert_eq!(holder.page(X, 3, false), Have::Ask(HOME));
        assert_eq!(holder.page(X, 4, false), Have::Ask(HOME));
        holder.revoked(X, 3..4, 2);
        holder.granted(X, HOME, 1, [(3, 30, true), (4, 40, true)]);
        assert_eq!(holder.page(X, 3, false), Have::Ask(HOME));
        assert_eq!(holder.page(X, 4, false), Have::Here { place: 40, writable: true });
        // The one that was granted since is another frame.
        holder.granted(X, HOME, 3, [(3, 31, true)]);
        holder.revoked(X, 3..4, 2);
        assert_eq!(holder.page(X, 3, false), Have::Here { place: 31, writable: true });
    }

    #[test]
    fn what_comes_for_nobody_goes_back() {
        let mut holder = mapped();
        assert_eq!(holder.page(X, 3, true), Have::Ask(HOME));
        assert_eq!(holder.detach(X), None);
        assert_eq!(holder.granted(X, HOME, 5, [(3, 30, true)]), Some(Release { home: HOME, serial: 5, opens: 0 }));
        assert_eq!(holder.pages(), 0);
        holder.attach(X);
        assert_eq!(holder.page(X, 3, true), Have::Ask(HOME));
        assert_eq!(holder.home_down(HOME), [X]);
        holder.refused(X);
        assert_eq!(holder.page(X, 3, true), Have::Dead);
        assert_eq!((holder.detach(X), holder.close(X, 1)), (None, None));
        assert_eq!(holder.objects().count(), 0);
    }
}
