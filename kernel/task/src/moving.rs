//! execve(2) that goes on at another kernel: what a stopped task is made of, and how it goes on there.
//!
//! The source exports, the cluster carries (PREPARE, COMMIT), the target loads the program with everything reserved before it answers. Before COMMIT a
//! failure is execve's errno and the old program goes on. What happens to the task between export and COMMIT (signals, children) follows it.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::sync::atomic::Ordering::Relaxed;

use base::{
    Errno, Error, KernelId, Ready, Result, TryResult, Wake,
    wait::{Op, Try},
};
use hal::sync::{SpinLock, rank};
use hal::trace::Kind;
use vfs::{OpenFile, Place};

use crate::{
    children::{ChildChange, ChildEvent, ChildRecord},
    cluster::{Name, ProcessRequest},
    cx::Cx,
    exec::Strings,
    fs::{Descriptors, FsState},
    ids::Pid,
    image::{FdImage, HandleImage, Scheduling, TaskImage},
    kernel::Kernel,
    process::{Process, ProcessParts},
    sched::{Params, Policy},
    session::{Member, Notice, Reply, Request, Sender},
    signal::{Actions, Pending, Signal},
    table::Entry,
    task::{AltStack, Start, Task, TaskParts},
    time::Expire,
    wait::{Interrupted, Timeout},
};

/// How files and directories go with a task; the file service implements it.
pub trait Handles: Send + Sync {
    /// An open file for kernel `to`.
    fn give_file(&self, file: &Arc<dyn OpenFile>, to: KernelId) -> TryResult<HandleImage>;
    /// A place for kernel `to`.
    fn give_place(&self, place: &Place, to: KernelId) -> TryResult<HandleImage>;
    /// An open file that kernel `from` gave.
    fn take_file(&self, handle: &HandleImage, from: KernelId) -> TryResult<Arc<dyn OpenFile>>;
    /// An open file that was made ready for kernel `to` does not go, or may not have come.
    fn not_given(&self, handle: &HandleImage, to: KernelId);
    /// A place that kernel `from` gave.
    fn take_place(&self, handle: &HandleImage, from: KernelId, wait: &dyn vfs::WaitOps) -> Result<Place>;
}

const NO_HANDLES: Error = Error::new(Errno::EOPNOTSUPP, "files cannot go to other kernels");

fn list(strings: &Strings) -> Vec<Vec<u8>> {
    strings.iter().map(Into::into).collect()
}

fn strings(list: &[Vec<u8>]) -> Result<Strings> {
    let mut all = Strings::new();
    for string in list {
        all.push(string)?;
    }
    Ok(all)
}

/// How long a kernel sends on what comes for a process that moved away, in ns. The registrar knew the new place before the process ran there, so only
/// requests that were made before come here, and those have ended by then.
const FORWARDED: u64 = 20_000_000_000;

/// The end of that time.
struct Forwarder {
    kernel: alloc::sync::Weak<Kernel>,
    pid: Pid,
}

impl Expire for Forwarder {
    fn expire(self: Arc<Self>) {
        if let Some(kernel) = self.kernel.upgrade() {
            kernel.table.forget_moved(self.pid);
        }
    }
}

