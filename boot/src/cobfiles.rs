//! `/proc/cob`: the kernels, links and resources as files (`docs/proc-cob.md`).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::sync::atomic::Ordering;

use base::wait::{TryResult, done};
use base::{Errno, Error, KernelId};
use hal::time::now;
use life::{LifeService, Phase, What};
use membership::Outcome;
use names::NameService;
use plan::{Device, Kernel, Plan};
use procfs::entry::Entry;
use resources::ResourceService;
use task::load::{CpuLoad, Load};
use vfs::Caller;
use wire::Lane;
use wire::resources::order;

use crate::facts::Facts;
use crate::member::{Cluster, Peers};

const MS: u64 = 1_000_000;
/// What the files show.
struct Machine {
    plan: Plan,
    me: KernelId,
    kernel: Arc<task::Kernel>,
    peers: Arc<Peers>,
    owners: Arc<ResourceService>,
    names: Arc<NameService>,
    life: Arc<LifeService>,
    /// When the first instruction of this kernel ran.
    entered: u64,
}

/// Numbers as `0-3,8`.
fn ranges(numbers: impl Iterator<Item = u32>) -> String {
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    let mut text = String::new();
    for run in numbers.chunk_by(|a, b| a + 1 == *b) {
        let comma = if text.is_empty() { "" } else { "," };
        match run {
            [first, .., last] => text += &format!("{comma}{first}-{last}"),
            [only] => text += &format!("{comma}{only}"),
            [] => {}
        }
    }
    if text.is_empty() { "-".to_string() } else { text }
}

