//! The asking side: one measurement.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base::wait::{Ready, Wake as _};
use base::{Errno, Error};
use hal::time::now;
use link::lock::Lock;
use link::{Incoming, Links};
use task::Task;
use wire::test::{Bounce, Echo, EchoReply, Report, Reported, Said, Tallied, Tally};
use wire::{KernelId, ObjectId};

use super::line::{Line, bell, own_piece};
use super::{BREATH, MS, PATIENCE, Shared, content};

/// Batches per figure, in turns; the median counts.
const BATCHES: usize = 9;
/// Round trips in a batch, polled and with sleeps.
const POLLED: u32 = 2_000;
const ASLEEP: u32 = 170;
/// The most rounds that may be asked for, and those of which each is kept.
const MOST: u32 = 10_000_000;
const MOST_KEPT: u32 = 100_000;
/// A CPU that had nothing to do for so long sleeps.
const SLEEP: u64 = 2 * MS;
/// Requests under way at once where contents are compared: the lanes run full, and messages wait for room.
const CROWD: u64 = 512;
/// Requests under way at once, and how many in all unless somebody says how many.
pub const UNDER_WAY: u64 = 32;
const LOAD: u32 = 20_000;
/// The task lets others run after so many of them.
const SHIFT: u64 = 20_000;
/// The longest pause before a question to a sleeper: it meets the peer in every stage of going to sleep.
const PAUSE: u64 = 20_000;
/// Bells are counted after so many questions; each should have cost one, or one both ways.
const COUNTED: u64 = 1_024;

const PAGE: [u8; 4096] = [0x5a; 4096];

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Figure {
    Line,
    Echo,
    Echo4k,
    Call,
    Bell,
    EchoAsleep,
    Load,
    Skew,
    Bulk,
    Spread,
    Order,
    Wakeups,
    Group,
}

impl Figure {
    /// Those of which batches are made in turns, so that whatever disturbs the machine disturbs all of them.
    const IN_TURNS: [Self; 6] = [Self::Line, Self::Echo, Self::Echo4k, Self::Call, Self::Bell, Self::EchoAsleep];
    /// Those that are made once.
    const ONCE: [Self; 7] = [Self::Load, Self::Skew, Self::Bulk, Self::Spread, Self::Order, Self::Wakeups, Self::Group];

    const fn name(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Echo => "echo",
            Self::Echo4k => "echo_4k",
            Self::Call => "call",
            Self::Bell => "bell",
            Self::EchoAsleep => "echo_asleep",
            Self::Load => "load",
            Self::Skew => "skew",
            Self::Bulk => "bulk",
            Self::Spread => "spread",
            Self::Order => "order",
            Self::Wakeups => "wakeups",
            Self::Group => "group",
        }
    }

    /// Rounds (in a batch) unless somebody says how many.
    const fn rounds(self) -> u32 {
        match self {
            Self::Line | Self::Echo | Self::Echo4k | Self::Call | Self::Skew | Self::Spread => POLLED,
            Self::Bulk | Self::Bell | Self::EchoAsleep => ASLEEP,
            Self::Load | Self::Order | Self::Wakeups | Self::Group => LOAD,
        }
    }

    /// Whether both kernels must see each other's memory.
    const fn needs_memory(self) -> bool {
        matches!(self, Self::Line | Self::Bell | Self::Bulk)
    }

    /// Whether each round is kept, because a mean says nothing of sleepers.
    const fn keeps(self) -> bool {
        matches!(self, Self::Bell | Self::EchoAsleep)
    }

    /// Proofs, and what takes long, are made when they are asked for.
    const fn is_extra(self) -> bool {
        matches!(self, Self::Spread | Self::Order | Self::Wakeups | Self::Group)
    }
}

/// What to measure.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    only: Option<Figure>,
    rounds: Option<u32>,
}

