//! Kernels with the state machines of sessions and of their homes as they run in the kernel, and processes that are no more than what those look at.
//! Two lanes between each two kernels, in order, with delays of the seed.

use std::collections::{BTreeMap, VecDeque};

use base::{Errno, KernelId, ObjectId};
use task::{
    ids,
    session::{Effects, Life as MemberLife, Member, Notice, Reply, Request, Sender, State, Users},
    signal::{SigInfo, Signal},
};
use tasks::homes::state::{Actions, Event, Home, Homes, Key, PeerRequest};

mod calls;

use super::model::{INIT, Life, Op, Outcome, Pid, Report, Sig};
use crate::rng::Rng;

/// What goes on when an answer comes.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// The call number `.0` of a process ends.
    Call(usize, Pid, Op),
    /// A process stops unless its group is orphaned.
    StopUnlessOrphaned(Pid, u32),
    /// Signals of the group reach the new process by its session.
    Announced(Pid, Pid),
    /// The group of a process has changed, if it is still in that session.
    Regrouped(Pid, Key),
    /// A process that moved here is known to its session and may run.
    Entered(usize, Pid, KernelId),
}

/// An operation on a session.
#[derive(Clone, Debug)]
enum What {
    Ask(Request, Then),
    Tell(Notice),
    Asked(Request, KernelId, u64),
    Told(Notice),
}

#[derive(Clone, Debug)]
enum Msg {
    Ask(Key, u64, Request),
    Answer(u64, Result<Reply, Errno>),
    MovedTo(u64, Home),
    Tell(Key, Notice),
    Members(Pid, Vec<Pid>, SigInfo),
    Freeze(Key, u32),
    Frozen(Key),
    HomeIs(Key, u32, bool, bool),
    Census(Key, u32, u32, Vec<(ids::Pid, Member)>),
    Settled(u32),
    Fetch(Key, u64, Pid),
    Given(u64, Key, u32, Box<State>),
    Refused(u64),
    /// For a process, wherever it is; who has it for it finds it again if a kernel on the way dies.
    To(Pid, ToProcess, KernelId),
    Move(Pid, Box<Task>, usize),
    /// It runs there, and its session knows.
    MoveDone(Pid),
    Tty(KernelId, u64, Key, Pid, Op),
    TtyDone(u64, Outcome),
}

#[derive(Clone, Debug)]
enum ToProcess {
    Signal(Sig),
    Regrouped,
    Reparent(Pid),
    Child(Pid, ChildNews),
    Reap,
}

#[derive(Clone, Copy, Debug)]
enum ChildNews {
    Report(Report),
    Adopted(Option<Report>),
}

/// A process.
#[derive(Clone, Debug)]
struct Task {
    ppid: Pid,
    pgid: Pid,
    key: Key,
    home: Home,
    life: Life,
    execed: bool,
    announced: bool,
    /// It is in a call: signals wait.
    busy: bool,
    pending: Vec<Sig>,
    doomed: bool,
    /// It died with the kernel where it was about to run; its zombie is here.
    lost: bool,
    /// Counts SIGCONT.
    conts: u32,
    children: BTreeMap<Pid, Option<Report>>,
}

#[derive(Default)]
struct Wishes(Vec<Wish>);

enum Wish {
    Signal(KernelId, Pid, Vec<Pid>, SigInfo),
    TerminalLost,
    Regrouped(Pid),
    Empty,
}

impl Effects for Wishes {
    fn signal(&mut self, to: KernelId, pgid: ids::Pid, members: Vec<ids::Pid>, info: SigInfo, _: Sender) {
        self.0.push(Wish::Signal(to, pgid.0, members.into_iter().map(|p| p.0).collect(), info));
    }
    fn terminal_lost(&mut self, _: ObjectId) {
        self.0.push(Wish::TerminalLost);
    }
    fn regrouped(&mut self, pid: ids::Pid, _: ids::Pid, _: ids::Pid) {
        self.0.push(Wish::Regrouped(pid.0));
    }
    fn empty(&mut self) {
        self.0.push(Wish::Empty);
    }
}

