//! Who wants to know when a process of another kernel ends: descriptors of processes, pidfd_open(2).
//!
//! A watcher is told to look again, never what it will find: so a message that comes twice, or late, does no harm.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

use base::{
    KernelId, Ready,
    wait::{Subscription, Wake},
};
use link::lock::Lock;
use objects::{to_wire, when_done};
use task::{cluster::Name, ids::Pid, wait::WaitList};
use wire::tasks::{ProcessChanged, WatchProcess};

use crate::service::{Local, TaskService, name_of};

/// See the module.
pub(crate) struct Watches {
    /// Who waits here, by the process of another kernel.
    mine: Lock<BTreeMap<Pid, WaitList>>,
    /// Kernels that watch processes of this one.
    theirs: Lock<BTreeMap<Pid, Vec<KernelId>>>,
}

impl Default for Watches {
    fn default() -> Self {
        Self { mine: Lock::new(BTreeMap::new()), theirs: Lock::new(BTreeMap::new()) }
    }
}

impl TaskService {
    /// Tells `waker` when process `pid`, which is not here, may have ended.
    pub(crate) fn watch(self: &Arc<Self>, pid: Pid, waker: Arc<dyn Wake>) -> Subscription {
        let list = {
            let mut mine = self.watches.mine.lock();
            // Lists that nobody waits in any more go when a new one comes.
            mine.retain(|_, list| !list.is_empty());
            mine.entry(pid).or_default().clone()
        };
        let subscription = list.subscribe(Ready::IN, waker);
        self.clone().ask_to_watch(pid);
        subscription
    }

    /// Asks the kernel where the process is now.
    fn ask_to_watch(self: Arc<Self>, pid: Pid) {
        let name = name_of(Name::Process(pid));
        when_done(self.names.lookup(name), move |found| {
            let asked = match found {
                Ok(entry) if self.others().contains(&entry.home) => self
                    .links
                    .send(to_wire(entry.home), wire::ObjectId::NONE, &WatchProcess { pid: pid.0 }, &[])
                    .is_ok(),
                // It is gone, or came here.
                _ => false,
            };
            if !asked {
                self.wake_watchers(pid);
            }
        });
    }

    fn wake_watchers(&self, pid: Pid) {
        let list = self.watches.mine.lock().get(&pid).cloned();
        if let Some(list) = list {
            list.wake(Ready::IN);
        }
    }

    /// The home of a watched process says that it ended, or that it is not there.
    pub(crate) fn changed_elsewhere(self: &Arc<Self>, pid: Pid, over: bool) {
        self.wake_watchers(pid);
        let waits = self.watches.mine.lock().get(&pid).is_some_and(|list| !list.is_empty());
        if waits && !over {
            self.clone().ask_to_watch(pid);
        }
    }

    /// A kernel is gone: what was watched there is looked for anew.
    pub(crate) fn look_again(self: &Arc<Self>) {
        let watched: Vec<Pid> = self.watches.mine.lock().keys().copied().collect();
        for pid in watched {
            self.changed_elsewhere(pid, false);
        }
        let members = self.others();
        self.watches.theirs.lock().retain(|_, kernels| {
            kernels.retain(|kernel| members.contains(kernel));
            !kernels.is_empty()
        });
    }

    /// Another kernel watches a process of this one from now on.
    pub(crate) fn watched_by(&self, kernel: KernelId, pid: Pid, local: &dyn Local) {
        {
            let mut theirs = self.watches.theirs.lock();
            let kernels = theirs.entry(pid).or_default();
            if !kernels.contains(&kernel) {
                kernels.push(kernel);
            }
        }
        // It was entered first, so that an end between is told by one or the other.
        match local.is_over(pid) {
            Some(false) => {}
            Some(true) => self.tell_watchers(pid, true),
            None => self.tell_watchers(pid, false),
        }
    }

    /// A process of this kernel has ended or moved.
    pub(crate) fn tell_watchers(&self, pid: Pid, over: bool) {
        let kernels = self.watches.theirs.lock().remove(&pid).unwrap_or_default();
        for kernel in kernels {
            let message = ProcessChanged { pid: pid.0, over: u8::from(over) };
            let sent = self.links.send(to_wire(kernel), wire::ObjectId::NONE, &message, &[]);
            if let Err(error) = sent {
                log::debug!("tasks: kernel {kernel} cannot be told about process {pid}: {error}");
            }
        }
    }
}
