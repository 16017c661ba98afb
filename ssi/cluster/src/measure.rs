//! `/proc/cob/measure`: what a message to a peer costs, and what lies under it. Writing a kernel's index measures (with the name of a figure after it
//! only that), reading gives the last figures.
//!
//! Both kernels take part as they are: the peer's receive path answers, polling or woken by the bell as its idle loop decides. What a message cannot be
//! faster than is measured in the same run: a line of memory that goes to and fro between the same two CPUs, polled or with a bell for each store.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::wait::{Ready, TryResult, Wake as _, done};
use base::{Errno, Error};
use hal::addr::PhysAddr;
use hal::boot::PhysRange;
use hal::frame::FrameRun;
use hal::sync::{SpinLock, rank};
use hal::time::now;
use hal::window::{SharedWindow, WindowToken};
use link::echo::EchoService;
use link::window::{Reach, Ring};
use link::{Handler, Incoming, Links};
use procfs::entry::Entry;
use task::{Kernel, Task};
use vfs::Caller;
use wire::test::{Bounce, Bounced, Echo, Prove, Proved, Tallied, Tally};
use wire::{KernelId, Message as _, ObjectId};

use crate::{Peers, proof};

const MS: u64 = 1_000_000;
const PAGE: u64 = 4096;
/// How long one side waits for the other before it gives up.
const PATIENCE: u64 = 2_000 * MS;
/// Batches per figure; the median counts.
const BATCHES: usize = 9;
/// Round trips in a batch, polled and with sleeps.
const POLLED: u32 = 2_000;
const ASLEEP: u32 = 20;
/// Interrupts are let in after so many polled round trips.
const BREATH: u32 = 64;
/// A CPU that had nothing to do for so long sleeps.
const SLEEP: u64 = 2 * MS;
/// Requests under way at once, and how many in all, in the measurement under load.
const LOAD: (u64, u64) = (32, 20_000);

/// A piece of a peer's memory that it names by the distance from its base, and how far in what is mapped it begins.
pub fn piece(reaches: &[Reach], peer: u16, at: u64, len: u64) -> Option<(SharedWindow, usize)> {
    let reach = reaches.iter().find(|reach| reach.index == peer)?;
    let start = reach.locate(at, len).filter(|start| start.is_multiple_of(8))?;
    let first = start / PAGE * PAGE;
    let range = PhysRange { start: PhysAddr(first), len: (start + len).next_multiple_of(PAGE) - first };
    let window = WindowToken::new(range).and_then(SharedWindow::open).ok()?;
    Some((window, (start - first) as usize))
}

/// `1 << order` pages of this kernel's own for a peer, and where they are.
pub fn own_piece(reaches: &[Reach], me: u16, order: usize) -> base::Result<(SharedWindow, u64)> {
    let base = reaches.iter().find(|reach| reach.index == me).and_then(Reach::base).ok_or(Errno::ENXIO)?;
    let window = SharedWindow::offer(FrameRun::alloc(order).map_err(|_| Errno::ENOMEM)?);
    window.zero(0, window.len());
    let at = window.phys().0.checked_sub(base).ok_or(Errno::ENXIO)?;
    Ok((window, at))
}

/// What rings a peer.
fn bell(reaches: &[Reach], peer: u16) -> Option<Arc<dyn Ring>> {
    reaches.iter().find(|reach| reach.index == peer)?.bell.clone()
}

/// A line that two kernels reach, and the bell of the other one if they ring.
struct Line {
    window: SharedWindow,
    offset: usize,
    bell: Option<Arc<dyn Ring>>,
}

impl Line {
    fn word(&self) -> &AtomicU64 {
        self.window.atomic_u64(self.offset)
    }