#[derive(Debug)]
enum Act {
    Serve(Key, What),
    Send(KernelId, Key, What),
    Elsewhere(Key, What, Home),
    Lost(What),
    Message(KernelId, usize, Msg),
    HandOver(Key, PeerRequest, u32),
    Refuse(PeerRequest),
    Moved(PeerRequest),
    Census(KernelId, Key, u32),
    Rebuild(Key, Vec<(ids::Pid, Member)>),
    Merge(Key, Vec<(ids::Pid, Member)>),
    Bury(KernelId),
}

#[derive(Default)]
struct Acts(VecDeque<Act>);

impl Actions<What> for Acts {
    fn serve(&mut self, key: Key, op: What) {
        self.0.push_back(Act::Serve(key, op));
    }
    fn send(&mut self, to: KernelId, key: Key, op: What) {
        self.0.push_back(Act::Send(to, key, op));
    }
    fn elsewhere(&mut self, key: Key, op: What, home: Home) {
        self.0.push_back(Act::Elsewhere(key, op, home));
    }
    fn lost(&mut self, _: Key, op: What) {
        self.0.push_back(Act::Lost(op));
    }
    fn freeze(&mut self, to: KernelId, key: Key, moves: u32) {
        self.0.push_back(Act::Message(to, 0, Msg::Freeze(key, moves)));
    }
    fn frozen(&mut self, to: KernelId, key: Key) {
        self.0.push_back(Act::Message(to, 0, Msg::Frozen(key)));
    }
    fn hand_over(&mut self, key: Key, _: KernelId, request: PeerRequest, moves: u32) {
        self.0.push_back(Act::HandOver(key, request, moves));
    }
    fn refuse(&mut self, request: PeerRequest, _: Errno) {
        self.0.push_back(Act::Refuse(request));
    }
    fn moved(&mut self, request: PeerRequest, _: Home) {
        self.0.push_back(Act::Moved(request));
    }
    fn tell_home(&mut self, to: KernelId, key: Key, moves: u32, rebuilt: bool, over: bool) {
        self.0.push_back(Act::Message(to, 0, Msg::HomeIs(key, moves, rebuilt, over)));
    }
    fn census(&mut self, to: KernelId, key: Key, moves: u32) {
        self.0.push_back(Act::Census(to, key, moves));
    }
    fn settled(&mut self, to: KernelId, epoch: u32) {
        self.0.push_back(Act::Message(to, 0, Msg::Settled(epoch)));
    }
    fn rebuild(&mut self, key: Key, members: Vec<(ids::Pid, Member)>) {
        self.0.push_back(Act::Rebuild(key, members));
    }
    fn bury(&mut self, dead: KernelId) {
        self.0.push_back(Act::Bury(dead));
    }
    fn merge(&mut self, key: Key, members: Vec<(ids::Pid, Member)>) {
        self.0.push_back(Act::Merge(key, members));
    }
}

struct Kernel {
    id: KernelId,
    alive: bool,
    homes: Homes<What>,
    states: BTreeMap<Key, State>,
    tasks: BTreeMap<Pid, Task>,
    moved: BTreeMap<Pid, KernelId>,
    /// What was told to run elsewhere, until that is confirmed.
    leaving: BTreeMap<Pid, (KernelId, Box<Task>)>,
    /// The session that has this kernel's terminal.
    tty: Option<Key>,
    /// Leaders whose session is on its way to the terminal, and their calls.
    taking: BTreeMap<u64, (Key, Pid, KernelId, u64)>,
    waiting: BTreeMap<u64, (KernelId, Key, Request, Then)>,
    /// Calls at another kernel's terminal.
    calls: BTreeMap<u64, (usize, Pid)>,
    fetches: BTreeMap<PeerRequest, (KernelId, u64, Pid)>,
    next: u64,
    serial: u64,
    epoch: u32,
}

/// The machine.
pub struct Machine {
    kernels: Vec<Kernel>,
    lanes: BTreeMap<(usize, usize, usize), VecDeque<(u64, Msg)>>,
    now: u64,
    rng: Rng,
    slowest: u64,
    birth: BTreeMap<Pid, KernelId>,
    /// What the names would say.
    home_of_sid: BTreeMap<Pid, Key>,
    /// How the calls of the batch ended.
    pub results: Vec<Option<Outcome>>,
    trace: bool,
    /// Messages.
    pub messages: u64,
    acts: Acts,
    acting: bool,
    at: usize,
}

const fn id(index: usize) -> KernelId {
    KernelId { index: index as u16, incarnation: 1 }
}

