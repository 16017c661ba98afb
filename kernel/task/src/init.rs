//! Tasks that nobody forked: the first process, and kernel threads.

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use base::{Errno, Result};
use hal::usermode::UserContext;
use mm::Space;
use vfs::{Follow, OpenFile};

use crate::{
    cluster::{Name, Placement, SessionHome},
    creds::Creds,
    cx::Cx,
    exec::Strings,
    fs::{Descriptors, FsState},
    ids::Pid,
    kernel::Kernel,
    limits::Limits,
    process::{Process, ProcessParts},
    sched::Params,
    session::{LocalSession, Member},
    signal::{Actions, SigSet},
    table::Entry,
    task::{AltStack, Start, Task, TaskParts},
};

/// How late the wake-ups of sleeping tasks may be, ns, unless they say otherwise.
const TIMER_SLACK: u64 = 50_000;

impl Kernel {
    fn parts(
        &self,
        process: &Arc<Process>,
        tid: Pid,
        start: Start,
        files: Arc<Descriptors>,
        fs: Arc<FsState>,
    ) -> TaskParts {
        TaskParts {
            tid,
            process: process.clone(),
            isa: self.facts.isa,
            start,
            sched: Params::new(),
            mask: SigSet::EMPTY,
            altstack: AltStack::NONE,
            name: [0; 16],
            files,
            fs,
            clear_tid: 0,
            set_tid: 0,
            rseq: (0, 0, 0),
            vfork: None,
            timer_slack: TIMER_SLACK,
        }
    }

    /// The session of kernel threads: none that anybody could ask.
    fn no_session(self: &Arc<Self>, sid: Pid) -> Arc<dyn crate::session::Session> {
        self.cluster().session(self.new_id(), sid, SessionHome { kernel: self.id(), moves: 0 })
    }

    fn first_parts(self: &Arc<Self>, pid: Pid, leads: bool) -> ProcessParts {
        let creds = Creds::root();
        let leader = Member { execed: true, ..Member::new(pid, Pid(0), self.id(), creds.users()) };
        let session: Arc<dyn crate::session::Session> =
            if leads { LocalSession::new(self, pid, leader) } else { self.no_session(pid) };
        ProcessParts {
            kernel: self.clone(),
            pid,
            id: self.new_id(),
            started: hal::time::now(),
            ppid: Pid(0),
            pgid: pid,
            session,
            exit_signal: 0,
            creds: Arc::new(creds),
            limits: Limits::initial(self.memory.info().total as u64 * hal::addr::PAGE_SIZE as u64),
            actions: Actions::new(),
            space: None,
            has_subreaper: false,
            personality: 0,
            oom_score_adj: 0,
            placement: Placement::Automatic,
        }
    }

    /// Starts the process that nobody forks, pid 1, in the root of the file tree: it executes `path`. `stdio` becomes descriptors 0 to 2.
    ///
    /// # Errors
    /// `ENOMEM`, `ENOENT` without a tree. That the program cannot be executed shows up as the end of pid 1.
    pub fn start_init(
        self: &Arc<Self>,
        path: &[u8],
        argv: Strings,
        envp: Strings,
        stdio: Option<Arc<dyn OpenFile>>,
    ) -> Result<Arc<Process>> {
        let path: Vec<u8> = path.into();
        let root = self.vfs().root()?;
        let fs = Arc::new(FsState::new(Some(root.clone()), Some(root), 0o022));
        let files = Arc::new(Descriptors::new());
        if let Some(file) = stdio {
            for _ in 0..3 {
                files.open(file.clone(), false, 0, u64::MAX)?;
            }
        }
        let start = Start::Program(Box::new(move |cx: &Cx| {
            let start = cx.task().fs().root()?;
            cx.execve(start, &path, Follow::Yes, argv, envp)
        }));
        self.start_process(Pid::INIT, start, files, fs)
    }

    /// Starts a program whose registers are known; for tests on the host, where a program is a script.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn start_scripted(self: &Arc<Self>, pid: Pid, regs: UserContext) -> Result<Arc<Process>> {
        let root = self.vfs().root().ok();
        let fs = Arc::new(FsState::new(root.clone(), root, 0o022));
        self.start_process(pid, Start::User(Box::new(regs)), Arc::new(Descriptors::new()), fs)
    }

    fn start_process(
        self: &Arc<Self>,
        pid: Pid,
        start: Start,
        files: Arc<Descriptors>,
        fs: Arc<FsState>,
    ) -> Result<Arc<Process>> {
        let mut parts = self.first_parts(pid, true);
        parts.space = Some(Space::new(&self.memory)?);
        let process = Process::new(parts);
        let task = Task::new(self.parts(&process, pid, start, files, fs));
        task.set_name(b"init");
        process.shared.lock().threads.push(task.clone());
        self.table.insert(pid, Entry::Process(process.clone()));
        self.cluster().register(Name::Process(pid), process.id());
        self.sched.start(&task)?;
        Ok(process)
    }

    /// Starts a kernel thread. It is no process and programs do not see it; `run` may sleep with [`Task`]'s own means and ends by returning.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn start_thread(
        self: &Arc<Self>,
        name: &str,
        run: impl FnOnce(&Arc<Task>) + Send + 'static,
    ) -> Result<Arc<Task>> {
        let process = self.kernel_process();
        let start = Start::Kernel(Box::new(run));
        let task = Task::new(self.parts(&process, Pid(0), start, self.no_files(), self.no_fs()));
        task.set_name(name.as_bytes());
        self.sched.start(&task)?;
        Ok(task)
    }

    /// Notes from now on what happens on the CPUs of this kernel ([`hal::trace`]), and first the names of all tasks.
    ///
    /// # Errors
    /// `ENOMEM` if there is no room for so many records per CPU.
    pub fn start_trace(&self, records: usize) -> Result<()> {
        hal::trace::start(records).map_err(|_| Errno::ENOMEM)?;
        self.set_traced(true);
        for process in self.table.processes() {
            let threads = process.shared.lock().threads.clone();
            threads.iter().for_each(|task| task.note_name());
        }
        Ok(())
    }

    /// Nothing is noted any more; what was noted stays.
    pub fn stop_trace(&self) {
        self.set_traced(false);
        hal::trace::stop();
    }

    /// The process that kernel threads belong to; it has no number.
    fn kernel_process(self: &Arc<Self>) -> Arc<Process> {
        self.kernel_process.get_or_init(|| Process::new(self.first_parts(Pid(0), false))).clone()
    }
}

impl Task {
    /// For kernel threads: sleeps until woken; for nothing if it was woken since `begin_wait`.
    pub fn park(self: &Arc<Self>) {
        self.kernel().sched.park(self);
    }

    /// For kernel threads: sleeps until `deadline` (ns of `hal::time::now`) or until woken.
    pub fn park_until(self: &Arc<Self>, deadline: u64) {
        let timer = self.kernel().timers.set(deadline, self.clone());
        self.kernel().sched.park(self);
        self.kernel().timers.cancel(timer);
    }
}