impl Machine {
    fn state(&self, member: Option<KernelId>, phase: Option<Phase>) -> &'static str {
        match (member, phase) {
            (Some(_), Some(Phase::Stopping)) => "stopping",
            (Some(id), _) if self.peers.is_suspect(id) => "suspect",
            (Some(_), _) => "up",
            (None, Some(Phase::Booting)) => "booting",
            (None, Some(Phase::Lost)) => "lost",
            // It was up and is not any more; the view without it is on its way.
            (None, Some(Phase::Dead | Phase::Up | Phase::Stopping)) => "dead",
            (None, Some(Phase::Off | Phase::Failed) | None) => "off",
        }
    }

    fn kernels(&self) -> String {
        let view = self.peers.view();
        let mut text = String::from("id incarnation isa cpus memory_bytes state uptime_ms here\n");
        for kernel in &self.plan.kernels {
            let member = view.at(kernel.index).filter(|&id| !self.peers.is_dead(id));
            let row = self.life.row(kernel.index);
            let state = self.state(member, row.map(|row| row.phase));
            let since = member.and_then(|id| self.peers.since(id));
            let uptime = since.map_or("-".to_string(), |since| (now().saturating_sub(since) / MS).to_string());
            // Writing to a string never fails, here and below.
            let _ = writeln!(
                text,
                "{} {} {} {} {} {state} {uptime} {}",
                kernel.index,
                row.map_or(0, |row| row.incarnation),
                kernel.isa.name(),
                ranges(kernel.cpus.iter().map(|c| c.global)),
                kernel.memory_bytes(),
                u8::from(kernel.index == self.me.index),
            );
        }
        text
    }

    fn links(&self) -> String {
        let mut text = String::from("from to transport state messages bytes doorbells polls delayed rtt_ns\n");
        for peer in self.peers.links().peers() {
            let board = |index| self.plan.kernel(index).map(|kernel| kernel.board);
            let near = board(peer.id.index) == board(self.me.index);
            let lanes = Lane::ALL.map(|lane| peer.report(lane));
            let rtt = peer.counters.answers(Lane::Request).within([500]);
            let _ = writeln!(
                text,
                "{} {} {} up {} {} {} {} {} {}",
                self.me.index,
                peer.id.index,
                match (peer.carrier, near) {
                    ("shm", true) => "shm+ipi",
                    ("shm", false) => "shm+ivshmem",
                    (other, _) => other,
                },
                lanes.iter().map(|l| l.sent).sum::<u64>(),
                lanes.iter().map(|l| l.sent_bytes).sum::<u64>(),
                peer.counters.doorbells.load(Ordering::Relaxed),
                peer.counters.polls.load(Ordering::Relaxed),
                peer.counters.delayed.load(Ordering::Relaxed),
                rtt.map_or_else(|| "-".to_string(), |[median]| median.to_string()),
            );
        }
        text
    }

    /// What the carriers count beside messages.
    fn wire(&self) -> String {
        let mut text = String::from("transport what count\n");
        for carrier in self.peers.links().carriers() {
            for (what, count) in carrier.counts() {
                let _ = writeln!(text, "{} {what} {count}", carrier.name());
            }
        }
        text
    }

    fn lanes(&self) -> String {
        let mut text = String::from(
            "from to lane sent sent_bytes received received_bytes depth_bytes waiting answered p50_ns p99_ns p999_ns\n",
        );
        for peer in self.peers.links().peers() {
            for lane in Lane::ALL {
                let (report, answers) = (peer.report(lane), peer.counters.answers(lane));
                let times = answers.within([500, 990, 999]);
                let _ = writeln!(
                    text,
                    "{} {} {} {} {} {} {} {} {} {} {}",
                    self.me.index,
                    peer.id.index,
                    lane.name(),
                    report.sent,
                    report.sent_bytes,
                    report.received,
                    report.received_bytes,
                    report.depth,
                    report.waiting,
                    answers.answered(),
                    times.map_or_else(|| "- - -".to_string(), |[p50, p99, p999]| format!("{p50} {p99} {p999}")),
                );
            }
        }
        text
    }

    fn resources(&self) -> String {
        let mut text = String::from("kind name owner access holder\n");
        for kernel in &self.plan.kernels {
            self.owned(kernel, &mut text);
        }
        text
    }

    /// Which kernel serves what for all.
    fn services(&self) -> String {
        let mut text = String::from("service kernel part of\n");
        let mut one = |name: &str, kernel: Option<KernelId>| {
            let kernel = kernel.map_or_else(|| "-".to_string(), |kernel| kernel.index.to_string());
            let _ = writeln!(text, "{name} {kernel} 1 1");
        };
        one("files", self.owners.owner(cluster::seat::TREE));
        let has = |device| self.plan.kernels.iter().any(|kernel| kernel.has(device));
        for (name, device) in [("console", Device::Com1), ("agent", Device::Agent)] {
            if has(device) {
                one(name, self.owners.owner(cluster::seat::number(device)));
            }
        }
        // Who proposes views, and gives leave to start and stop kernels.
        one("views", self.peers.view().members.into_iter().find(|member| !self.peers.is_dead(*member)));
        for (kernel, shares) in self.names.shares() {
            let _ = writeln!(text, "names {} {shares} {}", kernel.index, self.plan.kernels.len());
        }
        text
    }

    fn owned(&self, kernel: &Kernel, text: &mut String) {
        for cpu in &kernel.cpus {
            let _ = writeln!(text, "cpu {} {} none -", cpu.global, kernel.index);
        }
        for range in &kernel.memory {
            let _ = writeln!(text, "memory {:#x}-{:#x} {} none -", range.start, range.end(), kernel.index);
        }
        for device in &kernel.devices {
            let owner = self.owners.owner(cluster::seat::number(*device));
            let owner = owner.map_or_else(|| "-".to_string(), |kernel| kernel.index.to_string());
            let _ = writeln!(text, "device {} {owner} proxied -", device.name());
        }
    }

    /// When kernels came up, in ns of the machine's clock.
    fn boots(&self) -> String {
        let mut text = String::from("id incarnation entered_ns member_ns\n");
        let shown = |at: Option<u64>| at.filter(|at| *at != 0).map_or_else(|| "-".to_string(), |at| at.to_string());
        for member in self.peers.view().members {
            // What only the kernel itself knows.
            let here = member == self.me;
            let entered = Some(self.entered).filter(|_| here);
            let since = shown(self.peers.since(member));
            let (index, incarnation) = (member.index, member.incarnation);
            let _ = writeln!(text, "{index} {incarnation} {} {since}", shown(entered));
        }
        text
    }

    /// The deaths that this kernel saw, and how long it took until its last service was told.
    fn deaths(&self) -> String {
        let mut text = String::from("id incarnation orderly outcome ended_ns told_ns took_ns\n");
        for death in self.peers.deaths() {
            let (ended, took) = match death.ended {
                Some(at) => (at.to_string(), death.told.saturating_sub(at).to_string()),
                None => ("-".to_string(), "-".to_string()),
            };
            let _ = writeln!(
                text,
                "{} {} {} {} {ended} {} {took}",
                death.kernel.index,
                death.kernel.incarnation,
                u8::from(death.orderly),
                match death.outcome {
                    Outcome::Fenced => "fenced",
                    Outcome::Parked => "parked",
                    Outcome::Lost => "lost",
                },
                death.told
            );
        }
        text
    }

    /// What this kernel uses, for who looks for leaks.
    fn usage(&self) -> String {
        let frames = hal::frame::stats();
        let links = self.peers.links();
        let peers = links.peers();
        let lost: u64 = peers.iter().map(|peer| peer.counters.strangers.load(Ordering::Relaxed)).sum();
        let waiting: u64 = peers.iter().flat_map(|peer| Lane::ALL.map(|lane| peer.report(lane).waiting)).sum();
        format!(
            "frames_total frames_free heap_pages heap_bytes windows links requests waiting lost tasks wakeups\n\
             {} {} {} {} {} {} {} {waiting} {lost} {} {}\n",
            frames.total,
            frames.free,
            hal::heap::pages(),
            hal::heap::used(),
            hal::window::count(),
            peers.len(),
            links.under_way(),
            self.kernel.table.count(),
            self.kernel.sched.wakeups(),
        )
    }

    /// Makes a kernel do `what` to itself.
    fn order(&self, index: u16, what: u8) -> TryResult<()> {
        if index == self.me.index {
            cluster::life::obey(&self.peers, what);
        }
        let target = self.peers.view().at(index).filter(|&id| !self.peers.is_dead(id));
        self.life.command(target.ok_or(Error::new(Errno::EHOSTDOWN, "the kernel is not up"))?, what)
    }
}

