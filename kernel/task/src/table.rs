//! The processes and threads of a kernel, by number.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

use base::{KernelId, Result, TryResult, wait::done};
use hal::sync::{SpinLock, rank};

use crate::{
    cluster::ProcessRef, ids::Pid, kernel::Kernel, process::Process, session::local::LocalSession, task::Task,
};

/// What a number stands for on this kernel.
#[derive(Clone)]
pub enum Entry {
    /// A process; the number is also that of its first thread.
    Process(Arc<Process>),
    /// Another thread of a process.
    Thread(Arc<Task>),
    /// A process that moved to another kernel; forgotten once all know.
    Moved(KernelId),
}

#[derive(Default)]
struct Inner {
    by_number: BTreeMap<Pid, Entry>,
    sessions: BTreeMap<Pid, Arc<LocalSession>>,
    /// Groups of sessions whose home is here.
    groups: BTreeMap<Pid, Arc<LocalSession>>,
}

/// See the module.
pub struct Table {
    inner: SpinLock<Inner>,
}

impl Table {
    /// Nobody.
    pub fn new() -> Self {
        Self { inner: SpinLock::new(rank::PROCESS_TABLE, Inner::default()) }
    }

    /// What a number stands for here.
    pub fn get(&self, pid: Pid) -> Option<Entry> {
        self.inner.lock().by_number.get(&pid).cloned()
    }

    /// A process that is here.
    pub fn process(&self, pid: Pid) -> Option<Arc<Process>> {
        match self.inner.lock().by_number.get(&pid) {
            Some(Entry::Process(p)) => Some(p.clone()),
            _ => None,
        }
    }

    /// A thread that is here, by its number.
    pub fn task(&self, tid: Pid) -> Option<Arc<Task>> {
        match self.get(tid)? {
            Entry::Process(p) => p.thread(tid).or_else(|| p.leader()),
            Entry::Thread(t) => Some(t),
            Entry::Moved(_) => None,
        }
    }

    /// All processes that are here, by pid.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        let inner = self.inner.lock();
        inner
            .by_number
            .values()
            .filter_map(|e| match e {
                Entry::Process(p) => Some(p.clone()),
                _ => None,
            })
            .collect()
    }

    /// The processes of a group that are here.
    pub fn members(&self, pgid: Pid) -> Vec<Arc<Process>> {
        let inner = self.inner.lock();
        let mut members = Vec::new();
        for entry in inner.by_number.values() {
            if let Entry::Process(p) = entry
                && p.pgid() == pgid
            {
                members.push(p.clone());
            }
        }
        members
    }

    /// How many threads are here.
    pub fn count(&self) -> usize {
        self.inner.lock().by_number.len()
    }

    /// Enters a number; what it stood for.
    pub fn insert(&self, pid: Pid, entry: Entry) -> Option<Entry> {
        self.inner.lock().by_number.insert(pid, entry)
    }

    /// Frees a number.
    pub fn remove(&self, pid: Pid) -> Option<Entry> {
        self.inner.lock().by_number.remove(&pid)
    }

    /// A process went to another kernel. Not noted if it came back meanwhile: then the number is that of the process that came.
    pub(crate) fn leave(&self, process: &Arc<Process>, to: KernelId) {
        let old = {
            let mut inner = self.inner.lock();
            match inner.by_number.get(&process.pid()) {
                Some(Entry::Process(p)) if Arc::ptr_eq(p, process) => {
                    inner.by_number.insert(process.pid(), Entry::Moved(to))
                }
                _ => None,
            }
        };
        drop(old);
    }

    /// Nobody asks here any more for a process that moved.
    pub(crate) fn forget_moved(&self, pid: Pid) {
        let mut inner = self.inner.lock();
        if matches!(inner.by_number.get(&pid), Some(Entry::Moved(_))) {
            inner.by_number.remove(&pid);
        }
    }

    /// Whether a number is in use here: by a process, a thread, a group or a session.
    pub fn uses(&self, pid: Pid) -> bool {
        let inner = self.inner.lock();
        inner.by_number.contains_key(&pid) || inner.groups.contains_key(&pid) || inner.sessions.contains_key(&pid)
    }

    /// A session whose home is here.
    pub fn session(&self, sid: Pid) -> Option<Arc<LocalSession>> {
        self.inner.lock().sessions.get(&sid).cloned()
    }

    /// The session of a group, if its home is here.
    pub fn group(&self, pgid: Pid) -> Option<Arc<LocalSession>> {
        self.inner.lock().groups.get(&pgid).cloned()
    }

    /// All sessions whose home is here.
    pub fn sessions(&self) -> Vec<Arc<LocalSession>> {
        self.inner.lock().sessions.values().cloned().collect()
    }

    /// A session is here.
    pub fn add_session(&self, session: &Arc<LocalSession>) {
        use crate::session::Session;
        self.inner.lock().sessions.insert(session.sid(), session.clone());
    }

    /// A session ended or moved.
    pub fn remove_session(&self, session: &LocalSession) {
        use crate::session::Session;
        let old = {
            let mut inner = self.inner.lock();
            match inner.sessions.get(&session.sid()) {
                // It may have come back as another object.
                Some(s) if core::ptr::eq(&**s, session) => inner.sessions.remove(&session.sid()),
                _ => None,
            }
        };
        drop(old);
    }

    /// A session whose home is here has a group.
    pub fn add_group(&self, pgid: Pid, session: &Arc<LocalSession>) {
        let old = self.inner.lock().groups.insert(pgid, session.clone());
        drop(old);
    }

    /// A group has no members any more.
    pub fn remove_group(&self, pgid: Pid, session: &LocalSession) {
        let old = {
            let mut inner = self.inner.lock();
            match inner.groups.get(&pgid) {
                // The number may have become a group of another session (setsid) before this was done.
                Some(s) if core::ptr::eq(&**s, session) => inner.groups.remove(&pgid),
                _ => None,
            }
        };
        drop(old);
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new()
    }
}

impl Kernel {
    /// A process by pid, wherever it is.
    ///
    /// # Errors
    /// `ESRCH` if there is none.
    pub fn find(&self, pid: Pid) -> TryResult<Arc<dyn ProcessRef>> {
        match self.table.get(pid) {
            Some(Entry::Process(p)) => done(p),
            // kill(2) takes the number of any thread for its process.
            Some(Entry::Thread(t)) => done(t.process().clone()),
            Some(Entry::Moved(_)) | None => self.cluster().find_process(pid),
        }
    }

    /// The session that has a group, wherever it is.
    ///
    /// # Errors
    /// `ESRCH` if there is none.
    pub fn find_group(&self, pgid: Pid) -> TryResult<Arc<dyn crate::session::Session>> {
        match self.table.group(pgid) {
            Some(session) => done(session),
            None => self.cluster().find_group(pgid),
        }
    }

    /// A pid that nobody has.
    ///
    /// # Errors
    /// `EAGAIN` if there is none.
    pub fn new_pid(&self) -> Result<Pid> {
        self.cluster().new_pid(&mut |pid| self.table.uses(pid))
    }
}
