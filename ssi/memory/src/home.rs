//! The home's side: which pages of its objects were granted to which kernels, and what is being taken back. No I/O.
//!
//! The directory holds a reference to every frame that it granted, so a frame outlives its place in the object until the last holder has let go.
//! `F` is such a reference; it is given back where no lock is held.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::ops::Range;

use base::{KernelId, ObjectId};

#[derive(Debug)]
struct Page<F> {
    frame: F,
    /// The number of the last grant to each.
    holders: BTreeMap<KernelId, u64>,
}

#[derive(Debug)]
struct Object<F> {
    /// How often each holder opened it.
    opens: BTreeMap<KernelId, u32>,
    /// By index and the number of the first grant: while a page is cut off and made anew, holders may still have the old frame.
    pages: BTreeMap<(u64, u64), Page<F>>,
}

#[derive(Debug)]
struct Revocation<F> {
    waiting: BTreeSet<KernelId>,
    /// What the holders that are waited for may still map.
    frames: Vec<(F, BTreeSet<KernelId>)>,
}

/// What a release led to.
#[derive(Debug)]
pub struct Released<F> {
    /// The holder has given all its opens back.
    pub closed: bool,
    /// References that the directory gives up.
    pub frames: Vec<F>,
}

/// What is to be revoked: tell each of `ask` the number, and then [`Home::acknowledged`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Revoke {
    /// Names the revocation here.
    pub id: u64,
    /// Grants with a higher number are not meant.
    pub serial: u64,
    /// The holders.
    pub ask: Vec<KernelId>,
}

/// What the death of a holder led to.
#[derive(Debug)]
pub struct Down<F> {
    /// Objects that it had open.
    pub closed: Vec<ObjectId>,
    /// Revocations that waited for it only.
    pub ended: Vec<u64>,
    /// References that the directory gives up.
    pub frames: Vec<F>,
}

/// See the module.
#[derive(Debug)]
pub struct Home<F> {
    objects: BTreeMap<ObjectId, Object<F>>,
    revocations: BTreeMap<u64, Revocation<F>>,
    serial: u64,
    /// Frames that a kernel may still write which nobody could stop. Never used again.
    quarantine: Vec<F>,
}

impl<F> Default for Home<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F> Home<F> {
    /// Nothing is granted.
    pub const fn new() -> Self {
        Self { objects: BTreeMap::new(), revocations: BTreeMap::new(), serial: 0, quarantine: Vec::new() }
    }

    /// A kernel opens an object: pages of it can be granted to it.
    pub fn open(&mut self, object: ObjectId, holder: KernelId) {
        let entry =
            self.objects.entry(object).or_insert_with(|| Object { opens: BTreeMap::new(), pages: BTreeMap::new() });
        let opens = entry.opens.entry(holder).or_insert(0);
        *opens = opens.saturating_add(1);
    }

    /// Whether a kernel has an object open.
    pub fn is_open(&self, object: ObjectId, holder: KernelId) -> bool {
        self.objects.get(&object).is_some_and(|entry| entry.opens.contains_key(&holder))
    }

    /// Records a grant; its number, or `None` if the kernel has not opened the object. The caller checks afterwards that the object still has
    /// these frames, and does not tell the holder of those that it has lost meanwhile: no revocation will come for them. (The directory keeps them until
    /// the next release; the holder may have them from an earlier grant.) References that the directory has already come back.
    pub fn grant(&mut self, object: ObjectId, holder: KernelId, pages: Vec<(u64, F)>) -> Option<(u64, Vec<F>)>
    where
        F: PartialEq,
    {
        let entry = self.objects.get_mut(&object).filter(|entry| entry.opens.contains_key(&holder))?;
        self.serial += 1;
        let serial = self.serial;
        let mut spare = Vec::new();
        for (index, frame) in pages {
            let mut known = entry.pages.range_mut((index, 0)..=(index, u64::MAX)).map(|(_, page)| page);
            if let Some(page) = known.find(|page| page.frame == frame) {
                page.holders.insert(holder, serial);
                spare.push(frame);
            } else {
                entry.pages.insert((index, serial), Page { frame, holders: BTreeMap::from([(holder, serial)]) });
            }
        }
        Some((serial, spare))
    }

