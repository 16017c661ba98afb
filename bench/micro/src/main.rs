//! Times system calls from inside: the same static program runs on Cob and on Linux, so that only the kernels differ.
//!
//! `bench-micro [ROW…]` prints one line per row: name, nanoseconds per operation (the median of the batches), operations per batch.
//! With `--cross` it runs the rows that need a second CPU instead. `--boot` tells when the machine reached this program. As pid 1 (an initramfs of
//! its own) it switches the machine off at the end.

mod counter;
mod cross;
mod rows;

use std::io::Write as _;

use rows::Row;

fn now_ns() -> u64 {
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

/// Batches per row. The median of an odd number is one of them.
const BATCHES: usize = 5;

fn measure(row: &Row) -> std::io::Result<f64> {
    let mut operation = (row.setup)()?;
    // One batch to warm caches, page tables and the emulator's translations.
    operation(row.count / 10 + 1)?;
    let mut times = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let start = now_ns();
        operation(row.count)?;
        times.push(now_ns() - start);
    }
    times.sort_unstable();
    Ok(times[BATCHES / 2] as f64 / row.count as f64)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|a| a == "--exit") {
        // The program that `fork_exec_wait` runs: nothing but an exit.
        std::process::exit(0);
    }
    if args.first().is_some_and(|a| a == "--help") {
        println!("bench-micro [--cross] [ROW...]: times system calls; rows:");
        for row in rows::SINGLE.iter().chain(cross::CROSS) {
            println!("  {:<20} {}", row.name, row.what);
        }
        return;
    }
    let wanted: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let set = if args.iter().any(|a| a == "--cross") { cross::CROSS } else { rows::SINGLE };
    let mut failed = false;
    if args.iter().any(|a| a == "--boot") {
        println!("row boot {:.1} 1", rows::since_power_on());
    } else {
        for row in set.iter().filter(|row| wanted.is_empty() || wanted.iter().any(|w| *w == row.name)) {
            match measure(row) {
                Ok(ns) => println!("row {} {ns:.1} {}", row.name, row.count),
                Err(e) => {
                    failed = true;
                    println!("failed {} {e}", row.name);
                }
            }
        }
    }
    println!("end {}", if failed { 1 } else { 0 });
    // The line is what the runner waits for.
    let _ = std::io::stdout().flush();
    if std::process::id() == 1 {
        rows::power_off();
    }
    std::process::exit(i32::from(failed));
}
