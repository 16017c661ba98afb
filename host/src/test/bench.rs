//! The speed that must hold: counted instructions always, the wall clock in long runs on an idle host.

use std::time::{Duration, Instant};

use plan::Isa;

use super::{Depth, Report};
use crate::bench::{self, Judged, PAIRS};
use crate::root::Root;

/// Runs of the measurement of messages between kernels of two ISAs.
const CROSS_RUNS: usize = 3;

/// Runs the gates.
pub fn all(root: &Root, report: &mut Report, depth: Depth) {
    if depth == Depth::Quick || report.skips(&["bench"]) {
        return;
    }
    for (isa, part) in [(Isa::X86_64, "micro"), (Isa::Aarch64, "aarch64-micro"), (Isa::Riscv64, "riscv64-micro")] {
        // Kernels of the other ISAs are built once more for it.
        let due = isa == Isa::X86_64 || depth == Depth::Long || report.is_filtered();
        if !due || !report.wants_part(part) {
            continue;
        }
        report.progress(&format!("bench/{part}"));
        match bench::micro::gate(root, isa) {
            Ok(rows) => {
                for (name, verdict) in rows {
                    report.record(&format!("{part}/{name}"), verdict, Duration::ZERO);
                }
            }
            Err(error) => report.record(part, Err(format!("{error:#}")), Duration::ZERO),
        }
    }
    if depth != Depth::Long {
        return;
    }
    judge(report, "wall", || bench::micro::by_the_wall(root, Isa::X86_64, PAIRS, &[]));
    judge(report, "link", || bench::link::measure(root, "duo", PAIRS));
    judge(report, "link-arm", || bench::link::measure(root, "pair-arm", CROSS_RUNS));
    judge(report, "link-riscv", || bench::link::measure(root, "pair-riscv", CROSS_RUNS));
    judge(report, "boot", || bench::boot::measure(root, PAIRS));
    judge(report, "boot-flock", || bench::boot::measure_joining(root, "flock", 1));
    if report.wants_part("life") {
        match bench::life::measure(root) {
            Ok((true, rows)) => {
                for (name, verdict) in rows {
                    report.record(&format!("life/{name}"), verdict, Duration::ZERO);
                }
            }
            Ok((false, _)) => println!("note  bench/life: host busy: not judged"),
            Err(error) => report.record("life", Err(format!("{error:#}")), Duration::ZERO),
        }
    }
}

/// A measurement by the clock on the wall: no verdict if the host was busy.
fn judge(report: &mut Report, name: &str, measure: impl FnOnce() -> anyhow::Result<Judged>) {
    if !report.wants(name) {
        return;
    }
    let start = Instant::now();
    let verdict = match measure() {
        Ok(Judged::Busy) => return println!("note  bench/{name}: host busy: not judged"),
        Ok(Judged::Good) => Ok(()),
        Ok(Judged::Bad) => Err(String::from("a bar is missed; see above")),
        Err(error) => Err(format!("{error:#}")),
    };
    report.record(name, verdict, start.elapsed());
}