const fn terminal(kernel: KernelId) -> ObjectId {
    ObjectId { birth: kernel, serial: 1 << 40 }
}

const fn sig_of(info: SigInfo) -> Sig {
    match info.signal {
        Signal::STOP => Sig::Stop,
        Signal::TSTP | Signal::TTIN | Signal::TTOU => Sig::Tstp,
        Signal::CONT => Sig::Cont,
        Signal::KILL => Sig::Kill,
        _ => Sig::Term,
    }
}

const fn info_of(sig: Sig) -> SigInfo {
    SigInfo::kernel(match sig {
        Sig::Stop => Signal::STOP,
        Sig::Tstp => Signal::TSTP,
        Sig::Cont => Signal::CONT,
        Sig::Kill => Signal::KILL,
        Sig::Term => Signal::TERM,
    })
}

const fn errno(e: Errno) -> Outcome {
    Outcome::Err(match e {
        Errno::ESRCH => "ESRCH",
        Errno::EPERM => "EPERM",
        Errno::EACCES => "EACCES",
        Errno::EIO => "EIO",
        Errno::ENOTTY => "ENOTTY",
        _ => "another",
    })
}

impl Machine {
    /// `n` kernels, pid 1 on the first, `shell` on kernel `place`.
    pub fn new(n: usize, shell: Pid, place: u16, mut rng: Rng, trace: bool) -> Self {
        let kernel = |index: usize| Kernel {
            id: id(index),
            alive: true,
            homes: Homes::new(id(index), n as u16),
            states: BTreeMap::new(),
            tasks: BTreeMap::new(),
            moved: BTreeMap::new(),
            leaving: BTreeMap::new(),
            tty: None,
            taking: BTreeMap::new(),
            waiting: BTreeMap::new(),
            calls: BTreeMap::new(),
            fetches: BTreeMap::new(),
            next: 1,
            serial: 0,
            epoch: 0,
        };
        let slowest = [2, 10, 50][rng.below(3) as usize];
        let mut machine = Self {
            kernels: (0..n).map(kernel).collect(),
            lanes: BTreeMap::new(),
            now: 0,
            rng,
            slowest,
            birth: BTreeMap::new(),
            home_of_sid: BTreeMap::new(),
            results: Vec::new(),
            trace,
            messages: 0,
            acts: Acts::default(),
            acting: false,
            at: 0,
        };
        machine.view(1);
        machine.born(0, INIT, 0);
        machine.born(usize::from(place), shell, INIT);
        machine.quiet();
        machine
    }

    fn view(&mut self, epoch: u32) {
        let members: Vec<KernelId> = self.kernels.iter().filter(|k| k.alive).map(|k| k.id).collect();
        for at in 0..self.kernels.len() {
            if self.kernels[at].alive {
                self.at = at;
                self.kernels[at].epoch = epoch;
                let members = members.clone();
                self.step(Event::View { epoch, members });
            }
        }
    }

    /// A leader of a new session, on kernel `at`.
    fn born(&mut self, at: usize, pid: Pid, ppid: Pid) {
        let key = self.new_session(at, pid, ppid, true);
        let home = Home { moves: 0, kernel: id(at) };
        let task = Task {
            ppid,
            pgid: pid,
            key,
            home,
            life: Life::Alive,
            execed: true,
            announced: true,
            busy: false,
            pending: Vec::new(),
            doomed: false,
            lost: false,
            conts: 0,
            children: BTreeMap::new(),
        };
        self.kernels[at].tasks.insert(pid, task);
        self.birth.insert(pid, id(at));
        if let Some(init) = self.kernels[0].tasks.get_mut(&INIT).filter(|_| ppid == INIT) {
            init.children.insert(pid, None);
        }
    }

    fn new_session(&mut self, at: usize, sid: Pid, ppid: Pid, execed: bool) -> Key {
        let kernel = &mut self.kernels[at];
        kernel.serial += 1;
        let key = Key { object: ObjectId { birth: kernel.id, serial: kernel.serial }, sid: ids::Pid(sid) };
        let member = Member::new(ids::Pid(sid), ids::Pid(ppid), kernel.id, Users::default());
        kernel.states.insert(key, State::new(ids::Pid(sid), Member { execed, ..member }));
        self.home_of_sid.insert(sid, key);
        key
    }

