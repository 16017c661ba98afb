//! What a seed stands for: a machine, programs, what goes wrong, and when.

use std::{fmt, ops::Range, str::FromStr};

use hal::host::Fault;

use crate::{
    machine::{BOOT, Shape},
    programs::{ALL, Job},
    rng::Rng,
};

/// Decisions of the scheduler that are taken the calm way, by their numbers.
pub type Calm = Vec<Range<u64>>;

/// One run. A seed makes one; a smaller one fails in the same way.
#[derive(Clone, Debug)]
pub struct Case {
    /// Decides what the scheduler does, and made the rest.
    pub seed: u64,
    /// The machine.
    pub shape: Shape,
    /// The programs.
    pub jobs: Vec<Job>,
    /// What goes wrong, after how many turns.
    pub faults: Vec<(u64, Fault)>,
    /// Where the scheduler is calm.
    pub calm: Calm,
}

impl Case {
    /// The run of a seed; `kernels` fixes the number of kernels.
    pub fn of(seed: u64, kernels: Option<u16>) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let n = match rng.below(6) {
            0..=2 => 2,
            3 | 4 => 3,
            _ => 4,
        };
        let n = kernels.map_or(n, usize::from).clamp(1, 16);
        let cpus = (0..n).map(|_| if rng.one_in(6) { 2 } else { 1 }).collect();
        let jobs = (0..rng.between(2, 5)).map(|index| Job {
            index: index as usize,
            program: rng.below(ALL.len() as u64) as usize,
            place: rng.below(n as u64) as u16,
            rounds: rng.between(1, 6),
            seed: rng.next(),
        });
        let mut jobs: Vec<Job> = jobs.collect();
        let mut faults = Vec::new();
        if n > 1 && rng.one_in(3) {
            let victim = rng.between(1, n as u64 - 1) as usize;
            let when = rng.between(1, 15_000);
            faults.push((when, if rng.one_in(4) { Fault::Hang(victim) } else { Fault::Panic(victim) }));
            // Sessions whose members die with a kernel are not scripted here yet; `cob-sim --sessions` has them as state machines.
            for job in jobs.iter_mut().filter(|job| ALL.get(job.program).is_some_and(|(name, _)| *name == "sessions")) {
                job.program = 0;
            }
            if rng.one_in(2) {
                // Somebody boots it again as soon as that is possible.
                let mut at = when;
                for _ in 0..6 {
                    at += rng.between(200, 4_000);
                    faults.push((at, Fault::Line(BOOT + victim as u32)));
                }
            }
        }
        Self { seed, shape: Shape { cpus, memory: 24 << 20 }, jobs, faults, calm: Calm::new() }
    }

    /// How big it is, for people.
    pub fn words(&self) -> String {
        let jobs: Vec<String> = self
            .jobs
            .iter()
            .map(|j| format!("{} on {} x{}", ALL.get(j.program).map_or("?", |p| p.0), j.place, j.rounds))
            .collect();
        let faults: Vec<String> = self.faults.iter().map(|(at, fault)| format!("{fault:?} at {at}")).collect();
        let cpus: Vec<String> = self.shape.cpus.iter().map(usize::to_string).collect();
        format!("CPUs {}; {}; {}", cpus.join("+"), jobs.join(", "), faults.join(", "))
    }
}

/// A case as one word: the seed, the kernels, which of its programs (its place in the seed, its kind) for how many rounds, which of its faults, and where the scheduler is calm. It means
/// what the seed makes of it, so it is as old as the simulator that printed it.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |items: Vec<String>| if items.is_empty() { "-".to_owned() } else { items.join(",") };
        let jobs = self.jobs.iter().map(|j| format!("{}.{}x{}", j.index, j.program, j.rounds)).collect();
        let faults = self.faults.iter().map(|(at, fault)| {
            let (what, which) = match fault {
                Fault::Panic(kernel) => ('p', *kernel as u32),
                Fault::Hang(kernel) => ('h', *kernel as u32),
                Fault::Line(line) => ('l', *line),
            };
            format!("{at}{what}{which}")
        });
        let calm = self.calm.iter().map(|r| format!("{}..{}", r.start, r.end)).collect();
        write!(f, "{}:{}:{}:{}:{}", self.seed, self.shape.cpus.len(), list(jobs), list(faults.collect()), list(calm))
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let [seed, kernels, jobs, faults, calm] = parts[..] else {
            return Err("a case has five parts: SEED:KERNELS:PROGRAMS:FAULTS:CALM".into());
        };
        let bad = |what: &str| format!("{what:?} is no part of a case");
        let mut case = Self::of(seed.parse().map_err(|_| bad(seed))?, Some(kernels.parse().map_err(|_| bad(kernels))?));
        let all = std::mem::take(&mut case.jobs);
        for word in items(jobs) {
            let (what, rounds) = word.split_once('x').ok_or_else(|| bad(word))?;
            let (index, program) = what.split_once('.').ok_or_else(|| bad(word))?;
            let number = |text: &str| text.parse::<usize>().map_err(|_| bad(word));
            let job = all.get(number(index)?).copied().ok_or_else(|| bad(word))?;
            let program = Some(number(program)?).filter(|p| *p < ALL.len()).ok_or_else(|| bad(word))?;
            case.jobs.push(Job { program, rounds: rounds.parse().map_err(|_| bad(word))?, ..job });
        }
        case.faults.clear();
        for word in items(faults) {
            let at = word.find(|c: char| c.is_alphabetic()).ok_or_else(|| bad(word))?;
            let (turn, rest) = word.split_at(at);
            let (kind, number) = rest.split_at(1);
            let number: u32 = number.parse().map_err(|_| bad(word))?;
            let fault = match kind {
                "p" => Fault::Panic(number as usize),
                "h" => Fault::Hang(number as usize),
                "l" => Fault::Line(number),
                _ => return Err(bad(word)),
            };
            case.faults.push((turn.parse().map_err(|_| bad(word))?, fault));
        }
        for word in items(calm) {
            let (from, to) = word.split_once("..").ok_or_else(|| bad(word))?;
            case.calm.push(from.parse().map_err(|_| bad(word))?..to.parse().map_err(|_| bad(word))?);
        }
        Ok(case)
    }
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|word| *word != "-")
}

#[cfg(test)]
mod tests {
    use super::Case;

    #[test]
    fn a_case_is_read_as_it_was_written() {
        for seed in 1..200 {
            let mut case = Case::of(seed, None);
            case.calm = vec![0..17, 900..u64::MAX];
            case.jobs.truncate(2);
            let text = case.to_string();
            assert_eq!(text.parse::<Case>().map(|c| (c.to_string(), c.words())), Ok((text, case.words())));
        }
        for bad in
            ["", "1:2", "1:2:9.1x1:-:-", "1:2:0x1:-:-", "1:2:0.99x1:-:-", "1:2:-:5q1:-", "1:2:-:-:5", "x:2:-:-:-"]
        {
            assert!(bad.parse::<Case>().is_err(), "{bad:?}");
        }
    }
}
