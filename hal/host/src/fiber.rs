//! Code of a simulated machine on a stack of its own, switched to by a function call. All fibers of a machine run on the OS thread that runs the
//! machine: a change of turn costs nanoseconds, and nothing but the seed decides what runs.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use crate::coroutine::Gate;
use crate::cpu::{current, set_current};

/// Room for a thread's calls; pages that nobody touches cost nothing.
const STACK: usize = 512 << 10;
/// Stacks that are kept for the next fibers.
const SPARE: usize = 256;

type Raw = Coroutine<(), (), (), DefaultStack>;
type Suspend = Yielder<(), ()>;

thread_local! {
    /// How the code that runs now gets back to whoever runs it; null outside of fibers.
    static BACK: Cell<*const Suspend> = const { Cell::new(std::ptr::null()) };
    /// The gate that was opened last and whose fiber has not run yet: it has the baton.
    static NEXT: RefCell<Option<Arc<Gate>>> = const { RefCell::new(None) };
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

/// A suspended fiber, at its gate. Only the OS thread that made it touches it.
pub(crate) struct Fiber {
    raw: Option<Raw>,
    home: ThreadId,
}

// SAFETY: `raw` is used only on `home`, which `check` makes sure of.
unsafe impl Send for Fiber {}

/// The slot of a gate for its fiber: empty while it runs, and after it ended.
pub(crate) type Slot = Mutex<Option<Fiber>>;

fn take(slot: &Slot) -> Option<Fiber> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn put(slot: &Slot, fiber: Fiber) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(fiber);
}

/// Makes the fiber of a gate; it starts when the gate is first opened.
pub(crate) fn make(gate: &Arc<Gate>, body: Box<dyn FnOnce() + Send>) {
    let stack = STACKS.with(|s| s.borrow_mut().pop()).map_or_else(|| DefaultStack::new(STACK), Ok);
    let stack = match stack {
        Ok(stack) => stack,
        Err(e) => panic!("no stack for a simulated thread: {e}"),
    };
    let raw = Raw::with_stack(stack, move |back: &Suspend, ()| {
        BACK.set(std::ptr::from_ref(back));
        body();
    });
    put(&gate.fiber, Fiber { raw: Some(raw), home: std::thread::current().id() });
}

/// Whether the code that runs now is a fiber.
pub(crate) fn inside() -> bool {
    !BACK.get().is_null()
}

/// The gate of a fiber was opened: it is the next to run.
pub(crate) fn opened(gate: Arc<Gate>) {
    NEXT.with(|n| *n.borrow_mut() = Some(gate));
}

/// Leaves the fiber that runs now until it is run again.
pub(crate) fn suspend() {
    let back = BACK.get();
    // SAFETY: not null inside of a fiber, and then its yielder, which lives on its stack.
    unsafe { &*back }.suspend(());
    BACK.set(back);
}

/// Runs the fiber that has the baton until it passes it on; `false` if no fiber has it. Called by the OS thread that runs the machine.
pub(crate) fn run_next() -> bool {
    let next = NEXT.with(|n| n.borrow_mut().take());
    next.is_some_and(|gate| {
        run(&gate);
        true
    })
}

/// Runs a fiber until it waits or ends; the caller's own place is as before. Whether it is there still.
pub(crate) fn run(gate: &Arc<Gate>) -> bool {
    let Some(mut fiber) = take(&gate.fiber) else { panic!("the baton went to a thread that ended") };
    assert!(fiber.home == std::thread::current().id(), "a simulated machine runs on one OS thread");
    let before = (crate::coroutine::swap_gate(Some(gate.clone())), BACK.get(), current());
    let waits = fiber.raw.as_mut().is_some_and(|raw| matches!(raw.resume(()), CoroutineResult::Yield(())));
    crate::coroutine::swap_gate(before.0);
    BACK.set(before.1);
    set_current(before.2);
    if waits {
        put(&gate.fiber, fiber);
    }
    waits
}

/// Ends a suspended fiber where it is. What lives on its stack is forgotten, as on hardware.
pub(crate) fn abandon(gate: &Gate) {
    drop(take(&gate.fiber));
}

impl Drop for Fiber {
    fn drop(&mut self) {
        let Some(mut raw) = self.raw.take() else { return };
        if self.home != std::thread::current().id() {
            // Its stack cannot be given back here.
            std::mem::forget(raw);
            return;
        }
        // SAFETY: nothing on the stack is used again: whoever could run it held this value. Nobody has borrowed from it across threads.
        unsafe { raw.force_reset() };
        let stack = raw.into_stack();
        // The thread may be ending, and its list with it.
        let _ = STACKS.try_with(|s| {
            let mut spare = s.borrow_mut();
            if spare.len() < SPARE {
                spare.push(stack);
            }
        });
    }
}
