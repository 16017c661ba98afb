//! Reading and writing the memory of a space that is not active here: `exec` filling a new stack, `process_vm_readv(2)`, `ptrace(2)`,
//! `/proc/PID/{mem,cmdline,environ}`.

use alloc::boxed::Box;

use base::wait::Op;
use hal::{
    addr::{PAGE_SIZE, UserAddr},
    cpuref::Refused,
    frame::{Frame, MapFrame, PeerFrame},
    usermode::Access,
};

use super::{Fault, Space, Violation};
use crate::{memory::page_of, object::MappedPage, vma::Prot};

/// How far a copy came.
#[must_use]
pub struct Poked {
    /// Bytes copied.
    pub done: usize,
    /// Why not all.
    pub stopped: Option<Stopped>,
}

/// Why a copy stopped.
pub enum Stopped {
    /// The access is not possible.
    Violation(Violation),
    /// A page comes from elsewhere: wait, go on.
    Wait(Box<dyn Op<MappedPage>>),
    /// No frames.
    NoMemory,
}

impl Space {
    /// Copies bytes out of this space.
    pub fn peek(&self, from: UserAddr, buf: &mut [u8]) -> Poked {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = from + done as u64;
            let (within, n) = part(at, rest.len());
            let Some(piece) = rest.get_mut(..n) else { break };
            match self.page_at(at, Access::Read) {
                Ok(There::Own(frame)) => frame.read(within, piece),
                Ok(There::Zeros) => piece.fill(0),
                Ok(There::Peer) => match self.of_peer(at, Prot::READ, |frame| frame.read(within, piece)) {
                    Ok(true) => {}
                    // It was taken back meanwhile.
                    Ok(false) => continue,
                    Err(stopped) => return Poked { done, stopped: Some(stopped) },
                },
                Err(stopped) => return Poked { done, stopped: Some(stopped) },
            }
            done += n;
        }
        Poked { done, stopped: None }
    }

    /// Copies bytes into this space, as a store of the program would.
    pub fn poke(&self, to: UserAddr, bytes: &[u8]) -> Poked {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let at = to + done as u64;
            let (within, n) = part(at, rest.len());
            let Some(piece) = rest.get(..n) else { break };
            match self.page_at(at, Access::Write) {
                Ok(There::Own(frame)) => frame.write(within, piece),
                Ok(There::Peer) => match self.of_peer(at, Prot::WRITE, |frame| frame.write(within, piece)) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(stopped) => return Poked { done, stopped: Some(stopped) },
                },
                // Only the frame of zeros cannot be written, and a write fault replaces it.
                Ok(There::Zeros) => return Poked { done, stopped: Some(Stopped::Violation(Violation::NotAllowed)) },
                Err(stopped) => return Poked { done, stopped: Some(stopped) },
            }
            done += n;
        }
        Poked { done, stopped: None }
    }

    /// Does `copy` with the page of a peer that is mapped at `at`; `false` if there is none (any more). The lock keeps whoever takes it back.
    fn of_peer(
        &self,
        at: UserAddr,
        need: Prot,
        copy: impl FnOnce(PeerFrame) -> Result<(), Refused>,
    ) -> Result<bool, Stopped> {
        let _inner = self.inner.lock();
        match self.table.frame(page_of(at.0)) {
            Some((MapFrame::Peer(frame), prot)) if prot.contains(need) => {
                copy(frame).map(|()| true).map_err(|_| Stopped::NoMemory)
            }
            _ => Ok(false),
        }
    }

    /// What is at an address, after making the access possible.
    fn page_at(&self, at: UserAddr, access: Access) -> Result<There, Stopped> {
        let page = page_of(at.0);
        let need = if access == Access::Write { Prot::WRITE } else { Prot::READ };
        loop {
            // An entry never allows more than its mapping does.
            match self.table.frame(page) {
                Some((MapFrame::Own(frame), prot)) if prot.contains(need) => return Ok(There::Own(frame)),
                Some((MapFrame::Peer(_), prot)) if prot.contains(need) => return Ok(There::Peer),
                Some((MapFrame::Static(frame), prot)) if prot.contains(need) => {
                    let zeros = frame == self.memory.zero_frame();
                    return if zeros { Ok(There::Zeros) } else { Err(Stopped::Violation(Violation::NotAllowed)) };
                }
                _ => {}
            }
            match self.fault(at, access) {
                Ok(Fault::Resolved) => {}
                Ok(Fault::Wait(op)) => return Err(Stopped::Wait(op)),
                Ok(Fault::NoMemory) => return Err(Stopped::NoMemory),
                Err(violation) => return Err(Stopped::Violation(violation)),
            }
        }
    }
}

/// What an address shows.
enum There {
    Own(Frame),
    /// A page that is never freed.
    Zeros,
    /// A page of a peer.
    Peer,
}

fn part(at: UserAddr, len: usize) -> (usize, usize) {
    let within = at.offset();
    (within, len.min(PAGE_SIZE - within))
}
