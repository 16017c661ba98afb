//! What `/proc` and `/sys` show of the machine, proc(5) and the kernel's `Documentation/ABI`. Text from plain facts.

use alloc::{format, string::String, vec::Vec};
use core::fmt::Write as _;

/// A CPU of the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// Its number in the machine.
    pub global: u32,
    /// The kernel that has it.
    pub kernel: u16,
    /// Its ISA, as `uname -m` says it.
    pub isa: String,
    /// Whether its kernel runs.
    pub online: bool,
    /// The `name: value` lines that its ISA shows, as `hal::cpu::describe` writes them.
    pub describe: String,
    /// Time in ns: user, nice, system, idle, waiting for I/O, interrupts, soft interrupts.
    pub times: [u64; 7],
}

/// Memory of one kernel, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// The kernel.
    pub kernel: u16,
    /// All of it.
    pub total: u64,
    /// Free.
    pub free: u64,
    /// File pages that can be dropped.
    pub cached: u64,
    /// tmpfs and shared memory.
    pub shmem: u64,
    /// Anonymous memory in use.
    pub anonymous: u64,
    /// Mapped file pages.
    pub mapped: u64,
    /// Page tables.
    pub page_tables: u64,
    /// Kernel heap.
    pub heap: u64,
    /// Kernel stacks.
    pub stacks: u64,
    /// Promised to programs.
    pub committed: u64,
    /// The most that may be promised.
    pub commit_limit: u64,
}

/// Counters of the whole system.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// ns since the machine was switched on.
    pub uptime: u64,
    /// CPU-ns spent idle, over all CPUs.
    pub idle: u64,
    /// Seconds since 1970 when it was switched on.
    pub boot_time: u64,
    /// Context switches.
    pub switches: u64,
    /// Interrupts.
    pub interrupts: u64,
    /// Processes and threads made.
    pub forks: u64,
    /// Runnable tasks.
    pub running: u64,
    /// Tasks that wait for I/O.
    pub blocked: u64,
    /// All tasks.
    pub tasks: u64,
    /// The newest pid.
    pub last_pid: u64,
    /// Load averages over 1, 5 and 15 minutes, in 1/2048.
    pub load: [u64; 3],
}

const TICK: u64 = 10_000_000;

/// `0-3,8`.
pub fn cpu_list(cpus: &[u32]) -> String {
    let mut sorted = cpus.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut out = String::new();
    let mut rest = sorted.as_slice();
    while let Some(&first) = rest.first() {
        let run = rest.iter().enumerate().take_while(|&(i, &cpu)| cpu == first + i as u32).count();
        let comma = if out.is_empty() { "" } else { "," };
        let _ = match run {
            1 => write!(out, "{comma}{first}"),
            _ => write!(out, "{comma}{first}-{}", first + run as u32 - 1),
        };
        rest = &rest[run..];
    }
    out
}

/// A mask in hexadecimal words of 32 bits, the highest first: `00000000,00000003`.
pub fn cpu_mask(cpus: &[u32]) -> String {
    let words = cpus.iter().max().map_or(1, |max| max / 32 + 1);
    let mut mask = alloc::vec![0_u32; words as usize];
    for cpu in cpus {
        if let Some(word) = mask.get_mut((cpu / 32) as usize) {
            *word |= 1 << (cpu % 32);
        }
    }
    let words: Vec<String> = mask.iter().rev().map(|word| format!("{word:08x}")).collect();
    match mask.as_slice() {
        // As Linux does for a machine of up to 32 CPUs: no leading zeros.
        [word] => format!("{word:x}"),
        _ => words.join(","),
    }
}

/// `/proc/cpuinfo`: every CPU of the machine, with its ISA and kernel.
pub fn cpuinfo(cpus: &[Cpu]) -> String {
    let mut out = String::new();
    for cpu in cpus.iter().filter(|cpu| cpu.online) {
        let _ = writeln!(out, "processor\t: {}", cpu.global);
        for line in cpu.describe.lines() {
            if let Some((name, value)) = line.split_once(':') {
                let (name, value) = (name.trim(), value.trim());
                let tab = if name.len() < 8 { "\t\t" } else { "\t" };
                let _ = writeln!(out, "{name}{tab}: {value}");
            }
        }
        let _ = writeln!(out, "physical id\t: {}", cpu.kernel);
        let _ = writeln!(out, "cob isa\t\t: {}", cpu.isa);
        let _ = writeln!(out, "cob kernel\t: {}\n", cpu.kernel);
    }
    out
}