    fn me(&mut self) -> &mut Kernel {
        &mut self.kernels[self.at]
    }

    fn post(&mut self, to: KernelId, lane: usize, msg: Msg) {
        let to = usize::from(to.index);
        if !self.kernels[to].alive {
            return;
        }
        let delay = self.rng.below(self.slowest);
        let queue = self.lanes.entry((self.at, to, lane)).or_default();
        let at = queue.back().map_or(self.now + delay, |(last, _)| (*last).max(self.now + delay));
        queue.push_back((at, msg));
    }

    /// Lets happen what is on its way.
    pub fn quiet(&mut self) {
        let most = self.messages + 100_000;
        while self.messages < most && self.deliver_one() {}
    }

    fn deliver_one(&mut self) -> bool {
        let heads: Vec<_> = self.lanes.iter().filter_map(|(lane, q)| q.front().map(|(at, _)| (*at, *lane))).collect();
        let Some(first) = heads.iter().map(|(at, _)| *at).min() else { return false };
        let now: Vec<_> = heads.into_iter().filter(|(at, _)| *at == first).map(|(_, lane)| lane).collect();
        let Some(lane) = self.rng.pick(&now) else { return false };
        let Some((at, msg)) = self.lanes.get_mut(&lane).and_then(VecDeque::pop_front) else { return false };
        self.now = self.now.max(at);
        self.messages += 1;
        self.at = lane.1;
        if self.trace {
            println!("{:>6}  {} -> {} {msg:?}", self.now, lane.0, lane.1);
        }
        self.take(id(lane.0), msg);
        true
    }

    // -- sessions --------------------------------------------------------------------------------------------------

    /// As the kernel does it: what is decided is done in that order, also what is decided meanwhile.
    fn step(&mut self, event: Event<What>) {
        self.kernels[self.at].homes.step(event, &mut self.acts);
        if std::mem::replace(&mut self.acting, true) {
            return;
        }
        while let Some(act) = self.acts.0.pop_front() {
            self.carry_out(act);
        }
        self.acting = false;
    }

    fn carry_out(&mut self, act: Act) {
        match act {
            Act::Serve(key, what) => self.serve(key, what),
            Act::Send(to, key, What::Ask(request, then)) => {
                let kernel = self.me();
                let number = kernel.next;
                kernel.next += 1;
                kernel.waiting.insert(number, (to, key, request.clone(), then));
                self.post(to, 0, Msg::Ask(key, number, request));
            }
            Act::Send(to, key, What::Tell(notice) | What::Told(notice)) => self.post(to, 0, Msg::Tell(key, notice)),
            Act::Send(home, _, What::Asked(_, from, number)) => {
                self.post(from, 1, Msg::MovedTo(number, Home { moves: 0, kernel: home }));
            }
            Act::Elsewhere(_, What::Asked(_, from, number), home) => self.post(from, 1, Msg::MovedTo(number, home)),
            Act::Elsewhere(key, what, home) => self.carry_out(Act::Send(home.kernel, key, what)),
            Act::Lost(What::Ask(_, then)) => self.then(then, Err(Errno::ESRCH)),
            Act::Lost(What::Asked(_, from, number)) => self.post(from, 1, Msg::Answer(number, Err(Errno::ESRCH))),
            Act::Lost(_) => {}
            Act::Message(to, lane, msg) => self.post(to, lane, msg),
            Act::HandOver(key, request, moves) => {
                let fetch = self.me().fetches.remove(&request);
                let fits = self.kernels[self.at].states.get(&key).is_some_and(|s| {
                    let caller = fetch.map_or(ids::Pid(0), |f| ids::Pid(f.2));
                    caller == s.sid() && s.member(caller).is_some() && s.terminal().is_none()
                });
                let state = if fits { self.me().states.remove(&key) } else { None };
                match (fetch, state) {
                    (Some((to, number, _)), Some(state)) => {
                        // What stays is less than what the type is: it went over the wire.
                        let (sid, members) = state.export();
                        let state = State::import(sid, members);
                        self.post(to, 1, Msg::Given(number, key, moves, Box::new(state)));
                        self.step(Event::Left { key });
                    }
                    (Some((to, number, _)), None) => {
                        self.post(to, 1, Msg::Refused(number));
                        self.step(Event::Stays { key });
                    }
                    (None, _) => self.step(Event::Stays { key }),
                }
            }
            Act::Refuse(request) | Act::Moved(request) => {
                if let Some((to, number, _)) = self.me().fetches.remove(&request) {
                    self.post(to, 1, Msg::Refused(number));
                }
            }
            Act::Census(to, key, moves) => {
                let kernel = &self.kernels[self.at];
                let ours = kernel.tasks.iter().filter(|(_, t)| t.key == key);
                let members: Vec<_> = ours.map(|(pid, t)| (ids::Pid(*pid), member(t, kernel.id))).collect();
                let (from, epoch) = (kernel.id, kernel.epoch);
                if to == from {
                    self.step(Event::Census { from, key, moves, epoch, members });
                } else {
                    self.post(to, 0, Msg::Census(key, moves, epoch, members));
                }
            }
            Act::Rebuild(key, members) => {
                self.me().states.insert(key, State::import(key.sid, members));
            }
            Act::Bury(dead) => {
                let keys: Vec<Key> = self.kernels[self.at].states.keys().copied().collect();
                for key in keys {
                    let mut wishes = Wishes::default();
                    if let Some(state) = self.me().states.get_mut(&key) {
                        state.notice(Notice::Down(dead), &mut wishes);
                    }
                    self.wish(key, wishes);
                }
            }
            Act::Merge(key, members) => {
                let mut wishes = Wishes::default();
                if let Some(state) = self.me().states.get_mut(&key) {
                    state.merge(members, &mut wishes);
                }
                self.wish(key, wishes);
            }
        }
    }

