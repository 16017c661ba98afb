//! When a kernel lets tasks of others in: not before its tree is there, and not while it ends. The end in good order: its processes end first, and their
//! parents hear of it.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU8, Ordering};

use base::{Errno, Error, Ready, Result};

use crate::{
    cx::Cx,
    kernel::Kernel,
    process::Process,
    signal::{SigInfo, Signal},
    task::Task,
    wait::{Interrupted, Timeout, WaitList},
};

/// Who moves here waits: the file tree is not complete.
const STARTING: u8 = 0;
/// Programs come and go as they like.
const OPEN: u8 = 1;
/// Nobody moves here any more.
const CLOSED: u8 = 2;
/// No process is made any more either.
const SEALED: u8 = 3;

/// Whether tasks are let in.
pub(crate) struct Doors {
    stage: AtomicU8,
    /// Told when the doors open, and when a process ended or moved away.
    pub told: WaitList,
}

impl Doors {
    pub fn new() -> Self {
        Self { stage: AtomicU8::new(OPEN), told: WaitList::new() }
    }

    fn stage(&self) -> u8 {
        self.stage.load(Ordering::Acquire)
    }

    /// A task wants to move here.
    pub fn let_in(&self) -> Result<()> {
        match self.stage() {
            STARTING | OPEN => Ok(()),
            _ => Err(Error::new(Errno::EHOSTDOWN, "that kernel stops")),
        }
    }

    /// A process wants to make another.
    pub fn let_fork(&self) -> Result<()> {
        match self.stage() {
            SEALED => Err(Error::new(Errno::EAGAIN, "this kernel stops")),
            _ => Ok(()),
        }
    }
}

impl Cx {
    /// For a task that arrives: waits until the file tree is complete.
    pub(crate) fn wait_for_doors(&self) -> Result<()> {
        let doors = &self.kernel().doors;
        let _told = doors.told.subscribe(Ready::IN, self.waker());
        self.wait_until(|| (doors.stage() != STARTING).then_some(()), Timeout::Never, Interrupted::Killed)
    }
}

impl Kernel {
    /// The file tree that programs are to see is not complete: tasks of other kernels wait until [`Kernel::open_doors`].
    pub fn hold_doors(&self) {
        let _ = self.doors.stage.compare_exchange(OPEN, STARTING, Ordering::AcqRel, Ordering::Acquire);
    }

    /// It is.
    pub fn open_doors(&self) {
        // One that is told to stop meanwhile stays closed.
        let _ = self.doors.stage.compare_exchange(STARTING, OPEN, Ordering::AcqRel, Ordering::Acquire);
        self.doors.told.wake(Ready::IN);
    }

    /// The processes that are here and have not ended, but for pid 1: that one goes with its kernel, as at a shutdown.
    fn running(&self) -> Vec<Arc<Process>> {
        let mut processes = self.table.processes();
        processes.retain(|p| !p.is_init() && p.zombie().is_none());
        processes
    }

    fn signal_running(&self, signal: Signal) {
        for process in self.running() {
            // Neither signal has a value, so there is always room for it.
            let _ = process.signal(SigInfo::kernel(signal));
        }
    }

    /// Ends all processes here as at a shutdown: SIGTERM (and SIGCONT, so that stopped ones hear it), then SIGKILL for those that are still there
    /// after `grace` ns. No task moves here any more. Called in a kernel thread; returns when they have ended.
    pub fn end_processes(self: &Arc<Self>, thread: &Arc<Task>, grace: u64) {
        self.doors.stage.store(CLOSED, Ordering::Release);
        // Who waits at the door goes on, and is ended with the others.
        self.doors.told.wake(Ready::IN);
        let _told = self.doors.told.subscribe(Ready::IN, thread.clone());
        let patience = hal::time::now().saturating_add(grace);
        self.signal_running(Signal::TERM);
        self.signal_running(Signal::CONT);
        loop {
            thread.begin_wait();
            if self.running().is_empty() {
                break;
            }
            if hal::time::now() < patience {
                thread.park_until(patience);
                continue;
            }
            // Whoever was just being made is found in a later round: each end of a process is one.
            self.doors.stage.store(SEALED, Ordering::Release);
            self.signal_running(Signal::KILL);
            thread.park();
        }
        self.doors.stage.store(SEALED, Ordering::Release);
    }
}