    /// A holder maps nothing any more that was granted up to `serial`, and gives back `opens` of its opens.
    pub fn release(&mut self, object: ObjectId, holder: KernelId, serial: u64, opens: u32) -> Released<F> {
        let mut frames = Vec::new();
        let mut closed = false;
        if let Some(entry) = self.objects.get_mut(&object) {
            entry.forget(holder, serial, &mut frames);
            if let Some(open) = entry.opens.get_mut(&holder) {
                *open = open.saturating_sub(opens);
                if *open == 0 {
                    entry.opens.remove(&holder);
                    closed = true;
                }
            }
            if entry.opens.is_empty() && entry.pages.is_empty() {
                self.objects.remove(&object);
            }
        }
        Released { closed, frames }
    }

    /// Begins to take the pages of `range` back from all holders. `None` if nobody has any.
    pub fn revoke(&mut self, object: ObjectId, range: Range<u64>) -> Option<Revoke> {
        let entry = self.objects.get_mut(&object)?;
        let mut taken = entry.pages.split_off(&(range.start, 0));
        entry.pages.append(&mut taken.split_off(&(range.end.max(range.start), 0)));
        if taken.is_empty() {
            return None;
        }
        let mut waiting = BTreeSet::new();
        let mut frames = Vec::new();
        for (_, page) in taken {
            let holders: BTreeSet<KernelId> = page.holders.into_keys().collect();
            waiting.extend(&holders);
            frames.push((page.frame, holders));
        }
        self.serial += 1;
        let (id, ask) = (self.serial, waiting.iter().copied().collect());
        self.revocations.insert(id, Revocation { waiting, frames });
        Some(Revoke { id, serial: id, ask })
    }

    /// A holder has unmapped what it was told. The frames, when it was the last.
    pub fn acknowledged(&mut self, id: u64, holder: KernelId) -> Option<Vec<F>> {
        let revocation = self.revocations.get_mut(&id)?;
        if !revocation.waiting.remove(&holder) || !revocation.waiting.is_empty() {
            return None;
        }
        let ended = self.revocations.remove(&id)?;
        Some(ended.frames.into_iter().map(|(frame, _)| frame).collect())
    }

    /// A kernel died and was stopped. `lost`: it could not be stopped, and may go on writing what it was granted.
    pub fn down(&mut self, dead: KernelId, lost: bool) -> Down<F>
    where
        F: Clone,
    {
        let mut down = Down { closed: Vec::new(), ended: Vec::new(), frames: Vec::new() };
        for (object, entry) in &mut self.objects {
            if lost {
                let held = entry.pages.values().filter(|page| page.holders.contains_key(&dead));
                self.quarantine.extend(held.map(|page| page.frame.clone()));
            }
            entry.forget(dead, u64::MAX, &mut down.frames);
            if entry.opens.remove(&dead).is_some() {
                down.closed.push(*object);
            }
        }
        self.objects.retain(|_, entry| !entry.opens.is_empty() || !entry.pages.is_empty());
        for (id, revocation) in &mut self.revocations {
            if lost {
                let held = revocation.frames.iter().filter(|(_, holders)| holders.contains(&dead));
                self.quarantine.extend(held.map(|(frame, _)| frame.clone()));
            }
            if revocation.waiting.remove(&dead) && revocation.waiting.is_empty() {
                down.ended.push(*id);
            }
        }
        for id in &down.ended {
            if let Some(ended) = self.revocations.remove(id) {
                down.frames.extend(ended.frames.into_iter().map(|(frame, _)| frame));
            }
        }
        down
    }

    /// How many pages are granted, over all objects.
    pub fn granted(&self) -> usize {
        self.objects.values().map(|entry| entry.pages.len()).sum()
    }

    /// How many revocations are under way.
    pub fn revoking(&self) -> usize {
        self.revocations.len()
    }

    /// How many frames can never be used again.
    pub fn quarantined(&self) -> usize {
        self.quarantine.len()
    }

    /// Whether the directory keeps a frame for a holder: granted, or on its way back.
    pub fn keeps(&self, holder: KernelId, frame: &F) -> bool
    where
        F: PartialEq,
    {
        let granted = |page: &Page<F>| page.frame == *frame && page.holders.contains_key(&holder);
        let revoked = |r: &Revocation<F>| {
            r.waiting.contains(&holder) && r.frames.iter().any(|(f, holders)| f == frame && holders.contains(&holder))
        };
        self.objects.values().any(|entry| entry.pages.values().any(granted)) || self.revocations.values().any(revoked)
    }

