//! What others ask of a process that is here.

use core::sync::atomic::Ordering;

use base::{Errno, Error, Result, TryResult, wait::done};

use crate::{
    cluster::{ProcessRef, ProcessReply, ProcessRequest},
    ids::Pid,
    process::Process,
    session::{Reply, Request, Sender},
};

impl Process {
    /// Whether `from` may look at or change this process as prlimit(2) and setpriority(2) have it.
    fn check_owner(&self, from: &Sender, effective_too: bool) -> Result<()> {
        let creds = self.creds();
        let same = from.euid == creds.uid || (effective_too && from.euid == creds.euid);
        if from.privileged || same { Ok(()) } else { Err(Error::new(Errno::EPERM, "not the owner of that process")) }
    }
}

impl Process {
    /// Its group has changed. Two such messages may overtake each other, and it may have left the session that sent one: what holds is what its
    /// session says when it is asked, for it answers in order.
    fn ask_for_group(&self) -> TryResult<ProcessReply> {
        let (session, me) = (self.session(), self.me.clone());
        let id = session.id();
        session.request(Request::GroupOf(self.pid()))?.and_then(move |reply| {
            if let Reply::Group(pgid) = reply
                && let Some(process) = me.upgrade().filter(|process| process.session().id() == id)
            {
                process.set_pgid(pgid);
            }
            done(ProcessReply::Done)
        })
    }

    /// It may have moved away in the meantime and have gone without this.
    fn pass_on(&self, request: ProcessRequest) {
        if self.is_away() {
            self.kernel().cluster().tell(self.pid(), request);
        }
    }
}

impl ProcessRef for Process {
    fn pid(&self) -> Pid {
        Self::pid(self)
    }

    fn request(&self, request: ProcessRequest) -> TryResult<ProcessReply> {
        match request {
            ProcessRequest::Signal { info, from, thread } => {
                let signal = info.map_or(crate::signal::Signal::HUP, |i| i.signal);
                self.check_signal(&from, signal)?;
                let thread = match thread {
                    Some(tid) => Some(self.thread(tid).ok_or(Error::new(Errno::ESRCH, "no such thread"))?),
                    None => None,
                };
                match (info, thread) {
                    (None, _) => {}
                    (Some(info), Some(task)) => self.signal_thread(&task, info)?,
                    (Some(info), None) => self.signal(info)?,
                }
                done(ProcessReply::Done)
            }
            ProcessRequest::Ids => done(ProcessReply::Ids(self.ids())),
            ProcessRequest::Nice => {
                let nice = self.leader().map_or(0, |t| t.sched.nice());
                done(ProcessReply::Nice((20 - nice) as u8))
            }
            ProcessRequest::SetNice { nice, from } => {
                self.check_owner(&from, true)?;
                for task in self.threads() {
                    // Only those who may can raise it; RLIMIT_NICE lets a process go down to 20 - limit.
                    let floor = 20 - self.limits(|l| l.soft(crate::limits::Resource::Nice)).min(40) as i8;
                    if nice < task.sched.nice() && nice < floor && !from.privileged {
                        return Err(Error::new(Errno::EACCES, "may not raise the priority"));
                    }
                    task.sched.set_nice(nice);
                    self.kernel().sched.changed(&task);
                }
                done(ProcessReply::Done)
            }
            ProcessRequest::Limit { resource, new, from } => {
                if from.pid != self.pid() {
                    self.check_owner(&from, false)?;
                }
                let old = self.limits(|l| match new {
                    Some(new) => l.set(resource, new, from.privileged),
                    None => Ok(l.get(resource)),
                })?;
                if new.is_some() {
                    self.changed();
                    self.apply_memory_limits();
                    if resource == crate::limits::Resource::Cpu {
                        self.watch_cpu();
                    }
                }
                done(ProcessReply::Limit(old))
            }
            ProcessRequest::Reparent(to) => {
                self.adopted(to);
                self.pass_on(ProcessRequest::Reparent(to));
                done(ProcessReply::Done)
            }
            ProcessRequest::SetGroup(pgid) => {
                self.pass_on(ProcessRequest::SetGroup(pgid));
                self.ask_for_group()
            }
            ProcessRequest::Reap => {
                self.kernel().reap(self.pid());
                done(ProcessReply::Done)
            }
            ProcessRequest::IsOver => done(ProcessReply::Over(self.zombie().is_some())),
        }
    }
}

impl Process {
    /// Tells the address space what it may grow to.
    pub fn apply_memory_limits(&self) {
        if let Some(space) = self.space() {
            space.set_limits(self.memory_limits());
        }
    }

    /// What its address space may grow to.
    pub fn memory_limits(&self) -> mm::Limits {
        use crate::limits::Resource;
        let locked_free = self.creds().can(crate::creds::cap::IPC_LOCK);
        self.limits(|l| mm::Limits {
            address_space: l.soft(Resource::AddressSpace),
            data: l.soft(Resource::Data),
            stack: l.soft(Resource::Stack),
            locked: if locked_free { u64::MAX } else { l.soft(Resource::Memlock) },
        })
    }

    /// Marks the process as one that has called execve: its parent may not move it to another group any more.
    pub(crate) fn note_exec(&self) {
        if !self.execed.swap(true, Ordering::Relaxed) {
            self.session().notice(crate::session::Notice::Exec(self.pid()));
        }
    }
}
