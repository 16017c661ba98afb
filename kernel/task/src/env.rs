//! What a kernel lends its files: time, memory, deadlines, sessions, signals.

use alloc::sync::{Arc, Weak};

use base::{Errno, Error, ObjectId, Ready, Result, Subscription, TryResult, Wake, wait::done};
use hal::sync::{SpinLock, rank};
use mm::Memory;
use vfs::{Alarm, AlarmId, Caller, Env, JobControl, env::SignalSource};

use crate::{
    ids::Pid,
    kernel::Kernel,
    process::Process,
    signal::{Origin, SigInfo, SigSet},
    time::{Clock, Expire, Timer},
};

/// See the module.
pub(crate) struct KernelEnv {
    kernel: Weak<Kernel>,
    memory: Arc<Memory>,
    alarms: SpinLock<(u64, alloc::collections::BTreeMap<u64, Timer>)>,
}

impl KernelEnv {
    pub fn of(kernel: &Arc<Kernel>) -> Arc<Self> {
        Arc::new(Self {
            kernel: Arc::downgrade(kernel),
            memory: kernel.memory.clone(),
            alarms: SpinLock::new(rank::WAITERS, (0, alloc::collections::BTreeMap::new())),
        })
    }

    fn kernel(&self) -> Result<Arc<Kernel>> {
        self.kernel.upgrade().ok_or(Error::new(Errno::ESRCH, "the kernel is going away"))
    }

    fn process(&self, caller: &Caller) -> Result<Arc<Process>> {
        self.kernel()?.table.process(Pid(caller.pid)).ok_or(Errno::ESRCH.into())
    }
}

/// An alarm of a file as the timers know it.
struct Ring(Arc<dyn Alarm>);

impl Expire for Ring {
    fn expire(self: Arc<Self>) {
        self.0.clone().ring();
    }
}

impl Env for KernelEnv {
    fn realtime(&self) -> i64 {
        self.kernel.upgrade().map_or(0, |k| k.clocks.realtime())
    }

    fn realtime_deadline(&self, at: i64) -> u64 {
        self.kernel.upgrade().map_or(0, |k| k.clocks.deadline(Clock::Realtime, at))
    }

    fn new_id(&self) -> ObjectId {
        match self.kernel.upgrade() {
            Some(k) => k.new_id(),
            // Nothing can be done with an object of a kernel that is gone.
            None => ObjectId { birth: base::KernelId { index: 0, incarnation: 0 }, serial: 0 },
        }
    }

    fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    fn set_alarm(&self, deadline: u64, alarm: Arc<dyn Alarm>) -> AlarmId {
        let Some(kernel) = self.kernel.upgrade() else { return AlarmId(0, 0, 0) };
        let timer = kernel.timers.set(deadline, Arc::new(Ring(alarm)));
        let mut alarms = self.alarms.lock();
        alarms.0 += 1;
        let id = alarms.0;
        // Those that have rung are forgotten here, so that the list does not grow.
        let now = hal::time::now();
        if alarms.1.len() > 64 {
            alarms.1.retain(|_, t| t.deadline() >= now);
        }
        alarms.1.insert(id, timer);
        AlarmId(id, 0, 0)
    }

    fn cancel_alarm(&self, alarm: AlarmId) -> bool {
        let timer = self.alarms.lock().1.remove(&alarm.0);
        match (timer, self.kernel.upgrade()) {
            (Some(timer), Some(kernel)) => kernel.timers.cancel(timer),
            _ => false,
        }
    }

    fn session(&self, caller: &Caller) -> Result<Arc<dyn JobControl>> {
        let session = self.kernel()?.table.session(Pid(caller.sid));
        session.map(|s| s as Arc<dyn JobControl>).ok_or(Error::new(Errno::ESRCH, "the session is not at home here"))
    }

    fn bring_session(&self, caller: &Caller) -> TryResult<Arc<dyn JobControl>> {
        let kernel = self.kernel()?;
        let (sid, pid) = (Pid(caller.sid), Pid(caller.pid));
        let here = move |kernel: &Kernel| {
            let session = kernel.table.session(sid).map(|s| s as Arc<dyn JobControl>);
            session.ok_or(Error::new(Errno::ESRCH, "the session ended"))
        };
        if let Ok(session) = here(&kernel) {
            return done(session);
        }
        kernel.cluster().fetch_session(sid, pid)?.and_then(move |()| done(here(&kernel)?))
    }

    fn signals(&self, caller: &Caller) -> Result<Arc<dyn SignalSource>> {
        Ok(Arc::new(Signals(Arc::downgrade(&self.process(caller)?))))
    }

    fn log(&self, line: core::fmt::Arguments<'_>) {
        log::info!("{line}");
    }
}

/// Signals of a process for signalfd(2): those of the process and of its first thread.
struct Signals(Weak<Process>);

impl SignalSource for Signals {
    fn take(&self, mask: u64) -> Option<[u8; 128]> {
        let task = self.0.upgrade()?.leader()?;
        task.take_signal(SigSet(mask)).map(|info| encode(&info))
    }

    fn pending(&self, mask: u64) -> bool {
        let task = self.0.upgrade().and_then(|p| p.leader());
        task.is_some_and(|t| !t.pending().and(SigSet(mask)).is_empty())
    }

    fn subscribe(&self, waker: Arc<dyn Wake>) -> Subscription {
        match self.0.upgrade().and_then(|p| p.leader()) {
            Some(task) => task.signal_waiters.subscribe(Ready::IN, waker),
            None => Subscription::never(),
        }
    }
}

/// `struct signalfd_siginfo`, signalfd(2).
fn encode(info: &SigInfo) -> [u8; 128] {
    let mut b = [0_u8; 128];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in b.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(0, &u32::from(info.signal.number()).to_le_bytes());
    put(4, &info.errno.to_le_bytes());
    put(8, &info.code.to_le_bytes());
    match info.origin {
        Origin::Kernel => {}
        Origin::User { pid, uid, value } => {
            put(12, &pid.0.to_le_bytes());
            put(16, &uid.to_le_bytes());
            put(44, &(value as u32).to_le_bytes());
            put(48, &value.to_le_bytes());
        }
        Origin::Timer { id, overrun, value } => {
            put(24, &id.to_le_bytes());
            put(32, &overrun.to_le_bytes());
            put(44, &(value as u32).to_le_bytes());
            put(48, &value.to_le_bytes());
        }
        Origin::Child { pid, uid, status, utime, stime } => {
            put(12, &pid.0.to_le_bytes());
            put(16, &uid.to_le_bytes());
            put(40, &status.to_le_bytes());
            put(56, &utime.to_le_bytes());
            put(64, &stime.to_le_bytes());
        }
        Origin::Fault { addr } => put(72, &addr.to_le_bytes()),
        Origin::Raw(raw) => {
            // As rt_sigqueueinfo(2) lays out SI_QUEUE: pid, uid, value.
            put(12, &raw[0..4]);
            put(16, &raw[4..8]);
            put(44, &raw[8..12]);
            put(48, &raw[8..16]);
        }
    }
    b
}

impl Kernel {
    /// Its files.
    pub fn vfs(self: &Arc<Self>) -> &Arc<vfs::Vfs> {
        self.vfs.get_or_init(|| vfs::Vfs::new(KernelEnv::of(self)))
    }
}
