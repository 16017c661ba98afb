//! Interleavings of fork, setpgid, tcsetpgrp, Ctrl-Z, exit and execve on another kernel, against what Linux does.
//!
//! A seed is a machine of two to four kernels and a shell. In each round some calls of different processes are begun while others are under way; when
//! all is quiet, what can be seen, and how the calls ended, must be what Linux gives for the same calls in some order. At the end of some seeds a
//! kernel dies in the middle of things; then what remains must agree with itself.

pub mod machine;
pub mod model;

use std::collections::BTreeSet;

use crate::rng::Rng;
use machine::Machine;
use model::{INIT, Life, Model, Op, Outcome, Pid, Sig};

/// The shell.
const SHELL: Pid = 100;
/// The most processes.
const PROCESSES: usize = 12;

/// What a seed came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Calls.
    pub calls: u64,
    /// Messages.
    pub messages: u64,
}

fn a_call(rng: &mut Rng, model: &Model, kernels: u16, next: &mut Pid, busy: &BTreeSet<Pid>) -> Option<Op> {
    let pids: Vec<Pid> = model.procs.keys().copied().filter(|p| *p != INIT).collect();
    let running: Vec<Pid> =
        pids.iter().copied().filter(|p| model.procs[p].life == Life::Alive && !busy.contains(p)).collect();
    let tty = rng.below(u64::from(kernels)) as u16;
    let sig = rng.pick(&[Sig::Stop, Sig::Tstp, Sig::Cont, Sig::Cont, Sig::Kill, Sig::Term])?;
    let Some(p) = rng.pick(&running) else {
        return Some(Op::Key { tty, sig: Sig::Term });
    };
    let session = model.procs[&p].sid;
    let own = model.sessions.get(&session).and_then(|s| s.0).unwrap_or(tty);
    let tty = if rng.one_in(8) { tty } else { own };
    let groups: Vec<Pid> = pids.iter().map(|q| model.procs[q].pgid).collect();
    let immune = !rng.one_in(4);
    Some(match rng.below(24) {
        0..4 if model.procs.len() < PROCESSES => {
            *next += 1;
            Op::Fork { p, child: *next }
        }
        4..7 => {
            let children: Vec<Pid> = pids.iter().copied().filter(|c| model.procs[c].ppid == p).collect();
            let target = rng.pick(&children).filter(|_| !rng.one_in(4)).unwrap_or(p);
            Op::SetGroup { p, target, pgid: if rng.one_in(2) { target } else { rng.pick(&groups)? } }
        }
        7..9 => Op::Front { p, tty, pgid: rng.pick(&groups)?, immune },
        9 => Op::GetFront { p, tty },
        10 => Op::Read { p, tty, immune: !immune },
        11..13 => Op::Open { p: if rng.one_in(2) { session } else { p }, tty },
        13 if rng.one_in(3) => Op::GiveUp { p, tty },
        13..15 => Op::Key { tty, sig: if rng.one_in(3) { Sig::Term } else { Sig::Tstp } },
        15..17 => Op::KillGroup { p, pgid: rng.pick(&groups)?, sig },
        17 if p != SHELL || rng.one_in(6) => Op::Exit { p },
        18..20 => Op::Wait { p },
        20..23 => Op::Exec { p, to: rng.below(u64::from(kernels)) as u16 },
        // Linux hangs up a group of another session too that has the number of the last foreground group: it knows groups by number. A session here
        // signals only its own (ARCHITECTURE.md).
        23 if rng.one_in(2) && model.sessions.get(&session).is_none_or(|s| s.1 != p) => Op::SetSid { p },
        _ => Op::Wait { p },
    })
}

/// Whether Linux gives this for the calls in some order; the model goes on from there.
fn explained(before: &Model, calls: &[Op], ended: &[Outcome], seen: &Model) -> bool {
    fn search(at: &Model, calls: &[Op], ended: &[Outcome], left: u32, seen: &Model) -> bool {
        if left == 0 {
            return same(at, seen);
        }
        (0..calls.len()).filter(|n| left & 1 << n != 0).any(|n| {
            // How a call of a process that died ended nobody knows.
            let dead = |p: Pid| seen.procs.get(&p).is_none_or(|q| q.life == Life::Zombie);
            let secret = calls[n].caller().is_some_and(dead);
            let fits = |outcome| outcome == ended[n] || secret;
            // It was about to take a signal, and did not get to it.
            if ended[n] == Outcome::NotRun && search(at, calls, ended, left & !(1 << n), seen) {
                return true;
            }
            let mut next = at.clone();
            let outcome = next.step(calls[n]);
            if fits(outcome) && search(&next, calls, ended, left & !(1 << n), seen) {
                return true;
            }
            let mut next = at.clone();
            outcome == Outcome::NotRun
                && ended[n] != Outcome::NotRun
                && fits(next.go_on(calls[n]))
                && search(&next, calls, ended, left & !(1 << n), seen)
        })
    }
    search(before, calls, ended, (1 << calls.len()) - 1, seen) || taken_late(before, calls, ended, seen)
}

