//! Bringing pages in.

use alloc::boxed::Box;

use base::{Errno, Error, Try, wait::Op};
use hal::{addr::UserAddr, frame::MapFrame, space::MapError, usermode::Access};

use super::{Inner, PAGE, STACK_GAP, Space};
use crate::{
    memory::page_of,
    object::{MappedPage, MemoryObject},
    vma::{Content, Prot, Vma, VmaFlags},
};

/// Pages around a fault that are mapped with it, if they are there: a power of two.
const AROUND: u64 = 16;

/// What became of a fault.
#[must_use]
pub enum Fault {
    /// Go on.
    Resolved,
    /// The page comes from elsewhere: wait for the operation without any lock, then go on (and perhaps fault again).
    Wait(Box<dyn Op<MappedPage>>),
    /// No frame was free: [`Memory::make_room`](crate::Memory::make_room), then go on.
    NoMemory,
}

/// Why an access is not possible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// Nothing is mapped there (SIGSEGV, `SEGV_MAPERR`).
    NotMapped,
    /// The mapping does not allow it (SIGSEGV, `SEGV_ACCERR`).
    NotAllowed,
    /// Mapped, but the object has no such page or cannot give it (SIGBUS, `BUS_ADRERR`).
    NoPage,
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::new(
            Errno::EFAULT,
            match violation {
                Violation::NotMapped => "no such address",
                Violation::NotAllowed => "the mapping does not allow that",
                Violation::NoPage => "the object has no such page",
            },
        )
    }
}

impl core::fmt::Debug for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Resolved => "Resolved",
            Self::Wait(_) => "Wait",
            Self::NoMemory => "NoMemory",
        })
    }
}

/// Whether a mapping with `prot` allows the access. What can be written or executed can be read on every ISA here.
fn allowed(prot: Prot, access: Access) -> bool {
    match access {
        Access::Read => !prot.is_empty(),
        Access::Write => prot.contains(Prot::WRITE),
        Access::Execute => prot.contains(Prot::EXEC),
    }
}

const fn need(access: Access) -> Prot {
    match access {
        Access::Read => Prot::READ,
        Access::Write => Prot::WRITE,
        Access::Execute => Prot::EXEC,
    }
}

impl Space {
    /// Makes the access to `addr` possible, if the program may do it. Takes no other lock than this space's and, below it, that of an object.
    ///
    /// # Errors
    /// The access is one that the program must not do.
    #[inline]
    pub fn fault(&self, addr: UserAddr, access: Access) -> Result<Fault, Violation> {
        let mut inner = self.inner.lock();
        if let Some(vma) = inner.vmas.find(addr.0) {
            return self.fault_in(vma, addr, access);
        }
        self.grow_stack(&mut inner, addr.0)?;
        let vma = inner.vmas.find(addr.0).ok_or(Violation::NotMapped)?;
        self.fault_in(vma, addr, access)
    }

    /// The same when the mapping is known.
    fn fault_in(&self, vma: &Vma, addr: UserAddr, access: Access) -> Result<Fault, Violation> {
        if !allowed(vma.prot, access) {
            return Err(Violation::NotAllowed);
        }
        let page = page_of(addr.0);
        match &vma.content {
            Content::Anonymous => self.fault_anonymous(vma, page, access),
            Content::Object { .. } => self.fault_object(vma, page, access),
        }
    }

    fn fault_anonymous(&self, vma: &Vma, page: UserAddr, access: Access) -> Result<Fault, Violation> {
        if self.table.query(page).is_some() {
            return self.fault_present(vma, page, access);
        }
        let (frame, prot) = if access == Access::Write {
            let Ok(frame) = self.memory.frame(true) else { return Ok(Fault::NoMemory) };
            (MapFrame::Own(frame), vma.hard_prot())
        } else {
            (MapFrame::Static(self.memory.zero_frame()), vma.hard_prot() - Prot::WRITE)
        };
        match self.table.map(page, frame, prot) {
            // Occupied cannot be: this space's lock is held. If it were, the next fault would settle it.
            Ok(()) | Err(MapError::Occupied(_)) => Ok(Fault::Resolved),
            Err(MapError::OutOfFrames(_)) => Ok(Fault::NoMemory),
            Err(MapError::BadAddress(_) | MapError::ReadOnly(_)) => Err(Violation::NotMapped),
        }
    }

