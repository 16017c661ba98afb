//! What `/proc/PID` shows of a process, proc(5). Text from plain facts: the facts of a process on another kernel come in a message.

use alloc::{format, string::String, vec::Vec};
use core::fmt::Write as _;

/// The files of `/proc/PID` whose content is text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum ProcessFile {
    /// One line of numbers.
    Stat = 1,
    /// Memory in pages.
    Statm = 2,
    /// For people.
    Status = 3,
    /// Arguments, each with a NUL.
    Cmdline = 4,
    /// Environment, each with a NUL.
    Environ = 5,
    /// Name.
    Comm = 6,
    /// Mappings.
    Maps = 7,
    /// Resource limits.
    Limits = 8,
    /// Mounts as this process sees them.
    Mounts = 9,
    /// Where the out-of-memory killer ranks it.
    OomScore = 11,
    /// The wish that goes into that rank.
    OomScoreAdj = 12,
    /// What it waits for.
    Wchan = 13,
    /// Scheduler statistics.
    Schedstat = 14,
    /// Which personality it has.
    Personality = 15,
    /// Control groups: none.
    Cgroup = 16,
    /// Kernel of the next execve, `/proc/PID/cob/placement`.
    Placement = 17,
    /// Mounts with ids.
    Mountinfo = 18,
}

impl ProcessFile {
    /// Names and permission bits, in the order of a listing.
    pub const ALL: &[(&str, Self, u16)] = &[
        ("cgroup", Self::Cgroup, 0o444),
        ("cmdline", Self::Cmdline, 0o444),
        ("comm", Self::Comm, 0o644),
        ("environ", Self::Environ, 0o400),
        ("limits", Self::Limits, 0o444),
        ("maps", Self::Maps, 0o444),
        ("mountinfo", Self::Mountinfo, 0o444),
        ("mounts", Self::Mounts, 0o444),
        ("oom_score", Self::OomScore, 0o444),
        ("oom_score_adj", Self::OomScoreAdj, 0o644),
        ("personality", Self::Personality, 0o400),
        ("schedstat", Self::Schedstat, 0o444),
        ("stat", Self::Stat, 0o444),
        ("statm", Self::Statm, 0o444),
        ("status", Self::Status, 0o444),
        ("wchan", Self::Wchan, 0o444),
    ];

    /// The file with this number on the wire.
    pub fn from_number(number: u8) -> Option<Self> {
        if number == Self::Placement as u8 {
            return Some(Self::Placement);
        }
        Self::ALL.iter().map(|(_, file, _)| *file).find(|file| *file as u8 == number)
    }
}

/// The links of `/proc/PID`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProcessLink {
    /// Working directory.
    Cwd,
    /// Program.
    Exe,
    /// Root directory.
    Root,
    /// A descriptor.
    Fd(u32),
}