    /// References of the directory, wherever they are: granted, being revoked, in quarantine.
    pub fn frames(&self) -> impl Iterator<Item = &F> {
        let granted = self.objects.values().flat_map(|entry| entry.pages.values().map(|page| &page.frame));
        let revoking = self.revocations.values().flat_map(|r| r.frames.iter().map(|(frame, _)| frame));
        granted.chain(revoking).chain(&self.quarantine)
    }
}

impl<F> Object<F> {
    /// Forgets what a holder was granted up to `serial`.
    fn forget(&mut self, holder: KernelId, serial: u64, frames: &mut Vec<F>) {
        let mut empty = Vec::new();
        for (index, page) in &mut self.pages {
            if page.holders.get(&holder).is_some_and(|granted| *granted <= serial) {
                page.holders.remove(&holder);
                if page.holders.is_empty() {
                    empty.push(*index);
                }
            }
        }
        frames.extend(empty.iter().filter_map(|index| self.pages.remove(index)).map(|page| page.frame));
    }
}

#[cfg(test)]
mod tests {
    use alloc::{rc::Rc, vec, vec::Vec};

    use base::{KernelId, ObjectId};

    use super::Home;

    const HOME: KernelId = KernelId { index: 0, incarnation: 1 };
    const A: KernelId = KernelId { index: 1, incarnation: 1 };
    const B: KernelId = KernelId { index: 2, incarnation: 1 };
    const X: ObjectId = ObjectId { birth: HOME, serial: 7 };

    /// An object that two kernels have open, and a frame of it granted to both.
    fn granted() -> (Home<Rc<()>>, Rc<()>) {
        let (mut home, frame) = (Home::new(), Rc::new(()));
        home.open(X, A);
        home.open(X, B);
        home.grant(X, A, vec![(3, frame.clone())]).unwrap();
        home.grant(X, B, vec![(3, frame.clone())]).unwrap();
        (home, frame)
    }

    #[test]
    fn a_frame_is_kept_until_every_holder_answered() {
        let (mut home, frame) = granted();
        let revoke = home.revoke(X, 3..4).unwrap();
        assert_eq!(revoke.ask, [A, B]);
        assert!(home.revoke(X, 0..9).is_none(), "it is on its way back already");
        assert!(home.acknowledged(revoke.id, A).is_none());
        assert!(home.acknowledged(revoke.id, A).is_none(), "an answer counts once");
        assert_eq!(Rc::strong_count(&frame), 2);
        assert_eq!(home.acknowledged(revoke.id, B).map(|frames| frames.len()), Some(1));
        assert_eq!((Rc::strong_count(&frame), home.revoking()), (1, 0));
    }

    #[test]
    fn death_is_an_answer_unless_nobody_could_stop_it() {
        let (mut home, frame) = granted();
        let revoke = home.revoke(X, 0..9).unwrap();
        assert!(home.acknowledged(revoke.id, A).is_none());
        let down = home.down(B, false);
        assert_eq!((down.closed, down.ended), (vec![X], vec![revoke.id]));
        drop(down.frames);
        assert_eq!(Rc::strong_count(&frame), 1);
        let (mut home, frame) = granted();
        drop(home.down(B, true));
        drop(home.release(X, A, u64::MAX, 1));
        assert_eq!((Rc::strong_count(&frame), home.quarantined(), home.granted()), (2, 1, 0));
    }

    #[test]
    fn a_release_leaves_what_was_granted_since() {
        let (mut home, frame) = granted();
        let (serial, spare) = home.grant(X, A, vec![(3, frame.clone()), (4, frame.clone())]).unwrap();
        drop(spare);
        assert!(!home.release(X, A, serial - 1, 0).closed);
        assert_eq!(home.granted(), 2);
        let released = home.release(X, A, serial, 1);
        assert!(released.closed && released.frames.len() == 1);
        assert!(home.grant(X, A, Vec::new()).is_none(), "it is closed");
        assert!(home.release(X, B, u64::MAX, 1).closed);
        drop(released);
        assert_eq!((Rc::strong_count(&frame), home.granted()), (1, 0));
    }
}
