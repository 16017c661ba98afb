//! Facts of this kernel's processes and of the machine.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::{fmt::Write, sync::atomic::Ordering};

use base::{
    Result,
    wait::{Try, TryResult, done},
};
use hal::addr::PAGE_SIZE;
use mm::Label;
use proc::process::{Facts, MapLine, ProcessFile, limits, maps};
use proc::system::{Counters, Cpu, Memory, cpuinfo, loadavg, meminfo, node_meminfo, stat, uptime};
use task::{
    Kernel, Pid, Process, Task,
    children::Usage,
    limits::Resource,
    load::Load,
    session::{Reply, Request},
};
use vfs::{Device, Place, Vfs};

const PAGE: u64 = PAGE_SIZE as u64;

/// A process, and which of its threads is asked about; no thread for a zombie.
pub struct Subject {
    /// The process.
    pub process: Arc<Process>,
    /// The thread.
    pub thread: Option<Arc<Task>>,
    /// The thread was asked for by its own number.
    pub alone: bool,
    /// That number.
    pub tid: u32,
}

/// The device number of a controlling terminal, and its foreground group.
type Terminal = Option<(Device, Pid)>;

fn facts(kernel: &Kernel, s: &Subject, terminal: Terminal) -> Facts {
    let p = &s.process;
    let creds = p.creds();
    let ids = p.ids();
    let (own, children) = match &s.thread {
        Some(thread) if s.alone => (thread.times.usage(), Usage::default()),
        _ => p.usage(),
    };
    let mut f = Facts {
        tid: s.tid,
        pid: p.pid().0,
        ppid: ids.ppid.0,
        pgid: ids.pgid.0,
        sid: ids.sid.0,
        tpgid: -1,
        users: [creds.uid, creds.euid, creds.suid, creds.fsuid],
        groups: [creds.gid, creds.egid, creds.sgid, creds.fsgid],
        more_groups: creds.groups.to_vec(),
        threads: p.thread_count().max(1) as u32,
        faults: [own.minor_faults, children.minor_faults, own.major_faults, children.major_faults],
        times: [own.user, own.system, children.user, children.system],
        started: p.started,
        exit_signal: p.exit_signal(),
        queued: (p.queued_signals(), p.limits(|l| l.soft(Resource::SigPending))),
        kernel: kernel.id().index,
        capabilities: [creds.inheritable, creds.permitted, creds.effective, creds.bounding, creds.ambient],
        no_new_privs: creds.no_new_privs,
        switches: (own.voluntary, own.involuntary),
        rss_limit: p.limits(|l| l.soft(Resource::Rss)),
        state: 'Z',
        ..Facts::default()
    };
    if let Some((d, foreground)) = terminal {
        f.tty = (d.minor & 0xff) | d.major << 8 | (d.minor & !0xff) << 12;
        f.tpgid = foreground.0 as i32;
    }
    f.comm = comm(s);
    if let Some(task) = &s.thread {
        f.state = char::from(if s.alone { task.state() } else { p.state() });
        f.umask = task.fs().umask();
        f.fd_size = (task.files().list().len() as u32).max(64);
        f.nice = task.sched.nice();
        f.rt_priority = task.sched.priority();
        f.policy = task.sched.policy() as u8;
        f.cpu = hal::cpu::global_id(task.sched.cpu().min(hal::cpu::count() - 1));
        f.allowed = (0..hal::cpu::count()).filter(|s| task.sched.allows(*s)).map(hal::cpu::global_id).collect();
        let (alone, shared) = task.pending_sets();
        (f.signals[0], f.signals[1]) = (alone.0, shared.0);
        f.signals[2] = task.mask().0;
        let (ignored, caught) = p.actions(|a| (a.explicitly_ignored(), a.caught()));
        (f.signals[3], f.signals[4]) = (ignored.0, caught.0);
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
        // Where the heap begins, or would: without one, brk is where it was at the start.
        let heap = space.mappings().iter().find(|m| m.label == Label::Heap).map_or_else(|| space.brk(), |m| m.start);
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
            heap,
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

/// The name of a thread, or of a process that is a zombie.
fn comm(s: &Subject) -> Vec<u8> {
    let name = s.thread.as_ref().map_or_else(|| s.process.last_name(), |t| t.name());
    name.iter().copied().take_while(|b| *b != 0).collect()
}

/// `oom_score`: thousandths of the memory of this kernel.
fn oom_score(kernel: &Kernel, p: &Process) -> i64 {
    let held = p.space().map_or(0, |space| space.resident_pages());
    let total = kernel.memory.info().total.max(1);
    ((held * 1000 / total) as i64 + i64::from(p.oom_score_adj.load(Ordering::Relaxed))).clamp(0, 2000)
}

/// What a file of `/proc/PID` says.
///
/// # Errors
/// None now; a text may come to need something that can fail.
pub fn process_file(kernel: &Arc<Kernel>, s: Subject, file: ProcessFile) -> TryResult<Vec<u8>> {
    if file == ProcessFile::Stat {
        // Only the home of the session knows the terminal. One that does not answer has none.
        let asked = Try::settled(s.process.session().request(Request::Terminal(s.process.pid())));
        let kernel = kernel.clone();
        return Ok(asked.map(move |reply| {
            let terminal = match reply {
                Ok(Reply::Terminal(terminal)) => terminal,
                _ => None,
            };
            facts(&kernel, &s, terminal).stat().into_bytes()
        }));
    }
    done(text(kernel, &s, file)?)
}

fn text(kernel: &Arc<Kernel>, s: &Subject, file: ProcessFile) -> Result<Vec<u8>> {
    let p = &s.process;
    let text = match file {
        ProcessFile::Stat => facts(kernel, s, None).stat(),
        ProcessFile::Statm => facts(kernel, s, None).statm(),
        ProcessFile::Status => facts(kernel, s, None).status(),
        ProcessFile::Schedstat => facts(kernel, s, None).schedstat(),
        ProcessFile::Cmdline => return Ok(strings(p, false)),
        ProcessFile::Environ => return Ok(strings(p, true)),
        ProcessFile::Maps => return Ok(maps(&map_lines(p))),
        ProcessFile::Comm => {
            let mut name = comm(s);
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
        ProcessFile::Mounts | ProcessFile::Mountinfo => {
            let root = s.thread.as_ref().and_then(|t| t.fs().root().ok());
            mounts(kernel.vfs(), root.as_ref(), file == ProcessFile::Mountinfo)
        }
        ProcessFile::OomScore => format!("{}\n", oom_score(kernel, p)),
        ProcessFile::OomScoreAdj => format!("{}\n", p.oom_score_adj.load(Ordering::Relaxed)),
        ProcessFile::Wchan => String::from("0"),
        ProcessFile::Personality => format!("{:08x}\n", p.personality.load(Ordering::Relaxed)),
        ProcessFile::Cgroup => String::from("0::/\n"),
        ProcessFile::Placement => match p.placement() {
            task::Placement::Automatic => String::from("-\n"),
            task::Placement::Kernel(k) => format!("{k}\n"),
        },
    };
    Ok(text.into_bytes())
}

/// `mounts` and `mountinfo`.
fn mounts(vfs: &Vfs, root: Option<&Place>, long: bool) -> String {
    use vfs::place::MountFlags;
    let mut out = String::new();
    let all = vfs.mounts();
    for mount in &all {
        let (path, reachable) = Place { node: mount.root.clone(), mount: mount.clone() }.path(root);
        if !reachable {
            // Above the root of this process: chroot(2).
            continue;
        }
        let path = escape(&path);
        let flags = mount.flags();
        let mut options = String::from(if flags.contains(MountFlags::RDONLY) { "ro" } else { "rw" });
        for (flag, name) in [
            (MountFlags::NOSUID, ",nosuid"),
            (MountFlags::NODEV, ",nodev"),
            (MountFlags::NOEXEC, ",noexec"),
            (MountFlags::NOATIME, ",noatime"),
            (MountFlags::RELATIME, ",relatime"),
        ] {
            if flags.contains(flag) {
                options.push_str(name);
            }
        }
        let source = if mount.source.is_empty() { "none" } else { &mount.source };
        if long {
            let parent = mount.at.as_ref().map_or(mount.id, |at| at.mount.id);
            let device = match mount.root.inode().stat() {
                Ok(base::Try::Done(stat)) => stat.device,
                _ => vfs::Device::default(),
            };
            let fs = if mount.options.is_empty() { "rw" } else { &mount.options };
            let _ = writeln!(
                out,
                "{} {parent} {}:{} / {path} {options} - {} {source} {fs}",
                mount.id, device.major, device.minor, mount.fs_type
            );
        } else {
            if !mount.options.is_empty() {
                options.push(',');
                options.push_str(&mount.options);
            }
            let _ = writeln!(out, "{source} {path} {} {options} 0 0", mount.fs_type);
        }
    }
    out
}

/// Blanks in paths are octal numbers in these files.
fn escape(path: &[u8]) -> String {
    let mut out = String::new();
    for b in path {
        match b {
            b' ' | b'\t' | b'\n' | b'\\' => {
                let _ = write!(out, "\\{b:03o}");
            }
            _ => out.push(char::from(*b)),
        }
    }
    out
}

/// The CPUs of the machine, with what they did as far as that is known.
fn cpus(kernel: &Kernel, loads: &[Load]) -> Vec<Cpu> {
    let times = |global: u32| loads.iter().flat_map(|l| &l.cpus).find(|c| c.global == global).copied();
    kernel
        .cluster()
        .cpus()
        .into_iter()
        .map(|c| {
            let t = times(c.global).unwrap_or_default();
            Cpu {
                global: c.global,
                kernel: c.kernel,
                isa: c.isa.into(),
                online: c.online,
                describe: c.describe,
                times: [t.user, 0, t.system, t.idle, 0, 0, 0],
            }
        })
        .collect()
}

/// The memory of one kernel. What is neither free nor of files is the heap of the kernel or belongs to programs.
pub fn memory(load: &Load) -> Memory {
    let m = &load.memory;
    let used = m.total.saturating_sub(m.free);
    let anonymous = used.saturating_sub(m.cached).saturating_sub(m.shared).saturating_sub(m.heap);
    Memory {
        kernel: load.kernel,
        total: m.total * PAGE,
        free: m.free * PAGE,
        cached: m.cached * PAGE,
        shmem: m.shared * PAGE,
        anonymous: anonymous * PAGE,
        heap: m.heap * PAGE,
        committed: m.committed * PAGE,
        commit_limit: m.commit_limit * PAGE,
        ..Memory::default()
    }
}

fn counters(kernel: &Kernel, loads: &[Load]) -> Counters {
    let total = |f: fn(&Load) -> u64| loads.iter().map(f).sum::<u64>();
    let mut load = [0; 3];
    for one in loads {
        for (sum, n) in load.iter_mut().zip(one.averages) {
            *sum += n;
        }
    }
    Counters {
        uptime: hal::time::now(),
        idle: total(|l| l.cpus.iter().map(|c| c.idle).sum()),
        boot_time: (kernel.clocks.offset() / 1_000_000_000) as u64,
        switches: total(|l| l.switches),
        interrupts: total(|l| l.interrupts),
        forks: total(|l| l.forks),
        running: total(|l| l.running),
        blocked: 0,
        tasks: total(|l| l.tasks),
        last_pid: loads.iter().map(|l| u64::from(l.last_pid)).max().unwrap_or(1),
        load,
    }
}

/// The version of Linux whose behaviour programs find here; uname(2) says the same.
pub const RELEASE: &str = "6.6.0-cob";

/// `/proc/cpuinfo`.
pub fn cpuinfo_text(kernel: &Kernel) -> String {
    cpuinfo(&cpus(kernel, &[]))
}

/// `/proc/meminfo`.
pub fn meminfo_text(_: &Kernel, loads: &[Load]) -> String {
    meminfo(&loads.iter().map(memory).collect::<Vec<_>>())
}

/// The `meminfo` of a node; empty if its kernel is not there.
pub fn node_meminfo_text(loads: &[Load], node: u16) -> String {
    loads.iter().find(|l| l.kernel == node).map(|l| node_meminfo(&memory(l))).unwrap_or_default()
}

/// `/proc/stat`.
pub fn stat_text(kernel: &Kernel, loads: &[Load]) -> String {
    stat(&cpus(kernel, loads), &counters(kernel, loads))
}

/// `/proc/vmstat`.
pub fn vmstat_text(_: &Kernel, loads: &[Load]) -> String {
    let total = |f: fn(&Load) -> u64| loads.iter().map(f).sum::<u64>();
    let (free, shared) = (total(|l| l.memory.free), total(|l| l.memory.shared));
    let files = total(|l| l.memory.cached) + shared;
    format!("nr_free_pages {free}\nnr_file_pages {files}\nnr_shmem {shared}\n")
}

/// `/proc/uptime`.
pub fn uptime_text(kernel: &Kernel, loads: &[Load]) -> String {
    uptime(&counters(kernel, loads))
}

/// `/proc/loadavg`.
pub fn loadavg_text(kernel: &Kernel, loads: &[Load]) -> String {
    loadavg(&counters(kernel, loads))
}
