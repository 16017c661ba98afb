//! The home's side: which kernels hold references to the objects of this kernel.

use alloc::{collections::BTreeMap, vec::Vec};

use base::{KernelId, ObjectId};

use crate::Refusal;

/// The grants of one object: how many references were sent to each holder and not yet given back.
pub type Grants = BTreeMap<KernelId, u32>;

/// What a drop of references led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lent {
    /// Other references remain.
    Still,
    /// No kernel holds a reference any more: the home may let go of its own.
    Nobody,
}

#[derive(Debug)]
enum State {
    /// Here, and served here.
    Home(Grants),
    /// Its state is on its way to the next home. Comes back if that kernel dies first.
    Leaving { to: KernelId, grants: Grants },
    /// It went: forward until every holder knows.
    Gone { to: KernelId, uninformed: Vec<KernelId> },
}

/// A reference that one holder asked for in the name of another: who passes it on, to whom, of what.
type Passed = (KernelId, KernelId, ObjectId);

/// What a death changes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fallout {
    /// Nobody holds a reference to these any more.
    pub free: Vec<ObjectId>,
    /// Kernels that may or may not have got references which the dead kernel passed on: ask them ([`Exports::settled`]).
    pub doubtful: Vec<KernelId>,
}

/// The references that other kernels hold to objects homed here.
///
/// A reference that goes from one holder to another is granted before it is sent, and noted as *passed* until the receiver says that it came
/// ([`Exports::received`]). If the passing kernel dies in between, only the receiver knows whether it did.
#[derive(Debug, Default)]
pub struct Exports {
    objects: BTreeMap<ObjectId, State>,
    passed: BTreeMap<Passed, u32>,
    /// The last incarnation that died, by index.
    dead: BTreeMap<u16, u32>,
}

impl Exports {
    /// No object is lent.
    pub const fn new() -> Self {
        Self { objects: BTreeMap::new(), passed: BTreeMap::new(), dead: BTreeMap::new() }
    }

    /// Notes that a reference to `object` is about to be sent to `holder`.
    ///
    /// # Errors
    /// [`Refusal::Dead`]: a message to it would be lost, and nobody would give the reference back.
    pub fn grant(&mut self, object: ObjectId, holder: KernelId) -> Result<(), Refusal> {
        if self.is_dead(holder) {
            return Err(Refusal::Dead);
        }
        match self.objects.entry(object).or_insert_with(|| State::Home(Grants::new())) {
            State::Home(grants) => {
                *grants.entry(holder).or_insert(0) += 1;
                Ok(())
            }
            State::Leaving { to, .. } => Err(Refusal::Leaving { home: *to }),
            State::Gone { to, .. } => Err(Refusal::Moved { home: *to }),
        }
    }

    /// Whether a request about `object` is to be served here.
    pub fn serve(&self, object: ObjectId) -> Result<(), Refusal> {
        match self.objects.get(&object) {
            Some(State::Home(_)) => Ok(()),
            Some(State::Leaving { to, .. }) => Err(Refusal::Leaving { home: *to }),
            Some(State::Gone { to, .. }) => Err(Refusal::Moved { home: *to }),
            None => Err(Refusal::Unknown),
        }
    }

    /// Whether that incarnation is known to be dead.
    pub fn is_dead(&self, kernel: KernelId) -> bool {
        self.dead.get(&kernel.index).is_some_and(|&last| kernel.incarnation <= last)
    }