/// `/proc/cob/control`.
struct Control(Arc<Machine>);

impl Entry for Control {
    fn read(&self, _: &Caller) -> TryResult<Vec<u8>> {
        Err(Errno::EINVAL.into())
    }

    fn write(&self, caller: &Caller, bytes: &[u8]) -> TryResult<()> {
        if caller.uid != 0 {
            return Err(Errno::EPERM.into());
        }
        let nonsense = || Error::new(Errno::EINVAL, "not a command");
        let mut words = core::str::from_utf8(bytes).map_err(|_| nonsense())?.split_ascii_whitespace();
        let (Some(verb), Some(index), None) = (words.next(), words.next(), words.next()) else {
            return Err(nonsense());
        };
        let index: u16 = index.parse().map_err(|_| nonsense())?;
        if !matches!(verb, "boot" | "stop" | "crash" | "hang") {
            return Err(nonsense());
        }
        if self.0.plan.kernel(index).is_none() {
            return Err(Errno::ENXIO.into());
        }
        match verb {
            "boot" => self.0.life.order(index, What::Boot),
            "stop" => self.0.life.order(index, What::Stop),
            "crash" => self.0.order(index, order::CRASH),
            _ => self.0.order(index, order::HANG),
        }
    }

    fn mode(&self) -> u32 {
        0o200
    }
}

/// How the CPUs of this kernel rest.
fn idle(kernel: &task::Kernel) -> String {
    let mut text = String::from("cpu idle_ms wakeups\n");
    for slot in 0..hal::cpu::count() {
        let times = kernel.sched.cpu_times(slot);
        let _ = writeln!(text, "{} {} {}", hal::cpu::global_id(slot), times.idle / MS, times.wakeups);
    }
    text
}

/// What all kernels do, a row of sums for each.
struct Loads(Arc<task::Kernel>);

impl Loads {
    fn table(loads: &[Load]) -> String {
        let mut text = String::from(
            "id user_ns system_ns idle_ns free_bytes running tasks switches interrupts sent sent_bytes received doorbells\n",
        );
        for load in loads {
            let sum = |of: fn(&CpuLoad) -> u64| load.cpus.iter().map(of).sum::<u64>();
            let _ = writeln!(
                text,
                "{} {} {} {} {} {} {} {} {} {} {} {} {}",
                load.kernel,
                sum(|cpu| cpu.user),
                sum(|cpu| cpu.system),
                sum(|cpu| cpu.idle),
                load.memory.free * hal::addr::PAGE_SIZE as u64,
                load.running,
                load.tasks,
                load.switches,
                load.interrupts,
                load.traffic.sent,
                load.traffic.sent_bytes,
                load.traffic.received,
                load.traffic.doorbells,
            );
        }
        text
    }
}

impl Entry for Loads {
    fn read(&self, _: &Caller) -> TryResult<Vec<u8>> {
        Ok(self.0.loads()?.map(|loads| Self::table(&loads).into_bytes()))
    }
}

