//! The proof that two kernels of different boards see one memory: both write and then read what the other writes, and one of them must see it; both
//! change the same words at the same time, and no change may be lost. An emulator that runs with one possible CPU fails in the second, one without
//! barriers in the first. It takes a few milliseconds, and what is wrong is said in a sentence.
//!
//! Changes made while the other side does not run prove nothing, and hosts have fewer CPUs than machines want. So each side goes on until it has often
//! met the other at work. All that the two agree by are words that one side writes and the other reads.
//!
//! In the memory: for each side how far it is, a word for each kind of change, then for each round of the first part what each side wrote and saw.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use base::{Errno, KernelId, Ready, Wake as _};
use hal::time::now;
use hal::window::SharedWindow;
use link::window::Reach;
use link::{Incoming, Links};
use task::{Kernel, Task};
use wire::ObjectId;
use wire::test::Prove;

use crate::Peers;
use crate::measure::own_piece;

/// Pages, as a power of two.
const ORDER: usize = 1;
/// Bytes that take part.
pub const BYTES: u64 = 4096 << ORDER;
/// Changes of each kind that a side makes before it looks where the other is.
const BLOCK: u64 = 64;
/// How often the other side must have come further meanwhile.
const MEETINGS: u64 = 50;
/// Rounds of the first part.
const ROUNDS: usize = 240;
/// How long a side waits in a round for the other, in turns of a loop: not in time, for it may not run.
const TURNS: u32 = 500;
/// Where the words are: progress of each side, additions, exchanges, additions of 32 bits, rounds.
const PROGRESS: [usize; 2] = [0, 64];
const ADDED: usize = 128;
const EXCHANGED: usize = 192;
const ADDED32: usize = 256;
const TABLE: usize = 320;
/// In a side's progress: it is here (and the number of blocks that it has made); it has met the other often enough; it has finished.
const HERE: u64 = 1;
const MET: u64 = 1 << 62;
const FINISHED: u64 = 1 << 63;
/// Bytes of a round: what each side wrote, what each saw, plus 1.
const ROUND: usize = 32;
/// How long one side waits for the other, in ns.
const PATIENCE: u64 = 2_000_000_000;
const _: () = assert!(TABLE + ROUNDS * ROUND <= BYTES as usize);

/// Who one is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Whose memory it is.
    Asker = 0,
    /// The other.
    Asked = 1,
}

/// Does one side's part. If the other does not come it is done alone, which proves nothing.
pub fn take_part(window: &SharedWindow, offset: usize, side: Side) {
    let word = |at: usize| window.atomic_u64(offset + at);
    let (mine, other) = (side as usize, 1 - side as usize);
    let theirs = || word(PROGRESS[other]).load(Ordering::Acquire);
    word(PROGRESS[mine]).store(HERE, Ordering::Release);
    let (mut turn, until) = (0, now() + PATIENCE);
    while theirs() == 0 && now() < until {
        hal::cpu::relax(&mut turn);
        if turn % 256 == 0 {
            // The message that asks the other may wait for something from it.
            hal::cpu::breathe();
        }
    }
    for round in 0..ROUNDS {
        let at = |what: usize| word(TABLE + round * ROUND + what * 8);
        let before = |what: usize| word(TABLE + (round - 1) * ROUND + what * 8).load(Ordering::Acquire);
        let mut turns = 0;
        while round > 0 && before(2 + other) == 0 && turns < TURNS {
            turns += 1;
        }
        at(mine).store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let saw = at(other).load(Ordering::Relaxed);
        at(2 + mine).store(saw + 1, Ordering::Release);
    }
    let (mut blocks, mut meetings, mut seen) = (0, 0, theirs());
    let mut end = 0;
    while end == 0 {
        for _ in 0..BLOCK {
            word(ADDED).fetch_add(1, Ordering::AcqRel);
            window.atomic_u32(offset + ADDED32).fetch_add(1, Ordering::AcqRel);
            let mut was = word(EXCHANGED).load(Ordering::Relaxed);
            while let Err(now) = word(EXCHANGED).compare_exchange(was, was + 1, Ordering::AcqRel, Ordering::Relaxed) {
                was = now;
            }
        }
        blocks += 1;
        let is = theirs();
        meetings += u64::from(is != seen);
        seen = is;
        if meetings == MEETINGS {
            end = FINISHED | MET;
        } else if is & FINISHED != 0 || now() > until {
            end = FINISHED;
        }
        word(PROGRESS[mine]).store((HERE + blocks) | end, Ordering::Release);
        hal::cpu::breathe();
    }
}

