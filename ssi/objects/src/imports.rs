//! The holder's side: which objects of other kernels this kernel holds references to.

use alloc::{collections::BTreeMap, vec::Vec};

use base::{KernelId, ObjectId};

/// What came with a reference that was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receipt {
    /// The first reference: make a proxy.
    New,
    /// There is a proxy already: share it.
    Known,
    /// Its home died: operations on it answer `EHOSTDOWN`.
    Dead,
    /// This kernel is its home.
    Home,
}

/// References to give back: to the home, so many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GiveBack {
    /// Where the object is, as far as known.
    pub home: KernelId,
    /// How many references.
    pub count: u32,
}

#[derive(Debug)]
struct Held {
    home: KernelId,
    /// Grants received and not given back.
    received: u32,
    dead: bool,
}

/// The references this kernel holds to objects homed elsewhere.
#[derive(Debug, Default)]
pub struct Imports {
    objects: BTreeMap<ObjectId, Held>,
}

impl Imports {
    /// Nothing is held.
    pub const fn new() -> Self {
        Self { objects: BTreeMap::new() }
    }

    /// A reference came in a message.
    pub fn receive(&mut self, object: ObjectId, home: KernelId) -> Receipt {
        match self.objects.get_mut(&object) {
            Some(held) => {
                held.received = held.received.saturating_add(1);
                if held.dead { Receipt::Dead } else { Receipt::Known }
            }
            None => {
                self.objects.insert(object, Held { home, received: 1, dead: false });
                Receipt::New
            }
        }
    }

    /// A reference came of which the home is known to be dead: its proxy answers `EHOSTDOWN` from the start.
    pub fn receive_dead(&mut self, object: ObjectId, home: KernelId) -> Receipt {
        let known = self.objects.contains_key(&object);
        self.objects.entry(object).or_insert(Held { home, received: 0, dead: true }).dead = true;
        if known { Receipt::Dead } else { Receipt::New }
    }

    /// The last local user of the proxy is gone. Returns what to give back; nothing if the home is dead.
    pub fn drop_proxy(&mut self, object: ObjectId) -> Option<GiveBack> {
        let held = self.objects.remove(&object)?;
        (!held.dead).then_some(GiveBack { home: held.home, count: held.received })
    }

    /// Where to send a request about the object; `None` if the home is dead (`EHOSTDOWN`) or nothing is held.
    pub fn home(&self, object: ObjectId) -> Option<KernelId> {
        self.objects.get(&object).filter(|held| !held.dead).map(|held| held.home)
    }

    /// The object's home is another kernel now.
    pub fn relocated(&mut self, object: ObjectId, home: KernelId) {
        if let Some(held) = self.objects.get_mut(&object) {
            held.home = home;
            // The old home may have died after it sent the object on: the new one says so, so it lives.
            held.dead = false;
        }
    }

    /// The object's home is this kernel now: the references end here.
    pub fn came_home(&mut self, object: ObjectId) {
        self.objects.remove(&object);
    }

    /// A kernel died. Returns the objects that died with it, whose waiters are to be told.
    pub fn peer_down(&mut self, dead: KernelId) -> Vec<ObjectId> {
        let mut gone = Vec::new();
        for (&object, held) in &mut self.objects {
            if held.home == dead && !held.dead {
                held.dead = true;
                gone.push(object);
            }
        }
        gone
    }

    /// Received and not given back, for the simulator's conservation check.
    pub fn received(&self, object: ObjectId) -> u32 {
        self.objects.get(&object).map_or(0, |held| held.received)
    }

    /// The objects that are held.
    pub fn objects(&self) -> impl Iterator<Item = ObjectId> + '_ {
        self.objects.keys().copied()
    }

    /// How many objects are held.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use base::{KernelId, ObjectId};

    use super::{GiveBack, Imports, Receipt};

    const A: KernelId = KernelId { index: 0, incarnation: 1 };
    const B: KernelId = KernelId { index: 1, incarnation: 1 };
    const X: ObjectId = ObjectId { birth: A, serial: 1 };

    #[test]
    fn all_that_was_received_goes_back_at_once() {
        let mut imports = Imports::new();
        assert_eq!(imports.receive(X, A), Receipt::New);
        assert_eq!(imports.receive(X, A), Receipt::Known);
        imports.relocated(X, B);
        assert_eq!(imports.drop_proxy(X), Some(GiveBack { home: B, count: 2 }));
        assert_eq!(imports.receive(X, B), Receipt::New, "a grant that was on its way makes a new proxy");
    }

    #[test]
    fn what_left_a_kernel_before_it_died_lives() {
        let mut imports = Imports::new();
        imports.receive(X, A);
        assert_eq!(imports.peer_down(A), [X]);
        imports.relocated(X, B);
        assert_eq!(imports.home(X), Some(B));
        assert_eq!(imports.drop_proxy(X), Some(GiveBack { home: B, count: 1 }));
    }

    #[test]
    fn what_dies_is_not_given_back() {
        let mut imports = Imports::new();
        imports.receive(X, A);
        assert_eq!(imports.peer_down(A), [X]);
        assert_eq!(imports.home(X), None);
        assert_eq!(imports.receive(X, A), Receipt::Dead);
        assert_eq!(imports.drop_proxy(X), None);
        assert!(imports.is_empty());
    }
}
