//! A ring of programs that pass a time stamp round: whoever gets one looks whether his clock is behind it. No effect may be seen before its cause.
//!
//! `abi child stamps pass`: from standard input to standard output, until the end. `abi child stamps begin SECONDS`: the same, with the first stamp, for so
//! long; prints to standard error how many came round.

use std::io::{Read, Write, stdin, stdout};
use std::process::ExitCode;

fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists, and the time is written to a variable of that type.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A stamp from the one before; `None` at the end.
fn take() -> Option<u64> {
    let mut bytes = [0; 8];
    stdin().lock().read_exact(&mut bytes).ok()?;
    Some(u64::from_le_bytes(bytes))
}

fn pass() -> bool {
    stdout().lock().write_all(&now().to_le_bytes()).and_then(|()| stdout().lock().flush()).is_ok()
}

/// Does what the words say.
pub fn run(words: &[&str]) -> ExitCode {
    let seconds = match words {
        ["pass"] => u64::MAX / 2_000_000_000,
        ["begin", seconds] => seconds.parse().unwrap_or(1),
        _ => return ExitCode::from(254),
    };
    let begins = words.len() > 1;
    let end = now() + seconds * 1_000_000_000;
    let mut rounds = 0_u64;
    if begins && !pass() {
        return ExitCode::FAILURE;
    }
    while let Some(stamp) = take() {
        let here = now();
        if here < stamp {
            eprintln!("a stamp of {stamp} ns came at {here} ns");
            return ExitCode::from(3);
        }
        rounds += 1;
        if here > end || !pass() {
            break;
        }
    }
    if begins {
        eprintln!("{rounds} rounds");
        // A ring that does not turn proves nothing.
        return ExitCode::from(u8::from(rounds < 100));
    }
    ExitCode::SUCCESS
}
