//! Sending signals: to a process, a thread, a group.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use base::{Errno, Error, Ready, Result};

use super::{Origin, Queued, SigInfo, SigSet, Signal, set::Default};
use crate::{
    children::{ChildChange, ChildEvent, Status},
    cluster::ProcessRequest,
    ids::Pid,
    kernel::Kernel,
    limits::Resource,
    process::{JobState, Process, Shared},
    session::{Notice, Sender},
    table::Entry,
    task::{Task, work},
};

impl Process {
    /// Whether `from` may send `signal` to this process.
    ///
    /// # Errors
    /// `EPERM`.
    pub fn check_signal(&self, from: &Sender, signal: Signal) -> Result<()> {
        if from.may_signal(self.creds().users(), self.session().sid(), signal) {
            Ok(())
        } else {
            Err(Error::new(Errno::EPERM, "may not signal that process"))
        }
    }

    /// Sends a signal to the process: any thread that does not block it takes it.
    ///
    /// # Errors
    /// `EAGAIN` if too many are queued (only for those sent with a value).
    pub fn signal(&self, info: SigInfo) -> Result<()> {
        self.send(info, None)
    }

    /// Sends a signal to one thread.
    ///
    /// # Errors
    /// As [`Process::signal`].
    pub fn signal_thread(&self, task: &Arc<Task>, info: SigInfo) -> Result<()> {
        self.send(info, Some(task))
    }

    fn send(&self, info: SigInfo, to: Option<&Arc<Task>>) -> Result<()> {
        let signal = info.signal;
        let room = self.queued.load(Ordering::Relaxed) < self.limits(|l| l.soft(Resource::SigPending));
        let mut woken = None;
        let mut continued = false;
        {
            let mut shared = self.shared.lock();
            if shared.away {
                drop(shared);
                let request = ProcessRequest::Signal { info: Some(info), from: Sender::KERNEL, thread: None };
                self.kernel().cluster().tell(self.pid(), request);
                return Ok(());
            }
            let shared = &mut *shared;
            if shared.zombie.is_some() || shared.threads.is_empty() {
                return Ok(());
            }
            if signal == Signal::CONT {
                continued = self.resume(shared);
            } else if SigSet::STOPS.has(signal) {
                discard(self, shared, SigSet::EMPTY.with(Signal::CONT));
            }
            let target = match to {
                Some(task) => Some(task.clone()),
                None => Self::choose(shared, signal),
            };
            // A blocked signal is kept even if it is ignored now: that may have changed when it is unblocked.
            let blocked = match (&target, to) {
                (Some(t), _) => t.signals.lock().mask.has(signal),
                (None, _) => true,
            };
            if shared.actions.ignored().has(signal) && !blocked {
                // Thrown away.
            } else if self.is_init() && protected(shared, info) {
                // pid 1 is not killed by signals that it has no handler for.
            } else {
                let queued = match to {
                    Some(task) => task.queue_signal(info, room),
                    None => shared.pending.push(info, room),
                };
                match queued {
                    Queued::Full if signal.is_realtime() && info.code < 0 => return Err(Errno::EAGAIN.into()),
                    Queued::Yes => {
                        self.queued.fetch_add(1, Ordering::Relaxed);
                    }
                    Queued::Merged | Queued::Full => {}
                }
                woken = target.filter(|_| !blocked);
                for task in &shared.threads {
                    if to.is_none_or(|t| Arc::ptr_eq(t, task)) && task.signals.lock().waiting_for.has(signal) {
                        woken = Some(task.clone());
                    }
                }
            }
            if signal == Signal::KILL {
                // It ends everything at once: no thread has to look at the queue first.
                self.end_threads(shared, Status::Killed { signal, core: false }, None);
            }
        }
        if let Some(task) = woken {
            task.set_work(work::SIGNAL);
            task.poke();
        }
        self.tell_signal_watchers(to);
        if continued {
            self.report_job(Status::Continued);
        }
        Ok(())
    }

    fn tell_signal_watchers(&self, to: Option<&Arc<Task>>) {
        match to {
            Some(task) => task.signal_waiters.wake(Ready::IN),
            None => {
                for task in self.threads() {
                    task.signal_waiters.wake(Ready::IN);
                }
            }
        }
    }

