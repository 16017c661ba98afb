//! What a channel between two kernels offers to the layers above it.

use alloc::{boxed::Box, string::String, vec::Vec};

use wire::{HEADER_SIZE, KernelId, Lane};

use crate::{
    group::Lost,
    signs::{Sign, Signs},
};

/// Why a message was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// No room now, or the lane is not open yet: keep it; a poke of the peer says when to try again.
    Later,
    /// No message of that length ever goes through this lane.
    TooLong,
    /// The peer broke the channel's rules.
    Corrupt,
    /// The channel is closed.
    Closed,
}

/// The channel to one incarnation of one peer. Lanes do not wait for each other; each is in order and loses nothing.
pub trait Transport: Send + Sync {
    /// Bytes of the longest message that ever goes through a lane, its header among them.
    fn longest(&self, lane: Lane) -> usize;
    /// Sends one message. The peer may not notice before [`Transport::notify`].
    ///
    /// # Errors
    /// [`SendError`]; the message was not sent.
    fn send(&self, lane: Lane, head: &[u8; HEADER_SIZE], parts: &[&[u8]]) -> Result<(), SendError>;
    /// Makes the peer look at what was sent. Says whether its bell had to be rung.
    fn notify(&self) -> bool;
    /// Takes the next message of a lane into `out`; `false` if there is none.
    ///
    /// # Errors
    /// The peer broke the channel's rules: nothing more can be read from the lane.
    fn receive(&self, lane: Lane, out: &mut Vec<u8>) -> Result<bool, crate::ring::Corrupt>;
    /// Takes the next message of the most urgent lane that has one, up to `last`, into `out`; which lane.
    ///
    /// # Errors
    /// The lane that the peer broke. The others go on.
    fn receive_urgent(&self, last: Lane, out: &mut Vec<u8>) -> Result<Option<Lane>, Lane> {
        let mut broken = None;
        for lane in Lane::ALL.into_iter().take_while(|lane| *lane <= last) {
            match self.receive(lane, out) {
                Ok(true) => return Ok(Some(lane)),
                Ok(false) => {}
                Err(crate::ring::Corrupt) => broken = Some(lane),
            }
        }
        broken.map_or(Ok(None), Err)
    }
    /// The peer poked: opens lanes that it wants and takes up what it offers. Whether it has something to say of itself (that it dies).
    fn attend(&self) -> bool;
    /// The batch is handled: returns credit. Says whether the peer waits for it and was notified.
    fn rest(&self) -> bool;
    /// Bytes that were sent on the lane and not read, as far as known.
    fn depth(&self, lane: Lane) -> u64;
    /// Ends the channel and frees what it has.
    fn close(&self);
}

/// The speaking end of a group, over some kind of channel. Dropped when no listener looks at it any more.
pub trait Speaking: Send {
    /// Where listeners find it: the distance from the beginning of this kernel's memory, and bytes.
    fn place(&self) -> (u64, u32);
    /// Gives a kernel a new seat: its number, and where it begins to listen.
    fn seat(&mut self, index: u16) -> (u32, u64);
    /// Takes a seat away.
    fn unseat(&mut self, index: u16);
    /// Who has a seat, as bits by index.
    fn seated(&self) -> u64;
    /// Those that have read least, as bits by index, and how far they are.
    fn last(&self) -> (u64, u64);
    /// Kernels that broke the rules since this was asked, as bits by index; they have no seats any more.
    fn take_liars(&mut self) -> u64;
    /// Says something to all who have seats. They may not notice before [`Carrier::wake`].
    ///
    /// # Errors
    /// [`SendError::Later`]: there is no room; somebody pokes when there is.
    fn say(&mut self, head: &[u8; HEADER_SIZE], parts: &[&[u8]]) -> Result<(), SendError>;
}

/// The listening end of a group.
pub trait Listening: Send {
    /// Whether there is something to hear, be it that the seat is lost.
    fn is_ready(&self) -> bool;
    /// Takes the next message into `out`; `false` if there is none.
    ///
    /// # Errors
    /// [`Lost`], for ever.
    fn hear(&mut self, out: &mut Vec<u8>) -> Result<bool, Lost>;
    /// A batch is handled. `true` if the speaker waits for room: [`Carrier::poke`].
    fn rest(&mut self) -> bool;
}

/// A kind of channel, as one kernel sees it: notices who sent something, opens channels, lets the CPU sleep.
pub trait Carrier: Send + Sync {
    /// The name in `/proc/cob/links`.
    fn name(&self) -> &'static str;
    /// What it has counted beside the messages of each link: names and values.
    fn counts(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
    /// What whoever runs at this index shows of itself, if this carrier reaches it; for the own index, what it shows itself.
    fn signs(&self, index: u16) -> Option<Signs>;
    /// Who runs at this index now, if this carrier reaches it.
    fn present(&self, index: u16) -> Option<KernelId> {
        Some(self.signs(index)?.owner)
    }
    /// Of what whoever ran at this index said that it dies.
    fn reason(&self, index: u16) -> String;
    /// This kernel gives a sign of itself. They see it when they look, or are told by [`Carrier::announce`].
    fn show(&self, sign: Sign<'_>);
    /// Makes all kernels below `kernels` look at the signs of this one, whatever they do. A dying kernel calls it: it takes no lock that this kernel
    /// may hold.
    fn announce(&self, kernels: u16);
    /// Puts `claim` into the fence word of a kernel if it is `expected`; what it was. `None` if there is no such word within reach.
    fn claim_fence(&self, index: u16, expected: u64, claim: u64) -> Option<u64>;
    /// Time passed: what was not acknowledged is sent again. Says when to call again at the latest, on the kernel's clock.
    fn tick(&self, now: u64) -> Option<u64> {
        let _ = now;
        None
    }
    /// Opens the channel to a peer; `None` if it is not reached this way.
    fn connect(&self, peer: KernelId) -> Option<Box<dyn Transport>>;
    /// Memory to speak to many at once; `None` if this kind of channel has no such thing, or there is no memory.
    fn speak(&self) -> Option<Box<dyn Speaking>> {
        None
    }
    /// Listens to what a peer says to many. `None` if what it told cannot be.
    fn listen(&self, peer: KernelId, place: (u64, u32), seat: (u32, u64)) -> Option<Box<dyn Listening>> {
        let _ = (peer, place, seat);
        None
    }
    /// Makes a kernel look at the groups that it listens to, if it sleeps. Says whether its bell was rung.
    fn wake(&self, index: u16) -> bool {
        let _ = index;
        false
    }
    /// Makes a kernel look whether what it has to say fits now.
    fn poke(&self, index: u16) {
        let _ = index;
    }
    /// Draining begins: nobody needs to ring.
    fn begin(&self);
    /// Whose messages may be there, as bits by index; they are looked at after this.
    fn take_pending(&self) -> u64;
    /// The rings of these peers are polled, and nobody else's: they need not say that they sent something. What those that are left out sent
    /// before is looked at after this.
    fn watch(&self, peers: u64);
    /// Draining ends; `false` if something came meanwhile and draining goes on.
    fn end(&self) -> bool;
}