/// The same, where a signal is generated with its call and each process takes it later.
fn taken_late(before: &Model, calls: &[Op], ended: &[Outcome], seen: &Model) -> bool {
    let Some(sender) = calls.iter().position(|op| matches!(op, Op::Key { .. } | Op::KillGroup { .. })) else {
        return false;
    };
    let mut known = BTreeSet::new();
    let mut open = vec![(before.clone(), (1_u32 << calls.len()) - 1, None::<Vec<Pid>>)];
    let mut signal = Sig::Term;
    while let Some((at, left, waits)) = open.pop() {
        if !known.insert((at.clone(), left, waits.clone())) {
            continue;
        }
        if left == 0 && waits.as_ref().is_none_or(Vec::is_empty) && same(&at, seen) {
            return true;
        }
        for n in (0..calls.len()).filter(|n| left & 1 << n != 0) {
            let left = left & !(1 << n);
            if n == sender {
                if let Some((whom, sig)) = at.aim(calls[n]).filter(|_| ended[n] == Outcome::Ok(0)) {
                    signal = sig;
                    open.push((at.clone(), left, Some(whom)));
                }
                continue;
            }
            let secret = calls[n].caller().is_some_and(|p| seen.procs.get(&p).is_none_or(|q| q.life == Life::Zombie));
            if ended[n] == Outcome::NotRun {
                open.push((at.clone(), left, waits.clone()));
            }
            let mut next = at.clone();
            if next.step(calls[n]) == ended[n] || secret {
                open.push((next, left, waits.clone()));
            }
        }
        for pid in waits.iter().flatten() {
            let mut next = at.clone();
            next.take(*pid, signal);
            let rest = waits.iter().flatten().copied().filter(|p| p != pid).collect();
            open.push((next, left, Some(rest)));
        }
    }
    false
}

/// What pid 1 did not ask about nobody can see.
fn visible(model: &Model) -> Model {
    let mut model = model.clone();
    for p in model.procs.values_mut() {
        if p.ppid == INIT {
            p.report = None;
        }
        if p.life == Life::Zombie {
            p.doomed = false;
        }
    }
    model
}

fn same(a: &Model, b: &Model) -> bool {
    visible(a) == visible(b)
}

/// Runs a seed.
///
/// # Errors
/// What Linux does not do.
pub fn run(seed: u64, trace: bool) -> Result<Report, String> {
    let mut rng = Rng::new(seed ^ 0x5e55_1015);
    let kernels = rng.between(2, 5) as u16;
    let place = rng.below(u64::from(kernels)) as u16;
    let mut machine = Machine::new(usize::from(kernels), SHELL, place, Rng::new(rng.next()), trace);
    let mut model = Model::new(SHELL, place);
    let mut report = Report::default();
    let mut next = SHELL;
    let rounds = rng.between(8, 24);
    let crash = rng.one_in(4);
    for round in 0..rounds {
        if model.procs.len() == 1 {
            break;
        }
        let mut busy = BTreeSet::new();
        let mut calls = Vec::new();
        for _ in 0..rng.between(1, 5) {
            if let Some(op) = a_call(&mut rng, &model, kernels, &mut next, &busy)
                && op.caller().is_none_or(|p| !busy.contains(&p))
                // When two are about to stop and to end the same processes, Linux looks twice with its locks dropped in between; this model does not.
                && !(op.signals() && calls.iter().any(Op::signals))
                // Nor does it know of processes that a signal was sent to and that did not take it yet.
                && !(op.signals() && calls.iter().any(Op::regroups))
                && !(op.regroups() && calls.iter().any(Op::signals))
            {
                busy.extend(op.caller());
                calls.push(op);
            }
        }
        report.calls += calls.len() as u64;
        machine.results = vec![None; calls.len()];
        for (number, op) in calls.iter().enumerate() {
            machine.begin(number, *op);
            for _ in 0..rng.below(6) {
                machine.deliver();
            }
        }
        if crash && round + 1 == rounds {
            // Not the kernel of pid 1: a new one would have to come.
            machine.crash(1 + rng.below(u64::from(kernels) - 1) as u16);
            machine.agrees().map_err(|e| format!("after a death: {e}"))?;
            break;
        }
        machine.quiet();
        let seen = machine.seen().map_err(|e| format!("round {round}, after {calls:?}: {e}"))?;
        let ended: Option<Vec<Outcome>> = machine.results.iter().copied().collect();
        let ended = ended.ok_or_else(|| format!("round {round}: a call of {calls:?} never ends"))?;
        if !explained(&model, &calls, &ended, &seen) {
            let mut wants = model.clone();
            let one: Vec<Outcome> = calls.iter().map(|op| wants.step(*op)).collect();
            return Err(format!(
                "round {round}: Linux gives this in no order\n  before {model:?}\n  calls {calls:?}\n  ended {ended:?}\n  seen {seen:?}\n  \
                 in this order Linux ends {one:?}\n  and is {wants:?}"
            ));
        }
        model = seen;
        // What pid 1 was not told cannot be seen, and does not matter.
        model = visible(&model);
    }
    report.messages = machine.messages;
    Ok(report)
}
