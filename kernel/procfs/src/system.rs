//! The files of `/proc` that are about the system. Those that mean the whole machine are made from the [`task::Cluster`]; the single system image
//! replaces what it knows better.

use alloc::{
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::fmt::Write;

use base::{Errno, Error, Result, TryResult};
use task::{Kernel, load::Load};
use vfs::Vfs;

use crate::{
    entry::{Entry, Folder, Item, Setting, To},
    facts,
    fs::{Proc, ProcFs},
    local::LocalView,
    pid::Root,
    view::ProcessView,
};

/// A text that is made from what all kernels do.
pub(crate) struct OfMachine<F> {
    pub kernel: Arc<Kernel>,
    pub make: F,
}

impl<F: Fn(&[Load]) -> String + Clone + Send + Sync + 'static> Entry for OfMachine<F> {
    fn read(&self, _: &vfs::Caller) -> TryResult<Vec<u8>> {
        let make = self.make.clone();
        Ok(self.kernel.loads()?.map(move |loads| make(&loads).into_bytes()))
    }
}

/// The trees of a kernel, for others to add to.
pub struct Trees {
    /// `/proc`.
    pub proc: Arc<Folder>,
    /// `/proc/cob`.
    pub cob: Arc<Folder>,
    /// `/sys`.
    pub sys: Arc<Folder>,
}

/// Makes `/proc` and `/sys` and their types for mount(2). `view` are the processes to show; [`LocalView`] without one. `command_line` is the kernel's own.
pub fn install(kernel: &Arc<Kernel>, view: Option<Arc<dyn ProcessView>>, command_line: &str) -> Trees {
    let view = view.unwrap_or_else(|| Arc::new(LocalView::new(kernel.clone())));
    let folder = Folder::new();
    let cob = folder.dir("cob");
    fill(&folder, kernel, command_line);
    settings(&folder, kernel);
    crate::sysvipc::fill(&folder.dir("sysvipc"), kernel);
    let vfs = kernel.vfs();
    let root = Arc::new(Root { folder: folder.clone(), view });
    vfs.add_type(Arc::new(Proc(ProcFs::new(vfs, "proc", 0x9fa0, root))));
    let sys = crate::sys::tree(kernel, command_line);
    vfs.add_type(Arc::new(Proc(ProcFs::new(vfs, "sysfs", 0x6265_6572, sys.clone()))));
    Trees { proc: folder, cob, sys }
}

fn filesystems(vfs: &Vfs) -> String {
    let mut out = String::new();
    for (name, no_device) in vfs.types() {
        let _ = writeln!(out, "{}\t{name}", if no_device { "nodev" } else { "" });
    }
    out
}

fn locks(vfs: &Vfs) -> String {
    use vfs::lock::Owner;
    let mut out = String::new();
    for (i, (inode, lock)) in vfs.locks.list().into_iter().enumerate() {
        let (class, pid) = match lock.owner {
            Owner::Process(pid) => ("POSIX ", i64::from(pid)),
            Owner::File(_) => ("OFDLCK", -1),
            Owner::Flock(_) => ("FLOCK ", -1),
        };
        let kind = if lock.exclusive { "WRITE" } else { "READ " };
        let end = if lock.end == u64::MAX { String::from("EOF") } else { (lock.end - 1).to_string() };
        let _ = writeln!(out, "{}: {class} ADVISORY  {kind} {pid} 00:00:{} {} {end}", i + 1, inode.serial, lock.start);
    }
    out
}

fn fill(folder: &Folder, kernel: &Arc<Kernel>, command_line: &str) {
    let with = |f: fn(&Kernel) -> String| {
        let kernel = kernel.clone();
        move || f(&kernel)
    };
    folder.text("cpuinfo", with(facts::cpuinfo_text));
    for (name, make) in [
        ("meminfo", facts::meminfo_text as fn(&Kernel, &[Load]) -> String),
        ("stat", facts::stat_text),
        ("uptime", facts::uptime_text),
        ("loadavg", facts::loadavg_text),
        ("vmstat", facts::vmstat_text),
    ] {
        let of = kernel.clone();
        folder.file(name, OfMachine { kernel: kernel.clone(), make: move |loads: &[Load]| make(&of, loads) });
    }
    folder.text("version", with(|k| alloc::format!("Linux version {} (cob) {}\n", facts::RELEASE, k.facts.version)));
    folder.text(
        "interrupts",
        with(|k| {
            let n = k.counters().interrupts.load(core::sync::atomic::Ordering::Relaxed);
            alloc::format!("           CPU{}\n  0: {n:>10}   all\n", hal::cpu::global_id(0))
        }),
    );
    let line = alloc::format!("{}\n", command_line.trim());
    folder.text("cmdline", move || line.clone());
    let vfs = Arc::downgrade(kernel.vfs());
    let with_vfs = |f: fn(&Vfs) -> String| {
        let vfs = vfs.clone();
        move || vfs.upgrade().map(|v| f(&v)).unwrap_or_default()
    };
    folder.text("filesystems", with_vfs(filesystems));
    folder.text("locks", with_vfs(locks));
    folder.text("devices", || {
        String::from("Character devices:\n  1 mem\n  4 ttyS\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n")
    });
    folder.text("partitions", || String::from("major minor  #blocks  name\n\n"));
    folder.text("swaps", || String::from("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"));
    folder.text("modules", String::new);
    folder.text("diskstats", String::new);
    let link = |f: fn(&vfs::Caller) -> String| Item::Link(Arc::new(To(f)));
    folder.add("self", link(|c| c.pid.to_string()));
    let of = kernel.clone();
    let thread_self = move |c: &vfs::Caller| {
        // A caller is a process; the thread is the one that runs here, unless a peer asks for its own.
        let task = of.sched.current().filter(|t| t.process().pid().0 == c.pid);
        alloc::format!("{}/task/{}", c.pid, task.map_or(c.pid, |t| t.tid().0))
    };
    folder.add("thread-self", Item::Link(Arc::new(To(thread_self))));
    folder.add("mounts", link(|_| String::from("self/mounts")));
}