    /// Waits until the word is `value`; `false` if that takes too long.
    fn wait(&self, value: u64) -> bool {
        let (word, mut turn, mut start) = (self.word(), 0, 0);
        while word.load(Ordering::Acquire) != value {
            if self.bell.is_some() {
                hal::cpu::idle_wait();
            } else {
                hal::cpu::relax(&mut turn);
                if turn % 256 != 0 {
                    continue;
                }
            }
            match start {
                0 => start = now(),
                since if now() - since > PATIENCE => return false,
                _ => {}
            }
        }
        true
    }

    fn store(&self, value: u64) {
        self.word().store(value, Ordering::Release);
        if let Some(bell) = &self.bell {
            bell.ring();
        }
    }

    /// The asked side: `rounds` answers; how many were made.
    fn answer(&self, rounds: u32) -> u32 {
        for round in 0..rounds {
            if !self.wait(2 * u64::from(round) + 1) {
                return round;
            }
            self.store(2 * u64::from(round) + 2);
            if round % BREATH == 0 {
                hal::cpu::breathe();
            }
        }
        rounds
    }
}

/// Answers what measurements send.
pub struct Tests {
    kernel: Arc<Kernel>,
    links: Weak<Links>,
    reaches: Vec<Reach>,
}

impl Tests {
    /// For a kernel that reaches the others so.
    pub fn new(kernel: &Arc<Kernel>, links: &Arc<Links>, reaches: Vec<Reach>) -> Arc<Self> {
        let (kernel, links) = (kernel.clone(), Arc::downgrade(links));
        Arc::new(Self { kernel, links, reaches })
    }

    /// The line that a peer names, if it is in that peer's memory.
    fn line(&self, peer: u16, at: u64, bells: bool) -> Option<Line> {
        let (window, offset) = piece(&self.reaches, peer, at, 8)?;
        let bell = if bells { Some(bell(&self.reaches, peer)?) } else { None };
        Some(Line { window, offset, bell })
    }

    /// A peer wants to know whether its memory is the same for both.
    fn prove(&self, links: &Links, message: &Incoming<'_>) -> link::Result<()> {
        let to = message.answer_to();
        let (asked, _) = message.read::<Prove>()?;
        let Some((window, offset)) = piece(&self.reaches, message.from.index, asked.at, proof::BYTES) else {
            return Err(link::Error::new(Errno::EFAULT, "not memory of the asker", message.from));
        };
        // It takes too long for the receive path.
        let mine = self.links.clone();
        let started = self.kernel.start_thread("proof", move |_| {
            proof::take_part(&window, offset, proof::Side::Asked);
            drop(window);
            if let Some(links) = mine.upgrade() {
                // An asker that is dead needs no answer.
                let _ = links.answer(to, &Proved {}, &[]);
            }
        });
        if started.is_err() {
            links.refuse(to, Errno::ENOMEM);
        }
        Ok(())
    }

    fn bounce(&self, links: &Links, message: &Incoming<'_>) -> link::Result<()> {
        let to = message.answer_to();
        let (asked, _) = message.read::<Bounce>()?;
        let Some(line) = self.line(message.from.index, asked.at, asked.bells != 0) else {
            return Err(link::Error::new(Errno::EFAULT, "not a line of the asker", message.from));
        };
        // Waiting is not for the receive path.
        let mine = self.links.clone();
        let started = self.kernel.start_thread("bounce", move |_| {
            let rounds = line.answer(asked.rounds);
            // The asker uses its memory again when it has the answer.
            drop(line);
            if let Some(links) = mine.upgrade() {
                // An asker that is dead needs no answer.
                let _ = links.answer(to, &Bounced { rounds }, &[]);
            }
        });
        if started.is_err() {
            links.refuse(to, Errno::ENOMEM);
        }
        Ok(())
    }
}

