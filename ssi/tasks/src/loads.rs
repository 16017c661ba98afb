//! What the other kernels do, for `/proc/stat`, `/proc/meminfo` and their like: all are asked at once.

use alloc::{sync::Arc, vec::Vec};

use base::{TryResult, wait::done};
use link::lock::Lock;
use objects::{Completer, call, when_done};
use task::load::Load;

use crate::service::TaskService;

/// Answers that come from several kernels.
struct Gathered {
    loads: Vec<Load>,
    /// Kernels that did not answer yet.
    open: usize,
    completer: Option<Completer<Vec<Load>>>,
}

impl TaskService {
    /// What all other kernels do; one that does not answer in time is shown as it was when it last did.
    pub(crate) fn loads(self: Arc<Self>) -> TryResult<Vec<Load>> {
        let others = self.others();
        self.heard.lock().retain(|kernel, _| others.contains(kernel));
        if others.is_empty() {
            return done(Vec::new());
        }
        let (call, completer) = call();
        let gathered = Gathered { loads: Vec::new(), open: others.len(), completer: Some(completer) };
        let gathered = Arc::new(Lock::new(gathered));
        for of in others {
            let (gathered, service) = (gathered.clone(), self.clone());
            when_done(self.load_of(of), move |answer| {
                let load = match answer {
                    Ok(load) => {
                        service.heard.lock().insert(of, load.clone());
                        Some(load)
                    }
                    Err(_) => service.heard.lock().get(&of).cloned(),
                };
                let mut gathered = gathered.lock();
                gathered.loads.extend(load);
                gathered.open -= 1;
                if gathered.open == 0 {
                    let (loads, completer) = (core::mem::take(&mut gathered.loads), gathered.completer.take());
                    drop(gathered);
                    if let Some(completer) = completer {
                        drop(completer.complete(done(loads)));
                    }
                }
            });
        }
        call.into_try()
    }
}
