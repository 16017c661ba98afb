//! What the services above the links implement and get.

use wire::{FLAG_REPLY, FLAG_REQUEST, Header, KernelId, Lane, Message, ObjectId};

use crate::{
    error::{Error, Result},
    links::Links,
};

/// A message that came.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Who sent it.
    pub from: KernelId,
    /// The lane it came on.
    pub lane: Lane,
    /// Its header.
    pub header: Header,
    /// Fixed part and payload.
    pub body: &'a [u8],
}

impl<'a> Incoming<'a> {
    /// The message as a type: its fields and its payload.
    ///
    /// # Errors
    /// `EBADMSG`, blamed on the sender.
    pub fn read<M: Message>(&self) -> Result<(M, &'a [u8])> {
        M::read(&self.header, self.body).map_err(|what| Error::malformed(what, self.header.kind, self.from))
    }

    /// Whether the sender wants an answer.
    pub const fn is_request(&self) -> bool {
        self.header.flags & FLAG_REQUEST != 0
    }

    /// Whether it answers a request.
    pub const fn is_reply(&self) -> bool {
        self.header.flags & FLAG_REPLY != 0
    }

    /// Where the answer goes.
    pub const fn answer_to(&self) -> AnswerTo {
        AnswerTo { peer: self.from, request: self.header.request, object: self.header.object, kind: self.header.kind }
    }
}

/// Where the answer to a request goes; may be kept and answered later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnswerTo {
    /// Who asked.
    pub peer: KernelId,
    /// The asker's id of the request.
    pub request: u64,
    /// The object that the request is for.
    pub object: ObjectId,
    /// The type of the request.
    pub kind: u16,
}

/// A service: handles the messages of its family.
///
/// Everything here is called on the receive path, from the doorbell interrupt or while polling: it decodes, steps a state machine, queues
/// actions. It never sleeps, never touches user memory, and never sends and waits. It may send.
pub trait Handler: Send + Sync {
    /// A request or an event.
    ///
    /// # Errors
    /// A request is answered with the errno ([`wire::generic::Failed`]); `EBADMSG` names the guilty sender in the log.
    fn handle(&self, links: &Links, message: &Incoming<'_>) -> Result<()>;

    /// The asker abandoned a request that was not answered yet. It is answered all the same: by its result or by [`Links::cancelled`].
    fn cancel(&self, links: &Links, request: AnswerTo) {
        let _ = (links, request);
    }

    /// This kernel was too slow for a group of the family that `from` speaks to. It listens again; what was said meanwhile it has not heard: ask for it.
    fn missed(&self, links: &Links, from: KernelId) {
        let _ = (links, from);
    }

    /// An answer came for which nobody waits any more (its task is dead, its deadline passed): undo what it grants.
    fn undo(&self, links: &Links, answer: &Incoming<'_>) {
        let _ = (links, answer);
    }
}

/// What a kernel says of itself in Hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// The ISA, as `e_machine` of ELF.
    pub isa: u16,
    /// CPUs.
    pub cpus: u16,
    /// Bytes of memory.
    pub memory: u64,
    /// Hash of the plan.
    pub plan: u64,
    /// The epoch of its view.
    pub epoch: u32,
}

/// What a peer did wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guilt {
    /// A message that is not one, or not of its type.
    Message(Error),
    /// A ring that cannot be read or written any more: the lane is closed.
    Lane(Lane),
    /// What it wrote in the memory of a group cannot be.
    Group,
    /// It speaks the same version of a message with another layout: that message is not spoken with it.
    OtherLayout {
        /// The type.
        name: &'static str,
        /// The version.
        version: u8,
    },
    /// It was started from another plan: nothing is spoken with it.
    OtherPlan,
}

/// What the kernel gives to its links.
pub trait Hooks: Send + Sync {
    /// The kernel's clock in nanoseconds.
    fn now(&self) -> u64;
    /// A message was sent at `clock` on the sender's clock: if ours is behind, step forward.
    fn step_forward(&self, clock: u64) {
        let _ = clock;
    }
    /// What this kernel says of itself.
    fn facts(&self) -> Facts;
    /// Whether to open a link to a kernel that poked us. No for the dead and for who is not of the plan.
    fn admit(&self, peer: KernelId) -> bool;
    /// A peer said hello (or answered ours).
    fn hello(&self, peer: KernelId, facts: Facts);
    /// A peer broke the rules: log it by name.
    fn guilty(&self, peer: KernelId, guilt: Guilt);
    /// A peer poked: it sent something, or it has something to say in its porch (that it dies).
    fn poked(&self, index: u16) {
        let _ = index;
    }
    /// An object was found at another home than thought.
    fn relocated(&self, object: ObjectId, home: KernelId) {
        let _ = (object, home);
    }
    /// The earliest deadline is now this, on the kernel's clock: call [`Links::tick`] then.
    fn set_alarm(&self, at: u64) {
        let _ = at;
    }
}
