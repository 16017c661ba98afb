//! The seeds that once failed, and some more. CI runs a thousand with the binary.

use cob_sim::Options;

fn run(seed: u64) {
    if let Err(why) = cob_sim::run(seed, &Options::default()) {
        panic!("seed {seed}: {why}\nreplay: cargo run -p cob-sim --release -- --seed {seed} --trace");
    }
}

fn interleaving(seed: u64) {
    if let Err(why) = cob_sim::sessions::run(seed, false) {
        panic!("seed {seed}: {why}\nreplay: cargo run -p cob-sim --release -- --sessions --seed {seed} --trace");
    }
}

#[test]
fn seeds_that_once_failed() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut ran = 0;
    for entry in std::fs::read_dir(dir).expect("there are seeds") {
        let path = entry.expect("readable").path();
        let sessions = path.file_stem().is_some_and(|name| name == "sessions");
        let text = std::fs::read_to_string(path).expect("readable");
        for line in text.lines().filter(|l| !l.starts_with('#')) {
            let seed = line.split_whitespace().next().and_then(|n| n.parse().ok());
            let seed = seed.unwrap_or_else(|| panic!("no seed in {line:?}"));
            if sessions {
                interleaving(seed)
            } else {
                run(seed)
            }
            ran += 1;
        }
    }
    assert!(ran > 10);
}

#[test]
fn some_seeds() {
    for seed in 1..=100 {
        run(seed);
    }
}

#[test]
fn every_seed_works_hard() {
    for seed in 1..=50 {
        let report = cob_sim::run(seed, &Options::default()).expect("holds");
        assert!(report.operations >= 200 && report.faults >= 2, "seed {seed}: {report:?}");
    }
}

#[test]
fn a_seed_is_a_run() {
    let run_it = || cob_sim::run(7, &Options::default()).expect("holds");
    let (a, b) = (run_it(), run_it());
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
}

#[test]
fn up_to_the_most_kernels_of_a_machine() {
    for kernels in [1, 2, 16, 48, 64] {
        cob_sim::run(3, &Options { kernels: Some(kernels), ..Options::default() })
            .unwrap_or_else(|why| panic!("{kernels} kernels: {why}"));
    }
}
