//! A buddy allocator over indices: it says which run of units is free and never touches the units.
//!
//! Units are `0..n`; a block of order `k` is `2^k` units and begins at a multiple of `2^k`. All costs are `O(ORDERS)`; the state of a unit is
//! a [`Link`], kept in storage that the caller brings, so that the allocator works before there is a heap.
#![no_std]
#![forbid(unsafe_code)]

/// Number of orders: the largest block is `2^(ORDERS - 1)` units.
pub const ORDERS: usize = 12;

const NIL: u32 = u32::MAX;

/// What the allocator keeps for one unit.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    prev: u32,
    next: u32,
    /// `order + 1` if a free block begins here, else 0.
    free: u32,
}

impl Link {
    /// The state of a unit that is not free.
    pub const TAKEN: Self = Self { prev: NIL, next: NIL, free: 0 };
}

/// A block that was given back though it was not taken, or lies outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotTaken;

/// The allocator. `L` is storage for one [`Link`] per unit.
#[derive(Debug)]
pub struct Buddy<L> {
    links: L,
    heads: [u32; ORDERS],
    /// Bit `k`: there is a free block of order `k`.
    orders: u32,
    free: usize,
}

impl<L: AsRef<[Link]> + AsMut<[Link]>> Buddy<L> {
    /// An allocator in which every unit is taken; give back what is free with [`Buddy::add`].
    ///
    /// # Panics
    /// If there are more than `u32::MAX - 1` units.
    pub fn new(mut links: L) -> Self {
        assert!(links.as_ref().len() < NIL as usize, "too many units");
        links.as_mut().fill(Link::TAKEN);
        Self { links, heads: [NIL; ORDERS], orders: 0, free: 0 }
    }

    /// Number of units, free or not.
    pub fn units(&self) -> usize {
        self.links.as_ref().len()
    }

    /// Number of free units.
    pub fn free_units(&self) -> usize {
        self.free
    }

    /// The largest order of which a block is free.
    pub fn largest(&self) -> Option<usize> {
        self.orders.checked_ilog2().map(|k| k as usize)
    }

    /// Takes a block of `2^order` units and returns its first; `None` if there is none.
    pub fn take(&mut self, order: usize) -> Option<u32> {
        let fit = self.orders & (u32::MAX.checked_shl(order as u32)?);
        if fit == 0 {
            return None;
        }
        let mut have = fit.trailing_zeros() as usize;
        let at = self.heads[have];
        self.unlink(at, have);
        while have > order {
            have -= 1;
            self.link(at + (1 << have), have);
        }
        self.free -= 1 << order;
        Some(at)
    }

    /// Gives a block back that [`Buddy::take`] returned (or a part of one that is itself a block).
    pub fn give(&mut self, at: u32, order: usize) -> Result<(), NotTaken> {
        let size = 1u64 << order.min(40);
        if order >= ORDERS || !u64::from(at).is_multiple_of(size) || u64::from(at) + size > self.units() as u64 {
            return Err(NotTaken);
        }
        if self.is_free(at) {
            return Err(NotTaken);
        }
        self.free += 1 << order;
        let (mut at, mut order) = (at, order);
        while order + 1 < ORDERS {
            let buddy = at ^ (1 << order);
            match self.links.as_ref().get(buddy as usize) {
                Some(l) if l.free as usize == order + 1 => self.unlink(buddy, order),
                _ => break,
            }
            at &= !(1 << order);
            order += 1;
        }
        self.link(at, order);
        Ok(())
    }

    /// Gives back all units of `from..to`, cut into blocks.
    pub fn add(&mut self, from: u32, to: u32) -> Result<(), NotTaken> {
        let mut at = from;
        while at < to {
            let fits = (to - at).ilog2();
            let order = at.trailing_zeros().min(fits).min(ORDERS as u32 - 1);
            self.give(at, order as usize)?;
            at += 1 << order;
        }
        Ok(())
    }

    /// Whether `unit` lies in a free block.
    pub fn is_free(&self, unit: u32) -> bool {
        (0..ORDERS).any(|k| {
            let start = unit & !((1u32 << k) - 1);
            self.links.as_ref().get(start as usize).is_some_and(|l| l.free as usize > k)
        })
    }

    fn link(&mut self, at: u32, order: usize) {
        let head = self.heads[order];
        let links = self.links.as_mut();
        links[at as usize] = Link { prev: NIL, next: head, free: order as u32 + 1 };
        if head != NIL {
            links[head as usize].prev = at;
        }
        self.heads[order] = at;
        self.orders |= 1 << order;
    }

    fn unlink(&mut self, at: u32, order: usize) {
        let links = self.links.as_mut();
        let Link { prev, next, .. } = links[at as usize];
        links[at as usize] = Link::TAKEN;
        if next != NIL {
            links[next as usize].prev = prev;
        }
        if prev != NIL {
            links[prev as usize].next = next;
        } else {
            self.heads[order] = next;
            if next == NIL {
                self.orders &= !(1 << order);
            }
        }
    }
}

#[cfg(test)]
mod tests;