impl Cx {
    /// Continues this execve on kernel `to`. When it returns `Ok` the task runs there and this one has ended.
    pub(crate) fn execve_elsewhere(
        &self,
        to: KernelId,
        program: &Place,
        path: &[u8],
        argv: &Strings,
        envp: &Strings,
    ) -> Result<()> {
        let kernel = self.kernel().clone();
        let handles = kernel.cluster().handles().ok_or(NO_HANDLES)?;
        kernel.cluster().about_to_go(to);
        // Other threads live until all is ready there: if this fails they go on.
        let alone = self.process().thread_count() == 1;
        let image = self.export(to, &*handles, program, path, argv, envp, alone)?;
        let sent = image.clone();
        let ready = self.settle(kernel.cluster().prepare_exec(to, Box::new(image)), Interrupted::Killed);
        let ready = ready.and_then(|ready| self.end_other_threads().map(|()| ready)).inspect_err(|_| {
            self.take_back(&sent);
            for fd in &sent.files {
                handles.not_given(&fd.handle, to);
            }
        })?;
        // It may run there before this kernel hears of it.
        hal::trace::note(Kind::Leave, self.process().pid().0, to.index.into(), 0);
        if let Err(e) = self.settle(ready.commit(), Interrupted::Nothing) {
            // It may have run there before that kernel died: there is no way back, and it is that kernel's death that others hear of.
            log::warn!("process {} died with kernel {to}, where it was about to run: {e}", self.process().pid());
            // If that kernel died before it was told, the number is still this one's.
            let process = self.process();
            kernel.cluster().unregister(Name::Process(process.pid()), process.id());
            self.moved_away(to, &sent);
            // Its session may not know it as that kernel's.
            process.session().notice(Notice::Exit { pid: process.pid(), reaper: Pid::INIT });
            return Ok(());
        }
        self.moved_away(to, &sent);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "what execve is given, and where it goes")]
    fn export(
        &self,
        to: KernelId,
        handles: &dyn Handles,
        program: &Place,
        path: &[u8],
        argv: &Strings,
        envp: &Strings,
        alone: bool,
    ) -> Result<TaskImage> {
        let (process, task) = (self.process(), self.task());
        let place = |p: &Place| self.settle(handles.give_place(p, to), Interrupted::Restart);
        let fs = task.fs();
        let (cwd, root, program) = (place(&fs.cwd()?)?, place(&fs.root()?)?, place(program)?);
        let mut files = Vec::new();
        for (fd, d) in task.files().list().into_iter().filter(|(_, d)| !d.close_on_exec) {
            match self.settle(handles.give_file(&d.file, to), Interrupted::Restart) {
                Ok(handle) => files.push(FdImage { fd, handle }),
                Err(e) => {
                    for FdImage { handle, .. } in &files {
                        handles.not_given(handle, to);
                    }
                    return Err(e);
                }
            }
        }
        let (usage, children_usage) = process.usage();
        let session = process.session();
        let itimers = process.itimers.all(&usage);
        let session_home = self.kernel().cluster().session_home(session.id(), session.sid());
        // From here on nothing fails.
        let mut shared = process.shared.lock();
        let mut signals = task.signals.lock();
        // Another thread may take a signal until it is ended: then they follow after COMMIT.
        let take = |pending: &mut Pending| match alone {
            true => core::mem::take(pending).iter().copied().collect(),
            false => Vec::new(),
        };
        Ok(TaskImage {
            pid: process.pid(),
            id: process.id(),
            ppid: process.ppid(),
            pgid: process.pgid(),
            sid: session.sid(),
            session: session.id(),
            session_home,
            children: shared.children.iter().copied().collect(),
            subreaper: process.subreaper.load(Relaxed),
            exit_signal: Signal::CHLD.number(),
            parent_death_signal: process.parent_death_signal.load(Relaxed),
            creds: (*process.creds()).clone(),
            umask: fs.umask(),
            limits: process.limits(|l| l.clone()),
            scheduling: Scheduling {
                policy: task.sched.policy() as u8,
                priority: task.sched.priority(),
                nice: task.sched.nice(),
                reset_on_fork: task.sched.resets_on_fork(),
            },
            mask: signals.mask,
            ignored: shared.actions.explicitly_ignored(),
            pending: take(&mut shared.pending),
            pending_thread: take(&mut signals.pending),
            itimers,
            usage,
            children_usage,
            started: process.started,
            cwd,
            root,
            program,
            path: String::from_utf8_lossy(path).into_owned(),
            files,
            argv: list(argv),
            envp: list(envp),
            timer_slack: task.timer_slack.load(Relaxed),
            personality: process.personality.load(Relaxed),
        })
    }

    /// The move failed: what was taken for it is there again.
    fn take_back(&self, image: &TaskImage) {
        {
            let mut shared = self.process().shared.lock();
            let mut signals = self.task().signals.lock();
            for info in &image.pending {
                shared.pending.push(*info, true);
            }
            for info in &image.pending_thread {
                signals.pending.push(*info, true);
            }
        }
        self.task().recheck_signals();
    }

    /// It runs there now. What is left here goes without anybody being told of an exit.
    fn moved_away(&self, to: KernelId, image: &TaskImage) {
        let (kernel, process, task) = (self.kernel().clone(), self.process().clone(), self.task().clone());
        let pid = process.pid();
        self.finish_vfork();
        self.release_futexes();
        process.itimers.stop();
        process.posix_timers.clear();
        // Semaphores are of one kernel: it lets go of them as if it had ended here.
        kernel.undo_semaphores(pid);
        kernel.table.leave(&process, to);
        let end = Arc::new(Forwarder { kernel: Arc::downgrade(&kernel), pid });
        // Nobody waits for it: an idle kernel is not woken.
        kernel.timers.set_patient(hal::time::now() + FORWARDED, end);
        kernel.doors.told.wake(Ready::IN);
        let (late, children) = {
            let mut shared = process.shared.lock();
            let mut late: Vec<_> = shared.pending.iter().copied().collect();
            late.extend(task.signals.lock().pending.iter().copied());
            shared.threads.clear();
            // Who found the process before it left the table comes behind this, and sends it on itself.
            shared.away = true;
            (late, shared.children.take())
        };
        // What others told this process while it was on its way.
        if process.ppid() != image.ppid {
            kernel.cluster().tell(pid, ProcessRequest::Reparent(process.ppid()));
        }
        if process.pgid() != image.pgid {
            kernel.cluster().tell(pid, ProcessRequest::SetGroup(process.pgid()));
        }
        for info in late {
            let request = ProcessRequest::Signal { info: Some(info), from: Sender::KERNEL, thread: None };
            kernel.cluster().tell(pid, request);
        }
        // Another thread waited for them meanwhile.
        for gone in image.children.iter().filter(|c| children.iter().all(|now| now.pid != c.pid)) {
            kernel.cluster().child_event(pid, ChildEvent { pid: gone.pid, change: ChildChange::Gone });
        }
        for child in children {
            kernel.forward_child(pid, child, image.children.iter().find(|c| c.pid == child.pid));
        }
        kernel.cluster().runs_elsewhere(process.ppid(), pid, to);
        drop(task.set_files(kernel.no_files()));
        drop(task.set_fs(kernel.no_fs()));
        drop(process.set_space(None));
        process.end_waiters.wake(Ready::IN);
        kernel.cluster().process_changed(pid, false);
        self.ended.set(true);
    }
}

