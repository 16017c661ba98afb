//! What people see.

use crate::system::{Kernel, Lane, Link, Resource, Service};
use crate::table::{Set, align, show_list};

/// A size with at most one decimal.
pub fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let (unit, shift) = units.into_iter().find(|(_, shift)| bytes >> shift > 0).unwrap_or(("B", 0));
    match (bytes >> shift, ((bytes & ((1 << shift) - 1)) * 10) >> shift) {
        (whole, 0) => format!("{whole} {unit}"),
        (whole, tenths) => format!("{whole}.{tenths} {unit}"),
    }
}

/// A time since start.
fn uptime(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else {
        return "-".into();
    };
    let whole = seconds as u64;
    let (days, hours, minutes, rest) = (whole / 86400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{minutes}:{rest:02} min"),
        3600..86400 => format!("{hours}:{minutes:02} h"),
        _ => format!("{days} d {hours}:{minutes:02} h"),
    }
}

fn latency(ns: Option<u64>) -> String {
    match ns {
        None => "-".into(),
        Some(ns @ 0..10_000) => format!("{ns} ns"),
        Some(ns) => format!("{:.1} µs", ns as f64 / 1000.0),
    }
}

fn index(kernel: Option<u64>) -> String {
    kernel.map_or("-".into(), |k| k.to_string())
}

/// `kctl kernels`.
pub fn kernels(kernels: &[Kernel]) -> String {
    let heads = [
        ("ID", Set::Right),
        ("ISA", Set::Left),
        ("CPUS", Set::Left),
        ("MEMORY", Set::Right),
        ("STATE", Set::Left),
        ("UPTIME", Set::Right),
        ("", Set::Left),
    ];
    let row = |k: &Kernel| {
        let here = if k.here { "*" } else { "" };
        vec![
            k.id.to_string(),
            k.isa.clone(),
            show_list(&k.cpus),
            size(k.memory_bytes),
            k.state.clone(),
            uptime(k.uptime),
            here.into(),
        ]
    };
    align(&heads, &kernels.iter().map(row).collect::<Vec<_>>())
}

/// `kctl links`.
pub fn links(links: &[Link]) -> String {
    let heads = [
        ("FROM", Set::Right),
        ("TO", Set::Right),
        ("TRANSPORT", Set::Left),
        ("STATE", Set::Left),
        ("MESSAGES", Set::Right),
        ("BYTES", Set::Right),
        ("DOORBELLS", Set::Right),
        ("POLLS", Set::Right),
        ("DELAYED", Set::Right),
        ("RTT", Set::Right),
    ];
    let row = |l: &Link| {
        vec![
            l.from.to_string(),
            l.to.to_string(),
            l.transport.clone(),
            l.state.clone(),
            l.messages.to_string(),
            l.bytes.to_string(),
            l.doorbells.to_string(),
            l.polls.to_string(),
            l.delayed.to_string(),
            latency(l.rtt_ns),
        ]
    };
    align(&heads, &links.iter().map(row).collect::<Vec<_>>())
}

/// `kctl links --lanes`.
pub fn lanes(links: &[Link]) -> String {
    let heads = [
        ("FROM", Set::Right),
        ("TO", Set::Right),
        ("LANE", Set::Left),
        ("SENT", Set::Right),
        ("BYTES", Set::Right),
        ("RECEIVED", Set::Right),
        ("BYTES", Set::Right),
        ("DEPTH", Set::Right),
        ("WAITING", Set::Right),
        ("ANSWERED", Set::Right),
        ("P50", Set::Right),
        ("P99", Set::Right),
        ("P99.9", Set::Right),
    ];
    let row = |lane: &Lane| {
        vec![
            lane.from.to_string(),
            lane.to.to_string(),
            lane.lane.clone(),
            lane.sent.to_string(),
            lane.sent_bytes.to_string(),
            lane.received.to_string(),
            lane.received_bytes.to_string(),
            lane.depth_bytes.to_string(),
            lane.waiting.to_string(),
            lane.answered.to_string(),
            latency(lane.p50_ns),
            latency(lane.p99_ns),
            latency(lane.p999_ns),
        ]
    };
    align(&heads, &links.iter().flat_map(|link| &link.lanes).map(row).collect::<Vec<_>>())
}

/// `kctl resources`.
pub fn resources(resources: &[Resource]) -> String {
    let heads = [
        ("KIND", Set::Left),
        ("NAME", Set::Left),
        ("OWNER", Set::Right),
        ("ACCESS", Set::Left),
        ("HOLDER", Set::Right),
    ];
    let row = |r: &Resource| vec![r.kind.clone(), r.name.clone(), index(r.owner), r.access.clone(), index(r.holder)];
    align(&heads, &resources.iter().map(row).collect::<Vec<_>>())
}

/// `kctl service list`.
pub fn services(services: &[Service]) -> String {
    let heads = [("SERVICE", Set::Left), ("KERNEL", Set::Right), ("PART", Set::Right)];
    let part = |s: &Service| if s.of == 1 { "all".to_string() } else { format!("{} of {}", s.part, s.of) };
    let row = |s: &Service| vec![s.service.clone(), index(s.kernel), part(s)];
    align(&heads, &services.iter().map(row).collect::<Vec<_>>())
}

/// `kctl topo`.
pub fn topo(kernels: &[Kernel], links: &[Link]) -> String {
    let cpus: usize = kernels.iter().map(|k| k.cpus.len()).sum();
    let memory: u64 = kernels.iter().map(|k| k.memory_bytes).sum();
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let mut text = format!("{}, {}, {}\n", count(kernels.len(), "kernel"), count(cpus, "CPU"), size(memory));
    for (at, k) in kernels.iter().enumerate() {
        let last = at + 1 == kernels.len();
        let (branch, stem) = if last { ("└─", "  ") } else { ("├─", "│ ") };
        let here = if k.here { ", here" } else { "" };
        let owns = format!("{}, CPU {}, {}", k.isa, show_list(&k.cpus), size(k.memory_bytes));
        text += &format!("{branch} kernel {}: {}, {owns}{here}\n", k.id, k.state);
        let mine: Vec<&Link> = links.iter().filter(|l| l.from == k.id).collect();
        for (at, l) in mine.iter().enumerate() {
            let branch = if at + 1 == mine.len() { "└─" } else { "├─" };
            text += &format!("{stem} {branch} to {}: {} ({}), {}\n", l.to, l.transport, l.state, latency(l.rtt_ns));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(
            [0, 1023, 1 << 20, 1_610_612_736, 268_435_456].map(size),
            ["0 B", "1023 B", "1 MiB", "1.5 GiB", "256 MiB"]
        );
        assert_eq!(
            [None, Some(0.25), Some(61.0), Some(7300.0), Some(90061.0)].map(uptime),
            ["-", "0.2 s", "1:01 min", "2:01 h", "1 d 1:01 h"]
        );
        assert_eq!([None, Some(900), Some(12_345)].map(latency), ["-", "900 ns", "12.3 µs"]);
    }
}