/// A process or thread as `stat`, `statm` and `status` show it. Times in ns, sizes in bytes unless said otherwise.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Facts {
    /// Thread number (pid for the process itself).
    pub tid: u32,
    /// Process number.
    pub pid: u32,
    /// Parent.
    pub ppid: u32,
    /// Process group.
    pub pgid: u32,
    /// Session.
    pub sid: u32,
    /// Controlling terminal as `dev_t` of 32 bits; 0 for none.
    pub tty: u32,
    /// Foreground group of that terminal; -1 for none.
    pub tpgid: i32,
    /// Name, at most 15 bytes.
    pub comm: Vec<u8>,
    /// `R`, `S`, `D`, `T`, `t`, `Z`, `X`.
    pub state: char,
    /// uid, euid, suid, fsuid.
    pub users: [u32; 4],
    /// gid, egid, sgid, fsgid.
    pub groups: [u32; 4],
    /// Supplementary groups.
    pub more_groups: Vec<u32>,
    /// Size of the descriptor table.
    pub fd_size: u32,
    /// Threads.
    pub threads: u32,
    /// Address space.
    pub vsize: u64,
    /// Resident memory: anonymous, file-backed, shared.
    pub rss: [u64; 3],
    /// Most resident memory.
    pub peak_rss: u64,
    /// Most address space.
    pub peak_vsize: u64,
    /// Bytes of code, data and stack mappings.
    pub parts: [u64; 3],
    /// Page-table bytes.
    pub page_tables: u64,
    /// Faults: minor, of children, major, of children.
    pub faults: [u64; 4],
    /// Times: user, system, of children user, of children system.
    pub times: [u64; 4],
    /// Start since boot.
    pub started: u64,
    /// Nice value.
    pub nice: i8,
    /// Real-time priority; 0 for none.
    pub rt_priority: u8,
    /// Scheduling policy, `SCHED_*`.
    pub policy: u8,
    /// CPU it ran on last, by global number.
    pub cpu: u32,
    /// CPUs it may run on, by global number.
    pub allowed: Vec<u32>,
    /// Kernel it runs on.
    pub kernel: u16,
    /// Signals: pending for the thread, for the process, blocked, ignored, caught.
    pub signals: [u64; 5],
    /// Queued signals and their limit.
    pub queued: (u64, u64),
    /// Capabilities: inheritable, permitted, effective, bounding, ambient.
    pub capabilities: [u64; 5],
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// File mode creation mask.
    pub umask: u32,
    /// Context switches: voluntary, involuntary.
    pub switches: (u64, u64),
    /// Signal that the parent gets.
    pub exit_signal: u8,
    /// Wait status, for a zombie.
    pub exit_status: i32,
    /// Address of the program: start and end of code, start of stack, start of data, end of data, start of brk, arguments, environment.
    pub layout: [u64; 10],
    /// RLIMIT_RSS.
    pub rss_limit: u64,
    /// Time spent waiting in the run queue.
    pub queued_time: u64,
    /// How often it was given a CPU.
    pub timeslices: u64,
}

/// Ticks of 10 ms (USER_HZ = 100), proc(5).
const TICK: u64 = 10_000_000;
const PAGE: u64 = 4096;

impl Facts {
    fn resident(&self) -> u64 {
        self.rss.iter().sum()
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(&self.comm).into_owned()
    }

    /// `/proc/PID/stat`: 52 fields.
    pub fn stat(&self) -> String {
        let priority = if self.rt_priority > 0 { -1 - i32::from(self.rt_priority) } else { 20 + i32::from(self.nice) };
        let [
            start_code,
            end_code,
            start_stack,
            start_data,
            end_data,
            start_brk,
            arg_start,
            arg_end,
            env_start,
            env_end,
        ] = self.layout;
        let [minor, child_minor, major, child_major] = self.faults;
        let [user, system, child_user, child_system] = self.times.map(|t| t / TICK);
        let [_, pending, blocked, ignored, caught] = self.signals;
        let mut line = format!("{} ({}) {} ", self.tid, self.name(), self.state);
        let _ = write!(line, "{} {} {} {} {} 0 ", self.ppid, self.pgid, self.sid, self.tty, self.tpgid);
        let _ = write!(line, "{minor} {child_minor} {major} {child_major} ");
        let _ = write!(line, "{user} {system} {child_user} {child_system} ");
        let _ = write!(line, "{priority} {} {} 0 {} ", self.nice, self.threads, self.started / TICK);
        let _ = write!(line, "{} {} {} ", self.vsize, self.resident() / PAGE, self.rss_limit);
        let _ = write!(line, "{start_code} {end_code} {start_stack} 0 0 ");
        // Signals as decimal words of 32 bits, obsolete but still there.
        let low = |set: u64| set & 0x7fff_ffff;
        let _ = write!(line, "{} {} {} {} ", low(pending), low(blocked), low(ignored), low(caught));
        let _ = write!(line, "0 0 0 {} {} {} {} 0 0 0 ", self.exit_signal, self.cpu, self.rt_priority, self.policy);
        let _ = write!(line, "{start_data} {end_data} {start_brk} {arg_start} {arg_end} {env_start} {env_end} ");
        let _ = writeln!(line, "{}", self.exit_status);
        line
    }

    /// `/proc/PID/statm`: size, resident, shared, code, 0, data and stack, 0; in pages.
    pub fn statm(&self) -> String {
        let [code, data, stack] = self.parts;
        let shared = self.rss[1] + self.rss[2];
        format!(
            "{} {} {} {} 0 {} 0\n",
            self.vsize / PAGE,
            self.resident() / PAGE,
            shared / PAGE,
            code / PAGE,
            (data + stack) / PAGE
        )
    }

