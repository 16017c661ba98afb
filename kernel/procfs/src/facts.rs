//! Facts of this kernel's processes and of the machine.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::{Errno, Error, Result};
use hal::addr::PAGE_SIZE;
use mm::Label;
use proc::process::{Facts, MapLine, ProcessFile, limits, maps};
use proc::system::{Counters, Cpu, Memory, cpuinfo, loadavg, meminfo, stat, uptime};
use task::{Kernel, Pid, Process};
use vfs::Vfs;

const PAGE: u64 = PAGE_SIZE as u64;

const fn gone() -> Error {
    Error::new(Errno::ESRCH, "no such process")
}

pub fn process(kernel: &Kernel, pid: u32) -> Result<Arc<Process>> {
    kernel.table.process(Pid(pid)).ok_or(gone())
}

fn facts(kernel: &Kernel, p: &Process) -> Facts {
    let creds = p.creds();
    let ids = p.ids();
    let (own, children) = p.usage();
    let mut f = Facts {
        tid: p.pid().0,
        pid: p.pid().0,
        ppid: ids.ppid.0,
        pgid: ids.pgid.0,
        sid: ids.sid.0,
        tpgid: -1,
        users: [creds.uid, creds.euid, creds.suid, creds.fsuid],
        groups: [creds.gid, creds.egid, creds.sgid, creds.fsgid],
        more_groups: creds.groups.to_vec(),
        threads: p.thread_count() as u32,
        faults: [own.minor_faults, children.minor_faults, own.major_faults, children.major_faults],
        times: [own.user, own.system, children.user, children.system],
        started: p.started,
        exit_signal: 17,
        kernel: kernel.id().index,
        capabilities: [creds.inheritable, creds.permitted, creds.effective, creds.bounding, creds.ambient],
        no_new_privs: creds.no_new_privs,
        switches: (own.voluntary, own.involuntary),
        rss_limit: u64::MAX,
        state: 'Z',
        ..Facts::default()
    };
    if let Some(session) = kernel.table.session(ids.sid) {
        use vfs::JobControl;
        let session: &dyn JobControl = &*session;
        if let Some(terminal) = session.terminal() {
            let d = terminal.device();
            f.tty = (d.minor & 0xff) | d.major << 8 | (d.minor & !0xff) << 12;
            f.tpgid = session.foreground() as i32;
        }
    }
    if let Some(task) = p.leader() {
        f.comm = task.name().iter().copied().take_while(|b| *b != 0).collect();
        f.state = char::from(task.state());
        f.umask = task.fs().umask();
        f.fd_size = (task.files().list().len() as u32).max(64);
        f.nice = task.sched.nice();
        f.rt_priority = task.sched.priority();
        f.policy = task.sched.policy() as u8;
        f.cpu = hal::cpu::global_id(task.sched.cpu().min(hal::cpu::count() - 1));
        f.allowed = (0..hal::cpu::count()).filter(|s| task.sched.allows(*s)).map(hal::cpu::global_id).collect();
        f.signals[0] = task.pending().0;
        f.signals[2] = task.mask().0;
    }
    if p.is_stopped() {
        f.state = 'T';
    }
    if let Some((status, _)) = p.zombie() {
        f.state = 'Z';
        f.exit_status = status.wstatus();
    }
    if let Some(space) = p.space() {
        let info = space.info();
        let program = space.program();
        f.vsize = info.totals.size;
        f.peak_vsize = info.peak_size;
        f.rss = [info.resident as u64 * PAGE, 0, 0];
        f.peak_rss = info.peak_resident as u64 * PAGE;
        f.parts = [info.totals.exec, info.totals.data, info.totals.stack];
        f.layout = [
            program.code.start,
            program.code.end,
            program.stack,
            program.data.start,
            program.data.end,
            program.data.end,
            program.args.start,
            program.args.end,
            program.env.start,
            program.env.end,
        ];
    }
    f
}

fn strings(p: &Process, environment: bool) -> Vec<u8> {
    let Some(space) = p.space() else { return Vec::new() };
    let program = space.program();
    let range = if environment { program.env.clone() } else { program.args.clone() };
    let mut bytes = alloc::vec![0; (range.end.saturating_sub(range.start) as usize).min(64 << 10)];
    let n = space.peek(hal::addr::UserAddr(range.start), &mut bytes).done;
    bytes.truncate(n);
    bytes
}

