//! The requests that wait for an answer. No I/O: the kernel's links and the simulator use the same table.

use alloc::vec::Vec;

use wire::{Header, KernelId, ObjectId};

/// What is known of a request under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Who was asked.
    pub peer: KernelId,
    /// For which object.
    pub object: ObjectId,
    /// The type of the request.
    pub kind: u16,
    /// When it ends in any case, on the asker's clock.
    pub deadline: u64,
}

struct Slot<C> {
    generation: u64,
    waiting: Option<(Asked, C)>,
}

/// Requests under way; `C` is what is needed to go on when the answer is there.
pub struct Requests<C> {
    slots: Vec<Slot<C>>,
    free: Vec<usize>,
}

const SLOT_BITS: u32 = 20;

impl<C> Default for Requests<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> Requests<C> {
    /// No request is under way.
    pub const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// How many requests are under way.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether no request is under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many requests to `peer` are under way.
    pub fn to(&self, peer: KernelId) -> usize {
        self.slots.iter().filter(|s| s.waiting.as_ref().is_some_and(|(asked, _)| asked.peer == peer)).count()
    }

    /// Notes a request and names it. Ids are not reused while an answer to an old one can come; 0 is never given.
    pub fn begin(&mut self, asked: Asked, then: C) -> Option<u64> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < 1 << SLOT_BITS => {
                self.slots.push(Slot { generation: 0, waiting: None });
                self.slots.len() - 1
            }
            None => return None,
        };
        let slot = self.slots.get_mut(index)?;
        slot.generation += 1;
        slot.waiting = Some((asked, then));
        Some(slot.generation << SLOT_BITS | index as u64)
    }

    fn find(&mut self, id: u64) -> Option<(usize, &mut Slot<C>)> {
        let index = (id & ((1 << SLOT_BITS) - 1)) as usize;
        let slot = self.slots.get_mut(index)?;
        (slot.generation == id >> SLOT_BITS && slot.waiting.is_some()).then_some((index, slot))
    }

    /// What is known of a request.
    pub fn get(&mut self, id: u64) -> Option<(Asked, &mut C)> {
        self.find(id)?.1.waiting.as_mut().map(|(asked, then)| (*asked, then))
    }

    /// Ends a request, for whatever reason.
    pub fn end(&mut self, id: u64) -> Option<(Asked, C)> {
        let (index, slot) = self.find(id)?;
        let ended = slot.waiting.take();
        self.free.push(index);
        ended
    }

    /// An answer came. `None` if nobody waits for it or it comes from somebody who was not asked (or not any more).
    pub fn answered(&mut self, from: KernelId, header: &Header) -> Option<(Asked, C)> {
        let (_, slot) = self.find(header.request)?;
        if slot.waiting.as_ref().is_none_or(|(asked, _)| asked.peer != from) {
            return None;
        }
        self.end(header.request)
    }

    /// The requests that `which` chooses end here; in the order of their ids.
    pub fn end_where(&mut self, mut which: impl FnMut(&Asked) -> bool) -> Vec<(u64, Asked, C)> {
        let mut ended = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if slot.waiting.as_ref().is_some_and(|(asked, _)| which(asked))
                && let Some((asked, then)) = slot.waiting.take()
            {
                self.free.push(index);
                ended.push((slot.generation << SLOT_BITS | index as u64, asked, then));
            }
        }
        ended
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<u64> {
        self.slots.iter().filter_map(|s| s.waiting.as_ref().map(|(asked, _)| asked.deadline)).min()
    }
}

#[cfg(test)]
mod tests {
    use wire::{Header, KernelId, ObjectId};

    use super::{Asked, Requests};

    const A: KernelId = KernelId::new(1, 1);
    const A2: KernelId = KernelId::new(1, 2);

    fn asked(peer: KernelId, deadline: u64) -> Asked {
        Asked { peer, object: ObjectId::NONE, kind: 1, deadline }
    }

    #[test]
    fn an_answer_ends_its_request_once() {
        let mut requests = Requests::new();
        let id = requests.begin(asked(A, 10), 'a').unwrap();
        let header = Header { request: id, ..Header::default() };
        assert!(requests.answered(A2, &header).is_none(), "another incarnation was not asked");
        assert_eq!(requests.answered(A, &header), Some((asked(A, 10), 'a')));
        assert!(requests.answered(A, &header).is_none());
        let next = requests.begin(asked(A, 10), 'b').unwrap();
        assert_ne!(id, next, "an old answer does not end a new request");
        assert!(requests.answered(A, &header).is_none());
        assert_eq!(requests.len(), 1);
    }

    #[test]
    fn deadlines_and_deaths_end_requests() {
        let mut requests = Requests::new();
        requests.begin(asked(A, 10), 1).unwrap();
        requests.begin(asked(A2, 5), 2).unwrap();
        assert_eq!(requests.next_deadline(), Some(5));
        let late = requests.end_where(|a| a.deadline <= 7);
        assert_eq!(late.iter().map(|(_, _, c)| *c).collect::<alloc::vec::Vec<_>>(), [2]);
        assert_eq!(requests.end_where(|a| a.peer == A).len(), 1);
        assert!(requests.is_empty());
    }
}