    fn serve(&mut self, key: Key, what: What) {
        match what {
            What::Ask(request, then) => {
                let reply = self.request(key, request);
                self.then(then, reply);
            }
            What::Asked(request, from, number) => {
                let reply = self.request(key, request);
                self.post(from, 1, Msg::Answer(number, reply));
            }
            What::Tell(notice) | What::Told(notice) => {
                let mut wishes = Wishes::default();
                if let Some(state) = self.me().states.get_mut(&key) {
                    state.notice(notice, &mut wishes);
                }
                self.wish(key, wishes);
            }
        }
    }

    fn request(&mut self, key: Key, request: Request) -> Result<Reply, Errno> {
        let mut wishes = Wishes::default();
        let reply = self.me().states.get_mut(&key).map_or(Err(Errno::ESRCH), |s| s.request(request, &mut wishes));
        self.wish(key, wishes);
        reply
    }

    fn wish(&mut self, key: Key, wishes: Wishes) {
        for wish in wishes.0 {
            match wish {
                Wish::Signal(to, pgid, members, info) if to == id(self.at) => self.members(pgid, &members, info),
                Wish::Signal(to, pgid, members, info) => self.post(to, 1, Msg::Members(pgid, members, info)),
                Wish::TerminalLost => self.me().tty = None,
                Wish::Regrouped(pid) => self.tell(pid, ToProcess::Regrouped),
                Wish::Empty => {
                    self.me().states.remove(&key);
                    self.step(Event::Over { key });
                }
            }
        }
    }

    fn submit(&mut self, pid: Pid, what: What) {
        let Some(task) = self.kernels[self.at].tasks.get(&pid) else { return };
        let (key, home) = (task.key, task.home);
        self.submit_to(key, home, what);
    }

    fn submit_to(&mut self, key: Key, home: Home, what: What) {
        if self.kernels[self.at].states.contains_key(&key) && self.kernels[self.at].homes.home(key).is_none() {
            // As in a kernel: a session that never moved is served without a word.
            return self.serve(key, what);
        }
        self.step(Event::Submit { key, home, op: what });
    }

    // -- processes -------------------------------------------------------------------------------------------------

    fn tell(&mut self, pid: Pid, what: ToProcess) {
        self.pass_on(pid, what, id(self.at));
    }

    fn pass_on(&mut self, pid: Pid, what: ToProcess, origin: KernelId) {
        let kernel = &self.kernels[self.at];
        if kernel.tasks.contains_key(&pid) {
            return self.heard(pid, what);
        }
        let to = kernel.moved.get(&pid).or_else(|| self.birth.get(&pid)).copied();
        if let Some(to) = to.filter(|to| usize::from(to.index) != self.at) {
            self.post(to, 0, Msg::To(pid, what, origin));
        }
    }