impl Kernel {
    /// Tells the new kernel of `parent` what happened to a child since the image was made.
    fn forward_child(&self, parent: Pid, now: ChildRecord, then: Option<&ChildRecord>) {
        let Some(then) = then else { return self.cluster().adopt(parent, alloc::vec![now]) };
        if now.pgid != then.pgid {
            self.cluster().child_event(parent, ChildEvent { pid: now.pid, change: ChildChange::Group(now.pgid) });
        }
        let status = match (now.zombie, then.zombie) {
            (Some((status, usage)), None) => Some((status, usage)),
            _ => now.job.filter(|_| now.job != then.job).map(|status| (status, Default::default())),
        };
        if let Some((status, usage)) = status {
            let change = ChildChange::Status { status, uid: now.uid, usage };
            self.cluster().child_event(parent, ChildEvent { pid: now.pid, change });
        }
    }

    /// A task arrives from kernel `from`: reserves everything and loads its program. The result runs when it is committed, and goes without a
    /// trace when it is dropped.
    ///
    /// # Errors
    /// As execve(2).
    pub fn prepare_move(self: &Arc<Self>, from: KernelId, image: Box<TaskImage>) -> TryResult<Arrival> {
        self.doors.let_in()?;
        let handles = self.cluster().handles().ok_or(NO_HANDLES)?;
        let process = self.make_process(&image);
        let gate = Arc::new(Gate {
            state: SpinLock::new(rank::WAITERS, State::Loading),
            waker: SpinLock::new(rank::WAITERS, None),
        });
        let (pid, scheduling) = (image.pid, image.scheduling);
        let sched = Params::new();
        sched.set_nice(scheduling.nice);
        if let Some(policy) = Policy::new(scheduling.policy.into()) {
            sched.set_policy(policy, scheduling.priority, scheduling.reset_on_fork);
        }
        let (mask, timer_slack) = (image.mask, image.timer_slack);
        let at_gate = gate.clone();
        let start = Start::Program(Box::new(move |cx: &Cx| cx.arrive(from, &image, &*handles, &at_gate)));
        let task = Task::new(TaskParts {
            tid: pid,
            process: process.clone(),
            isa: self.facts.isa,
            start,
            sched,
            mask,
            altstack: AltStack::NONE,
            name: [0; 16],
            files: self.no_files(),
            fs: self.no_fs(),
            clear_tid: 0,
            set_tid: 0,
            rseq: (0, 0, 0),
            vfork: None,
            timer_slack,
        });
        process.shared.lock().threads.push(task.clone());
        self.sched.start(&task)?;
        let arrival = Arrival { gate: gate.clone(), task, process, decided: false };
        Ok(Try::Started(Box::new(Loading { gate, arrival: Some(arrival) })))
    }

