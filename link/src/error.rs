//! What went wrong on a link, and who is to blame.

use linux_abi::Errno;
use wire::{KernelId, Malformed};

/// The error of everything that goes over a link. `ssi` turns it into `base::Error`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error {
    /// The number a program would see.
    pub errno: Errno,
    /// The reason, for the log.
    pub why: &'static str,
    /// The name of the message type that it is about; `""` for none.
    pub message: &'static str,
    /// The kernel that it is blamed on.
    pub peer: KernelId,
}

/// The result of everything that goes over a link.
pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    /// An error blamed on a peer.
    pub const fn new(errno: Errno, why: &'static str, peer: KernelId) -> Self {
        Self { errno, why, message: "", peer }
    }

    /// The same error, about a message type.
    #[must_use]
    pub fn about(mut self, kind: u16) -> Self {
        self.message = wire::name_of(kind);
        self
    }

    /// A message that is not what it says it is: the sender is guilty.
    pub fn malformed(what: Malformed, kind: u16, peer: KernelId) -> Self {
        Self::new(Errno::EBADMSG, what.why(), peer).about(kind)
    }

    /// The peer is dead.
    pub const fn down(peer: KernelId) -> Self {
        Self::new(Errno::EHOSTDOWN, "the kernel is down", peer)
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} ({}", self.errno.name(), self.why)?;
        if !self.message.is_empty() {
            write!(f, ", {}", self.message)?;
        }
        write!(f, ") kernel {}", self.peer)
    }
}

impl core::fmt::Debug for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}