/// A random UUID, version 4.
fn uuid(kernel: &Arc<Kernel>) -> String {
    let bytes = kernel.vfs().env().random(16);
    let mut out = String::new();
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let byte = match i {
            6 => byte & 0x0f | 0x40,
            8 => byte & 0x3f | 0x80,
            _ => *byte,
        };
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// `/proc/sys`.
fn settings(folder: &Folder, kernel: &Arc<Kernel>) {
    let sys = folder.dir("sys");
    let k = sys.dir("kernel");
    k.text("ostype", || String::from("Linux\n"));
    k.text("osrelease", || alloc::format!("{}\n", facts::RELEASE));
    let of = kernel.clone();
    k.text("version", move || alloc::format!("{}\n", of.facts.version));
    let (read, write) = (kernel.clone(), kernel.clone());
    k.file(
        "hostname",
        Setting(
            move || alloc::format!("{}\n", read.names.lock().host),
            move |c: &vfs::Caller, text: &str| -> Result<()> {
                if !c.can(vfs::caller::cap::SYS_ADMIN) {
                    return Err(Errno::EPERM.into());
                }
                if text.len() > 64 {
                    return Err(Error::new(Errno::EINVAL, "too long"));
                }
                write.names.lock().host = text.into();
                Ok(())
            },
        ),
    );
    let of = kernel.clone();
    k.text("domainname", move || alloc::format!("{}\n", of.names.lock().domain));
    k.text("pid_max", || alloc::format!("{}\n", task::cluster::PID_MAX));
    k.text("threads-max", || alloc::format!("{}\n", task::cluster::PID_MAX / 2));
    k.text("cap_last_cap", || alloc::format!("{}\n", task::creds::cap::LAST));
    k.text("ngroups_max", || String::from("65536\n"));
    k.text("panic", || String::from("0\n"));
    k.text("printk", || String::from("7\t4\t1\t7\n"));
    k.text("randomize_va_space", || String::from("2\n"));
    let random = k.dir("random");
    let boot_id = alloc::format!("{}\n", uuid(kernel));
    random.text("boot_id", move || boot_id.clone());
    let of = kernel.clone();
    random.text("uuid", move || alloc::format!("{}\n", uuid(&of)));
    random.text("entropy_avail", || String::from("256\n"));
    random.text("poolsize", || String::from("256\n"));
    let pty = k.dir("pty");
    pty.text("max", || String::from("4096\n"));
    let fs = sys.dir("fs");
    fs.text("pipe-max-size", || alloc::format!("{}\n", vfs::pipe::MAX_CAPACITY));
    fs.text("file-max", || String::from("9223372036854775807\n"));
    fs.text("nr_open", || String::from("1048576\n"));
    let inotify = fs.dir("inotify");
    inotify.text("max_queued_events", || alloc::format!("{}\n", vfs::inotify::MAX_QUEUED));
    inotify.text("max_user_watches", || alloc::format!("{}\n", vfs::inotify::MAX_WATCHES));
    inotify.text("max_user_instances", || String::from("128\n"));
    let vm = sys.dir("vm");
    let (read, write) = (kernel.clone(), kernel.clone());
    vm.file(
        "overcommit_memory",
        Setting(
            move || alloc::format!("{}\n", read.memory.overcommit() as u8),
            move |_: &vfs::Caller, text: &str| -> Result<()> {
                let policy = match text {
                    "0" => mm::memory::Overcommit::Heuristic,
                    "1" => mm::memory::Overcommit::Always,
                    "2" => mm::memory::Overcommit::Never,
                    _ => return Err(Errno::EINVAL.into()),
                };
                write.memory.set_overcommit(policy);
                Ok(())
            },
        ),
    );
    vm.text("max_map_count", || String::from("65530\n"));
}