    /// A holder asks for one more reference, to be sent to another kernel (the home itself may be that one). It holds one itself while it asks.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn grant_for(&mut self, object: ObjectId, asker: KernelId, holder: KernelId) -> Result<(), Refusal> {
        self.serve(object)?;
        if self.is_dead(holder) || self.is_dead(asker) {
            return Err(Refusal::Dead);
        }
        match self.objects.get_mut(&object) {
            Some(State::Home(grants)) if grants.contains_key(&asker) => {
                *grants.entry(holder).or_insert(0) += 1;
                *self.passed.entry((asker, holder, object)).or_insert(0) += 1;
                Ok(())
            }
            _ => Err(Refusal::Unknown),
        }
    }

    /// The home itself sends a reference that its receiver confirms ([`Exports::received`]), so that it can be taken back while that is open.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn pass(&mut self, object: ObjectId, me: KernelId, holder: KernelId) -> Result<(), Refusal> {
        self.grant(object, holder)?;
        *self.passed.entry((me, holder, object)).or_insert(0) += 1;
        Ok(())
    }

    fn unpass(&mut self, passed: Passed) -> bool {
        let Some(count) = self.passed.get_mut(&passed) else { return false };
        *count -= 1;
        if *count == 0 {
            self.passed.remove(&passed);
        }
        true
    }

    /// The holder got a reference that `via` asked for.
    pub fn received(&mut self, object: ObjectId, via: KernelId, holder: KernelId) {
        self.unpass((via, holder, object));
    }

    /// The asker could not send the reference that it asked for in the name of `holder`.
    ///
    /// # Errors
    /// [`Refusal`], if there is no such reference.
    pub fn unsent(&mut self, object: ObjectId, asker: KernelId, holder: KernelId) -> Result<Lent, Refusal> {
        if !self.unpass((asker, holder, object)) {
            return Err(Refusal::Unknown);
        }
        self.give_back(object, holder, 1)
    }

    /// `holder` has said all that it got through `dead`: the rest never came. Returns the objects that nobody else holds.
    pub fn settled(&mut self, dead: KernelId, holder: KernelId) -> Vec<ObjectId> {
        let mut free = Vec::new();
        let lost: Vec<_> = self.passed.iter().filter(|((via, to, _), _)| *via == dead && *to == holder).collect();
        let lost: Vec<(Passed, u32)> = lost.into_iter().map(|(key, count)| (*key, *count)).collect();
        for (key, count) in lost {
            self.passed.remove(&key);
            if self.give_back(key.2, holder, count) == Ok(Lent::Nobody) {
                free.push(key.2);
            }
        }
        free
    }

    /// References that are passed on and of which nobody has said yet that they came.
    pub fn on_their_way(&self) -> usize {
        self.passed.len()
    }

    /// A holder gives `count` references back. More than it has is a lie of the peer and counts as all it has.
    pub fn give_back(&mut self, object: ObjectId, holder: KernelId, count: u32) -> Result<Lent, Refusal> {
        self.serve(object)?;
        let Some(State::Home(grants)) = self.objects.get_mut(&object) else {
            return Err(Refusal::Unknown);
        };
        let Some(held) = grants.get_mut(&holder) else {
            return Err(Refusal::Unknown);
        };
        *held = held.saturating_sub(count);
        if *held == 0 {
            grants.remove(&holder);
        }
        if grants.is_empty() {
            self.objects.remove(&object);
            return Ok(Lent::Nobody);
        }
        Ok(Lent::Still)
    }

    /// Begins to move `object` to another home: from now on nothing is served here. Returns the grants, which travel with it.
    ///
    /// # Errors
    /// [`Refusal::Leaving`] here, at this kernel: a reference is being passed on, so it cannot go now.
    pub fn leave(&mut self, object: ObjectId, to: KernelId) -> Result<Grants, Refusal> {
        if let Some((via, ..)) = self.passed.keys().find(|(.., passed)| *passed == object) {
            return Err(Refusal::Leaving { home: *via });
        }
        match self.objects.remove(&object) {
            Some(State::Home(grants)) => {
                self.objects.insert(object, State::Leaving { to, grants: grants.clone() });
                Ok(grants)
            }
            // Lent to nobody: it can go without a word, but remember where, for requests made by name.
            None => {
                self.objects.insert(object, State::Leaving { to, grants: Grants::new() });
                Ok(Grants::new())
            }
            Some(other) => {
                let refusal = match &other {
                    State::Gone { to, .. } => Refusal::Moved { home: *to },
                    State::Leaving { to, .. } => Refusal::Leaving { home: *to },
                    State::Home(_) => Refusal::Unknown,
                };
                self.objects.insert(object, other);
                Err(refusal)
            }
        }
    }

    /// The next home took the object over. `me` needs not to be informed.
    pub fn left(&mut self, object: ObjectId, me: KernelId) {
        if let Some(State::Leaving { to, grants }) = self.objects.remove(&object) {
            let uninformed: Vec<_> = grants.into_keys().filter(|&holder| holder != to && holder != me).collect();
            if !uninformed.is_empty() {
                self.objects.insert(object, State::Gone { to, uninformed });
            }
        }
    }

    /// The next home refused: the object is served here again.
    pub fn stay(&mut self, object: ObjectId) {
        if let Some(State::Leaving { grants, .. }) = self.objects.remove(&object)
            && !grants.is_empty()
        {
            self.objects.insert(object, State::Home(grants));
        }
    }

    /// This kernel is the object's home from now on. Returns the holders to be told (all but itself and the old home).
    pub fn arrive(&mut self, object: ObjectId, grants: Grants, me: KernelId, old: KernelId) -> Vec<KernelId> {
        let tell = grants.keys().copied().filter(|&holder| holder != me && holder != old).collect();
        if grants.is_empty() {
            self.objects.remove(&object);
        } else {
            self.objects.insert(object, State::Home(grants));
        }
        tell
    }

    /// A holder has heard of the new home: the forwarder ends with the last.
    pub fn informed(&mut self, object: ObjectId, holder: KernelId) {
        if let Some(State::Gone { uninformed, .. }) = self.objects.get_mut(&object) {
            uninformed.retain(|&kernel| kernel != holder);
            if uninformed.is_empty() {
                self.objects.remove(&object);
            }
        }
    }

    /// A kernel died: its references are given back, objects on their way to it stay.
    pub fn peer_down(&mut self, dead: KernelId) -> Fallout {
        let last = self.dead.entry(dead.index).or_insert(dead.incarnation);
        *last = dead.incarnation.max(*last);
        self.passed.retain(|(_, holder, _), _| *holder != dead);
        let mut doubtful: Vec<_> = self.passed.keys().filter(|(via, ..)| *via == dead).map(|(_, to, _)| *to).collect();
        doubtful.dedup();
        Fallout { free: self.drop_holder(dead), doubtful }
    }

    fn drop_holder(&mut self, dead: KernelId) -> Vec<ObjectId> {
        let mut free = Vec::new();
        let mut back = Vec::new();
        for (&object, state) in &mut self.objects {
            match state {
                State::Home(grants) => {
                    if grants.remove(&dead).is_some() && grants.is_empty() {
                        free.push(object);
                    }
                }
                State::Leaving { to, .. } if *to == dead => back.push(object),
                State::Leaving { grants, .. } => {
                    grants.remove(&dead);
                }
                State::Gone { uninformed, .. } => uninformed.retain(|&kernel| kernel != dead),
            }
        }
        for object in back {
            self.stay(object);
            if let Some(State::Home(grants)) = self.objects.get_mut(&object)
                && grants.remove(&dead).is_some()
                && grants.is_empty()
            {
                free.push(object);
            }
        }
        // What went to a kernel that is dead is dead; its holders learn that from the view.
        self.objects.retain(|object, state| match state {
            State::Gone { to, uninformed } => *to != dead && !uninformed.is_empty(),
            _ => !free.contains(object),
        });
        free
    }

    /// How many references `holder` has to `object`, for the simulator's conservation check.
    pub fn granted(&self, object: ObjectId, holder: KernelId) -> u32 {
        match self.objects.get(&object) {
            Some(State::Home(grants) | State::Leaving { grants, .. }) => grants.get(&holder).copied().unwrap_or(0),
            _ => 0,
        }
    }

    /// How many objects are known here, lent or forwarded.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether nothing is lent or forwarded.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use base::{KernelId, ObjectId};

    use super::{Exports, Lent};
    use crate::Refusal;

    const A: KernelId = KernelId { index: 0, incarnation: 1 };
    const B: KernelId = KernelId { index: 1, incarnation: 1 };
    const C: KernelId = KernelId { index: 2, incarnation: 1 };
    const X: ObjectId = ObjectId { birth: A, serial: 1 };

    #[test]
    fn the_last_reference_frees_the_object() {
        let mut exports = Exports::new();
        exports.grant(X, B).unwrap();
        exports.grant(X, B).unwrap();
        exports.grant_for(X, B, C).unwrap();
        assert_eq!(exports.give_back(X, B, 2), Ok(Lent::Still));
        assert_eq!(exports.grant_for(X, B, C), Err(Refusal::Unknown), "B holds nothing any more");
        assert_eq!(exports.give_back(X, C, 1), Ok(Lent::Nobody));
        assert!(exports.is_empty());
        assert_eq!(exports.give_back(X, C, 1), Err(Refusal::Unknown));
    }

    #[test]
    fn a_moved_object_is_forwarded_until_all_know() {
        let mut old = Exports::new();
        let mut new = Exports::new();
        old.grant(X, B).unwrap();
        old.grant(X, C).unwrap();
        let grants = old.leave(X, C).unwrap();
        assert_eq!(old.serve(X), Err(Refusal::Leaving { home: C }));
        assert_eq!(new.arrive(X, grants, C, A), [B]);
        old.left(X, A);
        assert_eq!(old.give_back(X, B, 1), Err(Refusal::Moved { home: C }));
        old.informed(X, B);
        assert!(old.is_empty());
        assert_eq!(new.give_back(X, B, 1), Ok(Lent::Still));
    }

    #[test]
    fn a_dead_holder_gives_back_and_a_dead_target_sends_home() {
        let mut exports = Exports::new();
        exports.grant(X, B).unwrap();
        exports.grant(X, C).unwrap();
        exports.leave(X, C).unwrap();
        assert!(exports.peer_down(C).free.is_empty());
        assert_eq!(exports.serve(X), Ok(()));
        assert_eq!(exports.peer_down(B).free, [X]);
        assert!(exports.is_empty());
    }

    #[test]
    fn what_the_dead_passed_on_is_asked_for() {
        let mut exports = Exports::new();
        exports.grant(X, B).unwrap();
        for _ in 0..2 {
            exports.grant_for(X, B, C).unwrap();
        }
        exports.received(X, B, C);
        let fallout = exports.peer_down(B);
        assert_eq!((fallout.free.len(), fallout.doubtful.as_slice()), (0, &[C][..]));
        assert_eq!(exports.settled(B, C), []);
        assert_eq!((exports.granted(X, C), exports.on_their_way()), (1, 0), "one came, one never did");
        assert_eq!(exports.grant(X, B), Err(Refusal::Dead));
        assert_eq!(exports.give_back(X, C, 1), Ok(Lent::Nobody));
    }

    #[test]
    fn what_could_not_be_sent_is_taken_back() {
        let mut exports = Exports::new();
        exports.grant(X, B).unwrap();
        exports.grant_for(X, B, A).unwrap();
        assert_eq!(exports.give_back(X, B, 1), Ok(Lent::Still), "it is on its way home");
        assert_eq!(exports.unsent(X, B, A), Ok(Lent::Nobody));
        assert_eq!(exports.unsent(X, B, A), Err(Refusal::Unknown));
        assert!(exports.is_empty());
    }
}
