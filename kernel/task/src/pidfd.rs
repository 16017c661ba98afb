//! Descriptors of processes; pidfd_open(2). The process may be of any kernel, and may move: what is known of it is asked anew each time.

use alloc::{boxed::Box, string::String, sync::Arc};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use base::{
    Errno, Error, ObjectId, Ready, Result, Subscription, Wake,
    io::{Sink, Source},
    wait::{Op, Try, TryResult, done},
};
use vfs::{
    Caller, FileKind, Inode, Ioctl, IoctlReply, OpenFile, OpenFlags, Place, ReadOut, Stat, Status, anon::AnonInode,
};

use crate::{
    cluster::{ProcessReply, ProcessRequest},
    ids::Pid,
    kernel::Kernel,
    process::Process,
};

/// See the module.
pub struct PidFd {
    kernel: Arc<Kernel>,
    id: ObjectId,
    pid: Pid,
    /// The process object, if the process was here when this was opened: a number may be used again.
    process: Option<Arc<Process>>,
    place: Place,
    status: AtomicU32,
    over: Arc<AtomicBool>,
}

impl PidFd {
    /// Opens a process that is here.
    pub fn of(kernel: &Arc<Kernel>, caller: &Caller, process: &Arc<Process>, status: Status) -> Arc<Self> {
        Self::make(kernel, caller, process.pid(), Some(process.clone()), status)
    }

    /// Opens a process of another kernel.
    pub fn elsewhere(kernel: &Arc<Kernel>, caller: &Caller, pid: Pid, status: Status) -> Arc<Self> {
        Self::make(kernel, caller, pid, None, status)
    }

    fn make(
        kernel: &Arc<Kernel>,
        caller: &Caller,
        pid: Pid,
        process: Option<Arc<Process>>,
        status: Status,
    ) -> Arc<Self> {
        let vfs = kernel.vfs();
        let inode = AnonInode::of(&**vfs.env(), 1, caller, FileKind::Regular, 0o600, None);
        Arc::new(Self {
            kernel: kernel.clone(),
            id: kernel.new_id(),
            pid,
            process,
            place: vfs.anonymous(inode, b"anon_inode:[pidfd]"),
            status: AtomicU32::new(status.bits()),
            over: Arc::new(AtomicBool::new(false)),
        })
    }

    /// The process, if it is here now.
    fn here(&self) -> Option<Arc<Process>> {
        // One that ended stays what it was; one that moved is an entry of the table, not a process.
        match &self.process {
            Some(p) if p.zombie().is_some() => Some(p.clone()),
            _ => self
                .kernel
                .table
                .process(self.pid)
                .filter(|p| self.process.as_ref().is_none_or(|was| was.id() == p.id())),
        }
    }

    /// Whether it has ended; it may have to be asked.
    fn is_over(&self) -> TryResult<bool> {
        if self.over.load(Relaxed) {
            return done(true);
        }
        if let Some(process) = self.here() {
            let over = process.zombie().is_some();
            self.over.store(over, Relaxed);
            return done(over);
        }
        let asked = self.kernel.cluster().find_process(self.pid).and_then(|found| {
            found
                .and_then(|process| Ok(process.request(ProcessRequest::IsOver)?.map(|r| r == ProcessReply::Over(true))))
        });
        let over = self.over.clone();
        match asked {
            Ok(Try::Started(op)) => Ok(Try::Started(Box::new(Asked { op, over }))),
            other => settled(other, &over),
        }
    }

    /// The number of the process, unless somebody waited for its end.
    fn number(&self) -> Result<Pid> {
        match &self.process {
            // What was here is in the table until it is reaped, or says where it went.
            Some(was) => match self.kernel.table.get(self.pid) {
                Some(crate::table::Entry::Process(p)) if p.id() == was.id() => Ok(self.pid),
                Some(crate::table::Entry::Moved(_)) => Ok(self.pid),
                _ => Err(Error::new(Errno::ESRCH, "the process is gone")),
            },
            None => Ok(self.pid),
        }
    }
}

/// Nobody knows it any more, or its kernel died: it is over.
fn settled(answer: TryResult<bool>, over: &AtomicBool) -> TryResult<bool> {
    match answer {
        Ok(Try::Done(is)) => {
            over.store(is, Relaxed);
            done(is)
        }
        Err(e) if e == Errno::ESRCH || e == Errno::EHOSTDOWN => {
            over.store(true, Relaxed);
            done(true)
        }
        other => other,
    }
}

/// The question whether a process of another kernel has ended.
struct Asked {
    op: Box<dyn Op<bool>>,
    over: Arc<AtomicBool>,
}

impl Op<bool> for Asked {
    fn notify(&mut self, waker: Arc<dyn Wake>) {
        self.op.notify(waker);
    }

    fn soon(&self) -> bool {
        true
    }

    fn take(&mut self) -> Option<TryResult<bool>> {
        match self.op.take()? {
            Ok(Try::Started(op)) => Some(Ok(Try::Started(Box::new(Self { op, over: self.over.clone() })))),
            other => Some(settled(other, &self.over)),
        }
    }
}

impl OpenFile for PidFd {
    fn id(&self) -> ObjectId {
        self.id
    }

    fn flags(&self) -> OpenFlags {
        OpenFlags::READ | OpenFlags::WRITE
    }

    fn status(&self) -> Status {
        Status::from_bits_truncate(self.status.load(Relaxed))
    }

    fn set_status(&self, status: Status) -> TryResult<()> {
        self.status.store(status.bits(), Relaxed);
        done(())
    }

    fn read(&self, _: &Caller, _: &mut dyn Sink) -> TryResult<ReadOut> {
        Err(Error::new(Errno::EINVAL, "a process cannot be read"))
    }

    fn write(&self, _: &Caller, _: &mut dyn Source) -> TryResult<usize> {
        Err(Error::new(Errno::EINVAL, "a process cannot be written"))
    }

    fn poll(&self, _: &Caller) -> TryResult<Ready> {
        Ok(self.is_over()?.map(|over| if over { Ready::IN } else { Ready::empty() }))
    }

    fn subscribe(&self, mask: Ready, waker: Arc<dyn Wake>) -> Subscription {
        if let Some(process) = self.here() {
            return process.end_waiters.subscribe(mask | Ready::IN, waker);
        }
        self.kernel.cluster().watch_process(self.pid, waker)
    }

    fn ioctl(&self, _: &Caller, request: Ioctl) -> TryResult<IoctlReply> {
        match request {
            Ioctl::ProcessNumber => done(IoctlReply::Number(self.number()?.raw())),
            _ => Err(Errno::ENOTTY.into()),
        }
    }

    fn stat(&self) -> TryResult<Stat> {
        self.place.inode().stat()
    }

    fn inode(&self) -> Option<Arc<dyn Inode>> {
        Some(self.place.inode().clone())
    }

    fn describe(&self) -> String {
        String::from("anon_inode:[pidfd]")
    }

    fn as_any(&self) -> &dyn core::any::Any {
        self
    }
}
