//! Inputs that are nearly good, and those that once were not taken well.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::Path,
};

use cob_fuzz::TARGETS;
use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any},
    prop_oneof,
    sample::{Index, select},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

/// Inputs per target, for each case that a property gets (`PROPTEST_CASES`).
const TIMES: u32 = 8;

/// Numbers at which code goes wrong.
const EDGES: [u64; 9] = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff_ffff_fffe];

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<_> =
        fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a readable input")).collect()
}

/// A change of an input. Places are where they fall, whatever its length.
#[derive(Clone, Debug)]
enum Edit {
    Cut(Index),
    Set(Index, u8),
    Number(Index, u64, usize, bool),
    Repeat(Index, usize, Index),
    Splice(Index, Vec<u8>, Index),
    Append(Vec<u8>),
}

fn edits(inputs: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<Edit>> {
    let at = any::<Index>;
    let number = (at(), select(&EDGES[..]), select(&[1_usize, 2, 4, 8][..]), any::<bool>());
    let edit = prop_oneof![
        at().prop_map(Edit::Cut),
        (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        number.prop_map(|(at, number, bytes, big)| Edit::Number(at, number, bytes, big)),
        (at(), 0..64_usize, at()).prop_map(|(from, len, to)| Edit::Repeat(from, len, to)),
        (at(), select(inputs), at()).prop_map(|(at, other, from)| Edit::Splice(at, other, from)),
        vec(any::<u8>(), 0..32).prop_map(Edit::Append),
    ];
    vec(edit, 1..5)
}

fn place(at: &Index, bytes: &[u8]) -> usize {
    at.index(bytes.len() + 1)
}

fn edit(mut bytes: Vec<u8>, edits: &[Edit]) -> Vec<u8> {
    for edit in edits {
        match edit {
            Edit::Cut(at) => bytes.truncate(place(at, &bytes)),
            Edit::Set(at, byte) => {
                let at = place(at, &bytes);
                bytes.iter_mut().skip(at).take(1).for_each(|place| *place = *byte);
            }
            Edit::Number(at, number, len, big) => {
                let at = place(at, &bytes);
                let number = if *big { number.to_be_bytes() } else { number.to_le_bytes() };
                let number = if *big { &number[8 - len..] } else { &number[..*len] };
                bytes.iter_mut().skip(at).zip(number).for_each(|(place, byte)| *place = *byte);
            }
            Edit::Repeat(from, len, to) => {
                let piece: Vec<u8> = bytes.iter().skip(place(from, &bytes)).take(*len).copied().collect();
                let to = place(to, &bytes);
                bytes.splice(to..to, piece);
            }
            Edit::Splice(at, other, from) => {
                bytes.truncate(place(at, &bytes));
                bytes.extend(&other[place(from, other)..]);
            }
            Edit::Append(more) => bytes.extend(more),
        }
    }
    bytes
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
    for (target, run) in TARGETS {
        let inputs = corpus(target);
        let changed = (prop_oneof![4 => select(inputs.clone()), 1 => Just(Vec::new())], edits(inputs));
        let mut config = Config::default();
        (config.cases, config.failure_persistence) = (config.cases * TIMES, None);
        // The same every time.
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let done = runner.run(&changed, |(input, edits)| {
            check(target, *run, &edit(input, &edits));
            Ok(())
        });
        assert!(done.is_ok(), "{}", done.unwrap_err());
    }
}
