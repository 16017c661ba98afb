//! Workers: kernel threads for actions that may sleep, in order for each object.

use alloc::{boxed::Box, collections::VecDeque, sync::Arc};

use base::Result;
use hal::sync::{SpinLock, rank};

use crate::{kernel::Kernel, task::Task};

type Action = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Inner {
    actions: VecDeque<Action>,
    worker: Option<Arc<Task>>,
    /// The worker sleeps or will look again.
    closing: bool,
}

/// Actions of one object (or one service), done one after the other by a worker. Actions may be queued in any context.
pub struct WorkQueue {
    inner: Arc<SpinLock<Inner>>,
}

impl WorkQueue {
    /// A queue with a worker of its own.
    ///
    /// # Errors
    /// `ENOMEM`.
    pub fn new(kernel: &Arc<Kernel>, name: &str) -> Result<Self> {
        let inner = Arc::new(SpinLock::new(rank::WAITERS, Inner::default()));
        let queue = inner.clone();
        let worker = kernel.start_thread(name, move |task| serve(task, &queue))?;
        inner.lock().worker = Some(worker);
        Ok(Self { inner })
    }

    /// Queues an action.
    pub fn push(&self, action: impl FnOnce() + Send + 'static) {
        let worker = {
            let mut inner = self.inner.lock();
            inner.actions.push_back(Box::new(action));
            inner.worker.clone()
        };
        if let Some(worker) = worker {
            worker.wake_up();
        }
    }
}

impl Drop for WorkQueue {
    fn drop(&mut self) {
        let worker = {
            let mut inner = self.inner.lock();
            inner.closing = true;
            inner.worker.take()
        };
        if let Some(worker) = worker {
            worker.wake_up();
        }
    }
}

fn serve(task: &Arc<Task>, queue: &SpinLock<Inner>) {
    loop {
        task.begin_wait();
        let (action, closing) = {
            let mut inner = queue.lock();
            (inner.actions.pop_front(), inner.closing)
        };
        match action {
            Some(action) => action(),
            None if closing => return,
            None => task.park(),
        }
    }
}