    fn make_process(self: &Arc<Self>, image: &TaskImage) -> Arc<Process> {
        let session = match self.table.session(image.sid) {
            Some(local) => local,
            None => self.cluster().session(image.session, image.sid, image.session_home),
        };
        let process = Process::new(ProcessParts {
            kernel: self.clone(),
            pid: image.pid,
            id: image.id,
            started: image.started,
            ppid: image.ppid,
            pgid: image.pgid,
            session,
            exit_signal: image.exit_signal,
            creds: Arc::new(image.creds.clone()),
            limits: image.limits.clone(),
            actions: Actions::with_ignored(image.ignored),
            space: mm::Space::new(&self.memory).ok(),
            has_subreaper: true,
            personality: image.personality,
            oom_score_adj: 0,
            placement: crate::cluster::Placement::Automatic,
        });
        process.subreaper.store(image.subreaper, Relaxed);
        process.parent_death_signal.store(image.parent_death_signal, Relaxed);
        {
            let mut shared = process.shared.lock();
            for child in &image.children {
                shared.children.insert(*child);
            }
            for info in image.pending.iter().chain(&image.pending_thread) {
                shared.pending.push(*info, true);
            }
            shared.ended = image.usage;
            process.cpu.ran(image.usage.user + image.usage.system);
            shared.children_usage = image.children_usage;
        }
        process
    }
}

enum State {
    Loading,
    Loaded,
    Failed(Error),
    Commit,
    Abort,
}

/// Where an arriving task waits for what becomes of it.
struct Gate {
    state: SpinLock<State>,
    waker: SpinLock<Option<Arc<dyn Wake>>>,
}

impl Gate {
    fn set(&self, state: State) {
        *self.state.lock() = state;
        let waker = self.waker.lock().clone();
        if let Some(waker) = waker {
            waker.wake(Ready::IN);
        }
    }
}

/// A task that has arrived and waits. Dropping it sends it into nothing.
pub struct Arrival {
    gate: Arc<Gate>,
    task: Arc<Task>,
    process: Arc<Process>,
    decided: bool,
}

