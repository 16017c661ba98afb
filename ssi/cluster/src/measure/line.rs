//! A line of memory that goes to and fro between two kernels: what lies under every message.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use base::Errno;
use hal::addr::PhysAddr;
use hal::boot::PhysRange;
use hal::frame::FrameRun;
use hal::time::now;
use hal::window::{SharedWindow, WindowToken};
use link::window::{Reach, Ring};

use super::{BREATH, PATIENCE};

const PAGE: u64 = 4096;

/// A piece of a peer's memory that it names by the distance from its base, and how far in what is mapped it begins.
pub fn piece(reaches: &[Reach], peer: u16, at: u64, len: u64) -> Option<(SharedWindow, usize)> {
    let reach = reaches.iter().find(|reach| reach.index == peer)?;
    let start = reach.locate(at, len).filter(|start| start.is_multiple_of(8))?;
    let first = start / PAGE * PAGE;
    let range = PhysRange { start: PhysAddr(first), len: (start + len).next_multiple_of(PAGE) - first };
    let window = WindowToken::new(range).and_then(SharedWindow::open).ok()?;
    Some((window, (start - first) as usize))
}

/// `1 << order` pages of this kernel's own for a peer, and where they are.
pub fn own_piece(reaches: &[Reach], me: u16, order: usize) -> base::Result<(SharedWindow, u64)> {
    let base = reaches.iter().find(|reach| reach.index == me).and_then(Reach::base).ok_or(Errno::ENXIO)?;
    let window = SharedWindow::offer(FrameRun::alloc(order).map_err(|_| Errno::ENOMEM)?);
    window.zero(0, window.len());
    let at = window.phys().0.checked_sub(base).ok_or(Errno::ENXIO)?;
    Ok((window, at))
}

/// What rings a peer.
pub fn bell(reaches: &[Reach], peer: u16) -> Option<Arc<dyn Ring>> {
    reaches.iter().find(|reach| reach.index == peer)?.bell.clone()
}

/// A line that two kernels reach, and the bell of the other one if they ring.
pub struct Line {
    /// Where it is.
    pub window: SharedWindow,
    /// How far in.
    pub offset: usize,
    /// The bell of the other side, if they ring.
    pub bell: Option<Arc<dyn Ring>>,
}

impl Line {
    fn word(&self) -> &AtomicU64 {
        self.window.atomic_u64(self.offset)
    }

    /// Waits until the word is `value`; `false` if that takes too long.
    pub fn wait(&self, value: u64) -> bool {
        let (word, mut turn, mut start) = (self.word(), 0, 0);
        while word.load(Ordering::Acquire) != value {
            if self.bell.is_some() {
                hal::cpu::idle_wait();
            } else {
                hal::cpu::relax(&mut turn);
                if turn % 256 != 0 {
                    continue;
                }
            }
            match start {
                0 => start = now(),
                since if now() - since > PATIENCE => return false,
                _ => {}
            }
        }
        true
    }

    /// Tells the other side.
    pub fn store(&self, value: u64) {
        self.word().store(value, Ordering::Release);
        if let Some(bell) = &self.bell {
            bell.ring();
        }
    }

    /// The asked side: `rounds` answers; how many were made.
    pub fn answer(&self, rounds: u32) -> u32 {
        for round in 0..rounds {
            if !self.wait(2 * u64::from(round) + 1) {
                return round;
            }
            self.store(2 * u64::from(round) + 2);
            if round % BREATH == 0 {
                hal::cpu::breathe();
            }
        }
        rounds
    }
}
