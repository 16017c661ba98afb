//! Tasks that nobody forked: the first process, and kernel threads.

use alloc::{boxed::Box, sync::Arc};

use base::Result;
use hal::{addr::UserAddr, usermode::UserContext};

use crate::{
    cluster::{Name, Placement},
    creds::Creds,
    exec::Loaded,
    fs::{Descriptors, FsState},
    ids::Pid,
    kernel::Kernel,
    limits::Limits,
    process::{Process, ProcessParts},
    sched::Params,
    session::{Life, LocalSession, Member},
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
            vfork: None,
            timer_slack: TIMER_SLACK,
        }
    }

    fn first_parts(self: &Arc<Self>, pid: Pid, leads: bool) -> ProcessParts {
        let creds = Creds::root();
        let leader =
            Member { pgid: pid, ppid: Pid(0), place: self.id(), life: Life::Alive, execed: true, users: creds.users() };
        let session: Arc<dyn crate::session::Session> =
            if leads { LocalSession::new(self, pid, leader) } else { self.cluster().session(self.new_id(), pid) };
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

    /// Starts a process that nobody forked: pid 1.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn start_first(
        self: &Arc<Self>,
        program: Loaded,
        name: &[u8],
        files: Arc<Descriptors>,
        fs: Arc<FsState>,
    ) -> Result<Arc<Process>> {
        let pid = Pid::INIT;
        let mut parts = self.first_parts(pid, true);
        parts.space = Some(program.space);
        let process = Process::new(parts);
        let regs = UserContext::new(UserAddr(program.entry), UserAddr(program.sp));
        let task = Task::new(self.parts(&process, pid, Start::User(Box::new(regs)), files, fs));
        task.set_name(name);
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