impl Arrival {
    /// It is this kernel's. It may run when this has ended: what it does must not be heard of by kernels that would look for it elsewhere.
    pub fn enter(&self) -> TryResult<()> {
        let (process, kernel) = (&self.process, self.process.kernel());
        let pid = process.pid();
        kernel.table.insert(pid, Entry::Process(process.clone()));
        let entered = kernel.cluster().register_moved(Name::Process(pid), process.id());
        let member = Member { execed: true, ..process.as_member() };
        let session = process.session();
        session.notice(Notice::Moved { pid, member });
        process.note_exec();
        // Until the session has heard of it the kernel it comes from answers for it: else it would be a member for ever if this kernel died now. What
        // was told to it while it was on its way, its group, may have missed it.
        let heard = session.request(Request::GroupOf(pid));
        let process = process.clone();
        entered?.and_then(move |()| match heard {
            Ok(heard) => heard.and_then(move |reply| {
                if let Reply::Group(pgid) = reply {
                    process.set_pgid(pgid);
                }
                base::wait::done(())
            }),
            Err(e) => Err(e),
        })
    }

    /// It runs.
    pub fn run(mut self) {
        self.decided = true;
        self.task.recheck_signals();
        *self.gate.state.lock() = State::Commit;
        self.task.wake_up();
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if !self.decided {
            *self.gate.state.lock() = State::Abort;
            self.task.wake_up();
        }
    }
}

struct Loading {
    gate: Arc<Gate>,
    arrival: Option<Arrival>,
}

impl Op<Arrival> for Loading {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        *self.gate.waker.lock() = Some(waker.clone());
        if !matches!(*self.gate.state.lock(), State::Loading) {
            waker.wake(Ready::IN);
        }
    }

    fn take(&mut self) -> Option<TryResult<Arrival>> {
        match *self.gate.state.lock() {
            State::Loading => return None,
            State::Failed(e) => return Some(Err(e)),
            _ => {}
        }
        self.arrival.take().map(base::wait::done)
    }
}

impl Cx {
    /// The life of an arriving task up to its program.
    fn arrive(&self, from: KernelId, image: &TaskImage, handles: &dyn Handles, gate: &Arc<Gate>) -> Result<()> {
        let loaded = match self.receive(from, image, handles) {
            Ok(loaded) => loaded,
            Err(e) => {
                gate.set(State::Failed(e));
                self.vanish();
                return Ok(());
            }
        };
        gate.set(State::Loaded);
        let decision = self.wait_until(
            || match *gate.state.lock() {
                State::Commit => Some(true),
                State::Abort => Some(false),
                _ => None,
            },
            Timeout::Never,
            // Nothing but the source decides: a signal waits until the program runs.
            Interrupted::Nothing,
        )?;
        if !decision {
            self.vanish();
            return Ok(());
        }
        hal::trace::note(Kind::Arrive, self.process().pid().0, from.index.into(), 0);
        self.process().itimers.restore(&image.itimers, &image.usage);
        self.process().watch_cpu();
        let (loaded, creds, name) = loaded;
        self.exec(loaded, creds, &name)
    }

    fn receive(&self, from: KernelId, image: &TaskImage, handles: &dyn Handles) -> Result<crate::execve::Ready> {
        self.wait_for_doors()?;
        let place = |h: &HandleImage| handles.take_place(h, from, self);
        let (cwd, root, program) = (place(&image.cwd)?, place(&image.root)?, place(&image.program)?);
        let fs = Arc::new(FsState::new(Some(cwd), Some(root), image.umask));
        drop(self.task().set_fs(fs));
        let files = Arc::new(Descriptors::new());
        for fd in &image.files {
            let file = self.settle(handles.take_file(&fd.handle, from), Interrupted::Nothing)?;
            file.arrived(&self.caller(), self.kernel().id());
            files.replace(fd.fd, file, false, u64::MAX)?;
        }
        drop(self.task().set_files(files));
        self.load_place(program, image.path.as_bytes(), strings(&image.argv)?, strings(&image.envp)?)
    }

    /// Ends a task that never was: nobody is told.
    fn vanish(&self) {
        let kernel = self.kernel();
        self.process().shared.lock().threads.clear();
        drop(self.task().set_files(kernel.no_files()));
        drop(self.task().set_fs(kernel.no_fs()));
        drop(self.process().set_space(None));
        self.ended.set(true);
    }
}
