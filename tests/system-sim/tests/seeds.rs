//! Some seeds, those that failed once, and whether a seed is the same run each time.

use system_sim::{Case, run};

fn fine(case: &Case) -> u64 {
    match run(case, false) {
        Ok(report) => report.trace,
        Err(failure) => panic!("{case}: {}\n{}", case.words(), failure.why),
    }
}

#[test]
fn seeds_that_failed_once() {
    for line in include_str!("../seeds/failed.txt").lines().filter(|line| !line.starts_with('#')) {
        let case = line.split(' ').next().and_then(|word| word.parse().ok());
        fine(&case.unwrap_or_else(|| panic!("{line}: no case")));
    }
}

#[test]
fn a_seed_is_one_run() {
    let mut traces = Vec::new();
    for seed in 1000..1006 {
        let case = Case::of(seed, Some(2));
        let trace = fine(&case);
        assert_eq!(fine(&case), trace, "seed {seed} went another way the second time");
        traces.push(trace);
    }
    traces.dedup();
    assert_eq!(traces.len(), 6, "different seeds are different runs");
}

#[test]
fn a_calm_run_is_one_run_too() {
    let mut case = Case::of(7, Some(2));
    let all = 0..u64::MAX;
    case.calm = Vec::from([all]);
    let trace = fine(&case);
    assert_eq!(fine(&case), trace);
}
