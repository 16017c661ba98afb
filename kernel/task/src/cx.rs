//! The running task as the code that serves it sees it: what system-call handlers are given.

use alloc::{boxed::Box, sync::Arc};
use core::{
    cell::{Cell, RefCell, RefMut},
    sync::atomic::Ordering,
};

use base::{Errno, Error, Result, Wake, wait::Op};
use hal::usermode::UserContext;
use mm::{MappedPage, PageWait, Space, User};

use crate::{kernel::Kernel, limits::Resource, process::Process, signal::Signal, task::Task, wait::Interrupted};

/// How a call that returns `EINTR` starts again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restart {
    /// It does not.
    No,
    /// If no handler runs, or one with SA_RESTART.
    IfAllowed,
    /// If no handler runs.
    NoHandler,
    /// Always.
    Always,
    /// If no handler runs, as restart_syscall(2), with the deadline of the first time.
    Block,
}

/// What restart_syscall(2) does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RestartBlock {
    /// The number of the call.
    pub nr: u64,
    /// Its arguments.
    pub args: [u64; 6],
    /// When it ends, in ns of `hal::time::now`.
    pub deadline: u64,
}

/// The running task. Not shared, not kept: it lives on the task's own stack.
pub struct Cx {
    task: Arc<Task>,
    regs: RefCell<Box<UserContext>>,
    space: RefCell<Arc<Space>>,
    restart: Cell<Restart>,
    block: Cell<Option<RestartBlock>>,
    caller: RefCell<Option<(u64, Arc<vfs::Caller>)>>,
    /// Set while restart_syscall runs a call again.
    resumed: Cell<Option<u64>>,
    /// It was away from its CPU since it last went to user mode.
    pub(crate) switched: Cell<bool>,
    /// Another thread may have used this CPU's FPU since this one did.
    pub(crate) fpu_away: Cell<bool>,
    pub(crate) ended: Cell<bool>,
    /// Since when its time counts as the kernel's, ns; 0: it is the program's. Short calls are not measured.
    pub(crate) kernel_since: Cell<u64>,
}

impl Cx {
    pub(crate) fn new(task: Arc<Task>, regs: Box<UserContext>, space: Arc<Space>) -> Self {
        Self {
            task,
            regs: RefCell::new(regs),
            space: RefCell::new(space),
            restart: Cell::new(Restart::No),
            block: Cell::new(None),
            caller: RefCell::new(None),
            resumed: Cell::new(None),
            switched: Cell::new(true),
            fpu_away: Cell::new(true),
            ended: Cell::new(false),
            kernel_since: Cell::new(0),
        }
    }

    /// The task.
    #[inline]
    pub const fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// Its process.
    #[inline]
    pub fn process(&self) -> &Arc<Process> {
        self.task.process()
    }

    /// Its kernel.
    #[inline]
    pub fn kernel(&self) -> &Arc<Kernel> {
        self.task.kernel()
    }

    /// Its address space.
    pub fn space(&self) -> Arc<Space> {
        self.space.borrow().clone()
    }

    /// Gives it another one, active from now on: execve(2).
    pub(crate) fn set_space(&self, space: Arc<Space>) {
        space.activate();
        let old = self.space.replace(space);
        drop(old);
    }

    /// Does something with the memory of the program.
    #[inline]
    pub fn user<R>(&self, f: impl FnOnce(&User<'_>) -> Result<R>) -> Result<R> {
        let space = self.space.borrow();
        f(&User::new(&space, self))
    }

    /// Its registers. Nothing that waits may be called while they are borrowed.
    pub fn regs(&self) -> RefMut<'_, Box<UserContext>> {
        self.regs.borrow_mut()
    }

    pub(crate) fn regs_mut(&mut self) -> &mut UserContext {
        self.regs.get_mut()
    }

    /// On whose behalf files are used. Kept until something that it says changes.
    pub fn caller(&self) -> Arc<vfs::Caller> {
        let changes = self.process().changes.load(Ordering::Acquire);
        let umask = self.task.umask();
        {
            let kept = self.caller.borrow();
            if let Some((at, caller)) = &*kept
                && *at == changes
                && caller.umask == umask
            {
                return caller.clone();
            }
        }
        let caller = Arc::new(self.new_caller(umask));
        let old = self.caller.replace(Some((changes, caller.clone())));
        drop(old);
        caller
    }

    #[cold]
    fn new_caller(&self, umask: u32) -> vfs::Caller {
        let process = self.process();
        let creds = process.creds();
        let (ignored, mask) = (process.actions(|a| a.ignored()), self.task.mask());
        let immune = |signal| ignored.has(signal) || mask.has(signal);
        vfs::Caller {
            uid: creds.fsuid,
            gid: creds.fsgid,
            groups: creds.groups.iter().copied().collect(),
            capabilities: creds.effective,
            umask,
            pid: process.pid().0,
            pgid: process.pgid().0,
            sid: process.session().sid().0,
            immune_ttin: immune(Signal::TTIN),
            immune_ttou: immune(Signal::TTOU),
            file_size_limit: process.limits(|l| l.soft(Resource::FileSize)),
        }
    }

