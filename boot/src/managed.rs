//! The board controller of a machine whose boards share nothing: asked by frames of the card that carries the messages.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use base::KernelId;
use boardctl::Order;
use boardctl::ether::{self, Request};
use hal::cpuref::Fenced;
use hal::sync::{SpinLock, rank};
use hal::time::now;
use link::ether::Nic;

/// A request that is not answered is sent again after so many ns.
const AGAIN: u64 = 50_000_000;
/// How long a controller may take to switch a board off, in ns: meanwhile this kernel hears nothing else, and its peers wonder.
const OFF: u64 = 1_000_000_000;
/// How long it may take to start one anew.
const ON: u64 = 10_000_000_000;

/// So many frames are kept while an answer is waited for; more are lost.
const KEPT: usize = 1024;

/// What came while an answer of the controller was waited for, or beside it.
#[derive(Default)]
struct Came {
    /// Frames for who carries messages.
    frames: VecDeque<Vec<u8>>,
    /// The last answer: to which request, and whether that is done.
    answer: Option<(u64, bool)>,
    /// The frame that comes.
    frame: Vec<u8>,
}

/// A card, and the controller on its wire.
pub struct Managed<N> {
    card: N,
    me: KernelId,
    asked: AtomicU32,
    came: SpinLock<Came>,
}

impl<N: Nic> Managed<N> {
    /// The card of kernel `me`.
    pub fn new(card: N, me: KernelId) -> Arc<Self> {
        Arc::new(Self { card, me, asked: AtomicU32::new(0), came: SpinLock::new(rank::LINK_RINGS, Came::default()) })
    }

    /// Takes the next frame from the card, and keeps it if it is an answer; else it is in `came.frame`.
    fn take(&self, came: &mut Came) -> Option<bool> {
        if !self.card.receive(&mut came.frame) {
            return None;
        }
        let ours = ether::is_ours(&came.frame);
        if ours {
            came.answer = ether::answered(&came.frame).or(came.answer);
        }
        Some(ours)
    }

    /// Asks the controller, and polls until it has answered.
    ///
    /// # Errors
    /// A sentence about what became of it.
    fn ask(&self, board: usize, order: Order, incarnation: u32, patience: u64) -> Result<(), &'static str> {
        let board = u16::try_from(board).map_err(|_| "there is no such board")?;
        let count = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        // A later life asks with higher numbers.
        let number = u64::from(self.me.incarnation) << 32 | u64::from(count);
        let request = Request { number, board, order, starter: self.me.index, incarnation };
        let frame = ether::ask(self.card.address(), &request);
        let begin = now();
        let (mut again, mut turn) = (begin, 0);
        loop {
            let time = now();
            if time > begin + patience {
                return Err("the board controller does not answer");
            }
            if time >= again {
                self.card.send(&frame);
                again = time + AGAIN;
            }
            {
                let mut came = self.came.lock();
                let came = &mut *came;
                if self.take(came) == Some(false) && came.frames.len() < KEPT {
                    let frame = core::mem::take(&mut came.frame);
                    came.frames.push_back(frame);
                }
                if let Some((_, done)) = came.answer.filter(|(to, _)| *to == number) {
                    return if done { Ok(()) } else { Err("the board controller could not do it") };
                }
            }
            hal::cpu::relax(&mut turn);
        }
    }

    /// Switches a board off, with all its kernels.
    pub fn stop(&self, board: usize) -> Fenced {
        match self.ask(board, Order::Stop, 0, OFF) {
            Ok(()) => Fenced::Reset,
            Err(why) => {
                log::warn!("board {board}: {why}");
                Fenced::Lost
            }
        }
    }

    /// Switches a board on, whatever it does now. Its firmware starts the kernel that is `first` there.
    ///
    /// # Errors
    /// A sentence about what went wrong.
    pub fn start(&self, board: usize, first: KernelId) -> Result<(), &'static str> {
        self.ask(board, Order::Start, first.incarnation, ON)
    }
}

impl<N: Nic> Nic for Managed<N> {
    fn address(&self) -> [u8; 6] {
        self.card.address()
    }

    fn send(&self, frame: &[u8]) {
        self.card.send(frame);
    }

    fn receive(&self, out: &mut Vec<u8>) -> bool {
        let mut came = self.came.lock();
        let came = &mut *came;
        if let Some(frame) = came.frames.pop_front() {
            *out = frame;
            return true;
        }
        loop {
            match self.take(came) {
                None => return false,
                Some(true) => {}
                Some(false) => {
                    core::mem::swap(out, &mut came.frame);
                    return true;
                }
            }
        }
    }

    fn interrupts(&self, on: bool) -> bool {
        // Who asks the controller may have taken frames for which there was an interrupt.
        let waiting = !self.came.lock().frames.is_empty();
        self.card.interrupts(on && !waiting) && !waiting
    }
}
