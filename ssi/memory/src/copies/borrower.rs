//! The holder's side of a page of which it has a copy, without I/O.

use super::lender::Wish;

/// A copy that is here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Here {
    /// Of which wish it came.
    wish: Wish,
    /// The home's number.
    serial: u64,
    writable: bool,
}

/// What this kernel has of a page of another one that it does not see. When that is nothing it can be forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Borrowed {
    copy: Option<Here>,
    /// The wish that is on its way.
    asking: Option<Wish>,
    /// Copies up to this number of the home were cut off their object.
    void: u64,
}

/// What a holder does with a copy that is recalled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// It has not come yet: it is recalled again then.
    Later,
    /// It is given back.
    Back {
        /// With its bytes: it could be written.
        written: bool,
        /// It is read on.
        keeps: bool,
    },
}

impl Borrowed {
    /// Whether the copy is good for an access.
    pub fn is_good(&self, write: bool) -> bool {
        self.copy.is_some_and(|copy| copy.writable || !write)
    }

    /// The home's number of the copy that is here.
    pub fn serial(&self) -> Option<u64> {
        self.copy.map(|copy| copy.serial)
    }

    /// Whether a wish of this name is to be sent for an access: not if one is on its way.
    pub fn ask(&mut self, wish: Wish) -> bool {
        let free = self.asking.is_none();
        if free {
            self.asking = Some(wish);
        }
        free
    }

    /// The wish was refused, or its home died.
    pub fn refused(&mut self) {
        self.asking = None;
    }

    /// What was wished for has come. `false`: it was cut off meanwhile, and is nothing.
    pub fn granted(&mut self, serial: u64, writable: bool) -> bool {
        let wish = self.asking.take().filter(|_| serial > self.void);
        if let Some(wish) = wish {
            self.copy = Some(Here { wish, serial, writable });
        }
        wish.is_some()
    }

    /// The home wants the copy of a wish back.
    pub fn recalled(&mut self, wish: Wish, keep: bool) -> Answer {
        if self.asking == Some(wish) {
            return Answer::Later;
        }
        match self.copy.filter(|copy| copy.wish == wish) {
            Some(copy) => {
                self.copy = keep.then_some(Here { writable: false, ..copy });
                Answer::Back { written: copy.writable, keeps: keep }
            }
            // It was given back before, or cut off.
            None => Answer::Back { written: false, keeps: false },
        }
    }

    /// Copies up to this number of the home are nothing any more. Whether the one that is here was.
    pub fn cut(&mut self, serial: u64) -> bool {
        self.void = self.void.max(serial);
        self.copy.take_if(|copy| copy.serial <= serial).is_some()
    }

    /// Nobody here maps it any more: which copy is given back, and whether with its bytes.
    pub fn give_back(&mut self) -> Option<(Wish, bool)> {
        self.copy.take().map(|copy| (copy.wish, copy.writable))
    }

    /// Neither here nor on its way.
    pub fn is_nothing(&self) -> bool {
        self.copy.is_none() && self.asking.is_none()
    }
}
