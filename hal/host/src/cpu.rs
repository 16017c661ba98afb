//! Which simulated CPU the running OS thread plays, and when it lets others run.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use hal_api::Ipi;

use crate::coroutine::my_gate;
use crate::machine::{CpuSim, KernelSim, Shared};

/// A simulated CPU.
#[derive(Clone)]
pub(crate) struct Identity {
    pub machine: Arc<Shared>,
    pub kernel: usize,
    pub slot: usize,
}

impl Identity {
    pub fn kernel(&self) -> &KernelSim {
        &self.machine.kernels[self.kernel]
    }
    pub fn cpu(&self) -> &CpuSim {
        &self.kernel().cpus[self.slot]
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Identity>> = const { RefCell::new(None) };
}

pub(crate) fn set_current(identity: Option<Identity>) {
    CURRENT.with(|c| *c.borrow_mut() = identity);
}

pub(crate) fn current() -> Option<Identity> {
    CURRENT.with(|c| c.borrow().clone())
}

/// Which slot this thread plays; 0 if none.
pub(crate) fn slot() -> usize {
    CURRENT.with(|c| c.borrow().as_ref().map_or(0, |c| c.slot))
}

/// The anchor of the kernel that this thread plays.
pub(crate) fn anchor() -> *const () {
    CURRENT.with(|c| c.borrow().as_ref().map_or(std::ptr::null(), |c| c.kernel().instance.load(SeqCst).cast_const()))
}

/// Calls `f`, which is short and does not pass the baton, with the CPU that this thread plays.
pub(crate) fn with<R>(f: impl FnOnce(&Identity) -> R) -> R {
    CURRENT.with(|c| match &*c.borrow() {
        Some(c) => f(c),
        None => panic!("this thread plays no simulated CPU"),
    })
}

pub(crate) const KICK: u32 = 1;
pub(crate) const SHOOTDOWN: u32 = 2;
pub(crate) const STOP: u32 = 4;
pub(crate) const DOORBELL: u32 = 8;

/// Runs the handlers of what is pending on this CPU; whether there was anything.
pub(crate) fn deliver(c: &Identity) -> bool {
    let cpu = c.cpu();
    let Some(up) = c.kernel().up.get() else { return false };
    let mut pending = cpu.pending.swap(0, SeqCst);
    if cpu.bell.load(SeqCst) <= c.machine.clock.load(SeqCst) {
        cpu.bell.store(u64::MAX, SeqCst);
        pending |= DOORBELL;
    }
    let mut any = pending != 0;
    if pending & SHOOTDOWN != 0 {
        up.ipi(Ipi::Shootdown);
    }
    if pending & STOP != 0 {
        up.ipi(Ipi::Stop);
    }
    if pending & KICK != 0 {
        up.ipi(Ipi::Kick);
    }
    if pending & DOORBELL != 0 {
        up.doorbell();
    }
    let next = || crate::machine::lock(&cpu.lines).pop_front();
    while let Some(line) = next() {
        any = true;
        up.irq(line);
    }
    let deadline = cpu.deadline.load(SeqCst);
    if deadline <= c.machine.clock.load(SeqCst)
        && cpu.deadline.compare_exchange(deadline, u64::MAX, SeqCst, SeqCst).is_ok()
    {
        any = true;
        up.timer();
    }
    any
}

/// A point where another CPU may run.
pub(crate) fn let_go() {
    if std::thread::panicking() {
        return;
    }
    let Some(c) = current() else { return };
    match &c.machine.driver {
        Some(_) if c.machine.still.load(SeqCst) => panic!("a CPU that does not run holds what is waited for"),
        Some(driver) => {
            driver.yielded(&c, my_gate());
            // A thread that is forgotten while it waits keeps nothing of the machine.
            drop(c);
            my_gate().wait();
        }
        None => std::thread::yield_now(),
    }
}

/// A place where another CPU may get in between: before a lock is taken, before user memory is touched. Of a simulated machine the seed decides
/// whether one does; interrupts are not let in.
pub fn preemption_point() {
    // A thread that unwinds plays the CPU of the one that waits for it.
    let may = |c: &Identity| c.machine.driver.is_some() && !c.machine.still.load(SeqCst) && c.machine.chance.preempts();
    if !std::thread::panicking() && CURRENT.with(|c| c.borrow().as_ref().is_some_and(may)) {
        let_go();
    }
}

/// This CPU does nothing any more.
pub(crate) fn stop_for_good() -> ! {
    let c = current();
    if let Some(c) = c
        && let Some(driver) = &c.machine.driver
        && crate::fiber::inside()
    {
        driver.ended(&c.machine, c.kernel, c.slot);
        drop(c);
        loop {
            // Nobody opens it any more.
            crate::fiber::suspend();
        }
    }
    std::panic::resume_unwind(Box::new(crate::machine::PoweredOff))
}

/// Waits for an interrupt and handles it.
pub(crate) fn idle() {
    loop {
        let Some(c) = current() else { return };
        if deliver(&c) {
            return;
        }
        match &c.machine.driver {
            Some(driver) => {
                driver.idles(&c, my_gate());
                drop(c);
                my_gate().wait();
            }
            None => c.machine.free_idle(&c),
        }
    }
}