impl Order {
    /// From `K [NAME [COUNT]]`: the kernel's index, and the rest.
    pub fn parse(text: &str) -> base::Result<(u16, Self)> {
        let mut words = text.split_ascii_whitespace();
        let index = words.next().and_then(|t| t.parse().ok()).ok_or(Error::new(Errno::EINVAL, "not a kernel"))?;
        let only = match words.next() {
            None => None,
            Some(name) => {
                let mut all = Figure::IN_TURNS.into_iter().chain(Figure::ONCE);
                Some(all.find(|figure| figure.name() == name).ok_or(Error::new(Errno::EINVAL, "no such figure"))?)
            }
        };
        let most = if only.is_some_and(Figure::keeps) { MOST_KEPT } else { MOST };
        let rounds = match words.next() {
            None => None,
            Some(count) => {
                let count = count.parse().ok().filter(|count| (1..=most).contains(count));
                Some(count.ok_or(Error::new(Errno::EINVAL, "not a number of rounds"))?)
            }
        };
        if words.next().is_some() {
            return Err(Error::new(Errno::EINVAL, "too many words"));
        }
        Ok((index, Self { only, rounds }))
    }

    fn has(self, figure: Figure) -> bool {
        self.only.map_or(!figure.is_extra(), |only| only == figure)
    }

    fn rounds(self, figure: Figure) -> u32 {
        self.rounds.unwrap_or(figure.rounds())
    }
}

/// One measurement.
pub struct Run<'a> {
    pub shared: &'a Shared,
    pub peer: KernelId,
    pub thread: &'a Arc<Task>,
}

/// A request under way.
#[derive(Default)]
pub struct Pending(AtomicU64);

impl Pending {
    const ANSWERED: u64 = 1;
    const FAILED: u64 = 2;

    /// That is how it ended.
    pub fn end(&self, good: bool) {
        self.0.store(if good { Self::ANSWERED } else { Self::FAILED }, Ordering::Release);
    }

    /// Whether it was answered; `None` while it is under way.
    pub fn get(&self) -> Option<bool> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            how => Some(how == Self::ANSWERED),
        }
    }
}

/// How answers to many requests came.
#[derive(Default)]
struct Answers {
    /// The value that the next one must have.
    next: AtomicU64,
    failed: AtomicBool,
    /// One was not the next, or not what was sent.
    wrong: AtomicBool,
}

/// The peer has not answered.
pub fn silent() -> Error {
    Error::new(Errno::ETIMEDOUT, "the peer does not answer")
}

/// A line of the file: hundredths of nanoseconds.
pub fn row(name: &str, hundredths: u64, count: u64) -> String {
    format!("row {name} {}.{:02} {count}\n", hundredths / 100, hundredths % 100)
}

/// The time of one of many rounds, in hundredths of nanoseconds.
fn each(time: u64, rounds: u32) -> Vec<u64> {
    alloc::vec![time * 100 / u64::from(rounds)]
}