    /// `/proc/PID/schedstat`.
    pub fn schedstat(&self) -> String {
        format!("{} {} {}\n", self.times[0] + self.times[1], self.queued_time, self.timeslices)
    }

    /// `/proc/PID/status`.
    pub fn status(&self) -> String {
        let state = match self.state {
            'R' => "R (running)",
            'S' => "S (sleeping)",
            'D' => "D (disk sleep)",
            'T' => "T (stopped)",
            't' => "t (tracing stop)",
            'Z' => "Z (zombie)",
            _ => "X (dead)",
        };
        let mut s = String::new();
        let mut line = |name: &str, value: &dyn core::fmt::Display| {
            let _ = writeln!(s, "{name}:\t{value}");
        };
        let four = |v: [u32; 4]| format!("{}\t{}\t{}\t{}", v[0], v[1], v[2], v[3]);
        let kib = |bytes: u64| format!("{:>8} kB", bytes / 1024);
        line("Name", &self.name());
        line("Umask", &format_args!("{:04o}", self.umask));
        line("State", &state);
        line("Tgid", &self.pid);
        line("Ngid", &0);
        line("Pid", &self.tid);
        line("PPid", &self.ppid);
        line("TracerPid", &0);
        line("Uid", &four(self.users));
        line("Gid", &four(self.groups));
        line("FDSize", &self.fd_size);
        line("Groups", &self.more_groups.iter().map(|g| format!("{g} ")).collect::<String>());
        line("NStgid", &self.pid);
        line("NSpid", &self.tid);
        line("NSpgid", &self.pgid);
        line("NSsid", &self.sid);
        if self.vsize > 0 {
            line("VmPeak", &kib(self.peak_vsize));
            line("VmSize", &kib(self.vsize));
            line("VmLck", &kib(0));
            line("VmPin", &kib(0));
            line("VmHWM", &kib(self.peak_rss));
            line("VmRSS", &kib(self.resident()));
            line("RssAnon", &kib(self.rss[0]));
            line("RssFile", &kib(self.rss[1]));
            line("RssShmem", &kib(self.rss[2]));
            line("VmData", &kib(self.parts[1]));
            line("VmStk", &kib(self.parts[2]));
            line("VmExe", &kib(self.parts[0]));
            line("VmLib", &kib(0));
            line("VmPTE", &kib(self.page_tables));
            line("VmSwap", &kib(0));
        }
        line("Threads", &self.threads);
        line("SigQ", &format_args!("{}/{}", self.queued.0, self.queued.1));
        for (name, set) in ["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"].into_iter().zip(self.signals) {
            line(name, &format_args!("{set:016x}"));
        }
        for (name, set) in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].into_iter().zip(self.capabilities) {
            line(name, &format_args!("{set:016x}"));
        }
        line("NoNewPrivs", &u8::from(self.no_new_privs));
        line("Seccomp", &0);
        line("Cpus_allowed", &crate::system::cpu_mask(&self.allowed));
        line("Cpus_allowed_list", &crate::system::cpu_list(&self.allowed));
        line("Mems_allowed_list", &self.kernel);
        line("voluntary_ctxt_switches", &self.switches.0);
        line("nonvoluntary_ctxt_switches", &self.switches.1);
        line("CobKernel", &self.kernel);
        s
    }
}

/// One line of `/proc/PID/maps`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapLine {
    /// First address.
    pub start: u64,
    /// Address behind the last.
    pub end: u64,
    /// Read, write, execute, shared.
    pub permissions: [bool; 4],
    /// Offset in the file.
    pub offset: u64,
    /// Device of the file, major and minor.
    pub device: (u32, u32),
    /// The file.
    pub inode: u64,
    /// Path or `[heap]`, `[stack]`, …
    pub name: Vec<u8>,
}

/// `/proc/PID/maps`.
pub fn maps(lines: &[MapLine]) -> Vec<u8> {
    let mut out = Vec::new();
    for l in lines {
        let [r, w, x, s] = l.permissions;
        let flag = |on: bool, c: char| if on { c } else { '-' };
        let mut line = format!(
            "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
            l.start,
            l.end,
            flag(r, 'r'),
            flag(w, 'w'),
            flag(x, 'x'),
            if s { 's' } else { 'p' },
            l.offset,
            l.device.0,
            l.device.1,
            l.inode
        );
        if !l.name.is_empty() {
            // Names begin in column 74.
            while line.len() < 73 {
                line.push(' ');
            }
        }
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(&l.name);
        out.push(b'\n');
    }
    out
}

