//! OS threads that pass a baton. Whoever has the baton has an [`Identity`]: the CPU it plays.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::cpu::{Identity, current, set_current};
use crate::machine::PoweredOff;

enum State {
    Closed,
    /// The baton, with the CPU that the woken thread plays from now on.
    Open(Option<Identity>),
    /// The thread is to unwind and end, playing that CPU meanwhile.
    Kill(Option<Identity>),
    /// Something else panicked.
    Poisoned(String),
}

/// Where one OS thread waits for the baton.
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

/// What a killed thread unwinds with.
struct Killed;

impl Gate {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Closed), changed: Condvar::new() })
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.changed.notify_one();
    }

    /// Hands the baton to whoever waits here.
    pub fn open(&self, identity: Option<Identity>) {
        self.set(State::Open(identity));
    }

    pub fn poison(&self, why: &str) {
        self.set(State::Poisoned(why.to_owned()));
    }

    /// Waits for the baton.
    pub fn wait(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match std::mem::replace(&mut *state, State::Closed) {
                State::Closed => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                State::Open(identity) => {
                    drop(state);
                    set_current(identity);
                    return;
                }
                State::Kill(identity) => {
                    drop(state);
                    set_current(identity);
                    resume_unwind(Box::new(Killed));
                }
                State::Poisoned(why) => {
                    *state = State::Poisoned(why.clone());
                    drop(state);
                    if std::thread::panicking() {
                        loop {
                            std::thread::park();
                        }
                    }
                    panic!("a thread of this machine panicked: {why}");
                }
            }
        }
    }
}

thread_local! {
    static MY_GATE: RefCell<Option<Arc<Gate>>> = const { RefCell::new(None) };
}

/// The gate of this OS thread.
pub(crate) fn my_gate() -> Arc<Gate> {
    MY_GATE.with(|g| g.borrow_mut().get_or_insert_with(Gate::new).clone())
}

type Body = Box<dyn FnOnce() + Send>;

/// An OS thread that has not started, is suspended, runs, or has ended.
pub(crate) struct Coroutine {
    gate: Arc<Gate>,
    body: Option<Body>,
    thread: Option<JoinHandle<()>>,
    /// Its own body will never need to be unwound (it is a thread that hal did not make).
    borrowed: bool,
}

impl Coroutine {
    /// `body` runs on an OS thread of its own when the baton first comes. When it ends it must have passed the baton on.
    pub fn new(body: Body) -> Self {
        Self { gate: Gate::new(), body: Some(body), thread: None, borrowed: false }
    }

    /// The OS thread that calls this.
    pub fn current() -> Self {
        Self { gate: my_gate(), body: None, thread: None, borrowed: true }
    }

    /// Makes this value stand for the OS thread that calls this (it may have been made elsewhere as a placeholder).
    pub fn adopt_current(&mut self) {
        if self.borrowed {
            self.gate = my_gate();
        }
    }

    /// Hands the baton over; the caller goes on (to wait at its own gate).
    pub fn resume(&mut self, identity: Option<Identity>) {
        if let Some(body) = self.body.take() {
            let gate = self.gate.clone();
            let thread = std::thread::Builder::new().name("simulated".into()).stack_size(512 << 10).spawn(move || {
                MY_GATE.with(|g| *g.borrow_mut() = Some(gate.clone()));
                let result = catch_unwind(AssertUnwindSafe(|| {
                    gate.wait();
                    body();
                }));
                let here = current();
                set_current(None);
                let (Err(payload), Some(here)) = (result, here) else { return };
                if payload.is::<PoweredOff>() {
                    // Whatever thread switches the machine off, its CPU has no more turns.
                    if let Some(driver) = &here.machine.driver {
                        driver.ended(&here.machine, here.kernel, here.slot);
                    }
                } else if !payload.is::<Killed>() {
                    here.machine.panicked(&message(&*payload));
                }
            });
            match thread {
                Ok(t) => self.thread = Some(t),
                Err(e) => panic!("no OS thread for a simulated one: {e}"),
            }
        }
        self.gate.open(identity);
    }
}

/// What a panic said.
pub(crate) fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("?").to_owned()
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            if thread.thread().id() == std::thread::current().id() {
                // Dropped by itself at its end.
                return;
            }
            if !thread.is_finished() {
                // It unwinds while we wait, playing our CPU; then the baton is ours again.
                self.gate.set(State::Kill(current()));
            }
            let _ = thread.join();
        }
    }
}
