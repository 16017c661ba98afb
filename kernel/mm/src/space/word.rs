//! What a word of memory is for everybody who can reach it.

use alloc::sync::Arc;

use super::Space;
use crate::{object::MemoryObject, vma::Content};

impl Space {
    /// The memory object and the offset in it of an address in a shared mapping; `None` in private memory and where nothing is mapped.
    /// Processes that map the object at different addresses, or on different kernels, agree on it: this is what futex(2) goes by.
    pub fn shared_place(&self, at: u64) -> Option<(Arc<dyn MemoryObject>, u64)> {
        let inner = self.inner.lock();
        let vma = inner.vmas.find(at)?;
        match &vma.content {
            Content::Object { hold, offset } if !vma.is_private() => {
                Some((hold.object().clone(), offset + (at - vma.start)))
            }
            _ => None,
        }
    }
}
