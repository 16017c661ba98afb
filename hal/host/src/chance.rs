//! What the seed decides: who goes on, where a thread is interrupted, how long a doorbell takes; and the trace that shows whether two runs are the same.

use std::fmt::Arguments;
use std::ops::Range;
use std::sync::Mutex;

use crate::machine::lock;

/// splitmix64's last step: mixes all bits.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The decisions of a run. Each has a number; which way it goes depends on the seed and the number only, or is the calm way if the number lies
/// in one of the calm ranges. So a run can be calmed down piece by piece until only the decisions that matter are left.
pub(crate) struct Chance {
    seed: u64,
    calm: Vec<Range<u64>>,
    /// One of so many points of preemption is taken.
    rate: u64,
    /// CPUs with a bit in it get few turns.
    slow: u64,
    state: Mutex<State>,
}

struct State {
    decided: u64,
    entropy: u64,
}

impl Chance {
    pub fn new(seed: u64, calm: Vec<Range<u64>>) -> Self {
        let nature = mix(seed ^ STEP);
        let rate = [4, 8, 16, 64][(nature % 4) as usize];
        let slow = if nature & 0x300 == 0 { (nature >> 16) & (nature >> 32) } else { 0 };
        Self { seed, calm, rate, slow, state: Mutex::new(State { decided: 0, entropy: mix(seed.wrapping_add(STEP)) }) }
    }

    /// One of `n`; 0 is the calm choice.
    pub fn choose(&self, n: u64) -> u64 {
        let number = {
            let mut state = lock(&self.state);
            state.decided += 1;
            state.decided
        };
        if n <= 1 || self.calm.iter().any(|r| r.contains(&number)) {
            return 0;
        }
        mix(self.seed.wrapping_add(number.wrapping_mul(STEP))) % n
    }

    /// Whether another CPU gets in at a point where it may.
    pub fn preempts(&self) -> bool {
        self.choose(self.rate) == 1
    }

    /// Which of the CPUs that are ready goes on: the calm way is the first after `last`, in turn.
    pub fn turn(&self, ready: &[usize], last: usize) -> usize {
        let after = ready.iter().position(|&i| i > last).unwrap_or(0);
        let pick = |by: u64| ready[(after + by as usize) % ready.len()];
        let mut by = self.choose(ready.len() as u64);
        if self.slow >> (pick(by) % 64) & 1 == 1 && self.choose(16) > 1 {
            by += 1;
        }
        pick(by)
    }

    /// How long a doorbell takes, in ns.
    pub fn bell(&self) -> u64 {
        [0, 0, 300, 2_000, 20_000, 150_000][self.choose(6) as usize]
    }

    /// 64 bits for those who want randomness itself.
    pub fn entropy(&self) -> u64 {
        let mut state = lock(&self.state);
        state.entropy = state.entropy.wrapping_add(STEP);
        mix(state.entropy)
    }

    /// How many decisions were made.
    pub fn decided(&self) -> u64 {
        lock(&self.state).decided
    }
}

/// What happened, as a number, and as lines if somebody wants to read them.
pub(crate) struct Trace {
    print: bool,
    hash: Mutex<u64>,
}

impl Trace {
    pub fn new(print: bool) -> Self {
        Self { print, hash: Mutex::new(0xcbf2_9ce4_8422_2325) }
    }

    pub fn number(&self, n: u64) {
        let mut hash = lock(&self.hash);
        *hash = mix(*hash ^ n).wrapping_mul(0x0100_0000_01b3);
    }

    pub fn bytes(&self, bytes: &[u8]) {
        let sum =
            bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
        self.number(sum);
    }

    /// A line: when, on which CPU, what.
    pub fn line(&self, now: u64, kernel: usize, slot: usize, what: Arguments<'_>) {
        let text = what.to_string();
        self.bytes(text.as_bytes());
        if self.print {
            println!("{:>14.6} ms  {kernel}.{slot}  {text}", now as f64 / 1e6);
        }
    }

    pub fn prints(&self) -> bool {
        self.print
    }

    pub fn hash(&self) -> u64 {
        *lock(&self.hash)
    }
}