    /// The thread that takes a signal of the process: the first one, or any that does not block it.
    fn choose(shared: &Shared, signal: Signal) -> Option<Arc<Task>> {
        shared.threads.iter().find(|t| !t.signals.lock().mask.has(signal)).or_else(|| shared.threads.first()).cloned()
    }

    /// SIGCONT: takes stop signals out of the queues and lets a stopped process go on. Whether it was stopped.
    fn resume(&self, shared: &mut Shared) -> bool {
        discard(self, shared, SigSet::STOPS);
        let was = core::mem::replace(&mut shared.job, JobState::Running);
        if was != JobState::Running {
            for task in &shared.threads {
                task.clear_work(work::STOP);
                task.wake_up();
            }
        }
        matches!(was, JobState::Stopped(_))
    }

    /// Makes all threads end but `except`. Idempotent.
    pub(crate) fn end_threads(&self, shared: &mut Shared, status: Status, except: Option<&Arc<Task>>) {
        if shared.exiting.is_none() {
            shared.exiting = Some(status);
        }
        shared.job = JobState::Running;
        for task in &shared.threads {
            task.clear_work(work::STOP);
            if except.is_none_or(|e| !Arc::ptr_eq(e, task)) {
                task.set_work(work::DIE);
                task.poke();
            }
        }
    }

    /// Tells the session and the parent that job control changed this process.
    pub(crate) fn report_job(&self, status: Status) {
        let notice = if status == Status::Continued { Notice::Continue(self.pid()) } else { Notice::Stop(self.pid()) };
        self.session().notice(notice);
        let (usage, _) = self.usage();
        self.kernel().child_event(
            self.ppid(),
            ChildEvent { pid: self.pid(), change: ChildChange::Status { status, uid: self.creds().uid, usage } },
        );
    }
}

/// Whether pid 1 is spared: the signal would end or stop it and it has no handler.
fn protected(shared: &Shared, info: SigInfo) -> bool {
    let from_fault = matches!(info.origin, Origin::Fault { .. });
    shared.actions.get(info.signal).handler == super::action::DEFAULT
        && !from_fault
        && matches!(info.signal.default(), Default::Terminate | Default::Core | Default::Stop)
}

fn discard(process: &Process, shared: &mut Shared, set: SigSet) {
    let before = shared.pending.len();
    shared.pending.discard(set);
    let mut gone = before - shared.pending.len();
    for task in &shared.threads {
        let mut signals = task.signals.lock();
        let before = signals.pending.len();
        signals.pending.discard(set);
        gone += before - signals.pending.len();
    }
    process.queued.fetch_sub(gone as u64, Ordering::Relaxed);
}

impl Process {
    /// Throws away what is pending of `set`: after a signal was set to be ignored.
    pub fn discard_signals(&self, set: SigSet) {
        let mut shared = self.shared.lock();
        discard(self, &mut shared, set);
    }
}

impl Kernel {
    /// Delivers a group signal to these members, which are here as far as their session knows, and to those it does not know yet.
    pub fn signal_members(&self, pgid: Pid, members: &[Pid], sid: Pid, info: SigInfo, from: Sender) {
        let tell = |process: &Process| {
            let allowed = from.may_signal(process.creds().users(), sid, info.signal);
            if allowed && let Err(e) = process.signal(info) {
                log::debug!("signal {:?} to {process:?}: {e}", info.signal);
            }
        };
        for pid in members {
            match self.table.get(*pid) {
                Some(Entry::Process(process)) => tell(&process),
                Some(Entry::Moved(_)) => {
                    let request = ProcessRequest::Signal { info: Some(info), from, thread: None };
                    self.cluster().tell(*pid, request);
                }
                // It has ended.
                Some(Entry::Thread(_)) | None => {}
            }
        }
        for process in self.table.members(pgid) {
            if !members.contains(&process.pid()) && !process.is_announced() {
                tell(&process);
            }
        }
    }

    /// `kill(-1)` as far as processes here are concerned: how many were signalled, and whether any was refused.
    pub fn signal_all_here(&self, info: SigInfo, from: Sender) -> (usize, bool) {
        let mut count = 0;
        let mut refused = false;
        for process in self.table.processes() {
            if process.is_init() || process.pid() == from.pid {
                continue;
            }
            if process.check_signal(&from, info.signal).is_ok() {
                count += usize::from(process.signal(info).is_ok());
            } else {
                refused = true;
            }
        }
        (count, refused)
    }
}
