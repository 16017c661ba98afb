//! The speed that must hold: counted instructions always, the wall clock in long runs on an idle host.

use std::time::Duration;

use super::{Depth, Report};
use crate::bench::{self, Judged, PAIRS};
use crate::root::Root;

/// Runs the gates.
pub fn all(root: &Root, report: &mut Report, depth: Depth) {
    if depth == Depth::Quick || report.skips(&["bench"]) {
        return;
    }
    if report.wants_part("micro") {
        report.progress("bench/micro");
        match bench::micro::gate(root) {
            Ok(rows) => {
                for (name, verdict) in rows {
                    report.record(&format!("micro/{name}"), verdict, Duration::ZERO);
                }
            }
            Err(error) => report.record("micro", Err(format!("{error:#}")), Duration::ZERO),
        }
    }
    if depth == Depth::Long && report.wants("wall") {
        match bench::micro::by_the_wall(root, PAIRS, &[]) {
            Ok(Judged::Busy) => println!("note  bench/wall: host busy: not judged"),
            Ok(Judged::Good) => report.record("wall", Ok(()), Duration::ZERO),
            Ok(Judged::Bad) => report.record("wall", Err(String::from("a bar is missed; see above")), Duration::ZERO),
            Err(error) => report.record("wall", Err(format!("{error:#}")), Duration::ZERO),
        }
    }
}
