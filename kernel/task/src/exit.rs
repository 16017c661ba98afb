//! Ends: of a thread, of a process, and what becomes of its children and its parent's knowledge.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::Ordering;

use base::Ready;

use crate::{
    children::{ChildChange, ChildEvent, ChildRecord, Status, Usage},
    cluster::{Name, ProcessRequest},
    cx::Cx,
    ids::Pid,
    kernel::{Kernel, Power},
    process::{JobState, Process},
    session::Notice,
    signal::{Origin, SigInfo, Signal, action},
    table::Entry,
    task::{Task, work},
};

impl Cx {
    /// exit_group(2), or a signal that ends the process: all threads end.
    pub fn exit_group(&self, status: Status) {
        let status = {
            let mut shared = self.process().shared.lock();
            self.process().end_threads(&mut shared, status, Some(self.task()));
            shared.exiting.unwrap_or(status)
        };
        self.exit_thread(status);
    }

    /// exit(2): this thread ends, and the process with its last one. The task goes back to nowhere: its loop sees `ended`.
    pub fn exit_thread(&self, status: Status) {
        if self.ended.replace(true) {
            return;
        }
        // Thousands that were killed at once end one after the other without a program in between, and the next one begins here.
        hal::cpu::breathe();
        self.task().clear_work(work::DIE | work::STOP | work::SIGNAL);
        self.finish_vfork();
        self.release_futexes();
        let process = self.process().clone();
        let task = self.task().clone();
        let (last, stopped) = {
            let mut shared = process.shared.lock();
            shared.threads.retain(|t| !Arc::ptr_eq(t, &task));
            shared.ended.add(&task.times.usage());
            if task.tid() == process.pid() {
                shared.last_name = task.name();
            }
            let mut stopped = None;
            if let JobState::Stopping { signal, left } = shared.job {
                let left = left.saturating_sub(1);
                shared.job = if left == 0 {
                    stopped = Some(signal);
                    JobState::Stopped(signal)
                } else {
                    JobState::Stopping { signal, left }
                };
            }
            let last = shared.threads.is_empty();
            if last && shared.exiting.is_none() {
                shared.exiting = Some(status);
            }
            (last, stopped.filter(|_| !last))
        };
        let common = {
            let shared = process.shared.lock();
            shared.pending.set()
        };
        if !last {
            task.pass_on(common);
        }
        if task.tid() != process.pid() {
            self.kernel().table.remove(task.tid());
        }
        if let Some(signal) = stopped {
            process.report_job(Status::Stopped(signal));
        }
        // Whoever calls execve waits for this.
        process.child_waiters.wake(Ready::IN);
        let kernel = self.kernel();
        let files = task.set_files(kernel.no_files());
        if Arc::strong_count(&files) == 1 {
            // The last user: POSIX locks go with the descriptors.
            let caller = self.caller();
            for file in files.take(0..=u32::MAX) {
                file.flush(kernel.vfs(), &caller);
            }
        }
        drop(files);
        drop(task.set_fs(kernel.no_fs()));
        if last {
            let space = process.set_space(None);
            drop(space);
            process.exited();
        }
    }

    /// The child of a vfork no longer uses its parent's memory.
    pub(crate) fn finish_vfork(&self) {
        let waiting = self.task().vfork.lock().take();
        if let Some((done, parent)) = waiting {
            done.finish();
            parent.wake_up();
        }
    }
}

impl Process {
    /// The last thread is gone.
    fn exited(self: &Arc<Self>) {
        let kernel = self.kernel();
        self.itimers.stop();
        self.posix_timers.clear();
        kernel.undo_semaphores(self.pid());
        let pid = self.pid();
        let (own, children_usage) = self.usage();
        let (status, children) = {
            let mut shared = self.shared.lock();
            let status = shared.exiting.unwrap_or(Status::Exited(0));
            shared.pending = crate::signal::Pending::new();
            (status, shared.children.take())
        };
        if self.is_init() {
            log::error!("pid 1 ended: {status:?}");
            if let Some(hooks) = kernel.hooks() {
                hooks.power(Power::Halt);
            }
        }
        let reaper = kernel.reaper_of(self);
        let mut usage = own;
        usage.add(&children_usage);
        self.shared.lock().zombie = Some((status, usage));
        self.end_waiters.wake(Ready::IN);
        kernel.cluster().process_changed(pid, true);
        // Before anybody hears of the new parent: a group that is orphaned by this must be seen to have been held.
        self.session().notice(Notice::Exit { pid, reaper });
        if !children.is_empty() {
            kernel.give_away(reaper, children);
        }
        kernel.child_event(
            self.ppid(),
            ChildEvent { pid, change: ChildChange::Status { status, uid: self.creds().uid, usage } },
        );
        kernel.doors.told.wake(Ready::IN);
    }

