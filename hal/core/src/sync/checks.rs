//! The lock ranks held by each CPU.

use core::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};

use super::Rank;
use crate::instance::{CpuState, try_instance};

const DEEPEST: usize = 24;

/// Ranks held by one CPU; only that CPU writes it. Locks may be released in any order.
pub(crate) struct Held {
    depth: AtomicUsize,
    ranks: [AtomicU16; DEEPEST],
}

impl Held {
    pub const fn new() -> Self {
        Self { depth: AtomicUsize::new(0), ranks: [const { AtomicU16::new(0) }; DEEPEST] }
    }
}

fn this() -> Option<&'static CpuState> {
    try_instance().map(|i| i.this_cpu())
}

/// Before a lock of `rank` is taken. `again` allows an equal rank on top.
#[track_caller]
pub(crate) fn push(rank: Rank, again: bool) {
    let Some(cpu) = this() else { return };
    let depth = cpu.held.depth.load(Relaxed);
    let top = cpu.held.ranks[..depth].iter().map(|r| r.load(Relaxed)).max();
    if let Some(top) = top
        && (rank.order() < top || (rank.order() == top && !again))
    {
        panic!("lock order: {rank:?} is taken while rank {top} is held");
    }
    record(cpu, depth, rank);
}

/// After `try_lock` took a lock: cannot dead-lock, so any order is fine.
#[track_caller]
pub(crate) fn push_tried(rank: Rank) {
    if let Some(cpu) = this() {
        record(cpu, cpu.held.depth.load(Relaxed), rank);
    }
}

#[track_caller]
fn record(cpu: &CpuState, depth: usize, rank: Rank) {
    assert!(depth < DEEPEST, "more than {DEEPEST} locks held");
    cpu.held.ranks[depth].store(rank.order(), Relaxed);
    cpu.held.depth.store(depth + 1, Relaxed);
}

/// After a lock of `rank` was released.
pub(crate) fn pop(rank: Rank) {
    let Some(cpu) = this() else { return };
    let depth = cpu.held.depth.load(Relaxed);
    let held = &cpu.held.ranks[..depth];
    // Not found: taken before the kernel had an instance. That is boot code, one CPU.
    if let Some(i) = held.iter().rposition(|r| r.load(Relaxed) == rank.order()) {
        for k in i..depth - 1 {
            held[k].store(held[k + 1].load(Relaxed), Relaxed);
        }
        cpu.held.depth.store(depth - 1, Relaxed);
    }
}

pub(crate) fn depth() -> usize {
    this().map_or(0, |cpu| cpu.held.depth.load(Relaxed))
}

#[track_caller]
pub(crate) fn assert_none(what: &str) {
    if let Some(cpu) = this() {
        let depth = cpu.held.depth.load(Relaxed);
        assert!(depth == 0, "{what} while {depth} lock(s) are held, the last of rank {}", {
            cpu.held.ranks[depth - 1].load(Relaxed)
        });
    }
}
