//! The membership of this kernel, for those who come with nothing: the doorbell and the panic path.

use alloc::string::String;
use alloc::sync::Arc;

use cluster::Far;
pub use cluster::{Cluster, Peers};
use hal::sync::Once;
use task::Kernel;

use crate::facts::Facts;

static PEERS: Once<Arc<Peers>> = Once::new();

/// The membership of this kernel, once it has begun.
pub fn peers() -> Option<&'static Arc<Peers>> {
    PEERS.get()
}

/// Begins this kernel's membership.
///
/// # Errors
/// A sentence for the log.
pub fn join(
    facts: &Facts,
    kernel: &Arc<Kernel>,
    far: Option<Arc<dyn Far>>,
    card: Option<Arc<dyn link::ether::Nic>>,
) -> Result<Cluster, String> {
    let starter = facts.starter;
    let about = cluster::Facts { plan: &facts.plan, text: &facts.text, info: &facts.info, starter, far, card };
    cluster::join(&about, kernel, alloc::vec::Vec::new(), |peers| PEERS.set(peers.clone()).is_ok())
}

/// Tells the others that this kernel dies, of what, and since when.
pub fn announce_death(what: core::fmt::Arguments<'_>, began: u64) {
    use core::fmt::Write as _;

    /// As much of the message as fits: nothing is allocated any more.
    struct Short([u8; 120], usize);
    impl core::fmt::Write for Short {
        fn write_str(&mut self, text: &str) -> core::fmt::Result {
            for byte in text.bytes() {
                let Some(slot) = self.0.get_mut(self.1) else { return Ok(()) };
                *slot = byte;
                self.1 += 1;
            }
            Ok(())
        }
    }

    let Some(peers) = peers() else { return };
    let mut text = Short([0; 120], 0);
    // Short never fails.
    let _ = write!(text, "{what}");
    let said = text.0.get(..text.1).unwrap_or_default();
    // A character may have been cut at the end.
    let said = core::str::from_utf8(said).unwrap_or("a panic");
    peers.dying(said, began);
}
