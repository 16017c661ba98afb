//! New threads and processes; clone(2).

use alloc::{boxed::Box, sync::Arc};
use core::sync::atomic::Ordering;

use base::{Errno, Error, Result};
use hal::{addr::UserAddr, usermode::UserContext};
use mm::Space;

use crate::{
    children::ChildRecord,
    cluster::Name,
    creds::cap,
    cx::{Cx, Restart},
    ids::Pid,
    limits::Resource,
    pidfd::PidFd,
    process::{JobState, Process, ProcessParts},
    session::Request,
    signal::Actions,
    table::Entry,
    task::{AltStack, Start, Task, TaskParts, VforkDone, work},
    wait::{Interrupted, Timeout},
};

/// `CLONE_*`, clone(2).
pub mod flags {
    /// Share the address space.
    pub const VM: u64 = 0x100;
    /// Share cwd, root and umask.
    pub const FS: u64 = 0x200;
    /// Share descriptors.
    pub const FILES: u64 = 0x400;
    /// Share signal actions.
    pub const SIGHAND: u64 = 0x800;
    /// Return a pidfd.
    pub const PIDFD: u64 = 0x1000;
    /// The parent waits until the child calls execve or exits.
    pub const VFORK: u64 = 0x4000;
    /// The child's parent is the caller's.
    pub const PARENT: u64 = 0x8000;
    /// Same thread group.
    pub const THREAD: u64 = 0x1_0000;
    /// Share System V semaphore adjustments.
    pub const SYSVSEM: u64 = 0x4_0000;
    /// Set the thread pointer.
    pub const SETTLS: u64 = 0x8_0000;
    /// Store the child's number in the parent's memory.
    pub const PARENT_SETTID: u64 = 0x10_0000;
    /// Clear it in the child's memory when it exits.
    pub const CHILD_CLEARTID: u64 = 0x20_0000;
    /// Ignored.
    pub const DETACHED: u64 = 0x40_0000;
    /// Ignored without ptrace.
    pub const UNTRACED: u64 = 0x80_0000;
    /// Store the child's number in its memory.
    pub const CHILD_SETTID: u64 = 0x100_0000;
    /// Share I/O context; without meaning here.
    pub const IO: u64 = 0x8000_0000;
    /// All handlers back to default (clone3).
    pub const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    /// What this kernel knows.
    pub const KNOWN: u64 = VM
        | PIDFD
        | FS
        | FILES
        | SIGHAND
        | VFORK
        | PARENT
        | THREAD
        | SYSVSEM
        | SETTLS
        | PARENT_SETTID
        | CHILD_CLEARTID
        | DETACHED
        | UNTRACED
        | CHILD_SETTID
        | IO
        | CLEAR_SIGHAND;
}

/// What clone(2) and clone3(2) ask for.
#[derive(Clone, Copy, Debug, Default)]
pub struct CloneArgs {
    /// [`flags`].
    pub flags: u64,
    /// What the parent gets when the child exits; 0 for none.
    pub exit_signal: u8,
    /// Where the child's stack begins; `None`: the caller's stack pointer.
    pub stack: Option<u64>,
    /// The thread pointer, with `SETTLS`.
    pub tls: u64,
    /// Where `PARENT_SETTID` stores.
    pub parent_tid: u64,
    /// Where `CHILD_SETTID` and `CHILD_CLEARTID` store.
    pub child_tid: u64,
    /// Where `PIDFD` stores.
    pub pidfd: u64,
}

impl CloneArgs {
    const fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    /// What clone(2) refuses.
    fn check(&self) -> Result<()> {
        let bad = self.flags & !flags::KNOWN != 0
            || self.has(flags::THREAD) && !self.has(flags::SIGHAND)
            || self.has(flags::SIGHAND) && !self.has(flags::VM)
            || self.has(flags::SIGHAND) && self.has(flags::CLEAR_SIGHAND)
            || self.has(flags::PIDFD) && self.flags & (flags::THREAD | flags::DETACHED) != 0
            || self.exit_signal > crate::signal::set::MAX;
        if bad { Err(Error::new(Errno::EINVAL, "clone flags")) } else { Ok(()) }
    }
}