fn meminfo_lines(m: &Memory) -> [(&'static str, u64); 20] {
    let available = m.free + m.cached;
    [
        ("MemTotal", m.total),
        ("MemFree", m.free),
        ("MemAvailable", available),
        ("Buffers", 0),
        ("Cached", m.cached + m.shmem),
        ("SwapCached", 0),
        ("Active", m.anonymous),
        ("Inactive", m.cached),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", m.anonymous),
        ("Mapped", m.mapped),
        ("Shmem", m.shmem),
        ("Slab", m.heap),
        ("KernelStack", m.stacks),
        ("PageTables", m.page_tables),
        ("CommitLimit", m.commit_limit),
        ("Committed_AS", m.committed),
    ]
}

/// The sum over kernels.
pub fn sum(memories: &[Memory]) -> Memory {
    memories.iter().fold(Memory::default(), |a, m| Memory {
        kernel: 0,
        total: a.total + m.total,
        free: a.free + m.free,
        cached: a.cached + m.cached,
        shmem: a.shmem + m.shmem,
        anonymous: a.anonymous + m.anonymous,
        mapped: a.mapped + m.mapped,
        page_tables: a.page_tables + m.page_tables,
        heap: a.heap + m.heap,
        stacks: a.stacks + m.stacks,
        committed: a.committed + m.committed,
        commit_limit: a.commit_limit + m.commit_limit,
    })
}

/// `/proc/meminfo`: the whole machine.
pub fn meminfo(memories: &[Memory]) -> String {
    let mut out = String::new();
    for (name, bytes) in meminfo_lines(&sum(memories)) {
        let _ = writeln!(out, "{:<16}{:>8} kB", format!("{name}:"), bytes / 1024);
    }
    out
}

/// `/sys/devices/system/node/nodeN/meminfo`.
pub fn node_meminfo(m: &Memory) -> String {
    let mut out = String::new();
    for (name, bytes) in meminfo_lines(m) {
        let _ = writeln!(out, "Node {} {:<15}{:>8} kB", m.kernel, format!("{name}:"), bytes / 1024);
        if name == "MemFree" {
            let used = m.total.saturating_sub(m.free);
            let _ = writeln!(out, "Node {} {:<15}{:>8} kB", m.kernel, "MemUsed:", used / 1024);
        }
    }
    out
}

/// `/proc/stat`.
pub fn stat(cpus: &[Cpu], c: &Counters) -> String {
    let mut out = String::new();
    let mut all = [0_u64; 7];
    for cpu in cpus {
        for (sum, time) in all.iter_mut().zip(cpu.times) {
            *sum += time;
        }
    }
    let mut line = |name: &str, times: [u64; 7]| {
        let [user, nice, system, idle, iowait, irq, softirq] = times.map(|t| t / TICK);
        let _ = writeln!(out, "{name} {user} {nice} {system} {idle} {iowait} {irq} {softirq} 0 0 0");
    };
    line("cpu ", all);
    for cpu in cpus.iter().filter(|cpu| cpu.online) {
        line(&format!("cpu{}", cpu.global), cpu.times);
    }
    let _ = writeln!(out, "intr {}", c.interrupts);
    let _ = writeln!(out, "ctxt {}", c.switches);
    let _ = writeln!(out, "btime {}", c.boot_time);
    let _ = writeln!(out, "processes {}", c.forks);
    let _ = writeln!(out, "procs_running {}", c.running);
    let _ = writeln!(out, "procs_blocked {}", c.blocked);
    out
}

/// `/proc/uptime`.
pub fn uptime(c: &Counters) -> String {
    let hundredths = |ns: u64| format!("{}.{:02}", ns / 1_000_000_000, ns / 10_000_000 % 100);
    format!("{} {}\n", hundredths(c.uptime), hundredths(c.idle))
}

/// `/proc/loadavg`.
pub fn loadavg(c: &Counters) -> String {
    let [one, five, fifteen] = c.load.map(|l| format!("{}.{:02}", l / 2048, l % 2048 * 100 / 2048));
    format!("{one} {five} {fifteen} {}/{} {}\n", c.running.max(1), c.tasks, c.last_pid)
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::{Counters, Cpu, Memory, cpu_list, cpu_mask, cpuinfo, loadavg, meminfo, stat, uptime};

    fn cpu(global: u32, kernel: u16) -> Cpu {
        Cpu {
            global,
            kernel,
            isa: "x86_64".into(),
            online: true,
            describe: "vendor_id: CobCPU\nflags: fpu tsc\n".into(),
            times: [10_000_000 * u64::from(global + 1); 7],
        }
    }

    #[test]
    fn lists_and_masks() {
        assert_eq!(cpu_list(&[]), "");
        assert_eq!(cpu_list(&[8, 0, 1, 2, 3]), "0-3,8");
        assert_eq!(cpu_list(&[5]), "5");
        assert_eq!(cpu_mask(&[0, 1]), "3");
        assert_eq!(cpu_mask(&[]), "0");
        assert_eq!(cpu_mask(&[0, 33]), "00000002,00000001");
    }

    #[test]
    fn every_cpu_is_shown_with_its_kernel() {
        let text = cpuinfo(&[cpu(0, 0), cpu(1, 1)]);
        assert_eq!(text.matches("processor\t: ").count(), 2);
        assert!(text.contains("cob kernel\t: 1\n"));
        assert!(text.contains("vendor_id\t: CobCPU\n"));
        assert!(text.contains("flags\t\t: fpu tsc\n"));
        let text = stat(&[cpu(0, 0), cpu(1, 1)], &Counters::default());
        assert!(text.starts_with("cpu  3 3 3 3 3 3 3 0 0 0\ncpu0 1 1"));
    }

    #[test]
    fn memory_is_the_sum_over_kernels() {
        let m = Memory { total: 1 << 30, free: 1 << 29, ..Memory::default() };
        let text = meminfo(&[m, Memory { kernel: 1, ..m }]);
        assert!(text.starts_with("MemTotal:        2097152 kB\nMemFree:         1048576 kB\n"), "{text}");
    }

    #[test]
    fn times_and_loads() {
        let c =
            Counters { uptime: 12_345_678_901, load: [2048, 1024, 0], tasks: 5, last_pid: 77, ..Counters::default() };
        assert_eq!(uptime(&c), "12.34 0.00\n");
        assert_eq!(loadavg(&c), String::from("1.00 0.50 0.00 1/5 77\n"));
    }
}