    /// Something happened to a child.
    pub fn child_changed(&self, event: ChildEvent) {
        let mut reap = false;
        let mut tell = None;
        {
            let mut shared = self.shared.lock();
            if shared.away {
                drop(shared);
                return self.kernel().cluster().child_event(self.pid(), event);
            }
            let shared = &mut *shared;
            let action = *shared.actions.get(Signal::CHLD);
            let Some(child) = shared.children.get_mut(event.pid) else { return };
            match event.change {
                ChildChange::Group(pgid) => child.pgid = pgid,
                ChildChange::Exec => child.exit_signal = Signal::CHLD.number(),
                ChildChange::Gone => {
                    shared.children.remove(event.pid);
                }
                ChildChange::Status { status, uid, usage } => {
                    child.uid = uid;
                    let exited = matches!(status, Status::Exited(_) | Status::Killed { .. });
                    if exited {
                        child.zombie = Some((status, usage));
                        child.job = None;
                    } else {
                        child.job = Some(status);
                    }
                    let signal = if exited { Signal::new(u64::from(child.exit_signal)) } else { Some(Signal::CHLD) };
                    let ignores = action.handler == action::IGNORE;
                    if exited && signal == Some(Signal::CHLD) {
                        // The parent said that it does not want to know.
                        reap = ignores || action.flags & action::flags::SA_NOCLDWAIT != 0;
                    }
                    let quiet = if exited {
                        ignores && signal == Some(Signal::CHLD)
                    } else {
                        ignores || action.flags & action::flags::SA_NOCLDSTOP != 0
                    };
                    if !quiet && let Some(signal) = signal {
                        let (code, si_status) = status.code_and_status();
                        let ticks = |ns: u64| ns / 10_000_000;
                        let origin = Origin::Child {
                            pid: event.pid,
                            uid,
                            status: si_status,
                            utime: ticks(usage.user),
                            stime: ticks(usage.system),
                        };
                        tell = Some(SigInfo { signal, code, errno: 0, origin });
                    }
                    if reap {
                        shared.children.remove(event.pid);
                    }
                }
            }
        }
        if reap {
            self.kernel().reap(event.pid);
        }
        if let Some(info) = tell {
            // Nobody to complain to if the queue is full: SIGCHLD has no value.
            let _ = self.signal(info);
        }
        self.child_waiters.wake(Ready::IN);
    }

    /// The parent exited, and `to` knows this process as its child.
    pub(crate) fn adopted(&self, to: Pid) {
        self.reparent(to);
        let pid = self.pid();
        self.session().notice(Notice::Reparent { pid, ppid: to });
        if let Some((status, usage)) = self.zombie() {
            // It ended between the two: the old parent may not have heard of it any more.
            let change = ChildChange::Status { status, uid: self.creds().uid, usage };
            self.kernel().child_event(to, ChildEvent { pid, change });
        }
    }

    /// The parent exited.
    pub(crate) fn reparent(&self, to: Pid) {
        self.set_ppid(to);
        let signal = self.parent_death_signal.load(Ordering::Relaxed);
        if let Some(signal) = Signal::new(u64::from(signal)) {
            let _ = self.signal(SigInfo::kernel(signal));
        }
        // It exited meanwhile and may have told nobody but the old parent, who could not pass it on any more.
        if let Some((status, usage)) = self.zombie() {
            let change = ChildChange::Status { status, uid: self.creds().uid, usage };
            self.kernel().child_event(to, ChildEvent { pid: self.pid(), change });
        }
    }
}

impl Kernel {
    /// Something happened to a child of `parent`, wherever that is.
    pub fn child_event(&self, parent: Pid, event: ChildEvent) {
        match self.table.get(parent) {
            Some(Entry::Process(p)) => p.child_changed(event),
            Some(Entry::Thread(_)) => {}
            Some(Entry::Moved(_)) => self.cluster().child_event(parent, event),
            None if parent.0 == 0 => {
                // The kernel's own child: nobody waits for it.
                if matches!(event.change, ChildChange::Status { status: Status::Exited(_) | Status::Killed { .. }, .. })
                {
                    self.reap(event.pid);
                }
            }
            None => self.cluster().child_event(parent, event),
        }
    }

