//! Kernel threads that run tasks, one after another: a task that ends leaves its thread (and its stack) to the next one.

use alloc::{boxed::Box, sync::Arc, vec::Vec};

use base::{Errno, Error, Result};
use hal::{
    sync::{SpinLock, rank},
    thread::Thread,
};

use crate::kernel::Kernel;

/// A kernel thread that runs one task at a time.
pub(crate) struct Worker {
    thread: Box<Thread>,
}

impl Worker {
    pub fn thread(&self) -> &Thread {
        &self.thread
    }
}

/// Threads without a task. There are as many as there were tasks at once.
pub(crate) struct Pool {
    free: SpinLock<Vec<Arc<Worker>>>,
}

impl Pool {
    pub fn new() -> Self {
        Self { free: SpinLock::new(rank::RUN_QUEUE, Vec::new()) }
    }

    /// A thread for a new task.
    pub fn take(&self, kernel: &Arc<Kernel>) -> Result<Arc<Worker>> {
        if let Some(worker) = self.free.lock().pop() {
            return Ok(worker);
        }
        let kernel = kernel.clone();
        let thread = Thread::new(Box::new(move || live(&kernel)))
            .map_err(|_| Error::new(Errno::ENOMEM, "no memory for a kernel stack"))?;
        Ok(Arc::new(Worker { thread }))
    }

    /// The thread of a task that ends; it may still be on its stack.
    pub fn give(&self, worker: Arc<Worker>) {
        self.free.lock().push(worker);
    }
}

/// What a thread does: the life of one task after another.
fn live(kernel: &Arc<Kernel>) {
    // Whoever switched here made the task the running one of this CPU.
    while let Some(task) = kernel.sched.current() {
        task.live();
        kernel.sched.end(task);
    }
}
