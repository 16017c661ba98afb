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

/// The references that other kernels hold to objects homed here.
#[derive(Debug, Default)]
pub struct Exports {
    objects: BTreeMap<ObjectId, State>,
}

impl Exports {
    /// No object is lent.
    pub const fn new() -> Self {
        Self { objects: BTreeMap::new() }
    }

    /// Notes that a reference to `object` is about to be sent to `holder`.
    pub fn grant(&mut self, object: ObjectId, holder: KernelId) -> Result<(), Refusal> {
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

    /// A holder asks for one more reference, to be sent to another kernel. It holds one itself while it asks.
    pub fn grant_for(&mut self, object: ObjectId, asker: KernelId, holder: KernelId) -> Result<(), Refusal> {
        self.serve(object)?;
        match self.objects.get_mut(&object) {
            Some(State::Home(grants)) if grants.contains_key(&asker) => {
                *grants.entry(holder).or_insert(0) += 1;
                Ok(())
            }
            _ => Err(Refusal::Unknown),
        }
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
    pub fn leave(&mut self, object: ObjectId, to: KernelId) -> Result<Grants, Refusal> {
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

    /// A kernel died: its references are given back, objects on their way to it stay. Returns the objects that nobody else holds.
    pub fn peer_down(&mut self, dead: KernelId) -> Vec<ObjectId> {
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
        assert!(exports.peer_down(C).is_empty());
        assert_eq!(exports.serve(X), Ok(()));
        assert_eq!(exports.peer_down(B), [X]);
        assert!(exports.is_empty());
    }
}
