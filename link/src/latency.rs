//! How long answers take, as a histogram: a fixed table of counts, so that a message costs two additions and no memory.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Times below `2^FIRST` ns are one bucket: less than a message takes on any machine.
const FIRST: u32 = 8;
/// Each doubling of the time has `2^STEPS` buckets: what is told is at most a quarter too much.
const STEPS: u32 = 2;
/// The last bucket begins at 2.6 s: there requests end by their deadlines.
const BUCKETS: usize = 96;
/// Long before a count runs over, all are halved.
const FULL: u32 = 1 << 31;

/// How long the answers to requests took.
#[derive(Debug)]
pub struct Latency {
    answered: AtomicU64,
    buckets: [AtomicU32; BUCKETS],
}

impl Default for Latency {
    fn default() -> Self {
        Self { answered: AtomicU64::new(0), buckets: [const { AtomicU32::new(0) }; BUCKETS] }
    }
}

/// The bucket of a time.
const fn bucket(ns: u64) -> usize {
    if ns >> FIRST == 0 {
        return 0;
    }
    let octave = ns.ilog2();
    let step = (ns >> (octave - STEPS)) as usize & ((1 << STEPS) - 1);
    let index = 1 + (((octave - FIRST) as usize) << STEPS) + step;
    if index < BUCKETS { index } else { BUCKETS - 1 }
}

/// The first time in ns that is above the bucket; of the last one, where it begins.
const fn end(bucket: usize) -> u64 {
    let bucket = if bucket + 1 < BUCKETS { bucket } else { BUCKETS - 2 };
    ((1 << STEPS) + (bucket as u64 & ((1 << STEPS) - 1))) << (FIRST - STEPS + (bucket as u32 >> STEPS))
}

impl Latency {
    /// Counts an answer that took so many nanoseconds.
    pub fn count(&self, ns: u64) {
        self.answered.fetch_add(1, Ordering::Relaxed);
        let Some(count) = self.buckets.get(bucket(ns)) else { return };
        if count.fetch_add(1, Ordering::Relaxed) >= FULL {
            for bucket in &self.buckets {
                bucket.store(bucket.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
            }
        }
    }

    /// How many answers were counted.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Ends of buckets in ns (the first time above each) and how many answers are in it, of those that have any, in order.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        let counts = self.buckets.iter().enumerate().map(|(at, count)| (end(at), count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0)
    }

    /// The times in ns within which these parts of a thousand of the answers came, smaller parts first; each is at most a quarter too
    /// long. None before the first answer.
    pub fn within<const N: usize>(&self, permille: [u32; N]) -> Option<[u64; N]> {
        let counts = self.buckets.each_ref().map(|count| u64::from(count.load(Ordering::Relaxed)));
        let all: u64 = counts.iter().sum();
        (all > 0).then(|| {
            permille.map(|part| {
                let rank = (all * u64::from(part)).div_ceil(1000).max(1);
                let mut below = 0;
                let at = counts.iter().position(|count| {
                    below += count;
                    below >= rank
                });
                end(at.unwrap_or(BUCKETS - 1))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_below_the_end_of_its_bucket_and_not_far() {
        for ns in [0, 1, 255, 256, 257, 319, 320, 511, 512, 1000, 12_345, 1_000_000, 999_999_999, 2_000_000_000] {
            let end = end(bucket(ns));
            assert!(ns < end && (end <= ns + ns / 4 + 1 || end == 256), "{ns}: {end}");
        }
        for at in 1..BUCKETS - 1 {
            assert_eq!((bucket(end(at - 1)), bucket(end(at) - 1)), (at, at), "{at}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(end(BUCKETS - 1), end(BUCKETS - 2));
    }

    #[test]
    fn parts_of_all_answers() {
        let latency = Latency::default();
        assert_eq!(latency.within([500]), None);
        for _ in 0..990 {
            latency.count(1000);
        }
        for _ in 0..9 {
            latency.count(100_000);
        }
        latency.count(u64::MAX);
        let [p50, p99, p999, all] = latency.within([500, 990, 999, 1000]).expect("answers");
        assert_eq!((p50, p99), (1024, 1024));
        assert!((100_000..125_000).contains(&p999), "{p999}");
        assert_eq!((all, latency.answered()), (end(BUCKETS - 1), 1000));
        let counts: alloc::vec::Vec<_> = latency.counts().collect();
        assert_eq!(counts, [(1024, 990), (p999, 9), (end(BUCKETS - 1), 1)]);
    }

    #[test]
    fn a_count_does_not_run_over() {
        let latency = Latency::default();
        latency.buckets[bucket(1000)].store(FULL, Ordering::Relaxed);
        latency.buckets[bucket(5000)].store(FULL - 2, Ordering::Relaxed);
        latency.count(1000);
        assert_eq!(latency.within([500, 1000]), Some([1024, end(bucket(5000))]));
        assert!(latency.buckets.iter().all(|count| count.load(Ordering::Relaxed) <= FULL / 2));
    }
}
