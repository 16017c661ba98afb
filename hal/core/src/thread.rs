//! Kernel threads: a stack, a suspended context, and the switch between two of them.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

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

/// What a thread will do, until it starts. Shared with the start of its stack, because a parked thread may move.
struct Start(AtomicPtr<Entry>);

impl Start {
    fn take(&self) -> Option<Box<Entry>> {
        let entry = self.0.swap(core::ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: not null only as `Box::into_raw` made it, and swapped out once.
        (!entry.is_null()).then(|| unsafe { Box::from_raw(entry) })
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// A kernel thread that can be switched to.
///
/// Dropping a parked thread frees its stack; what lives on that stack is forgotten, not dropped.
pub struct Thread {
    state: AtomicU8,
    context: UnsafeCell<Context>,
    start: Option<Arc<Start>>,
    /// None for a thread that was running already (boot and idle threads).
    stack: Option<KernelStack>,
}

type Context = <P as Platform>::Context;

// SAFETY: `context` is touched only by `switch`, for the two threads whose `state` it holds.
unsafe impl Sync for Thread {}
// SAFETY: everything in it is Send, and it is not tied to its address.
unsafe impl Send for Thread {}

impl Thread {
    /// A thread that runs `entry` when it is first switched to. `entry` must not return.
    pub fn new(entry: Entry) -> Result<Box<Self>, OutOfFrames> {
        let stack = KernelStack::new()?;
        let start = Arc::new(Start(AtomicPtr::new(Box::into_raw(Box::new(entry)))));
        let arg = Arc::into_raw(start.clone()) as usize;
        // SAFETY: the stack lives in the same thread and is dropped after the context (order of fields).
        let context = unsafe { P::context_new(stack.0, begin, arg) };
        Ok(Box::new(Self {
            state: AtomicU8::new(PARKED),
            context: UnsafeCell::new(context),
            start: Some(start),
            stack: Some(stack),
        }))
    }

    /// The thread that runs now on a CPU that hal started (boot, idle).
    pub fn current() -> Box<Self> {
        Box::new(Self {
            state: AtomicU8::new(RUNNING),
            context: UnsafeCell::new(P::context_current()),
            start: None,
            stack: None,
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
/// If `prev` is not the thread that was last switched to on this CPU. With checks: if this CPU holds a lock.
#[track_caller]
pub fn switch(prev: &Thread, next: &Thread) {
    crate::sync::assert_no_lock("switch");
    if core::ptr::eq(prev, next) {
        return;
    }
    let mut turn = 0;
    let cpu = instance().this_cpu();
    let current = cpu.current.load(Ordering::Relaxed).cast_const();
    assert!(core::ptr::eq(current, prev) || current.is_null(), "switch from a thread that does not run here");
    // Whoever moves `next` to RUNNING is the only one to continue it.
    while next.state.compare_exchange(PARKED, RUNNING, Ordering::Acquire, Ordering::Relaxed).is_err() {
        crate::sync::spin(&mut turn);
    }
    cpu.current.store(core::ptr::from_ref(next).cast_mut(), Ordering::Relaxed);
    cpu.left.store(core::ptr::from_ref(prev).cast_mut(), Ordering::Relaxed);
    // SAFETY: `prev` runs this code; `next` was parked and is ours now.
    unsafe { P::switch(prev.context.get(), next.context.get()) };
    arrived();
}

/// First thing on the stack of the thread that was switched to: the one that was left is off its stack now.
fn arrived() {
    let cpu = instance().this_cpu();
    // SAFETY: `switch` stored a live thread on this CPU, and its owner cannot drop it before this is done (`drop` waits).
    if let Some(left) = unsafe { cpu.left.load(Ordering::Relaxed).as_ref() } {
        left.state.store(PARKED, Ordering::Release);
        cpu.left.store(core::ptr::null_mut(), Ordering::Release);
    }
}

fn begin(arg: usize) -> ! {
    arrived();
    // SAFETY: `new` made `arg` from an `Arc` for us alone; this runs once.
    let start = unsafe { Arc::from_raw(arg as *const Start) };
    let entry = start.take();
    drop(start);
    if let Some(entry) = entry {
        entry();
    }
    panic!("the entry of a thread returned");
}

impl Drop for Thread {
    fn drop(&mut self) {
        let Some(instance) = crate::instance::try_instance() else { return };
        let mut turn = 0;
        // Whoever drops a thread that has just ended may be faster than the CPU that leaves its stack.
        let me = core::ptr::from_ref(self).cast_mut();
        while (self.stack.is_some() && self.is_running())
            || (0..instance.info.n_cpus).any(|s| instance.cpu(s).left.load(Ordering::Acquire) == me)
        {
            crate::sync::spin(&mut turn);
        }
        if let Some(start) = &self.start
            && let Some(entry) = start.take()
        {
            // It never ran, so the reference of its stack is still there.
            drop(entry);
            // SAFETY: made by `into_raw` in `new`, and given up by nobody else.
            unsafe { Arc::decrement_strong_count(Arc::as_ptr(start)) };
        }
    }
}

impl core::fmt::Debug for Thread {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(if self.is_running() { "Thread(running)" } else { "Thread(parked)" })
    }
}
