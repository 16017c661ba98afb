//! Gives what the fuzzer finds to the target that this program is named after.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cob_fuzz::run(env!("CARGO_BIN_NAME"), input));
