//! The holder's side of a page of which it has a copy, without I/O.

/// What this kernel has of a page of another one that it does not see.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Borrowed {
    /// The copy: the number of its grant, and whether it may be written.
    copy: Option<(u64, bool)>,
    /// The highest number that was granted.
    seen: u64,
    /// A wish is on its way.
    asking: bool,
    /// It was told to give back what has not come yet: the number, and whether it keeps it for reading.
    early: Option<(u64, bool)>,
}

/// What a holder does with a copy that is recalled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    /// It has not come yet: the answer is given by [`Borrowed::used`].
    Later,
    /// It is given back; with its bytes if it may have been written.
    Back {
        /// The number.
        serial: u64,
        /// With its bytes.
        written: bool,
        /// It is read on.
        keeps: bool,
    },
}

impl Borrowed {
    /// Whether the copy is good for an access.
    pub fn is_good(&self, write: bool) -> bool {
        self.copy.is_some_and(|(_, writable)| writable || !write)
    }

    /// Whether a wish is to be sent for an access: not if one is on its way.
    pub fn ask(&mut self) -> bool {
        !core::mem::replace(&mut self.asking, true)
    }

    /// The wish was refused, or its home died.
    pub fn refused(&mut self) {
        self.asking = false;
    }

    /// The copy has come.
    pub fn granted(&mut self, serial: u64, write: bool) {
        self.asking = false;
        self.seen = self.seen.max(serial);
        self.copy = Some((serial, write));
    }

    /// Whoever waited for the copy has used it: what was told to give back early is given back.
    pub fn used(&mut self) -> Option<Answer> {
        let (serial, keep) = self.early.filter(|(serial, _)| *serial <= self.seen)?;
        self.early = None;
        Some(self.recalled(serial, keep))
    }

    /// The home wants a copy back.
    pub fn recalled(&mut self, serial: u64, keep: bool) -> Answer {
        if serial > self.seen {
            self.early = Some((serial, keep));
            return Answer::Later;
        }
        self.early = None;
        match self.copy.filter(|(mine, _)| *mine == serial) {
            Some((_, written)) => {
                self.copy = keep.then_some((serial, false));
                Answer::Back { serial, written, keeps: keep }
            }
            // It was given back before.
            None => Answer::Back { serial, written: false, keeps: false },
        }
    }

    /// Nobody here maps it any more: what is given back, its number and whether with its bytes.
    pub fn give_back(&mut self) -> Option<(u64, bool)> {
        self.copy.take()
    }

    /// Neither here nor on its way.
    pub fn is_nothing(&self) -> bool {
        self.copy.is_none() && !self.asking && self.early.is_none()
    }
}