/// `/proc/PID/limits`: soft and hard limits by number (getrlimit(2)); `u64::MAX` is unlimited.
pub fn limits(values: &[(u64, u64); 16]) -> String {
    const NAMES: [(&str, &str); 16] = [
        ("Max cpu time", "seconds"),
        ("Max file size", "bytes"),
        ("Max data size", "bytes"),
        ("Max stack size", "bytes"),
        ("Max core file size", "bytes"),
        ("Max resident set", "bytes"),
        ("Max processes", "processes"),
        ("Max open files", "files"),
        ("Max locked memory", "bytes"),
        ("Max address space", "bytes"),
        ("Max file locks", "locks"),
        ("Max pending signals", "signals"),
        ("Max msgqueue size", "bytes"),
        ("Max nice priority", ""),
        ("Max realtime priority", ""),
        ("Max realtime timeout", "us"),
    ];
    let number = |n: u64| if n == u64::MAX { String::from("unlimited") } else { format!("{n}") };
    let mut out = format!("{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for ((name, unit), (soft, hard)) in NAMES.iter().zip(values) {
        let _ = writeln!(out, "{name:<25} {:<20} {:<20} {unit:<10}", number(*soft), number(*hard));
    }
    out
}

#[cfg(test)]
mod tests {
    use alloc::{string::String, vec, vec::Vec};

    use super::{Facts, MapLine, ProcessFile, limits, maps};

    fn facts() -> Facts {
        Facts {
            tid: 7,
            pid: 7,
            ppid: 1,
            comm: b"sh (x) y".to_vec(),
            state: 'S',
            tpgid: -1,
            threads: 1,
            vsize: 8192,
            rss: [4096, 4096, 0],
            times: [25_000_000, 0, 0, 0],
            signals: [0, 0, 1 << 16, 0, 2],
            allowed: vec![0, 1],
            ..Facts::default()
        }
    }

    #[test]
    fn stat_has_the_52_fields_of_proc_5() {
        let line = facts().stat();
        let after_name = line.rsplit_once(')').unwrap().1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        assert_eq!(fields.len(), 50);
        assert_eq!((fields[0], fields[1]), ("S", "1"));
        // Field 14 is utime, in ticks of 10 ms; 17 priority, 20 threads, 23 vsize, 24 rss.
        assert_eq!((fields[11], fields[15], fields[17], fields[20], fields[21]), ("2", "20", "1", "8192", "2"));
        assert!(line.starts_with("7 (sh (x) y) S "));
    }

    #[test]
    fn status_reads_like_linux() {
        let text = facts().status();
        assert!(text.contains("State:\tS (sleeping)\n"));
        assert!(text.contains("VmRSS:\t       8 kB\n"));
        assert!(text.contains("SigBlk:\t0000000000010000\n"));
        assert!(text.contains("Cpus_allowed_list:\t0-1\n"));
        assert_eq!(facts().statm(), "2 2 1 0 0 0 0\n");
    }

    #[test]
    fn maps_are_aligned_as_on_linux() {
        let line = MapLine {
            start: 0x40_0000,
            end: 0x40_1000,
            permissions: [true, false, true, false],
            offset: 0,
            device: (0, 2),
            inode: 12,
            name: b"/bin/busybox".to_vec(),
        };
        let text = String::from_utf8(maps(&[line.clone(), MapLine { name: Vec::new(), ..line }])).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next().unwrap().find("/bin/busybox"), Some(73));
        assert_eq!(lines.next(), Some("00400000-00401000 r-xp 00000000 00:02 12 "));
    }

    #[test]
    fn files_have_numbers_of_their_own() {
        let mut numbers: Vec<u8> = ProcessFile::ALL.iter().map(|(_, file, _)| *file as u8).collect();
        for &n in &numbers {
            assert_eq!(ProcessFile::from_number(n).map(|f| f as u8), Some(n));
        }
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), ProcessFile::ALL.len());
        assert_eq!(limits(&[(1, u64::MAX); 16]).lines().count(), 17);
    }
}
