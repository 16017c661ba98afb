//! Makes a failing seed smaller: operations and faults are left out while it still fails.

use std::collections::BTreeSet;

use crate::Only;

/// Runs that may be spent on it.
const BUDGET: u32 = 1000;

/// Looks for a part of a seed that still fails. `fails` runs a part; `operations` and `faults` are how many the whole seed has.
pub fn minimise(operations: u32, faults: u32, fails: impl Fn(&Only) -> bool) -> Only {
    let mut only = Only { operations: Some((0..operations).collect()), faults: Some((0..faults).collect()) };
    if !fails(&only) {
        return Only::default();
    }
    let mut runs = 0;
    // Each may let the other become smaller.
    for _ in 0..2 {
        only.operations = Some(fewer(only.operations.clone().unwrap_or_default(), &mut runs, |list| {
            fails(&Only { operations: Some(list.clone()), ..only.clone() })
        }));
        only.faults = Some(fewer(only.faults.clone().unwrap_or_default(), &mut runs, |list| {
            fails(&Only { faults: Some(list.clone()), ..only.clone() })
        }));
    }
    only
}

/// Leaves out pieces of a list, each half as long as the last.
fn fewer(mut list: BTreeSet<u32>, runs: &mut u32, fails: impl Fn(&BTreeSet<u32>) -> bool) -> BTreeSet<u32> {
    let mut piece = list.len().max(1);
    loop {
        let mut at = 0;
        while at < list.len() && *runs < BUDGET {
            let rest: BTreeSet<u32> =
                list.iter().enumerate().filter(|(i, _)| *i < at || *i >= at + piece).map(|(_, n)| *n).collect();
            *runs += 1;
            if fails(&rest) {
                list = rest;
            } else {
                at += piece;
            }
        }
        if piece == 1 || *runs >= BUDGET {
            return list;
        }
        piece /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::minimise;
    use crate::Only;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let has = |list: &Option<std::collections::BTreeSet<u32>>, n| list.as_ref().is_none_or(|l| l.contains(&n));
        let fails = |only: &Only| has(&only.operations, 17) && has(&only.operations, 203) && has(&only.faults, 2);
        let small = minimise(250, 6, fails);
        assert_eq!(small, Only { operations: Some([17, 203].into()), faults: Some([2].into()) });
        assert_eq!(minimise(250, 6, |_| false), Only::default());
        assert_eq!(minimise(9, 2, |_| true), Only { operations: Some([].into()), faults: Some([].into()) });
    }
}
