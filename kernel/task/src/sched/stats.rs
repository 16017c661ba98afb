//! Numbers about CPUs for people and `/proc`.

use core::sync::atomic::Ordering;

use super::Sched;

/// The load of the last 1, 5 and 15 minutes, in 1/2048, and when it was last computed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LoadAverage {
    averages: [u64; 3],
    at: u64,
}

/// The numbers of one CPU for `/proc/stat`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTimes {
    /// Nanoseconds idle.
    pub idle: u64,
    /// Nanoseconds not idle since it runs.
    pub busy: u64,
    /// Those of them that were measured in the kernel.
    pub system: u64,
    /// Switches between tasks.
    pub switches: u64,
    /// Sleeps of the idle CPU that an interrupt ended.
    pub wakeups: u64,
}

impl Sched {
    /// The running task spent time in the kernel.
    pub(crate) fn in_kernel(&self, ns: u64) {
        self.cpus.get().system_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// How many tasks run or wait for a CPU.
    pub fn runnable(&self) -> u64 {
        self.cpus
            .iter()
            .map(|c| {
                let run = c.run.lock();
                run.queue.len() as u64 + u64::from(run.running.is_some())
            })
            .sum()
    }

    /// The numbers of one CPU.
    pub fn cpu_times(&self, slot: usize) -> CpuTimes {
        let Some(c) = self.cpus.of(slot) else { return CpuTimes::default() };
        let since = c.idle_since.load(Ordering::Relaxed);
        let now_idle = if since == 0 { 0 } else { hal::time::now().saturating_sub(since) };
        let idle = c.idle_ns.load(Ordering::Relaxed) + now_idle;
        let busy = match c.online_since.load(Ordering::Relaxed) {
            0 => 0,
            since => hal::time::now().saturating_sub(since).saturating_sub(idle),
        };
        let (system, switches) = (c.system_ns.load(Ordering::Relaxed), c.switches.load(Ordering::Relaxed));
        CpuTimes { idle, busy, system, switches, wakeups: c.wakeups.load(Ordering::Relaxed) }
    }

    /// The load averages now, in 1/2048. They are brought up to date when somebody looks: an idle kernel has no tick to do it.
    pub fn load_average(&self) -> [u64; 3] {
        const PERIOD: u64 = 5_000_000_000;
        // exp(-5 s / 1, 5, 15 min) in 1/2048.
        const DECAY: [u64; 3] = [1884, 2014, 2037];
        const MOST: u64 = 1000;
        let active = self.runnable() * 2048;
        let now = hal::time::now();
        let mut load = self.load.lock();
        let mut steps = 0;
        while now.saturating_sub(load.at) >= PERIOD && steps < MOST {
            for (average, decay) in load.averages.iter_mut().zip(DECAY) {
                *average = (*average * decay + active * (2048 - decay)) / 2048;
            }
            load.at += PERIOD;
            steps += 1;
        }
        if steps == MOST {
            load.at = now;
        }
        load.averages
    }
}
