//! One run: the machine of a case is switched on, its programs run, and what is left is looked at.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use hal::host::{MachineConfig, Outcome, UserCpu};

use crate::{
    archive,
    calls::{Cpu, SIGPIPE, errno, nr},
    check,
    env::Env,
    machine::Simulated,
    plan::Case,
    programs::{ALL, EXCUSED, Job, LEAF, status},
    rng::Rng,
};

/// Turns that a run may take before it counts as hanging.
const TURNS: u64 = 500_000;
/// How long what was begun may take to end when all programs did, in ns: longer than it takes to notice a death, and than a kernel sends on what
/// comes for a process that moved away.
const SETTLE: u64 = 25_000_000_000;

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// A number for all that happened.
    pub trace: u64,
    /// Decisions of the scheduler.
    pub decisions: u64,
    /// How long it took, in the machine's time, ns.
    pub time: u64,
}

/// A case that fails.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What does not hold.
    pub why: String,
    /// Decisions of the scheduler until then.
    pub decisions: u64,
}

/// Runs a case; `trace` prints what happens.
///
/// # Errors
/// What does not hold.
pub fn run(case: &Case, trace: bool) -> Result<Report, Failure> {
    let mut decisions = 0;
    verdict(case, trace, &mut decisions).map_err(|why| Failure { why, decisions })
}

fn verdict(case: &Case, trace: bool, decisions: &mut u64) -> Result<Report, String> {
    // The programs' addresses are known before the machine is: they are given in order.
    let entries = [("sbin/init", 0x40_0000), ("bin/run", 0x40_0010)];
    let config = MachineConfig {
        kernels: case.shape.config(),
        archive: archive::build(&entries),
        seed: case.seed,
        calm: case.calm.clone(),
        faults: case.faults.clone(),
        trace,
    };
    let simulated = Simulated::new(&config);
    let env = Env::new(&simulated.machine, &simulated.board, &case.shape.cpus);
    let jobs = case.jobs.clone();
    let verdict: Arc<Mutex<Option<Result<(), String>>>> = Arc::default();
    let (init_env, said) = (env.clone(), verdict.clone());
    let init = move |user: &mut UserCpu| {
        let mut cpu = Cpu::new(user, init_env.clone(), Rng::new(0), "init".into());
        let end = first(&mut cpu, &jobs);
        *said.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        // RB_POWER_OFF with its magic numbers.
        let _ = cpu.call(nr::REBOOT, &[0xfee1_dead, 672_274_793, 0x4321_fedc, 0]);
        1
    };
    let run_env = env.clone();
    for (program, (path, entry)) in
        [Arc::new(init) as hal::host::Program, Arc::new(move |user: &mut UserCpu| run_env.run(user))]
            .into_iter()
            .zip(entries)
    {
        let at = simulated.machine.program(program);
        assert_eq!(at.0, entry, "the address of {path}");
    }
    let ran = catch_unwind(AssertUnwindSafe(|| simulated.run(&case.shape, TURNS, "/sbin/init")));
    let machine = &simulated.machine;
    let report = Report { trace: machine.trace(), decisions: machine.decisions(), time: machine.now() };
    *decisions = report.decisions;
    let outcome = ran.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
    })?;
    let verdict = verdict.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (outcome, verdict) {
        (Outcome::PoweredOff(true), Some(end)) => end?,
        (outcome, _) => return Err(format!("it hangs ({outcome:?}): {}", check::processes(&simulated.machine, &env))),
    }
    check::logs(&simulated, &env)?;
    Ok(report)
}

/// The first process: starts the programs, takes in orphans, and looks at what is left when all have ended.
fn first(cpu: &mut Cpu<'_>, jobs: &[Job]) -> Result<(), String> {
    let broken = |what: &str, got: i64| format!("init: {what}: error {got}");
    cpu.signal(SIGPIPE, 1).map_err(|e| broken("signal", e))?;
    for (kind, at) in [("proc", "/proc"), ("devpts", "/dev/pts")] {
        cpu.mount(kind, at).map_err(|e| broken(at, e))?;
    }
    // All kernels are there before anything begins: none of the programs waits for one that boots.
    while cpu.env.board().ups() < cpu.env.kernels && !cpu.env.has_trouble() {
        cpu.sleep(1_000_000).map_err(|e| broken("sleep", e))?;
    }
    cpu.sleep(20_000_000).map_err(|e| broken("sleep", e))?;
    warm_up(cpu)?;
    let before = counted(cpu)?;
    if let Some(machine) = cpu.env.machine() {
        machine.arm();
    }
    let mut children = Vec::new();
    for job in jobs.iter().copied() {
        let name = format!("{}-{}", job.index, ALL[job.program].0);
        let child = cpu.fork(&name, move |cpu| {
            cpu.rng = Rng::new(job.seed);
            let play = move |cpu: &mut Cpu<'_>| status(ALL[job.program].1(cpu, job));
            if cpu.kernel() == job.place {
                return play(cpu);
            }
            let error = cpu.go(job.place, play);
            status(cpu.must(Err(error)).map(drop))
        });
        children.push(child.map_err(|e| broken("fork", e))?);
    }
    // A kernel that sees a death later than this one gives its orphans to us later: we may have been without children by then.
    while reap_all(cpu, &children)? {
        cpu.sleep(SETTLE).map_err(|e| broken("sleep", e))?;
    }
    let after = counted(cpu)?;
    check::left(&cpu.env, &before, &after)
}

