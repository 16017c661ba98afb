//! What `/proc/PID/{maps,smaps,status,statm}` show.

use alloc::vec::Vec;

use hal::{addr::UserAddr, frame::MapFrame};

use super::{PAGE, Space};
use crate::{
    memory::Use,
    vma::{Content, Label, Prot, Totals, VmaFlags},
};

/// Resident pages by what they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rss {
    /// Private (`RssAnon`).
    pub anonymous: usize,
    /// Of files (`RssFile`).
    pub file: usize,
    /// Of shared memory (`RssShmem`).
    pub shared: usize,
    /// Of these, how many only this space holds.
    pub alone: usize,
    /// Written since they were mapped.
    pub dirty: usize,
    /// Each page divided by the number of its holders, in bytes (`Pss`).
    pub proportional_bytes: u64,
}

impl Rss {
    /// All of them.
    pub const fn total(&self) -> usize {
        self.anonymous + self.file + self.shared
    }
}

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug)]
pub struct MappingInfo {
    /// First address.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// What is allowed.
    pub prot: Prot,
    /// Flags, `SHARED` among them.
    pub flags: VmaFlags,
    /// Offset into the object in bytes.
    pub offset: u64,
    /// What it is called.
    pub label: Label,
}

/// Sums for `/proc/PID/status` and `statm`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SpaceInfo {
    /// Sums over the mappings, in bytes.
    pub totals: Totals,
    /// Largest size so far, in bytes (`VmPeak`).
    pub peak_size: u64,
    /// Resident pages.
    pub resident: usize,
    /// Most resident pages so far, as far as noticed (`VmHWM`).
    pub peak_resident: usize,
}

impl Space {
    /// How many pages are mapped (the RSS); costs nothing.
    pub fn resident_pages(&self) -> usize {
        self.table.pages()
    }

    /// Sums.
    pub fn info(&self) -> SpaceInfo {
        let resident = self.table.pages();
        let mut inner = self.inner.lock();
        inner.peak_pages = inner.peak_pages.max(resident);
        SpaceInfo { totals: inner.vmas.totals(), peak_size: inner.peak_size, resident, peak_resident: inner.peak_pages }
    }

    /// Where the first mapping of this name begins.
    pub fn labelled(&self, label: &Label) -> Option<u64> {
        self.inner.lock().vmas.iter().find(|vma| vma.label == *label).map(|vma| vma.start)
    }

    /// All mappings, in order.
    pub fn mappings(&self) -> Vec<MappingInfo> {
        let inner = self.inner.lock();
        let info = |vma: &crate::vma::Vma| MappingInfo {
            start: vma.start,
            end: vma.end,
            prot: vma.prot,
            flags: vma.flags,
            offset: match &vma.content {
                Content::Anonymous => 0,
                Content::Object { offset, .. } => *offset,
            },
            label: vma.label.clone(),
        };
        inner.vmas.iter().map(info).collect()
    }

    /// What is resident in a range, page by page: not cheap.
    pub fn rss(&self, start: u64, end: u64) -> Rss {
        let mut rss = Rss::default();
        let mut at = start;
        while at < end {
            let to = end.min(at.saturating_add(super::CHUNK) & !(PAGE - 1));
            let mut last = None;
            let mut cursor = self.table.cursor(UserAddr(at)..UserAddr(end));
            while let Some(page) = cursor.next() {
                last = Some(page.va().0);
                if page.va().0 >= to {
                    break;
                }
                rss.dirty += usize::from(page.dirty());
                let frame = match page.frame() {
                    MapFrame::Own(frame) => frame,
                    MapFrame::Static(_) => {
                        rss.anonymous += 1;
                        continue;
                    }
                    // How many hold it only its home knows.
                    MapFrame::Peer(_) => {
                        rss.shared += 1;
                        continue;
                    }
                };
                match Use::of(&frame) {
                    Use::Anonymous => rss.anonymous += 1,
                    Use::File => rss.file += 1,
                    Use::Shared => rss.shared += 1,
                }
                // One of the references is the one just taken.
                let holders = frame.ref_count().saturating_sub(1).max(1);
                rss.alone += usize::from(holders == 1);
                rss.proportional_bytes += PAGE / u64::from(holders);
            }
            drop(cursor);
            // Straight to the next mapped page.
            match last {
                Some(next) if next >= to => at = next,
                _ => at = end,
            }
            if hal::sync::held() == 0 {
                hal::cpu::breathe();
            }
        }
        rss
    }
}
