//! What a kernel does: numbers behind `/proc/stat`, `/proc/meminfo`, `/proc/loadavg` and sysinfo(2), which are of the whole machine.

use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

use base::TryResult;

use crate::kernel::Kernel;

/// CPU time of one CPU since it runs, in ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuLoad {
    /// Its number in the machine.
    pub global: u32,
    /// In programs.
    pub user: u64,
    /// In the kernel, as far as calls are long enough to be measured.
    pub system: u64,
    /// Idle.
    pub idle: u64,
}

/// Memory in pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryLoad {
    /// All.
    pub total: u64,
    /// Free.
    pub free: u64,
    /// Pages of files that can be had again.
    pub cached: u64,
    /// tmpfs and shared memory.
    pub shared: u64,
    /// The kernel's own heap.
    pub heap: u64,
    /// Promised to programs.
    pub committed: u64,
    /// The most that may be promised.
    pub commit_limit: u64,
}

/// What a kernel and the others have told each other on the links that are open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Messages that it sent.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Messages that it received.
    pub received: u64,
    /// Bells that it rang.
    pub doorbells: u64,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Load {
    /// The kernel, by index.
    pub kernel: u16,
    /// Its memory.
    pub memory: MemoryLoad,
    /// Its CPUs.
    pub cpus: Vec<CpuLoad>,
    /// Switches between tasks.
    pub switches: u64,
    /// Interrupts served.
    pub interrupts: u64,
    /// Processes and threads made.
    pub forks: u64,
    /// Tasks that run or wait for a CPU.
    pub running: u64,
    /// Threads.
    pub tasks: u64,
    /// The newest pid in use.
    pub last_pid: u32,
    /// Load averages over 1, 5 and 15 minutes, in 1/2048.
    pub averages: [u64; 3],
    /// Messages.
    pub traffic: Traffic,
}

impl Kernel {
    /// What this kernel does.
    pub fn load(&self) -> Load {
        let m = self.memory.info();
        let times: Vec<_> = (0..hal::cpu::count()).map(|slot| (slot, self.sched.cpu_times(slot))).collect();
        Load {
            kernel: self.id().index,
            memory: MemoryLoad {
                total: m.total as u64,
                free: m.free as u64,
                cached: m.cached.saturating_sub(m.shared) as u64,
                shared: m.shared as u64,
                heap: hal::heap::pages() as u64,
                committed: m.committed as u64,
                commit_limit: m.commit_limit as u64,
            },
            switches: times.iter().map(|(_, t)| t.switches).sum(),
            cpus: times
                .into_iter()
                .map(|(slot, t)| CpuLoad {
                    global: hal::cpu::global_id(slot),
                    user: t.busy.saturating_sub(t.system),
                    system: t.system.min(t.busy),
                    idle: t.idle,
                })
                .collect(),
            interrupts: self.counters.interrupts.load(Relaxed),
            forks: self.counters.forks.load(Relaxed),
            running: self.sched.runnable(),
            tasks: self.table.count() as u64,
            last_pid: self.table.processes().iter().map(|p| p.pid().0).max().unwrap_or(1),
            averages: self.sched.load_average(),
            traffic: self.cluster().traffic(),
        }
    }

    /// What all kernels of the machine do, by index. One that does not answer in time is shown as it was when it last did.
    ///
    /// # Errors
    /// None of its own.
    pub fn loads(&self) -> TryResult<Vec<Load>> {
        let own = self.load();
        Ok(self.cluster().loads()?.map(move |mut all| {
            all.push(own);
            all.sort_by_key(|load| load.kernel);
            all
        }))
    }
}
