//! What the life of kernels asks of this one: loading and starting a peer, ending itself.

use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use base::{Errno, KernelId, Ready, Wake as _};
use hal::cpuref::Fenced;
use hal::sync::{Once, SpinLock, rank};
use life::{Config, LifeService, Machine, Seat};
use membership::Outcome;
use plan::{Boot, Plan};
use task::time::{Expire, Timer};
use task::{Kernel, Task};
use wire::resources::order;

use crate::{Peers, tree};

/// What the image does with CPUs and memory of peers.
pub trait Starter: Send + Sync {
    /// The path of the image for an index in the file tree. None if its board has one of its own, which its firmware starts.
    ///
    /// # Errors
    /// A sentence for the log: this kernel cannot start it.
    fn image(&self, index: u16) -> Result<Option<&'static str>, String>;
    /// Stops the CPUs of the index, puts the image into its memory (or has its board begin anew) and starts it as this incarnation.
    ///
    /// # Errors
    /// A sentence for the log; it does not run then.
    fn start(&self, kernel: KernelId, image: &[u8]) -> Result<(), String>;
    /// Stops the CPUs of the index, and says how sure that is.
    fn stop(&self, index: u16) -> Fenced;
}

/// How long a kernel may take from its first instruction to its membership, in the time after which a silent one is dead.
const PATIENCE: u64 = 5;
/// How long processes may take to end after SIGTERM when their kernel stops, in ns.
const GRACE: u64 = 2_000_000_000;
/// The largest image that is loaded, in bytes.
const IMAGE_MAX: usize = 64 << 20;

/// Does to this kernel what was ordered.
pub fn obey(peers: &Peers, what: u8) {
    match what {
        order::CRASH => panic!("ordered to crash by /proc/cob/control"),
        order::HANG => {
            log::warn!("ordered to hang by /proc/cob/control");
            peers.falls_silent();
            // Interrupts are off and stay so on all CPUs: no word leaves this kernel any more.
            hal::cpu::halt_all()
        }
        _ => {}
    }
}

/// See the module.
pub struct Hands {
    kernel: Arc<Kernel>,
    peers: Weak<Peers>,
    life: Once<Weak<LifeService>>,
    starter: Once<Arc<dyn Starter>>,
    alarm: SpinLock<Option<Timer>>,
    me: Weak<Self>,
}

impl Hands {
    /// The hands of this kernel, and the life service that they are for.
    pub fn new(plan: &Plan, kernel: &Arc<Kernel>, peers: &Arc<Peers>) -> (Arc<Self>, Arc<LifeService>) {
        let hands = Arc::new_cyclic(|me| Self {
            kernel: kernel.clone(),
            peers: Arc::downgrade(peers),
            life: Once::new(),
            starter: Once::new(),
            alarm: SpinLock::new(rank::LINK, None),
            me: me.clone(),
        });
        // Every kernel of a mixed machine reaches every board. Where nothing is shared, the controller has a board begin anew; but not the first one, which
        // has the console.
        let seat = |kernel: &plan::Kernel| Seat {
            board: if plan.is_apart() { kernel.board as u16 } else { 0 },
            switched: plan.is_apart() && kernel.board > 0 && kernel.boot == Boot::Firmware,
        };
        let seats = plan.kernels.iter().map(seat).collect();
        let life = LifeService::new(
            peers.links().clone(),
            seats,
            hands.clone(),
            Config { patience: PATIENCE * 1_000_000 * u64::from(plan.membership.dead_after_ms) },
        );
        // Made a moment ago.
        let _ = hands.life.set(Arc::downgrade(&life));
        (hands, life)
    }

    /// What starts peers; without it none can be started.
    pub fn set_starter(&self, starter: Arc<dyn Starter>) {
        // It is set once, when the kernel is put together.
        let _ = self.starter.set(starter);
    }

    fn life(&self) -> Option<Arc<LifeService>> {
        self.life.get()?.upgrade()
    }

    /// Runs in a thread: it sleeps while the file tree is asked.
    fn boot(&self, kernel: KernelId, thread: &Arc<Task>) -> Result<(), Errno> {
        let starter = self.starter.get().ok_or(Errno::ENODEV)?;
        let path = starter.image(kernel.index).map_err(|why| {
            log::warn!("kernel {kernel} is not started: {why}");
            Errno::ENODEV
        })?;
        let read = |path: &str| {
            tree::read_file(&self.kernel, path, IMAGE_MAX, thread).map_err(|why| {
                log::error!("cannot start kernel {kernel}: /{path}: {why}");
                why.errno()
            })
        };
        let image = path.map_or(Ok(Vec::new()), read)?;
        starter.start(kernel, &image).map_err(|why| {
            log::error!("cannot start kernel {kernel}: {why}");
            Errno::ETIMEDOUT
        })?;
        log::info!("started kernel {kernel}");
        Ok(())
    }