impl Handler for Tests {
    fn handle(&self, links: &Links, message: &Incoming<'_>) -> link::Result<()> {
        if message.header.kind == Bounce::SPEC.number {
            return self.bounce(links, message);
        }
        if message.header.kind == Prove::SPEC.number {
            return self.prove(links, message);
        }
        if message.header.kind == Tally::SPEC.number {
            let doorbells = links.peer(message.from).map_or(0, |p| p.counters.doorbells.load(Ordering::Relaxed));
            return links.answer(message.answer_to(), &Tallied { doorbells }, &[]);
        }
        EchoService.handle(links, message)
    }
}

/// The file.
pub struct Measure(Arc<Shared>);

struct Shared {
    kernel: Arc<Kernel>,
    peers: Arc<Peers>,
    reaches: Vec<Reach>,
    last: SpinLock<String>,
    busy: AtomicBool,
}

impl Measure {
    /// Of a kernel that reaches the others so.
    pub fn new(kernel: &Arc<Kernel>, peers: &Arc<Peers>, reaches: Vec<Reach>) -> Self {
        Self(Arc::new(Shared {
            kernel: kernel.clone(),
            peers: peers.clone(),
            reaches,
            last: SpinLock::new(rank::INODE_NAMES, String::new()),
            busy: AtomicBool::new(false),
        }))
    }
}

impl Entry for Measure {
    fn read(&self, _: &Caller) -> TryResult<Vec<u8>> {
        done(self.0.last.lock().clone().into_bytes())
    }

    fn write(&self, caller: &Caller, bytes: &[u8]) -> TryResult<()> {
        if caller.uid != 0 {
            return Err(Errno::EPERM.into());
        }
        let text = core::str::from_utf8(bytes).unwrap_or_default();
        let mut words = text.split_ascii_whitespace();
        let index: u16 = words.next().and_then(|t| t.parse().ok()).ok_or(Error::new(Errno::EINVAL, "not a kernel"))?;
        let only = words.next().map(String::from);
        let shared = self.0.clone();
        if index == shared.kernel.id().index || !shared.reaches.iter().any(|reach| reach.index == index) {
            return Err(Error::new(Errno::ENXIO, "not another kernel of the plan"));
        }
        let view = shared.peers.view();
        let peer = view.at(index).ok_or(Error::new(Errno::EHOSTDOWN, "the kernel is not up"))?;
        if shared.busy.swap(true, Ordering::Acquire) {
            return Err(Errno::EBUSY.into());
        }
        let (call, completer) = objects::call::<()>();
        let kernel = shared.kernel.clone();
        let started = kernel.start_thread("measure", move |thread| {
            let run = Run { shared: &shared, peer: objects::to_wire(peer), thread };
            let result = run.all(only.as_deref()).map(|text| *shared.last.lock() = text);
            shared.busy.store(false, Ordering::Release);
            // Nobody waits any more: the figures can be read all the same.
            let _ = completer.complete(result.and_then(done));
        });
        if let Err(why) = started {
            self.0.busy.store(false, Ordering::Release);
            return Err(why);
        }
        call.into_try()
    }

    fn mode(&self) -> u32 {
        0o644
    }
}

/// One measurement.
struct Run<'a> {
    shared: &'a Shared,
    peer: KernelId,
    thread: &'a Arc<Task>,
}

/// A request under way.
#[derive(Default)]
struct Pending(AtomicU64);

impl Pending {
    const ANSWERED: u64 = 1;
    const FAILED: u64 = 2;

    fn end(&self, good: bool) {
        self.0.store(if good { Self::ANSWERED } else { Self::FAILED }, Ordering::Release);
    }

    /// Whether it was answered; `None` while it is under way.
    fn get(&self) -> Option<bool> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            how => Some(how == Self::ANSWERED),
        }
    }
}

fn silent() -> Error {
    Error::new(Errno::ETIMEDOUT, "the peer does not answer")
}

