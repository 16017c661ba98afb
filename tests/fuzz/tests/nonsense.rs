//! Inputs that are nearly good, and those that once were not taken well.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::Path,
};

use cob_fuzz::{Chance, TARGETS};

/// Inputs per target; a long run has more (`FUZZ_ROUNDS`).
const ROUNDS: u64 = 4_000;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<_> =
        fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a readable input")).collect()
}

fn check(target: &str, run: fn(&[u8]), input: &[u8]) {
    let done = panic::catch_unwind(AssertUnwindSafe(|| run(input)));
    assert!(done.is_ok(), "{target} panics; keep this as corpus/{target}/NAME: {}", input.escape_ascii());
}

#[test]
fn every_target_has_inputs_and_takes_them() {
    for (target, run) in TARGETS {
        let inputs = corpus(target);
        assert!(!inputs.is_empty(), "there is no input in corpus/{target}");
        for input in inputs {
            check(target, *run, &input);
            // Cut anywhere.
            for end in 0..input.len().min(4096) {
                check(target, *run, &input[..end]);
            }
        }
    }
}

#[test]
fn nothing_panics_over_nonsense() {
    let rounds = std::env::var("FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    for (number, (target, run)) in TARGETS.iter().enumerate() {
        let inputs = corpus(target);
        let mut chance = Chance::new(number as u64);
        for _ in 0..rounds {
            check(target, *run, &chance.mutate(&inputs));
        }
    }
}
