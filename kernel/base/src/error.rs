//! The one error type of `kernel`, `ssi` and `linux`. Component errors are converted to it in this file only.

use linux_abi::Errno;

use crate::id::KernelId;

/// What went wrong: the number a program sees, a reason for people, and the peer to blame if there is one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Error {
    errno: Errno,
    why: &'static str,
    peer: Option<KernelId>,
}

/// The result of everything that can fail.
pub type Result<T> = core::result::Result<T, Error>;

impl Error {
    /// An error with a reason for the log; the program sees only `errno`.
    pub const fn new(errno: Errno, why: &'static str) -> Self {
        Self { errno, why, peer: None }
    }

    /// The same error, blamed on a peer kernel.
    #[must_use]
    pub const fn by(mut self, peer: KernelId) -> Self {
        self.peer = Some(peer);
        self
    }

    /// The number a program sees.
    pub const fn errno(self) -> Errno {
        self.errno
    }

    /// The reason, for logs.
    pub const fn why(self) -> &'static str {
        self.why
    }

    /// The kernel whose answer (or silence) this is, if it came from a peer.
    pub const fn peer(self) -> Option<KernelId> {
        self.peer
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::new(errno, "")
    }
}

impl core::fmt::Debug for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}", self.errno)?;
        if !self.why.is_empty() {
            write!(f, " ({})", self.why)?;
        }
        if let Some(peer) = self.peer {
            write!(f, " from kernel {peer}")?;
        }
        Ok(())
    }
}

impl PartialEq<Errno> for Error {
    fn eq(&self, other: &Errno) -> bool {
        self.errno == *other
    }
}