impl Run<'_> {
    fn links(&self) -> &Arc<Links> {
        self.shared.peers.links()
    }

    /// All figures, or only the one with this name.
    fn all(&self, only: Option<&str>) -> base::Result<String> {
        let mut figures: [(&str, u32, Vec<u64>); 6] = [
            ("line", POLLED, Vec::new()),
            ("echo", POLLED, Vec::new()),
            ("echo_4k", POLLED, Vec::new()),
            ("call", POLLED, Vec::new()),
            ("bell", ASLEEP, Vec::new()),
            ("echo_asleep", ASLEEP, Vec::new()),
        ];
        let page = [0x5a; PAGE as usize];
        // In turns, so that whatever disturbs the machine disturbs all of them.
        for _ in 0..BATCHES {
            for (name, rounds, times) in figures.iter_mut().filter(|(name, ..)| only.is_none_or(|only| only == *name)) {
                times.push(match *name {
                    "line" => self.line(*rounds, false)?,
                    "bell" => self.line(*rounds, true)?,
                    "echo" => self.echo(*rounds, &[])?,
                    "echo_4k" => self.echo(*rounds, &page)?,
                    "call" => self.call(*rounds)?,
                    _ => self.asleep(*rounds)?,
                });
            }
        }
        let mut text = String::new();
        for (name, rounds, mut times) in figures {
            times.sort_unstable();
            let Some(median) = times.get(times.len() / 2) else { continue };
            let hundredths = median * 100 / u64::from(rounds);
            text += &format!("row {name} {}.{:02} {rounds}\n", hundredths / 100, hundredths % 100);
        }
        if only.is_none_or(|only| only == "load") {
            text += &self.load()?;
        }
        Ok(text)
    }

    /// Sends a request and does `wait` until it is ended; `keep` is held until then.
    fn ask<M: wire::Request>(&self, message: &M, keep: impl Send + 'static, wait: impl Fn()) -> base::Result<()> {
        let pending = Arc::new(Pending::default());
        self.begin(message, &pending, keep);
        while pending.get().is_none() {
            wait();
        }
        if pending.get() == Some(true) { Ok(()) } else { Err(silent()) }
    }

    fn begin<M: wire::Request>(&self, message: &M, pending: &Arc<Pending>, keep: impl Send + 'static) {
        let (ended, thread) = (pending.clone(), self.thread.clone());
        let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
            drop(keep);
            ended.end(answer.is_ok());
            thread.wake(Ready::all());
        });
        self.links().request(self.peer, ObjectId::NONE, message, &[], now() + 4 * PATIENCE, then);
    }

    /// Sleeps until something happens.
    fn park(&self) {
        self.thread.park();
    }

    /// Round trips of a line of memory, in ns for all.
    fn line(&self, rounds: u32, bells: bool) -> base::Result<u64> {
        const FIRST: u32 = 4;
        let (window, at) = own_piece(&self.shared.reaches, self.shared.kernel.id().index, 0)?;
        let bell = if bells { Some(bell(&self.shared.reaches, self.peer.index).ok_or(Errno::ENXIO)?) } else { None };
        let line = Line { window: window.clone(), offset: 0, bell };
        let pending = Arc::new(Pending::default());
        let message = Bounce { at, rounds: FIRST + rounds, bells: u8::from(bells) };
        // The peer may use the window until it has answered, whatever happens here.
        self.begin(&message, &pending, window);
        let mut start = 0;
        for round in 0..FIRST + rounds {
            if round == FIRST {
                start = now();
            }
            line.store(2 * u64::from(round) + 1);
            if !line.wait(2 * u64::from(round) + 2) {
                return Err(silent());
            }
            if round % BREATH == 0 {
                hal::cpu::breathe();
            }
        }
        let time = now() - start;
        while pending.get().is_none() {
            self.thread.begin_wait();
            if pending.get().is_none() {
                self.park();
            }
        }
        if pending.get() == Some(true) { Ok(time) } else { Err(silent()) }
    }

    /// Round trips of a message, both sides polling.
    fn echo(&self, rounds: u32, payload: &[u8]) -> base::Result<u64> {
        let round_trips = |count: u32| {
            let (mut turn, deadline) = (0_u32, now() + PATIENCE);
            let go_on = || {
                turn = turn.wrapping_add(1);
                if turn.is_multiple_of(16 * BREATH) {
                    hal::cpu::breathe();
                    return now() < deadline;
                }
                true
            };
            link::echo::round_trips(self.links(), self.peer, count.into(), payload, deadline, go_on)
                .map_err(|e| e.errno)
        };
        // The first ones make the peer poll.
        round_trips(8)?;
        let start = now();
        round_trips(rounds)?;
        Ok(now() - start)
    }

    /// Round trips of a message by a task that sleeps until the answer wakes it.
    fn call(&self, rounds: u32) -> base::Result<u64> {
        let start = now();
        for value in 0..rounds {
            self.thread.begin_wait();
            self.ask(&Echo { value: u64::from(value) }, (), || {
                self.park();
                self.thread.begin_wait();
            })?;
        }
        Ok(now() - start)
    }

    /// Round trips of a message between CPUs that sleep.
    fn asleep(&self, rounds: u32) -> base::Result<u64> {
        let mut time = 0;
        for value in 0..rounds {
            self.thread.park_until(now() + SLEEP);
            let start = now();
            self.ask(&Echo { value: u64::from(value) }, (), hal::cpu::idle_wait)?;
            time += now() - start;
        }
        Ok(time)
    }

    /// Many requests under way: the time of one, and bells per message, both directions.
    fn load(&self) -> base::Result<String> {
        let rung = || self.links().peer(self.peer).map_or(0, |p| p.counters.doorbells.load(Ordering::Relaxed));
        let before = rung() + self.tally()?;
        let (under_way, total) = LOAD;
        let (answered, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (mut sent, mut turn) = (0, 0_u32);
        let start = now();
        self.links().watch(|_| {
            while sent < total && sent - answered.load(Ordering::Acquire) < under_way {
                let (answered, failed) = (answered.clone(), failed.clone());
                let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
                    failed.fetch_or(answer.is_err(), Ordering::Relaxed);
                    answered.fetch_add(1, Ordering::Release);
                });
                let message = Echo { value: sent };
                self.links().request(self.peer, ObjectId::NONE, &message, &[], now() + PATIENCE, then);
                sent += 1;
            }
            turn += 1;
            if turn.is_multiple_of(16 * BREATH) {
                hal::cpu::breathe();
            }
            answered.load(Ordering::Acquire) < total
        });
        let time = now() - start;
        if failed.load(Ordering::Relaxed) || answered.load(Ordering::Acquire) < total {
            return Err(silent());
        }
        let bells = (rung() + self.tally()?).saturating_sub(before);
        // A request and its answer are two messages.
        let (ns, millionths) = (time / total, bells * 1_000_000 / (2 * total));
        Ok(format!(
            "row load {ns}.00 {total}\nrow doorbells {}.{:06} {total}\n",
            millionths / 1_000_000,
            millionths % 1_000_000
        ))
    }

    /// How often the peer rang this kernel.
    fn tally(&self) -> base::Result<u64> {
        let (answer, pending) = (Arc::new(AtomicU64::new(0)), Arc::new(Pending::default()));
        let (to, ended, thread) = (answer.clone(), pending.clone(), self.thread.clone());
        let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
            let read = answer.and_then(|incoming| incoming.read::<Tallied>().map(|(tallied, _)| tallied.doorbells));
            to.store(*read.as_ref().unwrap_or(&0), Ordering::Relaxed);
            ended.end(read.is_ok());
            thread.wake(Ready::all());
        });
        self.links().request(self.peer, ObjectId::NONE, &Tally {}, &[], now() + PATIENCE, then);
        loop {
            self.thread.begin_wait();
            match pending.get() {
                None => self.park(),
                Some(true) => return Ok(answer.load(Ordering::Relaxed)),
                Some(false) => return Err(silent()),
            }
        }
    }
}
