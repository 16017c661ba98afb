//! The processes of this kernel.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::Ordering;

use base::{Errno, Error, Result, Try, TryResult, wait::done};
use proc::process::{ProcessFile, ProcessLink};
use task::{Kernel, Pid, Placement, Process, Task};
use vfs::{Caller, Place, caller::cap};

use crate::{
    facts::{self, Subject},
    view::{Owner, ProcessView},
};

/// See the module.
pub struct LocalView(Arc<Kernel>);

const GONE: Error = Error::new(Errno::ESRCH, "the process is gone");
const NO_ENTRY: Error = Error::new(Errno::ENOENT, "no such process");
/// CAP_SYS_PTRACE.
const SYS_PTRACE: u8 = 19;

impl LocalView {
    /// The processes of `kernel`.
    pub const fn new(kernel: Arc<Kernel>) -> Self {
        Self(kernel)
    }

    /// A process by the number of any of its threads.
    fn process(&self, pid: u32) -> Option<Arc<Process>> {
        self.0.table.process(Pid(pid)).or_else(|| self.0.table.task(Pid(pid)).map(|t| t.process().clone()))
    }

    fn subject(&self, pid: u32, tid: u32) -> Result<Subject> {
        let process = self.process(pid).ok_or(GONE)?;
        let alone = tid != pid;
        let thread = if alone { process.thread(Pid(tid)) } else { process.leader() };
        if alone && thread.is_none() {
            return Err(GONE);
        }
        Ok(Subject { process, thread, alone, tid })
    }

    /// Whether the caller may look into a process: ptrace(2), "access mode checking".
    fn may_look(&self, caller: &Caller, process: &Process) -> Result<()> {
        let c = process.creds();
        let same = [c.uid, c.euid, c.suid].iter().all(|u| *u == caller.uid)
            && [c.gid, c.egid, c.sgid].iter().all(|g| *g == caller.gid);
        let own = caller.pid == process.pid().0;
        let dumpable = process.dumpable.load(Ordering::Relaxed) == 1;
        if own || (same && dumpable) || caller.can(SYS_PTRACE) || caller.can(cap::SYS_ADMIN) {
            Ok(())
        } else {
            Err(Error::new(Errno::EACCES, "another user's process"))
        }
    }

    /// Reads what is written to a placement, as `docs/proc-cob.md` has it. A kernel that cannot be had is refused here, not at the execve to come.
    fn placement(&self, words: &str) -> Result<Placement> {
        const UNKNOWN: Error = Error::new(Errno::ENXIO, "the plan has no such kernel");
        if words == "-" {
            return Ok(Placement::Automatic);
        }
        let index: u16 = words.parse().map_err(|_| Error::new(Errno::EINVAL, "a kernel's index or -"))?;
        if index >= self.0.facts.kernels {
            return Err(UNKNOWN);
        }
        let placement = Placement::Kernel(index);
        match self.0.cluster().place(placement) {
            Err(e) if e == Errno::ENODEV => Err(UNKNOWN),
            Err(e) => Err(e),
            Ok(_) => Ok(placement),
        }
    }

    fn thread(&self, caller: &Caller, pid: u32) -> Result<Arc<Task>> {
        let process = self.process(pid).ok_or(NO_ENTRY)?;
        self.may_look(caller, &process)?;
        process.leader().ok_or(NO_ENTRY)
    }
}

impl ProcessView for LocalView {
    fn pids(&self) -> TryResult<Vec<u32>> {
        done(self.0.table.processes().iter().map(|p| p.pid().0).collect())
    }

    fn owner(&self, pid: u32) -> TryResult<Owner> {
        let process = self.process(pid).ok_or(NO_ENTRY)?;
        let creds = process.creds();
        done(Owner { uid: creds.euid, gid: creds.egid })
    }

    fn threads(&self, pid: u32) -> TryResult<Vec<u32>> {
        let process = self.process(pid).ok_or(NO_ENTRY)?;
        let mut threads: Vec<u32> = process.threads().iter().map(|t| t.tid().0).collect();
        if threads.is_empty() {
            threads.push(pid);
        }
        done(threads)
    }

    fn descriptors(&self, caller: &Caller, pid: u32) -> TryResult<Vec<u32>> {
        let process = self.process(pid).ok_or(NO_ENTRY)?;
        self.may_look(caller, &process)?;
        done(process.leader().map(|t| t.files().list().iter().map(|(fd, _)| *fd).collect()).unwrap_or_default())
    }

