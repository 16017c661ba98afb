//! Every process of the system for `/proc`: this kernel's at once, those of others by asking.

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use base::{
    Errno, Error, KernelId, ObjectId, Result,
    wait::{Try, TryResult, done},
};
use link::{Incoming, Links, lock::Lock};
use objects::{Completer, call, object_to_wire, to_wire, when_done};
use proc::process::{ProcessFile, ProcessLink};
use procfs::{LocalView, Owner, ProcessView};
use task::{Kernel, cluster::Name, ids::Pid};
use vfs::{Caller, Place};
use wire::tasks::{LookAtProcess, ProcessLook};

use crate::{
    codec::encode,
    question::{Question, What, numbers},
    service::{LIST_MAX, TaskService, name_of},
};

/// The longest answer that is taken from a peer, in bytes.
const ANSWER_MAX: usize = 1 << 20;

/// See the module.
pub struct ClusterView {
    here: LocalView,
    service: Arc<TaskService>,
}

impl ClusterView {
    /// The processes of `kernel`, and of those that `service` knows.
    pub const fn new(kernel: Arc<Kernel>, service: Arc<TaskService>) -> Self {
        Self { here: LocalView::new(kernel), service }
    }

    fn is_here(&self, pid: u32) -> bool {
        self.here.owner(pid).is_ok()
    }

    /// Asks the kernel where the process is. `absent` is the errno if it is nowhere, or if that kernel does not answer.
    fn look(&self, pid: u32, question: &Question, absent: Errno) -> TryResult<Vec<u8>> {
        let (call, completer) = call();
        let service = self.service.clone();
        let question = encode(question);
        when_done(self.service.names.lookup(name_of(Name::Process(Pid(pid)))), move |found| match found {
            Ok(entry) if service.others().contains(&entry.home) => {
                let (home, object) = (entry.home, entry.object);
                Look { service, pid, home, object, question, absent, text: Vec::new(), completer }.next();
            }
            // It is gone, or came here just now, or its kernel died.
            _ => drop(completer.complete(Err(Error::new(absent, "no such process")))),
        });
        call.into_try()
    }
}

/// An answer that comes piece by piece. The text may change between two pieces, as it may on any system between two reads.
struct Look {
    service: Arc<TaskService>,
    pid: u32,
    home: KernelId,
    object: ObjectId,
    question: Vec<u8>,
    absent: Errno,
    text: Vec<u8>,
    completer: Completer<Vec<u8>>,
}

impl Look {
    /// Asks for the next piece.
    fn next(self) {
        let service = self.service.clone();
        let (to, object, question) = (to_wire(self.home), object_to_wire(self.object), self.question.clone());
        let message = LookAtProcess { pid: self.pid, offset: self.text.len() as u32 };
        let then = Box::new(move |_: &Links, result: link::Result<Incoming<'_>>| {
            let piece = result.and_then(|answer| {
                let (look, piece) = answer.read::<ProcessLook>()?;
                Ok((look.total as usize, piece.to_vec()))
            });
            self.heard(piece.map_err(objects::error));
        });
        service.links.request(to, object, &message, &question, service.at_once(), then);
    }

    fn heard(mut self, piece: Result<(usize, Vec<u8>)>) {
        let result = match piece {
            Ok((total, piece)) => {
                self.text.extend_from_slice(&piece);
                if !piece.is_empty() && self.text.len() < total.min(ANSWER_MAX) {
                    return self.next();
                }
                done(self.text)
            }
            Err(error) => Err(match error.errno() {
                Errno::EACCES | Errno::EPERM | Errno::EINVAL | Errno::ENXIO | Errno::ENOENT => error,
                _ => Error::new(self.absent, "no such process, or its kernel does not answer"),
            }),
        };
        // An answer for nobody: only knowledge, nothing to undo.
        drop(self.completer.complete(result));
    }
}

/// Lists of pids that come from several kernels.
struct Gather(Lock<Gathered>);

struct Gathered {
    pids: Vec<u32>,
    /// Kernels that did not say all yet.
    open: usize,
    completer: Option<Completer<Vec<u32>>>,
}

