//! Serves the peers' messages of the family `memory` from this kernel.

use alloc::{sync::Arc, vec::Vec};

use base::{Errno, Error, ObjectId};
use hal::{
    frame::{Frame, MapFrame},
    usermode::Access,
};
use link::{AnswerTo, Handler, Incoming, Links};
use mm::{MappedPage, MemoryObject};
use objects::{from_wire, object_from_wire, when_done};
use wire::{
    Message as _,
    memory::{
        FutexRequeue, FutexWait, FutexWake, MemoryDone, MemoryMap, MemoryMapped, MemoryOpen, MemoryPunch,
        MemoryRelease, MemoryRevoke, PAGE_RECORD, PAGE_WRITABLE,
    },
};

use crate::{copies::glue, service::MemoryService};

/// The most pages of one grant.
const PAGES_MAX: usize = 4096 / PAGE_RECORD;

/// What [`Links`] calls for the family `memory`.
pub struct MemoryHandler(pub Arc<MemoryService>);

fn refused(error: Error, from: wire::KernelId) -> link::Error {
    link::Error::new(error.errno(), error.why(), from)
}

impl Handler for MemoryHandler {
    fn handle(&self, links: &Links, message: &Incoming<'_>) -> link::Result<()> {
        let service = &self.0;
        let (from, to) = (message.from, message.answer_to());
        let (peer, object) = (from_wire(from), object_from_wire(message.header.object));
        macro_rules! is {
            ($t:ty) => {
                message.header.kind == <$t>::SPEC.number
            };
        }
        if is!(MemoryMap) {
            let (map, _) = message.read::<MemoryMap>()?;
            service.map(to, object, map);
        } else if is!(MemoryRevoke) {
            let (revoke, _) = message.read::<MemoryRevoke>()?;
            service.unmap(object, revoke.first..revoke.end, revoke.serial);
            let _ = links.answer(to, &MemoryDone {}, &[]);
        } else if is!(MemoryRelease) {
            let (release, _) = message.read::<MemoryRelease>()?;
            service.take_back(object, peer, release.serial, release.opens);
        } else if is!(MemoryOpen) {
            let (open, _) = message.read::<MemoryOpen>()?;
            let opened = service.lend(object, peer, open.writable != 0).map_err(|error| refused(error, from))?;
            if links.answer(to, &opened, &[]).is_err() {
                service.take_back(object_from_wire(opened.memory), peer, 0, 1);
            }
        } else if is!(MemoryPunch) {
            let (punch, _) = message.read::<MemoryPunch>()?;
            let memory = service.lent(object, peer).map_err(|error| refused(error, from))?;
            let links = service.links.clone();
            when_done(memory.punch(punch.start..punch.end), move |result| match result {
                Ok(()) => {
                    let _ = links.answer(to, &MemoryDone {}, &[]);
                }
                Err(error) => links.refuse(to, error.errno()),
            });
        } else if is!(FutexWait) {
            let (wait, _) = message.read::<FutexWait>()?;
            service.put_to_sleep(to, object, wait).map_err(|error| refused(error, from))?;
        } else if is!(FutexWake) {
            let (wake, _) = message.read::<FutexWake>()?;
            let _ = links.answer(to, &service.wake(object, &wake), &[]);
        } else if is!(FutexRequeue) {
            let (requeue, _) = message.read::<FutexRequeue>()?;
            let _ = links.answer(to, &service.requeue(object, &requeue), &[]);
        } else if !glue::handle(service, message)? {
            return Err(link::Error::new(Errno::ENOSYS, "the memory service does not know it", from));
        }
        Ok(())
    }

    fn cancel(&self, _: &Links, request: AnswerTo) {
        // Everything else is answered at once, or by those who must be waited for.
        if request.kind == FutexWait::SPEC.number {
            self.0.get_up(request);
        }
    }
}

impl MemoryService {
    /// Grants a page to a peer, and some around it.
    fn map(&self, to: AnswerTo, object: ObjectId, map: MemoryMap) {
        loop {
            let memory = match self.lent(object, from_wire(to.peer)) {
                Ok(memory) => memory,
                Err(error) => return self.links.refuse(to, error.errno()),
            };
            let access = if map.write != 0 { Access::Write } else { Access::Read };
            match memory.page(map.index, access) {
                Ok(base::Try::Done(page)) => {
                    if self.grant(to, object, &*memory, map, page) {
                        return;
                    }
                    // It was cut off meanwhile, and is perhaps there again.
                }
                Err(error) => return self.links.refuse(to, error.errno()),
                tried => {
                    let Ok(service) = self.this() else { return };
                    return when_done(tried, move |page| match page {
                        Ok(_) => service.map(to, object, map),
                        Err(error) if error == Errno::EAGAIN => service.map(to, object, map),
                        Err(error) => service.links.refuse(to, error.errno()),
                    });
                }
            }
        }
    }

    /// `false`: the object has another page there now.
    fn grant(
        &self,
        to: AnswerTo,
        object: ObjectId,
        memory: &dyn MemoryObject,
        map: MemoryMap,
        page: MappedPage,
    ) -> bool {
        let holder = from_wire(to.peer);
        let MapFrame::Own(frame) = page.frame else {
            self.links.refuse(to, Errno::EOPNOTSUPP);
            return true;
        };
        let mut pages: Vec<(u64, Frame, bool)> = alloc::vec![(map.index, frame, page.writable)];
        let around = map.first..map.first.saturating_add(u64::from(map.count));
        memory.resident(around.clone(), &mut |index, page| {
            if let MapFrame::Own(frame) = page.frame
                && index != map.index
            {
                pages.push((index, frame, page.writable));
            }
            pages.len() < PAGES_MAX
        });
        let recorded = self.home.lock().grant(object, holder, pages.iter().map(|(i, f, _)| (*i, f.clone())).collect());
        let Some((serial, spare)) = recorded else {
            self.links.refuse(to, Errno::ESTALE);
            return true;
        };
        drop(spare);
        // What was cut off before the grant was recorded was not revoked: it must not be told. What is cut off from now on is.
        pages.retain(|(index, frame, _)| {
            let mut same = false;
            memory.resident(*index..index.saturating_add(1), &mut |_, now| {
                same = matches!(&now.frame, MapFrame::Own(now) if now == frame);
                false
            });
            same
        });
        if pages.first().is_none_or(|(index, ..)| *index != map.index) {
            // Nothing is told of this grant; the next one covers it.
            return false;
        }
        let mut payload = Vec::with_capacity(pages.len() * PAGE_RECORD);
        for (index, frame, writable) in &pages {
            let Some(place) = self.place_of(frame) else { continue };
            let flags = if *writable { PAGE_WRITABLE } else { 0 };
            for word in [*index, place, flags] {
                payload.extend_from_slice(&word.to_le_bytes());
            }
        }
        // If the peer died, its death takes the grant back.
        let _ = self.links.answer(to, &MemoryMapped { serial }, &payload);
        true
    }
}
