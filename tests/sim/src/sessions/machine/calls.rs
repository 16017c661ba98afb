//! System calls, what comes from other kernels, and what is to be seen when all is quiet.

use std::collections::{BTreeMap, BTreeSet};

use base::{Errno, KernelId};
use task::{
    ids,
    session::{Access, Member, Notice, Reply, Request, Sender, State},
    signal::SigInfo,
};
use tasks::homes::state::{Event, Home, Key};

use super::{
    super::model::{INIT, Life, Model, Op, Outcome, Pid, Proc, Report, Sig},
    Act, ChildNews, Kernel, Machine, Msg, Task, Then, ToProcess, What, errno, id, info_of, member, sig_of, terminal,
};

impl Machine {
    /// As `task::Kernel::signal_members`.
    pub(super) fn members(&mut self, pgid: Pid, members: &[Pid], info: SigInfo) {
        for pid in members {
            self.tell_here_or_after(*pid, sig_of(info));
        }
        let new: Vec<Pid> = self.kernels[self.at]
            .tasks
            .iter()
            .filter(|(pid, t)| t.pgid == pgid && !t.announced && !members.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        for pid in new {
            self.signal(pid, sig_of(info));
        }
    }

    fn tell_here_or_after(&mut self, pid: Pid, sig: Sig) {
        if self.kernels[self.at].tasks.contains_key(&pid) {
            self.signal(pid, sig);
        } else if self.kernels[self.at].moved.contains_key(&pid) {
            self.tell(pid, ToProcess::Signal(sig));
        }
    }

    /// Begins a call; how it ends is `results[number]`.
    pub fn begin(&mut self, number: usize, op: Op) {
        if self.trace {
            println!("{:>6}  begins {number}: {op:?}", self.now);
        }
        let Some(pid) = op.caller() else {
            if let Op::Key { tty, sig } = op
                && self.kernels[usize::from(tty)].alive
            {
                self.at = usize::from(tty);
                self.key(sig);
            }
            self.results[number] = Some(Outcome::Ok(0));
            return;
        };
        let runs = |k: &Kernel| k.alive && k.tasks.get(&pid).is_some_and(|t| t.life == Life::Alive && !t.busy);
        let Some(at) = self.kernels.iter().position(runs) else {
            self.results[number] = Some(Outcome::NotRun);
            return;
        };
        self.at = at;
        let me = ids::Pid(pid);
        let then = Then::Call(number, pid, op);
        let ask = match op {
            Op::SetGroup { target, pgid, .. } => {
                Request::SetGroup { caller: me, target: ids::Pid(target), pgid: ids::Pid(pgid) }
            }
            Op::KillGroup { pgid, sig, .. } => {
                Request::SignalGroup { pgid: ids::Pid(pgid), info: Some(info_of(sig)), from: Sender::KERNEL }
            }
            Op::SetSid { .. } => Request::Depart(me),
            Op::Front { tty, .. }
            | Op::GetFront { tty, .. }
            | Op::Read { tty, .. }
            | Op::Open { tty, .. }
            | Op::GiveUp { tty, .. } => {
                let Some(task) = self.kernels[at].tasks.get_mut(&pid) else { return };
                task.busy = true;
                let key = task.key;
                let kernel = &mut self.kernels[at];
                let call = kernel.next;
                kernel.next += 1;
                kernel.calls.insert(call, (number, pid));
                return if usize::from(tty) == at {
                    self.terminal(id(at), call, key, pid, op);
                } else {
                    self.post(id(usize::from(tty)), 0, Msg::Tty(id(at), call, key, pid, op));
                };
            }
            _ => {
                let outcome = self.local(number, pid, op);
                if outcome.is_some() {
                    self.results[number] = outcome;
                }
                return;
            }
        };
        if let Some(task) = self.me().tasks.get_mut(&pid) {
            task.busy = true;
        }
        self.submit(pid, What::Ask(ask, then));
    }

    /// Calls that need no answer; nothing if the process is on its way.
    fn local(&mut self, number: usize, pid: Pid, op: Op) -> Option<Outcome> {
        match op {
            Op::Fork { child, .. } => {
                let parent = self.me().tasks.get_mut(&pid)?;
                parent.children.insert(child, None);
                let mut new = parent.clone();
                (new.ppid, new.execed, new.announced, new.children) = (pid, false, false, BTreeMap::new());
                let pgid = new.pgid;
                self.me().tasks.insert(child, new);
                let place = id(self.at);
                self.birth.insert(child, place);
                let (ppid, child_id) = (ids::Pid(pid), ids::Pid(child));
                let request = Request::Fork { ppid, from: ppid, child: child_id, place };
                self.submit(child, What::Ask(request, Then::Announced(child, pgid)));
                Some(Outcome::Ok(child))
            }
            Op::Exit { .. } => {
                self.exit(pid);
                Some(Outcome::Ok(0))
            }
            Op::Wait { .. } => {
                let parent = self.me().tasks.get_mut(&pid)?;
                if parent.children.is_empty() {
                    return Some(Outcome::Err("ECHILD"));
                }
                let found = parent.children.iter().find_map(|(child, report)| Some((*child, (*report)?)));
                let Some((child, report)) = found else { return Some(Outcome::Ok(0)) };
                if report == Report::Exited {
                    parent.children.remove(&child);
                    self.tell(child, ToProcess::Reap);
                } else {
                    parent.children.insert(child, None);
                }
                Some(Outcome::Child(child, report))
            }
            Op::Exec { to, .. } => {
                let to = usize::from(to);
                if to == self.at || !self.kernels[to].alive {
                    let task = self.me().tasks.get_mut(&pid)?;
                    task.execed = true;
                    self.submit(pid, What::Tell(Notice::Exec(ids::Pid(pid))));
                    return Some(Outcome::Ok(0));
                }
                let mut task = self.me().tasks.remove(&pid)?;
                let here = Home { moves: 0, kernel: id(self.at) };
                let known = self.me().homes.home(task.key);
                let is_here = self.me().states.contains_key(&task.key);
                task.home = known.unwrap_or(if is_here { here } else { task.home });
                task.busy = true;
                self.me().moved.insert(pid, id(to));
                self.me().leaving.insert(pid, (id(to), Box::new(task.clone())));
                self.post(id(to), 0, Msg::Move(pid, Box::new(task), number));
                None
            }
            _ => Some(Outcome::Err("no local call")),
        }
    }

    fn key(&mut self, sig: Sig) {
        if let Some(key) = self.me().tty {
            // Without a foreground group there is nobody to tell.
            let _ = self.request(key, Request::SignalForeground(info_of(sig)));
        }
    }

    fn has_terminal(&self, key: Key, pid: Pid) -> bool {
        let kernel = &self.kernels[self.at];
        kernel.tty == Some(key) && kernel.states.get(&key).is_some_and(|s| s.has_terminal(ids::Pid(pid)))
    }

    /// A call at this kernel's terminal, as `vfs::tty` does it.
    fn terminal(&mut self, from: KernelId, call: u64, key: Key, pid: Pid, op: Op) {
        let caller = ids::Pid(pid);
        let reply = match op {
            Op::Front { .. } | Op::GetFront { .. } | Op::GiveUp { .. } if !self.has_terminal(key, pid) => {
                Err(Errno::ENOTTY)
            }
            Op::Front { pgid, immune, .. } => {
                self.request(key, Request::SetForeground { caller, pgid: ids::Pid(pgid), immune })
            }
            Op::GetFront { .. } => {
                let front = self.me().states.get(&key).map_or(0, |s| s.foreground().0);
                return self.terminal_done(from, call, Outcome::Ok(front));
            }
            Op::GiveUp { .. } => self.request(key, Request::DropTerminal { caller }),
            Op::Read { immune, .. } if self.me().tty == Some(key) => {
                self.request(key, Request::Use { caller, access: Access::Read, immune })
            }
            Op::Open { .. } if self.me().tty.is_none() && pid == key.sid.0 => {
                if self.me().states.contains_key(&key) {
                    return self.take_terminal(from, call, key, pid);
                }
                let home = self.kernels.iter().find(|k| k.alive && k.states.contains_key(&key)).map(|k| k.id);
                let Some(home) = home else { return self.terminal_done(from, call, Outcome::Ok(0)) };
                let kernel = self.me();
                let number = kernel.next;
                kernel.next += 1;
                kernel.taking.insert(number, (key, pid, from, call));
                return self.post(home, 0, Msg::Fetch(key, number, pid));
            }
            _ => Ok(Reply::Done),
        };
        let outcome = match reply {
            Ok(Reply::Stopped) => Outcome::Stopped,
            Ok(_) => Outcome::Ok(0),
            Err(e) => errno(e),
        };
        self.terminal_done(from, call, outcome);
    }

    fn take_terminal(&mut self, from: KernelId, call: u64, key: Key, pid: Pid) {
        if self.me().tty.is_none() {
            let terminal = terminal(id(self.at));
            let device = vfs::Device::new(4, 64);
            let taken = self.request(key, Request::TakeTerminal { caller: ids::Pid(pid), terminal, device });
            if taken.is_ok() {
                self.me().tty = Some(key);
            }
        }
        // Not becoming the controlling terminal is no error.
        self.terminal_done(from, call, Outcome::Ok(0));
    }

    fn terminal_done(&mut self, to: KernelId, call: u64, outcome: Outcome) {
        if usize::from(to.index) == self.at {
            self.called(call, outcome);
        } else {
            self.post(to, 1, Msg::TtyDone(call, outcome));
        }
    }

    fn called(&mut self, call: u64, outcome: Outcome) {
        if let Some((number, pid)) = self.me().calls.remove(&call) {
            self.end(number, pid, outcome);
        }
    }

    pub(super) fn take(&mut self, from: KernelId, msg: Msg) {
        match msg {
            Msg::Ask(key, number, request) => {
                let here = self.me().states.contains_key(&key);
                self.step(Event::Received { from, key, here, op: What::Asked(request, from, number) });
            }
            Msg::Tell(key, notice) => {
                let here = self.me().states.contains_key(&key);
                self.step(Event::Received { from, key, here, op: What::Told(notice) });
            }
            Msg::Answer(number, reply) => {
                if let Some((_, _, _, then)) = self.me().waiting.remove(&number) {
                    self.then(then, reply);
                }
            }
            Msg::MovedTo(number, home) => {
                if let Some((_, key, request, then)) = self.me().waiting.remove(&number) {
                    let what = What::Ask(request, then);
                    if home.kernel == id(self.at) {
                        self.submit_to(key, home, what);
                    } else {
                        self.carry_out(Act::Send(home.kernel, key, what));
                    }
                }
            }
            Msg::Members(pgid, members, info) => self.members(pgid, &members, info),
            Msg::Freeze(key, moves) => self.step(Event::Freeze { from, key, moves }),
            Msg::Frozen(key) => self.step(Event::Frozen { from, key }),
            Msg::HomeIs(key, moves, rebuilt, over) => {
                self.step(Event::HomeIs { from, key, moves, rebuilt, over });
            }
            Msg::Census(key, moves, epoch, members) => {
                self.step(Event::Census { from, key, moves, epoch, members });
            }
            Msg::Settled(epoch) => self.step(Event::Settled { from, epoch }),
            Msg::Fetch(key, number, caller) => {
                let state = self.me().states.get(&key);
                let leaves = state.is_some_and(|s| {
                    let caller = ids::Pid(caller);
                    caller == s.sid() && s.member(caller).is_some() && s.terminal().is_none()
                });
                if !leaves {
                    return self.post(from, 1, Msg::Refused(number));
                }
                let request = self.me().next;
                self.me().next += 1;
                self.me().fetches.insert(request, (from, number, caller));
                self.step(Event::Fetch { from, key, here: true, request });
            }
            Msg::Given(number, key, moves, state) => {
                let places = state.members().map(|(_, member)| member.place).collect();
                self.me().states.insert(key, *state);
                self.step(Event::Came { key, moves, places });
                if let Some((key, pid, to, call)) = self.me().taking.remove(&number) {
                    self.take_terminal(to, call, key, pid);
                }
            }
            Msg::Refused(number) => {
                if let Some((_, _, to, call)) = self.me().taking.remove(&number) {
                    self.terminal_done(to, call, Outcome::Ok(0));
                }
            }
            Msg::To(pid, what, origin) => self.pass_on(pid, what, origin),
            Msg::MoveDone(pid) => drop(self.me().leaving.remove(&pid)),
            Msg::Move(pid, mut task, number) => {
                task.execed = true;
                let member = member(&task, id(self.at));
                self.me().moved.remove(&pid);
                self.me().tasks.insert(pid, *task);
                self.submit(pid, What::Tell(Notice::Moved { pid: ids::Pid(pid), member }));
                self.submit(pid, What::Tell(Notice::Exec(ids::Pid(pid))));
                let heard = Request::GroupOf(ids::Pid(pid));
                self.submit(pid, What::Ask(heard, Then::Entered(number, pid, from)));
            }
            Msg::Tty(from, call, key, pid, op) => self.terminal(from, call, key, pid, op),
            Msg::TtyDone(call, outcome) => self.called(call, outcome),
        }
    }

    /// One message, if there is one.
    pub fn deliver(&mut self) -> bool {
        self.deliver_one()
    }

    /// Whether a kernel runs.
    pub fn runs(&self, kernel: u16) -> bool {
        self.kernels[usize::from(kernel)].alive
    }

    /// A kernel dies: what is on its way from it and to it is lost, the others hear of it one after the other, and enter a view.
    pub fn crash(&mut self, kernel: u16) {
        let gone = usize::from(kernel);
        let dead = id(gone);
        self.kernels[gone].alive = false;
        let mut strays = Vec::new();
        for ((from, to, _), lane) in &mut self.lanes {
            if *to == gone || *from == gone {
                strays.extend(lane.drain(..).map(|(_, msg)| msg));
            }
        }
        self.lanes.retain(|(from, to, _), _| *from != gone && *to != gone);
        // The names know where everybody is.
        let places = self.kernels.iter().filter(|k| k.alive).flat_map(|k| k.tasks.keys().map(|pid| (*pid, k.id)));
        self.birth.extend(places.collect::<Vec<_>>());
        for kernel in &mut self.kernels {
            kernel.moved.retain(|_, to| *to != dead);
        }
        let epoch = self.kernels.iter().map(|k| k.epoch).max().unwrap_or(0) + 1;
        let members: Vec<KernelId> = self.kernels.iter().filter(|k| k.alive).map(|k| k.id).collect();
        for at in (0..self.kernels.len()).filter(|at| *at != gone) {
            if !self.kernels[at].alive {
                continue;
            }
            self.at = at;
            let lost: Vec<u64> =
                self.me().waiting.iter().filter(|(_, w)| w.0 == dead).map(|(number, _)| *number).collect();
            self.step(Event::Down { dead });
            for number in lost {
                if let Some((_, key, request, then)) = self.me().waiting.remove(&number) {
                    self.step(Event::Returned { key, op: What::Ask(tasks::homes::again(request), then) });
                }
            }
            // A terminal that does not answer.
            let taking: Vec<_> = self.me().taking.keys().copied().collect();
            for number in taking {
                let stays = self.kernels.iter().any(|k| k.alive && k.fetches.values().any(|f| f.1 == number));
                if !stays && let Some((_, _, to, call)) = self.me().taking.remove(&number) {
                    self.terminal_done(to, call, Outcome::Ok(0));
                }
            }
            for _ in 0..self.rng.below(4) {
                self.deliver_one();
            }
        }
        // Who was about to run there ends.
        for from in (0..self.kernels.len()).filter(|from| *from != gone) {
            self.at = from;
            let lost: Vec<Pid> =
                self.me().leaving.iter().filter(|(_, (to, _))| *to == dead).map(|(pid, _)| *pid).collect();
            for pid in lost {
                if let Some((_, task)) = self.me().leaving.remove(&pid) {
                    self.birth.insert(pid, id(from));
                    self.me().tasks.insert(pid, Task { busy: false, lost: true, ..*task });
                    self.exit(pid);
                }
            }
        }
        // Who asks for a process whose kernel does not answer looks for it again.
        for msg in strays {
            if let Msg::To(pid, what, origin) = msg
                && origin != dead
            {
                self.at = usize::from(origin.index);
                self.tell(pid, what);
            }
        }
        for at in 0..self.kernels.len() {
            if self.kernels[at].alive {
                self.at = at;
                self.kernels[at].epoch = epoch;
                let members = members.clone();
                self.step(Event::View { epoch, members });
                for _ in 0..self.rng.below(4) {
                    self.deliver_one();
                }
            }
        }
        self.quiet();
        // Whose parents died are pid 1's.
        let somewhere = |machine: &Self, pid| machine.kernels.iter().any(|k| k.alive && k.tasks.contains_key(&pid));
        for at in 0..self.kernels.len() {
            self.at = at;
            let ours: Vec<(Pid, Pid)> = self.me().tasks.iter().map(|(pid, t)| (*pid, t.ppid)).collect();
            for (pid, ppid) in ours {
                if self.kernels[at].alive && pid != INIT && !somewhere(self, ppid) {
                    self.tell(INIT, ToProcess::Child(pid, ChildNews::Adopted(None)));
                }
            }
        }
        self.quiet();
        // Who waited for an answer of the dead waits no more.
        for at in 0..self.kernels.len() {
            self.at = at;
            let open: Vec<u64> = self.me().calls.keys().copied().collect();
            if !self.kernels[at].alive {
                continue;
            }
            for call in open {
                self.called(call, Outcome::Err("EHOSTDOWN"));
            }
        }
        self.quiet();
    }

    /// After the death of a kernel: sessions know exactly their members on the kernels that run, and nobody waits.
    ///
    /// # Errors
    /// Kernels that contradict each other.
    pub fn agrees(&self) -> Result<(), String> {
        self.seen().map(drop)
    }

    /// What is to be seen when all is quiet.
    ///
    /// # Errors
    /// Kernels that contradict each other.
    pub fn seen(&self) -> Result<Model, String> {
        let mut seen = Model::default();
        let running: Vec<&Kernel> = self.kernels.iter().filter(|k| k.alive).collect();
        let mut states: BTreeMap<Key, (&State, KernelId)> = BTreeMap::new();
        for kernel in &running {
            if kernel.homes.waiting() > 0 || !kernel.waiting.is_empty() || !kernel.fetches.is_empty() {
                return Err(format!("{} still waits for something", kernel.id));
            }
            for (key, state) in &kernel.states {
                if let Some((_, other)) = states.insert(*key, (state, kernel.id)) {
                    return Err(format!("{key:?} is on {other} and {}", kernel.id));
                }
                let tty = state.terminal().map(|t| t.birth.index);
                seen.sessions.insert(key.sid.0, (tty, state.foreground().0));
            }
        }
        let reports: BTreeMap<Pid, Option<Report>> = running
            .iter()
            .flat_map(|k| k.tasks.iter().filter(|(pid, _)| **pid != INIT))
            .flat_map(|(_, t)| t.children.iter().map(|(child, report)| (*child, *report)))
            .collect();
        let mut members: BTreeSet<(Key, Pid)> = BTreeSet::new();
        for kernel in &running {
            for (pid, t) in &kernel.tasks {
                // The session may have missed it with that kernel, as all members there.
                let known = states.get(&t.key).and_then(|(state, _)| state.member(ids::Pid(*pid)));
                if t.lost && t.life == Life::Zombie && known.is_none() {
                    continue;
                }
                let Some((state, _)) = states.get(&t.key) else {
                    return Err(format!("process {pid} is of {:?}, which is nowhere", t.key));
                };
                let truth = member(t, kernel.id);
                let known = state.member(ids::Pid(*pid)).copied();
                let terminal = known.is_some_and(|m| m.terminal);
                if known != Some(Member { terminal, ..truth }) {
                    return Err(format!("process {pid} is {truth:?}, its session believes {known:?}"));
                }
                if !t.announced || t.busy {
                    return Err(format!("process {pid} waits: {t:?}"));
                }
                members.insert((t.key, *pid));
                let report = reports.get(pid).copied().flatten();
                let report = if t.life == Life::Zombie { Some(Report::Exited) } else { report };
                let proc = Proc {
                    ppid: t.ppid,
                    pgid: t.pgid,
                    sid: t.key.sid.0,
                    life: t.life,
                    execed: t.execed,
                    tty: terminal,
                    place: kernel.id.index,
                    report,
                    doomed: t.doomed,
                };
                seen.procs.insert(*pid, proc);
            }
        }
        for (key, (state, home)) in &states {
            for (pid, _) in state.members() {
                if !members.contains(&(*key, pid.0)) {
                    return Err(format!("{key:?} on {home} has member {pid}, which is nowhere"));
                }
            }
        }
        Ok(seen)
    }
}