    /// A fault on a page that is mapped: copy on write, or one that another CPU has settled.
    fn fault_present(&self, vma: &Vma, page: UserAddr, access: Access) -> Result<Fault, Violation> {
        if self.table.touch(page, need(access)) {
            return Ok(Fault::Resolved);
        }
        if access != Access::Write {
            // The entry is narrower than the mapping (PROT_NONE before, or no execution).
            let mut batch = self.table.batch();
            let mut cursor = self.table.cursor(page..page + PAGE);
            if let Some(mut entry) = cursor.next() {
                let write = entry.prot() & Prot::WRITE;
                entry.set_prot((vma.hard_prot() - Prot::WRITE) | (write & vma.hard_prot()), &mut batch);
            }
            return Ok(Fault::Resolved);
        }
        if vma.is_private() && self.table.reclaim_cow(page, vma.hard_prot()) {
            return Ok(Fault::Resolved);
        }
        let Some((old, _)) = self.table.frame(page) else { return Ok(Fault::Resolved) };
        let new = match old {
            MapFrame::Static(frame) if frame == self.memory.zero_frame() => self.memory.frame(true),
            MapFrame::Own(frame) => self.memory.duplicate(&frame),
            // The vDSO, and pages of peers until their object gives a writable one.
            _ => return Err(Violation::NotAllowed),
        };
        let Ok(new) = new.map(MapFrame::Own) else { return Ok(Fault::NoMemory) };
        let mut batch = self.table.batch();
        match self.table.replace(page, new, vma.hard_prot(), &mut batch) {
            Ok(()) => Ok(Fault::Resolved),
            Err(MapError::OutOfFrames(_)) => Ok(Fault::NoMemory),
            Err(_) => Err(Violation::NotMapped),
        }
    }

    fn fault_object(&self, vma: &Vma, page: UserAddr, access: Access) -> Result<Fault, Violation> {
        let Some((object, index)) = vma.object_page(page.0) else { return Err(Violation::NotMapped) };
        let private = vma.is_private();
        if private && self.table.query(page).is_some() {
            return self.fault_present(vma, page, access);
        }
        if !private && self.table.touch(page, need(access)) {
            return Ok(Fault::Resolved);
        }
        let wanted = if private { Access::Read } else { access };
        let mapped = match object.page(index, wanted) {
            Ok(Try::Done(mapped)) => mapped,
            Ok(Try::Started(op)) => return Ok(Fault::Wait(op)),
            Ok(Try::WouldBlock) => return Err(Violation::NoPage),
            Err(error) if error == Errno::ENOMEM => return Ok(Fault::NoMemory),
            Err(_) => return Err(Violation::NoPage),
        };
        let (frame, prot) = match (private, access, mapped.frame) {
            (true, Access::Write, MapFrame::Own(frame)) => match self.memory.duplicate(&frame) {
                Ok(copy) => (MapFrame::Own(copy), vma.hard_prot()),
                Err(_) => return Ok(Fault::NoMemory),
            },
            (true, Access::Write, _) => return Err(Violation::NotAllowed),
            (true, _, frame) => (frame, vma.hard_prot() - Prot::WRITE),
            (false, _, frame) if mapped.writable => (frame, vma.hard_prot()),
            (false, _, frame) => (frame, vma.hard_prot() - Prot::WRITE),
        };
        let mut batch = self.table.batch();
        match self.table.replace(page, frame, prot, &mut batch) {
            Ok(()) => {}
            Err(MapError::OutOfFrames(_)) => return Ok(Fault::NoMemory),
            Err(_) => return Err(Violation::NotMapped),
        }
        drop(batch);
        if access != Access::Write && !vma.flags.contains(VmaFlags::RANDOM) {
            self.map_around(vma, &**object, page.0);
        }
        Ok(Fault::Resolved)
    }

    /// Maps pages around `addr` that the object has already.
    fn map_around(&self, vma: &Vma, object: &dyn MemoryObject, addr: u64) {
        let Some((_, base)) = vma.object_page(vma.start) else { return };
        let from = (addr & !(AROUND * PAGE - 1)).max(vma.start);
        let to = ((addr & !(AROUND * PAGE - 1)) + AROUND * PAGE).min(vma.end);
        let first = base + (from - vma.start) / PAGE;
        let last = base + (to - vma.start) / PAGE;
        object.resident(first..last, &mut |index, mapped| {
            let at = vma.start + (index - base) * PAGE;
            let prot =
                if mapped.writable && !vma.is_private() { vma.hard_prot() } else { vma.hard_prot() - Prot::WRITE };
            // Occupied is fine; without a frame for a table the page is left to a fault of its own.
            !matches!(self.table.map(UserAddr(at), mapped.frame, prot), Err(MapError::OutOfFrames(_)))
        });
    }

    /// Lets the mapping above `addr` grow down to it, if it is a stack and there is room.
    #[cold]
    fn grow_stack(&self, inner: &mut Inner, addr: u64) -> Result<(), Violation> {
        let page = addr & !(PAGE - 1);
        let above = inner.vmas.find_or_next(addr).ok_or(Violation::NotMapped)?;
        if !above.flags.contains(VmaFlags::GROWS_DOWN) || above.end - page > inner.limits.stack {
            return Err(Violation::NotMapped);
        }
        let (start, len) = (above.start, above.start - page);
        if let Some(below) = inner.vmas.before(page)
            && below.end + STACK_GAP > page
            && !below.prot.is_empty()
            && !below.flags.contains(VmaFlags::GROWS_DOWN)
        {
            return Err(Violation::NotMapped);
        }
        if inner.vmas.totals().size + len > inner.limits.address_space || page < super::LOWEST {
            return Err(Violation::NotMapped);
        }
        self.memory.commit(len).map_err(|_| Violation::NotMapped)?;
        inner.vmas.grow_down(start, page);
        Ok(())
    }
}