    /// Whom to wake when what this task waits for happens.
    pub fn waker(&self) -> Arc<dyn Wake> {
        self.task.clone()
    }

    /// Sleeps until woken; for nothing if it was woken since `begin_wait`.
    pub(crate) fn park(&self) {
        self.leave_cpu();
        self.kernel().sched.park(&self.task);
        self.enter_cpu();
    }

    /// Lets others run: sched_yield(2).
    pub fn yield_now(&self) {
        self.leave_cpu();
        self.kernel().sched.yield_now(&self.task);
        self.enter_cpu();
    }

    /// In long work of the kernel, where no lock is held: lets interrupts in and better tasks run.
    pub fn relax(&self) {
        hal::cpu::breathe();
        if self.kernel().sched.wants_cpu() {
            self.preempt();
        }
    }

    pub(crate) fn preempt(&self) {
        self.leave_cpu();
        self.kernel().sched.preempt(&self.task);
        self.enter_cpu();
    }

    fn leave_cpu(&self) {
        self.count_kernel_time();
        if !self.fpu_away.replace(true) {
            self.regs.borrow_mut().fpu_save();
        }
    }

    fn enter_cpu(&self) {
        self.space.borrow().activate();
        self.switched.set(true);
        self.kernel_since.set(hal::time::now());
    }

    /// What was spent since `kernel_since` was the kernel's.
    pub(crate) fn count_kernel_time(&self) {
        let since = self.kernel_since.replace(0);
        if since != 0 {
            let ns = hal::time::now().saturating_sub(since);
            self.task.times.in_kernel(ns);
            self.kernel().sched.in_kernel(ns);
        }
    }

    /// How the call starts again if it returns `EINTR`. Waits set this; a handler may set it afterwards.
    pub fn set_restart(&self, restart: Restart) {
        self.restart.set(restart);
    }

    pub(crate) fn restart_is_set(&self) -> bool {
        self.restart.get() != Restart::No
    }

    pub(crate) fn take_restart(&self) -> Restart {
        self.restart.replace(Restart::No)
    }

    pub(crate) fn note_interrupted(&self, how: Interrupted) {
        self.restart.set(match how {
            Interrupted::Restart => Restart::IfAllowed,
            Interrupted::NoHandler => Restart::NoHandler,
            Interrupted::Never | Interrupted::Killed | Interrupted::Nothing => Restart::No,
        });
    }

    /// The call ends at `deadline` even if it is interrupted and goes on by restart_syscall(2). Call this before returning `EINTR`.
    pub fn restart_until(&self, deadline: u64) {
        let regs = self.regs.borrow();
        let (nr, args) = match self.block.get() {
            // Already in restart_syscall: the call is the one it stands for.
            Some(block) if self.resumed.get().is_some() => (block.nr, block.args),
            _ => (regs.syscall_nr(), regs.syscall_args()),
        };
        self.block.set(Some(RestartBlock { nr, args, deadline }));
        self.restart.set(Restart::Block);
    }

    /// For restart_syscall(2): what to do again, if anything.
    pub fn resume(&self) -> Option<RestartBlock> {
        let block = self.block.get()?;
        self.resumed.set(Some(block.deadline));
        Some(block)
    }

    /// The deadline of a call with this relative time-out: that of the first time if the call goes on by restart_syscall(2).
    pub fn deadline(&self, ns: u64) -> u64 {
        self.resumed.get().unwrap_or_else(|| hal::time::now().saturating_add(ns))
    }

    /// What [`Cx::resume`] began is over.
    pub fn resumed(&self) {
        self.resumed.set(None);
    }
}

impl vfs::WaitOps for Cx {
    fn wait(&self, op: &mut dyn vfs::caller::Waitable) -> Result<()> {
        op.notify(self.waker());
        let interrupted = if op.soon() { Interrupted::Killed } else { Interrupted::Restart };
        self.wait_until(|| op.ready().then_some(()), crate::wait::Timeout::Never, interrupted)
    }
}

impl PageWait for Cx {
    fn wait(&self, op: Box<dyn Op<MappedPage>>) -> Result<()> {
        self.task.times.faulted(true);
        match self.wait_op(op, Interrupted::Killed) {
            // It came, or asks to be tried again.
            Ok(_) => Ok(()),
            Err(error) if error == Errno::EAGAIN => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn no_memory(&self) -> Result<()> {
        if self.task.is_dying() {
            return Err(crate::wait::INTERRUPTED);
        }
        if self.kernel().memory.make_room() {
            // Whoever was chosen to end needs the CPU for it. This may go round for long.
            hal::cpu::breathe();
            self.yield_now();
            return Ok(());
        }
        if self.task.is_dying() {
            return Err(crate::wait::INTERRUPTED);
        }
        Err(Error::new(Errno::ENOMEM, "no memory"))
    }
}
