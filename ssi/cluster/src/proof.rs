//! The proof that two kernels of different boards see one memory: both change the same words at the same time, and no change may be lost; both write and
//! then read what the other writes, and one of them must see it. An emulator that runs with one possible CPU fails the first, one without barriers the
//! second. It takes a few milliseconds, and what is wrong is said in a sentence.
//!
//! In the memory: a word for each kind of change, then for each round of the second part what each side wrote and saw.

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
/// Changes of each kind that each side makes.
const CHANGES: u64 = 4_000;
/// Rounds of the second part.
const ROUNDS: usize = 240;
/// Where the words are: who has come, additions, exchanges, additions of 32 bits, rounds.
const HERE: usize = 0;
const ADDED: usize = 64;
const EXCHANGED: usize = 128;
const ADDED32: usize = 192;
const TABLE: usize = 256;
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
    word(HERE).fetch_add(1, Ordering::AcqRel);
    let (mut turn, until) = (0, now() + PATIENCE);
    while word(HERE).load(Ordering::Acquire) < 2 && now() < until {
        hal::cpu::relax(&mut turn);
        if turn % 256 == 0 {
            // The message that asks the other may wait for something from it.
            hal::cpu::breathe();
        }
    }
    let (mine, other) = (side as usize, 1 - side as usize);
    for round in 0..ROUNDS {
        let at = |what: usize| word(TABLE + round * ROUND + what * 8);
        at(mine).store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let saw = at(other).load(Ordering::Relaxed);
        at(2 + mine).store(saw + 1, Ordering::Release);
    }
    for change in 0..CHANGES {
        word(ADDED).fetch_add(1, Ordering::AcqRel);
        window.atomic_u32(offset + ADDED32).fetch_add(1, Ordering::AcqRel);
        let mut was = word(EXCHANGED).load(Ordering::Relaxed);
        while let Err(now) = word(EXCHANGED).compare_exchange(was, was + 1, Ordering::AcqRel, Ordering::Relaxed) {
            was = now;
        }
        if change % 64 == 0 {
            hal::cpu::breathe();
        }
    }
}

/// What is wrong, after both have taken part.
fn verdict(window: &SharedWindow) -> Result<(), String> {
    let wanted = 2 * CHANGES;
    let counts = [
        ("additions", window.atomic_u64(ADDED).load(Ordering::Acquire)),
        ("exchanges", window.atomic_u64(EXCHANGED).load(Ordering::Acquire)),
        ("additions of 32 bits", window.atomic_u32(ADDED32).load(Ordering::Acquire).into()),
    ];
    if let Some((what, count)) = counts.into_iter().find(|(_, count)| *count != wanted) {
        return Err(alloc::format!(
            "of {wanted} {what} {count} arrived: atomic operations do not hold between the boards (QEMU: -smp 1,maxcpus=2 and \
             -accel tcg,thread=multi)"
        ));
    }
    let saw =
        |round: usize, side: usize| window.atomic_u64(TABLE + round * ROUND + (2 + side) * 8).load(Ordering::Acquire);
    let blind = (0..ROUNDS).filter(|round| saw(*round, 0) == 1 && saw(*round, 1) == 1).count();
    if blind > 0 {
        return Err(alloc::format!(
            "in {blind} of {ROUNDS} rounds neither side saw what the other had written: barriers do not hold between the boards"
        ));
    }
    Ok(())
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
                // It died: others say so.
                Err(Failure::Silent) => log::info!("memory that is shared with kernel {peer}: it did not answer"),
            }
        }
    });
    if let Err(why) = started {
        log::error!("shared memory is not proved: {why}");
    }
}

enum Failure {
    Wrong(String),
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
            _ if window.atomic_u64(HERE).load(Ordering::Acquire) < 2 => return Err(Failure::Silent),
            _ => break,
        }
    }
    verdict(&window).map(|()| now() - start).map_err(Failure::Wrong)
}
