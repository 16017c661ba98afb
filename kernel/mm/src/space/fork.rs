//! The copy that `fork(2)` makes.

use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};

use base::{Errno, Error, Result};
use hal::addr::UserAddr;

use super::{CHUNK, Inner, Space};
use crate::{
    object::{Attachment, Mapper},
    vma::{Content, Prot, Vma, VmaFlags, VmaMap},
};

impl Space {
    /// A copy of this space: private pages are shared and copied at the first store on either side, shared mappings stay shared.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn fork(&self) -> Result<Arc<Self>> {
        let child = Self::new(&self.memory)?;
        let mapper = child.mapper();
        // What is copied: for each mapping its place and whether it is private.
        let mut copies: Vec<(u64, u64, bool)> = Vec::new();
        let parent = self.inner.lock();
        let mut own = Inner {
            vmas: VmaMap::new(),
            brk_start: parent.brk_start,
            brk: parent.brk,
            mmap_top: parent.mmap_top,
            limits: parent.limits,
            lock_future: false,
            program: parent.program.clone(),
            peak_pages: 0,
            peak_size: parent.vmas.totals().size,
        };
        let mut last = None;
        let mut result = Ok(());
        for vma in parent.vmas.iter().filter(|vma| !vma.flags.contains(VmaFlags::DONT_FORK)) {
            match inherit(vma, &mapper, &mut last).and_then(|copy| self.promise(copy)) {
                Ok(copy) => own.vmas.insert(copy),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
            if !vma.flags.contains(VmaFlags::WIPE_ON_FORK) {
                copies.push((vma.start, vma.end, vma.is_private()));
            }
        }
        drop(parent);
        // Even if that failed, so that its end takes the promises back.
        *child.inner.lock() = own;
        result?;
        self.copy_pages(&child, &copies)?;
        Ok(child)
    }

    fn promise(&self, vma: Vma) -> Result<Vma> {
        if vma.is_committed() {
            self.memory.commit(vma.len())?;
        }
        Ok(vma)
    }

    fn copy_pages(&self, child: &Self, copies: &[(u64, u64, bool)]) -> Result<()> {
        let no_frames = |_| Error::new(Errno::ENOMEM, "no frame for page tables");
        let many = self.table.pages() as u64 * super::PAGE > CHUNK;
        let mut inner = self.inner.lock();
        let mut batch = self.table.batch();
        for &(start, end, private) in copies {
            let mut at = start;
            while at < end {
                let to = if many { end.min(at + CHUNK) } else { end };
                // After a pause another thread may have mapped something else there; then its pages are not this child's business.
                if inner.vmas.find(at).is_some_and(|vma| vma.is_private() == private) {
                    let range = UserAddr(at)..UserAddr(to);
                    let copied = match private {
                        true => self.table.copy_cow(&child.table, range, &mut batch),
                        false => self.table.copy_shared(&child.table, range),
                    };
                    copied.map_err(no_frames)?;
                }
                at = to;
                if many {
                    batch.flush();
                    inner = self.relax(inner);
                }
            }
        }
        Ok(())
    }
}

/// The child's version of a mapping. Neighbours of one object share their hold on it.
fn inherit(vma: &Vma, mapper: &Weak<dyn Mapper>, last: &mut Option<(Arc<Attachment>, Arc<Attachment>)>) -> Result<Vma> {
    let content = match &vma.content {
        Content::Anonymous => Content::Anonymous,
        Content::Object { hold, offset } => {
            let own = match last {
                Some((old, own)) if Arc::ptr_eq(old, hold) => own.clone(),
                _ => {
                    let writable = !vma.is_private() && vma.max.contains(Prot::WRITE);
                    let own = match Attachment::new(hold.object().clone(), mapper, writable) {
                        // Sealed for future mappings; this one is not new.
                        Err(error) if error == Errno::EPERM => Attachment::new(hold.object().clone(), mapper, false),
                        other => other,
                    }?;
                    *last = Some((hold.clone(), own.clone()));
                    own
                }
            };
            Content::Object { hold: own, offset: *offset }
        }
    };
    // Locks are not inherited (`mlock(2)`).
    Ok(Vma { content, flags: vma.flags - VmaFlags::LOCKED, label: vma.label.clone(), ..vma.clone() })
}