impl Run<'_> {
    pub(super) fn links(&self) -> &Arc<Links> {
        self.shared.peers.links()
    }

    /// Does what was ordered; what the file says then.
    pub fn all(&self, order: Order) -> base::Result<String> {
        let seen = self.shared.reaches.iter().any(|reach| reach.index == self.peer.index);
        if order.only.is_some_and(Figure::needs_memory) && !seen {
            return Err(Error::new(Errno::EOPNOTSUPP, "the kernels share no memory"));
        }
        let mut figures: Vec<_> = Figure::IN_TURNS
            .into_iter()
            .filter(|figure| seen || !figure.needs_memory())
            .map(|f| (f, Vec::new()))
            .collect();
        for _ in 0..if order.rounds.is_some() { 1 } else { BATCHES } {
            for (figure, times) in figures.iter_mut().filter(|(figure, _)| order.has(*figure)) {
                let rounds = order.rounds(*figure);
                times.extend(match figure {
                    Figure::Line => self.line(rounds)?,
                    Figure::Bell => self.bells(rounds)?,
                    Figure::Echo => self.echo(rounds, &[])?,
                    Figure::Echo4k => self.echo(rounds, &PAGE)?,
                    Figure::Call => self.call(rounds)?,
                    _ => self.asleep(rounds)?,
                });
            }
        }
        let mut text = String::new();
        for (figure, mut times) in figures {
            times.sort_unstable();
            if let Some(median) = times.get(times.len() / 2) {
                text += &row(figure.name(), *median, order.rounds(figure).into());
            }
        }
        for figure in Figure::ONCE.into_iter().filter(|figure| order.has(*figure) && (seen || !figure.needs_memory())) {
            let rounds = order.rounds(figure);
            text += &match figure {
                Figure::Load => self.load(rounds)?,
                Figure::Skew => self.skew(rounds)?,
                Figure::Bulk => self.bulk(rounds)?,
                Figure::Spread => self.spread(rounds)?,
                Figure::Order => self.order(rounds)?,
                Figure::Group => self.group(rounds)?,
                _ => self.wakeups(rounds)?,
            };
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

    /// A question whose asker sleeps until the answer wakes it.
    fn ask_and_sleep(&self, value: u64) -> base::Result<()> {
        self.thread.begin_wait();
        self.ask(&Echo { value }, (), || {
            self.park();
            self.thread.begin_wait();
        })
    }

    /// Bounces a line of memory; `round_done` is called after each round.
    fn bounce(&self, rounds: u32, bells: bool, mut round_done: impl FnMut(u32)) -> base::Result<()> {
        let (window, at) = own_piece(&self.shared.reaches, self.shared.kernel.id().index, 0)?;
        let bell = if bells { Some(bell(&self.shared.reaches, self.peer.index).ok_or(Errno::ENXIO)?) } else { None };
        let line = Line { window: window.clone(), offset: 0, bell };
        let pending = Arc::new(Pending::default());
        let message = Bounce { at, rounds, bells: u8::from(bells) };
        // The peer may use the window until it has answered, whatever happens here.
        self.begin(&message, &pending, window);
        for round in 0..rounds {
            line.store(2 * u64::from(round) + 1);
            if !line.wait(2 * u64::from(round) + 2) {
                return Err(silent());
            }
            round_done(round);
            if round % BREATH == 0 {
                hal::cpu::breathe();
            }
        }
        while pending.get().is_none() {
            self.thread.begin_wait();
            if pending.get().is_none() {
                self.park();
            }
        }
        if pending.get() == Some(true) { Ok(()) } else { Err(silent()) }
    }

    /// Round trips of a line of memory.
    fn line(&self, rounds: u32) -> base::Result<Vec<u64>> {
        const FIRST: u32 = 4;
        let (mut start, mut end) = (0, 0);
        self.bounce(FIRST + rounds, false, |round| match round + 1 {
            FIRST => start = now(),
            done if done == FIRST + rounds => end = now(),
            _ => {}
        })?;
        Ok(each(end - start, rounds))
    }

    /// The same between CPUs that sleep: each round.
    fn bells(&self, rounds: u32) -> base::Result<Vec<u64>> {
        let (mut times, mut last) = (Vec::with_capacity(rounds as usize), 0);
        // The first one meets the peer before it sleeps.
        self.bounce(rounds + 1, true, |_| {
            let now = now();
            if last > 0 {
                times.push((now - last) * 100);
            }
            last = now;
        })?;
        Ok(times)
    }

    /// Round trips of a message, both sides polling.
    fn echo(&self, rounds: u32, payload: &[u8]) -> base::Result<Vec<u64>> {
        /// So many are waited for together.
        const PORTION: u32 = 100;
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
        for done in (0..rounds).step_by(PORTION as usize) {
            round_trips(PORTION.min(rounds - done))?;
        }
        Ok(each(now() - start, rounds))
    }

    /// Round trips of a message by a task that sleeps until the answer wakes it.
    fn call(&self, rounds: u32) -> base::Result<Vec<u64>> {
        let start = now();
        for value in 0..rounds {
            self.ask_and_sleep(value.into())?;
        }
        Ok(each(now() - start, rounds))
    }

    /// Round trips of a message between CPUs that sleep: each.
    fn asleep(&self, rounds: u32) -> base::Result<Vec<u64>> {
        let mut times = Vec::with_capacity(rounds as usize);
        for value in 0..rounds {
            self.sleep_long();
            let start = now();
            self.ask(&Echo { value: u64::from(value) }, (), hal::cpu::idle_wait)?;
            times.push((now() - start) * 100);
        }
        Ok(times)
    }

    /// Until both CPUs sleep.
    pub(super) fn sleep_long(&self) {
        self.thread.park_until(now() + SLEEP);
    }

    /// Polls while `go_on` says so; if another CPU of this kernel receives, that one hands on what comes.
    pub(super) fn receive_while(&self, mut go_on: impl FnMut() -> bool) {
        let mut turn = 0;
        if !self.links().watch(|_| go_on()) {
            while go_on() {
                hal::cpu::relax(&mut turn);
            }
        }
    }

    /// Many requests under way, with what `payload` gives each; every answer must be that of the oldest one.
    fn flood<P: Iterator<Item = u8> + 'static>(
        &self,
        values: Range<u64>,
        under_way: u64,
        payload: fn(u64) -> P,
    ) -> base::Result<()> {
        let answers = Arc::new(Answers::default());
        answers.next.store(values.start, Ordering::Relaxed);
        let (mut sent, mut turn, mut bytes) = (values.start, 0_u32, Vec::new());
        self.receive_while(|| {
            while sent < values.end && sent - answers.next.load(Ordering::Acquire) < under_way {
                let answers = answers.clone();
                let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
                    let next = answers.next.load(Ordering::Relaxed);
                    match answer.and_then(|incoming| incoming.read::<EchoReply>()) {
                        Ok((reply, came)) => {
                            let good = reply.value == next && came.iter().copied().eq(payload(next));
                            answers.wrong.fetch_or(!good, Ordering::Relaxed);
                        }
                        Err(_) => answers.failed.store(true, Ordering::Relaxed),
                    }
                    answers.next.store(next + 1, Ordering::Release);
                });
                bytes.clear();
                bytes.extend(payload(sent));
                let message = Echo { value: sent };
                self.links().request(self.peer, ObjectId::NONE, &message, &bytes, now() + PATIENCE, then);
                sent += 1;
            }
            turn += 1;
            if turn.is_multiple_of(16 * BREATH) {
                hal::cpu::breathe();
            }
            answers.next.load(Ordering::Acquire) < values.end
        });
        if answers.wrong.load(Ordering::Relaxed) {
            return Err(Error::new(Errno::EBADMSG, "an answer was lost, doubled, out of order or not what was sent"));
        }
        if answers.failed.load(Ordering::Relaxed) || answers.next.load(Ordering::Acquire) < values.end {
            return Err(silent());
        }
        Ok(())
    }

    /// Many requests under way: the time of one, and bells per message, both directions.
    fn load(&self, total: u32) -> base::Result<String> {
        let total = u64::from(total);
        let before = self.rung()?;
        let start = now();
        self.flood(0..total, UNDER_WAY, |_| core::iter::empty())?;
        let time = now() - start;
        let bells = self.rung()?.saturating_sub(before);
        // A request and its answer are two messages.
        let millionths = bells * 1_000_000 / (2 * total);
        let doorbells = format!("row doorbells {}.{:06} {total}\n", millionths / 1_000_000, millionths % 1_000_000);
        Ok(row("load", time * 100 / total, total) + &doorbells)
    }

    /// So many messages, half of them requests and half answers, whose content and order is compared.
    fn order(&self, messages: u32) -> base::Result<String> {
        let total = u64::from(messages).div_ceil(2);
        let (mut sent, start) = (0, now());
        while sent < total {
            let end = total.min(sent + SHIFT);
            self.flood(sent..end, CROWD, content)?;
            sent = end;
            // Others want to run, too.
            self.thread.park_until(now());
        }
        Ok(row("order", (now() - start) * 100 / total, 2 * total))
    }

    /// Questions to a sleeper by a sleeper until so many bells have been rung. One that is not heard is a question that nobody answers.
    fn wakeups(&self, bells: u32) -> base::Result<String> {
        let (before, start) = (self.rung()?, now());
        let (mut value, mut rung) = (0, 0);
        // Whoever polls is not rung for: then there is an end all the same.
        while rung < u64::from(bells) && value < 4 * u64::from(bells) {
            for _ in 0..COUNTED {
                value += 1;
                let (until, mut turn) = (now() + value.wrapping_mul(0x9e37_79b9_7f4a_7c15) % PAUSE, 0);
                while now() < until {
                    hal::cpu::relax(&mut turn);
                }
                self.ask_and_sleep(value)?;
            }
            rung = self.rung()?.saturating_sub(before);
        }
        Ok(row("wakeups", (now() - start) * 100 / value, rung))
    }

    /// So many messages that are said to all members of the view at once, each written once; then each is asked what it has heard. Nobody is hurried.
    fn group(&self, messages: u32) -> base::Result<String> {
        const HURRY: u64 = 60_000 * MS;
        let links = self.links();
        let me = links.me();
        let others: Vec<KernelId> =
            self.shared.peers.view().members.iter().map(|k| objects::to_wire(*k)).filter(|k| *k != me).collect();
        let group = links.open_group("test", HURRY).map_err(|e| e.errno)?;
        let said = self.say_to_all(group, &others, messages);
        links.close_group(group);
        said
    }

    fn say_to_all(&self, group: u32, others: &[KernelId], messages: u32) -> base::Result<String> {
        let links = self.links();
        for kernel in others {
            links.invite(group, *kernel).map_err(|e| e.errno)?;
        }
        let end = now() + 10 * PATIENCE;
        self.until(end, || links.listeners(group) as usize == others.len())?;
        let start = now();
        for number in 0..u64::from(messages) {
            let payload: Vec<u8> = content(number).collect();
            // Too much waits for somebody.
            while let Err(error) = links.say(group, ObjectId::NONE, &Said { number }, &payload) {
                if error.errno != Errno::ENOBUFS {
                    return Err(error.errno.into());
                }
                self.thread.park_until(now() + MS);
            }
        }
        for kernel in others {
            let end = now() + 10 * PATIENCE;
            loop {
                let heard: Reported = self.question(*kernel, &Report {})?;
                if heard.wrong != 0 || heard.missed != 0 {
                    return Err(Error::new(
                        Errno::EBADMSG,
                        "what was said to all was lost, doubled, out of order or not what was said",
                    ));
                }
                if heard.next == u64::from(messages) {
                    break;
                }
                if now() > end {
                    return Err(silent());
                }
                self.thread.park_until(now() + MS);
            }
        }
        let time = (now() - start) * 100 / u64::from(messages);
        Ok(row("group", time, messages.into()) + &row("listeners", 100 * others.len() as u64, others.len() as u64))
    }

    /// Sleeps until something is so.
    fn until(&self, end: u64, is_so: impl Fn() -> bool) -> base::Result<()> {
        while !is_so() {
            if now() > end {
                return Err(silent());
            }
            self.thread.park_until(now() + MS);
        }
        Ok(())
    }

    /// By how much the clocks of the two kernels differ, from the quickest of many round trips: the peer's time, which its answer carries, against the
    /// middle of the own ones, and how far that can be from the truth. (Receiving steps a clock forward that is behind, so the peer's time is never
    /// outside of the own ones.)
    fn skew(&self, rounds: u32) -> base::Result<String> {
        #[derive(Default)]
        struct Heard {
            theirs: AtomicU64,
            /// When it came; 0: not yet.
            at: AtomicU64,
            failed: AtomicBool,
        }
        let heard = Arc::new(Heard::default());
        let (mut asked, mut left, mut turn) = (0, rounds, 0_u32);
        let mut best: Option<(u64, u64)> = None;
        self.receive_while(|| {
            let came = heard.at.swap(0, Ordering::Acquire);
            if came > 0 {
                let (trip, middle) = (came - asked, u64::midpoint(came, asked));
                let off = heard.theirs.load(Ordering::Relaxed).abs_diff(middle);
                best = Some(best.map_or((trip, off), |best| best.min((trip, off))));
                asked = 0;
            }
            if asked == 0 {
                if left == 0 || heard.failed.load(Ordering::Relaxed) {
                    return false;
                }
                left -= 1;
                let answered = heard.clone();
                let then = Box::new(move |links: &Links, answer: link::Result<Incoming<'_>>| {
                    match answer {
                        Ok(answer) => answered.theirs.store(answer.header.clock, Ordering::Relaxed),
                        Err(_) => answered.failed.store(true, Ordering::Relaxed),
                    }
                    answered.at.store(links.now(), Ordering::Release);
                });
                asked = now();
                let message = Echo { value: left.into() };
                self.links().request(self.peer, ObjectId::NONE, &message, &[], now() + PATIENCE, then);
            }
            turn += 1;
            if turn.is_multiple_of(16 * BREATH) {
                hal::cpu::breathe();
            }
            true
        });
        match best {
            Some((trip, off)) if !heard.failed.load(Ordering::Relaxed) => {
                Ok(row("skew", off * 100, rounds.into()) + &row("skew_error", trip * 50, rounds.into()))
            }
            _ => Err(silent()),
        }
    }

    /// Bells that the two kernels rang for each other.
    fn rung(&self) -> base::Result<u64> {
        let own = self.links().peer(self.peer).map_or(0, |p| p.counters.doorbells.load(Ordering::Relaxed));
        Ok(own + self.tally()?)
    }

    /// How often the peer rang this kernel.
    fn tally(&self) -> base::Result<u64> {
        Ok(self.question::<_, Tallied>(self.peer, &Tally {})?.doorbells)
    }

    /// Asks a kernel something, and sleeps until it has answered.
    pub(super) fn question<M: wire::Request, R: wire::Message + Send + 'static>(
        &self,
        peer: KernelId,
        message: &M,
    ) -> base::Result<R> {
        let (answer, pending) = (Arc::new(Lock::new(None)), Arc::new(Pending::default()));
        let (to, ended, thread) = (answer.clone(), pending.clone(), self.thread.clone());
        let then = Box::new(move |_: &Links, answer: link::Result<Incoming<'_>>| {
            let read = answer.and_then(|incoming| incoming.read::<R>().map(|(read, _)| read)).ok();
            let good = read.is_some();
            *to.lock() = read;
            ended.end(good);
            thread.wake(Ready::all());
        });
        self.links().request(peer, ObjectId::NONE, message, &[], now() + 4 * PATIENCE, then);
        loop {
            self.thread.begin_wait();
            if pending.get().is_some() {
                return answer.lock().take().ok_or_else(silent);
            }
            self.park();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::format;
    use std::vec::Vec;

    use base::Errno;

    use super::{Figure, MOST, MOST_KEPT, Order, content};

    #[test]
    fn orders_are_read() {
        let (index, order) = Order::parse("3\n").expect("a kernel");
        assert_eq!((index, order.only, order.rounds), (3, None, None));
        assert!(order.has(Figure::Line) && order.has(Figure::Skew) && !order.has(Figure::Order));
        let (_, order) = Order::parse("1 wakeups 1000").expect("a proof");
        assert!(order.has(Figure::Wakeups) && !order.has(Figure::Line));
        assert_eq!(order.rounds(Figure::Wakeups), 1000);
        let too_many = [format!("1 line {}", MOST + 1), format!("1 bell {}", MOST_KEPT + 1)];
        for bad in ["", "x", "1 nothing", "1 line 0", "1 line x", "1 line 5 6", "70000"] {
            assert_eq!(Order::parse(bad).expect_err(bad).errno(), Errno::EINVAL);
        }
        for bad in too_many {
            assert_eq!(Order::parse(&bad).expect_err("too many").errno(), Errno::EINVAL);
        }
    }

    #[test]
    fn every_message_has_its_own_content() {
        let lengths: BTreeSet<usize> = (0..1000).map(|value| content(value).count()).collect();
        assert!(lengths.contains(&0) && lengths.len() > 200, "{lengths:?}");
        let all: BTreeSet<Vec<u8>> =
            (0..1000).map(|value| content(value).collect()).filter(|bytes: &Vec<u8>| bytes.len() > 8).collect();
        assert!(all.len() > 900, "{}", all.len());
    }
}
