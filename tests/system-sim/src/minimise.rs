//! Makes a failing case smaller while it still fails: fewer faults, fewer programs, fewer rounds, and a scheduler that is calm but where it matters.

use std::ops::Range;

use crate::{Case, run};

/// Runs that may be spent on one failure.
const BUDGET: u32 = 250;

/// A smaller case, and why it fails.
pub struct Small {
    /// The case.
    pub case: Case,
    /// What does not hold in it.
    pub why: String,
    /// How many runs were made to find it.
    pub runs: u32,
    /// Decisions of the scheduler that are not the calm ones.
    pub wild: u64,
}

struct Search {
    best: Case,
    why: String,
    decisions: u64,
    runs: u32,
}

impl Search {
    /// Tries a case; it becomes the best if it fails too.
    fn fails(&mut self, case: Case) -> bool {
        if self.runs >= BUDGET {
            return false;
        }
        self.runs += 1;
        match run(&case, false) {
            Ok(_) => false,
            Err(failure) => {
                self.best = case;
                self.why = failure.why;
                self.decisions = failure.decisions;
                true
            }
        }
    }

    fn fewer_faults(&mut self) {
        let mut at = self.best.faults.len();
        while at > 0 {
            at -= 1;
            let mut case = self.best.clone();
            case.faults.remove(at);
            self.fails(case);
        }
    }

    fn fewer_jobs(&mut self) {
        let mut at = self.best.jobs.len();
        while at > 0 {
            at -= 1;
            let mut case = self.best.clone();
            case.jobs.remove(at);
            if self.fails(case) {
                continue;
            }
            while self.best.jobs[at].rounds > 1 {
                let mut case = self.best.clone();
                case.jobs[at].rounds /= 2;
                if !self.fails(case) {
                    break;
                }
            }
        }
    }

    /// Calms the scheduler: first the end, then the beginning, then pieces between, each half as long as the last.
    fn calmer(&mut self) {
        let all = 0..self.decisions + 1;
        let mut wild: Vec<Range<u64>> = Vec::from([all]);
        let mut piece = (self.decisions / 2).max(1);
        while piece >= 1 && self.runs < BUDGET {
            let mut at = 0;
            while at < wild.len() {
                let range = wild[at].clone();
                let end = range.end.min(range.start + piece);
                let mut fewer = wild.clone();
                fewer.splice(at..=at, Some(end..range.end).filter(|r| !r.is_empty()));
                let mut case = self.best.clone();
                case.calm = complement(&fewer);
                if self.fails(case) {
                    wild = fewer;
                } else if end < range.end {
                    wild.splice(at..=at, [range.start..end, end..range.end]);
                    at += 1;
                } else {
                    at += 1;
                }
                if self.runs >= BUDGET {
                    return;
                }
            }
            if piece == 1 {
                return;
            }
            piece /= 2;
        }
    }
}

/// What is not in these ranges.
fn complement(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut calm: Vec<Range<u64>> = Vec::new();
    let mut from = 0;
    for range in ranges {
        if from < range.start {
            calm.push(from..range.start);
        }
        from = range.end;
    }
    calm.push(from..u64::MAX);
    calm
}

/// Looks for a smaller case that fails; nothing if this one does not.
pub fn minimise(case: &Case) -> Option<Small> {
    let failure = run(case, false).err()?;
    let mut search = Search { best: case.clone(), why: failure.why, decisions: failure.decisions, runs: 1 };
    search.fewer_faults();
    search.fewer_jobs();
    search.calmer();
    search.fewer_jobs();
    let decisions = search.decisions;
    let calm: u64 = search.best.calm.iter().map(|r| r.end.min(decisions + 1) - r.start.min(decisions + 1)).sum();
    Some(Small { wild: (decisions + 1).saturating_sub(calm), case: search.best, why: search.why, runs: search.runs })
}

#[cfg(test)]
mod tests {
    use super::{Range, complement};

    #[test]
    fn what_is_not_wild_is_calm() {
        let all = |ranges: &[Range<u64>]| complement(ranges).iter().map(|r| (r.start, r.end)).collect::<Vec<_>>();
        let three = 3..5;
        assert_eq!(all(&[]), [(0, u64::MAX)]);
        assert_eq!(all(&[0..5, 5..9, 12..13]), [(9, 12), (13, u64::MAX)]);
        assert_eq!(all(std::slice::from_ref(&three)), [(0, 3), (5, u64::MAX)]);
    }
}
