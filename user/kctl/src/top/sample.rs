//! What the system says at one moment, and what two of them say of the time between.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use crate::system::{self, Kernel, Load};

/// Clock ticks per second in `/proc/PID/stat`: a constant of Linux' ABI.
const HZ: f64 = 100.0;

/// A process, as `/proc/PID/stat` has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    pub pid: u64,
    pub name: String,
    pub state: char,
    /// In programs and in the kernel.
    pub ticks: u64,
    pub threads: u64,
    pub resident_pages: u64,
    /// The global id of the CPU that it ran on last.
    pub cpu: u64,
}

impl Process {
    /// Reads the line (proc_pid_stat(5)). The name may hold anything.
    pub fn parse(line: &str) -> Option<Self> {
        let (pid, rest) = line.split_once(" (")?;
        let (name, rest) = rest.rsplit_once(") ")?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        // The first word is field 3 of the manual page.
        let field = |number: usize| words.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            pid: pid.parse().ok()?,
            name: name.to_owned(),
            state: words.first()?.chars().next()?,
            ticks: field(14)? + field(15)?,
            threads: field(20)?,
            resident_pages: field(24)?,
            cpu: field(39)?,
        })
    }
}

/// One moment.
#[derive(Debug)]
pub struct Sample {
    pub at: Instant,
    pub kernels: Vec<Kernel>,
    pub loads: Vec<Load>,
    pub processes: Vec<Process>,
}

impl Sample {
    /// Looks at the system.
    pub fn take() -> Result<Self, String> {
        let kernels = crate::read("cob/kernels", system::kernels)?;
        let loads = crate::read("cob/loads", system::loads)?;
        let dir = crate::proc("");
        let entries = std::fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let mut processes = Vec::new();
        for entry in entries.flatten() {
            if !entry.file_name().to_string_lossy().starts_with(|first: char| first.is_ascii_digit()) {
                continue;
            }
            // One that ended meanwhile is not there; a name need not be UTF-8.
            if let Ok(line) = std::fs::read(entry.path().join("stat")) {
                processes.extend(Process::parse(String::from_utf8_lossy(&line).trim_end()));
            }
        }
        Ok(Self { at: Instant::now(), kernels, loads, processes })
    }
}

/// A kernel over a span of time.
#[derive(Debug, PartialEq, Serialize)]
pub struct KernelRow {
    pub id: u64,
    pub isa: String,
    pub cpus: Vec<u64>,
    pub state: String,
    /// It said what it does.
    pub answers: bool,
    /// Percent of its CPUs' time.
    pub busy: f64,
    pub memory_bytes: u64,
    pub free_bytes: u64,
    pub running: u64,
    pub tasks: u64,
    /// Messages, bytes and bells in a second.
    pub sent: f64,
    pub received: f64,
    pub sent_bytes: f64,
    pub doorbells: f64,
}

/// A process over a span of time.
#[derive(Debug, PartialEq, Serialize)]
pub struct ProcessRow {
    pub pid: u64,
    pub kernel: Option<u64>,
    pub isa: String,
    pub state: char,
    pub threads: u64,
    pub resident_bytes: u64,
    /// Percent of one CPU.
    pub busy: f64,
    pub name: String,
}

/// What rows of processes are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Busy,
    Memory,
    Pid,
}

impl Sort {
    /// The next one, for a key that goes through all.
    pub const fn next(self) -> Self {
        match self {
            Self::Busy => Self::Memory,
            Self::Memory => Self::Pid,
            Self::Pid => Self::Busy,
        }
    }

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Busy => "CPU",
            Self::Memory => "memory",
            Self::Pid => "pid",
        }
    }
}

/// A span of time.
#[derive(Debug, PartialEq, Serialize)]
pub struct Span {
    pub seconds: f64,
    pub kernels: Vec<KernelRow>,
    pub processes: Vec<ProcessRow>,
}

impl Span {
    /// What happened between two moments. What is new counts from 0; what began anew meanwhile counts for nothing.
    pub fn between(before: &Sample, after: &Sample) -> Self {
        let seconds = after.at.duration_since(before.at).as_secs_f64().max(1e-3);
        let rate = |now: u64, then: Option<u64>| now.saturating_sub(then.unwrap_or(now)) as f64 / seconds;
        let row = |kernel: &Kernel| {
            let find = |sample: &'_ Sample| sample.loads.iter().find(|load| load.id == kernel.id).cloned();
            let (now, then) = (find(after), find(before));
            let count = |of: fn(&Load) -> u64| now.as_ref().map_or(0.0, |now| rate(of(now), then.as_ref().map(of)));
            let work = count(|load| load.user_ns) + count(|load| load.system_ns);
            let all = work + count(|load| load.idle_ns);
            KernelRow {
                id: kernel.id,
                isa: kernel.isa.clone(),
                cpus: kernel.cpus.clone(),
                state: kernel.state.clone(),
                answers: now.is_some(),
                busy: if all > 0.0 { (work / all * 100.0).min(100.0) } else { 0.0 },
                memory_bytes: kernel.memory_bytes,
                free_bytes: now.as_ref().map_or(0, |load| load.free_bytes),
                running: now.as_ref().map_or(0, |load| load.running),
                tasks: now.as_ref().map_or(0, |load| load.tasks),
                sent: count(|load| load.sent),
                received: count(|load| load.received),
                sent_bytes: count(|load| load.sent_bytes),
                doorbells: count(|load| load.doorbells),
            }
        };
        let ticks: BTreeMap<u64, u64> = before.processes.iter().map(|p| (p.pid, p.ticks)).collect();
        let of_process = |process: &Process| {
            let kernel = after.kernels.iter().find(|kernel| kernel.cpus.contains(&process.cpu));
            let then = ticks.get(&process.pid).copied().unwrap_or(0);
            ProcessRow {
                pid: process.pid,
                kernel: kernel.map(|kernel| kernel.id),
                isa: kernel.map_or_else(|| String::from("-"), |kernel| kernel.isa.clone()),
                state: process.state,
                threads: process.threads,
                resident_bytes: process.resident_pages * 4096,
                busy: process.ticks.saturating_sub(then) as f64 / HZ / seconds * 100.0,
                name: process.name.clone(),
            }
        };
        Self {
            seconds,
            kernels: after.kernels.iter().map(row).collect(),
            processes: after.processes.iter().map(of_process).collect(),
        }
    }