impl Gather {
    /// Asks `of` for its pids above `after`.
    fn ask(self: Arc<Self>, service: Arc<TaskService>, of: KernelId, after: Pid) {
        when_done(service.clone().list(of, after), move |list| {
            // Who died, or does not answer, has none.
            let list = list.unwrap_or_default();
            let last = list.last().copied().filter(|last| *last > after && list.len() >= LIST_MAX);
            self.0.lock().pids.extend(list.iter().map(|pid| pid.0));
            match last {
                Some(last) => self.ask(service, of, last),
                None => self.end(),
            }
        });
    }

    /// A kernel said all.
    fn end(&self) {
        let mut gathered = self.0.lock();
        gathered.open -= 1;
        if gathered.open > 0 {
            return;
        }
        let mut pids = core::mem::take(&mut gathered.pids);
        let completer = gathered.completer.take();
        drop(gathered);
        // One that moved meanwhile may have been counted at both ends.
        pids.sort_unstable();
        pids.dedup();
        if let Some(completer) = completer {
            drop(completer.complete(done(pids)));
        }
    }
}

impl ProcessView for ClusterView {
    fn pids(&self) -> TryResult<Vec<u32>> {
        let Try::Done(pids) = self.here.pids()? else { return Ok(Try::WouldBlock) };
        let others = self.service.others();
        if others.is_empty() {
            return done(pids);
        }
        let (call, completer) = call();
        let gathered = Gathered { pids, open: others.len(), completer: Some(completer) };
        let gather = Arc::new(Gather(Lock::new(gathered)));
        for of in others {
            gather.clone().ask(self.service.clone(), of, Pid(0));
        }
        call.into_try()
    }

    fn owner(&self, pid: u32) -> TryResult<Owner> {
        match self.here.owner(pid) {
            Err(_) => {}
            here => return here,
        }
        let question = Question::new(&Caller::kernel(), pid, What::Owner);
        self.look(pid, &question, Errno::ENOENT)?.and_then(|answer| match numbers(&answer)[..] {
            [uid, gid] => done(Owner { uid, gid }),
            _ => Err(Errno::ENOENT.into()),
        })
    }

    fn threads(&self, pid: u32) -> TryResult<Vec<u32>> {
        if self.is_here(pid) {
            return self.here.threads(pid);
        }
        let question = Question::new(&Caller::kernel(), pid, What::Threads);
        Ok(self.look(pid, &question, Errno::ENOENT)?.map(|answer| numbers(&answer)))
    }

    fn descriptors(&self, caller: &Caller, pid: u32) -> TryResult<Vec<u32>> {
        if self.is_here(pid) {
            return self.here.descriptors(caller, pid);
        }
        let question = Question::new(caller, pid, What::Descriptors);
        Ok(self.look(pid, &question, Errno::ENOENT)?.map(|answer| numbers(&answer)))
    }

    fn text(&self, caller: &Caller, pid: u32, tid: u32, what: ProcessFile) -> TryResult<Vec<u8>> {
        if self.is_here(pid) {
            return self.here.text(caller, pid, tid, what);
        }
        self.look(pid, &Question::new(caller, tid, What::Text(what)), Errno::ESRCH)
    }

    fn descriptor_info(&self, caller: &Caller, pid: u32, fd: u32) -> TryResult<Vec<u8>> {
        if self.is_here(pid) {
            return self.here.descriptor_info(caller, pid, fd);
        }
        self.look(pid, &Question::new(caller, pid, What::DescriptorInfo(fd)), Errno::ENOENT)
    }

    fn link(&self, caller: &Caller, pid: u32, which: ProcessLink) -> TryResult<Vec<u8>> {
        if self.is_here(pid) {
            return self.here.link(caller, pid, which);
        }
        self.look(pid, &Question::new(caller, pid, What::Link(which)), Errno::ENOENT)
    }

    fn place(&self, caller: &Caller, pid: u32, which: ProcessLink) -> TryResult<Option<Place>> {
        // The place of a process of another kernel is found by the text of the link.
        self.here.place(caller, pid, which)
    }

    fn set(&self, caller: &Caller, pid: u32, what: ProcessFile, text: &str) -> TryResult<()> {
        if self.is_here(pid) {
            return self.here.set(caller, pid, what, text);
        }
        Ok(self.look(pid, &Question::set(caller, pid, what, text)?, Errno::ESRCH)?.map(|_| ()))
    }
}