impl Cx {
    /// Makes a thread or a process that goes on where the caller is; its number.
    ///
    /// # Errors
    /// `EINVAL` for flags that do not go together or are not known, `EAGAIN` beyond RLIMIT_NPROC, `ENOMEM`; `EINTR` if a signal is to be
    /// handled first (the call then starts again).
    pub fn clone(&self, args: CloneArgs) -> Result<Pid> {
        args.check()?;
        if self.task().is_interrupted() {
            // A signal to the group must reach either both or neither.
            self.set_restart(Restart::Always);
            return Err(crate::wait::INTERRUPTED);
        }
        self.check_count()?;
        let kernel = self.kernel().clone();
        kernel.doors.let_fork()?;
        let pid = kernel.new_pid()?;
        let sp = args.stack.map(UserAddr);
        let tls = args.has(flags::SETTLS).then_some(args.tls);
        let regs = Box::new(self.regs().for_clone(sp, tls));
        if args.has(flags::PARENT_SETTID) {
            // Linux ignores a bad address here.
            let _ = self.user(|u| u.write(args.parent_tid, &pid.0.to_le_bytes()));
        }
        kernel.counters.forks.fetch_add(1, Ordering::Relaxed);
        if args.has(flags::THREAD) {
            self.clone_thread(pid, args, regs)?;
            return Ok(pid);
        }
        let done = self.clone_process(pid, args, regs)?;
        if let Some(done) = done {
            // Only SIGKILL ends this wait; the child wakes its parent.
            let _ = self.wait_until(|| done.is_done().then_some(()), Timeout::Never, Interrupted::Killed);
        }
        Ok(pid)
    }

    fn check_count(&self) -> Result<()> {
        let limit = self.process().limits(|l| l.soft(Resource::Processes));
        let creds = self.process().creds();
        if limit == crate::limits::INFINITY || creds.can(cap::SYS_RESOURCE) || creds.can(cap::SYS_ADMIN) {
            return Ok(());
        }
        let mine: usize = self
            .kernel()
            .table
            .processes()
            .iter()
            .filter(|p| p.creds().uid == creds.uid)
            .map(|p| p.thread_count())
            .sum();
        if mine as u64 >= limit { Err(Error::new(Errno::EAGAIN, "RLIMIT_NPROC")) } else { Ok(()) }
    }

    fn parts(&self, tid: Pid, process: &Arc<Process>, args: &CloneArgs, regs: Box<UserContext>) -> Result<TaskParts> {
        let me = self.task();
        let files = if args.has(flags::FILES) { me.files() } else { me.files().fork()? };
        let fs = if args.has(flags::FS) { me.fs() } else { me.fs().fork() };
        // A thread starts without an alternate stack, a copy of the process has the same.
        let shares_stack = args.has(flags::VM) && !args.has(flags::VFORK);
        Ok(TaskParts {
            tid,
            process: process.clone(),
            isa: me.isa,
            start: Start::User(regs),
            sched: me.sched.for_child(),
            mask: me.mask(),
            altstack: if shares_stack { AltStack::NONE } else { me.altstack() },
            name: me.name(),
            files,
            fs,
            clear_tid: if args.has(flags::CHILD_CLEARTID) { args.child_tid } else { 0 },
            set_tid: if args.has(flags::CHILD_SETTID) { args.child_tid } else { 0 },
            // A copy of the memory has a copy of the struct; what shares memory registers its own.
            rseq: if args.has(flags::VM) {
                (0, 0, 0)
            } else {
                let load = Ordering::Relaxed;
                (me.rseq.load(load), me.rseq_signature.load(load), me.rseq_slot.load(load))
            },
            vfork: None,
            timer_slack: me.timer_slack.load(Ordering::Relaxed),
        })
    }