    /// Sorts processes, and leaves only those of one kernel if one is named.
    pub fn arrange(&mut self, sort: Sort, only: Option<u64>) {
        self.processes.retain(|row| only.is_none() || row.kernel == only);
        match sort {
            // Tenths, so that rows that look alike keep their order.
            Sort::Busy => self.processes.sort_by_key(|row| (Reverse((row.busy * 10.0) as u64), row.pid)),
            Sort::Memory => self.processes.sort_by_key(|row| (Reverse(row.resident_bytes), row.pid)),
            Sort::Pid => self.processes.sort_by_key(|row| row.pid),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use std::time::{Duration, Instant};

    use super::{Process, Sample, Sort, Span};
    use crate::system;

    const STAT: &str =
        "7 (a) (b) R 1 7 7 0 -1 0 0 0 0 0 30 20 0 0 20 0 3 0 100 4096 16 0 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0";

    /// Two moments a second apart: kernel 1 works half of the time and sends a thousand messages.
    pub fn moments() -> (Sample, Sample) {
        let kernels = "id incarnation isa cpus memory_bytes state uptime_ms here\n\
                       0 1 x86_64 0 1048576 up 10 1\n1 1 aarch64 1-2 2097152 up 10 0\n2 0 riscv64 3 2097152 off - 0\n";
        let loads = |sent: u64, work: u64| {
            let text = format!(
                "id user_ns system_ns idle_ns free_bytes running tasks switches interrupts sent sent_bytes received doorbells\n\
                 0 0 0 {work} 524288 0 3 1 1 5 640 7 0\n1 {work} {work} {} 1048576 1 0 1 1 {sent} {} 0 2\n",
                2 * work,
                sent * 64
            );
            system::loads(&text).expect("loads")
        };
        let process = |ticks: u64| Process { ticks, ..Process::parse(STAT).expect("a process") };
        let sample = |at, sent, work, ticks| Sample {
            at,
            kernels: system::kernels(kernels).expect("kernels"),
            loads: loads(sent, work),
            processes: vec![process(ticks), Process { pid: 9, cpu: 0, ..process(0) }],
        };
        let now = Instant::now();
        (sample(now, 1000, 1_000, 50), sample(now + Duration::from_secs(1), 2000, 500_001_000, 100))
    }

    #[test]
    fn names_may_hold_anything() {
        let process = Process::parse(STAT).expect("a process");
        assert_eq!((process.name.as_str(), process.state, process.ticks), ("a) (b", 'R', 50));
        assert_eq!((process.threads, process.resident_pages, process.cpu), (3, 16, 1));
        for bad in ["", "7", "7 (a", "x (a) R 1", "7 (a) R 1 2"] {
            assert_eq!(Process::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn rates_are_of_the_span() {
        let (before, after) = moments();
        let mut span = Span::between(&before, &after);
        let busy: Vec<f64> = span.kernels.iter().map(|kernel| kernel.busy.round()).collect();
        assert_eq!(busy, [0.0, 50.0, 0.0]);
        assert_eq!((span.kernels[1].sent, span.kernels[0].sent), (1000.0, 0.0));
        assert_eq!(span.kernels[2].state, "off");
        span.arrange(Sort::Busy, None);
        let shown: Vec<_> = span.processes.iter().map(|row| (row.pid, row.kernel, row.busy.round())).collect();
        assert_eq!(shown, [(7, Some(1), 50.0), (9, Some(0), 0.0)]);
        span.arrange(Sort::Pid, Some(0));
        assert_eq!(span.processes.len(), 1);
    }

    #[test]
    fn a_kernel_that_began_anew_counts_for_nothing() {
        let (before, after) = moments();
        let span = Span::between(&after, &Sample { at: after.at + Duration::from_secs(1), ..before });
        assert!(span.kernels.iter().all(|kernel| kernel.sent == 0.0 && kernel.busy == 0.0));
    }
}