    pub(crate) fn add_child(&self, parent: Pid, child: ChildRecord) {
        if let Some(process) = self.table.process(parent) {
            let mut shared = process.shared.lock();
            if !shared.away {
                return shared.children.insert(child);
            }
        }
        self.cluster().adopt(parent, alloc::vec![child]);
    }

    pub(crate) fn forget_child(&self, parent: Pid, child: Pid) {
        if let Some(process) = self.table.process(parent) {
            let mut shared = process.shared.lock();
            if !shared.away {
                shared.children.remove(child);
                return;
            }
            drop(shared);
            self.cluster().child_event(parent, ChildEvent { pid: child, change: ChildChange::Gone });
        }
    }

    /// Who becomes the parent of the children of a process that exits: the nearest living ancestor that is a subreaper, else pid 1.
    fn reaper_of(&self, process: &Process) -> Pid {
        if !process.has_subreaper.load(Ordering::Relaxed) {
            return Pid::INIT;
        }
        let mut at = process.ppid();
        // Ancestors on other kernels end the search: their kernel knows no more than this one does about subreapers above.
        while let Some(p) = self.table.process(at) {
            if p.subreaper.load(Ordering::Relaxed) && p.zombie().is_none() {
                return p.pid();
            }
            if p.pid() == Pid::INIT {
                break;
            }
            at = p.ppid();
        }
        Pid::INIT
    }

    fn give_away(&self, reaper: Pid, mut children: Vec<ChildRecord>) {
        for child in &mut children {
            // A new parent gets SIGCHLD whatever the old one wanted.
            child.exit_signal = Signal::CHLD.number();
        }
        self.adopt(reaper, children);
    }

    /// The parent of a process that is here died with its kernel, or pid 1 did and there is a new one: the process is a child of pid 1, if it has
    /// not become somebody else's meanwhile.
    pub fn orphan(&self, process: &Arc<Process>, parent: Pid) {
        let pid = process.pid();
        if !process.leaves_parent(parent, Pid::INIT) {
            return;
        }
        if parent != Pid::INIT {
            process.reparent(Pid::INIT);
            process.session().notice(Notice::Reparent { pid, ppid: Pid::INIT });
        }
        let child = ChildRecord {
            pid,
            pgid: process.pgid(),
            exit_signal: Signal::CHLD.number(),
            uid: process.creds().uid,
            by: Pid::INIT,
            zombie: process.zombie(),
            job: None,
        };
        self.adopt(Pid::INIT, alloc::vec![child]);
    }

    /// Children whose parent exited become those of `parent`.
    pub fn adopt(&self, parent: Pid, children: Vec<ChildRecord>) {
        let Some(process) = self.table.process(parent) else {
            return self.cluster().adopt(parent, children);
        };
        let mut zombies = Vec::new();
        let mut adopted = Vec::new();
        {
            let mut shared = process.shared.lock();
            if shared.away {
                drop(shared);
                return self.cluster().adopt(parent, children);
            }
            for child in children {
                match child.zombie {
                    Some(_) => zombies.push(child),
                    None => adopted.push(child.pid),
                }
                shared.children.insert(child);
            }
        }
        // Only now do they hear of it: what they tell their parent from here on finds somebody who knows them.
        for child in adopted {
            match self.table.process(child) {
                Some(p) if p.ppid() != parent => p.adopted(parent),
                Some(_) => {}
                None => self.cluster().tell(child, ProcessRequest::Reparent(parent)),
            }
        }
        for zombie in zombies {
            if let Some((status, usage)) = zombie.zombie {
                process.child_changed(ChildEvent {
                    pid: zombie.pid,
                    change: ChildChange::Status { status, uid: zombie.uid, usage },
                });
            }
        }
    }

    /// A zombie was waited for: its number is free.
    pub fn reap(&self, pid: Pid) {
        match self.table.get(pid) {
            // One that has not ended here ended elsewhere: its task has not yet heard that it moved.
            Some(Entry::Process(p)) if p.zombie().is_some() => {
                self.table.remove(pid);
                p.session().notice(Notice::Reap(pid));
                self.cluster().unregister(Name::Process(pid), p.id());
            }
            entry => {
                if matches!(entry, Some(Entry::Moved(_))) {
                    // Nobody asks for it here any more.
                    self.table.remove(pid);
                }
                self.cluster().tell(pid, ProcessRequest::Reap);
            }
        }
    }
}

impl Task {
    /// What it used so far: RUSAGE_THREAD.
    pub fn usage(&self) -> Usage {
        self.kernel().sched.charge_running();
        self.times.usage()
    }
}