fn map_lines(p: &Process) -> Vec<MapLine> {
    let Some(space) = p.space() else { return Vec::new() };
    let lines = space.mappings().into_iter().map(|m| {
        let (name, device, inode) = match &m.label {
            Label::File(f) => (f.path.clone(), ((f.device >> 32) as u32, f.device as u32), f.inode),
            Label::Heap => (b"[heap]".to_vec(), (0, 0), 0),
            Label::Stack => (b"[stack]".to_vec(), (0, 0), 0),
            Label::Vdso => (b"[vdso]".to_vec(), (0, 0), 0),
            Label::Vvar => (b"[vvar]".to_vec(), (0, 0), 0),
            _ => (Vec::new(), (0, 0), 0),
        };
        MapLine {
            start: m.start,
            end: m.end,
            permissions: [
                m.prot.contains(mm::Prot::READ),
                m.prot.contains(mm::Prot::WRITE),
                m.prot.contains(mm::Prot::EXEC),
                m.flags.contains(mm::vma::VmaFlags::SHARED),
            ],
            offset: m.offset,
            device,
            inode,
            name,
        }
    });
    lines.collect()
}

/// The lines of `/proc/mounts`.
pub fn mounts(vfs: &Vfs) -> String {
    let mut out = String::new();
    for m in vfs.mounts() {
        let at = m.at.as_ref().map_or_else(|| b"/".to_vec(), |p| p.path(None).0);
        let flags = m.flags();
        let mut options = String::from(if flags.contains(vfs::place::MountFlags::RDONLY) { "ro" } else { "rw" });
        for (flag, name) in [
            (vfs::place::MountFlags::NOSUID, ",nosuid"),
            (vfs::place::MountFlags::NODEV, ",nodev"),
            (vfs::place::MountFlags::NOEXEC, ",noexec"),
            (vfs::place::MountFlags::NOATIME, ",noatime"),
        ] {
            if flags.contains(flag) {
                options.push_str(name);
            }
        }
        if !m.options.is_empty() {
            options.push(',');
            options.push_str(&m.options);
        }
        out.push_str(&format!("{} {} {} {options} 0 0\n", m.source, String::from_utf8_lossy(&at), m.fs_type));
    }
    out
}

/// What a file of `/proc/PID` says.
///
/// # Errors
/// `ESRCH` if the process is gone.
pub fn process_file(kernel: &Kernel, vfs: Option<&Vfs>, pid: u32, file: ProcessFile) -> Result<Vec<u8>> {
    let p = process(kernel, pid)?;
    let text = match file {
        ProcessFile::Stat => facts(kernel, &p).stat(),
        ProcessFile::Statm => facts(kernel, &p).statm(),
        ProcessFile::Status => facts(kernel, &p).status(),
        ProcessFile::Schedstat => facts(kernel, &p).schedstat(),
        ProcessFile::Cmdline => return Ok(strings(&p, false)),
        ProcessFile::Environ => return Ok(strings(&p, true)),
        ProcessFile::Maps => return Ok(maps(&map_lines(&p))),
        ProcessFile::Comm => {
            let mut name = p.leader().map(|t| t.name().to_vec()).unwrap_or_default();
            name.retain(|b| *b != 0);
            name.push(b'\n');
            return Ok(name);
        }
        ProcessFile::Limits => {
            let mut values = [(u64::MAX, u64::MAX); 16];
            p.limits(|l| {
                for (v, limit) in values.iter_mut().zip(&l.0) {
                    *v = (limit.soft, limit.hard);
                }
            });
            limits(&values)
        }
        ProcessFile::Mounts | ProcessFile::Mountinfo => vfs.map(mounts).unwrap_or_default(),
        ProcessFile::Io => String::from(
            "rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: 0\ncancelled_write_bytes: 0\n",
        ),
        ProcessFile::OomScore => String::from("0\n"),
        ProcessFile::OomScoreAdj => format!("{}\n", p.oom_score_adj.load(core::sync::atomic::Ordering::Relaxed)),
        ProcessFile::Wchan => String::from("0"),
        ProcessFile::Personality => format!("{:08x}\n", p.personality.load(core::sync::atomic::Ordering::Relaxed)),
        ProcessFile::Cgroup => String::from("0::/\n"),
        ProcessFile::Placement => match p.placement() {
            task::Placement::Automatic => String::from("auto\n"),
            task::Placement::Kernel(k) => format!("{k}\n"),
        },
    };
    Ok(text.into_bytes())
}

