//! Threads that pass a baton. Whoever has the baton has an [`Identity`]: the CPU it plays. On machines that run free they are OS threads, on
//! simulated ones fibers of the OS thread that runs the machine.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::cpu::{Identity, current, set_current};
use crate::fiber;
use crate::machine::{PoweredOff, Shared};

enum State {
    Closed,
    /// The baton, with the CPU that the woken thread plays from now on.
    Open(Option<Identity>),
    /// The thread is to unwind and end, playing that CPU meanwhile.
    Kill(Option<Identity>),
    /// Something else panicked.
    Poisoned(String),
}

/// Where one thread waits for the baton.
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether a fiber waits here.
    is_fiber: bool,
    pub fiber: fiber::Slot,
}

/// What a killed thread unwinds with.
struct Killed;

impl Gate {
    pub fn new() -> Arc<Self> {
        Self::make(false)
    }

    fn make(is_fiber: bool) -> Arc<Self> {
        let (state, changed) = (Mutex::new(State::Closed), Condvar::new());
        Arc::new(Self { state, changed, is_fiber, fiber: Mutex::new(None) })
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.changed.notify_one();
    }

    /// Hands the baton to whoever waits here.
    pub fn open(self: &Arc<Self>, identity: Option<Identity>) {
        self.set(State::Open(identity));
        if self.is_fiber {
            fiber::opened(self.clone());
        }
    }

    pub fn poison(&self, why: &str) {
        self.set(State::Poisoned(why.to_owned()));
    }

    /// Waits for the baton.
    pub fn wait(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match std::mem::replace(&mut *state, State::Closed) {
                State::Closed if fiber::inside() => {
                    drop(state);
                    fiber::suspend();
                    state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                }
                State::Closed => {
                    drop(state);
                    let ran = fiber::run_next();
                    state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                    if !ran && matches!(*state, State::Closed) {
                        state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    }
                }
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

/// The gate of the thread that calls this.
pub(crate) fn my_gate() -> Arc<Gate> {
    MY_GATE.with(|g| g.borrow_mut().get_or_insert_with(Gate::new).clone())
}

/// Another thread runs from now on; the gate of the one before.
pub(crate) fn swap_gate(gate: Option<Arc<Gate>>) -> Option<Arc<Gate>> {
    MY_GATE.with(|g| std::mem::replace(&mut *g.borrow_mut(), gate))
}

type Body = Box<dyn FnOnce() + Send>;

/// What a thread is.
enum Kind {
    /// An OS thread, once it has started.
    Os(Option<JoinHandle<()>>),
    /// A fiber.
    Fiber,
    /// Whatever runs already: hal did not make it, and its body will never need to be unwound.
    Borrowed,
}

/// How a thread that is dropped before it ended ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Its stack is forgotten, as that of a kernel thread on hardware.
    Forgotten,
    /// What is on its stack is dropped.
    Unwound,
}

/// A thread that has not started, is suspended, runs, or has ended.
pub(crate) struct Coroutine {
    gate: Arc<Gate>,
    body: Option<Body>,
    kind: Kind,
    end: End,
}

impl Coroutine {
    /// `body` runs in a thread of its own when the baton first comes. When it ends it must have passed the baton on.
    pub fn new(machine: &Shared, end: End, body: Body) -> Self {
        let simulated = machine.driver.is_some();
        let kind = if simulated { Kind::Fiber } else { Kind::Os(None) };
        Self { gate: Gate::make(simulated), body: Some(body), kind, end }
    }

    /// The thread that calls this.
    pub fn current() -> Self {
        Self { gate: my_gate(), body: None, kind: Kind::Borrowed, end: End::Forgotten }
    }

    /// Makes this value stand for the thread that calls this (it may have been made elsewhere as a placeholder).
    pub fn adopt_current(&mut self) {
        if matches!(self.kind, Kind::Borrowed) {
            self.gate = my_gate();
        }
    }

    /// Hands the baton over; the caller goes on (to wait at its own gate).
    pub fn resume(&mut self, identity: Option<Identity>) {
        if let Some(body) = self.body.take() {
            let gate = self.gate.clone();
            if self.gate.is_fiber {
                // Nothing on the stack of a fiber keeps its gate alive: the gate has the fiber.
                fiber::make(&self.gate, Box::new(move || run(None, body)));
            } else {
                let builder = std::thread::Builder::new().name("simulated".into()).stack_size(512 << 10);
                match builder.spawn(move || run(Some(gate), body)) {
                    Ok(t) => self.kind = Kind::Os(Some(t)),
                    Err(e) => panic!("no OS thread for a simulated one: {e}"),
                }
            }
        }
        self.gate.open(identity);
    }

    /// Where it waits.
    pub const fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }
}

/// The life of a thread; one that is an OS thread brings its gate.
fn run(gate: Option<Arc<Gate>>, body: Body) {
    if let Some(gate) = gate {
        swap_gate(Some(gate));
    }
    let result = catch_unwind(AssertUnwindSafe(|| {
        my_gate().wait();
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
}

/// What a panic said.
pub(crate) fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("?").to_owned()
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        match &mut self.kind {
            Kind::Borrowed => {}
            Kind::Fiber if self.end == End::Forgotten => fiber::abandon(&self.gate),
            Kind::Fiber => {
                let waits = self.gate.fiber.lock().unwrap_or_else(PoisonError::into_inner).is_some();
                if waits {
                    // It unwinds now, playing our CPU.
                    self.gate.set(State::Kill(current()));
                    if fiber::run(&self.gate) {
                        fiber::abandon(&self.gate);
                    }
                }
            }
            Kind::Os(thread) => {
                let Some(thread) = thread.take() else { return };
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
}
