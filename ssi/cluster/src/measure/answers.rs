//! The asked side of a measurement.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use base::Errno;
use link::echo::EchoService;
use link::lock::Lock;
use link::window::Reach;
use link::{Handler, Incoming, Links};
use task::Kernel;
use wire::test::{Bounce, Bounced, Gather, Prove, Proved, Report, Reported, Said, Tallied, Tally};
use wire::{KernelId, Message as _};

use super::line::{Line, bell, piece};
use super::{bulk, content};
use crate::proof;

/// What a kernel has heard of one that has said nothing.
const NOTHING: Reported = Reported { next: 0, wrong: 0, missed: 0 };

/// Answers what measurements send.
pub struct Tests {
    kernel: Arc<Kernel>,
    links: Weak<Links>,
    reaches: Vec<Reach>,
    /// What was heard of those who speak to many, by index.
    heard: Lock<BTreeMap<u16, Reported>>,
}

impl Tests {
    /// For a kernel that reaches the others so.
    pub fn new(kernel: &Arc<Kernel>, links: &Arc<Links>, reaches: Vec<Reach>) -> Arc<Self> {
        let (kernel, links) = (kernel.clone(), Arc::downgrade(links));
        Arc::new(Self { kernel, links, reaches, heard: Lock::new(BTreeMap::new()) })
    }

    /// The line that a peer names, if it is in that peer's memory.
    fn line(&self, peer: u16, at: u64, bells: bool) -> Option<Line> {
        let (window, offset) = piece(&self.reaches, peer, at, 8)?;
        let bell = if bells { Some(bell(&self.reaches, peer)?) } else { None };
        Some(Line { window, offset, bell })
    }

    /// A peer wants to know whether its memory is the same for both.
    fn prove(&self, links: &Links, message: &Incoming<'_>) -> link::Result<()> {
        let to = message.answer_to();
        let (asked, _) = message.read::<Prove>()?;
        let Some((window, offset)) = piece(&self.reaches, message.from.index, asked.at, proof::BYTES) else {
            return Err(link::Error::new(Errno::EFAULT, "not memory of the asker", message.from));
        };
        // It takes too long for the receive path.
        let mine = self.links.clone();
        let started = self.kernel.start_thread("proof", move |_| {
            proof::take_part(&window, offset, proof::Side::Asked);
            drop(window);
            if let Some(links) = mine.upgrade() {
                // An asker that is dead needs no answer.
                let _ = links.answer(to, &Proved {}, &[]);
            }
        });
        if started.is_err() {
            links.refuse(to, Errno::ENOMEM);
        }
        Ok(())
    }

    /// Somebody says something to many.
    fn listen(&self, message: &Incoming<'_>) -> link::Result<()> {
        let (said, payload) = message.read::<Said>()?;
        let mut heard = self.heard.lock();
        let heard = heard.entry(message.from.index).or_insert(NOTHING);
        if said.number == 0 {
            *heard = NOTHING;
        }
        let good = said.number == heard.next && payload.iter().copied().eq(content(said.number));
        heard.wrong |= u8::from(!good);
        heard.next = said.number + 1;
        Ok(())
    }

    /// A payload lies in the asker's memory.
    fn gather(&self, links: &Links, message: &Incoming<'_>) -> link::Result<()> {
        let to = message.answer_to();
        let (asked, _) = message.read::<Gather>()?;
        let (len, good) = (asked.len as usize, asked.len.is_multiple_of(8) && asked.len as usize <= bulk::MOST);
        let found = piece(&self.reaches, message.from.index, asked.at, asked.len.into());
        let Some((window, offset)) = found.filter(|_| good && asked.rounds <= bulk::ROUNDS) else {
            return Err(link::Error::new(Errno::EFAULT, "not a payload of the asker", message.from));
        };
        let mine = self.links.clone();
        let started = self.kernel.start_thread("gather", move |_| {
            let gathered = bulk::gather(&window, offset, len, asked.rounds);
            // The asker uses its memory again when it has the answer.
            drop(window);
            if let Some(links) = mine.upgrade() {
                // An asker that is dead needs no answer.
                let _ = links.answer(to, &gathered, &[]);
            }
        });
        if started.is_err() {
            links.refuse(to, Errno::ENOMEM);
        }
        Ok(())
    }

    fn bounce(&self, links: &Links, message: &Incoming<'_>) -> link::Result<()> {
        let to = message.answer_to();
        let (asked, _) = message.read::<Bounce>()?;
        let Some(line) = self.line(message.from.index, asked.at, asked.bells != 0) else {
            return Err(link::Error::new(Errno::EFAULT, "not a line of the asker", message.from));
        };
        // Waiting is not for the receive path.
        let mine = self.links.clone();
        let started = self.kernel.start_thread("bounce", move |_| {
            let rounds = line.answer(asked.rounds);
            // The asker uses its memory again when it has the answer.
            drop(line);
            if let Some(links) = mine.upgrade() {
                // An asker that is dead needs no answer.
                let _ = links.answer(to, &Bounced { rounds }, &[]);
            }
        });
        if started.is_err() {
            links.refuse(to, Errno::ENOMEM);
        }
        Ok(())
    }
}

impl Handler for Tests {
    fn handle(&self, links: &Links, message: &Incoming<'_>) -> link::Result<()> {
        if message.header.kind == Bounce::SPEC.number {
            return self.bounce(links, message);
        }
        if message.header.kind == Gather::SPEC.number {
            return self.gather(links, message);
        }
        if message.header.kind == Prove::SPEC.number {
            return self.prove(links, message);
        }
        if message.header.kind == Tally::SPEC.number {
            let doorbells = links.peer(message.from).map_or(0, |p| p.counters.doorbells.load(Ordering::Relaxed));
            return links.answer(message.answer_to(), &Tallied { doorbells }, &[]);
        }
        if message.header.kind == Said::SPEC.number {
            return self.listen(message);
        }
        if message.header.kind == Report::SPEC.number {
            let heard = self.heard.lock().get(&message.from.index).copied().unwrap_or(NOTHING);
            return links.answer(message.answer_to(), &heard, &[]);
        }
        EchoService.handle(links, message)
    }

    fn missed(&self, _: &Links, from: KernelId) {
        if let Some(heard) = self.heard.lock().get_mut(&from.index) {
            heard.missed += 1;
        }
    }
}