fn cpus(kernel: &Kernel) -> Vec<Cpu> {
    let facts = kernel.cluster().cpus();
    let own: Vec<(u32, u64)> =
        (0..hal::cpu::count()).map(|s| (hal::cpu::global_id(s), kernel.sched.cpu_times(s).idle)).collect();
    let now = hal::time::now();
    facts
        .into_iter()
        .map(|c| {
            let idle = own.iter().find(|(g, _)| *g == c.global).map_or(now, |(_, idle)| *idle);
            Cpu {
                global: c.global,
                kernel: c.kernel,
                isa: c.isa.into(),
                online: c.online,
                describe: c.describe,
                times: [now.saturating_sub(idle), 0, 0, idle, 0, 0, 0],
            }
        })
        .collect()
}

fn memory(kernel: &Kernel) -> Memory {
    let m = kernel.memory.info();
    let pages = |n: usize| n as u64 * PAGE;
    Memory {
        kernel: kernel.id().index,
        total: pages(m.total),
        free: pages(m.free),
        cached: pages(m.cached),
        shmem: pages(m.shared),
        committed: pages(m.committed),
        commit_limit: pages(m.commit_limit),
        ..Memory::default()
    }
}

fn counters(kernel: &Kernel) -> Counters {
    use core::sync::atomic::Ordering::Relaxed;
    let now = hal::time::now();
    let times: Vec<_> = (0..hal::cpu::count()).map(|s| kernel.sched.cpu_times(s)).collect();
    let c = kernel.counters();
    Counters {
        uptime: now,
        idle: times.iter().map(|t| t.idle).sum(),
        boot_time: (kernel.clocks.offset() / 1_000_000_000) as u64,
        switches: times.iter().map(|t| t.switches).sum(),
        interrupts: c.interrupts.load(Relaxed),
        forks: c.forks.load(Relaxed),
        running: kernel.sched.runnable(),
        blocked: 0,
        tasks: kernel.table.count() as u64,
        last_pid: kernel.table.processes().iter().map(|p| u64::from(p.pid().0)).max().unwrap_or(1),
        load: kernel.sched.load_average(),
    }
}

/// What a file of `/proc` itself says.
pub fn system_file(kernel: &Kernel, vfs: Option<&Vfs>, command_line: &str, name: &str) -> Option<Vec<u8>> {
    let text = match name {
        "cmdline" => format!("{command_line}\n"),
        "cpuinfo" => cpuinfo(&cpus(kernel)),
        "meminfo" => meminfo(&[memory(kernel)]),
        "stat" => stat(&cpus(kernel), &counters(kernel)),
        "uptime" => uptime(&counters(kernel)),
        "loadavg" => loadavg(&counters(kernel)),
        "version" => format!("Linux version {} (cob) {}\n", RELEASE, kernel.facts.version),
        "filesystems" => {
            let mut out = String::new();
            for (name, no_device) in vfs.map(Vfs::types).unwrap_or_default() {
                out.push_str(&format!("{}\t{name}\n", if no_device { "nodev" } else { "" }));
            }
            out
        }
        "sys/kernel/hostname" => format!("{}\n", kernel.names.lock().host),
        "sys/kernel/domainname" => format!("{}\n", kernel.names.lock().domain),
        "sys/kernel/osrelease" => format!("{RELEASE}\n"),
        "sys/kernel/ostype" => String::from("Linux\n"),
        "sys/kernel/version" => format!("{}\n", kernel.facts.version),
        "sys/kernel/pid_max" => format!("{}\n", task::cluster::PID_MAX),
        "sys/vm/overcommit_memory" => format!("{}\n", kernel.memory.overcommit() as u8),
        _ => return None,
    };
    Some(text.into_bytes())
}

/// As uname(2) says it.
const RELEASE: &str = "6.6.0-cob";
