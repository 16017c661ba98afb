//! How the times of answers are spread, by lane, length of the message, and whether both CPUs poll or sleep; and how much goes through.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::wait::{Ready, Wake as _};
use base::{Errno, Error};
use hal::time::now;
use link::latency::Latency;
use link::{Incoming, Links};
use wire::test::{Echo, EchoBulk, EchoUrgent, Gather, Gathered};
use wire::{Lane, ObjectId, Request};

use super::line::own_piece;
use super::run::{Pending, Run, UNDER_WAY, row, silent};
use super::{BREATH, PATIENCE, bulk};

/// Bytes beside the fixed part of a message.
const LENGTHS: [usize; 4] = [0, 256, 1024, 4096];
/// Of so many rounds one is made between CPUs that sleep: those take long.
const ASLEEP: u32 = 20;
/// Batches of what is gathered; the median counts.
const BATCHES: usize = 9;
/// Pages of a payload, as a power of two.
const PAYLOAD: usize = 6;

/// A question that is sent back.
trait Question: Request {
    fn of(value: u64) -> Self;
}

impl Question for Echo {
    fn of(value: u64) -> Self {
        Self { value }
    }
}

impl Question for EchoUrgent {
    fn of(value: u64) -> Self {
        Self { value }
    }
}

impl Question for EchoBulk {
    fn of(value: u64) -> Self {
        Self { value }
    }
}

/// A line of the file: which answers, how many they are, and how many of them came within which ns and not within the ones before.
fn line(lane: Lane, length: usize, way: &str, times: &Latency) -> String {
    let head = format!("spread {} {length} {way} {}", lane.name(), times.answered());
    times.counts().fold(head, |line, (end, count)| line + &format!(" {end}:{count}")) + "\n"
}

impl Run<'_> {
    /// All lanes on which something can be asked: answers have the fourth one.
    pub(super) fn spread(&self, rounds: u32) -> base::Result<String> {
        Ok(self.spread_of::<EchoUrgent>(rounds)?
            + &self.spread_of::<Echo>(rounds)?
            + &self.spread_of::<EchoBulk>(rounds)?)
    }

    fn spread_of<M: Question>(&self, rounds: u32) -> base::Result<String> {
        let (lane, mut text) = (M::SPEC.lane, String::new());
        for length in LENGTHS.into_iter().filter(|length| *length <= M::SPEC.payload) {
            let payload = alloc::vec![0x5a; length];
            // The first ones open the lane and make the peer poll.
            self.polled::<M>(64, &payload)?;
            text += &line(lane, length, "polled", &*self.polled::<M>(rounds, &payload)?);
            text += &line(lane, length, "asleep", &*self.sleeping::<M>(rounds.div_ceil(ASLEEP), &payload)?);
            let start = now();
            self.crowd::<M>(rounds, &payload)?;
            let each = (now() - start) * 100 / u64::from(rounds);
            text += &format!("through {} {length} {}.{:02} {rounds}\n", lane.name(), each / 100, each % 100);
        }
        Ok(text)
    }

    /// One question; when it is answered, that is counted.
    fn question_of<M: Question>(&self, value: u64, payload: &[u8], times: &Arc<Latency>, pending: &Arc<Pending>) {
        let (times, ended, thread) = (times.clone(), pending.clone(), self.thread.clone());
        let start = now();
        let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
            times.count(now() - start);
            ended.end(answer.is_ok());
            thread.wake(Ready::all());
        });
        self.links().request(self.peer, ObjectId::NONE, &M::of(value), payload, start + PATIENCE, then);
    }

    /// Question after question, both sides polling.
    fn polled<M: Question>(&self, rounds: u32, payload: &[u8]) -> base::Result<Arc<Latency>> {
        let times = Arc::new(Latency::default());
        let (mut asked, mut turn, mut good) = (0, 0_u32, true);
        let mut pending = Arc::new(Pending::default());
        pending.end(true);
        self.receive_while(|| {
            if let Some(answered) = pending.get() {
                good &= answered;
                if asked == rounds || !good {
                    return false;
                }
                asked += 1;
                pending = Arc::new(Pending::default());
                self.question_of::<M>(asked.into(), payload, &times, &pending);
            }
            turn = turn.wrapping_add(1);
            if turn.is_multiple_of(16 * BREATH) {
                hal::cpu::breathe();
            }
            true
        });
        if good { Ok(times) } else { Err(silent()) }
    }

    /// Question after question, each when both CPUs have gone to sleep.
    fn sleeping<M: Question>(&self, rounds: u32, payload: &[u8]) -> base::Result<Arc<Latency>> {
        let times = Arc::new(Latency::default());
        for value in 0..rounds {
            self.sleep_long();
            let pending = Arc::new(Pending::default());
            self.question_of::<M>(value.into(), payload, &times, &pending);
            while pending.get().is_none() {
                hal::cpu::idle_wait();
            }
            if pending.get() != Some(true) {
                return Err(silent());
            }
        }
        Ok(times)
    }

    /// Many under way at once.
    fn crowd<M: Question>(&self, rounds: u32, payload: &[u8]) -> base::Result<()> {
        let times = Arc::new(Latency::default());
        let (mut sent, mut turn) = (0_u64, 0_u32);
        let mut under_way = alloc::collections::VecDeque::new();
        let mut good = true;
        self.receive_while(|| {
            while let Some(answered) = under_way.front().and_then(|oldest: &Arc<Pending>| oldest.get()) {
                good &= answered;
                under_way.pop_front();
            }
            while good && sent < u64::from(rounds) && (under_way.len() as u64) < UNDER_WAY {
                let pending = Arc::new(Pending::default());
                self.question_of::<M>(sent, payload, &times, &pending);
                under_way.push_back(pending);
                sent += 1;
            }
            turn = turn.wrapping_add(1);
            if turn.is_multiple_of(16 * BREATH) {
                hal::cpu::breathe();
            }
            !under_way.is_empty()
        });
        if good { Ok(()) } else { Err(silent()) }
    }

    /// A payload that lies in this kernel's memory, gathered by the peer.
    pub(super) fn bulk(&self, rounds: u32) -> base::Result<String> {
        let (window, at) = own_piece(&self.shared.reaches, self.shared.kernel.id().index, PAYLOAD)?;
        let len = window.len();
        for (place, word) in window.atomic_words(0, len / 8).iter().enumerate() {
            word.store((place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15), Ordering::Relaxed);
        }
        window.publish(0, len);
        let expected = bulk::sum_in_place(&window, 0, len);
        let rounds = rounds.div_ceil(BATCHES as u32).min(bulk::ROUNDS);
        let mut all = [const { alloc::vec::Vec::new() }; 4];
        for _ in 0..BATCHES {
            let gathered: Gathered = self.question(self.peer, &Gather { at, len: len as u32, rounds })?;
            if gathered.sum != expected {
                return Err(Error::new(Errno::EBADMSG, "the payload was not what was sent"));
            }
            let Gathered { in_place, copied, own_copied, own_summed, .. } = gathered;
            all.iter_mut().zip([in_place, copied, own_copied, own_summed]).for_each(|(times, time)| times.push(time));
        }
        let names = ["bulk_in_place", "bulk_copied", "bulk_own_copied", "bulk_own_summed"];
        Ok(names.into_iter().zip(all).fold(String::new(), |text, (name, mut times)| {
            times.sort_unstable();
            let median = times.get(times.len() / 2).copied().unwrap_or_default();
            text + &row(name, median * 100, (rounds as usize * BATCHES) as u64)
        }))
    }
}