    fn heard(&mut self, pid: Pid, what: ToProcess) {
        match what {
            ToProcess::Signal(sig) => self.signal(pid, sig),
            ToProcess::Regrouped => {
                let Some(key) = self.kernels[self.at].tasks.get(&pid).map(|t| t.key) else { return };
                self.submit(pid, What::Ask(Request::GroupOf(ids::Pid(pid)), Then::Regrouped(pid, key)));
            }
            ToProcess::Reparent(ppid) => {
                let Some(t) = self.me().tasks.get_mut(&pid) else { return };
                t.ppid = ppid;
                let ended = t.life == Life::Zombie;
                self.submit(pid, What::Tell(Notice::Reparent { pid: ids::Pid(pid), ppid: ids::Pid(ppid) }));
                if ended {
                    // Perhaps the old parent did not hear of it any more.
                    self.report(pid, Report::Exited);
                }
            }
            ToProcess::Child(child, news) => {
                let Some(t) = self.me().tasks.get_mut(&pid) else { return };
                if t.life == Life::Zombie {
                    return self.tell(INIT, ToProcess::Child(child, news));
                }
                let report = match news {
                    ChildNews::Report(report) => match t.children.get_mut(&child) {
                        Some(known) if *known != Some(Report::Exited) => {
                            *known = Some(report);
                            Some(report)
                        }
                        _ => None,
                    },
                    ChildNews::Adopted(report) => {
                        // Its end may have been told before.
                        let known = t.children.entry(child).or_insert(report);
                        *known = report.or(*known);
                        report
                    }
                };
                if matches!(news, ChildNews::Adopted(_)) {
                    self.tell(child, ToProcess::Reparent(pid));
                }
                let Some(t) = self.me().tasks.get_mut(&pid) else { return };
                if pid == INIT && report == Some(Report::Exited) && t.children.contains_key(&child) {
                    t.children.remove(&child);
                    self.tell(child, ToProcess::Reap);
                }
            }
            ToProcess::Reap => {
                let Some(task) = self.me().tasks.remove(&pid) else { return };
                // Its name is gone.
                self.birth.remove(&pid);
                for kernel in &mut self.kernels {
                    kernel.moved.remove(&pid);
                }
                let notice = Notice::Reap(ids::Pid(pid));
                self.submit_to(task.key, task.home, What::Tell(notice));
            }
        }
    }

    fn report(&mut self, pid: Pid, report: Report) {
        let Some(t) = self.kernels[self.at].tasks.get(&pid) else { return };
        let ppid = t.ppid;
        self.tell(ppid, ToProcess::Child(pid, ChildNews::Report(report)));
    }

    fn signal(&mut self, pid: Pid, sig: Sig) {
        let Some(t) = self.me().tasks.get_mut(&pid) else { return };
        if t.life == Life::Zombie || pid == INIT {
            return;
        }
        if sig == Sig::Cont {
            t.conts += 1;
            t.pending.retain(|s| !matches!(s, Sig::Stop | Sig::Tstp));
            if t.life == Life::Stopped {
                t.life = Life::Alive;
                let doomed = t.doomed;
                self.submit(pid, What::Tell(Notice::Continue(ids::Pid(pid))));
                self.report(pid, Report::Continued);
                if doomed {
                    self.exit(pid);
                }
            }
            return;
        }
        if t.busy {
            return t.pending.push(sig);
        }
        match sig {
            Sig::Kill => self.exit(pid),
            Sig::Term if t.life == Life::Stopped => t.doomed = true,
            Sig::Term => self.exit(pid),
            Sig::Stop => self.stop(pid),
            Sig::Tstp if t.life == Life::Alive => {
                // Its only thread asks: it does nothing else.
                t.busy = true;
                let (conts, pgid) = (t.conts, t.pgid);
                self.submit(pid, What::Ask(Request::IsOrphaned(ids::Pid(pgid)), Then::StopUnlessOrphaned(pid, conts)));
            }
            Sig::Tstp | Sig::Cont => {}
        }
    }

    fn stop(&mut self, pid: Pid) {
        let Some(t) = self.me().tasks.get_mut(&pid).filter(|t| t.life == Life::Alive) else { return };
        t.life = Life::Stopped;
        self.submit(pid, What::Tell(Notice::Stop(ids::Pid(pid))));
        self.report(pid, Report::Stopped);
    }

