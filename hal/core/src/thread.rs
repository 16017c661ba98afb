//! Kernel threads: a stack, a suspended context, and the switch between two of them.

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU8, Ordering};

use hal_api::Platform;

use crate::P;
use crate::frame::OutOfFrames;
use crate::instance::instance;

/// A kernel stack with an unmapped page below it.
#[derive(Debug)]
pub struct KernelStack(usize);

impl KernelStack {
    /// Takes a stack.
    pub fn new() -> Result<Self, OutOfFrames> {
        P::stack_alloc().map(Self).ok_or(OutOfFrames)
    }
}

impl Drop for KernelStack {
    fn drop(&mut self) {
        // SAFETY: it came from `stack_alloc`; the owner of a context drops that first.
        unsafe { P::stack_free(self.0) };
    }
}

/// On no CPU; may be switched to.
const PARKED: u8 = 0;
/// On a CPU, or still on its stack while that CPU switches away.
const RUNNING: u8 = 1;

/// What a thread does; it must not return (it switches away for the last time).
type Entry = Box<dyn FnOnce() + Send>;

/// A kernel thread that can be switched to.
///
/// Dropping a parked thread frees its stack; what lives on that stack is forgotten, not dropped.
pub struct Thread {
    state: AtomicU8,
    context: UnsafeCell<P_Context>,
    entry: UnsafeCell<Option<Entry>>,
    /// None for a thread that was running already (boot and idle threads).
    _stack: Option<KernelStack>,
}

#[allow(non_camel_case_types)]
type P_Context = <P as Platform>::Context;

// SAFETY: `context` is touched only by `switch`, for the two threads whose `state` it holds; `entry` only by the thread itself when it starts.
unsafe impl Sync for Thread {}
// SAFETY: everything in it is Send.
unsafe impl Send for Thread {}

impl Thread {
    /// A thread that runs `entry` when it is first switched to. `entry` must not return.
    pub fn new(entry: Entry) -> Result<Box<Self>, OutOfFrames> {
        let stack = KernelStack::new()?;
        let mut thread = Box::new(Self {
            state: AtomicU8::new(PARKED),
            context: UnsafeCell::new(P::context_current()),
            entry: UnsafeCell::new(Some(entry)),
            _stack: None,
        });
        let arg = core::ptr::from_ref(&*thread) as usize;
        // SAFETY: the stack lives in the same thread and is dropped after the context (order of fields); the address of a boxed thread does not
        // change.
        thread.context = UnsafeCell::new(unsafe { P::context_new(stack.0, start, arg) });
        thread._stack = Some(stack);
        Ok(thread)
    }

    /// The thread that runs now on a CPU that hal started (boot, idle).
    pub fn current() -> Box<Self> {
        Box::new(Self {
            state: AtomicU8::new(RUNNING),
            context: UnsafeCell::new(P::context_current()),
            entry: UnsafeCell::new(None),
            _stack: None,
        })
    }

    /// Whether it is on a CPU or still leaving one.
    pub fn is_running(&self) -> bool {
        self.state.load(Ordering::Acquire) == RUNNING
    }
}

/// Leaves `prev`, which is the thread that runs this, and continues `next`. Returns when somebody switches back to `prev`, maybe on another
/// CPU. If `next` is just being left by another CPU, waits until it is off its stack.
///
/// The caller keeps both alive: `next` while it runs, `prev` until it is parked (its owner can ask [`Thread::is_running`]; `drop` waits).
///
/// # Panics
/// With checks: if this CPU holds a lock.
#[track_caller]
pub fn switch(prev: &Thread, next: &Thread) {
    crate::sync::assert_no_lock("switch");
    if core::ptr::eq(prev, next) {
        return;
    }
    debug_assert!(prev.is_running(), "switch from a thread that does not run");
    let mut turn = 0;
    // Whoever moves `next` to RUNNING is the only one to continue it.
    while next.state.compare_exchange(PARKED, RUNNING, Ordering::Acquire, Ordering::Relaxed).is_err() {
        crate::sync::spin(&mut turn);
    }
    let cpu = instance().this_cpu();
    cpu.left.store(core::ptr::from_ref(prev).cast_mut(), Ordering::Relaxed);
    // SAFETY: `prev` runs this code; `next` was parked and is ours now.
    unsafe { P::switch(prev.context.get(), next.context.get()) };
    arrived();
}

/// First thing on the stack of the thread that was switched to: the one that was left is off its stack now.
fn arrived() {
    let cpu = instance().this_cpu();
    let left = cpu.left.swap(core::ptr::null_mut(), Ordering::Relaxed);
    // SAFETY: `switch` stored a live thread on this CPU, and its owner cannot drop it before it is PARKED (`drop` waits).
    if let Some(left) = unsafe { left.as_ref() } {
        left.state.store(PARKED, Ordering::Release);
    }
}

fn start(arg: usize) -> ! {
    arrived();
    // SAFETY: `arg` is the address of the thread that runs this, which its owner keeps while it runs.
    let thread = unsafe { &*(arg as *const Thread) };
    // SAFETY: only the thread itself takes its entry, once.
    let entry = unsafe { (*thread.entry.get()).take() };
    if let Some(entry) = entry {
        entry();
    }
    panic!("the entry of a thread returned");
}

impl Drop for Thread {
    fn drop(&mut self) {
        if self._stack.is_some() {
            let mut turn = 0;
            // Whoever drops a thread that has just ended may be faster than the CPU that leaves its stack.
            while self.is_running() {
                crate::sync::spin(&mut turn);
            }
        }
    }
}

impl core::fmt::Debug for Thread {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(if self.is_running() { "Thread(running)" } else { "Thread(parked)" })
    }
}