    fn text(&self, caller: &Caller, pid: u32, tid: u32, what: ProcessFile) -> TryResult<Vec<u8>> {
        let s = self.subject(pid, tid)?;
        if matches!(what, ProcessFile::Environ | ProcessFile::Maps) {
            self.may_look(caller, &s.process)?;
        }
        facts::process_file(&self.0, s, what)
    }

    fn descriptor_info(&self, caller: &Caller, pid: u32, fd: u32) -> TryResult<Vec<u8>> {
        let thread = self.thread(caller, pid)?;
        let d = thread.files().descriptor(u64::from(fd)).map_err(|_| NO_ENTRY)?;
        let position = match d.file.seek(vfs::SeekFrom::Current(0)) {
            Ok(Try::Done(at)) => at,
            _ => 0,
        };
        let mount = d.file.place().map_or(0, |p| p.mount.id);
        let flags = d.file.flags();
        let mut bits = match (flags.contains(vfs::OpenFlags::READ), flags.contains(vfs::OpenFlags::WRITE)) {
            (true, true) => 2,
            (false, true) => 1,
            _ => 0,
        };
        for (flag, bit) in [(vfs::Status::APPEND, 0o2000), (vfs::Status::NONBLOCK, 0o4000)] {
            bits |= if d.file.status().contains(flag) { bit } else { 0 };
        }
        if d.close_on_exec {
            bits |= 0o2_000_000;
        }
        done(alloc::format!("pos:\t{position}\nflags:\t0{bits:o}\nmnt_id:\t{mount}\n").into_bytes())
    }

    fn link(&self, caller: &Caller, pid: u32, which: ProcessLink) -> TryResult<Vec<u8>> {
        let thread = self.thread(caller, pid)?;
        let fs = thread.fs();
        let path = |place: Result<Place>| {
            let (mut path, reachable) = place?.path(None);
            if !reachable {
                path.extend_from_slice(b" (deleted)");
            }
            Ok::<_, Error>(path)
        };
        done(match which {
            ProcessLink::Cwd => path(fs.cwd())?,
            ProcessLink::Root => path(fs.root())?,
            ProcessLink::Exe => {
                let space = thread.process().space().ok_or(NO_ENTRY)?;
                space.program().file.as_ref().map(|f| f.path.clone()).ok_or(NO_ENTRY)?
            }
            ProcessLink::Fd(fd) => thread.files().get(u64::from(fd)).map_err(|_| NO_ENTRY)?.describe().into_bytes(),
        })
    }

    fn place(&self, caller: &Caller, pid: u32, which: ProcessLink) -> TryResult<Option<Place>> {
        let Ok(thread) = self.thread(caller, pid) else { return done(None) };
        match which {
            ProcessLink::Cwd => done(thread.fs().cwd().ok()),
            ProcessLink::Root => done(thread.fs().root().ok()),
            ProcessLink::Exe => done(None),
            ProcessLink::Fd(fd) => thread.files().get(u64::from(fd)).map_or(done(None), |file| file.find_place()),
        }
    }

    fn set(&self, caller: &Caller, pid: u32, what: ProcessFile, text: &str) -> TryResult<()> {
        let process = self.process(pid).ok_or(GONE)?;
        self.may_look(caller, &process)?;
        match what {
            ProcessFile::Comm => {
                if caller.pid != process.pid().0 {
                    return Err(Error::new(Errno::EINVAL, "the name of another process"));
                }
                process.leader().ok_or(GONE)?.set_name(text.as_bytes());
                done(())
            }
            ProcessFile::OomScoreAdj => {
                let value: i16 = text.trim().parse().map_err(|_| Errno::EINVAL)?;
                if !(-1000..=1000).contains(&value) {
                    return Err(Errno::EINVAL.into());
                }
                // Making oneself less likely to be chosen takes CAP_SYS_RESOURCE.
                if value < process.oom_score_adj.load(Ordering::Relaxed) && !caller.can(24) {
                    return Err(Errno::EACCES.into());
                }
                process.oom_score_adj.store(value, Ordering::Relaxed);
                done(())
            }
            ProcessFile::Placement => {
                let placement = self.placement(text.trim())?;
                process.set_placement(placement);
                done(())
            }
            _ => Err(Errno::EACCES.into()),
        }
    }
}
