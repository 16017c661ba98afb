//! `/proc/cob`: the kernels, links and resources as files (`docs/proc-cob.md`).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::sync::atomic::Ordering;

use base::wait::{TryResult, done};
use base::{Errno, Error, KernelId};
use hal::sync::{SpinLock, rank};
use hal::time::now;
use link::{Handler, Incoming, Links};
use membership::{Outcome, Service, View};
use plan::{Kernel, Plan};
use procfs::entry::Entry;
use resources::ResourceService;
use vfs::Caller;
use wire::resources::{Order, OrderDone, order};
use wire::{Lane, ObjectId};

use crate::facts::Facts;
use crate::member::{Cluster, Peers};

const MS: u64 = 1_000_000;
/// How long a kernel has to answer an order, in nanoseconds.
const PATIENCE: u64 = 1000 * MS;

/// Does to this kernel what was ordered.
fn obey(what: u8) -> ! {
    if what == order::CRASH {
        panic!("ordered to crash by /proc/cob/control");
    }
    log::warn!("ordered to hang by /proc/cob/control");
    // Kernels run with interrupts off: nothing ends this.
    loop {
        core::hint::spin_loop();
    }
}

/// Takes orders of other kernels.
pub struct Orders;

impl Handler for Orders {
    fn handle(&self, links: &Links, message: &Incoming<'_>) -> link::Result<()> {
        let (asked, _) = message.read::<Order>()?;
        if !matches!(asked.what, order::CRASH | order::HANG) {
            links.refuse(message.answer_to(), Errno::EINVAL);
            return Ok(());
        }
        links.answer(message.answer_to(), &OrderDone { what: asked.what }, &[])?;
        obey(asked.what)
    }
}

/// Who was seen, and since when: index to the last incarnation and the time at which it entered the view.
struct Seen(SpinLock<BTreeMap<u16, (u32, u64)>>);

impl Seen {
    fn note(&self, view: &View) {
        let mut seen = self.0.lock();
        for member in &view.members {
            let entry = seen.entry(member.index).or_insert((0, 0));
            if entry.0 != member.incarnation {
                *entry = (member.incarnation, now());
            }
        }
    }
}

impl Service for Seen {
    fn peer_down(&self, _: KernelId) {}

    fn view(&self, view: &View) {
        self.note(view);
    }
}

/// What the files show.
struct Machine {
    plan: Plan,
    me: KernelId,
    peers: Arc<Peers>,
    owners: Arc<ResourceService>,
    seen: Arc<Seen>,
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
    fn kernels(&self) -> String {
        let view = self.peers.view();
        let mut text = String::from("id incarnation isa cpus memory_bytes state uptime_ms here\n");
        for kernel in &self.plan.kernels {
            let member = view.at(kernel.index).filter(|&id| !self.peers.is_dead(id));
            let state = match (member, self.peers.outcome(kernel.index)) {
                (Some(_), _) => "up",
                (None, Some(Outcome::Lost)) => "lost",
                (None, Some(_)) => "dead",
                (None, None) => "off",
            };
            let known = self.seen.0.lock().get(&kernel.index).copied();
            let uptime = match (member, known) {
                (Some(_), Some((_, since))) => (now().saturating_sub(since) / MS).to_string(),
                _ => "-".to_string(),
            };
            // Writing to a string never fails, here and below.
            let _ = writeln!(
                text,
                "{} {} {} {} {} {state} {uptime} {}",
                kernel.index,
                known.map_or(0, |(incarnation, _)| incarnation),
                kernel.isa.name(),
                ranges(kernel.cpus.iter().map(|c| c.global)),
                kernel.memory_bytes(),
                u8::from(kernel.index == self.me.index),
            );
        }
        text
    }

    fn links(&self) -> String {
        let mut text = String::from("from to transport state messages bytes doorbells rtt_ns\n");
        for peer in self.peers.links().peers() {
            let lanes = [Lane::Control, Lane::Request, Lane::Reply, Lane::Bulk].map(|lane| peer.report(lane));
            let _ = writeln!(
                text,
                "{} {} shm+ipi up {} {} {} -",
                self.me.index,
                peer.id.index,
                lanes.iter().map(|l| l.sent).sum::<u64>(),
                lanes.iter().map(|l| l.sent_bytes).sum::<u64>(),
                peer.counters.doorbells.load(Ordering::Relaxed),
            );
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

    /// Makes a kernel do `what` to itself.
    fn order(&self, index: u16, what: u8) -> TryResult<()> {
        let down = || Error::new(Errno::EHOSTDOWN, "the kernel is not up");
        if index == self.me.index {
            obey(what);
        }
        let target = self.peers.view().at(index).filter(|&id| !self.peers.is_dead(id)).ok_or_else(down)?;
        let links = self.peers.links();
        let (call, completer) = objects::call::<()>();
        let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
            // Nobody waits any more: there is nothing to undo.
            let _ = completer.complete(match answer {
                Ok(_) => done(()),
                // It was up when asked, and died of this or of something else.
                // It was up when the order went out: its death is what was ordered, and may overtake the answer.
                Err(why) if why.errno == Errno::EHOSTDOWN => done(()),
                Err(why) => Err(why.errno.into()),
            });
        });
        links.request(objects::to_wire(target), ObjectId::NONE, &Order { what }, &[], now() + PATIENCE, then);
        call.into_try()
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
        let what = match verb {
            "crash" => order::CRASH,
            "hang" => order::HANG,
            "boot" | "stop" => return Err(Errno::ENOSYS.into()),
            _ => return Err(nonsense()),
        };
        if self.0.plan.kernel(index).is_none() {
            return Err(Errno::ENXIO.into());
        }
        self.0.order(index, what)
    }

    fn mode(&self) -> u32 {
        0o200
    }
}

/// Fills `/proc/cob`.
pub fn install(facts: &Facts, cluster: &Cluster, trees: &procfs::Trees) {
    let peers = &cluster.peers;
    let seen = Arc::new(Seen(SpinLock::new(rank::LINK, BTreeMap::new())));
    peers.add(seen.clone());
    // Views from before it was added.
    seen.note(&peers.view());
    let me = KernelId { index: facts.info.index, incarnation: facts.info.incarnation };
    let machine = Arc::new(Machine {
        plan: facts.plan.clone(),
        me,
        peers: peers.clone(),
        owners: cluster.resources.clone(),
        seen,
    });
    let (kernels, links, resources, text) = (machine.clone(), machine.clone(), machine.clone(), facts.text.clone());
    trees.cob.text("kernels", move || kernels.kernels());
    trees.cob.text("links", move || links.links());
    trees.cob.text("resources", move || resources.resources());
    trees.cob.text("plan", move || text.clone());
    trees.cob.file("control", Control(machine));
}