/// What is wrong, after both have taken part.
fn verdict(window: &SharedWindow) -> Result<(), Failure> {
    let progress = PROGRESS.map(|at| window.atomic_u64(at).load(Ordering::Acquire));
    if progress.contains(&0) {
        return Err(Failure::Silent);
    }
    let wanted: u64 = progress.map(|side| ((side & !(FINISHED | MET)) - HERE) * BLOCK).iter().sum();
    let counts = [
        ("additions", window.atomic_u64(ADDED).load(Ordering::Acquire)),
        ("exchanges", window.atomic_u64(EXCHANGED).load(Ordering::Acquire)),
        ("additions of 32 bits", window.atomic_u32(ADDED32).load(Ordering::Acquire).into()),
    ];
    if let Some((what, count)) = counts.into_iter().find(|(_, count)| *count != wanted) {
        return Err(Failure::Wrong(alloc::format!(
            "of {wanted} {what} {count} arrived: atomic operations do not hold between the boards (QEMU: -smp 1,maxcpus=2 and \
             -accel tcg,thread=multi)"
        )));
    }
    let saw =
        |round: usize, side: usize| window.atomic_u64(TABLE + round * ROUND + (2 + side) * 8).load(Ordering::Acquire);
    let blind = (0..ROUNDS).filter(|round| saw(*round, 0) == 1 && saw(*round, 1) == 1).count();
    if blind > 0 {
        return Err(Failure::Wrong(alloc::format!(
            "in {blind} of {ROUNDS} rounds neither side saw what the other had written: barriers do not hold between the boards \
             (QEMU: -smp 1,maxcpus=2 and -accel tcg,thread=multi)"
        )));
    }
    if progress.iter().all(|side| side & MET == 0) { Err(Failure::Apart) } else { Ok(()) }
}

/// Proves the memory between this kernel and the members of other boards, in a thread of its own.
pub fn begin(kernel: &Arc<Kernel>, peers: &Arc<Peers>, reaches: &[Reach], far: Vec<KernelId>) {
    if far.is_empty() {
        return;
    }
    let (me, peers, reaches) = (kernel.clone(), peers.clone(), reaches.to_vec());
    let started = kernel.start_thread("proof", move |thread| {
        for peer in far {
            match prove(&me, &peers, &reaches, peer, thread) {
                Ok(took) => log::info!("memory is shared with kernel {peer}: proved in {} us", took / 1000),
                Err(Failure::Wrong(why)) => log::error!("memory that is shared with kernel {peer}: {why}"),
                Err(Failure::Apart) => log::info!(
                    "memory that is shared with kernel {peer} is not proved: the host hardly ever ran both kernels at the same time"
                ),
                // It died: others say so.
                Err(Failure::Silent) => log::info!("memory that is shared with kernel {peer}: it did not answer"),
            }
        }
    });
    if let Err(why) = started {
        log::error!("shared memory is not proved: {why}");
    }
}

/// Why memory is not proved.
enum Failure {
    /// What the memory does not do.
    Wrong(String),
    /// The two sides did not meet.
    Apart,
    /// The other side did not come.
    Silent,
}

fn prove(
    kernel: &Arc<Kernel>,
    peers: &Arc<Peers>,
    reaches: &[Reach],
    peer: KernelId,
    thread: &Arc<Task>,
) -> Result<u64, Failure> {
    let none = |_: base::Error| Failure::Wrong(String::from("no memory for the proof"));
    let (window, at) = own_piece(reaches, kernel.id().index, ORDER).map_err(none)?;
    let start = now();
    // 0: under way, 1: answered, 2: refused.
    let ended = Arc::new(AtomicU64::new(0));
    let (told, waker, keep) = (ended.clone(), thread.clone(), window.clone());
    let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
        drop(keep);
        let refused = answer.is_err_and(|error| error.errno != Errno::EHOSTDOWN);
        told.store(if refused { 2 } else { 1 }, Ordering::Release);
        waker.wake(Ready::all());
    });
    let deadline = start.saturating_add(4 * PATIENCE);
    peers.links().request(objects::to_wire(peer), ObjectId::NONE, &Prove { at }, &[], deadline, then);
    take_part(&window, 0, Side::Asker);
    loop {
        thread.begin_wait();
        match ended.load(Ordering::Acquire) {
            0 => thread.park(),
            2 => return Err(Failure::Silent),
            _ => break,
        }
    }
    verdict(&window).map(|()| now() - start)
}