/// Waits until there are no children; whether there were any. Programs and orphans must have ended well.
fn reap_all(cpu: &mut Cpu<'_>, children: &[i64]) -> Result<bool, String> {
    let mut any = false;
    loop {
        match cpu.wait(-1, 0) {
            Ok((pid, status)) => {
                any = true;
                let orphan = !children.contains(&pid);
                // An orphan was killed by a parent that died before it could wait.
                let killed = status == 9 || orphan && (1..64).contains(&status);
                // Who was to wait for a leaf died.
                let leaf = orphan && status == LEAF << 8;
                let excused = cpu.env.has_trouble() && (killed || leaf || status == EXCUSED << 8);
                if status != 0 && !excused {
                    return Err(format!(
                        "{} {pid} ended with status {status:#x}",
                        if orphan { "an orphan" } else { "a program" }
                    ));
                }
            }
            Err(errno::ECHILD) => return Ok(any),
            Err(error) => return Err(format!("init: wait4: error {error}")),
        }
    }
}

/// Counts what there is. A directory that was changed by other kernels forgets its old names when it is used again.
fn counted(cpu: &mut Cpu<'_>) -> Result<check::Counts, String> {
    let made = cpu.path(nr::MKDIR, "/tmp/last", 0o700);
    let used = made.and_then(|_| cpu.path(nr::RMDIR, "/tmp/last", 0));
    used.map_err(|e| format!("init: a directory in /tmp: error {e}"))?;
    // The scheduler may have stopped a CPU of another kernel anywhere.
    while !check::nobody_holds_locks(&cpu.env) {
        cpu.sleep(10_000).map_err(|e| format!("init: sleep: error {e}"))?;
    }
    Ok(check::Counts::take(&cpu.env))
}

/// Uses what is made at first use (rings, caches of programs), so that it is no leak later.
fn warm_up(cpu: &mut Cpu<'_>) -> Result<(), String> {
    let kernels = cpu.env.kernels;
    for from in 0..kernels {
        let child = cpu.fork("warm", move |cpu| {
            let visit = move |cpu: &mut Cpu<'_>| visit(cpu, from);
            if cpu.kernel() == from { visit(cpu) } else { 100 + i32::from(cpu.go(from, visit) != 0) }
        });
        let child = child.map_err(|e| format!("init: fork: error {e}"))?;
        let ended = cpu.wait(child, 0);
        if ended != Ok((child, 0)) {
            return Err(format!("the first program on kernel {from} ended with {ended:?}"));
        }
    }
    let _ = cpu.sleep(SETTLE);
    Ok(())
}

/// Talks to every kernel from `from`: much in both directions.
fn visit(cpu: &mut Cpu<'_>, from: u16) -> i32 {
    for to in 0..cpu.env.kernels {
        let Ok((there, here)) = cpu.pipe(0) else { return 1 };
        let Ok((back, answer)) = cpu.pipe(0) else { return 1 };
        let child = cpu.fork("echo", move |cpu| {
            let echo = move |cpu: &mut Cpu<'_>| {
                let closed = cpu.close(here).is_ok() && cpu.close(back).is_ok();
                match cpu.read_all(there, 20_000) {
                    Ok(got) if closed && cpu.write_all(answer, &got).is_ok() => 0,
                    _ => 2,
                }
            };
            if to == from { echo(cpu) } else { 100 + i32::from(cpu.go(to, echo) != 0) }
        });
        let Ok(child) = child else { return 3 };
        let said = cpu.close(there).is_ok() && cpu.close(answer).is_ok() && cpu.write_all(here, &[7; 20_000]).is_ok();
        let heard = cpu.read_all(back, 30_000).is_ok_and(|got| got.len() == 20_000) | cpu.close(here).is_err();
        let closed = cpu.close(back).is_ok();
        if cpu.wait(child, 0) != Ok((child, 0)) || !said || !heard || !closed {
            return 4;
        }
    }
    0
}