/// How long a CPU of this kernel polls for messages before it sleeps.
struct HaltPoll(Arc<Peers>);

impl Entry for HaltPoll {
    fn read(&self, _: &Caller) -> TryResult<Vec<u8>> {
        done(format!("{}\n", self.0.links().halt_poll()).into_bytes())
    }

    fn write(&self, caller: &Caller, bytes: &[u8]) -> TryResult<()> {
        if caller.uid != 0 {
            return Err(Errno::EPERM.into());
        }
        let ns = core::str::from_utf8(bytes).ok().and_then(|text| text.trim().parse().ok());
        let ns = ns.filter(|ns| *ns <= link::polling::LONGEST).ok_or(Error::new(Errno::EINVAL, "not so many ns"))?;
        self.0.links().set_halt_poll(ns);
        done(())
    }

    fn mode(&self) -> u32 {
        0o644
    }
}

/// What this kernel does, noted while somebody wants to know.
struct Trace(Arc<task::Kernel>);

impl Trace {
    /// Records that a CPU keeps unless somebody says how many, and the most.
    const RECORDS: usize = 1 << 14;
    const MOST: usize = 1 << 18;
}

impl Entry for Trace {
    fn read(&self, caller: &Caller) -> TryResult<Vec<u8>> {
        // Others' arguments are in it.
        if caller.uid != 0 {
            return Err(Errno::EPERM.into());
        }
        done(hal::trace::dump())
    }

    fn write(&self, caller: &Caller, bytes: &[u8]) -> TryResult<()> {
        if caller.uid != 0 {
            return Err(Errno::EPERM.into());
        }
        let words: Vec<&str> = core::str::from_utf8(bytes).unwrap_or_default().split_ascii_whitespace().collect();
        match words[..] {
            ["off"] => self.0.stop_trace(),
            ["on"] => self.0.start_trace(Self::RECORDS)?,
            ["on", records] => {
                let records = records.parse().ok().filter(|records| (64..=Self::MOST).contains(records));
                self.0.start_trace(records.ok_or(Error::new(Errno::EINVAL, "not a number of records"))?)?;
            }
            _ => return Err(Error::new(Errno::EINVAL, "neither on nor off")),
        }
        done(())
    }

    fn mode(&self) -> u32 {
        0o600
    }
}

/// Fills `/proc/cob`.
pub fn install(facts: &Arc<Facts>, kernel: &Arc<task::Kernel>, cluster: &Cluster, entered: u64, trees: &procfs::Trees) {
    let me = KernelId { index: facts.info.index, incarnation: facts.info.incarnation };
    let machine = Arc::new(Machine {
        plan: facts.plan.clone(),
        me,
        kernel: kernel.clone(),
        peers: cluster.peers.clone(),
        owners: cluster.resources.clone(),
        names: cluster.names.clone(),
        life: cluster.life.clone(),
        entered,
    });
    let text = facts.text.clone();
    let show = |name: &str, what: fn(&Machine) -> String| {
        let machine = machine.clone();
        trees.cob.text(name, move || what(&machine));
    };
    show("kernels", Machine::kernels);
    show("links", Machine::links);
    show("lanes", Machine::lanes);
    show("resources", Machine::resources);
    show("services", Machine::services);
    show("boots", Machine::boots);
    show("deaths", Machine::deaths);
    show("wire", Machine::wire);
    show("usage", Machine::usage);
    let files = cluster.files.clone();
    trees.cob.text("files", move || {
        let [lent, held, subscriptions, watched, working] = files.counts();
        format!("lent {lent}\nheld {held}\nsubscriptions {subscriptions}\nwatched {watched}\nworking {working}\n")
    });
    trees.cob.text("plan", move || text.clone());
    trees.cob.file("measure", cluster::measure::Measure::new(kernel, &cluster.peers, cluster.reaches.clone()));
    trees.cob.file("trace", Trace(kernel.clone()));
    trees.cob.file("loads", Loads(kernel.clone()));
    trees.cob.file("halt_poll_ns", HaltPoll(cluster.peers.clone()));
    let resting = kernel.clone();
    trees.cob.text("idle", move || idle(&resting));
    trees.cob.file("control", Control(machine.clone()));
    #[cfg(debug_assertions)]
    trees.cob.file("selftest", crate::selftest::SelfTest { kernel: kernel.clone(), facts: facts.clone() });
}
