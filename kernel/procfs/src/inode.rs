//! Directories, texts and links of `/proc`.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use base::io::{Sink, Source};
use base::wait::{Try, done};
use base::{Errno, Error, ObjectId, Result, TryResult};
use proc::process::ProcessFile;
use vfs::local::{FileOps, Wrote};
use vfs::types::{Access, StatFs};
use vfs::{
    Caller, DirSink, FileKind, Inode, LocalFile, OpenFile, OpenFlags, Place, SeekFrom, SetAttr, Stat, Status, Time,
};

use crate::{ProcFs, facts};

/// What a node is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// `/proc`.
    Root,
    /// A directory below it that is not a process, with its path.
    Directory(&'static str),
    /// A text of the machine, by its path.
    System(&'static str),
    /// A link with a fixed target.
    Link(&'static str),
    /// `/proc/self`.
    Myself,
    /// `/proc/PID`.
    Process(u32),
    /// A text in it.
    Text(u32, ProcessFile),
    /// `exe`, `cwd`, `root` in it.
    Jump(u32, &'static str),
    /// `fd` in it.
    Descriptors(u32),
    /// A descriptor.
    Descriptor(u32, u32),
}

/// What is in the directories that do not change: path of the directory, name, what.
const STATIC: &[(&str, &str, What)] = &[
    ("", "cmdline", What::System("cmdline")),
    ("", "cpuinfo", What::System("cpuinfo")),
    ("", "filesystems", What::System("filesystems")),
    ("", "loadavg", What::System("loadavg")),
    ("", "meminfo", What::System("meminfo")),
    ("", "mounts", What::Link("self/mounts")),
    ("", "self", What::Myself),
    ("", "stat", What::System("stat")),
    ("", "sys", What::Directory("sys")),
    ("", "uptime", What::System("uptime")),
    ("", "version", What::System("version")),
    ("sys", "kernel", What::Directory("sys/kernel")),
    ("sys", "vm", What::Directory("sys/vm")),
    ("sys/kernel", "domainname", What::System("sys/kernel/domainname")),
    ("sys/kernel", "hostname", What::System("sys/kernel/hostname")),
    ("sys/kernel", "osrelease", What::System("sys/kernel/osrelease")),
    ("sys/kernel", "ostype", What::System("sys/kernel/ostype")),
    ("sys/kernel", "pid_max", What::System("sys/kernel/pid_max")),
    ("sys/kernel", "version", What::System("sys/kernel/version")),
    ("sys/vm", "overcommit_memory", What::System("sys/vm/overcommit_memory")),
];

/// The links of a process to places.
const JUMPS: &[&str] = &["cwd", "exe", "root"];

/// Positions of processes in the listing of the root begin here, after the fixed names.
const PIDS: u64 = 1 << 16;

/// A node. It is made anew at each lookup: what it stands for may be gone the next moment.
pub struct Node {
    fs: Arc<ProcFs>,
    what: What,
    id: ObjectId,
}

impl Node {
    /// See [`Node`].
    pub fn new(fs: &Arc<ProcFs>, what: What) -> Arc<Self> {
        let none = ObjectId { birth: base::KernelId { index: 0, incarnation: 0 }, serial: 0 };
        let id = fs.kernel().map_or(none, |k| k.new_id());
        Arc::new(Self { fs: fs.clone(), what, id })
    }

    fn number(&self) -> u64 {
        number(&self.what)
    }

    fn process(&self) -> Option<u32> {
        match self.what {
            What::Process(pid)
            | What::Text(pid, _)
            | What::Jump(pid, _)
            | What::Descriptors(pid)
            | What::Descriptor(pid, _) => Some(pid),
            _ => None,
        }
    }

    fn mode(&self) -> u32 {
        match &self.what {
            What::Text(_, file) => {
                ProcessFile::ALL.iter().find(|(_, f, _)| f == file).map_or(0o444, |(_, _, mode)| u32::from(*mode))
            }
            What::System(_) => 0o444,
            What::Descriptors(_) => 0o500,
            What::Link(_) | What::Myself | What::Jump(..) | What::Descriptor(..) => 0o777,
            What::Root | What::Directory(_) | What::Process(_) => 0o555,
        }
    }

    /// The entries that a directory has now, with their positions.
    fn entries(&self) -> Result<Vec<(u64, String, What)>> {
        let kernel = self.fs.kernel()?;
        let fixed = |dir: &str| -> Vec<(u64, String, What)> {
            let here = STATIC.iter().filter(|(d, ..)| *d == dir);
            here.enumerate().map(|(i, (_, name, what))| (i as u64 + 2, (*name).into(), what.clone())).collect()
        };
        Ok(match &self.what {
            What::Root => {
                let mut all = fixed("");
                let mut pids: Vec<u32> = kernel.table.processes().iter().map(|p| p.pid().0).collect();
                pids.sort_unstable();
                all.extend(pids.into_iter().map(|pid| (PIDS + u64::from(pid), format!("{pid}"), What::Process(pid))));
                all
            }
            What::Directory(path) => fixed(path),
            What::Process(pid) => {
                let texts =
                    ProcessFile::ALL.iter().map(|(name, file, _)| (String::from(*name), What::Text(*pid, *file)));
                let jumps = JUMPS.iter().map(|name| (String::from(*name), What::Jump(*pid, name)));
                let all = texts.chain(jumps).chain([(String::from("fd"), What::Descriptors(*pid))]);
                all.enumerate().map(|(i, (name, what))| (i as u64 + 2, name, what)).collect()
            }
            What::Descriptors(pid) => {
                let task = facts::process(&kernel, *pid)?.leader().ok_or(Errno::ESRCH)?;
                let open = task.files().list();
                open.iter().map(|(fd, _)| (u64::from(*fd) + 2, format!("{fd}"), What::Descriptor(*pid, *fd))).collect()
            }
            _ => return Err(Errno::ENOTDIR.into()),
        })
    }

    fn text(&self) -> Result<Vec<u8>> {
        let kernel = self.fs.kernel()?;
        let vfs = self.fs.vfs.upgrade();
        match &self.what {
            What::System(name) => {
                facts::system_file(&kernel, vfs.as_deref(), &self.fs.command_line, name).ok_or(Errno::ENOENT.into())
            }
            What::Text(pid, file) => facts::process_file(&kernel, vfs.as_deref(), *pid, *file),
            _ => Err(Errno::EINVAL.into()),
        }
    }
}

/// Inode numbers: the same thing has the same one.
fn number(what: &What) -> u64 {
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    for b in format!("{what:?}").bytes() {
        h = (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (h >> 16).max(1)
}

const fn kind(what: &What) -> FileKind {
    match what {
        What::Root | What::Directory(_) | What::Process(_) | What::Descriptors(_) => FileKind::Directory,
        What::System(_) | What::Text(..) => FileKind::Regular,
        What::Link(_) | What::Myself | What::Jump(..) | What::Descriptor(..) => FileKind::Symlink,
    }
}

impl Inode for Node {
    fn id(&self) -> ObjectId {
        self.id
    }

    fn kind(&self) -> FileKind {
        kind(&self.what)
    }

    fn stat(&self) -> TryResult<Stat> {
        let kernel = self.fs.kernel()?;
        let owner = match self.process() {
            Some(pid) => {
                let creds = facts::process(&kernel, pid)?.creds();
                (creds.euid, creds.egid)
            }
            None => (0, 0),
        };
        let now = Time(kernel.clocks.realtime());
        done(Stat {
            device: self.fs.device,
            inode: self.number(),
            kind: self.kind(),
            mode: self.mode(),
            links: if self.kind() == FileKind::Directory { 2 } else { 1 },
            uid: owner.0,
            gid: owner.1,
            rdev: vfs::Device::new(0, 0),
            size: 0,
            block_size: 1024,
            blocks: 0,
            accessed: now,
            modified: now,
            changed: now,
            born: now,
        })
    }

    fn set_attr(&self, _: &Caller, _: SetAttr) -> TryResult<()> {
        Err(Error::new(Errno::EPERM, "/proc has the attributes that it has"))
    }

    fn lookup(&self, _: &Caller, name: &[u8]) -> TryResult<Arc<dyn Inode>> {
        let missing = Error::new(Errno::ENOENT, "no such entry in /proc");
        let name = core::str::from_utf8(name).map_err(|_| missing)?;
        if self.what == What::Root
            && let Ok(pid) = name.parse::<u32>()
            && !name.starts_with(['0', '+'])
        {
            facts::process(&*self.fs.kernel()?, pid).map_err(|_| missing)?;
            return done(Self::new(&self.fs, What::Process(pid)));
        }
        let found = self.entries()?.into_iter().find(|(_, n, _)| n == name);
        done(Self::new(&self.fs, found.ok_or(missing)?.2))
    }

    fn read_link(&self, caller: &Caller) -> TryResult<Vec<u8>> {
        if let What::Link(target) = &self.what {
            return done(target.as_bytes().to_vec());
        }
        if self.what == What::Myself {
            return done(format!("{}", caller.pid).into_bytes());
        }
        match &self.what {
            What::Jump(pid, "exe") => {
                let space = facts::process(&*self.fs.kernel()?, *pid)?.space().ok_or(Errno::ENOENT)?;
                let file = space.program().file.clone().ok_or(Errno::ENOENT)?;
                done(file.path.clone())
            }
            _ => match self.follow(caller)? {
                Try::Done(Some(place)) => done(place.path(None).0),
                _ => Err(Errno::EINVAL.into()),
            },
        }
    }

    fn follow(&self, _: &Caller) -> TryResult<Option<Place>> {
        let (What::Jump(pid, _) | What::Descriptor(pid, _)) = &self.what else { return done(None) };
        let process = facts::process(&*self.fs.kernel()?, *pid)?;
        let task = process.leader().ok_or(Errno::ESRCH)?;
        done(match &self.what {
            What::Jump(_, "cwd") => Some(task.fs().cwd()?),
            What::Jump(_, "root") => Some(task.fs().root()?),
            What::Descriptor(_, fd) => {
                let file = task.files().get(u64::from(*fd)).map_err(|_| Errno::ENOENT)?;
                file.place()
            }
            _ => None,
        })
    }

    fn open(
        self: Arc<Self>,
        caller: &Caller,
        flags: OpenFlags,
        status: Status,
        place: Place,
    ) -> TryResult<Arc<dyn OpenFile>> {
        let mut want = Access::empty();
        want.set(Access::READ, flags.contains(OpenFlags::READ));
        want.set(Access::WRITE, flags.intersects(OpenFlags::WRITE | OpenFlags::TRUNCATE));
        if let Try::Done(stat) = self.stat()? {
            stat.check(caller, want)?;
        }
        let id = self.fs.kernel()?.new_id();
        match self.kind() {
            FileKind::Directory => done(LocalFile::new(id, self, place, flags, status)),
            FileKind::Regular => {
                let text = Text(self.text()?);
                done(LocalFile::new(id, Arc::new(text), place, flags, status))
            }
            _ => Err(Errno::ELOOP.into()),
        }
    }

    fn stat_fs(&self) -> TryResult<StatFs> {
        const PROC_SUPER_MAGIC: u64 = 0x9fa0;
        done(StatFs {
            magic: PROC_SUPER_MAGIC,
            block_size: 4096,
            blocks: 0,
            free: 0,
            files: 0,
            free_files: 0,
            name_max: 255,
            flags: 0,
        })
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

/// A directory that is open.
impl FileOps for Node {
    fn read(&self, _: &LocalFile, _: &Caller, _: u64, _: &mut dyn Sink) -> TryResult<usize> {
        Err(Errno::EISDIR.into())
    }

    fn write(&self, _: &LocalFile, _: &Caller, _: u64, _: bool, _: &mut dyn Source) -> TryResult<Wrote> {
        Err(Errno::EISDIR.into())
    }

    fn seek(&self, to: SeekFrom, now: u64) -> Result<u64> {
        seek(to, now, 0)
    }

    fn read_dir(&self, from: u64, sink: &mut dyn DirSink) -> TryResult<u64> {
        let mut at = from;
        for (position, name) in [(0, &b"."[..]), (1, &b".."[..])] {
            if at == position {
                if !sink.put(name, self.number(), FileKind::Directory, position + 1) {
                    return done(at);
                }
                at = position + 1;
            }
        }
        for (position, name, what) in self.entries()? {
            if position < at {
                continue;
            }
            if !sink.put(name.as_bytes(), number(&what), kind(&what), position + 1) {
                return done(at);
            }
            at = position + 1;
        }
        done(at)
    }

    fn can_epoll(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}

fn seek(to: SeekFrom, now: u64, end: u64) -> Result<u64> {
    let at = match to {
        SeekFrom::Start(at) => Some(at),
        SeekFrom::Current(by) => now.checked_add_signed(by),
        SeekFrom::End(by) => end.checked_add_signed(by),
        _ => None,
    };
    at.ok_or(Errno::EINVAL.into())
}

/// A text, as it was when it was opened.
struct Text(Vec<u8>);

impl FileOps for Text {
    fn read(&self, _: &LocalFile, _: &Caller, offset: u64, sink: &mut dyn Sink) -> TryResult<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
        done(sink.put(rest))
    }

    fn write(&self, _: &LocalFile, _: &Caller, _: u64, _: bool, _: &mut dyn Source) -> TryResult<Wrote> {
        Err(Error::new(Errno::EINVAL, "this file of /proc is read-only"))
    }

    fn seek(&self, to: SeekFrom, now: u64) -> Result<u64> {
        seek(to, now, self.0.len() as u64)
    }

    fn can_epoll(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