    fn exit(&mut self, pid: Pid) {
        let Some(t) = self.me().tasks.get_mut(&pid).filter(|t| t.life != Life::Zombie) else { return };
        t.life = Life::Zombie;
        let children = std::mem::take(&mut t.children);
        // The session first: a group that this orphans must be seen to be held before.
        let notice = Notice::Exit { pid: ids::Pid(pid), reaper: ids::Pid(INIT) };
        self.submit(pid, What::Tell(notice));
        for (child, report) in children {
            // The new parent tells the child, so that nothing comes from there before it knows it.
            self.tell(INIT, ToProcess::Child(child, ChildNews::Adopted(report)));
        }
        self.report(pid, Report::Exited);
    }

    /// A call ended.
    fn end(&mut self, number: usize, pid: Pid, outcome: Outcome) {
        self.results[number] = Some(outcome);
        self.free(pid);
    }

    /// A process can take signals again.
    fn free(&mut self, pid: Pid) {
        let Some(t) = self.me().tasks.get_mut(&pid) else { return };
        t.busy = false;
        for sig in std::mem::take(&mut t.pending) {
            self.signal(pid, sig);
        }
    }

    fn then(&mut self, then: Then, reply: Result<Reply, Errno>) {
        match then {
            Then::Announced(pid, believed) => {
                if let Some(t) = self.me().tasks.get_mut(&pid) {
                    t.announced = true;
                    if let Ok(Reply::Group(pgid)) = reply
                        && t.pgid == believed
                    {
                        t.pgid = pgid.0;
                    }
                }
            }
            Then::Entered(number, pid, from) => {
                if let (Some(t), Ok(Reply::Group(pgid))) = (self.me().tasks.get_mut(&pid), reply) {
                    t.pgid = pgid.0;
                }
                self.post(from, 1, Msg::MoveDone(pid));
                self.end(number, pid, Outcome::Ok(0));
            }
            Then::Regrouped(pid, key) => {
                let Ok(Reply::Group(pgid)) = reply else { return };
                let kernel = self.me();
                // One that is about to leave is still here if it cannot.
                let leaving = kernel.leaving.get_mut(&pid).map(|(_, task)| &mut **task);
                for t in kernel.tasks.get_mut(&pid).into_iter().chain(leaving).filter(|t| t.key == key) {
                    t.pgid = pgid.0;
                }
            }
            Then::StopUnlessOrphaned(pid, conts) => {
                let still = self.kernels[self.at].tasks.get(&pid).is_some_and(|t| t.conts == conts);
                if still && reply != Ok(Reply::Orphaned(true)) {
                    self.stop(pid);
                }
                self.free(pid);
            }
            Then::Call(number, pid, op) => {
                let outcome = match (op, reply) {
                    (Op::SetSid { .. }, Ok(_)) => {
                        let at = self.at;
                        let (ppid, execed) =
                            self.kernels[at].tasks.get(&pid).map_or((INIT, false), |t| (t.ppid, t.execed));
                        let key = self.new_session(at, pid, ppid, execed);
                        if let Some(t) = self.me().tasks.get_mut(&pid) {
                            (t.key, t.pgid, t.home) = (key, pid, Home { moves: 0, kernel: id(at) });
                        }
                        Outcome::Ok(pid)
                    }
                    (Op::SetGroup { target, .. }, Err(Errno::ESRCH)) => {
                        let child = self.kernels[self.at].tasks.get(&pid).map(|t| t.children.contains_key(&target));
                        Outcome::Err(if child == Some(true) { "EPERM" } else { "ESRCH" })
                    }
                    (_, Ok(_)) => Outcome::Ok(0),
                    (_, Err(e)) => errno(e),
                };
                self.end(number, pid, outcome);
            }
        }
    }
}

fn member(t: &Task, place: KernelId) -> Member {
    let life = match t.life {
        Life::Alive => MemberLife::Alive,
        Life::Stopped => MemberLife::Stopped,
        Life::Zombie => MemberLife::Zombie,
    };
    let new = Member::new(ids::Pid(t.pgid), ids::Pid(t.ppid), place, Users::default());
    Member { life, execed: t.execed, ..new }
}