    /// Runs in a thread: ends the processes, lets the peers handle the last words, says goodbye.
    fn end(&self, thread: &Arc<Task>) {
        let (Some(peers), Some(life)) = (self.peers.upgrade(), self.life()) else { return };
        self.kernel.end_processes(thread, GRACE);
        // What the processes left to be said is said, and heard.
        let waker = thread.clone();
        let links = peers.links().clone();
        wait(thread, move |told| links.when_quiet(move || told.tell(&waker)));
        let members = peers.view().members;
        let waker = thread.clone();
        wait(thread, move |told| life.drain(&members, move || told.tell(&waker)));
        log::info!("goodbye");
        peers.leave();
        hal::cpu::halt_all()
    }
}

/// Tells a thread that it need not wait any more.
struct Told(Arc<AtomicBool>);

impl Told {
    fn tell(self, thread: &Arc<Task>) {
        self.0.store(true, Ordering::Release);
        thread.wake(Ready::all());
    }
}

/// Begins something and sleeps until it tells that it is done.
fn wait(thread: &Arc<Task>, begin: impl FnOnce(Told)) {
    let done = Arc::new(AtomicBool::new(false));
    begin(Told(done.clone()));
    loop {
        thread.begin_wait();
        if done.load(Ordering::Acquire) {
            return;
        }
        thread.park();
    }
}

impl Machine for Hands {
    fn now(&self) -> u64 {
        hal::time::now()
    }

    fn load(&self, kernel: KernelId) {
        let (Some(me), Some(life)) = (self.me.upgrade(), self.life()) else { return };
        let loads = life.clone();
        let started = self.kernel.start_thread("boot", move |thread| {
            let result = me.boot(kernel, thread);
            loads.loaded(kernel, result);
        });
        if let Err(why) = started {
            log::error!("cannot start kernel {kernel}: {why}");
            life.loaded(kernel, Err(why.errno()));
        }
    }

    fn abort(&self, kernel: KernelId) {
        if let Some(starter) = self.starter.get() {
            log::info!("kernel {kernel} is stopped: {:?}", starter.stop(kernel.index));
        }
    }

    fn wind_down(&self) {
        log::info!("this kernel stops");
        let Some(me) = self.me.upgrade() else { return };
        if let Err(why) = self.kernel.start_thread("stop", move |thread| me.end(thread)) {
            log::error!("processes are not waited for: {why}");
            if let Some(peers) = self.peers.upgrade() {
                peers.leave();
            }
            hal::cpu::halt_all()
        }
    }

    fn obey(&self, order: u8) {
        if let Some(peers) = self.peers.upgrade() {
            obey(&peers, order);
        }
    }

    fn ended(&self, kernel: KernelId) -> (bool, bool) {
        let peers = self.peers.upgrade();
        peers.map_or((false, false), |p| (p.is_orderly(kernel), p.outcome(kernel.index) == Some(Outcome::Lost)))
    }

    fn bar(&self, kernel: KernelId) -> bool {
        self.peers.upgrade().is_some_and(|peers| peers.bar(kernel))
    }

    fn written(&self, index: u16) -> u32 {
        let written = self.peers.upgrade().and_then(|peers| peers.present_at(index));
        written.map_or(0, |kernel| kernel.incarnation)
    }

    fn set_alarm(&self, at: Option<u64>) {
        let Some(me) = self.me.upgrade() else { return };
        let mut alarm = self.alarm.lock();
        if alarm.map(|timer| timer.deadline()) != at {
            let new = at.map(|at| self.kernel.timers.set(at, me));
            if let Some(old) = core::mem::replace(&mut *alarm, new) {
                self.kernel.timers.cancel(old);
            }
        }
    }
}

impl Expire for Hands {
    fn expire(self: Arc<Self>) {
        *self.alarm.lock() = None;
        if let Some(life) = self.life() {
            life.tick();
        }
    }
}

/// Tells the service what the plan says about the first boot of the machine. The file tree is there: kernels that this one is to start are started
/// from now on.
pub fn begin(plan: &Plan, me: KernelId, life: &LifeService) {
    if me.incarnation != 1 {
        // It was started again: the others run, or somebody stopped them.
        return;
    }
    for kernel in &plan.kernels {
        if let Boot::Auto { by } = kernel.boot {
            let first = |index| KernelId { index, incarnation: 1 };
            life.planned(first(kernel.index), first(by));
        }
    }
}