    fn clone_thread(&self, tid: Pid, args: CloneArgs, regs: Box<UserContext>) -> Result<()> {
        let process = self.process();
        let task = Task::new(self.parts(tid, process, &args, regs)?);
        {
            let mut shared = process.shared.lock();
            if shared.exiting.is_some() || shared.execing.is_some() {
                return Err(crate::wait::INTERRUPTED);
            }
            if let JobState::Stopping { signal, left } = shared.job {
                shared.job = JobState::Stopping { signal, left: left + 1 };
                task.set_work(work::STOP);
            }
            shared.threads.push(task.clone());
        }
        let kernel = self.kernel();
        kernel.table.insert(tid, Entry::Thread(task.clone()));
        if let Err(e) = kernel.sched.start(&task) {
            kernel.table.remove(tid);
            process.shared.lock().threads.retain(|t| !Arc::ptr_eq(t, &task));
            return Err(e);
        }
        Ok(())
    }

    fn clone_process(&self, pid: Pid, args: CloneArgs, regs: Box<UserContext>) -> Result<Option<Arc<VforkDone>>> {
        let parent = self.process();
        let kernel = self.kernel();
        let space: Arc<Space> = if args.has(flags::VM) { self.space() } else { self.space().fork()? };
        let mut actions: Actions = parent.actions(|a| a.clone());
        if args.has(flags::CLEAR_SIGHAND) {
            let ignored = actions.explicitly_ignored();
            actions = Actions::with_ignored(ignored);
        }
        let ppid = if args.has(flags::PARENT) { parent.ppid() } else { parent.pid() };
        let exit_signal =
            if args.has(flags::PARENT) { parent.exit_signal.load(Ordering::Relaxed) } else { args.exit_signal };
        let id = kernel.new_id();
        let child = Process::new(ProcessParts {
            kernel: kernel.clone(),
            pid,
            id,
            started: hal::time::now(),
            ppid,
            pgid: parent.pgid(),
            session: parent.session(),
            exit_signal,
            creds: parent.creds(),
            limits: parent.limits(|l| l.clone()),
            actions,
            space: Some(space),
            has_subreaper: parent.has_subreaper.load(Ordering::Relaxed) || parent.subreaper.load(Ordering::Relaxed),
            personality: parent.personality.load(Ordering::Relaxed),
            oom_score_adj: parent.oom_score_adj.load(Ordering::Relaxed),
            placement: parent.placement(),
        });
        let mut parts = self.parts(pid, &child, &args, regs)?;
        let pidfd = if args.has(flags::PIDFD) { Some(self.new_pidfd(&child, args.pidfd)?) } else { None };
        let done = args.has(flags::VFORK).then(Arc::<VforkDone>::default);
        parts.vfork = done.clone().map(|done| (done, self.task().clone()));
        let task = Task::new(parts);
        child.shared.lock().threads.push(task.clone());
        let record = ChildRecord {
            pid,
            pgid: child.pgid(),
            exit_signal,
            uid: child.creds().uid,
            by: self.task().tid(),
            zombie: None,
            job: None,
        };
        kernel.table.insert(pid, Entry::Process(child.clone()));
        kernel.add_child(ppid, record);
        child.announce(Request::Fork { ppid, from: parent.pid(), child: pid, place: kernel.id() });
        kernel.cluster().register(Name::Process(pid), id);
        // The child has the limit of its parent and its own CPU time.
        child.check_cpu_timers();
        if let Err(e) = kernel.sched.start(&task) {
            kernel.forget_child(ppid, pid);
            kernel.reap(pid);
            if let Some(fd) = pidfd {
                let _ = self.task().files().close(fd);
            }
            return Err(e);
        }
        Ok(done)
    }

    /// A descriptor of a child that is about to start; its number is stored for the program.
    fn new_pidfd(&self, child: &Arc<Process>, at: u64) -> Result<u64> {
        let file = PidFd::of(self.kernel(), &self.caller(), child, vfs::Status::empty());
        let files = self.task().files();
        let fd = files.open(file, true, 0, self.process().limits(|l| l.soft(Resource::Files)))?;
        let stored = self.user(|u| u.write(at, &fd.to_le_bytes()));
        stored.inspect_err(|_| drop(files.close(u64::from(fd))))?;
        Ok(u64::from(fd))
    }
}
