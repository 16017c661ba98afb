//! Out of memory: which process ends so that the others, and the kernel, can go on.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering::Relaxed;

use mm::memory::{Killer, badness};

use crate::{
    kernel::Kernel,
    process::Process,
    signal::{SigInfo, Signal},
};

/// Ends the process whose memory helps most.
pub(crate) struct OomKiller(Weak<Kernel>);

impl OomKiller {
    pub fn of(kernel: &Arc<Kernel>) -> Arc<Self> {
        Arc::new(Self(Arc::downgrade(kernel)))
    }
}

/// How many pages a process holds, as long as it holds any.
fn pages(process: &Process) -> Option<usize> {
    process.space().map(|space| space.resident_pages())
}

impl Killer for OomKiller {
    fn kill_one(&self) -> bool {
        let Some(kernel) = self.0.upgrade() else { return false };
        let total = kernel.memory.info().total;
        let mut worst: Option<(i64, Arc<Process>)> = None;
        for process in kernel.table.processes() {
            let Some(held) = pages(&process).filter(|_| !process.is_init()) else { continue };
            if process.threads().iter().any(|task| task.is_dying()) {
                // Its memory is on the way; a second victim would be one too many.
                return true;
            }
            let Some(score) = badness(held, process.oom_score_adj.load(Relaxed), total) else { continue };
            if worst.as_ref().is_none_or(|(most, _)| score > *most) {
                worst = Some((score, process));
            }
        }
        let Some((_, victim)) = worst else { return false };
        let held = pages(&victim).unwrap_or(0);
        log::warn!("out of memory: process {} is killed ({held} pages); {:?}", victim.pid().0, kernel.memory.info());
        victim.signal(SigInfo::kernel(Signal::KILL)).is_ok()
    }
}
